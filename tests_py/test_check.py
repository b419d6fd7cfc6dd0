"""Asking a server whether it is well."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from httpy import App, ConfigError, Server
from httpy.addresses import read_address
from httpy.check import Target, Unhealthy, probe, read_url, url_of_address

unix_only = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="unix sockets")
PATIENCE_S = 10.0


@contextlib.contextmanager
def answering(*parts: bytes, closes: bool = True) -> Iterator[tuple[Target, list[bytes]]]:
    """Answers one connection with these bytes; gives what to ask, and what was asked."""
    asked: list[bytes] = []
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                asked.append(connection.recv(65536))
                for part in parts:
                    with contextlib.suppress(OSError):
                        connection.sendall(part)
                if not closes:
                    done.wait(PATIENCE_S)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield Target("h", "/p", listening.getsockname()), asked
        finally:
            done.set()
            thread.join()


def why(target: Target, timeout: float = PATIENCE_S) -> str:
    with pytest.raises(Unhealthy) as unhealthy:
        probe(target, timeout)
    return str(unhealthy.value)


# What is asked


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://a", Target("a", "/", ("a", 80))),
        ("http://a:8000/health?x=1#y", Target("a:8000", "/health?x=1", ("a", 8000))),
        ("http://a?x", Target("a", "/?x", ("a", 80))),
        ("http://[::1]:80/", Target("[::1]:80", "/", ("::1", 80))),
        ("http://[::1]", Target("[::1]", "/", ("::1", 80))),
        ("https://a/h", Target("a", "/h", ("a", 443), "a")),
        ("https://a:8443", Target("a:8443", "/", ("a", 8443), "a")),
        ("https://[::1]:8443", Target("[::1]:8443", "/", ("::1", 8443), "::1")),
        ("unix:/run/a.sock", Target("localhost", "/", "/run/a.sock")),
        ("unix:/run/a.sock:/health", Target("localhost", "/health", "/run/a.sock")),
        ("unix:@a:/health", Target("localhost", "/health", "\0a")),
    ],
)
def test_urls_are_read(url: str, target: Target) -> None:
    assert read_url(url) == target


@pytest.mark.parametrize(
    "url",
    [
        *("", "a", "a:80", "ftp://a/", "http://", "http://:80", "http://a:x", "http://a:70000", "http://u@a"),
        *("http://a b", "unix:", "unix:/a:b", "http://ä", "http://a/\r\nX: y"),
    ],
)
def test_what_is_no_url_is_said(url: str) -> None:
    with pytest.raises(ConfigError, match="--url"):
        read_url(url)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:80", "http://127.0.0.1:80/h"),
        (":80", "http://127.0.0.1:80/h"),
        ("0.0.0.0:80", "http://127.0.0.1:80/h"),
        ("[::]:80", "http://[::1]:80/h"),
        ("[::1]:80", "http://[::1]:80/h"),
        ("localhost:80", "http://localhost:80/h"),
        ("unix:/run/a.sock,mode=600", "unix:/run/a.sock:/h"),
        ("unix:@a", "unix:@a:/h"),
    ],
)
def test_an_address_that_is_listened_on_has_a_url(address: str, url: str) -> None:
    assert url_of_address(read_address(address), "/h") == url
    read_url(url)


def test_a_descriptor_has_none() -> None:
    with pytest.raises(ConfigError, match="fd://3 has no name to ask by"):
        url_of_address(read_address("fd://3"), "/h")


# What is answered


def test_a_server_that_is_well_is() -> None:
    app = App()
    app.get("/health")(lambda: "fine")
    app.get("/elsewhere")(lambda: ("", 307, {"location": "/health"}))

    with Server(app, port=0) as server:
        assert probe(read_url(f"{server.url}/health"), PATIENCE_S).startswith("200 OK in ")
        assert probe(read_url(f"{server.url}/elsewhere"), PATIENCE_S).startswith("307 Temporary Redirect in ")
        assert why(read_url(f"{server.url}/nothing")) == "404 Not Found"


@unix_only
def test_a_server_on_a_unix_socket_may_be_asked(tmp_path: Path) -> None:
    app = App()
    app.get("/")(lambda: "fine")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "a"))
    listening.listen()

    with Server(app, sockets=[listening]):
        assert probe(read_url(f"unix:{tmp_path}/a"), PATIENCE_S).startswith("200 OK")
    assert why(read_url(f"unix:{tmp_path}/a")) == "no answer: Connection refused"
    assert why(read_url(f"unix:{tmp_path}/b")) == "no answer: No such file or directory"


def test_the_request_is_one() -> None:
    with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as (target, asked):
        assert probe(target, PATIENCE_S).startswith("204 No Content in ")

    head, *fields = asked[0].decode().split("\r\n")
    assert head == "GET /p HTTP/1.1"
    assert fields[0] == "Host: h"
    assert "Connection: close" in fields
    assert asked[0].endswith(b"\r\n\r\n")


def test_interim_responses_are_no_answer() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    with answering(interim, interim[:20], interim[20:], b"HTTP/1.0 2", b"00\r\n") as (target, _):
        assert probe(target, PATIENCE_S).startswith("200 in ")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([b"HTTP/1.1 503 Service Unavailable\r\n\r\n"], "503 Service Unavailable"),
        ([b"HTTP/1.1 199 X\r\n\r\n", b"HTTP/1.1 400 Y\r\n"], "400 Y"),
        ([b"SSH-2.0-x\r\n"], "the answer is not HTTP: 'SSH-2.0-x'"),
        ([b"HTTP/1.1 20\r\n"], "the answer is not HTTP: 'HTTP/1.1 20'"),
        ([b"HTTP/1.1\r\n"], "the answer is not HTTP: 'HTTP/1.1'"),
        ([], "the connection was closed without an answer"),
        ([b"HTTP/1.1 200 OK"], "the connection was closed without an answer"),
        ([b"x" * 200_000], "the connection was closed without an answer"),
    ],
)
def test_any_other_answer_is_not_well(parts: list[bytes], said: str) -> None:
    with answering(*parts) as (target, _):
        assert why(target) == said


def test_no_answer_in_time_is_not_well() -> None:
    with answering(b"HTTP/1.1 2", closes=False) as (target, _):
        assert why(target, 0.05) == "no answer within 0.05 seconds"


def test_nobody_there_is_not_well() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address: Any = free.getsockname()
        assert why(Target("h", "/", address)) == "no answer: Connection refused"
