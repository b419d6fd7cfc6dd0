"""An HTTPy app inside of another server: `App.__call__` is an ASGI app, `App.wsgi` is a WSGI app.

Requests pass the same native stack as everywhere: routing, limits, middleware, error handlers. The container has
the connections, and with them what is said about those: `request.supports` says no to what it can't carry, and the log
says so once. The native half is `python/src/guest.rs`.

One file, because both kinds of container start, ask and stop the same app by the same steps.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import quote

from . import _httpy

if TYPE_CHECKING:
    from .servable import Contexts, Servable

_log = logging.getLogger("httpy.guest")

# What may stand in a path as it is (RFC 3986 §3.3).
_SAFE = "/:@!$&'()*+,;=-._~"
# How much of a request's content is read at a time: a socket buffer's worth.
_READ_BYTES = 65536
# How long a WSGI server that ends waits for the app's shutdown.
_EXIT_S = 10.0

_NOT_HERE = (
    "%s serves this app as a guest: connections, their limits and timeouts, TLS and the access log are the "
    "container's; early hints, pushes and trailers are not sent (request.supports says so), and pings of "
    "WebSockets are left to the container%s"
)


class _House:
    """The time that an app is served by a container, on one loop."""

    def __init__(self, app: Servable, container: str, note: str = "") -> None:
        self._app = app
        self._stack = contextlib.AsyncExitStack()
        self._contexts: Contexts = []
        self.guest: Optional[_httpy.Guest] = None
        _log.info(_NOT_HERE, container, note)

    async def open(self) -> None:
        """Starts the app on the running loop."""
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._app._served())
            routes, self._contexts = self._app._native()
            guest = _httpy.Guest(routes, None, asyncio.get_running_loop())
            stack.callback(guest.close)
            await stack.enter_async_context(self._app._live(self._contexts, guest.rooms))
            self.guest = guest
            self._stack = stack.pop_all()

    async def close(self) -> None:
        """Stops the app."""
        for _, context in self._contexts:
            context.stop()
        self.guest = None
        await self._stack.aclose()


class ASGIGuest:
    """Is an app of HTTPy as an ASGI app.

    Args:
        app: The app.
    """

    def __init__(self, app: Servable) -> None:
        self._app = app
        self._house: Optional[_House] = None
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._opening: Optional[asyncio.Future[None]] = None
        self._staying: Optional[asyncio.Task[None]] = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Takes part in lifespan, and answers requests."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(receive, send)
        elif kind == "http":
            await self._answer(scope, receive, send)
        elif kind == "websocket":
            await self._converse(scope, receive, send)
        else:
            raise RuntimeError(f"an HTTPy app has no use for an ASGI scope of type {kind!r}")

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        try:
            await self._open("an ASGI server", "")
        except BaseException as error:
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        house, self._house, self._loop = self._house, None, None
        try:
            if house is not None:
                await house.close()
        except BaseException as error:
            await send({"type": "lifespan.shutdown.failed", "message": f"{type(error).__name__}: {error}"})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _open(self, container: str, note: str) -> None:
        house = _House(self._app, container, note)
        await house.open()
        self._house, self._loop = house, asyncio.get_running_loop()

    async def _guest(self) -> _httpy.Guest:
        """The guest on this loop. A container that says nothing of startup has it started by the first request."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._house is None:
            if self._opening is None or self._opening.get_loop() is not loop:
                self._opening = loop.create_future()
                self._staying = loop.create_task(self._stay(self._opening))
            await asyncio.shield(self._opening)
        assert self._house is not None
        assert self._house.guest is not None
        return self._house.guest

    async def _stay(self, opening: asyncio.Future[None]) -> None:
        """Keeps the app started until its loop ends, which cancels what still runs then."""
        try:
            note = "; it says nothing of startup: that is now, and shutdown when the loop ends"
            await self._open("an ASGI server", note)
        except BaseException as error:
            self._opening = None
            if not opening.done():
                opening.set_exception(error)
            return
        opening.set_result(None)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            house, self._house, self._loop, self._opening = self._house, None, None, None
            if house is not None:
                await house.close()

    async def _answer(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        guest = self._house.guest if self._house is not None else None
        if guest is None or self._loop is not asyncio.get_running_loop():
            guest = await self._guest()
        headers = scope["headers"]
        has_content = any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)
        # RFC 9113 §8.1: an HTTP/2 request has content or not, and no field has to say so.
        has_content = has_content or scope.get("http_version", "1.1") not in ("1.0", "1.1")
        visit = _visit(guest, scope, scope["method"], has_content=has_content)
        reading: Optional[asyncio.Task[None]] = None
        wanted = asyncio.Event()
        if not has_content:
            reading = asyncio.ensure_future(_watch(receive, visit))
        is_whole = False
        try:
            while not is_whole:
                event, first, second = await visit.next()
                if event == "want":
                    wanted.set()
                    if reading is None:
                        reading = asyncio.ensure_future(_read(receive, visit, wanted))
                elif event == "head":
                    await send({"type": "http.response.start", "status": first, "headers": second})
                elif event == "chunk":
                    is_whole = second
                    await send({"type": "http.response.body", "body": first, "more_body": not is_whole})
                elif first:
                    is_whole = True
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                else:
                    # The container cuts the connection of an app that ends within its response.
                    raise _Cut("the response broke off; the log says why")
        finally:
            if not is_whole:
                visit.leave()
            if reading is not None:
                reading.cancel()

    async def _converse(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        visit = _visit(
            await self._guest(),
            scope,
            "GET",
            has_content=False,
            subprotocols=list(scope.get("subprotocols") or ()),
        )
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        hearing = asyncio.ensure_future(_hear(receive, visit, opened))
        try:
            event, first, headers = await visit.next()
            if event == "open":
                opened.set_result(first)
                await _speak(send, first, headers)
            elif event == "head":
                await _deny(scope, send, visit, first, headers)
        except OSError as error:
            # ASGI 2.4: what is sent to a client that has gone.
            _log.debug("the client of a WebSocket went away: %s", error)
        finally:
            hearing.cancel()
            visit.leave()
            if opened.done() and not opened.cancelled():
                opened.result().end(1006, "")


class _Cut(RuntimeError):
    """Is raised so that a container cuts a response."""


async def _read(receive: Any, visit: Any, wanted: asyncio.Event) -> None:
    """Gives a request's content to whoever wants it, each time that it is wanted, and then watches the client."""
    more = True
    try:
        while more:
            await wanted.wait()
            wanted.clear()
            message = await receive()
            if message["type"] == "http.disconnect":
                visit.leave()
                return
            more = message.get("more_body", False)
            visit.feed(message.get("body", b""), more)
    except Exception:
        # Nothing more will come: who waits for it must not wait for ever.
        visit.leave()
        raise
    await _watch(receive, visit)


async def _watch(receive: Any, visit: Any) -> None:
    """Tells when the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
    visit.leave()


async def _hear(receive: Any, visit: Any, opened: asyncio.Future[Any]) -> None:
    """Gives a WebSocket's handler what its client sends, and tells it of the end."""
    code, reason = 1006, ""
    try:
        while True:
            message = await receive()
            if message["type"] == "websocket.receive":
                await (await opened).deliver(message.get("text"), message.get("bytes"))
            elif message["type"] == "websocket.disconnect":
                code, reason = message.get("code") or 1005, message.get("reason") or ""
                return
    finally:
        if opened.done() and not opened.cancelled():
            opened.result().end(code, reason)
        else:
            visit.leave()


async def _speak(send: Any, line: Any, headers: list[tuple[bytes, bytes]]) -> None:
    """Opens a WebSocket, and sends what its handler says, to the end."""
    chosen = [value.decode() for name, value in headers if name == b"sec-websocket-protocol"]
    others = [field for field in headers if field[0] != b"sec-websocket-protocol"]
    await send({"type": "websocket.accept", "subprotocol": chosen[0] if chosen else None, "headers": others})
    while (message := await line.next()) is not None:
        await send(message)


async def _deny(scope: Mapping[str, Any], send: Any, visit: Any, status: int, headers: Any) -> None:
    """Answers a handshake in HTTP: with 403 where the container can send nothing else."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1000, "reason": ""})
        return
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    is_whole = False
    while not is_whole:
        event, first, second = await visit.next()
        is_whole = event == "end" or bool(second)
        body = first if event == "chunk" else b""
        await send({"type": "websocket.http.response.body", "body": body, "more_body": not is_whole})


def _visit(
    guest: _httpy.Guest,
    scope: Mapping[str, Any],
    method: str,
    *,
    has_content: bool,
    subprotocols: Optional[list[str]] = None,
) -> Any:
    """Has what a scope tells of answered."""
    target, root_len = _target_of_scope(scope)
    return guest.visit(
        method,
        target,
        scope["headers"],
        version=scope.get("http_version", "1.1"),
        root_len=root_len,
        client=_address(scope.get("client")),
        server=_address(scope.get("server")),
        is_tls=scope.get("scheme") in ("https", "wss"),
        has_content=has_content,
        subprotocols=subprotocols,
    )


def _target_of_scope(scope: Mapping[str, Any]) -> tuple[bytes, int]:
    root = quote(scope.get("root_path") or "", safe=_SAFE).encode()
    path = scope.get("raw_path") or quote(scope["path"], safe=_SAFE).encode()
    # Some containers have the path with what was taken of it, some without; and some take the query for a part of it.
    path = path.partition(b"?")[0]
    root_len = len(root) if root and path.startswith(root) else 0
    query = scope.get("query_string") or b""
    return (path + b"?" + query if query else path), root_len


def _address(pair: Any) -> Optional[tuple[str, int]]:
    if not pair:
        return None
    host, port = pair
    # Granian gives ports as str.
    return None if port is None else (str(host), int(port))


# WSGI


class WSGIGuest:
    """Is an app of HTTPy as a WSGI app.

    Its handlers run on a loop of their own, on a thread that starts with the first request: a WSGI server forks,
    and says nothing of startup.

    Args:
        app: The app.
    """

    def __init__(self, app: Servable) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._served: Optional[_Serving] = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answers one request, on the thread of the container's."""
        target, root_len = _target_of_environ(environ)
        length = environ.get("CONTENT_LENGTH") or ""
        has_content = length not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ
        visit = self._guest().visit(
            environ["REQUEST_METHOD"],
            target,
            list(_headers_of(environ)),
            version=environ.get("SERVER_PROTOCOL", "HTTP/1.1").partition("/")[2],
            root_len=root_len,
            client=_numbered(environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")),
            server=_numbered(environ.get("SERVER_NAME"), environ.get("SERVER_PORT")),
            is_tls=environ.get("wsgi.url_scheme") == "https",
            has_content=has_content,
        )
        content = _Content(environ, int(length) if length.isdigit() else None)
        events = _events(visit, content)
        try:
            _, status, headers = next(events)
        except BaseException:
            visit.leave()
            raise
        said = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        start_response(f"{status} {_phrase(status)}", said)
        return _Answer(visit, events)

    def _guest(self) -> _httpy.Guest:
        served = self._served
        if served is None or served.process != os.getpid():
            with self._lock:
                served = self._served
                if served is None or served.process != os.getpid():
                    served = self._served = _Serving(self._app)
        return served.guest


class _Serving:
    """A loop on a thread of its own, and an app on it."""

    def __init__(self, app: Servable) -> None:
        self.process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._house = _House(app, "a WSGI server", "; WebSocket is not there at all")
        self._thread = threading.Thread(target=self._loop.run_forever, name="httpy-guest", daemon=True)
        self._thread.start()
        try:
            self._run(self._house.open(), None)
        except BaseException:
            self._end_loop()
            raise
        assert self._house.guest is not None
        self.guest = self._house.guest
        atexit.register(self._close)

    def _run(self, coroutine: Any, timeout_s: Optional[float]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    def _close(self) -> None:
        if self.process != os.getpid():
            return
        try:
            self._run(self._house.close(), _EXIT_S)
        except Exception:
            _log.exception("the app's shutdown failed")
        self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_EXIT_S)
        if not self._thread.is_alive():
            self._loop.close()


class _Content:
    """A request's content, read from the container as it is wanted."""

    def __init__(self, environ: Mapping[str, Any], length: Optional[int]) -> None:
        self._input = environ["wsgi.input"]
        # PEP 3333: what is behind the length must not be read, unless the container says that it ends by itself.
        self._left = None if environ.get("wsgi.input_terminated") else (length or 0)

    def feed(self, visit: Any) -> None:
        """Reads some, and gives it to who wants it."""
        wanted = _READ_BYTES if self._left is None else min(_READ_BYTES, self._left)
        data = self._input.read(wanted) if wanted else b""
        if self._left is not None:
            self._left -= len(data)
        visit.feed(data, bool(data))


def _events(visit: Any, content: _Content) -> Iterator[tuple[str, Any, Any]]:
    """What the app answers; its content is fed meanwhile."""
    while True:
        event = visit.wait()
        while event[0] == "want":
            content.feed(visit)
            event = visit.wait()
        yield event
        if event[0] == "end" or (event[0] == "chunk" and event[2]):
            return


class _Answer:
    """The content of a response, for the container to send."""

    def __init__(self, visit: Any, events: Iterator[tuple[str, Any, Any]]) -> None:
        self._visit = visit
        self._events = events
        self._is_over = False

    def __iter__(self) -> Iterator[bytes]:
        for event, first, second in self._events:
            if event == "chunk":
                self._is_over = second
                yield first
            elif event == "end":
                self._is_over = True
                if not first:
                    raise _Cut("the response broke off; the log says why")

    def close(self) -> None:
        """The container is done: with the response, or with its client."""
        if not self._is_over:
            self._visit.leave()


def _target_of_environ(environ: Mapping[str, Any]) -> tuple[bytes, int]:
    root = quote(environ.get("SCRIPT_NAME", "").encode("latin-1"), safe=_SAFE)
    path = quote(environ.get("PATH_INFO", "").encode("latin-1"), safe=_SAFE)
    query = environ.get("QUERY_STRING") or ""
    target = (root + path or "/") + (f"?{query}" if query else "")
    return target.encode("latin-1"), len(root)


def _headers_of(environ: Mapping[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            name = key[5:]
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            name = key
        else:
            continue
        yield name.replace("_", "-").lower().encode("latin-1"), str(value).encode("latin-1")


def _numbered(host: Optional[str], port: Any) -> Optional[tuple[str, int]]:
    if not host:
        return None
    text = str(port or "0")
    return host, int(text) if text.isdigit() else 0


def _phrase(status: int) -> str:
    from .errors import phrase

    # PEP 3333: there is one.
    return phrase(status) or "Unknown"
