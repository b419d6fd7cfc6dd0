#!/usr/bin/env python3
"""Measures what a worker holds when idle, and what each idle connection and each idle WebSocket adds. Linux.

    .venv/bin/python scripts/memory.py [--connections 10000]

Exits 1 if that is more than HTTPy is to take.

Two figures of the process: `private` is what it alone holds; `PSS` adds its share of the pages that others use too, and
so depends on what else runs: the interpreter's own 6 MiB of code count in full if no other Python does.
The kernel's socket buffers belong to neither.
"""

from __future__ import annotations

import argparse
import re
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
# What the requirements say, in bytes.
MAX_IDLE = 16 * 1024 * 1024
MAX_CONNECTION = 8 * 1024
MAX_WEBSOCKET = 12 * 1024
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost:8000\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"
    b"Cache-Control: no-cache\r\nUpgrade: websocket\r\nOrigin: http://localhost:8000\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0\r\n"
    b"Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# A text message of 5 bytes, masked with zeros, and what comes back.
MESSAGE, ECHO = b"\x81\x85\0\0\0\0Hello", b"\x81\x05Hello"
# A connection gives up its buffers after a second without a request; this is long enough for all to have done so.
RESTED = 2.5
# A server gives back the code that its start has used a quarter of a second later.
SETTLED = 0.5
# Descriptors that the server and this script need besides.
SPARE = 100


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=10_000, help="how many idle connections")
    parser.add_argument("--app", default=f"{ROOT / 'benches' / 'app.py'}:app", help="what is served")
    options = parser.parse_args()
    count = allow_descriptors(options.connections)

    python = baseline("pass")
    asyncio = baseline("import asyncio")
    print(f"{'':34}{'private':>9}{'PSS':>9}   MiB")
    show("python", python)
    show("python, asyncio imported", asyncio)
    is_well = connections(options.app, count)
    is_well &= websockets(options.app, count)
    return 0 if is_well else 1


def serve(app: str) -> subprocess.Popen[str]:
    """Starts a server."""
    limits = ["--keep-alive-timeout", "300", "--max-connections", "0"]
    command = [sys.executable, "-m", "httpy", "run", app, "--port", "0", *limits]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def connections(app: str, count: int) -> bool:
    """Measures idle connections; whether they take no more than they are to."""
    with serve(app) as server:
        try:
            port = where(server)
            time.sleep(SETTLED)
            idle = usage(server.pid)
            show("httpy run, idle", idle)
            ask(connect(port))
            show("after its first request", usage(server.pid))

            opened = [connect(port) for _ in range(count)]
            # Accepted in order: when this one is answered, all are.
            ask(connect(port))
            silent = usage(server.pid)
            show(f"{count} connections", silent)
            for connection in opened:
                ask(connection)
            answered = usage(server.pid)
            show("each has had a response", answered)
            time.sleep(RESTED)
            rested = usage(server.pid)
            show("and has rested", rested)
        finally:
            server.terminate()
    each_silent, each_rested = ((after[0] - idle[0]) / count for after in (silent, rested))
    print(f"bytes for each connection: {each_silent:.0f} before its first request, {each_rested:.0f} rested")
    is_well = idle[1] <= MAX_IDLE and max(each_silent, each_rested) <= MAX_CONNECTION
    print(
        f"targets: idle (PSS) {MAX_IDLE >> 20} MiB, each connection {MAX_CONNECTION} bytes: "
        f"{'met' if is_well else 'NOT met'}"
    )
    return is_well


def websockets(app: str, count: int) -> bool:
    """Measures idle WebSockets, without compression; whether they take no more than they are to."""
    with serve(app) as server:
        try:
            port = where(server)
            idle = usage(server.pid)
            opened = [connect(port) for _ in range(count)]
            for connection in opened:
                exchange(connection, HANDSHAKE, b"\r\n\r\n")
            silent = usage(server.pid)
            show(f"{count} WebSockets", silent)
            for connection in opened:
                exchange(connection, MESSAGE, ECHO)
            answered = usage(server.pid)
            show("each has had a message", answered)
        finally:
            server.terminate()
    each_silent, each_answered = ((after[0] - idle[0]) / count for after in (silent, answered))
    print(f"bytes for each WebSocket: {each_silent:.0f} before its first message, {each_answered:.0f} after")
    is_well = max(each_silent, each_answered) <= MAX_WEBSOCKET
    print(f"target: each WebSocket {MAX_WEBSOCKET} bytes: {'met' if is_well else 'NOT met'}")
    return is_well


def allow_descriptors(wanted: int) -> int:
    """Raises the limit for this process and the server, and says how many connections there can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE
    if hard != resource.RLIM_INFINITY and needed > hard:
        print(f"only {hard - SPARE} connections: the limit of descriptors is {hard}", file=sys.stderr)
        wanted, needed = hard - SPARE, hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    return wanted


def baseline(code: str) -> tuple[int, int]:
    """The usage of a Python that runs some code and then waits."""
    command = [sys.executable, "-c", f"{code}; print('', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        found = usage(process.pid)
        process.stdin.write(b"\n")
        process.stdin.close()
    return found


def usage(pid: int) -> tuple[int, int]:
    """Private bytes and the proportional set size."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    kib = {match[1]: int(match[2]) for match in re.finditer(r"^(\w+): +(\d+) kB", rollup, re.MULTILINE)}
    return (kib["Private_Clean"] + kib["Private_Dirty"]) * 1024, kib["Pss"] * 1024


def show(what: str, found: tuple[int, int]) -> None:
    print(f"{what:34}{found[0] / 2**20:9.1f}{found[1] / 2**20:9.1f}", flush=True)


def where(server: subprocess.Popen[str]) -> int:
    assert server.stderr is not None
    said = ""
    for line in server.stderr:
        said += line
        found = re.search(r"http://[^ ]*:(\d+)", line)
        if found:
            return int(found[1])
    raise SystemExit(f"the server did not start: {said}")


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def ask(connection: socket.socket) -> None:
    exchange(connection, REQUEST, b"Hello, World!")


def exchange(connection: socket.socket, request: bytes, end: bytes) -> None:
    connection.sendall(request)
    answer = b""
    while end not in answer:
        received = connection.recv(4096)
        if not received:
            raise SystemExit(f"the server closed a connection: {answer!r}")
        answer += received


if __name__ == "__main__":
    sys.exit(main())
