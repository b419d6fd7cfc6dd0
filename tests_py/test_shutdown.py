"""Stopping a server process: it always ends, and loses nothing on the way."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from crew import PATIENCE_S, Load, crew, read_all, wait_for
from httpy import App, Request, Server
from httpy.server import Observer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals, and unix sockets")]

LOOPS = ["selector", "thread"]


def alone(**options: Any) -> dict[str, Any]:
    """One process, without a supervisor."""
    return {"workers": 0, **options}


# What is lost: nothing


@pytest.mark.parametrize("loop", LOOPS)
def test_under_load_every_request_is_answered(loop: str) -> None:
    # The clients are slow, when others use the machine too: they get time for their next request.
    with crew(alone(config={"loop": loop, "idle_grace": 10})) as server:
        with Load(("127.0.0.1", server.serves().port), may_end=True) as load:
            load.wait_for_answers(200)
            server.signal(signal.SIGTERM)
            load.join()

        assert server.ends() == 0
    assert load.failed == []
    assert load.refused == 8


def test_under_load_over_a_unix_socket_every_request_is_answered(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with crew(alone(unix=path, config={"idle_grace": 10})) as server:
        server.serves()
        with Load(path, may_end=True) as load:
            load.wait_for_answers(200)
            server.signal(signal.SIGTERM)
            load.join()

        assert server.ends() == 0
    assert load.failed == []
    assert load.refused == 8


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_connections_that_nobody_had_accepted_yet_are_served(loop: str, host: str) -> None:
    with crew(alone(host=host, config={"loop": loop})) as server:
        stuck = server.serves().send("/stuck?seconds=1")
        server.hears("waiting")
        # Nothing is accepted while the loop is stuck.
        queued = [server.send(f"/echo/{number}") for number in range(50)]
        server.signal(signal.SIGTERM)

        answers = [read_all(one) for one in queued]

        assert read_all(stuck).endswith(b"stuck no more")
        assert server.ends() == 0
    assert all(b"\r\n\r\n%d " % number in answer for number, answer in enumerate(answers))


def test_connections_that_come_while_it_stops_are_served_or_refused() -> None:
    """Clients connect all the time, so some do between the last accept and the close."""
    outcomes: list[str] = []

    def connect_over_and_over(port: int) -> None:
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
            except ConnectionRefusedError:
                return
            with connection:
                try:
                    connection.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    outcomes.append("answered" if b" 200 OK" in read_all(connection) else "closed")
                except ConnectionError as error:
                    outcomes.append(repr(error))

    for _ in range(5):
        with crew(alone()) as server:
            threads = [
                threading.Thread(target=connect_over_and_over, args=(server.serves().port,)) for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            before = len(outcomes)
            wait_for(lambda before=before: len(outcomes) > before + 50)
            server.signal(signal.SIGTERM)
            for thread in threads:
                thread.join(PATIENCE_S)
            assert server.ends() == 0

    assert set(outcomes) == {"answered"}


def test_what_runs_is_finished_and_says_close() -> None:
    with crew(alone()) as server:
        server.serves()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"GET /wait?seconds=0.5 HTTP/1.1\r\nHost: x\r\n\r\n")
            server.hears("waiting")
            server.signal(signal.SIGTERM)
            answer = read_all(connection)

        assert server.ends() == 0
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b"waited")


def test_a_terminal_that_is_closed_ends_it_gracefully_unless_nohup_says_otherwise() -> None:
    program = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]
    with crew(alone()) as server, crew(alone(), before=program) as other:
        waiting = [one.serves().send("/wait?seconds=0.5") for one in (server, other)]
        for one in (server, other):
            one.hears("waiting")
            one.signal(signal.SIGHUP)

        assert [read_all(one)[-6:] for one in waiting] == [b"waited"] * 2
        assert server.ends() == 0
        assert other.ask("/pid") == str(other.pid)


# It ends


@pytest.mark.parametrize("loop", LOOPS)
def test_an_endless_stream_does_not_hold_it_past_the_grace(loop: str) -> None:
    with crew(alone(config={"loop": loop, "grace": 0.5})) as server:
        stream = server.serves().send("/stream")
        server.hears("waiting")

        began = time.monotonic()
        server.signal(signal.SIGTERM)

        assert server.ends() == 0
        assert 0.5 <= time.monotonic() - began < 0.5 + 5
        assert "shutdown ends" in server.said
        assert not read_all(stream).endswith(b"0\r\n\r\n"), "it was cut"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_stream_can_tell_that_the_server_stops(loop: str) -> None:
    with crew(alone(config={"loop": loop, "grace": 600})) as server:
        stream = server.serves().send("/stream?heeds=yes")
        server.hears("waiting")

        server.signal(signal.SIGTERM)

        assert read_all(stream).endswith(b"good bye\n\r\n0\r\n\r\n")
        assert server.ends() == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_shutdown_that_hangs_is_cancelled(loop: str) -> None:
    options = alone(wishes={"hangs": "shutdown"}, config={"loop": loop, "shutdown_timeout": 0.5})
    with crew(options) as server:
        server.serves().signal(signal.SIGTERM)

        assert server.ends() == 0
        assert "the app's shutdown took longer than 0.5 s (shutdown_timeout) and was cancelled" in server.said
        assert "shutdown ends" not in server.said


@pytest.mark.parametrize("loop", LOOPS)
def test_a_shutdown_that_blocks_the_loop_ends_the_process(loop: str) -> None:
    options = alone(wishes={"hangs": "blocked"}, config={"loop": loop, "shutdown_timeout": 0.5})
    with crew(options) as server:
        server.serves().signal(signal.SIGTERM)

        assert server.ends() == 0
        assert "does not come to an end; the process ends" in server.said
        assert "crew_app.py" in server.said, "it shows where"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_thread_of_the_executor_that_hangs_does_not_hold_it(loop: str) -> None:
    options = alone(config={"loop": loop, "grace": 0.2, "shutdown_timeout": 0.5})
    with crew(options) as server:
        server.serves().send("/executor")
        server.hears("waiting")
        server.signal(signal.SIGTERM)

        assert server.ends() == 0


def test_the_second_signal_ends_it_at_once() -> None:
    with crew(alone(wishes={"hangs": "shutdown"}, config={"grace": 600, "shutdown_timeout": 600})) as server:
        server.serves().send("/wait?seconds=1000")
        server.hears("waiting")
        server.signal(signal.SIGTERM)
        # The first one has come: it accepts no more.
        wait_for(lambda: is_refused(server.port))

        server.signal(signal.SIGTERM)

        assert server.ends() == 0


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    except ConnectionRefusedError:
        return True
    return False


# In the same process


def test_a_server_says_whether_it_is_ready() -> None:
    app, server = App(), None
    seen: list[bool] = []

    @app.on_startup
    def start() -> None:
        seen.append(server.is_ready)

    @app.get("/")
    async def index(request: Request) -> str:
        seen.append(server.is_ready)
        server.stop()
        seen.append(request.is_stopping)
        return "bye"

    @app.on_shutdown
    def stop() -> None:
        seen.append(server.is_ready)

    server = Server(app, port=0)
    server.start()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client:
        client.request("GET", "/")

        assert client.getresponse().read() == b"bye"
    server.stop()
    assert seen == [False, True, False, False]


class Counting(Observer):
    """Sends four requests, and notes when it was told of the third."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.seen: list[tuple[int, list[int]]] = []

    def starting(self, core: Any) -> None:
        self.core = core
        core.after_requests(3, lambda: self.told.append(core.requests))

    def accepting(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_in_executor(None, self.ask, server)

    def ask(self, server: Server) -> None:
        for _ in range(4):
            with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                read_all(connection)
            self.seen.append((self.core.requests, list(self.told)))
        server.stop()


@pytest.mark.parametrize("loop", LOOPS)
def test_requests_are_counted_and_one_of_them_is_told(loop: str) -> None:
    app, counting = App(), Counting()

    @app.get("/")
    async def index() -> str:
        return "hi"

    Server(app, port=0, loop=loop).run(counting)

    assert counting.seen == [(1, []), (2, []), (3, [3]), (4, [3])]


def test_a_process_ends_when_its_parent_is_gone_even_if_it_is_stuck() -> None:
    """The last resort against orphans: it needs neither the loop nor the interpreter."""
    program = """
import socket, sys, time
from httpy import _httpy
connection = socket.socket(fileno=int(sys.argv[1]))
_httpy.end_after_hangup(connection.fileno(), 0.1, 9)
connection.send(b"x")
# Holds the interpreter, as a loop in a C extension would.
10 ** 10 ** 9
"""
    from support import environment, python

    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            python("-c", program, str(theirs.fileno())), pass_fds=[theirs.fileno()], env=environment()
        )
        theirs.close()
        try:
            assert ours.recv(1) == b"x"
            assert process.poll() is None
            ours.close()

            assert process.wait(PATIENCE_S) == 9
        finally:
            process.kill()
            process.wait()
