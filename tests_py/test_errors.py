"""The exceptions, and who answers them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from httpy import (
    App,
    ClientDisconnected,
    ConfigError,
    HTTPError,
    HTTPyError,
    Request,
    Response,
    RouteError,
    WebSocketDisconnect,
)

Serve = Callable[..., httpx.Client]


@pytest.mark.parametrize(
    "error", [ClientDisconnected, ConfigError, HTTPError, RouteError, WebSocketDisconnect]
)
def test_every_exception_is_an_httpy_error(error: type) -> None:
    assert issubclass(error, HTTPyError)


def test_a_config_error_is_a_value_error() -> None:
    assert issubclass(ConfigError, ValueError)


def test_an_http_error_says_status_and_detail() -> None:
    error = HTTPError(404, "no such user", headers={"x-a": "1"})

    assert (error.status, error.detail, error.headers) == (404, "no such user", {"x-a": "1"})
    assert str(error) == "404: no such user"
    assert HTTPError(404).detail == "Not Found"
    assert HTTPError(599).detail == ""


@pytest.mark.parametrize("status", [99, 600, "404", True])
def test_an_http_error_has_a_status(status: Any) -> None:
    with pytest.raises(ValueError, match="an HTTP status is a number from 200 to 599"):
        HTTPError(status)


def test_exceptions_can_be_copied_and_sent_to_other_processes() -> None:
    error = HTTPError(404, {"a": 1}, {"x-a": "1"})
    closed = WebSocketDisconnect(1001, "going away")

    for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (same.status, same.detail, same.headers) == (404, {"a": 1}, {"x-a": "1"})
    assert str(pickle.loads(pickle.dumps(closed))) == "1001: going away"


def test_an_http_error_is_the_response(serve: Serve) -> None:
    app = App()

    @app.get("/")
    async def handler() -> None:
        raise HTTPError(409, {"reason": "taken"}, headers={"x-a": "1"})

    response = serve(app).get("/")

    assert (response.status_code, response.json()) == (409, {"detail": {"reason": "taken"}})
    assert response.headers["x-a"] == "1"


def test_a_crash_says_nothing_about_internals(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.get("/")
    async def handler() -> None:
        raise RuntimeError("secret")

    response = serve(app).get("/")

    assert response.status_code == 500
    assert "secret" not in response.text
    assert "secret" in caplog.text


class OutOfStock(Exception):
    pass


class SoldOut(OutOfStock):
    pass


class Teapot(HTTPError):
    def __init__(self) -> None:
        super().__init__(418)


@pytest.fixture(params=["async", "pooled", "inline"])
def raising(request: pytest.FixtureRequest) -> Callable[[App, BaseException], None]:
    """Registers a handler of each kind for `/` that raises."""

    def register(app: App, error: BaseException) -> None:
        def plain() -> None:
            raise error

        async def asynchronous() -> None:
            raise error

        if request.param == "async":
            app.get("/")(asynchronous)
        else:
            app.get("/", inline=request.param == "inline")(plain)

    return register


Raising = Callable[[App, BaseException], None]


def test_the_nearest_class_answers(serve: Serve, raising: Raising) -> None:
    app = App()
    app.error(Exception)(lambda request, error: "any")
    app.error(OutOfStock)(lambda request, error: (f"{request.path} {error}", 409))
    raising(app, SoldOut("apples"))

    response = serve(app).get("/")

    assert (response.status_code, response.text) == (409, "/ apples")


def test_an_async_handler_answers(serve: Serve, raising: Raising) -> None:
    app = App()

    @app.error(OutOfStock)
    async def answer(request: Request, error: OutOfStock) -> Response:
        return Response(str(error), 409)

    raising(app, OutOfStock("pears"))

    response = serve(app).get("/")

    assert (response.status_code, response.text) == (409, "pears")


def test_a_handler_takes_what_it_names(serve: Serve) -> None:
    app = App()
    app.error(400)(lambda: "nothing")
    app.error(401)(lambda request: request.path)
    app.error(402)(lambda exc: exc.detail)

    @app.error(403)
    def by_annotation(why: HTTPError) -> Any:
        return why.detail

    @app.get("/{status:int}")
    async def fail(status: int) -> None:
        raise HTTPError(status, f"detail {status}")

    client = serve(app)
    found = [(r.status_code, r.text) for r in (client.get(f"/{status}") for status in range(400, 404))]

    assert found == [(400, "nothing"), (401, "/401"), (402, "detail 402"), (403, "detail 403")]


def test_the_status_is_the_errors_unless_the_answer_says_another(serve: Serve) -> None:
    app = App()
    app.error(404)(lambda: {"nothing": "here"})
    app.error(ZeroDivisionError)(lambda: "crash")
    app.error(405)(lambda: ("other", 400))
    app.error(410)(lambda: None)

    @app.get("/crash")
    async def crash() -> None:
        raise ZeroDivisionError

    @app.get("/gone")
    async def gone() -> None:
        raise HTTPError(410)

    client = serve(app)

    assert client.get("/nowhere").status_code == 404
    assert client.get("/nowhere").json() == {"nothing": "here"}
    assert client.get("/crash").status_code == 500
    assert client.post("/crash").status_code == 400
    assert client.get("/gone").status_code == 410


def test_statuses_come_before_http_error_and_after_its_subclasses(serve: Serve) -> None:
    app = App()
    app.error(418)(lambda: "status")
    app.error(HTTPError)(lambda: "class")
    app.error(Exception)(lambda: "any")

    @app.get("/{status:int}")
    async def fail(status: int) -> None:
        raise Teapot() if status == 418 else HTTPError(status)

    client = serve(app)
    assert [client.get(f"/{status}").text for status in (418, 410)] == ["status", "class"]


def test_a_subclass_of_http_error_may_have_its_own_answer(serve: Serve, raising: Raising) -> None:
    app = App()
    app.error(418)(lambda: "status")
    app.error(Teapot)(lambda: "teapot")
    raising(app, Teapot())

    response = serve(app).get("/")

    assert (response.status_code, response.text) == (418, "teapot")


def test_who_answers_any_exception_does_not_mean_http_errors(serve: Serve, raising: Raising) -> None:
    app = App()
    app.error(Exception)(lambda: "crashed")
    raising(app, HTTPError(404, "gone"))

    response = serve(app).get("/")

    assert (response.status_code, response.json()) == (404, {"detail": "gone"})


@pytest.mark.parametrize("key", [500, Exception])
def test_a_crash_is_logged_whoever_answers(
    key: Any, serve: Serve, raising: Raising, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    app.error(key)(lambda: "sorry")
    raising(app, RuntimeError("secret"))

    response = serve(app).get("/")

    assert (response.status_code, response.text) == (500, "sorry")
    assert "GET / failed" in caplog.text
    assert "RuntimeError: secret" in caplog.text


def test_misfits_can_be_answered(serve: Serve) -> None:
    app = App()
    app.error(422)(lambda request, error: {"wrong": [misfit["loc"] for misfit in error.detail]})

    @app.get("/")
    async def handler(page: int) -> None: ...

    response = serve(app).get("/?page=x")

    assert (response.status_code, response.json()) == (422, {"wrong": [["query", "page"]]})


def test_an_error_in_an_error_handler_is_a_crash(
    serve: Serve, raising: Raising, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.error(OutOfStock)
    def answer() -> None:
        raise RuntimeError("even worse")

    raising(app, OutOfStock())

    response = serve(app).get("/")

    assert response.status_code == 500
    assert "even worse" not in response.text
    assert "even worse" in caplog.text


def test_debug_shows_the_crash(serve: Serve, raising: Raising) -> None:
    app = App(debug=True)
    app.error(500)(lambda: "sorry")
    raising(app, RuntimeError("<script>alert(1)</script>"))

    client = serve(app)
    page = client.get("/?a=<b>", headers={"accept": "text/html", "authorization": "Bearer token"})
    text = client.get("/")

    assert page.status_code == text.status_code == 500
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert "Traceback" in page.text
    assert "Traceback" in text.text
    assert "&lt;script&gt;alert(1)" in page.text
    assert "<script>" not in page.text
    assert "token" not in page.text


def test_debug_leaves_http_errors_alone(serve: Serve, raising: Raising) -> None:
    app = App(debug=True)
    raising(app, HTTPError(404, "gone"))

    assert serve(app).get("/", headers={"accept": "text/html"}).json() == {"detail": "gone"}


@pytest.mark.parametrize("key", [200, 600, "404", True, int, BaseException, None])
def test_only_error_statuses_and_exceptions_have_handlers(key: Any) -> None:
    with pytest.raises(RouteError, match="a status from 400 to 599 or an exception class"):
        App().error(key)(lambda: None)


def test_a_status_has_one_handler() -> None:
    app = App()
    app.error(404)(lambda: "a")

    with pytest.raises(RouteError, match="status 404 has an error handler already"):
        app.error(404)(lambda: "b")


def test_an_error_handler_takes_request_and_exception() -> None:
    with pytest.raises(RouteError, match="takes \\(request, exception\\), one of them, or nothing"):
        App().error(404)(lambda request, error, more: None)
