"""Fixtures for all tests."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator

import httpx
import pytest

from httpy import App, Server
from support import DRIVERS

Serve = Callable[..., httpx.Client]

# What the tests start ends when its terminal does, even if they run under nohup.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


died: list[object] = []
"""What became of processes that pytest-xdist has run tests in, and that have died."""


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(error: object) -> None:
    """Remembers that a test has taken its process down."""
    if error:
        died.append(error)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Then the status is not that of failed tests: those may be tried once more, a crash may not."""
    if died:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves an app until the test ends; gives a client for it, which follows no redirects."""
    with contextlib.ExitStack() as stack:

        def start(app: App, **config: object) -> httpx.Client:
            server = stack.enter_context(Server(app, port=0, **config))
            return stack.enter_context(httpx.Client(base_url=server.url, timeout=10, trust_env=False))

        yield start


@pytest.fixture(params=DRIVERS)
def driver(request):
    """Each way to share the work with an asyncio loop."""
    return request.param


@pytest.fixture(scope="session")
def postgres():
    """The directory of a PostgreSQL server's unix socket."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    # It refuses to run as root; and pytest's own directories can't be entered by anybody else.
    user = {"user": "nobody"} if os.geteuid() == 0 else {}
    directory = tempfile.mkdtemp(prefix="pg-")
    data = os.path.join(directory, "data")
    if user:
        shutil.chown(directory, "nobody")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": directory, **user}
    initdb = [programs / "initdb", "-D", data, "-U", "tests", "-A", "trust", "--no-sync"]
    subprocess.run(initdb, check=True, **quiet)
    options = f"-c listen_addresses='' -c unix_socket_directories={directory} -c fsync=off"
    try:
        start = [programs / "pg_ctl", "-D", data, "-w", "-o", options, "start"]
        subprocess.run(start, check=True, timeout=60, **quiet)
        yield directory
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(
                [programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], check=True, **quiet
            )
        shutil.rmtree(directory, ignore_errors=True)


def find_postgres():
    """The directory of PostgreSQL's programs: Debian does not put it on PATH."""
    on_path = shutil.which("initdb")
    if on_path:
        return pathlib.Path(on_path).resolve().parent
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None
