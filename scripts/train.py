#!/usr/bin/env python3
"""Finds out which code is hot, for the compiler to make that fast and the rest small (profile-guided optimization).

    .venv/bin/python scripts/train.py           builds, asks, and writes profiles/rustc-VERSION-llvm-VERSION.profdata.xz
    .venv/bin/python scripts/train.py --flags   prints the RUSTFLAGS that a build with that file takes

A profile is of one version of the compiler, which names functions in its own way. It sees which code has changed since,
and builds that as if there were no profile; so none has to be made for each change, but for a new compiler, and when a
request goes another way. That takes five minutes, and the component `llvm-tools` of rustup.
"""

from __future__ import annotations

import argparse
import lzma
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROFILES, UNPACKED = ROOT / "profiles", ROOT / "target" / "profiles"
# Where what is trained writes its counters.
RAW = ROOT / "target" / "train" / "raw"
# Functions that ran less often than this belong to starting and stopping.
LEAST_RUNS = 500
CONNECTIONS = 16
BROWSER = (
    "Host: localhost:8000\r\nConnection: keep-alive\r\nCache-Control: max-age=0\r\nCookie: session=abc; theme=dark\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate\r\n"
    "Accept-Language: en-US,en;q=0.9\r\nReferer: http://localhost:8000/\r\n"
)
CLIENT = "Host: localhost:8000\r\n"
BODY = b'{"name": "value", "numbers": [1, 2.5, -3], "nested": {"a": null, "b": true}}'
# A text message of 5 bytes, masked with zeros, and what comes back.
HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MESSAGE, ECHO = b"\x81\x85\0\0\0\0Hello", b"\x81\x05Hello"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--flags", action="store_true", help="print the RUSTFLAGS of a build, and do nothing else"
    )
    name, host, sysroot = compiler()
    if parser.parse_args().flags:
        print(flags(name))
        return 0
    profdata = find_profdata(sysroot, host)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        site = build(work)
        # What the compiler's own plug-ins have counted, which were built so, too.
        shutil.rmtree(RAW, ignore_errors=True)
        train(site, RAW)
        PROFILES.mkdir(exist_ok=True)
        for old in PROFILES.glob("*.xz"):
            old.unlink()
        made = PROFILES / f"{name}.profdata.xz"
        made.write_bytes(lzma.compress(merge(profdata, work), preset=9 | lzma.PRESET_EXTREME))
    print(f"train: {made.relative_to(ROOT)} has {made.stat().st_size:,} bytes", file=sys.stderr)
    return 0


def compiler() -> tuple[str, str, Path]:
    """What a profile is named after, the system that is built for, and where the compiler is."""
    said = subprocess.check_output(["rustc", "-vV"], text=True, cwd=ROOT)
    facts = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    llvm = facts.get("LLVM version", "none").split(".")[0]
    sysroot = subprocess.check_output(["rustc", "--print", "sysroot"], text=True, cwd=ROOT).strip()
    return f"rustc-{facts['release']}-llvm-{llvm}", facts["host"], Path(sysroot)


def flags(name: str) -> str:
    """What to build with, beside what the environment says: nothing more if there is no profile for this compiler."""
    given = os.environ.get("RUSTFLAGS", "")
    packed = PROFILES / f"{name}.profdata.xz"
    if not packed.exists() or " " in str(ROOT):
        return given
    unpacked = UNPACKED / packed.stem
    content = lzma.decompress(packed.read_bytes())
    # Left alone if it is the same: cargo and the compiler look at the time.
    if not unpacked.exists() or unpacked.read_bytes() != content:
        UNPACKED.mkdir(parents=True, exist_ok=True)
        unpacked.write_bytes(content)
    # That code has changed since is no news to whoever builds.
    return f"{given} -Cprofile-use={unpacked} -Cllvm-args=-no-pgo-warn-mismatch".strip()


def find_profdata(sysroot: Path, host: str) -> str:
    """The tool that puts profiles together: it has to be of the compiler's LLVM."""
    of_rustup = sysroot / "lib" / "rustlib" / host / "bin" / "llvm-profdata"
    found = shutil.which(of_rustup) or shutil.which("llvm-profdata")
    if not found:
        raise SystemExit("train: llvm-profdata is not here: rustup component add llvm-tools")
    return found


def build(work: Path) -> Path:
    """Builds the package with counters in it, and gives where it is."""
    environment = {
        **os.environ,
        "RUSTFLAGS": f"{os.environ.get('RUSTFLAGS', '')} -Cprofile-generate={RAW}".strip(),
        "CARGO_TARGET_DIR": str(ROOT / "target" / "train"),
    }
    # As `make build` does it: how cargo is called is in the names of functions, too.
    command = [sys.executable, "-m", "maturin", "build", "--release", "-i", sys.executable, "-o", str(work)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
        wheel.extractall(work / "site")
    return work / "site"


def train(site: Path, raw: Path) -> None:
    """Asks servers of everything that is to be fast, in about the shares that it is asked."""
    for inline in "0", "1":
        with served(site, "app:app", HTTPY_BENCH_INLINE=inline) as port:
            say(f"HTTP/1.1 and HTTP/2, inline={inline}")
            ask(port, "/", 400)
            ask(port, "/", 40, pipelined=16)
            ask(port, "/", 100, fields=BROWSER)
            ask_http2(port, "/", 50)
            if inline == "1":
                continue
            for path in "/json", "/users/42?q=abc", "/inline", "/sync", "/sleep0", "/missing":
                ask(port, path, 150)
            ask(port, "/users/42?q=abc", 100, fields=BROWSER)
            ask(port, "/big", 50)
            ask(
                port,
                "/echo",
                150,
                body=b'{"name": "value", "numbers": [1, 2.5, -3], "nested": {"a": null, "b": true}}',
            )
            ask_http2(port, "/json", 30)
            echo(port, 200)
    with served(site, "app:app", "--dev-cert") as port:
        say("TLS")
        ask(port, "/", 200, is_tls=True)
        ask_http2(port, "/", 30, is_tls=True)
        for version in ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2:
            for _ in range(100):
                ask(port, "/", 1, is_tls=True, newest=version)
    for name in "asgi", "wsgi":
        with served(site, f"hosted:{name}") as port:
            say(name)
            ask(port, "/", 300)
            ask(port, "/", 20, pipelined=16)
            ask(port, "/users/42?q=abc", 100, fields=BROWSER)
            if name == "asgi":
                echo(port, 100)
    with served(site, "showcase:app", where="examples") as port:
        say("an app with middleware")
        for path in "/hello/world", "/me":
            ask(port, path, 60, fields=BROWSER)
    assert any(raw.iterdir()), "the servers have written no counters"


class served:
    """A server, while in the context."""

    def __init__(
        self, site: Path, app: str, *arguments: str, where: str = "benches", **environment: str
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "httpy", "run", app, "--port", "0", *arguments],
            cwd=ROOT / where,
            env={**os.environ, "PYTHONPATH": str(site), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> int:
        assert self._process.stderr is not None
        said = ""
        for line in self._process.stderr:
            said += line
            if found := re.search(r"https?://[^ ]*:(\d+)", line):
                return int(found[1])
        raise SystemExit(f"train: the server did not start: {said}")

    def __exit__(self, *_: object) -> None:
        # Counters are written when it ends by itself.
        self._process.terminate()
        self._process.communicate(timeout=60)


def connect(
    port: int, is_tls: bool, protocol: str, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not is_tls:
        return connection
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = newest
    context.set_alpn_protocols([protocol])
    return context.wrap_socket(connection)


def take_turns(connections: Iterable[socket.socket], rounds: int, say: bytes, length: int) -> None:
    """Says something on all connections, and reads that many bytes from each, `rounds` times."""
    for _ in range(rounds):
        for connection in connections:
            connection.sendall(say)
        for connection in connections:
            left = length
            while left:
                received = len(connection.recv(min(left, 65536)))
                assert received, "the server closed a connection"
                left -= received


def ask(
    port: int,
    path: str,
    rounds: int,
    *,
    fields: str = CLIENT,
    body: bytes = b"",
    pipelined: int = 1,
    is_tls: bool = False,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> None:
    """Asks by HTTP/1.1, on each connection in each round."""
    if body:
        fields += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    request = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\n{fields}\r\n".encode() + body
    connections = [connect(port, is_tls, "http/1.1", newest) for _ in range(CONNECTIONS)]
    try:
        for connection in connections:
            connection.sendall(request)
            length = response_length(connection)
        take_turns(connections, rounds, request * pipelined, length * pipelined)
    finally:
        for connection in connections:
            connection.close()


def response_length(connection: socket.socket) -> int:
    """Reads a response, and gives how long it is: all to the same request are."""
    received = b""
    while not (head := received.partition(b"\r\n\r\n"))[1]:
        received += connection.recv(65536) or b"\r\n\r\n"
    length = re.search(rb"content-length: (\d+)", head[0], re.IGNORECASE)
    if not length:
        while not received.endswith(b"0\r\n\r\n"):
            received += connection.recv(65536)
        return len(received)
    whole = len(head[0]) + 4 + int(length[1])
    while len(received) < whole:
        received += connection.recv(65536)
    return whole


def ask_http2(port: int, path: str, rounds: int, *, is_tls: bool = False) -> None:
    """Asks by HTTP/2, 32 times on each connection in each round."""
    import h2.config
    import h2.connection
    import h2.events

    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
    fields += [("user-agent", "train"), ("accept", "*/*")]
    ends = [
        (connect(port, is_tls, "h2"), h2.connection.H2Connection(h2.config.H2Configuration()))
        for _ in range(2)
    ]
    for connection, state in ends:
        state.initiate_connection()
        for _ in range(rounds):
            for _ in range(32):
                state.send_headers(state.get_next_available_stream_id(), fields, end_stream=True)
            connection.sendall(state.data_to_send())
            ended = 0
            while ended < 32:
                for event in state.receive_data(connection.recv(65536)):
                    if isinstance(event, h2.events.DataReceived):
                        state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    ended += isinstance(event, h2.events.StreamEnded)
                connection.sendall(state.data_to_send())
        connection.close()


def echo(port: int, rounds: int) -> None:
    """Sends messages to a WebSocket that sends them back."""
    connections = [connect(port, False, "") for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.sendall(HANDSHAKE.encode())
        while not connection.recv(4096).endswith(b"\r\n\r\n"):
            pass
    take_turns(connections, rounds, MESSAGE, len(ECHO))
    for connection in connections:
        connection.close()


def merge(profdata: str, work: Path) -> bytes:
    """Puts the counters of all servers together, without functions that hardly ran."""
    raw = [str(file) for file in RAW.iterdir()]
    text, hot, made = work / "all.txt", work / "hot.txt", work / "hot.profdata"
    subprocess.run([profdata, "merge", "--sparse", "--text", "-o", str(text), *raw], check=True)
    with text.open(encoding="utf-8") as lines, hot.open("w", encoding="utf-8") as kept:
        for record in records(lines):
            if record[0].startswith(":") or most_runs(record) >= LEAST_RUNS:
                kept.writelines(record)
    subprocess.run([profdata, "merge", "--sparse", "-o", str(made), str(hot)], check=True)
    return made.read_bytes()


def records(lines: Iterable[str]) -> Iterator[list[str]]:
    """The parts of a profile's text: what kind it is, a line that begins with a colon, then one of each function."""
    record: list[str] = []
    for line in lines:
        if line.startswith(":"):
            yield [line]
            continue
        record.append(line)
        if not line.strip():
            yield record
            record = []
    if record:
        yield record


def most_runs(record: list[str]) -> int:
    """The largest counter of a function, whose record has its name, a hash, how many counters there are, and those."""
    numbers = [line.strip() for line in record if not line.startswith("#")]
    count = int(numbers[2])
    return max(map(int, numbers[3 : 3 + count]))


def say(text: str) -> None:
    print(f"train: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
