"""Works out, once and at registration, what a handler needs of a request and how it is called.

Rules, in this order, for each parameter:
1. named like a path parameter: that path parameter, whatever else it looks like;
2. annotated `Request`, or named `request` without another annotation: the request; of a WebSocket's handler likewise
   `WebSocket` (`BlockingWebSocket` of a `def`), and the names `websocket` and `ws`;
3. a dataclass, TypedDict, msgspec.Struct, pydantic model or dict (also a list or union of such): the JSON
   body;
4. a scalar, or a list, set or tuple of scalars: a query parameter, required unless it has a default;
5. anything else with a default is left to its default; without one it is an error, now and not at the first
   request.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Optional

from . import hints
from ._httpy import REQUIRED, BlockingWebSocket, Request, WebSocket
from .bodies import Invalid, Unsupported, find_body
from .errors import RouteError
from .scalars import NAMES, Converter, as_function, find_converter

Kind = Literal["inline", "async", "pooled"]
Parameter = tuple[str, str, Any, Any, bool]


@dataclass(frozen=True)
class Plan:
    """Says how a handler is called.

    Attributes:
        kind: Where it runs: "async" and "inline" on the loop's thread, "pooled" on a thread that may block.
        parameters: One (name, source, convert, default, many) per argument, in order.
        keywords: How many of the last arguments are passed by keyword.
        summary: What each argument is, for people.
    """

    kind: Kind
    parameters: tuple[Parameter, ...]
    keywords: int
    summary: tuple[str, ...]


def plan_handler(
    handler: Callable[..., Any],
    path: Iterable[tuple[str, str]] = (),
    *,
    route: str = "",
    inline: bool = False,
    stream: bool = False,
    websocket: bool = False,
) -> Plan:
    """Works out how to call a handler.

    Args:
        handler: Any callable: a function, a method, a partial, an object with `__call__`.
        path: The (name, converter) pairs of the pattern.
        route: What to call the route in an error. Defaults to nothing.
        inline: Whether a plain `def` runs on the loop's thread.
        stream: Whether the handler starts before the request body has arrived.
        websocket: Whether it is a handler of WebSockets.

    Raises:
        RouteError: if a parameter can't be filled; names file, line, handler and parameter.
    """
    if not callable(handler):
        raise RouteError(
            f"{route or 'route'}: a handler is a function or another callable, found {handler!r}"
        )
    kind: Kind = "async" if is_async(handler) else "inline" if inline else "pooled"
    work = _Work(handler, dict(path), route, kind if websocket else None)
    parameters, keywords = work.parameters()
    if inline and kind == "async":
        raise work.error(
            "inline=True is for plain `def` handlers; `async def` runs on the loop's thread anyway"
        )
    if stream and any(source == "body" for _, source, *_ in parameters):
        raise work.error(
            "stream=True starts the handler before the body has arrived, so it can't take it parsed"
        )
    return Plan(kind, tuple(parameters), keywords, tuple(map(_summary, parameters)))


def is_async(handler: Any) -> bool:
    """Says whether calling a handler gives something to await, or an async generator."""
    return _is_async_itself(handler) or _is_async_itself(inspect.unwrap(_within_partials(handler)))


def _is_async_itself(handler: Any) -> bool:
    handler = _within_partials(handler)
    return any(
        inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate)
        for candidate in (handler, getattr(type(handler), "__call__", None))  # noqa: B004
    )


def _within_partials(handler: Any) -> Any:
    while isinstance(handler, functools.partial):
        handler = handler.func
    return handler


class _Work:
    """The planning of one handler."""

    def __init__(
        self, handler: Callable[..., Any], path: Mapping[str, str], route: str, socket_kind: Optional[Kind]
    ) -> None:
        self._handler = handler
        self._path = path
        self._route = route
        self._socket_kind = socket_kind
        self._namespace = getattr(hints.unwrap(handler), "__globals__", {})
        self._body: Optional[str] = None

    def parameters(self) -> tuple[list[Parameter], int]:
        """The arguments in the order in which they are passed, and how many of the last go by keyword."""
        try:
            signature = inspect.signature(self._handler)
        except (ValueError, TypeError, NameError) as error:
            raise self.error(f"its parameters can't be found out: {error}") from error
        passed: list[Parameter] = []
        keywords = 0
        by_keyword = _first_keyword(self._handler, signature)
        for index, parameter in enumerate(signature.parameters.values()):
            described = self._parameter(parameter)
            is_named = parameter.kind is parameter.KEYWORD_ONLY or index >= by_keyword
            if described is None:
                # Left to its default, so those after it can't be passed by position.
                by_keyword = 0
                continue
            if parameter.kind is parameter.POSITIONAL_ONLY:
                if by_keyword == 0:
                    raise self.error(
                        "it comes after one that is left to its default and can't be named", parameter
                    )
                is_named = False
            keywords += is_named
            passed.append(described)
        return passed, keywords

    def _parameter(self, parameter: inspect.Parameter) -> Optional[Parameter]:
        name = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise self.error(f"`*{name}` can't be filled: name the parameters you need", parameter)
        if parameter.kind is parameter.VAR_KEYWORD:
            raise self.error(
                f"`**{name}` can't be filled: name the parameters you need, or take the request "
                "and read request.query and request.path_params",
                parameter,
            )
        default = REQUIRED if parameter.default is parameter.empty else parameter.default
        annotation = self._annotation(parameter)
        if name in self._path:
            return (name, "path", self._path_converter(parameter, annotation), default, False)
        if self._is_websocket(parameter, annotation):
            return (name, "websocket", "str", default, False)
        if _is_request(name, annotation):
            return (name, "request", "str", default, False)
        if name == "request":
            raise self.error(
                f"`request` is the request, but is annotated {hints.describe(annotation)}: "
                "annotate it httpy.Request, or rename it",
                parameter,
            )
        return self._body_or_query(parameter, annotation, default)

    def _body_or_query(
        self, parameter: inspect.Parameter, annotation: Any, default: Any
    ) -> Optional[Parameter]:
        name = parameter.name
        try:
            body = find_body(annotation)
        except Unsupported as error:
            raise self.error(f"it is a JSON body, but {error}", parameter) from error
        if body is not None:
            if self._socket_kind is not None:
                raise self.error("it is a JSON body, and a WebSocket's handshake has none", parameter)
            if self._body is not None:
                raise self.error(f"there is one body, and `{self._body}` takes it already", parameter)
            self._body = name
            return (name, "body", body, default, False)
        if annotation is parameter.empty:
            annotation = _annotation_of_default(default)
        if annotation is not None:
            converter = find_converter(annotation)
            if converter is not None:
                return (name, "query", converter, default, False)
            many = _find_many(annotation)
            if many is not None:
                return (name, "query", many, default, True)
        if default is not REQUIRED:
            return None
        raise self.error(
            f"nothing in a request is a {hints.describe(annotation)}. What works: a parameter of the path by "
            f"its name, a Request, a query parameter ({NAMES}, Optional or a list of those), a JSON body "
            "(dataclass, TypedDict, msgspec.Struct, pydantic model, dict), or anything with a default",
            parameter,
        )

    def _is_websocket(self, parameter: inspect.Parameter, annotation: Any) -> bool:
        """Says whether a parameter is the WebSocket, and refuses one that can't be what it is annotated."""
        named = [
            member
            for member in hints.members(annotation)
            if hints.is_class(member) and issubclass(member, (WebSocket, BlockingWebSocket))
        ]
        if self._socket_kind is None:
            if named:
                raise self.error("it is a WebSocket: register the handler with @app.websocket", parameter)
            return False
        if named:
            right = BlockingWebSocket if self._socket_kind == "pooled" else WebSocket
            if right not in named:
                what = "a plain `def` blocks: " if right is BlockingWebSocket else ""
                raise self.error(f"{what}annotate it httpy.{right.__name__}", parameter)
            return True
        return parameter.name in ("websocket", "ws") and annotation in (parameter.empty, Any, object)

    def _annotation(self, parameter: inspect.Parameter) -> Any:
        if parameter.annotation is parameter.empty:
            return parameter.empty
        try:
            return hints.plain(hints.resolve(parameter.annotation, self._namespace))
        except NameError as error:
            raise self.error(
                f"the annotation {parameter.annotation!r} can't be resolved: {error}. Names in it must be at "
                "module level, not only inside a function or under `if TYPE_CHECKING`",
                parameter,
            ) from error
        except (TypeError, SyntaxError, AttributeError) as error:
            raise self.error(
                f"the annotation {parameter.annotation!r} can't be resolved: {error}", parameter
            ) from error

    def _path_converter(self, parameter: inspect.Parameter, annotation: Any) -> Converter:
        found = self._path[parameter.name]
        natural, fitting = _path_kind(found)
        if annotation is parameter.empty or annotation is Any:
            return natural if isinstance(natural, str) else find_converter(natural) or "str"
        converter = find_converter(annotation)
        if converter is None:
            raise self.error(
                f"it is a path parameter, but {hints.describe(annotation)} can't be made of text: "
                f"annotate it {NAMES}",
                parameter,
            )
        wrong = [member for member in hints.members(annotation) if _is_wrong(member, fitting)]
        if wrong:
            raise self.error(
                f"the pattern says {{{parameter.name}:{found}}}, but it is annotated "
                f"{hints.describe(annotation)}",
                parameter,
            )
        return converter

    def error(self, message: str, parameter: Optional[inspect.Parameter] = None) -> RouteError:
        """Makes the error that names file, line, handler and parameter."""
        of_route = f" of {self._route}" if self._route else ""
        of_parameter = f", parameter `{parameter.name}`" if parameter is not None else ""
        name = hints.name_of(self._handler)
        return RouteError(
            f"{hints.place(self._handler)}: handler `{name}`{of_route}{of_parameter}: {message}"
        )


def _is_request(name: str, annotation: Any) -> bool:
    if name == "request" and annotation in (inspect.Parameter.empty, Any, object):
        return True
    return any(hints.is_class(member) and issubclass(member, Request) for member in hints.members(annotation))


def _annotation_of_default(default: Any) -> Any:
    """The annotation that a default stands for: `limit=10` is an int, no default and None are text."""
    if default is REQUIRED or default is None:
        return str
    return type(default) if find_converter(type(default)) is not None else None


def _find_many(annotation: Any) -> Any:
    """The converter for all values of a name; None if the annotation is no list, set or tuple of scalars."""
    candidates = hints.members(annotation)
    if len(candidates) != 1:
        return None
    origin = typing.get_origin(candidates[0]) or candidates[0]
    build = hints.CONTAINERS.get(origin) if isinstance(origin, type) else None
    if build is None:
        return None
    items = typing.get_args(candidates[0])
    if origin is tuple and items and items[1:] != (...,):
        return _fixed_tuple(items)
    converter = find_converter(items[0] if items and items[0] is not Any else str)
    if converter is None or (isinstance(converter, str) and build is list):
        return converter
    convert = as_function(converter)

    def to_many(texts: list[str]) -> Any:
        return build(_convert_each([convert] * len(texts), texts))

    return to_many


def _fixed_tuple(items: Sequence[Any]) -> Any:
    converters = [find_converter(item) for item in items]
    if any(converter is None for converter in converters):
        return None
    converts = [as_function(converter) for converter in converters if converter is not None]

    def to_tuple(texts: list[str]) -> Any:
        if len(texts) != len(converts):
            raise ValueError(f"expected {len(converts)} values, found {len(texts)}")
        return tuple(_convert_each(converts, texts))

    return to_tuple


def _convert_each(converts: Sequence[Callable[[str], Any]], texts: Sequence[str]) -> list[Any]:
    values, failures = [], []
    for index, (convert, text) in enumerate(zip(converts, texts)):
        try:
            values.append(convert(text))
        except ValueError as error:
            failures.append({"loc": (index,), "msg": str(error), "type": "value_error"})
    if failures:
        raise Invalid(errors=failures)
    return values


def _first_keyword(handler: Any, signature: inspect.Signature) -> int:
    """The place of the first parameter that is passed by keyword.

    By position is faster and the rule. A decorator's wrapper has a signature of its own below the one it
    shows: what it names itself is passed as it names it, and the rest in the way it takes the rest.
    """
    count = len(signature.parameters)
    if not hasattr(handler, "__wrapped__"):
        return count
    own = inspect.signature(handler, follow_wrapped=False).parameters.values()
    named = [p for p in own if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not any(p.kind is p.VAR_KEYWORD for p in own):
        return count
    takes_by_name = all(p.name in signature.parameters and p.kind is not p.POSITIONAL_ONLY for p in named)
    return 0 if takes_by_name else len(named)


def _summary(parameter: Parameter) -> str:
    name, source, convert, default, many = parameter
    if source in ("request", "websocket"):
        return name
    kind = convert if isinstance(convert, str) else ""
    of_kind = f" {kind}" if kind else ""
    shown = "" if default is REQUIRED else f" = {default!r}"
    return f"{name}: {source}{of_kind}{'*' if many else ''}{shown}"


# Per converter of a pattern: what a parameter without annotation is, and which plain types text of that kind
# can be; of `str` and `path` any. Enum, Literal and Decimal convert further and are never wrong by themselves.
_PLAIN = (str, int, float, bool)
_PATH: dict[str, tuple[Any, Optional[tuple[Any, ...]]]] = {
    "str": ("str", None),
    "path": ("str", None),
    "int": ("int", (int, float, str)),
    "float": ("float", (float, str)),
}


def _path_kind(converter: str) -> tuple[Any, Optional[tuple[Any, ...]]]:
    if converter != "uuid":
        return _PATH[converter]
    # Imported for those who use it: with what it needs it takes a quarter of a MiB.
    from uuid import UUID

    return UUID, (UUID, str)


def _is_wrong(member: Any, fitting: Optional[tuple[Any, ...]]) -> bool:
    """Whether it is a plain type that text of a kind can't be."""
    # Nobody has a class of a module that is not imported.
    uuid = sys.modules.get("uuid")
    is_plain = member in _PLAIN or (uuid is not None and member is uuid.UUID)
    return is_plain and fitting is not None and member not in fitting
