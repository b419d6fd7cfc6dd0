"""WebSockets of ASGI apps, hosted: what apps are told, what they may say, and what becomes of it (ASGI 3.0)."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from h2_socket import H2Socket
from httpy import ASGI, WSGI, App, ClientDisconnected, Request, Server, WebSocket
from support import PATIENCE_S

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Message, Receive, Send], Awaitable[None]]

ACCEPT: Message = {"type": "websocket.accept"}
CONNECT: Message = {"type": "websocket.connect"}


class Seen:
    """What an app under test has seen, for the test's own thread."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.changed = threading.Condition()

    def put(self, value: Any) -> None:
        with self.changed:
            self.values.append(value)
            self.changed.notify_all()

    def wait(self, count: int = 1) -> list[Any]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.values) >= count, PATIENCE_S), self.values
            return self.values


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def logged() -> Iterator[Seen]:
    """What is logged as an error: by threads that take their time."""
    records = Seen()
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.put  # type: ignore[method-assign]
    logging.getLogger("httpy").addHandler(handler)
    yield records
    logging.getLogger("httpy").removeHandler(handler)


@contextlib.contextmanager
def serving(app: Any, **config: Any) -> Iterator[Server]:
    if not isinstance(app, (App, ASGI, WSGI)):
        app = ASGI(app, lifespan="off")
    with Server(app, port=0, **config) as server:
        yield server


def connected(server: Server, path: str = "/", **options: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}{path}", open_timeout=PATIENCE_S, proxy=None, **options)


def refused(server: Server, path: str = "/") -> Any:
    """The response to a handshake that does not open a WebSocket."""
    with pytest.raises(InvalidStatus) as raised, connected(server, path):
        pass
    return raised.value.response


def how_it_ends(connection: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed):
        connection.recv(PATIENCE_S)
    return connection.close_code or 0, connection.close_reason or ""


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Says to everybody what they say."""
    assert await receive() == CONNECT
    await send(ACCEPT)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({**message, "type": "websocket.send"})


def saying(*messages: Message, then: Callable[[], Awaitable[Any]] | None = None) -> ASGIApp:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)
        if then is not None:
            await then()

    return app


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"compression": None}], ids=["compressed", "plain"])
def test_messages_come_and_go_as_what_they_are(driver: str, options: dict[str, Any]) -> None:
    with serving(echo, loop=driver) as server, connected(server, **options) as connection:
        for message in ["Hello", "", "\N{GRINNING FACE}" * 1000, b"", b"\x00\xff" * 1000, "x" * 200_000]:
            connection.send(message)
            assert connection.recv(PATIENCE_S) == message
        connection.send(["one", " two"])
        assert connection.recv(PATIENCE_S) == "one two"


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.slow
def test_an_app_that_answers_in_its_first_step_is_not_cancelled_for_it(driver: str) -> None:
    """The answer may go out on another thread, before the step is over: one in 300 was cancelled then."""
    with serving(echo, loop=driver) as server:
        for number in range(600):
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
                connection.sendall(HANDSHAKE)
                stream = connection.makefile("rb")
                while stream.readline() != b"\r\n":
                    pass

                connection.sendall(b"\x81\x85\0\0\0\0Hello")

                assert stream.read(7) == b"\x81\x05Hello", number
                connection.sendall(b"\x88\x82\0\0\0\0\x03\xe8")
                assert stream.read(4) == b"\x88\x02\x03\xe8"


def test_by_http_2_it_is_the_same_app(driver: str, seen: Seen) -> None:
    """RFC 8441."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put(scope)
        await receive()
        await send({**ACCEPT, "subprotocol": "chat", "headers": [(b"x-a", b"1")]})
        message = await receive()
        await send({**message, "type": "websocket.send"})
        seen.put(await receive())

    with serving(app, loop=driver) as server, H2Socket(server.port, "/ws?a=b") as peer:
        peer.send_frame(0x81, b"Hello")
        assert peer.read_frame() == (0x81, b"Hello")
        peer.send_frame(0x88, struct.pack(">H", 1000) + b"bye")
        assert peer.read_frame() == (0x88, struct.pack(">H", 1000) + b"bye")
        assert peer.fields[b":status"] == b"200"
        assert (peer.fields[b"sec-websocket-protocol"], peer.fields[b"x-a"]) == (b"chat", b"1")
        seen.wait(2)

    scope, end = seen.values
    assert (scope["type"], scope["http_version"], scope["subprotocols"]) == ("websocket", "2", ["chat"])
    assert (scope["path"], scope["query_string"], scope["scheme"]) == ("/ws", b"a=b", "ws")
    assert (b"host", b"localhost") in scope["headers"]
    assert "method" not in scope
    assert end == {"type": "websocket.disconnect", "code": 1000, "reason": "bye"}


def test_by_http_2_it_is_refused_by_a_status(driver: str) -> None:
    denial = (
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"no")]},
        {"type": "websocket.http.response.body", "body": b"who are you?"},
    )

    with (
        serving(saying({"type": "websocket.close"}), loop=driver) as server,
        H2Socket(server.port, "/") as peer,
    ):
        assert peer.answer()[0] == 403
    with serving(saying(*denial), loop=driver) as server, H2Socket(server.port, "/") as peer:
        assert peer.answer() == (401, b"who are you?")
        assert peer.fields[b"x-why"] == b"no"


def test_by_http_2_a_success_is_no_denial(seen: Seen) -> None:
    """RFC 8441 section 5: a success opens the WebSocket."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        with pytest.raises(ValueError, match=r"a status from 300 on by HTTP/2.*found 200"):
            await send({"type": "websocket.http.response.start", "status": 200})
        seen.put("raised")
        await send({"type": "websocket.close"})

    with serving(app) as server, H2Socket(server.port, "/") as peer:
        assert peer.answer()[0] == 403

    assert seen.values == ["raised"]


def test_sending_waits_for_a_slow_client(driver: str, seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        for count in range(200):
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
            seen.put(count)

    with (
        serving(app, loop=driver, ws_compression=False) as server,
        connected(server, max_queue=1) as connection,
    ):
        seen.wait()
        connection.recv(PATIENCE_S)
        # More than sockets hold, and less than all.
        assert len(seen.values) < 200
        for _ in range(199):
            connection.recv(PATIENCE_S)
        assert how_it_ends(connection) == (1000, "")


def test_a_client_that_is_not_listened_to_is_not_read_from(driver: str, seen: Seen) -> None:
    go_on = threading.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        while not go_on.is_set():
            await asyncio.sleep(0.001)
        size = 0
        while (message := await receive())["type"] == "websocket.receive":
            size += len(message["bytes"])
        seen.put(size)

    sent = 0
    with serving(app, loop=driver) as server, connected(server, compression=None) as connection:
        connection.socket.settimeout(0.2)
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            for _ in range(1000):
                connection.send(bytes(100_000))
                sent += 1
        assert sent < 1000
        go_on.set()
        seen.wait()


def test_messages_may_be_awaited_in_other_tasks_and_given_up(driver: str) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await asyncio.wait_for(receive(), PATIENCE_S)
        await asyncio.create_task(send(ACCEPT))  # type: ignore[arg-type]
        for _ in range(20):
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(receive(), 0.001)
        await send({"type": "websocket.send", "text": "go"})
        while (message := await asyncio.create_task(receive()))["type"] != "websocket.disconnect":  # type: ignore[arg-type]
            await asyncio.gather(send({"type": "websocket.send", "text": message["text"]}))

    with serving(app, loop=driver) as server, connected(server) as connection:
        assert connection.recv(PATIENCE_S) == "go"
        for message in ["one", "two"]:
            connection.send(message)
            assert connection.recv(PATIENCE_S) == message


def test_context_variables_stay_the_apps(driver: str) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        while (await receive())["type"] == "websocket.receive":
            variable.set(variable.get() + 1)
            await send({"type": "websocket.send", "text": str(variable.get())})

    with serving(app, loop=driver) as server, connected(server) as one, connected(server) as two:
        for connection, expected in [(one, "1"), (two, "1"), (one, "2"), (two, "2")]:
            connection.send("")
            assert connection.recv(PATIENCE_S) == expected


# -- the scope ---------------------------------------------------------------------------------------------------------


def test_a_scope_has_what_the_specification_says(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put(scope)

    with serving(app, root_path="/outer") as server:
        options: Any = {
            "subprotocols": ["a", "b"],
            "additional_headers": [("X-Twice", "1"), ("X-Twice", "2")],
        }
        with pytest.raises(InvalidStatus), connected(server, "/caf%C3%A9/%2F?a=%20b", **options):
            pass
        port = server.port

    (scope,) = seen.values
    assert type(scope) is dict
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert (scope["http_version"], scope["scheme"]) == ("1.1", "ws")
    assert (scope["path"], scope["raw_path"]) == ("/outer/café//", b"/outer/caf%C3%A9/%2F")
    assert (scope["query_string"], scope["root_path"]) == (b"a=%20b", "/outer")
    assert scope["server"] == ("127.0.0.1", port)
    assert scope["client"][0] == "127.0.0.1"
    assert [value for name, value in scope["headers"] if name == b"x-twice"] == [b"1", b"2"]
    assert scope["subprotocols"] == ["a", "b"]
    assert scope["state"] == {}
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert "method" not in scope


def test_scopes_have_the_state_of_lifespan_each_its_own(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["made"] = "at startup"
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        seen.put(dict(scope["state"]))
        scope["state"]["more"] = 1
        await send({"type": "websocket.close"})

    with serving(ASGI(app)) as server:
        refused(server)
        refused(server)

    assert seen.values == [{"made": "at startup"}] * 2


# -- the handshake -----------------------------------------------------------------------------------------------------


def test_an_app_chooses_a_subprotocol_and_adds_fields() -> None:
    accept = {**ACCEPT, "subprotocol": "b", "headers": [(b"X-A", b"1"), (b"set-cookie", b"c=d")]}

    with serving(saying(accept)) as server, connected(server, subprotocols=["a", "b"]) as connection:
        assert connection.subprotocol == "b"
        assert connection.response is not None
        assert connection.response.headers["x-a"] == "1"
        assert connection.response.headers["set-cookie"] == "c=d"


@pytest.mark.parametrize(
    "accept", [{"subprotocol": None, "headers": []}, {"subprotocol": ""}, {"headers": None}]
)
def test_choosing_nothing_may_be_said(accept: Message) -> None:
    with serving(saying({**ACCEPT, **accept})) as server, connected(server, subprotocols=["a"]) as connection:
        assert connection.subprotocol is None


@pytest.mark.parametrize(
    ("accept", "error"),
    [
        ({"subprotocol": "other"}, "the client has not offered the subprotocol 'other'; it offers none"),
        ({"subprotocol": b"bytes"}, "websocket.accept has a str as its subprotocol, or None"),
        ({"headers": [(b"connection", b"close")]}, "the field connection is the handshake's own"),
        (
            {"headers": [(b"sec-websocket-protocol", b"a")]},
            "the field sec-websocket-protocol is the handshake's own",
        ),
        ({"headers": [("x-a", "1")]}, "header names are bytes, found str: 'x-a'"),
        ({"headers": [(b"x-a", b"a\r\nb")]}, "the value of header x-a has a control character"),
    ],
)
def test_what_can_not_be_accepted_is_500_and_raised(
    accept: Message, error: str, driver: str, logged: Seen
) -> None:
    with serving(saying({**ACCEPT, **accept}), loop=driver) as server:
        assert refused(server).status_code == 500

    (record,) = logged.wait()
    assert error in str(record.exc_info[1]).replace('"', "'")


def test_what_an_app_keeps_to_itself_is_500_too(seen: Seen, logged: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        with pytest.raises(ValueError):
            await send({**ACCEPT, "subprotocol": "other"})
        seen.put(await receive())
        with pytest.raises(RuntimeError, match="expected is nothing"):
            await send(ACCEPT)

    with serving(app) as server:
        assert refused(server).status_code == 500

    assert seen.values == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]
    (record,) = logged.wait()
    assert "ended without an answer to the handshake" in record.getMessage()


def test_a_close_before_accepting_is_403(driver: str, seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000, "reason": "not you"})
        seen.put(await receive())

    with serving(app, loop=driver) as server:
        assert refused(server).status_code == 403
        assert seen.wait() == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


def test_a_response_may_be_given_in_pieces(driver: str, seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Basic")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        for n in range(3):
            await send({"type": "websocket.http.response.body", "body": b"%d," % n, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "websocket.http.response.body"})
        seen.put(await waiting)

    with serving(app, loop=driver) as server:
        response = refused(server)
        assert seen.wait() == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]

    assert (response.status_code, response.body) == (401, b"0,1,2,")
    assert response.headers["www-authenticate"] == "Basic"


def test_a_connection_lives_on_behind_a_denial() -> None:
    """It is an answer like any other."""
    handshake = (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )

    with (
        serving(saying({"type": "websocket.close"})) as server,
        socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection,
    ):
        for _ in range(2):
            connection.sendall(handshake)
            assert connection.recv(65536).startswith(b"HTTP/1.1 403 Forbidden\r\n")


def test_a_handshake_that_is_wrong_does_not_reach_the_app(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put(scope["type"])

    headers = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "8"}
    with serving(app) as server:
        assert httpx.get(server.url, headers=headers, trust_env=False).status_code == 426

    assert seen.values == []


def test_what_does_not_ask_in_every_way_is_a_request(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put(scope["type"])
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    with serving(app) as server:
        assert httpx.get(server.url, trust_env=False).status_code == 204
        assert httpx.get(server.url, headers={"upgrade": "websocket"}, trust_env=False).status_code == 204

    assert seen.values == ["http", "http"]


def test_a_wsgi_app_has_no_websockets() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["HTTP_UPGRADE"].encode()]

    with serving(WSGI(app)) as server:
        response = refused(server)

    assert (response.status_code, response.body) == (200, b"websocket")


# -- the rules ---------------------------------------------------------------------------------------------------------

START: Message = {"type": "websocket.http.response.start", "status": 401}
BODY: Message = {"type": "websocket.http.response.body", "body": b"x", "more_body": True}
CLOSE: Message = {"type": "websocket.close"}
TEXT: Message = {"type": "websocket.send", "text": "x"}
FIRST = "expected is websocket.accept, websocket.close or websocket.http.response.start"
OPEN = "while the WebSocket is open; expected is websocket.send or websocket.close"
OVER = "after the WebSocket was closed or the response complete; expected is nothing"


@pytest.mark.parametrize(
    ("before", "message", "error"),
    [
        ([], TEXT, f"the app sends 'websocket.send' before the handshake was answered; {FIRST}"),
        (
            [],
            BODY,
            f"the app sends 'websocket.http.response.body' before the handshake was answered; {FIRST}",
        ),
        (
            [],
            {"type": "websocket.other"},
            f"the app sends 'websocket.other' before the handshake was answered; {FIRST}",
        ),
        (
            [],
            {"type": "http.response.start", "status": 200},
            f"the app sends 'http.response.start' before .*; {FIRST}",
        ),
        ([ACCEPT], ACCEPT, f"the app sends 'websocket.accept' {OPEN}"),
        ([ACCEPT], START, f"the app sends 'websocket.http.response.start' {OPEN}"),
        ([ACCEPT, CLOSE], TEXT, f"the app sends 'websocket.send' {OVER}"),
        ([ACCEPT, CLOSE], CLOSE, f"the app sends 'websocket.close' {OVER}"),
        ([CLOSE], ACCEPT, f"the app sends 'websocket.accept' {OVER}"),
        (
            [START],
            ACCEPT,
            "the app sends 'websocket.accept' within the response; expected is .*response.body",
        ),
        (
            [START, BODY],
            START,
            "the app sends '.*' within the response; expected is websocket.http.response.body",
        ),
        ([START, {**BODY, "more_body": False}], BODY, f"the app sends 'websocket.http.response.body' {OVER}"),
        ([ACCEPT], {"type": "websocket.send"}, "websocket.send has text or bytes, found neither"),
        ([ACCEPT], {**TEXT, "bytes": b"x"}, "websocket.send has text or bytes, found both"),
        ([ACCEPT], {**TEXT, "text": b"x"}, "the text of websocket.send is a str, found bytes"),
        ([ACCEPT], {"type": "websocket.send", "bytes": "x"}, "a binary message is bytes.* not str"),
        ([ACCEPT], {**CLOSE, "code": 1005}, "a close code is 1000 to 1003, .* not 1005"),
        ([ACCEPT], {**CLOSE, "code": "1000"}, "websocket.close has an int as its code"),
        ([ACCEPT], {**CLOSE, "reason": "x" * 124}, "a close reason has at most 123 bytes .*, found 124"),
        ([ACCEPT], {**CLOSE, "reason": b"x"}, "websocket.close has a str as its reason, or None"),
        (
            [],
            {**START, "status": 101},
            "websocket.http.response.start has a status from 200 to 999, found 101",
        ),
        ([START], {**BODY, "body": "x"}, "is bytes, found str"),
        ([], "websocket.accept", "an ASGI message is a dict, found str"),
        ([], {}, "an ASGI message has a str as its type"),
    ],
)
def test_what_may_not_be_said_is_raised_with_what_was_expected(
    before: list[Message], message: Any, error: str, seen: Seen
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert await receive() == CONNECT
        for one in before:
            await send(one)
        with pytest.raises((RuntimeError, TypeError, ValueError), match=error.replace("'", '"')):
            await send(message)
        seen.put("raised")

    with serving(app) as server, contextlib.suppress(InvalidHandshake, ConnectionClosed), connected(server):
        pass
    assert seen.values == ["raised"]


def test_two_can_not_wait_for_the_same_message(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        first = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task waits for the next message"):
            await receive()
        seen.put((await first)["text"])

    with serving(app) as server, connected(server) as connection:
        connection.send("one")
        assert seen.wait() == ["one"]


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("close", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": 4001, "reason": "enough"}, 4001, "enough"),
        ({"code": None, "reason": None}, 1000, ""),
    ],
)
def test_an_app_closes_with_a_code_and_a_reason(
    close: Message, code: int, reason: str, driver: str, seen: Seen
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": "last"})
        await send({"type": "websocket.close", **close})
        # At once: it does not take the client for that.
        seen.put(await receive())
        seen.put(await receive())

    with serving(app, loop=driver) as server, connected(server) as connection:
        assert connection.recv(PATIENCE_S) == "last"
        assert how_it_ends(connection) == (code, reason)

    assert seen.values == [{"type": "websocket.disconnect", "code": code, "reason": reason}] * 2


def test_what_came_before_the_app_closed_is_still_received(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        await asyncio.sleep(0.02)
        await send({"type": "websocket.close"})
        seen.put((await receive()).get("text"))
        seen.put((await receive())["type"])

    with serving(app) as server, connected(server) as connection:
        connection.send("one")
        connection.send("two")
        assert seen.wait(2) == ["two", "websocket.disconnect"]


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (struct.pack(">H", 4000) + b"bye", 4000, "bye"),
        (struct.pack(">H", 1001), 1001, ""),
        # RFC 6455 section 7.1.5: no code is 1005.
        (b"", 1005, ""),
    ],
)
def test_the_app_is_told_how_the_client_closed(
    content: bytes, code: int, reason: str, driver: str, seen: Seen
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send({**ACCEPT})
        seen.put(await receive())
        seen.put(await receive())

    with serving(app, loop=driver) as server, opened(server) as connection:
        # The mask is zeros, and changes nothing.
        connection.sendall(bytes([0x88, 0x80 | len(content)]) + bytes(4) + content)
        assert seen.wait(2) == [{"type": "websocket.disconnect", "code": code, "reason": reason}] * 2


@contextlib.contextmanager
def opened(server: Server) -> Iterator[socket.socket]:
    """A connection behind its handshake."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b"101 Switching" in connection.recv(65536)
        yield connection


def test_a_client_that_is_cut_off_is_1006_and_sending_an_oserror(
    driver: str, seen: Seen, logged: Seen
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        seen.put(await receive())
        # Apps do so on their way out.
        await send({"type": "websocket.close"})
        try:
            await send({"type": "websocket.send", "text": "anybody?"})
        except OSError as error:
            seen.put(type(error))
            raise

    with serving(app, loop=driver) as server:
        with opened(server):
            pass
        seen.wait(2)

    assert seen.values == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}, ClientDisconnected]
    assert logged.values == []


def test_a_client_that_leaves_while_an_app_sends_is_an_oserror(driver: str, seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(100_000)})
        except OSError as error:
            seen.put(type(error))

    with serving(app, loop=driver) as server:
        with opened(server):
            pass
        assert seen.wait() == [ClientDisconnected]


def test_a_client_that_leaves_before_it_is_answered_is_told_and_cancels_nothing(
    driver: str, seen: Seen
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put(await receive())
        seen.put(await receive())
        with pytest.raises(OSError):
            await send(ACCEPT)
        await send({"type": "websocket.close"})
        await asyncio.sleep(0)
        seen.put("not cancelled")

    with serving(app, loop=driver) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
            connection.sendall(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            seen.wait(1)
        seen.wait(3)

    disconnect = {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert seen.values == [CONNECT, disconnect, "not cancelled"]


def test_an_app_is_not_cancelled_when_its_client_has_gone(driver: str, seen: Seen) -> None:
    """As handlers of ours are, after `ws_handler_grace`."""
    go_on = threading.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        seen.put(await receive())
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        seen.put("done")

    with serving(app, loop=driver, ws_handler_grace=0) as server:
        with connected(server):
            pass
        seen.wait(1)
        # Long enough for a handler of ours to be cancelled.
        httpx.get(server.url, trust_env=False)
        go_on.set()
        seen.wait(2)

    assert seen.values[1] == "done"


def test_an_app_that_returns_closes_with_1000(driver: str) -> None:
    with serving(saying(ACCEPT, TEXT), loop=driver) as server, connected(server) as connection:
        assert connection.recv(PATIENCE_S) == "x"
        assert how_it_ends(connection) == (1000, "")


@pytest.mark.parametrize("app", [saying(), saying(then=lambda: asyncio.sleep(0.001)), saying(START)])
def test_an_app_that_returns_without_an_answer_is_500(app: ASGIApp, driver: str, logged: Seen) -> None:
    with serving(app, loop=driver) as server:
        assert refused(server, "/path").status_code == 500

    (record,) = logged.wait()
    assert record.getMessage() == "a hosted app ended without an answer to the handshake of a WebSocket"
    assert record.target == "WebSocket /path"


async def fail() -> None:
    raise ValueError("of its own")


async def suspend_and_fail() -> None:
    await asyncio.sleep(0.001)
    raise ValueError("of its own")


@pytest.mark.parametrize("then", [fail, suspend_and_fail])
def test_an_app_that_fails_is_500_or_1011_and_logged(
    then: Callable[[], Awaitable[None]], driver: str, logged: Seen
) -> None:
    with serving(saying(then=then), loop=driver) as server:
        assert refused(server, "/path").status_code == 500
    with (
        serving(saying(ACCEPT, TEXT, then=then), loop=driver) as server,
        connected(server, "/path") as connection,
    ):
        assert connection.recv(PATIENCE_S) == "x"
        assert how_it_ends(connection) == (1011, "")

    failures = logged.wait(2)
    assert len(failures) == 2
    for failure in failures:
        assert "WebSocket /path" in failure.getMessage()
        assert failure.exc_info is not None
        assert str(failure.exc_info[1]) == "of its own"


def test_a_response_that_is_not_finished_is_cut(driver: str, logged: Seen) -> None:
    with serving(saying(START, BODY), loop=driver) as server, opened_raw(server) as connection:
        found = b""
        while chunk := connection.recv(65536):
            found += chunk

    assert found.startswith(b"HTTP/1.1 401 ")
    assert not found.endswith(b"0\r\n\r\n")
    (record,) = logged.wait()
    assert "ended before its response: the connection is cut" in record.getMessage()


@contextlib.contextmanager
def opened_raw(server: Server) -> Iterator[socket.socket]:
    """A connection on which a handshake was sent."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        yield connection


def test_a_server_that_stops_says_1001_and_waits_for_the_app(driver: str, seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        seen.put("open")
        seen.put(await receive())
        await asyncio.sleep(0.05)
        seen.put("done")

    with serving(app, loop=driver) as server, connected(server) as connection:
        seen.wait(1)
        ended: list[Any] = []
        client = threading.Thread(target=lambda: ended.append(how_it_ends(connection)))
        client.start()
        server.stop()
        client.join(PATIENCE_S)

    assert seen.values == [
        "open",
        {"type": "websocket.disconnect", "code": 1001, "reason": "the server stops"},
        "done",
    ]
    assert ended == [(1001, "the server stops")]


def test_an_app_that_does_not_end_is_cancelled_with_the_loop(driver: str, seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        seen.put("open")
        try:
            await asyncio.sleep(PATIENCE_S * 10)
        except asyncio.CancelledError:
            seen.put("cancelled")
            raise

    with serving(app, loop=driver) as server, connected(server):
        seen.wait(1)
        server.stop(grace=0.05)

    assert seen.values == ["open", "cancelled"]


# -- mounts ------------------------------------------------------------------------------------------------------------


def test_a_mounted_app_has_the_websockets_below_its_prefix(driver: str) -> None:
    outer = App()

    async def inner(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": f"{scope['root_path']} {scope['path']}"})

    @outer.websocket("/own")
    async def own(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send("own")

    @outer.websocket("/sub/own")
    async def closer(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send("closer")

    @outer.websocket("/{rest:path}")
    async def wider(websocket: WebSocket, rest: str) -> None:
        await websocket.accept()
        await websocket.send(f"wider {rest}")

    outer.mount("/sub", inner)
    with serving(outer, loop=driver) as server:
        for path, said in [
            ("/own", "own"),
            ("/sub/own", "closer"),
            ("/sub/ws", "/sub /sub/ws"),
            ("/sub", "/sub /sub"),
            ("/subway", "wider subway"),
        ]:
            with connected(server, path) as connection:
                assert connection.recv(PATIENCE_S) == said


def test_what_is_mounted_answers_requests_that_ask_for_no_websocket() -> None:
    """Whose route it is that is for WebSockets alone says 426; an ASGI app says for itself what it does."""
    outer = App()

    async def inner(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    @outer.websocket("/own")
    async def own(websocket: WebSocket) -> None: ...

    outer.mount("/sub", inner)
    with serving(outer) as server:
        assert httpx.get(f"{server.url}/own", trust_env=False).status_code == 426
        assert httpx.get(f"{server.url}/sub/own", trust_env=False).text == "/sub/own"


def test_python_middleware_does_not_see_handshakes(seen: Seen) -> None:
    """As with routes for WebSockets."""
    outer = App()

    @outer.middleware
    async def tell(request: Request, next: Any) -> Any:
        seen.put(request.path)
        return await next(request)

    outer.mount("/sub", echo)
    with serving(outer) as server, connected(server, "/sub") as connection:
        connection.send("one")
        assert connection.recv(PATIENCE_S) == "one"

    assert seen.values == []
