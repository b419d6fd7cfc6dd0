"""What connections cost that do nothing: `scripts/memory.py` says so, and fails if it is too much."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from programs import ask, started, to
from support import environment, python

SCRIPT = Path(__file__).parent.parent / "scripts" / "memory.py"


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_an_idle_connection_takes_eight_kib_at_most() -> None:
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--connections", "10000"],
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert "bytes for each connection" in run.stdout, run.stderr
    line = next(line for line in run.stdout.splitlines() if line.startswith("bytes for each connection"))
    each = [int(found) for found in re.findall(r"\d+", line)]
    assert len(each) == 2
    assert max(each) <= 8192, run.stdout


def code_in_memory(pid: int) -> int:
    """How many bytes of HTTPy's code are resident."""
    smaps = Path(f"/proc/{pid}/smaps").read_text(encoding="utf-8")
    # A mapping begins with its address and ends with the file it is of; what is said of it comes next.
    found = re.findall(
        r"^[0-9a-f]+-[0-9a-f]+ r-xp .*_httpy[^/]*$\n(?:\w+: .*\n)*?Rss: +(\d+) kB", smaps, re.MULTILINE
    )
    assert found, smaps
    return sum(map(int, found)) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_code_is_in_memory_only_while_somebody_is_connected() -> None:
    app = Path(__file__).parent.parent / "examples" / "showcase.py"
    with started(python("-m", "httpy", "run", f"{app}:app", "--port", "0"), env=environment()) as (
        server,
        port,
    ):
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), 30) as connection:
                ask(connection, to("GET", "/hello/world"))
                # For longer than until code is given back.
                time.sleep(0.6)
                connected = code_in_memory(server.pid)
            deadline = time.monotonic() + 30
            while (resting := code_in_memory(server.pid)) > 0.8 * connected:
                assert time.monotonic() < deadline, f"{resting} of {connected} bytes are in memory still"
                time.sleep(0.05)
