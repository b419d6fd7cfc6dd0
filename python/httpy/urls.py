"""Says where a socket listens, as people write it."""

from __future__ import annotations

import os
import socket

# What reaches a server that listens on every address.
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def url_of(listening: socket.socket) -> str:
    """Returns where a client on this machine finds a socket: `http://host:port`, or `unix:` and a path."""
    address = listening.getsockname()
    if isinstance(address, tuple):
        return http_url(address[0], address[1])
    # A name without a file (Linux) begins with NUL, which is written as @.
    path = os.fsdecode(address)
    return f"unix:{'@' + path[1:] if path[:1] == chr(0) else path}"


def http_url(host: str, port: int) -> str:
    """Returns the URL of a host, or an address of any version, and a port."""
    host = _ANY.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
