"""Holds HTTPy's JSON against the json module's, inside fuzz_targets/json.rs. docs/json.md says what may differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 256
BOM = b"\xef\xbb\xbf"


def check(
    loads: Callable[[Any], Any], dumps: Callable[[Any], bytes], layout: Callable[[bool], bool], data: bytes
) -> None:
    """Reads a document in every way, and writes what was read.

    Raises:
        AssertionError: if HTTPy reads what json refuses, the other way round, or anything else than json.
        Exception: anything but ValueError that reading or writing raises.
    """
    is_read, value = outcome(loads, data)
    assert (is_read, repr(value)) == shown(outcome(reference, data)), "read from bytes"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        assert not is_read, "bytes that are not UTF-8"
        return
    if not data.startswith(BOM):
        assert shown(outcome(loads, text)) == (is_read, repr(value)), "read from str"
    if not is_read:
        return
    written = dumps(value)
    assert shown(outcome(reference, written)) == (True, repr(value)), "read again by json"
    assert shown(outcome(loads, written)) == (True, repr(value)), "read again"
    was = layout(False)
    try:
        assert dumps(value) == written, "written by asking for everything"
    finally:
        layout(was)


def reference(data: bytes) -> Any:
    """What json reads, where it is as strict as HTTPy.

    Raises:
        ValueError: if it is not JSON.
    """
    text = data[len(BOM) :].decode() if data.startswith(BOM) else data.decode()
    value = json.loads(text, parse_constant=refuse, parse_float=finite)
    if depth(value) > MAX_DEPTH:
        raise ValueError("too deep")
    return value


def refuse(constant: str) -> Any:
    """NaN, Infinity and -Infinity are no JSON."""
    raise ValueError(constant)


def finite(text: str) -> float:
    """json reads 1e999 as infinity."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value


def depth(value: Any) -> int:
    """How many levels of arrays and objects there are."""
    levels = 0
    level = [value]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        levels += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return levels


def outcome(read: Callable[[Any], Any], data: Any) -> tuple[bool, Any]:
    """Whether a document is read, and as what."""
    # HTTPy's own limit comes before the interpreter's.
    too_deep = RecursionError if read is reference else ()
    try:
        return True, read(data)
    except ValueError:
        return False, None
    except too_deep:
        return False, None


def shown(read: tuple[bool, Any]) -> tuple[bool, str]:
    """So that 1, 1.0 and True are different, and 0.0 and -0.0."""
    return read[0], repr(read[1])
