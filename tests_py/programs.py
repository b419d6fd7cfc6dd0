"""Runs server programs beside a test, and asks them fast."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from support import PATIENCE_S, environment


@contextlib.contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[int]:
    """Runs a server program for as long as the block, and gives its port."""
    with started(command, **options) as (_, port):
        yield port


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Runs a server program for as long as the block, and gives the process and its port.

    Every server says its URL on standard error when it accepts connections; that is waited for.
    """
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, **{"env": environment(), **options}
    )
    assert process.stderr is not None
    late = threading.Timer(PATIENCE_S, process.kill)
    try:
        late.start()
        port = _port(process.stderr)
        late.cancel()
        yield process, port
    finally:
        late.cancel()
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stderr.close()


def _port(said: Any) -> int:
    lines = []
    for line in said:
        lines.append(line)
        found = re.search(r"https?://[\w.\[\]:]*:(\d+)", line)
        if found:
            return int(found[1])
    raise AssertionError(f"the server did not say where it is: {''.join(lines)}")


class Pipeline:
    """Sends one request over and over, many at once on each of some connections (RFC 9112 §9.3.2).

    The server, not this client, decides how long that takes. All responses have to be as long as the first.

    Attributes:
        response: The first one, head and content.
    """

    def __init__(self, port: int, request: bytes, *, depth: int, connections: int = 1) -> None:
        self._depth = depth
        self._sockets = [
            socket.create_connection(("127.0.0.1", port), PATIENCE_S) for _ in range(connections)
        ]
        for connection in self._sockets:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.response = ask(self._sockets[0], request)
        self._requests = request * depth
        self._expected = len(self.response) * depth
        self._buffer = bytearray(256 * 1024)

    def burst(self) -> None:
        """Sends `depth` requests on every connection, and reads all responses."""
        for connection in self._sockets:
            connection.sendall(self._requests)
        for connection in self._sockets:
            missing = self._expected
            while missing > 0:
                received = connection.recv_into(self._buffer)
                if not received:
                    raise AssertionError("the server has closed the connection")
                missing -= received
            assert missing == 0, "a response has another length than the first one"

    def send(self, count: int) -> None:
        """Sends at least `count` requests, and reads all responses."""
        for _ in range(-(-count // (self._depth * len(self._sockets)))):
            self.burst()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *raised: object) -> None:
        for connection in self._sockets:
            connection.close()


def ask(connection: socket.socket, request: bytes) -> bytes:
    """Sends a request and reads its response, head and content as they are sent."""
    connection.sendall(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(connection)
    head, _, content = received.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if length is None:
        assert b"\r\ntransfer-encoding: chunked" in head, head
    while len(content) < int(length[1]) if length else not content.endswith(b"\r\n0\r\n\r\n"):
        content += _some(connection)
    return head + b"\r\n\r\n" + content


def _some(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    if not received:
        raise AssertionError("the server has closed the connection")
    return received


def to(method: str, target: str, content: bytes = b"", media_type: str = "application/json") -> bytes:
    """Writes a request."""
    fields = f"content-type: {media_type}\r\ncontent-length: {len(content)}\r\n" if content else ""
    return f"{method} {target} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n".encode() + content
