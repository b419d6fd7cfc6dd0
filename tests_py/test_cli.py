"""The command line: what it runs, what it shows, and what it says about mistakes."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from commands import httpy, without_settings
from httpy import App, Server, _httpy, cli, running

MODULE = """
from httpy import App

app = App(title="example")

@app.get("/")
def index():
    return "hi"

def create_app():
    return App(title="made")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder with a module `shop`, as the current one."""
    (tmp_path / "shop.py").write_text(MODULE)
    (tmp_path / "failing.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in without_settings():
        monkeypatch.delenv(name)
    for name in ("shop", "failing", "wrong", "starting", "main"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """The programs that would have run, with the settings that were given."""
    found: list[tuple[Any, dict[str, Any]]] = []

    def run(program: Any, given: dict[str, Any], environment: Any) -> int:
        found.append((program, given))
        return 0

    monkeypatch.setattr(running, "run", run)
    return found


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line about a mistake."""
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


# Where values come from


def test_values_come_from_flags_then_variables_then_the_file(
    here: Path, ran: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "httpy.toml").write_text('port = 9003\ngrace = 3\nlog-level = "debug"\napp = "other:app"\n')
    monkeypatch.setenv("HTTPY_PORT", "9001")
    monkeypatch.setenv("HTTPY_GRACE", "1.5")

    assert cli.main(["run", "shop:app", "--port", "9002", "--max-body-bytes", "10"]) == 0

    ((program, given),) = ran
    assert program.shown == "shop:app"
    assert given == {
        "port": 9002,
        "grace": 1.5,
        "log_level": "debug",
        "max_body_bytes": 10,
        "app": "other:app",
    }


def test_the_app_may_come_from_anywhere(here: Path, ran: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "main.py").write_text(MODULE)
    assert cli.main(["run"]) == 0
    (here / "httpy.toml").write_text('app = "file:app"\n')
    assert cli.main(["run"]) == 0
    monkeypatch.setenv("HTTPY_APP", "variable:app")
    assert cli.main(["run"]) == 0
    assert cli.main(["run", "word:app"]) == 0

    assert [program.shown for program, _ in ran] == ["main.py", "file:app", "variable:app", "word:app"]


def test_a_folder_is_gone_to_before_anything_is_read(here: Path, ran: list[Any]) -> None:
    (here / "below").mkdir()
    (here / "below" / "httpy.toml").write_text("port = 9003\n")
    (here / "below" / "main.py").write_text(MODULE)

    assert cli.main(["run", "--chdir", "below"]) == 0

    ((program, given),) = ran
    assert (program.shown, given["port"], os.getcwd()) == ("main.py", 9003, str(here / "below"))


def test_a_file_may_say_which_folder(here: Path, ran: list[Any]) -> None:
    (here / "below").mkdir()
    (here / "httpy.toml").write_text('chdir = "below"\n')

    assert cli.main(["run", "shop:app"]) == 0

    assert os.getcwd() == str(here / "below")


@pytest.mark.parametrize("source", ["flag", "file"])
def test_an_environment_file_is_read_and_what_is_there_stays(
    source: str, here: Path, ran: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPY_GRACE", "7")
    for name in ("HTTPY_PORT", "SHOP_SECRET"):
        # Set and taken away, so that it is taken away in the end.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (here / ".env").write_text("HTTPY_PORT=9004\nHTTPY_GRACE=8\nSHOP_SECRET=1\n")
    if source == "file":
        (here / "httpy.toml").write_text('env_file = ".env"\nport = 9005\n')

    assert cli.main(["run", "shop:app", *(["--env-file", ".env"] if source == "flag" else [])]) == 0

    ((_, given),) = ran
    assert (given["port"], given["grace"], os.environ["SHOP_SECRET"]) == (9004, 7.0, "1")


# What is shown


@pytest.mark.parametrize("arguments", [["--version"], ["-V"]])
def test_versions_are_shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0

    text = capsys.readouterr().out
    assert text.startswith(
        f"httpy {_httpy.__version__} ({platform.python_implementation()} {platform.python_version()}, "
    )


def test_no_command_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    first = capsys.readouterr().out
    assert cli.main(["--help"]) == 0

    assert capsys.readouterr().out == first
    for name in ("run", "routes", "check"):
        assert f"\n  {name} " in first


@pytest.mark.parametrize("command", ["run", "routes", "check"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([command, "-h"]) == 0

    text = capsys.readouterr().out
    assert text.startswith(f"usage: httpy {command} [APP] ")
    assert "--factory" in text
    assert ("--port" in text) is (command != "routes")


def test_routes_are_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["routes", "shop:app"]) == 0
    assert "GET     /     index" in capsys.readouterr().out

    assert cli.main(["routes", "shop:create_app", "--factory"]) == 0
    assert "made 0.1.0" in capsys.readouterr().out


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "shpo:app", "--port", "0"], "no module 'shpo'; did you mean 'shop'?"),
        (["run", "shop:app", "--prt", "1"], "no flag --prt; did you mean --port"),
        (["run", "shop:app", "--port", "x"], "--port is a number from 0 to 65535, not 'x'"),
        (["run", "shop:app", "other:app"], "one app is served, found 'shop:app' and 'other:app'"),
        (["run"], "no app was named, and here is no main.py, "),
        (
            ["run", "shop:app", "--chdir", "no"],
            "can't go to the folder 'no' (chdir): No such file or directory",
        ),
        (["run", "shop:app", "--config", "no.toml"], "no.toml can't be read: No such file or directory"),
        (["run", "shop:app", "--env-file", "no"], "env_file no can't be read: No such file or directory"),
        (["run", "shop:app", "--bind", "80"], "bind '80': write :80 for every address"),
        (["run", "shop:app", "--bind", "a:1", "--port", "1"], "bind and port both say where to listen"),
        (["run", "shop:app", "--pid-file", "no/pid"], "pid_file "),
        (["run", "shop:app", "--user", "no-such-user", "--port", "0"], "there is no user 'no-such-user'"),
        (["routes", "shop:app", "--port", "1"], "no flag --port"),
        (["serve", "shop:app"], "no command 'serve'"),
        (["rum", "shop:app"], "no command 'rum'; did you mean run?"),
        (["shop:app"], "no command 'shop:app'; did you mean `httpy run shop:app`?"),
        (["shop.py"], "no command 'shop.py'; did you mean `httpy run shop.py`?"),
        (["--prot"], "no flag --prot"),
        (["check", "shop:app", "--timeout", "1"], "--timeout is for --url"),
        (["check", "shop:app", "--url", "/"], "--url asks a server that runs: leave 'shop:app' out"),
        (["check", "--url", "/", "--timeout", "soon"], "--timeout is a number of seconds"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, *arguments).startswith(f"httpy: error: {message}")


def test_a_route_that_is_wrong_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "wrong.py").write_text(MODULE + "\napp.get('/{id:int}')(lambda id, *rest: None)\n")

    assert "wrong.py:" in said(capsys, "run", "wrong:app", "--port", "0")


def test_a_taken_port_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(App(), port=0) as server:
        assert f"127.0.0.1:{server.port}: it is taken" in said(
            capsys, "run", "shop:app", "--port", str(server.port)
        )


def test_a_module_that_fails_shows_its_own_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "failing:app", "--port", "0"]) == 1

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{here}/failing.py", line 1, in <module>'
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_a_startup_that_fails_shows_its_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "starting.py").write_text(
        MODULE + "\n@app.on_startup\ndef fails():\n    raise LookupError('no database')\n"
    )

    assert cli.main(["run", "starting:app", "--port", "0"]) == 1

    assert "LookupError: no database" in capsys.readouterr().err


def test_with_json_mistakes_are_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "shpo:app", "--log-format", "json", "--port", "0"]) == 2
    mistake = json.loads(capsys.readouterr().err)
    assert cli.main(["run", "failing:app", "--log-format", "json", "--port", "0"]) == 1
    failure = json.loads(capsys.readouterr().err)

    assert (mistake["level"], mistake["message"]) == ("critical", "no module 'shpo'; did you mean 'shop'?")
    assert "exception" not in mistake
    assert failure["message"] == "ZeroDivisionError: division by zero"
    assert failure["exception"].startswith("Traceback")


# httpy check


def test_what_would_start_is_well(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "shop:app", "--bind", "127.0.0.1:80", "-b", "unix:/a"]) == 0

    assert capsys.readouterr().out == "ok: shop:app would be served on 127.0.0.1:80, unix:/a\n"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["shpo:app"], 2),
        (["shop:app", "--bind", "nonsense:x"], 2),
        (["shop:app", "--max-fields", "-1"], 2),
        (["shop:app", "--user", "no-such-user"], 2),
        (["shop:app", "--group", "no-such-group"], 2),
        (["failing:app"], 1),
    ],
)
def test_what_would_not_start_is_not_well(
    arguments: list[str], status: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", *arguments]) == status


def test_a_check_binds_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(App(), port=0) as server:
        assert cli.main(["check", "shop:app", "--port", str(server.port)]) == 0


def test_a_server_is_asked(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App()
    app.get("/health")(lambda: "fine")
    with Server(app, port=0) as server:
        assert cli.main(["check", "--url", f"{server.url}/health"]) == 0
        assert cli.main(["check", "--url", "/health", "--port", str(server.port)]) == 0
        monkeypatch.setenv("HTTPY_BIND", f":{server.port}")
        assert cli.main(["check", "--url", "/health"]) == 0
        assert capsys.readouterr().out.count("ok: 200 OK in ") == 3

        assert cli.main(["check", "--url", "/nothing"]) == 1
        assert (
            capsys.readouterr().err
            == f"httpy: http://127.0.0.1:{server.port}/nothing is not well: 404 Not Found\n"
        )


# As a program


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("arguments", [["shop:app"], []])
def test_the_program_serves_until_it_is_told_to_end(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    with httpy(
        "run", *arguments, "--port", "0", folder=tmp_path, variables={"HTTPY_APP": "shop:app"}
    ) as program:
        assert httpx.get(program.url, trust_env=False).text == "hi"
        assert program.end(signal.SIGTERM) == 0

    (banner,) = program.said
    assert banner.startswith(f"HTTPy {_httpy.__version__} serves shop:app on http://127.0.0.1:")
    assert banner.endswith(
        f" (HTTP/1.1+HTTP/2+WebSocket, 1 worker, loop selector, Python {platform.python_version()}; Ctrl-C stops)"
    )
    assert program.output == ""


@pytest.mark.slow
def test_the_program_ends_with_2_after_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    with httpy("run", "shpo:app", "--port", "0", folder=tmp_path) as program:
        assert program.wait() == 2

    assert program.said == ["httpy: error: no module 'shpo'; did you mean 'shop'?"]
