"""Runs h2spec against HTTPy, over cleartext: every case has to pass.

h2spec is $H2SPEC, or on the PATH, or is built by `go` into $CONFORMANCE_HOME (default: .conformance).
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

from httpy import App, Server

H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"

# Some cases send frames for a stream that is being closed, and depend on who is faster.
TRIES = 3

app = App()


@app.get("/", inline=True)
def index() -> str:
    """Something to read."""
    return "Hello, World!"


@app.post("/", inline=True)
def echo() -> str:
    """The same, for requests with content."""
    return "Hello, World!"


def find_h2spec() -> str:
    """The path of the program, which is built if need be.

    Raises:
        SystemExit: if it is not there, and go neither.
    """
    home = pathlib.Path(os.environ.get("CONFORMANCE_HOME", ".conformance")).resolve() / "bin"
    search = os.pathsep.join([str(home), os.environ.get("PATH", "")])
    found = os.environ.get("H2SPEC") or shutil.which("h2spec", path=search)
    if found:
        return found
    go = shutil.which("go")
    if go is None:
        sys.exit("conformance: neither h2spec nor go is there (https://go.dev/dl, or set H2SPEC)")
    subprocess.run([go, "install", H2SPEC], env={**os.environ, "GOBIN": str(home)}, check=True)
    return str(home / "h2spec")


def run(h2spec: str, port: int, sections: list[str]) -> bool:
    """Runs the cases once, prints what failed and how many passed; whether all did."""
    command = [h2spec, "--strict", "-h", "127.0.0.1", "-p", str(port), "-o", "2", *sections]
    output = subprocess.run(command, capture_output=True, text=True, timeout=600).stdout
    failures = re.search(r"^Failures:.*", output, re.DOTALL | re.MULTILINE)
    print(failures.group() if failures else output.strip().splitlines()[-1])
    summary = re.search(r"^(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", output, re.MULTILINE)
    if summary is None:
        sys.exit("conformance: h2spec gave no result")
    return summary.group(4) == "0" and int(summary.group(2)) > 0


def main() -> int:
    """Runs all cases, or those of the sections that are named."""
    h2spec = find_h2spec()
    with Server(app, port=0) as server:
        for _ in range(TRIES):
            if run(h2spec, server.port, sys.argv[1:]):
                return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
