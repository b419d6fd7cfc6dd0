"""The extensions of ASGI that a hosted app is offered, as they are on the wire, by HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import h2.events
import httpx
import pytest

from authority import Authority
from httpy import ASGI, Server
from support import PATIENCE_S
from test_h2 import Peer, contents

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
END: Message = {"type": "http.response.body", "body": b"end"}
PUSH: Message = {"type": "http.response.push", "path": "/style.css?a=b", "headers": [(b"x-why", b"pushed")]}
HINT: Message = {
    "type": "http.response.early_hint",
    "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"],
}


def saying(*messages: Message) -> ASGI:
    """An app that says the same to all but a pushed request, which is told its path."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] == "/style.css":
            await send(START)
            headers = dict(scope["headers"])
            body = b"%s %s %s" % (scope["raw_path"], scope["query_string"], headers[b"x-why"])
            await send({**END, "body": body})
            return
        for message in messages:
            await send(message)

    return ASGI(app, lifespan="off", debug=True)


def telling() -> ASGI:
    """An app that answers with the extensions that it is offered."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(START)
        await send({**END, "body": json.dumps(scope["extensions"]).encode()})

    return ASGI(app, lifespan="off")


def raw(port: int, *lines: bytes) -> bytes:
    """All that comes back by HTTP/1.1 for a request that closes its connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + b"".join(lines) + b"\r\n")
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
        return found


def test_a_push_is_a_promise_and_the_apps_own_answer(driver: str) -> None:
    with Server(saying(START, PUSH, END), port=0, loop=driver) as server, Peer(server.port) as peer:
        stream = peer.get("/")
        events = peer.events(until=2)

    (push,) = (event for event in events if isinstance(event, h2.events.PushedStreamReceived))
    assert push.parent_stream_id == stream
    assert dict(push.headers)[":path"] == "/style.css?a=b"
    assert dict(push.headers)["x-why"] == "pushed"
    found = contents(events)
    assert (found[stream], found[push.pushed_stream_id]) == (b"end", b"/style.css a=b pushed")


def test_hints_are_ahead_of_the_response(driver: str) -> None:
    app = saying(HINT, START, END)
    with Server(app, port=0, loop=driver, h1_early_hints=True) as server, Peer(server.port) as peer:
        peer.get("/")
        events = peer.events(until=1)
        found = raw(server.port)

    (hint,) = (event for event in events if isinstance(event, h2.events.InformationalResponseReceived))
    assert hint.headers == [
        (":status", "103"),
        ("link", "</a.css>; rel=preload"),
        ("link", "</b.js>; rel=preload"),
    ]
    assert found.startswith(
        b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n"
        b"HTTP/1.1 200 OK\r\n"
    )


def test_trailers_are_behind_the_content(driver: str) -> None:
    trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"7")]}
    start = {**START, "trailers": True, "headers": [(b"trailer", b"x-sum")]}
    with Server(saying(start, END, trailers), port=0, loop=driver) as server, Peer(server.port) as peer:
        peer.get("/", ("te", "trailers"))
        events = peer.events(until=1)
        found = raw(server.port, b"TE: trailers\r\n")

    (section,) = (event for event in events if isinstance(event, h2.events.TrailersReceived))
    assert section.headers == [("x-sum", "7")]
    assert found.endswith(b"3\r\nend\r\n0\r\nx-sum: 7\r\n\r\n")


def test_http_1_has_the_trailers_that_were_announced() -> None:
    """RFC 9110 §6.6.2: `Trailer` names them."""
    fields = [(b"x-sum", b"7"), (b"x-other", b"8")]
    start = {**START, "trailers": True, "headers": [(b"trailer", b"x-sum")]}
    app = saying(start, END, {"type": "http.response.trailers", "headers": fields})
    with Server(app, port=0) as server:
        found = raw(server.port, b"TE: trailers\r\n")

    assert found.endswith(b"3\r\nend\r\n0\r\nx-sum: 7\r\n\r\n")


def test_files_are_sent_by_path_and_by_descriptor(driver: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789" * 20_000)
    by_path = saying(START, {"type": "http.response.pathsend", "path": str(path)})
    with open(path, "rb") as file:
        part = {"type": "http.response.zerocopysend", "file": file.fileno(), "offset": 5, "count": 10}
        by_descriptor = saying(START, {**part, "more_body": True}, END)
        for app, expected in ((by_path, path.read_bytes()), (by_descriptor, b"5678901234end")):
            with Server(app, port=0, loop=driver) as server, Peer(server.port) as peer:
                stream = peer.get("/")
                assert contents(peer.events(until=1))[stream] == expected
                response = httpx.get(server.url, timeout=PATIENCE_S, trust_env=False)
                assert response.content == expected


def test_debug_information_is_not_sent() -> None:
    app = saying({"type": "http.response.debug", "info": {"secret": "x"}}, START, END)
    with Server(app, port=0) as server, Peer(server.port) as peer:
        stream = peer.get("/")
        events = peer.events(until=1)
        found = raw(server.port)

    assert contents(events)[stream] == b"end"
    assert b"secret" not in found
    assert found.endswith(b"\r\n\r\nend")


@pytest.mark.parametrize("http2", [False, True])
def test_tls_is_told_with_its_version_and_cipher(http2: bool, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.sign("DNS:localhost", "IP:127.0.0.1")
    with (
        Server(telling(), port=0, certfile=chain, keyfile=key) as server,
        httpx.Client(
            verify=ssl.create_default_context(cafile=authority.file),
            http1=not http2,
            http2=http2,
            trust_env=False,
        ) as client,
    ):
        extensions = client.get(f"https://localhost:{server.port}/").json()

    assert extensions["tls"] == {
        "server_cert": None,
        "client_cert_chain": [],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": 0x0304,
        "cipher_suite": extensions["tls"]["cipher_suite"],
    }
    assert extensions["tls"]["cipher_suite"] in (0x1301, 0x1302, 0x1303)


def test_without_tls_there_is_no_such_extension() -> None:
    with Server(telling(), port=0) as server, Peer(server.port) as peer:
        stream = peer.get("/")
        by_http_2 = json.loads(contents(peer.events(until=1))[stream])
        by_http_1 = httpx.get(server.url, timeout=PATIENCE_S, trust_env=False).json()

    assert "tls" not in by_http_2
    assert "tls" not in by_http_1
    # What a protocol can't carry is not offered.
    assert {"http.response.push", "http.response.early_hint"} <= set(by_http_2)
    assert not {"http.response.push", "http.response.early_hint"} & set(by_http_1)
