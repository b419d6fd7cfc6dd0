"""Measures the processor time of a TLS handshake, HTTPy's and a bare rustls server's (Linux, openssl, cargo).

    python scripts/handshakes.py [--seconds 2] [--rounds 3] [--python .venv/bin/python]

`openssl s_time` shakes hands one after the other, anew each time or resuming a session; the servers take turns. That is
`seconds` times `rounds` times six, 36 seconds unless told otherwise; before it cargo builds the bare server, the first
time, for a minute or several. The bare server does what HTTPy does: the same cryptography, and tickets for resumption.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from httpy import _httpy

ROOT = pathlib.Path(__file__).resolve().parent.parent
KINDS = {
    "TLS 1.3": ["-tls1_3", "-new"],
    "TLS 1.2": ["-tls1_2", "-new"],
    "TLS 1.2, resumed": ["-tls1_2", "-reuse"],
}
PATIENCE_S = 30.0


class Row(NamedTuple):
    """A server, and how it is started."""

    name: str
    command: list[str]


def free_port() -> int:
    """A port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def processor_ns(process: int) -> int:
    """What all threads of a process have used."""
    tasks = pathlib.Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Waits until a server accepts connections."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"handshakes: {server.args!r} does not serve")
            time.sleep(0.05)


def say(text: str) -> None:
    """Tells what is being done."""
    print(f"handshakes: {text}", file=sys.stderr, flush=True)


def measure(row: Row, seconds: int) -> dict[str, float]:
    """The processor time of one handshake of each kind, in microseconds."""
    port = free_port()
    command = [part.replace("PORT", str(port)) for part in row.command]
    with subprocess.Popen(command, cwd=ROOT / "benches", stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(port, server)
            figures = {kind: one_kind(port, server.pid, flags, seconds) for kind, flags in KINDS.items()}
            say(f"{row.name}: " + ", ".join(f"{kind} {figure:.1f}" for kind, figure in figures.items()))
            return figures
        finally:
            server.terminate()


def one_kind(port: int, process: int, flags: list[str], seconds: int) -> float:
    command = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-time", str(seconds), *flags]
    before = processor_ns(process)
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + PATIENCE_S)
    used = processor_ns(process) - before
    count = re.search(r"(\d+) connections in \d+ real seconds", done.stdout)
    if count is None or int(count[1]) == 0:
        sys.exit(f"handshakes: {done.stdout}{done.stderr}")
    return used / int(count[1]) / 1000


def main() -> None:
    """Prints a row for each kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    say("cargo builds the bare server")
    subprocess.run(["cargo", "build", "-q", "--release", "--example", "bare-rustls"], cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory() as folder:
        chain, key = map(str, _httpy.dev_certificate(folder))
        httpy = [options.python, "-m", "httpy", "run", "app:app", "--port", "PORT"]
        rows = [
            Row("bare rustls", [str(ROOT / "target/release/examples/bare-rustls"), "PORT", chain, key]),
            Row("HTTPy", [*httpy, "--certfile", chain, "--keyfile", key]),
        ]
        figures: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for row in rows:
                figures.setdefault(row.name, []).append(measure(row, options.seconds))
    print(f"{'us of a handshake':20}" + "".join(f"{row.name:>14}" for row in rows) + f"{'ratio':>8}")
    for kind in KINDS:
        bare, ours = (statistics.median(one[kind] for one in figures[row.name]) for row in rows)
        print(f"{kind:20}{bare:14.1f}{ours:14.1f}{ours / bare:8.2f}")


if __name__ == "__main__":
    main()
