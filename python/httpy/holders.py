"""Finds out which program has a port, for the message that it is taken. Linux; elsewhere nobody knows."""

from __future__ import annotations

import os
from typing import Optional

# The state LISTEN, as /proc/net/tcp writes it.
_LISTEN = "0A"


def who_listens(port: int) -> Optional[str]:
    """Returns who listens on a TCP port, as `process 12, nginx`.

    None if that can't be told: the processes of other users are hidden from all but root.
    """
    try:
        inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(f"/proc/net/{table}", port)}
        return _holder(inodes) if inodes else None
    except OSError:
        return None


def _listening(table: str, port: int) -> list[str]:
    try:
        with open(table, encoding="ascii") as file:
            rows = [line.split() for line in file.readlines()[1:]]
    except FileNotFoundError:
        return []
    return [row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]


def _holder(inodes: set[str]) -> Optional[str]:
    links = {f"socket:[{inode}]" for inode in inodes}
    # The lowest number first: of a server and its workers, the server.
    for process in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        folder = f"/proc/{process}/fd"
        try:
            if any(_link(f"{folder}/{name}") in links for name in os.listdir(folder)):
                return f"process {process}, {_name(process)}"
        except OSError:
            # Gone, or somebody else's.
            continue
    return None


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _name(process: int) -> str:
    with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
        # A program chooses its name itself; it must not play with the terminal.
        return "".join(c if c.isprintable() else "?" for c in file.read().strip())
