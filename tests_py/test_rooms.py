"""Rooms: in one process, across workers, and across servers by Redis. See also `tests/ws/rooms.rs` and `hub.rs`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from crew import Crew, crew, wait_for
from httpy import (
    App,
    BlockingWebSocket,
    ConfigError,
    HTTPyError,
    Server,
    WebSocket,
    WebSocketDisconnect,
)
from support import DRIVERS, PATIENCE_S, free_port


@contextlib.contextmanager
def opened(port: int, path: str) -> Iterator[ClientConnection]:
    """A client whose handler has said that it is ready."""
    with connect(f"ws://127.0.0.1:{port}{path}") as client:
        assert client.recv(PATIENCE_S) is not None
        yield client


@contextlib.contextmanager
def joined(*servers: Server, path: str = "/join?room=red") -> Iterator[list[ClientConnection]]:
    """A client of each of these servers, in the room."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(opened(server.port, path)) for server in servers]


def room_app() -> App:
    """An app whose WebSockets join the rooms in their query, and then say so."""
    app = App()

    @app.websocket("/join")
    async def join(ws: WebSocket, room: list[str]) -> None:
        await ws.accept()
        for name in room:
            await ws.join(name)
        await ws.send("joined")
        async for text in ws:
            await app.broadcast(room[0], text, exclude=ws)

    return app


# -- one process -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", DRIVERS)
def test_a_message_goes_to_the_members_whatever_it_is_made_of(loop: str) -> None:
    app = room_app()

    @app.get("/send")
    async def send() -> str:
        await app.broadcast("red", "text")
        app.broadcast("red", b"bytes")
        await app.broadcast("red", bytearray(b"more"))
        app.broadcast("red", {"a": [1, None]})
        app.broadcast("red", [1, 2])
        # Long enough to be compressed.
        app.broadcast("red", "long " * 1000)
        app.broadcast("blue", "for others")
        app.broadcast("nobody", "at all")
        return str(app.presence("red"))

    with Server(app, port=0, loop=loop) as server, joined(server, server) as (anna, bert):
        assert _get(server.port, "/send") == "2"
        for client in (anna, bert):
            assert [client.recv(PATIENCE_S) for _ in range(3)] == ["text", b"bytes", b"more"]
            assert [json.loads(client.recv(PATIENCE_S)) for _ in range(2)] == [{"a": [1, None]}, [1, 2]]
            assert client.recv(PATIENCE_S) == "long " * 1000
        anna.send("who hears me?")
        assert bert.recv(PATIENCE_S) == "who hears me?"
        bert.send("I do")
        assert anna.recv(PATIENCE_S) == "I do"


def test_a_socket_joins_and_leaves_and_says_where_it_is() -> None:
    app = App()
    seen: list[Any] = []

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        with pytest.raises(RuntimeError, match="not open yet"):
            ws.join("red")
        seen.append(ws.rooms)
        await ws.accept()
        ws.join("red")
        await ws.join("blue")
        await ws.join("red")
        seen.append((ws.rooms, app.presence("red"), app.presence("green")))
        await ws.leave("red")
        ws.leave("never")
        seen.append((ws.rooms, app.presence("red")))
        with pytest.raises(ValueError, match="1 to 255 bytes, found 0"):
            ws.join("")
        with pytest.raises(ValueError, match="1 to 255 bytes, found 256"):
            ws.join("r" * 256)
        with pytest.raises(TypeError):
            ws.join(7)  # type: ignore[arg-type]
        await ws.join("r" * 255)
        await ws.send("done")
        with pytest.raises(WebSocketDisconnect):
            await ws.receive()
        with pytest.raises(WebSocketDisconnect):
            ws.join("red")
        ws.leave("blue")
        seen.append((ws.rooms, app.presence("blue")))

    with Server(app, port=0) as server, opened(server.port, "/ws"):
        pass

    assert seen == [[], (["blue", "red"], 1, 0), (["blue"], 0), ([], 0)]


def test_a_socket_is_in_as_many_rooms_as_it_may_be() -> None:
    app = App()

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        await ws.join("one")
        await ws.join("two")
        try:
            await ws.join("three")
        except ValueError as error:
            await ws.send(str(error))

    with Server(app, port=0, ws_max_rooms=2) as server, connect(f"ws://127.0.0.1:{server.port}/ws") as client:
        assert client.recv(PATIENCE_S) == "a WebSocket is in at most 2 rooms (ws_max_rooms)"


def test_some_do_not_get_what_the_others_do() -> None:
    app = App()
    members: list[WebSocket] = []

    @app.websocket("/ws")
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        await ws.join("red")
        members.append(ws)
        await ws.send("joined")
        await ws.receive()

    with Server(app, port=0) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(opened(server.port, "/ws")) for _ in range(3)]
        app.broadcast("red", "to all")
        app.broadcast("red", "not to the first", exclude=members[0])
        app.broadcast("red", "only to the last", exclude=iter(members[:2]))
        app.broadcast("red", "the end", exclude=None)
        for wrong in ("red", 7, [members[0], "red"]):
            with pytest.raises(TypeError, match=r"exclude is a WebSocket or some of them, not (str|int)"):
                app.broadcast("red", "to nobody", exclude=wrong)  # type: ignore[arg-type]

        received = []
        for client in clients:
            received.append([])
            while received[-1][-1:] != ["the end"]:
                received[-1].append(client.recv(PATIENCE_S))

    assert received == [
        ["to all", "the end"],
        ["to all", "not to the first", "the end"],
        ["to all", "not to the first", "only to the last", "the end"],
    ]


@pytest.mark.parametrize("wrong", [7, None, {1, 2}, ("a",)])
def test_what_is_no_message_says_so(wrong: Any) -> None:
    app = App()
    with (
        Server(app, port=0),
        pytest.raises(TypeError, match="a message to a room is str, bytes, dict or list"),
    ):
        app.broadcast("red", wrong)


def test_from_threads_and_plain_handlers() -> None:
    app = App()

    @app.websocket("/ws")
    def handler(ws: BlockingWebSocket) -> None:
        ws.accept()
        ws.join("red")
        ws.send(" ".join(ws.rooms))
        for text in ws:
            app.broadcast("red", f"{text}, {app.presence('red')}", exclude=ws)
            ws.leave("red")

    with (
        Server(app, port=0) as server,
        opened(server.port, "/ws") as anna,
        opened(server.port, "/ws") as bert,
    ):
        anna.send("hello")
        assert bert.recv(PATIENCE_S) == "hello, 2"
        wait_for(lambda: app.presence("red") == 1)
        thread = threading.Thread(target=app.broadcast, args=("red", "from a thread"))
        thread.start()
        thread.join()
        assert bert.recv(PATIENCE_S) == "from a thread"


def test_rooms_are_those_of_the_server_and_so_of_every_app_in_it() -> None:
    app, mounted = room_app(), room_app()
    app.mount("/mounted", mounted)

    below = "/mounted/join?room=red"
    with Server(app, port=0) as server, joined(server) as (anna,), joined(server, path=below) as (bert,):
        mounted.broadcast("red", "from the mounted one")
        assert (app.presence("red"), mounted.presence("red")) == (2, 2)
        for client in (anna, bert):
            assert client.recv(PATIENCE_S) == "from the mounted one"


def test_without_a_server_there_is_nobody_to_send_to() -> None:
    app = room_app()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="nothing serves this app now"):
            app.broadcast("red", "x")
        with pytest.raises(RuntimeError, match="nothing serves this app now"):
            app.presence("red")
        with Server(app, port=0):
            app.broadcast("red", "x")
            assert app.presence("red") == 0


def test_two_servers_of_one_app_are_both_sent_to() -> None:
    app = room_app()

    with (
        Server(app, port=0) as first,
        Server(app, port=0) as second,
        joined(first, second) as (anna, bert),
    ):
        app.broadcast("red", "to both")
        assert app.presence("red") == 2
        assert (anna.recv(PATIENCE_S), bert.recv(PATIENCE_S)) == ("to both", "to both")


def test_startup_and_shutdown_may_broadcast() -> None:
    app = room_app()
    said = []

    @app.on_startup
    async def start() -> None:
        await app.broadcast("red", "we open")
        said.append(app.presence("red"))

    @app.on_shutdown
    async def stop() -> None:
        await app.broadcast("red", "we close")
        said.append(app.presence("red"))

    with Server(app, port=0) as server, opened(server.port, "/join?room=red"):
        pass

    assert said == [0, 0]


def test_one_slow_member_never_slows_a_room() -> None:
    app = room_app()
    text = "x" * 10_000
    limits = {"ws_max_queue_bytes": 100_000, "ws_compression": False}
    with Server(app, port=0, **limits) as server, joined(server, server) as (quick, other):
        slow = socket.create_connection(("127.0.0.1", server.port))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with slow:
            slow.sendall(
                b"GET /join?room=red HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            wait_for(lambda: app.presence("red") == 3)
            # Until the system has no more room for it either.
            for _ in range(1000):
                app.broadcast("red", text)
                assert quick.recv(PATIENCE_S) == text
                assert other.recv(PATIENCE_S) == text
                if app.presence("red") == 2:
                    break
            # It was promised everything: it is closed instead.
            assert app.presence("red") == 2


# -- workers -----------------------------------------------------------------------------------------------------------

needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")


class Members:
    """Clients in one room of a crew, in each of its workers.

    Attributes:
        clients: With the process that has each.
    """

    def __init__(self, running: Crew, room: str, workers: int) -> None:
        self._stack = contextlib.ExitStack()
        self._room, self._running = room, running
        self.clients: list[tuple[ClientConnection, int]] = []
        self.join_all(workers)

    def join_all(self, workers: int) -> None:
        """Has clients join until so many workers have some."""
        for _ in range(500):
            if len({pid for _, pid in self.clients}) >= workers:
                return
            self.join()
        raise AssertionError(f"all are in {self.pids()}")

    def join(self) -> None:
        """Has one more client join."""
        url = f"ws://127.0.0.1:{self._running.port}/room/{self._room}"
        client = self._stack.enter_context(connect(url))
        self.clients.append((client, int(client.recv(PATIENCE_S))))

    def pids(self) -> Counter[int]:
        """How many members each worker has."""
        return Counter(pid for _, pid in self.clients)

    def all_hear(self, text: str) -> None:
        """Sees that every member gets this next."""
        for client, pid in self.clients:
            assert client.recv(PATIENCE_S) == text, pid

    def forget_lost(self) -> None:
        """Forgets clients whose connection has ended, whatever they were told before."""
        left = []
        for client, pid in self.clients:
            try:
                client.ping().wait(PATIENCE_S)
                left.append((client, pid))
            except ConnectionClosed:
                pass
        self.clients = left

    def close(self) -> None:
        """Ends all."""
        self._stack.close()


@contextlib.contextmanager
def members(running: Crew, room: str, workers: int) -> Iterator[Members]:
    """Clients in a room, of each worker."""
    found = Members(running, room, workers)
    try:
        yield found
    finally:
        found.close()


def wait_for_presence(running: Crew, room: str, count: int, workers: int) -> None:
    """Waits until so many workers say that so many are in a room, each when it was asked last."""
    said: dict[int, int] = {}

    def look() -> dict[int, int]:
        present, pid = running.ask(f"/presence/{room}").split()
        said[int(pid)] = int(present)
        alive = running.workers()
        return {pid: present for pid, present in said.items() if pid in alive}

    wait_for(look, lambda seen: len(seen) >= workers and set(seen.values()) == {count})


@needs_proc
@pytest.mark.slow
def test_a_room_is_one_room_for_all_workers() -> None:
    with crew({"workers": 3}) as running:
        running.serves()
        with members(running, "red", 3) as red, members(running, "blue", 2) as blue:
            for number in range(20):
                running.ask(f"/say/red/{number}")
                red.all_hear(str(number))
            running.ask("/say/blue/sky")
            blue.all_hear("sky")
            wait_for_presence(running, "red", len(red.clients), 3)
            wait_for_presence(running, "blue", len(blue.clients), 3)

            red.clients[0][0].send("not to me")
            running.ask("/say/red/bye")
            assert red.clients[0][0].recv(PATIENCE_S) == "bye"
            heard = [{client.recv(PATIENCE_S), client.recv(PATIENCE_S)} for client, _ in red.clients[1:]]
            assert all(one == {"not to me", "bye"} for one in heard)
        wait_for_presence(running, "red", 0, 3)


@needs_proc
@pytest.mark.slow
def test_a_worker_that_is_killed_takes_its_members_along_and_another_takes_part() -> None:
    with crew({"workers": 2}) as running:
        running.serves()
        with members(running, "red", 2) as red:
            killed = red.clients[0][1]
            os.kill(killed, signal.SIGKILL)
            running.wait_for_workers(lambda pids: len(pids) == 2 and killed not in pids)
            red.forget_lost()
            assert killed not in red.pids()
            red.join_all(2)

            wait_for_presence(running, "red", len(red.clients), 2)
            running.ask("/say/red/again")
            red.all_hear("again")


@needs_proc
@pytest.mark.slow
def test_workers_that_were_restarted_share_their_rooms() -> None:
    with crew({"workers": 2, "config": {"idle_grace": 0.0, "ws_handler_grace": 0.0}}) as running:
        running.serves()
        with members(running, "red", 2) as red:
            before = set(red.pids())
            running.signal(signal.SIGHUP)
            # Each is told that its worker goes, and comes again.
            for client, _ in red.clients:
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv(PATIENCE_S)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1001
            running.hears("all workers are restarted")
            running.wait_for_workers(lambda pids: len(pids) == 2 and not before.intersection(pids))
            red.clients.clear()
            red.join_all(2)

            wait_for_presence(running, "red", len(red.clients), 2)
            running.ask("/say/red/again")
            red.all_hear("again")


@needs_proc
@pytest.mark.slow
def test_the_hub_has_a_thread_only_if_there_are_rooms() -> None:
    def threads() -> int:
        return len(os.listdir(f"/proc/{running.pid}/task"))

    with crew({"workers": 2}) as running:
        running.serves()
        for _ in range(20):
            running.ask("/pid")
        assert threads() == 1

        running.ask("/say/red/first")

        wait_for(lambda: threads() == 2)
        running.signal(signal.SIGTERM)
        assert running.ends() == 0


@needs_proc
@pytest.mark.slow
def test_a_worker_that_is_stopped_holds_nobody_up() -> None:
    with crew({"workers": 3, "worker_timeout": 0}) as running:
        running.serves()
        with members(running, "red", 3) as red:
            stopped = red.clients[0][1]
            others = [client for client, pid in red.clients if pid != stopped]
            os.kill(stopped, signal.SIGSTOP)
            try:
                text = "x" * 200_000
                for _ in range(100):
                    others[0].send(text)
                    for client in others[1:]:
                        assert client.recv(PATIENCE_S) == text
            finally:
                os.kill(stopped, signal.SIGCONT)
            running.hears("messages to rooms come faster than another process takes them")


# -- Redis -------------------------------------------------------------------------------------------------------------

needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
PASSWORD = "s3cret-and-l0ng"


class Redis:
    """A redis-server of our own, that can be ended and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = str(folder / "redis.sock")
        self.port = free_port()
        self.start()

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", self.path]
        command += ["--save", "", "--appendonly", "no", "--requirepass", PASSWORD, "--dir", str(self._folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for(self._listens)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.path)
            except OSError:
                return False
        return True

    def end(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    @property
    def by_tcp(self) -> str:
        """Where it is, with the password."""
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    @property
    def by_socket(self) -> str:
        """The same by its unix socket."""
        return f"redis+unix://:{PASSWORD}@{self.path}"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    yield server
    server.end()


@needs_proc
@needs_redis
@pytest.mark.slow
def test_servers_share_their_rooms_by_redis_and_go_on_without_it(redis: Redis) -> None:
    def options(url: str) -> dict[str, Any]:
        config = {"rooms_url": url, "rooms_channel": "test"}
        return {"workers": 2, "config": config, "wishes": {"log_level": "INFO"}}

    with crew(options(redis.by_tcp)) as first, crew(options(redis.by_socket)) as second:
        first.serves()
        second.serves()
        with members(first, "red", 2) as here, members(second, "red", 2) as there:
            count = len(here.clients) + len(there.clients)
            wait_for_presence(first, "red", count, 2)
            wait_for_presence(second, "red", count, 2)
            first.ask("/say/red/hello")
            here.all_hear("hello")
            there.all_hear("hello")

            redis.end()
            first.hears("Redis is away: rooms are those of this process alone meanwhile", 2)
            said_by = int(first.ask("/say/red/alone"))
            for client, pid in here.clients:
                if pid == said_by:
                    assert client.recv(PATIENCE_S) == "alone"

            redis.start()
            for running in (first, second):
                running.hears("Redis is back: rooms are shared again", 2)
            wait_for_presence(second, "red", count, 2)
            first.ask("/say/red/back")
            there.all_hear("back")
        for running in (first, second):
            running.signal(signal.SIGTERM)
            assert running.ends() == 0
            assert PASSWORD not in running.said


@needs_redis
@pytest.mark.slow
def test_a_server_that_ends_counts_no_more(redis: Redis) -> None:
    first, second = room_app(), room_app()
    with Server(first, port=0, rooms_url=redis.by_tcp) as server:
        with Server(second, port=0, rooms_url=redis.by_socket) as other, joined(server, other):
            wait_for(lambda: (first.presence("red"), second.presence("red")) == (2, 2))
        wait_for(lambda: first.presence("red") == 0)


@needs_redis
@pytest.mark.slow
def test_databases_and_channels_keep_servers_apart(redis: Redis) -> None:
    apps = [room_app() for _ in range(4)]
    settings = [
        {"rooms_url": redis.by_socket},
        {"rooms_url": redis.by_socket + "?db=0"},
        {"rooms_url": redis.by_socket + "?db=1"},
        {"rooms_url": redis.by_socket, "rooms_channel": "other"},
    ]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server(app, port=0, **more)) for app, more in zip(apps, settings)]
        clients = [stack.enter_context(opened(server.port, "/join?room=red")) for server in servers]
        wait_for(lambda: [app.presence("red") for app in apps] == [2, 2, 1, 1])
        apps[0].broadcast("red", "from the first")
        assert [client.recv(PATIENCE_S) for client in clients[:2]] == ["from the first"] * 2
        for app, client in list(zip(apps, clients))[2:]:
            app.broadcast("red", "own")
            assert client.recv(PATIENCE_S) == "own"


@needs_redis
@pytest.mark.slow
def test_a_wrong_password_is_said_without_it(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    app = room_app()
    with Server(app, port=0, rooms_url=f"redis://:wr0ng-one@127.0.0.1:{redis.port}") as server:
        wait_for(lambda: "Redis is away" in caplog.text)
        with opened(server.port, "/join?room=red") as client:
            app.broadcast("red", "here at least")
            assert client.recv(PATIENCE_S) == "here at least"

    said = "\n".join(str(vars(record)) for record in caplog.records)
    assert "Redis says WRONGPASS" in said
    assert "wr0ng-one" not in said


@pytest.mark.parametrize(
    "url", ["http://:s3cret@cache", "rediss://:s3cret@cache", "cache:s3cret", "redis://s3cret:x/y"]
)
def test_what_is_wrong_with_a_url_is_said_without_it(url: str) -> None:
    server = Server(room_app(), port=0, rooms_url=url)
    with pytest.raises(ConfigError, match="rooms_url is ") as raised:
        server.start()

    assert isinstance(raised.value, HTTPyError)
    assert "s3cret" not in str(raised.value)


def _get(port: int, path: str) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_S) as response:
        return str(response.read().decode())
