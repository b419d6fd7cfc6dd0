"""Clients for tests: the real server, over memory, without a socket.

from httpy.testing import TestClient

with TestClient(app) as client:
    assert client.get("/").text == "Hello, World!"
"""

from .async_client import AsyncClientWebSocket, AsyncStream, AsyncTestClient
from .client import TestClient
from .cookies import Cookies
from .errors import ConnectionBroken, StatusError, WebSocketRejected
from .frames import ProtocolError
from .response import ClientResponse
from .websocket import ClientWebSocket

__all__ = [
    "AsyncClientWebSocket",
    "AsyncStream",
    "AsyncTestClient",
    "ClientResponse",
    "ClientWebSocket",
    "ConnectionBroken",
    "Cookies",
    "ProtocolError",
    "StatusError",
    "TestClient",
    "WebSocketRejected",
]
