"""The Server: an app on an address, started and stopped.

Three ways to run one, and one way of serving behind them (`_serve`): on a thread of its own (`start`, `stop`,
`with`), on the main thread with signals (`run`), inside a loop that is there already (`serve`).

States::

    new -> starting -> accepting -> stopping -> new
              |            ^ what start() waits for
              `-> new, with the failure raised

One file, because the three share every state and every way out of it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from . import _httpy
from .banner import banner
from .config import LOG_FORMATS, read_root_path, split_config
from .errors import ConfigError
from .lifespan import ends_within
from .logs import forward
from .loops import driver_name, new_loop, run_to_end, runtime_of
from .signals import STOP_SIGNALS, LastResort, stop_on_signals
from .urls import http_url, url_of

if TYPE_CHECKING:
    from types import TracebackType

    from .servable import Servable
    from .systemd import Notifier


class Server:
    """Serves an app on an address.

    Args:
        app: The app: one of HTTPy, of ASGI or of WSGI.
        host: The address or host name to listen on. Defaults to 127.0.0.1.
        port: The port. Defaults to 8000; 0 has the system choose, and `port` then says which.
        sockets: Sockets that listen already, TCP or unix, to be served instead of host and port. The server takes
            them over: it closes them when it stops accepting, and so starts only once. Defaults to none.
        shared: Whether other processes may hold these sockets too. If not, the server can have the system refuse
            connections while it takes those that came before. Defaults to True.
        access_log: Whether every request is a line on standard output, or the path of a file to have these lines at
            its end. Defaults to False.
        log_format: "text" or "json", for the access log. Defaults to "text".
        root_path: What a proxy takes away from the beginning of paths before it asks. Defaults to nothing.
        plain: Which of the sockets are served without TLS although there is a certificate, by their URLs:
            `http://host:port` or `unix:path`. Defaults to none.
        https_redirect: Whether requests that come without TLS are sent to the same place with it, or the port where
            clients find that. True is the port of the first socket with TLS. Defaults to False.
        **config: Limits, `certfile` and the like, as of `App.run`; `loop` is "auto", "selector", "thread" or
            "uvloop".

    Raises:
        ConfigError: if a value is wrong.

    Example:
        >>> with Server(app, port=0) as server:
        ...     urllib.request.urlopen(server.url)
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        sockets: Sequence[socket.socket] = (),
        shared: bool = True,
        access_log: Union[bool, str] = False,
        log_format: str = "text",
        root_path: str = "",
        plain: Sequence[str] = (),
        https_redirect: Union[bool, int] = False,
        **config: Any,
    ) -> None:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
            raise ConfigError(f"port is a number from 0 to 65535, not {port!r}")
        if not hasattr(app, "_native"):
            from .hosting import as_app

            app = as_app(app, "what a Server serves")
        self._app: Servable = app
        self._host = host
        self._wanted_port = port
        for one in sockets:
            if not isinstance(one, socket.socket):
                raise ConfigError(f"sockets are sockets that listen, found {one!r}")
        self._sockets = tuple(sockets)
        self._shared = shared
        if log_format not in LOG_FORMATS:
            raise ConfigError(f"log_format is one of {', '.join(LOG_FORMATS)}, not {log_format!r}")
        self._access_log = access_log
        self._log_format = log_format
        try:
            self._root_path = read_root_path(root_path)
        except ValueError as error:
            raise ConfigError(f"root_path is {error}, not {root_path!r}") from None
        self._choice, self._config, self._tls = split_config(config)
        self._plain = frozenset(plain)
        unknown = self._plain.difference(url_of(one) for one in self._sockets)
        if unknown:
            raise ConfigError(f"plain has {', '.join(sorted(unknown))}, where no socket of this server is")
        # Where the sockets listen: they are gone when it is asked for.
        self._urls = [url_of(one, tls=self._is_encrypted(one)) for one in self._sockets]
        self._redirect_port = self._find_redirect_port(https_redirect)
        self._credentials: Optional[_httpy.Credentials] = None
        self._counts = _httpy.Counts()
        self._lock = threading.Lock()
        self._is_used = False
        self._is_accepting = False
        self._is_ready = False
        self._port: Optional[int] = None
        for address in (one.getsockname() for one in reversed(self._sockets)):
            if isinstance(address, tuple):
                self._host, self._port = address[:2]
        self._thread: Optional[threading.Thread] = None
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._stop_wanted: Optional[asyncio.Event] = None
        self._grace: Optional[float] = None
        self._leave_queued = False
        self._serving: Optional[asyncio.Task[None]] = None
        self._failure: Optional[BaseException] = None

    @property
    def is_ready(self) -> bool:
        """Whether it accepts connections and has not been asked to stop."""
        return self._is_ready

    @property
    def host(self) -> str:
        """The host it was given; with sockets, that of the first TCP one."""
        return self._host

    @property
    def port(self) -> int:
        """The port it listens on; before it does, the one it was given. With sockets, that of the first TCP one."""
        return self._wanted_port if self._port is None else self._port

    @property
    def url(self) -> str:
        """Where a client on this machine finds it, without a slash at the end.

        `http://host:port`, with TLS `https://host:port`, or `unix:path`.
        """
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """Where it listens: one for each socket."""
        return list(self._urls) or [http_url(self._host, self.port, tls=bool(self._tls))]

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

    def reload_certificates(self) -> None:
        """Reads the files of certificates and keys again, from any thread.

        New connections get what is in them; nothing becomes of those that are open. Without effect if it does not
        run, or has no certificate.

        Raises:
            ConfigError: if something is wrong with a file. Everything stays as it was then.
        """
        credentials = self._credentials
        if credentials is not None:
            credentials.reload()

    def metrics(self) -> dict[str, int]:
        """Tells how often clients were sent away, and why; from any thread, and after the server has stopped, too.

        The counts are of this process, and only grow.

        Returns:
            The counts by their names, such as `"h2_resets"`.
        """
        return self._counts.all()

    async def serve(self) -> None:
        """Serves inside the running loop until `stop` is called or the task is cancelled.

        Signals are left alone. A second cancellation, while running requests finish, ends them.

        Raises:
            ConfigError: if the address can't be had.
            RuntimeError: if it runs already.
            Exception: what the app's startup raised.
        """
        self._claim()
        await self._serve(Observer())

    def run(self, observer: Optional[Observer] = None, notifier: Optional[Notifier] = None) -> None:
        """Serves from the main thread until SIGINT or SIGTERM; `App.run` and the command line are this.

        SIGHUP, unless it means that the terminal is closed, has certificates read again.

        If the app's shutdown, or a thread that it has left in asyncio's executor, still blocks the process some
        seconds after `shutdown_timeout`, the process ends.

        Args:
            observer: Is told what happens. Defaults to a line on standard error when connections are accepted.
            notifier: Tells the service manager what happens. Defaults to nobody.

        Raises:
            ConfigError: if the address or the loop can't be had.
            RuntimeError: if it runs already, or a loop runs in this thread.
            Exception: what the app's startup raised.
        """
        if _is_in_loop():
            raise RuntimeError("a loop runs in this thread already: use `await Server(app).serve()`")
        loop = new_loop(self._choice)
        self._claim()
        told = observer or _Announcer()
        if notifier is not None:
            told = _Notifying(told, notifier)

        async def main() -> None:
            task = asyncio.current_task()
            assert task is not None
            renew = self._renew if self._tls else None
            with stop_on_signals(loop, lambda grace: on_signal(task, grace), told.signals, renew):
                await self._serve(told, on_drained=last_resort.start)

        def on_signal(task: asyncio.Task[None], grace: Optional[float]) -> None:
            # The first one has no grace, the second one has none left.
            if grace is None and not self._is_accepting:
                task.cancel()
            elif grace is not None or not told.takes_signal():
                self._ask_to_stop(grace)

        still = "the app's shutdown, or what it left in asyncio's executor, does not come to an end"
        last_resort = LastResort(self._shutdown_limit(), still)
        try:
            run_to_end(loop, main())
        except asyncio.CancelledError:
            # A signal during startup.
            pass
        finally:
            last_resort.cancel()

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
        self._serving = asyncio.ensure_future(self._serve(_Accepting(accepting)))
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
        self._grace = self._failure = None
        self._leave_queued = False
        if not self._sockets:
            self._port = None

    def _release(self) -> None:
        self._loop = self._stop_wanted = self._credentials = None
        self._is_accepting = self._is_ready = self._is_used = False

    def _run_thread(self, accepting: concurrent.futures.Future[None]) -> None:
        try:
            run_to_end(new_loop(self._choice), self._serve(_Accepting(accepting)))
        except BaseException as error:
            self._is_used = False
            if accepting.done():
                self._failure = error
            else:
                accepting.set_exception(error)

    async def _serve(self, observer: Observer, on_drained: Callable[[], None] = lambda: None) -> None:
        """Binds, starts the app, accepts until asked to stop, drains, stops the app."""
        loop = asyncio.get_running_loop()
        self._loop, self._stop_wanted = loop, asyncio.Event()
        core: Optional[_httpy.Core] = None
        try:
            with self._app._served(self._root_path):
                routes, contexts = self._app._native(self._root_path)
                access_log = self._open_access_log()
                forward()
                if self._tls:
                    self._credentials = _httpy.Credentials(self._tls)
                core = _httpy.Core(
                    routes,
                    self._config,
                    access_log=access_log,
                    https_redirect=self._redirect_port,
                    counts=self._counts,
                )
                self._listen(core)
                observer.starting(core)
                async with ends_within(self._shutdown_limit(), self._app._live(contexts)):
                    core.start(runtime_of(loop), loop)
                    self._is_accepting = self._is_ready = True
                    observer.accepting(self, loop)
                    try:
                        await self._stop_wanted.wait()
                    finally:
                        self._is_ready = False
                        for _, context in contexts:
                            context.stop()
                        observer.stopping()
                        try:
                            await self._drain(core)
                        finally:
                            core.close()
                            if access_log is not None:
                                access_log.flush()
                            on_drained()
        finally:
            # It belongs to this thread; a failure's traceback would carry it to another.
            core = None
            self._release()

    def _open_access_log(self) -> Optional[_httpy.AccessLog]:
        if self._access_log is False:
            return None
        path = None if self._access_log is True else os.fspath(self._access_log)
        return _httpy.AccessLog(path, format="json" if self._log_format == "json" else "text")

    def _shutdown_limit(self) -> float:
        given = self._config.get("shutdown_timeout")
        return float(_httpy.defaults()["shutdown_timeout"] if given is None else given)

    def _listen(self, core: _httpy.Core) -> None:
        if not self._sockets:
            self._port = core.bind(_address(self._host), self._wanted_port, credentials=self._credentials)
        for one in self._sockets:
            if one.fileno() == -1:
                raise ConfigError("the sockets of this server are closed: it has served them before")
            credentials = self._credentials if self._is_encrypted(one) else None
            core.adopt(one.detach(), shared=self._shared, credentials=credentials)

    def _is_encrypted(self, one: socket.socket) -> bool:
        return bool(self._tls) and url_of(one) not in self._plain

    def _find_redirect_port(self, wanted: Union[bool, int]) -> Optional[int]:
        if wanted is False:
            return None
        if wanted is not True and not (isinstance(wanted, int) and 1 <= wanted <= 65535):
            raise ConfigError(f"https_redirect is true, false or a port, not {wanted!r}")
        if not self._plain:
            raise ConfigError("https_redirect is for sockets without TLS beside others with it (plain)")
        if wanted is not True:
            return wanted
        addresses = [one.getsockname() for one in self._sockets if self._is_encrypted(one)]
        ports = [address[1] for address in addresses if isinstance(address, tuple)]
        if not ports:
            raise ConfigError("https_redirect has to say to which port: nothing here listens on one with TLS")
        return int(ports[0])

    def _renew(self) -> None:
        # What is wrong is in the log.
        with contextlib.suppress(ConfigError):
            self.reload_certificates()

    async def _drain(self, core: _httpy.Core) -> None:
        """Waits for running requests; asked again meanwhile, with a grace, it waits no longer than that."""
        drained = asyncio.Event()
        asked = self._stop_wanted
        assert asked is not None
        asked.clear()
        core.stop(self._grace, lambda cut_off: drained.set(), leave_queued=self._leave_queued)
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

    def _ask_to_stop(self, grace: Optional[float], *, leave_queued: bool = False) -> None:
        loop = self._loop
        if loop is None:
            return

        def ask() -> None:
            if self._stop_wanted is not None:
                self._grace = grace
                self._leave_queued = leave_queued
                self._stop_wanted.set()

        try:
            loop.call_soon_threadsafe(ask)
        except RuntimeError:
            # The loop has closed in between: it is stopped.
            pass


class Observer:
    """Is told what becomes of a server. All on the server's thread; does nothing by itself.

    Attributes:
        signals: The signals that stop a server that has the main thread.
    """

    signals: Sequence[int] = STOP_SIGNALS

    def starting(self, core: _httpy.Core) -> None:
        """The sockets listen, and the app's startup begins."""

    def accepting(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        """Connections are accepted."""

    def takes_signal(self) -> bool:
        """The first signal has come. Returns whether that is taken care of; else the server stops."""
        return False

    def stopping(self) -> None:
        """The server was asked to stop, and has not stopped to accept yet."""


class _Announcer(Observer):
    def accepting(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        print(banner(server._app.title, server.urls, driver=driver_name(loop)), file=sys.stderr, flush=True)


class _Notifying(Observer):
    """Tells the service manager what it is told, and another observer everything."""

    def __init__(self, other: Observer, notifier: Notifier) -> None:
        self._other = other
        self._notifier = notifier
        self.signals = other.signals

    def starting(self, core: _httpy.Core) -> None:
        self._other.starting(core)

    def accepting(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._other.accepting(server, loop)
        self._notifier.ready()
        watchdog_s = self._notifier.watchdog_s
        if watchdog_s is not None:
            self._show_life(loop, watchdog_s / 2)

    def takes_signal(self) -> bool:
        return self._other.takes_signal()

    def stopping(self) -> None:
        self._notifier.stopping()
        self._other.stopping()

    def _show_life(self, loop: asyncio.AbstractEventLoop, every: float) -> None:
        # For as long as the loop runs: draining is no reason to be killed.
        self._notifier.alive()
        loop.call_later(every, self._show_life, loop, every)


class _Accepting(Observer):
    def __init__(self, future: Any) -> None:
        self._future = future

    def accepting(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._future.set_result(None)


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
