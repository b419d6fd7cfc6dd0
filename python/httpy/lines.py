"""Lines of text between a supervisor and what it has started, over a socket.

An empty line only says that somebody is alive. Any other is a word, or an object as JSON.
"""

from __future__ import annotations

import json
import socket
from typing import Any


class Lines:
    """Is one end of the connection.

    Attributes:
        is_closed: Whether the other end is gone.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = b""
        self.is_closed = False

    def fileno(self) -> int:
        """The descriptor, to wait with."""
        return self._socket.fileno()

    def send(self, line: str) -> None:
        """Sends a line. Waits if the other end reads nothing and a socket's buffer is full; see `beat`."""
        try:
            self._socket.setblocking(True)
            self._socket.sendall(line.encode() + b"\n")
        except OSError:
            # It is gone, which reading tells.
            pass

    def send_object(self, value: Any) -> None:
        """Sends an object that JSON has a form for."""
        self.send(json.dumps(value))

    def beat(self) -> None:
        """Sends an empty line, unless that would have to wait."""
        try:
            self._socket.setblocking(False)
            self._socket.send(b"\n")
        except OSError:
            pass

    def receive(self) -> list[str]:
        """Returns the lines that have come, without waiting."""
        while not self.is_closed:
            try:
                self._socket.setblocking(False)
                received = self._socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                received = b""
            self.is_closed = not received
            self._received += received
        *lines, self._received = self._received.split(b"\n")
        return [line.decode() for line in lines]

    def wait(self) -> str:
        """Waits for one line, the first; empty if the other end is gone before it."""
        self._socket.setblocking(True)
        while b"\n" not in self._received:
            received = self._socket.recv(65536)
            if not received:
                return ""
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        """Closes this end."""
        self._socket.close()
