"""Reads annotations: takes them out of strings and wrappers, and says what kind they are."""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Union

# `int | str` is a type of its own since Python 3.10.
_UNION_TYPE: Any = getattr(types, "UnionType", None)
_TRANSPARENT = ("Required", "NotRequired", "ReadOnly", "Final")


def resolve(annotation: Any, namespace: Mapping[str, Any]) -> Any:
    """Returns what a string annotation means among the names of a module; anything else as it is.

    Raises:
        NameError: if a name is not there.
        TypeError: if the expression does not work on this Python, as `int | None` before 3.10.
        SyntaxError: if it is not an expression.
    """

    # `get_type_hints` also finds strings further inside, as in `list["Item"]`. One annotation at a time,
    # because those nobody needs, such as a return type imported for type checkers only, must not get in the
    # way.
    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    return typing.get_type_hints(holder, globalns=dict(namespace), include_extras=True)["it"]


def plain(annotation: Any) -> Any:
    """Returns an annotation without what says nothing about the value: Annotated, Required, NewType."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif str(typing.get_origin(annotation)).rpartition(".")[2] in _TRANSPARENT:
            (annotation,) = typing.get_args(annotation)
        else:
            return annotation


def is_class(annotation: Any) -> bool:
    """Says whether an annotation is a plain class. (`list[int]` passes for one before Python 3.11.)"""
    return isinstance(annotation, type) and typing.get_origin(annotation) is None


def is_union(annotation: Any) -> bool:
    """Says whether an annotation is `Union[...]`, `Optional[...]` or `X | Y`."""
    origin = typing.get_origin(annotation)
    return origin is Union or (_UNION_TYPE is not None and origin is _UNION_TYPE)


def members(annotation: Any) -> tuple[Any, ...]:
    """Returns what a union is made of, without None; an annotation that is no union is its only member."""
    if not is_union(annotation):
        return (annotation,)
    return tuple(member for member in typing.get_args(annotation) if member is not type(None))


def accepts_none(annotation: Any) -> bool:
    """Says whether an annotation is a union with None in it."""
    return is_union(annotation) and type(None) in typing.get_args(annotation)


def describe(annotation: Any) -> str:
    """Returns an annotation as its author wrote it, or nearly."""
    if is_class(annotation):
        return str(annotation.__name__)
    return str(annotation).replace("typing.", "")


def unwrap(function: Callable[..., Any]) -> Any:
    """Returns the function behind a callable: in partials, methods, callable objects, `functools.wraps`."""
    target: Any = function
    while True:
        if hasattr(target, "__wrapped__"):
            target = target.__wrapped__
        elif hasattr(target, "func") and hasattr(target, "keywords"):
            target = target.func
        elif isinstance(target, types.MethodType):
            target = target.__func__
        elif hasattr(target, "__code__") or isinstance(target, type):
            return target
        else:
            call = getattr(type(target), "__call__", None)  # noqa: B004
            if not hasattr(call, "__code__") and not hasattr(call, "__wrapped__"):
                # Something written in C.
                return target
            target = call


def place(function: Callable[..., Any]) -> str:
    """Returns where a callable was written, as `file:line`; its module if that is not known."""
    target = unwrap(function)
    code = getattr(target, "__code__", None)
    if code is None:
        return str(getattr(target, "__module__", "unknown place"))
    return f"{code.co_filename}:{code.co_firstlineno}"


def name_of(function: Callable[..., Any]) -> str:
    """Returns what to call a callable: its own name, or that of what it wraps, or of its class."""
    for candidate in (function, getattr(function, "func", None), type(function)):
        name = getattr(candidate, "__name__", None)
        if name is not None:
            return str(name)
    return "handler"


CONTAINERS: dict[Any, Callable[[list[Any]], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    tuple: tuple,
    collections.abc.Sequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
    collections.abc.Set: set,
}
"""What makes each kind of container, that may be annotated for several values, of a list of them."""
