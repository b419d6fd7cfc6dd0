"""ASGI and WSGI apps as apps of HTTPy: `httpy.ASGI` and `httpy.WSGI`, and telling which of them something is.

A hosted app is served, mounted, started and stopped like an `App`; what it answers goes through the same limits and the
same middleware. The native half is `python/src/hosting/`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Optional

from . import _httpy, hints
from .errors import ConfigError
from .servable import Contexts, Servable

_log = logging.getLogger("httpy.lifespan")

LIFESPANS = ("auto", "on", "off")


class _Hosted(Servable):
    """What both kinds have in common."""

    interface = ""

    def __init__(self, app: Callable[..., Any]) -> None:
        if not callable(app):
            raise ConfigError(
                f"an {self.interface.upper()} app can be called, found {hints.name_of(type(app))}"
            )
        super().__init__()
        self.app = app
        self.title = _title(app)

    def _endpoint(self, context: _httpy.Context) -> _httpy.Endpoint:
        """What answers every request. ASGI and WSGI each have their own; this class has none."""
        raise NotImplementedError

    def _native(self, root_path: str = "") -> tuple[_httpy.Routes, Contexts]:
        context = _httpy.Context(self, root_path=root_path)
        routes = _httpy.Routes(context)
        routes.hand_over(self._endpoint(context))
        return routes, [(self, context)]

    def describe(self, file: Any = None) -> None:
        """Prints what is served.

        Args:
            file: Where to. Defaults to standard output.
        """
        print(
            f"{self.title}, an {self.interface.upper()} app, HTTPy {_httpy.__version__}\n\n"
            f"  [rust: protocol] -> [python: {self.title}]",
            file=file,
        )


class ASGI(_Hosted):
    """Is an ASGI app as an app of HTTPy, for `Server`, `httpy run` and `App.mount`.

    Needed only where it is not plain that it is one, or for what is said beside it.

    Args:
        app: The app: `app(scope, receive, send)`, or of ASGI 2 `app(scope)(receive, send)`.
        lifespan: Whether it is told of startup and shutdown: "on", and it is an error if it has no use for that;
            "off"; or "auto", which tries. Defaults to "auto".
        debug: Whether it is offered the extension `http.response.debug`, for tests. Defaults to False.

    Raises:
        ConfigError: if it can't be called, or lifespan is another word.
    """

    interface = "asgi"

    def __init__(self, app: Callable[..., Any], *, lifespan: str = "auto", debug: bool = False) -> None:
        super().__init__(app)
        if lifespan not in LIFESPANS:
            raise ConfigError(f"lifespan is one of {', '.join(LIFESPANS)}, not {lifespan!r}")
        self.debug = debug
        self._callable = _one_call(app) if _is_asgi2(app) else app
        self._lifespan = _Lifespan(self._callable, lifespan, self.title)

    def _endpoint(self, context: _httpy.Context) -> _httpy.Endpoint:
        return _httpy.Endpoint.hosting(
            self._callable, "asgi", context=context, label=self.title, debug=self.debug
        )


class WSGI(_Hosted):
    """Is a WSGI app as an app of HTTPy, for `Server`, `httpy run` and `App.mount`.

    It runs on the thread pool. Needed only where it is not plain that it is one.

    Args:
        app: The app: `app(environ, start_response)`.

    Raises:
        ConfigError: if it can't be called.
    """

    interface = "wsgi"

    def __init__(self, app: Callable[..., Any]) -> None:
        super().__init__(app)
        self.debug = False

    def _endpoint(self, context: _httpy.Context) -> _httpy.Endpoint:
        return _httpy.Endpoint.hosting(self.app, "wsgi", context=context, label=self.title)


def as_app(value: Any, shown: str, interface: str = "auto") -> Servable:
    """Returns something as an app of HTTPy.

    Args:
        value: An `App`, an ASGI or a WSGI app, or one of these wrapped already.
        shown: What it is called in messages.
        interface: What kind it is; "auto" finds out.

    Raises:
        ConfigError: if it is of another kind, or that can't be told.
    """
    if isinstance(value, Servable):
        kind = value.interface
        if interface not in ("auto", kind):
            raise ConfigError(f"{shown} is an app for {_NAMES[kind]}, not for {_NAMES[interface]}")
        return value
    kind = interface if interface in ("asgi", "wsgi") else find_interface(value) or ""
    if interface == "httpy" or not callable(value):
        raise ConfigError(f"{shown} is a {type(value).__name__}, not an HTTPy App")
    if not kind:
        raise ConfigError(
            f"{shown} is a {type(value).__name__}, which can be called, but not told to be an ASGI app "
            "(scope, receive, send) or a WSGI app (environ, start_response): say which, with --interface, or with "
            "httpy.ASGI(app) or httpy.WSGI(app)"
        )
    return ASGI(value) if kind == "asgi" else WSGI(value)


_NAMES = {"httpy": "HTTPy", "asgi": "ASGI", "wsgi": "WSGI"}


def find_interface(app: Any) -> Optional[str]:
    """Tells an ASGI app from a WSGI app by what it takes: "asgi", "wsgi", or None if that can't be told."""
    if not callable(app):
        return None
    if inspect.isclass(app):
        # Made for each request: from a scope in ASGI 2, from environ and start_response in WSGI.
        required = _required(app)
        return "wsgi" if required == 2 else "asgi" if required == 1 and _has_async_call(app) else None
    if _is_async(app):
        # Not a handler, which has other parameters.
        return "asgi" if _required(app) in (3, None) else None
    return {3: "asgi", 2: "wsgi", 1: "asgi" if _is_asgi2(app) else None}.get(_required(app) or 0)


def _is_asgi2(app: Any) -> bool:
    """Whether it takes the scope alone, first."""
    if inspect.isclass(app):
        return _required(app) == 1
    return not _is_async(app) and _required(app) == 1


def _is_async(app: Any) -> bool:
    while isinstance(app, functools.partial):
        app = app.func
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)


def _has_async_call(cls: type) -> bool:
    return inspect.iscoroutinefunction(cls.__call__)


def _required(app: Any) -> Optional[int]:
    """How many arguments it is to be called with; None if that is not one number."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters):
        return None
    return sum(one.kind in by_position and one.default is inspect.Parameter.empty for one in parameters)


def _one_call(app: Callable[..., Any]) -> Callable[..., Any]:
    """An ASGI 2 app as one of ASGI 3."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        await app(scope)(receive, send)

    return call


def _title(app: Any) -> str:
    if inspect.isfunction(app) or inspect.isclass(app):
        return f"{app.__module__}.{app.__qualname__}"
    title = getattr(app, "title", None)
    return title if isinstance(title, str) and title else type(app).__qualname__


# Lifespan (ASGI 3.0, lifespan specification 2.0)


class _Lifespan:
    """Tells an ASGI app of startup and shutdown, in one task that lasts as long as the server.

    As with uvicorn: an app that raises before it has answered does not take part, unless it has to ("on").
    """

    def __init__(self, app: Callable[..., Any], mode: str, title: str) -> None:
        self._app = app
        self._mode = mode
        self._title = title

    @contextlib.asynccontextmanager
    async def running(self, app: Any) -> AsyncIterator[Mapping[str, Any]]:
        """Starts the app, gives the state that it filled, and stops it in the end.

        Raises:
            RuntimeError: if it says that its startup or its shutdown has failed.
        """
        if self._mode == "off":
            yield {}
            return
        talk = _Talk(self._app)
        try:
            if not await talk.begins("startup"):
                self._does_without(talk)
            yield talk.state
        finally:
            await talk.ends()

    def _does_without(self, talk: _Talk) -> None:
        error = talk.failure()
        if self._mode == "on":
            raise RuntimeError(f"{self._title} takes no part in lifespan, which is on") from error
        _log.debug("%s takes no part in lifespan", self._title, exc_info=error)


class _Talk:
    """One conversation of a server with an app, about when it starts and stops."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.state: dict[str, Any] = {}
        self._told: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._said: dict[str, asyncio.Future[None]] = {}
        loop = asyncio.get_running_loop()
        for phase in ("startup", "shutdown"):
            self._said[phase] = loop.create_future()
        self._takes_part = False
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        self._task = loop.create_task(self._call(app, scope))

    async def _call(self, app: Callable[..., Any], scope: dict[str, Any]) -> None:
        await app(scope, self._told.get, self._hear)

    async def _hear(self, message: Mapping[str, Any]) -> None:
        _, phase, outcome = (*str(message.get("type")).split("."), "", "")[:3]
        said = self._said.get(phase)
        if said is None or outcome not in ("complete", "failed"):
            raise RuntimeError(f"the app sends {message.get('type')!r} within lifespan")
        if said.done():
            raise RuntimeError(f"the app sends {message['type']!r} twice")
        if outcome == "complete":
            said.set_result(None)
        else:
            said.set_exception(
                RuntimeError(f"the app's {phase} failed: {message.get('message') or 'it says no more'}")
            )

    async def begins(self, phase: str) -> bool:
        """Announces a phase, and waits until the app is through with it. Returns whether it takes part.

        Raises:
            RuntimeError: if it says that it has failed.
        """
        said = self._said[phase]
        self._told.put_nowait({"type": f"lifespan.{phase}"})
        await asyncio.wait({said, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not said.done():
            said.cancel()
            return False
        if said.exception() is not None:
            # What it raises besides says where.
            await asyncio.wait({self._task}, timeout=1.0)
            raise said.exception() from self.failure()  # type: ignore[misc]
        self._takes_part = True
        return True

    def failure(self) -> Optional[BaseException]:
        """What the app raised, if it has ended so."""
        if not self._task.done() or self._task.cancelled():
            return None
        return self._task.exception()

    async def ends(self) -> None:
        """Announces the shutdown, if the app wants to know, and waits for its end.

        Raises:
            RuntimeError: if it says that it has failed.
        """
        try:
            if self._takes_part and not await self.begins("shutdown"):
                error = self.failure()
                if error is not None:
                    _log.error("the app's lifespan ended before the shutdown", exc_info=error)
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
