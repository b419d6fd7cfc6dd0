"""Routes, and the decorators that register them: what an App and a Router have in common.

Rules:
1. A route is checked when it is registered: its pattern, what its handler needs, and whether another answers
   the same.
2. A router may be included before or after its routes are registered, in several places and in other routers.
3. Its prefixes and its middleware come before those of what it includes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Optional, TypedDict, TypeVar, Union

from . import _httpy, hints
from .errors import RouteError
from .middleware import Middleware, check_middleware
from .plan import Plan, plan_handler

if TYPE_CHECKING:
    from typing_extensions import Unpack

Handler = TypeVar("Handler", bound=Callable[..., Any])


class RouteOptions(TypedDict, total=False):
    """What the decorators take by keyword; see `Registry.get`."""

    name: Optional[str]
    status: int
    inline: bool
    stream: bool
    max_body_bytes: Optional[int]
    timeout: Optional[float]


@dataclass(frozen=True)
class Options:
    """The same with defaults."""

    name: Optional[str] = None
    status: int = 200
    inline: bool = False
    stream: bool = False
    max_body_bytes: Optional[int] = None
    timeout: Optional[float] = None
    origins: Optional[tuple[str, ...]] = None
    when_full: str = "wait"


@dataclass(frozen=True)
class Route:
    """A registered route, seen from one router: the pattern has that router's prefix."""

    methods: Optional[tuple[str, ...]]
    pattern: str
    handler: Callable[..., Any]
    options: Options
    plan: Plan
    routers: tuple[Registry, ...] = ()
    is_websocket: bool = False

    @property
    def middleware(self) -> tuple[Middleware, ...]:
        """That of the routers it came through, outermost first; an app's own is not among it."""
        return tuple(one for router in self.routers for one in router._middleware)

    @property
    def name(self) -> str:
        """The name for `url_for`."""
        return self.options.name or hints.name_of(self.handler)

    def __str__(self) -> str:
        return f"{' '.join(self.methods or ('*',))} {self.pattern}"


class Registry:
    """Collects routes; App and Router are made of it."""

    def __init__(self, prefix: str = "", middleware: Iterable[Any] = ()) -> None:
        self._prefix = check_prefix(prefix)
        self._routes: list[Route] = []
        self._taken: dict[tuple[str, str], Route] = {}
        self._parents: list[tuple[Registry, str]] = []
        self._middleware: list[Middleware] = [check_middleware(one) for one in middleware]

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes in the order of their registration, included ones among them."""
        return tuple(self._routes)

    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Handler], Handler]:
        """Registers a handler for GET, and for HEAD unless HEAD has its own.

        Args:
            path: A pattern such as `/users/{id:int}`; `/users/<int:id>` and `/users/:id` work too.
            name: For `url_for`. Defaults to the handler's name.
            status: Of responses that don't say theirs. Defaults to 200.
            inline: Runs a plain `def` on the loop's thread: fastest, for functions that never block. Defaults
                to False, which runs it on a thread that may block.
            stream: Starts the handler before the request body has arrived. Defaults to False.
            max_body_bytes: The largest body the handler takes. Defaults to the server's own limit.
            timeout: The longest the handler, with its middleware, may take to answer, in seconds; 0 is as long
                as it takes. Then its task is cancelled and the answer is 503; a plain `def` goes on, for nobody.
                Defaults to the server's `handler_timeout`.

        Raises:
            RouteError: if the pattern is malformed, another route answers the same requests, or a parameter
                of the handler can't be filled.
        """
        return self.route(path, methods=("GET",), **options)

    def post(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Handler], Handler]:
        """Registers a handler for POST; see `get`."""
        return self.route(path, methods=("POST",), **options)

    def put(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Handler], Handler]:
        """Registers a handler for PUT; see `get`."""
        return self.route(path, methods=("PUT",), **options)

    def patch(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Handler], Handler]:
        """Registers a handler for PATCH; see `get`."""
        return self.route(path, methods=("PATCH",), **options)

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Handler], Handler]:
        """Registers a handler for DELETE; see `get`."""
        return self.route(path, methods=("DELETE",), **options)

    def head(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Handler], Handler]:
        """Registers a handler for HEAD; see `get`."""
        return self.route(path, methods=("HEAD",), **options)

    def options(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[Handler], Handler]:
        """Registers a handler for OPTIONS; see `get`."""
        return self.route(path, methods=("OPTIONS",), **options)

    def route(
        self, path: str, methods: Optional[Sequence[str]] = ("GET",), **options: Any
    ) -> Callable[[Handler], Handler]:
        """Registers a handler for several methods. None means every method; see `get` for the options."""

        def register(handler: Handler) -> Handler:
            self.add_route(methods, path, handler, **options)
            return handler

        return register

    def add_route(
        self,
        method: Union[str, Sequence[str], None],
        path: str,
        handler: Callable[..., Any],
        **options: Unpack[RouteOptions],
    ) -> None:
        """Registers a handler without a decorator.

        Args:
            method: A method, several, or None for every method.
            path: A pattern; see `get`.
            handler: Any callable.
            **options: Those of `get`.

        Raises:
            RouteError: as `get` does.
        """
        if path and not path.startswith("/"):
            raise RouteError(f"{hints.place(handler)}: a pattern starts with `/`, found {path!r}")
        pattern = self._prefix + path
        methods, chosen = _methods(method, pattern), _options(options, pattern, handler)
        self._register(Route(methods, pattern, handler, chosen, _plan(methods, pattern, handler, chosen)))

    def websocket(
        self,
        path: str,
        *,
        name: Optional[str] = None,
        origins: Optional[Iterable[str]] = None,
        when_full: Literal["wait", "drop", "close"] = "wait",
    ) -> Callable[[Handler], Handler]:
        """Registers a handler for WebSockets.

        It is called when a handshake has come, with the `WebSocket` and what else it takes of path and query, and
        accepts or rejects it. When it ends, so does the WebSocket. A plain `def` gets a `BlockingWebSocket`, and
        has a thread that may block for as long as it runs. Python middleware does not run around it.

        Args:
            path: A pattern; see `get`. A GET route may have the same.
            name: For `url_for`. Defaults to the handler's name.
            origins: The pages whose browsers may open it, such as `https://example.com`; `"same"` is the site
                itself. Others get a 403, clients that are no browsers do not. Defaults to all, which is right
                only if cookies do not let anybody in.
            when_full: What becomes of a message for a client that reads too slowly: "wait" has `send` wait,
                "drop" drops it, "close" closes the WebSocket with 1008. Defaults to "wait".

        Raises:
            RouteError: as `get` does.
        """

        def register(handler: Handler) -> Handler:
            if path and not path.startswith("/"):
                raise RouteError(f"{hints.place(handler)}: a pattern starts with `/`, found {path!r}")
            pattern = self._prefix + path
            options = Options(name=name, origins=_origins(origins, pattern), when_full=when_full)
            if when_full not in ("wait", "drop", "close"):
                raise RouteError(
                    f"{hints.place(handler)}: route {pattern}: when_full is wait, drop or close, "
                    f"found {when_full!r}"
                )
            plan = _plan(_WEBSOCKET, pattern, handler, options, is_websocket=True)
            self._register(Route(_WEBSOCKET, pattern, handler, options, plan, is_websocket=True))
            return handler

        return register

    def include(self, router: Router, prefix: str = "") -> None:
        """Adds the routes of a router, those it gets later too, below a prefix.

        Raises:
            RouteError: if a route answers what another does already, or the router would contain itself.
            TypeError: if it is no router; an app is mounted.
        """
        if not isinstance(router, Router):
            hint = "; mount an app with app.mount(prefix, app)" if isinstance(router, Registry) else ""
            raise TypeError(f"include takes a Router, found {type(router).__name__}{hint}")
        if router is self or router._contains(self):
            raise RouteError("a router can't include itself")
        prefix = self._prefix + check_prefix(prefix)
        routes = [self._adopt(route, router, prefix) for route in router._routes]
        for route in routes:
            self._check(route)
        router._parents.append((self, prefix))
        for route in routes:
            self._insert(route)

    def use(self, *middleware: Any) -> None:
        """Adds middleware, each inside those added before.

        Raises:
            ConfigError: if one is no middleware.
        """
        self._middleware.extend([check_middleware(one) for one in middleware])

    def middleware(self, function: Handler) -> Handler:
        """Adds a middleware, as a decorator."""
        self.use(function)
        return function

    def _register(self, route: Route) -> None:
        # Everything is checked, in everything that includes this, before anything is changed.
        self._check(route)
        self._insert(route)

    def _check(self, route: Route) -> None:
        self._check_open()
        for key in _keys(route):
            other = self._taken.get(key)
            if other is not None:
                raise RouteError(
                    f"{hints.place(route.handler)}: route {route} conflicts with {other} "
                    f"at {hints.place(other.handler)}, which is there already"
                )
        named = [other for other in self._routes if other.name == route.name]
        for other in named:
            if route.options.name and other.options.name and other.pattern != route.pattern:
                raise RouteError(
                    f"{hints.place(route.handler)}: {route} is named {route.name!r}, and so is {other}"
                )
        for parent, prefix in self._parents:
            parent._check(parent._adopt(route, self, prefix))

    def _check_open(self) -> None:
        """Refuses what would have no effect any more; only an app has such a time."""

    def _insert(self, route: Route) -> None:
        self._routes.append(route)
        self._taken.update(dict.fromkeys(_keys(route), route))
        for parent, prefix in self._parents:
            parent._insert(parent._adopt(route, self, prefix))

    def _adopt(self, route: Route, router: Registry, prefix: str) -> Route:
        """A route of an included router, as it is seen from here."""
        pattern = prefix + route.pattern
        # The prefix may have parameters, which the handler takes.
        plan = _plan(route.methods, pattern, route.handler, route.options, is_websocket=route.is_websocket)
        return replace(route, pattern=pattern, plan=plan, routers=(router, *route.routers))

    def _contains(self, other: Registry) -> bool:
        return any(parent is self or self._contains(parent) for parent, _ in other._parents)


class Router(Registry):
    """Is a group of routes, to be included in an app or another router.

    Args:
        prefix: Put before every pattern; may have parameters. Defaults to nothing.
        middleware: Runs around these routes only. Defaults to none.

    Example:
        >>> users = Router(prefix="/users")
        >>> @users.get("/{id:int}")
        ... def user(id: int):
        ...     return {"id": id}
        >>> app.include(users, prefix="/api")
    """


def check_prefix(prefix: str) -> str:
    """Returns a prefix as it is put before paths: empty, or with a slash before it and none after it.

    Raises:
        RouteError: if it does not start with a slash.
    """
    if prefix in ("", "/"):
        return ""
    if not isinstance(prefix, str) or not prefix.startswith("/"):
        raise RouteError(f"a prefix starts with `/`, found {prefix!r}")
    return prefix.rstrip("/")


def _plan(
    methods: Optional[tuple[str, ...]],
    pattern: str,
    handler: Callable[..., Any],
    options: Options,
    *,
    is_websocket: bool = False,
) -> Plan:
    """What the handler needs on this pattern."""
    route = f"{' '.join(methods or ('*',))} {pattern}"
    try:
        path = _httpy.pattern_parameters(pattern or "/")
    except RouteError as error:
        raise RouteError(f"{hints.place(handler)}: {error}") from None
    return plan_handler(
        handler, path, route=route, inline=options.inline, stream=options.stream, websocket=is_websocket
    )


def _origins(origins: Optional[Iterable[str]], pattern: str) -> Optional[tuple[str, ...]]:
    if origins is None:
        return None
    found = (origins,) if isinstance(origins, str) else tuple(origins)
    for origin in found:
        if origin not in ("same", "*", "null") and not re.fullmatch(
            r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/?#@]+/?", origin
        ):
            raise RouteError(
                f"route {pattern}: an origin is a scheme and a host such as https://example.com, "
                f"or 'same', found {origin!r}"
            )
    return found


def _methods(method: Any, pattern: str) -> Optional[tuple[str, ...]]:
    if method is None:
        return None
    names = (method,) if isinstance(method, str) else tuple(method)
    wrong = [name for name in names if not isinstance(name, str) or not re.fullmatch(_TOKEN, name)]
    if wrong or not names:
        raise RouteError(
            f"route {pattern}: a method is a word such as GET, found {wrong[0] if wrong else names!r}"
        )
    # Methods are case-sensitive (RFC 9110 §9.1), but nobody means `get` when they write it.
    return tuple(dict.fromkeys(name.upper() if name.upper() in _KNOWN else name for name in names))


def _options(options: RouteOptions, pattern: str, handler: Any) -> Options:
    unknown = [name for name in options if name not in RouteOptions.__annotations__]
    if unknown:
        known = ", ".join(RouteOptions.__annotations__)
        raise RouteError(
            f"{hints.place(handler)}: route {pattern} has no option {unknown[0]!r}; there are {known}"
        )
    timeout = options.get("timeout")
    if timeout is not None and not (isinstance(timeout, (int, float)) and 0 <= timeout < math.inf):
        raise RouteError(
            f"{hints.place(handler)}: route {pattern}: timeout is a number of seconds that is not negative, "
            f"found {timeout!r}"
        )
    return Options(**options)


def _keys(route: Route) -> list[tuple[str, str]]:
    """What a route answers: two patterns that differ only in the names of their parameters are one."""
    canonical = _httpy.canonical_pattern(route.pattern or "/")
    shape = re.sub(r"\{[^}:]+", "{", canonical)
    # A WebSocket's handshake is a GET that no other route takes.
    methods = (_WEBSOCKET_KEY,) if route.is_websocket else route.methods or ("*",)
    return [(method, shape) for method in methods]


# What the route of a WebSocket shows in place of methods, and what no method can be.
_WEBSOCKET = ("WEBSOCKET",)
_WEBSOCKET_KEY = "a WebSocket"

# RFC 9110 §5.6.2.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_KNOWN = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT")
