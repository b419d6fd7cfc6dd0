#!/usr/bin/env python3
"""Attacks a server with slowhttptest, in each of its modes. Linux, with slowhttptest installed.

    .venv/bin/python scripts/hostile.py [--seconds 10] [--connections 1000]

The server passes if, during each attack, other clients are answered: the median on new connections within 100 ms, none
later than a second, and slowhttptest's own probes too; and if it holds no more memory than its connections may. The
machine may have been busy with something else, so what fails is tried once more.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests_py"))

from victim import KIB, MIB, Victim, victim  # noqa: E402

MODES = {
    "slow headers": ("/", ["-H", "-i", "1", "-x", "24"]),
    "slow body": ("/", ["-B", "-i", "1", "-s", "8192", "-x", "10"]),
    "ranges": ("/large", ["-R", "-a", "10", "-b", "3000"]),
    "slow read": ("/large", ["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3"]),
}
# What a connection may hold: buffers for what was sent of a request, or a response of 256 KiB that is not read.
MOST = {"slow read": 384 * KIB}
MOST_ELSEWHERE = 64 * KIB


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=10, help="how long each attack lasts")
    parser.add_argument("--connections", type=int, default=1000, help="how many connections it opens")
    options = parser.parse_args()
    how = options.seconds, options.connections
    failed = [mode for mode in MODES if not (withstands(mode, *how) or withstands(mode, *how))]
    print(f"failed: {', '.join(failed)}" if failed else "all attacks withstood")
    return 1 if failed else 0


def withstands(mode: str, seconds: int, connections: int) -> bool:
    """Runs one attack, with half as many places as it wants, and says how it went."""
    try:
        with victim(max_connections=connections // 2) as server:
            attack(mode, server, seconds, connections)
            held = server.memory()
        assert held <= connections // 2 * MOST.get(mode, MOST_ELSEWHERE), (
            f"the server holds {held / MIB:.0f} MiB more"
        )
    except AssertionError as error:
        print(f"{mode}: FAILED: {error}", flush=True)
        return False
    print(f"{mode}: withstood; the server holds {held / MIB:.1f} MiB more", flush=True)
    return True


def attack(mode: str, server: Victim, seconds: int, connections: int) -> None:
    target, how = MODES[mode]
    common = ["-c", str(connections), "-r", str(connections // 4), "-l", str(seconds), "-p", "2"]
    command = ["slowhttptest", *how, *common, "-u", f"http://127.0.0.1:{server.port}{target}"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False).stdout
    plain = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", said)
    probes = re.findall(r"service available: +(\w+)", plain)
    assert probes, f"slowhttptest did not attack: {plain[-500:]}"
    assert set(probes) == {"YES"}, f"slowhttptest's probes were answered {probes}"


if __name__ == "__main__":
    sys.exit(main())
