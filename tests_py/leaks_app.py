"""The application of test_leaks.py: a handler of every kind, and `/usage`, which says what the process holds.

python leaks_app.py LOOP
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import sys
from dataclasses import dataclass
from typing import Any

from httpy import App, HTTPError, JSONResponse, PlainTextResponse, Request, Response, Router

logging.getLogger("httpy").setLevel(logging.CRITICAL + 1)
logging.getLogger("httpy").addHandler(logging.NullHandler())

app = App(title="leaks")
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


BEGUN, CANCELLED = "begun", "cancelled"
COUNTS = {BEGUN: 0, CANCELLED: 0}
WATCHING: set[asyncio.Future[None]] = set()


def count(what: str) -> None:
    COUNTS[what] += 1
    for future in WATCHING:
        if not future.done():
            future.set_result(None)


@plain.get("/wait")
async def wait():
    """Waits until it is cancelled."""
    count(BEGUN)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        count(CANCELLED)


@plain.get("/count/{what}")
async def counted(what: str, least: int):
    """Answers when so many handlers have begun, or been cancelled."""
    while COUNTS[what] < least:
        future = asyncio.get_running_loop().create_future()
        WATCHING.add(future)
        try:
            await future
        finally:
            WATCHING.discard(future)
    return "done"


inside = Router(prefix="/inside")


@inside.middleware
async def outer(request: Request, next: Any):
    answer = await next(request)
    answer.headers["x-outer"] = "1"
    return answer


@inside.middleware
async def inner(request: Request, next: Any):
    await asyncio.sleep(0)
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


# What the process holds.

_LIBC = ctypes.CDLL(None)


@app.get("/usage")
async def usage():
    # Twice: what the first round finalizes may free more.
    gc.collect()
    gc.collect()
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return {
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
        "heap": _heap(),
        "blocks": sys.getallocatedblocks(),
        "objects": len(gc.get_objects()),
        # Without this one, which may or may not be among them as long as it has not waited.
        "tasks": len(asyncio.all_tasks() - {asyncio.current_task()}),
    }


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
    app.run(port=0, loop=sys.argv[1])
