"""The app that `scripts/soak.py` asks for a long time. Every answer says to which request it belongs."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from httpy import App, Request, StreamingResponse

app = App(title="soak")
calls: Counter[str] = Counter()
"""How often a handler was called, by the kind of request."""

under_way = 0
"""How many handlers wait for nothing, until they are cancelled."""


@app.get("/inline/{id}", inline=True)
def inline(id: str) -> str:
    calls["inline"] += 1
    return f"inline {id}"


@app.get("/pooled/{id}")
def pooled(id: str) -> str:
    calls["pooled"] += 1
    time.sleep(0.001)
    return f"pooled {id}"


@app.get("/async/{id}")
async def suspends(id: str, seconds: float = 0) -> str:
    calls["async"] += 1
    await asyncio.sleep(seconds)
    return f"async {id}"


@app.post("/echo/{id}")
async def echo(id: str, request: Request) -> dict[str, Any]:
    calls["echo"] += 1
    return {"id": id, "content": request.json}


@app.post("/digest/{id}", stream=True)
async def digest(id: str, request: Request) -> str:
    calls["digest"] += 1
    found = hashlib.sha256()
    async for chunk in request.stream():
        found.update(chunk)
    return f"digest {id} {found.hexdigest()}"


@app.get("/stream/{id}")
async def stream(id: str, chunks: int) -> StreamingResponse:
    calls["stream"] += 1

    async def parts() -> AsyncIterator[str]:
        for number in range(chunks):
            await asyncio.sleep(0)
            yield f"{id} {number}\n"

    return StreamingResponse(parts())


@app.get("/large/{id}", inline=True)
def large(id: str) -> str:
    calls["large"] += 1
    return f"{id} " * 40_000


@app.get("/fails/{id}")
async def fails(id: str) -> None:
    calls["fails"] += 1
    raise LookupError(id)


@app.get("/late/{id}", timeout=0.05)
async def late(id: str) -> None:
    global under_way
    calls["late"] += 1
    under_way += 1
    try:
        await asyncio.sleep(60)
    finally:
        under_way -= 1


@app.get("/left/{id}")
async def left(id: str) -> None:
    """Its client goes away."""
    global under_way
    under_way += 1
    try:
        await asyncio.sleep(60)
    finally:
        under_way -= 1


@app.get("/state", inline=True)
def state() -> dict[str, Any]:
    return {"calls": calls, "under_way": under_way}
