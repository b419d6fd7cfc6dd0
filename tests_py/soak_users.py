"""The clients of `scripts/soak.py`. Each knows what every one of its requests has to be answered with."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

PATIENCE_S = 30.0
"""How long any answer may take."""

_ids = itertools.count()


class Wrong(AssertionError):
    """A response is not the one to its request."""


class Lost(ConnectionError):
    """The connection ended before the response had come."""


class Connection:
    """A connection of a client that takes `Connection: close` for what it means."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.is_open = True

    async def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    async def response(self) -> tuple[int, bytes]:
        """Reads a response: its status and its content."""
        try:
            return await asyncio.wait_for(self._response(), PATIENCE_S)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Lost(str(error)) from error

    async def _response(self) -> tuple[int, bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if fields.get("connection") == "close":
            self.is_open = False
        if "content-length" in fields:
            content = await self.reader.readexactly(int(fields["content-length"]))
        else:
            content = b"".join([part async for part in self._chunks()])
        return int(first.split(" ")[1]), content

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            yield data[:size]
            if size == 0:
                return

    async def nothing_more(self) -> None:
        """Waits until the server has closed, and sees that it has sent nothing else."""
        with suppress(ConnectionError):
            more = await asyncio.wait_for(self.reader.read(1), PATIENCE_S)
            if more:
                raise Wrong(f"after the last response came {more!r}")


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def request(method: str, target: str, content: bytes = b"", fields: str = "") -> bytes:
    length = f"content-length: {len(content)}\r\n" if method == "POST" else ""
    return f"{method} {target} HTTP/1.1\r\nhost: soak\r\n{length}{fields}\r\n".encode() + content


class User:
    """Sends requests of all kinds, one after the other, and checks what comes back.

    Args:
        port: Of the server.
        answered: Counts the answers, by kind.
        is_excused: Tells whether a worker was killed just now, so that connections may have ended.
    """

    def __init__(
        self, port: int, answered: Counter[str], is_excused: Callable[[], bool] = lambda: False
    ) -> None:
        self._port, self._answered, self._is_excused = port, answered, is_excused
        self._random = random.Random(next(_ids))
        self._kinds: dict[Callable[[], Awaitable[None]], int] = {
            self._visit: 60,
            self._pipeline: 10,
            self._leave: 10,
            self._leave_content: 5,
            self._leave_response: 5,
            self._break_rules: 5,
            self._slow_head: 1,
            self._slow_content: 1,
            self._silence: 1,
        }

    async def run(self, until: float) -> None:
        kinds, weights = list(self._kinds), list(self._kinds.values())
        while time.monotonic() < until:
            (kind,) = self._random.choices(kinds, weights)
            try:
                await kind()
            except (Lost, ConnectionError):
                if not self._is_excused():
                    raise
                self._answered["excused"] += 1

    async def _visit(self) -> None:
        """A few requests on a connection, and the last one says so."""
        async with connected(self._port) as connection:
            count = self._random.randrange(1, 20)
            for number in range(count):
                is_last = number == count - 1
                await self._ask(connection, "connection: close\r\n" if is_last else "")
                if not connection.is_open:
                    break
                if self._random.random() < 0.1:
                    await asyncio.sleep(self._random.random() * 0.2)
            await connection.nothing_more()

    async def _ask(self, connection: Connection, fields: str) -> None:
        kind, sent, check = self._one(fields)
        await connection.send(sent)
        self._check(kind, check, await connection.response())

    def _check(self, kind: str, check: Callable[[int, bytes], bool], response: tuple[int, bytes]) -> None:
        if not check(*response):
            raise Wrong(f"{kind} was answered with {response[0]} {response[1][:200]!r}")
        self._answered[kind] += 1

    def _one(self, fields: str) -> tuple[str, bytes, Callable[[int, bytes], bool]]:
        """Returns a kind, a request, and what is to be said to its response."""
        id = f"{next(_ids)}"
        kind = self._random.choice(
            ["inline", "pooled", "async", "echo", "digest", "stream", "large", "fails", "late", "nothing"]
        )
        if kind in ("inline", "pooled", "async"):
            expected = f"{kind} {id}".encode()
            target = f"/{kind}/{id}" + ("?seconds=0.002" if kind == "async" and int(id) % 2 else "")
            return kind, request("GET", target, fields=fields), lambda *got: got == (200, expected)
        if kind == "echo":
            content = {"text": id * self._random.randrange(2000), "list": [id, 1.5, None]}
            sent = request("POST", f"/echo/{id}", json.dumps(content).encode(), fields)
            answer = {"id": id, "content": content}
            return kind, sent, lambda status, got: status == 200 and json.loads(got) == answer
        if kind == "digest":
            content_sent = self._random.randbytes(self._random.randrange(100_000))
            expected = f"digest {id} {hashlib.sha256(content_sent).hexdigest()}".encode()
            return kind, self._chunked(id, content_sent, fields), lambda *got: got == (200, expected)
        if kind == "stream":
            chunks = self._random.randrange(50)
            expected = "".join(f"{id} {number}\n" for number in range(chunks)).encode()
            sent = request("GET", f"/stream/{id}?chunks={chunks}", fields=fields)
            return kind, sent, lambda *got: got == (200, expected)
        if kind == "large":
            expected = f"{id} ".encode() * 40_000
            return kind, request("GET", f"/large/{id}", fields=fields), lambda *got: got == (200, expected)
        status = {"fails": 500, "late": 503, "nothing": 404}[kind]
        return kind, request("GET", f"/{kind}/{id}", fields=fields), lambda got, _: got == status

    def _chunked(self, id: str, content: bytes, fields: str) -> bytes:
        head = (
            f"POST /digest/{id} HTTP/1.1\r\nhost: soak\r\ntransfer-encoding: chunked\r\n{fields}\r\n".encode()
        )
        size = self._random.randrange(1, 20_000)
        parts = [content[start : start + size] for start in range(0, len(content), size)]
        return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"

    async def _pipeline(self) -> None:
        """Many requests at once: as many responses, in their order."""
        async with connected(self._port) as connection:
            count = self._random.randrange(2, 12)
            many = [self._one("connection: close\r\n" if n == count - 1 else "") for n in range(count)]
            everything = b"".join(sent for _, sent, _ in many)
            sending = asyncio.get_running_loop().create_task(connection.send(everything))
            try:
                for kind, _, check in many:
                    self._check(kind, check, await connection.response())
                    if not connection.is_open:
                        # The server stops: it answers none of the others, which may be sent again (RFC 9112 §9.6).
                        break
                else:
                    await connection.nothing_more()
            finally:
                sending.cancel()
                with suppress(asyncio.CancelledError, ConnectionError):
                    await sending

    async def _leave(self) -> None:
        """Goes away while a handler works."""
        async with connected(self._port) as connection:
            await connection.send(request("GET", f"/left/{next(_ids)}"))
            await asyncio.sleep(self._random.random() * 0.05)
        self._answered["left"] += 1

    async def _leave_content(self) -> None:
        """Goes away before all its content is sent."""
        async with connected(self._port) as connection:
            whole = request("POST", f"/{self._random.choice(['echo', 'digest'])}/left", b'"' + b"x" * 50_000)
            await connection.send(whole[: self._random.randrange(len(whole))])
        self._answered["left"] += 1

    async def _leave_response(self) -> None:
        """Goes away in the midst of a response."""
        async with connected(self._port) as connection:
            await connection.send(
                request("GET", self._random.choice(["/large/left", "/stream/left?chunks=10000"]))
            )
            with suppress(ConnectionError):
                await connection.reader.read(1000)
        self._answered["left"] += 1

    async def _break_rules(self) -> None:
        """Is refused, and loses the connection."""
        async with connected(self._port) as connection:
            await connection.send(b"GET / HTTP/1.1\r\nhost: soak\r\nhost: other\r\n\r\n")
            await self._is_refused(connection, 400)

    async def _slow_head(self) -> None:
        async with connected(self._port) as connection:
            await connection.send(b"GET /inline/slow HTTP/1.1\r\nho")
            await self._is_refused(connection, 408)

    async def _slow_content(self) -> None:
        async with connected(self._port) as connection:
            await connection.send(request("POST", "/echo/slow", b'"' + b"x" * 5000)[:-4000])
            await self._is_refused(connection, 408)

    async def _silence(self) -> None:
        async with connected(self._port) as connection:
            await connection.nothing_more()
        self._answered["silence"] += 1

    async def _is_refused(self, connection: Connection, status: int) -> None:
        got, content = await connection.response()
        if got != status or connection.is_open:
            raise Wrong(f"a request to be refused with {status} got {got} {content!r}")
        await connection.nothing_more()
        self._answered[str(status)] += 1
