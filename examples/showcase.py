"""A tour of HTTPy in one file: `python examples/showcase.py`, then open the printed URLs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Optional

from httpy import App, HTMLResponse, HTTPError, Request, Response, Router, created, no_content


class Status(Enum):
    OPEN = "open"
    DONE = "done"


@dataclass
class NewTask:
    """What `POST /api/tasks` takes: the JSON body is checked against it, and mistakes are a 422."""

    title: str
    status: Status = Status.OPEN
    tags: list[str] = field(default_factory=list)


@dataclass
class Task(NewTask):
    """What is kept and sent: dataclasses become JSON."""

    id: int = 0


@contextlib.asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[dict[str, Any]]:
    """Runs around everything: what is yielded appears on `request.state`."""
    tasks = {
        1: Task(id=1, title="Try HTTPy"),
        2: Task(id=2, title="Read the source", tags=["rust", "python"]),
    }
    yield {"tasks": tasks, "started": time.monotonic()}


app = App(lifespan=lifespan, title="HTTPy showcase")


@app.middleware
async def timing(request: Request, next: Any) -> Response:
    """Sees every request and every response; those of the router too."""
    started = time.perf_counter()
    response: Response = await next(request)
    response.headers["server-timing"] = f"app;dur={(time.perf_counter() - started) * 1000:.3f}"
    return response


@app.get("/", inline=True)
def index() -> HTMLResponse:
    """A plain function that never blocks may run on the loop's thread."""
    links = "".join(f'<li><a href="{path}">{path}</a> {words}</li>' for path, words in TOUR)
    return HTMLResponse(f"<!doctype html><title>HTTPy</title><h1>HTTPy</h1><ul>{links}</ul>")


@app.get("/hello/{name}")
def hello(name: str, excited: bool = False) -> str:
    """Path and query parameters by name; text is text/plain. A plain `def` has a thread that may block."""
    return f"Hello, {name}{'!' if excited else '.'}"


@app.get("/me")
async def me(request: Request) -> dict[str, Any]:
    """Whatever the request says, on demand."""
    return {
        "you": request.client_address,
        "browser": request.get_header("user-agent"),
        "protocol": request.version,
        "query": dict(request.query),
        "cookies": request.cookies,
    }


@app.get("/count/{upto:int}")
async def count(upto: int) -> AsyncIterator[str]:
    """A generator is streamed: each piece is sent as it is made."""
    for number in range(1, upto + 1):
        yield f"{number}\n"
        await asyncio.sleep(0.2)


api = Router(prefix="/api")


@api.middleware
async def no_cache(request: Request, next: Any) -> Response:
    """Middleware of one router."""
    response: Response = await next(request)
    response.headers["cache-control"] = "no-store"
    return response


@api.get("/tasks")
async def list_tasks(request: Request, status: Optional[Status] = None) -> list[Task]:
    """`?status=done` is an Enum; anything else is a 422 that says what is expected."""
    tasks = request.state.tasks.values()
    return [task for task in tasks if status in (None, task.status)]


@api.post("/tasks")
async def create_task(task: NewTask, request: Request) -> Response:
    """A dataclass is the JSON body."""
    tasks: dict[int, Task] = request.state.tasks
    made = Task(task.title, task.status, task.tags, id=max(tasks, default=0) + 1)
    tasks[made.id] = made
    return created(made, location=app.url_for("read_task", id=made.id))


@api.get("/tasks/{id:int}")
async def read_task(id: int, request: Request) -> Task:
    """`HTTPError` ends a handler with an answer."""
    tasks: dict[int, Task] = request.state.tasks
    if id not in tasks:
        raise HTTPError(404, f"no task {id}")
    return tasks[id]


@api.delete("/tasks/{id:int}")
async def delete_task(id: int, request: Request) -> Response:
    """Nothing to say is a 204."""
    if request.state.tasks.pop(id, None) is None:
        raise HTTPError(404, f"no task {id}")
    return no_content()


app.include(api)


@app.get("/divide/{a:int}/{b:int}")
def divide(a: int, b: int) -> str:
    """Fails for some; see the error handler below."""
    return f"{a / b}"


@app.error(ZeroDivisionError)
def not_divisible(request: Request, error: ZeroDivisionError) -> Any:
    """Answers an exception, wherever it is raised."""
    return {"detail": f"{request.path}: {error}"}, 400


TOUR = [
    ("/hello/world?excited=yes", "path and query parameters"),
    ("/me", "the request as JSON"),
    ("/count/5", "a streamed response"),
    ("/api/tasks", "dataclasses as JSON"),
    ("/api/tasks?status=done", "an Enum in the query"),
    ("/api/tasks/7", "an HTTPError"),
    ("/api/tasks?status=maybe", "a 422"),
    ("/divide/1/0", "an error handler"),
]


if __name__ == "__main__":
    print("Try:")
    for path, words in [("/", "all of these as links"), *TOUR]:
        print(f"  http://127.0.0.1:8000{path:<26} {words}")
    print("""  curl -i -d '{"title": "More"}' http://127.0.0.1:8000/api/tasks\n""")
    app.run(host="127.0.0.1", port=8000)
