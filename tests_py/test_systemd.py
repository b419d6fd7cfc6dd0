"""What a service tells systemd, and the sockets it gets from it: with a socket in systemd's place."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from crew import HERE, PATIENCE_S, Crew, Load, has_ended, wait_for
from httpy import ConfigError
from httpy.systemd import Notifier, listening_socket, listening_sockets
from support import environment, python

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is Linux's"),
]


class Manager:
    """Stands for systemd: receives notifications, and may hold listening sockets."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(PATIENCE_S)

    def receive(self) -> dict[str, str]:
        """The next notification but a watchdog's."""
        while True:
            told = dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())
            if "WATCHDOG" not in told:
                return told

    def receive_watchdog(self) -> None:
        """Waits for a sign of life."""
        while self._socket.recv(4096) != b"WATCHDOG=1":
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(str(tmp_path / "notify"))
    yield one
    one.close()


BECOME = """
import json, os, sys
for number, descriptor in enumerate(json.loads(sys.argv[1])):
    os.dup2(descriptor, 3 + number)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(number + 1))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Service:
    """A program as systemd starts it."""

    def __init__(
        self,
        manager: Manager,
        options: dict[str, Any],
        *,
        sockets: Sequence[socket.socket] = (),
        **variables: str,
    ) -> None:
        # The process id is known to the process itself only.
        program = python(str(HERE / "crew_program.py"), json.dumps({"workers": 2, **options}))
        numbers = [one.fileno() for one in sockets]
        self.crew = Crew(
            python("-c", BECOME, json.dumps(numbers), *program),
            env={**environment(), "NOTIFY_SOCKET": manager.address, **variables},
            pass_fds=numbers,
            start_new_session=True,
        )

    def __enter__(self) -> Crew:
        return self.crew

    def __exit__(self, *raised: object) -> None:
        try:
            os.killpg(self.crew.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.crew.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_service_tells_when_it_serves_and_when_it_ends(workers: int, manager: Manager) -> None:
    with Service(manager, {"workers": workers}) as server:
        assert manager.receive() == {"READY": "1", "STATUS": ""}
        assert server.serves().ask("/pid")

        server.signal(signal.SIGTERM)

        assert manager.receive() == {"STOPPING": "1"}
        assert server.ends() == 0


def test_an_address_may_be_one_without_a_file() -> None:
    manager = Manager(f"@httpy-test-{os.getpid()}")
    try:
        with Service(manager, {}) as server:
            assert manager.receive()["READY"] == "1"
            server.signal(signal.SIGTERM)
            assert server.ends() == 0
    finally:
        manager.close()


def test_a_reload_is_told_from_its_beginning_to_its_end(manager: Manager) -> None:
    with Service(manager, {}) as server:
        manager.receive()
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        server.serves().signal(signal.SIGHUP)

        told = manager.receive()

        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert told.keys() == {"RELOADING", "MONOTONIC_USEC"}
        assert before <= int(told["MONOTONIC_USEC"]) <= after
        assert manager.receive() == {"READY": "1", "STATUS": ""}
        server.hears("all workers are restarted")


def test_a_reload_that_fails_is_told(manager: Manager, tmp_path: Path) -> None:
    fails = tmp_path / "fails"
    with Service(manager, {"wishes": {"fails": str(fails)}}) as server:
        manager.receive()
        fails.touch()
        server.serves().signal(signal.SIGHUP)

        assert "RELOADING" in manager.receive()
        assert manager.receive() == {"READY": "1", "STATUS": "the last reload failed"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_watchdog_sees_signs_of_life(workers: int, manager: Manager) -> None:
    with Service(manager, {"workers": workers}, WATCHDOG_USEC="300000") as server:
        assert manager.receive() == {"READY": "1", "STATUS": ""}
        for _ in range(5):
            manager.receive_watchdog()

        server.signal(signal.SIGTERM)
        assert server.ends() == 0


def test_a_single_process_that_is_stuck_shows_no_life(manager: Manager) -> None:
    with Service(manager, {"workers": 0}, WATCHDOG_USEC="200000") as server:
        manager.receive()
        manager.receive_watchdog()
        server.serves().send("/stuck")
        server.hears("waiting")
        manager._socket.settimeout(0.01)
        with pytest.raises(TimeoutError if sys.version_info >= (3, 10) else socket.timeout):
            # What was told before is still there to be read.
            while True:
                manager.receive_watchdog()

        manager._socket.settimeout(1)
        with pytest.raises(TimeoutError if sys.version_info >= (3, 10) else socket.timeout):
            manager.receive_watchdog()


def test_a_watchdog_for_another_process_is_left_alone() -> None:
    variables = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": str(os.getpid() + 1)}

    assert Notifier(variables).watchdog_s is None
    assert Notifier({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1500000"}).watchdog_s == 1.5
    assert variables == {}


def test_a_service_that_is_taken_over_tells_which_process_it_is(manager: Manager) -> None:
    with Service(manager, {}, WATCHDOG_USEC="60000000") as server:
        manager.receive()
        server.serves().signal(signal.SIGUSR2)
        # Of the new process, and of the old one, in any order.
        told = [manager.receive(), manager.receive()]

        new = int(server.hears(r"process (\d+) has taken over")[1])
        assert {"MAINPID": str(new)} in told
        assert {"READY": "1", "STATUS": ""} in told
        assert server.leaves() == 0

        os.kill(new, signal.SIGTERM)
        assert manager.receive() == {"STOPPING": "1"}
        wait_for(lambda: has_ended(new))


@pytest.mark.parametrize("workers", [0, 2])
def test_sockets_of_the_service_manager_are_served_and_survive(workers: int, manager: Manager) -> None:
    """A service that is restarted by its manager loses no connection: those of the time in between wait."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen(128)
        options = {"workers": workers, "config": {"idle_grace": 10}}
        with Service(manager, options, sockets=[one]) as first:
            assert first.serves().port == one.getsockname()[1]
            with Load(one.getsockname(), clients=4) as load:
                first.signal(signal.SIGTERM)
                assert first.ends() == 0
                with Service(manager, options, sockets=[one]) as second:
                    second.serves()
                    load.wait_for_answers(50)
                    load._stop.set()
                    load.join()
                    second.signal(signal.SIGTERM)
                    assert second.ends() == 0

        assert load.failed == []


def test_workers_do_not_get_what_was_for_their_parent(manager: Manager) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        with Service(manager, {}, sockets=[one], WATCHDOG_USEC="60000000") as server:
            server.serves()
            for pid in server.workers():
                names = {line.split("=")[0] for line in Path(f"/proc/{pid}/environ").read_text().split("\0")}
                assert names.isdisjoint({"LISTEN_PID", "LISTEN_FDS", "NOTIFY_SOCKET", "WATCHDOG_USEC"})


def test_sockets_for_another_process_are_left_alone() -> None:
    variables = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}

    assert listening_sockets(variables) == []
    assert variables == {}


@pytest.mark.parametrize("count", ["x", "-1"])
def test_a_wrong_number_of_sockets_is_said(count: str) -> None:
    with pytest.raises(ConfigError, match=f"LISTEN_FDS is a number of sockets, found '{count}'"):
        listening_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})


def test_a_descriptor_that_is_no_stream_socket_is_said() -> None:
    with open("/dev/null", "rb") as file, pytest.raises(ConfigError, match=r"descriptor \d+ is no socket: "):
        listening_socket(file.fileno())
    with (
        socket.socket(type=socket.SOCK_DGRAM) as one,
        pytest.raises(ConfigError, match="is no stream socket"),
    ):
        listening_socket(one.fileno())


def test_a_manager_that_is_not_there_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": "/nowhere/notify"})

    notifier.ready()
    notifier.stopping()

    assert [record.getMessage() for record in caplog.records] == [
        "can't notify /nowhere/notify: [Errno 2] No such file or directory"
    ]


def test_without_a_manager_nothing_is_told() -> None:
    notifier = Notifier({})

    notifier.ready()
    notifier.alive()

    assert (notifier.watchdog_s, notifier.variables) == (None, {})
