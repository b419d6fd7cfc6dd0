"""Two other parsers read the same bytes: llhttp (by `httptools`) and h11.

A request that HTTPy takes and another server on the path refuses, or reads in another way, is what smuggling is made
of. So random requests, valid ones with something wrong here and there, go to a running server and to these parsers.
Whatever HTTPy answers with its app, they have to accept too, and to read the same method, target and content from it.
What HTTPy refuses and they accept is no matter: it is meant to be the strictest.

Where they differ with a good reason, that is in `EXPLAINED`.

`make second-parser EXAMPLES=50000` tries more, and other ones each time.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from httpy import App, Request, Response, Server

h11 = pytest.importorskip("h11")
httptools = pytest.importorskip("httptools")

EXAMPLES = int(os.environ.get("SECOND_PARSER_EXAMPLES", "0"))
"""How many requests to try; 0 is few, and always the same."""

END = b"GET /end HTTP/1.1\r\nHost: end\r\nConnection: close\r\n\r\n"
"""What is sent last: it arrives as a request only if all agree on where the one before it ended."""

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]


@dataclass(frozen=True)
class Message:
    """A request, as somebody has read it. None: unknown."""

    method: str
    target: str
    content: Optional[bytes]


@dataclass
class Reading:
    """What somebody has made of a connection's bytes."""

    messages: list[Message] = field(default_factory=list)
    refusal: Optional[str] = None
    is_closed: bool = False
    """Whether it has stopped behind a message that said so."""
    is_left: bool = False
    """Whether it has stopped, and leaves what follows to others."""


# What HTTPy makes of it


def echo(request: Request, content: Optional[bytes]) -> Response:
    target = (request.raw_path + b"?" + request.query_string).decode("latin-1")
    seen = [request.method, target, None if content is None else content.hex()]
    return Response(headers={"x-echo": base64.b64encode(json.dumps(seen).encode()).decode()})


def make_app() -> App:
    app = App()

    async def everything(request: Request) -> Response:
        return echo(request, request.body)

    async def nothing(request: Request) -> Response:
        return echo(request, None)

    app.add_route(METHODS[0], "/", everything)
    for method in METHODS[1:]:
        app.add_route(method, "/", everything)
    for method in METHODS:
        app.add_route(method, "/{path:path}", everything)
    # What the router refuses is a proper request: another method, a path that is not UTF-8.
    for status in (400, 404, 405):
        app.error(status)(nothing)
    return app


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with Server(make_app(), port=0, loop="auto") as server:
        yield server.port


def ask(port: int, data: bytes) -> Reading:
    """Sends bytes and the end of the stream, and reads what the app has seen of them."""
    answers = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while True:
                received = connection.recv(65536)
                if not received:
                    break
                answers += received
        except ConnectionError:
            pass
    reading = Reading()
    for head in re.split(rb"\r\n\r\n", answers):
        status = re.match(rb"HTTP/1\.[01] (\d+)", head)
        seen = re.search(rb"\r\nx-echo: (\S+)", head)
        if seen:
            method, target, content = json.loads(base64.b64decode(seen[1]))
            content = None if content is None else bytes.fromhex(content)
            reading.messages.append(Message(method, target.rstrip("?"), content))
        elif status and status[1] == b"204":
            # What the router answers by itself.
            reading.messages.append(Message("OPTIONS", "*", None))
        elif status and status[1] != b"100":
            reading.refusal = head.decode("latin-1")
    return reading


# What others make of it


def read_by_llhttp(data: bytes) -> Reading:
    reading = Reading()
    target, content = b"", b""

    class Events:
        def on_message_begin(self) -> None:
            nonlocal target, content
            target, content = b"", b""

        def on_url(self, part: bytes) -> None:
            nonlocal target
            target += part

        def on_body(self, part: bytes) -> None:
            nonlocal content
            content += part

        def on_message_complete(self) -> None:
            message = Message(parser.get_method().decode("latin-1"), path(target), content)
            reading.messages.append(message)
            reading.is_closed = not parser.should_keep_alive()

    parser = httptools.HttpRequestParser(Events())
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        # RFC 9110 §7.8: a server may ignore the wish, and HTTPy does. httptools leaves even the content to others.
        last = reading.messages.pop()
        reading.messages.append(Message(last.method, last.target, None))
        reading.is_left = True
    except httptools.HttpParserError as error:
        if not reading.is_closed:
            reading.refusal = str(error)
    return reading


def read_by_h11(data: bytes) -> Reading:
    reading = Reading()
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=128 * 1024)
    request: Any = None
    content = b""
    try:
        connection.receive_data(data)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request, content = event, b""
            elif isinstance(event, h11.Data):
                content += event.data
            elif isinstance(event, h11.EndOfMessage):
                method, target = request.method.decode("latin-1"), path(request.target)
                reading.messages.append(Message(method, target, content))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE:
                    reading.is_closed = True
                    return reading
                connection.start_next_cycle()
            else:
                return reading
    except h11.RemoteProtocolError as error:
        reading.refusal = str(error)
    except h11.LocalProtocolError:
        # This answer is not one to CONNECT.
        reading.is_closed = True
    return reading


def path(target: bytes) -> str:
    """The path and query of a target of any form; question marks at its end don't count."""
    text = target.decode("latin-1")
    absolute = re.match(r"(?i)https?://[^/?]*(.*)", text)
    if absolute:
        text = absolute[1] if absolute[1].startswith("/") else f"/{absolute[1]}"
    return text.rstrip("?")


# Where they differ


@dataclass(frozen=True)
class Explained:
    """A difference that is meant.

    Attributes:
        parser: Who differs.
        reason: Why HTTPy is right, or the other is not asked.
        says: What the other one says; a regular expression.
        data: What is in the bytes that it says that of; a regular expression.
    """

    parser: str
    reason: str
    says: str
    data: bytes = b""

    def covers(self, parser: str, says: str, data: bytes) -> bool:
        """Whether this is the difference."""
        return self.parser == parser and bool(re.search(self.says, says)) and bool(re.search(self.data, data))


EXPLAINED = [
    Explained(
        "llhttp",
        "RFC 9110 §9.1: methods are extensible; llhttp has a list of those that it knows",
        r"^(Invalid method encountered|Expected .*method.*)$",
    ),
    Explained(
        "llhttp",
        "RFC 9110 §2.5: a later minor version is to be processed as the highest that is known",
        r"^Invalid HTTP version$",
        rb" HTTP/1\.[2-9]\r\n",
    ),
    Explained(
        "h11",
        "RFC 9112 §9.3: HTTP/1.0 clients may ask to keep the connection; h11 keeps none",
        r"^has closed$",
        rb"(?is) HTTP/1\.0\r\n.*connection: *keep-alive",
    ),
    Explained(
        "h11",
        "RFC 9112 §2.2: empty lines before the request line are to be ignored; llhttp and most servers do",
        r"^no request line received$",
        rb"\r\n\r\n",
    ),
]

READERS: dict[str, Callable[[bytes], Reading]] = {"llhttp": read_by_llhttp, "h11": read_by_h11}


def differences(ours: Reading, data: bytes) -> Iterator[str]:
    """What others do not accept, or read in another way."""
    for name, read in READERS.items():
        theirs = read(data)
        for number, message in enumerate(ours.messages):
            if number >= len(theirs.messages):
                if theirs.is_left:
                    break
                says = theirs.refusal or ("has closed" if theirs.is_closed else "waits for more")
                # Answered before all of its content had come, and so the last.
                is_early = (
                    message.content is None and message is ours.messages[-1] and says == "waits for more"
                )
                if not is_early and not any(known.covers(name, says, data) for known in EXPLAINED):
                    yield f"{name} ({says}) does not accept request {number + 1}, which HTTPy reads as {message}"
                break
            other = theirs.messages[number]
            contents = (message.content, other.content)
            is_same = (message.method, message.target) == (other.method, other.target)
            if not is_same or (None not in contents and contents[0] != contents[1]):
                yield f"{name} reads request {number + 1} as {other}, HTTPy as {message}"
                break


# What is tried


def rows() -> list[bytes]:
    """The requests that the strict check is tested with, refused ones and accepted ones."""
    text = (Path(__file__).parent.parent / "tests" / "h1" / "strict.rs").read_text("utf-8")
    escape = re.compile(r"\\(?:u\{(\w+)\}|\n\s*|(.))")
    plain = {"r": "\r", "n": "\n", "t": "\t", "0": "\0"}
    found = []
    for literal in re.findall(r'"((?:[^"\\]|\\.|\\\n)*)"', text):
        request = escape.sub(
            lambda match: chr(int(match[1], 16)) if match[1] else plain.get(match[2] or "", match[2] or ""),
            literal,
        ).encode("latin-1", "replace")
        if re.match(rb"[0-9a-fA-F\\x+\- ]+[;\r\n]", request):
            request = b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + request
        if b"\r\n" in request:
            found.append(request)
    return found


ROWS = rows()

tokens = st.sampled_from(
    [
        *(bytes([byte]) for byte in b'\r\n \t\0\x0b\x0c\x1f\x7f\x80\x85\xa0\xff:;,+-_015aG%#?/\\"=*@[]'),
        *(
            b"\r\n",
            b"\r\n\r\n",
            b"0x",
            b"%0a",
            b"HTTP/1.1",
            b"HTTP/1.0",
            b"HTTP/1.2",
            b"http://",
            b"GET ",
            b"POST ",
        ),
        *(b"chunked", b"gzip, ", b"18446744073709551616", b"99999999999999999999", b"00000000000000000"),
        *(
            b"Content-Length: 5\r\n",
            b"Content-Length: 0\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Host: b\r\n",
        ),
        *(b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n"),
        *(b"Expect: 100-continue\r\n", b"Trailer: x\r\n", b"X: y\r\n", b" folded\r\n"),
        *(b"0\r\n\r\n", b"1\r\nx\r\n", b"1;a=b\r\n", b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A valid request."""
    method = draw(st.sampled_from(METHODS))
    target = draw(
        st.sampled_from(["/", "/a/b", "/%41?b=c&d", "/a?", "http://b/", "http://b:80/c?d", "HTTPS://[::1]"])
    )
    if method == "OPTIONS" and draw(st.booleans()):
        target = "*"
    version = draw(st.sampled_from(["1.1"] * 8 + ["1.0"]))
    lines = [
        f"{method} {target} HTTP/{version}",
        draw(st.sampled_from(["Host: a", "host:a:80", "HOST: \t[::1]:8000 "])),
    ]
    lines += draw(
        st.lists(
            st.sampled_from(
                [
                    "X: y", "X:", "x-empty: ", "Accept: */*;q=0.1", "Connection: keep-alive", "Cookie: a=b; c=\"d\"",
                    "Expect: 100-continue", "TE: trailers", "X: \t a\tb \t", "!#$%&'*+-.^_`|~: z", "X: \xe9\xff",
                ]
            ),
            max_size=3,
        )
    )  # fmt: skip
    content = draw(st.sampled_from([b"", b"x", b"01234", b"\r\n\r\n", END, b"0\r\n\r\n"]))
    framing = draw(st.sampled_from(["none", "length", "chunked"] if version == "1.1" else ["none", "length"]))
    if framing == "none":
        content = b""
    elif framing == "length":
        lines.insert(draw(st.integers(1, len(lines))), f"Content-Length: {len(content)}")
    else:
        lines.insert(draw(st.integers(1, len(lines))), "Transfer-Encoding: chunked")
        content = draw(chunks(content))
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content


@st.composite
def chunks(draw: st.DrawFn, content: bytes) -> bytes:
    """Content in chunks."""
    extension = st.sampled_from([b""] * 4 + [b";a", b";a=b", b';a="b;\\" c"', b";a;b=c"])
    cut = draw(st.integers(0, len(content)))
    coded = b""
    for part in filter(None, [content[:cut], content[cut:]]):
        size = draw(st.sampled_from([b"%x", b"%X", b"%03x", b"%016x"])) % len(part)
        coded += size + draw(extension) + b"\r\n" + part + b"\r\n"
    trailers = draw(st.sampled_from([b""] * 3 + [b"A: b\r\n", b"A: b\r\nx-sum: 1\r\n"]))
    return coded + draw(st.sampled_from([b"0", b"000"])) + draw(extension) + b"\r\n" + trailers + b"\r\n"


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """Valid requests and the rows of the strict check, with something wrong here and there."""
    data = b"".join(draw(st.lists(requests() | st.sampled_from(ROWS), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([0, 0, 0, 1, 1, 2, 5]))
        way = draw(st.sampled_from(["put", "put", "put", "cut", "twice", "case"]))
        if way == "put":
            data = data[:at] + draw(tokens) + data[at + length :]
        elif way == "cut":
            data = data[:at] + data[at + max(length, 1) :]
        elif way == "twice":
            data = data[:at] + data[at - length : at] + data[at:]
        else:
            data = data[:at] + data[at : at + 10].swapcase() + data[at + 10 :]
    return data


def test_the_rows_were_found() -> None:
    assert len(ROWS) > 250
    assert any(row.endswith(b"-1\r\nx\r\n0\r\n\r\n") for row in ROWS)
    assert any(b"\xff" in row for row in ROWS)


def check(port: int, data: bytes) -> int:
    """Returns how many requests HTTPy has accepted."""
    ours = ask(port, data + END)
    found = list(differences(ours, data + END))
    assert not found, "\n".join([repr(data), *found])
    return len(ours.messages)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: repr(row)[2:60])
def test_no_row_is_accepted_by_us_alone(port: int, row: bytes) -> None:
    check(port, row)


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES or 500,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=mutations())
@example(data=b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
def test_nothing_is_accepted_by_us_alone(port: int, data: bytes) -> None:
    event(f"{check(port, data)} requests accepted")
