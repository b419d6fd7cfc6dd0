"""Slow and hostile clients. Each attack must leave the server its memory and other clients their answers.

A witness beside each attack asks all the time, on new connections. The median of its answers has to be there within
100 ms; the median, because this machine has other things to do, and single answers may be late for that. But none may
fail or take more than a second. On a machine with more to do than its processors can, both are longer in proportion.
Memory is what the server's process alone holds: the kernel's socket buffers are not part of it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from programs import ask, to
from support import PATIENCE_S
from victim import GET, KIB, MIB, Victim, victim

pytestmark = [
    pytest.mark.slow,
    pytest.mark.alone,
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc"),
]

# How much later than its limit a connection may be seen closed, on a machine that others use.
SLACK_S = 1.5


@contextlib.contextmanager
def attackers(server: Victim, count: int) -> Iterator[list[socket.socket]]:
    """Opens connections, which are closed after the block."""
    allow_descriptors(count)
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def allow_descriptors(count: int) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 500
    if soft < wanted:
        assert hard >= wanted, f"this test needs {wanted} descriptors (ulimit -Hn)"
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def send(connections: list[socket.socket], content: bytes) -> None:
    """Sends to all; those that the server has closed are left alone."""
    for connection in connections:
        with contextlib.suppress(ConnectionError):
            connection.sendall(content)


def received_until_closed(connections: list[socket.socket], within: float) -> list[bytes]:
    """What each was sent until the server closed it; fails if it has not closed all of them in time."""
    received = {connection.fileno(): b"" for connection in connections}
    by_number = {connection.fileno(): connection for connection in connections}
    poll, opened = select.poll(), set(by_number)
    for number in by_number:
        poll.register(number, select.POLLIN)
    deadline = time.monotonic() + within
    while opened and (left := deadline - time.monotonic()) > 0:
        for number, _ in poll.poll(left * 1000):
            try:
                some = by_number[number].recv(65536)
            except ConnectionError:
                some = b""
            received[number] = (received[number] + some)[-1000:]
            if not some:
                poll.unregister(number)
                opened.discard(number)
    assert not opened, f"{len(opened)} of {len(connections)} connections are open after {within} s"
    return list(received.values())


def wait_until(is_so: Callable[[], bool], within: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within
    while not is_so():
        assert time.monotonic() < deadline, "it is not so"
        time.sleep(0.001)


def rounds(seconds: float, while_any: Collection[object] = ()) -> Iterator[None]:
    """As many as there is time for, and as something needs."""
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds or while_any:
        assert passed < PATIENCE_S, f"{len(while_any)} are left"
        yield


def test_connections_that_never_send_are_closed_at_the_limit() -> None:
    with victim(keep_alive_timeout=1, head_timeout=1) as server, attackers(server, 1000) as silent:
        assert server.memory() < 1000 * 16 * KIB

        assert set(received_until_closed(silent, 1 + SLACK_S)) == {b""}


def test_slowloris_is_closed_at_the_limit() -> None:
    with victim(head_timeout=1) as server, attackers(server, 1000) as slow:
        send(slow, b"GET / HTTP/1.1\r\nhost: a\r\n")
        for _ in range(8):
            send(slow, b"x")
            time.sleep(0.05)
        assert server.memory() < 1000 * 32 * KIB

        answers = received_until_closed(slow, 1 + SLACK_S)

        assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}


def test_slow_bodies_are_closed_at_the_limit() -> None:
    with victim(body_timeout=1, body_min_rate=1000) as server, attackers(server, 500) as slow:
        send(slow, to("POST", "/", b"x" * 100_000)[:-99_000])
        for _ in range(8):
            send(slow, b"x")
            time.sleep(0.05)

        answers = received_until_closed(slow, 1 + SLACK_S)

        assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}


def test_clients_that_do_not_read_are_closed_at_the_limit() -> None:
    with victim(write_timeout=1) as server, attackers(server, 100) as slow:
        for connection in slow:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        send(slow, to("GET", "/endless"))

        wait_until(lambda: server.descriptors() > 50)

        wait_until(lambda: server.descriptors() < 20, 1 + SLACK_S)


def test_slow_bodies_hold_little_and_make_room_for_others() -> None:
    slow: list[socket.socket] = []
    with victim(max_connections=200) as server, contextlib.ExitStack() as stack:
        # More and more of them, so that they have every place at all times.
        for _ in range(30):
            more = stack.enter_context(attackers(server, 50))
            send(more, to("POST", "/", b"x" * 100_000)[:-99_000])
            slow += more
            send(slow, b"x")
            time.sleep(0.05)

        assert server.memory() < 200 * 32 * KIB
        assert server.descriptors() < 220


def test_slow_readers_hold_little_and_make_room_for_others() -> None:
    slow: list[socket.socket] = []
    with victim(max_connections=100) as server, contextlib.ExitStack() as stack:
        for _ in range(30):
            more = stack.enter_context(attackers(server, 10))
            for connection in more:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            send(more, to("GET", "/endless"))
            slow += more
            for connection in slow:
                with contextlib.suppress(ConnectionError, BlockingIOError):
                    connection.recv(10, socket.MSG_DONTWAIT)
            time.sleep(0.05)

        assert server.memory() < 100 * 400 * KIB
        assert server.descriptors() < 120


def test_half_closed_connections_are_closed_at_once() -> None:
    requests = [b"", b"GET / HTT", to("POST", "/", b"some")[:-1], to("GET", "/waits")]
    with victim() as server:
        for _ in rounds(1):
            with attackers(server, 500) as half:
                for number, connection in enumerate(half):
                    connection.sendall(requests[number % len(requests)])
                    connection.shutdown(socket.SHUT_WR)

                received_until_closed(half, SLACK_S)

        wait_until(lambda: server.get("/under-way") == "0")
        wait_until(lambda: server.descriptors() < 20)


def reset(connection: socket.socket) -> None:
    """Closes it with a RST instead of a FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_storm_of_resets_leaves_nothing_behind() -> None:
    requests = [
        b"",
        b"GET / HTT",
        GET,
        to("GET", "/waits"),
        to("GET", "/endless"),
        to("POST", "/", b"some")[:-1],
    ]
    with victim() as server:
        for _ in rounds(1):
            for request in requests:
                connection = server.connect()
                connection.sendall(request)
                reset(connection)

        wait_until(lambda: server.get("/under-way") == "0")
        wait_until(lambda: server.descriptors() < 20)
        assert server.memory() < 16 * MIB


def test_requests_of_clients_that_have_left_do_not_pile_up_behind_handlers_that_block() -> None:
    request = to("POST", "/blocks", b"x" * 64 * KIB)
    with victim() as server:
        for _ in range(2000):
            connection = server.connect()
            connection.sendall(request)
            # Not before the server has it all: what it has not read is not what this is about.
            wait_until_taken(connection)
            reset(connection)
        held = server.memory()
        server.get("/go")

    # 2 x 256 of them may wait before they are looked through; all 2000 would be 125 MiB.
    assert held < 48 * MIB


def wait_until_taken(connection: socket.socket) -> None:
    """Waits until the other side has acknowledged everything."""
    import fcntl
    import termios

    def unsent() -> int:
        (count,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))
        return int(count)

    wait_until(lambda: unsent() == 0)


def test_five_thousand_idle_connections_cost_little_and_stay() -> None:
    with victim() as server, attackers(server, 5000) as idle:
        for connection in idle:
            ask(connection, GET)

        assert server.memory() < 5000 * 16 * KIB
        assert ask(idle[0], GET).endswith(b"Hello")


def test_five_thousand_connections_where_a_thousand_may_be_keep_nobody_out() -> None:
    with victim(max_connections=1000) as server, attackers(server, 5000):
        assert server.memory() < 1000 * 16 * KIB + 8 * MIB
        wait_until(lambda: server.descriptors() <= 1001)


def test_a_flood_of_pipelined_requests_waits_for_its_client_to_read() -> None:
    with victim() as server, attackers(server, 50) as flood:
        requests = memoryview(to("GET", "/large") * 20_000)
        sent = [0] * len(flood)
        for connection in flood:
            connection.setblocking(False)
        for _ in range(20):
            for number, connection in enumerate(flood):
                with contextlib.suppress(BlockingIOError):
                    sent[number] += connection.send(requests[sent[number] :])
            time.sleep(0.02)

        assert server.memory() < 50 * MIB


def test_huge_heads_are_refused_at_the_limit() -> None:
    with victim() as server:
        for _ in rounds(1):
            with attackers(server, 100) as huge:
                send(huge, b"GET / HTTP/1.1\r\nhost: a\r\n")
                for _ in range(100):
                    send(huge, b"x: " + b"y" * 1000 + b"\r\n")

                answers = received_until_closed(huge, SLACK_S)

            assert {answer.split(b" ")[1] for answer in answers if answer} == {b"431"}
        assert server.memory() < 100 * 160 * KIB


ENDLESS = {
    "chunks": (b"", b"2800\r\n" + b"x" * 0x2800 + b"\r\n", {b"413"}),
    "chunk size": (b"", b"0" * 10_000, {b"400"}),
    "chunk extensions": (b"1;", b"x" * 10_000, {b"400"}),
    "trailers": (b"0\r\n", b"x: " + b"y" * 10_000 + b"\r\n", {b"431"}),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_endless_chunked_content_is_cut_off(what: str) -> None:
    first, more, statuses = ENDLESS[what]
    with victim(max_body_bytes=MIB) as server, attackers(server, 50) as endless:
        send(endless, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + first)
        # At least so long, and until each has sent more than anybody may, or was closed.
        missing = dict.fromkeys(endless, 4 * MIB)
        for _ in rounds(1.5, while_any=missing):
            for connection in endless:
                try:
                    left = missing.get(connection, 0) - connection.send(more, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    continue
                except ConnectionError:
                    left = 0
                missing[connection] = left
                if left <= 0:
                    del missing[connection]
        assert server.memory() < 50 * 2 * MIB

        answers = received_until_closed(endless, 5 + SLACK_S)

        assert {answer.split(b" ")[1] for answer in answers if answer} <= statuses
