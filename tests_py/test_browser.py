"""A browser (Chromium), as people have it: a page that fetches, posts, listens to events and speaks WebSocket.

By HTTP/1.1 without TLS, and by HTTP/2 with it: browsers speak HTTP/2 in no other way. The page tells what it saw.
`.ci/run` installs Chromium; where it is not installed, this is skipped.
"""

from __future__ import annotations

import asyncio
import queue
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from httpy import App, HTMLResponse, Request, Response, Server, StreamingResponse, WebSocket, _httpy
from support import PATIENCE_S

LARGE = 2_000_000
# A browser starts in a second or two; on a machine that others use, in some more.
STARTED_S = 60.0

PAGE = f"""<!doctype html><meta name=hinted content=HINTED><link rel=stylesheet href=/style.css><script>
const asked = (path, options) => fetch(path, options).then((answer) => answer.text());

const speak = () => new Promise((resolve) => {{
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws", ["other", "chat"]), said = [];
  socket.binaryType = "arraybuffer";
  socket.onopen = () => ["text", new Uint8Array([0, 255]), "x".repeat(100000)].forEach((one) => socket.send(one));
  socket.onmessage = ({{data}}) => {{
    said.push(typeof data != "string" ? [...new Uint8Array(data)] : data.length > 100 ? data.length : data);
    if (said.length == 4) socket.close(4000, "done");
  }};
  socket.onclose = ({{code, reason, wasClean}}) =>
    resolve({{said, code, reason, wasClean, protocol: socket.protocol, extensions: socket.extensions}});
}});

const listen = () => new Promise((resolve) => {{
  const source = new EventSource("/events"), heard = [];
  source.onmessage = async ({{data}}) => {{
    heard.push(data);
    // Only then comes the next.
    await fetch("/heard", {{method: "POST"}});
    if (heard.length == 3) {{ source.close(); resolve(heard); }}
  }};
}});

(async () => {{
  const said = {{}};
  try {{
    const all = Array.from({{length: 20}}, () => fetch("/large").then((answer) => answer.arrayBuffer()));
    said.whole = (await Promise.all(all)).filter((content) => content.byteLength == {LARGE}).length;
    said.posted = await asked("/length", {{method: "POST", body: "x".repeat(100000)}});
    said.seen = JSON.parse(await asked("/request"));
    said.socket = await speak();
    said.events = await listen();
    said.protocol = performance.getEntriesByType("navigation")[0].nextHopProtocol;
    said.styled = getComputedStyle(document.documentElement).color;
    said.hinted = document.querySelector("meta").content;
  }} catch (error) {{
    said.error = String(error);
  }}
  await fetch("/said", {{method: "POST", body: JSON.stringify(said)}});
}})();
</script>"""


def make_app(said: queue.Queue[Any]) -> App:
    app = App()
    heard: asyncio.Queue[None] = asyncio.Queue()

    @app.get("/")
    async def page(request: Request) -> HTMLResponse:
        # Chromium fetches it then, but not always: it does so if it is not busy with itself.
        hinted = await request.early_hints(["</style.css>; rel=preload; as=style"])
        return HTMLResponse(PAGE.replace("HINTED", str(hinted)))

    @app.get("/style.css")
    async def style() -> Response:
        return Response("html { color: rgb(1, 2, 3) }", media_type="text/css")

    @app.get("/large")
    def large() -> bytes:
        return b"x" * LARGE

    @app.post("/length")
    async def length(request: Request) -> str:
        return str(len(request.body))

    @app.get("/request")
    async def seen(request: Request) -> dict[str, Any]:
        return {"version": request.version, "scheme": request.scheme}

    @app.get("/events")
    async def events() -> Response:
        async def tell() -> AsyncIterator[str]:
            for number in range(3):
                yield f"data: event {number}\n\n"
                await asyncio.wait_for(heard.get(), PATIENCE_S)

        return StreamingResponse(tell(), media_type="text/event-stream")

    @app.post("/heard")
    async def hear() -> None:
        heard.put_nowait(None)

    @app.websocket("/ws")
    async def echo(ws: WebSocket, request: Request) -> None:
        await ws.accept(subprotocol="chat")
        await ws.send(f"{request.method} {request.version}")
        async for message in ws:
            await ws.send(message)

    @app.post("/said")
    async def take(request: Request) -> None:
        said.put(request.json)

    return app


@pytest.fixture(params=["http", "https"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """What the page saw."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("chromium is not installed")
    config: dict[str, Any] = {}
    if request.param == "https":
        config["certfile"], config["keyfile"] = map(str, _httpy.dev_certificate(str(tmp_path)))
    said: queue.Queue[Any] = queue.Queue()
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--ignore-certificate-errors",
        f"--user-data-dir={tmp_path}",
    ]
    with Server(make_app(said), port=0, **config) as server:
        quiet = subprocess.DEVNULL
        command = [chromium, *options, "--remote-debugging-port=0", f"{server.url}/"]
        with subprocess.Popen(command, stdout=quiet, stderr=quiet) as browser:
            try:
                yield said.get(timeout=STARTED_S)
            finally:
                browser.terminate()


@pytest.mark.slow
def test_a_page_gets_everything(told: Any, request: pytest.FixtureRequest) -> None:
    is_2 = request.node.callspec.params["told"] == "https"

    assert told == {
        "protocol": "h2" if is_2 else "http/1.1",
        "posted": "100000",
        "whole": 20,
        "seen": {
            "version": "HTTP/2" if is_2 else "HTTP/1.1",
            "scheme": "https" if is_2 else "http",
        },
        "socket": {
            # RFC 8441: on a stream of the connection that the page came by.
            "said": ["CONNECT HTTP/2" if is_2 else "GET HTTP/1.1", "text", [0, 255], 100_000],
            "code": 4000,
            "reason": "done",
            "wasClean": True,
            "protocol": "chat",
            "extensions": told["socket"]["extensions"],
        },
        "events": ["event 0", "event 1", "event 2"],
        "styled": "rgb(1, 2, 3)",
        "hinted": "True" if is_2 else "False",
    }
    assert told["socket"]["extensions"].startswith("permessage-deflate")
