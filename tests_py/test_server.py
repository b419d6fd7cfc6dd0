"""The Server: starting, stopping, and what is said when that fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from httpy import App, ConfigError, Request, Server
from httpy.config import split_config

LOOPS = ["selector", "thread"]


def hello(**options: Any) -> App:
    app = App(**options)
    app.get("/")(lambda: "Hello, World!")
    return app


def get(server: Server, path: str = "/") -> str:
    return httpx.get(server.url + path, timeout=10, trust_env=False).text


# On a thread


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_runs_as_long_as_its_block(loop: str) -> None:
    with Server(hello(), port=0, loop=loop) as server:
        assert server.port > 0
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert get(server) == "Hello, World!"

    with pytest.raises(httpx.ConnectError):
        get(server)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_can_be_started_again(loop: str) -> None:
    server = Server(hello(), port=0, loop=loop)

    for _ in range(3):
        server.start()
        assert get(server) == "Hello, World!"
        server.stop()


def test_starting_twice_is_refused() -> None:
    with Server(hello(), port=0) as server, pytest.raises(RuntimeError, match="the server runs already"):
        server.start()


def test_stopping_what_does_not_run_is_nothing() -> None:
    server = Server(hello(), port=0)

    server.stop()
    server.start()
    server.stop()
    server.stop()


def test_one_app_may_have_several_servers() -> None:
    app = hello()

    with Server(app, port=0) as one, Server(app, port=0) as other:
        assert one.port != other.port
        assert get(one) == get(other) == "Hello, World!"


def test_a_taken_port_is_said_at_start() -> None:
    with Server(hello(), port=0) as server, pytest.raises(ConfigError, match=str(server.port)):
        Server(hello(), port=server.port).start()


def test_a_host_may_be_a_name() -> None:
    with Server(hello(), host="localhost", port=0) as server:
        assert server.url == f"http://localhost:{server.port}"
        assert get(server) == "Hello, World!"


def test_a_host_without_address_is_said_at_start() -> None:
    with pytest.raises(ConfigError, match=r"host 'nowhere\.invalid' has no address"):
        Server(hello(), host="nowhere.invalid", port=0).start()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("a.b", "http://a.b:80"),
    ],
)
def test_the_url_is_one_that_a_client_here_can_use(host: str, url: str) -> None:
    assert Server(hello(), host=host, port=80).url == url


# With sockets that are there already


def listening(family: int, address: Any) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    one.bind(address)
    one.listen()
    return one


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.skipif(os.name == "nt", reason="unix sockets")
def test_sockets_that_are_there_are_served_all_of_them(loop: str, tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    sockets = [
        listening(socket.AF_UNIX, path),
        listening(socket.AF_INET, ("127.0.0.1", 0)),
        listening(socket.AF_INET6, ("::1", 0)),
    ]
    ports = [one.getsockname()[1] for one in sockets[1:]]

    with Server(hello(), sockets=sockets, loop=loop) as server:
        assert server.urls == [f"unix:{path}", f"http://127.0.0.1:{ports[0]}", f"http://[::1]:{ports[1]}"]
        assert (server.url, server.host, server.port) == (f"unix:{path}", "127.0.0.1", ports[0])
        answers = [httpx.get(url, trust_env=False).text for url in server.urls[1:]]
        with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
            answers.append(client.get("http://localhost/").text)

    assert answers == ["Hello, World!"] * 3
    assert [one.fileno() for one in sockets] == [-1, -1, -1]


def test_the_server_closes_the_sockets_it_was_given() -> None:
    one = listening(socket.AF_INET, ("127.0.0.1", 0))
    address = one.getsockname()
    server = Server(hello(), sockets=[one])

    server.start()
    server.stop()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    with pytest.raises(ConfigError, match="the sockets of this server are closed"):
        server.start()


def test_a_socket_that_does_not_listen_is_said_at_start() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))

        with pytest.raises(ConfigError, match="it does not listen: call listen\\(\\) first"):
            Server(hello(), sockets=[one]).start()


def test_sockets_are_sockets() -> None:
    with pytest.raises(ConfigError, match="sockets are sockets that listen, found 'unix:x'"):
        Server(hello(), sockets=["unix:x"])  # type: ignore[list-item]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_failure_at_startup_is_raised_and_what_was_started_is_stopped(loop: str) -> None:
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        events.append("up")
        yield
        events.append("never here")

    app = hello(lifespan=lifespan)

    @app.on_startup
    def fails() -> None:
        raise LookupError("no database")

    server = Server(app, port=0, loop=loop)

    for _ in range(2):
        with pytest.raises(LookupError, match="no database"):
            server.start()
    app.get("/registering-works-again")(lambda: None)
    assert events == ["up", "up"]


def test_a_failure_at_shutdown_is_raised_by_stop_and_all_else_is_stopped() -> None:
    events: list[str] = []
    app = hello()

    @app.on_shutdown
    def fails() -> None:
        raise LookupError("lost")

    app.on_shutdown(lambda: events.append("shutdown"))
    server = Server(app, port=0)
    server.start()

    with pytest.raises(LookupError, match="lost"):
        server.stop()

    assert events == ["shutdown"]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", ["async", "pooled"])
def test_running_requests_finish_before_shutdown(loop: str, kind: str) -> None:
    app, started, go_on = App(), threading.Event(), threading.Event()
    events: list[str] = []
    app.on_shutdown(lambda: events.append("shutdown"))

    def plain() -> str:
        started.set()
        go_on.wait(10)
        events.append("answered")
        return "done"

    async def asynchronous() -> str:
        started.set()
        await asyncio.get_running_loop().run_in_executor(None, go_on.wait, 10)
        events.append("answered")
        return "done"

    app.get("/")(plain if kind == "pooled" else asynchronous)
    server = Server(app, port=0, loop=loop)
    server.start()
    answers: list[str] = []
    client = threading.Thread(target=lambda: answers.append(get(server)))
    client.start()
    assert started.wait(10)
    stopping = threading.Thread(target=server.stop)
    stopping.start()

    go_on.set()

    for thread in (client, stopping):
        thread.join(10)
    assert answers == ["done"]
    assert events == ["answered", "shutdown"]


@pytest.mark.parametrize("loop", LOOPS)
def test_what_runs_longer_than_the_grace_is_cut_off(loop: str) -> None:
    app, started = App(), threading.Event()
    ended: list[str] = []

    @app.get("/")
    async def handler() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    server = Server(app, port=0, loop=loop)
    server.start()
    outcomes: list[str] = []

    def ask() -> None:
        try:
            outcomes.append(get(server))
        except httpx.HTTPError as error:
            outcomes.append(type(error).__name__)

    client = threading.Thread(target=ask)
    client.start()
    assert started.wait(10)

    before = time.monotonic()
    server.stop(grace=0)

    client.join(10)
    assert time.monotonic() - before < 5
    assert outcomes != ["null"]
    assert len(outcomes) == 1
    assert ended == ["cancelled"]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_handler_may_stop_its_server(loop: str) -> None:
    app = App()

    @app.get("/")
    async def handler() -> str:
        server.stop()
        return "bye"

    server = Server(app, port=0, loop=loop)
    server.start()

    assert get(server) == "bye"
    server.stop()


@pytest.mark.parametrize("loop", LOOPS)
def test_all_tasks_can_be_awaited_at_shutdown(loop: str) -> None:
    app = App()

    @app.get("/")
    async def handler() -> str:
        return "a"

    @app.on_shutdown
    async def end_everything() -> None:
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    with Server(app, port=0, loop=loop) as server:
        assert get(server) == "a"


# In a loop


def test_serve_runs_in_a_loop_that_is_there_already() -> None:
    async def main() -> str:
        server = Server(hello(), port=0)
        async with server:
            return await asyncio.get_running_loop().run_in_executor(None, get, server)

    assert asyncio.run(main()) == "Hello, World!"


def test_handlers_run_on_the_loop_that_serves() -> None:
    app = App()

    @app.get("/")
    async def handler(request: Request) -> bool:
        return asyncio.get_running_loop() is request.state.loop

    @contextlib.asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[dict[str, Any]]:
        yield {"loop": asyncio.get_running_loop()}

    app = App(lifespan=lifespan)
    app.get("/")(handler)

    async def main() -> str:
        async with Server(app, port=0) as server:
            return await asyncio.get_running_loop().run_in_executor(None, get, server)

    assert asyncio.run(main()) == "true"


def test_serve_ends_when_its_task_is_cancelled() -> None:
    events: list[str] = []
    app = hello()
    ready = threading.Event()
    app.on_startup(ready.set)
    app.on_shutdown(lambda: events.append("shutdown"))

    async def main() -> None:
        task = asyncio.ensure_future(Server(app, port=0).serve())
        while not ready.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    assert events == ["shutdown"]


def test_serve_ends_when_it_is_stopped() -> None:
    async def main() -> None:
        server = Server(hello(), port=0)
        task = asyncio.ensure_future(server.serve())
        while not server.port:
            await asyncio.sleep(0)
        server.stop()
        await asyncio.wait_for(task, 10)

    asyncio.run(main())


def test_a_failure_at_startup_is_raised_in_the_loop() -> None:
    app = hello()
    app.on_startup(lambda: 1 / 0)

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await Server(app, port=0).serve()
        with pytest.raises(ZeroDivisionError):
            async with Server(app, port=0):
                pytest.fail("it did not start")

    asyncio.run(main())


def test_run_is_not_for_a_loop() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="use `await Server\\(app\\)\\.serve\\(\\)`"):
            hello().run(port=0)

    asyncio.run(main())


# Configuration


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_body_byte": 1}, "no configuration value 'max_body_byte'; did you mean max_body_bytes"),
        ({"zzz": 1}, "no configuration value 'zzz'"),
        ({"loop": "trio"}, "loop is one of auto, selector, thread, uvloop, not 'trio'"),
        ({"workers": 4}, "workers is for App.run and the command line, not for a Server"),
        ({"http3": True}, "http3 is not there yet"),
        ({"log_format": "xml"}, "log_format is one of text, json, not 'xml'"),
        ({"root_path": "api"}, "root_path is a percent-encoded path, such as /api, not 'api'"),
        ({"root_path": "/a?b"}, "root_path is a percent-encoded path"),
        ({"port": 70000}, "port is a number from 0 to 65535, not 70000"),
        ({"port": "80"}, "port is a number from 0 to 65535, not '80'"),
    ],
)
def test_wrong_configuration_is_refused_at_once(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Server(hello(), **config)


def test_wrong_values_are_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="max_body_bytes"):
        Server(hello(), port=0, max_body_bytes=-1).start()


def test_run_refuses_what_is_not_there_yet() -> None:
    with pytest.raises(ConfigError, match="http3=True is not there yet"):
        hello().run(http3=True)


def test_only_what_was_given_goes_to_the_native_half() -> None:
    assert split_config({"loop": "thread", "grace": 1.0}) == ("thread", {"grace": 1.0}, {})
    assert split_config({"certfile": "a.pem", "tls_reload_interval": 0}) == (
        "auto",
        {},
        {"certfile": "a.pem", "tls_reload_interval": 0},
    )


def test_only_apps_are_served() -> None:
    with pytest.raises(ConfigError, match="what a Server serves is a int, not an HTTPy App"):
        Server(7)


def test_limits_reach_the_server() -> None:
    app = App()
    app.post("/")(lambda request: len(request.body))

    with Server(app, port=0, max_body_bytes=10) as server:
        assert httpx.post(server.url, content=b"x" * 10).text == "10"
        assert httpx.post(server.url, content=b"x" * 11).status_code == 413


# On the main thread, with signals


class Program:
    """A Python program that serves, in a process of its own."""

    def __init__(self, path: Path, source: str) -> None:
        file = path / "program.py"
        file.write_text(textwrap.dedent(source))
        self.process = subprocess.Popen(
            [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.banner = self.process.stderr.readline()
        self.url = next((word for word in self.banner.split() if word.startswith("http://")), "")

    def end(self) -> tuple[int, str, str]:
        """The exit status and what was written."""
        # Not `communicate`: it does not know of what was read and buffered before.
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        return self.process.wait(20), self.process.stdout.read(), self.process.stderr.read()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    started: list[Program] = []

    def start(source: str) -> Program:
        started.append(Program(tmp_path, source))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


SERVING = """
    import asyncio, time
    from httpy import App

    def lifespan(app):
        print("up", flush=True)
        yield
        print("down", flush=True)

    app = App(lifespan=lifespan, title="example")

    @app.get("/")
    def index():
        return "hi"

    @app.get("/wait")
    async def wait():
        print("waiting", flush=True)
        await asyncio.sleep(0.3)
        return "waited"

    @app.get("/forever")
    async def forever():
        print("waiting", flush=True)
        await asyncio.sleep(1000)

    @app.get("/blocked")
    async def blocked():
        print("waiting", flush=True)
        # Not in one piece: a signal that comes just before it would have to wait for the next one, and be one with it.
        while True:
            time.sleep(0.05)

    app.run(port=0, loop={loop!r})
    print("after", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_gracefully(
    loop: str, number: int, program: Callable[[str], Program]
) -> None:
    running = program(SERVING.format(loop=loop))
    assert (
        f"program.py:app on {running.url} (HTTP/1.1+HTTP/2+WebSocket, 1 worker, loop {loop}, Python"
        in running.banner
    )
    answers: list[str] = []
    client = threading.Thread(target=lambda: answers.append(httpx.get(running.url + "/wait").text))
    client.start()
    assert running.process.stdout is not None
    assert [running.process.stdout.readline() for _ in range(2)] == ["up\n", "waiting\n"]

    running.process.send_signal(number)

    status, out, err = running.end()
    client.join()
    assert answers == ["waited"]
    assert (status, out, err) == (0, "down\nafter\n", "")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("path", ["/forever", "/blocked"])
def test_a_second_signal_ends_the_server_at_once(
    loop: str, path: str, program: Callable[[str], Program]
) -> None:
    running = program(SERVING.format(loop=loop))
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert running.process.stdout is not None
        assert [running.process.stdout.readline() for _ in range(2)] == ["up\n", "waiting\n"]
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            running.process.wait(0.3)

        before = time.monotonic()
        running.process.send_signal(signal.SIGTERM)

        status, out, _ = running.end()
    assert status == 0
    assert time.monotonic() - before < 3
    if path == "/forever":
        assert out.startswith("down\n")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_signal_during_startup_ends_the_server(program: Callable[[str], Program]) -> None:
    running = program("""
        import asyncio, sys
        from httpy import App

        async def lifespan(app):
            try:
                print("starting", file=sys.stderr, flush=True)
                await asyncio.sleep(1000)
                yield
            finally:
                print("undone", flush=True)

        App(lifespan=lifespan).run(port=0)
    """)
    assert running.banner == "starting\n"

    running.process.send_signal(signal.SIGTERM)

    assert running.end() == (0, "undone\n", "")


@pytest.mark.slow
def test_a_failure_at_startup_is_the_programs(program: Callable[[str], Program]) -> None:
    running = program("""
        from httpy import App

        app = App()

        @app.on_startup
        def fails():
            raise LookupError("no database")

        app.run(port=0)
    """)

    status, _, err = running.end()

    assert status == 1
    assert running.banner.startswith("Traceback")
    assert err.endswith("LookupError: no database\n")
