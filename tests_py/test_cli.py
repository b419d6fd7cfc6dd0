"""The command line: what it runs, what it shows, and what it says about mistakes."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import httpx
import pytest

from httpy import App, Server, _httpy, cli
from httpy.loader import load_app

MODULE = """
from httpy import App

app = App(title="example")
other = App(title="other")
number = 7

@app.get("/")
def index():
    return "hi"

def create_app():
    made = App(title="made")
    made.add_route("GET", "/made", index)
    return made

def needs(argument): ...

def makes_nothing(): ...

def asgi(scope, receive, send): ...
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder with a module `shop`, as the current one."""
    (tmp_path / "shop.py").write_text(MODULE)
    (tmp_path / "lonely.py").write_text("from httpy import App\nthe_app = App(title='lonely')\n")
    (tmp_path / "two.py").write_text("from httpy import App\na = App()\nb = App()\n")
    (tmp_path / "broken.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "failing.py").write_text("1 / 0\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "web.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in list(os.environ):
        if name.startswith("HTTPY_"):
            monkeypatch.delenv(name)
    for name in ("shop", "lonely", "two", "broken", "failing", "pack", "pack.web", "main", "app"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return tmp_path


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """The servers that would have run."""
    servers: list[Server] = []
    monkeypatch.setattr(Server, "run", lambda server: servers.append(server))
    return servers


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line about a mistake."""
    assert cli.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


# What is run


@pytest.mark.parametrize(
    ("target", "title"),
    [
        ("shop:app", "example"),
        ("shop", "example"),
        ("shop:other", "other"),
        ("shop:create_app", "made"),
        ("shop:create_app()", "made"),
        ("lonely", "lonely"),
        ("pack.web:app", "example"),
        ("shop.py:app", "example"),
        ("pack/web.py", "example"),
        ("./shop.py:create_app()", "made"),
    ],
)
def test_an_app_is_found(target: str, title: str, here: Path) -> None:
    assert load_app(target).title == title


def test_without_a_target_main_or_app_is_found(here: Path) -> None:
    (here / "app.py").write_text(MODULE.replace("example", "app.py"))
    assert load_app(None).title == "app.py"
    (here / "main.py").write_text(MODULE.replace("example", "main.py"))
    assert load_app(None).title == "main.py"


def test_an_absolute_path_is_found(here: Path) -> None:
    assert load_app(f"{here / 'shop.py'}:app").title == "example"


def test_values_come_from_flags_then_variables_then_defaults(
    here: Path, served: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPY_PORT", "9001")
    monkeypatch.setenv("HTTPY_HOST", "0.0.0.0")
    monkeypatch.setenv("HTTPY_APP", "shop:app")
    monkeypatch.setenv("HTTPY_GRACE", "1.5")

    assert cli.main(["run", "--port", "9002", "--max-body-bytes", "10", "--loop", "thread"]) == 0

    (server,) = served
    assert (server.host, server.port) == ("0.0.0.0", 9002)
    assert server._config == {"max_body_bytes": 10, "grace": 1.5}
    assert server._choice == "thread"


def test_debug_is_a_switch(here: Path, served: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["run", "shop:app", "--debug"]) == 0
    assert cli.main(["run", "shop:other"]) == 0
    monkeypatch.setenv("HTTPY_DEBUG", "true")
    assert cli.main(["run", "shop:create_app"]) == 0

    assert [server._app.debug for server in served] == [True, False, True]


# What is shown


def test_help_shows_every_value_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--help"])

    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for name, default in {"host": "127.0.0.1", "port": 8000, "loop": "auto", **_httpy.defaults()}.items():
        assert re.search(rf"--{name.replace('_', '-')} .*?\(default: {default}; HTTPY_{name.upper()}\)", text)


def test_every_native_value_is_explained() -> None:
    assert set(cli._MEANINGS) == set(_httpy.defaults())


def test_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out == f"httpy {_httpy.__version__}\n"


def test_routes_are_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["routes", "shop:app"]) == 0

    assert "GET     /     index" in capsys.readouterr().out


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "run" in capsys.readouterr().out


# Mistakes


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("shpo:app", "no module 'shpo'; did you mean 'shop'?"),
        ("pack.wbe:app", "no module 'pack.wbe'; did you mean 'pack.web'?"),
        ("nothing_like_it", "no module 'nothing_like_it'"),
        ("shop.py.app", "no module 'shop.py.app'"),
        ("shpo.py:app", "no file 'shpo.py'; did you mean 'shop.py'?"),
        ("a/b.py", "no file 'a/b.py'"),
        ("shop:ap", "shop has no 'ap'; did you mean 'app'?"),
        ("shop:zzzzz", "shop has no 'zzzzz'; there is app, other"),
        ("shop:number", "shop:number is a int, not an HTTPy App"),
        ("shop:asgi", "shop:asgi can't be called for an app: missing a required argument: 'scope'"),
        ("shop:needs()", "shop:needs() can't be called for an app: missing a required argument"),
        ("shop:makes_nothing", "shop:makes_nothing returned a NoneType, not an HTTPy App"),
        ("two", "two has several apps (a, b): name one, as two:a"),
        ("pack", "pack has no app: name it, as pack:app"),
        ("", "no app was named, and here is no main.py or app.py: write module:app"),
        (":app", "':app' is no target: write module:app or path/to/file.py:app"),
    ],
)
def test_a_target_that_is_wrong_is_one_line(
    target: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "run", target).startswith(f"httpy: error: {message}")


@pytest.mark.parametrize(
    ("target", "message"),
    [("broken:app", "No module named 'not_installed_anywhere'"), ("failing:app", "division by zero")],
)
def test_a_module_that_fails_shows_its_traceback(
    target: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", target]) == 1

    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert message in text


def test_a_route_that_is_wrong_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "wrong.py").write_text(MODULE + "\napp.get('/{id:int}')(lambda id, *rest: None)\n")

    assert "wrong.py:" in said(capsys, "run", "wrong:app")


def test_a_taken_port_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(App(), port=0) as server:
        assert str(server.port) in said(capsys, "run", "shop:app", "--port", str(server.port))


def test_a_startup_that_fails_shows_its_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "starting.py").write_text(
        MODULE + "\n@app.on_startup\ndef fails():\n    raise LookupError('no database')\n"
    )

    assert cli.main(["run", "starting:app", "--port", "0"]) == 1

    assert "LookupError: no database" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HTTPY_PORT", "x", "HTTPY_PORT='x' is not int"),
        ("HTTPY_LOOP", "trio", "HTTPY_LOOP is one of auto, selector, thread, uvloop, not 'trio'"),
        ("HTTPY_GRACE", "soon", "HTTPY_GRACE='soon' is not float"),
        ("HTTPY_PORT", "70000", "port is a number from 0 to 65535, not 70000"),
    ],
)
def test_a_variable_that_is_wrong_is_one_line(
    name: str,
    value: str,
    message: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value)

    assert said(capsys, "run", "shop:app") == f"httpy: error: {message}"


def test_a_flag_that_is_wrong_ends_with_2(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "shop:app", "--prt", "1"])

    assert ended.value.code == 2


# As a program


def run(*arguments: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HTTPY_")}
    return subprocess.Popen(
        [sys.executable, "-m", "httpy", *arguments],
        cwd=folder,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("target", ["shop:app", None])
def test_the_program_serves_until_it_is_told_to_end(target: Optional[str], here: Path) -> None:
    arguments: list[Any] = ["run", *([target] if target else []), "--port", "0"]
    process = run(*arguments, folder=here, HTTPY_APP="shop:app")
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        banner = process.stderr.readline()
        url = next(word for word in banner.split() if word.startswith("http://"))
        assert httpx.get(url, trust_env=False).text == "hi"
        assert banner.startswith(f"HTTPy {_httpy.__version__} serves example on http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_the_program_ends_with_2_after_a_mistake(here: Path) -> None:
    process = run("run", "shpo:app", folder=here)

    assert process.communicate(timeout=20) == ("", "httpy: error: no module 'shpo'; did you mean 'shop'?\n")
    assert process.returncode == 2
