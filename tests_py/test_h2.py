"""HTTP/2 through a real server: apps, and other people's clients. The protocol itself is tested in Rust, `tests/h2/`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import httpx
import pytest

from httpy import App, Request, Response, Server, StreamingResponse
from support import PATIENCE_S

app = App()


@app.get("/", inline=True)
def index() -> str:
    return "Hello"


@app.get("/async")
async def later() -> str:
    await asyncio.sleep(0)
    return "later"


@app.get("/pooled")
def pooled() -> str:
    return "pooled"


@app.get("/request")
async def seen(request: Request) -> dict[str, Any]:
    return {
        "version": request.version,
        "http_version": request.http_version,
        "host": request.headers["host"],
        "url": str(request.url),
        "cookies": dict(request.cookies),
        "keep_alive": request.is_keep_alive,
        "multiplexing": request.supports("multiplexing"),
    }


@app.post("/length")
async def length(request: Request) -> str:
    return str(len(request.body))


@app.post("/stream", stream=True)
async def arriving(request: Request) -> str:
    return str(sum([len(chunk) async for chunk in request.stream()]))


@app.get("/large")
def large() -> bytes:
    return b"x" * 5_000_000


@app.get("/generated")
async def generated() -> Response:
    async def numbers() -> AsyncIterator[str]:
        for number in range(3):
            await asyncio.sleep(0)
            yield f"{number}\n"

    return StreamingResponse(numbers())


@app.get("/page")
async def page(request: Request) -> dict[str, bool]:
    hinted = await request.early_hints(["</app.css>; rel=preload; as=style", "</app.js>; rel=preload"])
    return {"hinted": hinted, "pushed": request.push("/request?a=b"), "own": request.push("/", {"x": "y"})}


@app.get("/hinting")
def hinting(request: Request) -> str:
    return "yes" if request.early_hints(["</a>"]) else "no"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(app, port=0) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, http1=False, http2=True, timeout=PATIENCE_S, trust_env=False) as client:
        yield client


class Peer:
    """A client that sees every event."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.send()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self) -> None:
        self.socket.sendall(self.connection.data_to_send())

    def get(self, path: str, *fields: tuple[str, str]) -> int:
        """Sends a GET request and returns its stream's number."""
        stream: int = self.connection.get_next_available_stream_id()
        target = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
        self.connection.send_headers(stream, [*target, *fields], end_stream=True)
        self.send()
        return stream

    def events(self, until: int) -> list[Any]:
        """All events until so many streams have ended."""
        events: list[Any] = []
        while sum(isinstance(event, h2.events.StreamEnded) for event in events) < until:
            data = self.socket.recv(65536)
            assert data, events
            news = self.connection.receive_data(data)
            for event in news:
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            events += news
            self.send()
        return events


def contents(events: list[Any]) -> dict[int, bytes]:
    """The content of each stream."""
    found: dict[int, bytes] = {}
    for event in events:
        if isinstance(event, h2.events.DataReceived):
            found[event.stream_id] = found.get(event.stream_id, b"") + event.data
    return found


@pytest.mark.parametrize(
    ("path", "text"),
    [("/", "Hello"), ("/async", "later"), ("/pooled", "pooled"), ("/generated", "0\n1\n2\n")],
)
def test_handlers_of_every_kind_answer(client: httpx.Client, path: str, text: str) -> None:
    response = client.get(path)

    assert (response.http_version, response.status_code, response.text) == ("HTTP/2", 200, text)


def test_a_request_says_that_it_came_by_http_2(client: httpx.Client, server: Server) -> None:
    client.cookies.update({"a": "b", "c": "d"})

    assert client.get("/request?x=y").json() == {
        "version": "HTTP/2",
        "http_version": "2",
        "host": f"127.0.0.1:{server.port}",
        "url": f"{server.url}/request?x=y",
        "cookies": {"a": "b", "c": "d"},
        "keep_alive": True,
        "multiplexing": True,
    }


def test_cookies_that_came_apart_are_put_together(server: Server) -> None:
    with Peer(server.port) as peer:
        stream = peer.get("/request", ("cookie", "a=b"), ("cookie", "c=d"))

        assert json.loads(contents(peer.events(until=1))[stream])["cookies"] == {"a": "b", "c": "d"}


@pytest.mark.parametrize("path", ["/length", "/stream"])
@pytest.mark.parametrize("size", [0, 1, 100_000, 5_000_000])
def test_content_arrives_whole_or_as_it_comes(client: httpx.Client, path: str, size: int) -> None:
    assert client.post(path, content=b"x" * size).text == str(size)


def test_large_content_is_sent_whole(client: httpx.Client) -> None:
    assert client.get("/large").content == b"x" * 5_000_000


def test_content_past_the_limit_is_413_and_the_connection_goes_on() -> None:
    small = App()
    small.post("/")(lambda: "fine")
    with (
        Server(small, port=0, max_body_bytes=1000) as server,
        httpx.Client(base_url=server.url, http1=False, http2=True, timeout=PATIENCE_S) as client,
    ):
        statuses = [client.post("/", content=b"x" * size).status_code for size in (1000, 1001, 2_000_000, 1000)]

    assert statuses == [200, 413, 413, 200]


def test_many_requests_on_one_connection_are_answered_together(server: Server) -> None:
    async def ask() -> list[str]:
        limits = httpx.Limits(max_connections=1)
        options: dict[str, Any] = {"http1": False, "http2": True, "limits": limits, "timeout": PATIENCE_S}
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, **options) as client:
            paths = ["/", "/async", "/pooled", "/generated"] * 50
            return [response.text for response in await asyncio.gather(*map(client.get, paths))]

    assert asyncio.run(ask()) == ["Hello", "later", "pooled", "0\n1\n2\n"] * 50


def test_a_handler_is_cancelled_when_its_stream_is_reset() -> None:
    app, done = App(), []

    @app.get("/never")
    async def never() -> None:
        try:
            done.append("began")
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            done.append("cancelled")
            raise

    app.get("/done")(lambda: done)
    with Server(app, port=0) as server, Peer(server.port) as peer:
        stream = peer.get("/never")
        asked = 0
        while "began" not in done:
            asked = peer.get("/done")
            peer.events(until=1)
        peer.connection.reset_stream(stream)
        while "cancelled" not in done:
            asked = peer.get("/done")
            peer.events(until=1)

    assert asked and done == ["began", "cancelled"]


def test_pushes_and_hints_go_out_and_pushes_are_answered_by_the_app(server: Server) -> None:
    with Peer(server.port) as peer:
        stream = peer.get("/page", ("cookie", "a=b"), ("accept-language", "de"))
        events = peer.events(until=3)

    hints = [event.headers for event in events if isinstance(event, h2.events.InformationalResponseReceived)]
    assert hints == [
        [(":status", "103"), ("link", "</app.css>; rel=preload; as=style"), ("link", "</app.js>; rel=preload")]
    ]
    pushes = [event for event in events if isinstance(event, h2.events.PushedStreamReceived)]
    target = [(":method", "GET"), (":scheme", "http"), (":authority", "a")]
    assert [(push.parent_stream_id, push.headers) for push in pushes] == [
        (stream, [*target, (":path", "/request?a=b"), ("accept-language", "de"), ("cookie", "a=b")]),
        (stream, [*target, (":path", "/"), ("x", "y")]),
    ]
    found = contents(events)
    assert json.loads(found[stream]) == {"hinted": True, "pushed": True, "own": True}
    first = json.loads(found[pushes[0].pushed_stream_id])
    assert (first["url"], first["cookies"]) == ("http://a/request?a=b", {"a": "b"})
    assert found[pushes[1].pushed_stream_id] == b"Hello"


def test_where_there_is_nothing_of_that_kind_it_says_no(server: Server, client: httpx.Client) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as old:
        assert old.get("/page").json() == {"hinted": False, "pushed": False, "own": False}
        assert old.get("/hinting").text == "no"
    # httpx takes no pushes.
    assert client.get("/page").json() == {"hinted": True, "pushed": False, "own": False}
    assert client.get("/hinting").text == "yes"


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda request: request.push("a.css"), ValueError, "push takes a path that starts with /"),
        (lambda request: request.push("http://b/"), ValueError, "push takes a path that starts with /"),
        (lambda request: request.push("/a b"), ValueError, "push takes a path that starts with /"),
        (lambda request: request.push("/", {"a b": "c"}), ValueError, "a b"),
        (lambda request: request.early_hints("</a>"), TypeError, "a list of links"),
        (lambda request: request.early_hints(["a\nb"]), ValueError, "control character"),
    ],
)
def test_mistakes_are_said(call: Any, error: type[Exception], says: str) -> None:
    app, raised = App(), []

    @app.get("/", inline=True)
    def index(request: Request) -> None:
        with pytest.raises(error, match=says) as caught:
            call(request)
        raised.append(caught.value)

    with Server(app, port=0) as server:
        assert httpx.get(server.url, trust_env=False).status_code == 204
    assert len(raised) == 1


def test_stopping_lets_streams_finish() -> None:
    app = App()
    began = asyncio.Event()

    @app.get("/")
    async def slow() -> str:
        began.set()
        await asyncio.sleep(0.2)
        return "done"

    async def stop_while_asked() -> str:
        server = Server(app, port=0)
        serving = asyncio.ensure_future(server.serve())
        while not server.port:
            await asyncio.sleep(0.01)
        options: dict[str, Any] = {"http1": False, "http2": True, "timeout": PATIENCE_S, "trust_env": False}
        async with httpx.AsyncClient(base_url=server.url, **options) as client:
            asking = asyncio.ensure_future(client.get("/"))
            await began.wait()
            server.stop()
            text = (await asking).text
        await serving
        return text

    assert asyncio.run(stop_while_asked()) == "done"


def program(name: str) -> str:
    """A program's path; the test is skipped where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a program prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_curl_talks_to_it(server: Server, tmp_path: Path) -> None:
    curl = program("curl")
    if "HTTP2" not in run(curl, "--version"):
        pytest.skip("this curl has no HTTP/2")
    content = tmp_path / "content"
    content.write_bytes(b"x" * 3_000_000)
    command = [curl, "-sS", "--http2-prior-knowledge", "-w", " %{http_version} %{http_code}"]

    assert run(*command, f"{server.url}/") == "Hello 2 200"
    assert run(*command, "-I", "-o", "/dev/null", f"{server.url}/") == " 2 200"
    assert run(*command, "--data-binary", f"@{content}", f"{server.url}/length") == "3000000 2 200"
    assert run(*command, "--data-binary", f"@{content}", "-o", "/dev/null", f"{server.url}/") == " 2 405"


def test_nghttp_gets_what_is_pushed(server: Server) -> None:
    shown = run(program("nghttp"), "-nv", f"{server.url}/page")

    assert "recv PUSH_PROMISE frame" in shown
    assert ":path: /request?a=b" in shown
    assert shown.count(":status: 200") == 3
    assert ":status: 103" in shown


def test_h2load_gets_every_answer(server: Server) -> None:
    shown = run(program("h2load"), "-n1000", "-c5", "-m50", f"{server.url}/", f"{server.url}/async")

    assert "1000 succeeded, 0 failed, 0 errored, 0 timeout" in shown


NODE = """
const http2 = require("node:http2");
const client = http2.connect(process.argv[2]);
const ask = (fields, content) => new Promise((resolve, reject) => {
  const stream = client.request(fields);
  let status, text = "";
  stream.on("response", (head) => { status = head[":status"]; });
  stream.on("data", (chunk) => { text += chunk; });
  stream.on("end", () => resolve([status, text.length > 20 ? text.length : text]));
  stream.on("error", reject);
  stream.end(content);
});
Promise.all([
  ask({ ":path": "/" }),
  ask({ ":path": "/large" }),
  ask({ ":path": "/length", ":method": "POST" }, "x".repeat(1000000)),
]).then((answers) => { console.log(JSON.stringify(answers)); client.close(); });
"""


def test_node_talks_to_it(server: Server, tmp_path: Path) -> None:
    script = tmp_path / "client.js"
    script.write_text(NODE)

    answers = json.loads(run(program("node"), script, server.url))

    assert answers == [[200, "Hello"], [200, 5_000_000], [200, "1000000"]]


GO = """
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: transport}
	get, err := client.Get(os.Args[1] + "/large")
	if err != nil {
		panic(err)
	}
	content, err := io.ReadAll(get.Body)
	fmt.Println(get.Proto, get.StatusCode, len(content), err)
	post, err := client.Post(os.Args[1]+"/length", "text/plain", bytes.NewReader(make([]byte, 1000000)))
	if err != nil {
		panic(err)
	}
	content, err = io.ReadAll(post.Body)
	fmt.Println(post.Proto, post.StatusCode, string(content), err)
}
"""


@pytest.mark.slow
def test_go_talks_to_it(server: Server, tmp_path: Path) -> None:
    go = program("go")
    major, minor = run(go, "env", "GOVERSION").removeprefix("go").split(".")[:2]
    if (int(major), int(minor)) < (1, 24):
        pytest.skip("this go has no HTTP/2 without TLS")
    source = tmp_path / "main.go"
    source.write_text(GO)

    shown = run(go, "run", source, server.url)

    assert shown.splitlines() == ["HTTP/2.0 200 5000000 <nil>", "HTTP/2.0 200 1000000 <nil>"]


def test_a_client_that_floods_is_sent_away_and_others_are_served(server: Server, client: httpx.Client) -> None:
    with Peer(server.port) as peer, contextlib.suppress(ConnectionError):
        for _ in range(2000):
            peer.connection.ping(b"12345678")
            peer.send()
        ended = None
        while ended is None:
            news = peer.connection.receive_data(peer.socket.recv(65536))
            ended = next((event for event in news if isinstance(event, h2.events.ConnectionTerminated)), None)
        assert ended.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM

    assert client.get("/").text == "Hello"
