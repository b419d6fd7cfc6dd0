"""WSGI apps, hosted: PEP 3333, rule by rule."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import socket
import sys
import threading
import wsgiref.util
import wsgiref.validate
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import h2.events
import httpx
import pytest

from crew import wait_for
from httpy import WSGI, App, ClientDisconnected, Server
from support import PATIENCE_S
from test_h2 import Peer

Environ = dict[str, Any]
Start = Callable[..., Any]

TEXT = [("Content-Type", "text/plain")]


@contextlib.contextmanager
def serving(app: Any, **config: Any) -> Iterator[httpx.Client]:
    with (
        Server(app if isinstance(app, App) else WSGI(app), port=0, **config) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as client,
    ):
        yield client


def answering(*chunks: bytes, headers: Iterable[tuple[str, str]] = TEXT) -> Any:
    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", list(headers))
        return list(chunks)

    return app


def asked(client: httpx.Client, request: bytes) -> bytes:
    with socket.create_connection(
        (client.base_url.host, client.base_url.port), timeout=PATIENCE_S
    ) as connection:
        connection.sendall(request)
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
        return found


# What the reference says


@pytest.mark.parametrize("target", ["/", "/a/b?c=d", "/in", "/in/", "/in/%C3%A9"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_the_validator_of_the_standard_library_is_content(
    method: str, target: str, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    @wsgiref.validate.validator
    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        content = environ["wsgi.input"].read(100)
        environ["wsgi.errors"].write("")
        wsgiref.util.application_uri(environ)
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        assert write
        return [b"got ", content]

    outer = App()
    outer.mount("/in", WSGI(app))
    with serving(outer if target.startswith("/in") else app, loop=driver) as client:
        response = client.request(method, target, content=b"content" if method == "POST" else b"")

    assert response.status_code == 200, caplog.text
    assert response.text == {"GET": "got ", "HEAD": "", "POST": "got content"}[method]
    assert [record for record in caplog.records if record.name.startswith("httpy")] == []


# The environ


def test_the_environ_has_what_pep_3333_says() -> None:
    found: list[Environ] = []

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        found.append(dict(environ))
        return answering(b"ok")(environ, start_response)

    with serving(app) as client:
        client.get(
            "/caf%C3%A9/x?a=%20b",
            headers=[("X-Two", "1"), ("X-Two", "2"), ("X_Under", "no"), ("Proxy", "no"), ("Cookie", "a=1")],
        )
        client.post("/", content=b"12345", headers={"Content-Type": "text/x"})
        port = str(client.base_url.port)

    first, second = found
    assert first["REQUEST_METHOD"] == "GET"
    assert (first["SCRIPT_NAME"], first["PATH_INFO"]) == ("", "/caf\u00c3\u00a9/x")
    assert (first["QUERY_STRING"], first["REQUEST_URI"]) == ("a=%20b", "/caf%C3%A9/x?a=%20b")
    assert (first["SERVER_NAME"], first["SERVER_PORT"]) == ("127.0.0.1", port)
    assert (first["SERVER_PROTOCOL"], first["wsgi.url_scheme"]) == ("HTTP/1.1", "http")
    assert (first["REMOTE_ADDR"], first["HTTP_HOST"]) == ("127.0.0.1", f"127.0.0.1:{port}")
    assert (first["HTTP_X_TWO"], first["HTTP_COOKIE"]) == ("1, 2", "a=1")
    assert not {"HTTP_X_UNDER", "HTTP_PROXY", "CONTENT_LENGTH", "CONTENT_TYPE"} & set(first)
    assert (first["wsgi.version"], first["wsgi.run_once"], first["wsgi.multithread"]) == ((1, 0), False, True)
    assert first["wsgi.errors"] is sys.stderr
    assert (second["CONTENT_LENGTH"], second["CONTENT_TYPE"]) == ("5", "text/x")
    assert not {"HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"} & set(second)


def test_what_an_app_does_to_its_environ_is_not_in_the_next_one() -> None:
    found: list[Environ] = []

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        found.append({key: value for key, value in environ.items() if key != "wsgi.input"})
        environ.clear()
        environ["HTTP_X_MINE"] = "1"
        return answering(b"ok")(environ, start_response)

    with serving(app) as client:
        for _ in range(3):
            client.get("/a?b=c")

    assert found[0]["REMOTE_PORT"]
    assert found[1:] == [found[0]] * 2


def test_each_request_is_told_what_is_its_own(driver: str) -> None:
    """Whatever the one before it was, on this connection or another one."""
    found: list[tuple[Any, ...]] = []
    names = ("REMOTE_PORT", "REQUEST_METHOD", "SERVER_PROTOCOL", "PATH_INFO", "HTTP_USER_AGENT", "HTTP_X_OWN")

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        found.append(tuple(environ.get(name) for name in names))
        return answering(b"ok")(environ, start_response)

    expected = []
    with serving(app, loop=driver) as client, contextlib.ExitStack() as stack:
        address = (client.base_url.host, client.base_url.port)
        connections = [
            stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S)) for _ in range(3)
        ]
        for method, version, agent in (("GET", "1.1", "one"), ("PUT", "1.1", "two"), ("GET", "1.0", "one")):
            for n, connection in enumerate(connections):
                head = f"{method} /{n} HTTP/{version}\r\nHost: a\r\nUser-Agent: {agent}\r\nX-Own: {n}\r\n\r\n"
                connection.sendall(head.encode())
                assert connection.recv(65536).startswith(b"HTTP/1.")
                port = str(connection.getsockname()[1])
                expected.append((port, method, f"HTTP/{version}", f"/{n}", agent, str(n)))

    assert found == expected


def test_a_mount_is_in_script_name() -> None:
    found: list[tuple[str, str]] = []

    def inner(environ: Environ, start_response: Start) -> Iterable[bytes]:
        found.append((environ["SCRIPT_NAME"], environ["PATH_INFO"]))
        return answering(b"ok")(environ, start_response)

    outer = App()
    outer.mount("/sub", inner)
    with serving(outer, root_path="/before") as client:
        for path in ("/sub/x", "/sub", "/sub/"):
            client.get(path)

    assert found == [("/before/sub", "/x"), ("/before/sub", ""), ("/before/sub", "/")]


# wsgi.input


def reading(how: Callable[[Any], Any]) -> Any:
    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        return answering(repr(how(environ["wsgi.input"])).encode())(environ, start_response)

    return app


CONTENT = b"one\ntwo\n\nthree"


@pytest.mark.parametrize(
    "how",
    [
        lambda file: file.read(),
        lambda file: (file.read(2), file.read(0), file.read(-1), file.read(5), file.read()),
        lambda file: [file.readline() for _ in range(6)],
        lambda file: [file.readline(2) for _ in range(6)],
        lambda file: file.readlines(),
        lambda file: (file.readlines(5), file.read()),
        lambda file: list(file),
        lambda file: (file.read(1), next(iter(file)), file.read(100)),
    ],
    ids=["all", "sizes", "lines", "short lines", "readlines", "hint", "iterated", "mixed"],
)
@pytest.mark.parametrize(
    "chunks", [[CONTENT], [b"on", b"e", b"\ntwo\n", b"\nthr", b"ee"]], ids=["whole", "parts"]
)
def test_input_reads_as_a_file_does(how: Callable[[Any], Any], chunks: list[bytes], driver: str) -> None:
    with serving(reading(how), loop=driver) as client:
        response = client.post("/", content=chunks[0] if len(chunks) == 1 else iter(chunks))

    assert response.text == repr(how(io.BytesIO(CONTENT)))


def test_input_arrives_while_the_app_runs(driver: str) -> None:
    first_read = threading.Event()

    def read(file: Any) -> Any:
        first = file.read(5)
        first_read.set()
        return first, file.read()

    def content() -> Iterator[bytes]:
        yield b"first"
        assert first_read.wait(PATIENCE_S)
        yield b"second"

    with serving(reading(read), loop=driver) as client:
        assert client.post("/", content=content()).text == "(b'first', b'second')"


def test_input_that_breaks_off_is_an_error_and_not_an_end(driver: str) -> None:
    raised: list[type[BaseException]] = []
    reads, done = threading.Event(), threading.Event()

    def read(file: Any) -> Any:
        reads.set()
        try:
            file.read()
        except OSError as error:
            raised.append(type(error))
            done.set()
            raise

    with serving(reading(read), loop=driver) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
            assert reads.wait(PATIENCE_S)
        assert done.wait(PATIENCE_S)

    assert raised == [ClientDisconnected]


def test_input_beyond_the_limit_is_413(driver: str) -> None:
    with serving(reading(lambda file: len(file.read())), loop=driver, max_body_bytes=1000) as client:
        assert client.post("/", content=b"x" * 1000).text == "1000"
        assert client.post("/", content=b"x" * 1001).status_code == 413
        assert client.post("/", content=iter([b"x" * 500, b"x" * 500])).text == "1000"
        assert client.post("/", content=iter([b"x" * 500, b"x" * 501])).status_code == 413


# Answering


def test_one_chunk_has_a_length(driver: str) -> None:
    with serving(answering(b"whole"), loop=driver) as client:
        response = client.get("/")

    assert (response.text, response.headers["content-length"]) == ("whole", "5")


def test_several_chunks_are_chunked_unless_their_length_is_said(driver: str) -> None:
    with serving(answering(b"a", b"", b"b"), loop=driver) as client:
        assert client.get("/").headers["transfer-encoding"] == "chunked"
    with serving(answering(b"a", b"b", headers=[("Content-Length", "2")]), loop=driver) as client:
        response = client.get("/")
        assert (response.text, response.headers["content-length"]) == ("ab", "2")


def test_headers_may_be_said_with_the_first_chunk(driver: str) -> None:
    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        yield b""
        start_response("201 Made", [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
        yield b"late"

    with serving(app, loop=driver) as client:
        response = client.get("/")

    assert (response.status_code, response.text) == (201, "late")
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]


def test_a_chunk_is_sent_before_the_next_is_made(driver: str) -> None:
    go_on = threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        yield b"first"
        assert go_on.wait(PATIENCE_S)
        yield b"second"

    with serving(app, loop=driver) as client, client.stream("GET", "/") as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"first"
        go_on.set()
        assert b"".join(chunks) == b"second"


def test_write_sends_at_once_and_before_the_iterable(driver: str) -> None:
    go_on = threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        write = start_response("200 OK", TEXT)
        write(b"written,")
        assert go_on.wait(PATIENCE_S)
        write(b"twice,")
        return [b"returned"]

    with serving(app, loop=driver) as client, client.stream("GET", "/") as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"written,"
        go_on.set()
        assert b"".join(chunks) == b"twice,returned"


def test_a_slow_client_makes_the_app_wait() -> None:
    made = 0

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        nonlocal made
        start_response("200 OK", TEXT)
        for _ in range(1000):
            yield b"x" * 65536
            made += 1

    with serving(app) as client, client.stream("GET", "/") as response:
        chunks = response.iter_raw()
        next(chunks)
        before = made
        assert sum(map(len, chunks)) > 50_000_000

    assert before < 500
    assert made == 1000


class Closing:
    """An iterable that tells when, and on which thread, it is closed."""

    def __init__(self, chunks: Iterable[Any], thread: int) -> None:
        self.chunks = iter(chunks)
        self.thread = thread
        self.closed = threading.Event()
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        return self.chunks

    def close(self) -> None:
        self.count += 1
        assert threading.get_ident() == self.thread
        self.closed.set()


def closing(chunks: Iterable[Any], made: list[Closing]) -> Any:
    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", TEXT)
        made.append(Closing(chunks, threading.get_ident()))
        return made[-1]

    return app


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 65536


def failing() -> Iterator[bytes]:
    yield b"first"
    raise ValueError("of its own")


@pytest.mark.parametrize(
    "chunks", [[b"one"], [b"one", b"two"], [], [b"one", "text"]], ids=["one", "two", "none", "wrong"]
)
def test_close_is_called_once_on_the_same_thread(chunks: list[Any], driver: str) -> None:
    made: list[Closing] = []

    with serving(closing(chunks, made), loop=driver) as client:
        with contextlib.suppress(httpx.RemoteProtocolError):
            client.get("/")
        assert made[0].closed.wait(PATIENCE_S)

    assert made[0].count == 1


def test_close_is_called_when_the_app_fails(driver: str, caplog: pytest.LogCaptureFixture) -> None:
    made: list[Closing] = []

    with serving(closing(failing(), made), loop=driver) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/")
        assert made[0].closed.wait(PATIENCE_S)

    assert made[0].count == 1
    # Which is written behind the end of the connection.
    wait_for(lambda: "ValueError: of its own" in caplog.text)


def test_close_is_called_when_the_client_leaves(driver: str, caplog: pytest.LogCaptureFixture) -> None:
    made: list[Closing] = []

    with serving(closing(endless(), made), loop=driver) as client:
        with client.stream("GET", "/") as response:
            next(response.iter_raw())
        assert made[0].closed.wait(PATIENCE_S)

    assert made[0].count == 1
    assert "failed" not in caplog.text


def test_the_response_does_not_wait_for_close(driver: str) -> None:
    go_on = threading.Event()

    class Slow(list):  # type: ignore[type-arg]
        def close(self) -> None:
            assert go_on.wait(PATIENCE_S)

    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Length", "4")])
        return Slow([b"here"])

    with serving(app, loop=driver) as client:
        assert client.get("/").text == "here"
        go_on.set()


def test_a_file_is_sent(tmp_path: pathlib.Path, driver: str) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 1000)
    files: list[Any] = []

    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Type", "x/y")])
        if environ["PATH_INFO"] == "/memory":
            file: Any = io.BytesIO((tmp_path / "file").read_bytes())
        else:
            file = open(tmp_path / "file", "rb")  # noqa: SIM115
        file.seek(10)
        files.append(file)
        return environ["wsgi.file_wrapper"](file, 1000)

    with serving(app, loop=driver) as client:
        for path in ("/", "/memory"):
            assert client.get(path).content == (tmp_path / "file").read_bytes()[10:]

    assert all(file.closed for file in files)


def test_a_file_is_no_longer_than_was_said(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")

    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", [("Content-Length", "4")])
        return environ["wsgi.file_wrapper"](open(tmp_path / "file", "rb"))  # noqa: SIM115

    with serving(app) as client:
        assert client.get("/").content == b"0123"


# exc_info


def test_an_error_replaces_what_was_not_sent_yet(driver: str) -> None:
    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("X-First", "1")])
        try:
            raise ValueError
        except ValueError:
            start_response("500 Sorry", TEXT, sys.exc_info())
        return [b"sorry"]

    with serving(app, loop=driver) as client:
        response = client.get("/")

    assert (response.status_code, response.text, "x-first" in response.headers) == (500, "sorry", False)


def test_an_error_that_comes_too_late_is_raised(driver: str, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", TEXT)
        yield b"first"
        try:
            raise ValueError("the first one")
        except ValueError:
            start_response("500 Sorry", TEXT, sys.exc_info())

    with serving(app, loop=driver) as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/")

    wait_for(lambda: "ValueError: the first one" in caplog.text)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda start: [start("200 OK", []), start("200 OK", [])], "start_response was called already"),
        (lambda start: start(200, []), "a WSGI status is a str, found int"),
        (lambda start: start("OK", []), "a WSGI status is a str like '200 OK', from 200 to 999, found 'OK'"),
        (lambda start: start("100 Continue", []), "from 200 to 999, found '100 Continue'"),
        (lambda start: start("200 OK", (("A", "b"),)), "a list of pairs, found tuple"),
        (lambda start: start("200 OK", [["A", "b"]]), "a list of tuples"),
        (
            lambda start: start("200 OK", [("A", b"b")]),
            "names and values of WSGI headers are str, found bytes",
        ),
        (lambda start: start("200 OK", [("A b", "c")]), "is not a token"),
        (lambda start: start("200 OK", [("A", "b\r\nC: d")]), "has a control character"),
        (lambda start: start("200 OK", [("A", "\u20ac")]), "outside ISO-8859-1"),
        (lambda start: None, "the app gives content before it has called start_response"),
    ],
)
def test_what_is_against_the_rules_is_500(
    call: Callable[[Start], Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        call(start_response)
        return [b"content"]

    with serving(app) as client:
        assert client.get("/").status_code == 500

    assert message in caplog.text


def test_text_is_no_content(caplog: pytest.LogCaptureFixture) -> None:
    with serving(answering("text")) as client:  # type: ignore[arg-type]
        assert client.get("/").status_code == 500

    assert "a WSGI app gives bytes, found str (PEP 3333)" in caplog.text


def test_text_outside_of_ascii_is_iso_8859_1_however_often_it_is_said() -> None:
    app = answering(b"a", headers=[("Content-Type", "text/\u00e4"), ("Server", "\u00c3\u00a4")])

    with serving(app) as client:
        for _ in range(3):
            found = asked(client, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert b"content-type: text/\xe4\r\n" in found
            assert b"server: \xc3\xa4\r\n" in found


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([b"abcd"], "1 bytes more than"),
        ([b"ab", b"cd"], "1 bytes more than"),
        ([b"ab"], "1 bytes less than"),
        ([b"a", b"b"], "1 bytes less than"),
    ],
    ids=["more", "more in the end", "less", "less in the end"],
)
def test_a_declared_length_is_to_be_kept(
    chunks: list[bytes], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(answering(*chunks, headers=[("Content-Length", "3")])) as client:
        if len(chunks) == 1:
            assert client.get("/").status_code == 500
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                client.get("/")

    wait_for(lambda: f"the app sends {message} its content-length says" in caplog.text)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_status_without_content_gets_none(status: str) -> None:
    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response(status, [])
        return [b"ignored"]

    with serving(app) as client:
        for _ in range(2):
            response = client.get("/")
            assert (response.status_code, response.content) == (int(status[:3]), b"")


def test_fields_of_the_connection_are_the_servers() -> None:
    with serving(
        answering(b"a", headers=[("Connection", "close"), ("Transfer-Encoding", "x"), ("A", "b")])
    ) as client:
        response = client.get("/")

    assert response.headers["a"] == "b"
    assert not {"connection", "transfer-encoding"} & set(response.headers)


def test_head_gets_the_fields_alone() -> None:
    with serving(answering(b"a" * 10, b"b" * 10, headers=[("Content-Length", "20")])) as client:
        found = asked(client, b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert b"content-length: 20\r\n" in found.lower()
    assert found.endswith(b"\r\n\r\n")


# Inside of middleware


def test_middleware_stands_around_it_and_it_stays_on_one_thread(driver: str) -> None:
    made: list[Closing] = []
    outer = App()

    @outer.middleware
    async def mark(request: Any, next: Any) -> Any:
        response = await next(request)
        response.headers["x-marked"] = "yes"
        return response

    outer.mount("/in", WSGI(closing([b"one,", b"two"], made)))
    with serving(outer, loop=driver) as client:
        response = client.get("/in")
        assert made[0].closed.wait(PATIENCE_S)

    assert (response.text, response.headers["x-marked"]) == ("one,two", "yes")


def test_what_it_raises_is_the_outer_apps_to_answer(driver: str) -> None:
    def fails(environ: Environ, start_response: Start) -> Iterable[bytes]:
        raise ValueError("of its own")

    for has_middleware in (False, True):
        outer = App()
        if has_middleware:

            @outer.middleware
            async def through(request: Any, next: Any) -> Any:
                return await next(request)

        @outer.error(ValueError)
        def answer(request: Any, error: ValueError) -> Any:
            return {"answered": str(error)}, 418

        outer.mount("/in", fails)
        with serving(outer, loop=driver) as client:
            response = client.get("/in")
            assert (response.status_code, response.json()) == (418, {"answered": "of its own"})


def test_hints_are_sent_ahead_where_they_can_be() -> None:
    offered: list[bool] = []

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        hints = environ.get("wsgi.early_hints")
        offered.append(hints is not None)
        if hints:
            hints([("Link", "</a.css>; rel=preload; as=style")])
        return answering(b"ok")(environ, start_response)

    with serving(app) as client:
        assert client.get("/").text == "ok"
        url = str(client.base_url)
        with httpx.Client(base_url=url, http1=False, http2=True, trust_env=False) as second:
            assert second.get("/").text == "ok"

    assert offered == [False, True]


def test_hints_are_on_the_wire() -> None:
    hinting = [("Link", "</a.css>; rel=preload"), ("Link", "</b.js>; rel=preload")]

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        environ["wsgi.early_hints"](hinting)
        return answering(b"ok")(environ, start_response)

    with serving(app, h1_early_hints=True) as client:
        found = asked(client, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.base_url.port is not None
        with Peer(client.base_url.port) as peer:
            peer.get("/")
            events = peer.events(until=1)

    (hint,) = (event for event in events if isinstance(event, h2.events.InformationalResponseReceived))
    assert hint.headers == [(":status", "103"), *((name.lower(), value) for name, value in hinting)]
    assert found.startswith(
        b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n"
        b"HTTP/1.1 200 OK\r\n"
    )


def test_a_file_is_closed_when_its_client_leaves(driver: str) -> None:
    class File(io.BytesIO):
        def __init__(self) -> None:
            super().__init__()
            self.closed_once = threading.Event()

        def read(self, size: Any = -1) -> bytes:
            return b"x" * 65536

        def close(self) -> None:
            self.closed_once.set()

    file = File()

    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", TEXT)
        return environ["wsgi.file_wrapper"](file)

    with serving(app, loop=driver) as client:
        with client.stream("GET", "/") as response:
            next(response.iter_raw())
        assert file.closed_once.wait(PATIENCE_S)


def test_nothing_is_left_open(tmp_path: pathlib.Path) -> None:
    """Descriptors of files that are sent are given back."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    (tmp_path / "file").write_bytes(b"x" * 100_000)

    def app(environ: Environ, start_response: Start) -> Any:
        start_response("200 OK", TEXT)
        return environ["wsgi.file_wrapper"](open(tmp_path / "file", "rb"))  # noqa: SIM115

    with serving(app) as client:
        client.get("/")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            client.get("/")
        after = len(os.listdir("/proc/self/fd"))

    assert after <= before + 2
