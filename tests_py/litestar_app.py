"""The Litestar app of `test_frameworks.py`."""

from collections.abc import AsyncIterator
from typing import Any

from litestar import Litestar, Request, WebSocket, get, post, websocket, websocket_listener
from litestar.response import Stream

events: list[str] = []


@get("/")
async def index() -> dict[str, str]:
    """Answers with JSON."""
    return {"hello": "world"}


@post("/echo")
async def echo(request: Request) -> Any:
    """Takes JSON."""
    return await request.json()


@get("/stream")
async def stream() -> Stream:
    """Sends in pieces."""

    async def chunks() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    return Stream(chunks())


@websocket_listener("/listener")
async def listener(data: dict[str, int]) -> dict[str, int]:
    """Answers each message."""
    return {key: value + 1 for key, value in data.items()}


@websocket("/ws")
async def repeat(socket: WebSocket) -> None:
    """Repeats what it is told."""
    await socket.accept(subprotocols="chat")
    async for message in socket.iter_data():
        await socket.send_text(message)


app = Litestar(
    route_handlers=[index, echo, stream, listener, repeat],
    on_startup=[lambda: events.append("startup")],
    on_shutdown=[lambda: events.append("shutdown")],
)
