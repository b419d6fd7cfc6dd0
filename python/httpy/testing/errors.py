"""What goes wrong between a test client and the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import HTTPyError

if TYPE_CHECKING:
    from .response import ClientResponse


class ConnectionBroken(HTTPyError, ConnectionError):
    """Says that the server has closed the connection before its response was whole."""


class StatusError(HTTPyError):
    """Says that a response is no success.

    Args:
        response: The response.
    """

    def __init__(self, response: ClientResponse) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        response = self.response
        return f"{response.method} {response.url}: {response.status} {response.reason}".rstrip()


class WebSocketRejected(StatusError):
    """Says that a handshake was answered with a response, which it carries, instead of a WebSocket."""
