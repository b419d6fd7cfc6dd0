"""The test clients: the real server over memory. Its Rust half is `src/listen/memory.rs`, tested by `tests/`."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import email.parser
import email.policy
import gc
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from httpy import (
    App,
    BlockingWebSocket,
    ConfigError,
    MutableHeaders,
    PlainTextResponse,
    Request,
    Response,
    StreamingResponse,
    WebSocket,
    WebSocketDisconnect,
    _httpy,
    redirect,
)
from httpy.testing import (
    AsyncTestClient,
    ClientResponse,
    ClientWebSocket,
    ConnectionBroken,
    ProtocolError,
    StatusError,
    TestClient,
    WebSocketRejected,
)
from support import DRIVERS, PATIENCE_S, environment, python

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def mirror_app() -> App:
    """An app that tells what it was asked."""
    app = App()

    @app.route("/mirror", methods=METHODS)
    def mirror(request: Request) -> dict[str, Any]:
        return {
            "method": request.method,
            "url": str(request.url),
            "query": request.query_string.decode(),
            "headers": dict(request.headers.multi_items()),
            "cookies": request.cookies,
            "body": request.body.decode("latin-1"),
            "client": request.client,
            "scheme": request.scheme,
        }

    @app.get("/status/{code:int}")
    def status(code: int) -> Response:
        return Response(b"said", code, {"x-a": "1"})

    @app.get("/set")
    def set_cookie(request: Request) -> Response:
        response = PlainTextResponse("set")
        for name, value in request.query.multi_items():
            response.set_cookie(name, value)
        return response

    @app.get("/crash")
    def crash() -> None:
        raise ZeroDivisionError("a secret")

    return app


@pytest.fixture(params=DRIVERS)
def client(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    with TestClient(mirror_app(), loop=request.param) as client:
        yield client


# -- requests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_method(client: TestClient, method: str) -> None:
    response = getattr(client, method.lower())("/mirror")

    assert response.status == response.status_code == 200
    assert response.json()["method"] == method
    assert client.request(method, "/mirror").json()["method"] == method


def test_head_has_the_fields_and_no_content(client: TestClient) -> None:
    response = client.head("/mirror")

    assert response.status == 200
    assert response.content == b""
    assert int(response.headers["content-length"]) > 0
    assert client.get("/mirror").status == 200


def test_a_query_is_made_of_parameters(client: TestClient) -> None:
    params = {"a": 1, "b": ["x", "ä b"], "c": True, "d": None}

    assert client.get("/mirror", params=params).json()["query"] == "a=1&b=x&b=%C3%A4+b&c=true"
    assert client.get("/mirror?z=0", params=[("a", "1"), ("a", "2")]).json()["query"] == "z=0&a=1&a=2"
    assert client.get("/mirror", params="?q=a b").json()["query"] == "q=a%20b"


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("/mirror", "http://testserver/mirror"),
        ("mirror", "http://testserver/mirror"),
        ("/mirror?a=ä#part", "http://testserver/mirror?a=%C3%A4"),
        ("http://other.example:81/mirror", "http://other.example:81/mirror"),
        ("https://testserver/mirror", "https://testserver/mirror"),
    ],
)
def test_urls_are_relative_or_absolute(client: TestClient, url: str, seen: str) -> None:
    assert client.get(url).json()["url"] == seen


def test_the_path_of_the_base_url_stays_in_front() -> None:
    app = App()
    app.mount("/api/v1", mirror_app())

    with TestClient(app, base_url="https://example.org/api/v1/") as client:
        found = client.get("/mirror").json()

    assert found["url"] == "https://example.org/api/v1/mirror"
    assert found["scheme"] == "https"


@pytest.mark.parametrize("url", ["ftp://testserver/", "testserver", "http://"])
def test_a_base_url_is_one(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        TestClient(App(), base_url=url)


def test_fields_of_a_request_replace_those_of_the_client() -> None:
    with TestClient(mirror_app(), headers={"X-A": "1", "User-Agent": "me"}) as client:
        headers = client.get("/mirror", headers={"x-a": "2", "X-B": "ü"}).json()["headers"]
        plain = client.get("/mirror").json()["headers"]
        client.headers["x-c"] = "3"
        later = client.get("/mirror", headers=[("host", "b.example")]).json()

    assert {name: headers[name] for name in ("x-a", "x-b", "user-agent", "host")} == {
        "x-a": "2",
        "x-b": "ü",
        "user-agent": "me",
        "host": "testserver",
    }
    assert plain["x-a"] == "1"
    assert later["headers"]["x-c"] == "3"
    assert later["url"] == "http://b.example/mirror"


def test_several_fields_of_a_name_are_sent() -> None:
    app = App()

    @app.get("/")
    def index(request: Request) -> list[str]:
        return request.headers.getlist("x-a")

    with TestClient(app) as client:
        assert client.get("/", headers=[("x-a", "1"), ("X-A", "2")]).json() == ["1", "2"]


def test_auth_is_basic(client: TestClient) -> None:
    sent = client.get("/mirror", auth=("ada", "päss")).json()["headers"]["authorization"]

    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == "ada:päss"


@pytest.mark.parametrize(
    ("given", "body", "kind"),
    [
        ({"json": {"a": [1, None]}}, '{"a":[1,null]}', "application/json"),
        ({"json": None}, "null", "application/json"),
        ({"data": {"a": "1 2", "b": ["x", "y"]}}, "a=1+2&b=x&b=y", "application/x-www-form-urlencoded"),
        ({"data": [("a", 1), ("a", 2)]}, "a=1&a=2", "application/x-www-form-urlencoded"),
        ({"data": b"raw"}, "raw", None),
        ({"content": b"raw"}, "raw", None),
        ({"content": memoryview(b"raw")}, "raw", None),
        ({"content": "text"}, "text", "text/plain; charset=utf-8"),
        ({"content": lambda: io.BytesIO(b"a file")}, "a file", None),
        ({"content": lambda: iter([b"chunk ", "by ", b"", b"chunk"])}, "chunk by chunk", None),
        (
            {"json": 1, "headers": {"content-type": "application/problem+json"}},
            "1",
            "application/problem+json",
        ),
    ],
)
def test_content_is_given_in_every_form(
    client: TestClient, given: dict[str, Any], body: str, kind: str | None
) -> None:
    # An iterator is used up by the first client.
    content = {name: value() if callable(value) else value for name, value in given.items()}

    found = client.post("/mirror", **content).json()

    assert found["body"] == body
    assert found["headers"].get("content-type") == kind


def test_a_post_without_content_says_that_there_is_none(client: TestClient) -> None:
    assert client.post("/mirror").json()["headers"]["content-length"] == "0"
    assert "content-length" not in client.get("/mirror").json()["headers"]


def test_two_contents_are_refused(client: TestClient) -> None:
    with pytest.raises(TypeError, match="content or json"):
        client.post("/mirror", content=b"1", json=1)
    with pytest.raises(TypeError, match="not int"):
        client.post("/mirror", content=1)


def parts_of(response: ClientResponse) -> list[tuple[str | None, str | None, str | None, bytes]]:
    """The parts of the form that a mirror tells of, as the standard library reads them."""
    found = response.json()
    head = f"Content-Type: {found['headers']['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
        head + found["body"].encode("latin-1")
    )
    return [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part.get("content-type"),
            part.get_payload(decode=True),
        )
        for part in message.iter_parts()
    ]


def test_files_are_a_form_in_parts(client: TestClient, tmp_path: Any) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"from\r\ndisk")
    with open(path, "rb") as opened:
        files = {
            "a": b"bytes",
            "b": ("b.json", '{"b": 1}'),
            "c": ("c.bin", io.BytesIO(b"\x00\xff"), "application/x-c"),
            "d": opened,
            "e": [("1.txt", b"1"), ("2.txt", b"2", "text/x-two", {"X-Part": "yes"})],
        }

        response = client.post("/mirror", files=files, data={"title": "T", "tags": ["x", "y"]})

    assert parts_of(response) == [
        ("title", None, None, b"T"),
        ("tags", None, None, b"x"),
        ("tags", None, None, b"y"),
        ("a", "upload", "application/octet-stream", b"bytes"),
        ("b", "b.json", "application/json", b'{"b": 1}'),
        ("c", "c.bin", "application/x-c", b"\x00\xff"),
        ("d", "notes.txt", "text/plain", b"from\r\ndisk"),
        ("e", "1.txt", "text/plain", b"1"),
        ("e", "2.txt", "text/x-two", b"2"),
    ]
    assert "X-Part: yes" in response.json()["body"]


def test_names_of_files_can_not_break_out_of_their_field(client: TestClient) -> None:
    body = client.post("/mirror", files={'a"\r\nx: y': ('"\r\n', b"")}).json()["body"]

    assert 'name="a%22%0D%0Ax: y"; filename="%22%0D%0A"' in body


# -- responses ---------------------------------------------------------------------------------------------------------


def test_a_response_tells_everything(client: TestClient) -> None:
    response = client.get("/status/404")

    assert (response.status, response.reason, response.is_success) == (404, "Not Found", False)
    assert (response.content, response.text) == (b"said", "said")
    assert isinstance(response.headers, MutableHeaders)
    assert response.headers["X-A"] == response.headers.get("x-a") == "1"
    assert response.headers.getlist("x-a") == ["1"]
    assert response.url == "http://testserver/status/404"
    assert repr(response) == "<ClientResponse 404 Not Found>"


def test_a_failure_is_raised_if_wanted(client: TestClient) -> None:
    assert client.get("/mirror").raise_for_status().status == 200

    with pytest.raises(
        StatusError, match="GET http://testserver/status/503: 503 Service Unavailable"
    ) as caught:
        client.get("/status/503").raise_for_status()

    assert caught.value.response.content == b"said"


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        ("text/plain; charset=latin-1", b"\xe4", "ä"),
        ('text/plain; charset="utf-8"', "ä".encode(), "ä"),
        ("text/plain", b"\xff", "\ufffd"),
        ("text/plain; charset=unheard-of", "ä".encode(), "ä"),
    ],
)
def test_text_is_read_by_its_charset(kind: str, content: bytes, text: str) -> None:
    app = App()

    @app.get("/")
    def index() -> Response:
        return Response(content, 200, {"content-type": kind})

    with TestClient(app) as client:
        assert client.get("/").text == text


def test_a_crash_is_a_500_and_in_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    response = client.get("/crash")

    assert response.status == 500
    assert "secret" not in response.text
    assert "ZeroDivisionError: a secret" in caplog.text


def test_mistakes_of_the_request_are_the_servers_to_tell(client: TestClient) -> None:
    assert client.get("/nowhere").status == 404
    assert client.delete("/status/200").status == 405
    assert client.get("/status/x").status == 404
    assert client.get("/mirror", headers={"host": "a b"}).status == 400


def test_early_hints_come_before_the_response() -> None:
    app = App()

    @app.get("/")
    async def index(request: Request) -> str:
        await request.early_hints(["</a.css>; rel=preload"])
        return "later"

    with TestClient(app, h1_early_hints=True) as client:
        response = client.get("/")

    assert response.text == "later"
    assert response.interim == [(103, [("link", "</a.css>; rel=preload")])]


# -- streams -----------------------------------------------------------------------------------------------------------


def test_a_stream_is_read_as_it_comes() -> None:
    app, go_on = App(), threading.Event()

    @app.get("/")
    def index() -> Iterator[str]:
        yield "first\r\nsec"
        assert go_on.wait(PATIENCE_S)
        yield "ond\nthird"

    with TestClient(app) as client:
        with client.stream("GET", "/") as response:
            lines = response.iter_lines()
            assert next(lines) == "first"
            with pytest.raises(RuntimeError, match="read first"):
                _ = response.content
            go_on.set()
            assert list(lines) == ["second", "third"]
        with client.stream("GET", "/") as response:
            assert response.read() == response.content == b"first\r\nsecond\nthird"


def test_leaving_a_stream_tells_the_app() -> None:
    app, left = App(), threading.Event()

    @app.get("/")
    async def index() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 10_000
                await asyncio.sleep(0)
        finally:
            left.set()

    with TestClient(app) as client:
        with client.stream("GET", "/") as response:
            assert next(response.iter_bytes())
        assert left.wait(PATIENCE_S)


def test_a_stream_waits_for_its_reader() -> None:
    app, sent = App(), []

    @app.get("/")
    async def index() -> AsyncIterator[bytes]:
        for _ in range(100):
            sent.append(1)
            yield b"x" * 65536

    with TestClient(app) as client, client.stream("GET", "/") as response:
        assert next(response.iter_bytes())
        client.get("/nowhere")

        assert len(sent) < 50
        assert sum(map(len, response.iter_bytes())) > 5_000_000
        assert len(sent) == 100


@pytest.mark.parametrize("announced", [True, False])
def test_a_response_that_breaks_off_is_an_error(announced: bool, caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.get("/")
    async def index() -> Response:
        async def content() -> AsyncIterator[bytes]:
            yield b"some"
            raise ZeroDivisionError

        return StreamingResponse(content(), headers={"content-length": "100"} if announced else None)

    with TestClient(app) as client:
        with pytest.raises(ConnectionBroken, match="broke off"):
            client.get("/")
        with pytest.raises(ConnectionError), client.stream("GET", "/") as response:
            list(response.iter_bytes())

    assert "ZeroDivisionError" in caplog.text


def test_a_large_echo_needs_both_ways_at_once() -> None:
    app = App()

    @app.post("/", stream=True, max_body_bytes=None)
    async def index(request: Request) -> StreamingResponse:
        return StreamingResponse(request.stream())

    content = os.urandom(4_000_000)
    with TestClient(app) as client:
        assert client.post("/", content=content).content == content


def test_who_is_refused_while_sending_reads_why() -> None:
    with TestClient(mirror_app(), max_body_bytes=1000) as client:
        assert client.post("/mirror", content=b"x" * 1000).status == 200
        assert client.post("/mirror", content=b"x" * 1001).status == 413
        assert client.post("/mirror", content=(b"x" * 1000 for _ in range(1000))).status == 413
        assert client.get("/mirror").status == 200


# -- redirects and cookies ---------------------------------------------------------------------------------------------


def redirect_app() -> App:
    app = mirror_app()

    @app.route("/to", methods=METHODS)
    def to(request: Request) -> Response:
        return Response(b"", int(request.query["status"]), {"location": request.query["url"]})

    return app


def test_redirects_are_followed_if_wanted() -> None:
    with TestClient(redirect_app()) as client:
        first = client.get("/to", params={"status": 302, "url": "/mirror?a=1"})
        followed = client.get("/to", params={"status": 302, "url": "mirror?a=1"}, follow_redirects=True)

    assert (first.status, first.is_redirect) == (302, True)
    assert followed.json()["url"] == followed.url == "http://testserver/mirror?a=1"
    assert [one.status for one in followed.history] == [302]


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (301, "POST", "GET", ""),
        (302, "POST", "GET", ""),
        (302, "PUT", "PUT", "x"),
        (303, "PUT", "GET", ""),
        (307, "POST", "POST", "x"),
        (308, "POST", "POST", "x"),
    ],
)
def test_what_is_sent_to_where_a_redirect_leads(status: int, method: str, then: str, body: str) -> None:
    with TestClient(redirect_app(), follow_redirects=True) as client:
        response = client.request(method, "/to", params={"status": status, "url": "/mirror"}, content="x")

    assert response.json()["method"] == then
    assert response.json()["body"] == body
    assert ("content-type" in response.json()["headers"]) == (body != "")


def test_credentials_are_not_for_other_hosts() -> None:
    with TestClient(redirect_app(), follow_redirects=True) as client:
        here = client.get("/to?status=307&url=/mirror", auth=("a", "b")).json()
        there = client.get("/to?status=307&url=http://other.example/mirror", auth=("a", "b")).json()

    assert "authorization" in here["headers"]
    assert "authorization" not in there["headers"]


def test_redirects_that_never_end_are_an_error() -> None:
    app, seen = App(), []

    @app.get("/")
    def index() -> Response:
        seen.append(1)
        return redirect("/")

    with TestClient(app) as client, pytest.raises(ConnectionBroken, match="20 redirects"):
        client.get("/", follow_redirects=True)

    assert len(seen) == 21


def test_an_iterator_can_not_be_sent_twice() -> None:
    with (
        TestClient(redirect_app(), follow_redirects=True) as client,
        pytest.raises(TypeError, match="redirect"),
    ):
        client.post("/to?status=307&url=/mirror", content=iter([b"x"]))


def test_cookies_are_kept_and_sent(client: TestClient) -> None:
    response = client.get("/set?a=1&b=2")

    assert response.cookies == {"a": "1", "b": "2"}
    assert dict(client.cookies) == {"a": "1", "b": "2"}
    assert client.get("/mirror").json()["cookies"] == {"a": "1", "b": "2"}
    assert client.get("/mirror", cookies={"b": "3", "c": "4"}).json()["cookies"] == {
        "a": "1",
        "b": "3",
        "c": "4",
    }
    assert client.get("/mirror").json()["cookies"] == {"a": "1", "b": "2"}
    assert client.get("/mirror", headers={"cookie": "z=1"}).json()["cookies"] == {"z": "1"}

    client.cookies["a"] = "mine"
    del client.cookies["b"]
    assert client.get("/mirror").json()["cookies"] == {"a": "mine"}

    client.get("/set?a=theirs")
    assert client.get("/mirror").json()["cookies"] == {"a": "theirs"}

    client.cookies.clear()
    assert client.get("/mirror").json()["cookies"] == {}
    with pytest.raises(KeyError):
        del client.cookies["a"]


def test_cookies_go_where_they_are_for() -> None:
    app = mirror_app()

    @app.get("/admin/set")
    def set_cookies() -> Response:
        response = Response()
        response.set_cookie("path", "1", path="/admin")
        response.set_cookie("secure", "1", secure=True)
        response.set_cookie("gone", "1", max_age=0)
        return response

    with TestClient(app, cookies={"own": "1", "gone": "0"}) as client:
        client.get("/admin/set")
        plain = client.get("/mirror").json()["cookies"]
        encrypted = client.get("https://testserver/mirror").json()["cookies"]
        elsewhere = client.get("http://other.example/mirror").json()["cookies"]

    assert plain == {"own": "1"}
    assert encrypted == {"own": "1", "secure": "1"}
    assert elsewhere == {"own": "1"}


# -- the life of a client ----------------------------------------------------------------------------------------------


def test_the_app_lives_as_long_as_the_block() -> None:
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, int]]:
        events.append("start")
        yield {"number": len(events)}
        events.append("stop")

    app = App(lifespan=lifespan)

    @app.get("/")
    def index(request: Request) -> int:
        return int(request.state.number)

    for number in (1, 3):
        with TestClient(app) as client:
            assert client.get("/").json() == number
    assert events == ["start", "stop", "start", "stop"]


def test_what_startup_raises_is_raised() -> None:
    app = App()

    @app.on_startup
    def start() -> None:
        raise LookupError("no database")

    with pytest.raises(LookupError, match="no database"), TestClient(app):
        pytest.fail("it started")


def test_what_shutdown_raises_is_raised() -> None:
    app = App()

    @app.on_shutdown
    def stop() -> None:
        raise LookupError("still busy")

    with pytest.raises(LookupError, match="still busy"), TestClient(app) as client:
        client.get("/")


def test_a_client_can_be_used_again() -> None:
    client = TestClient(mirror_app())

    for _ in range(2):
        with client:
            assert client.get("/mirror").status == 200
        with pytest.raises(RuntimeError, match="`with`"):
            client.get("/mirror")


def test_an_app_has_several_clients_at_once() -> None:
    app = mirror_app()

    with TestClient(app) as first, TestClient(app, client=("10.0.0.7", 7)) as second:
        assert first.get("/mirror").json()["client"] == ["127.0.0.1", 50000]
        assert second.get("/mirror").json()["client"] == ["10.0.0.7", 7]
    with TestClient(app, client=None) as third:
        assert third.get("/mirror").json()["client"] is None


def test_mistakes_in_the_configuration_are_told() -> None:
    with pytest.raises(ConfigError, match="max_body_bytes"):
        TestClient(App(), max_body_byte=1)
    with pytest.raises(ConfigError, match="what a Server serves"):
        TestClient(7)
    with TestClient(App(), client=("testclient", 1)) as client, pytest.raises(ValueError, match="IP address"):
        client.get("/")


def test_requests_share_a_connection_one_after_the_other() -> None:
    app, seen = App(), set()

    @app.get("/")
    def index(request: Request) -> None:
        seen.add(request.client)

    with TestClient(app, max_connections=1) as client:
        for _ in range(20):
            assert client.get("/").status == 204
        assert client._server.metrics()
        assert client.get("/", headers={"connection": "close"}).status == 204
        assert client.get("/").status == 204


def test_threads_ask_at_the_same_time() -> None:
    app, meeting = App(), threading.Barrier(10)

    @app.get("/{number:int}")
    def index(number: int) -> int:
        meeting.wait(PATIENCE_S)
        return number

    with TestClient(app) as client, concurrent.futures.ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda number: client.get(f"/{number}").json(), range(100)))

    assert found == list(range(100))


def test_a_server_that_takes_too_long_is_an_error() -> None:
    app, go_on = App(), threading.Event()

    @app.get("/")
    async def index() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            go_on.set()

    with TestClient(app, timeout=0.2) as client:
        with pytest.raises(TimeoutError):
            client.get("/")
        # It is gone for the server, too.
        assert go_on.wait(PATIENCE_S)
        assert client.get("/nowhere", timeout=PATIENCE_S).status == 404


def test_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("a socket was used")

    for name in ("bind", "listen", "connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)

    with TestClient(mirror_app(), port=1) as client:
        assert client.get("/mirror").status == 200


def test_it_can_be_used_where_a_loop_runs() -> None:
    async def test() -> int:
        with TestClient(mirror_app()) as client:
            return client.get("/mirror").status

    assert asyncio.run(test()) == 200


@pytest.mark.slow
def test_a_client_that_waits_is_interrupted() -> None:
    code = """
import signal, threading
from httpy import App
from httpy.testing import TestClient
app = App()
@app.get("/")
def index():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    threading.Event().wait(0.5)
try:
    with TestClient(app, timeout=None, grace=0) as client:
        client.get("/")
except KeyboardInterrupt:
    print("interrupted")
"""
    if not hasattr(__import__("signal"), "pthread_kill"):
        pytest.skip("this system has no pthread_kill")
    run = subprocess.run(
        python("-c", code), env=environment(), stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S
    )

    assert run.stdout == "interrupted\n"


@pytest.mark.slow
def test_httpy_does_not_import_it() -> None:
    code = "import sys, httpy; httpy.App, httpy.Server; print([n for n in sys.modules if 'testing' in n])"

    assert subprocess.run(python("-c", code), stdout=subprocess.PIPE, text=True).stdout == "[]\n"


def test_pytest_does_not_take_it_for_a_test() -> None:
    assert not TestClient.__test__
    assert not AsyncTestClient.__test__


@pytest.mark.slow
def test_nothing_stays_of_clients_that_are_done() -> None:
    app = mirror_app()

    def use() -> None:
        with TestClient(app) as client:
            assert client.get("/mirror").status == 200

    use()
    gc.collect()
    threads, opened = threading.active_count(), descriptors()
    for _ in range(50):
        use()
    gc.collect()

    # What other tests have left may end meanwhile, or be opened once: a leak is one of each client.
    assert threading.active_count() - threads < 10
    assert descriptors() - opened < 10


def descriptors() -> int:
    """How many this process has open; 0 where that can't be told."""
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


# -- the connection ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def pipe_to(app: App) -> Iterator[_httpy.Pipe]:
    # A server that does not read does not see its client leave.
    with TestClient(app, grace=0) as client:
        pipe = client._server.memory.connect()
        yield pipe
        pipe.close()


def test_a_connection_takes_what_fits_and_then_waits_for_the_server() -> None:
    app = App()

    @app.post("/", stream=True)
    async def never_reads() -> None:
        await asyncio.Event().wait()

    # Twice 64 KiB: on the way, and read ahead by the server.
    with pipe_to(app) as pipe:
        pipe.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n", PATIENCE_S)
        pipe.write(b"x" * 65536, PATIENCE_S)
        with pytest.raises(TimeoutError, match="the server took too long"):
            pipe.write(b"x" * 1_000_000, 0.01)


def test_a_connection_is_quiet_until_something_comes() -> None:
    with pipe_to(mirror_app()) as pipe:
        assert pipe.is_quiet()
        pipe.write(b"GET /status/200 HTTP/1.1\r\nHost: a\r\n\r\n", None)
        answer = pipe.read(10, None)
        while not answer.endswith(b"said"):
            assert not pipe.is_quiet() or len(answer) > 10
            answer += pipe.read(100_000, PATIENCE_S)
        assert pipe.is_quiet()
        with pytest.raises(TimeoutError):
            pipe.read(10, 0)
        pipe.write(b"nonsense\r\n\r\n", PATIENCE_S)
        assert pipe.read(100_000, PATIENCE_S).startswith(b"HTTP/1.1 400 ")
        while pipe.read(100_000, PATIENCE_S):
            pass
        assert not pipe.is_quiet()


def test_closing_a_connection_wakes_who_waits_for_it() -> None:
    with pipe_to(mirror_app()) as pipe, concurrent.futures.ThreadPoolExecutor(1) as pool:
        reading = pool.submit(pipe.read, 10, None)
        pipe.close()

        assert reading.result(PATIENCE_S) == b""
        with pytest.raises(BrokenPipeError):
            pipe.write(b"x", None)


def test_a_server_that_has_stopped_refuses_connections() -> None:
    with TestClient(App()) as client:
        memory = client._server.memory

    with pytest.raises(ConnectionRefusedError):
        memory.connect()


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_is_a_number_of_seconds(timeout: float) -> None:
    with pipe_to(App()) as pipe, pytest.raises(ValueError, match="seconds"):
        pipe.read(1, timeout)


# -- other interfaces --------------------------------------------------------------------------------------------------


def test_an_asgi_app_is_served() -> None:
    events: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                events.append(kind)
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            message = await receive()
            await send({"type": "websocket.send", "text": message["text"].upper()})
            await send({"type": "websocket.close", "code": 4001})
        else:
            body = (await receive())["body"]
            await send({"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"1")]})
            await send({"type": "http.response.body", "body": scope["path"].encode() + body})

    with TestClient(app) as client:
        response = client.post("/ä", content=b"!")
        with client.websocket("/ws") as websocket:
            websocket.send("hello")
            said = list(websocket)

    assert (response.status, response.text, response.headers["x-a"]) == (201, "/ä!", "1")
    assert (said, websocket.close_code) == (["HELLO"], 4001)
    assert events == ["lifespan.startup", "lifespan.shutdown"]


def test_a_wsgi_app_is_served() -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("content-type", "text/plain")])
        return [environ["REQUEST_METHOD"].encode(), environ["wsgi.input"].read()]

    with TestClient(app) as client:
        assert client.put("/", content=b" it").text == "PUT it"


# -- WebSocket ---------------------------------------------------------------------------------------------------------


def socket_app() -> App:
    app = App()

    @app.websocket("/echo")
    async def echo(ws: WebSocket) -> None:
        await ws.accept(headers={"x-a": "1"})
        async for message in ws:
            await ws.send(message)

    @app.websocket("/blocking")
    def blocking(ws: BlockingWebSocket) -> None:
        ws.accept()
        for message in ws:
            ws.send(message)

    @app.websocket("/chat")
    async def chat(ws: WebSocket) -> None:
        await ws.accept(subprotocol=ws.subprotocols[-1] if ws.subprotocols else None)
        await ws.send_json(
            {"cookies": ws.cookies, "user": ws.headers.get("authorization"), "query": dict(ws.query)}
        )

    @app.websocket("/bye")
    async def bye(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send("one")
        await ws.close(4002, "enough")

    @app.websocket("/no")
    async def no(ws: WebSocket) -> None:
        await ws.reject({"detail": "not you"}, 401, {"www-authenticate": "Bearer"})

    @app.websocket("/room")
    async def room(ws: WebSocket) -> None:
        await ws.accept()
        await ws.join("red")
        await ws.send("joined")
        async for message in ws:
            await app.broadcast("red", message)

    @app.websocket("/crash")
    async def crash(ws: WebSocket) -> None:
        await ws.accept()
        raise ZeroDivisionError

    return app


@pytest.fixture(params=DRIVERS)
def sockets(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    with TestClient(socket_app(), loop=request.param) as client:
        yield client


@pytest.mark.parametrize("path", ["/echo", "/blocking"])
def test_messages_of_every_size_come_and_go(sockets: TestClient, path: str) -> None:
    with sockets.websocket(path) as ws:
        for message in [
            "",
            "ä",
            b"",
            b"\x00\xff",
            "x" * 125,
            "x" * 126,
            b"x" * 65535,
            b"x" * 65536,
            "x" * 900_000,
        ]:
            ws.send(message)
            assert ws.receive() == message

    assert (ws.close_code, ws.close_reason) == (1000, "")


def test_messages_have_kinds(sockets: TestClient) -> None:
    with sockets.websocket("/echo") as ws:
        ws.send_text("text")
        assert ws.receive_text() == "text"
        ws.send_bytes(bytearray(b"bytes"))
        assert ws.receive_bytes() == b"bytes"
        ws.send_json({"a": 1})
        assert ws.receive_json() == {"a": 1}
        ws.send_text("text")
        with pytest.raises(TypeError, match="text: 'text'"):
            ws.receive_bytes()
        ws.send_bytes(b"bytes")
        with pytest.raises(TypeError, match="binary"):
            ws.receive_text()
        ws.send("{")
        with pytest.raises(ValueError):
            ws.receive_json()
        assert ws.response_headers["x-a"] == "1"
        assert ws.response.status == 101


def test_a_message_may_come_in_parts(sockets: TestClient) -> None:
    with sockets.websocket("/echo") as ws:
        ws.send_frame(1, b"one ", fin=False)
        ws.ping("in between")
        ws.send_frame(0, b"two")

        assert ws.receive() == "one two"


def test_pings_are_answered_and_messages_before_the_pong_are_kept(sockets: TestClient) -> None:
    with sockets.websocket("/echo") as ws:
        ws.send("first")
        ws.ping(b"p")

        assert ws.receive() == "first"


def test_the_servers_pings_are_answered() -> None:
    app = App()

    @app.websocket("/ws")
    async def pinged(ws: WebSocket) -> None:
        await ws.accept()
        await ws.ping("are you there")
        await ws.send("done")
        await ws.receive()

    with TestClient(app) as client, client.websocket("/ws") as ws:
        assert ws.receive() == "done"
        ws.send("bye")


def test_what_is_offered_and_sent_with_the_handshake_arrives(sockets: TestClient) -> None:
    sockets.cookies["c"] = "1"
    with sockets.websocket(
        "/chat?a=1", ["soap", "wamp"], {"authorization": "me"}, params={"b": 2}, cookies={"d": "2"}
    ) as ws:
        assert ws.subprotocol == "wamp"
        found = ws.receive_json()
    with sockets.websocket("ws://testserver/chat") as ws:
        assert ws.subprotocol is None

    assert found == {"cookies": {"c": "1", "d": "2"}, "user": "me", "query": {"a": "1", "b": "2"}}


def test_the_servers_close_is_raised(sockets: TestClient) -> None:
    with sockets.websocket("/bye") as ws:
        assert ws.receive() == "one"
        for _ in range(2):
            with pytest.raises(WebSocketDisconnect) as caught:
                ws.receive()
            assert (caught.value.code, caught.value.reason) == (4002, "enough")
        with pytest.raises(WebSocketDisconnect):
            ws.send("too late")
    with sockets.websocket("/bye") as ws:
        assert list(ws) == ["one"]
    assert (ws.close_code, ws.close_reason) == (4002, "enough")


def test_the_clients_close_is_the_handlers_to_see() -> None:
    app, seen = App(), []

    @app.websocket("/ws")
    async def ends(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await ws.receive()
        except WebSocketDisconnect as end:
            seen.append((end.code, end.reason))

    with TestClient(app) as client:
        for code, reason in [(1000, ""), (4321, "ä reason"), (1005, "")]:
            with client.websocket("/ws") as ws:
                ws.close(code, reason)
        with pytest.raises(ZeroDivisionError), client.websocket("/ws"):
            raise ZeroDivisionError
        with client.websocket("/ws") as ws, pytest.raises(ValueError, match="123 bytes"):
            ws.close(1000, "x" * 124)

    assert seen == [(1000, ""), (4321, "ä reason"), (1005, ""), (1006, ""), (1000, "")]


def test_a_handshake_that_is_answered_otherwise_is_an_error(sockets: TestClient) -> None:
    with pytest.raises(WebSocketRejected, match="401 Unauthorized") as caught:
        sockets.websocket("/no")
    response = caught.value.response
    assert (response.status, response.json(), response.headers["www-authenticate"]) == (
        401,
        {"detail": "not you"},
        "Bearer",
    )
    with pytest.raises(WebSocketRejected) as caught:
        sockets.websocket("/nowhere")
    assert caught.value.response.status == 404
    with pytest.raises(WebSocketRejected) as caught:
        sockets.websocket("/echo", headers={"sec-websocket-version": "7"})
    assert caught.value.response.status == 426


def test_a_crash_closes_with_1011(sockets: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with sockets.websocket("/crash") as ws, pytest.raises(WebSocketDisconnect, match="1011"):
        ws.receive()

    assert "ZeroDivisionError" in caplog.text


def test_a_message_that_is_too_long_closes_with_1009() -> None:
    with TestClient(socket_app(), ws_max_message_bytes=100) as client, client.websocket("/echo") as ws:
        ws.send("x" * 100)
        assert ws.receive() == "x" * 100
        ws.send("x" * 101)
        with pytest.raises(WebSocketDisconnect, match="1009"):
            ws.receive()


def test_what_breaks_the_protocol_closes_with_1002(sockets: TestClient) -> None:
    with sockets.websocket("/echo") as ws:
        ws.send_frame(0, b"the rest of nothing")
        with pytest.raises(WebSocketDisconnect, match="1002"):
            ws.receive()


def test_who_waits_in_vain_is_told(sockets: TestClient) -> None:
    with sockets.websocket("/echo") as ws:
        with pytest.raises(TimeoutError):
            ws.receive(timeout=0.01)
        ws.send("still there")
        assert ws.receive() == "still there"


def test_what_is_said_in_a_room_comes_to_all(sockets: TestClient) -> None:
    with sockets.websocket("/room") as first, sockets.websocket("/room") as second:
        assert [first.receive(), second.receive()] == ["joined", "joined"]
        first.send("hello")

        assert [first.receive(), second.receive()] == ["hello", "hello"]


def test_one_thread_sends_while_another_receives(sockets: TestClient) -> None:
    messages = [f"{number} " + "x" * 5000 for number in range(200)]
    with sockets.websocket("/echo") as ws, concurrent.futures.ThreadPoolExecutor(1) as pool:
        received = pool.submit(lambda: [ws.receive() for _ in messages])
        for message in messages:
            ws.send(message)

        assert received.result(PATIENCE_S) == messages


def test_what_is_left_open_ends_with_the_client() -> None:
    app, ended = App(), threading.Event()

    @app.websocket("/ws")
    async def waits(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await ws.receive()
        except WebSocketDisconnect:
            ended.set()

    with TestClient(app) as client:
        ws: ClientWebSocket = client.websocket("/ws")
    assert ended.wait(PATIENCE_S)
    with pytest.raises(WebSocketDisconnect):
        ws.receive()


class Scripted:
    """A server that says what it is told to, behind the handshake of a real one."""

    def __init__(self, *data: bytes) -> None:
        self._data = [*data, b""]

    def read1(self, size: int) -> bytes:
        return self._data.pop(0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x81abcd\x00", 1002),  # masked
        (b"\xc1\x00", 1002),  # a reserved bit
        (b"\x83\x00", 1002),  # no such opcode
        (b"\x80\x00", 1002),  # continues nothing
        (b"\x01\x00\x81\x00", 1002),  # a message inside of another
        (b"\x09\x00", 1002),  # a ping in parts
        (b"\x89\x7e\x00\x7e", 1002),  # a long ping
        (b"\x88\x01\x03", 1002),  # half a close code
        (b"\x81\x01\xff", 1007),  # not UTF-8
    ],
)
def test_a_server_that_breaks_the_protocol_is_an_error(sockets: TestClient, data: bytes, code: int) -> None:
    ws = sockets.websocket("/echo")
    ws._file = Scripted(data)

    with pytest.raises(ProtocolError) as caught:
        ws.receive()

    assert caught.value.code == code


def test_frames_may_come_byte_by_byte(sockets: TestClient) -> None:
    ws = sockets.websocket("/echo")
    frames = b"\x01\x01a\x00\x01b\x80\x01c\x82\x7e\x00\x80" + b"d" * 128 + b"\x82\x7f" + bytes(7) + b"\x01e"
    ws._file = Scripted(*(bytes([byte]) for byte in frames))

    assert list(ws) == ["abc", b"d" * 128, b"e"]
    assert ws.close_code == 1006


# -- coroutines --------------------------------------------------------------------------------------------------------


def test_coroutines_have_all_of_it() -> None:
    app = redirect_app()
    app.mount("/ws", socket_app())

    async def test() -> None:
        async with AsyncTestClient(app, headers={"x-a": "1"}, follow_redirects=True) as client:
            for method in METHODS:
                response = await getattr(client, method.lower())("/mirror", params={"a": 1})
                assert response.json()["method"] == method
            assert (await client.head("/mirror")).status == 200
            assert (await client.post("/mirror", json=[1])).json()["body"] == "[1]"
            assert (await client.get("/to?status=302&url=/mirror")).json()["headers"]["x-a"] == "1"
            await client.get("/set?a=1")
            assert dict(client.cookies) == {"a": "1"}
            assert client.base_url == "http://testserver"

            async def content() -> AsyncIterator[bytes]:
                yield b"one "
                await asyncio.sleep(0)
                yield b"two"

            assert (await client.put("/mirror", content=content())).json()["body"] == "one two"

            async with client.websocket("/ws/echo") as ws:
                for message in ("text", b"bytes", "x" * 300_000):
                    await ws.send(message)
                    assert await ws.receive() == message
                await ws.send_json({"a": 1})
                assert await ws.receive_json() == {"a": 1}
                await ws.send_text("t")
                assert await ws.receive_text() == "t"
                await ws.send_bytes(b"b")
                assert await ws.receive_bytes() == b"b"
                await ws.ping("p")
                assert ws.response_headers["x-a"] == "1"
            assert (ws.close_code, ws.close_reason, ws.subprotocol) == (1000, "", None)
            async with client.websocket("/ws/bye") as ws:
                assert [message async for message in ws] == ["one"]
            assert ws.close_code == 4002
            with pytest.raises(WebSocketRejected):
                async with client.websocket("/ws/no"):
                    pytest.fail("it opened")
        with pytest.raises(RuntimeError, match="`async with`"):
            await client.get("/mirror")

    asyncio.run(test())


def test_the_app_runs_in_the_loop_of_the_test() -> None:
    app = App()

    async def test() -> None:
        loop, asked, answer = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

        @app.get("/")
        async def index() -> bool:
            asked.set()
            await answer.wait()
            return asyncio.get_running_loop() is loop

        async with AsyncTestClient(app) as client:
            waiting = [asyncio.create_task(client.get("/")) for _ in range(50)]
            await asked.wait()
            answer.set()
            assert [(await one).json() for one in waiting] == [True] * 50

    asyncio.run(test())


def test_a_stream_is_read_by_coroutines_as_it_comes() -> None:
    app = App()

    async def test() -> None:
        go_on = asyncio.Event()

        @app.get("/")
        async def index() -> AsyncIterator[str]:
            yield "first\n"
            await go_on.wait()
            yield "second\nthird"

        async with AsyncTestClient(app) as client:
            async with client.stream("GET", "/") as response:
                assert (response.status, response.status_code) == (200, 200)
                lines = response.iter_lines()
                assert await lines.__anext__() == "first"
                go_on.set()
                assert [line async for line in lines] == ["second", "third"]
            async with client.stream("GET", "/") as response:
                assert await response.read() == b"first\nsecond\nthird"
                assert "content-type" in response.headers
            async with client.stream("GET", "/") as response:
                assert "".join([text async for text in response.iter_text()]) == "first\nsecond\nthird"

    asyncio.run(test())


def test_a_cancelled_request_is_gone_for_the_app_too() -> None:
    app = App()

    async def test() -> None:
        asked, left = asyncio.Event(), asyncio.Event()

        @app.get("/")
        async def index() -> None:
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                left.set()

        async with AsyncTestClient(app) as client:
            request = asyncio.create_task(client.get("/"))
            await asked.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            await asyncio.wait_for(left.wait(), PATIENCE_S)

    asyncio.run(test())


def test_content_that_never_comes_can_be_cancelled() -> None:
    async def test() -> None:
        reached = asyncio.Event()

        async def content() -> AsyncIterator[bytes]:
            yield b"some"
            reached.set()
            await asyncio.Event().wait()

        async with AsyncTestClient(mirror_app()) as client:
            request = asyncio.create_task(client.post("/mirror", content=content()))
            await reached.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request

    asyncio.run(test())


def test_coroutines_hear_of_failures_at_startup_and_shutdown() -> None:
    app = App()

    @app.on_shutdown
    def stop() -> None:
        raise LookupError("still busy")

    async def test() -> None:
        with pytest.raises(LookupError, match="still busy"):
            async with AsyncTestClient(app):
                pass
        app.on_startup(lambda: (_ for _ in ()).throw(LookupError("no database")))
        with pytest.raises(LookupError, match="no database"):
            async with AsyncTestClient(app):
                pytest.fail("it started")

    asyncio.run(test())
