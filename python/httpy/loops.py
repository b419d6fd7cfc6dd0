"""Makes the asyncio loop that a server runs on, and ends it.

With `selector`, the loop's selector is HTTPy's own runtime, and requests are answered on the loop's thread
without any hand-over. With `thread`, the runtime has a thread of its own: for Windows, for uvloop, and for
loops that were there before the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Optional

from . import _httpy
from .errors import ConfigError

# Absent where the runtime can't be a selector: on Windows.
_Selector: Any = getattr(_httpy, "Selector", None)


class RuntimeLoop(asyncio.SelectorEventLoop):
    """Is an asyncio loop whose selector runs HTTPy's runtime while it waits."""

    def __init__(self) -> None:
        self.runtime: Optional[_httpy.Selector] = _Selector()
        super().__init__(self.runtime)

    def close(self) -> None:
        """Ends the runtime too; here, because it belongs to the thread that it ran on."""
        super().close()
        self.runtime = None


def new_loop(choice: str) -> asyncio.AbstractEventLoop:
    """Makes a loop.

    Args:
        choice: "auto" is "selector" where that works, else "thread".

    Raises:
        ConfigError: if this system, or this Python, doesn't have it.
    """
    if choice == "selector" and _Selector is None:
        raise ConfigError("loop 'selector' needs Linux, macOS or another Unix; use 'thread' or 'auto'")
    if choice == "uvloop":
        try:
            import uvloop  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            raise ConfigError("loop 'uvloop' needs the package uvloop: pip install uvloop") from None
        return uvloop.new_event_loop()  # type: ignore[no-any-return,unused-ignore]
    if choice == "thread" or _Selector is None:
        return asyncio.new_event_loop()
    return RuntimeLoop()


def runtime_of(loop: asyncio.AbstractEventLoop) -> Optional[_httpy.Selector]:
    """Returns the runtime that a loop waits in; None means that the server needs a thread for its own."""
    return loop.runtime if isinstance(loop, RuntimeLoop) else None


def driver_of(choice: str) -> str:
    """Returns the name of the driver that a choice leads to, for people."""
    if choice == "auto":
        return "thread" if _Selector is None else "selector"
    return "thread, uvloop" if choice == "uvloop" else choice


def driver_name(loop: asyncio.AbstractEventLoop) -> str:
    """Returns the name of the driver that serves a loop, for people."""
    if runtime_of(loop) is not None:
        return "selector"
    return "thread, uvloop" if type(loop).__module__.startswith("uvloop") else "thread"


def run_to_end(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine on a loop and ends the loop, as `asyncio.run` does: what still runs is cancelled."""
    try:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main)
    finally:
        try:
            _cancel_rest(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _cancel_rest(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            context = {
                "message": "unhandled exception while the loop ended",
                "exception": task.exception(),
                "task": task,
            }
            loop.call_exception_handler(context)
