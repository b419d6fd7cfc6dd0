"""The application that is measured: every workload of the comparison, with the public API only.

    PORT=8000 python benches/app.py

`HTTPY_BENCH_INLINE=1` has `/` answered by a `def` on the loop's thread instead of an `async def`.
"""

import asyncio
import os

from httpy import App, Request, WebSocket

BIG = [{"id": i, "name": f"user {i}", "email": f"user{i}@example.com", "active": i % 2 == 0, "score": i * 1.5, "tags": ["a", "b", "c"]} for i in range(100)]  # fmt: skip  # noqa: E501

app = App(title="bench")


def hello():
    return "Hello, World!"


async def hello_async():
    return "Hello, World!"


IS_INLINE = os.environ.get("HTTPY_BENCH_INLINE") == "1"
app.add_route("GET", "/", hello if IS_INLINE else hello_async, inline=IS_INLINE)
app.add_route("GET", "/inline", hello, inline=True)
app.add_route("GET", "/sync", hello)


@app.get("/json")
async def json():
    return {"message": "Hello, World!"}


@app.get("/users/{id:int}")
async def user(id: int, q: str = ""):
    return {"id": id, "q": q}


@app.post("/echo")
async def echo(request: Request):
    return request.json


@app.get("/big")
async def big():
    return BIG


@app.get("/sleep0")
async def sleep0():
    await asyncio.sleep(0)
    return "Hello, World!"


@app.websocket("/ws")
async def echo_messages(websocket: WebSocket):
    await websocket.accept()
    async for message in websocket:
        await websocket.send(message)


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")))
