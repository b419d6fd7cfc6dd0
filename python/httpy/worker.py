"""A worker, as it sees itself: a process that serves an app from sockets it was given, and is looked after.

`python -m httpy.work SOCKETS` is started by a supervisor, and tells it by lines (`lines.py`)::

    {"ready": {...}}                     accepts connections
    {"failed": text, "status": number}   could not start; text says why
    {"full": reason}                     wants to be replaced, and serves until it is told to stop
    (an empty line)                      the loop is not stuck

The supervisor says first what is to be served, as an object, and then::

    stop      finish what runs, and what is queued, and end
    retire    finish what runs, and end: others go on accepting from the same sockets
    now       end
    shared    from now on, others hold the sockets too, and `stop` means `retire`
    sole      from now on, they don't

If the supervisor is gone, that means `stop`.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib
import json
import os
import random
import signal
import socket
import sys
import threading
from typing import Any, Optional

from . import _httpy
from .errors import ConfigError, RouteError
from .inheritance import received
from .lines import Lines
from .loops import driver_name
from .server import Observer, Server
from .signals import LastResort
from .tracebacks import own_traceback

# How often the loop shows that it is not stuck: a quarter of the time after which it counts as stuck, at most 2 s.
_BEATS = 4
_LONGEST_BEAT_S = 2.0
# What a stop may take besides the times that are configured. A second less than the supervisor gives.
_SPARE_S = 4.0
# What threads and exit functions may take when the server has ended.
_EXIT_S = 2.0


def main(arguments: Optional[list[str]] = None) -> int:
    """Serves until the supervisor says otherwise.

    Args:
        arguments: Where the sockets are. Defaults to the process's own.

    Returns:
        The exit status: 0 after a stop, else 1, or 2 if the configuration is wrong.
    """
    (where,) = sys.argv[1:] if arguments is None else arguments
    control, *sockets = received(where)
    lines = Lines(control)
    # A stuck worker is told to abort, and shows where it was stuck.
    with contextlib.suppress(Exception):
        # Fails if there is no standard error.
        faulthandler.enable()
    # A terminal sends these to the whole group: what they mean for workers, the supervisor says.
    for name in ("SIGINT", "SIGHUP", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: None)
    told = lines.wait()
    if not told:
        return 1
    work = json.loads(told)
    hub = sockets.pop(0) if work["has_rooms"] else None
    if work["board"] is not None:
        os.set_inheritable(work["board"][0], False)
    stop_s = work["grace"] + work["shutdown_timeout"] + _SPARE_S
    if hasattr(_httpy, "end_after_hangup"):
        _httpy.end_after_hangup(control.fileno(), stop_s, 1)
    try:
        app = load(work["loader"], work["arguments"])
        server = Server(app, sockets=sockets, shared=work["foreign"], **work["config"])
        attendance = Attendance(lines, work, hub)
        server.run(attendance)
    except (ConfigError, RouteError) as error:
        return _fail(lines, f"httpy: error: {error}", 2)
    except SystemExit as error:
        return _fail(lines, f"httpy: error: the app ended the process with status {error.code!r}", 1)
    except BaseException as error:
        return _fail(lines, own_traceback(error), 1)
    # Threads that don't end must not keep the process.
    LastResort(_EXIT_S).start()
    return 0


def load(loader: str, arguments: dict[str, Any]) -> Any:
    """Calls the function that gives the app."""
    module, _, name = loader.partition(":")
    return getattr(importlib.import_module(module), name)(**arguments)


def _fail(lines: Lines, text: str, status: int) -> int:
    lines.send_object({"failed": text, "status": status})
    return status


class Attendance(Observer):
    """What a server that is a worker tells its supervisor, and hears from it."""

    signals = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGBREAK") if hasattr(signal, name))

    def __init__(self, lines: Lines, work: dict[str, Any], hub: Optional[socket.socket] = None) -> None:
        self._lines = lines
        self._hub = hub
        self._board = work["board"]
        self._max_requests = _raised(work["max_requests"], work["recycle_jitter"])
        self._max_rss = _raised(work["max_rss"], work["recycle_jitter"])
        timeout = work["worker_timeout"]
        self._beat_s = min(timeout / _BEATS, _LONGEST_BEAT_S) if timeout else _LONGEST_BEAT_S
        self._others_accept = bool(work["others_accept"])
        self._server: Optional[Server] = None
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._is_full = False

    def starting(self, core: _httpy.Core) -> None:
        """Has requests counted, and connections and rooms shared with the other workers."""
        if self._hub is not None:
            core.share_rooms(self._hub.detach())
        if self._board is not None:
            descriptor, place = self._board
            core.share(descriptor, place)
            os.close(descriptor)
        if self._max_requests:
            core.after_requests(self._max_requests, lambda: self._ask_to_be_replaced("max_requests"))

    def accepting(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        """Tells, and begins to show that the loop is not stuck."""
        self._server, self._loop = server, loop
        self._lines.send_object({"ready": {"title": server._app.title, "loop": driver_name(loop)}})
        self._listen(loop)
        self._beat()

    def takes_signal(self) -> bool:
        """A worker that is told to end asks to be replaced first. It ends when it is told twice."""
        self._ask_to_be_replaced("it was told to end")
        return True

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.add_reader(self._lines, self._hear)
        except NotImplementedError:
            # Windows' own loop.
            threading.Thread(target=self._hear_aside, args=(loop,), daemon=True).start()

    def _hear_aside(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):
            while True:
                word = self._lines.wait()
                loop.call_soon_threadsafe(self._obey, word or "stop")
                if not word:
                    return

    def _hear(self) -> None:
        for word in self._lines.receive():
            self._obey(word)
        if self._lines.is_closed and self._loop is not None:
            self._loop.remove_reader(self._lines)
            self._obey("stop")

    def _obey(self, word: str) -> None:
        assert self._server is not None
        if word in ("shared", "sole"):
            self._others_accept = word == "shared"
        elif word == "now":
            self._server._ask_to_stop(0.0)
            LastResort(0.0).start()
        elif word in ("stop", "retire"):
            self._server._ask_to_stop(None, leave_queued=word == "retire" or self._others_accept)

    def _beat(self) -> None:
        assert self._loop is not None
        self._lines.beat()
        if self._max_rss and resident_bytes() >= self._max_rss:
            self._ask_to_be_replaced("max_rss")
        self._loop.call_later(self._beat_s, self._beat)

    def _ask_to_be_replaced(self, reason: str) -> None:
        if not self._is_full:
            self._is_full = True
            self._lines.send_object({"full": reason})


def _raised(limit: int, jitter: float) -> int:
    return limit + int(limit * jitter * random.random())


def resident_bytes() -> int:
    """Returns how much memory of this process is resident. Where that can't be known: the most that ever was.

    Raises:
        ConfigError: on Windows.
    """
    try:
        with open("/proc/self/statm", "rb") as numbers:
            return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        raise ConfigError("max_rss needs Linux, macOS or another Unix") from None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
