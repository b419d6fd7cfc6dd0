"""What a supervisor has for its workers' rooms: a socket to each, and the hub that passes on what comes there.

The hub and its thread are there only once a worker has something to tell: an app without rooms costs a socket.
"""

from __future__ import annotations

import selectors
import socket

from . import _httpy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


class Waiting:
    """Is this end of a worker's socket, until the hub has it."""

    def __init__(self, hub: Switchboard, one: socket.socket) -> None:
        self._hub = hub
        self._socket = one

    def fileno(self) -> int:
        """The descriptor that is readable when the worker tells something, or is gone."""
        return self._socket.fileno()

    def hear(self) -> None:
        """The worker tells something, or is gone."""
        if self._socket.fileno() == -1:
            # Given away by another that was heard before it.
            return
        try:
            told = self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            told = b""
        if told:
            self._hub.connect_all()
        else:
            self._hub.forget(self)
            self._socket.close()

    def detach(self) -> int:
        """Gives the descriptor away."""
        return self._socket.detach()


class Switchboard:
    """Connects workers that share rooms.

    Args:
        selector: What the supervisor waits with.
        max_queue_bytes: How much may wait for a worker that does not read.
    """

    def __init__(self, selector: selectors.BaseSelector, max_queue_bytes: int) -> None:
        self._selector = selector
        self._max_queue_bytes = max_queue_bytes
        self._waiting: list[Waiting] = []
        self._hub: Optional[_httpy.RoomHub] = None

    def add(self) -> socket.socket:
        """Returns a new worker's end."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        one = Waiting(self, ours)
        if self._hub is not None:
            self._hub.add([one.detach()])
        else:
            self._waiting.append(one)
            self._selector.register(one, selectors.EVENT_READ)
        return theirs

    def connect_all(self) -> None:
        """Has the hub pass on what comes: from all workers, so that none misses what the first one has told."""
        if self._hub is None:
            # Not above: it takes some time, and few need it.
            from .logs import forward

            forward()
            self._hub = _httpy.RoomHub(self._max_queue_bytes)
        waiting = list(self._waiting)
        for one in waiting:
            self.forget(one)
        self._hub.add([one.detach() for one in waiting])

    def forget(self, one: Waiting) -> None:
        """A socket is not waited for any more."""
        self._waiting.remove(one)
        self._selector.unregister(one)

    def close(self) -> None:
        """Ends it."""
        for one in list(self._waiting):
            self.forget(one)
            socket.socket(fileno=one.detach()).close()
        self._hub = None
