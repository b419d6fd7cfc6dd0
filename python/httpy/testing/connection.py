"""HTTP/1.1 over a connection in memory: the standard library's client, on a pipe in the place of a socket."""

from __future__ import annotations

import http.client
import io
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Optional, Union

from .. import _httpy

Fields = list[tuple[str, str]]

# What the standard library's client takes a longer line for an attack.
_MAX_LINE_BYTES = 65536
# What is read ahead of the client: what a connection holds.
_BUFFER_BYTES = 65536


class PipeSocket:
    """Is what `http.client` needs of a socket.

    It is closed when it was told to, and every file made of it is closed too, as a socket is.

    Args:
        pipe: The connection.
        timeout: The longest to wait for one call, in seconds. None waits for ever.
    """

    def __init__(self, pipe: _httpy.Pipe, timeout: Optional[float]) -> None:
        self.pipe = pipe
        self.timeout = timeout
        self._holders = 1

    def settimeout(self, timeout: Optional[float]) -> None:
        """Sets the longest to wait."""
        self.timeout = timeout

    def sendall(self, data: Any) -> None:
        """Sends bytes, all of them."""
        self.pipe.write(bytes(data), self.timeout)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Makes a file to read from."""
        self._holders += 1
        return io.BufferedReader(_Raw(self), _BUFFER_BYTES)

    def close(self) -> None:
        """Closes it, once nothing made of it is open."""
        self._holders -= 1
        if self._holders == 0:
            self.pipe.close()


class _Raw(io.RawIOBase):
    def __init__(self, sock: PipeSocket) -> None:
        self._sock: Optional[PipeSocket] = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        assert self._sock is not None
        data = self._sock.pipe.read(len(buffer), self._sock.timeout)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        super().close()
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()


class Response(http.client.HTTPResponse):
    """Is a response of the standard library's client, that knows of the interim ones before it (RFC 9110 §15.2)."""

    def _read_status(self) -> tuple[Any, int, str]:
        self.interim: list[tuple[int, Fields]] = []
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 102 <= status < 200:
                return version, status, reason
            self.interim.append((status, list(self._read_fields())))

    def _read_fields(self) -> Iterator[tuple[str, str]]:
        while (line := self.fp.readline(_MAX_LINE_BYTES).rstrip(b"\r\n")) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            yield name.lower(), value.strip()


class Connection(http.client.HTTPConnection):
    """Is a connection to the server.

    Args:
        pipe: What carries it.
    """

    response_class = Response
    auto_open = 0

    def __init__(self, pipe: _httpy.Pipe) -> None:
        super().__init__("testserver")
        self.pipe = pipe
        self.wire = PipeSocket(pipe, None)
        self.sock = self.wire

    def exchange(
        self,
        method: str,
        target: str,
        fields: Fields,
        content: Union[bytes, Iterable[bytes]],
        timeout: Optional[float],
    ) -> Response:
        """Sends a request, and reads the head of its response.

        Args:
            method: The method.
            target: Path and query, percent-encoded.
            fields: Header fields. One of `Content-Length` and `Transfer-Encoding` where there is content.
            content: The content: at once, or chunk by chunk.
            timeout: The longest to wait for the server at a time, in seconds.

        Raises:
            ConnectionError: if the server closes before it answers.
            TimeoutError: if it takes too long.
        """
        self.wire.timeout = timeout
        self.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in fields:
            self.putheader(name, value.encode("latin-1"))
        try:
            if isinstance(content, bytes):
                self.endheaders(content or None)
            else:
                self.endheaders(content, encode_chunked=True)
        except (BrokenPipeError, ConnectionResetError):
            # It may have answered before it had everything.
            pass
        response = self.getresponse()
        assert isinstance(response, Response)
        return response

    def abort(self) -> None:
        """Closes the connection at once, whoever reads from it."""
        self.pipe.close()


class Pool:
    """Has the connections to one server, and keeps those that can be used again.

    Args:
        memory: What opens them.
        client: The client's address, as the server sees it.
        server: The server's.
    """

    def __init__(
        self,
        memory: _httpy.Memory,
        client: Optional[tuple[str, int]],
        server: Optional[tuple[str, int]],
    ) -> None:
        self._memory = memory
        self._client = client
        self._server = server
        self._lock = threading.Lock()
        self._idle: dict[bool, list[Connection]] = {False: [], True: []}
        self._open: set[Connection] = set()

    def take(self, is_tls: bool) -> Connection:
        """Returns a connection that nobody uses, an open one if there is one."""
        while True:
            with self._lock:
                connection = self._idle[is_tls].pop() if self._idle[is_tls] else None
            if connection is None:
                return self.connect(is_tls)
            if connection.pipe.is_quiet():
                return connection
            self.drop(connection)

    def connect(self, is_tls: bool) -> Connection:
        """Opens a connection."""
        pipe = self._memory.connect(client=self._client, server=self._server, is_tls=is_tls)
        connection = Connection(pipe)
        with self._lock:
            self._open.add(connection)
        return connection

    def give_back(self, connection: Connection, is_tls: bool) -> None:
        """Takes a connection back, whose response was read to its end."""
        if connection.sock is None:
            # The response said that it is the last one.
            self.drop(connection)
            return
        with self._lock:
            if connection in self._open:
                self._idle[is_tls].append(connection)

    def drop(self, connection: Connection) -> None:
        """Closes a connection."""
        with self._lock:
            self._open.discard(connection)
        connection.abort()

    def close(self) -> None:
        """Closes all."""
        with self._lock:
            connections, self._open = self._open, set()
            for idle in self._idle.values():
                idle.clear()
        for connection in connections:
            connection.abort()
