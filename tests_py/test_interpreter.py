"""An interpreter beside the main one gets no HTTPy, and is told why. In Apache: `test_mod_wsgi.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import environment

# By Python's own module for that, which has another name since 3.13. Not isolated: that refuses modules like ours
# by itself.
PROGRAM = """
import sys

if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    other = interpreters.create("legacy")
else:
    import _xxsubinterpreters as interpreters
    other = interpreters.create(isolated=False) if sys.version_info >= (3, 10) else interpreters.create()

interpreters.run_string(other, '''
try:
    import httpy._httpy
    print("imported", flush=True)
except ImportError as error:
    print(error, flush=True)
''')
import httpy
print(httpy.App.__name__, flush=True)
"""


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="has CPython's own interpreters")
def test_another_interpreter_is_refused_and_the_main_one_is_not(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )

    refused, imported = done.stdout.splitlines()[:2]
    assert refused.startswith("httpy needs the main interpreter of its process"), done
    assert imported == "App"
