"""What connections cost that do nothing: `scripts/memory.py` says so, and fails if it is too much."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "memory.py"


@pytest.mark.slow
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
