"""The FastAPI app of `test_frameworks.py`. In a module of its own: FastAPI looks annotations up among its variables."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import (
    BackgroundTasks,
    Depends,
    FastAPI,
    Form,
    HTTPException,
    UploadFile,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
)
from pydantic import BaseModel

app = FastAPI()
closed: list[str] = []


class Item(BaseModel):
    """A thing with a price."""

    name: str
    price: float = 1.0


async def connection() -> AsyncIterator[str]:
    """Is open for as long as the request."""
    yield "connected"
    closed.append("closed")


@app.get("/items/{id}")
def item(id: int, q: str = "none") -> dict[str, Any]:
    """Runs on a thread."""
    return {"id": id, "q": q}


@app.post("/items", status_code=201)
async def create(item: Item) -> Item:
    """Takes JSON."""
    return item


@app.get("/depends")
async def depends(found: Annotated[str, Depends(connection)]) -> str:
    """Needs something."""
    return found


@app.post("/form")
async def form(name: Annotated[str, Form()]) -> str:
    """Takes a form."""
    return name


@app.post("/upload")
async def upload(file: UploadFile) -> dict[str, Any]:
    """Takes a file."""
    return {"name": file.filename, "size": len(await file.read())}


@app.get("/behind")
def behind(tasks: BackgroundTasks) -> None:
    """Goes on behind its response."""
    tasks.add_task(closed.append, "behind")


@app.get("/missing")
async def missing() -> None:
    """Ends with an error."""
    raise HTTPException(404, "not here")


@app.websocket("/ws/{room}")
async def chat(
    websocket: WebSocket, room: int, found: Annotated[str, Depends(connection)], q: str = "none"
) -> None:
    """Repeats JSON, and tells of the end."""
    if room == 403:
        raise WebSocketException(1008, "not you")
    await websocket.accept()
    try:
        while True:
            await websocket.send_json([room, q, found, await websocket.receive_json()])
    except WebSocketDisconnect as end:
        closed.append(f"{end.code} {end.reason}")
