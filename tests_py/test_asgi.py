"""ASGI apps, hosted: what they are told, what they may say, and what becomes of it (ASGI 3.0, HTTP 2.5)."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import pathlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from httpy import ASGI, App, ClientDisconnected, Server
from httpy._httpy import json_layout
from support import PATIENCE_S

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OK: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
MORE: Message = {"type": "http.response.body", "body": b"more,", "more_body": True}
END: Message = {"type": "http.response.body", "body": b"end"}


class Seen:
    """What an app under test has seen, for the test's own thread."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.event = threading.Event()

    def put(self, value: Any) -> None:
        self.values.append(value)
        self.event.set()

    def wait(self) -> list[Any]:
        assert self.event.wait(PATIENCE_S)
        return self.values


@pytest.fixture
def seen() -> Seen:
    return Seen()


@contextlib.contextmanager
def serving(app: Any, **config: Any) -> Iterator[httpx.Client]:
    config.setdefault("loop", "auto")
    with (
        Server(
            ASGI(app, lifespan="off") if not isinstance(app, (App, ASGI)) else app, port=0, **config
        ) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as client,
    ):
        yield client


def saying(*messages: Message) -> Callable[..., Awaitable[None]]:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def raw(client: httpx.Client, *lines: bytes) -> bytes:
    """Everything that comes back for bytes that end with a request which closes the connection."""
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=PATIENCE_S) as connection:
        connection.sendall(b"".join(lines))
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
        return found


# The scope


def test_a_scope_has_what_the_specification_says(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put(scope)
        await saying(OK, END)(scope, receive, send)

    with serving(app) as client:
        client.get("/caf%C3%A9/%2F?a=%20b", headers=[("X-Twice", "1"), ("X-Twice", "2")])
        port = client.base_url.port

    (scope,) = seen.values
    assert type(scope) is dict
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert (scope["http_version"], scope["method"], scope["scheme"]) == ("1.1", "GET", "http")
    assert (scope["path"], scope["raw_path"]) == ("/café//", b"/caf%C3%A9/%2F")
    assert (scope["query_string"], scope["root_path"]) == (b"a=%20b", "")
    assert scope["server"] == ("127.0.0.1", port)
    assert scope["client"][0] == "127.0.0.1"
    assert [value for name, value in scope["headers"] if name == b"x-twice"] == [b"1", b"2"]
    assert (b"host", f"127.0.0.1:{port}".encode()) in scope["headers"]
    assert scope["state"] == {}


def test_a_mount_is_in_root_path_and_in_path(seen: Seen) -> None:
    async def inner(scope: Message, receive: Receive, send: Send) -> None:
        seen.put((scope["root_path"], scope["path"], scope["raw_path"]))
        await saying(OK, END)(scope, receive, send)

    app = App()
    app.mount("/sub", inner)
    with serving(app, root_path="/outer") as client:
        for path in ("/sub/x", "/sub", "/sub/"):
            client.get(path)

    assert seen.values == [
        ("/outer/sub", "/outer/sub/x", b"/outer/sub/x"),
        ("/outer/sub", "/outer/sub", b"/outer/sub"),
        ("/outer/sub", "/outer/sub/", b"/outer/sub/"),
    ]


def test_scopes_share_nothing_that_an_app_might_change(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put((scope["asgi"].pop("version"), "x" in scope["state"], "x" in scope["extensions"]))
        scope["state"]["x"] = scope["extensions"]["x"] = scope["x"] = 1
        await saying(OK, END)(scope, receive, send)

    with serving(app) as client:
        client.get("/")
        client.get("/")

    assert seen.values == [("3.0", False, False)] * 2


def test_what_an_app_takes_out_of_its_scope_is_in_the_next_one(seen: Seen) -> None:
    """On the same connection, too, whose scopes have much in common."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put((dict(scope), list(scope["headers"])))
        scope["headers"].clear()
        scope.clear()
        await saying(OK, END)(scope, receive, send)

    with serving(app) as client:
        for _ in range(3):
            client.get("/a?b=c")

    first, *others = seen.values
    assert first[0]["client"] is not None
    assert first[1]
    assert others == [first, first]


def test_each_request_is_told_what_is_its_own(driver: str, seen: Seen) -> None:
    """Whatever the one before it was, on this connection or another one."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        names = ("client", "method", "http_version", "path", "query_string")
        agent = dict(scope["headers"]).get(b"user-agent")
        seen.put((*(scope[name] for name in names), agent))
        await saying(OK, END)(scope, receive, send)

    asked = [
        ("GET", "1.1", "/", "", "one"),
        ("POST", "1.1", "/a", "b=c", "two"),
        ("GET", "1.1", "/", "", "one"),
        ("PUT", "1.0", "/b", "", ""),
    ]
    expected = []
    with serving(app, loop=driver) as client, contextlib.ExitStack() as stack:
        address = (client.base_url.host, client.base_url.port)
        connections = [
            stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S)) for _ in range(3)
        ]
        for method, version, path, query, agent in asked:
            for connection in connections:
                target = f"{path}?{query}" if query else path
                field = f"User-Agent: {agent}\r\n" if agent else ""
                connection.sendall(f"{method} {target} HTTP/{version}\r\nHost: a\r\n{field}\r\n".encode())
                assert connection.recv(65536).startswith(b"HTTP/1.")
                own = (connection.getsockname(), method, version, path, query.encode())
                expected.append((*own, agent.encode() or None))

    assert seen.values == expected


def test_more_clients_than_are_remembered_are_told_apart(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put(scope["client"])
        await saying(OK, END)(scope, receive, send)

    expected = []
    with serving(app) as client:
        address = (client.base_url.host, client.base_url.port)
        for _ in range(300):
            with socket.create_connection(address, timeout=PATIENCE_S) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert connection.recv(65536)
                expected.append(connection.getsockname())

    assert seen.values == expected


def test_fields_that_are_said_again_are_those_that_are_sent(driver: str) -> None:
    """A value of another field, or of other bytes, is another one."""
    said = [
        [(b"content-type", b"text/a"), (b"server", b"text/a")],
        [(b"content-type", b"text/b"), (b"server", b"text/b")],
        [(b"Content-Type", b"text/a"), (b"content-type", b"text/a")],
        [(b"content-type", b"text/\xe4"), (b"x-own", b"text/a")],
    ]
    turn = iter(said * 3)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await saying({**OK, "headers": next(turn)}, END)(scope, receive, send)

    with serving(app, loop=driver) as client:
        for headers in said * 3:
            raw_fields = client.get("/").headers.raw
            found = [
                (name, value)
                for name, value in raw_fields
                if name.lower() not in (b"content-length", b"date")
            ]
            assert found == [(name.lower(), value) for name, value in headers]


def test_awaiting_what_send_gave_is_possible_in_every_way(driver: str, seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await asyncio.create_task(send(OK))  # type: ignore[arg-type]
        await asyncio.wait_for(send(MORE), PATIENCE_S)
        await asyncio.gather(send(MORE), asyncio.sleep(0))
        with pytest.raises(TypeError):
            await send()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            await send(MORE, MORE)  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            await receive(MORE)  # type: ignore[call-arg]
        await send(END)
        seen.put((await asyncio.create_task(receive()))["type"])  # type: ignore[arg-type]

    with serving(app, loop=driver) as client:
        assert client.get("/").text == "more,more,end"

    assert seen.wait() == ["http.disconnect"]


def test_awaiting_what_send_gave_step_by_step_is_possible(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        sent: Any = send(OK)
        with pytest.raises(StopIteration) as ended:
            sent.send(None)
        assert ended.value.value is None
        with pytest.raises(ZeroDivisionError):
            sent.throw(ZeroDivisionError())
        assert list(sent) == []
        assert list(sent.__await__()) == []
        sent.close()
        await send(END)
        seen.put((sent.__name__, sent.__qualname__))

    with serving(app) as client:
        assert client.get("/").text == "end"

    assert seen.wait() == [("send", "send")]


def test_receive_and_send_are_functions_that_take_what_they_say(seen: Seen) -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        with pytest.raises(TypeError, match=r"send\(\) takes exactly one argument"):
            send()
        with pytest.raises(TypeError, match=r"send\(\) takes exactly one argument"):
            send(*[OK, OK])
        with pytest.raises(TypeError, match=r"send\(\) takes exactly one argument"):
            send(OK, more=True)
        with pytest.raises(TypeError, match=r"send\(\) takes exactly one argument"):
            send(**{"message": OK})
        with pytest.raises(TypeError, match=r"receive\(\) takes no arguments"):
            receive(OK)
        for function in (receive, send):
            with pytest.raises(TypeError):
                type(function)()
            with pytest.raises(TypeError):
                object.__new__(type(function))
        await functools.partial(send, OK)()
        await send(*[END], **{})
        seen.put((receive.__name__, send.__qualname__, await receive(**{})))

    with serving(app) as client:
        assert client.get("/").text == "end"

    assert seen.wait() == [("receive", "send", {"type": "http.disconnect"})]


def test_receive_and_send_live_as_long_as_somebody_has_them(seen: Seen) -> None:
    kept: list[Send] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        kept.append(send)
        await saying(OK, END)(scope, receive, send)

    with serving(app) as client:
        for _ in range(3):
            client.get("/")
        assert len({id(send) for send in kept}) == 3
        with pytest.raises(RuntimeError, match="after the response was complete"):
            kept[0](END)


class Name(str):
    """A key that is equal to a name, and no such object."""

    def __hash__(self) -> int:
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)


def copied(name: str) -> str:
    """The same name, as another object."""
    return "".join(list(name))


@pytest.mark.parametrize("key", [copied, Name], ids=["copied", "subclass"])
@pytest.mark.parametrize("in_place", [True, False], ids=["in-place", "asked"])
def test_the_keys_of_a_message_may_be_any_that_are_equal(key: Callable[[str], str], in_place: bool) -> None:
    start = {key("headers"): [(b"x-a", b"1")], key("type"): "http.response.start", key("status"): 201}
    more = {key("other"): 1, key("more_body"): True, key("body"): b"more,", "type": "http.response.body"}
    gone = {"first": 1, "body": b"lost", **END}
    del gone["first"]
    assert not any(name is known for name in start for known in OK)
    json_layout(in_place)
    try:
        with serving(saying(start, more, gone)) as client:
            response = client.get("/")
    finally:
        json_layout(True)

    assert (response.status_code, response.headers["x-a"], response.text) == (201, "1", "more,end")


def test_trailers_are_offered_to_who_asks_for_them(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put(sorted(scope["extensions"]))
        await saying(OK, END)(scope, receive, send)

    with serving(app) as client:
        client.get("/")
        client.get("/", headers={"TE": "trailers"})

    always = ["http.response.pathsend", "http.response.zerocopysend"]
    assert seen.values == [always, sorted([*always, "http.response.trailers"])]


# What is received


async def read(receive: Receive) -> tuple[bytes, int]:
    body, count, more = b"", 0, True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body, count, more = body + message["body"], count + 1, message["more_body"]
    return body, count


def test_content_is_received_whole_or_as_it_comes(driver: str, seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put(await read(receive))
        await saying(OK, END)(scope, receive, send)

    with serving(app, loop=driver) as client:
        client.get("/")
        client.post("/", content=b"x" * 1_000_000)
        client.post("/", content=iter([b"one", b"two"]))

    assert seen.values[0] == (b"", 1)
    assert seen.values[1][0] == b"x" * 1_000_000
    assert seen.values[2][0] == b"onetwo"


def test_behind_the_whole_response_there_is_a_disconnect(driver: str, seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await read(receive)
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        assert not waiting.done()
        await saying(OK, END)(scope, receive, send)
        seen.put(await waiting)
        seen.put(await receive())

    with serving(app, loop=driver) as client:
        assert client.get("/").text == "end"

    assert seen.values == [{"type": "http.disconnect"}] * 2


def test_a_client_that_leaves_is_a_disconnect_and_no_cancellation(driver: str, seen: Seen) -> None:
    arrived = threading.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await read(receive)
        arrived.set()
        seen.put((await receive())["type"])
        with pytest.raises(OSError) as raised:
            await send(OK)
        seen.put(type(raised.value))

    with serving(app, loop=driver) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert arrived.wait(PATIENCE_S)
        seen.wait()

    assert seen.values == ["http.disconnect", ClientDisconnected]


def test_a_client_that_leaves_within_the_response_is_told_to_send(
    driver: str, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(OK)
        try:
            while True:
                await send({**MORE, "body": b"x" * 65536})
        except OSError as error:
            seen.put(type(error))
            raise

    with serving(app, loop=driver) as client, client.stream("GET", "/") as response:
        next(response.iter_raw())
        response.close()
        seen.wait()

    assert seen.values == [ClientDisconnected]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_task_that_listens_has_a_moment_before_sending_is_an_error(driver: str, seen: Seen) -> None:
    """As Django does it, which cancels from there what sends."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await read(receive)
        await send(OK)

        async def stream() -> None:
            try:
                while True:
                    await send({**MORE, "body": b"x" * 65536})
                    await asyncio.sleep(0)
            except BaseException as error:
                seen.put(type(error))
                raise

        tasks = [asyncio.ensure_future(receive()), asyncio.ensure_future(stream())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        tasks[1].cancel()

    with serving(app, loop=driver) as client, client.stream("GET", "/") as response:
        next(response.iter_raw())
        response.close()
        assert seen.wait() == [asyncio.CancelledError]


def test_a_task_that_listens_and_does_not_act_spares_nobody_for_ever(driver: str, seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await read(receive)
        await send(OK)
        listening = asyncio.ensure_future(receive())
        try:
            while True:
                await send({**MORE, "body": b"x" * 65536})
        except OSError:
            seen.put((await listening)["type"])

    with serving(app, loop=driver) as client, client.stream("GET", "/") as response:
        next(response.iter_raw())
        response.close()
        assert seen.wait() == ["http.disconnect"]


def test_asking_for_a_disconnect_again_and_again_is_possible(seen: Seen) -> None:
    """As Starlette's `request.is_disconnected` does: it cancels what it awaits."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await read(receive)
        for _ in range(50):
            task = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await saying(OK, END)(scope, receive, send)

    with serving(app) as client:
        assert client.get("/").text == "end"


def test_content_beyond_the_limit_is_413_before_the_app_is_asked(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put(await read(receive))
        await saying(OK, END)(scope, receive, send)

    with serving(app, max_body_bytes=1000) as client:
        assert client.post("/", content=b"x" * 1000).status_code == 200
        assert client.post("/", content=b"x" * 1001).status_code == 413

    assert len(seen.values) == 1


def test_content_that_grows_beyond_the_limit_is_413_and_a_disconnect(driver: str, seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        with contextlib.suppress(AssertionError):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    seen.put(message)
                    return

    with serving(app, loop=driver, max_body_bytes=1000) as client:
        response = client.post("/", content=iter([b"x" * 600, b"x" * 401]))

    assert response.status_code == 413
    assert seen.wait() == [{"type": "http.disconnect"}]


# What is sent


def test_a_response_of_one_piece_has_a_length(driver: str) -> None:
    with serving(saying(OK, END), loop=driver) as client:
        response = client.get("/")

    assert (response.text, response.headers["content-length"]) == ("end", "3")


def test_a_response_of_several_pieces_is_chunked(driver: str) -> None:
    with serving(saying(OK, MORE, MORE, END), loop=driver) as client:
        response = client.get("/")

    assert response.text == "more,more,end"
    assert response.headers["transfer-encoding"] == "chunked"


def test_an_app_goes_on_behind_its_response(driver: str, seen: Seen) -> None:
    go_on = threading.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await saying(OK, END)(scope, receive, send)
        while not go_on.is_set():
            await asyncio.sleep(0.001)
        seen.put("behind")

    with serving(app, loop=driver) as client:
        assert client.get("/").text == "end"
        assert seen.values == []
        go_on.set()
    # The server has waited for it.
    assert seen.values == ["behind"]


def test_sending_waits_for_a_slow_client(seen: Seen) -> None:
    sent = 0

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(OK)
        for _ in range(1000):
            await send({**MORE, "body": b"x" * 65536})
            sent += 1
            seen.event.set()
        await send(END)

    with serving(app) as client, client.stream("GET", "/") as response:
        seen.wait()
        chunks = response.iter_raw()
        next(chunks)
        before = sent
        for _ in chunks:
            pass

    assert before < 500
    assert sent == 1000


def test_the_context_of_an_app_is_its_own(driver: str, seen: Seen) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put(variable.get())
        variable.set(scope["path"])
        await asyncio.sleep(0)
        assert asyncio.current_task() is not None
        seen.put(variable.get())
        await saying(OK, END)(scope, receive, send)

    with serving(app, loop=driver) as client:
        client.get("/a")
        client.get("/b")

    assert seen.values == ["nobody's", "/a", "nobody's", "/b"]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            [END],
            'sends "http.response.body" before the response was started; expected is http.response.start',
        ),
        ([OK, OK], 'sends "http.response.start" within the response; expected is http.response.body'),
        ([OK, {"type": "http.nonsense"}], 'sends "http.nonsense" within the response'),
        ([{**OK, "status": "200"}], "a status from 200 to 999, found '200'"),
        ([{**OK, "status": 103}], "a status from 200 to 999, found 103"),
        ([{"type": "http.response.start"}], "a status from 200 to 999, found none"),
        ([{**OK, "headers": [("a", b"b")]}], "header names are bytes, found str: 'a'"),
        ([{**OK, "headers": [(b"a", "b")]}], "the value of header a is bytes, found str"),
        ([{**OK, "headers": [(b"a b", b"c")]}], 'header name "a b" is not a token'),
        ([{**OK, "headers": [(b":status", b"200")]}], 'header name ":status" is not a token'),
        ([{**OK, "headers": [(b"a", b"b\r\nc: d")]}], "the value of header a has a control character"),
        ([{**OK, "headers": [(b"content-length", b"-1")]}], "content-length is a number of bytes"),
        ([{**OK, "headers": [b"abc"]}], "headers are pairs of a name and a value"),
        ([OK, {**END, "body": "text"}], "the body of http.response.body is bytes, found str"),
        ([["http.response.start"]], "an ASGI message is a dict, found list"),
        ([{"status": 200}], "an ASGI message has a str as its type"),
        ([OK, {"type": "http.response.pathsend", "path": "relative"}], "an absolute path, found relative"),
    ],
)
def test_what_is_against_the_rules_is_raised_and_answered_with_500(
    messages: list[Any], expected: str, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        try:
            await saying(*messages)(scope, receive, send)
        except Exception as error:
            seen.put(str(error))
            raise

    with serving(app) as client:
        response = client.get("/")

    assert response.status_code == 500
    assert expected in seen.values[0]
    assert "app failed: GET /" in caplog.text


def test_what_is_sent_behind_the_end_is_raised(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await saying(OK, END)(scope, receive, send)
        with pytest.raises(RuntimeError) as raised:
            await send(END)
        seen.put(str(raised.value))

    with serving(app) as client:
        assert client.get("/").text == "end"

    assert seen.values == [
        'the app sends "http.response.body" after the response was complete; expected is nothing'
    ]


@pytest.mark.parametrize(
    ("length", "message"), [(b"2", "1 bytes more than"), (b"4", "1 bytes less than")], ids=["more", "less"]
)
def test_a_declared_length_is_to_be_kept(
    length: bytes, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(saying({**OK, "headers": [(b"content-length", length)]}, END)) as client:
        assert client.get("/").status_code == 500

    assert f"the app sends {message} its content-length says" in caplog.text


def test_an_app_without_a_response_is_500(driver: str) -> None:
    with serving(saying(), loop=driver) as client:
        assert client.get("/").status_code == 500
    with serving(saying(OK), loop=driver) as client:
        assert client.get("/").status_code == 500


def test_an_app_that_fails_within_its_response_cuts_it(driver: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await saying(OK, MORE)(scope, receive, send)
        if scope["path"] == "/later":
            await asyncio.sleep(0)
        raise ValueError("of its own")

    with serving(app, loop=driver) as client:
        for path in ("/", "/later"):
            with pytest.raises(httpx.RemoteProtocolError):
                client.get(path)

    assert caplog.text.count("ValueError: of its own") == 2


def test_an_app_that_ends_within_its_response_cuts_it(driver: str) -> None:
    with serving(saying(OK, MORE), loop=driver) as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/")


@pytest.mark.parametrize("pieces", [[END], [MORE, END]], ids=["one", "two"])
def test_head_gets_no_content_however_much_is_sent(pieces: list[Message]) -> None:
    start = {**OK, "headers": [(b"content-length", str(sum(len(one["body"]) for one in pieces)).encode())]}

    with serving(saying(start, *pieces)) as client:
        found = raw(client, b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert found.endswith(b"\r\n\r\n")
    assert b"content-length: %d" % sum(len(one["body"]) for one in pieces) in found.lower()


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_content_gets_none(status: int) -> None:
    with serving(saying({**OK, "status": status}, MORE, END)) as client:
        response = client.get("/")
        assert (response.status_code, response.content) == (status, b"")
        assert client.get("/").status_code == status


def test_transfer_encoding_is_the_servers() -> None:
    with serving(saying({**OK, "headers": [(b"transfer-encoding", b"gzip, chunked")]}, END)) as client:
        response = client.get("/")

    assert response.text == "end"
    assert "transfer-encoding" not in response.headers


def test_lines_of_a_header_stay_lines() -> None:
    cookies = [(b"set-cookie", b"a=1"), (b"Set-Cookie", b"b=2")]

    with serving(saying({**OK, "headers": cookies}, END)) as client:
        assert client.get("/").headers.get_list("set-cookie") == ["a=1", "b=2"]


# Extensions


def test_a_file_is_sent_by_its_path(tmp_path: pathlib.Path, driver: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 1000)

    with serving(saying(OK, {"type": "http.response.pathsend", "path": str(file)}), loop=driver) as client:
        assert client.get("/").content == file.read_bytes()


def test_a_file_that_is_not_there_is_raised_while_it_can_be_answered(tmp_path: pathlib.Path) -> None:
    with serving(saying(OK, {"type": "http.response.pathsend", "path": str(tmp_path / "none")})) as client:
        assert client.get("/").status_code == 500


def test_parts_of_a_file_are_sent_between_others(tmp_path: pathlib.Path, driver: str) -> None:
    (tmp_path / "file").write_bytes(b"0123456789" * 20_000)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        part = {"type": "http.response.zerocopysend", "more_body": True}
        await send(OK)
        await send(MORE)
        with open(tmp_path / "file", "rb") as file:
            await send({**part, "file": file, "offset": 3, "count": 4})
            await send({**part, "file": file.fileno(), "offset": 199_998})
            file.seek(0)
            await send({**part, "file": file, "count": 5})
        await send(END)

    with serving(app, loop=driver) as client:
        assert client.get("/").content == b"more,3456" + b"89" + b"01234" + b"end"


def test_trailers_follow_the_content() -> None:
    trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"7")]}
    start = {**OK, "trailers": True, "headers": [(b"trailer", b"x-sum")]}
    app = saying(start, MORE, END, {**trailers, "more_trailers": True}, trailers)

    with serving(app) as client:
        asked = raw(client, b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close\r\n\r\n")
        not_asked = raw(client, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

    assert asked.endswith(b"3\r\nend\r\n0\r\nx-sum: 7\r\nx-sum: 7\r\n\r\n")
    assert not_asked.endswith(b"3\r\nend\r\n0\r\n\r\n")


def test_what_http_1_can_not_carry_is_no_error() -> None:
    push = {"type": "http.response.push", "path": "/style.css", "headers": []}
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]}

    with serving(saying(OK, hint, push, END)) as client:
        assert client.get("/").text == "end"


def test_debug_information_is_taken_where_it_is_offered(seen: Seen) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put("http.response.debug" in scope["extensions"])
        await send({"type": "http.response.debug", "info": {"template": "a"}})
        await saying(OK, END)(scope, receive, send)

    for debug in (True, False):
        with serving(ASGI(app, lifespan="off", debug=debug)) as client:
            assert client.get("/").text == "end"

    assert seen.values == [True, False]


# Inside of middleware


def around(app: Any) -> App:
    outer = App()

    @outer.middleware
    async def mark(request: Any, next: Any) -> Any:
        response = await next(request)
        response.headers["x-marked"] = "yes"
        return response

    outer.mount("/in", app)
    return outer


def test_middleware_stands_around_a_hosted_app(driver: str) -> None:
    with serving(around(saying(OK, MORE, END)), loop=driver) as client:
        response = client.get("/in/x")

    assert (response.text, response.headers["x-marked"]) == ("more,end", "yes")


def test_what_a_hosted_app_raises_is_the_outer_apps_to_answer(driver: str) -> None:
    async def fails(scope: Message, receive: Receive, send: Send) -> None:
        raise ValueError("of its own")

    for outer in (App(), around(saying(OK, END))):
        outer.mount("/fails", fails)

        @outer.error(ValueError)
        def answer(request: Any, error: ValueError) -> Any:
            return {"answered": str(error)}, 418

        with serving(outer, loop=driver) as client:
            response = client.get("/fails")
            assert (response.status_code, response.json()) == (418, {"answered": "of its own"})


def test_a_client_that_leaves_is_a_disconnect_behind_middleware_too(driver: str, seen: Seen) -> None:
    arrived = threading.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise ValueError
        await read(receive)
        arrived.set()
        seen.put((await receive())["type"])

    with serving(around(app), loop=driver) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(b"GET /in HTTP/1.1\r\nHost: a\r\n\r\n")
            assert arrived.wait(PATIENCE_S)
        assert seen.wait() == ["http.disconnect"]


# HTTP/2


def test_http_2_is_told_and_carries_what_http_1_does_not(seen: Seen, tmp_path: pathlib.Path) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.put(scope)
        await saying(OK, END)(scope, receive, send)

    with (
        Server(ASGI(app, lifespan="off"), port=0) as server,
        httpx.Client(base_url=server.url, http1=False, http2=True, trust_env=False) as client,
    ):
        assert client.get("/").text == "end"

    (scope,) = seen.values
    assert scope["http_version"] == "2"
    assert scope["headers"][0][0] == b"host"
    assert all(not name.startswith(b":") for name, _ in scope["headers"])
    assert "http.response.early_hint" in scope["extensions"]
