"""Logs: how lines look, where they go, and how the core's events come there."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from httpy import App, Server, _httpy, logs
from httpy.logs import TRACE, JsonFormatter, TextFormatter, deliver, give_way, set_up, wants_color
from support import PATIENCE_S, environment, python


def record(message: str, *arguments: Any, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("httpy.error", logging.WARNING, "", 0, message, arguments, None)
    made.created = 1795191210.123456
    vars(made).update(extra)
    return made


def failed() -> logging.LogRecord:
    made = record("it failed")
    try:
        raise LookupError("no\x1b[31m\nforged line")
    except LookupError:
        made.exc_info = sys.exc_info()
    return made


# How lines look


def test_text_is_one_line_with_what_was_given_with_it() -> None:
    line = TextFormatter().format(record("%s is odd", "it", kind="bug", left=3, note="a b", empty=""))

    assert line == (
        '2026-11-20T16:13:30.123Z WARNING httpy.error: it is odd kind=bug left=3 note="a b" empty=""'
    )


def test_text_may_have_a_colour() -> None:
    line = TextFormatter(color=True).format(record("it"))

    assert line == "2026-11-20T16:13:30.123Z \033[33mWARNING\033[0m httpy.error: it"


def test_json_is_one_object() -> None:
    line = JsonFormatter().format(record("%s is odd", "it", kind="bug", left=3, odd={1, 2}, what=object))

    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("process") == record("").process
    assert found == {
        "time": "2026-11-20T16:13:30.123456Z",
        "level": "warning",
        "logger": "httpy.error",
        "message": "it is odd",
        "kind": "bug",
        "left": 3,
        "odd": "{1, 2}",
        "what": "<class 'object'>",
    }


def test_json_has_a_form_for_everything() -> None:
    assert json.loads(logs.to_json({"a": float("nan"), "b": b"\xff", "c": "\ud800", "d": None})) == {
        "a": "nan",
        "b": "b'\\xff'",
        "c": "\ud800",
        "d": None,
    }


def test_a_traceback_follows() -> None:
    text = TextFormatter().format(failed()).splitlines()
    found = json.loads(JsonFormatter().format(failed()))

    assert text[0].endswith("WARNING httpy.error: it failed")
    assert text[1] == "Traceback (most recent call last):"
    assert text[-2:] == ["LookupError: no\\x1b[31m", "forged line"]
    assert found["exception"].endswith("LookupError: no\x1b[31m\nforged line")


def test_nobody_can_forge_a_line_or_paint_a_terminal() -> None:
    line = TextFormatter().format(record("GET %s", "/a\n2026 INFO x\r\x1b[2J\x9b\u2028é", path="a\nb"))

    assert line.endswith("GET /a\\n2026 INFO x\\r\\x1b[2J\\x9b\\u2028é path=a\\nb")


@pytest.mark.parametrize(
    ("choice", "is_terminal", "variables", "wanted"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {}, False),
    ],
)
def test_a_terminal_has_colours_unless_it_does_not_want_them(
    choice: str, is_terminal: bool, variables: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert wants_color(choice, stream) is wanted


def test_what_is_no_terminal_any_more_has_no_colours() -> None:
    stream = io.StringIO()
    stream.close()

    assert wants_color("auto", stream) is False


# Where they go


@contextlib.contextmanager
def unconfigured() -> Iterator[None]:
    """As in a program that sets nothing up. No fixture: pytest puts handlers back for every phase of a test."""
    levels = {name: logging.getLogger(name).level for name in ("httpy", "asyncio")}
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        yield
    finally:
        logs._take_away()
        root.handlers = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def test_they_go_to_the_stream_from_their_level_on() -> None:
    with unconfigured():
        stream = io.StringIO()
        set_up("warning", "text", stream=stream)

        logging.getLogger("httpy.error").info("too little")
        logging.getLogger("httpy.error").warning("enough")
        logging.getLogger("asyncio").error("also")

        lines = stream.getvalue().splitlines()
        assert [line.partition(" ")[2] for line in lines] == [
            "WARNING httpy.error: enough",
            "ERROR asyncio: also",
        ]


def test_setting_up_again_does_not_double_lines() -> None:
    with unconfigured():
        stream = io.StringIO()
        set_up("trace", "json", stream=io.StringIO())
        set_up("trace", "json", stream=stream)

        logging.getLogger("httpy").log(TRACE, "once")

        assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == ["trace"]


def test_an_app_that_has_set_up_logging_decides() -> None:
    with unconfigured():
        ours, theirs = io.StringIO(), io.StringIO()
        set_up("info", stream=ours)
        root = logging.getLogger()
        root.addHandler(logging.StreamHandler(theirs))

        give_way()
        logging.getLogger("httpy").warning("seen")

        assert (ours.getvalue(), theirs.getvalue()) == ("", "seen\n")


def test_handlers_of_the_apps_own_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with unconfigured():
        logger = logging.getLogger("httpy")
        theirs = logging.StreamHandler(io.StringIO())
        monkeypatch.setattr(logger, "handlers", [theirs])

        set_up("info", stream=io.StringIO())

        assert logger.handlers == [theirs]


# The core's events


def test_an_event_is_a_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "httpy"):
        deliver(5.5, logging.DEBUG, "httpy.proto.h1", "refused", {"kind": "limit", "name": "x", "left": 3})

    (found,) = caplog.records
    assert (found.created, found.msecs, found.levelname, found.name) == (
        5.5,
        500.0,
        "DEBUG",
        "httpy.proto.h1",
    )
    assert found.getMessage() == "refused"
    # Its own `name` is the logger's.
    assert {"kind": "limit", "name_": "x", "left": 3}.items() <= vars(found).items()


def test_percent_signs_in_events_are_what_they_are(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "httpy"):
        deliver(0.0, logging.ERROR, "httpy", "100%s", {})

    assert caplog.records[0].getMessage() == "100%s"


def test_what_nobody_wants_is_not_made(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "httpy"):
        deliver(0.0, logging.DEBUG, "httpy", "refused", {})

    assert caplog.records == []


# A request without Host, which the core refuses and tells about.
PROGRAM = """
import logging, socket, sys
from httpy import App, Server

logging.basicConfig(level={level}, format="%(levelname)s %(name)s %(message)s", stream=sys.stdout)
with Server(App(), port=0) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
    client.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
    while client.recv(4096):
        pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(("level", "is_told"), [("logging.DEBUG", True), ("logging.INFO", False)])
def test_the_core_tells_loggers_what_it_does_from_their_level_on(level: str, is_told: bool) -> None:
    """To the end: what was logged last is not lost when the program ends."""
    code = PROGRAM.format(level=level)

    ended = subprocess.run(
        python("-c", code), capture_output=True, text=True, env=environment(), timeout=PATIENCE_S, check=True
    )

    assert ("DEBUG httpy.proto.h1 request refused" in ended.stdout) is is_told


def test_levels_may_change_while_a_server_runs() -> None:
    for level in (logging.CRITICAL + 1, TRACE, logging.WARNING):
        _httpy.forward_logs(level)
    with Server(App(), port=0):
        pass
