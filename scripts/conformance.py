"""Runs h2spec against HTTPy, over cleartext and over TLS: every case has to pass.

    python scripts/conformance.py [section ...]

h2spec is $H2SPEC, or on the PATH, or is built by `go` into $CONFORMANCE_HOME (default: .conformance).
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from httpy import App, Server, _httpy

H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec"

# The last release, and the last commit: not every proxy gives out the former, whose go.mod has no /v2, nor every one
# the latter.
VERSIONS = ("v2.2.1+incompatible", "af83a65f0b6273ef38bf778d400d98892e7653d8")

# Cases of closed streams send frames while the stream is being closed, and depend on who is faster.
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
    environment = {**os.environ, "GOBIN": str(home), "GOFLAGS": "-mod=mod"}
    for version in VERSIONS:
        built = subprocess.run([go, "install", f"{H2SPEC}@{version}"], env=environment, check=False)
        if built.returncode == 0:
            return str(home / "h2spec")
    sys.exit("conformance: h2spec could not be built")


def run(command: list[str]) -> bool:
    """Runs the cases once, prints what failed and how many passed; whether all did."""
    output = subprocess.run(command, capture_output=True, text=True, timeout=600).stdout
    failures = re.search(r"^Failures:.*", output, re.DOTALL | re.MULTILINE)
    print(failures.group() if failures else output.strip().splitlines()[-1], flush=True)
    summary = re.search(r"^(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", output, re.MULTILINE)
    if summary is None:
        sys.exit("conformance: h2spec gave no result")
    cases, passed, _, _ = map(int, summary.groups())
    return 0 < passed == cases


def check(h2spec: str, sections: list[str], *, is_encrypted: bool) -> bool:
    """Whether all cases pass, or those of the sections that are named."""
    with tempfile.TemporaryDirectory() as folder:
        config, options = {}, ["--strict", "-o", "2"]
        if is_encrypted:
            chain, key = _httpy.dev_certificate(folder)
            config = {"certfile": str(chain), "keyfile": str(key)}
            options += ["-t", "-k"]
        print(f"-- h2spec over {'TLS' if is_encrypted else 'cleartext'}", flush=True)
        with Server(app, port=0, **config) as server:
            command = [h2spec, *options, "-h", "127.0.0.1", "-p", str(server.port), *sections]
            return any(run(command) for _ in range(TRIES))


def main() -> int:
    """Runs all cases, or those of the sections that are named, over both."""
    h2spec, sections = find_h2spec(), sys.argv[1:]
    passed = [check(h2spec, sections, is_encrypted=is_encrypted) for is_encrypted in (False, True)]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
