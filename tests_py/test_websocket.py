"""WebSockets through a real server: handlers, other people's clients. The protocol is tested in Rust, `tests/ws/`."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from httpy import (
    App,
    BlockingWebSocket,
    HTTPError,
    Request,
    RouteError,
    Router,
    Server,
    WebSocket,
    WebSocketDisconnect,
)
from support import PATIENCE_S

Client = Callable[[str], Awaitable[Any]]


def url(server: Server, path: str) -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


def serve(app: App, client: Callable[[Server], Awaitable[Any]], **config: Any) -> Any:
    """Serves an app while a client runs on a loop of its own."""
    with Server(app, port=0, **config) as server:
        return asyncio.run(asyncio.wait_for(client(server), PATIENCE_S))


@contextlib.asynccontextmanager
async def connected(server: Server, path: str, **options: Any) -> AsyncIterator[Any]:
    async with websockets.connect(url(server, path), **options) as connection:
        yield connection


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[{}, {"compression": None}], ids=["compressed", "plain"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def test_text_and_bytes_come_and_go_as_what_they_are(options: dict[str, Any]) -> None:
    app = App()

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for message in websocket:
            await websocket.send(message)

    async def client(server: Server) -> None:
        async with connected(server, "/ws", **options) as connection:
            for message in ["Hello", "", "\N{GRINNING FACE}" * 1000, b"", b"\x00\xff" * 1000, "x" * 200_000]:
                await connection.send(message)
                assert await connection.recv() == message
            await connection.send(["one", " two", " three"])
            assert await connection.recv() == "one two three"

    serve(app, client)


def test_each_kind_of_message_has_its_methods() -> None:
    app = App()

    @app.websocket("/ws")
    async def kinds(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_text((await ws.receive_text()).upper())
        await ws.send_bytes(memoryview((await ws.receive_bytes())[::-1]))
        await ws.send_json({"got": await ws.receive_json()})
        await ws.send(bytearray(b"any"))

    async def client(server: Server) -> None:
        async with connected(server, "/ws") as connection:
            await connection.send("text")
            await connection.send(b"123")
            await connection.send('{"a": [1, 2.5, null]}')
            assert await connection.recv() == "TEXT"
            assert await connection.recv() == b"321"
            assert json.loads(await connection.recv()) == {"got": {"a": [1, 2.5, None]}}
            assert await connection.recv() == b"any"

    serve(app, client)


@pytest.mark.parametrize(
    ("method", "sent", "code", "reason"),
    [
        ("receive_text", b"x", 1003, "expected a text message, received a binary one"),
        ("receive_bytes", "x", 1003, "expected a binary message, received a text one"),
        ("receive_json", "{", 1007, "expected a message in JSON"),
    ],
)
def test_what_a_handler_can_not_take_closes_with_the_reason(
    method: str, sent: Any, code: int, reason: str
) -> None:
    app = App()
    seen: list[Any] = []

    @app.websocket("/ws")
    async def strict(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await getattr(ws, method)()
        except WebSocketDisconnect as error:
            seen.append((error.code, error.reason))
            raise

    async def client(server: Server) -> None:
        async with connected(server, "/ws") as connection:
            await connection.send(sent)
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert (connection.close_code, connection.close_reason) == (code, reason)

    serve(app, client)
    assert seen == [(code, reason)]


def test_what_can_not_be_sent_says_so() -> None:
    app = App()
    seen: list[str] = []

    @app.websocket("/ws")
    async def wrong(ws: WebSocket) -> None:
        for call in (lambda: ws.send("early"), lambda: ws.receive()):
            with pytest.raises(RuntimeError) as error:
                await call()
            seen.append(str(error.value))
        await ws.accept()
        for call, kind in (
            (lambda: ws.send(1), TypeError),
            (lambda: ws.send_bytes("text"), TypeError),
            (lambda: ws.send_text(b"bytes"), TypeError),
            (lambda: ws.send_text("\ud800"), UnicodeEncodeError),
            (lambda: ws.send_json(object()), TypeError),
            (lambda: ws.close(1005), ValueError),
            (lambda: ws.close(1000, "x" * 124), ValueError),
            (lambda: ws.ping(b"x" * 126), ValueError),
            (lambda: ws.accept(), RuntimeError),
            (lambda: ws.reject(), RuntimeError),
        ):
            with pytest.raises(kind):
                await call()
        await ws.ping(b"x" * 125)
        await ws.close(4999, "x" * 123)

    async def client(server: Server) -> None:
        async with connected(server, "/ws") as connection:
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert (connection.close_code, connection.close_reason) == (4999, "x" * 123)

    serve(app, client)
    assert seen == ["the WebSocket is not open yet: await websocket.accept() first"] * 2


# -- the handshake -----------------------------------------------------------------------------------------------------


def test_a_handler_takes_what_any_handler_does() -> None:
    app = App()
    rooms = Router(prefix="/rooms")

    @rooms.websocket("/{room}/{seat:int}")
    async def room(room: str, seat: int, ws: WebSocket, request: Request, name: str = "nobody") -> None:
        await ws.accept()
        await ws.send_json(
            [
                room,
                seat,
                name,
                ws.path_params,
                ws.url,
                ws.headers["host"],
                request.http_version,
                dict(ws.query),
                ws.client[0] if ws.client else None,
                ws.cookies,
                ws.request is request,
            ]
        )

    app.include(rooms, prefix="/api")

    async def client(server: Server) -> None:
        path = "/api/rooms/blue%20one/7?name=Ada"
        async with connected(server, path, additional_headers={"Cookie": "a=1"}) as connection:
            host = f"127.0.0.1:{server.port}"
            params = {"room": "blue one", "seat": 7}
            seen = ["blue one", 7, "Ada", params, f"ws://{host}{path}", host, "1.1", {"name": "Ada"}]
            assert json.loads(await connection.recv()) == [*seen, "127.0.0.1", {"a": "1"}, True]

    serve(app, client)


def test_accept_chooses_a_subprotocol_and_sets_fields() -> None:
    app = App()

    @app.websocket("/ws")
    async def chat(ws: WebSocket) -> None:
        await ws.accept(subprotocol=ws.subprotocols[-1], headers={"Set-Cookie": "a=1"})
        await ws.send_json([ws.subprotocols, ws.subprotocol, ws.connection_state])

    async def client(server: Server) -> None:
        async with connected(server, "/ws", subprotocols=["one", "two"]) as connection:
            assert connection.subprotocol == "two"
            assert connection.response.headers["set-cookie"] == "a=1"
            assert json.loads(await connection.recv()) == [["one", "two"], "two", "open"]

    serve(app, client)


def test_a_rejection_is_any_response() -> None:
    app = App()

    @app.websocket("/reject")
    async def reject(ws: WebSocket) -> None:
        await ws.reject({"why": "no"}, status=401, headers={"WWW-Authenticate": "Bearer"})

    @app.websocket("/later")
    async def later(ws: WebSocket) -> None:
        await asyncio.sleep(0.01)
        await ws.reject()

    @app.websocket("/raise")
    async def raise_(ws: WebSocket) -> None:
        raise HTTPError(418, "tea")

    @app.websocket("/return")
    async def return_(ws: WebSocket) -> None:
        pass

    @app.websocket("/value")
    async def value(ws: WebSocket) -> Any:
        return {"a": 1}, 409

    @app.websocket("/bug")
    async def bug(ws: WebSocket) -> None:
        raise ValueError("internal")

    @app.websocket("/blocking")
    def blocking(ws: BlockingWebSocket) -> None:
        ws.reject("no", status=402)

    @app.websocket("/needs")
    async def needs(ws: WebSocket, token: int) -> None:
        await ws.accept()

    async def client(server: Server) -> dict[str, tuple[int, bytes]]:
        seen = {}
        for path in [
            "reject",
            "later",
            "raise",
            "return",
            "value",
            "bug",
            "blocking",
            "needs?token=x",
            "other",
        ]:
            with pytest.raises(InvalidStatus) as error:
                await websockets.connect(url(server, f"/{path}"))
            seen[path] = (error.value.response.status_code, bytes(error.value.response.body or b""))
        return seen

    seen = serve(app, client)
    assert {path: status for path, (status, _) in seen.items()} == {
        "reject": 401,
        "later": 403,
        "raise": 418,
        "return": 403,
        "value": 409,
        "bug": 500,
        "blocking": 402,
        "needs?token=x": 422,
        "other": 404,
    }
    assert seen["reject"][1] == b'{"why":"no"}'
    assert seen["raise"][1] == b'{"detail":"tea"}'
    assert b"internal" not in seen["bug"][1]


def test_a_get_and_a_websocket_share_a_path() -> None:
    app = App()

    @app.get("/both")
    async def page() -> str:
        return "page"

    @app.websocket("/both")
    async def both(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send("socket")

    @app.websocket("/only")
    async def only(ws: WebSocket) -> None:
        await ws.accept()

    async def client(server: Server) -> None:
        async with connected(server, "/both") as connection:
            assert await connection.recv() == "socket"
        async with httpx.AsyncClient(trust_env=False) as http:
            base = f"http://127.0.0.1:{server.port}"
            assert (await http.get(f"{base}/both")).text == "page"
            told = await http.get(f"{base}/only")
            assert (told.status_code, told.headers["upgrade"]) == (426, "websocket")
            assert (await http.post(f"{base}/only")).status_code == 405

    serve(app, client)


def test_a_mounted_app_has_websockets() -> None:
    outer, inner = App(), App()

    @inner.websocket("/ws")
    async def socket_(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send(ws.request.root_path)

    outer.mount("/inner", inner)

    async def client(server: Server) -> None:
        async with connected(server, "/inner/ws") as connection:
            assert await connection.recv() == "/inner"

    serve(outer, client)


def test_only_pages_of_these_origins_may_open_it() -> None:
    app = App()

    @app.websocket("/ws", origins=["https://example.com", "same"])
    async def guarded(ws: WebSocket) -> None:
        await ws.accept()

    async def client(server: Server) -> None:
        for origin in [None, "https://example.com", f"http://127.0.0.1:{server.port}"]:
            async with connected(server, "/ws", origin=origin):
                pass
        for origin in ["http://example.com", "https://example.com.evil.com", "null"]:
            with pytest.raises(InvalidStatus) as error:
                await websockets.connect(url(server, "/ws"), origin=origin)
            assert error.value.response.status_code == 403

    serve(app, client)


def test_mistakes_show_at_registration() -> None:
    app = App()

    async def fine(ws: WebSocket) -> None: ...

    def wrong(ws: WebSocket) -> None: ...

    async def wrong_too(ws: BlockingWebSocket) -> None: ...

    async def body(ws: WebSocket, item: dict[str, Any]) -> None: ...

    app.websocket("/ws")(fine)
    for register, says in (
        (lambda: app.websocket("/ws")(fine), "conflicts with WEBSOCKET /ws"),
        (lambda: app.websocket("/a")(wrong), "annotate it httpy.BlockingWebSocket"),
        (lambda: app.websocket("/a")(wrong_too), "annotate it httpy.WebSocket"),
        (lambda: app.websocket("/a")(body), "a WebSocket's handshake has none"),
        (lambda: app.get("/a")(fine), "register the handler with @app.websocket"),
        (lambda: app.websocket("a")(fine), "a pattern starts with `/`"),
        (lambda: app.websocket("/a", origins=["example.com"])(fine), "an origin is a scheme and a host"),
        (lambda: app.websocket("/a", when_full="explode")(fine), "when_full is wait, drop or close"),  # type: ignore[arg-type]
    ):
        with pytest.raises(RouteError, match=says.replace("(", r"\(")):
            register()


# -- how it ends -------------------------------------------------------------------------------------------------------


def test_the_end_of_the_handler_closes_it() -> None:
    app = App()

    @app.websocket("/ws")
    async def brief(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send("bye")

    async def client(server: Server) -> None:
        async with connected(server, "/ws") as connection:
            assert await connection.recv() == "bye"
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert connection.close_code == 1000

    serve(app, client)


def test_a_handler_that_fails_closes_with_1011_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.websocket("/ws/{n}")
    async def fails(ws: WebSocket, n: str) -> None:
        await ws.accept()
        await ws.receive()
        raise ValueError("secret")

    async def client(server: Server) -> None:
        async with connected(server, "/ws/1") as connection:
            await connection.send("go")
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert (connection.close_code, connection.close_reason) == (1011, "")

    with caplog.at_level(logging.ERROR, logger="httpy.error"):
        serve(app, client)
    assert "fails failed: WebSocket /ws/{n}" in caplog.text
    assert "ValueError: secret" in caplog.text


def test_the_handler_learns_of_the_end_behind_the_messages() -> None:
    app = App()
    seen: list[Any] = []
    ended = threading.Event()

    @app.websocket("/ws")
    async def listen(ws: WebSocket) -> None:
        await ws.accept()
        await asyncio.sleep(0.05)
        try:
            while True:
                seen.append(await ws.receive())
        except WebSocketDisconnect as error:
            seen.append((error.code, error.reason, ws.close_code, ws.close_reason, ws.connection_state))
            with pytest.raises(WebSocketDisconnect):
                await ws.send("late")
            ended.set()

    async def client(server: Server) -> None:
        async with connected(server, "/ws") as connection:
            await connection.send("one")
            await connection.send("two")
            await connection.close(4321, "done")
        assert await asyncio.to_thread(ended.wait, PATIENCE_S)

    serve(app, client)
    assert seen == ["one", "two", (4321, "done", 4321, "done", "closed")]


def test_a_client_that_vanishes_is_a_1006() -> None:
    app = App()
    ended: list[int] = []
    told = threading.Event()

    @app.websocket("/ws")
    async def listen(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await ws.receive()
        except WebSocketDisconnect as error:
            ended.append(error.code)
            told.set()

    async def client(server: Server) -> None:
        connection = await websockets.connect(url(server, "/ws"))
        connection.transport.abort()
        assert await asyncio.to_thread(told.wait, PATIENCE_S)

    serve(app, client)
    assert ended == [1006]


def test_a_handler_that_does_not_look_is_cancelled_after_a_while() -> None:
    app = App()
    seen: list[str] = []
    told = threading.Event()

    @app.websocket("/ws")
    async def waits(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            told.set()

    async def client(server: Server) -> None:
        async with connected(server, "/ws"):
            pass
        assert await asyncio.to_thread(told.wait, PATIENCE_S)

    serve(app, client, ws_handler_grace=0.05)
    assert seen == ["cancelled"]


def test_a_server_that_stops_does_not_wait_long_for_handlers_that_do_not_look() -> None:
    app = App()
    seen: list[str] = []

    @app.websocket("/ws")
    async def waits(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send("ready")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def client(server: Server) -> None:
        async with connected(server, "/ws") as connection:
            await connection.recv()
            await asyncio.to_thread(server.stop)

    serve(app, client, ws_handler_grace=1000.0, idle_grace=0.05)
    assert seen == ["cancelled"]


def test_a_handler_is_cancelled_if_the_client_does_not_wait_for_its_answer() -> None:
    app = App()
    began, cancelled = threading.Event(), threading.Event()

    @app.websocket("/ws")
    async def slow(ws: WebSocket) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with Server(app, port=0) as server:
        connection = raw_handshake(server)
        assert began.wait(PATIENCE_S)
        connection.close()
        assert cancelled.wait(PATIENCE_S)


def raw_handshake(server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
    connection.sendall(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    return connection


def test_a_server_that_stops_says_so_and_waits_for_the_handlers() -> None:
    app = App()
    seen: list[Any] = []

    @app.websocket("/ws")
    async def listen(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send("ready")
        try:
            await ws.receive()
        except WebSocketDisconnect as error:
            await asyncio.sleep(0.05)
            seen.append(error.code)

    async def client(server: Server) -> int:
        connection = await websockets.connect(url(server, "/ws"))
        await connection.recv()
        stopping = asyncio.create_task(asyncio.to_thread(server.stop))
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        await stopping
        return connection.close_code

    assert serve(app, client) == 1001
    assert seen == [1001]


# -- tasks -------------------------------------------------------------------------------------------------------------


def test_waiting_is_that_of_a_real_task() -> None:
    """Cancellation, time-outs, context variables and other tasks are what they are anywhere in asyncio."""
    app = App()
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    @app.websocket("/ws")
    async def tasks(ws: WebSocket) -> None:
        await ws.accept()
        variable.set("mine")
        task = asyncio.current_task()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ws.receive(), 0.01)
        receiving = asyncio.create_task(ws.receive_text())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task waits"):
            await ws.receive()
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        await ws.send("go")
        # What came while nobody waited is not lost.
        await asyncio.sleep(0.05)
        first = await ws.receive()
        second = await asyncio.gather(ws.receive(), asyncio.sleep(0))
        await ws.send(f"{first} {second[0]} {variable.get()} {asyncio.current_task() is task}")

    async def client(server: Server) -> None:
        async with connected(server, "/ws") as connection:
            assert await connection.recv() == "go"
            await connection.send("one")
            await connection.send("two")
            assert await connection.recv() == "one two mine True"

    serve(app, client)


def test_another_task_may_send_and_close() -> None:
    app = App()

    @app.websocket("/ws")
    async def two(ws: WebSocket) -> None:
        await ws.accept()

        async def ticker() -> None:
            for number in range(3):
                await asyncio.sleep(0.001)
                await ws.send(f"tick {number}")
            await ws.close(4000, "enough")

        ticking = asyncio.create_task(ticker())
        seen = [message async for message in ws]
        await ticking
        assert seen == ["a"]

    async def reads(server: Server) -> None:
        connection = await websockets.connect(url(server, "/ws"))
        await connection.send("a")
        seen = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                seen.append(await connection.recv())
        assert seen == ["tick 0", "tick 1", "tick 2"]
        assert (connection.close_code, connection.close_reason) == (4000, "enough")

    serve(app, reads)


def test_many_sockets_at_once() -> None:
    app = App()

    @app.websocket("/ws/{n:int}")
    async def echo(ws: WebSocket, n: int) -> None:
        await ws.accept()
        async for message in ws:
            if n % 2:
                await asyncio.sleep(0)
            await ws.send(f"{n}:{message}")

    async def client(server: Server) -> None:
        async def one(n: int) -> None:
            async with connected(server, f"/ws/{n}", compression=None) as connection:
                for number in range(50):
                    await connection.send(str(number))
                    assert await connection.recv() == f"{n}:{number}"

        await asyncio.gather(*(one(n) for n in range(50)))

    serve(app, client)


# -- blocking handlers -------------------------------------------------------------------------------------------------


def test_a_plain_def_blocks() -> None:
    app = App()
    seen: list[Any] = []
    told = threading.Event()

    @app.websocket("/ws/{name}")
    def blocking(name: str, ws: BlockingWebSocket) -> None:
        ws.accept()
        assert ws.connection_state == "open"
        ws.send_json({"name": name, "text": ws.receive_text(), "bytes": len(ws.receive_bytes())})
        ws.send(str(ws.receive_json()["a"]))
        for message in ws:
            ws.send(message)
        seen.append((ws.close_code, ws.connection_state))
        with pytest.raises(WebSocketDisconnect):
            ws.receive()
        told.set()

    async def client(server: Server) -> None:
        async with connected(server, "/ws/x") as connection:
            await connection.send("text")
            await connection.send(b"123")
            assert json.loads(await connection.recv()) == {"name": "x", "text": "text", "bytes": 3}
            await connection.send('{"a": 5}')
            assert await connection.recv() == "5"
            await connection.send("again")
            assert await connection.recv() == "again"
        assert await asyncio.to_thread(told.wait, PATIENCE_S)

    serve(app, client)
    assert seen == [(1000, "closed")]


# -- slow readers ------------------------------------------------------------------------------------------------------


def slow_reader(server: Server) -> socket.socket:
    """A client that does not read, with little room for what it does not read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE_S)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    return connection


def read_frames(connection: socket.socket) -> list[tuple[int, bytes]]:
    """Reads everything until the server closes."""
    stream = connection.makefile("rb")
    while stream.readline() not in (b"\r\n", b""):
        pass
    frames = []
    while head := stream.read(2):
        length = head[1]
        if length == 126:
            (length,) = struct.unpack(">H", stream.read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", stream.read(8))
        frames.append((head[0] & 15, stream.read(length)))
        if frames[-1][0] == 8:
            break
    return frames


CHUNK = b"x" * 10_000
MANY = 3000


@pytest.mark.parametrize("policy", ["wait", "drop", "close"])
def test_a_client_that_reads_slowly(policy: Any) -> None:
    app = App()
    sent: list[int] = []
    blocked, told = threading.Event(), threading.Event()

    @app.websocket("/ws", when_full=policy)
    async def flood(ws: WebSocket) -> None:
        await ws.accept()
        try:
            for number in range(MANY):
                if number == MANY // 2:
                    blocked.set()
                await ws.send(CHUNK)
                sent.append(number)
        finally:
            blocked.set()
            told.set()

    with Server(app, port=0) as server, slow_reader(server) as connection:
        if policy == "wait":
            assert not blocked.wait(0.3), "send waits"
        else:
            assert told.wait(PATIENCE_S)
        frames = read_frames(connection)
        assert told.wait(PATIENCE_S)

    received = [content for opcode, content in frames if opcode == 2]
    assert all(content == CHUNK for content in received)
    close = frames[-1]
    assert close[0] == 8
    if policy == "wait":
        assert (len(received), len(sent)) == (MANY, MANY)
        assert close[1] == struct.pack(">H", 1000)
    elif policy == "drop":
        assert len(sent) == MANY
        assert 0 < len(received) < MANY
    else:
        assert len(sent) < MANY
        assert close[1] == struct.pack(">H", 1008) + b"messages are read too slowly"
