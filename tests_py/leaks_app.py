"""The application of test_leaks.py: a handler of every kind, and `/usage`, which says what the process holds.

python leaks_app.py LOOP
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from httpy import (
    App,
    BlockingWebSocket,
    HTTPError,
    JSONResponse,
    PlainTextResponse,
    Request,
    Response,
    Router,
    StreamingResponse,
    WebSocket,
)

logging.getLogger("httpy").setLevel(logging.CRITICAL + 1)
logging.getLogger("httpy").addHandler(logging.NullHandler())

app = App(title="leaks")


@app.on_startup
async def startup():
    app.state.loop = asyncio.get_running_loop()
    app.state.tasks = len(asyncio.all_tasks())


plain = Router()


@plain.get("/inline", inline=True)
def inline():
    return "inline"


@plain.get("/async")
async def at_once():
    return "async"


@plain.get("/suspending")
async def suspending():
    await asyncio.sleep(0)
    return "suspending"


@plain.get("/pooled")
def pooled():
    return "pooled"


@plain.get("/json")
async def json():
    return {"list": [1, 2.5, None, True, "text"], "dict": {"key": "value"}}


@plain.post("/echo")
async def echo(request: Request):
    return request.json


@dataclass
class Person:
    """A typed body."""

    name: str
    tags: list[str]
    age: int = 0


@plain.post("/typed")
async def typed(person: Person):
    return person


@plain.get("/everything/{id:int}/{rest:path}")
async def everything(request: Request, id: int, rest: str, q: str, many: list[int], other: bool = False):
    """Asks for whatever a request has."""
    request.state.anything = [id]
    names = [
        *("method", "path", "raw_path", "query_string", "scheme", "http_version", "version", "url", "client"),
        *(
            "client_address",
            "server",
            "body",
            "text",
            "app",
            "id",
            "is_keep_alive",
            "is_disconnected",
            "is_stopping",
            "route",
        ),
    ]
    return {
        "id": len(request.id),
        "said": [str(getattr(request, name))[:0] for name in names],
        "fields": dict(request.headers),
        "query": [dict(request.query), request.query.getlist("many"), request.get_query("q")],
        "cookies": request.cookies,
        "params": request.path_params,
        "given": [rest, q, many, other, request.get_header("host"), request.supports("trailers")],
    }


@plain.get("/response")
async def response():
    made = JSONResponse({"a": 1}, 201, {"x-a": "1"})
    made.headers.add("x-a", "2")
    made.headers["x-b"] = "3"
    made.set_cookie("name", "value", max_age=10)
    return made


@plain.get("/tuple")
async def as_tuple():
    return b"bytes", 202, {"x-a": "1"}


@plain.get("/convert/{id:int}")
async def convert(id: int, n: int):
    return "not reached"


@plain.get("/refused")
async def refused():
    raise HTTPError(403, {"why": ["because"]}, {"x-a": "1"})


@plain.get("/crash")
async def crash():
    return 1 / 0


@plain.get("/crash-pooled")
def crash_pooled():
    return 1 / 0


@plain.get("/cycles")
async def cycles(request: Request):
    """Is what keeps itself alive if the native classes don't show what they hold."""
    request.state.request = request
    made = Response(b"cycle")
    made.background = None
    made_by = {"request": request, "response": made}
    made_by["itself"] = made_by
    request.state.made_by = made_by
    return made


@plain.post("/cycles")
async def json_cycles(request: Request):
    request.json["request"] = request
    return "cycle"


# Streams, and what comes after a response.


def three() -> Iterator[bytes]:
    yield from (b"one", b"two", b"three")


async def three_async() -> AsyncIterator[bytes]:
    for chunk in three():
        yield chunk


@plain.get("/stream")
def stream():
    return three()


@plain.get("/stream-async")
async def stream_async():
    return three_async()


@plain.get("/stream-suspending")
async def stream_suspending():
    async def chunks():
        async for chunk in three_async():
            await asyncio.sleep(0)
            yield chunk

    return StreamingResponse(chunks(), headers={"x-a": "1"})


@plain.post("/arriving", stream=True)
async def arriving(request: Request):
    return b"".join([chunk async for chunk in request.stream()])


@plain.post("/arriving-pooled", stream=True)
def arriving_pooled(request: Request):
    return b"".join(request.stream())


@plain.post("/arriving-unread", stream=True)
async def arriving_unread(request: Request):
    return "unread"


@plain.post("/both-ways", stream=True)
async def both_ways(request: Request):
    return Response(request.stream(), headers={"content-length": request.headers["content-length"]})


@plain.get("/background")
async def with_background():
    return Response(b"background", background=lambda: None)


@plain.get("/background-async")
async def with_async_background():
    async def later():
        await asyncio.sleep(0)

    return Response(b"background", background=[later, later])


# What ends early. The test learns what has begun, and waits until that has ended.

BEGUN, ENDED = "begun", "ended"
COUNTS = {BEGUN: 0, ENDED: 0}
WATCHING: set[asyncio.Future[None]] = set()


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """On whatever thread."""
    app.state.loop.call_soon_threadsafe(count, BEGUN)
    try:
        yield
    finally:
        app.state.loop.call_soon_threadsafe(count, ENDED)


def count(what: str) -> None:
    COUNTS[what] += 1
    for future in WATCHING:
        if not future.done():
            future.set_result(None)


LOCK = threading.Lock()
GATE: list[threading.Barrier] = []


@plain.get("/gather/{number:int}")
def gather(number: int):
    """Waits until so many wait, each on a thread of its own."""
    with LOCK:
        if not GATE:
            GATE.append(threading.Barrier(number, GATE.clear))
        barrier = GATE[0]
    barrier.wait(10)


WAITING: list[asyncio.Future[None]] = []


@plain.get("/gather-async/{number:int}")
async def gather_async(number: int):
    """Waits until so many wait, each in a task of its own."""
    if len(WAITING) + 1 < number:
        WAITING.append(asyncio.get_running_loop().create_future())
        await WAITING[-1]
    for future in WAITING:
        if not future.done():
            future.set_result(None)
    WAITING.clear()
    await asyncio.sleep(0)


@plain.get("/wait")
async def wait():
    """Waits until it is cancelled."""
    with counted():
        await asyncio.get_running_loop().create_future()


@plain.get("/endless")
def endless():
    def chunks():
        with counted():
            while True:
                yield b"x" * 16384

    return chunks()


@plain.get("/endless-async")
async def endless_async():
    async def chunks():
        with counted():
            while True:
                yield b"x" * 16384

    return chunks()


@plain.get("/endless-waiting")
async def endless_waiting():
    async def chunks():
        with counted():
            yield b"x"
            await asyncio.get_running_loop().create_future()

    return chunks()


@plain.post("/unfinished", stream=True)
async def unfinished(request: Request):
    with counted():
        return b"".join([chunk async for chunk in request.stream()])


@plain.post("/unfinished-pooled", stream=True)
def unfinished_pooled(request: Request):
    with counted():
        return b"".join(request.stream())


@plain.get("/failing")
def failing():
    def chunks():
        with counted():
            yield b"x"
            raise ZeroDivisionError

    return chunks()


@plain.get("/failing-async")
async def failing_async():
    async def chunks():
        with counted():
            yield b"x"
            raise ZeroDivisionError

    return chunks()


@plain.websocket("/websocket/{how}")
async def websocket(how: str, ws: WebSocket):
    with counted():
        if how == "rejected":
            return
        await ws.accept()
        if how == "room":
            # One that everybody is in, and one of its own.
            await ws.join("all")
            await ws.join(str(id(ws)))
        async for message in ws:
            if how == "room":
                await app.broadcast(ws.rooms[0], message)
                continue
            await ws.send(message)
            if how == "failing":
                raise RuntimeError("the handler fails")
            if how == "deaf":
                await asyncio.Event().wait()


@plain.websocket("/websocket-pooled")
def websocket_pooled(ws: BlockingWebSocket):
    with counted():
        ws.accept()
        for message in ws:
            ws.send(message)


@plain.get("/count/{what}")
async def counts(what: str, least: int = 0):
    """Answers with how many have begun, or ended, when they are so many."""
    while COUNTS[what] < least:
        future = asyncio.get_running_loop().create_future()
        WATCHING.add(future)
        try:
            await future
        finally:
            WATCHING.discard(future)
    return str(COUNTS[what])


inside = Router(prefix="/inside")


@inside.middleware
async def outer(request: Request, next: Any):
    answer = await next(request)
    answer.headers["x-outer"] = "1"
    return answer


@inside.middleware
async def inner(request: Request, next: Any):
    await asyncio.sleep(0)
    if request.path == "/inside/instead":
        return "instead"
    return await next(request)


@inside.get("/async")
async def inside_async():
    return "async"


@inside.get("/pooled")
def inside_pooled():
    return "pooled"


@inside.get("/refused")
async def inside_refused():
    raise HTTPError(403)


@inside.get("/crash")
async def inside_crash():
    return 1 / 0


@inside.get("/stream")
async def inside_stream():
    return three_async()


@inside.post("/arriving", stream=True)
async def inside_arriving(request: Request):
    return b"".join([chunk async for chunk in request.stream()])


@inside.get("/instead", name="instead")
async def inside_instead():
    return "not reached"


mounted = App()


@mounted.error(ZeroDivisionError)
def divided(request: Request, error: ZeroDivisionError):
    return PlainTextResponse(str(error))


@mounted.error(404)
async def missing(request: Request):
    await asyncio.sleep(0)
    return {"missing": request.path}


@mounted.get("/crash")
async def mounted_crash():
    return 1 / 0


@mounted.get("/crash-outside")
async def mounted_crash_outside():
    raise LookupError("nobody inside answers")


@app.error(LookupError)
async def looked_up(request: Request, error: LookupError):
    return str(error), 410


# What the test has to notice.

KEPT: list[Any] = []


@plain.get("/leak/object")
async def leak_object():
    KEPT.append([])
    return "leak"


@plain.get("/leak/text")
async def leak_text(request: Request):
    KEPT.append(request.id)
    return "leak"


@plain.get("/leak/request")
async def leak_request(request: Request):
    KEPT.append(request)
    return "leak"


@plain.get("/leak/task")
async def leak_task():
    KEPT.append(asyncio.ensure_future(asyncio.Event().wait()))
    return "leak"


@plain.get("/leak/native")
async def leak_native():
    _LIBC.malloc(16)
    return "leak"


app.include(plain)
app.include(inside)
app.mount("/mounted", mounted)


async def hosted_asgi(scope: Any, receive: Any, send: Any) -> None:
    """Does what its path says, and takes no part in lifespan."""
    if scope["type"] == "websocket":
        with counted():
            await hosted_socket(scope["path"].rpartition("/")[2], receive, send)
        return
    if scope["type"] != "http":
        raise ValueError(scope["type"])
    path = scope["path"].rpartition("/")[2]
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    if path == "crash":
        raise ZeroDivisionError
    if path == "suspends":
        await asyncio.sleep(0)
    if path == "waits":
        with counted():
            await receive()
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    if path == "streams":
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"more", "more_body": True})
    if path == "endless":
        with counted():
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})
    if path == "behind":
        await asyncio.sleep(0)


async def hosted_socket(how: str, receive: Any, send: Any) -> None:
    """Repeats what it is told."""
    await receive()
    if how == "rejected":
        await send({"type": "websocket.close"})
        return
    if how == "denied":
        await send({"type": "websocket.http.response.start", "status": 403})
        await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
        await send({"type": "websocket.http.response.body"})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
        if how == "failing":
            raise RuntimeError("the app fails")
        if how == "beside":
            # Two tasks of the app's, of which one is given up.
            waiting = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            waiting.cancel()


def hosted_wsgi(environ: dict[str, Any], start_response: Any) -> Any:
    """Does what its path says."""
    path = environ["PATH_INFO"]
    environ["wsgi.input"].read()
    if path == "/crash":
        raise ZeroDivisionError
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/streams":
        return (b"chunk" for _ in range(3))
    return endless_wsgi() if path == "/endless" else [b"whole"]


def endless_wsgi() -> Iterator[bytes]:
    """Ends when it is closed."""
    with counted():
        while True:
            yield b"x" * 65536


app.mount("/asgi", hosted_asgi)
app.mount("/wsgi", hosted_wsgi)
around = App()


@around.middleware
async def through(request: Request, next: Any):
    return await next(request)


around.mount("/asgi", hosted_asgi)
around.mount("/wsgi", hosted_wsgi)
app.mount("/around", around)


# What the process holds.

_LIBC = ctypes.CDLL(None)


@app.get("/usage")
async def usage():
    # What runs after the last responses comes to its end, unless it is a leak.
    for _ in range(200):
        if tasks() <= app.state.tasks:
            break
        await asyncio.sleep(0.01)
    # Twice: what the first round finalizes may free more.
    gc.collect()
    gc.collect()
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)
    with open("/proc/self/statm") as statm:
        _, resident, of_files, *_ = map(int, statm.read().split())
    return {
        # Not the code that is in memory at the moment: the server gives that back while nobody is connected.
        "rss": (resident - of_files) * os.sysconf("SC_PAGE_SIZE"),
        "heap": _heap(),
        "blocks": sys.getallocatedblocks(),
        "objects": len(gc.get_objects()),
        "tasks": tasks(),
    }


def tasks() -> int:
    """How many there are, without this one, which may or may not be among them as long as it has not waited."""
    return len(asyncio.all_tasks() - {asyncio.current_task()})


class _Mallinfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


def _heap() -> int:
    """The bytes that native code has asked for and not given back; 0 where nobody can tell."""
    if not hasattr(_LIBC, "mallinfo2"):
        return 0
    _LIBC.mallinfo2.restype = _Mallinfo
    info = _LIBC.mallinfo2()
    return info.uordblks + info.hblkhd


if __name__ == "__main__":
    app.run(port=0, loop=sys.argv[1], ws_handler_grace=0.0)
