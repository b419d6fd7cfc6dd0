"""Starts and stops what an app needs for as long as it is served.

Order: `lifespan` up to its yield, the `on_startup` functions, requests, the `on_shutdown` functions, the rest
    of
`lifespan`. All of it runs in one task on the server's loop. What was started before a failure is stopped
again; `on_shutdown` functions run only if every `on_startup` function has succeeded.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Optional

from . import hints
from .errors import ConfigError

# What a cancelled function gets to clean up, before it is cancelled again.
_NEXT_S = 1.0


class Lifespan:
    """What one app starts and stops.

    Args:
        function: Takes the app (or nothing) and returns an async or plain context manager; a generator
            function that yields once, async or plain, works without a decorator too. None means nothing.

    Raises:
        ConfigError: if function can't be that.
    """

    def __init__(self, function: Optional[Callable[..., Any]]) -> None:
        self.startup: list[Callable[..., Any]] = []
        self.shutdown: list[Callable[..., Any]] = []
        self._function = function if function is None else _as_manager(function)

    @contextlib.asynccontextmanager
    async def running(self, app: Any) -> AsyncIterator[Mapping[str, Any]]:
        """Starts everything, gives what `lifespan` yielded, and stops everything in the end.

        Raises:
            ConfigError: if `lifespan` yields anything but a mapping or None.
        """
        async with contextlib.AsyncExitStack() as stack:
            state = await self._enter(stack, app)
            for function in self.startup:
                await _call(function, app)
            try:
                yield state
            finally:
                async with contextlib.AsyncExitStack() as stopping:
                    # A stack runs them all, whatever one of them raises. It runs the last first.
                    for function in reversed(self.shutdown):
                        stopping.push_async_callback(_call, function, app)

    async def _enter(self, stack: contextlib.AsyncExitStack, app: Any) -> Mapping[str, Any]:
        if self._function is None:
            return {}
        manager = self._function(*_arguments(self._function, app))
        if hasattr(manager, "__aenter__"):
            state = await stack.enter_async_context(manager)
        elif hasattr(manager, "__enter__"):
            state = stack.enter_context(manager)
        else:
            raise ConfigError(
                f"{hints.place(self._function)}: lifespan returns a context manager, "
                f"found {type(manager).__name__}"
            )
        if state is None:
            return {}
        if not isinstance(state, Mapping):
            raise ConfigError(
                f"{hints.place(self._function)}: lifespan yields a mapping, whose values appear on "
                f"request.state, or nothing; found {type(state).__name__}"
            )
        return state


class ends_within:  # noqa: N801
    """Is an async context manager whose end is cancelled when it takes too long, and an error is logged then.

    What still waits a second after that is cancelled again: one function after the other gets its second.

    Args:
        seconds: How long the end may take.
        manager: The manager itself.
    """

    def __init__(self, seconds: float, manager: contextlib.AbstractAsyncContextManager[Any]) -> None:
        self._seconds = seconds
        self._manager = manager

    async def __aenter__(self) -> Any:
        return await self._manager.__aenter__()

    async def __aexit__(self, *raised: Any) -> Optional[bool]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        cancelled = 0
        timer: Optional[asyncio.TimerHandle] = None

        def cancel() -> None:
            nonlocal cancelled, timer
            cancelled += 1
            task.cancel()
            timer = loop.call_later(_NEXT_S, cancel)

        timer = loop.call_later(self._seconds, cancel)
        is_done = None
        try:
            is_done = await self._manager.__aexit__(*raised)
        except asyncio.CancelledError:
            if not cancelled:
                raise
        finally:
            timer.cancel()
            if cancelled:
                _log_late(self._seconds)
            # Python 3.11: so that nothing later on takes this for a cancellation of the whole task.
            for _ in range(cancelled if hasattr(task, "uncancel") else 0):
                task.uncancel()  # type: ignore[attr-defined, unused-ignore]
        return is_done


def _log_late(seconds: float) -> None:
    import logging

    logging.getLogger("httpy.lifespan").error(
        "the app's shutdown took longer than %g s (shutdown_timeout) and was cancelled", seconds
    )


def check_hook(function: Any) -> None:
    """Checks a startup or shutdown function.

    Raises:
        ConfigError: if it can't be called with the app or with nothing.
    """
    if not callable(function):
        raise ConfigError(f"a startup or shutdown function is needed, found {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"{hints.place(function)}: a function that yields belongs into lifespan=")
    _arguments(function, None)


def _as_manager(function: Any) -> Callable[..., Any]:
    if not callable(function):
        raise ConfigError(f"lifespan is a function that takes the app, found {function!r}")
    _arguments(function, None)
    if inspect.isasyncgenfunction(function):
        return contextlib.asynccontextmanager(function)
    if inspect.isgeneratorfunction(function):
        return contextlib.contextmanager(function)
    if inspect.iscoroutinefunction(function):
        raise ConfigError(
            f"{hints.place(function)}: lifespan yields once, between start and stop; this one never does"
        )
    return function  # type: ignore[no-any-return]


async def _call(function: Callable[..., Any], app: Any) -> None:
    result = function(*_arguments(function, app))
    if inspect.isawaitable(result):
        await result


def _arguments(function: Callable[..., Any], app: Any) -> tuple[Any, ...]:
    """The app, if the function takes an argument."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return ()
    for arguments in ((), (app,)):
        with contextlib.suppress(TypeError):
            signature.bind(*arguments)
            # A parameter with a default is not for the app, unless it is called that.
            is_wanted = not arguments and "app" in signature.parameters
            if not is_wanted:
                return arguments
    raise ConfigError(f"{hints.place(function)}: `{hints.name_of(function)}` takes the app, or nothing")
