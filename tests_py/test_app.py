"""The App: routes, routers, mounts, middleware, lifespan, and what it says about itself."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Optional

import httpx
import pytest

from httpy import App, ConfigError, HTTPError, Request, Response, RouteError, Router, Server, forbidden

Serve = Callable[..., httpx.Client]


@dataclass
class Item:
    name: str
    price: float


# Routes


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "options"])
def test_each_method_has_a_decorator(method: str, serve: Serve) -> None:
    app = App()

    @getattr(app, method)("/")
    def handler() -> str:
        return method

    client = serve(app)

    assert client.request(method.upper(), "/").text == method
    assert client.request("PURGE", "/").status_code == 405


def test_head_has_a_decorator_and_get_answers_it_otherwise(serve: Serve) -> None:
    app = App()
    app.get("/a")(lambda: "body")
    app.head("/b")(lambda: Response(headers={"x-a": "1"}))

    client = serve(app)

    assert (client.head("/a").headers["content-length"], client.head("/a").content) == ("4", b"")
    assert client.head("/b").headers["x-a"] == "1"


def test_a_route_may_have_several_methods_or_any(serve: Serve) -> None:
    app = App()

    @app.route("/some", methods=["get", "PURGE"])
    def some(request: Request) -> str:
        return request.method

    app.add_route(None, "/any", lambda request: request.method)
    app.add_route("POST", "/one", lambda: "one")
    client = serve(app)

    assert [client.request(method, "/some").text for method in ("GET", "PURGE")] == ["GET", "PURGE"]
    assert client.request("BREW", "/any").text == "BREW"
    assert client.post("/one").text == "one"


def test_a_decorator_returns_the_handler() -> None:
    app = App()

    def handler() -> None: ...

    assert app.get("/")(handler) is handler
    assert app.error(404)(handler) is handler
    assert app.on_startup(handler) is handler


@pytest.mark.parametrize("kind", ["async", "pooled", "inline"])
def test_parameters_come_from_path_query_and_body(kind: str, serve: Serve) -> None:
    app = App()

    async def asynchronous(id: int, item: Item, request: Request, verbose: bool = False) -> Any:
        return {"id": id, "name": item.name, "verbose": verbose, "method": request.method}

    @functools.wraps(asynchronous)
    def plain(*args: Any, **kwargs: Any) -> Any:
        with pytest.raises(StopIteration) as ended:
            asynchronous(*args, **kwargs).send(None)
        return ended.value.value

    if kind == "async":
        app.post("/items/<int:id>")(asynchronous)
    else:
        del plain.__wrapped__
        plain.__signature__ = __import__("inspect").signature(asynchronous)  # type: ignore[attr-defined]
        app.post("/items/:id", inline=kind == "inline")(plain)

    response = serve(app).post("/items/7?verbose=yes", json={"name": "a", "price": 1})

    assert response.json() == {"id": 7, "name": "a", "verbose": True, "method": "POST"}


def test_what_does_not_fit_is_a_422_with_its_place(serve: Serve) -> None:
    app = App()

    @app.post("/{id}")
    async def handler(id: int, page: int, item: Item, tag: Optional[list[int]] = None) -> None: ...

    response = serve(app).post("/x?tag=1&tag=y", json={"name": 1})

    assert response.status_code == 422
    assert [(misfit["loc"], misfit["type"]) for misfit in response.json()["detail"]] == [
        (["path", "id"], "int_parsing"),
        (["query", "page"], "missing"),
        (["body", "name"], "str_type"),
        (["body", "price"], "missing"),
        (["query", "tag", 1], "int_parsing"),
    ]


def test_the_body_may_be_optional(serve: Serve) -> None:
    app = App()

    @app.post("/")
    async def handler(item: Optional[Item] = None) -> Any:
        return item or "none"

    client = serve(app)

    assert client.post("/").text == "none"
    assert client.post("/", content=b"null").text == "none"
    assert client.post("/", json={"name": "a", "price": 1}).json() == {"name": "a", "price": 1.0}


def test_defaults_and_names_reach_handlers_of_every_signature(serve: Serve) -> None:
    app = App()
    marker = object()

    @app.get("/mixed/{a}")
    async def mixed(a: str, /, left: Any = marker, b: int = 2, *, c: str = "c") -> Any:
        return [a, b, c]

    @app.get("/marker")
    async def left(other: object = marker) -> Any:
        return other is marker

    client = serve(app)

    assert client.get("/mixed/x?b=3").json() == ["x", 3, "c"]
    assert client.get("/marker").json() is True


def test_status_is_that_of_the_route(serve: Serve) -> None:
    app = App()
    app.post("/", status=201)(lambda: {"id": 1})

    assert serve(app).post("/").status_code == 201


def test_objects_methods_and_partials_are_handlers(serve: Serve) -> None:
    class Greeter:
        def __init__(self, word: str) -> None:
            self.word = word

        async def __call__(self, name: str) -> str:
            return f"{self.word} {name}"

        def method(self, name: str) -> str:
            return f"{self.word} {name}."

    app = App()
    app.get("/a/{name}")(Greeter("Hello"))
    app.get("/b/{name}")(Greeter("Goodbye").method)
    app.get("/c/{name}")(functools.partial(Greeter.method, Greeter("Welcome")))
    client = serve(app)

    assert [client.get(f"/{path}/you").text for path in "abc"] == [
        "Hello you",
        "Goodbye you.",
        "Welcome you.",
    ]


def test_a_plain_decorator_around_an_async_handler_works(serve: Serve) -> None:
    def shouting(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    app = App()

    @app.get("/{name}")
    @shouting
    async def handler(name: str, times: int = 1) -> str:
        return name * times

    assert serve(app).get("/a?times=3").text == "aaa"


def test_a_path_with_the_other_slash_is_sent_on(serve: Serve) -> None:
    app, strict = App(), App(redirect_slashes=False)
    app.get("/a/")(lambda: "a")
    strict.get("/a/")(lambda: "a")

    response = serve(app).get("/a?b=c")

    assert response.is_redirect
    assert response.headers["location"] == "/a/?b=c"
    assert serve(strict).get("/a").status_code == 404


# What is refused at registration


def test_two_routes_for_one_request_are_refused_with_both_places() -> None:
    app = App()
    app.get("/users/{id}")(lambda id: id)

    with pytest.raises(RouteError) as caught:
        app.get("/users/:name")(lambda name: name)

    assert "route GET /users/:name conflicts with GET /users/{id} at " in str(caught.value)
    assert str(caught.value).count(__file__) == 2


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda app: app.get("users"), "a pattern starts with `/`, found 'users'"),
        (lambda app: app.get("/{id"), "expected `}`"),
        (lambda app: app.get("/", nam="x"), "has no option 'nam'; there are name, status, inline"),
        (lambda app: app.route("/", methods=["GET /"]), "a method is a word such as GET, found 'GET /'"),
        (lambda app: app.route("/", methods=[]), "a method is a word such as GET"),
    ],
)
def test_mistakes_are_refused_with_the_place(register: Callable[[App], Any], message: str) -> None:
    def handler() -> None: ...

    with pytest.raises(RouteError) as caught:
        register(App())(handler)

    assert message in str(caught.value)


def test_registering_while_being_served_is_refused() -> None:
    app = App()
    router = Router()
    app.include(router)

    with Server(app, port=0):
        for register in (app.get("/a"), router.get("/b"), app.error(404)):
            with pytest.raises(RouteError, match="the app is being served"):
                register(lambda: None)
        with pytest.raises(RouteError, match="the app is being served"):
            app.middleware(passing)

    app.get("/a")(lambda: None)


async def passing(request: Request, next: Any) -> Any:
    return await next(request)


# Names


def test_url_for_builds_paths() -> None:
    app = App()
    app.get("/users/{id:int}", name="user")(lambda id: id)
    app.get("/files/{rest:path}", name="file")(lambda rest: rest)
    app.get("/é/{word}", name="word")(lambda word: word)

    assert app.url_for("user", id=7) == "/users/7"
    assert app.url_for("file", rest="a b/c") == "/files/a%20b/c"
    assert app.url_for("word", word="a/ü") == "/%C3%A9/a%2F%C3%BC"


def test_a_handler_names_its_route_and_parameters_choose_among_several() -> None:
    app = App()

    @app.get("/pages")
    @app.get("/pages/{number:int}")
    def pages(number: int = 1) -> None: ...

    assert app.url_for("pages") == "/pages"
    assert app.url_for("pages", number=2) == "/pages/2"


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("usr", {}, "no route is named 'usr'; there are: user"),
        ("user", {}, "route 'user': "),
        ("user", {"id": "x"}, "route 'user': "),
        ("user", {"id": 1, "more": 2}, "route 'user': "),
    ],
)
def test_url_for_refuses_what_does_not_fit(name: str, params: dict[str, Any], message: str) -> None:
    app = App()
    app.get("/users/{id:int}", name="user")(lambda id: id)

    with pytest.raises(RouteError, match=message):
        app.url_for(name, **params)


def test_a_name_belongs_to_one_pattern() -> None:
    app = App()
    app.get("/a", name="x")(lambda: None)
    app.post("/a", name="x")(lambda: None)

    with pytest.raises(RouteError, match="is named 'x', and so is GET /a"):
        app.get("/b", name="x")(lambda: None)


# Routers


def test_routers_nest_and_may_be_filled_before_or_after(serve: Serve) -> None:
    app = App()
    outer, inner = Router(prefix="/outer"), Router(prefix="/{id:int}")
    inner.get("/before")(lambda id: f"before {id}")
    outer.include(inner, prefix="/inner")
    app.include(outer, prefix="/api/")
    inner.get("/after")(lambda id: f"after {id}")
    inner.get("")(lambda id: f"itself {id}")

    client = serve(app)

    assert client.get("/api/outer/inner/7/before").text == "before 7"
    assert client.get("/api/outer/inner/7/after").text == "after 7"
    assert client.get("/api/outer/inner/7").text == "itself 7"
    assert app.routes[0].pattern == "/api/outer/inner/{id:int}/before"


def test_a_parameter_of_the_prefix_is_a_path_parameter(serve: Serve) -> None:
    app, router = App(), Router()

    @router.get("/posts")
    def posts(user: int) -> int:
        return user + 1

    app.include(router, prefix="/users/{user:int}")
    app.include(router, prefix="/everybody")
    client = serve(app)

    assert client.get("/users/1/posts").json() == 2
    assert client.get("/everybody/posts?user=5").json() == 6


def test_a_conflict_is_found_wherever_the_router_is_included() -> None:
    app, router = App(), Router()
    app.get("/api/a")(lambda: None)
    app.include(router, prefix="/api")

    with pytest.raises(RouteError, match="conflicts with GET /api/a"):
        router.get("/a")(lambda: None)

    assert router.routes == ()
    assert len(app.routes) == 1


def test_a_router_cannot_include_itself() -> None:
    outer, inner = Router(), Router()
    outer.include(inner)

    for router, other in ((outer, outer), (inner, outer)):
        with pytest.raises(RouteError, match="a router can't include itself"):
            router.include(other)


def test_only_routers_are_included() -> None:
    with pytest.raises(TypeError, match=r"found App; mount an app with app\.mount"):
        App().include(App())  # type: ignore[arg-type]
    with pytest.raises(RouteError, match="a prefix starts with `/`, found 'api'"):
        App().include(Router(), prefix="api")


# What a request is made of


def test_headers_and_query_equal_mappings_of_the_same_items(serve: Serve) -> None:
    app = App()

    @app.get("/")
    async def index(request: Request) -> Any:
        return [
            [
                found == dict(found),
                found == other,
                found == [*found.items()],
                found == 7,
                found != dict(found),
            ]
            for found, other in ((request.headers, {"host": "x"}), (request.query, {"a": "2", "b": ""}))
        ]

    assert serve(app).get("/?a=1&b=&a=2").json() == [
        [True, False, True, False, False],
        [True, True, True, False, False],
    ]


# Mounts


def test_a_mounted_app_answers_below_its_prefix(serve: Serve) -> None:
    app, below = App(), App()
    below.state.name = "below"
    app.get("/a")(lambda: "app")
    below.get("/a")(lambda request: [request.app.state.name, request.path])
    below.error(404)(lambda: "not below")
    app.mount("/below", below)
    client = serve(app)

    assert client.get("/a").text == "app"
    assert client.get("/below/a").json()[0] == "below"
    assert client.get("/below/b").text == "not below"
    assert client.get("/b").json() == {"detail": "Not Found"}


def test_a_mounted_app_sees_the_whole_path_and_what_mounts_took_of_it(serve: Serve) -> None:
    app, below, lowest = App(), App(), App()

    @lowest.get("/{rest:path}")
    async def where(request: Request) -> Any:
        return [request.path, request.root_path, request.raw_path.decode(), request.path_params]

    below.mount("/b", lowest)
    app.mount("/\u00e9", below)
    client = serve(app)

    assert client.get("/%C3%A9/b/c/d?q").json() == [
        "/\u00e9/b/c/d",
        "/\u00e9/b",
        "/%C3%A9/b/c/d",
        {"rest": "c/d"},
    ]


def test_mounts_that_cannot_work_are_refused() -> None:
    app, below = App(), App()
    app.mount("/a", below)

    for prefix, mounted in (("/a", App()), ("", App()), ("/{id}", App()), ("/b", app)):
        with pytest.raises(RouteError):
            app.mount(prefix, mounted)
    with pytest.raises(RouteError, match="an app can't contain itself"):
        below.mount("/c", app)


# Middleware


def marking(name: str) -> Any:
    async def mark(request: Request, next: Any) -> Response:
        response: Response = await next(request)
        response.headers["x-passed"] = f"{name} {response.headers.get('x-passed', '')}".strip()
        return response

    return mark


class Marking:
    async def __call__(self, request: Request, next: Any) -> Response:
        return await marking("object")(request, next)  # type: ignore[no-any-return]


@pytest.mark.parametrize("inline", [None, False, True])
def test_middleware_runs_in_the_order_written(inline: Optional[bool], serve: Serve) -> None:
    app = App(middleware=[marking("first")])
    app.use(marking("second"), Marking())
    app.middleware(marking("last"))
    if inline is None:

        @app.get("/")
        async def asynchronous() -> str:
            return "async"
    else:
        app.get("/", inline=inline)(lambda: "plain")

    response = serve(app).get("/")

    assert response.status_code == 200
    assert response.headers["x-passed"] == "first second object last"


def test_a_result_of_middleware_has_not_the_status_of_the_route(serve: Serve) -> None:
    async def instead(request: Request, next: Any) -> Any:
        return "instead"

    async def around(request: Request, next: Any) -> Any:
        return await next(request)

    for middleware in ([instead], [around, instead]):
        app = App(middleware=middleware)
        app.post("/", status=201)(lambda: "made")

        response = serve(app).post("/")

        assert (response.status_code, response.text) == (200, "instead")


def test_middleware_sees_what_the_router_refuses(serve: Serve) -> None:
    app = App(middleware=[marking("app")])
    app.get("/")(lambda: "a")
    client = serve(app)

    assert [client.get("/b").headers["x-passed"], client.post("/").headers["x-passed"]] == ["app", "app"]


def test_middleware_sees_the_response_of_an_http_error(serve: Serve) -> None:
    app = App(middleware=[marking("app")])

    @app.get("/{status:int}")
    async def fail(status: int) -> None:
        raise HTTPError(status)

    @app.get("/")
    async def unfit(page: int) -> None: ...

    app.error(410)(lambda: "gone")
    client = serve(app)

    for path, status in (("/409", 409), ("/410", 410), ("/", 422)):
        response = client.get(path)
        assert (response.status_code, response.headers["x-passed"]) == (status, "app")


def test_middleware_of_a_router_is_inside_the_apps_and_around_its_routes_only(serve: Serve) -> None:
    app = App(middleware=[marking("app")])
    outer, inner = Router("/outer", middleware=[marking("outer")]), Router("/inner")
    inner.get("/a")(lambda: "a")
    outer.get("/b")(lambda: "b")
    outer.include(inner)
    app.include(outer)
    app.get("/c")(lambda: "c")
    inner.middleware(marking("inner"))
    client = serve(app)

    passed = [client.get(path).headers["x-passed"] for path in ("/outer/inner/a", "/outer/b", "/c")]

    assert passed == ["app outer inner", "app outer", "app"]


def test_middleware_of_a_router_comes_before_parameters_are_converted(serve: Serve) -> None:
    async def deny(request: Request, next: Any) -> Response:
        return forbidden()

    app, router = App(), Router(middleware=[deny])
    router.get("/")(lambda page=1: page)
    app.include(router)

    assert serve(app).get("/?page=x").status_code == 403


@pytest.mark.parametrize(
    ("middleware", "message"),
    [
        (lambda request, next: None, "is not `async def`"),
        (Marking, "found the class Marking: pass an instance of it"),
        (7, "found 7"),
    ],
)
def test_what_is_no_middleware_is_refused(middleware: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        App().use(middleware)


def test_middleware_takes_two_arguments() -> None:
    async def one(request: Request) -> None: ...

    with pytest.raises(ConfigError, match="`one` can't be called with two arguments"):
        App().use(one)


# Lifespan


def test_lifespan_runs_around_everything_in_one_task(serve: Serve) -> None:
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, Any]]:
        events.append(f"enter {app.title}")
        yield {"database": "connected"}
        events.append("exit")

    app = App(lifespan=lifespan, title="example")
    app.on_startup(lambda: events.append("startup"))

    @app.on_startup
    async def second(app: App) -> None:
        app.state.ready = True
        events.append("async startup")

    app.on_shutdown(lambda: events.append("shutdown"))

    @app.on_shutdown
    async def last() -> None:
        events.append("async shutdown")

    @app.get("/")
    def handler(request: Request) -> Any:
        events.append("request")
        return {"database": request.state.database, "ready": request.app.state.ready}

    with Server(app, port=0) as server:
        response = httpx.get(server.url)

    assert response.json() == {"database": "connected", "ready": True}
    assert events == [
        "enter example",
        "startup",
        "async startup",
        "request",
        "shutdown",
        "async shutdown",
        "exit",
    ]


def generator(app: App) -> Iterator[dict[str, int]]:
    yield {"a": 1}


async def async_generator() -> AsyncIterator[dict[str, int]]:
    yield {"a": 1}


class Manager:
    def __init__(self, app: App) -> None:
        pass

    def __enter__(self) -> dict[str, int]:
        return {"a": 1}

    def __exit__(self, *error: object) -> None:
        pass


@pytest.mark.parametrize(
    "lifespan",
    [
        generator,
        async_generator,
        contextlib.contextmanager(generator),
        contextlib.asynccontextmanager(async_generator),
        Manager,
    ],
)
def test_any_kind_of_lifespan_works(lifespan: Any, serve: Serve) -> None:
    app = App(lifespan=lifespan)
    app.get("/")(lambda request: request.state.a)

    assert serve(app).get("/").json() == 1


def test_the_lifespan_of_a_mounted_app_is_inside(serve: Serve) -> None:
    events: list[str] = []

    def named(name: str) -> Any:
        def lifespan() -> Iterator[dict[str, str]]:
            events.append(f"{name} up")
            yield {"name": name}
            events.append(f"{name} down")

        return lifespan

    app, below = App(lifespan=named("app")), App(lifespan=named("below"))
    app.mount("/below", below)
    below.get("/")(lambda request: request.state.name)

    with Server(app, port=0) as server:
        assert httpx.get(server.url + "/below/").text == "below"

    assert events == ["app up", "below up", "below down", "app down"]


def test_state_is_each_requests_own(serve: Serve) -> None:
    app = App(lifespan=generator)

    @app.get("/")
    def handler(request: Request) -> Any:
        seen = vars(request.state).copy()
        request.state.b = 2
        return seen

    client = serve(app)

    assert [client.get("/").json(), client.get("/").json()] == [{"a": 1}, {"a": 1}]


def wrong_value() -> Iterator[int]:
    yield 7


def test_what_lifespan_yields_is_a_mapping() -> None:
    with pytest.raises(ConfigError, match="lifespan yields a mapping"):
        Server(App(lifespan=wrong_value), port=0).start()
    with pytest.raises(ConfigError, match="lifespan returns a context manager, found int"):
        Server(App(lifespan=lambda app: 7), port=0).start()


async def never_yields(app: App) -> None: ...


@pytest.mark.parametrize("lifespan", [7, never_yields, lambda a, b: None])
def test_what_is_no_lifespan_is_refused(lifespan: Any) -> None:
    with pytest.raises(ConfigError):
        App(lifespan=lifespan)


@pytest.mark.parametrize("hook", [7, generator, lambda a, b: None])
def test_what_is_no_startup_function_is_refused(hook: Any) -> None:
    with pytest.raises(ConfigError):
        App().on_startup(hook)


# About itself


def test_describe_prints_the_chain_and_the_routes(capsys: pytest.CaptureFixture[str]) -> None:
    app = App(title="Shop", version="2.0", middleware=[marking("a")])
    below, router = App(), Router(prefix="/api", middleware=[marking("b")])

    @app.get("/", inline=True)
    def index() -> None: ...

    @router.route("/items/<int:id>", methods=["GET", "PUT"], name="item")
    async def read(id: int, verbose: bool = False) -> None: ...

    below.get("/x")(index)
    app.include(router)
    app.mount("/below", below)

    app.describe()

    text = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0].startswith("Shop 2.0, HTTPy ")
    assert "[rust: protocol -> router] -> [python: mark -> handler]" in lines
    assert "GET / index def, on the loop" in lines
    assert (
        "GET PUT /api/items/{id:int} mark -> read as item async def, on the loop "
        "id: path int, verbose: query bool = False"
    ) in lines
    assert "GET /below/x index def, on a pool thread" in lines


def test_describe_prints_where_it_is_told_to() -> None:
    file = io.StringIO()

    App().describe(file)

    assert "Routes\n  none\n" in file.getvalue()
