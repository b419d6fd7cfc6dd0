"""The app that `test_guest.py` has other servers serve."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from httpy import App, BlockingWebSocket, HTTPError, Request, Response, WebSocket, WebSocketDisconnect

EVENTS = os.environ.get("GUEST_EVENTS", "")


def tell(event: str) -> None:
    """Writes down what happens where nobody can ask."""
    if EVENTS:
        with open(EVENTS, "a", encoding="utf-8") as file:
            file.write(event + "\n")


@contextlib.asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[dict[str, str]]:
    """Tells of startup and shutdown."""
    tell("startup")
    app.state.gate = asyncio.Event()
    yield {"made": "at startup"}
    tell("shutdown")


app = App(lifespan=lifespan)
wsgi = app.wsgi


@app.middleware
async def mark(request: Request, next: Any) -> Response:
    """Marks every response."""
    response: Response = await next(request)
    response.headers["x-marked"] = request.method
    return response


@app.error(ZeroDivisionError)
def zero(request: Request, error: ZeroDivisionError) -> Any:
    """Answers one kind of crash."""
    return {"error": "zero"}, 418


@app.get("/")
def index() -> str:
    """Runs on the pool."""
    return "index"


@app.get("/async/{id:int}")
async def asynchronous(id: int, request: Request, q: str = "none") -> Any:
    """Suspends."""
    await asyncio.sleep(0.001)
    return {"id": id, "q": q, "state": request.state.made}


@app.post("/echo")
async def echo(request: Request) -> bytes:
    """Has its content."""
    return request.body


@app.post("/count", stream=True)
async def count(request: Request) -> str:
    """Reads its content as it comes."""
    return str(sum([len(chunk) async for chunk in request.stream()]))


@app.post("/unread", stream=True)
async def unread() -> str:
    """Leaves its content."""
    return "unread"


@app.get("/stream")
async def stream() -> Any:
    """Sends in pieces."""

    async def chunks() -> AsyncIterator[str]:
        for n in range(3):
            yield f"{n},"
            await asyncio.sleep(0)

    return chunks()


@app.get("/first")
async def first() -> Any:
    """Sends one piece, and no other for as long as anybody waits."""

    async def chunks() -> AsyncIterator[str]:
        yield "first"
        await asyncio.sleep(60)

    return chunks()


@app.get("/gated")
async def gated() -> Any:
    """Sends a piece, and another one when the gate is opened."""

    async def chunks() -> AsyncIterator[str]:
        yield "first,"
        await app.state.gate.wait()
        yield "second"

    return chunks()


@app.post("/open")
async def open_gate() -> None:
    """Opens the gate."""
    app.state.gate.set()


@app.get("/large")
def large() -> Any:
    """Sends more than anybody's buffer holds."""

    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 65536

    return chunks()


@app.get("/cut")
def cut() -> Any:
    """Fails within its response."""

    def chunks() -> Iterator[bytes]:
        yield b"first"
        raise ValueError("of its own")

    return chunks()


@app.get("/fails")
def fails() -> None:
    """Crashes."""
    raise ValueError("of its own")


@app.get("/zero")
def divide() -> float:
    """Crashes, and is answered."""
    return 1 / 0


@app.get("/teapot")
def teapot() -> None:
    """Ends with an error that says its answer."""
    raise HTTPError(409, "busy", {"x-why": "busy"})


@app.get("/cookies")
def cookies() -> Response:
    """Has two lines of one field."""
    response = Response(b"", 204)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


@app.get("/told")
def told(request: Request) -> Any:
    """Says what it was told."""
    return {
        "path": request.path,
        "root_path": request.root_path,
        "query": request.query_string.decode(),
        "client": request.client is not None,
        "header": request.headers.get("x-header"),
        "supports": [name for name in ("push", "early_hints", "trailers") if request.supports(name)],
    }


@app.get("/waits")
async def waits() -> None:
    """Lasts as long as its client."""
    tell("waits")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        tell("cancelled")
        raise


inner = App()


@inner.get("/{name}")
def named(name: str, request: Request) -> str:
    """Is in a mount."""
    return f"{name} at {request.root_path}"


app.mount("/inner", inner)


# WebSockets


@app.websocket("/ws/echo/{name}")
async def echo_messages(name: str, websocket: WebSocket, request: Request, q: str = "none") -> None:
    """Says what it was told, and then what its client says."""
    offered = websocket.subprotocols
    await websocket.accept(subprotocol=offered[-1] if offered else None, headers={"x-a": "1"})
    await websocket.ping()
    await websocket.send_json(
        {
            "name": name,
            "q": q,
            "path": websocket.path,
            "state": websocket.state.made,
            "supports": request.supports("websocket"),
            "client": websocket.client is not None,
            "header": websocket.headers.get("x-header"),
            "offered": offered,
            "scheme": websocket.url.partition(":")[0],
        }
    )
    try:
        while True:
            await websocket.send(await websocket.receive())
    except WebSocketDisconnect as end:
        tell(f"echo-{end.code}-{end.reason}")
        raise


@app.websocket("/ws/blocking")
def echo_on_the_pool(websocket: BlockingWebSocket) -> None:
    """Runs on the pool."""
    websocket.accept()
    for message in websocket:
        websocket.send(message)
    tell(f"blocking-{websocket.close_code}")


@app.websocket("/ws/room")
async def room(websocket: WebSocket) -> None:
    """Tells everybody in a room how many there are, and then what its client says."""
    await websocket.accept()
    websocket.join("room")
    await app.broadcast("room", f"{app.presence('room')} are here")
    async for message in websocket:
        await app.broadcast("room", message, exclude=websocket)


@app.websocket("/ws/close")
async def close(websocket: WebSocket) -> None:
    """Says something, and closes."""
    await websocket.accept()
    await websocket.send("last")
    await websocket.close(4001, "enough")
    try:
        await websocket.receive()
    except WebSocketDisconnect as end:
        tell(f"close-{end.code}-{end.reason}")


@app.websocket("/ws/returns")
async def returns(websocket: WebSocket) -> None:
    """Ends while it is open."""
    await websocket.accept()
    await websocket.send("last")


@app.websocket("/ws/breaks")
async def breaks(websocket: WebSocket) -> None:
    """Crashes while it is open."""
    await websocket.accept()
    raise ValueError("of its own")


@app.websocket("/ws/forbidden")
async def forbidden() -> None:
    """Says nothing to the handshake."""


@app.websocket("/ws/rejected")
async def rejected(websocket: WebSocket) -> None:
    """Answers the handshake with a response."""
    await websocket.reject("who are you?", 401, headers={"www-authenticate": "Basic"})


@app.websocket("/ws/busy")
async def busy() -> None:
    """Answers the handshake with an error."""
    raise HTTPError(409, "busy")


@app.websocket("/ws/crashes")
async def crashes() -> None:
    """Crashes before it has answered."""
    raise ValueError("of its own")


@app.websocket("/ws/waits")
async def waits_for_long() -> None:
    """Does not answer for as long as its client is there."""
    tell("ws-waits")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        tell("ws-cancelled")
        raise


@app.websocket("/ws/flood")
async def flood(websocket: WebSocket) -> None:
    """Sends more than anybody's buffer holds, and tells how much of that was sent."""
    await websocket.accept()
    sent = 0
    try:
        for _ in range(1000):
            await websocket.send(bytes(65536))
            sent += 1
    finally:
        tell(f"flood-{'all' if sent == 1000 else 'some'}")


async def foreign(scope: Any, receive: Any, send: Any) -> None:
    """Is an ASGI app inside of this one."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": f"{scope['root_path']} {scope['path']}"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    tell(f"foreign-{message['code']}")


app.mount("/foreign", foreign)
