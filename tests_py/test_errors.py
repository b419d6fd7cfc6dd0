"""The exceptions, and who answers them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from httpy import (
    App,
    ClientDisconnected,
    ConfigError,
    HTTPError,
    HTTPyError,
    Request,
    Response,
    RouteError,
    WebSocketDisconnect,
)

Serve = Callable[..., httpx.Client]


@pytest.mark.parametrize(
    "error", [ClientDisconnected, ConfigError, HTTPError, RouteError, WebSocketDisconnect]
)
def test_every_exception_is_an_httpy_error(error: type) -> None:
    assert issubclass(error, HTTPyError)


def test_a_config_error_is_a_value_error() -> None:
    assert issubclass(ConfigError, ValueError)


def test_an_http_error_says_status_and_detail() -> None:
    error = HTTPError(404, "no such user", headers={"x-a": "1"})

    assert (error.status, error.detail, error.headers) == (404, "no such user", {"x-a": "1"})
    assert str(error) == "404: no such user"
    assert HTTPError(404).detail == "Not Found"
    assert HTTPError(599).detail == ""


@pytest.mark.parametrize("status", [99, 600, "404", True])
def test_an_http_error_has_a_status(status: Any) -> None:
    with pytest.raises(ValueError, match="an HTTP status is a number from 200 to 599"):
        HTTPError(status)


def test_exceptions_can_be_copied_and_sent_to_other_processes() -> None:
    error = HTTPError(404, {"a": 1}, {"x-a": "1"})
    closed = WebSocketDisconnect(1001, "going away")

    for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (same.status, same.detail, same.headers) == (404, {"a": 1}, {"x-a": "1"})
    assert str(pickle.loads(pickle.dumps(closed))) == "1001: going away"


def test_an_http_error_is_the_response(serve: Serve) -> None:
    app = App()

    @app.get("/")
    async def handler() -> None:
        raise HTTPError(409, {"reason": "taken"}, headers={"x-a": "1"})

    response = serve(app).get("/")

    assert (response.status_code, response.json()) == (409, {"detail": {"reason": "taken"}})
    assert response.headers["x-a"] == "1"


def test_a_crash_says_nothing_about_internals(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.get("/")
    async def handler() -> None:
        raise RuntimeError("secret")

    response = serve(app).get("/")

    assert response.status_code == 500
    assert "secret" not in response.text
    assert "secret" in caplog.text


class OutOfStock(Exception):
    pass


class SoldOut(OutOfStock):
    pass


class Teapot(HTTPError):
    def __init__(self) -> None:
        super().__init__(418)


@pytest.fixture(params=["async", "pooled", "inline"])
def raising(request: pytest.FixtureRequest) -> Callable[[App, BaseException], None]:
    """Registers a handler of each kind for `/` that raises."""

    def register(app: App, error: BaseException) -> None:
        def plain() -> None:
            raise error

        async def asynchronous() -> None:
            raise error

        if request.param == "async":
            app.get("/")(asynchronous)
        else:
            app.get("/", inline=request.param == "inline")(plain)

    return register


Raising = Callable[[App, BaseException], None]


def test_the_nearest_class_answers(serve: Serve, raising: Raising) -> None:
    app = App()
    app.error(Exception)(lambda request, error: "any")
    app.error(OutOfStock)(lambda request, error: (f"{request.path} {error}", 409))
    raising(app, SoldOut("apples"))

    response = serve(app).get("/")

    assert (response.status_code, response.text) == (409, "/ apples")


def test_an_async_handler_answers(serve: Serve, raising: Raising) -> None:
    app = App()

    @app.error(OutOfStock)
    async def answer(request: Request, error: OutOfStock) -> Response:
        return Response(str(error), 409)

    raising(app, OutOfStock("pears"))

    response = serve(app).get("/")

    assert (response.status_code, response.text) == (409, "pears")


def test_a_handler_takes_what_it_names(serve: Serve) -> None:
    app = App()
    app.error(400)(lambda: "nothing")
    app.error(401)(lambda request: request.path)
    app.error(402)(lambda exc: exc.detail)

    @app.error(403)
    def by_annotation(why: HTTPError) -> Any:
        return why.detail

    @app.get("/{status:int}")
    async def fail(status: int) -> None:
        raise HTTPError(status, f"detail {status}")

    client = serve(app)
    found = [(r.status_code, r.text) for r in (client.get(f"/{status}") for status in range(400, 404))]

    assert found == [(400, "nothing"), (401, "/401"), (402, "detail 402"), (403, "detail 403")]


def test_the_status_is_the_errors_unless_the_answer_says_another(serve: Serve) -> None:
    app = App()
    app.error(404)(lambda: {"nothing": "here"})
    app.error(ZeroDivisionError)(lambda: "crash")
    app.error(405)(lambda: ("other", 400))
    app.error(410)(lambda: None)

    @app.get("/crash")
    async def crash() -> None:
        raise ZeroDivisionError

    @app.get("/gone")
    async def gone() -> None:
        raise HTTPError(410)

    client = serve(app)

    assert client.get("/nowhere").status_code == 404
    assert client.get("/nowhere").json() == {"nothing": "here"}
    assert client.get("/crash").status_code == 500
    assert client.post("/crash").status_code == 400
    assert client.get("/gone").status_code == 410


def test_statuses_come_before_http_error_and_after_its_subclasses(serve: Serve) -> None:
    app = App()
    app.error(418)(lambda: "status")
    app.error(HTTPError)(lambda: "class")
    app.error(Exception)(lambda: "any")

    @app.get("/{status:int}")
    async def fail(status: int) -> None:
        raise Teapot() if status == 418 else HTTPError(status)

    client = serve(app)
    assert [client.get(f"/{status}").text for status in (418, 410)] == ["status", "class"]


def test_a_subclass_of_http_error_may_have_its_own_answer(serve: Serve, raising: Raising) -> None:
    app = App()
    app.error(418)(lambda: "status")
    app.error(Teapot)(lambda: "teapot")
    raising(app, Teapot())

    response = serve(app).get("/")

    assert (response.status_code, response.text) == (418, "teapot")


def test_who_answers_any_exception_does_not_mean_http_errors(serve: Serve, raising: Raising) -> None:
    app = App()
    app.error(Exception)(lambda: "crashed")
    raising(app, HTTPError(404, "gone"))

    response = serve(app).get("/")

    assert (response.status_code, response.json()) == (404, {"detail": "gone"})


@pytest.mark.parametrize("key", [500, Exception])
def test_a_crash_is_logged_whoever_answers(
    key: Any, serve: Serve, raising: Raising, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    app.error(key)(lambda: "sorry")
    raising(app, RuntimeError("secret"))

    response = serve(app).get("/")

    assert (response.status_code, response.text) == (500, "sorry")
    assert "GET / failed" in caplog.text
    assert "RuntimeError: secret" in caplog.text


def test_misfits_can_be_answered(serve: Serve) -> None:
    app = App()
    app.error(422)(lambda request, error: {"wrong": [misfit["loc"] for misfit in error.detail]})

    @app.get("/")
    async def handler(page: int) -> None: ...

    response = serve(app).get("/?page=x")

    assert (response.status_code, response.json()) == (422, {"wrong": [["query", "page"]]})


def test_an_error_in_an_error_handler_is_a_crash(
    serve: Serve, raising: Raising, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.error(OutOfStock)
    def answer() -> None:
        raise RuntimeError("even worse")

    raising(app, OutOfStock())

    response = serve(app).get("/")

    assert response.status_code == 500
    assert "even worse" not in response.text
    assert "even worse" in caplog.text


def test_debug_shows_the_crash(serve: Serve, raising: Raising) -> None:
    app = App(debug=True)
    app.error(500)(lambda: "sorry")
    raising(app, RuntimeError("<script>alert(1)</script>"))

    client = serve(app)
    page = client.get("/?a=<b>", headers={"accept": "text/html", "authorization": "Bearer token"})
    text = client.get("/")

    assert page.status_code == text.status_code == 500
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert "Traceback" in page.text
    assert "Traceback" in text.text
    assert "&lt;script&gt;alert(1)" in page.text
    assert "<script>" not in page.text
    assert "token" not in page.text


def test_debug_leaves_http_errors_alone(serve: Serve, raising: Raising) -> None:
    app = App(debug=True)
    raising(app, HTTPError(404, "gone"))

    assert serve(app).get("/", headers={"accept": "text/html"}).json() == {"detail": "gone"}


# Mounts


async def passing(request: Request, next: Any) -> Response:
    """A middleware that lets everything pass."""
    response: Response = await next(request)
    return response


@pytest.fixture(params=[0, 1], ids=["no outer middleware", "outer middleware"])
def outer(request: pytest.FixtureRequest) -> App:
    return App(middleware=[passing] * request.param)


@pytest.fixture(params=[0, 2], ids=["no inner middleware", "inner middleware"])
def inner(request: pytest.FixtureRequest) -> App:
    return App(middleware=[passing] * request.param)


def test_a_crash_that_a_mounted_app_does_not_answer_is_the_outer_apps(
    serve: Serve, outer: App, inner: App, raising: Raising
) -> None:
    inner.error(LookupError)(lambda: "another error's")
    inner.error(404)(lambda: "another status's")
    outer.error(OutOfStock)(lambda request, error: (f"{request.path} {error}", 409))
    raising(inner, SoldOut("apples"))
    outer.mount("/inner", inner)

    response = serve(outer).get("/inner")

    assert (response.status_code, response.text) == (409, "/inner apples")


@pytest.mark.parametrize("key", [500, Exception])
def test_a_mounted_apps_crash_may_be_answered_as_any_crash(
    key: Any, serve: Serve, outer: App, inner: App, raising: Raising, caplog: pytest.LogCaptureFixture
) -> None:
    @outer.error(key)
    async def sorry() -> str:
        return "sorry"

    raising(inner, OutOfStock("pears"))
    outer.mount("/inner", inner)

    response = serve(outer).get("/inner")

    assert (response.status_code, response.text) == (500, "sorry")
    assert caplog.text.count("OutOfStock: pears") == 1


def test_a_crash_goes_through_every_app_on_its_way_out(
    serve: Serve, outer: App, inner: App, raising: Raising
) -> None:
    lowest = App()

    @inner.error(OutOfStock)
    async def worse(error: OutOfStock) -> None:
        raise LookupError(f"no {error}")

    outer.error(LookupError)(lambda error: (str(error.args[0]), 410))
    raising(lowest, OutOfStock("plums"))
    inner.mount("/lowest", lowest)
    outer.mount("/inner", inner)

    response = serve(outer).get("/inner/lowest")

    assert (response.status_code, response.text) == (410, "no plums")


def test_a_mounted_app_answers_its_own_errors(serve: Serve, outer: App, inner: App, raising: Raising) -> None:
    inner.error(OutOfStock)(lambda: ("inner", 409))
    for key in (404, 405, 409, HTTPError, OutOfStock, Exception):
        outer.error(key)(lambda: "outer")
    raising(inner, OutOfStock())

    @inner.get("/refused")
    async def refused() -> None:
        raise HTTPError(409, "refused")

    outer.mount("/inner", inner)
    client = serve(outer)

    assert client.get("/inner").text == "inner"
    assert client.get("/inner/refused").json() == {"detail": "refused"}
    assert client.get("/inner/nowhere").json() == {"detail": "Not Found"}
    assert client.post("/inner/refused").json() == {"detail": "Method Not Allowed"}
    assert client.get("/nowhere").text == "outer"


def test_an_http_error_that_a_mounted_apps_error_handler_raises_is_its_answer(
    serve: Serve, outer: App, inner: App, raising: Raising
) -> None:
    @inner.error(OutOfStock)
    async def answer() -> None:
        raise HTTPError(410, "gone")

    outer.error(HTTPError)(lambda: "outer")
    raising(inner, OutOfStock())
    outer.mount("/inner", inner)

    response = serve(outer).get("/inner")

    assert (response.status_code, response.json()) == (410, {"detail": "gone"})


@pytest.mark.parametrize("error", [OutOfStock("apples"), HTTPError(409, "apples")])
def test_what_an_outer_middleware_raises_is_no_affair_of_a_mounted_app(
    serve: Serve, inner: App, error: Exception
) -> None:
    async def stage(request: Request, next: Any) -> None:
        raise error

    outer = App(middleware=[stage])
    outer.error(type(error))(lambda: ("outer", 400))
    inner.error(type(error))(lambda: ("inner", 400))
    inner.get("/")(lambda: "not reached")
    outer.mount("/inner", inner)

    assert serve(outer).get("/inner").text == "outer"


@pytest.mark.parametrize(
    ("error", "answer"), [(OutOfStock("apples"), "outer"), (HTTPError(409), '{"detail":"Conflict"}')]
)
def test_what_an_inner_middleware_raises_is_the_mounted_apps(
    serve: Serve, outer: App, error: Exception, answer: str
) -> None:
    async def stage(request: Request, next: Any) -> None:
        raise error

    inner = App(middleware=[passing, stage])
    outer.error(type(error))(lambda: ("outer", 409))
    inner.get("/")(lambda: "not reached")
    outer.mount("/inner", inner)

    response = serve(outer).get("/inner")

    assert (response.status_code, response.text) == (409, answer)


def test_inner_middleware_sees_the_exception_and_outer_middleware_the_answer(
    serve: Serve, raising: Raising
) -> None:
    seen: list[Any] = []

    async def inside(request: Request, next: Any) -> Any:
        try:
            return await next(request)
        except OutOfStock as error:
            seen.append(error)
            raise

    async def outside(request: Request, next: Any) -> Any:
        response = await next(request)
        seen.append(response.status)
        return response

    outer, inner = App(middleware=[outside]), App(middleware=[inside])
    error = OutOfStock()
    outer.error(OutOfStock)(lambda: ("outer", 409))
    raising(inner, error)
    outer.mount("/inner", inner)

    assert serve(outer).get("/inner").text == "outer"
    assert seen == [error, 409]


def test_a_crash_in_a_mounted_app_that_nobody_answers_is_logged_once(
    serve: Serve, outer: App, inner: App, raising: Raising, caplog: pytest.LogCaptureFixture
) -> None:
    outer.error(404)(lambda: "outer")
    raising(inner, OutOfStock("secret"))
    outer.mount("/inner", inner)

    response = serve(outer).get("/inner")

    assert (response.status_code, response.json()) == (500, {"detail": "Internal Server Error"})
    assert caplog.text.count("OutOfStock: secret") == 1


@pytest.mark.parametrize("key", [200, 600, "404", True, int, BaseException, None])
def test_only_error_statuses_and_exceptions_have_handlers(key: Any) -> None:
    with pytest.raises(RouteError, match="a status from 400 to 599 or an exception class"):
        App().error(key)(lambda: None)


def test_a_status_has_one_handler() -> None:
    app = App()
    app.error(404)(lambda: "a")

    with pytest.raises(RouteError, match="status 404 has an error handler already"):
        app.error(404)(lambda: "b")


def test_an_error_handler_takes_request_and_exception() -> None:
    with pytest.raises(RouteError, match="takes \\(request, exception\\), one of them, or nothing"):
        App().error(404)(lambda request, error, more: None)
