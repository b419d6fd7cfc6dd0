"""Kinds of responses, helpers and the builder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from httpy import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    ResponseBuilder,
    StreamingResponse,
    accepted,
    bad_request,
    conflict,
    created,
    forbidden,
    no_content,
    not_found,
    ok,
    redirect,
    server_error,
    too_many_requests,
    unauthorized,
)


def parts(response: Response) -> tuple[int, str, bytes]:
    """Status, content type and body."""
    return response.status, response.headers.get("content-type", ""), response.body


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (JSONResponse({"a": 1}), (200, "application/json", b'{"a":1}')),
        (JSONResponse("text"), (200, "application/json", b'"text"')),
        (JSONResponse(), (200, "application/json", b"null")),
        (
            JSONResponse([1], 201, media_type="application/problem+json"),
            (201, "application/problem+json", b"[1]"),
        ),
        (HTMLResponse("<p>é"), (200, "text/html; charset=utf-8", "<p>é".encode())),
        (PlainTextResponse("é", 404), (404, "text/plain; charset=utf-8", "é".encode())),
    ],
)
def test_each_kind_has_its_content_type(response: Response, expected: tuple[int, str, bytes]) -> None:
    assert parts(response) == expected
    assert isinstance(response, Response)


def test_kinds_can_be_subclassed() -> None:
    class Problem(JSONResponse):
        pass

    assert type(Problem({"a": 1})) is Problem


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("/a b", "/a%20b"),
        ("/é?q=ü#ö", "/%C3%A9?q=%C3%BC#%C3%B6"),
        ("/a%20b", "/a%20b"),
        ("https://example.org/a?b=c&d=[e]", "https://example.org/a?b=c&d=[e]"),
        ("/a\r\nset-cookie: b=c", "/a%0D%0Aset-cookie:%20b=c"),
    ],
)
def test_a_redirect_encodes_what_a_url_cannot_hold(url: str, location: str) -> None:
    response = RedirectResponse(url)

    assert (response.status, response.headers["location"], response.body) == (307, location, b"")


def test_a_redirect_has_the_status_of_one() -> None:
    assert RedirectResponse("/", 303).status == 303
    with pytest.raises(ValueError, match="found 200"):
        RedirectResponse("/", 200)


def test_redirect_keeps_the_method_for_now_or_for_good() -> None:
    assert redirect("/").status == 307
    assert redirect("/", permanent=True).status == 308


async def pieces() -> AsyncIterator[str]:
    yield "a"


def test_a_stream_is_an_iterable() -> None:
    assert StreamingResponse(["a", "b"]).status == 200
    assert StreamingResponse(pieces(), media_type="text/csv").headers["content-type"].startswith("text/csv")


@pytest.mark.parametrize("content", ["whole", b"whole", {"a": 1}, 7])
def test_a_whole_is_no_stream(content: Any) -> None:
    with pytest.raises(TypeError, match="a stream is an iterable"):
        StreamingResponse(content)


@pytest.mark.parametrize(("helper", "status"), [(ok, 200), (accepted, 202), (created, 201)])
def test_helpers_for_success_take_what_a_response_takes(helper: Callable[..., Response], status: int) -> None:
    assert parts(helper({"a": 1})) == (status, "application/json", b'{"a":1}')
    assert parts(helper("a")) == (status, "text/plain; charset=utf-8", b"a")
    assert helper().body == b""


def test_created_says_where() -> None:
    assert created({"id": 1}, location="/users/1").headers["location"] == "/users/1"


@pytest.mark.parametrize("helper", [ok, created, accepted])
def test_without_content_there_is_no_content_type(helper: Callable[[], Response]) -> None:
    assert helper().body == b""
    assert "content-type" not in helper().headers


def test_no_content_has_none() -> None:
    response = no_content()

    assert (response.status, response.body, "content-type" in response.headers) == (204, b"", False)


@pytest.mark.parametrize(
    ("helper", "status", "phrase"),
    [
        (bad_request, 400, "Bad Request"),
        (unauthorized, 401, "Unauthorized"),
        (forbidden, 403, "Forbidden"),
        (not_found, 404, "Not Found"),
        (conflict, 409, "Conflict"),
        (too_many_requests, 429, "Too Many Requests"),
        (server_error, 500, "Internal Server Error"),
    ],
)
def test_helpers_for_failure_say_what_was_wrong(
    helper: Callable[..., Response], status: int, phrase: str
) -> None:
    assert parts(helper()) == (status, "application/json", b'{"detail":"%s"}' % phrase.encode())
    assert helper("no such user").body == b'{"detail":"no such user"}'
    assert helper({"error": 1}).body == b'{"error":1}'
    assert helper("no", headers={"x-a": "1"}).headers["x-a"] == "1"


def test_unauthorized_has_a_challenge() -> None:
    # RFC 9110 §15.5.2: a 401 response has a WWW-Authenticate field.
    assert unauthorized().headers["www-authenticate"] == "Bearer"
    assert unauthorized(scheme="Basic", realm='a "b" \\').headers["www-authenticate"] == (
        'Basic realm="a \\"b\\" \\\\"'
    )
    assert unauthorized(challenge='Digest realm="x"').headers["www-authenticate"] == 'Digest realm="x"'


@pytest.mark.parametrize(("seconds", "field"), [(0, "0"), (1, "1"), (1.2, "2"), (-5, "0")])
def test_too_many_requests_says_when_in_whole_seconds(seconds: float, field: str) -> None:
    assert too_many_requests(retry_after=seconds).headers["retry-after"] == field


def test_the_builder_builds_step_by_step() -> None:
    builder = (
        ResponseBuilder()
        .status(201)
        .header("X-A", "1")
        .header("x-a", "2")
        .headers({"x-b": "3"})
        .json({"id": 1})
        .cookie("a", "b", httponly=True)
        .cookie("c", "d")
        .cache(max_age=3600, public=True)
    )

    response = builder.build()

    assert parts(response) == (201, "application/json", b'{"id":1}')
    assert response.headers.getlist("x-a") == ["2"]
    assert response.headers["x-b"] == "3"
    assert response.headers["cache-control"] == "public, max-age=3600"
    assert [cookie.split(";")[0] for cookie in response.headers.getlist("set-cookie")] == ["a=b", "c=d"]
    assert builder.build() is not response


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda builder: builder.text("a"), (200, "text/plain; charset=utf-8", b"a")),
        (lambda builder: builder.html("<p>"), (200, "text/html; charset=utf-8", b"<p>")),
        (lambda builder: builder.body(b"a", "image/png"), (200, "image/png", b"a")),
        (lambda builder: builder.body(b"a"), (200, "application/octet-stream", b"a")),
    ],
)
def test_the_builder_takes_any_body(
    build: Callable[[ResponseBuilder], ResponseBuilder], expected: tuple[int, str, bytes]
) -> None:
    assert parts(build(ResponseBuilder()).build()) == expected


def test_the_builder_runs_something_after_the_response() -> None:
    def later() -> None: ...

    assert ResponseBuilder().background(later).build().background is later


def test_no_caching_words_no_field() -> None:
    assert "cache-control" not in ResponseBuilder().cache().build().headers
    assert ResponseBuilder().cache(no_store=True).build().headers["cache-control"] == "no-store"
