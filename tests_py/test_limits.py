"""Limits on how much happens at the same time, and how long it takes, as an app and its clients see them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from crew import wait_for
from httpy import App, ConfigError, Request, RouteError, Server, StreamingResponse
from programs import ask, running, to
from support import PATIENCE_S, python

LOOPS = ["selector", "thread"]
KINDS = ["async", "pooled"]
GET = to("GET", "/")
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\n"


class Held:
    """A route whose requests wait until they are let go, and say when they have begun."""

    def __init__(self, app: App, kind: str) -> None:
        self.begun = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        self._go = threading.Event()

        async def held_async() -> str:
            self.begun.release()
            try:
                while not self._go.is_set():
                    await asyncio.sleep(0.001)
            finally:
                self.ended.release()
            return "done"

        def held() -> str:
            self.begun.release()
            assert self._go.wait(PATIENCE_S)
            self.ended.release()
            return "done"

        app.get("/")(held_async if kind == "async" else held)

    def wait(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=PATIENCE_S)

    def let_go(self) -> None:
        self._go.set()


@contextlib.contextmanager
def clients(port: int, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S))
            for _ in range(count)
        ]


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes the connection, without a word."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


# Requests in flight


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", KINDS)
def test_requests_beyond_the_limit_wait_in_line_and_those_beyond_that_are_503(loop: str, kind: str) -> None:
    app = App()
    held = Held(app, kind)
    limits = {"max_in_flight": 2, "max_queued": 2, "queue_timeout": PATIENCE_S}

    with Server(app, port=0, loop=loop, **limits) as server, clients(server.port, 5) as connections:
        for connection in connections[:2]:
            connection.sendall(GET)
        held.wait(2)
        # In flight is full, and so is the line when these have come; who of them came last can't be told.
        for connection in connections[2:]:
            connection.sendall(GET)
        refused = first_to_answer(connections[2:])
        answer = refused.recv(65536)
        held.let_go()
        others = [ask(connection, b"") for connection in connections if connection is not refused]
        again = ask(refused, GET)

    assert answer.startswith(REFUSED)
    assert b"\r\nretry-after: 1\r\n" in answer
    assert answer.endswith(b'\r\n\r\n{"detail":"Service Unavailable"}')
    assert [other.endswith(b"done") for other in others] == [True] * 4
    assert again.endswith(b"done")


def first_to_answer(connections: list[socket.socket]) -> socket.socket:
    import select

    ready, _, _ = select.select(connections, [], [], PATIENCE_S)
    assert len(ready) == 1
    return ready[0]


def test_who_has_waited_in_line_for_too_long_is_503() -> None:
    app = App()
    held = Held(app, "async")

    with (
        Server(app, port=0, max_in_flight=1, queue_timeout=0.05) as server,
        clients(server.port, 2) as (one, two),
    ):
        one.sendall(GET)
        held.wait()
        refused = ask(two, GET)
        held.let_go()
        answered = ask(one, b"")

    assert refused.startswith(REFUSED)
    assert answered.endswith(b"done")


def test_what_needs_no_python_is_answered_whatever_is_in_flight() -> None:
    app = App()
    held = Held(app, "pooled")

    with Server(app, port=0, max_in_flight=1, max_queued=0) as server, clients(server.port, 2) as (one, two):
        one.sendall(GET)
        held.wait()
        assert ask(two, GET).startswith(REFUSED)
        assert ask(two, to("GET", "/nowhere")).startswith(b"HTTP/1.1 404 ")
        assert ask(two, to("POST", "/")).startswith(b"HTTP/1.1 405 ")
        held.let_go()


def test_content_that_arrives_slowly_takes_no_place() -> None:
    app = App()
    app.get("/")(lambda: "done")
    app.post("/")(lambda request: request.text)

    @app.get("/async")
    async def suspends() -> str:
        await asyncio.sleep(0)
        return "done"

    with (
        Server(app, port=0, max_in_flight=1, max_queued=0) as server,
        clients(server.port, 2) as (slow, other),
    ):
        slow.sendall(to("POST", "/", b"slowly")[:-3])
        answers = [ask(other, GET), ask(other, to("GET", "/async"))]
        late = ask(slow, b"wly")

    assert [answer.endswith(b"done") for answer in answers] == [True, True]
    assert late.endswith(b"slowly")


def test_a_response_takes_no_place_while_it_is_streamed() -> None:
    app = App()
    go = threading.Event()

    @app.get("/stream")
    def stream() -> StreamingResponse:
        def chunks() -> Iterator[str]:
            yield "one"
            assert go.wait(PATIENCE_S)
            yield "two"

        return StreamingResponse(chunks())

    app.get("/")(lambda: "done")

    with (
        Server(app, port=0, max_in_flight=1, max_queued=0) as server,
        clients(server.port, 2) as (reader, other),
    ):
        reader.sendall(to("GET", "/stream"))
        received = b""
        while b"one" not in received:
            received += reader.recv(65536)
        answer = ask(other, GET)
        go.set()

    assert answer.endswith(b"done")


def test_content_of_a_request_that_will_be_refused_is_not_asked_for() -> None:
    app = App()
    held = Held(app, "async")
    app.post("/")(lambda request: request.text)
    expecting = to("POST", "/", b"some").replace(b"\r\n\r\nsome", b"\r\nexpect: 100-continue\r\n\r\n")

    with Server(app, port=0, max_in_flight=1, max_queued=0) as server, clients(server.port, 2) as (one, two):
        one.sendall(GET)
        held.wait()
        assert ask(two, expecting).startswith(REFUSED)
        held.let_go()


def test_a_client_that_leaves_gives_its_place_up() -> None:
    app = App()
    held = Held(app, "async")

    limits = {"max_in_flight": 1, "max_queued": 1, "queue_timeout": PATIENCE_S}
    with Server(app, port=0, **limits) as server, clients(server.port, 2) as (leaving, staying):
        leaving.sendall(GET)
        held.wait()
        staying.sendall(GET)
        leaving.close()
        held.wait()
        held.let_go()
        answer = ask(staying, b"")

    assert answer.endswith(b"done")


# Timeouts


def slow_app(**options: Any) -> tuple[App, list[str], threading.Event]:
    """An app with a coroutine and a function that take ten seconds, or until told."""
    app, events, go = App(), [], threading.Event()

    @app.get("/async", **options)
    async def slow() -> str:
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        return "done"

    @app.get("/pooled", **options)
    def blocks() -> str:
        assert go.wait(PATIENCE_S)
        events.append("goes on")
        return "done"

    return app, events, go


@pytest.mark.parametrize("loop", LOOPS)
def test_a_coroutine_that_takes_too_long_is_cancelled_and_answered_with_503(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, events, _ = slow_app()

    with (
        caplog.at_level(logging.ERROR, "httpy.error"),
        Server(app, port=0, loop=loop, handler_timeout=0.05) as server,
        clients(server.port, 1) as (one,),
    ):
        answer = ask(one, to("GET", "/async"))
        not_at_all = ask(one, to("GET", "/nowhere"))

    assert answer.startswith(REFUSED)
    assert b"retry-after" not in answer
    assert not_at_all.startswith(b"HTTP/1.1 404 ")
    assert events == ["cancelled"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.endswith("slow was answered with 503 after 0.05 seconds (handler_timeout)")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_function_that_takes_too_long_is_answered_with_503_and_goes_on(loop: str) -> None:
    app, events, go = slow_app()

    with Server(app, port=0, loop=loop, handler_timeout=0.05) as server, clients(server.port, 1) as (one,):
        answer = ask(one, to("GET", "/pooled"))
        assert events == []
        go.set()

    assert answer.startswith(REFUSED)
    # Nobody waits for it any more.
    wait_for(lambda: events == ["goes on"])


def test_middleware_shares_its_handlers_time() -> None:
    app = App()
    app.get("/")(lambda: "done")

    @app.middleware
    async def slow(request: Request, next: Any) -> Any:
        await asyncio.sleep(PATIENCE_S)
        return await next(request)

    with Server(app, port=0, handler_timeout=0.05) as server, clients(server.port, 1) as (one,):
        assert ask(one, GET).startswith(REFUSED)


def test_a_route_has_its_own_time() -> None:
    short, _, _ = slow_app(timeout=0.05)
    app = App()

    @app.get("/long", timeout=0)
    async def long() -> str:
        await asyncio.sleep(0.1)
        return "done"

    with Server(short, port=0, handler_timeout=PATIENCE_S) as server, clients(server.port, 1) as (one,):
        assert ask(one, to("GET", "/async")).startswith(REFUSED)
    with Server(app, port=0, handler_timeout=0.05) as server, clients(server.port, 1) as (one,):
        assert ask(one, to("GET", "/long")).endswith(b"done")


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "soon"])
def test_a_time_that_is_none_is_refused_at_registration(timeout: Any) -> None:
    with pytest.raises(RouteError, match=r"route /: timeout is a number of seconds .* found"):
        App().get("/", timeout=timeout)(lambda: "")
    with pytest.raises(ConfigError, match="handler_timeout is a number of seconds"):
        Server(App(), port=0, handler_timeout="soon" if timeout == "soon" else -1).start()


# Connections


def test_a_connection_beyond_the_limit_takes_the_place_of_an_idle_one() -> None:
    app = App()
    app.get("/")(lambda: "done")

    with Server(app, port=0, max_connections=2) as server, clients(server.port, 2) as (one, two):
        assert ask(one, GET).endswith(b"done")
        assert ask(two, GET).endswith(b"done")
        with clients(server.port, 1) as (three,):
            assert ask(three, GET).endswith(b"done")
            assert is_closed(one)
            assert ask(two, GET).endswith(b"done")


def test_connections_that_work_are_kept_and_new_ones_wait() -> None:
    app = App()
    held = Held(app, "pooled")

    with Server(app, port=0, max_connections=1) as server, clients(server.port, 2) as (one, two):
        one.sendall(GET)
        held.wait()
        two.sendall(GET)
        two.settimeout(0.05)
        with pytest.raises(TimeoutError if sys.version_info >= (3, 10) else socket.timeout):
            two.recv(1)
        two.settimeout(PATIENCE_S)
        held.let_go()
        assert ask(one, b"").endswith(b"done")
        assert ask(two, b"").endswith(b"done")


def test_connections_from_this_machine_are_not_counted_by_their_address() -> None:
    app = App()
    app.get("/")(lambda: "done")

    with Server(app, port=0, max_connections_per_address=1) as server, clients(server.port, 3) as connections:
        assert [ask(connection, GET).endswith(b"done") for connection in connections] == [True] * 3


@pytest.mark.parametrize("name", ["max_connections", "max_in_flight", "max_queued", "queue_timeout"])
def test_a_limit_below_zero_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is a .* not -1"):
        Server(App(), port=0, **{name: -1}).start()


SERVER = """
import resource, sys
soft, hard, most = (int(one) for one in sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from httpy import App
app = App()

@app.get("/", inline=True)
def index():
    with open("/dev/null"):
        return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

app.run(port=0, max_connections=most)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_the_limit_of_descriptors_is_raised_as_far_as_needed() -> None:
    with running(python("-c", SERVER, "64", "4096", "1000")) as port, clients(port, 1) as (one,):
        assert ask(one, GET).endswith(b"\r\n1256")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_where_the_system_allows_few_descriptors_some_are_left_to_the_app() -> None:
    with running(python("-c", SERVER, "64", "128", "1000")) as port, clients(port, 200) as connections:
        for connection in reversed(connections[100:]):
            with contextlib.suppress(OSError):
                connection.sendall(GET)
        with clients(port, 1) as (one,):
            assert ask(one, GET).endswith(b"\r\n128"), "the app can open files"
