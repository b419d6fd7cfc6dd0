"""Kinds of responses, helpers that make them, and a builder."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Optional, Union

from ._httpy import Response, json_dumps
from .errors import phrase

HeadersLike = Union[Mapping[str, str], Iterable[tuple[str, str]]]
Background = Optional[Callable[[], Any]]

_REDIRECTS = (300, 301, 302, 303, 307, 308)
# What a URL may hold as it is (RFC 3986 §2.2, §2.3), and `%`, so that what is encoded stays encoded.
_URL_SAFE = "%/:=&?~#+!$,;'@()*[]"


class JSONResponse(Response):
    """Is a response whose body is a value as JSON; a str too becomes a JSON string.

    Args:
        content: What to send. Defaults to null.
        status: The status code. Defaults to 200.
        headers: Fields to send. Defaults to none.
        media_type: The content type. Defaults to `application/json`.
        background: Called after the response was sent. Defaults to nothing.

    Raises:
        TypeError: if JSON can't say the value.
    """

    def __new__(
        cls,
        content: Any = None,
        status: int = 200,
        headers: Optional[HeadersLike] = None,
        *,
        media_type: str = "application/json",
        background: Background = None,
    ) -> JSONResponse:
        body = json_dumps(content)
        return Response.__new__(cls, body, status, headers, media_type=media_type, background=background)


class HTMLResponse(Response):
    """Is a response with HTML, in UTF-8."""

    def __new__(
        cls,
        body: Union[str, bytes] = "",
        status: int = 200,
        headers: Optional[HeadersLike] = None,
        *,
        media_type: str = "text/html; charset=utf-8",
        background: Background = None,
    ) -> HTMLResponse:
        return Response.__new__(cls, body, status, headers, media_type=media_type, background=background)


class PlainTextResponse(Response):
    """Is a response with plain text, in UTF-8."""

    def __new__(
        cls,
        body: Union[str, bytes] = "",
        status: int = 200,
        headers: Optional[HeadersLike] = None,
        *,
        media_type: str = "text/plain; charset=utf-8",
        background: Background = None,
    ) -> PlainTextResponse:
        return Response.__new__(cls, body, status, headers, media_type=media_type, background=background)


class RedirectResponse(Response):
    """Sends the client to another URL.

    Args:
        url: Where to. What a URL can't hold is percent-encoded, line breaks among it.
        status: 300, 301, 302, 303, 307 or 308. Defaults to 307, which keeps method and body.
        headers: Further fields. Defaults to none.
        background: Called after the response was sent. Defaults to nothing.

    Raises:
        ValueError: if the status is not a redirect's.
    """

    def __new__(
        cls,
        url: str,
        status: int = 307,
        headers: Optional[HeadersLike] = None,
        *,
        background: Background = None,
    ) -> RedirectResponse:
        if status not in _REDIRECTS:
            raise ValueError(f"a redirect has one of the statuses {_REDIRECTS}, found {status!r}")
        response = Response.__new__(cls, b"", status, headers, background=background)
        response.headers["location"] = _encoded(str(url))
        return response


class StreamingResponse(Response):
    """Is a response whose body is sent as it is made.

    Args:
        content: An iterable or async iterable of str (sent as UTF-8) or bytes. It is asked for the next piece
            when the client has room for it, so memory holds about one piece.
        status: The status code. Defaults to 200.
        headers: Fields to send. Defaults to none.
        media_type: The content type. Defaults to none.
        background: Called after the response was sent. Defaults to nothing.

    Raises:
        TypeError: if content is not iterable, or is a whole str or bytes.
    """

    def __new__(
        cls,
        content: Union[Iterable[Union[str, bytes]], AsyncIterable[Union[str, bytes]]],
        status: int = 200,
        headers: Optional[HeadersLike] = None,
        *,
        media_type: Optional[str] = None,
        background: Background = None,
    ) -> StreamingResponse:
        if isinstance(content, (str, bytes, bytearray, memoryview, dict)) or not _is_iterable(content):
            raise TypeError(
                f"a stream is an iterable or async iterable of str or bytes, found {type(content)!r}"
            )
        # An iterator, because a list would be taken for JSON.
        body = content if hasattr(content, "__aiter__") else iter(content)
        return Response.__new__(cls, body, status, headers, media_type=media_type, background=background)


def ok(body: Any = None, headers: Optional[HeadersLike] = None) -> Response:
    """Makes a 200 response."""
    return _answer(200, body, headers)


def created(
    body: Any = None, *, location: Optional[str] = None, headers: Optional[HeadersLike] = None
) -> Response:
    """Makes a 201 response; location is the URL of what was made."""
    response = _answer(201, body, headers)
    if location is not None:
        response.headers["location"] = _encoded(location)
    return response


def accepted(body: Any = None, headers: Optional[HeadersLike] = None) -> Response:
    """Makes a 202 response: the work will be done later."""
    return _answer(202, body, headers)


def no_content(headers: Optional[HeadersLike] = None) -> Response:
    """Makes a 204 response, which has no body."""
    return Response(None, 204, headers)


def bad_request(detail: Any = None, headers: Optional[HeadersLike] = None) -> Response:
    """Makes a 400 response. A str becomes `{"detail": ...}`; anything else is the body."""
    return _refusal(400, detail, headers)


def unauthorized(
    detail: Any = None,
    *,
    scheme: str = "Bearer",
    realm: Optional[str] = None,
    challenge: Optional[str] = None,
    headers: Optional[HeadersLike] = None,
) -> Response:
    """Makes a 401 response with the challenge that it must have (RFC 9110 §11.6.1).

    Args:
        detail: What the client is told. Defaults to "Unauthorized".
        scheme: How to authenticate, such as "Basic". Defaults to "Bearer".
        realm: The part of the server that the credentials are for. Defaults to none.
        challenge: The whole `WWW-Authenticate` field, instead of scheme and realm.
        headers: Further fields. Defaults to none.
    """
    response = _refusal(401, detail, headers)
    quoted = "" if realm is None else ' realm="' + realm.replace("\\", "\\\\").replace('"', '\\"') + '"'
    response.headers["www-authenticate"] = f"{scheme}{quoted}" if challenge is None else challenge
    return response


def forbidden(detail: Any = None, headers: Optional[HeadersLike] = None) -> Response:
    """Makes a 403 response. A str becomes `{"detail": ...}`; anything else is the body."""
    return _refusal(403, detail, headers)


def not_found(detail: Any = None, headers: Optional[HeadersLike] = None) -> Response:
    """Makes a 404 response. A str becomes `{"detail": ...}`; anything else is the body."""
    return _refusal(404, detail, headers)


def conflict(detail: Any = None, headers: Optional[HeadersLike] = None) -> Response:
    """Makes a 409 response. A str becomes `{"detail": ...}`; anything else is the body."""
    return _refusal(409, detail, headers)


def too_many_requests(
    detail: Any = None, *, retry_after: Optional[float] = None, headers: Optional[HeadersLike] = None
) -> Response:
    """Makes a 429 response; retry_after is in seconds, rounded up."""
    response = _refusal(429, detail, headers)
    if retry_after is not None:
        # RFC 9110 §10.2.3: whole seconds. Rounded up, because too early is asked twice.
        response.headers["retry-after"] = str(max(0, -int(-retry_after // 1)))
    return response


def server_error(detail: Any = None, headers: Optional[HeadersLike] = None) -> Response:
    """Makes a 500 response. A str becomes `{"detail": ...}`; anything else is the body."""
    return _refusal(500, detail, headers)


def redirect(url: str, permanent: bool = False, headers: Optional[HeadersLike] = None) -> RedirectResponse:
    """Makes a redirect that keeps method and body: 308 if it is permanent, else 307."""
    return RedirectResponse(url, 308 if permanent else 307, headers)


class ResponseBuilder:
    """Builds a response step by step; every step returns the builder.

    Example:
        >>> ResponseBuilder().status(201).header("X-A", "1").json({"id": 1}).cache(max_age=60).build().status
        201
    """

    def __init__(self) -> None:
        self._status = 200
        self._body: Any = b""
        self._media_type: Optional[str] = None
        self._headers: list[tuple[str, str]] = []
        self._cookies: list[tuple[str, str, dict[str, Any]]] = []
        self._background: Background = None

    def status(self, status: int) -> ResponseBuilder:
        """Sets the status code."""
        self._status = status
        return self

    def header(self, name: str, value: str) -> ResponseBuilder:
        """Sets a field, in place of any with that name."""
        self._headers.append((name, value))
        return self

    def headers(self, headers: HeadersLike) -> ResponseBuilder:
        """Sets several fields, in place of any with those names."""
        self._headers.extend(headers.items() if isinstance(headers, Mapping) else headers)
        return self

    def json(self, value: Any) -> ResponseBuilder:
        """Sets the body to a value as JSON."""
        return self.body(json_dumps(value), "application/json")

    def text(self, text: str) -> ResponseBuilder:
        """Sets the body to plain text."""
        return self.body(text, "text/plain; charset=utf-8")

    def html(self, html: str) -> ResponseBuilder:
        """Sets the body to HTML."""
        return self.body(html, "text/html; charset=utf-8")

    def body(self, body: Any, media_type: Optional[str] = None) -> ResponseBuilder:
        """Sets the body to whatever a `Response` takes, iterators included."""
        self._body, self._media_type = body, media_type
        return self

    def cookie(self, name: str, value: str, **attributes: Any) -> ResponseBuilder:
        """Sets a cookie; the attributes are those of `Response.set_cookie`."""
        self._cookies.append((name, value, attributes))
        return self

    def cache(
        self,
        *,
        max_age: Optional[int] = None,
        public: bool = False,
        private: bool = False,
        no_cache: bool = False,
        no_store: bool = False,
        must_revalidate: bool = False,
        immutable: bool = False,
        stale_while_revalidate: Optional[int] = None,
    ) -> ResponseBuilder:
        """Says how the response may be cached (RFC 9111 §5.2.2, RFC 8246, RFC 5861); times are in seconds."""
        words = {
            "public": public,
            "private": private,
            "no-cache": no_cache,
            "no-store": no_store,
            "must-revalidate": must_revalidate,
            "immutable": immutable,
        }
        times = {"max-age": max_age, "stale-while-revalidate": stale_while_revalidate}
        directives = [word for word, is_set in words.items() if is_set]
        directives += [f"{name}={seconds}" for name, seconds in times.items() if seconds is not None]
        return self.header("cache-control", ", ".join(directives)) if directives else self

    def background(self, function: Callable[[], Any]) -> ResponseBuilder:
        """Sets what is called after the response was sent."""
        self._background = function
        return self

    def build(self) -> Response:
        """Makes the response; may be called again, for another one like it."""
        response = Response(
            self._body, self._status, media_type=self._media_type, background=self._background
        )
        for name, value in self._headers:
            response.headers[name] = value
        for name, value, attributes in self._cookies:
            response.set_cookie(name, value, **attributes)
        return response


def _encoded(url: str) -> str:
    """Percent-encodes what a URL can't hold."""
    # Not above: it takes half a MiB, and most apps redirect nobody.
    from urllib.parse import quote

    return quote(url, safe=_URL_SAFE)


def _is_iterable(content: Any) -> bool:
    return hasattr(content, "__iter__") or hasattr(content, "__aiter__")


def _answer(status: int, body: Any, headers: Optional[HeadersLike]) -> Response:
    return Response(body, status, headers)


def _refusal(status: int, detail: Any, headers: Optional[HeadersLike]) -> Response:
    if detail is None:
        detail = phrase(status)
    return Response({"detail": detail} if isinstance(detail, str) else detail, status, headers)
