"""A worker, as its supervisor sees it: a process, and the connection to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time

from .inheritance import python_flags, spawn
from .lines import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Optional

    from .board import Board
    from .rooms import Switchboard

# How long a stuck worker may take to say where it is stuck.
_ABORT_S = 1.0


class WorkerProcess:
    """Is a worker, from its start to its end.

    Attributes:
        generation: How often the workers had been restarted when it started.
        started: When it started, as of `time.monotonic`.
        last_beat: When its loop was last known not to be stuck; None before it accepts connections.
        ready: What it has said about itself; None before it accepts connections.
        full: Why it wants to be replaced; None if it does not.
        failure: What it has said before it ended because of it, and the exit status that this asks for.
        deadline: When it has to have ended; None if it need not.
        was_killed: Whether it was ended by force.

    Raises:
        OSError: if the system has no process left, or no descriptor.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        work: dict[str, Any],
        generation: int,
        board: Optional[Board],
        rooms: Optional[Switchboard] = None,
    ) -> None:
        self._board = board
        self._place = None if board is None else board.take_place()
        shared = [] if board is None or self._place is None else [board.descriptor]
        work = {**work, "board": [*shared, self._place] if shared else None}
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as given:
            sockets = [given.enter_context(theirs), *sockets]
            if rooms is not None:
                sockets.insert(1, given.enter_context(rooms.add()))
            work["has_rooms"] = rooms is not None
            command = [sys.executable, *python_flags(), "-m", "httpy.work"]
            try:
                self._process = spawn(command, sockets, shared)
            except OSError:
                ours.close()
                self._free_place()
                raise
        self._lines = Lines(ours)
        self._lines.send_object(work)
        self.generation = generation
        self.started = time.monotonic()
        self.last_beat: Optional[float] = None
        self.ready: Optional[dict[str, Any]] = None
        self.full: Optional[str] = None
        self.failure: Optional[tuple[str, int]] = None
        self.deadline: Optional[float] = None
        self.was_killed = False
        self._is_aborted = False
        # What it is told as soon as it listens.
        self._orders: list[str] = []

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def fileno(self) -> int:
        """The descriptor that is readable when it says something, or ends."""
        return self._lines.fileno()

    def hear(self) -> bool:
        """Takes in what it has said. Returns whether the connection is still there."""
        for line in self._lines.receive():
            if self.ready is not None:
                self.last_beat = time.monotonic()
            if line:
                self._take_in(json.loads(line))
        return not self._lines.is_closed

    def _take_in(self, said: dict[str, Any]) -> None:
        if "ready" in said:
            self.ready = said["ready"]
            self.last_beat = time.monotonic()
            for word in self._orders:
                self._lines.send(word)
        elif "full" in said:
            self.full = said["full"]
        elif "failed" in said:
            self.failure = said["failed"], said["status"]

    def tell(self, word: str) -> None:
        """Says a word (see `worker.py`). One that does not listen yet is ended instead."""
        if self.ready is not None:
            self._lines.send(word)
            return
        self._orders.append(word)
        if word not in ("shared", "sole"):
            self._signal(signal.SIGTERM)

    def silence(self, now: float) -> float:
        """Returns for how long its loop has shown no life, in seconds; 0 before it serves."""
        return 0.0 if self.last_beat is None else now - self.last_beat

    def excuse(self, now: float) -> None:
        """Takes it that the loop is not stuck: the supervisor was."""
        if self.last_beat is not None:
            self.last_beat = now

    def end_by(self, deadline: float) -> None:
        """It has to have ended by then, or by when it had to before."""
        self.deadline = deadline if self.deadline is None else min(self.deadline, deadline)

    def has_ended(self) -> bool:
        """Returns whether the process is no more; the system forgets it then."""
        return self._process.poll() is not None

    @property
    def has_failed(self) -> bool:
        """Whether it ended by itself, and not well."""
        return self._process.returncode not in (None, 0) and not self.was_killed

    def how_it_ended(self) -> str:
        """Returns the end in words."""
        status = self._process.returncode
        if status is None:
            return "still runs"
        if status >= 0:
            return f"ended with status {status}"
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"was killed by {name}"

    def abort(self) -> None:
        """Ends a stuck worker: it may say where it is stuck first."""
        if self._is_aborted or sys.platform == "win32":
            self.kill()
            return
        self._is_aborted = self.was_killed = True
        self.deadline = time.monotonic() + _ABORT_S
        self._signal(signal.SIGABRT)

    def kill(self) -> None:
        """Ends it at once."""
        self.was_killed = True
        self._process.kill()

    def close(self) -> None:
        """Gives back what was held for it, once it has ended."""
        self._lines.close()
        self._free_place()

    def _free_place(self) -> None:
        if self._board is not None and self._place is not None:
            self._board.free_place(self._place)

    def _signal(self, number: int) -> None:
        # `poll` has not seen it end, so the process id is still its own.
        if self._process.returncode is None:
            if sys.platform == "win32":
                self._process.terminate()
            else:
                os.kill(self.pid, number)
