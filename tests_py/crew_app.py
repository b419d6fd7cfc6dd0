"""The app that workers serve in tests."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from typing import Any

from httpy import App, Request, StreamingResponse, WebSocket


def load(**wishes: Any) -> App:
    """Makes the app.

    Args:
        **wishes: `fails`, a file: while it is there, loading fails. `dies`, the same: the process ends in its startup.
            `hangs`: what of the app's end hangs: "shutdown" (a coroutine), "blocked" (a function), "executor".
            `slow_start`: seconds. `log_level`: what is logged, on standard error.
    """
    if os.path.exists(wishes.get("fails", "")):
        raise LookupError("no database")
    if "log_level" in wishes:
        logging.basicConfig(level=wishes["log_level"], format="%(message)s", stream=sys.stderr)
    app = App(title="crew")
    held: list[bytes] = []

    @app.on_startup
    async def start() -> None:
        if os.path.exists(wishes.get("dies", "")):
            os._exit(7)
        await asyncio.sleep(wishes.get("slow_start", 0))

    @app.on_shutdown
    async def stop() -> None:
        print("shutdown begins", flush=True)
        if wishes.get("hangs") == "shutdown":
            await asyncio.sleep(1000)
        if wishes.get("hangs") == "blocked":
            time.sleep(1000)
        if wishes.get("hangs") == "no, it raises":
            raise LookupError("lost")
        print("shutdown ends", flush=True)

    @app.get("/pid")
    async def pid() -> str:
        return str(os.getpid())

    @app.get("/echo/{text}")
    async def echo(text: str) -> str:
        return f"{text} {os.getpid()}"

    @app.get("/wait")
    async def wait(seconds: float) -> str:
        print("waiting", flush=True)
        await asyncio.sleep(seconds)
        return "waited"

    @app.get("/stuck", inline=True)
    def stuck(seconds: float = 1000.0) -> str:
        print("waiting", flush=True)
        time.sleep(seconds)
        return "stuck no more"

    @app.get("/executor")
    async def executor() -> None:
        print("waiting", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 1000)

    @app.get("/stream")
    async def stream(request: Request, heeds: bool = False) -> StreamingResponse:
        async def forever() -> Any:
            print("waiting", flush=True)
            while not (heeds and request.is_stopping):
                yield "tick\n"
                await asyncio.sleep(0.02)
            yield "good bye\n"

        return StreamingResponse(forever())

    @app.get("/killed")
    async def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @app.get("/grow")
    async def grow(mebibytes: int) -> str:
        held.append(os.urandom(1024) * 1024 * mebibytes)
        return str(os.getpid())

    @app.websocket("/room/{room}")
    async def member(ws: WebSocket, room: str) -> None:
        await ws.accept()
        await ws.join(room)
        await ws.send(str(os.getpid()))
        async for text in ws:
            await app.broadcast(room, text, exclude=ws)

    @app.get("/say/{room}/{text}")
    async def say(room: str, text: str) -> str:
        await app.broadcast(room, text)
        return str(os.getpid())

    @app.get("/presence/{room}")
    async def presence(room: str) -> str:
        return f"{app.presence(room)} {os.getpid()}"

    @app.get("/orphan")
    async def orphan() -> str:
        # Its child is left behind when it ends.
        subprocess.run(
            [sys.executable, "-c", "import subprocess; subprocess.Popen(['sleep', '3'])"], check=True
        )
        return "left behind"

    return app
