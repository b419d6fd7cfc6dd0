"""Turns SIGINT, SIGTERM and SIGHUP into a stop, in the main thread.

The first signal asks for a graceful stop. The second asks for one at once and gives the app's shutdown a
second; then, or at a third, the process ends, whatever still blocks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Optional

# 1 s: what someone who has pressed Ctrl-C twice will wait for.
_LAST_GRACE_S = 1.0
# What a terminal or a file needs is less; a pipe that nobody reads takes for ever.
_FLUSH_S = 0.2

# Windows has no SIGTERM from outside, and sends SIGBREAK for Ctrl-Break. SIGHUP is a terminal that is closed; workers
# are restarted by it, but a process that is alone can't do that without being away for a while.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)


@contextlib.contextmanager
def stop_on_signals(
    loop: asyncio.AbstractEventLoop,
    stop: Callable[[Optional[float]], Any],
    signals: Iterable[int] = STOP_SIGNALS,
    renew: Optional[Callable[[], Any]] = None,
) -> Iterator[None]:
    """Calls `stop(None)` on the loop at the first of these signals, and `stop(0.0)` at the second.

    Without effect outside the main thread, where Python has no signals.

    Args:
        loop: The loop.
        stop: What to call.
        signals: At which signals.
        renew: What to call instead at SIGHUP, on the loop, unless that means that the terminal is closed. None:
            nothing, it stops.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0
    last = LastResort(0.0)
    had_terminal = renew is not None and _has_terminal()

    def on_signal(number: int, frame: Any) -> None:
        nonlocal count
        is_hangup = number == getattr(signal, "SIGHUP", None)
        if is_hangup and renew is not None and not (had_terminal and not _has_terminal()):
            loop.call_soon_threadsafe(renew)
            return
        count += 1
        if count == 1:
            loop.call_soon_threadsafe(stop, None)
        elif count == 2:
            loop.call_soon_threadsafe(stop, 0.0)
            last.start()
        else:
            _end_now()

    # What `nohup` has had ignored stays so.
    hangup = getattr(signal, "SIGHUP", None)
    heeded = [number for number in signals if number != hangup or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, on_signal) for number in heeded}
    try:
        with _wakes(loop):
            yield
    finally:
        last.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_terminal() -> bool:
    """Whether there is a terminal that this process belongs to. One that was closed is none any more."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True


class LastResort:
    """Ends the process, with status 0, when something that has to end does not. For stops that were asked for.

    Args:
        seconds: How long it may take, besides the second that anything may take.
        complaint: What to say then, with what every thread does. Defaults to nothing.
    """

    def __init__(self, seconds: float, complaint: str = "") -> None:
        self._timer = threading.Timer(seconds + _LAST_GRACE_S, self._end)
        self._timer.daemon = True
        self._complaint = complaint

    def start(self) -> None:
        """Begins to count; from any thread, once."""
        self._timer.start()

    def cancel(self) -> None:
        """It has ended."""
        self._timer.cancel()

    def _end(self) -> None:
        if self._complaint:
            # Not by way of logging, whose locks may be what blocks.
            with contextlib.suppress(OSError):
                os.write(2, f"httpy: {self._complaint}; the process ends\n".encode())
                faulthandler.dump_traceback(2)
        _end_now()


@contextlib.contextmanager
def _wakes(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Has a signal wake the loop: Python runs signal handlers in the main thread, once that is awake."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        known = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        if known != -1:
            # uvloop and Windows' loop see to it themselves.
            signal.set_wakeup_fd(known)
            yield
            return
        loop.add_reader(ours, _empty, ours)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            loop.remove_reader(ours)


def _empty(waiting: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while waiting.recv(4096):
            pass


def _end_now() -> None:
    # Aside, since whoever is stuck may be stuck in writing.
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    flushing.join(_FLUSH_S)
    # Not `sys.exit`: that waits for threads, and the loop may be blocked.
    os._exit(0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
