"""What the tests share: running a server, and being its client.

The only file that knows how the native objects fit together.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.client
import inspect
import itertools
import os
import re
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from httpy import _httpy

try:
    import uvloop
except ImportError:
    uvloop = None

T = TypeVar("T")
Handler = Callable[[], Any]

DRIVERS = [*(["selector"] if hasattr(_httpy, "Selector") else []), "thread", *(["uvloop"] if uvloop else [])]
"""selector: asyncio's selector is ours. thread: ours beside asyncio's own loop. uvloop: ours beside that one."""

FIRST_PORT, PORTS = 20_000, 500
"""Of `free_port`: where they begin, and how many each process has."""
WORKER = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0)
# Runs that follow each other begin elsewhere: the system keeps the port of what has ended for a minute.
_PORTS = itertools.count(os.getpid())

PATIENCE_S = 10.0
"""How long a test waits for what it expects at once."""


def inline(function: Handler) -> Handler:
    """Marks a `def` handler to be called on the loop's thread."""
    function.is_inline = True  # type: ignore[attr-defined]
    return function


CONTEXT = _httpy.Context(None)
"""What the endpoints of these tests share: no application."""


def endpoint(function: Handler) -> Any:
    """Makes the native endpoint of a handler."""
    if inspect.iscoroutinefunction(function):
        kind = "async"
    else:
        kind = "inline" if hasattr(function, "is_inline") else "pooled"
    return _httpy.Endpoint(function, kind=kind, context=CONTEXT, label=function.__qualname__)


def new_event_loop(driver: str) -> tuple[asyncio.AbstractEventLoop, Any]:
    """Makes a loop and the selector it needs: none for the thread driver."""
    if driver == "selector":
        selector = _httpy.Selector()
        return asyncio.SelectorEventLoop(selector), selector
    if driver == "uvloop":
        return uvloop.new_event_loop(), None
    return asyncio.SelectorEventLoop(), None


class Core:
    """A server on a loop."""

    def __init__(self, routes: dict[str, Handler]) -> None:
        table = _httpy.Routes(CONTEXT)
        for path, function in routes.items():
            table.add(["GET"], path, endpoint(function))
        self.native = _httpy.Core(table)
        self.port: int = self.native.bind("127.0.0.1", 0)

    def start(self, selector: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Starts to serve on a loop that runs or is about to."""
        self.native.start(selector, loop)

    def stop(self, done: Callable[[int], None], grace: float = 5.0) -> None:
        """Lets requests finish, and calls `done` on the loop."""
        self.native.stop(grace, done)

    def close(self) -> None:
        """Ends what runs beside the loop."""
        self.native.close()


class Server:
    """A running server, as its clients see it. Every thread has a connection of its own."""

    def __init__(self, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.port = port
        self.loop = loop
        self.url = f"http://127.0.0.1:{port}"
        self.local = threading.local()
        self.opened = contextlib.ExitStack()

    def connect(self) -> socket.socket:
        """Opens a connection."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        self.opened.enter_context(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, path: str) -> tuple[int, str]:
        """Sends a request on this thread's connection; returns status and content."""
        if not hasattr(self.local, "client"):
            client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
            self.local.client = self.opened.enter_context(contextlib.closing(client))
        client = self.local.client
        client.request("GET", path)
        response = client.getresponse()
        return response.status, response.read().decode()

    def get(self, path: str) -> str:
        """Like `ask`, for requests that succeed."""
        status, content = self.ask(path)
        assert status == 200, (status, content)
        return content

    def get_all(self, paths: list[str]) -> list[str]:
        """Sends requests at the same time, each on a connection of its own."""
        with concurrent.futures.ThreadPoolExecutor(len(paths)) as pool:
            return list(pool.map(self.get, paths))

    def send(self, path: str) -> socket.socket:
        """Sends a request on a connection of its own and does not wait for the answer."""
        connection = self.connect()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return connection


def serve(
    driver: str,
    routes: dict[str, Handler],
    client: Callable[[Server], T],
    configure: Callable[[asyncio.AbstractEventLoop], None] = lambda loop: None,
) -> T:
    """Serves on this thread while `client` runs on another, and returns what that returns.

    What ends the loop early (KeyboardInterrupt, SystemExit, loop.stop) ends the server too; the first two are raised.
    """
    loop, selector = new_event_loop(driver)
    configure(loop)
    core = Core(routes)
    core.start(selector, loop)
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

    def act() -> None:
        server = Server(core.port, loop)
        try:
            with server.opened:
                outcome.set_result(client(server))
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(core.stop, lambda cut_off: loop.stop())

    thread = threading.Thread(target=act, name="client")
    asyncio.set_event_loop(loop)
    try:
        thread.start()
        loop.run_forever()
    finally:
        core.close()
        run_to_end(loop)
        asyncio.set_event_loop(None)
        loop.close()
        thread.join()
    return outcome.result()


def run_to_end(loop: asyncio.AbstractEventLoop) -> None:
    """What asyncio.run does before it closes its loop."""

    async def end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()

    loop.run_until_complete(end())


def on_loop(server: Server, function: Callable[[], Awaitable[T]]) -> T:
    """Runs a coroutine on the server's loop, from a client."""
    return asyncio.run_coroutine_threadsafe(function(), server.loop).result(PATIENCE_S)


def free_port() -> int:
    """A port for a server that has to be told one, and that takes it a moment later.

    None that the system gives to whoever asks for any (Linux: from 32768, others from 49152), and none of other
    processes that run tests at the same time: a server that shares its port would answer in the place of this one.
    """
    for _ in range(PORTS):
        port = FIRST_PORT + PORTS * WORKER + next(_PORTS) % PORTS
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"none of {PORTS} ports from {FIRST_PORT + PORTS * WORKER} is free")


def python(*arguments: str) -> list[str]:
    """The command for a Python that can import what this one can."""
    return [sys.executable, *arguments]


def environment() -> dict[str, str]:
    """The environment for such a Python."""
    here = os.path.dirname(os.path.abspath(__file__))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
