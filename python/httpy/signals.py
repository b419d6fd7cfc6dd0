"""Turns SIGINT and SIGTERM into a stop, in the main thread.

The first signal asks for a graceful stop. The second asks for one at once and gives the app's shutdown a
second; then, or at a third, the process ends, whatever still blocks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Optional

# 1 s: what someone who has pressed Ctrl-C twice will wait for.
_LAST_GRACE_S = 1.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stop_on_signals(
    loop: asyncio.AbstractEventLoop, stop: Callable[[Optional[float]], Any]
) -> Iterator[None]:
    """Calls `stop(None)` on the loop at the first signal, and `stop(0.0)` at the second.

    Without effect outside the main thread, where Python has no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0
    last = threading.Timer(_LAST_GRACE_S, _end_now)
    last.daemon = True

    def on_signal(number: int, frame: Any) -> None:
        nonlocal count
        count += 1
        if count == 1:
            loop.call_soon_threadsafe(stop, None)
        elif count == 2:
            loop.call_soon_threadsafe(stop, 0.0)
            last.start()
        else:
            _end_now()

    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        with _wakes(loop):
            yield
    finally:
        last.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


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
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    # Not `sys.exit`: that waits for threads, and the loop may be blocked.
    os._exit(0)
