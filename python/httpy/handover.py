"""Lets a program take the place of the process that it was before, with its sockets: what SIGUSR2 asks for.

The old process starts the program again, with the listening sockets, a connection to itself, and a variable that
says where these are. When the new one serves it says so, and the old one finishes what it has begun, and ends.
Unix only.
"""

from __future__ import annotations

import os
import socket

# json and subprocess are imported by those few who hand over.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence
    from typing import Optional

# Not a setting: what one process of this program leaves for the next one.
VARIABLE = "HTTPY_HANDOVER"


class Predecessor:
    """Is the process whose place this one is to take.

    Attributes:
        groups: Its listening sockets. Several groups if each of its workers had its own.
        shared: Whether others hold these, too, besides the two.
    """

    def __init__(self, text: str) -> None:
        import json

        from .lines import Lines

        told = json.loads(text)
        self.groups = [[socket.socket(fileno=number) for number in group] for group in told["sockets"]]
        self.shared: bool = told["shared"]
        self._lines = Lines(socket.socket(fileno=told["connection"]))
        for number in [self.fileno(), *(one.fileno() for group in self.groups for one in group)]:
            os.set_inheritable(number, False)

    @property
    def sockets(self) -> list[socket.socket]:
        """Its listening sockets; one for each address."""
        return self.groups[0]

    def fileno(self) -> int:
        """The descriptor that is readable when it has ended."""
        return self._lines.fileno()

    def take_over(self) -> None:
        """Says that this process serves."""
        self._lines.send("serves")

    def hear(self) -> bool:
        """Returns whether it is still there."""
        self._lines.receive()
        return not self._lines.is_closed


def find_predecessor(environment: MutableMapping[str, str]) -> Optional[Predecessor]:
    """Returns the process whose place this one is to take, if there is one; and forgets how to find it."""
    text = environment.pop(VARIABLE, "")
    if not text:
        return None
    # A program in between, such as a shell, may have passed on the variable, and not the sockets.
    parent, _, told = text.partition(" ")
    return Predecessor(told) if parent == str(os.getppid()) else None


class Successor:
    """Is the process that is to take this one's place.

    Attributes:
        pid: Its process id.
        end: How it has failed.

    Raises:
        OSError: if it can't be started.
    """

    def __init__(
        self,
        command: tuple[Sequence[str], str],
        groups: Sequence[Sequence[socket.socket]],
        *,
        shared: bool,
        variables: Mapping[str, str],
    ) -> None:
        import json
        import subprocess

        from .lines import Lines

        program, directory = command
        ours, theirs = socket.socketpair()
        numbers = [[one.fileno() for one in group] for group in groups]
        with theirs:
            told = json.dumps({"sockets": numbers, "connection": theirs.fileno(), "shared": shared})
            try:
                self._process = subprocess.Popen(
                    program,
                    cwd=directory,
                    env={**os.environ, **variables, VARIABLE: f"{os.getpid()} {told}"},
                    pass_fds=[theirs.fileno(), *{number for group in numbers for number in group}],
                )
            except OSError:
                ours.close()
                raise
        self._lines = Lines(ours)
        self.pid = self._process.pid
        self.end = ""

    def fileno(self) -> int:
        """The descriptor that is readable when it says something, or ends."""
        return self._lines.fileno()

    def hear(self) -> str:
        """Returns "starting", "serves", or "failed" if it has ended before."""
        if "serves" in self._lines.receive():
            # It is no child of this process any more, but one that outlives it.
            self._process.returncode = 0
            return "serves"
        status = self._process.poll()
        if status is None:
            return "starting"
        self.end = f"ended with status {status}"
        return "failed"

    @property
    def is_silent(self) -> bool:
        """Whether it has closed the connection, as it does when it ends."""
        return self._lines.is_closed
