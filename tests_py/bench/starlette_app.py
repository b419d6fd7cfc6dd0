"""The workloads of benches/app.py, as Starlette has them."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

BIG = [{"id": i, "name": f"user {i}", "email": f"user{i}@example.com", "active": i % 2 == 0, "score": i * 1.5, "tags": ["a", "b", "c"]} for i in range(100)]  # fmt: skip  # noqa: E501


async def hello(request: Request) -> Response:
    return PlainTextResponse("Hello, World!")


async def json(request: Request) -> Response:
    return JSONResponse({"message": "Hello, World!"})


async def user(request: Request) -> Response:
    return JSONResponse({"id": request.path_params["id"], "q": request.query_params.get("q", "")})


async def echo(request: Request) -> Response:
    return JSONResponse(await request.json())


async def big(request: Request) -> Response:
    return JSONResponse(BIG)


def sync(request: Request) -> Response:
    return PlainTextResponse("Hello, World!")


app = Starlette(
    routes=[
        Route("/", hello),
        Route("/json", json),
        Route("/users/{id:int}", user),
        Route("/echo", echo, methods=["POST"]),
        Route("/big", big),
        Route("/sync", sync),
    ]
)
