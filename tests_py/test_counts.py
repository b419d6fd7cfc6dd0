"""What a server counts of clients that it sends away.

That each attack is met in the right way is tested in `tests/h2` and `tests/tls`.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from crew import wait_for
from httpy import App, Request, Server, _httpy
from support import PATIENCE_S

DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0x0, 0x1, 0x3, 0x4, 0x6
END_STREAM, END_HEADERS = 0x1, 0x4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Of HPACK's own table (RFC 7541 appendix A): the method, http, and an authority of one letter; then the path.
GET, POST = b"\x82\x86\x41\x01a", b"\x83\x86\x41\x01a"
ROOT, NEVER = b"\x84", b"\x04\x06/never"


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """RFC 9113 section 4.1."""
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def head(fields: bytes, *, stream: int = 1, flags: int = END_STREAM | END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, fields)


OPEN = PREFACE + frame(SETTINGS, 0, 0)
NO_WINDOW = PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
RESETS = b"".join(
    head(GET + NEVER, stream=stream) + frame(RST_STREAM, 0, stream, bytes(4)) for stream in range(1, 201, 2)
)
EMPTY = head(POST + ROOT, flags=END_HEADERS) + frame(DATA, 0, 1) * 101
# What is sent, and the limits that make it quick.
ATTACKS: dict[str, tuple[bytes, dict[str, float]]] = {
    "h2_idle_frames": (OPEN + frame(PING, 0, 0, b"12345678") * 100, {"h2_max_idle_frames": 10}),
    "h2_resets": (OPEN + RESETS, {"h2_max_resets": 10}),
    "h2_floods": (OPEN + EMPTY, {}),
    "h2_violations": (OPEN + frame(PING, 0, 0, b"1"), {}),
    "h2_heads_late": (OPEN + head(GET + ROOT, flags=END_STREAM), {"head_timeout": 0.05}),
    "h2_readers_late": (NO_WINDOW + head(GET + ROOT), {"write_timeout": 0.05}),
    "h2_content_late": (OPEN + head(POST + ROOT, flags=END_HEADERS), {"body_timeout": 0.05}),
    "h2_silent": (OPEN + head(GET + NEVER), {"h2_ping_interval": 0.05, "h2_ping_timeout": 0.05}),
    "handshakes_failed": (b"\x00\x01\x02\x03\x04\x05", {}),
    "handshakes_late": (b"\x16", {"handshake_timeout": 0.05}),
}


def make_app() -> App:
    app = App()

    @app.get("/", inline=True)
    def index() -> str:
        return "Hello"

    @app.post("/")
    async def length(request: Request) -> str:
        return str(len(request.body))

    @app.get("/never")
    async def never() -> None:
        await asyncio.Event().wait()

    return app


def test_a_server_counts_nothing_of_those_who_behave() -> None:
    server = Server(make_app(), port=0)
    assert set(server.metrics().values()) == {0}, "before it starts"

    with server, socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as client:
        client.sendall(OPEN + head(GET + ROOT))
        while b"Hello" not in client.recv(65536):
            pass

    assert dict.fromkeys(ATTACKS, 0) == server.metrics()


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_counted(name: str, tmp_path: Path) -> None:
    sent, config = ATTACKS[name]
    settings: dict[str, Any] = dict(config)
    if name.startswith("handshakes"):
        settings["certfile"], settings["keyfile"] = map(str, _httpy.dev_certificate(str(tmp_path)))
    server = Server(make_app(), port=0, **settings)

    with server, socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as attacker:
        attacker.sendall(sent)
        wait_for(lambda: server.metrics()[name])

    counts = server.metrics()
    assert {other: count for other, count in counts.items() if other != name and count} == {}


def test_a_server_that_is_started_again_goes_on_counting() -> None:
    server = Server(make_app(), port=0)

    for times in (1, 2):
        with server, socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as attacker:
            attacker.sendall(ATTACKS["h2_violations"][0])
            wait_for(lambda times=times: server.metrics()["h2_violations"] == times)


def test_every_count_is_documented() -> None:
    page = Path(__file__).parent.parent / "docs" / "load.md"
    documented = re.findall(
        r"^\| `((?:h2|handshakes)_\w+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE
    )

    assert sorted(documented) == sorted(_httpy.Counts().all())
