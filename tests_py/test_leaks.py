"""Nothing stays behind: what a process holds is the same after a hundred thousand requests more.

Each kind of request is sent REQUESTS times: here 20,000 times, by `make leaks` 200,000 times. The first half warms up;
what is there after the second half and was not before it has to be within bounds. What one request leaves behind is
there once for each of them, so the bounds tell a leak from noise:

- objects: 120. What the collector knows. Measured noise is 5, and up to two for each of the pool's 40 threads, which
  come and go; a leak in every 80th of 10,000 requests would show.
- blocks: 500. Python's own allocations, strings among them. Measured noise is 160, of caches and free lists.
- heap: 128 KiB. What native code has asked for. The least that malloc gives is 32 bytes, which are 312 KiB if every
  one of 10,000 requests leaks them. Measured noise is 10 KiB.
- rss: 1 MiB. What the system sees, were it anything that is not counted above. Measured noise is 116 KiB.
- tasks: 0.

Some of what is kept for good is made when it happens to be needed, such as the tasks that wait for handlers: those are
up to 1,024 objects. So what is out of bounds is looked at over as many requests again. A leak is there again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import struct
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from httpy import App, Request, Response, Server
from programs import Pipeline, ask, running, to
from support import PATIENCE_S, environment, python

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="usage is read from /proc")

# `make leaks` sends 200,000. These are enough for the least leak to be out of bounds.
REQUESTS = int(os.environ.get("LEAK_REQUESTS", "20000"))
CONNECTIONS = 4
# Less than the pool may have threads.
AT_ONCE = 32
DEPTH = 32
# How many threads there are at most for handlers that block, and how many tasks are kept for those that wait.
THREADS = 40
TASKS = 128
# What glibc's malloc keeps for each thread in case it asks again counts as in use.
FRUGAL = {"MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
# How often what is out of bounds has to be so to be a leak.
LOOKS = 2
BOUNDS = {"objects": 120, "blocks": 500, "heap": 128 * 1024, "rss": 1024 * 1024, "tasks": 0}

QUERY = "?q=text&many=1&many=2&other=true"
PERSON = b'{"name":"Ada","tags":["a","b"],"age":36}'
KINDS = {
    "inline": to("GET", "/inline"),
    "async": to("GET", "/async"),
    "suspending": to("GET", "/suspending"),
    "pooled": to("GET", "/pooled"),
    "json": to("GET", "/json"),
    "echo": to("POST", "/echo", PERSON),
    "typed body": to("POST", "/typed", PERSON),
    "everything": to("GET", f"/everything/1/a/b{QUERY}").replace(
        b"\r\n\r\n", b"\r\ncookie: a=b; c=d\r\n\r\n"
    ),
    "response": to("GET", "/response"),
    "tuple": to("GET", "/tuple"),
    "not a number": to("GET", "/convert/1?n=x"),
    "bad body": to("POST", "/typed", b'{"name":1}'),
    "not json": to("POST", "/echo", b'{"name":'),
    "refused": to("GET", "/refused"),
    "crash": to("GET", "/crash"),
    "crash, pooled": to("GET", "/crash-pooled"),
    "not found": to("GET", "/nowhere"),
    "wrong method": to("DELETE", "/inline"),
    "cycles": to("GET", "/cycles"),
    "cycles of json": to("POST", "/cycles", b"{}"),
    "middleware": to("GET", "/inside/async"),
    "middleware, pooled": to("GET", "/inside/pooled"),
    "middleware, refused": to("GET", "/inside/refused"),
    "middleware, crash": to("GET", "/inside/crash"),
    "middleware, instead": to("GET", "/inside/instead"),
    "middleware, stream": to("GET", "/inside/stream"),
    "middleware, arriving": to("POST", "/inside/arriving", b"content"),
    "error handler": to("GET", "/mounted/crash"),
    "error handler that awaits": to("GET", "/mounted/nowhere"),
    "error handler of the outer app": to("GET", "/mounted/crash-outside"),
    "stream": to("GET", "/stream"),
    "stream, async": to("GET", "/stream-async"),
    "stream, suspending": to("GET", "/stream-suspending"),
    "arriving": to("POST", "/arriving", b"content"),
    "arriving in chunks": to("POST", "/arriving").replace(
        b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n3\r\ncon\r\n4\r\ntent\r\n0\r\n\r\n"
    ),
    "arriving, pooled": to("POST", "/arriving-pooled", b"content"),
    "arriving, unread": to("POST", "/arriving-unread", b"content"),
    "both ways": to("POST", "/both-ways", b"content"),
    "background": to("GET", "/background"),
    "background, async": to("GET", "/background-async"),
    "asgi": to("GET", "/asgi/"),
    "asgi, content": to("POST", "/asgi/", b"content"),
    "asgi, suspends": to("GET", "/asgi/suspends"),
    "asgi, streams": to("GET", "/asgi/streams"),
    "asgi, behind": to("GET", "/asgi/behind"),
    "asgi, crash": to("GET", "/asgi/crash"),
    "asgi, middleware": to("GET", "/around/asgi/streams"),
    "asgi, middleware, crash": to("GET", "/around/asgi/crash"),
    "wsgi": to("GET", "/wsgi/"),
    "wsgi, content": to("POST", "/wsgi/", b"content"),
    "wsgi, streams": to("GET", "/wsgi/streams"),
    "wsgi, crash": to("GET", "/wsgi/crash"),
    "wsgi, middleware": to("GET", "/around/wsgi/streams"),
}
BESIDE = [
    *("inline", "async", "suspending", "pooled", "crash", "cycles"),
    *("middleware, pooled", "middleware, stream", "error handler that awaits"),
    *("stream", "stream, async", "arriving", "arriving, pooled", "both ways"),
    *("background", "background, async"),
    *("asgi", "asgi, behind", "asgi, middleware", "wsgi", "wsgi, middleware"),
]
# What ends before it is answered as a whole: the client goes away, or the stream fails.
CUT = {
    "waiting": to("GET", "/wait"),
    "streaming": to("GET", "/endless"),
    "streaming, async": to("GET", "/endless-async"),
    "streaming, waiting": to("GET", "/endless-waiting"),
    "arriving": to("POST", "/unfinished", b"content")[:-1],
    "arriving, pooled": to("POST", "/unfinished-pooled", b"content")[:-1],
    "failing": to("GET", "/failing"),
    "asgi, waiting": to("GET", "/asgi/waits"),
    "asgi, streaming": to("GET", "/asgi/endless"),
    "asgi, middleware, waiting": to("GET", "/around/asgi/waits"),
    "wsgi, streaming": to("GET", "/wsgi/endless"),
    "failing, async": to("GET", "/failing-async"),
}


class Subject:
    """A server in a process of its own, and what that holds."""

    def __init__(self, port: int) -> None:
        self.port = port

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def ask(self, target: str) -> bytes:
        # Each time anew: a connection that is idle for long is closed.
        with self.connect() as connection:
            return ask(connection, to("GET", target)).partition(b"\r\n\r\n")[2]

    def growth(self, send: Callable[[int], None], requests: int) -> dict[str, int]:
        """What is there after the last half of the requests that was not there before it."""
        growth = {}
        send(requests // 2)
        before = json.loads(self.ask("/usage"))
        for _ in range(LOOKS):
            send(requests // 2)
            after = json.loads(self.ask("/usage"))
            growth = {name: after[name] - before[name] for name in BOUNDS}
            if not excess(growth):
                break
            before = after
        return growth


@contextlib.contextmanager
def serving(loop: str) -> Iterator[Subject]:
    command = python(str(Path(__file__).with_name("leaks_app.py")), loop)
    with running(command, env={**environment(), **FRUGAL}) as port:
        subject = Subject(port)
        # As many threads as there will ever be, and more tasks than are kept: the memory of those is no leak.
        for target, count in [("/gather", THREADS), ("/gather-async", 2 * TASKS)]:
            with contextlib.ExitStack() as connections:
                waiting = [connections.enter_context(subject.connect()) for _ in range(count)]
                for connection in waiting:
                    connection.sendall(to("GET", f"{target}/{count}"))
                for connection in waiting:
                    assert connection.recv(100).startswith(b"HTTP/1.1 204 ")
        yield subject


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    """The selector driver."""
    with serving("selector") as subject:
        yield subject


@pytest.fixture(scope="module")
def beside() -> Iterator[Subject]:
    """The thread driver."""
    with serving("thread") as subject:
        yield subject


def excess(growth: dict[str, int]) -> dict[str, int]:
    return {name: amount for name, amount in growth.items() if amount > BOUNDS[name]}


def close_unlike(connection: socket.socket, number: int) -> None:
    """Has most connections reset when they are closed: the system keeps the port of any other for a minute."""
    if number % 50:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def growth_of(subject: Subject, request: bytes, requests: int) -> dict[str, int]:
    with Pipeline(subject.port, request, depth=DEPTH, connections=CONNECTIONS) as client:
        return subject.growth(client.send, requests)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_stays_of(kind: str, subject: Subject) -> None:
    growth = growth_of(subject, KINDS[kind], REQUESTS)

    assert not excess(growth), growth


@linux
@pytest.mark.slow
@pytest.mark.parametrize("kind", BESIDE)
def test_beside_a_loop_nothing_stays_of(kind: str, beside: Subject) -> None:
    growth = growth_of(beside, KINDS[kind], REQUESTS)

    assert not excess(growth), growth


@linux
@pytest.mark.slow
@pytest.mark.parametrize("driver", ["subject", "beside"])
def test_nothing_stays_of_connections(driver: str, request: pytest.FixtureRequest) -> None:
    subject: Subject = request.getfixturevalue(driver)

    def send(count: int) -> None:
        for number in range(count):
            with subject.connect() as connection:
                close_unlike(connection, number)
                ask(connection, KINDS["async"])

    growth = subject.growth(send, REQUESTS)

    assert not excess(growth), growth


@linux
@pytest.mark.slow
@pytest.mark.parametrize("driver", ["subject", "beside"])
@pytest.mark.parametrize("kind", CUT)
def test_nothing_stays_of_what_is_cut_off(driver: str, kind: str, request: pytest.FixtureRequest) -> None:
    subject: Subject = request.getfixturevalue(driver)
    sent = int(subject.ask("/count/begun"))

    def send(count: int) -> None:
        nonlocal sent
        for number in range(count // AT_ONCE):
            with contextlib.ExitStack() as connections:
                for _ in range(AT_ONCE):
                    connection = connections.enter_context(subject.connect())
                    connection.sendall(CUT[kind])
                    close_unlike(connection, number)
                sent += AT_ONCE
                subject.ask(f"/count/begun?least={sent}")
            subject.ask(f"/count/ended?least={sent}")

    growth = subject.growth(send, REQUESTS)

    assert not excess(growth), growth


# How each WebSocket goes on after its handshake.
WEBSOCKETS = {
    "echo": "/websocket/echo",
    "echo, compressed": "/websocket/echo?compressed",
    "cut": "/websocket/cut",
    "rejected": "/websocket/rejected",
    "failing": "/websocket/failing",
    "deaf": "/websocket/deaf",
    "room": "/websocket/room",
    "pooled": "/websocket-pooled",
    "asgi, echo": "/asgi/echo",
    "asgi, echo, compressed": "/asgi/echo?compressed",
    "asgi, cut": "/asgi/cut",
    "asgi, beside": "/asgi/beside",
    "asgi, rejected": "/asgi/rejected",
    "asgi, denied": "/asgi/denied",
    "asgi, failing": "/asgi/failing",
}
# Text, masked with zeros, so that nothing is to be done for it.
SAID, ECHO = b"\x81\x85\0\0\0\0Hello", b"\x81\x05Hello"
# "Hello" as RFC 7692 §7.2.3.1 has it.
DEFLATED = b"\xc1\x87\0\0\0\0\xf2\x48\xcd\xc9\xc9\x07\x00"
BYE, GOODBYE = b"\x88\x82\0\0\0\0\x03\xe8", b"\x88\x02\x03\xe8"


def talk(connection: socket.socket, kind: str) -> None:
    """One WebSocket, from its handshake to its end."""
    fields = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    fields += b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    is_compressed = "compressed" in kind
    if is_compressed:
        fields += b"sec-websocket-extensions: permessage-deflate\r\n"
    head = to("GET", WEBSOCKETS[kind]).replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n")
    connection.sendall(head)
    stream = connection.makefile("rb")
    status = stream.readline()
    while stream.readline() != b"\r\n":
        pass
    if kind.endswith(("rejected", "denied")):
        assert status.startswith(b"HTTP/1.1 403 ")
        return
    assert status.startswith(b"HTTP/1.1 101 ")
    connection.sendall(DEFLATED if is_compressed else SAID)
    assert stream.read(len(ECHO)) == ECHO
    if "echo" in kind or kind == "pooled":
        connection.sendall(BYE)
        assert stream.read(len(GOODBYE)) == GOODBYE
    stream.close()


@linux
@pytest.mark.slow
@pytest.mark.parametrize("driver", ["subject", "beside"])
@pytest.mark.parametrize("kind", WEBSOCKETS)
def test_nothing_stays_of_websockets(driver: str, kind: str, request: pytest.FixtureRequest) -> None:
    subject: Subject = request.getfixturevalue(driver)
    begun = int(subject.ask("/count/begun"))

    def send(count: int) -> None:
        nonlocal begun
        for number in range(count):
            with subject.connect() as connection:
                close_unlike(connection, number)
                talk(connection, kind)
        begun += count
        subject.ask(f"/count/ended?least={begun}")

    growth = subject.growth(send, REQUESTS // 4)

    assert not excess(growth), growth


@linux
@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "seen"),
    [
        ("object", {"objects"}),
        ("text", {"blocks"}),
        ("request", {"objects", "heap", "rss"}),
        ("task", {"objects", "tasks"}),
        ("native", {"heap"}),
    ],
)
def test_a_leak_is_noticed(what: str, seen: set[str]) -> None:
    # `/usage` waits for tasks to end, and counts them each time: few are enough, and they are no other test's.
    requests = 2000 if what == "task" else min(REQUESTS, 20_000)

    with serving("selector") as subject:
        growth = growth_of(subject, to("GET", f"/leak/{what}"), requests)

    assert seen <= set(excess(growth)), growth


class Thing:
    """Something an app keeps, to see when it is let go."""


def served(loop: str, requests: int = 1) -> tuple[weakref.ref[Any], weakref.ref[Any]]:
    """Serves an app whose parts all know the app and a thing; returns what tells whether thing and loop are there."""
    app, thing = App(), Thing()
    app.state.thing = thing
    loops: list[weakref.ref[Any]] = []

    @app.get("/")
    async def index(request: Request) -> Any:
        return str((thing, app, request))

    @app.middleware
    async def middleware(request: Request, next: Any) -> Response:
        response: Response = await next(request)
        assert thing
        assert app
        return response

    @app.error(404)
    def missing(request: Request) -> Any:
        return str((thing, app))

    @app.on_startup
    def start() -> None:
        app.state.app = app
        loops.append(weakref.ref(asyncio.get_running_loop()))

    with Server(app, port=0, loop=loop) as server:
        for _ in range(requests):
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
                assert ask(connection, to("GET", "/")).startswith(b"HTTP/1.1 200 ")
                assert ask(connection, to("GET", "/nowhere")).startswith(b"HTTP/1.1 404 ")
    return weakref.ref(thing), loops[0]


@pytest.mark.parametrize("loop", ["selector", "thread"])
def test_an_app_that_was_served_is_let_go_and_so_is_its_loop(loop: str) -> None:
    thing, event_loop = served(loop)

    # What a thread holds when it ends is let go when the next one comes by.
    served(loop)
    gc.collect()

    assert thing() is None
    assert event_loop() is None


def test_an_app_that_was_never_served_is_let_go() -> None:
    def registered() -> weakref.ref[Any]:
        app, thing = App(), Thing()
        app.get("/")(lambda: (app, thing))
        return weakref.ref(thing)

    thing = registered()
    gc.collect()

    assert thing() is None


@linux
@pytest.mark.parametrize("loop", ["selector", "thread"])
def test_a_server_that_was_stopped_leaves_no_descriptor_and_no_thread(loop: str) -> None:
    served(loop)
    gc.collect()
    before = len(os.listdir("/proc/self/fd")), threading.active_count(), len(os.listdir("/proc/self/task"))

    for _ in range(5):
        served(loop)
    gc.collect()

    after = len(os.listdir("/proc/self/fd")), threading.active_count(), len(os.listdir("/proc/self/task"))
    assert after == before
