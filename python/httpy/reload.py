"""Serves with one worker, and starts it anew when files change.

This process holds the listening sockets, so that no connection is refused while there is no worker: it waits in the
queue for the next one. It imports neither the app nor asyncio. The worker's states::

    none -> starts -> serves -> retires, because files have changed -> none -> starts
              |         `-> has ended by itself, well: this process ends, too
              `-> has failed, and said why -> none, until files change

An app that can't even be found the first time is a mistake of whoever types: then this process ends at once.
"""

from __future__ import annotations

import collections
import contextlib
import os
import selectors
import signal
import socket
import threading
import time

from . import _httpy
from .logs import report
from .urls import urls_of
from .worker_process import WorkerProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Optional

    from .supervisor import Target

# How long running requests may take when files have changed: whoever saves a file waits for the page, and a stream
# would hold it up for as long as it goes on.
_PATIENCE_S = 1.0
# How long a worker may take that was told to end at once. It gives the app's shutdown one second.
_LAST_S = 2.0
# What a stop may take besides the times that are configured.
_SPARE_S = 10.0
# The exit status of a worker whose configuration is wrong.
_MISTAKE = 2


class Reloader:
    """Runs a worker, and starts it anew.

    Args:
        target: How the worker gets the app.
        sockets: Sockets that listen.
        shared: Whether others may hold these sockets too.
        folders: What to watch.
        shown: The app's name, for people.
        settings: All of them.

    Raises:
        ConfigError: if a folder can't be watched.
    """

    def __init__(
        self,
        target: Target,
        *,
        sockets: Sequence[socket.socket],
        shared: bool,
        folders: Sequence[str],
        shown: str,
        settings: Mapping[str, Any],
    ) -> None:
        from .running import server_settings

        config = server_settings(settings)
        limits = {**_httpy.defaults(), **config}
        times = {name: limits[name] for name in ("grace", "shutdown_timeout")}
        self._stop_s: float = sum(times.values()) + _SPARE_S
        self._work = {
            "loader": target.loader,
            "arguments": target.arguments,
            "config": config,
            "foreign": shared,
            "others_accept": False,
            **times,
            # None of these: whoever works on an app stops it in a debugger.
            **dict.fromkeys(("worker_timeout", "max_requests", "max_rss", "recycle_jitter"), 0),
        }
        self._sockets = list(sockets)
        self._urls = urls_of(self._sockets, config)
        self._shown = shown
        self._settings = settings
        self._folders = list(folders)
        self._watch = _httpy.Watch(self._folders, settings["reload_include"], settings["reload_exclude"])
        # What the watching thread has seen.
        self._changed: collections.deque[str] = collections.deque()
        self._worker: Optional[WorkerProcess] = None
        self._has_served = False
        # What the worker was told: "retire", "stop" or "now".
        self._order = ""
        # When it is told more, or killed.
        self._patience_ends: Optional[float] = None
        # How many signals have come, and how many were obeyed.
        self._signals = 0
        self._obeyed = 0

    def run(self) -> int:
        """Serves until SIGINT or SIGTERM, from the main thread.

        Returns:
            The exit status: 0 after a stop, 2 if the app can't be found.
        """
        with selectors.DefaultSelector() as self._selector, self._waking():
            self._start()
            try:
                while True:
                    self._wait()
                    status = self._look_after_worker()
                    if status is not None:
                        return status
                    self._obey_signals()
                    self._heed_changes()
                    self._lose_patience()
                    if self._obeyed and self._worker is None:
                        return 0
            finally:
                if self._worker is not None:
                    self._worker.kill()
                for one in self._sockets:
                    one.close()

    # -- what wakes this process -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _waking(self) -> Iterator[None]:
        """Has signals, changes and the end of a worker wake this process."""
        self._ours, self._theirs = socket.socketpair()
        with self._ours, self._theirs:
            self._ours.setblocking(False)
            self._theirs.setblocking(False)
            self._selector.register(self._ours, selectors.EVENT_READ)
            woken_before = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
            before = {
                number: signal.signal(number, self._on_signal)
                for number in (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGBREAK"))
                if number is not None
            }
            if hasattr(signal, "SIGCHLD"):
                before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
            threading.Thread(target=self._watch_files, name="httpy-watch", daemon=True).start()
            try:
                yield
            finally:
                signal.set_wakeup_fd(woken_before)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals += 1

    def _watch_files(self) -> None:
        """Is the life of a thread."""
        while True:
            try:
                changed = self._watch.wait()
            except OSError as error:
                _log("error", "changes are not seen any more: %s", error)
                return
            self._changed.extend(changed)
            with contextlib.suppress(OSError):
                # A full buffer wakes as well; a closed one means that all is over.
                self._theirs.send(b"\0")

    def _wait(self) -> None:
        ends = self._patience_ends
        self._selector.select(None if ends is None else max(0.0, ends - time.monotonic()))
        with contextlib.suppress(BlockingIOError):
            while self._ours.recv(4096):
                pass

    # -- what is done then -----------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._worker = WorkerProcess(self._sockets, self._work, 0, None)
        self._order, self._patience_ends = "", None
        self._selector.register(self._worker, selectors.EVENT_READ)

    def _look_after_worker(self) -> Optional[int]:
        """Takes in what the worker says. Returns the exit status if this process is to end with it."""
        worker = self._worker
        if worker is None:
            return None
        was_ready = worker.ready is not None
        is_there = worker.hear()
        if worker.ready is not None and not was_ready:
            self._tell_that_it_serves(worker.ready)
        if not is_there:
            self._forget(worker)
        if not worker.has_ended():
            # Without SIGCHLD nothing tells when it has: on Windows.
            if not is_there and self._patience_ends is None:
                self._patience_ends = time.monotonic() + _LAST_S
            return None
        # Its last words may have come in between.
        worker.hear()
        self._forget(worker)
        worker.close()
        self._worker = None
        self._patience_ends = None
        return self._mourn(worker)

    def _mourn(self, worker: WorkerProcess) -> Optional[int]:
        if self._order:
            if not self._obeyed:
                self._start()
            return None
        if worker.failure is not None:
            text, status = worker.failure
            report(text, self._settings["log_format"])
            if status == _MISTAKE and not self._has_served:
                return status
            _log("error", "waiting for a change")
            return None
        if worker.ready is not None and worker.how_it_ended() == "ended with status 0":
            # The app has stopped its server.
            return 0
        _log("error", "the worker %s; waiting for a change", worker.how_it_ended())
        return None

    def _tell_that_it_serves(self, said: Mapping[str, Any]) -> None:
        if self._has_served:
            _log("info", "serving again")
            return
        from .running import announce

        self._has_served = True
        watched = ", ".join(os.path.relpath(folder) for folder in self._folders)
        announce(
            self._shown,
            self._settings,
            self._urls,
            driver=said["loop"],
            notes=(f"reloads on changes in {watched}",),
        )

    def _obey_signals(self) -> None:
        while self._obeyed < self._signals:
            self._obeyed += 1
            if self._worker is None:
                continue
            if self._obeyed == 1:
                self._tell("stop", self._stop_s)
            elif self._obeyed == 2:
                self._tell("now", _LAST_S)
            else:
                self._worker.kill()

    def _heed_changes(self) -> None:
        changed = set()
        while self._changed:
            changed.add(self._changed.popleft())
        # A worker that is ending already makes room for one that sees them.
        if not changed or self._order:
            return
        _log("info", "changed: %s; starting anew", _listed(changed))
        if self._worker is None:
            self._start()
            return
        self._tell("retire", _PATIENCE_S)

    def _lose_patience(self) -> None:
        worker, ends = self._worker, self._patience_ends
        if worker is None or ends is None or time.monotonic() < ends:
            return
        if self._order == "retire":
            self._tell("now", _LAST_S)
        else:
            worker.kill()
            self._patience_ends = None

    def _tell(self, word: str, patience_s: float) -> None:
        assert self._worker is not None
        self._worker.tell(word)
        self._order = word
        self._patience_ends = time.monotonic() + patience_s

    def _forget(self, worker: WorkerProcess) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker)


def folders_of(app_folders: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Returns the folders to watch: those that were named, else the current one and the app's, each once.

    Args:
        app_folders: Where the app's files are.
        settings: All settings.
    """
    folders = [os.path.realpath(folder) for folder in settings["reload_dir"] or [os.curdir, *app_folders]]
    inside = [one for one in folders for other in folders if one.startswith(os.path.join(other, ""))]
    return list(dict.fromkeys(folder for folder in folders if folder not in inside))


def _listed(paths: set[str]) -> str:
    """Some paths for people: three at most."""
    shown = sorted(os.path.relpath(path) for path in paths)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _log(level: str, message: str, *values: Any) -> None:
    import logging

    getattr(logging.getLogger("httpy.reload"), level)(message, *values)
