"""Runs `httpy` as a program, and listens to what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Optional

from httpy import _httpy
from support import PATIENCE_S, environment


def _is_for_all(path: str) -> bool:
    """Whether everybody may run a program, which has to be found on the way."""
    file = Path(path).resolve()
    return file.exists() and all(folder.stat().st_mode & 0o001 for folder in (file, *file.parents))


# Pythons for tests that become somebody else: one that root has for itself can't be anybody else's.
PUBLIC_PYTHONS = [path for path in (sys.executable, "/usr/bin/python3") if _is_for_all(path)]
PUBLIC_VARIABLES = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(Path(_httpy.__file__).parent.parent)}


class Command:
    """Is a program that runs until the block ends.

    Args:
        command: Its arguments after `python`.
        folder: Where it is started.
        variables: Of its environment, besides this process's own that are not `HTTPY_*`.
        interpreter: The Python. Defaults to this one.

    Attributes:
        said: The lines of standard error that were read.
    """

    def __init__(
        self,
        *command: str,
        folder: Path,
        variables: Optional[dict[str, str]] = None,
        interpreter: str = sys.executable,
        **options: Any,
    ) -> None:
        known = {name: value for name, value in environment().items() if not name.startswith("HTTPY_")}
        known.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [interpreter, *command],
            cwd=folder,
            env={**known, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.said: list[str] = []
        # Reading must not wait for ever.
        self._late = threading.Timer(PATIENCE_S, self.process.kill)
        self._late.start()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Reads standard error up to a line that has the pattern."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip("\n"))
            found = re.search(pattern, line)
            if found:
                return found
        raise AssertionError(f"the program did not say {pattern!r}: {self.said}")

    @property
    def url(self) -> str:
        """Where it serves, as its banner says."""
        return self.wait_for(r"https?://[\w.\[\]:]+:\d+")[0]

    def tell(self, number: int) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tells it to end, and returns its exit status."""
        self.tell(number)
        return self.wait()

    def wait(self) -> int:
        """Waits for its end; reads what it still says. Returns the exit status."""
        self.output, rest = self.process.communicate(timeout=PATIENCE_S)
        self.said += rest.splitlines()
        return self.process.returncode

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *raised: object) -> None:
        self._late.cancel()
        if self.process.poll() is None:
            # It may have children, which end with it.
            self.process.terminate()
            try:
                self.process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def httpy(
    *arguments: str, folder: Path, variables: Optional[dict[str, str]] = None, **options: Any
) -> Command:
    """Starts `python -m httpy`."""
    return Command("-m", "httpy", *arguments, folder=folder, variables=variables, **options)


def without_settings() -> list[str]:
    """The names of this process's variables that httpy would read."""
    return [name for name in os.environ if name.startswith("HTTPY_") or name == "NO_COLOR"]
