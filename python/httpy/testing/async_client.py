"""The test client for tests that are coroutines.

The app runs in the test's loop, beside the test. What waits for bytes waits on threads: the client is the same one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Optional, TypeVar, Union

from .. import MutableHeaders
from .connection import Connection
from .cookies import Cookies
from .response import ClientResponse
from .session import UNSET, MemoryServer, Session, Unset
from .websocket import ClientWebSocket, Message

_T = TypeVar("_T")

# Each request and each WebSocket that waits has one. They are made when they are needed.
_MAX_THREADS = 1000


class _Threads:
    """The threads that wait for bytes."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="httpy-testing")

    async def run(self, function: Callable[[], _T], abort: Callable[[], None]) -> _T:
        """Runs a function that waits; cancelled, it has that come to its end with `abort`."""
        running = asyncio.get_running_loop().run_in_executor(self._pool, function)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            abort()
            raise

    def close(self) -> None:
        """Ends them. Nothing may wait any more."""
        self._pool.shutdown(wait=False)


class AsyncTestClient:
    """Is `TestClient` for coroutines: `async with`, and every method is awaited.

    The app runs in the loop that runs, beside the test, so that both may share what belongs to a loop.

    Args:
        app: As of `TestClient`, as all that follows.
        base_url: See there.
        headers: See there.
        cookies: See there.
        follow_redirects: See there.
        timeout: See there.
        client: See there.
        **config: See there.

    Raises:
        ConfigError: if a value is wrong.

    Example:
        >>> async with AsyncTestClient(app) as client:
        ...     assert (await client.get("/users/7")).json() == {"id": 7}
    """

    # pytest takes classes with such a name for tests.
    __test__ = False

    def __init__(
        self,
        app: Any,
        *,
        base_url: str = "http://testserver",
        headers: Optional[Mapping[str, str]] = None,
        cookies: Optional[Mapping[str, str]] = None,
        follow_redirects: bool = False,
        timeout: Optional[float] = 10.0,
        client: Optional[tuple[str, int]] = ("127.0.0.1", 50000),
        **config: Any,
    ) -> None:
        self.app = app
        self._server = MemoryServer(app, **config)
        self._session = Session(
            base_url=base_url,
            headers=headers,
            cookies=cookies,
            follow_redirects=follow_redirects,
            timeout=timeout,
            client=client,
        )
        self._threads: Optional[_Threads] = None

    @property
    def cookies(self) -> Cookies:
        """The cookies that it keeps and sends."""
        return self._session.cookies

    @property
    def headers(self) -> dict[str, str]:
        """Fields of every request, by their names in lower case."""
        return self._session.headers

    @property
    def base_url(self) -> str:
        """Where relative URLs begin."""
        return self._session.base_url

    async def __aenter__(self) -> AsyncTestClient:
        await self._server.__aenter__()
        self._threads = _Threads()
        self._session.open(self._server.memory)
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._session.close()
        threads, self._threads = self._threads, None
        try:
            await self._server.__aexit__(kind, error, trace)
        finally:
            if threads is not None:
                threads.close()

    async def request(self, method: str, url: str, **given: Any) -> ClientResponse:
        """Sends a request, and returns its response. Arguments and errors are those of `TestClient.request`.

        `content` may be an asynchronous iterable, too. Cancelled, it leaves the connection, which the app notices.
        """
        return await self._run(lambda **more: self._session.request(method, url, **given, **more), given)

    async def get(self, url: str, **given: Any) -> ClientResponse:
        """Sends GET; see `request`."""
        return await self.request("GET", url, **given)

    async def post(self, url: str, **given: Any) -> ClientResponse:
        """Sends POST; see `request`."""
        return await self.request("POST", url, **given)

    async def put(self, url: str, **given: Any) -> ClientResponse:
        """Sends PUT; see `request`."""
        return await self.request("PUT", url, **given)

    async def patch(self, url: str, **given: Any) -> ClientResponse:
        """Sends PATCH; see `request`."""
        return await self.request("PATCH", url, **given)

    async def delete(self, url: str, **given: Any) -> ClientResponse:
        """Sends DELETE; see `request`."""
        return await self.request("DELETE", url, **given)

    async def head(self, url: str, **given: Any) -> ClientResponse:
        """Sends HEAD; see `request`."""
        return await self.request("HEAD", url, **given)

    async def options(self, url: str, **given: Any) -> ClientResponse:
        """Sends OPTIONS; see `request`."""
        return await self.request("OPTIONS", url, **given)

    @contextlib.asynccontextmanager
    async def stream(self, method: str, url: str, **given: Any) -> AsyncIterator[AsyncStream]:
        """Sends a request, and gives its response as soon as its head is there; see `TestClient.stream`."""
        response = await self._run(lambda **more: self._session.stream(method, url, **given, **more), given)
        assert self._threads is not None
        try:
            yield AsyncStream(response, self._threads)
        finally:
            response.close()

    @contextlib.asynccontextmanager
    async def websocket(
        self,
        url: str,
        subprotocols: Optional[list[str]] = None,
        headers: Any = None,
        *,
        params: Any = None,
        cookies: Optional[Mapping[str, str]] = None,
        auth: Optional[tuple[str, str]] = None,
        timeout: Union[float, Unset, None] = UNSET,
    ) -> AsyncIterator[AsyncClientWebSocket]:
        """Opens a WebSocket, and closes it at the end of the block. Arguments and errors: `TestClient.websocket`."""

        def connect(**more: Any) -> ClientWebSocket:
            return self._session.websocket(
                url,
                subprotocols=subprotocols,
                headers=headers,
                params=params,
                cookies=cookies,
                auth=auth,
                timeout=timeout,
                **more,
            )

        opened = await self._run(connect, {})
        assert self._threads is not None
        websocket = AsyncClientWebSocket(opened, self._threads)
        try:
            yield websocket
        except BaseException:
            opened.leave()
            raise
        await websocket.close()

    async def _run(self, function: Callable[..., _T], given: dict[str, Any]) -> _T:
        if self._threads is None:
            raise RuntimeError("the client is not started: use it with `async with`")
        connections: list[Connection] = []
        reading: list[Future[Any]] = []
        content = given.get("content")
        if hasattr(content, "__aiter__"):
            given["content"] = _blocking(content, asyncio.get_running_loop(), reading)

        def abort() -> None:
            for connection in connections:
                connection.abort()
            for future in reading:
                future.cancel()

        return await self._threads.run(lambda: function(opened=connections.append), abort)


def _blocking(content: Any, loop: asyncio.AbstractEventLoop, reading: list[Future[Any]]) -> Iterator[bytes]:
    """Iterates on a thread over what comes on a loop. What is waited for is in `reading`."""
    iterator = content.__aiter__()

    async def find_next() -> Any:
        try:
            return await iterator.__anext__()
        except StopAsyncIteration:
            return None

    while True:
        reading[:] = [asyncio.run_coroutine_threadsafe(find_next(), loop)]
        chunk = reading[0].result()
        if chunk is None:
            return
        yield chunk


class AsyncStream:
    """Is a response whose content is still coming.

    Attributes:
        response: Its head: status, headers, cookies, url. Its `content` is there once it was read.
    """

    def __init__(self, response: ClientResponse, threads: _Threads) -> None:
        self.response = response
        self._threads = threads

    @property
    def status(self) -> int:
        """The status code."""
        return self.response.status

    @property
    def status_code(self) -> int:
        """The status code."""
        return self.response.status

    @property
    def headers(self) -> MutableHeaders:
        """Header fields."""
        return self.response.headers

    async def read(self) -> bytes:
        """Reads the content to its end, and returns it; see `ClientResponse.read`."""
        return await self._threads.run(self.response.read, self.response.abort)

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """Iterates over the content as it comes; see `ClientResponse.iter_bytes`."""
        async for chunk in self._iterate(self.response.iter_bytes()):
            yield chunk

    async def iter_text(self) -> AsyncIterator[str]:
        """Iterates over the content as text."""
        async for text in self._iterate(self.response.iter_text()):
            yield text

    async def iter_lines(self) -> AsyncIterator[str]:
        """Iterates over the lines of the content, without what ends them."""
        async for line in self._iterate(self.response.iter_lines()):
            yield line

    async def _iterate(self, items: Iterator[_T]) -> AsyncIterator[_T]:
        while True:
            found = await self._threads.run(lambda: next(items, None), self.response.abort)
            if found is None:
                return
            yield found


class AsyncClientWebSocket:
    """Is an open WebSocket; `ClientWebSocket` for coroutines.

    `async for message in websocket` receives until the server closes. One coroutine receives at a time.
    """

    def __init__(self, websocket: ClientWebSocket, threads: _Threads) -> None:
        self._websocket = websocket
        self._threads = threads

    @property
    def response(self) -> ClientResponse:
        """The answer to the handshake."""
        return self._websocket.response

    @property
    def response_headers(self) -> MutableHeaders:
        """Its fields."""
        return self._websocket.response_headers

    @property
    def subprotocol(self) -> Optional[str]:
        """The subprotocol that the server has chosen; None if none."""
        return self._websocket.subprotocol

    @property
    def close_code(self) -> Optional[int]:
        """The code of the end; None before that."""
        return self._websocket.close_code

    @property
    def close_reason(self) -> str:
        """What was said about it."""
        return self._websocket.close_reason

    def __aiter__(self) -> AsyncClientWebSocket:
        return self

    async def __anext__(self) -> Message:
        found = await self._run(lambda: next(self._websocket, None))
        if found is None:
            raise StopAsyncIteration
        return found

    def send(self, data: Union[str, bytes, bytearray, memoryview]) -> Awaitable[None]:
        """Sends a message; see `ClientWebSocket.send`, as for all that follows."""
        return self._run(lambda: self._websocket.send(data))

    def send_text(self, data: str) -> Awaitable[None]:
        """Sends a text message."""
        return self._run(lambda: self._websocket.send_text(data))

    def send_bytes(self, data: Union[bytes, bytearray, memoryview]) -> Awaitable[None]:
        """Sends a binary message."""
        return self._run(lambda: self._websocket.send_bytes(data))

    def send_json(self, data: Any) -> Awaitable[None]:
        """Sends a value as JSON, in a text message."""
        return self._run(lambda: self._websocket.send_json(data))

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> Awaitable[None]:
        """Sends a single frame, also one that breaks the rules."""
        return self._run(lambda: self._websocket.send_frame(opcode, payload, fin=fin))

    def ping(self, data: Union[str, bytes] = b"", *, timeout: Optional[float] = None) -> Awaitable[None]:
        """Sends a ping, and waits for its pong."""
        return self._run(lambda: self._websocket.ping(data, timeout=timeout))

    def receive(self, *, timeout: Optional[float] = None) -> Awaitable[Message]:
        """Waits for the next message. Cancelled, it cuts the connection: give it a timeout instead."""
        return self._run(lambda: self._websocket.receive(timeout=timeout))

    def receive_text(self, *, timeout: Optional[float] = None) -> Awaitable[str]:
        """Waits for the next message, which has to be text."""
        return self._run(lambda: self._websocket.receive_text(timeout=timeout))

    def receive_bytes(self, *, timeout: Optional[float] = None) -> Awaitable[bytes]:
        """Waits for the next message, which has to be binary."""
        return self._run(lambda: self._websocket.receive_bytes(timeout=timeout))

    def receive_json(self, *, timeout: Optional[float] = None) -> Awaitable[Any]:
        """Waits for the next message, and returns what it says in JSON."""
        return self._run(lambda: self._websocket.receive_json(timeout=timeout))

    def close(self, code: int = 1000, reason: str = "") -> Awaitable[None]:
        """Closes it, and waits until the server has agreed."""
        return self._run(lambda: self._websocket.close(code, reason))

    def _run(self, function: Callable[[], _T]) -> Awaitable[_T]:
        return self._threads.run(function, self._websocket.leave)
