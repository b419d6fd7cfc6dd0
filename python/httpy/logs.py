"""The logs of HTTPy: where they go, and how a line looks.

1. HTTPy logs to the loggers `httpy` and below; the core's events come there too (`deliver`). The library sets nothing
   up: only `App.run` and the command line do (`set_up`).
2. An app that sets logging up itself decides: as soon as the root logger has handlers, ours are gone (`give_way`).
3. What a client sent can't forge a line or play with a terminal: control characters are escaped.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, TextIO

from . import _httpy

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:
    # Takes no parameter before Python 3.11.
    _StreamHandler = logging.StreamHandler

TRACE = 5

# The loggers that `set_up` takes care of. asyncio's tells of handlers' tasks that failed while nobody waited for them.
_LOGGERS = ("httpy", "asyncio")

_COLOURS = {
    "CRITICAL": "1;31",
    "ERROR": "31",
    "WARNING": "33",
    "INFO": "32",
    "DEBUG": "2",
    "TRACE": "2",
}

# What every record has. Anything else was given with `extra=`, and is shown.
_USUAL = frozenset(
    (*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime", "taskName", "color_message")
)


def set_up(level: str, format: str = "text", color: bool = False, stream: Optional[TextIO] = None) -> None:
    """Has HTTPy's logs written to a stream, unless the app has set up logging already.

    Args:
        level: The least that is logged, as of `--log-level`.
        format: "text" or "json".
        color: Whether text has colours.
        stream: Where to. Defaults to standard error.
    """
    logging.addLevelName(TRACE, "TRACE")
    number = TRACE if level == "trace" else getattr(logging, level.upper())
    _take_away()
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter(color))
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if name == "httpy":
            logger.setLevel(number)
        if not logger.handlers:
            logger.addHandler(handler)
    give_way()
    _httpy.forward_logs(number)


def give_way() -> None:
    """Takes our handlers away if the app has set up logging meanwhile: a line is written once, and the app's way."""
    if logging.getLogger().handlers:
        _take_away()


def forward() -> None:
    """Has the core's events come to the loggers, from the level on that these have."""
    _httpy.forward_logs(logging.getLogger("httpy").getEffectiveLevel())


def deliver(created: float, level: int, name: str, message: str, fields: Mapping[str, Any]) -> None:
    """Logs an event of the core; called by the native half.

    Args:
        created: When it happened, in seconds since 1970.
        level: As a number of `logging`.
        name: The logger's name.
        message: What happened.
        fields: Its values, which appear as those of `extra=` do.
    """
    logger = logging.getLogger(name)
    if not logger.isEnabledFor(level):
        return
    # A name that a record has itself gets a line behind it.
    extra = {f"{field}_" if field in _USUAL else field: value for field, value in fields.items()}
    record = logger.makeRecord(name, level, "", 0, message, (), None, extra=extra)
    record.created = created
    record.msecs = int(created % 1 * 1000) + 0.0
    logger.handle(record)


def wants_color(choice: str, stream: TextIO) -> bool:
    """Returns whether a stream gets colours.

    Args:
        choice: "always", "never", or "auto": a terminal does, unless NO_COLOR is set (https://no-color.org) or it says
            that it can't.
        stream: The stream.
    """
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def painted(text: str, code: str, color: bool) -> str:
    """Returns text in a colour (the parameters of SGR, ECMA-48 §8.3.117), or as it is."""
    return f"\033[{code}m{text}\033[0m" if color else text


class TextFormatter(logging.Formatter):
    """Writes `2026-11-20T16:13:30.123Z INFO httpy.server: message name=value`, and below it a traceback.

    Args:
        color: Whether the level has a colour.
    """

    def __init__(self, color: bool = False) -> None:
        super().__init__()
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record's line, and the lines of its traceback."""
        level = painted(record.levelname, _COLOURS.get(record.levelname, "0"), self._color)
        words = [f"{utc(record.created, 3)} {level} {record.name}: {_escaped(record.getMessage())}"]
        words += [f"{name}={_word(value)}" for name, value in _extras(record).items()]
        lines = [" ".join(words)]
        lines += [_escaped(line) for part in _traces(record) for line in part.splitlines()]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the record's line."""
        entry: dict[str, Any] = {
            "time": utc(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **_extras(record),
        }
        traces = _traces(record)
        if traces:
            entry["exception"] = "\n".join(traces)
        return to_json(entry)


def report(text: str, format: str) -> None:
    """Says on standard error why something could not start, in the form that logs have.

    Args:
        text: One line, or a traceback.
        format: "text" or "json".
    """
    if format == "json":
        first, _, _ = text.rpartition("\n")
        entry = {"time": utc(time.time(), 6), "level": "critical", "logger": "httpy", "process": os.getpid()}
        message = text.removeprefix("httpy: error: ") if not first else text.rpartition("\n")[2]
        text = to_json({**entry, "message": message, **({"exception": text} if first else {})})
    print(text, file=sys.stderr, flush=True)


def to_json(entry: Mapping[str, Any]) -> str:
    """Returns an object as one line of JSON; what has no JSON form is its text."""
    try:
        return _httpy.json_dumps(entry).decode()
    except (TypeError, ValueError):
        return _httpy.json_dumps({name: _plain(value) for name, value in entry.items()}).decode()


class _Handler(_StreamHandler):
    """Is a handler of ours, which can be told from others."""


def _take_away() -> None:
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            if isinstance(handler, _Handler):
                logger.removeHandler(handler)


def utc(created: float, digits: int) -> str:
    """Returns a time as RFC 3339 writes it, in UTC, with so many digits of its seconds' fraction."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
    return f"{whole}.{int(created % 1 * 10**digits):0{digits}}Z"


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _USUAL}


def _traces(record: logging.LogRecord) -> list[str]:
    traces = []
    if record.exc_info and record.exc_info[0] is not None:
        traces.append("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
    elif record.exc_text:
        traces.append(record.exc_text)
    if record.stack_info:
        traces.append(record.stack_info)
    return traces


def _word(value: Any) -> str:
    text = _escaped(str(value))
    return f'"{text}"' if not text or " " in text or "=" in text else text


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) and value == value else str(value)


def _escaped(text: str) -> str:
    """Text without what a terminal obeys, and without ends of lines."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\t " else repr(c)[1:-1] for c in text)
