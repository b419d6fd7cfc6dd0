"""The arguments of commands: how they are read, others' spellings, and help."""

from __future__ import annotations

import re
from typing import Any

import pytest

from httpy import ConfigError, _httpy, flags
from httpy.flags import Option, help_text, parse, shown_default
from httpy.settings import table

TIMEOUT = Option("timeout", ("--timeout-for-test", "-T"), "SECONDS", "how long")


def given(*arguments: str) -> dict[str, Any]:
    """The settings that arguments give."""
    return parse(arguments, table()).settings


def refusal(*arguments: str) -> str:
    """What is said about wrong arguments."""
    with pytest.raises(ConfigError) as refused:
        given(*arguments)
    return str(refused.value)


# Reading


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--port", "80"], {"port": 80}),
        (["--port=80"], {"port": 80}),
        (["-w", "4"], {"workers": 4}),
        (["-w4"], {"workers": 4}),
        (["-w=4"], {"workers": 4}),
        (["--port", "80", "--port", "81"], {"port": 81}),
        (["--debug"], {"debug": True}),
        (["--no-debug"], {"debug": False}),
        (["--debug", "--no-debug"], {"debug": False}),
        (["--debug=false"], {"debug": False}),
        (["--access-log"], {"access_log": True}),
        (["--access-log=a.log"], {"access_log": "a.log"}),
        (["--bind", "a:1", "-b", "b:2", "--bind=unix:/a"], {"bind": ["a:1", "b:2", "unix:/a"]}),
    ],
)
def test_flags_are_read(arguments: list[str], values: dict[str, Any]) -> None:
    assert given(*arguments) == values


def test_words_and_options_are_kept_apart() -> None:
    parsed = parse(["a:app", "-T", "5", "--debug", "-", "--help", "--", "--port"], table(), [TIMEOUT])

    assert parsed.words == ["a:app", "-", "--port"]
    assert parsed.options == {"timeout": "5", "help": ""}
    assert parsed.settings == {"debug": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prt", "1"], "no flag --prt; did you mean --port or --"),
        (["--zzzzzzzzzzz"], "no flag --zzzzzzzzzzz; see --help"),
        (["-z"], "no flag -z; see --help"),
        (["--por", "1"], "no flag --por; did you mean --port"),
        (["--port"], "--port needs a value"),
        (["--port", "--debug"], "--port needs a value"),
        (["--port", "x"], "--port is a number from 0 to 65535, not 'x'"),
        (["-w", "none"], "-w is a whole number from 1 on, or auto, not 'none'"),
        (["--no-debug=1"], "--no-debug takes no value, found '1'"),
        (["--help=1"], "--help takes no value, found '1'"),
        (
            ["--log-level", "loud"],
            "--log-level is one of critical, error, warning, info, debug, trace, not 'loud'",
        ),
    ],
)
def test_wrong_flags_are_one_line(arguments: list[str], message: str) -> None:
    assert refusal(*arguments).startswith(message)


# Others' spellings


@pytest.mark.parametrize(
    ("command", "values"),
    [
        (
            "--host 0.0.0.0 --port 80 --workers 4 --log-level trace --no-access-log --backlog 5 --root-path /a "
            "--factory --app-dir src --env-file .env --reload --reload-dir a --reload-dir b --loop asyncio",
            {
                "host": "0.0.0.0",
                "port": 80,
                "workers": 4,
                "log_level": "trace",
                "access_log": False,
                "backlog": 5,
                "root_path": "/a",
                "factory": True,
                "app_dir": "src",
                "env_file": ".env",
                "reload": True,
                "reload_dir": ["a", "b"],
                "loop": "thread",
            },
        ),
        ("--uds /run/a.sock", {"bind": ["unix:/run/a.sock"]}),
        ("--fd 3", {"bind": ["fd://3"]}),
        ("--no-use-colors", {"color": "never"}),
        ("--timeout-graceful-shutdown 5 --limit-max-requests 10", {"grace": 5.0, "max_requests": 10}),
        (
            "-b unix:/a -b :80 -w 2 -p a.pid -u www -g www -m 007 -t 60 --chdir / --graceful-timeout 3",
            {
                "bind": ["unix:/a", ":80"],
                "workers": 2,
                "pid_file": "a.pid",
                "user": "www",
                "group": "www",
                "umask": 0o007,
                "worker_timeout": 60.0,
                "chdir": "/",
                "grace": 3.0,
            },
        ),
        ("--access-logfile - --pid b.pid", {"access_log": True, "pid_file": "b.pid"}),
        ("--access-logfile a.log --limit-request-fields 50", {"access_log": "a.log", "max_fields": 50}),
        (
            "--limit-request-field_size 900 --keep-alive 5",
            {"max_field_bytes": 900, "keep_alive_timeout": 5.0},
        ),
        ("--limit-concurrency 9 --timeout-keep-alive 5", {"max_in_flight": 9, "keep_alive_timeout": 5.0}),
        ("--worker-connections 9", {"max_connections": 9}),
        ("--ssl-certfile a.pem --ssl-keyfile b.pem", {"certfile": ["a.pem"], "keyfile": ["b.pem"]}),
        ("--certfile a.pem --certfile b.pem", {"certfile": ["a.pem", "b.pem"]}),
    ],
)
def test_command_lines_of_others_are_understood(command: str, values: dict[str, Any]) -> None:
    assert given(*command.split()) == values


def test_every_other_spelling_means_a_setting() -> None:
    assert {name for name, _ in flags._SAME.values()} <= set(table())


@pytest.mark.parametrize("flag", flags._DIFFERENT)
def test_what_can_not_mean_the_same_is_one_line_that_says_what_to_do(flag: str) -> None:
    assert refusal(flag, "1") == f"{flag}: {flags._DIFFERENT[flag]}"
    named = re.findall(r"--[a-z-]+", flags._DIFFERENT[flag])
    own = {setting.flag for setting in table().values()}
    assert [name for name in named if name not in own and name != "--user"] == []


def test_no_spelling_has_two_meanings() -> None:
    own = {setting.flag for setting in table().values()} | {setting.short for setting in table().values()}

    assert own & (set(flags._SAME) | set(flags._DIFFERENT)) == set()
    assert set(flags._SAME) & set(flags._DIFFERENT) == set()


# Help


def test_help_shows_every_setting_with_default_and_variable() -> None:
    text = " ".join(help_text("httpy run", "Serves.", table().values(), [TIMEOUT], ["A note."]).split())

    for setting in table().values():
        if setting.name != "app":
            shown = re.escape(shown_default(setting))
            assert re.search(rf"{setting.flag}\b.*?\(default: {shown}; {setting.variable}\)", text), (
                setting.name
            )
    for name, default in _httpy.defaults().items():
        shown_value = ("on" if default else "off") if isinstance(default, bool) else default
        shown_value = "none" if default is None else shown_value
        assert f"(default: {shown_value}; HTTPY_{name.upper()})" in text
    assert "--timeout-for-test, -T SECONDS how long" in text
    assert "A note." in text


def test_help_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flags, "_columns", lambda: 80)

    lines = help_text("httpy run", "Serves.", table().values()).splitlines()

    # Flags with all their choices may be longer.
    assert [line for line in lines if len(line) > 80 and "{" not in line] == []
