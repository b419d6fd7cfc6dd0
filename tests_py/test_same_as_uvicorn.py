"""The same ASGI apps under HTTPy and under uvicorn: what clients see, and what apps are told, case by case.

Where HTTPy means to be different, a case says so: what uvicorn does, what HTTPy does, and why. Two differences are
everywhere, and are not looked at: HTTPy says the length of a response that is whole at once, where uvicorn sends
chunks; and the words of a 403 or 500 that the server gives by itself are its own. `make test-apps` installs uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple, Optional

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from httpy import ASGI, Server
from support import PATIENCE_S

uvicorn = pytest.importorskip("uvicorn", reason="make test-apps installs it")

Message = dict[str, Any]


class Told:
    """What an app is told, and what becomes of what it says."""

    def __init__(self, receive: Any, send: Any) -> None:
        self.events: list[Any] = []
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message: Message = await self._receive()
        shown = {name: value for name, value in message.items() if value not in (None, "", b"", False)}
        self.events.append(shown)
        BEGUN.set()
        return message

    async def send(self, kind: str, **message: Any) -> None:
        try:
            await self._send({"type": kind, **message})
        except Exception as error:
            bases = (OSError, RuntimeError, TypeError, ValueError)
            self.events.append(next((base.__name__ for base in bases if isinstance(error, base)), "other"))
            raise

    async def tries(self, kind: str, **message: Any) -> None:
        with contextlib.suppress(Exception):
            await self.send(kind, **message)


App = Callable[[Told], Awaitable[None]]
Client = Callable[[int], Any]


class Case(NamedTuple):
    """An app, a client, and whether they come to the same."""

    name: str
    app: App
    client: Client
    differs: Optional[tuple[Any, Any, str]] = None
    """What client and app have seen with uvicorn, and with HTTPy, and why that is not the same."""


BEGUN = threading.Event()
"""Whether an app was told something of the connection that is observed."""


class Hosted:
    """An app in one of the servers: it is told of connections, one at a time, and of nothing else."""

    def __init__(
        self, app: App, lifespan: Optional[Callable[[Any, Any, Any], Awaitable[None]]] = None
    ) -> None:
        self.app = app
        self.lifespan = lifespan
        self.told: list[Any] = []
        self.done = threading.Event()

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            if self.lifespan is None:
                raise NotImplementedError
            return await self.lifespan(scope, receive, send)
        told = Told(receive, send)
        try:
            await self.app(told)
        finally:
            self.told = told.events
            self.done.set()


@contextlib.contextmanager
def in_httpy(app: Any, lifespan: str = "off", loop: str = "auto") -> Iterator[int]:
    with Server(ASGI(app, lifespan=lifespan), port=0, loop=loop) as server:
        yield server.port


@contextlib.contextmanager
def in_uvicorn(app: Any, lifespan: str = "off") -> Iterator[int]:
    config = uvicorn.Config(app, port=0, lifespan=lifespan, log_config=None, access_log=False)
    server = uvicorn.Server(config)

    def run() -> None:
        # One that can't start ends its thread with 3.
        with contextlib.suppress(SystemExit):
            server.run()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("uvicorn does not start")
            thread.join(0.005)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


# -- clients -----------------------------------------------------------------------------------------------------------


def over_websocket(act: Callable[[ClientConnection], Any] = lambda connection: [], **options: Any) -> Client:
    """A client that opens a WebSocket, does something, and tells how it ends."""

    def client(port: int) -> Any:
        try:
            with connect(f"ws://127.0.0.1:{port}/", proxy=None, **options) as connection:
                seen = act(connection)
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        seen.append(connection.recv(PATIENCE_S))
                return [*seen, connection.close_code, connection.close_reason]
        except InvalidStatus as refused:
            return refused.response.status_code, in_its_words(bytes(refused.response.body or b""))
        except InvalidHandshake as refused:
            return type(refused).__name__

    return client


def says(*messages: Any, close: Optional[tuple[int, str]] = None) -> Callable[[ClientConnection], Any]:
    """Sends messages, reads as many, and may close."""

    def act(connection: ClientConnection) -> Any:
        seen: list[Any] = []
        for message in messages:
            connection.send(message)
            seen.append(connection.recv(PATIENCE_S))
        if close is not None:
            connection.close(*close)
        return seen

    return act


def leaves(connection: ClientConnection) -> Any:
    """Closes the connection, and says nothing of it."""
    connection.recv(PATIENCE_S)
    connection.socket.shutdown(socket.SHUT_RDWR)
    return ["left"]


def frame(first: int, content: bytes) -> Callable[[ClientConnection], Any]:
    """Sends a frame as it is; the mask is zeros."""

    def act(connection: ClientConnection) -> Any:
        connection.socket.sendall(bytes([first, 0x80 | len(content)]) + bytes(4) + content)
        return []

    return act


WORDS = [b"", b"Forbidden", b"Internal Server Error"]


def in_its_words(content: bytes) -> bytes:
    """Content, but for that which servers give by themselves."""
    return b"..." if content in [*WORDS, *(b'{"detail":"%s"}' % words for words in WORDS)] else content


def over_http(request: bytes, leave: bool = False) -> Client:
    """A client that sends bytes, and tells the status, the content, and whether that is whole."""

    def client(port: int) -> Any:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
            connection.sendall(request)
            if leave:
                assert BEGUN.wait(PATIENCE_S)
                return "left"
            found = b""
            with contextlib.suppress(ConnectionResetError):
                while chunk := connection.recv(65536):
                    found += chunk
        return read_response(found, has_content=not request.startswith(b"HEAD"))

    return client


def read_response(response: bytes, has_content: bool) -> tuple[int, bytes, bool]:
    """Status and content of a response, and whether it is whole."""
    head, _, content = response.partition(b"\r\n\r\n")
    status, *lines = head.decode().lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    is_whole = True
    if "transfer-encoding" in fields:
        chunks, is_whole = b"", content.endswith(b"0\r\n\r\n")
        while content and not content.startswith(b"0\r\n"):
            size, _, content = content.partition(b"\r\n")
            chunks, content = chunks + content[: int(size, 16)], content[int(size, 16) + 2 :]
        content = chunks
    elif has_content:
        is_whole = len(content) == int(fields.get("content-length", "0"))
    code = int(status.split()[1])
    return code, in_its_words(content) if code == 500 else content, is_whole


def asking(method: str = "GET", *lines: str, content: bytes = b"") -> bytes:
    return (
        "\r\n".join([f"{method} / HTTP/1.1", "host: a", "connection: close", *lines, "", ""]).encode()
        + content
    )


GET = over_http(asking())


# -- apps that speak WebSocket -----------------------------------------------------------------------------------------


async def echo(told: Told) -> None:
    await told.receive()
    await told.send("websocket.accept")
    while (message := await told.receive())["type"] == "websocket.receive":
        await told.send("websocket.send", text=message.get("text"), bytes=message.get("bytes"))


def talks(*messages: tuple[str, Message], listens: int = 0, fails: bool = False) -> App:
    """Connects, sends messages however that goes, and receives some."""

    async def app(told: Told) -> None:
        await told.receive()
        for kind, message in messages:
            await told.tries(kind, **message)
        for _ in range(listens):
            await told.receive()
        if fails:
            raise ValueError("of its own")

    return app


async def answers_late(told: Told) -> None:
    """Says something to a client that has closed, and to one that is cut off."""
    await told.receive()
    await told.send("websocket.accept")
    await told.send("websocket.send", text="go")
    await told.receive()
    await told.tries("websocket.send", text="late")
    await told.tries("websocket.close")


async def raises_late(told: Told) -> None:
    await told.receive()
    await told.send("websocket.accept")
    await told.receive()
    await told.send("websocket.send", text="late")


ACCEPT = ("websocket.accept", {})
CLOSE = ("websocket.close", {})
HI = ("websocket.send", {"text": "hi"})
START = ("websocket.http.response.start", {"status": 401, "headers": [(b"content-type", b"text/plain")]})
PART = ("websocket.http.response.body", {"body": b"who ", "more_body": True})
END = ("websocket.http.response.body", {"body": b"are you?"})
CONNECT = {"type": "websocket.connect"}


def disconnect(code: int, reason: str = "") -> Message:
    return {"type": "websocket.disconnect", "code": code, **({"reason": reason} if reason else {})}


WEBSOCKETS = [
    Case("text and bytes", echo, over_websocket(says("text", b"bytes", "", close=(4000, "bye")))),
    Case("a close of one thousand", echo, over_websocket(says(close=(1000, "")))),
    Case("a close without a code", echo, over_websocket(frame(0x88, b""))),
    Case(
        "a client that is cut off",
        talks(ACCEPT, HI, listens=1),
        over_websocket(leaves),
        (
            (["left", 1006, ""], [CONNECT, disconnect(1005)]),
            (["left", 1006, ""], [CONNECT, disconnect(1006)]),
            "RFC 6455 section 7.1.5: 1005 is a close without a code, 1006 is none",
        ),
    ),
    Case(
        "a close of the app's",
        talks(ACCEPT, HI, ("websocket.close", {"code": 4001, "reason": "x"}), listens=1),
        over_websocket(),
    ),
    Case("a close of the app's without a code", talks(ACCEPT, CLOSE, listens=1), over_websocket()),
    Case("no to the handshake", talks(CLOSE, listens=1), over_websocket()),
    Case("no with a response", talks(START, END, listens=1), over_websocket()),
    Case("no with a response in pieces", talks(START, PART, END, listens=1), over_websocket()),
    Case("no answer", talks(), over_websocket()),
    Case("a failure before an answer", talks(fails=True), over_websocket()),
    Case(
        "a response that is only begun",
        talks(START),
        over_websocket(),
        (
            ("InvalidMessage", [CONNECT]),
            ((500, b"..."), [CONNECT]),
            "nothing is sent before there is content, so that an error can still be",
        ),
    ),
    Case(
        "an end while it is open",
        talks(ACCEPT, HI),
        over_websocket(),
        (
            (["hi", 1006, ""], [CONNECT]),
            (["hi", 1000, ""], [CONNECT]),
            "the app is done: a client is told so, in place of a connection that breaks",
        ),
    ),
    Case(
        "a failure while it is open",
        talks(ACCEPT, HI, fails=True),
        over_websocket(),
        (
            (["hi", 1006, ""], [CONNECT]),
            (["hi", 1011, ""], [CONNECT]),
            "RFC 6455 section 7.4.1 has a code for that",
        ),
    ),
    Case("something sent before accepting", talks(HI, ACCEPT, HI, CLOSE), over_websocket()),
    Case("accepting twice", talks(ACCEPT, ACCEPT, CLOSE), over_websocket()),
    Case("a response behind accepting", talks(ACCEPT, START, CLOSE), over_websocket()),
    Case("something sent behind closing", talks(ACCEPT, CLOSE, HI), over_websocket()),
    Case("closing twice", talks(ACCEPT, CLOSE, CLOSE), over_websocket()),
    Case("accepting behind a no", talks(CLOSE, ACCEPT), over_websocket()),
    Case(
        "a message of no known type",
        talks(("websocket.other", {}), ACCEPT, ("websocket.other", {}), CLOSE),
        over_websocket(),
    ),
    Case(
        "a message for HTTP", talks(("http.response.start", {"status": 200}), ACCEPT, CLOSE), over_websocket()
    ),
    Case(
        "something sent behind the client's close",
        answers_late,
        over_websocket(lambda connection: [connection.recv(PATIENCE_S), connection.close(4000, "bye")]),
    ),
    Case("an OSError of that which is not caught", raises_late, over_websocket(says(close=(4000, "bye")))),
    Case(
        "a subprotocol",
        talks(("websocket.accept", {"subprotocol": "b"}), CLOSE),
        over_websocket(lambda connection: [connection.subprotocol], subprotocols=["a", "b"]),
    ),
    Case(
        "fields of the answer",
        talks(("websocket.accept", {"headers": [(b"X-A", b"1")]}), CLOSE),
        over_websocket(lambda connection: [connection.response and connection.response.headers["x-a"]]),
    ),
    Case(
        "a subprotocol that is not on offer",
        talks(("websocket.accept", {"subprotocol": "b"}), CLOSE),
        over_websocket(subprotocols=["a"]),
        (
            ("NegotiationError", [CONNECT]),
            ((500, b"..."), [CONNECT, "ValueError", "RuntimeError"]),
            "RFC 6455 section 4.2.2: it is one of the client's. Clients fail by it, and the app does not know why",
        ),
    ),
    Case(
        "a message without content",
        talks(ACCEPT, ("websocket.send", {}), ("websocket.send", {"text": None, "bytes": None}), CLOSE),
        over_websocket(),
        (
            ([1000, ""], [CONNECT]),
            ([1000, ""], [CONNECT, "TypeError", "TypeError"]),
            "ASGI: one of both is there, and is not None",
        ),
    ),
    Case(
        "a message with one of two that is none",
        talks(
            ACCEPT,
            ("websocket.send", {"text": "t", "bytes": None}),
            ("websocket.send", {"text": None, "bytes": b"b"}),
            CLOSE,
        ),
        over_websocket(),
    ),
]


# -- apps that speak HTTP ----------------------------------------------------------------------------------------------


def responds(*messages: tuple[str, Message], fails: bool = False, reads: bool = True) -> App:
    """Reads the request, and sends messages however that goes."""

    async def app(told: Told) -> None:
        while reads and (await told.receive()).get("more_body"):
            pass
        for kind, message in messages:
            await told.tries(kind, **message)
        if fails:
            raise ValueError("of its own")

    return app


async def waits(told: Told) -> None:
    """Waits for its client to leave, and answers nobody."""
    await told.receive()
    await told.receive()
    await told.tries(*OK[:1], **OK[1])


async def streams(told: Told) -> None:
    """Sends until it learns that nobody reads."""
    await told.receive()
    await told.send(OK[0], **OK[1])
    listening = asyncio.ensure_future(told.receive())
    while not listening.done():
        await told.tries("http.response.body", body=b"x" * 65536, more_body=True)
        await asyncio.sleep(0)
    # How often it has tried is a matter of luck.
    told.events = [*told.events[:1], listening.result()["type"]]


async def listens_behind(told: Told) -> None:
    await told.receive()
    await told.send(OK[0], **OK[1])
    await told.send(LAST[0], **LAST[1])
    await told.receive()
    await told.receive()


async def sizes(told: Told) -> None:
    """Adds up the content, of which servers make pieces as they like."""
    size, more = 0, True
    while more:
        message = await told.receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    told.events = [size]
    await told.send(OK[0], **OK[1])
    await told.send(LAST[0], **LAST[1])


OK: tuple[str, Message] = ("http.response.start", {"status": 200})
SHORT = ("http.response.start", {"status": 200, "headers": [(b"content-length", b"4")]})
MORE = ("http.response.body", {"body": b"more", "more_body": True})
LAST: tuple[str, Message] = ("http.response.body", {"body": b"last"})
NOTHING = ("http.response.body", {})
REQUEST = {"type": "http.request"}

HTTP = [
    Case("a response of one piece", responds(OK, LAST), GET),
    Case("a response of several pieces", responds(OK, MORE, MORE, LAST), GET),
    Case("a response with a length", responds(SHORT, LAST), GET),
    Case("a response without content", responds(("http.response.start", {"status": 204}), NOTHING), GET),
    Case("an answer to HEAD", responds(SHORT, LAST), over_http(asking("HEAD"))),
    Case(
        "content of the request",
        sizes,
        over_http(asking("POST", "content-length: 200000", content=b"x" * 200_000)),
    ),
    Case(
        "content in chunks",
        sizes,
        over_http(asking("POST", "transfer-encoding: chunked", content=b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")),
    ),
    Case("receiving behind the response", listens_behind, GET),
    Case("no response", responds(), GET),
    Case("a failure before a response", responds(fails=True), GET),
    Case("a failure within a response", responds(OK, MORE, fails=True), GET),
    Case("an end within a response", responds(OK, MORE), GET),
    Case(
        "a failure behind the start of a response",
        responds(OK, fails=True),
        GET,
        (
            ((200, b"", False), [REQUEST]),
            ((500, b"...", True), [REQUEST]),
            "nothing is sent before there is content, so that an error can still be",
        ),
    ),
    Case(
        "an end behind the start of a response",
        responds(OK),
        GET,
        (
            ((200, b"", False), [REQUEST]),
            ((500, b"...", True), [REQUEST]),
            "nothing is sent before there is content, so that an error can still be",
        ),
    ),
    Case("a failure behind a whole response", responds(OK, LAST, fails=True), GET),
    Case("an app that does not read", responds(OK, LAST, reads=False), GET),
    Case("a status of no great use", responds(("http.response.start", {"status": 418}), LAST), GET),
    Case("starting twice", responds(OK, OK, LAST), GET),
    Case("content before the start", responds(LAST, OK, LAST), GET),
    Case("content behind the end", responds(OK, LAST, LAST), GET),
    Case(
        "more content than was declared",
        responds(SHORT, ("http.response.body", {"body": b"12345"})),
        GET,
        (
            ((200, b"", False), [REQUEST, "RuntimeError"]),
            ((500, b"...", True), [REQUEST, "RuntimeError"]),
            "nothing is sent before there is content that can be, so that an error can still be",
        ),
    ),
    Case(
        "less content than was declared",
        responds(SHORT, ("http.response.body", {"body": b"123"})),
        GET,
        (
            ((200, b"123", False), [REQUEST, "RuntimeError"]),
            ((500, b"...", True), [REQUEST, "RuntimeError"]),
            "it is known before anything is sent",
        ),
    ),
    Case("a message of HTTP that is none", responds(("http.other", {}), OK, ("http.other", {}), LAST), GET),
    Case("a client that leaves within a response", streams, over_http(asking(), leave=True)),
    Case(
        "a client that leaves",
        waits,
        over_http(asking(), leave=True),
        (
            ("left", [REQUEST, {"type": "http.disconnect"}]),
            ("left", [REQUEST, {"type": "http.disconnect"}, "OSError"]),
            "ASGI 2.4: sending to a client that has gone is an OSError, so that the app need not listen to learn of it",
        ),
    ),
]


def observed(serving: Any, case: Case) -> Any:
    """What a client has seen of an app, and the app of it."""
    hosted = Hosted(case.app)
    BEGUN.clear()
    with serving(hosted) as port:
        seen = case.client(port)
        assert hosted.done.wait(PATIENCE_S), "the app has not ended"
    return seen, hosted.told


assert len({case.name for case in [*WEBSOCKETS, *HTTP]}) == len(WEBSOCKETS) + len(HTTP), (
    "a name is there twice"
)
CASES = {case.name.replace(" ", "-"): case for case in [*WEBSOCKETS, *HTTP]}


@functools.cache
def observed_in_uvicorn(name: str) -> Any:
    """Once for all drivers."""
    return observed(in_uvicorn, CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_clients_and_apps_see_the_same(name: str, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    case = CASES[name]
    caplog.set_level(logging.CRITICAL)

    theirs = observed_in_uvicorn(name)
    ours = observed(functools.partial(in_httpy, loop=driver), case)

    if case.differs is None:
        assert ours == theirs
    else:
        expected_theirs, expected_ours, _ = case.differs
        assert theirs == expected_theirs
        assert ours == expected_ours


# -- a server that stops -----------------------------------------------------------------------------------------------


def stopped(serving: Any) -> Any:
    """How a WebSocket ends with its server: for the client, and for the app."""
    hosted = Hosted(talks(ACCEPT, HI, listens=1))
    with contextlib.ExitStack() as stack:
        with serving(hosted) as port:
            connection = stack.enter_context(connect(f"ws://127.0.0.1:{port}/", proxy=None))
            connection.recv(PATIENCE_S)
        with pytest.raises(ConnectionClosed):
            connection.recv(PATIENCE_S)
        assert hosted.done.wait(PATIENCE_S)
        return connection.close_code, hosted.told


def test_a_server_that_stops_tells_both_sides(caplog: pytest.LogCaptureFixture) -> None:
    """With 1001, of which RFC 6455 section 7.4.1 says that it is for this; uvicorn says 1012."""
    caplog.set_level(logging.CRITICAL)

    assert stopped(in_uvicorn) == (1012, [CONNECT, disconnect(1012)])
    assert stopped(in_httpy) == (1001, [CONNECT, disconnect(1001, "the server stops")])


# -- lifespan ----------------------------------------------------------------------------------------------------------


def lives(*messages: str, fails: str = "") -> Callable[[Any, Any, Any], Awaitable[None]]:
    """Says these in answer to startup and shutdown, and fails behind one of them, or before all."""

    async def lifespan(scope: Message, receive: Any, send: Any) -> None:
        if fails == "first":
            raise ValueError("of its own")
        for message in messages:
            await receive()
            await send({"type": f"lifespan.{message}"})
            if fails == message:
                raise ValueError("of its own")

    return lifespan


BOTH = ("startup.complete", "shutdown.complete")
LIFESPANS: list[tuple[str, str, Callable[[Any, Any, Any], Awaitable[None]]]] = [
    ("takes part", "on", lives(*BOTH)),
    ("takes part by itself", "auto", lives(*BOTH)),
    ("raises before it answers", "auto", lives(fails="first")),
    ("raises before it answers, and has to take part", "on", lives(fails="first")),
    ("returns before it answers", "auto", lives()),
    ("says that it has failed", "auto", lives("startup.failed")),
    ("says that it has failed, and has to take part", "on", lives("startup.failed")),
    ("says that it has failed, and raises", "auto", lives("startup.failed", fails="startup.failed")),
    ("raises once it has started", "auto", lives("startup.complete", fails="startup.complete")),
    ("raises behind everything", "auto", lives(*BOTH, fails="shutdown.complete")),
    ("says something else", "auto", lives("other")),
]


def life(serving: Any, mode: str, lifespan: Callable[[Any, Any, Any], Awaitable[None]]) -> Any:
    """Whether an app is served, and what its lifespan has heard."""
    heard: list[str] = []

    async def telling(scope: Message, receive: Any, send: Any) -> None:
        async def tell() -> Message:
            message: Message = await receive()
            heard.append(message["type"])
            return message

        scope["state"]["made"] = "at startup"
        await lifespan(scope, tell, send)

    hosted = Hosted(responds(OK, LAST), telling)
    with contextlib.suppress(RuntimeError, ValueError), serving(hosted, lifespan=mode) as port:
        return GET(port), heard
    return "not served", heard


@pytest.mark.parametrize(("what", "mode", "lifespan"), LIFESPANS, ids=[what for what, _, _ in LIFESPANS])
def test_lifespan_is_the_same(
    what: str, mode: str, lifespan: Any, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)

    assert life(functools.partial(in_httpy, loop=driver), mode, lifespan) == life(in_uvicorn, mode, lifespan)


# -- frameworks --------------------------------------------------------------------------------------------------------


class Noted:
    """What a handler of a framework has gone through."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self._changed = threading.Condition()

    def __call__(self, event: str) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait(self, event: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: event in self.events, PATIENCE_S), self.events


async def without_end(note: Noted) -> AsyncIterator[bytes]:
    """Is content until nobody wants more."""
    try:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)
    except BaseException as error:
        note(type(error).__name__)
        raise
    finally:
        note("closed")


def starlette_app(note: Noted, lifespan: str) -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse, StreamingResponse
    from starlette.routing import Route

    @contextlib.asynccontextmanager
    async def living(app: Any) -> AsyncIterator[None]:
        if lifespan == "startup":
            raise ValueError("of its own")
        yield
        note("shutdown")
        if lifespan == "shutdown":
            raise ValueError("of its own")

    async def index(request: Any) -> Any:
        return PlainTextResponse("index")

    async def stream(request: Any) -> Any:
        return StreamingResponse(without_end(note))

    async def breaks(request: Any) -> Any:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"more"
            raise ValueError("of its own")

        return StreamingResponse(chunks())

    async def asks(request: Any) -> Any:
        await request.body()
        note("begun")
        while not await request.is_disconnected():
            await asyncio.sleep(0.001)
        note("disconnected")
        return PlainTextResponse("to nobody")

    async def uploads(request: Any) -> Any:
        from starlette.requests import ClientDisconnect

        note("begun")
        try:
            async for _ in request.stream():
                pass
        except ClientDisconnect:
            note("ClientDisconnect")
        return PlainTextResponse("to nobody")

    routes = [
        Route(f"/{view.__name__}", view, methods=["GET", "POST"]) for view in (stream, breaks, asks, uploads)
    ]
    return Starlette(routes=[Route("/", index), *routes], lifespan=living)


def django_app(note: Noted, lifespan: str) -> Any:
    """Has no lifespan: Django raises then."""
    import django
    from django.conf import settings
    from django.core.handlers.asgi import ASGIHandler
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path

    if not settings.configured:
        settings.configure(ROOT_URLCONF="", ALLOWED_HOSTS=["*"], SECRET_KEY="x", MIDDLEWARE=[])
        django.setup(set_prefix=False)

    async def index(request: Any) -> Any:
        return HttpResponse("index")

    async def stream(request: Any) -> Any:
        return StreamingHttpResponse(without_end(note))

    async def breaks(request: Any) -> Any:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"more"
            raise ValueError("of its own")

        return StreamingHttpResponse(chunks())

    async def waits(request: Any) -> Any:
        note("begun")
        try:
            await asyncio.sleep(PATIENCE_S * 10)
        except asyncio.CancelledError:
            note("cancelled")
            raise

    class Handler(ASGIHandler):
        def resolve_request(self, request: Any) -> Any:
            # Not the process's: other tests have a project of their own.
            request.urlconf = urls
            return super().resolve_request(request)

    views = {"": index, "stream": stream, "breaks": breaks, "waits": waits}
    urls = type("Urls", (), {"urlpatterns": [path(name, view) for name, view in views.items()]})
    return Handler()


def target(path: str, method: str = "GET", *lines: str, content: bytes = b"") -> bytes:
    """A request for a path."""
    return asking(method, *lines, content=content).replace(b" / ", f" {path} ".encode(), 1)


def leaves_within(path: str) -> Client:
    """A client that reads some of a response, and leaves."""

    def client(port: int) -> Any:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
            connection.sendall(target(path))
            return connection.recv(12)

    return client


def leaves_when(event: str, request: bytes) -> Callable[[int, Noted], Any]:
    """A client that leaves without an answer once a handler has begun."""

    def client(port: int, note: Noted) -> Any:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
            connection.sendall(request)
            note.wait(event)
            return "left"

    return client


def unaware(client: Client) -> Callable[[int, Noted], Any]:
    return lambda port, note: client(port)


POSTING = target("/uploads", "POST", "content-length: 10", content=b"x")
FRAMEWORKS: dict[str, tuple[Any, str, Callable[[int, Noted], Any], str]] = {
    # The app, what its lifespan does, the client, and what is noted last.
    "starlette, a page": (starlette_app, "", unaware(over_http(target("/"))), ""),
    "starlette, a client that leaves a stream": (
        starlette_app,
        "",
        unaware(leaves_within("/stream")),
        "closed",
    ),
    "starlette, a stream that fails": (starlette_app, "", unaware(over_http(target("/breaks"))), ""),
    "starlette, a client that is asked for": (
        starlette_app,
        "",
        leaves_when("begun", target("/asks")),
        "disconnected",
    ),
    "starlette, an upload that is cut off": (
        starlette_app,
        "",
        leaves_when("begun", POSTING),
        "ClientDisconnect",
    ),
    "starlette, a startup that fails": (starlette_app, "startup", unaware(GET), ""),
    "starlette, a shutdown that fails": (starlette_app, "shutdown", unaware(GET), ""),
    "django, a page": (django_app, "", unaware(over_http(target("/"))), ""),
    "django, a client that leaves a stream": (django_app, "", unaware(leaves_within("/stream")), "closed"),
    "django, a stream that fails": (django_app, "", unaware(over_http(target("/breaks"))), ""),
    "django, a client that leaves a view": (
        django_app,
        "",
        leaves_when("begun", target("/waits")),
        "cancelled",
    ),
}


CLOSED = ["starlette, a client that leaves a stream"]


def lived(serving: Any, name: str) -> Any:
    make, lifespan, client, last = FRAMEWORKS[name]
    note = Noted()
    seen: Any = "not served"
    with (
        contextlib.suppress(RuntimeError, ValueError),
        serving(make(note, lifespan), lifespan="auto") as port,
    ):
        seen = client(port, note)
        if last:
            note.wait(last)
    with warnings.catch_warnings():
        # Django leaves the file of a request's content to be closed by itself if its view was cancelled.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return seen, note.events


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_frameworks_go_through_the_same(name: str, driver: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip(name.partition(",")[0])
    caplog.set_level(logging.CRITICAL)

    ours, theirs = lived(functools.partial(in_httpy, loop=driver), name), lived(in_uvicorn, name)

    if name in CLOSED:
        # uvicorn says that it keeps HTTP 2.3, and Starlette listens for a disconnect itself there, and cancels. From
        # 2.4 on it leaves that to `send`, whose error closes the generator.
        assert theirs[1] == ["CancelledError", "closed", "shutdown"]
        assert ours == (theirs[0], ["GeneratorExit", "closed", "shutdown"])
    else:
        assert ours == theirs
