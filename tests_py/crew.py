"""Runs a server with workers in a process of its own, asks it under load, and counts what fails."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

from support import environment, python

# How long anything may take on a machine that others use too.
PATIENCE_S = 60.0
HERE = Path(__file__).parent


class Crew:
    """A running program, and its workers.

    Attributes:
        pid: Its process.
        port: Where it listens.
    """

    def __init__(self, command: list[str], **options: Any) -> None:
        options.setdefault("env", environment())
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
        self.pid = self._process.pid
        self.port = 0
        self._opened = contextlib.ExitStack()
        self._said: list[str] = []
        self._more = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (self._process.stdout, self._process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any) -> None:
        for line in stream:
            with self._more:
                self._said.append(line.rstrip("\n"))
                self._more.notify_all()

    def serves(self) -> Crew:
        """Waits until it says where it is."""
        self.port = int(self.hears(r"serves [^ ]+ on .*http://[\d.]+:(\d+)")[1])
        return self

    def hears(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Waits until it has said something (so often), on either of its outputs."""
        deadline = time.monotonic() + PATIENCE_S
        with self._more:
            while True:
                found = [match for match in (re.search(pattern, line) for line in self._said) if match]
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                assert left > 0, f"{pattern!r} was not said: {self.said}"
                self._more.wait(left)

    @property
    def said(self) -> str:
        """What it has said so far."""
        return "\n".join(self._said)

    def ask(self, path: str) -> str:
        """Sends a request on a connection of its own, and returns the content."""
        with self.send(path) as connection:
            response = read_all(connection)
        head, _, content = response.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 2"), response
        return content.decode()

    def send(self, path: str) -> socket.socket:
        """Sends a request on a connection of its own, which the server is to close behind the response."""
        connection = self.connect()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return connection

    def connect(self) -> socket.socket:
        """Opens a connection, which is closed in the end."""
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        return self._opened.enter_context(connection)

    def signal(self, number: int) -> None:
        """Sends a signal to the program."""
        self._process.send_signal(number)

    def workers(self) -> list[int]:
        """The processes it has started and that have not ended, oldest first."""
        return [pid for pid in children(self.pid) if state(pid) not in ("Z", "X", "")]

    def wait_for_workers(self, fits: Callable[[list[int]], bool]) -> list[int]:
        """Waits until there are such workers."""
        return wait_for(self.workers, fits)

    def leaves(self) -> int:
        """Waits for the end of the process, which may leave others that it has started; returns the exit status."""
        return self._process.wait(PATIENCE_S)

    def ends(self) -> int:
        """Waits for its end, and that of all it has started; returns the exit status."""
        status = self.leaves()
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return status

    def close(self) -> None:
        """Ends it, and all that it has started."""
        self._opened.close()
        left = [self.pid, *children(self.pid)]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        for reader, stream in zip(self._readers, (self._process.stdout, self._process.stderr)):
            reader.join(PATIENCE_S)
            assert stream is not None
            stream.close()


@contextlib.contextmanager
def crew(
    options: Optional[dict[str, Any]] = None, *, before: Sequence[str] = (), **popen: Any
) -> Iterator[Crew]:
    """Runs `crew_program.py`, and ends it with the block.

    Args:
        options: Those of the program.
        before: A program that runs it.
        **popen: For the process.
    """
    options = {"workers": 2, **(options or {})}
    running = Crew([*before, *python(str(HERE / "crew_program.py"), json.dumps(options))], **popen)
    try:
        yield running
    finally:
        running.close()


def children(pid: int) -> list[int]:
    """The processes that a process has started and not buried."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def state(pid: int) -> str:
    """R, S, Z and so on; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def wait_for(look: Callable[[], Any], fits: Callable[[Any], bool] = bool) -> Any:
    """Waits until what one sees is as wanted: for what gives no signal of its own."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        seen = look()
        if fits(seen):
            return seen
        assert time.monotonic() < deadline, seen
        time.sleep(0.01)


def has_ended(pid: int) -> bool:
    """Whether a process is no more, or only waits to be buried."""
    return state(pid) in ("", "Z", "X")


def read_all(connection: socket.socket) -> bytes:
    """Reads to the end."""
    received = b""
    while True:
        more = connection.recv(65536)
        if not more:
            return received
        received += more


class Load:
    """Clients that ask one thing after the other, each on a connection that it keeps until it is told `close`.

    Attributes:
        answered: How many requests each process has answered.
        failed: What went wrong, each with what.
        refused: How many connections were refused.
    """

    def __init__(self, address: Any, clients: int = 8, *, may_end: bool = False) -> None:
        self._address = address
        self._may_end = may_end
        self.answered: Counter[int] = Counter()
        self.failed: list[str] = []
        self.refused = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait_for_answers(len(self._threads))
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Waits for the clients' end."""
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def wait_for_answers(self, more: int) -> None:
        """Waits for so many more answers."""
        wanted = self.answered.total() + more if hasattr(self.answered, "total") else more
        wait_for(lambda: sum(self.answered.values()) >= wanted or self.failed)

    def _run(self, client: int) -> None:
        number = 0
        while not self._stop.is_set():
            try:
                connection = self._connect()
            except (ConnectionRefusedError, FileNotFoundError) as error:
                # Nothing was asked, so nothing is lost.
                with self._lock:
                    self.refused += 1
                    if not self._may_end:
                        self.failed.append(f"connecting: {error!r}")
                return
            with connection:
                try:
                    while not self._stop.is_set():
                        number += 1
                        if not self._ask(connection, f"{client}-{number}"):
                            break
                except (OSError, AssertionError) as error:
                    with self._lock:
                        self.failed.append(f"request {client}-{number}: {error!r}")
                    return

    def _connect(self) -> socket.socket:
        if not isinstance(self._address, str):
            return socket.create_connection(self._address, PATIENCE_S)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        try:
            connection.connect(self._address)
        except BaseException:
            connection.close()
            raise
        return connection

    def _ask(self, connection: socket.socket, text: str) -> bool:
        """Sends one request; returns whether the connection may be used again."""
        connection.sendall(f"GET /echo/{text} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        response = b""
        while b"\r\n\r\n" not in response:
            received = connection.recv(65536)
            assert received, "closed instead of an answer"
            response += received
        head, _, content = response.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        while len(content) < length:
            received = connection.recv(65536)
            assert received, "closed within an answer"
            content += received
        echoed, _, pid = content.decode().partition(" ")
        assert head.startswith(b"HTTP/1.1 200 "), head
        assert echoed == text, f"an answer to {echoed}"
        with self._lock:
            self.answered[int(pid)] += 1
        return b"connection: close" not in head
