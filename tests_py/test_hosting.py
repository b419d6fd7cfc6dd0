"""Telling what kind of app something is, mounting it, and its lifespan."""

from __future__ import annotations

import asyncio
import functools
import io
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from httpy import ASGI, WSGI, App, ConfigError, RouteError, Router, Server
from httpy.hosting import as_app, find_interface
from httpy.loader import load_app
from support import PATIENCE_S


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"asgi " + scope["path"].encode()})


def wsgi(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    return [b"wsgi " + environ["PATH_INFO"].encode()]


def asgi2(scope: Any) -> Any:
    async def instance(receive: Any, send: Any) -> None:
        await asgi(scope, receive, send)

    return instance


class ASGIObject:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await asgi(scope, receive, send)

    async def method(self, scope: Any, receive: Any, send: Any) -> None:
        await asgi(scope, receive, send)


class ASGI2Class:
    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        await asgi(self.scope, receive, send)


class WSGIObject:
    def __call__(self, environ: Any, start_response: Any) -> Any:
        return wsgi(environ, start_response)


class WSGIClass:
    def __init__(self, environ: Any, start_response: Any) -> None:
        self.answer = wsgi(environ, start_response)

    def __iter__(self) -> Any:
        return iter(self.answer)


def plain_call_of_asgi(scope: Any, receive: Any, send: Any) -> Any:
    return asgi(scope, receive, send)


ASGI_APPS = [
    asgi,
    ASGIObject(),
    ASGIObject().method,
    functools.partial(asgi),
    plain_call_of_asgi,
    asgi2,
    ASGI2Class,
]
WSGI_APPS = [
    wsgi,
    WSGIObject(),
    WSGIClass,
    functools.partial(wsgi),
    lambda environ, start_response: wsgi(environ, start_response),
]


def get(app: Any, path: str = "/x", **config: Any) -> httpx.Response:
    with Server(app, port=0, **config) as server:
        return httpx.get(server.url + path, timeout=PATIENCE_S, trust_env=False)


@pytest.mark.parametrize("app", ASGI_APPS)
def test_an_asgi_app_is_told_and_served(app: Any, driver: str) -> None:
    assert find_interface(app) == "asgi"
    assert get(app, loop=driver).text == "asgi /x"


@pytest.mark.parametrize("app", WSGI_APPS)
def test_a_wsgi_app_is_told_and_served(app: Any, driver: str) -> None:
    assert find_interface(app) == "wsgi"
    assert get(app, loop=driver).text == "wsgi /x"


@pytest.mark.parametrize("thing", [None, 7, "text", print, lambda *anything: None, lambda: None, object()])
def test_what_is_neither_is_told_to_be_none(thing: Any) -> None:
    assert find_interface(thing) is None


def test_what_can_not_be_told_is_said_with_what_to_do() -> None:
    with pytest.raises(ConfigError) as refused:
        as_app(lambda *anything: None, "module:app")

    assert "say which, with --interface, or with httpy.ASGI(app) or httpy.WSGI(app)" in str(refused.value)


def test_an_interface_that_is_said_is_not_looked_for() -> None:
    def anything(*arguments: Any) -> Any:
        return wsgi(*arguments)

    assert get(WSGI(anything)).text == "wsgi /x"
    assert isinstance(as_app(anything, "it", "wsgi"), WSGI)
    with pytest.raises(ConfigError, match="it is an app for ASGI, not for WSGI"):
        as_app(ASGI(asgi), "it", "wsgi")
    with pytest.raises(ConfigError, match="it is an app for HTTPy, not for ASGI"):
        as_app(App(), "it", "asgi")
    with pytest.raises(ConfigError, match="it is a function, not an HTTPy App"):
        as_app(asgi, "it", "httpy")


def test_a_wrapper_refuses_what_is_none() -> None:
    with pytest.raises(ConfigError, match="an ASGI app can be called, found int"):
        ASGI(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="lifespan is one of auto, on, off, not 'maybe'"):
        ASGI(asgi, lifespan="maybe")


# By name


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "hosted_here.py").write_text(
        "async def asgi(scope, receive, send): ...\n"
        "def wsgi(environ, start_response): ...\n"
        "def create_app():\n    return wsgi\n"
        "def anything(*arguments): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "hosted_here"


def test_a_target_may_be_of_any_interface(module: str) -> None:
    assert load_app(f"{module}:asgi").interface == "asgi"
    assert load_app(f"{module}:wsgi").interface == "wsgi"
    assert load_app(f"{module}:create_app").interface == "wsgi"
    assert load_app(f"{module}:create_app()", interface="asgi").interface == "asgi"
    assert load_app(f"{module}:anything", interface="asgi").interface == "asgi"
    with pytest.raises(ConfigError, match="hosted_here:asgi is a function, not an HTTPy App"):
        load_app(f"{module}:asgi", interface="httpy")


# Mounts


def test_apps_of_every_interface_are_mounted_beside_routes(driver: str) -> None:
    app = App()

    @app.get("/own")
    def own() -> str:
        return "own"

    app.mount("/a", asgi)
    app.mount("/w", wsgi)
    with Server(app, port=0, loop=driver) as server, httpx.Client(base_url=server.url) as client:
        found = [
            client.request(method, path).text
            for method, path in (("GET", "/own"), ("POST", "/a/x"), ("PUT", "/w/x"))
        ]
        assert client.get("/else").status_code == 404

    assert found == ["own", "asgi /a/x", "wsgi /x"]


def test_an_app_at_the_root_answers_what_no_route_does() -> None:
    app = App()

    @app.get("/own/{id:int}")
    def own(id: int) -> str:
        return f"own {id}"

    app.mount("/", wsgi)
    with Server(app, port=0) as server, httpx.Client(base_url=server.url) as client:
        found = [client.get(path).text for path in ("/own/7", "/own/x", "/", "/deep/er", "/own")]

    assert found == ["own 7", "wsgi /own/x", "wsgi /", "wsgi /deep/er", "wsgi /own"]


def test_what_is_no_app_is_not_mounted() -> None:
    app = App()
    app.mount("/taken", asgi)

    with pytest.raises(TypeError, match="mount takes an app of HTTPy, ASGI or WSGI"):
        app.mount("/x", object())
    with pytest.raises(TypeError, match="a Router is included"):
        app.mount("/x", Router())
    with pytest.raises(RouteError, match="mounted at /taken already"):
        app.mount("/taken", wsgi)
    with pytest.raises(RouteError, match="a mount has a prefix"):
        app.mount("/", App())


def test_a_hosted_app_is_in_the_list_of_routes() -> None:
    app = App()
    app.mount("/a", asgi)
    app.mount("/", wsgi)
    written = io.StringIO()

    app.describe(written)

    assert "/a/{path:path}" in written.getvalue()
    assert "ASGI app, on the loop" in written.getvalue()
    assert "WSGI app, on a pool thread" in written.getvalue()


def test_limits_hold_for_hosted_apps(driver: str) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await asyncio.sleep(PATIENCE_S)

    # The app runs on behind its timeout, and the server's end would wait for it.
    assert get(slow, loop=driver, handler_timeout=0.05, grace=0.1).status_code == 503


# Lifespan


def living(events: list[Any], **fails: str) -> Callable[..., Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            events.append(("request", dict(scope["state"])))
            await asgi(scope, receive, send)
            return
        assert scope["type"] == "lifespan"
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
        scope["state"]["made"] = "at startup"
        for phase in ("startup", "shutdown"):
            message = await receive()
            assert message == {"type": f"lifespan.{phase}"}
            events.append(phase)
            if phase in fails:
                await send({"type": f"lifespan.{phase}.failed", "message": fails[phase]})
                raise ValueError("of its own")
            await send({"type": f"lifespan.{phase}.complete"})

    return app


def test_an_app_is_told_of_startup_and_shutdown_and_its_state_is_seen(driver: str) -> None:
    events: list[Any] = []

    get(living(events), loop=driver)

    assert events == ["startup", ("request", {"made": "at startup"}), "shutdown"]


def test_a_mounted_app_lives_inside_of_the_other() -> None:
    events: list[Any] = []
    app = App()
    app.on_startup(lambda: events.append("outer startup"))
    app.on_shutdown(lambda: events.append("outer shutdown"))
    app.mount("/in", living(events))

    get(app, "/in/x")

    assert [event for event in events if isinstance(event, str)] == [
        "outer startup",
        "startup",
        "shutdown",
        "outer shutdown",
    ]


def test_a_startup_that_fails_keeps_the_server_from_starting() -> None:
    server = Server(living([], startup="no database"), port=0)

    with pytest.raises(RuntimeError, match="the app's startup failed: no database") as raised:
        server.start()

    assert isinstance(raised.value.__cause__, ValueError)


def test_a_shutdown_that_fails_is_raised() -> None:
    server = Server(living([], shutdown="still open"), port=0)
    server.start()

    with pytest.raises(RuntimeError, match="the app's shutdown failed: still open"):
        server.stop()


def test_an_app_that_knows_no_lifespan_is_served_without(caplog: pytest.LogCaptureFixture) -> None:
    assert get(asgi).text == "asgi /x"
    assert [
        one for one in caplog.records if one.name.startswith("httpy") and one.levelno > logging.DEBUG
    ] == []


def test_lifespan_can_be_demanded_and_left_out() -> None:
    events: list[Any] = []

    get(ASGI(living(events), lifespan="off"))
    with pytest.raises(RuntimeError, match="takes no part in lifespan, which is on"):
        Server(ASGI(asgi, lifespan="on"), port=0).start()

    assert events == [("request", {})]


def test_lifespan_that_ends_early_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise ValueError("of its own")

    with Server(app, port=0):
        pass

    assert "the app's lifespan ended before the shutdown" in caplog.text


def test_nonsense_within_lifespan_is_raised_to_the_app() -> None:
    raised: list[str] = []
    done = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for kind in ("http.response.start", "lifespan.startup.complete", "lifespan.startup.complete"):
            try:
                await send({"type": kind})
            except RuntimeError as error:
                raised.append(str(error))
        done.set()
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    with Server(app, port=0):
        assert done.wait(PATIENCE_S)

    assert raised == [
        "the app sends 'http.response.start' within lifespan",
        "the app sends 'lifespan.startup.complete' twice",
    ]
