"""The App: routes, middleware, error handlers and lifespan of one application."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Optional, TextIO, TypeVar, Union

from . import _httpy, hints
from ._httpy import BlockingWebSocket, WebSocket
from .errors import ConfigError, RouteError
from .failures import ErrorHandlers
from .lifespan import Lifespan, check_hook
from .routing import Registry, Route, check_prefix
from .servable import Contexts, Servable

if TYPE_CHECKING:
    from .guest import ASGIGuest, WSGIGuest

Function = TypeVar("Function", bound=Callable[..., Any])
_Path = Union[str, "os.PathLike[str]"]
_Paths = Union[_Path, Sequence[_Path]]


class App(Registry, Servable):
    """Is an application: what the server asks for an answer to each request.

    Args:
        debug: Answers a crash with a page that shows it. Never use that where others can reach the server.
            Defaults to False.
        lifespan: An async context manager function that takes the app: what is before its `yield` runs before
            the first request, what is after it runs after the last. The values of a yielded mapping appear on
            `request.state`. Defaults to none.
        middleware: As if given to `use`. Defaults to none.
        title: The application's name. Defaults to "HTTPy".
        version: The application's version. Defaults to "0.1.0".
        redirect_slashes: Whether a path that no route answers is sent on to the same path with, or without, a
            slash at its end, if a route answers that. Defaults to True.

    Example:
        >>> app = App()
        >>> @app.get("/")
        ... def index():
        ...     return "Hello, World!"
        >>> app.run()
    """

    def __init__(
        self,
        debug: bool = False,
        lifespan: Optional[Callable[..., Any]] = None,
        middleware: Iterable[Any] = (),
        title: str = "HTTPy",
        version: str = "0.1.0",
        *,
        redirect_slashes: bool = True,
    ) -> None:
        Registry.__init__(self, middleware=middleware)
        Servable.__init__(self)
        self.title = title
        self.version = version
        self.state = SimpleNamespace()
        self._redirect_slashes = redirect_slashes
        self._lifespan = Lifespan(lifespan)
        self._errors = ErrorHandlers(debug)
        self._asgi: Optional[ASGIGuest] = None
        self._wsgi: Optional[WSGIGuest] = None

    @property
    def debug(self) -> bool:
        """Whether a crash is answered with a page that shows it."""
        return self._errors.debug

    @debug.setter
    def debug(self, debug: bool) -> None:
        self._errors.debug = debug

    def mount(self, prefix: str, app: Any) -> None:
        """Has another app answer everything below a prefix: one of HTTPy, of ASGI or of WSGI.

        Its lifespan runs inside this one's. This app's middleware is around it. A crash that it does not answer is this
        app's to answer, like one of its own handlers'.

        Args:
            prefix: Where, such as `/api`; without parameters. `/` has an ASGI or WSGI app answer everything that no
                route does.
            app: What answers there. Its patterns are without the prefix. As in Starlette, `request.path` is the
                whole path there too, and `request.root_path` is the part of it that mounts have taken; an ASGI app
                finds that in `scope["root_path"]`, a WSGI app in `SCRIPT_NAME`. What can't be told to be one or the
                other is wrapped: `httpy.ASGI(app)`, `httpy.WSGI(app)`.

        Raises:
            RouteError: if something is mounted there already, or the app would contain itself.
            TypeError: if it is no app.
        """
        self._check_open()
        mounted = _mountable(app)
        checked = check_prefix(prefix)
        if _httpy.pattern_parameters(checked or "/") or not (checked or mounted.interface != "httpy"):
            raise RouteError(f"a mount has a prefix without parameters, found {prefix!r}")
        if any(taken == checked for taken, _ in self._mounts):
            raise RouteError(f"an app is mounted at {checked or '/'} already")
        if mounted is self or self in mounted._mounted():
            raise RouteError("an app can't contain itself")
        self._mounts.append((checked, mounted))

    def url_for(self, name: str, **params: Any) -> str:
        """Returns the path of a route, percent-encoded, behind the server's `root_path`.

        Args:
            name: The route's name: what `name=` said, else the handler's own name.
            **params: A value for each parameter of its pattern.

        Raises:
            RouteError: if there is no such route, or the values don't fit it.
        """
        named = [route for route in self._routes if route.name == name]
        if not named:
            known = ", ".join(sorted({route.name for route in self._routes})) or "none"
            raise RouteError(f"no route is named {name!r}; there are: {known}")
        fitting = [route for route in named if _parameter_names(route) == set(params)]
        try:
            return self._root_path + _httpy.build_path((fitting or named)[0].pattern, params)
        except ValueError as error:
            raise RouteError(f"route {name!r}: {error}") from error

    def error(self, key: Union[int, type[BaseException]]) -> Callable[[Function], Function]:
        """Registers a handler for a status or an exception class.

        It is called with the request and the exception (or what it takes of them), `def` or `async def`, and
        returns what any handler may return; the status is the error's unless it says another.

        Args:
            key: A status from 400 to 599, HTTPy's own 404 and 405 among them, or an exception class.

        Raises:
            RouteError: if it has a handler already, or the function takes anything else.
        """

        def register(function: Function) -> Function:
            self._check_open()
            self._errors.add(key, function)
            return function

        return register

    def on_startup(self, function: Function) -> Function:
        """Registers a function to run before the first request; takes the app or nothing."""
        check_hook(function)
        self._lifespan.startup.append(function)
        return function

    def on_shutdown(self, function: Function) -> Function:
        """Registers a function to run after the last request; takes the app or nothing."""
        check_hook(function)
        self._lifespan.shutdown.append(function)
        return function

    def use(self, *middleware: Any) -> None:
        """Adds middleware around everything this app answers, each inside those added before.

        Raises:
            ConfigError: if one is no middleware.
            RouteError: if the app is being served.
        """
        self._check_open()
        super().use(*middleware)

    def run(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        workers: Union[int, str] = 1,
        reload: bool = False,
        certfile: Optional[_Paths] = None,
        keyfile: Optional[_Paths] = None,
        http3: bool = False,
        **config: Any,
    ) -> None:
        """Serves the app until SIGINT or SIGTERM, from the main thread, as `httpy run` does.

        The first signal stops accepting and waits for running requests, at most `grace` seconds; a second one
        ends at once.

        Args:
            host: The address to listen on. Defaults to 127.0.0.1, which only this machine reaches.
            port: The port. Defaults to 8000; 0 has the system choose.
            workers: How many processes; "auto" is one for each processor. Defaults to 1: this one. With more, each
                runs the script once more to find the app, as multiprocessing does: what is not to happen there
                belongs under `if __name__ == "__main__":`.
            reload: Whether to start anew when a file has changed. Defaults to False.
            certfile: The file of the server's certificate and those of its issuers, PEM; with it, the app is served by
                TLS. Several, one for each host name, are a list. Defaults to none.
            keyfile: The file of its private key, PEM, or a list likewise. Defaults to `certfile`.
            http3: Not there yet.
            **config: The other settings by name; `httpy run --help` lists them with their defaults. The environment
                and configuration files are not read.

        Raises:
            ConfigError: if a value is wrong, or not there yet, or the port can't be had.
            SystemExit: if workers could not start; they have said why.
        """
        script = sys.modules.get("httpy.script")
        if script is not None:
            script.stop_search(self)
        from .running import run_app

        given = {"workers": workers, "reload": reload, **config}
        given.update(http3=http3)
        for name, paths in (("certfile", certfile), ("keyfile", keyfile)):
            if paths is not None:
                given[name] = paths
        # Said only if it was: else it would stand beside `bind`, and before the sockets of a service manager.
        if host != "127.0.0.1":
            given["host"] = host
        if port != 8000:
            given["port"] = port
        status = run_app(self, given, sys._getframe(1).f_globals)
        if status:
            raise SystemExit(status)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Is the app as an ASGI app, for other servers: `uvicorn module:app`.

        Args:
            scope: What ASGI tells of a connection.
            receive: Gives its messages.
            send: Takes the app's messages.
        """
        if self._asgi is None:
            from .guest import ASGIGuest

            self._asgi = ASGIGuest(self)
        await self._asgi(scope, receive, send)

    @property
    def wsgi(self) -> Callable[..., Iterable[bytes]]:
        """The app as a WSGI app, for other servers.

        gunicorn takes plain names only: `wsgi = app.wsgi` in the module, and `gunicorn module:wsgi`.
        """
        if self._wsgi is None:
            from .guest import WSGIGuest

            self._wsgi = WSGIGuest(self)
        return self._wsgi

    def broadcast(
        self,
        room: str,
        message: Union[str, bytes, bytearray, memoryview, dict[str, Any], list[Any]],
        *,
        exclude: Union[
            WebSocket, BlockingWebSocket, Iterable[Union[WebSocket, BlockingWebSocket]], None
        ] = None,
    ) -> Awaitable[None]:
        """Sends a message to every WebSocket in a room, in all workers of the server.

        It goes out when this is called, from any thread, and waits for nobody: awaiting it is not needed, and does no
        harm. A member that reads too slowly is dealt with as its route's `when_full` says; where that is "wait", it
        is closed with 1008.

        Args:
            room: Its name, as given to `WebSocket.join`. A room without members is no mistake.
            message: Text, or bytes; a dict or a list is sent as JSON, in a text message.
            exclude: A WebSocket that does not get it, or several. Defaults to none.

        Raises:
            RuntimeError: if nothing serves this app.
            ValueError: if the name has not 1 to 255 bytes, or the message more than 16 MiB.
            TypeError: if the message is nothing of that.
        """
        first, *others = self._rooms_of_servers()
        for rooms in others:
            rooms.broadcast(room, message, exclude=exclude)
        return first.broadcast(room, message, exclude=exclude)

    def presence(self, room: str) -> int:
        """Returns how many WebSockets are in a room, in all workers of the server.

        Those of this process are counted as they are now, those of others as they have told, a moment ago.

        Raises:
            RuntimeError: if nothing serves this app.
        """
        return sum(rooms.count(room) for rooms in self._rooms_of_servers())

    def _rooms_of_servers(self) -> list[_httpy.Rooms]:
        if not self._rooms:
            raise RuntimeError("nothing serves this app now, and rooms are the server's")
        return self._rooms

    def describe(self, file: Optional[TextIO] = None) -> None:
        """Prints the routes, and the chain of middleware with where each stage runs.

        Args:
            file: Where to. Defaults to standard output.
        """
        from .describe import describe_app

        print(describe_app(self), file=file or sys.stdout)

    def _check_open(self) -> None:
        if self._servers:
            raise RouteError("the app is being served: what is registered now would have no effect")

    def _native(self, root_path: str = "") -> tuple[_httpy.Routes, Contexts]:
        """The routing table for one server, and the context of each app in it."""
        answers = self._errors if self._errors else None
        context = _httpy.Context(self, on_error=answers, statuses=self._errors.statuses, root_path=root_path)
        routes = _httpy.Routes(context, middleware=self._middleware, redirect_slashes=self._redirect_slashes)
        contexts: Contexts = [(self, context)]
        for route in self._routes:
            if route.is_websocket:
                routes.add_websocket(route.pattern, _socket_endpoint(route, context))
            else:
                routes.add(route.methods, route.pattern, _endpoint(route, context))
        for prefix, app in self._mounts:
            below, found = app._native(root_path)
            routes.mount(prefix or "/", below)
            contexts.extend(found)
        return routes, contexts


def _endpoint(route: Route, context: _httpy.Context) -> _httpy.Endpoint:
    return _httpy.Endpoint(
        route.handler,
        kind=route.plan.kind,
        context=context,
        parameters=route.plan.parameters,
        keywords=route.plan.keywords,
        status=route.options.status,
        stream=route.options.stream,
        max_body_bytes=route.options.max_body_bytes,
        timeout=route.options.timeout,
        middleware=route.middleware,
        label=_label(route),
    )


def _socket_endpoint(route: Route, context: _httpy.Context) -> _httpy.SocketEndpoint:
    return _httpy.SocketEndpoint(
        route.handler,
        kind="async" if route.plan.kind == "async" else "pooled",
        context=context,
        parameters=route.plan.parameters,
        keywords=route.plan.keywords,
        origins=route.options.origins,
        when_full=route.options.when_full,
        label=_label(route),
    )


def _label(route: Route) -> str:
    return f"{getattr(route.handler, '__module__', '')}.{hints.name_of(route.handler)}"


def _mountable(app: Any) -> Servable:
    if isinstance(app, Servable):
        return app
    from .hosting import as_app

    try:
        return as_app(app, "what is mounted")
    except ConfigError as error:
        hint = "; a Router is included: app.include(router, prefix)" if isinstance(app, Registry) else ""
        raise TypeError(f"mount takes an app of HTTPy, ASGI or WSGI: {error}{hint}") from None


def _parameter_names(route: Route) -> set[str]:
    return {name for name, _ in _httpy.pattern_parameters(route.pattern)}
