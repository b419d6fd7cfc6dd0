"""Streamed responses, background tasks and streamed requests, against the real server over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import hashlib
import json
import logging
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any, Callable

import pytest

from httpy import App, Response, StreamingResponse, _httpy
from httpy.errors import ClientDisconnected, HTTPError
from httpy.testing import TestClient
from stream_support import SECONDS, Served
from support import DRIVERS

FULL = 64 * 1024
KERNEL = 8 << 20
"""What the two sockets may hold between them at most on loopback, with buffers the kernel sizes itself."""
MEGABYTES = b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() * 1024 for i in range(320))
"""10 MiB in which no part equals its neighbour."""

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def wait_until(condition: Callable[[], Any], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@pytest.fixture
def served(driver: str) -> Iterator[Served]:
    """A server that is not started yet. It stops at the end of its `with` block, or else at the end of the test."""
    served = Served(driver)
    yield served
    if served.is_running:
        served.stop()


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What was logged as errors, tracebacks included."""
    caplog.set_level(logging.ERROR, "httpy.error")
    return lambda: caplog.text


def streams(make: Callable[[], Any]) -> list[tuple[str, Callable[[], Any]]]:
    """The same chunks from a generator and from an async generator."""

    def generator() -> Iterator[Any]:
        yield from make()

    async def async_generator() -> AsyncIterator[Any]:
        for chunk in make():
            yield chunk

    return [("sync", generator), ("async", async_generator)]


# -- responses: what is sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("kind", ["inline", "async", "pooled"])
def test_sends_chunks_of_every_type_from_every_kind_of_handler(
    served: Served, kind: str, colour: str
) -> None:
    chunks = [
        "héllo ",
        b"bytes ",
        "",
        b"",
        bytearray(b"array "),
        memoryview(b"vxixexwx ")[::2],
        memoryview(b"end"),
    ]
    make = dict(streams(lambda: chunks))[colour]
    if kind == "async":

        async def handler() -> Any:
            return make()
    else:

        def handler() -> Any:
            return make()

    served.add("/", handler, kind)

    with served:
        answer = served.get("/")

    assert answer.is_whole
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == "héllo bytes array view end".encode().replace(
        b"view ", bytes(memoryview(b"vxixexwx ")[::2])
    )


@pytest.mark.slow
@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("size", [1, 1000, FULL - 1, FULL, FULL + 1, 1 << 20, 10 << 20])
def test_sends_ten_megabytes_unchanged(served: Served, colour: str, size: int) -> None:
    data = MEGABYTES if size > 1 else MEGABYTES[: 16 * 1024]
    make = dict(streams(lambda: (data[i : i + size] for i in range(0, len(data), size))))[colour]
    served.add("/", lambda: make(), "inline")

    with served:
        answer = served.get("/")

    assert answer.is_whole
    assert answer.body == data


@pytest.mark.parametrize(
    "make",
    [lambda: iter([b"a", "b"]), lambda: map(str.lower, "AB"), lambda: {"a": 1, "b": 2}.keys()],
    ids=["iterator", "map", "view"],
)
def test_sends_any_iterable_given_to_a_response(served: Served, make: Callable[[], Any]) -> None:
    served.add("/", lambda: _httpy.Response(make(), media_type="text/css"), "inline")

    with served:
        answer = served.get("/")

    assert answer.body == b"ab"
    assert answer.headers["content-type"] == "text/css; charset=utf-8"


def test_sends_an_iterable_again_as_often_as_its_response_is_returned(served: Served) -> None:
    class Twice:
        def __iter__(self) -> Iterator[str]:
            yield from ("a", "b")

    response = _httpy.Response(Twice())
    served.add("/", lambda: response, "inline")

    with served:
        assert served.get("/").body == b"ab"
        assert served.get("/").body == b"ab"


def test_sends_an_async_iterable_that_is_no_generator(served: Served) -> None:
    closed = []

    class Source:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> bytes:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            await asyncio.sleep(0)
            return b"x"

        async def aclose(self) -> None:
            closed.append(True)

    served.add("/", lambda: _httpy.Response(Source()), "inline")

    with served:
        assert served.get("/").body == b"xxx"
        assert closed == [True]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_empty_stream_is_an_empty_response(served: Served, colour: str) -> None:
    make = dict(streams(lambda: ["", b""]))[colour]
    served.add("/", lambda: make(), "inline")

    with served:
        answer = served.get("/")

    assert (answer.status, answer.body, answer.is_whole) == (200, b"", True)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_connection_lives_on_after_a_stream(served: Served, colour: str) -> None:
    make = dict(streams(lambda: ["a", "b"]))[colour]
    served.add("/", lambda: make(), "inline")

    with served, served.connect() as client:
        for _ in range(50):
            client.request("/")
            assert client.answer().body == b"ab"


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_http_1_0_gets_a_stream_up_to_the_end_of_the_connection(served: Served, colour: str) -> None:
    make = dict(streams(lambda: ["a", "b"]))[colour]
    served.add("/", lambda: make(), "inline")

    with served, served.connect() as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        answer = client.answer()

    assert answer.body == b"ab"
    assert "transfer-encoding" not in answer.headers


def test_every_chunk_is_sent_at_once(served: Served) -> None:
    go_on = threading.Semaphore(0)

    def generator() -> Iterator[str]:
        for i in range(5):
            yield f"chunk {i}"
            assert go_on.acquire(timeout=SECONDS)

    async def async_generator() -> AsyncIterator[str]:
        for i in range(5):
            yield f"chunk {i}"
            while not go_on.acquire(blocking=False):
                await asyncio.sleep(0.001)

    served.add("/sync", lambda: generator(), "inline")
    served.add("/async", lambda: async_generator(), "inline")

    with served, served.connect() as client:
        for path in ("/sync", "/async"):
            client.request(path)
            client.head()
            for i in range(5):
                assert client.next_chunk() == f"chunk {i}".encode()
                go_on.release()
            assert client.next_chunk() == b""


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_stream_keeps_to_the_length_it_declared(served: Served, colour: str) -> None:
    """RFC 9112 §8: a message shorter than its Content-Length is incomplete, and the connection says so by closing."""
    make = dict(streams(lambda: ["hello"]))[colour]
    served.add("/right", lambda: _httpy.Response(make(), headers={"content-length": "5"}), "inline")
    served.add("/short", lambda: _httpy.Response(make(), headers={"content-length": "6"}), "inline")

    with served:
        right, short = served.get("/right"), served.get("/short")

    assert (right.body, right.is_whole) == (b"hello", True)
    assert short.is_whole is False


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_the_head_is_sent_before_the_first_chunk_is_there(served: Served, colour: str) -> None:
    go_on = threading.Event()

    def generator() -> Iterator[str]:
        go_on.wait(SECONDS)
        yield "late"

    async def async_generator() -> AsyncIterator[str]:
        while not go_on.is_set():
            await asyncio.sleep(0.001)
        yield "late"

    served.add("/", (lambda: generator()) if colour == "sync" else (lambda: async_generator()), "inline")

    with served, served.connect() as client:
        client.request("/")
        assert client.head()[0] == 200
        go_on.set()
        assert client.next_chunk() == b"late"


# -- responses: how they are made ----------------------------------------------------------------------------


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_head_starts_no_generator(served: Served, colour: str) -> None:
    started = []

    def chunks() -> Iterator[str]:
        started.append(True)
        yield "a"

    make = dict(streams(chunks))[colour]
    served.add("/", lambda: make(), "inline")

    with served, served.connect() as client:
        client.request("/", method="HEAD")
        assert client.answer("HEAD").status == 200
        client.request("/", method="HEAD")
        assert client.answer("HEAD").status == 200
        assert started == []
        client.request("/")
        assert client.answer().body == b"a"
        assert started == [True]


def test_an_iterator_is_closed_even_if_it_was_never_started(served: Served) -> None:
    closed = threading.Event()

    class Chunks:
        def __iter__(self) -> Chunks:
            return self

        def __next__(self) -> bytes:
            raise AssertionError("it was started")

        def close(self) -> None:
            closed.set()

    served.add("/", lambda: _httpy.Response(Chunks()), "inline")

    with served:
        assert served.get("/", "HEAD").status == 200
        assert closed.wait(SECONDS)


def test_a_generator_never_runs_on_the_loops_thread(served: Served) -> None:
    threads: set[int] = set()

    def generator() -> Iterator[bytes]:
        try:
            for _ in range(100):
                threads.add(threading.get_ident())
                yield b"x" * 10000
        finally:
            threads.add(threading.get_ident())

    served.add("/", lambda: generator(), "inline")

    with served:
        loop_thread = served.run(threading.get_ident)
        assert len(served.get("/").body) == 1000000
        with served.connect() as client:
            client.request("/")
            client.head()
        # What is still open when its grace is over is closed wherever it is dropped.
        served.stop(SECONDS)

    assert loop_thread not in threads


def test_an_async_generator_runs_in_a_task_of_the_loop(served: Served) -> None:
    tasks = []

    async def generator() -> AsyncIterator[str]:
        for _ in range(3):
            tasks.append(asyncio.current_task())
            assert asyncio.get_running_loop() is served.loop
            await asyncio.sleep(0)
            yield "x"

    served.add("/", lambda: generator(), "inline")

    with served:
        assert served.get("/").body == b"xxx"

    assert tasks[0] is not None
    assert len(set(tasks)) == 1


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        ("pooled", "pooled"),
        ("suspends", "async"),
        ("ends at once", "async"),
    ],
)
def test_a_generator_sees_the_context_of_its_handler(
    served: Served, handler: str, kind: str, colour: str
) -> None:
    def chunks() -> Iterator[str]:
        yield variable.get()
        variable.set("of the generator")
        yield " "
        yield variable.get()

    make = dict(streams(chunks))[colour]

    async def suspends() -> Any:
        await asyncio.sleep(0)
        variable.set("of the handler")
        return make()

    async def ends_at_once() -> Any:
        variable.set("of the handler")
        return make()

    def pooled() -> Any:
        variable.set("of the handler")
        return make()

    served.add("/", {"pooled": pooled, "suspends": suspends, "ends at once": ends_at_once}[handler], kind)

    with served:
        assert served.get("/").body == b"of the handler of the generator"
        assert served.get("/").body == b"of the handler of the generator"
        assert served.run(variable.get) == "unset"


@pytest.mark.slow
@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("size", [100, 8192, FULL, 1 << 20])
def test_making_waits_while_the_client_is_slow(served: Served, colour: str, size: int) -> None:
    made = [0]

    def chunks() -> Iterator[bytes]:
        while True:
            made[0] += 1
            yield b"x" * size

    make = dict(streams(chunks))[colour]
    served.add("/", lambda: make(), "inline")

    with served, served.connect(receive_buffer=4096) as client:
        client.request("/")
        client.head()
        wait_for_rest(made)
        rested_at = made[0]

        assert rested_at * size <= KERNEL + 4 * FULL + 2 * size
        client.exactly(4 * KERNEL)
        wait_for_rest(made)

        assert made[0] > rested_at
        assert (made[0] - rested_at) * size <= 4 * KERNEL + KERNEL + 4 * FULL + 2 * size


def test_slow_clients_of_generators_hold_no_threads(served: Served) -> None:
    started = threading.Semaphore(0)

    def generator() -> Iterator[bytes]:
        started.release()
        while True:
            yield b"x" * FULL

    served.add("/", lambda: generator(), "inline")
    served.add("/pooled", lambda: "pooled", "pooled")

    with served, contextlib.ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(served.connect(receive_buffer=4096)).request("/")
        for _ in range(64):
            assert started.acquire(timeout=SECONDS)
        for _ in range(100):
            assert served.get("/pooled").body == b"pooled"


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
def test_eager_tasks_wait_for_slow_clients_too(served: Served) -> None:
    if served.driver == "uvloop":
        pytest.skip("uvloop and eager tasks do not go together on every Python")
    made = [0]

    async def generator() -> AsyncIterator[bytes]:
        while True:
            made[0] += 1
            yield b"x" * FULL

    async def short() -> AsyncIterator[bytes]:
        yield b"short"

    served.add("/", lambda: generator(), "inline")
    served.add("/short", lambda: short(), "inline")

    with served:
        served.run(lambda: served.loop.set_task_factory(asyncio.eager_task_factory))  # type: ignore[attr-defined]
        assert served.get("/short").body == b"short"
        with served.connect(receive_buffer=4096) as client:
            client.request("/")
            client.head()
            wait_for_rest(made)
            assert made[0] * FULL <= KERNEL + 4 * FULL
        wait_until(lambda: served.tasks() == 0)


def wait_for_rest(made: list[int]) -> None:
    """Waits until a generator has made nothing for a while."""
    deadline = time.monotonic() + SECONDS
    last = -1
    while made[0] != last:
        assert time.monotonic() < deadline, "it makes chunks without end"
        last = made[0]
        time.sleep(0.2)


# -- responses: when they fail -------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_exception_cuts_the_connection_and_is_logged(
    served: Served, colour: str, errors: Callable[[], str]
) -> None:
    def fails() -> Iterator[str]:
        yield "before"
        raise LookupError("in the middle")

    make = dict(streams(fails))[colour]
    served.add("/", lambda: make(), "inline")

    with served:
        answer = served.get("/")

    assert (answer.status, answer.body, answer.is_whole) == (200, b"before", False)
    assert "LookupError: in the middle" in errors()
    assert "in fails" in errors()
    assert "generator" in errors()


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_exception_before_the_first_chunk_cuts_the_connection(
    served: Served, colour: str, errors: Callable[[], str]
) -> None:
    def fails() -> Iterator[str]:
        raise LookupError("at once")
        yield ""

    make = dict(streams(fails))[colour]
    served.add("/", lambda: make(), "inline")

    with served, served.connect() as client:
        client.request("/")
        assert not client.until(b"0\r\n\r\n").endswith(b"0\r\n\r\n")

    assert "LookupError: at once" in errors()


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize(
    ("chunk", "found"), [(1, "int"), (None, "NoneType"), ([b"a"], "list"), ("\ud800", "Unicode")]
)
def test_what_is_no_chunk_cuts_the_connection_and_is_named(
    served: Served, colour: str, chunk: Any, found: str, errors: Callable[[], str]
) -> None:
    make = dict(streams(lambda: ["a", chunk, "b"]))[colour]
    served.add("/", lambda: make(), "inline")

    with served:
        answer = served.get("/")

    assert (answer.body, answer.is_whole) == (b"a", False)
    assert found in errors()


def test_an_iterable_without_an_iterator_cuts_the_connection(
    served: Served, errors: Callable[[], str]
) -> None:
    class Broken:
        def __iter__(self) -> Any:
            return 1

    class AsyncBroken:
        def __aiter__(self) -> Any:
            return 1

    served.add("/sync", lambda: _httpy.Response(Broken()), "inline")
    served.add("/async", lambda: _httpy.Response(AsyncBroken()), "inline")

    with served:
        for path in ("/sync", "/async"):
            with served.connect() as client:
                client.request(path)
                assert not client.until(b"0\r\n\r\n").endswith(b"0\r\n\r\n")

    assert errors().count("TypeError") >= 2


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_failure_while_closing_is_logged(served: Served, colour: str, errors: Callable[[], str]) -> None:
    closed = threading.Event()

    def generator() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * FULL
        finally:
            closed.set()
            raise LookupError("while closing")

    async def async_generator() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * FULL
        finally:
            closed.set()
            raise LookupError("while closing")

    served.add("/", (lambda: generator()) if colour == "sync" else (lambda: async_generator()), "inline")

    with served:
        with served.connect(receive_buffer=4096) as client:
            client.request("/")
            client.head()
            client.next_chunk()
        assert closed.wait(SECONDS)
        wait_until(lambda: "LookupError: while closing" in errors())


# -- responses: when the client goes away --------------------------------------------------------------------


@pytest.mark.parametrize("way", ["close", "reset"])
@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("state", ["waiting for room", "between chunks", "ticking"])
def test_a_generator_is_closed_within_a_second_of_the_client_leaving(
    served: Served, colour: str, state: str, way: str
) -> None:
    seen: list[str] = []
    closed = threading.Event()
    size = FULL if state == "waiting for room" else 1

    def generator() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * size
                if state == "between chunks":
                    time.sleep(0.05)
                elif state == "ticking":
                    time.sleep(0.001)
        except GeneratorExit:
            seen.append("GeneratorExit")
            raise
        finally:
            seen.append("finally")
            closed.set()

    async def async_generator() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * size
                if state == "between chunks":
                    await asyncio.sleep(3600)
                elif state == "ticking":
                    await asyncio.sleep(0.001)
        except (GeneratorExit, asyncio.CancelledError) as error:
            seen.append(type(error).__name__)
            raise
        finally:
            await asyncio.sleep(0)
            seen.append("finally")
            closed.set()

    served.add("/", (lambda: generator()) if colour == "sync" else (lambda: async_generator()), "inline")

    with served:
        client = served.connect(receive_buffer=4096)
        client.request("/")
        client.head()
        if state == "waiting for room":
            time.sleep(0.3)
        else:
            client.next_chunk()
        client.reset() if way == "reset" else client.socket.close()

        assert closed.wait(1.0), "the generator was not closed"
        wait_until(lambda: served.tasks() == 0)

    assert seen[0] in ("GeneratorExit", "CancelledError")
    assert seen[1:] == ["finally"]


def test_an_async_generator_that_ignores_cancellation_is_closed_all_the_same(
    served: Served, errors: Callable[[], str]
) -> None:
    closed = threading.Event()

    async def stubborn() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600)
        finally:
            closed.set()

    served.add("/", lambda: stubborn(), "inline")

    with served:
        with served.connect() as client:
            client.request("/")
            client.head()
            client.next_chunk()
        assert closed.wait(SECONDS)
        wait_until(lambda: served.tasks() == 0)

    assert errors() == ""


@pytest.mark.slow
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_streams_leave_nothing_behind(served: Served, colour: str) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    class Marker:
        pass

    def chunks() -> Iterator[bytes]:
        marker = Marker()
        alive.add(marker)
        for _ in range(20):
            yield b"x" * 100

    make = dict(streams(chunks))[colour]
    served.add("/", lambda: make(), "inline")

    with served:

        def load(rounds: int) -> None:
            for _ in range(rounds):
                with served.connect() as client:
                    for _ in range(4):
                        client.request("/")
                        assert len(client.answer().body) == 2000
                    # And one that leaves before its end.
                    client.request("/")

        assert_nothing_stays(served, load, alive)


def assert_nothing_stays(served: Served, load: Callable[[int], None], alive: weakref.WeakSet[Any]) -> None:
    """Four hundred rounds leave what a hundred have left. Slower leaks: test_leaks.py."""

    def held_after(rounds: int) -> tuple[int, int]:
        load(rounds)
        wait_until(lambda: served.tasks() == 0)
        wait_until(lambda: len(alive) == 0)
        gc.collect()
        return len(gc.get_objects()), resident()

    objects, memory = held_after(100)
    more_objects, more_memory = held_after(400)

    assert more_objects - objects < 400
    assert more_memory - memory < 4 << 20


def resident() -> int:
    """The memory of this process, in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_stop_cuts_streams_off_after_its_grace(served: Served, colour: str) -> None:
    closed = threading.Event()

    def generator() -> Iterator[str]:
        try:
            while True:
                yield "x"
                time.sleep(0.01)
        finally:
            closed.set()

    async def async_generator() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                await asyncio.sleep(0.01)
        finally:
            closed.set()

    served.add("/", (lambda: generator()) if colour == "sync" else (lambda: async_generator()), "inline")

    with served, served.connect() as client:
        client.request("/")
        client.head()
        client.next_chunk()
        served.stop(grace=0.05)

        assert served.cut == 1
        assert closed.wait(SECONDS)
        assert not client.until(b"0\r\n\r\n").endswith(b"0\r\n\r\n")


# -- background ----------------------------------------------------------------------------------------------


def with_background(background: Any, body: Any = b"body") -> Any:
    return _httpy.Response(body, background=background)


@pytest.mark.parametrize("kind", ["inline", "async", "pooled"])
@pytest.mark.parametrize("body", [b"", b"body", "stream", "async stream"])
def test_background_tasks_run_once_after_the_response(served: Served, kind: str, body: Any) -> None:
    ran: list[Any] = []

    def plain() -> None:
        ran.append(threading.get_ident())

    async def coroutine() -> None:
        await asyncio.sleep(0)
        ran.append(asyncio.current_task())

    def content() -> Any:
        if body == "stream":
            return (c for c in "body")
        if body == "async stream":
            return streams(lambda: "body")[1][1]()
        return body

    def respond(background: Any) -> Any:
        def handler() -> Any:
            return with_background(background, content())

        async def async_handler() -> Any:
            await asyncio.sleep(0)
            return with_background(background, content())

        return async_handler if kind == "async" else handler

    served.add("/plain", respond(plain), kind)
    served.add("/coroutine", respond(coroutine), kind)
    served.add("/list", respond([plain, coroutine, plain]), kind)

    with served:
        loop_thread = served.run(threading.get_ident)
        with served.connect() as client:
            for path, count in (("/plain", 1), ("/coroutine", 1), ("/list", 3)):
                ran.clear()
                client.request(path)
                answer = client.answer()
                assert answer.is_whole
                assert answer.body == (b"body" if body else b"")
                wait_until(lambda count=count: len(ran) >= count)
                time.sleep(0.02)
                assert len(ran) == count
                assert loop_thread not in ran
        wait_until(lambda: served.tasks() == 0)

    first, second, third = ran
    assert isinstance(first, int)
    assert isinstance(second, asyncio.Task)
    assert isinstance(third, int)


def test_a_background_task_does_not_hold_up_the_response_nor_the_next_one(served: Served) -> None:
    go_on = threading.Event()
    done = threading.Event()

    def slow() -> None:
        go_on.wait(SECONDS)
        done.set()

    served.add("/", lambda: with_background(slow), "inline")
    served.add("/next", lambda: "next", "inline")

    with served, served.connect() as client:
        client.request("/")
        assert client.answer().body == b"body"
        client.request("/next")
        assert client.answer().body == b"next"
        assert not done.is_set()
        go_on.set()
        assert done.wait(SECONDS)


def test_a_background_task_waits_for_the_end_of_its_stream(served: Served) -> None:
    order: list[str] = []
    go_on = threading.Event()

    def generator() -> Iterator[str]:
        yield "a"
        go_on.wait(SECONDS)
        order.append("stream")
        yield "b"

    served.add("/", lambda: with_background(lambda: order.append("background"), generator()), "inline")

    with served, served.connect() as client:
        client.request("/")
        client.head()
        assert client.next_chunk() == b"a"
        time.sleep(0.02)
        assert order == []
        go_on.set()
        assert client.next_chunk() == b"b"
        wait_until(lambda: len(order) == 2)

    assert order == ["stream", "background"]


@pytest.mark.parametrize("kind", ["async", "pooled"])
def test_a_background_task_runs_although_the_client_left(served: Served, kind: str) -> None:
    started, go_on = threading.Event(), threading.Event()
    ran: list[str] = []

    async def coroutine() -> None:
        assert asyncio.get_running_loop() is served.loop
        ran.append("coroutine")

    background = [lambda: ran.append("plain"), coroutine]

    def pooled() -> Any:
        started.set()
        go_on.wait(SECONDS)
        return with_background(background)

    async def stubborn() -> Any:
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return with_background(background)

    def streamed() -> Any:
        return with_background(background, (b"x" * FULL for _ in iter(int, 1)))

    served.add("/whole", pooled if kind == "pooled" else stubborn, kind)
    served.add("/stream", streamed, "inline")

    with served:
        with served.connect() as client:
            client.request("/whole")
            assert started.wait(SECONDS)
        time.sleep(0.05)
        go_on.set()
        wait_until(lambda: len(ran) == 2)
        with served.connect() as client:
            client.request("/stream")
            client.head()
        wait_until(lambda: len(ran) == 4)
        time.sleep(0.05)

    assert ran == ["plain", "coroutine"] * 2


def test_a_failing_background_task_is_logged_and_the_next_one_runs(
    served: Served, errors: Callable[[], str]
) -> None:
    done = threading.Event()

    def fails() -> None:
        raise LookupError("plain failure")

    async def fails_too() -> None:
        raise LookupError("async failure")

    served.add("/", lambda: with_background([fails, fails_too, done.set]), "inline")

    with served:
        assert served.get("/").status == 200
        assert done.wait(SECONDS)

    assert "LookupError: plain failure" in errors()
    assert "LookupError: async failure" in errors()
    assert "fails_too" in errors()


def test_a_background_task_may_be_any_callable(served: Served) -> None:
    ran: list[str] = []

    class Job:
        async def __call__(self) -> None:
            ran.append(type(asyncio.current_task()).__name__)

    async def coroutine() -> None:
        ran.append("made by a lambda")

    served.add("/", lambda: with_background([Job(), lambda: coroutine()]), "inline")

    with served:
        served.get("/")
        wait_until(lambda: len(ran) == 2)

    assert ran[1] == "made by a lambda"


def test_a_background_task_sees_the_context_of_its_handler(served: Served) -> None:
    seen: list[str] = []

    async def coroutine() -> None:
        seen.append(variable.get())

    async def handler() -> Any:
        await asyncio.sleep(0)
        variable.set("of the handler")
        return with_background([lambda: seen.append(variable.get()), coroutine])

    served.add("/", handler, "async")

    with served:
        served.get("/")
        wait_until(lambda: len(seen) == 2)

    assert seen == ["of the handler"] * 2


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_stop_waits_for_generators_to_be_closed_within_its_grace(served: Served, colour: str) -> None:
    closed: list[bool] = []

    def generator() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * FULL
        finally:
            time.sleep(0.2)
            closed.append(True)

    async def async_generator() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * FULL
        finally:
            await asyncio.sleep(0.2)
            closed.append(True)

    served.add("/", (lambda: generator()) if colour == "sync" else (lambda: async_generator()), "inline")

    with served:
        with served.connect(receive_buffer=4096) as client:
            client.request("/")
            client.head()
            client.next_chunk()
        served.stop(grace=5)
        assert closed == [True]


def test_a_stop_waits_for_background_tasks_within_its_grace(served: Served) -> None:
    done: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(0.2)
        done.append("coroutine")

    def slow_too() -> None:
        time.sleep(0.2)
        done.append("plain")

    served.add("/", lambda: with_background([slow, slow_too]), "inline")

    with served:
        served.get("/")
        served.stop(grace=5)

    assert done == ["coroutine", "plain"]


def test_a_stop_does_not_wait_for_background_tasks_beyond_its_grace(served: Served) -> None:
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    served.add("/", lambda: with_background(endless), "inline")

    with served:
        served.get("/")
        begun = time.monotonic()
        served.stop(grace=0.1)

    assert time.monotonic() - begun < 5
    assert ended == ["cancelled"]


# -- requests ------------------------------------------------------------------------------------------------


async def echo(request: Any) -> Any:
    return _httpy.Response(b"".join([chunk async for chunk in request.stream()]))


def echo_pooled(request: Any) -> Any:
    return _httpy.Response(b"".join(request.stream()))


ECHOES = [(echo, "async"), (echo_pooled, "pooled")]


@pytest.mark.slow
@pytest.mark.parametrize(("handler", "kind"), ECHOES)
def test_reads_ten_megabytes_unchanged(served: Served, handler: Any, kind: str) -> None:
    served.add("/", handler, kind, stream=True)

    with served, served.connect() as client:
        for _ in range(2):
            sender = threading.Thread(target=lambda: client.request("/", method="POST", body=MEGABYTES))
            sender.start()
            assert client.answer().body == MEGABYTES
            sender.join()


@pytest.mark.parametrize(("handler", "kind"), ECHOES)
def test_reads_chunked_requests(served: Served, handler: Any, kind: str) -> None:
    served.add("/", handler, kind, stream=True)

    with served, served.connect() as client:
        for _ in range(2):
            client.request("/", "Transfer-Encoding: chunked", method="POST")
            for i in range(100):
                client.chunk(b"chunk %d " % i)
            client.chunk(b"")
            assert client.answer().body == b"".join(b"chunk %d " % i for i in range(100))


@pytest.mark.parametrize(("handler", "kind"), ECHOES)
def test_a_request_without_content_has_no_chunks(served: Served, handler: Any, kind: str) -> None:
    served.add("/", handler, kind, stream=True)

    with served, served.connect() as client:
        for method in ("GET", "POST"):
            client.request("/", method=method)
            assert client.answer().body == b""


@pytest.mark.parametrize("kind", ["inline", "async", "pooled"])
def test_content_that_arrived_as_a_whole_is_one_chunk(served: Served, kind: str) -> None:
    def handler(request: Any) -> Any:
        return {"chunks": [chunk.decode() for chunk in request.stream()], "body": request.body.decode()}

    async def async_handler(request: Any) -> Any:
        return {"chunks": [chunk.decode() async for chunk in request.stream()], "body": request.body.decode()}

    served.add("/", async_handler if kind == "async" else handler, kind)

    with served:
        assert served.get("/", "POST", b"body").body == b'{"chunks":["body"],"body":"body"}'
        assert served.get("/", "POST").body == b'{"chunks":[],"body":""}'


@pytest.mark.parametrize("kind", ["async", "pooled"])
def test_a_handler_starts_at_once_and_gets_chunks_as_they_come(served: Served, kind: str) -> None:
    arrived: list[bytes] = []
    started = threading.Event()

    async def handler(request: Any) -> Any:
        started.set()
        async for chunk in request.stream():
            arrived.append(chunk)
        return "done"

    def pooled(request: Any) -> Any:
        started.set()
        for chunk in request.stream():
            arrived.append(chunk)
        return "done"

    served.add("/", handler if kind == "async" else pooled, kind, stream=True)

    with served, served.connect() as client:
        client.request("/", "Transfer-Encoding: chunked", method="POST")
        assert started.wait(SECONDS)
        for i in range(5):
            client.chunk(b"chunk %d" % i)
            wait_until(lambda i=i: arrived[i:] == [b"chunk %d" % i])
        client.chunk(b"")
        assert client.answer().body == b"done"


def test_a_streamed_request_can_be_answered_with_a_stream_of_it(served: Served) -> None:
    async def upper(request: Any) -> Any:
        async def generator() -> AsyncIterator[bytes]:
            async for chunk in request.stream():
                yield chunk.upper()

        return generator()

    def upper_pooled(request: Any) -> Any:
        return (chunk.upper() for chunk in request.stream())

    served.add("/async", upper, "async", stream=True)
    served.add("/pooled", upper_pooled, "pooled", stream=True)
    served.add("/itself", lambda request: _httpy.Response(request.stream()), "inline", stream=True)

    with served, served.connect() as client:
        for path, expected in (("/async", b"HELLO"), ("/pooled", b"HELLO"), ("/itself", b"hello")):
            client.request(path, "Transfer-Encoding: chunked", method="POST")
            client.head()
            for _ in range(3):
                client.chunk(b"hello")
                assert client.next_chunk() == expected
            client.chunk(b"")
            assert client.next_chunk() == b""


@pytest.mark.parametrize("kind", ["async", "pooled"])
def test_the_client_is_told_to_go_on_only_when_content_is_asked_for(served: Served, kind: str) -> None:
    """RFC 9110 §10.1.1."""
    go_on = threading.Event()

    async def handler(request: Any) -> Any:
        while not go_on.is_set():
            await asyncio.sleep(0.001)
        return await echo(request)

    def pooled(request: Any) -> Any:
        go_on.wait(SECONDS)
        return echo_pooled(request)

    served.add("/", handler if kind == "async" else pooled, kind, stream=True)

    with served, served.connect() as client:
        client.request("/", "Expect: 100-continue", "Content-Length: 4", method="POST")
        client.socket.settimeout(0.1)
        with pytest.raises(socket.timeout):
            client.more()
        client.socket.settimeout(SECONDS)
        go_on.set()
        assert client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"body")
        assert client.answer().body == b"body"


def test_a_client_that_expects_100_is_not_told_to_go_on_if_nobody_reads(served: Served) -> None:
    served.add("/", lambda request: "no, thanks", "inline", stream=True)

    with served, served.connect() as client:
        client.request("/", "Expect: 100-continue", "Content-Length: 4", method="POST")
        assert client.answer().status == 200


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["async", "pooled"])
def test_reading_waits_while_the_handler_is_slow(served: Served, kind: str) -> None:
    go_on = threading.Event()
    first = threading.Event()

    async def handler(request: Any) -> Any:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            first.set()
            while not go_on.is_set():
                await asyncio.sleep(0.001)
        return str(size)

    def pooled(request: Any) -> Any:
        size = 0
        for chunk in request.stream():
            size += len(chunk)
            first.set()
            go_on.wait(SECONDS)
        return str(size)

    served.add("/", handler if kind == "async" else pooled, kind, stream=True, max_body_bytes=1 << 30)
    total = 4 * KERNEL
    sent = [0]

    with served, served.connect() as client:

        def send() -> None:
            client.request("/", f"Content-Length: {total}", method="POST")
            while sent[0] < total:
                client.send(b"x" * FULL)
                sent[0] += FULL

        sender = threading.Thread(target=send)
        sender.start()
        assert first.wait(SECONDS)
        wait_for_rest(sent)
        assert sent[0] <= KERNEL + 16 * FULL
        go_on.set()
        assert client.answer().body == str(total).encode()
        sender.join()


@pytest.mark.parametrize(("handler", "kind"), ECHOES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_content_above_the_limit_is_a_413_while_it_is_read(
    served: Served, handler: Any, kind: str, framing: str
) -> None:
    served.add("/", handler, kind, stream=True, max_body_bytes=10)

    with served:
        for size, status in ((9, 200), (10, 200), (11, 413)):
            with served.connect() as client:
                if framing == "length":
                    client.request("/", method="POST", body=b"x" * size)
                else:
                    client.request("/", "Transfer-Encoding: chunked", method="POST")
                    client.chunk(b"x" * 5)
                    client.chunk(b"x" * (size - 5))
                    client.chunk(b"")
                answer = client.answer()
            assert answer.status == status
            assert status == 200 or answer.body == (
                b'{"detail":"request body is larger than the limit of 10 bytes (max_body_bytes)"}'
            )


def test_a_handler_can_catch_the_413(served: Served) -> None:
    async def handler(request: Any) -> Any:
        chunks, got = request.stream(), 0
        try:
            async for chunk in chunks:
                got += len(chunk)
        except HTTPError as error:
            with pytest.raises(HTTPError):
                await chunks.__anext__()
            return {"status": error.status, "got": got}
        return "whole"

    served.add("/", handler, "async", stream=True, max_body_bytes=10)

    with served, served.connect() as client:
        client.request("/", "Transfer-Encoding: chunked", method="POST")
        client.chunk(b"x" * 8)
        time.sleep(0.05)
        client.chunk(b"x" * 8)
        assert client.answer().body == b'{"status":413,"got":8}'


def test_a_client_that_declares_too_much_is_not_told_to_go_on(served: Served) -> None:
    """RFC 9110 §10.1.1: the final status instead of 100 saves the client the sending."""
    served.add("/", echo, "async", stream=True, max_body_bytes=10)

    with served, served.connect() as client:
        client.request("/", "Expect: 100-continue", "Content-Length: 11", method="POST")
        assert client.answer().status == 413


@pytest.mark.parametrize("way", ["close", "reset", "half close"])
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("kind", ["async", "pooled"])
def test_a_client_that_leaves_raises_in_the_handler(
    served: Served, kind: str, framing: str, way: str
) -> None:
    raised: list[type[BaseException]] = []
    first = threading.Event()

    async def handler(request: Any) -> None:
        try:
            async for _ in request.stream():
                first.set()
        except BaseException as error:
            raised.append(type(error))
            raise

    def pooled(request: Any) -> None:
        try:
            for _ in request.stream():
                first.set()
        except BaseException as error:
            raised.append(type(error))
            raise

    served.add("/", handler if kind == "async" else pooled, kind, stream=True)

    with served:
        client = served.connect()
        client.request("/", framing, method="POST")
        client.send(b"5\r\nhello\r\n")
        assert first.wait(SECONDS)
        if way == "reset":
            client.reset()
        elif way == "close":
            client.socket.close()
        else:
            client.socket.shutdown(socket.SHUT_WR)
        wait_until(lambda: raised, 1.0)
        wait_until(lambda: served.tasks() == 0)
        client.socket.close()

    assert raised == [ClientDisconnected]


def test_a_client_that_leaves_is_no_failure_of_the_handler(served: Served, errors: Callable[[], str]) -> None:
    left = threading.Event()

    async def handler(request: Any) -> Any:
        try:
            return await echo(request)
        finally:
            left.set()

    async def upper(request: Any) -> Any:
        async def generator() -> AsyncIterator[bytes]:
            try:
                async for chunk in request.stream():
                    yield chunk.upper()
            finally:
                left.set()

        return generator()

    served.add("/", handler, "async", stream=True)
    served.add("/upper", upper, "async", stream=True)

    with served:
        for path in ("/", "/upper"):
            left.clear()
            with served.connect() as client:
                client.request(path, "Content-Length: 10", method="POST")
                client.send(b"hello")
                time.sleep(0.05)
            assert left.wait(SECONDS)
        wait_until(lambda: served.tasks() == 0)

    assert errors() == ""


@pytest.mark.parametrize("kind", ["async", "pooled"])
def test_malformed_framing_is_refused_and_ends_the_handler(served: Served, kind: str) -> None:
    raised: list[type[BaseException]] = []
    first = threading.Event()

    async def handler(request: Any) -> None:
        try:
            async for _ in request.stream():
                first.set()
        except BaseException as error:
            raised.append(type(error))
            raise

    def pooled(request: Any) -> None:
        try:
            for _ in request.stream():
                first.set()
        except BaseException as error:
            raised.append(type(error))
            raise

    served.add("/", handler if kind == "async" else pooled, kind, stream=True)

    with served, served.connect() as client:
        client.request("/", "Transfer-Encoding: chunked", method="POST")
        client.send(b"5\r\nhello\r\n")
        assert first.wait(SECONDS)
        client.send(b"not a size\r\n")
        answer = client.answer()
        wait_until(lambda: raised)

    assert raised == [asyncio.CancelledError if kind == "async" else ClientDisconnected]
    assert answer.status == 400
    assert answer.body == b"a chunk's size is no plain hexadecimal number (RFC 9112 section 7.1)"


def test_content_arrives_only_once(served: Served) -> None:
    async def handler(request: Any) -> Any:
        first = request.stream()
        with pytest.raises(RuntimeError, match="called already"):
            request.stream()
        body = b"".join([chunk async for chunk in first])
        assert [chunk async for chunk in first] == []
        with pytest.raises(RuntimeError, match="called already"):
            request.stream()
        return body.decode()

    served.add("/", handler, "async", stream=True)

    with served:
        assert served.get("/", "POST", b"body").body == b"body"


@pytest.mark.parametrize("attribute", ["body", "text", "json", "form"])
@pytest.mark.parametrize("body", [b"", b"{}"])
def test_content_that_arrives_is_not_there_as_a_whole(served: Served, attribute: str, body: bytes) -> None:
    async def handler(request: Any) -> Any:
        raised = []
        for _ in ("before", "after"):
            with pytest.raises(RuntimeError) as error:
                getattr(request, attribute)
            raised.append(str(error.value))
            if len(raised) == 1:
                [chunk async for chunk in request.stream()]
        return raised

    async def stage(request: Any, next: Any) -> Any:
        with pytest.raises(RuntimeError, match=r"read request\.stream\(\)"):
            getattr(request, attribute)
        return await next(request)

    served.add("/", handler, "async", stream=True, middleware=[stage])

    with served:
        first, second = json.loads(served.get("/", "POST", body).body)

    assert first == second
    assert first == (
        f"request.{attribute} is not there in a handler with stream=True, which starts before the content has arrived: "
        "read request.stream(), or register the handler without stream=True"
    )


def test_blocking_iteration_on_the_loops_thread_is_refused(served: Served) -> None:
    def handler(request: Any) -> Any:
        chunks = request.stream()
        with pytest.raises(RuntimeError, match="would block the event loop"):
            iter(chunks)
        with pytest.raises(RuntimeError, match="would block the event loop"):
            next(chunks)
        return "refused"

    async def async_handler(request: Any) -> Any:
        return handler(request)

    served.add("/inline", handler, "inline", stream=True)
    served.add("/async", async_handler, "async", stream=True)

    with served, served.connect() as client:
        for path in ("/inline", "/async"):
            client.request(path, method="POST", body=b"body")
            assert client.answer().body == b"refused"


def test_a_def_handler_may_read_in_a_loop_of_its_own(served: Served) -> None:
    def handler(request: Any) -> Any:
        async def read() -> bytes:
            return b"".join([chunk async for chunk in request.stream()])

        return asyncio.run(read()).decode()

    served.add("/", handler, "pooled", stream=True)

    with served, served.connect() as client:
        client.request("/", "Transfer-Encoding: chunked", method="POST")
        for _ in range(3):
            time.sleep(0.02)
            client.chunk(b"hello")
        client.chunk(b"")
        assert client.answer().body == b"hello" * 3


def test_no_chunk_is_lost_when_waiting_for_it_times_out(served: Served) -> None:
    timeouts = []

    async def handler(request: Any) -> Any:
        chunks = request.stream()
        got = b""
        while True:
            try:
                got += await asyncio.wait_for(chunks.__anext__(), 0.002)
            except asyncio.TimeoutError:
                timeouts.append(True)
            except StopAsyncIteration:
                return got.decode()

    served.add("/", handler, "async", stream=True)

    with served, served.connect() as client:
        client.request("/", "Transfer-Encoding: chunked", method="POST")
        wait_until(lambda: timeouts)
        for i in range(40):
            time.sleep(0.002)
            client.chunk(b"%d " % i)
        client.chunk(b"")
        assert client.answer().body == b"".join(b"%d " % i for i in range(40))

    assert timeouts


def test_two_tasks_cannot_wait_for_the_same_content(served: Served) -> None:
    refused = threading.Event()

    async def handler(request: Any) -> Any:
        chunks = request.stream()
        first = asyncio.ensure_future(chunks.__anext__())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await chunks.__anext__()
        refused.set()
        return (await first).decode()

    served.add("/", handler, "async", stream=True)

    with served, served.connect() as client:
        client.request("/", "Transfer-Encoding: chunked", method="POST")
        assert refused.wait(SECONDS)
        client.chunk(b"hello")
        client.chunk(b"")
        assert client.answer().body == b"hello"


@pytest.mark.parametrize("reads", ["nothing", "one chunk"])
@pytest.mark.parametrize("keeps", [False, True], ids=["drops the request", "keeps the request"])
@pytest.mark.parametrize("size", [5, 100 * 1000, 5 << 20])
def test_unread_content_does_not_become_the_next_request(
    served: Served, size: int, keeps: bool, reads: str
) -> None:
    """RFC 9112 §9.3: either the content is read to its end, or the connection is closed."""
    kept = []

    async def handler(request: Any) -> Any:
        if keeps:
            kept.append(request)
        if reads == "one chunk":
            await request.stream().__anext__()
        return "answer"

    served.add("/", handler, "async", stream=True)

    with served, served.connect() as client:
        body = b"GET /smuggled HTTP/1.1\r\n\r\n"[:size] * (size // 26 + 1)

        def send() -> None:
            with contextlib.suppress(OSError):
                client.request("/", method="POST", body=body)
                client.request("/", method="POST", body=b"hello")

        sender = threading.Thread(target=send)
        sender.start()
        answers = []
        while True:
            head = client.until(b"\r\n\r\n")
            if not head.endswith(b"\r\n\r\n"):
                break
            assert head.startswith(b"HTTP/1.1 200 ")
            answers.append(client.exactly(6))
            if len(answers) == 2:
                break
        client.socket.close()
        sender.join()

    assert set(answers) <= {b"answer"}
    assert len(answers) in (1, 2) or size > FULL


def test_content_ends_with_the_exchange(served: Served) -> None:
    outcome: list[Any] = []

    async def late(chunks: Any) -> None:
        try:
            outcome.extend([chunk async for chunk in chunks])
        except Exception as error:
            outcome.append(error)

    async def handler(request: Any) -> Any:
        outcome.append(asyncio.ensure_future(late(request.stream())))
        await asyncio.sleep(0)
        return "answer"

    served.add("/", handler, "async", stream=True)

    with served, served.connect() as client:
        client.request("/", "Transfer-Encoding: chunked", method="POST")
        assert client.answer().body == b"answer"
        wait_until(lambda: len(outcome) == 2)

    assert isinstance(outcome[1], RuntimeError)
    assert "the response was sent" in str(outcome[1])


def test_a_stop_ends_waiting_for_content(served: Served) -> None:
    raised: list[BaseException] = []
    started = threading.Event()

    def handler(request: Any) -> Any:
        started.set()
        try:
            return echo_pooled(request)
        except BaseException as error:
            raised.append(error)
            raise

    served.add("/", handler, "pooled", stream=True)

    with served, served.connect() as client:
        client.request("/", "Content-Length: 10", method="POST")
        assert started.wait(SECONDS)
        time.sleep(0.05)
        served.stop(grace=0.05)
        wait_until(lambda: raised)

    assert isinstance(raised[0], ClientDisconnected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["async", "pooled"])
def test_streamed_requests_leave_nothing_behind(served: Served, kind: str) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    async def handler(request: Any) -> Any:
        alive.add(request)
        return str(len([chunk async for chunk in request.stream()]))

    def pooled(request: Any) -> Any:
        alive.add(request)
        return str(len(list(request.stream())))

    served.add("/", handler if kind == "async" else pooled, kind, stream=True)

    with served:

        def load(rounds: int) -> None:
            for _ in range(rounds):
                with served.connect() as client:
                    for _ in range(4):
                        client.request("/", method="POST", body=b"x" * 1000)
                        assert client.answer().status == 200
                    # And one that leaves in the middle.
                    client.request("/", "Content-Length: 10", method="POST")
                    client.send(b"hello")

        assert_nothing_stays(served, load, alive)


@pytest.mark.parametrize("loop", DRIVERS)
@pytest.mark.parametrize("path", ["/stream", "/background"])
def test_a_failure_that_somebody_keeps_does_not_hold_up_the_stop(
    loop: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, failed = App(), threading.Event()

    async def fail() -> AsyncIterator[bytes]:
        yield b"some"
        raise ZeroDivisionError

    async def fail_later() -> None:
        failed.set()
        raise ZeroDivisionError

    app.add_route("GET", "/stream", lambda: StreamingResponse(fail()))
    app.add_route("GET", "/background", lambda: Response(b"", background=fail_later))

    with TestClient(app, loop=loop, grace=SECONDS) as client:
        if path == "/stream":
            with pytest.raises(ConnectionError):
                client.get(path)
        else:
            assert client.get(path).status == 200
            assert failed.wait(SECONDS)
        start = time.monotonic()

    assert time.monotonic() - start < SECONDS
    # With the frames of what has failed.
    assert caplog.records[0].exc_info
