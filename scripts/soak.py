#!/usr/bin/env python3
"""Asks two servers of everything for a long time, and sees that they answer rightly and stay as they are. Linux.

    .venv/bin/python scripts/soak.py [--minutes 30] [--users 20]

One server is a single process. In the end it must have as many descriptors open as in the beginning, no handler under
way, have called its handlers exactly as often as they were answered, and its memory must not have grown between the
second and the last quarter of the time. The other has two workers, which are restarted (SIGHUP) and, less often,
killed. No request may be lost but those on the connections of a killed worker.
Every response is checked against its request (`tests_py/soak_users.py`). The machine should have little else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests_py"))

from soak_users import User, Wrong, connected, request  # noqa: E402

KIB, MIB = 1024, 1024 * 1024
LIMITS = ["--head-timeout=1", "--keep-alive-timeout=1", "--body-timeout=1"]
# What is allocated and freed all the time leaves memory in pieces: that much it may vary.
MOST_GROWTH = 4 * MIB
RESTART_S, KILL_S = 5.0, 12.0
# How long after a worker was killed its clients may still find out.
EXCUSE_S = 3.0


class Process:
    """A server under load."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.pid, self._process, self.log = process.pid, process, log
        deadline = time.monotonic() + 30
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
        self.port = int(found[1])

    def memory(self) -> int:
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii")
        return KIB * sum(map(int, re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB", rollup, re.MULTILINE)))

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def workers(self) -> list[int]:
        return list(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ends(self) -> int:
        self._process.terminate()
        return self._process.wait(60)


@contextlib.contextmanager
def server(folder: Path, *options: str) -> Iterator[Process]:
    log = folder / f"log{len(list(folder.iterdir()))}"
    command = [sys.executable, "-m", "httpy", "run", "soak_app:app", "--app-dir", str(ROOT / "tests_py")]
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [*command, "--bind=127.0.0.1:0", *LIMITS, *options], stdout=file, stderr=file
        ) as process,
    ):
        try:
            yield Process(process, log)
        finally:
            if process.poll() is None:
                process.kill()


async def asked(port: int) -> dict[str, dict[str, int]]:
    async with connected(port) as connection:
        await connection.send(request("GET", "/state", fields="connection: close\r\n"))
        return dict(json.loads((await connection.response())[1]))


async def load(port: int, users: int, seconds: float, *more: object) -> Counter[str]:
    """Has users ask for so long, and returns what was answered."""
    answered: Counter[str] = Counter()
    until = time.monotonic() + seconds
    tasks = [asyncio.ensure_future(User(port, answered, *more).run(until)) for _ in range(users)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return answered


async def steady(one: Process, users: int, seconds: float) -> list[str]:
    """What is wrong with the single process in the end."""
    before = await load(one.port, users, 2)
    # What is open while a client looks, its connection included.
    start, samples = one.descriptors(), []

    async def watch() -> None:
        while True:
            samples.append((time.monotonic(), one.memory()))
            await asyncio.sleep(min(1.0, seconds / 50))

    watching = asyncio.ensure_future(watch())
    answered = await load(one.port, users, seconds)
    watching.cancel()
    await settled(lambda: one.descriptors() <= start)
    wrong = []
    if one.descriptors() > start:
        wrong.append(f"{one.descriptors()} descriptors are open; there were {start}")
    state = await asked(one.port)
    calls, answers = state["calls"], before + answered
    for kind, count in calls.items():
        # Whoever left may have been too early for the handler. These are handlers of others, too.
        left = answers["left"] + answers["408"] if kind in ("large", "stream", "digest", "echo") else 0
        if not answers[kind] <= count <= answers[kind] + left:
            wrong.append(f"{kind}: {count} calls, but {answers[kind]} answers")
    if state["under_way"]:
        wrong.append(f"{state['under_way']} handlers are under way, and nobody waits for them")
    quarters = [
        statistics.median(size for _, size in samples[len(samples) * n // 4 : len(samples) * (n + 1) // 4])
        for n in range(4)
    ]
    growth = quarters[3] - quarters[1]
    total = sum(answered.values())
    sizes = ", ".join(f"{size / MIB:.1f}" for size in quarters)
    print(f"one process: {total} answers; private memory by quarters: {sizes} MiB; descriptors: {start}")
    print(f"  {dict(answered)}")
    if growth > MOST_GROWTH:
        wrong.append(f"{growth / MIB:.1f} MiB more from the second to the last quarter of the time")
    return wrong


async def restarted(crew: Process, users: int, seconds: float) -> list[str]:
    """What is wrong with the workers in the end."""
    await load(crew.port, users, 2)
    start = crew.descriptors()
    killed, counts = [0.0], Counter[str]()

    async def restart() -> None:
        while True:
            await asyncio.sleep(RESTART_S)
            crew.signal(signal.SIGHUP)
            counts["restarts"] += 1

    async def kill() -> None:
        while True:
            await asyncio.sleep(KILL_S)
            killed[0] = time.monotonic()
            os.kill(crew.workers()[0], signal.SIGKILL)
            counts["kills"] += 1

    disturbing = [asyncio.ensure_future(restart()), asyncio.ensure_future(kill())]
    answered = await load(crew.port, users, seconds, lambda: time.monotonic() < killed[0] + EXCUSE_S)
    for task in disturbing:
        task.cancel()
    ended = [task.exception() for task in disturbing if task.done() and not task.cancelled()]
    await settled(lambda: crew.descriptors() <= start and len(crew.workers()) == 2)
    print(f"two workers: {sum(answered.values())} answers, {dict(counts)}, excused {answered['excused']}")
    wrong = [f"{error}" for error in ended if error]
    if crew.descriptors() > start:
        wrong.append(f"the supervisor has {crew.descriptors()} descriptors open; there were {start}")
    if len(crew.workers()) != 2:
        wrong.append(f"there are {len(crew.workers())} workers")
    return wrong


async def settled(condition: object, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.1)


async def both(one: Process, crew: Process, users: int, seconds: float) -> list[str]:
    found = await asyncio.gather(
        steady(one, users, seconds), restarted(crew, users, seconds), return_exceptions=True
    )
    wrong = []
    for result in found:
        if isinstance(result, (Wrong, OSError, asyncio.TimeoutError)):
            wrong.append(f"{type(result).__name__}: {result}")
        elif isinstance(result, BaseException):
            raise result
        else:
            wrong += result
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30, help="how long")
    parser.add_argument("--users", type=int, default=20, help="how many clients each of the servers has")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        one = stack.enter_context(server(folder))
        crew = stack.enter_context(server(folder, "--workers=2"))
        wrong = asyncio.run(both(one, crew, options.users, options.minutes * 60))
        for process in (one, crew):
            status = process.ends()
            if status:
                wrong.append(f"a server ended with status {status}")
            if said := re.findall(
                r"^.*(?:panic|never awaited|was destroyed).*$", process.log.read_text(), re.MULTILINE
            ):
                wrong.append(f"a server says: {said[0]}")
    print(
        "\n".join(f"FAILED: {what}" for what in wrong) if wrong else "all answers right, nothing lost or kept"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
