"""Asks a server whether it is well: a health probe that needs no other program, for containers.

It imports neither asyncio nor an app, so that it costs little however often it runs.
"""

from __future__ import annotations

import os
import socket
import time
from typing import NamedTuple, Optional, Union

from . import _httpy
from .errors import ConfigError, HTTPyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .addresses import Address

# The longest status line and fields that are read, in bytes: nothing of them but the status is needed.
_HEAD_BYTES = 65536

_FORMS = "http(s)://HOST:PORT/path, unix:/path/of/socket:/path, or only /path for the configured address"


class Unhealthy(HTTPyError):
    """Says that a server did not answer well."""


class Target(NamedTuple):
    """What to ask.

    Attributes:
        host: For the Host field, with a port unless that is 80.
        path: The target of the request.
        address: Host and port, or the path of a unix socket.
        name: The host name that the certificate has to have. None: without TLS. Empty: it may be any, because the
            server is known by its address.
    """

    host: str
    path: str
    address: Union[tuple[str, int], str]
    name: Optional[str] = None


def read_url(url: str) -> Target:
    """Reads the URL of a probe.

    Raises:
        ConfigError: if it is none.
    """
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ConfigError(f"--url {url!r} is no URL: write {_FORMS}")
    url, _, _ = url.partition("#")
    if url.startswith("unix:"):
        name, _, path = url[len("unix:") :].partition(":")
        if not name or (path and not path.startswith("/")):
            raise ConfigError(f"--url {url!r}: write unix:/path/of/socket:/path")
        return Target("localhost", path or "/", "\0" + name[1:] if name.startswith("@") else name)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("http", "https"):
        raise ConfigError(f"--url {url!r} is no URL: write {_FORMS}")
    default_port = 443 if scheme == "https" else 80
    authority, slash, path = rest.partition("/")
    authority, question, query = authority.partition("?")
    path = "/" + path if slash else "/" + (question + query)
    host, bracket, rest = authority.partition("]")
    if authority.startswith("[") and bracket:
        host, port = host[1:], rest[1:] if rest.startswith(":") else ""
    else:
        host, _, port = authority.partition(":")
    if not host or "@" in authority or not (port.isdigit() or not port) or int(port or 80) > 65535:
        raise ConfigError(f"--url {url!r} is no URL: write {_FORMS}")
    return Target(authority, path, (host, int(port or default_port)), host if scheme == "https" else None)


def probe(target: Target, timeout: float) -> str:
    """Asks once, and returns what to say about an answer that is well: a status from 200 to 399, as for Kubernetes.

    Args:
        target: What to ask.
        timeout: The longest to wait for the answer, in seconds.

    Raises:
        Unhealthy: if there is none in time, or another one.
    """
    start = time.monotonic()
    try:
        line = _ask(target, start + timeout)
    except (TimeoutError, socket.timeout):
        raise Unhealthy(f"no answer within {timeout:g} seconds") from None
    except OSError as error:
        raise Unhealthy(f"no answer: {error.strerror or error}") from None
    parts = line.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/") or not (parts[1].isdigit() and len(parts[1]) == 3):
        raise Unhealthy(f"the answer is not HTTP: {line[:80]!r}")
    said = " ".join(parts[1:])[:80]
    if not 200 <= int(parts[1]) <= 399:
        raise Unhealthy(said)
    return f"{said} in {(time.monotonic() - start) * 1000:.0f} ms"


def _ask(target: Target, deadline: float) -> str:
    """The status line."""
    with _secure(_connect(target, deadline), target.name) as connection:
        request = (
            f"GET {target.path} HTTP/1.1\r\nHost: {target.host}\r\n"
            f"User-Agent: httpy-check/{_httpy.__version__}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(request.encode("ascii"))
        received = b""
        while True:
            head, end, _ = received.partition(b"\r\n")
            # RFC 9110 §15.2: an interim response is not the answer.
            if end and not head.startswith((b"HTTP/1.1 1", b"HTTP/1.0 1")):
                return head.decode("latin-1")
            _, interim_end, rest = received.partition(b"\r\n\r\n")
            if interim_end:
                received = rest
                continue
            connection.settimeout(_left(deadline))
            more = connection.recv(4096)
            if not more or len(received) > _HEAD_BYTES:
                raise Unhealthy("the connection was closed without an answer")
            received += more


def _connect(target: Target, deadline: float) -> socket.socket:
    if isinstance(target.address, tuple):
        return socket.create_connection(target.address, _left(deadline))
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_left(deadline))
        connection.connect(target.address)
    except BaseException:
        connection.close()
        raise
    return connection


def _secure(connection: socket.socket, name: Optional[str]) -> socket.socket:
    if name is None:
        return connection
    # Not above: it is large, and most are asked without.
    import ssl

    try:
        context = ssl.create_default_context()
        if not name:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(connection, server_hostname=name or None)
    except ssl.SSLError as error:
        connection.close()
        reason = getattr(error, "verify_message", "") or error.reason or str(error)
        raise Unhealthy(f"no TLS: {reason}") from None
    except BaseException:
        connection.close()
        raise


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def url_of_address(read: Address, path: str) -> str:
    """Returns the URL of a path at an address that a server listens on, without TLS.

    Raises:
        ConfigError: if nobody can connect to it by its name.
    """
    if read.path is not None:
        return f"unix:{os.path.abspath(read.path) if not read.path.startswith('@') else read.path}:{path}"
    if read.host is None:
        raise ConfigError(f"{read.text} has no name to ask by: give --url the whole URL")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(read.host, read.host)
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{read.port}{path}"
