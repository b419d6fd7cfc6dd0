"""An app inside of Apache, by mod_wsgi and the system's own Python (Debian: apache2, libapache2-mod-wsgi-py3)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import guest_app
import httpy
from httpy import Server
from support import PATIENCE_S, free_port
from test_guest import REQUESTS, answers, content

HERE = Path(__file__).parent
MODULES = Path("/usr/lib/apache2/modules")
APACHE = shutil.which("apache2", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))

pytestmark = pytest.mark.skipif(
    APACHE is None or not (MODULES / "mod_wsgi.so").exists(),
    reason="Apache with mod_wsgi is not installed (Debian: apache2, libapache2-mod-wsgi-py3)",
)

# What is between Apache and the app, and nothing else.
CONFIG = """
ServerRoot {folder}
ServerName localhost
DefaultRuntimeDir {folder}
PidFile {folder}/pid
ErrorLog {folder}/error.log
Listen 127.0.0.1:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
{user}
WSGIDaemonProcess app threads=4
WSGIProcessGroup app
WSGIApplicationGroup {group}
WSGIChunkedRequest On
WSGIScriptAlias {prefix} {folder}/app.wsgi
"""

SCRIPT = """
import logging, os, sys
sys.path.insert(0, {folder!r})
os.environ["GUEST_EVENTS"] = {events!r}
logging.basicConfig(level=logging.INFO)
from guest_app import app
application = app.wsgi
"""


class Apache:
    """Apache, with the app of `guest_app.py`."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.url = url
        self.process = process
        self.folder = folder

    def stop(self) -> float:
        """Ends it as its service does. Returns how long that took, in seconds."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0
        return time.monotonic() - began

    def events(self) -> list[str]:
        return (self.folder / "events").read_text().split()

    def log(self) -> str:
        return (self.folder / "error.log").read_text()


@contextlib.contextmanager
def apache(group: str = "%{GLOBAL}", prefix: str = "/") -> Iterator[Apache]:
    """Runs Apache in the foreground, in a folder of its own, until the end of the block."""
    assert APACHE is not None
    # Not pytest's folder, which is closed to the user that Apache has for root. For the same reason the app is copied.
    with tempfile.TemporaryDirectory(prefix="httpy-apache-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        package = Path(httpy.__file__).parent
        shutil.copytree(package, folder / "httpy", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(HERE / "guest_app.py", folder)
        script = SCRIPT.format(folder=name, events=str(folder / "events"))
        (folder / "app.wsgi").write_text(script)
        port = free_port()
        user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
        config = CONFIG.format(folder=name, port=port, modules=MODULES, user=user, group=group, prefix=prefix)
        (folder / "httpd.conf").write_text(config)
        command = [APACHE, "-d", name, "-f", str(folder / "httpd.conf"), "-DFOREGROUND"]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            end = time.monotonic() + PATIENCE_S
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                log = folder / "error.log"
                assert process.poll() is None, log.read_text() if log.exists() else "Apache has ended"
                assert time.monotonic() < end, "Apache does not listen"
                time.sleep(0.02)
            yield Apache(f"http://127.0.0.1:{port}", process, folder)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(PATIENCE_S)
                except subprocess.TimeoutExpired:
                    # With its processes, which would live on. The group is Apache's own.
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def ask(url: str, path: str, method: str = "GET", **arguments: Any) -> httpx.Response:
    return httpx.request(method, url + path, timeout=PATIENCE_S, trust_env=False, **arguments)


def test_mod_wsgi_answers_as_our_own_server_does() -> None:
    with Server(guest_app.app, port=0) as server:
        own = answers(server.url)
    with apache() as container:
        found = answers(container.url)

    assert len(found) == len(REQUESTS)
    for theirs, ours in zip(found, own):
        assert theirs == ours


def test_the_app_starts_with_the_first_request_and_ends_with_apache() -> None:
    with apache() as container:
        assert ask(container.url, "/async/7").json() == {"id": 7, "q": "none", "state": "at startup"}
        assert ask(container.url, "/").text == "index"
        before = container.events()
        took = container.stop()

        assert before == ["startup"]
        assert container.events() == ["startup", "shutdown"]
        # Apache gives a process three seconds, and kills it then.
        assert took < 2.5
        assert container.log().count("a WSGI server serves this app as a guest") == 1


def test_content_comes_and_goes_in_pieces() -> None:
    with apache() as container:
        with httpx.stream("GET", container.url + "/gated", timeout=PATIENCE_S, trust_env=False) as response:
            chunks = response.iter_raw()
            assert next(chunks) == b"first,"
            assert ask(container.url, "/open", "POST").status_code == 204
            assert b"".join(chunks) == b"second"
        assert ask(container.url, "/echo", "POST", content=content()).content == b"onetwo"
        assert ask(container.url, "/count", "POST", content=b"x" * 1_000_000).text == "1000000"


def test_a_response_that_fails_is_in_apaches_log() -> None:
    """mod_wsgi's daemons can't tell Apache to cut a response, so the log is where it shows."""
    with apache() as container:
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
            assert ask(container.url, "/cut").content == b"first"
        container.stop()

        assert "ValueError: of its own" in container.log()
        assert "the response broke off; the log says why" in container.log()


def test_what_apache_took_of_the_path_is_the_apps_root() -> None:
    with apache(prefix="/shop") as container:
        told = ask(container.url, "/shop/told?a=b").json()
        inner = ask(container.url, "/shop/inner/caf%C3%A9")

    assert (told["path"], told["root_path"], told["query"]) == ("/shop/told", "/shop", "a=b")
    assert inner.text == "café at /shop/inner"


def test_an_interpreter_beside_the_main_one_is_refused_with_what_to_do() -> None:
    """As mod_wsgi has for each app, unless it is told otherwise."""
    with apache(group="other") as container:
        status = ask(container.url, "/").status_code
        container.stop()

        assert status == 500
        assert "ImportError: httpy needs the main interpreter" in container.log()
        assert "WSGIApplicationGroup %{GLOBAL}" in container.log()
