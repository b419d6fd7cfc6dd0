"""Says where a socket listens, as people write it."""

from __future__ import annotations

import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# What reaches a server that listens on every address.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def url_of(listening: socket.socket, *, tls: bool = False) -> str:
    """Returns where a client on this machine finds a socket: `http(s)://host:port`, or `unix:` and a path."""
    address = listening.getsockname()
    if isinstance(address, tuple):
        return http_url(address[0], address[1], tls=tls)
    # A name without a file (Linux) begins with NUL, which is written as @.
    path = os.fsdecode(address)
    return f"unix:{'@' + path[1:] if path[:1] == chr(0) else path}"


def urls_of(sockets: Sequence[socket.socket], settings: Mapping[str, Any]) -> list[str]:
    """Returns where a client finds the sockets of a server with these settings."""
    plain = settings.get("plain", ()) if settings.get("certfile") else None
    return [url_of(one, tls=plain is not None and url_of(one) not in plain) for one in sockets]


def http_url(host: str, port: int, *, tls: bool = False) -> str:
    """Returns the URL of a host, or an address of any version, and a port."""
    host = _ANY.get(host, host)
    return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"
