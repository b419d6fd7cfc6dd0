"""Gives sockets to a process that is started. The one place that knows how systems differ in that.

On Unix the child has the same descriptors, and is told their numbers by an argument. On Windows a socket is
duplicated for the child once that is there, and the child is told by its standard input.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence

_BY_INPUT = "-"


def spawn(
    command: Sequence[str], sockets: Sequence[socket.socket], descriptors: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Starts a program that has these sockets too, and can find them by its last argument (`received`).

    Args:
        command: The program and its other arguments.
        sockets: What it is to have.
        descriptors: What else it is to have, by the same numbers. Not on Windows.
    """
    if sys.platform == "win32":
        # A group of its own: Ctrl-C goes to the parent alone, which tells its children what to do.
        process = subprocess.Popen(
            [*command, _BY_INPUT], stdin=subprocess.PIPE, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP
        )
        assert process.stdin is not None
        process.stdin.write(" ".join(one.share(process.pid).hex() for one in sockets).encode() + b"\n")
        process.stdin.close()
        return process
    numbers = [one.fileno() for one in sockets]
    return subprocess.Popen([*command, ",".join(map(str, numbers))], pass_fds=[*numbers, *descriptors])


def received(argument: str) -> list[socket.socket]:
    """Returns the sockets that `spawn` gave to this process. They go no further: its own children don't get them."""
    if sys.platform == "win32":
        shared = sys.stdin.readline().split()
        return [socket.fromshare(bytes.fromhex(one)) for one in shared]
    sockets = [socket.socket(fileno=int(number)) for number in argument.split(",")]
    for one in sockets:
        os.set_inheritable(one.fileno(), False)
    return sockets


def python_flags() -> list[str]:
    """Returns the interpreter's own flags, such as -O or -W, for a child that is to run under the same."""
    # Private, but there since 2.7, and multiprocessing's own way.
    return list(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]
