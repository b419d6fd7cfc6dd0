"""Lines of text between a supervisor and what it has started, over a socket.

An empty line only says that somebody is alive. Any other is a word, or an object as JSON.
"""

from __future__ import annotations

import json
import selectors
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Lines:
    """Is one end of the connection.

    Attributes:
        is_closed: Whether the other end is gone.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._received = b""
        self.is_closed = False

    def fileno(self) -> int:
        """The descriptor, to wait with."""
        return self._socket.fileno()

    def send(self, line: str) -> None:
        """Sends a line. Waits if the other end reads nothing and the system has no room; see `beat`."""
        rest = line.encode() + b"\n"
        try:
            while rest:
                try:
                    rest = rest[self._socket.send(rest) :]
                except BlockingIOError:
                    self._wait_for(selectors.EVENT_WRITE)
        except OSError:
            # It is gone, which reading tells.
            pass

    def send_object(self, value: Any) -> None:
        """Sends an object that JSON has a form for."""
        self.send(json.dumps(value))

    def beat(self) -> None:
        """Sends an empty line, unless that would have to wait."""
        try:
            self._socket.send(b"\n")
        except OSError:
            pass

    def receive(self) -> list[str]:
        """Returns the lines that have come, without waiting."""
        while self._receive_some():
            pass
        *lines, self._received = self._received.split(b"\n")
        return [line.decode() for line in lines]

    def wait(self) -> str:
        """Waits for one line and returns it; empty if the other end is gone before it."""
        while b"\n" not in self._received:
            if not self._receive_some():
                if self.is_closed:
                    return ""
                self._wait_for(selectors.EVENT_READ)
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        """Closes this end."""
        self._socket.close()

    def _receive_some(self) -> bool:
        """Takes in what there is; returns whether there may be more."""
        try:
            received = b"" if self.is_closed else self._socket.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            received = b""
        self.is_closed = not received
        self._received += received
        return not self.is_closed

    def _wait_for(self, event: int) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, event)
            selector.select()
