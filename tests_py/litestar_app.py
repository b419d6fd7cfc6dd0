"""The Litestar app of `test_frameworks.py`."""

from collections.abc import AsyncIterator
from typing import Any

from litestar import Litestar, Request, get, post
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


app = Litestar(
    route_handlers=[index, echo, stream],
    on_startup=[lambda: events.append("startup")],
    on_shutdown=[lambda: events.append("shutdown")],
)
