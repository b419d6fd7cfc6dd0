"""Programs that run as their settings say: from the command line and from `App.run`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from commands import PUBLIC_PYTHONS, PUBLIC_VARIABLES, Command, httpy
from httpy import App, ConfigError, Server, running
from httpy.running import Program, addresses_of, run_app
from httpy.settings import with_defaults
from support import PATIENCE_S, environment, python

unix_only = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="unix sockets")
posix_only = pytest.mark.skipif(os.name != "posix", reason="signals")
root_only = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root becomes somebody else"
)

APP = """
import os
from httpy import App

app = App(title="example")

@app.get("/")
def index(request):
    return [os.getpid(), request.root_path, request.url, app.url_for("index")]

@app.get("/who")
def who():
    return [os.getuid(), os.getgid()]

@app.get("/fails")
def fails():
    raise LookupError("of its own")

@app.get("/mask")
def mask():
    with open("made", "w"):
        return oct(os.stat("made").st_mode & 0o777)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


def get(url: str, path: str = "/", **options: Any) -> Any:
    return httpx.get(url + path, trust_env=False, timeout=PATIENCE_S, **options)


def over_unix(path: Path, target: str = "/") -> Any:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        return client.get(f"http://x{target}")


# Settings of programs


def test_where_to_listen_is_host_and_port_or_bind() -> None:
    (one,) = addresses_of(with_defaults({"host": "[::1]", "port": 80}))
    assert (one.host, one.port) == ("::1", 80)

    first, second = addresses_of(with_defaults({"bind": [":80", "unix:/a"]}))
    assert (first.host, first.port, second.path) == ("", 80, "/a")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Program, dict[str, Any]]]:
    """The programs that would have run, with the settings that were given."""
    found: list[tuple[Program, dict[str, Any]]] = []

    def run(program: Program, given: dict[str, Any], environment: Any) -> int:
        found.append((program, given))
        return 0

    monkeypatch.setattr(running, "run", run)
    return found


def test_a_program_gives_settings_by_name(ran: list[Any]) -> None:
    app = App(title="mine")

    app.run(host="::1", port=80, access_log=True, grace=3, log_format="json", loop="thread")
    app.run()

    (program, given), (_, default) = ran
    assert (program.app, program.shown) == (app, "mine")
    assert given == {
        "host": "::1",
        "port": 80,
        "workers": 1,
        "reload": False,
        "access_log": True,
        "grace": 3.0,
        "log_format": "json",
        "loop": "thread",
    }
    assert default == {"workers": 1, "reload": False}


def test_an_app_is_shown_as_the_variable_that_it_is(ran: list[Any]) -> None:
    app = App()

    run_app(app, {}, {"__file__": os.path.join(os.getcwd(), "here.py"), "site": app})
    run_app(app, {}, {"__file__": "/elsewhere/there.py", "site": app})
    run_app(app, {}, {})

    assert [program.shown for program, _ in ran] == ["here.py:site", "/elsewhere/there.py:site", "HTTPy"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prot": 1}, "no setting 'prot'; did you mean port"),
        ({"port": "80"}, None),
        ({"port": 70000}, "port is a number from 0 to 65535, not 70000"),
        ({"chdir": "/"}, "chdir is for the command line: a program has its app already"),
        ({"config": "a.toml"}, "config is for the command line"),
        ({"bind": ["a:1"], "port": 1}, "bind and port both say where to listen"),
        ({"http3": True}, "http3=True is not there yet"),
        ({"certfile": 1}, "certfile is a list, not 1"),
        ({"certfile": [1]}, "certfile is a path, not 1"),
        ({"https_redirect": -1}, "https_redirect is true, false or a port, not -1"),
    ],
)
def test_what_a_program_can_not_give_is_said(values: dict[str, Any], message: Any, ran: list[Any]) -> None:
    if message is None:
        run_app(App(), values, {})
        return
    with pytest.raises(ConfigError) as refused:
        run_app(App(), values, {})

    assert str(refused.value).startswith(message)


# Addresses

pytestmark = pytest.mark.slow


@unix_only
@pytest.mark.parametrize("workers", ["1", "2"])
def test_several_addresses_are_served_and_files_removed(workers: str, folder: Path) -> None:
    arguments = ["--bind", "127.0.0.1:0", "-b", "unix:a.sock,mode=600", "-w", workers, "--pid-file", "pid"]
    with httpy("run", "shop:app", *arguments, folder=folder) as program:
        banner = program.wait_for(
            r"on (http://[\d.:]+), (unix:\S+) \(HTTP/1.1\+HTTP/2\+WebSocket, (\d) workers?,"
        )
        assert (banner[2], banner[3]) == (f"unix:{folder}/a.sock", workers)
        assert get(banner[1]).status_code == over_unix(folder / "a.sock").status_code == 200
        assert stat.S_IMODE((folder / "a.sock").stat().st_mode) == 0o600
        assert (folder / "pid").read_text() == f"{program.process.pid}\n"
        assert program.end() == 0

    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {"shop.py"}


@posix_only
def test_a_descriptor_is_served(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        options = {"pass_fds": [number]}
        with httpy("run", "shop:app", "--bind", f"fd://{number}", folder=folder, **options) as program:
            assert get(program.url).status_code == 200
            assert program.end() == 0
        # It is the one who has opened it, who closes it.
        assert listening.getsockname()


@posix_only
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_managers_sockets_are_served(workers: str, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # As systemd does: in the process that becomes the program, number 3.
        starter = f"""
import os, sys
os.dup2({listening.fileno()}, 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "httpy", "run", "shop:app", "-w", "{workers}"])
"""
        with Command("-c", starter, folder=folder, pass_fds=[listening.fileno()]) as program:
            assert program.url.endswith(f":{listening.getsockname()[1]}")
            assert get(f"http://127.0.0.1:{listening.getsockname()[1]}").status_code == 200
            assert program.end() == 0


# Processes


@posix_only
def test_workers_serve(folder: Path) -> None:
    with httpy("run", "shop:app", "--workers", "2", "--port", "0", folder=folder) as program:
        url = program.url
        pids = {get(url).json()[0] for _ in range(3)}
        assert program.process.pid not in pids
        assert program.end() == 0

    assert program.said[-1].count("2 workers, loop selector") == 1


@posix_only
def test_a_mistake_in_a_worker_is_one_line_and_a_failure_its_traceback(folder: Path) -> None:
    with httpy("run", "shop:ap", "--workers", "2", "--port", "0", folder=folder) as program:
        assert program.wait() == 2
    assert program.said == ["httpy: error: shop has no 'ap'; did you mean 'app'?"]

    (folder / "failing.py").write_text("1 / 0\n")
    arguments = ["--workers", "2", "--port", "0", "--log-format", "json"]
    with httpy("run", "failing:app", *arguments, folder=folder) as program:
        assert program.wait() == 1
    found = [json.loads(line) for line in program.said]
    assert [entry["message"] for entry in found if "exception" in entry] == [
        "ZeroDivisionError: division by zero"
    ]


@unix_only
def test_another_process_takes_over_socket_files_and_pid_file(folder: Path) -> None:
    arguments = ["run", "shop:app", "-b", "unix:a.sock", "-w", "2", "--pid-file", "pid"]
    with httpy(*arguments, folder=folder, start_new_session=True) as program:
        try:
            program.wait_for("serves shop:app")
            program.tell(signal.SIGUSR2)
            program.wait_for("serves shop:app")
            assert program.process.wait(PATIENCE_S) == 0

            assert over_unix(folder / "a.sock").status_code == 200
            successor = int((folder / "pid").read_text())
            assert successor != program.process.pid
            os.kill(successor, signal.SIGTERM)
            # It has the same standard error, which ends with it.
            program.wait()
            assert not (folder / "a.sock").exists()
            assert not (folder / "pid").exists()
        finally:
            try:
                os.killpg(program.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


@root_only
@pytest.mark.skipif(not PUBLIC_PYTHONS, reason="no interpreter here may be run by others")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_privileges_are_given_up_after_binding(workers: str) -> None:
    # Not in a folder of pytest's, into which only their owner may look.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "shop.py").write_text(APP)
        arguments = ["--bind", "unix:a.sock,mode=666", "--user", "54321", "--group", "54322", "-w", workers]
        options = {"variables": PUBLIC_VARIABLES, "interpreter": PUBLIC_PYTHONS[0]}
        with httpy("run", "shop:app", *arguments, folder=folder, **options) as program:
            program.wait_for("serves shop:app")
            # The folder is root's: so was whoever bound.
            assert over_unix(folder / "a.sock", "/who").json() == [54321, 54322]
            assert program.end() == 0


@posix_only
def test_new_files_have_the_mask(folder: Path) -> None:
    with httpy("run", "shop:app", "--umask", "077", "--port", "0", folder=folder) as program:
        assert get(program.url, "/mask").text == "0o600"


# Logs


@posix_only
@pytest.mark.parametrize("workers", ["1", "2"])
def test_requests_are_logged_to_standard_output(workers: str, folder: Path) -> None:
    arguments = ["--access-log", "--port", "0", "-w", workers]
    with httpy("run", "shop:app", *arguments, folder=folder) as program:
        get(
            program.url,
            "/who?token=secret&a=1",
            headers={"user-agent": "a \x22b\x22", "referer": "http://r/"},
        )
        assert program.end() == 0

    assert re.fullmatch(
        r"127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000\] "
        r'"GET /who\?token=\.\.\.&a=1 HTTP/1\.1" 200 \d+ "http://r/" "a \\"b\\"" \d+\.\d{6}\n',
        program.output,
    )


@posix_only
def test_requests_are_logged_to_a_file_as_json(folder: Path) -> None:
    arguments = ["--access-log=access.log", "--log-format", "json", "--port", "0"]
    with httpy("run", "shop:app", *arguments, folder=folder) as program:
        url = program.url
        assert get(url, "/nothing").status_code == 404
        assert get(url, "/fails").status_code == 500
        assert program.end() == 0

    found = [json.loads(line) for line in (folder / "access.log").read_text().splitlines()]
    assert [(entry["target"], entry["status"], entry["client"]) for entry in found] == [
        ("/nothing", 404, "127.0.0.1"),
        ("/fails", 500, "127.0.0.1"),
    ]
    # The banner and the failure are JSON as well.
    banner, failure = [json.loads(line) for line in program.said]
    assert banner["app"] == "shop:app"
    assert (failure["level"], failure["logger"]) == ("error", "httpy.error")
    assert failure["exception"].endswith("LookupError: of its own")


def test_a_log_that_can_not_be_written_is_said(folder: Path) -> None:
    with httpy("run", "shop:app", "--access-log=no/a.log", "--port", "0", folder=folder) as program:
        assert program.wait() == 2

    (line,) = program.said
    assert line.startswith("httpy: error: can't write the access log to no/a.log: No such file")


@posix_only
def test_the_cores_events_are_logged_in_their_form(folder: Path) -> None:
    arguments = ["--log-level", "debug", "--log-format", "json", "--port", "0"]
    with httpy("run", "shop:app", *arguments, folder=folder) as program:
        port = httpx.URL(program.wait_for(r"http://[\d.]+:\d+")[0]).port
        with socket.create_connection(("127.0.0.1", port or 0)) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 400 ")
        program.wait_for("request refused")
        assert program.end() == 0

    (event,) = [found for found in map(json.loads, program.said) if found["message"] == "request refused"]
    assert (event["level"], event["logger"]) == ("debug", "httpy.proto.h1")
    assert event["refusal"]


@posix_only
def test_a_variable_that_is_nearly_a_setting_is_pointed_at(folder: Path) -> None:
    with httpy("run", "shop:app", "--port", "0", folder=folder, variables={"HTTPY_PROT": "1"}) as program:
        program.wait_for("WARNING httpy: HTTPY_PROT is no setting; did you mean HTTPY_PORT[?]$")
        assert program.url
        assert program.end() == 0


@posix_only
def test_a_slow_terminal_holds_no_request_up(folder: Path) -> None:
    """Nobody reads standard output: what does not fit is dropped, and every request is answered."""
    with (
        httpy("run", "shop:app", "--access-log", "--port", "0", folder=folder) as program,
        httpx.Client() as client,
    ):
        url = program.url
        target = "/nothing?" + "x" * 2000
        # A pipe holds 64 KiB.
        for _ in range(200):
            assert client.get(url + target).status_code == 404
        # Reads it.
        assert program.end() == 0

    assert program.output.count("\n") == 200


# What the app sees


@posix_only
def test_a_root_path_is_in_front_of_paths(folder: Path) -> None:
    with httpy("run", "shop:app", "--root-path", "/api/", "--port", "0", folder=folder) as program:
        _, root, url, path = get(program.url).json()
        assert program.end() == 0

    assert (root, path) == ("/api", "/api/")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/api/", url)


@posix_only
@pytest.mark.parametrize("workers", ["1", "2"])
def test_debugging_shows_crashes(workers: str, folder: Path) -> None:
    with httpy("run", "shop:app", "--debug", "--port", "0", "-w", workers, folder=folder) as program:
        answer = get(program.url, "/fails")
        assert (answer.status_code, "LookupError: of its own" in answer.text) == (500, True)


@posix_only
def test_a_script_runs_with_any_setting(folder: Path) -> None:
    (folder / "script.py").write_text(
        APP + "\nif __name__ == '__main__':\n"
        "    app.run(bind=['127.0.0.1:0'], access_log=True, root_path='/x', color='always', log_level='error')\n"
    )
    with Command("script.py", folder=folder) as program:
        banner = program.wait_for(r"serves \033\[1mscript.py:app\033\[0m on \033\[36m(http://[\d.:]+)\033")
        assert get(banner[1]).json()[1] == "/x"
        assert program.end() == 0

    assert program.output.startswith("127.0.0.1 - - [")


def test_an_app_that_sets_logging_up_gets_everything(folder: Path) -> None:
    (folder / "logging_app.py").write_text(
        APP + "\nimport logging, sys\nlogging.basicConfig(stream=sys.stdout, format='app: %(message)s')\n"
    )
    with httpy("run", "logging_app:app", "--port", "0", folder=folder) as program:
        assert get(program.url, "/fails").status_code == 500
        program.end()

    assert program.output.count("app: ") == 1
    assert len(program.said) == 1


def test_a_mistake_of_a_script_is_its_own(folder: Path) -> None:
    (folder / "script.py").write_text("from httpy import App\nApp().run(prot=1)\n")

    ended = subprocess.run(
        python("script.py"), cwd=folder, capture_output=True, text=True, env=environment(), timeout=PATIENCE_S
    )

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(
        "httpy.errors.ConfigError: no setting 'prot'; did you mean port"
    )


def test_servers_take_what_is_theirs() -> None:
    app = App()
    app.get("/a")(lambda request: [request.root_path, app.url_for("<lambda>")])

    with Server(app, port=0, root_path="/x%20y/") as server:
        assert get(server.url, "/a").json() == ["/x y", "/x%20y/a"]
        assert get(server.url, "/a/", follow_redirects=False).headers["location"] == "/x%20y/a"
    assert app.url_for("<lambda>") == "/x%20y/a"


if sys.platform == "win32":
    del test_servers_take_what_is_theirs
