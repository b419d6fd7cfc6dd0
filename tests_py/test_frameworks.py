"""Real frameworks, hosted unchanged: pages, forms, streams, lifespan, errors. `make test-apps` installs them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import queue
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from httpy import ASGI, App, Server
from support import PATIENCE_S


@contextlib.contextmanager
def serving(app: Any, **config: Any) -> Iterator[httpx.Client]:
    with (
        Server(app, port=0, **config) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as client,
    ):
        yield client


# Starlette


def test_starlette(tmp_path: Path, driver: str) -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.responses import FileResponse, JSONResponse, StreamingResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    (tmp_path / "page.txt").write_text("static " * 1000)
    events: list[str] = []
    done = threading.Event()

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        events.append("startup")
        yield {"made": "at startup"}
        events.append("shutdown")

    async def index(request: Any) -> Any:
        return JSONResponse({"state": request.state.made, "url": str(request.url.path)})

    async def echo(request: Any) -> Any:
        return JSONResponse(len(await request.body()))

    def in_thread(request: Any) -> Any:
        return JSONResponse(threading.current_thread() is not threading.main_thread())

    async def stream(request: Any) -> Any:
        async def chunks() -> AsyncIterator[bytes]:
            for n in range(3):
                yield b"%d," % n
                await asyncio.sleep(0)

        return StreamingResponse(chunks())

    async def behind(request: Any) -> Any:
        async def work() -> None:
            await asyncio.sleep(0.01)
            done.set()

        return JSONResponse("now", background=BackgroundTask(work))

    async def file(request: Any) -> Any:
        return FileResponse(tmp_path / "page.txt")

    async def fails(request: Any) -> Any:
        raise ValueError("of its own")

    class Through(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            response = await call_next(request)
            response.headers["x-through"] = "yes"
            return response

    app = Starlette(
        lifespan=lifespan,
        middleware=[Middleware(Through), Middleware(GZipMiddleware)],
        routes=[
            Route("/", index),
            Route("/echo", echo, methods=["POST"]),
            Route("/thread", in_thread),
            Route("/stream", stream),
            Route("/behind", behind),
            Route("/file", file),
            Route("/fails", fails),
            Mount("/static", StaticFiles(directory=tmp_path)),
        ],
    )
    with serving(app, loop=driver) as client:
        response = client.get("/")
        assert (response.json(), response.headers["x-through"]) == (
            {"state": "at startup", "url": "/"},
            "yes",
        )
        assert client.post("/echo", content=b"x" * 300_000).json() == 300_000
        assert client.get("/thread").json() is True
        assert client.get("/stream").text == "0,1,2,"
        assert client.get("/behind").json() == "now"
        assert done.wait(PATIENCE_S)
        assert client.get("/file").text == "static " * 1000
        assert client.head("/file").headers["content-type"].startswith("text/plain")
        assert client.get("/file", headers={"Range": "bytes=0-5"}).text == "static"
        assert client.get("/static/page.txt").text == "static " * 1000
        assert client.get("/static/none").status_code == 404
        assert client.get("/fails").status_code == 500
        assert client.put("/").status_code == 405

    assert events == ["startup", "shutdown"]


def test_starlette_notices_a_client_that_leaves_a_stream(
    driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    ended = threading.Event()

    async def stream(request: Any) -> Any:
        async def chunks() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
            finally:
                ended.set()

        return StreamingResponse(chunks())

    with serving(Starlette(routes=[Route("/", stream)]), loop=driver) as client:
        with client.stream("GET", "/") as response:
            next(response.iter_raw())
        assert ended.wait(PATIENCE_S)

    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_starlette_asks_whether_the_client_is_there() -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    left = threading.Event()
    arrived = threading.Event()

    async def wait(request: Request) -> Any:
        arrived.set()
        while not await request.is_disconnected():
            await asyncio.sleep(0.001)
        left.set()
        return JSONResponse(None)

    async def ask(request: Request) -> Any:
        return JSONResponse([await request.is_disconnected() for _ in range(30)])

    with serving(Starlette(routes=[Route("/", wait), Route("/ask", ask)])) as client:
        assert client.get("/ask").json() == [False] * 30
        with pytest.raises(httpx.ReadTimeout):
            client.get("/", timeout=0.2)
        assert arrived.is_set()
        assert left.wait(PATIENCE_S)


# FastAPI


def test_fastapi(driver: str) -> None:
    pytest.importorskip("fastapi")
    module = importlib.import_module("fastapi_app")
    app, closed = module.app, module.closed
    closed.clear()
    outer = App()

    @outer.get("/own")
    def own() -> str:
        return "own"

    outer.mount("/api", app)
    with serving(outer, loop=driver) as client:
        assert client.get("/own").text == "own"
        assert client.get("/api/items/7?q=x").json() == {"id": 7, "q": "x"}
        assert client.get("/api/items/x").status_code == 422
        assert client.post("/api/items", json={"name": "a"}).json() == {"name": "a", "price": 1.0}
        assert client.get("/api/depends").json() == "connected"
        assert client.post("/api/form", data={"name": "Ada"}).json() == "Ada"
        assert client.post("/api/upload", files={"file": ("a.txt", b"x" * 2_000_000)}).json() == {
            "name": "a.txt",
            "size": 2_000_000,
        }
        assert client.get("/api/behind").status_code == 200
        assert client.get("/api/missing").json() == {"detail": "not here"}
        assert client.get("/api/openapi.json").json()["servers"] == [{"url": "/api"}]
        assert "/api/openapi.json" in client.get("/api/docs").text

    assert closed == ["closed", "behind"]


# Flask


def test_flask(tmp_path: Path, driver: str) -> None:
    flask = pytest.importorskip("flask")
    (tmp_path / "file.txt").write_text("static " * 10_000)
    app = flask.Flask(__name__, static_folder=str(tmp_path), static_url_path="/static")
    app.secret_key = "secret"
    torn_down: list[Any] = []
    app.teardown_request(torn_down.append)

    @app.get("/")
    def index() -> Any:
        return {
            "root": flask.request.script_root,
            "url": flask.url_for("login", next="/"),
            "who": flask.session.get("who"),
        }

    @app.post("/login")
    def login() -> Any:
        flask.session["who"] = flask.request.form["name"]
        return flask.redirect(flask.url_for("index"))

    @app.post("/upload")
    def upload() -> Any:
        return {"size": len(flask.request.files["file"].read()), "json": flask.request.is_json}

    @app.get("/stream")
    def stream() -> Any:
        @flask.stream_with_context
        def chunks() -> Iterator[str]:
            for n in range(3):
                yield f"{n}{flask.request.path},"

        return chunks()

    @app.get("/send")
    def send() -> Any:
        return flask.send_file(tmp_path / "file.txt")

    @app.get("/fails")
    def fails() -> Any:
        raise ValueError("of its own")

    outer = App()
    outer.mount("/old", app)
    for served, prefix in ((app, ""), (outer, "/old")):
        with serving(served, loop=driver) as client:
            client.follow_redirects = True
            assert client.get(prefix + "/").json() == {
                "root": prefix,
                "url": f"{prefix}/login?next=/",
                "who": None,
            }
            assert client.post(prefix + "/login", data={"name": "Ada"}).json()["who"] == "Ada"
            uploaded = client.post(prefix + "/upload", files={"file": ("a", b"x" * 500_000)})
            assert uploaded.json() == {"size": 500_000, "json": False}
            assert client.get(prefix + "/stream").text == "0/stream,1/stream,2/stream,"
            assert client.get(prefix + "/send").text == "static " * 10_000
            assert client.get(prefix + "/static/file.txt", headers={"Range": "bytes=0-5"}).text == "static"
            assert client.get(prefix + "/fails").status_code == 500
            assert client.get(prefix + "/none").status_code == 404
            assert client.head(prefix + "/").content == b""

    assert torn_down


# Django


DJANGO = """
import asyncio
from django.contrib import admin
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path, reverse

def index(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return JsonResponse({"count": request.session["count"], "admin": reverse("admin:index"), "path": request.path})

def echo(request):
    return HttpResponse(str(len(request.body)))

echo.csrf_exempt = True

async def asynchronous(request):
    await asyncio.sleep(0)
    return HttpResponse("async")

def stream(request):
    return StreamingHttpResponse(f"{n}," for n in range(3))

def file(request):
    return FileResponse(open(__file__, "rb"))

def fails(request):
    raise ValueError("of its own")

urlpatterns = [
    path("", index),
    path("echo", echo),
    path("async", asynchronous),
    path("stream", stream),
    path("file", file),
    path("fails", fails),
    path("admin/", admin.site.urls),
]
"""


@pytest.fixture(scope="module")
def django(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with admin, sessions and static files."""
    pytest.importorskip("django")
    folder = tmp_path_factory.mktemp("django")
    (folder / "guest_urls.py").write_text(DJANGO)
    sys.path.insert(0, str(folder))
    import django as package
    from django.conf import settings

    contrib = ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
    middleware = (
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    )
    processors = ("django.template.context_processors.request", "django.contrib.auth.context_processors.auth")
    templates = {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [*processors, "django.contrib.messages.context_processors.messages"],
        },
    }
    settings.configure(
        SECRET_KEY="secret",
        DEBUG=False,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="guest_urls",
        INSTALLED_APPS=[f"django.contrib.{name}" for name in contrib],
        MIDDLEWARE=list(middleware),
        TEMPLATES=[templates],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "database")}},
        STATIC_URL="/static/",
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    package.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    models = importlib.import_module("django.contrib.auth.models")
    models.User.objects.create_superuser("ada", password="secret")
    connections = importlib.import_module("django.db").connections
    connections.close_all()
    return folder


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
@pytest.mark.parametrize("prefix", ["", "/site"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
def test_django(
    django: Path, interface: str, prefix: str, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler, StaticFilesHandler

    if interface == "asgi":
        from django.core.asgi import get_asgi_application

        # Serves files without DEBUG too.
        app: Any = ASGIStaticFilesHandler(get_asgi_application())
    else:
        from django.core.wsgi import get_wsgi_application

        app = StaticFilesHandler(get_wsgi_application())
    served: Any = app
    if prefix:
        served = App()
        served.mount(prefix, app)
    with serving(served, loop=driver) as client:
        client.follow_redirects = True
        assert client.get(prefix + "/").json()["count"] == 1
        assert client.get(prefix + "/").json() == {
            "count": 2,
            "admin": f"{prefix}/admin/",
            "path": f"{prefix}/",
        }
        assert client.post(prefix + "/echo", content=b"x" * 100_000).text == "100000"
        assert client.get(prefix + "/async").text == "async"
        assert client.get(prefix + "/stream").text == "0,1,2,"
        assert "FileResponse" in client.get(prefix + "/file").text
        assert client.get(prefix + "/fails").status_code == 500
        page = client.get(prefix + "/admin/")
        assert "Log in" in page.text
        token = page.text.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
        form = {"username": "ada", "password": "secret", "csrfmiddlewaretoken": token}
        welcome = client.post(str(page.url), data=form)
        assert "Site administration" in welcome.text
        if not prefix:
            assert "body" in client.get("/static/admin/css/base.css").text


# Litestar, Quart


def test_litestar(driver: str) -> None:
    pytest.importorskip("litestar")
    module = importlib.import_module("litestar_app")
    app, events = module.app, module.events
    events.clear()
    with serving(app, loop=driver) as client:
        assert client.get("/").json() == {"hello": "world"}
        assert client.post("/echo", json={"a": 1}).json() == {"a": 1}
        assert client.get("/stream").text == "ab"
        assert client.get("/none").status_code == 404

    assert events == ["startup", "shutdown"]


def test_quart(driver: str) -> None:
    quart = pytest.importorskip("quart")
    app = quart.Quart(__name__)
    events: list[str] = []

    @app.before_serving
    async def start() -> None:
        events.append("startup")

    @app.after_serving
    async def stop() -> None:
        events.append("shutdown")

    @app.get("/")
    async def index() -> Any:
        return {"path": quart.request.path}

    @app.post("/form")
    async def form() -> Any:
        return (await quart.request.form)["name"]

    @app.get("/thread")
    def in_thread() -> str:
        return "thread"

    @app.get("/stream")
    async def stream() -> Any:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        return chunks()

    with serving(app, loop=driver) as client:
        assert client.get("/").json() == {"path": "/"}
        assert client.post("/form", data={"name": "Ada"}).text == "Ada"
        assert client.get("/thread").text == "thread"
        assert client.get("/stream").text == "ab"
        assert client.get("/none").status_code == 404

    assert events == ["startup", "shutdown"]


# WebSockets


@contextlib.contextmanager
def connected(client: httpx.Client, path: str, **options: Any) -> Iterator[ClientConnection]:
    url = f"ws://{client.base_url.host}:{client.base_url.port}{path}"
    with connect(url, open_timeout=PATIENCE_S, proxy=None, **options) as connection:
        yield connection


def refused(client: httpx.Client, path: str) -> Any:
    """The response to a handshake that does not open a WebSocket."""
    with pytest.raises(InvalidStatus) as raised, connected(client, path):
        pass
    return raised.value.response


def how_it_ends(connection: ClientConnection) -> tuple[Any, Any]:
    with pytest.raises(ConnectionClosed):
        connection.recv(PATIENCE_S)
    return connection.close_code, connection.close_reason


def test_starlette_has_websockets(driver: str) -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, WebSocketRoute
    from starlette.websockets import WebSocketDisconnect

    ended: queue.Queue[Any] = queue.Queue()

    async def echo(websocket: Any) -> None:
        await websocket.accept(subprotocol="b", headers=[(b"x-a", b"1")])
        await websocket.send_json({"url": websocket.url.path, "scheme": websocket.url.scheme})
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(message["code"], message["reason"])
                await websocket.send({**message, "type": "websocket.send"})
        except WebSocketDisconnect as end:
            ended.put((end.code, end.reason))

    async def closes(websocket: Any) -> None:
        await websocket.accept()
        await websocket.close(4001, "enough")

    async def refuses(websocket: Any) -> None:
        await websocket.close()

    async def denies(websocket: Any) -> None:
        response = PlainTextResponse("who are you?", 401, {"www-authenticate": "Basic"})
        await websocket.send_denial_response(response)

    async def fails(websocket: Any) -> None:
        await websocket.accept()
        raise ValueError("of its own")

    async def both(websocket: Any) -> None:
        """As chats do: one task reads, another writes."""
        await websocket.accept()
        said: asyncio.Queue[str] = asyncio.Queue()

        async def read() -> None:
            async for text in websocket.iter_text():
                said.put_nowait(text)

        async def write() -> None:
            while True:
                await websocket.send_text(await said.get())

        reading, writing = asyncio.ensure_future(read()), asyncio.ensure_future(write())
        await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
        writing.cancel()
        ended.put("both")

    handlers = [echo, closes, refuses, denies, fails, both]
    routes = [WebSocketRoute(f"/{handler.__name__}", handler) for handler in handlers]
    app = Starlette(routes=[Mount("/ws", routes=routes)])
    with serving(app, loop=driver) as client:
        with connected(client, "/ws/echo", subprotocols=["a", "b"]) as connection:
            assert json.loads(connection.recv(PATIENCE_S)) == {"url": "/ws/echo", "scheme": "ws"}
            assert connection.subprotocol == "b"
            for message in ["text", b"bytes", "x" * 100_000]:
                connection.send(message)
                assert connection.recv(PATIENCE_S) == message
            connection.close(4000, "bye")
        assert ended.get(timeout=PATIENCE_S) == (4000, "bye")
        with connected(client, "/ws/closes") as connection:
            assert how_it_ends(connection) == (4001, "enough")
        with connected(client, "/ws/fails") as connection:
            assert how_it_ends(connection) == (1011, "")
        with connected(client, "/ws/both") as connection:
            for message in ["one", "two"]:
                connection.send(message)
                assert connection.recv(PATIENCE_S) == message
        assert ended.get(timeout=PATIENCE_S) == "both"
        assert refused(client, "/ws/refuses").status_code == 403
        assert refused(client, "/ws/nowhere").status_code == 403
        response = refused(client, "/ws/denies")
        assert (response.status_code, response.body) == (401, b"who are you?")
        assert response.headers["www-authenticate"] == "Basic"


def test_starlette_is_told_of_a_server_that_stops(driver: str) -> None:
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocketDisconnect

    ended: list[Any] = []

    async def waits(websocket: Any) -> None:
        await websocket.accept()
        await websocket.send_text("open")
        try:
            await websocket.receive_text()
        except WebSocketDisconnect as end:
            ended.append(end.code)

    with contextlib.ExitStack() as stack:
        with serving(Starlette(routes=[WebSocketRoute("/", waits)]), loop=driver) as client:
            connection = stack.enter_context(connected(client, "/"))
            assert connection.recv(PATIENCE_S) == "open"
        assert how_it_ends(connection) == (1001, "the server stops")

    assert ended == [1001]


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_fastapi_has_websockets(prefix: str, driver: str) -> None:
    pytest.importorskip("fastapi")
    import fastapi_app

    fastapi_app.closed.clear()
    outer = App()
    outer.mount("/api", fastapi_app.app)
    with serving(outer if prefix else fastapi_app.app, loop=driver) as client:
        with connected(client, f"{prefix}/ws/7?q=a") as connection:
            connection.send('{"a": 1}')
            assert json.loads(connection.recv(PATIENCE_S)) == [7, "a", "connected", {"a": 1}]
            connection.close(4000, "bye")
        assert refused(client, f"{prefix}/ws/403").status_code == 403
        # What does not convert is a refusal, too.
        assert refused(client, f"{prefix}/ws/x").status_code == 403

    assert fastapi_app.closed[:2] == ["4000 bye", "closed"]


def test_litestar_has_websockets(driver: str) -> None:
    pytest.importorskip("litestar")
    import litestar_app

    with serving(litestar_app.app, loop=driver) as client:
        with connected(client, "/listener") as connection:
            connection.send('{"a": 1}')
            assert json.loads(connection.recv(PATIENCE_S)) == {"a": 2}
        with connected(client, "/ws", subprotocols=["chat"]) as connection:
            connection.send("text")
            assert connection.recv(PATIENCE_S) == "text"
            assert connection.subprotocol == "chat"


def test_quart_has_websockets(driver: str) -> None:
    quart = pytest.importorskip("quart")
    app = quart.Quart(__name__)
    ended: queue.Queue[str] = queue.Queue()

    @app.websocket("/ws/<name>")
    async def echo(name: str) -> None:
        try:
            while True:
                message = await quart.websocket.receive()
                await quart.websocket.send(f"{name} {message}" if isinstance(message, str) else message)
        except asyncio.CancelledError:
            # So it tells of clients that leave.
            ended.put(name)
            raise

    @app.websocket("/refuses")
    async def refuses() -> Any:
        return "not you", 401

    with serving(app, loop=driver) as client:
        with connected(client, "/ws/Ada") as connection:
            connection.send("Hello")
            assert connection.recv(PATIENCE_S) == "Ada Hello"
            connection.send(b"bytes")
            assert connection.recv(PATIENCE_S) == b"bytes"
        assert ended.get(timeout=PATIENCE_S) == "Ada"
        response = refused(client, "/refuses")
        assert (response.status_code, response.body) == (401, b"not you")


def test_django_refuses_websockets(django: Path, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without Channels it has none, and raises; uvicorn answers that with 500, too."""
    from django.core.asgi import get_asgi_application

    with serving(ASGI(get_asgi_application(), lifespan="off"), loop=driver) as client:
        assert refused(client, "/").status_code == 500
        assert client.get("/").status_code == 200

    assert "Django can only handle ASGI/HTTP connections, not websocket." in caplog.text
