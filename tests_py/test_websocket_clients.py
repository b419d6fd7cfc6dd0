"""WebSockets by other people's clients, by HTTP/2, and inside loops that run already."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import shutil
import struct
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import websockets

from h2_socket import H2Socket
from httpy import App, BlockingWebSocket, Request, Server, WebSocket, WebSocketDisconnect, _httpy
from support import PATIENCE_S


def url(server: Server, path: str) -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


# -- other loops -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_inside_a_loop_that_runs_already(loop: str) -> None:
    """There the runtime has a thread of its own."""
    app = App()
    ended: list[int] = []

    @app.websocket("/ws")
    async def echo(ws: WebSocket) -> None:
        await ws.accept()
        try:
            while True:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(ws.receive(), 0.001)
                await ws.send("go")
                message = await ws.receive()
                await asyncio.sleep(0)
                await ws.send(message)
        except WebSocketDisconnect as error:
            ended.append(error.code)

    @app.websocket("/blocking")
    def blocking(ws: BlockingWebSocket) -> None:
        ws.accept()
        for message in ws:
            ws.send(message)

    async def main() -> None:
        async with Server(app, port=0) as server:
            for _ in range(3):
                async with websockets.connect(url(server, "/ws")) as connection:
                    for message in ["one", b"two", "x" * 100_000]:
                        assert await connection.recv() == "go"
                        await connection.send(message)
                        assert await connection.recv() == message
                    assert await connection.recv() == "go"
            async with websockets.connect(url(server, "/blocking")) as connection:
                await connection.send("one")
                assert await connection.recv() == "one"

    if loop == "uvloop":
        uvloop = pytest.importorskip("uvloop", reason="not on Windows")
        new_loop = uvloop.new_event_loop()
    else:
        new_loop = asyncio.new_event_loop()
    try:
        new_loop.run_until_complete(asyncio.wait_for(main(), PATIENCE_S))
    finally:
        new_loop.close()
    assert ended == [1000] * 3


# -- HTTP/2 ------------------------------------------------------------------------------------------------------------


def test_by_http_2_it_is_the_same_handler() -> None:
    """RFC 8441, with hyper-h2 as the client."""
    app = App()

    @app.websocket("/ws/{name}")
    async def echo(name: str, ws: WebSocket, request: Request) -> None:
        await ws.accept(subprotocol="chat")
        await ws.send_json(
            [name, request.http_version, request.method, ws.url, request.supports("websocket")]
        )
        async for message in ws:
            await ws.send(message)

    with Server(app, port=0) as server, H2Socket(server.port, "/ws/Ada") as peer:
        said = [b"Ada", b"2", b"CONNECT"]
        first = peer.read_frame()
        assert all(part in first[1] for part in said), first
        peer.send_frame(0x81, b"Hello")
        assert peer.read_frame() == (0x81, b"Hello")
        peer.send_frame(0x82, b"x" * 100_000)
        assert peer.read_frame() == (0x82, b"x" * 100_000)
        peer.send_frame(0x88, struct.pack(">H", 1000))
        assert peer.read_frame() == (0x88, struct.pack(">H", 1000))
        assert peer.fields[b":status"] == b"200"
        assert peer.fields[b"sec-websocket-protocol"] == b"chat"


# -- other people's clients --------------------------------------------------------------------------------------------

NODE = """
const WebSocket = require("ws")
const socket = new WebSocket(process.argv[1], ["chat"], {perMessageDeflate: {threshold: 0}})
const said = []
socket.on("open", () => { socket.send("text"); socket.send(Buffer.from([0, 255])); socket.send("x".repeat(100000)) })
socket.on("message", (data, isBinary) => {
  said.push(isBinary ? [...data] : data.length > 10 ? data.length : data.toString())
  if (said.length == 3) socket.close(4000, "done")
})
socket.on("close", (code, reason) =>
  console.log(JSON.stringify([said, code, reason.toString(), socket.protocol, socket.extensions])))
"""

GO = """package main

import (
	"fmt"
	"os"

	"github.com/gorilla/websocket"
)

func main() {
	dialer := websocket.Dialer{EnableCompression: true, Subprotocols: []string{"chat"}}
	connection, response, err := dialer.Dial(os.Args[1], nil)
	if err != nil {
		panic(err)
	}
	connection.WriteMessage(websocket.TextMessage, []byte("text"))
	connection.WriteMessage(websocket.BinaryMessage, []byte{0, 255})
	for range 2 {
		kind, data, err := connection.ReadMessage()
		fmt.Println(kind, len(data), err)
	}
	connection.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(4000, "done"))
	_, _, err = connection.ReadMessage()
	fmt.Println(err, connection.Subprotocol(), response.Header.Get("Sec-WebSocket-Extensions"))
}
"""


class Echoing(NamedTuple):
    """A server that sends back what comes, and what a client needs to trust it."""

    url: str
    environment: dict[str, str]


@pytest.fixture(params=["ws", "wss"])
def echoing(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Echoing]:
    app = App()

    @app.websocket("/ws")
    async def echo(ws: WebSocket) -> None:
        await ws.accept(subprotocol=ws.subprotocols[0])
        async for message in ws:
            await ws.send(message)

    config, environment = {}, dict(os.environ)
    if request.param == "wss":
        config["certfile"], config["keyfile"] = map(str, _httpy.dev_certificate(str(tmp_path)))
        # As Node and Go are told whom else to trust.
        environment.update(NODE_EXTRA_CA_CERTS=config["certfile"], SSL_CERT_FILE=config["certfile"])
    with Server(app, port=0, **config) as server:
        yield Echoing(f"{request.param}://127.0.0.1:{server.port}/ws", environment)


def folder(name: str) -> pathlib.Path:
    """Where packages of others are kept between runs."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "httpy-tests" / name
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def modules_with_ws(node: str) -> str:
    """The folder in which Node finds `ws`: Debian's (node-ws), or one that npm fills."""
    debian = "/usr/share/nodejs"
    found = subprocess.run(
        [node, "-e", 'require("ws")'], env={**os.environ, "NODE_PATH": debian}, capture_output=True
    )
    if found.returncode == 0:
        return debian
    cache = folder("node")
    if not (cache / "node_modules" / "ws").exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("neither ws nor npm is installed (apt-get install node-ws)")
        installed = subprocess.run([npm, "install", "ws@8"], cwd=cache, capture_output=True, text=True)
        if installed.returncode:
            pytest.skip(f"npm can't install ws: {installed.stderr[-200:]}")
    return str(cache / "node_modules")


@pytest.mark.slow
def test_ws_of_node(echoing: Echoing) -> None:
    node = shutil.which("node") or shutil.which("nodejs")
    if node is None:
        pytest.skip("node is not installed")
    environment = {**echoing.environment, "NODE_PATH": modules_with_ws(node)}

    said = subprocess.run(
        [node, "-e", NODE, echoing.url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    messages, code, reason, protocol, extensions = json.loads(said.stdout)
    assert messages == ["text", [0, 255], 100_000]
    assert (code, reason, protocol, extensions) == (4000, "done", "chat", "permessage-deflate")


@pytest.mark.slow
def test_gorilla_of_go(echoing: Echoing) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed")
    cache = folder("go")
    (cache / "main.go").write_text(GO, encoding="utf-8")
    if not (cache / "go.sum").exists():
        for command in (["mod", "init", "client"], ["get", "github.com/gorilla/websocket@v1.5.3"]):
            done = subprocess.run([go, *command], cwd=cache, capture_output=True, text=True)
            if done.returncode and command[0] == "get":
                pytest.skip(f"go can't get gorilla/websocket: {done.stderr[-200:]}")

    said = subprocess.run(
        [go, "run", ".", echoing.url],
        cwd=cache,
        env=echoing.environment,
        capture_output=True,
        text=True,
        # The first time, go compiles its own library.
        timeout=300,
        check=True,
    )

    lines = said.stdout.splitlines()
    assert lines[:2] == ["1 4 <nil>", "2 2 <nil>"]
    assert lines[2].startswith(
        "websocket: close 4000: done chat permessage-deflate; server_no_context_takeover"
    )
