"""The app that `test_guest.py` has other servers serve."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

from httpy import App, HTTPError, Request, Response

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
