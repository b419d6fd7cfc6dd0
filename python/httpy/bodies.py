"""Turns a parsed JSON body into what a handler asked for: one converter per annotation, worked out once.

Rules:
1. A value of the wrong JSON type is refused, not coerced: `"1"` is no int, `1` is no str. An int is a float.
2. Names that a class does not have are ignored; names without a default are required.
3. All mistakes are reported together, each with its place (`loc`); a value that converts costs nothing for
   that.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import re
import sys
import typing
from collections.abc import Callable
from typing import Any, Literal, Optional, Union

from .hints import CONTAINERS, accepts_none, describe, is_class, is_union, members, plain
from .scalars import as_function, find_converter, is_text_in_json

Convert = Callable[[Any], Any]


class Invalid(ValueError):
    """Lists what is wrong with a body; `errors()` has pydantic's shape."""

    def __init__(self, message: str = "", kind: str = "value_error", *, errors: Any = None) -> None:
        self._errors: list[dict[str, Any]] = errors or [{"loc": (), "msg": message, "type": kind}]
        super().__init__("; ".join(str(error["msg"]) for error in self._errors))

    def errors(self) -> list[dict[str, Any]]:
        """Returns one dict per mistake, with `loc`, `msg` and `type`."""
        return self._errors

    def at(self, place: Union[str, int]) -> list[dict[str, Any]]:
        """Returns the mistakes as seen from one level further out."""
        return [{**error, "loc": (place, *error["loc"])} for error in self._errors]


class Unsupported(Exception):
    """Says which annotation no converter can be made for."""


def find_body(annotation: Any) -> Optional[Convert]:
    """Returns the converter for an annotation that can only be a JSON body, or None if it is none.

    Raises:
        Unsupported: if it is one, but something in it can't be converted.
    """
    return _Plan().convert(annotation) if _is_structured(annotation) else None


def _is_structured(annotation: Any) -> bool:
    annotation = plain(annotation)
    if is_union(annotation):
        return any(_is_structured(member) for member in members(annotation))
    origin = typing.get_origin(annotation) or annotation
    if not isinstance(origin, type):
        return False
    if origin in CONTAINERS and annotation is not list:
        return any(_is_structured(member) for member in typing.get_args(annotation))
    return origin is list or origin in _OBJECTS or _is_class_of_fields(origin)


def _is_class_of_fields(annotation: Any) -> bool:
    return is_class(annotation) and (
        dataclasses.is_dataclass(annotation)
        or _is_typed_dict(annotation)
        or _is_pydantic(annotation)
        or _is_msgspec(annotation)
    )


class _Plan:
    """Makes the converters of one body; classes that contain themselves are made once."""

    def __init__(self) -> None:
        self._made: dict[type, Convert] = {}

    def convert(self, annotation: Any) -> Convert:
        annotation = plain(annotation)
        if annotation is Any or annotation is object or isinstance(annotation, typing.TypeVar):
            return lambda value: value
        if annotation is None or annotation is type(None):
            return _null
        if is_union(annotation):
            return self._union(annotation)
        origin = typing.get_origin(annotation) or annotation
        if origin is Literal:
            return _literal(typing.get_args(annotation))
        if origin is tuple:
            return self._tuple(typing.get_args(annotation))
        if isinstance(origin, type) and origin in CONTAINERS:
            (item,) = typing.get_args(annotation) or (Any,)
            return _array(self.convert(item), CONTAINERS[origin])
        if origin in _OBJECTS:
            return self._mapping(typing.get_args(annotation))
        return self._class(origin)

    def _class(self, cls: Any) -> Convert:
        if is_class(cls) and cls in _LEAVES:
            return _LEAVES[cls]
        if is_class(cls) and is_text_in_json(cls):
            return _from_text(cls)
        if is_class(cls) and issubclass(cls, enum.Enum):
            return _enum(cls)
        if not _is_class_of_fields(cls):
            raise Unsupported(f"{describe(cls)} is nothing that JSON can hold")
        if _is_pydantic(cls):
            return _pydantic(cls)
        if _is_msgspec(cls):
            return _msgspec(cls)
        if cls not in self._made:
            # A class may contain itself: what is made while this one is being made calls it by name.
            self._made[cls] = lambda value: self._made[cls](value)
            self._made[cls] = self._typed_dict(cls) if _is_typed_dict(cls) else self._dataclass(cls)
        return self._made[cls]

    def _union(self, annotation: Any) -> Convert:
        has_none = accepts_none(annotation)
        converts = [self.convert(member) for member in members(annotation)]

        def to_union(value: Any) -> Any:
            if value is None and has_none:
                return None
            failures = []
            for convert in converts:
                try:
                    return convert(value)
                except Invalid as error:
                    failures.extend(error.errors())
            raise Invalid(errors=failures)

        return to_union

    def _tuple(self, items: tuple[Any, ...]) -> Convert:
        if not items or items[1:] == (...,):
            return _array(self.convert(items[0] if items else Any), tuple)
        converts = [self.convert(item) for item in items]

        def to_tuple(value: Any) -> Any:
            if not isinstance(value, list) or len(value) != len(converts):
                raise Invalid(f"expected a list of {len(converts)}", "tuple_type")
            return tuple(_each(zip(range(len(value)), converts, value)).values())

        return to_tuple

    def _mapping(self, types: tuple[Any, ...]) -> Convert:
        key, item = types or (str, Any)
        convert = self.convert(item)
        convert_key = "str" if plain(key) is Any else find_converter(plain(key))
        if convert_key is None:
            raise Unsupported(f"JSON objects have names that are text, not {describe(key)}")
        read_key = as_function(convert_key)

        def to_mapping(value: Any) -> Any:
            if not isinstance(value, dict):
                raise Invalid("expected an object", "dict_type")
            found = _each((name, convert, member) for name, member in value.items())
            return found if read_key is str else {read_key(name): member for name, member in found.items()}

        return to_mapping

    def _dataclass(self, cls: Any) -> Convert:
        hints = _hints(cls)
        fields = [field for field in dataclasses.fields(cls) if field.init]
        missing = dataclasses.MISSING
        required = [f.name for f in fields if f.default is missing and f.default_factory is missing]
        read = self._fields({field.name: hints[field.name] for field in fields}, required, cls)

        def to_dataclass(value: Any) -> Any:
            found = read(value)
            try:
                return cls(**found)
            except ValueError as error:
                # `__post_init__` found the values unfit for each other.
                raise error if isinstance(error, Invalid) else Invalid(str(error)) from error

        return to_dataclass

    def _typed_dict(self, cls: Any) -> Convert:
        return self._fields(_hints(cls), sorted(cls.__required_keys__), cls)

    def _fields(self, hints: dict[str, Any], required: list[str], cls: Any) -> Convert:
        converts = {}
        for name, hint in hints.items():
            try:
                converts[name] = self.convert(hint)
            except Unsupported as error:
                raise Unsupported(f"{describe(cls)}.{name}: {error}") from None

        def to_fields(value: Any) -> dict[str, Any]:
            if not isinstance(value, dict):
                raise Invalid("expected an object", "dict_type")
            absent = [name for name in required if name not in value]
            known = ((name, convert, value[name]) for name, convert in converts.items() if name in value)
            return _each(known, absent)

        return to_fields


def _each(members: Any, absent: Any = ()) -> dict[Any, Any]:
    """Converts members, collecting every mistake before it gives up."""
    found, failures = {}, []
    for place, convert, value in members:
        try:
            found[place] = convert(value)
        except Invalid as error:
            failures.extend(error.at(place))
    failures.extend({"loc": (name,), "msg": "Field required", "type": "missing"} for name in absent)
    if failures:
        raise Invalid(errors=failures)
    return found


def _array(convert: Convert, build: Convert) -> Convert:
    def to_array(value: Any) -> Any:
        if not isinstance(value, list):
            raise Invalid("expected a list", "list_type")
        return build(_each((place, convert, member) for place, member in enumerate(value)).values())

    return to_array


def _literal(choices: tuple[Any, ...]) -> Convert:
    def to_literal(value: Any) -> Any:
        for choice in choices:
            # The types too: True equals 1, and 1.0 equals 1.
            if value == choice and type(value) is type(choice):
                return choice
        raise Invalid("expected " + " or ".join(map(repr, choices)), "literal_error")

    return to_literal


def _enum(cls: type[enum.Enum]) -> Convert:
    choices = {(type(member.value), member.value): member for member in cls}

    def to_enum(value: Any) -> Any:
        if isinstance(value, (str, int, float, bool)) and (type(value), value) in choices:
            return choices[type(value), value]
        raise Invalid("expected " + " or ".join(repr(member.value) for member in cls), "enum")

    return to_enum


def _null(value: Any) -> Any:
    if value is not None:
        raise Invalid("expected null", "none_required")
    return None


def _exactly(cls: type, name: str) -> Convert:
    def to_exactly(value: Any) -> Any:
        # `type`, not `isinstance`: True is an int.
        if type(value) is not cls:
            raise Invalid(f"expected {name}", f"{cls.__name__}_type")
        return value

    return to_exactly


def _float(value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise Invalid("expected a number", "float_type")
    return float(value)


def _from_text(cls: type) -> Convert:
    read = find_converter(cls)
    assert callable(read)
    may_be_number = cls.__name__ == "Decimal"

    def from_text(value: Any) -> Any:
        if may_be_number and type(value) in (int, float):
            value = str(value)
        if not isinstance(value, str):
            raise Invalid("expected a string", f"{cls.__name__.lower()}_type")
        try:
            return read(value)
        except ValueError as error:
            raise Invalid(str(error), f"{cls.__name__.lower()}_parsing") from None

    return from_text


def _pydantic(cls: Any) -> Convert:
    pydantic = sys.modules["pydantic"]
    is_model = issubclass(cls, pydantic.BaseModel)
    validate = cls.model_validate if is_model else pydantic.TypeAdapter(cls).validate_python

    def to_model(value: Any) -> Any:
        try:
            return validate(value)
        except pydantic.ValidationError as error:
            # Only what JSON can say: `input` may be anything, and `ctx` holds exceptions.
            raise Invalid(
                errors=[{k: e[k] for k in ("loc", "msg", "type")} for e in error.errors()]
            ) from error

    return to_model


def _msgspec(cls: Any) -> Convert:
    msgspec = sys.modules["msgspec"]

    def to_struct(value: Any) -> Any:
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$")
            steps = re.findall(r"\.([^.\[`]+)|\[(\d+)\]", path)
            loc = tuple(name or int(index) for name, index in steps)
            raise Invalid(errors=[{"loc": loc, "msg": message, "type": "value_error"}]) from error

    return to_struct


def _is_pydantic(cls: type) -> bool:
    # Whoever has such a class has imported the package. `__pydantic_validator__` is on pydantic's dataclasses
    # too.
    return "pydantic" in sys.modules and hasattr(cls, "__pydantic_validator__")


def _is_msgspec(cls: type) -> bool:
    msgspec = sys.modules.get("msgspec")
    return msgspec is not None and issubclass(cls, msgspec.Struct)


def _is_typed_dict(cls: type) -> bool:
    # `typing.is_typeddict` is 3.10, and does not know those of typing_extensions.
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def _hints(cls: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, localns={cls.__name__: cls}, include_extras=True)
    except (NameError, TypeError) as error:
        raise Unsupported(f"{describe(cls)}: an annotation can't be resolved: {error}") from error


_LEAVES: dict[Any, Convert] = {
    str: _exactly(str, "a string"),
    int: _exactly(int, "a whole number"),
    bool: _exactly(bool, "true or false"),
    float: _float,
}
_OBJECTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
