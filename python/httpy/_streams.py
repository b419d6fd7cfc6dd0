"""The coroutines behind streamed responses and background tasks. Started by `_httpy`, by nobody else."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import AsyncIterable
from typing import Any

_log = logging.getLogger("httpy.error")
_running: set[asyncio.Task[None]] = set()
"""asyncio itself keeps only weak references to tasks."""


async def pump(chunks: AsyncIterable[Any], sink: Any) -> None:
    """Moves chunks to the carrier until they end, fail, or the client goes away, which cancels the task."""
    iterator = None
    try:
        iterator = chunks.__aiter__()
        async for chunk in iterator:
            room = sink.push(chunk)
            if room is not None:
                await room
    except BaseException as error:
        sink.fail(chunks, error)
        if not isinstance(error, Exception):
            raise
    else:
        sink.finish()
    finally:
        # `async for` leaves an iterator as it is when it is left: a generator's `finally` would run some time later.
        close = getattr(iterator, "aclose", None)
        if close is not None:
            try:
                await close()
            except Exception:
                _log.exception("response stream %s failed: while it was closed", _name(chunks))
        # Whoever keeps the failure, a log handler or a test, keeps this frame. A server that stops waits for the sink.
        sink = None


def start_background(
    event_loop: asyncio.AbstractEventLoop, context: contextvars.Context, background: Any, work: Any
) -> None:
    """Starts background tasks, in a context."""
    coroutine = run_background(event_loop, background, work)
    task = context.run(event_loop.create_task, coroutine)
    _running.add(task)
    task.add_done_callback(_running.discard)


async def run_background(event_loop: asyncio.AbstractEventLoop, background: Any, work: Any) -> None:
    """Runs one callable or a list of them, one after the other. A failure is logged and does not stop the next."""
    for function in background if isinstance(background, (list, tuple)) else (background,):
        try:
            if _is_async(function):
                await function()
            else:
                result = await work(event_loop, function, _name(function))
                if inspect.isawaitable(result):
                    await result
        except Exception:
            _log.exception("background task %s failed", _name(function))
    # As in `pump`: whoever keeps a failure keeps this frame.
    work = None


def _is_async(function: Any) -> bool:
    # Of an object that can be called, its `__call__` may be asynchronous.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", type(thing).__qualname__))


def start_hosted(app: Any, scope: Any, receive: Any, send: Any, ended: Any) -> None:
    """Starts a hosted ASGI app in a task of its own."""
    task = asyncio.get_running_loop().create_task(run_hosted(app, scope, receive, send, ended))
    _running.add(task)
    task.add_done_callback(_running.discard)


async def run_hosted(app: Any, scope: Any, receive: Any, send: Any, ended: Any) -> None:
    """Runs a hosted ASGI app, and tells how it has ended."""
    try:
        await app(scope, receive, send)
    except BaseException as error:
        ended(error)
        if not isinstance(error, Exception):
            raise
    else:
        ended(None)
