"""Reloading: which changes are seen, and what becomes of connections meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from commands import PUBLIC_PYTHONS, PUBLIC_VARIABLES, Command, httpy
from httpy import ConfigError, _httpy
from httpy.reload import _listed, folders_of
from support import PATIENCE_S, environment

APP = """
from httpy import App

app = App()

@app.get("/")
def index():
    return {answer!r}

@app.get("/pid")
def pid():
    import os
    return str(os.getpid())

@app.get("/endless")
async def endless():
    import asyncio
    yield "begun"
    await asyncio.sleep(1000)
"""


# What is seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.py").write_text("")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "b.py").write_text("")
    for skipped in (".git", "node_modules", "env/lib"):
        (tmp_path / skipped).mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    return tmp_path


def watch(
    folder: Path, include: tuple[str, ...] = ("*.py",), exclude: tuple[str, ...] = (".*", "node_modules")
):
    return _httpy.Watch([str(folder)], include, exclude)


def seen(watching: _httpy.Watch, folder: Path) -> list[str]:
    """What has changed, below the folder."""
    return [os.path.relpath(path, os.path.realpath(folder)) for path in watching.wait(PATIENCE_S)]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.py").write_text("1"),
        lambda folder: (folder / "a.py").touch(),
        lambda folder: (folder / "a.py").unlink(),
        lambda folder: ((folder / "a.tmp").write_text("1"), (folder / "a.tmp").replace(folder / "a.py")),
    ],
    ids=["written", "touched", "removed", "replaced"],
)
def test_a_change_is_seen(change: Callable[[Path], object], folder: Path) -> None:
    watching = watch(folder)

    change(folder)

    assert seen(watching, folder) == ["a.py"]


def test_files_below_and_in_new_folders_are_seen(folder: Path) -> None:
    watching = watch(folder)

    (folder / "pack" / "b.py").write_text("1")
    assert seen(watching, folder) == [os.path.join("pack", "b.py")]

    (folder / "new" / "deep").mkdir(parents=True)
    (folder / "new" / "deep" / "c.py").write_text("1")
    assert seen(watching, folder) == [os.path.join("new", "deep", "c.py")]

    (folder / "new" / "deep" / "c.py").write_text("2")
    assert seen(watching, folder) == [os.path.join("new", "deep", "c.py")]


def test_changes_that_come_together_are_told_together(folder: Path) -> None:
    watching = watch(folder)

    for name in ("c.py", "a.py", "b.py"):
        (folder / name).write_text("1")

    assert seen(watching, folder) == ["a.py", "b.py", "c.py"]


def test_what_is_not_wanted_is_not_seen(folder: Path) -> None:
    watching = watch(folder)

    for unwanted in ("a.txt", ".a.py", ".git/a.py", "node_modules/a.py", "env/lib/a.py"):
        (folder / unwanted).write_text("1")
    (folder / "a.py").read_text()
    (folder / "b.py").write_text("1")

    assert seen(watching, folder) == ["b.py"]


def test_patterns_are_of_names_or_of_paths(folder: Path) -> None:
    watching = watch(folder, ("?.html", "pack/*.txt"), ("pack/x*",))

    for name in ("ab.html", "a.py", "a.txt", "pack/x.txt", "pack/xa/a.html"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("1")
    for name in ("a.html", "pack/a.txt", "pack/b.html"):
        (folder / name).write_text("1")

    assert seen(watching, folder) == ["a.html", os.path.join("pack", "a.txt"), os.path.join("pack", "b.html")]


def test_nothing_is_seen_in_time(folder: Path) -> None:
    assert watch(folder).wait(0.01) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root becomes somebody else")
@pytest.mark.skipif(not PUBLIC_PYTHONS, reason="no interpreter here may be run by others")
def test_a_folder_that_may_not_be_read_is_left_out() -> None:
    code = """
import os, tempfile
from httpy import _httpy
with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    os.mkdir(os.path.join(folder, "locked"), 0)
    with open(os.path.join(folder, "a.py"), "w") as file:
        os.seteuid(54321)
        watching = _httpy.Watch([folder], ["*.py"], [])
        file.write("1")
        file.flush()
        print([os.path.basename(path) for path in watching.wait(10)])
        try:
            _httpy.Watch([os.path.join(folder, "locked")], [], [])
        except OSError as error:
            print("Permission denied" in str(error))
        os.seteuid(0)
"""
    variables = {**environment(), **PUBLIC_VARIABLES}

    ended = subprocess.run([PUBLIC_PYTHONS[0], "-c", code], capture_output=True, text=True, env=variables)

    assert (ended.stdout, ended.stderr) == ("['a.py']\nTrue\n", "")


def test_a_folder_that_is_not_there_is_said(folder: Path) -> None:
    for missing in (folder / "nope", folder / "a.py"):
        with pytest.raises(ConfigError, match=f"no folder {missing} to watch"):
            watch(missing)


def test_the_current_folder_and_the_apps_are_watched_each_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(folder)
    elsewhere = str(tmp_path_factory.mktemp("elsewhere"))

    assert folders_of(["pack", ".", elsewhere], {"reload_dir": []}) == [str(folder), elsewhere]
    assert folders_of(["."], {"reload_dir": ["pack"]}) == [str(folder / "pack")]


def test_few_paths_are_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    assert _listed({str(folder / name) for name in "ab"}) == "a, b"
    assert _listed({str(folder / name) for name in "abcde"}) == "a, b, c and 2 more"


# What follows

pytestmark = pytest.mark.slow
unix_only = pytest.mark.skipif(os.name != "posix", reason="signals")


def write(folder: Path, answer: str) -> None:
    (folder / "site.py").write_text(APP.format(answer=answer))


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Command]:
    """A server that reloads, and answers "one"."""
    write(tmp_path, "one")
    with httpy("run", "./site.py", "--reload", "--port", "0", folder=tmp_path) as running:
        yield running


@unix_only
def test_a_change_is_served_and_no_connection_is_refused(program: Command, tmp_path: Path) -> None:
    url = program.url
    assert httpx.get(url, trust_env=False).text == "one"
    failures: list[Exception] = []
    answers: list[str] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            try:
                # A connection each: what matters is that it can be had.
                answers.append(httpx.get(url, trust_env=False, timeout=PATIENCE_S).text)
            except Exception as error:
                failures.append(error)

    client = threading.Thread(target=ask)
    client.start()
    try:
        for answer in ("two", "three"):
            write(tmp_path, answer)
            program.wait_for(r"changed: site\.py; starting anew")
            program.wait_for("serving again")
            assert httpx.get(url, trust_env=False).text == answer
    finally:
        is_over.set()
        client.join()

    assert failures == []
    order = list(dict.fromkeys(answers))
    assert order == sorted(order, key=["one", "two", "three"].index)
    assert program.end() == 0


@unix_only
def test_a_syntax_error_is_shown_once_and_watched(program: Command, tmp_path: Path) -> None:
    url = program.url

    (tmp_path / "site.py").write_text("def broken(:\n")
    program.wait_for("waiting for a change")
    said = "\n".join(program.said)
    (tmp_path / "unrelated.py").write_text("")
    program.wait_for("waiting for a change")
    write(tmp_path, "mended")
    program.wait_for("serving again")

    assert said.count("SyntaxError: invalid syntax") == 1
    # Only the app's own part.
    assert "importlib" not in said
    assert httpx.get(url, trust_env=False).text == "mended"
    assert program.end(signal.SIGINT) == 0


@unix_only
def test_an_app_that_fails_at_first_is_watched(tmp_path: Path) -> None:
    (tmp_path / "site.py").write_text("1 / 0\n")
    with httpy("run", "./site.py", "--reload", "--port", "0", folder=tmp_path) as program:
        program.wait_for("ZeroDivisionError")
        program.wait_for("waiting for a change")

        write(tmp_path, "mended")

        assert httpx.get(program.url, trust_env=False).text == "mended"
        assert program.end() == 0


def test_an_app_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with httpy("run", "sitte:app", "--reload", "--port", "0", folder=tmp_path) as program:
        assert program.wait() == 2

    assert program.said == ["httpy: error: no module 'sitte'; did you mean 'site'?"]


@unix_only
def test_a_worker_that_is_killed_is_waited_for(program: Command, tmp_path: Path) -> None:
    worker = int(httpx.get(f"{program.url}/pid", trust_env=False).text)

    os.kill(worker, signal.SIGKILL)

    program.wait_for("the worker was killed by SIGKILL; waiting for a change")
    write(tmp_path, "again")
    program.wait_for("serving again")
    assert program.end() == 0


@unix_only
def test_a_stream_does_not_hold_a_reload_up(program: Command, tmp_path: Path) -> None:
    url = program.url
    with httpx.stream("GET", f"{url}/endless", trust_env=False, timeout=PATIENCE_S) as response:
        texts = response.iter_text()
        assert next(texts) == "begun"
        write(tmp_path, "two")
        program.wait_for("serving again")
    assert httpx.get(url, trust_env=False).text == "two"
    assert program.end() == 0


@unix_only
def test_a_second_signal_ends_at_once(program: Command) -> None:
    with httpx.stream("GET", f"{program.url}/endless", trust_env=False, timeout=PATIENCE_S) as response:
        texts = response.iter_text()
        assert next(texts) == "begun"
        # Two of one kind may become one on their way.
        program.tell(signal.SIGINT)
        assert program.end(signal.SIGTERM) == 0


def test_workers_and_reloading_do_not_go_together(tmp_path: Path) -> None:
    write(tmp_path, "one")
    with httpy("run", "./site.py", "--reload", "-w", "2", "--port", "0", folder=tmp_path) as program:
        program.wait_for("WARNING httpy: one worker serves: reload and workers don't go together")
        assert program.url
        assert program.end() == 0 if sys.platform != "win32" else True


def test_a_script_reloads_itself(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(APP.format(answer="one") + "\napp.run(port=0, reload=True)\n")
    with Command(str(script), folder=tmp_path) as program:
        url = program.url
        script.write_text(APP.format(answer="two") + "\napp.run(port=0, reload=True)\n")
        program.wait_for("serving again")

        assert httpx.get(url, trust_env=False).text == "two"
        assert program.end() == 0 if sys.platform != "win32" else True
