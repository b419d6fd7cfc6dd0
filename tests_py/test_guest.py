"""An app inside of other servers answers as it does in its own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import wsgiref.simple_server
import wsgiref.validate
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as websocket_connect

import guest_app
from httpy import App, Server, WebSocket, WebSocketDisconnect
from support import DRIVERS, PATIENCE_S, Core, environment, free_port, new_event_loop

HERE = Path(__file__).parent

CONTAINERS = {
    "uvicorn": ["uvicorn", "guest_app:app", "--port", "{port}", "--log-level", "warning"],
    "hypercorn": ["hypercorn", "guest_app:app", "--bind", "127.0.0.1:{port}"],
    "granian": ["granian", "guest_app:app", "--interface", "asgi", "--port", "{port}", "--no-log"],
    "uvicorn workers": [
        *("gunicorn", "guest_app:app", "--bind", "127.0.0.1:{port}"),
        *("--worker-class", "uvicorn_worker.UvicornWorker", "--log-level", "warning"),
    ],
    "gunicorn": ["gunicorn", "guest_app:wsgi", "--bind", "127.0.0.1:{port}", "--log-level", "warning"],
    "gunicorn threads": [
        *("gunicorn", "guest_app:wsgi", "--bind", "127.0.0.1:{port}"),
        *("--threads", "4", "--log-level", "warning"),
    ],
    "gunicorn asgi": [
        *("gunicorn", "guest_app:app", "--bind", "127.0.0.1:{port}"),
        *("--worker-class", "asgi", "--log-level", "warning"),
    ],
}
ASGI_CONTAINERS = ["uvicorn", "hypercorn", "granian", "gunicorn asgi", "uvicorn workers"]
# gunicorn's own ASGI worker can refuse a WebSocket with a 403 only, and when it stops it tells open ones nothing.
TALKING_CONTAINERS = [name for name in ASGI_CONTAINERS if name != "gunicorn asgi"]


def is_there(name: str) -> bool:
    return (Path(sys.executable).parent / CONTAINERS[name][0]).exists()


class Container:
    """Another server that runs."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], events: Path) -> None:
        self.url = url
        self.process = process
        self.events = events

    def wait_for(self, event: str) -> list[str]:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            events = self.events.read_text().split() if self.events.exists() else []
            if event in events:
                return events
            time.sleep(0.01)
        raise AssertionError(f"no {event}: {events}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def contained(name: str, folder: Path, *options: str) -> Iterator[Container]:
    """Serves the app with another server, and perhaps further options, until the end of the block."""
    if not is_there(name):
        pytest.skip(f"{CONTAINERS[name][0]} is not installed (make test-apps installs it)")
    port = free_port()
    command, *arguments = (part.format(port=port) for part in CONTAINERS[name])
    events = folder / f"events-{name}".replace(" ", "-")
    env = {**environment(), "GUEST_EVENTS": str(events)}
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / command), *arguments, *options], cwd=HERE, env=env
    )
    try:
        end = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, f"{name} has ended"
            assert time.monotonic() < end, f"{name} does not listen"
            time.sleep(0.02)
        yield Container(f"http://127.0.0.1:{port}", process, events)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def content() -> Iterator[bytes]:
    yield b"one"
    yield b"two"


REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/", {}),
    ("HEAD", "/", {}),
    ("GET", "/async/7?q=a%20b", {}),
    ("GET", "/async/x", {}),
    ("POST", "/echo", {"content": b"x" * 200_000}),
    ("POST", "/echo", {"content": b""}),
    ("POST", "/count", {"content": b"x" * 1_000_000}),
    ("POST", "/unread", {"content": b"x" * 1000}),
    ("GET", "/stream", {}),
    ("GET", "/large", {}),
    ("GET", "/fails", {}),
    ("GET", "/zero", {}),
    ("GET", "/teapot", {}),
    ("GET", "/cookies", {}),
    ("GET", "/told?a=b%2F", {"headers": {"X-Header": "value"}}),
    ("GET", "/inner/caf%C3%A9", {}),
    ("GET", "/nowhere", {}),
    ("PUT", "/", {}),
    ("OPTIONS", "/", {}),
    ("GET", "/echo/", {}),
]
NAMED = ("content-type", "x-marked", "allow", "location", "x-why", "set-cookie", "content-length")


def answers(url: str) -> list[Any]:
    """What comes back for each request: status, content, and fields that are the app's."""
    found = []
    with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
        for method, path, arguments in REQUESTS:
            response = client.request(method, path, **arguments)
            fields = [(name, response.headers.get_list(name)) for name in NAMED]
            if method in ("HEAD", "OPTIONS") or response.status_code == 204:
                # Servers differ in what they say of a length where there is none.
                fields.pop()
            found.append((method, path, response.status_code, response.content, fields))
    return found


@pytest.fixture(scope="module")
def own() -> list[Any]:
    """What HTTPy's own server answers."""
    with Server(guest_app.app, port=0) as server:
        return answers(server.url)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_answers_as_our_own_server_does(name: str, own: list[Any], tmp_path: Path) -> None:
    with contained(name, tmp_path) as container:
        found = answers(container.url)
        container.stop()
        events = container.wait_for("shutdown")

    for theirs, ours in zip(found, own):
        assert theirs == ours
    assert events == ["startup", "shutdown"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_response_that_fails_is_cut_there_too(name: str, tmp_path: Path) -> None:
    cut = (httpx.RemoteProtocolError, httpx.ReadError)
    with contained(name, tmp_path) as container, pytest.raises(cut):
        httpx.get(container.url + "/cut", timeout=PATIENCE_S)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_piece_is_sent_before_the_next_is_made(name: str, tmp_path: Path) -> None:
    # Some of gunicorn's workers never learn that the client has gone, and would be waited for.
    options = ["--graceful-timeout", "1"] if CONTAINERS[name][0] == "gunicorn" else []
    with (
        contained(name, tmp_path, *options) as container,
        httpx.stream("GET", container.url + "/first", timeout=PATIENCE_S) as response,
    ):
        assert next(response.iter_raw()) == b"first"


@pytest.mark.parametrize("name", ASGI_CONTAINERS)
def test_content_of_unknown_length_is_read(name: str, tmp_path: Path) -> None:
    with contained(name, tmp_path) as container:
        assert httpx.post(container.url + "/echo", content=content()).content == b"onetwo"


@pytest.mark.parametrize("name", ASGI_CONTAINERS)
def test_a_client_that_leaves_cancels_its_handler(name: str, tmp_path: Path) -> None:
    with contained(name, tmp_path) as container:
        port = httpx.URL(container.url).port
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as client:
            client.request("GET", "/waits")
            container.wait_for("waits")
        container.wait_for("cancelled")


# WebSockets


def talk(url: str, path: str, *messages: Any, close: Any = (), **options: Any) -> list[Any]:
    """What comes back for messages, one for each, and then until the end; or the answer to the handshake."""
    try:
        with websocket_connect(
            f"ws{url[4:]}{path}", proxy=None, open_timeout=PATIENCE_S, **options
        ) as connection:
            found: list[Any] = [connection.subprotocol]
            for message in messages:
                found.append(connection.recv(PATIENCE_S))
                connection.send(message)
            if close:
                found.append(connection.recv(PATIENCE_S))
                connection.close(*close)
            with contextlib.suppress(ConnectionClosed):
                while True:
                    found.append(connection.recv(PATIENCE_S))
            return [*found, connection.close_code, connection.close_reason]
    except InvalidStatus as refused:
        response = refused.response
        return [response.status_code, bytes(response.body or b""), response.headers.get("www-authenticate")]


def conversations(url: str) -> dict[str, list[Any]]:
    """What clients of all WebSockets see."""
    said = {"q": "a b", "x": "y"}
    headers = {"X-Header": "value"}
    return {
        "echo": talk(url, "/ws/echo/Ada", "text", b"bytes", "x" * 200_000, "", close=(4000, "bye")),
        "told": talk(
            url,
            f"/ws/echo/caf%C3%A9?q={said['q'].replace(' ', '%20')}",
            subprotocols=["a", "b"],
            additional_headers=headers,
            close=(1000, ""),
        ),
        "foreign": talk(url, "/foreign/ws", "text", b"bytes", close=(4000, "bye")),
        "close": talk(url, "/ws/close"),
        "returns": talk(url, "/ws/returns"),
        "breaks": talk(url, "/ws/breaks"),
        "forbidden": talk(url, "/ws/forbidden"),
        "rejected": talk(url, "/ws/rejected"),
        "busy": talk(url, "/ws/busy"),
        "crashes": talk(url, "/ws/crashes"),
        "nowhere": talk(url, "/ws/nowhere"),
        "a page": talk(url, "/stream"),
    }


# What these containers tell of the end: Granian no reasons, Hypercorn nothing.
ENDS = {
    "granian": ["echo-4000-", "foreign-4000", "close-4001-enough"],
    "hypercorn": ["echo-1006-", "foreign-1006", "close-4001-enough"],
}


@pytest.fixture(scope="module")
def own_conversations() -> dict[str, list[Any]]:
    """What HTTPy's own server says."""
    with Server(guest_app.app, port=0) as server:
        return conversations(server.url)


@pytest.mark.parametrize("name", TALKING_CONTAINERS)
def test_websockets_are_there_too(name: str, own_conversations: dict[str, list[Any]], tmp_path: Path) -> None:
    with contained(name, tmp_path) as container:
        found = conversations(container.url)
        for event in ENDS.get(name, ["echo-4000-bye", "foreign-4000", "close-4001-enough"]):
            container.wait_for(event)

    for which, ours in own_conversations.items():
        # Granian makes a refusal of a page that is no WebSocket.
        is_refused = name == "granian" and which == "a page"
        assert found[which] == ([403, b"", None] if is_refused else ours), which


@pytest.mark.parametrize("name", ASGI_CONTAINERS)
def test_handlers_on_the_pool_have_websockets_there_too(name: str, tmp_path: Path) -> None:
    with (
        contained(name, tmp_path) as container,
        websocket_connect(f"ws{container.url[4:]}/ws/blocking", proxy=None) as connection,
    ):
        for message in ["text", b"bytes"]:
            connection.send(message)
            assert connection.recv(PATIENCE_S) == message
        connection.close()
        container.wait_for("blocking-1006" if name == "hypercorn" else "blocking-1000")


@pytest.mark.parametrize("name", ASGI_CONTAINERS)
def test_rooms_are_there_too(name: str, tmp_path: Path) -> None:
    with contained(name, tmp_path) as container:
        url = f"ws{container.url[4:]}/ws/room"
        with websocket_connect(url, proxy=None) as first, websocket_connect(url, proxy=None) as second:
            assert [first.recv(PATIENCE_S) for _ in range(2)] == ["1 are here", "2 are here"]
            assert second.recv(PATIENCE_S) == "2 are here"

            first.send("hello")
            second.send(b"hello")

            assert (second.recv(PATIENCE_S), first.recv(PATIENCE_S)) == ("hello", b"hello")


# Granian does not tell.
@pytest.mark.parametrize("name", [name for name in ASGI_CONTAINERS if name != "granian"])
def test_a_client_that_leaves_before_it_is_answered_cancels_its_handler_there_too(
    name: str, tmp_path: Path
) -> None:
    handshake = (
        b"GET /ws/waits HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with contained(name, tmp_path) as container:
        with socket.create_connection(("127.0.0.1", httpx.URL(container.url).port), PATIENCE_S) as connection:
            connection.sendall(handshake)
            container.wait_for("ws-waits")
        container.wait_for("ws-cancelled")


@pytest.mark.parametrize("name", ASGI_CONTAINERS)
def test_a_slow_client_is_waited_for_there_too(name: str, tmp_path: Path) -> None:
    with contained(name, tmp_path) as container:
        with websocket_connect(f"ws{container.url[4:]}/ws/flood", proxy=None, max_queue=1) as connection:
            connection.recv(PATIENCE_S)
            events = container.events.read_text().split()
            connection.socket.shutdown(socket.SHUT_RDWR)
        container.wait_for("flood-some")

    assert "flood-all" not in events


@pytest.mark.parametrize("name", TALKING_CONTAINERS)
def test_a_container_that_stops_tells_websockets(name: str, tmp_path: Path) -> None:
    with contained(name, tmp_path) as container:
        with websocket_connect(f"ws{container.url[4:]}/ws/echo/Ada", proxy=None) as connection:
            connection.recv(PATIENCE_S)
            container.stop()
        assert "shutdown" in container.wait_for("shutdown")


# Without a container


def app() -> App:
    made = App()
    events: list[str] = []
    made.state.events = events
    made.on_startup(lambda: events.append("startup"))
    made.on_shutdown(lambda: events.append("shutdown"))

    @made.get("/")
    def index() -> str:
        return "index"

    return made


async def ask(application: Any, **scope: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(PATIENCE_S)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", **scope}
    await application(whole, receive, send)
    return sent


def test_a_container_without_lifespan_starts_it_with_the_first_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = app()

    async def main() -> None:
        with caplog.at_level("INFO", "httpy.guest"):
            found = await asyncio.gather(*(ask(made) for _ in range(3)))
        for start, body in found:
            assert (start["status"], body["body"]) == (200, b"index")

    asyncio.run(main())

    assert made.state.events == ["startup", "shutdown"]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert [record.name for record in caplog.records if record.name.startswith("httpy")] == ["httpy.guest"]
    assert "it says nothing of startup" in caplog.text
    assert "early hints, pushes and trailers are not sent" in caplog.text
    assert "pings of WebSockets are left to the container" in caplog.text


def test_content_is_asked_of_a_container_piece_by_piece_as_it_is_wanted() -> None:
    made = App()
    asked = 0
    is_asking = False
    ahead: list[int] = []

    @made.post("/", stream=True)
    async def slow(request: Any) -> str:
        chunks = request.stream()
        size = len(await chunks.__anext__())
        await asyncio.sleep(0.05)
        ahead.append(asked)
        async for chunk in chunks:
            size += len(chunk)
        return str(size)

    async def receive() -> dict[str, Any]:
        nonlocal asked, is_asking
        assert not is_asking, "two ask at a time"
        is_asking = True
        await asyncio.sleep(0)
        asked += 1
        is_asking = False
        if asked > 100:
            await asyncio.get_running_loop().create_future()
        return {"type": "http.request", "body": b"x" * 10_000, "more_body": asked < 100}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-length", b"1000000")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    asyncio.run(made(scope, receive, send))

    assert sent[1]["body"] == b"1000000"
    # What is wanted fills an inbox of 64 KiB, and no more.
    assert ahead[0] < 20


class Line:
    """A container's side of a WebSocket: what the client says, and what the app has sent."""

    def __init__(self, *said: dict[str, Any]) -> None:
        self.said = [{"type": "websocket.connect"}, *said]
        self.sent: list[dict[str, Any]] = []
        self.is_broken = False

    async def receive(self) -> dict[str, Any]:
        if not self.said:
            await asyncio.get_running_loop().create_future()
        if self.said[0]["type"] != "websocket.connect":
            await self.opened.wait()
        return self.said.pop(0)

    async def send(self, message: dict[str, Any]) -> None:
        if self.is_broken and message["type"] == "websocket.send":
            raise OSError("nobody reads")
        self.sent.append(message)
        self.opened.set()

    def open(self, application: App, **scope: Any) -> None:
        """Has the app served until it has ended."""
        whole = {"type": "websocket", "path": "/ws", "headers": [], "query_string": b"", "subprotocols": []}

        async def serve() -> None:
            # Python 3.9 has an event belong to the loop that it is made in.
            self.opened = asyncio.Event()
            await asyncio.wait_for(application({**whole, **scope}, self.receive, self.send), PATIENCE_S)

        asyncio.run(serve())


def with_websocket(handler: Any) -> App:
    made = App()
    made.websocket("/ws")(handler)
    return made


def test_a_handshake_is_what_the_container_makes_of_it() -> None:
    """Fields that are about frames are between the container and its client."""
    told: list[Any] = []

    async def handler(websocket: WebSocket) -> None:
        told.append((websocket.subprotocols, websocket.headers.get("sec-websocket-extensions")))
        await websocket.accept(subprotocol="b", headers={"x-a": "1"})

    line = Line()
    headers = [(b"sec-websocket-extensions", b"permessage-deflate")]
    line.open(with_websocket(handler), subprotocols=["a", "b"], headers=headers)

    assert told == [(["a", "b"], None)]
    assert line.sent == [
        {"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-a", b"1")]},
        {"type": "websocket.close", "code": 1000, "reason": ""},
    ]


def test_a_container_that_can_say_no_more_than_no_says_that() -> None:
    async def handler(websocket: WebSocket) -> None:
        await websocket.reject("who are you?", 401)

    plain, rich = Line(), Line()
    plain.open(with_websocket(handler))
    rich.open(with_websocket(handler), extensions={"websocket.http.response": {}})

    assert plain.sent == [{"type": "websocket.close", "code": 1000, "reason": ""}]
    assert [message["type"] for message in rich.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert (rich.sent[0]["status"], rich.sent[1]["body"]) == (401, b"who are you?")
    assert rich.sent[1]["more_body"] is False


def test_messages_of_a_container_may_name_both_kinds() -> None:
    got: list[Any] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        got.extend([message async for message in websocket])

    text = {"type": "websocket.receive", "text": "text", "bytes": None}
    data = {"type": "websocket.receive", "text": None, "bytes": b"bytes"}
    Line(text, data, {"type": "websocket.disconnect", "code": 1000}).open(with_websocket(handler))

    assert got == ["text", b"bytes"]


@pytest.mark.skipif("selector" not in DRIVERS, reason="there is no selector driver here")
def test_a_thread_that_had_a_loop_of_ours_before_serves_guests_all_the_same() -> None:
    loop, selector = new_event_loop("selector")
    core = Core({})
    core.start(selector, loop)
    loop.run_until_complete(asyncio.sleep(0))
    core.close()
    loop.close()

    test_messages_of_a_container_may_name_both_kinds()


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        ({"code": 4000, "reason": "bye"}, 4000, "bye"),
        ({"code": 1001, "reason": None}, 1001, ""),
        # ASGI: 1005 where nothing is said.
        ({}, 1005, ""),
        ({"code": None}, 1005, ""),
    ],
)
def test_a_handler_is_told_of_the_end_as_the_container_is(said: Any, code: int, reason: str) -> None:
    ended: list[Any] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(WebSocketDisconnect) as raised:
            await websocket.receive()
        ended.append((raised.value.code, raised.value.reason))

    Line({"type": "websocket.disconnect", **said}).open(with_websocket(handler))

    assert ended == [(code, reason)]


def test_a_container_that_can_not_send_is_the_end() -> None:
    ended: list[int] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send("to nobody")
        with pytest.raises(WebSocketDisconnect) as raised:
            await websocket.receive()
        ended.append(raised.value.code)

    line = Line()
    line.is_broken = True
    line.open(with_websocket(handler))

    assert ended == [1006]


def test_what_a_container_brings_waits_for_the_handler() -> None:
    """64 KiB are read ahead, and no more."""
    chunk = {"type": "websocket.receive", "bytes": bytes(10_000)}
    line = Line(*[chunk] * 100, {"type": "websocket.disconnect", "code": 1000})
    left: list[int] = []
    got: list[int] = []

    async def handler(websocket: WebSocket) -> None:
        await websocket.accept()
        got.append(len(await websocket.receive_bytes()))
        for _ in range(10):
            await asyncio.sleep(0.002)
        left.append(len(line.said))
        got.extend([len(message) async for message in websocket])

    line.open(with_websocket(handler))

    assert left[0] > 85
    assert got == [10_000] * 100


def test_what_may_be_sent_by_a_route_is_bounded() -> None:
    """`when_full` is the route's to say, wherever it is served."""
    made = App()
    sent: list[str] = []

    @made.websocket("/ws", when_full="close")
    async def floods(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(WebSocketDisconnect):
            while True:
                await websocket.send(bytes(100_000))
        sent.append("until it was closed")

    line = Line()
    line.open(made)

    assert sent == ["until it was closed"]
    assert line.sent[-1] == {
        "type": "websocket.close",
        "code": 1008,
        "reason": "messages are read too slowly",
    }


def test_a_startup_that_fails_is_told_and_raised() -> None:
    made = App()

    @made.on_startup
    def fail() -> None:
        raise ValueError("no database")

    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ValueError, match="no database"):
        asyncio.run(made({"type": "lifespan"}, receive, send))

    assert sent == [{"type": "lifespan.startup.failed", "message": "ValueError: no database"}]


def test_a_scope_of_no_known_type_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no use for an ASGI scope of type 'mail'"):
        asyncio.run(ask(app(), type="mail"))


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        ({"path": "/a/told", "root_path": "/a"}, ("/a/told", "/a")),
        ({"path": "/a/told", "raw_path": b"/a/told?x", "root_path": "/a"}, ("/a/told", "/a")),
        ({"path": "/told", "root_path": ""}, ("/told", "")),
    ],
)
def test_what_the_container_took_of_the_path_is_its_root(
    scope: dict[str, Any], told: tuple[str, str]
) -> None:
    made = App()

    @made.get("/told")
    def answer(request: Any) -> Any:
        return f"{request.path} {request.root_path}"

    async def main() -> bytes:
        return (await ask(made, **scope))[1]["body"]  # type: ignore[no-any-return]

    assert asyncio.run(main()).decode().split(" ") == list(told)


def test_the_validator_of_the_standard_library_is_content() -> None:
    wsgi = wsgiref.validate.validator(app().wsgi)

    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    import threading

    with wsgiref.simple_server.make_server("127.0.0.1", 0, wsgi, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        response = httpx.get(f"http://127.0.0.1:{server.server_port}/?a=b", trust_env=False)
        thread.join(PATIENCE_S)

    assert (response.status_code, response.text) == (200, "index")


def test_a_wsgi_guest_is_made_anew_in_a_child() -> None:
    """As a server does that loads the app before it forks."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    program = (
        "import os, sys, guest_app\n"
        "def ask():\n"
        "    import io\n"
        "    said = []\n"
        "    environ = {'REQUEST_METHOD': 'GET', 'PATH_INFO': '/', 'wsgi.input': io.BytesIO()}\n"
        "    answer = guest_app.wsgi(environ, lambda status, headers: said.append(status))\n"
        "    return said[0], b''.join(answer)\n"
        "if os.fork() == 0:\n"
        "    print(ask(), flush=True)\n"
        "    sys.exit()\n"
        "os.wait()\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=HERE, capture_output=True, text=True, timeout=30
    )

    assert done.stdout == "('200 OK', b'index')\n", done.stderr
