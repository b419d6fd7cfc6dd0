"""Strictness as an app's clients and its author see it: what is refused never reaches the app, and what the app
answers can't be torn apart by what a user has typed. The table of refusals itself is tested in `tests/h1/strict.rs`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from httpy import (
    App,
    HTTPError,
    JSONResponse,
    RedirectResponse,
    Request,
    Response,
    ResponseBuilder,
    Server,
    StreamingResponse,
    created,
    redirect,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def exchange(port: int, data: bytes) -> bytes:
    """Sends bytes and reads until the server closes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        while True:
            received = connection.recv(65536)
            if not received:
                return answer
            answer += received


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# What is refused


@pytest.fixture(params=["selector", "thread"])
def reached(request: pytest.FixtureRequest) -> Iterator[tuple[int, list[str]]]:
    """A server's port, and the requests that have reached its app."""
    seen: list[str] = []
    app = App()

    @app.route("/", methods=["GET", "POST"])
    async def index(request: Request) -> str:
        seen.append(f"{request.method} {request.path}")
        return "Hello"

    @app.post("/stream", stream=True)
    async def stream(request: Request) -> str:
        async for _ in request.stream():
            pass
        seen.append("all of the content")
        return "Hello"

    @app.post("/nothing", inline=True)
    def nothing() -> str:
        seen.append("nothing")
        return "Hello"

    with Server(app, port=0, loop=request.param) as server:
        yield server.port, seen


@pytest.mark.parametrize(
    ("expected", "data"),
    [
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\nHost: a\n\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n"),
        (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /?a=%2 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
        (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (501, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
        (
            400,
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx"),
        (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (417, b"POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\nx"),
        (400, CHUNKED + b"+1\r\nx\r\n0\r\n\r\n"),
        (400, CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n"),
        (400, CHUNKED + b"10000000000000001\r\nx\r\n0\r\n\r\n"),
        (400, CHUNKED + b"1\nx\r\n0\r\n\r\n"),
        (400, CHUNKED + b"1;" + b"a" * 20_000 + b"\r\nx\r\n0\r\n\r\n"),
        (400, CHUNKED + b"1\r\nx\r\n0\r\nContent-Length: 5\r\n\r\n"),
        (400, CHUNKED + b"1\r\nx\r\n0\r\nHost: b\r\n\r\n"),
        (400, CHUNKED.replace(b" / ", b" /stream ") + b"1\r\nxx\r\n0\r\n\r\n"),
        (400, CHUNKED.replace(b" / ", b" /nothing ") + b"-1\r\n"),
    ],
)
def test_what_is_refused_does_not_reach_the_app_and_ends_the_connection(
    reached: tuple[int, list[str]], expected: int, data: bytes
) -> None:
    port, seen = reached

    answer = exchange(port, data + GET)

    assert status(answer) == expected
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nconnection: close\r\n" in answer
    assert [line for line in seen if line != "nothing"] == []


# RFC 9110 §15.5.6
def test_an_unknown_method_is_405_and_no_malformed_request(reached: tuple[int, list[str]]) -> None:
    port, seen = reached

    answer = exchange(
        port, b"BREW / HTTP/1.1\r\nHost: a\r\n\r\nget / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )

    assert answer.count(b"HTTP/1.1 405 Method Not Allowed\r\n") == 2
    assert answer.count(b"\r\nallow: GET, HEAD, OPTIONS, POST\r\n") == 2
    assert seen == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "data", "expected"),
    [
        ({"head_timeout": 0.3}, b"GET / HTTP/1.1\r\n", 408),
        ({"body_timeout": 0.3}, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx", 408),
        ({"keep_alive_timeout": 0.3}, GET, 200),
        ({"keep_alive_timeout": 0.0}, GET, 200),
        ({"max_field_bytes": 10}, b"GET / HTTP/1.1\r\nHost: a\r\nX: 12345678\r\n\r\n", 431),
    ],
)
def test_clients_that_pass_a_limit_are_closed(config: dict[str, Any], data: bytes, expected: int) -> None:
    app = App()
    app.route("/", methods=["GET", "POST"])(lambda: "Hello")

    with Server(app, port=0, **config) as server:
        start = time.monotonic()
        answer = exchange(server.port, data)

    assert status(answer) == expected
    assert time.monotonic() - start < 5


@pytest.mark.slow
def test_a_client_that_takes_nothing_is_given_up() -> None:
    closed: list[float] = []
    app = App()

    @app.get("/")
    async def endless() -> StreamingResponse:
        async def chunks() -> Any:
            try:
                while True:
                    yield b"x" * 65536
            finally:
                closed.append(time.monotonic())

        return StreamingResponse(chunks())

    with Server(app, port=0, write_timeout=0.3) as server, socket.socket() as connection:
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(GET)
        start = time.monotonic()
        while not closed and time.monotonic() - start < 8:
            time.sleep(0.01)

    assert closed
    assert closed[0] - start >= 0.3


# What is answered

EVIL = [
    "a\r\nX-Evil: 1",
    "a\nX-Evil: 1",
    "a\rX-Evil: 1",
    "a\r\n\r\n<script>",
    "\r\n X-Evil: 1",
    "a\0b",
    "a\x0bb",
    "a\x7fb",
    # What some encoders make CR and LF of.
    "\u560d\u560aX-Evil: 1",
    "\u010d\u010aX-Evil: 1",
]


def with_cookie(**values: str) -> Response:
    response = Response("x")
    response.set_cookie(**{"name": "n", "value": "v", **values})  # type: ignore[arg-type]
    return response


def with_field(value: str) -> Response:
    response = Response("x")
    response.headers["x"] = value
    return response


def fails(error: Exception) -> Any:
    raise error


MAKERS: dict[str, Callable[[str], Any]] = {
    "field": lambda text: Response("x", headers={"x": text}),
    "field of JSON": lambda text: JSONResponse({}, headers={"x": text}),
    "field set later": with_field,
    "field by the builder": lambda text: ResponseBuilder().header("x", text).text("x").build(),
    "field in a tuple": lambda text: ("x", 200, {"x": text}),
    "field of an error": lambda text: fails(HTTPError(400, "x", headers={"x": text})),
    "name of a field": lambda text: Response("x", headers={text: "x"}),
    "media type": lambda text: Response("x", media_type=text),
    "redirect": lambda text: RedirectResponse(text),
    "redirect below a path": lambda text: redirect(f"/{text}"),
    "location": lambda text: created({}, location=text),
    "cookie's name": lambda text: with_cookie(name=text),
    "cookie's value": lambda text: with_cookie(value=text),
    "cookie's path": lambda text: with_cookie(path=text),
    "cookie's domain": lambda text: with_cookie(domain=text),
    "detail of an error": lambda text: fails(HTTPError(400, text)),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_no_response_is_split_by_what_a_user_has_typed(make: Callable[[str], Any]) -> None:
    typed = ""
    app = App()
    app.error(500)(lambda: "not sent")

    @app.get("/")
    async def index() -> Any:
        return make(typed)

    with Server(app, port=0) as server:
        for evil in EVIL:
            typed = evil
            answer = exchange(server.port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

            head, _, content = answer.partition(b"\r\n\r\n")
            fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
            assert len(content) == int(fields[b"content-length"])
            assert set(fields) <= {
                b"content-type", b"content-length", b"date", b"connection", b"location", b"set-cookie", b"x",
            }  # fmt: skip
            assert not any(byte < 0x20 or byte == 0x7F for byte in head.replace(b"\r\n", b""))


def test_what_cant_be_sent_is_a_mistake_where_it_is_made() -> None:
    for make in (MAKERS["field"], MAKERS["name of a field"], MAKERS["media type"], MAKERS["cookie's path"]):
        with pytest.raises(ValueError, match=r"control character|not a token|would end it"):
            make("a\r\nb")


# RFC 9110 §10.2.2: the address that was asked for comes back, as it was encoded.
def test_the_redirect_to_the_other_slash_keeps_what_is_encoded() -> None:
    app = App()
    app.get("/{name}/")(lambda name: name)

    with Server(app, port=0) as server:
        answer = exchange(
            server.port,
            b"GET /a%0d%0aX-Evil:1?b=%0d%0aX-Evil:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )

    assert answer.startswith(b"HTTP/1.1 308 ")
    assert b"\r\nlocation: /a%0d%0aX-Evil:1/?b=%0d%0aX-Evil:1\r\n" in answer
