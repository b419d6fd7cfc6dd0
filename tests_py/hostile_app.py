"""The server that `test_hostile.py` and `scripts/hostile.py` attack: `python hostile_app.py name=value ...`."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator

from httpy import App, Request, StreamingResponse, _httpy

app = App()
go = threading.Event()
under_way = 0


@app.get("/", inline=True)
def index() -> str:
    return "Hello"


@app.post("/")
def length(request: Request) -> str:
    return str(len(request.body))


@app.get("/large", inline=True)
def large() -> bytes:
    return LARGE


@app.get("/endless")
def endless() -> StreamingResponse:
    def chunks() -> Iterator[bytes]:
        while True:
            yield CHUNK

    return StreamingResponse(chunks())


@app.get("/waits")
async def waits() -> str:
    global under_way
    under_way += 1
    try:
        await asyncio.sleep(60)
    finally:
        under_way -= 1
    return ""


@app.get("/under-way", inline=True)
def how_many() -> str:
    return str(under_way)


@app.post("/blocks")
def blocks() -> str:
    go.wait()
    return ""


@app.get("/go", inline=True)
def unblock() -> str:
    go.set()
    return ""


LARGE = b"x" * (256 * 1024)
CHUNK = b"x" * 10_000

if __name__ == "__main__":
    known = _httpy.defaults()
    given = dict(one.split("=") for one in sys.argv[1:])
    app.run(port=0, **{name: type(known[name])(float(value)) for name, value in given.items()})
