"""The Server: an app on an address, started and stopped.

Three ways to run one, and one way of serving behind them (`_serve`): on a thread of its own (`start`, `stop`,
`with`), on the main thread with signals (`run`), inside a loop that is there already (`serve`).

States::

    new -> starting -> accepting -> stopping -> new
              |            ^ what start() waits for
              `-> new, with the failure raised
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from . import _httpy
from .config import split_config
from .errors import ConfigError
from .loops import driver_name, new_loop, run_to_end, runtime_of
from .signals import stop_on_signals

if TYPE_CHECKING:
    from types import TracebackType

    from .app import App


class Server:
    """Serves an app on an address.

    Args:
        app: The app.
        host: The address or host name to listen on. Defaults to 127.0.0.1.
        port: The port. Defaults to 8000; 0 has the system choose, and `port` then says which.
        **config: Limits and the like, as of `App.run`; `loop` is "auto", "selector", "thread" or "uvloop".

    Raises:
        ConfigError: if a value is wrong.

    Example:
        >>> with Server(app, port=0) as server:
        ...     urllib.request.urlopen(server.url)
    """

    def __init__(self, app: App, *, host: str = "127.0.0.1", port: int = 8000, **config: Any) -> None:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
            raise ConfigError(f"port is a number from 0 to 65535, not {port!r}")
        if not hasattr(app, "_native"):
            raise ConfigError(f"a Server serves an HTTPy App today, found {type(app).__name__}")
        self._app = app
        self._host = host
        self._wanted_port = port
        self._choice, self._config = split_config(config)
        self._lock = threading.Lock()
        self._is_used = False
        self._is_accepting = False
        self._port: Optional[int] = None
        self._thread: Optional[threading.Thread] = None
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._stop_wanted: Optional[asyncio.Event] = None
        self._grace: Optional[float] = None
        self._serving: Optional[asyncio.Task[None]] = None
        self._failure: Optional[BaseException] = None

    @property
    def host(self) -> str:
        """The host it was given."""
        return self._host

    @property
    def port(self) -> int:
        """The port it listens on; before it does, the one it was given."""
        return self._wanted_port if self._port is None else self._port

    @property
    def url(self) -> str:
        """Where a client on this machine finds it, without a slash at the end."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self._host, self._host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def start(self) -> None:
        """Starts serving on a thread of its own, and returns when it accepts connections.

        Raises:
            ConfigError: if the address can't be had.
            RuntimeError: if it runs already.
            Exception: what the app's startup raised.
        """
        self._claim()
        accepting: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run_thread, args=(accepting,), name="httpy", daemon=True)
        self._thread.start()
        try:
            accepting.result()
        except BaseException:
            if not accepting.done():
                # Interrupted while waiting: what was started must not go on by itself.
                self._ask_to_stop(0.0)
            self._thread.join()
            self._thread = None
            raise

    def stop(self, grace: Optional[float] = None) -> None:
        """Stops accepting, lets running requests finish, runs the app's shutdown, and returns when all is
        over.

        Called on the server's own loop (from a handler, or while `serve` runs there), it only asks for that.
        Without effect if it does not run.

        Args:
            grace: The longest to wait for running requests, in seconds. None means the configured `grace`.

        Raises:
            Exception: what the app's shutdown raised.
        """
        self._ask_to_stop(grace)
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        thread.join()
        self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def serve(self) -> None:
        """Serves inside the running loop until `stop` is called or the task is cancelled.

        Signals are left alone. A second cancellation, while running requests finish, ends them.

        Raises:
            ConfigError: if the address can't be had.
            RuntimeError: if it runs already.
            Exception: what the app's startup raised.
        """
        self._claim()
        await self._serve(lambda: None)

    def run(self) -> None:
        """Serves from the main thread until SIGINT or SIGTERM; `App.run` and the command line are this.

        Raises:
            ConfigError: if the address or the loop can't be had.
            RuntimeError: if it runs already, or a loop runs in this thread.
            Exception: what the app's startup raised.
        """
        if _is_in_loop():
            raise RuntimeError("a loop runs in this thread already: use `await Server(app).serve()`")
        loop = new_loop(self._choice)
        self._claim()

        async def main() -> None:
            task = asyncio.current_task()
            assert task is not None
            with stop_on_signals(loop, lambda grace: self._on_signal(task, grace)):
                await self._serve(lambda: self._announce(loop))

        try:
            run_to_end(loop, main())
        except asyncio.CancelledError:
            # A signal during startup.
            pass

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Server:
        """Starts serving inside the running loop, and returns when it accepts connections."""
        self._claim()
        accepting = asyncio.get_running_loop().create_future()
        self._serving = asyncio.ensure_future(self._serve(lambda: accepting.set_result(None)))
        try:
            await asyncio.wait({self._serving, accepting}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._serving.cancel()
            raise
        if self._serving.done():
            await self._serving
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._ask_to_stop(None)
        if self._serving is not None:
            await self._serving
            self._serving = None

    def _claim(self) -> None:
        with self._lock:
            if self._is_used:
                raise RuntimeError("the server runs already")
            self._is_used = True
        self._port = self._grace = self._failure = None

    def _release(self) -> None:
        self._loop = self._stop_wanted = None
        self._is_accepting = self._is_used = False

    def _run_thread(self, accepting: concurrent.futures.Future[None]) -> None:
        try:
            run_to_end(new_loop(self._choice), self._serve(lambda: accepting.set_result(None)))
        except BaseException as error:
            self._is_used = False
            if accepting.done():
                self._failure = error
            else:
                accepting.set_exception(error)

    async def _serve(self, on_accepting: Callable[[], None]) -> None:
        """Binds, starts the app, accepts until asked to stop, drains, stops the app."""
        loop = asyncio.get_running_loop()
        self._loop, self._stop_wanted = loop, asyncio.Event()
        core: Optional[_httpy.Core] = None
        try:
            with self._app._served():
                routes, contexts = self._app._native()
                core = _httpy.Core(routes, self._config)
                self._port = core.bind(_address(self._host), self._wanted_port)
                async with self._app._live(contexts):
                    core.start(runtime_of(loop), loop)
                    self._is_accepting = True
                    on_accepting()
                    try:
                        await self._stop_wanted.wait()
                    finally:
                        try:
                            await self._drain(core)
                        finally:
                            core.close()
        finally:
            # It belongs to this thread; a failure's traceback would carry it to another.
            core = None
            self._release()

    async def _drain(self, core: _httpy.Core) -> None:
        """Waits for running requests; asked again meanwhile, with a grace, it waits no longer than that."""
        drained = asyncio.Event()
        asked = self._stop_wanted
        assert asked is not None
        asked.clear()
        core.stop(self._grace, lambda cut_off: drained.set())
        longest: Optional[float] = None
        while not drained.is_set():
            waiting = [asyncio.ensure_future(event.wait()) for event in (drained, asked)]
            try:
                done, _ = await asyncio.wait(waiting, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
            if not done:
                return
            if asked.is_set():
                asked.clear()
                longest = self._grace if self._grace is not None else longest

    def _ask_to_stop(self, grace: Optional[float]) -> None:
        loop = self._loop
        if loop is None:
            return

        def ask() -> None:
            if self._stop_wanted is not None:
                self._grace = grace
                self._stop_wanted.set()

        try:
            loop.call_soon_threadsafe(ask)
        except RuntimeError:
            # The loop has closed in between: it is stopped.
            pass

    def _on_signal(self, task: asyncio.Task[None], grace: Optional[float]) -> None:
        """A signal has come: with grace None the first, with 0 the second."""
        if self._is_accepting or grace is not None:
            self._ask_to_stop(grace)
        else:
            task.cancel()

    def _announce(self, loop: asyncio.AbstractEventLoop) -> None:
        print(
            f"HTTPy {_httpy.__version__} serves {self._app.title} on {self.url} "
            f"(loop: {driver_name(loop)}; Ctrl-C stops)",
            file=sys.stderr,
            flush=True,
        )


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _address(host: str) -> str:
    """The IP address of a host name.

    Raises:
        ConfigError: if it has none.
    """
    try:
        # As bytes: `str` goes through Python's IDNA, whose tables an address like 127.0.0.1 has no use for.
        name = host.encode("ascii" if host.isascii() else "idna") or b"0.0.0.0"
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"host {host!r} has no address: {error.strerror or error}") from None
    # IPv4 first: `localhost` is 127.0.0.1 to most clients.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])
