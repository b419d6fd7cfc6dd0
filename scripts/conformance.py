"""Runs others' conformance suites against HTTPy: every case has to pass.

    conformance.py [h2] [SECTION ...]       h2spec, over cleartext and TLS (make conformance)
    conformance.py ws [CASE ...]            Autobahn's fuzzing client, plain and by TLS (make conformance-ws)

h2spec is $H2SPEC, or on the PATH, or is built by `go`. Autobahn's wstest is $WSTEST, or on the PATH, or is installed
for a Python 2.7, which it never left: $PYTHON27, one of pyenv's, or on the PATH. Both go into $CONFORMANCE_HOME
(default: .conformance), and Autobahn's report too.
"""

from __future__ import annotations

import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from typing import Any

from httpy import App, Server, WebSocket, _httpy

H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec"

# The last release, and the commit: not every proxy gives out the former, whose go.mod has no /v2, nor every one the
# latter.
VERSIONS = ("v2.2.1+incompatible", "af83a65f0b6273ef38bf778d400d98892e7653d8")

# The last versions for Python 2.7, in the order in which they can be built.
WSTEST = (
    [
        "setuptools==44.0.0",
        "wheel==0.36.2",
        "incremental==16.10.1",
        "pyOpenSSL==19.1.0",
        "cryptography==3.3.2",
    ],
    ["Twisted==19.10.0", "zope.interface==4.6.0"],
    [
        "txaio==2.1.0",
        "jinja2==2.11.3",
        "markupsafe==1.1.1",
        "Werkzeug==1.0.1",
        "klein==17.10.0",
        "service_identity==18.1.0",
        "unittest2==1.1.0",
        "six==1.16.0",
        "autobahn[twisted]==0.10.9",
        "autobahntestsuite==25.10.1",
        "wsaccel==0.6.2",
    ],
)

# Some cases send frames for a stream that is being closed, and depend on who is faster.
TRIES = 3

# Autobahn's longest messages are of 16 MiB, and it does not answer while it compresses.
LIMITS = {
    "ws_max_message_bytes": 16 * 1024 * 1024,
    "ws_max_frame_bytes": 16 * 1024 * 1024,
    "ws_ping_timeout": 300.0,
}

# What counts as passed. Informational: there is no right or wrong; the report says what was done.
GOOD = {"OK", "INFORMATIONAL"}

# How long Autobahn may take, in seconds.
LONGEST = 3600

HOME = pathlib.Path(os.environ.get("CONFORMANCE_HOME", ".conformance")).resolve()

app = App()


@app.get("/", inline=True)
def index() -> str:
    """Something to read."""
    return "Hello, World!"


@app.post("/", inline=True)
def post() -> str:
    """The same, for requests with content."""
    return "Hello, World!"


@app.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    """Sends back what comes."""
    await websocket.accept()
    async for message in websocket:
        await websocket.send(message)


# -- HTTP/2 ----------------------------------------------------------------------------------------------------------


def find_h2spec() -> str:
    """The path of the program, which is built if need be.

    Raises:
        SystemExit: if it is not there, and go neither.
    """
    found = os.environ.get("H2SPEC") or which("h2spec", HOME / "bin")
    if found:
        return found
    go = shutil.which("go")
    if go is None:
        sys.exit("conformance: neither h2spec nor go is there (https://go.dev/dl, or set H2SPEC)")
    environment = {**os.environ, "GOBIN": str(HOME / "bin"), "GOFLAGS": "-mod=mod"}
    for version in VERSIONS:
        if (
            subprocess.run([go, "install", f"{H2SPEC}@{version}"], env=environment, check=False).returncode
            == 0
        ):
            return str(HOME / "bin" / "h2spec")
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


def h2(sections: list[str]) -> int:
    """Runs all cases of h2spec, or those of the sections that are named, over both."""
    h2spec = find_h2spec()
    passed = [check(h2spec, sections, is_encrypted=is_encrypted) for is_encrypted in (False, True)]
    return 0 if all(passed) else 1


# -- WebSocket -------------------------------------------------------------------------------------------------------


def find_wstest() -> str:
    """The path of the program, which is installed if need be.

    Raises:
        SystemExit: if it is not there, and no Python 2.7 neither.
    """
    place = HOME / "ab27" / "bin"
    found = os.environ.get("WSTEST") or which("wstest", place)
    if found:
        return found
    roots = [pathlib.Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()]
    of_pyenv = [str(path) for root in roots for path in sorted(root.glob("versions/2.7*/bin/python2.7"))]
    python = os.environ.get("PYTHON27") or next(iter(of_pyenv), None) or shutil.which("python2.7")
    if python is None:
        sys.exit(
            "conformance: neither wstest nor a Python 2.7 is there (pyenv install 2.7.18, or set WSTEST)"
        )
    tools = HOME / "venvtool"
    venv.create(tools, with_pip=True)
    subprocess.run([tools / "bin" / "pip", "install", "-q", "virtualenv<20.22"], check=True)
    subprocess.run([tools / "bin" / "virtualenv", "-q", "-p", python, HOME / "ab27"], check=True)
    for index, packages in enumerate(WSTEST):
        isolation = ["--no-build-isolation"] if index else []
        subprocess.run([place / "pip", "install", "-q", *isolation, *packages], check=True)
    return str(place / "wstest")


def run_wstest(wstest: str, url: str, cases: list[str]) -> dict[str, Any]:
    """Runs the cases and returns what came of each."""
    report = HOME / "autobahn" / url.partition(":")[0]
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir(parents=True)
    spec = {
        "outdir": str(report),
        "servers": [{"agent": "httpy", "url": url}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    path = report / "spec.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    with open(report / "wstest.log", "w", encoding="utf-8") as log:
        command = [wstest, "-m", "fuzzingclient", "-s", str(path)]
        subprocess.run(command, stdout=log, stderr=log, timeout=LONGEST, check=True)
    results: dict[str, Any] = json.loads((report / "index.json").read_text(encoding="utf-8"))["httpy"]
    return results


def ws(cases: list[str]) -> int:
    """Runs all cases of Autobahn, or those that are named, such as `6.*`, plain and by TLS.

    Both at a time: each is one thread of Autobahn's most of all.
    """
    wstest = find_wstest()
    HOME.mkdir(parents=True, exist_ok=True)
    chain, key = _httpy.dev_certificate(str(HOME))
    kinds: dict[str, dict[str, Any]] = {"ws": {}, "wss": {"certfile": str(chain), "keyfile": str(key)}}

    def run_kind(scheme: str) -> dict[str, Any]:
        with Server(app, port=0, **LIMITS, **kinds[scheme]) as server:
            return run_wstest(wstest, f"{scheme}://127.0.0.1:{server.port}/ws", cases or ["*"])

    with concurrent.futures.ThreadPoolExecutor() as pool:
        found = dict(zip(kinds, pool.map(run_kind, kinds)))
    passed = [show(scheme, results) for scheme, results in found.items()]
    return 0 if all(passed) else 1


def show(scheme: str, results: dict[str, Any]) -> bool:
    """Prints what came of the cases; whether all have passed."""
    print(f"-- Autobahn over {scheme}")
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for case in sorted(results, key=lambda case: [int(part) for part in case.split(".")]):
        outcome = {results[case]["behavior"], results[case]["behaviorClose"]}
        bad = outcome - GOOD
        counts[case.split(".")[0]][min(bad) if bad else results[case]["behavior"]] += 1
        if bad:
            print(
                f"case {case}: {results[case]['behavior']}, and at the close {results[case]['behaviorClose']}"
            )
    for section, found in counts.items():
        print(f"section {section:>2}: {dict(found)}")
    total = sum(sum(found.values()) for found in counts.values())
    passed = sum(count for found in counts.values() for name, count in found.items() if name in GOOD)
    print(f"passed {passed} of {total}")
    return passed == total > 0


def which(name: str, first: pathlib.Path) -> str | None:
    """The path of a program, from a directory or the PATH."""
    return shutil.which(name, path=os.pathsep.join([str(first), os.environ.get("PATH", "")]))


def main() -> int:
    """Runs a suite."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["ws"]:
        return ws(arguments[1:])
    return h2(arguments[1:] if arguments[:1] == ["h2"] else arguments)


if __name__ == "__main__":
    sys.exit(main())
