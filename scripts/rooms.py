#!/usr/bin/env python3
"""Measures a broadcast to a room of many: the time to the last delivery, and the memory of each member. Linux.

    .venv/bin/python scripts/rooms.py [--members 10000] [--workers 1] [--rounds 15]

The members are sockets of this process, on the same machine, which takes its share of the processors. The time is that
from when the server is told to when the last of them has read its message. For the rate, messages follow each other.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from memory import HANDSHAKE, allow_descriptors, connect, exchange, usage, where

from httpy import App, WebSocket

# A text message of 64 bytes has a head of two.
TEXT = "x" * 64
FRAME_BYTES = 2 + len(TEXT)
# Messages that are sent one after the other, for the rate.
BURST = 20
PATIENCE_S = 60.0
# The text message "say", masked with zeros.
SAY = b"\x81\x83\0\0\0\0say"

app = App()


@app.websocket("/member")
async def member(websocket: WebSocket) -> None:
    """Is in the room."""
    await websocket.accept()
    await websocket.join("room")
    await websocket.receive()


@app.websocket("/speaker")
async def speaker(websocket: WebSocket) -> None:
    """Sends to the room whenever it is told."""
    await websocket.accept()
    async for _ in websocket:
        await app.broadcast("room", TEXT)


@app.get("/presence")
async def presence() -> str:
    """How many are in the room."""
    return str(app.presence("room"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=10_000, help="how many members the room has")
    parser.add_argument("--workers", type=int, default=1, help="how many workers serve them")
    parser.add_argument(
        "--rounds", type=int, default=15, help="how many messages are timed, one after the other"
    )
    parser.add_argument("--rooms-url", help="the Redis that workers share the room by")
    options = parser.parse_args()
    count = allow_descriptors(options.members)
    command = [sys.executable, "-m", "httpy", "run", f"{Path(__file__)}:app", "--port", "0"]
    command += ["--max-connections", "0", "--workers", str(options.workers)]
    if options.rooms_url:
        command += ["--rooms-url", options.rooms_url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            measure(server, where(server), count, options)
        finally:
            server.terminate()
    return 0


def measure(server: subprocess.Popen[str], port: int, count: int, options: argparse.Namespace) -> None:
    """Fills the room, sends to it, and prints what that takes."""
    idle = memory_of(server.pid)
    speaker = opened(port, b"/speaker")
    members = [opened(port, b"/member") for _ in range(count)]
    while present(port) != count:
        time.sleep(0.01)
    full = memory_of(server.pid)

    room = Room(members)
    room.hear(speaker, 1)
    before = cpu_of(server.pid)
    times = [room.hear(speaker, 1) for _ in range(options.rounds)]
    cpu = (cpu_of(server.pid) - before) / options.rounds / count
    rates = [count * BURST / room.hear(speaker, BURST) for _ in range(3)]
    after = memory_of(server.pid)

    print(f"{count} members, {options.workers} worker(s), messages of {len(TEXT)} bytes")
    print(
        f"time to the last delivery, ms: median {statistics.median(times) * 1e3:.1f}, "
        f"least {min(times) * 1e3:.1f}, most {max(times) * 1e3:.1f}"
    )
    print(f"processor time of the server for each delivery, us: {cpu * 1e6:.2f}")
    print(f"deliveries a second, {BURST} messages in a row: {statistics.median(rates):,.0f}")
    print(
        f"bytes for each member: {(full - idle) / count:.0f}, after these messages {(after - idle) / count:.0f}"
    )


def opened(port: int, path: bytes) -> socket.socket:
    """Opens a WebSocket."""
    connection = connect(port)
    exchange(connection, HANDSHAKE.replace(b"/ws", path, 1), b"\r\n\r\n")
    return connection


def present(port: int) -> int:
    """How many are in the room, as some worker knows it."""
    with connect(port) as connection:
        connection.sendall(b"GET /presence HTTP/1.0\r\nhost: localhost\r\n\r\n")
        answer = b""
        while True:
            received = connection.recv(4096)
            if not received:
                return int(answer.rpartition(b"\r\n")[2])
            answer += received


class Room:
    """Reads what all members are sent."""

    def __init__(self, members: list[socket.socket]) -> None:
        self._epoll = select.epoll()
        self._count = len(members)
        for one in members:
            self._epoll.register(one.fileno(), select.EPOLLIN)

    def hear(self, speaker: socket.socket, messages: int) -> float:
        """Has messages sent, and returns how long it takes until all members have them, in seconds."""
        missing = self._count * messages * FRAME_BYTES
        start = time.perf_counter()
        speaker.sendall(SAY * messages)
        while missing:
            events = self._epoll.poll(PATIENCE_S, 1024)
            if not events:
                raise SystemExit(f"{missing} bytes did not come")
            for descriptor, _ in events:
                received = len(os.read(descriptor, 65536))
                if not received:
                    raise SystemExit("a member was closed")
                missing -= received
        return time.perf_counter() - start


def tree(pid: int) -> list[int]:
    """A process and those it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *map(int, children)]


def memory_of(pid: int) -> int:
    """Private bytes of a server, its workers included."""
    return sum(usage(one)[0] for one in tree(pid))


def cpu_of(pid: int) -> float:
    """Processor time of a server, its workers included, in seconds."""
    ticks = 0
    for one in tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
