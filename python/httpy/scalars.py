"""Turns the text of path and query parameters into values: one converter per annotation, worked out once.

A converter is the name of one that runs in Rust ("str", "int", "float", "bool"), or a function that takes the
text and raises ValueError with a message for the client.

`datetime` and `decimal` take half a MiB and are imported by whoever annotates with them: here their classes go by name.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Optional, TypeVar, Union

from . import _httpy
from .hints import is_class, is_union, members, plain

if TYPE_CHECKING:
    import datetime
    import decimal
    import uuid

Moment = TypeVar("Moment")
Converter = Union[str, Callable[[str], Any]]

NAMES = "str, int, float, bool, UUID, datetime, date, time, Decimal, an Enum or a Literal"


def find_converter(annotation: Any) -> Optional[Converter]:
    """Returns the converter for a scalar annotation, or None if it is not one.

    That `Optional` takes None says nothing about text: None comes from the default.
    """
    annotation = plain(annotation)
    if typing.get_origin(annotation) is Literal:
        return _one_of({_text(value): value for value in typing.get_args(annotation)})
    if is_union(annotation):
        return _first_of(members(annotation))
    if not is_class(annotation):
        return None
    if issubclass(annotation, enum.Enum):
        return _one_of({_text(member.value): member for member in annotation})
    return _NATIVE.get(annotation) or _CALLED.get(_name(annotation))


def is_text_in_json(cls: type) -> bool:
    """Says whether JSON has values of a class as text."""
    return _name(cls) in _CALLED


def to_datetime(text: str) -> datetime.datetime:
    """Reads an ISO 8601 date and time; `Z` is UTC."""
    import datetime

    return _iso(
        datetime.datetime.fromisoformat, text, "an ISO 8601 date and time, such as 2026-01-31T12:00:00Z"
    )


def to_date(text: str) -> datetime.date:
    """Reads an ISO 8601 date."""
    import datetime

    return _iso(datetime.date.fromisoformat, text, "an ISO 8601 date, such as 2026-01-31")


def to_time(text: str) -> datetime.time:
    """Reads an ISO 8601 time of day."""
    import datetime

    return _iso(datetime.time.fromisoformat, text, "an ISO 8601 time, such as 12:30:00")


def to_uuid(text: str) -> uuid.UUID:
    """Reads a UUID."""
    import uuid

    try:
        return uuid.UUID(text)
    except ValueError:
        raise ValueError("expected a UUID") from None


def to_decimal(text: str) -> decimal.Decimal:
    """Reads a decimal number. NaN and infinities are refused, as arithmetic with them surprises."""
    import decimal

    try:
        value = decimal.Decimal(text)
    except decimal.InvalidOperation:
        raise ValueError("expected a decimal number") from None
    if not value.is_finite():
        raise ValueError("expected a finite decimal number")
    return value


def _iso(read: Callable[[str], Moment], text: str, expected: str) -> Moment:
    # Before Python 3.11 fromisoformat does not know Z. A space is what `+` of an offset becomes in a query
    # string.
    readable = text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text
    try:
        return read(readable)
    except ValueError:
        pass
    try:
        return read("+".join(readable.rsplit(" ", 1)))
    except ValueError:
        raise ValueError(f"expected {expected}") from None


def _one_of(by_text: dict[str, Any]) -> Callable[[str], Any]:
    expected = "expected " + _listing(list(by_text))

    def to_one_of(text: str) -> Any:
        if text not in by_text:
            raise ValueError(expected)
        return by_text[text]

    return to_one_of


def _listing(words: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "nothing"


def _name(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _first_of(annotations: Iterable[Any]) -> Optional[Converter]:
    """Makes a converter that tries several; `str`, which takes everything, comes last."""
    ordered = sorted(annotations, key=lambda annotation: annotation is str)
    found = [find_converter(annotation) for annotation in ordered]
    if len(found) == 1 or None in found:
        return found[0] if len(found) == 1 else None
    converters = [as_function(converter) for converter in found if converter is not None]

    def to_first_of(text: str) -> Any:
        messages = []
        for converter in converters:
            try:
                return converter(text)
            except ValueError as error:
                messages.append(str(error))
        raise ValueError(", or ".join(dict.fromkeys(messages)))

    return to_first_of


def as_function(converter: Converter) -> Callable[[str], Any]:
    """Returns a function that does what a converter of Rust does."""
    return _FUNCTIONS[converter] if isinstance(converter, str) else converter


_NATIVE: dict[type, str] = {str: "str", int: "int", float: "float", bool: "bool"}
_FUNCTIONS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": _httpy.to_int,
    "float": _httpy.to_float,
    "bool": _httpy.to_bool,
}
_CALLED: dict[tuple[str, str], Callable[[str], Any]] = {
    ("uuid", "UUID"): to_uuid,
    ("datetime", "datetime"): to_datetime,
    ("datetime", "date"): to_date,
    ("datetime", "time"): to_time,
    ("decimal", "Decimal"): to_decimal,
}
