"""Compares HTTPy with Starlette on uvicorn: `make bench-python`.

Both run in a process of their own, with one worker and no access log, uvicorn with uvloop and httptools. The
client sends requests without waiting for the response before, so that the time is the server's.
The file's name keeps it out of `make test`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from programs import Pipeline, running, to
from support import environment

HERE = Path(__file__).parent
SERVERS: dict[str, list[str]] = {
    "httpy": [sys.executable, str(HERE.parents[1] / "benches" / "app.py")],
    "starlette": [
        *(sys.executable, "-m", "uvicorn", "starlette_app:app", "--port", "0", "--no-access-log"),
        *("--loop", "uvloop", "--http", "httptools"),
    ],
}
WORKLOADS = {
    "plain": to("GET", "/"),
    "json": to("GET", "/json"),
    "params": to("GET", "/users/42?q=abc"),
    "echo": to(
        "POST", "/echo", b'{"name":"Ada Lovelace","age":36,"tags":["a","b","c"],"notes":"%s"}' % (b"x" * 800)
    ),
    "big": to("GET", "/big"),
    "sync": to("GET", "/sync"),
}
# 16: the depth most published comparisons use.
DEPTH = 16


@pytest.fixture(params=SERVERS, scope="module")
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with running(SERVERS[request.param], cwd=HERE, env={**environment(), "PORT": "0"}) as port:
        yield port


@pytest.mark.parametrize("workload", WORKLOADS)
def test_pipelined(benchmark: Any, port: int, workload: str) -> None:
    """Throughput: many requests on their way at once."""
    benchmark.group = f"{workload}: {DEPTH} requests at once"
    with Pipeline(port, WORKLOADS[workload], depth=DEPTH) as client:
        assert client.response.startswith(b"HTTP/1.1 200 OK")

        benchmark(client.burst)


def test_round_trip(benchmark: Any, port: int) -> None:
    """Latency: one request after the other."""
    benchmark.group = "plain: one request after the other"
    with Pipeline(port, WORKLOADS["plain"], depth=1) as client:
        benchmark(client.burst)


def test_same_answers() -> None:
    """What is compared does the same."""
    answers: dict[str, list[bytes]] = {}
    for name, command in SERVERS.items():
        with running(command, cwd=HERE, env={**os.environ, **environment(), "PORT": "0"}) as port:
            for request in WORKLOADS.values():
                with Pipeline(port, request, depth=1) as client:
                    answers.setdefault(name, []).append(client.response.partition(b"\r\n\r\n")[2])

    assert answers["httpy"] == answers["starlette"]
