"""A real server on a thread of its own, for tests that speak to it over a socket."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from typing import Any, Callable

from httpy import _httpy
from support import PATIENCE_S as SECONDS
from support import new_event_loop, run_to_end


class Served:
    """Serves endpoints until the end of its `with` block."""

    def __init__(self, driver: str, **config: Any) -> None:
        self.driver = driver
        self.config = config
        self.context = _httpy.Context(None)
        self.routes = _httpy.Routes(self.context)
        self.port = 0
        self.loop: asyncio.AbstractEventLoop
        self.core: Any
        self.cut: int | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def add(self, path: str, function: Callable[..., Any], kind: str, **options: Any) -> None:
        """Registers a function under GET, HEAD and POST; one with a parameter gets the request."""
        takes_request = function.__code__.co_argcount > 0
        parameters = [("request", "request", "str", _httpy.REQUIRED, False)] if takes_request else []
        endpoint = _httpy.Endpoint(
            function,
            kind=kind,
            context=self.context,
            parameters=parameters,
            label=function.__name__,
            **options,
        )
        self.routes.add(["GET", "POST"], path, endpoint)

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._started.wait(SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running:
            self.stop()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def stop(self, grace: float = 0.5) -> None:
        """Stops the server like `asyncio.run` stops a loop: what still runs is cancelled."""

        def done(cut: int) -> None:
            self.cut = cut
            self.loop.stop()

        self.loop.call_soon_threadsafe(lambda: self.core.stop(grace, done))
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the server does not stop"

    def run(self, function: Callable[[], Any]) -> Any:
        """Calls a function on the loop's thread and returns its result."""

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(SECONDS)

    def tasks(self) -> int:
        """How many tasks there are, besides the one that counts."""
        return self.run(lambda: len(asyncio.all_tasks()) - 1)

    def connect(self, receive_buffer: int | None = None) -> Client:
        return Client(self.port, receive_buffer)

    def get(self, path: str, method: str = "GET", body: bytes = b"") -> Answer:
        with self.connect() as client:
            client.request(path, method=method, body=body)
            return client.answer(method)

    def _run(self) -> None:
        self.loop, selector = new_event_loop(self.driver)
        asyncio.set_event_loop(self.loop)
        core = _httpy.Core(self.routes, self.config)
        self.core = core
        self.port = core.bind("127.0.0.1", 0)
        self.loop.call_soon(self._started.set)
        core.start(selector, self.loop)
        try:
            self.loop.run_forever()
        finally:
            core.close()
            run_to_end(self.loop)
            self.loop.close()


class Answer:
    """A response as it came: whether it has its end is told apart from what it says."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, is_whole: bool) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.is_whole = is_whole


class Client:
    """A connection, byte by byte."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(SECONDS)
        self.socket.connect(("127.0.0.1", port))
        self.ahead = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Goes away without saying goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, path: str, *fields: str, method: str = "GET", body: bytes | None = None) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: test", *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))

    def chunk(self, data: bytes) -> None:
        """Sends a chunk of a chunked request; an empty one is the last."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def more(self) -> bytes:
        """Waits for bytes; empty at the end of the connection."""
        if self.ahead:
            data, self.ahead = self.ahead, b""
            return data
        try:
            return self.socket.recv(1 << 20)
        except ConnectionResetError:
            return b""

    def until(self, end: bytes) -> bytes:
        """Reads up to `end`, which is included; to the end of the connection if it does not come."""
        data = b""
        while end not in data:
            more = self.more()
            if not more:
                return data
            data += more
        place = data.index(end) + len(end)
        self.ahead = data[place:] + self.ahead
        return data[:place]

    def exactly(self, count: int) -> bytes:
        parts, size = [], 0
        while size < count:
            more = self.more()
            if not more:
                break
            parts.append(more)
            size += len(more)
        data = b"".join(parts)
        self.ahead = data[count:]
        return data[:count]

    def head(self) -> tuple[int, dict[str, str]]:
        head = self.until(b"\r\n\r\n").decode("latin-1")
        status, *lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines if line)
        return int(status.split()[1]), {name.lower(): value for name, value in fields.items()}

    def next_chunk(self) -> bytes | None:
        """The next chunk of a chunked response, empty if it is the last; None if the connection ended before it."""
        line = self.until(b"\r\n")
        if not line.endswith(b"\r\n"):
            return None
        size = int(line, 16)
        data = self.exactly(size + 2)
        return data[:size] if len(data) == size + 2 else None

    def answer(self, method: str = "GET") -> Answer:
        status, headers = self.head()
        if method == "HEAD" or status == 204:
            return Answer(status, headers, b"", True)
        if "content-length" in headers:
            length = int(headers["content-length"])
            body = self.exactly(length)
            return Answer(status, headers, body, len(body) == length)
        if headers.get("transfer-encoding") != "chunked":
            return Answer(status, headers, self.until(b"no such bytes"), True)
        chunks = []
        while True:
            chunk = self.next_chunk()
            if not chunk:
                return Answer(status, headers, b"".join(chunks), chunk is not None)
            chunks.append(chunk)
