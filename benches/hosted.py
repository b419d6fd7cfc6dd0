"""Hosted applications that are measured: `asgi` and `wsgi` by hand, `starlette` and `flask` (requirements-bench.txt).

httpy run hosted:asgi --port 8000
"""

from typing import Any

TEXT = b"Hello, World!"
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"13")],
}
BODY = {"type": "http.response.body", "body": TEXT}


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answers everything, repeats what WebSockets say, and knows no lifespan."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            if "text" in message:
                await send({"type": "websocket.send", "text": message["text"]})
            else:
                await send({"type": "websocket.send", "bytes": message["bytes"]})
    elif scope["type"] != "http":
        raise ValueError(scope["type"])
    else:
        await send(START)
        await send(BODY)


def wsgi(environ: Any, start_response: Any) -> Any:
    """Answers everything."""
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "13")])
    return [TEXT]


def __getattr__(name: str) -> Any:
    """The applications of frameworks, made when they are asked for."""
    if name == "starlette":
        return _starlette()
    if name == "flask":
        return _flask()
    raise AttributeError(name)


def _starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        async for message in websocket.iter_text():
            await websocket.send_text(message)

    async def hello(request: Request) -> Response:
        return PlainTextResponse("Hello, World!")

    async def json(request: Request) -> Response:
        return JSONResponse({"message": "Hello, World!"})

    async def user(request: Request) -> Response:
        return JSONResponse({"id": request.path_params["id"], "q": request.query_params.get("q", "")})

    return Starlette(
        routes=[
            Route("/", hello),
            Route("/json", json),
            Route("/users/{id:int}", user),
            WebSocketRoute("/ws", echo),
        ]
    )


def _flask() -> Any:
    import flask

    app = flask.Flask("hosted")

    @app.get("/")
    def hello() -> Any:
        return "Hello, World!"

    @app.get("/json")
    def json() -> Any:
        return {"message": "Hello, World!"}

    @app.get("/users/<int:id>")
    def user(id: int) -> Any:
        return {"id": id, "q": flask.request.args.get("q", "")}

    return app
