"""HTTP/2 through a real server. The protocol is tested in Rust, `tests/h2/`, other clients in `test_interop.py`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import httpx
import pytest

from httpy import App, Request, Response, Server, StreamingResponse, _httpy
from support import PATIENCE_S

app = App()


@app.get("/", inline=True)
def index() -> str:
    return "Hello"


@app.get("/async")
async def later() -> str:
    await asyncio.sleep(0)
    return "later"


@app.get("/pooled")
def pooled() -> str:
    return "pooled"


@app.get("/request")
async def seen(request: Request) -> dict[str, Any]:
    return {
        "version": request.version,
        "http_version": request.http_version,
        "host": request.headers["host"],
        "url": str(request.url),
        "cookies": dict(request.cookies),
        "keep_alive": request.is_keep_alive,
        "multiplexing": request.supports("multiplexing"),
    }


@app.post("/length")
async def length(request: Request) -> str:
    return str(len(request.body))


@app.post("/stream", stream=True)
async def arriving(request: Request) -> str:
    return str(sum([len(chunk) async for chunk in request.stream()]))


@app.get("/large")
def large() -> bytes:
    return b"x" * 5_000_000


@app.get("/generated")
async def generated() -> Response:
    async def numbers() -> AsyncIterator[str]:
        for number in range(3):
            await asyncio.sleep(0)
            yield f"{number}\n"

    return StreamingResponse(numbers())


@app.get("/page")
async def page(request: Request) -> dict[str, bool]:
    hinted = await request.early_hints(["</app.css>; rel=preload; as=style", "</app.js>; rel=preload"])
    return {"hinted": hinted, "pushed": request.push("/request?a=b"), "own": request.push("/", {"x": "y"})}


@app.get("/hinting")
def hinting(request: Request) -> str:
    return "yes" if request.early_hints(["</a>"]) else "no"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(app, port=0) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=server.url, http1=False, http2=True, timeout=PATIENCE_S, trust_env=False
    ) as client:
        yield client


class Peer:
    """A client that sees every event."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE_S)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        if context is not None:
            self.socket = context.wrap_socket(self.socket)
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.send()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self) -> None:
        self.socket.sendall(self.connection.data_to_send())

    def get(self, path: str, *fields: tuple[str, str]) -> int:
        """Sends a GET request and returns its stream's number."""
        stream: int = self.connection.get_next_available_stream_id()
        target = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
        self.connection.send_headers(stream, [*target, *fields], end_stream=True)
        self.send()
        return stream

    def events(self, until: int) -> list[Any]:
        """All events until so many streams have ended."""
        events: list[Any] = []
        while sum(isinstance(event, h2.events.StreamEnded) for event in events) < until:
            data = self.socket.recv(65536)
            assert data, events
            news = self.connection.receive_data(data)
            for event in news:
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            events += news
            self.send()
        return events


def contents(events: list[Any]) -> dict[int, bytes]:
    """The content of each stream."""
    found: dict[int, bytes] = {}
    for event in events:
        if isinstance(event, h2.events.DataReceived):
            found[event.stream_id] = found.get(event.stream_id, b"") + event.data
    return found


@pytest.mark.parametrize(
    ("path", "text"),
    [("/", "Hello"), ("/async", "later"), ("/pooled", "pooled"), ("/generated", "0\n1\n2\n")],
)
def test_handlers_of_every_kind_answer(client: httpx.Client, path: str, text: str) -> None:
    response = client.get(path)

    assert (response.http_version, response.status_code, response.text) == ("HTTP/2", 200, text)


def test_a_request_says_that_it_came_by_http_2(client: httpx.Client, server: Server) -> None:
    client.cookies.update({"a": "b", "c": "d"})

    assert client.get("/request?x=y").json() == {
        "version": "HTTP/2",
        "http_version": "2",
        "host": f"127.0.0.1:{server.port}",
        "url": f"{server.url}/request?x=y",
        "cookies": {"a": "b", "c": "d"},
        "keep_alive": True,
        "multiplexing": True,
    }


def test_cookies_that_came_apart_are_put_together(server: Server) -> None:
    with Peer(server.port) as peer:
        stream = peer.get("/request", ("cookie", "a=b"), ("cookie", "c=d"))

        assert json.loads(contents(peer.events(until=1))[stream])["cookies"] == {"a": "b", "c": "d"}


@pytest.mark.parametrize("path", ["/length", "/stream"])
@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
def test_content_arrives_whole_or_as_it_comes(client: httpx.Client, path: str, size: int) -> None:
    assert client.post(path, content=b"x" * size).text == str(size)


def test_large_content_is_sent_whole(client: httpx.Client) -> None:
    assert client.get("/large").content == b"x" * 5_000_000


def test_content_past_the_limit_is_413_and_the_connection_goes_on() -> None:
    small = App()
    small.post("/")(lambda: "fine")
    with (
        Server(small, port=0, max_body_bytes=1000) as server,
        httpx.Client(base_url=server.url, http1=False, http2=True, timeout=PATIENCE_S) as client,
    ):
        statuses = [
            client.post("/", content=b"x" * size).status_code for size in (1000, 1001, 2_000_000, 1000)
        ]

    assert statuses == [200, 413, 413, 200]


def test_many_requests_on_one_connection_are_answered_together(server: Server) -> None:
    async def ask() -> list[str]:
        limits = httpx.Limits(max_connections=1)
        options: dict[str, Any] = {"http1": False, "http2": True, "limits": limits, "timeout": PATIENCE_S}
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, **options) as client:
            paths = ["/", "/async", "/pooled", "/generated"] * 50
            return [response.text for response in await asyncio.gather(*map(client.get, paths))]

    assert asyncio.run(ask()) == ["Hello", "later", "pooled", "0\n1\n2\n"] * 50


def test_a_handler_is_cancelled_when_its_stream_is_reset() -> None:
    app, done = App(), []

    @app.get("/never")
    async def never() -> None:
        try:
            done.append("began")
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            done.append("cancelled")
            raise

    app.get("/done")(lambda: done)
    with Server(app, port=0) as server, Peer(server.port) as peer:
        stream = peer.get("/never")
        asked = 0
        while "began" not in done:
            asked = peer.get("/done")
            peer.events(until=1)
        peer.connection.reset_stream(stream)
        while "cancelled" not in done:
            asked = peer.get("/done")
            peer.events(until=1)

    assert asked
    assert done == ["began", "cancelled"]


def test_pushes_and_hints_go_out_and_pushes_are_answered_by_the_app(server: Server) -> None:
    with Peer(server.port) as peer:
        stream = peer.get("/page", ("cookie", "a=b"), ("accept-language", "de"))
        events = peer.events(until=3)

    hints = [event.headers for event in events if isinstance(event, h2.events.InformationalResponseReceived)]
    assert hints == [
        [
            (":status", "103"),
            ("link", "</app.css>; rel=preload; as=style"),
            ("link", "</app.js>; rel=preload"),
        ]
    ]
    pushes = [event for event in events if isinstance(event, h2.events.PushedStreamReceived)]
    target = [(":method", "GET"), (":scheme", "http"), (":authority", "a")]
    assert [(push.parent_stream_id, push.headers) for push in pushes] == [
        (stream, [*target, (":path", "/request?a=b"), ("accept-language", "de"), ("cookie", "a=b")]),
        (stream, [*target, (":path", "/"), ("x", "y")]),
    ]
    found = contents(events)
    assert json.loads(found[stream]) == {"hinted": True, "pushed": True, "own": True}
    first = json.loads(found[pushes[0].pushed_stream_id])
    assert (first["url"], first["cookies"]) == ("http://a/request?a=b", {"a": "b"})
    assert found[pushes[1].pushed_stream_id] == b"Hello"


def test_early_hints_go_out_by_http_1_1_if_that_is_configured() -> None:
    with (
        Server(app, port=0, h1_early_hints=True) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection,
        connection.makefile("rb") as answer,
    ):
        for path, text in (("/hinting", b"yes"), ("/page", b'{"hinted":true,"pushed":false,"own":false}')):
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            heads = [b"".join(iter(answer.readline, b"\r\n")) for _ in range(2)]

            assert heads[0].startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </a"), heads
            assert heads[1].startswith(b"HTTP/1.1 200 OK\r\n"), heads
            assert answer.read(len(text)) == text


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system can't be told to hold little")
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_what_is_urgent_does_not_wait_for_what_the_system_holds(is_encrypted: bool, tmp_path: Path) -> None:
    """Without a limit it holds some 2.5 MB."""
    config, context = {}, None
    if is_encrypted:
        chain, key = _httpy.dev_certificate(str(tmp_path))
        config = {"certfile": str(chain), "keyfile": str(key)}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(chain)
        context.set_alpn_protocols(["h2"])
    with Server(app, port=0, **config) as server, Peer(server.port, context, 32768) as peer:
        peer.connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100_000_000})
        peer.connection.increment_flow_control_window(100_000_000)
        for _ in range(4):
            peer.get("/large")
        # Until the server can send no more: it says so to nobody.
        time.sleep(0.5)
        urgent = peer.get("/", ("priority", "u=0"))
        events = peer.events(until=1)

    assert contents(events)[urgent] == b"Hello"
    assert sum(map(len, contents(events).values())) < 1_000_000


def test_where_there_is_nothing_of_that_kind_it_says_no(server: Server, client: httpx.Client) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as old:
        assert old.get("/page").json() == {"hinted": False, "pushed": False, "own": False}
        assert old.get("/hinting").text == "no"
    # httpx takes no pushes.
    assert client.get("/page").json() == {"hinted": True, "pushed": False, "own": False}
    assert client.get("/hinting").text == "yes"


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda request: request.push("a.css"), ValueError, "push takes a path that starts with /"),
        (lambda request: request.push("http://b/"), ValueError, "push takes a path that starts with /"),
        (lambda request: request.push("/a b"), ValueError, "push takes a path that starts with /"),
        (lambda request: request.push("/", {"a b": "c"}), ValueError, "a b"),
        (lambda request: request.early_hints("</a>"), TypeError, "a list of links"),
        (lambda request: request.early_hints(["a\nb"]), ValueError, "control character"),
    ],
)
def test_mistakes_are_said(call: Any, error: type[Exception], says: str) -> None:
    app, raised = App(), []

    @app.get("/", inline=True)
    def index(request: Request) -> None:
        with pytest.raises(error, match=says) as caught:
            call(request)
        raised.append(caught.value)

    with Server(app, port=0) as server:
        assert httpx.get(server.url, trust_env=False).status_code == 204
    assert len(raised) == 1


def test_stopping_lets_streams_finish() -> None:
    """By curl: to the package h2 a connection is closed from the first GOAWAY on, whatever is still to come."""
    curl = shutil.which("curl")
    if curl is None or "HTTP2" not in subprocess.check_output([curl, "--version"], text=True):
        pytest.skip("there is no curl with HTTP/2")
    app, began = App(), threading.Event()

    @app.get("/")
    async def slow(request: Request) -> str:
        began.set()
        while not request.is_stopping:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        return "done"

    with Server(app, port=0) as server:
        command = [curl, "-sS", "--http2-prior-knowledge", server.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
            assert began.wait(PATIENCE_S)
            server.stop()
            assert asking.communicate(timeout=PATIENCE_S) == ("done", None)


def test_a_client_that_floods_is_sent_away_and_others_are_served(
    server: Server, client: httpx.Client
) -> None:
    with Peer(server.port) as peer, contextlib.suppress(ConnectionError):
        for _ in range(2000):
            peer.connection.ping(b"12345678")
            peer.send()
        ended = None
        while ended is None:
            news = peer.connection.receive_data(peer.socket.recv(65536))
            ended = next((event for event in news if isinstance(event, h2.events.ConnectionTerminated)), None)
        assert ended.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM

    assert client.get("/").text == "Hello"
