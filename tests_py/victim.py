"""A server to attack, in a process of its own, and the witness beside it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

from programs import ask, started, to
from support import PATIENCE_S, environment, python

HERE = Path(__file__).parent
GET = to("GET", "/")
KIB, MIB = 1024, 1024 * 1024
# How long an answer may take while others misbehave: the median, and any.
PROMPT_S = 0.1
LATEST_S = 1.0


class Victim:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self._process = process
        self._memory = self._descriptors = 0
        # What is loaded or cached at the first requests is no growth.
        for _ in range(100):
            with self.connect() as connection:
                ask(connection, GET)
        self._memory, self._descriptors = self.memory(), self.descriptors()

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def memory(self) -> int:
        """How many bytes it has come to hold since the start."""
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text(encoding="ascii")
        private = re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", rollup, re.MULTILINE)
        return sum(map(int, private)) * KIB - self._memory

    def descriptors(self) -> int:
        """How many descriptors it has open more than at the start."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd")) - self._descriptors

    def get(self, path: str) -> str:
        with self.connect() as connection:
            return ask(connection, to("GET", path)).rpartition(b"\r\n\r\n")[2].decode()


@contextlib.contextmanager
def victim(**limits: float) -> Iterator[Victim]:
    """Runs the server, and a witness from the block's begin to its end."""
    given = [f"{name}={value}" for name, value in limits.items()]
    with started(python(str(HERE / "hostile_app.py"), *given)) as (process, port):
        server = Victim(process, port)
        command = python(str(HERE / "witness.py"), str(port))
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment()) as witness:
            assert witness.stdin is not None
            assert witness.stdout is not None
            assert witness.stdout.readline() == "ready\n"
            # Its input ends with the block, however that does.
            with witness.stdin:
                yield server
            said = witness.stdout.read()
    times = json.loads(said)
    assert len(times) >= 5, "the attack is over before anything could be measured"
    # Where others want the processors too, everything takes as much longer.
    slower = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    median, latest = statistics.median(times) / slower, max(times) / slower
    on = f"on a machine {slower:.1f} times as busy as it can be"
    assert median <= PROMPT_S, f"half of the answers took {median:.3f} s or more {on}"
    assert latest <= LATEST_S, f"of {len(times)} answers one took {latest:.3f} s {on}"
