"""The exceptions of HTTPy: who can fix what."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Optional


class HTTPyError(Exception):
    """Is the base of every exception that HTTPy defines."""


class ConfigError(HTTPyError, ValueError):
    """Says that a configuration value is wrong, or asks for what is not there."""


class RouteError(HTTPyError):
    """Says that a route can't be registered, or that no URL can be built for it."""


class HTTPError(HTTPyError):
    """Ends a handler or a middleware with an error response.

    The response is `{"detail": detail}` with the given status, unless `@app.error` says otherwise.

    Args:
        status: The status code, 200 to 599: an informational status (1xx) ends nothing.
        detail: What the client is told; anything that JSON can say. Defaults to the status's own phrase.
        headers: Fields of the response. Defaults to none.

    Raises:
        ValueError: if status is not a status code.
    """

    def __init__(self, status: int, detail: Any = None, headers: Optional[Mapping[str, str]] = None) -> None:
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError(f"an HTTP status is a number from 200 to 599, found {status!r}")
        super().__init__(status, detail, headers)
        self.status = int(status)
        self.detail = phrase(self.status) if detail is None else detail
        self.headers = headers

    def __str__(self) -> str:
        return f"{self.status}: {self.detail}"


class WebSocketDisconnect(HTTPyError):
    """Says that the other side of a WebSocket has closed it.

    Args:
        code: The close code (RFC 6455 §7.4). Defaults to 1005, "no code was sent".
        reason: What the peer said about it. Defaults to nothing.
    """

    def __init__(self, code: int = 1005, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}" if self.reason else str(self.code)


class ClientDisconnected(HTTPyError, ConnectionError):
    """Says that the client went away before it had everything, or before it had sent everything.

    It is an `OSError` too, which is what ASGI and WSGI apps expect then.
    """


def phrase(status: int) -> str:
    """Returns the reason phrase of a status, "Not Found" of 404; empty if it has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
