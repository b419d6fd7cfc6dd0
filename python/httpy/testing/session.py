"""What both test clients do: requests, redirects, cookies and WebSockets, on a thread that may wait."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Callable, Mapping
from typing import Any, Optional, Union
from urllib.parse import urljoin, urlsplit

from .. import _httpy
from ..server import Server
from .connection import Connection, Fields, Pool
from .content import Content, content_of, join_url
from .cookies import Cookies
from .errors import ConnectionBroken, WebSocketRejected
from .response import ClientResponse
from .websocket import ClientWebSocket, Handshake

# So that a loop is one that is told.
_MAX_REDIRECTS = 20


class Unset:
    """Stands for what was not given, where None says something."""


UNSET = Unset()


class MemoryServer(Server):
    """Is a server that listens in memory, and nowhere else."""

    memory: _httpy.Memory

    def _listen(self, core: _httpy.Core) -> None:
        self.memory = core.listen_in_memory()


class Session:
    """Sends requests to a server, and keeps what belongs to all of them.

    Args:
        base_url: Where relative URLs begin.
        headers: Fields of every request.
        cookies: Cookies to begin with.
        follow_redirects: Whether redirects are followed.
        timeout: The longest to wait for the server at a time, in seconds. None waits for ever.
        client: The client's address, as the server sees it. None has none, as with a unix socket.
    """

    def __init__(
        self,
        *,
        base_url: str,
        headers: Optional[Mapping[str, str]],
        cookies: Optional[Mapping[str, str]],
        follow_redirects: bool,
        timeout: Optional[float],
        client: Optional[tuple[str, int]],
    ) -> None:
        # Not only when it is used.
        join_url(base_url, "/")
        self.base_url = base_url
        self.headers: dict[str, str] = {"accept": "*/*", "user-agent": "testclient"}
        self.headers.update((name.lower(), value) for name, value in (headers or {}).items())
        self.cookies = Cookies(cookies)
        self.follow_redirects = follow_redirects
        self.timeout = timeout
        self._client = client
        self._pool: Optional[Pool] = None

    def open(self, memory: _httpy.Memory) -> None:
        """Has it send to a server."""
        server = None if self._client is None else ("127.0.0.1", urlsplit(self.base_url).port or 80)
        self._pool = Pool(memory, self._client, server)

    def close(self) -> None:
        """Closes all connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def stream(
        self,
        method: str,
        url: str,
        *,
        params: Any = None,
        headers: Any = None,
        json: Any = UNSET,
        data: Any = None,
        files: Any = None,
        content: Any = None,
        cookies: Optional[Mapping[str, str]] = None,
        auth: Optional[tuple[str, str]] = None,
        timeout: Union[float, Unset, None] = UNSET,
        follow_redirects: Optional[bool] = None,
        opened: Callable[[Connection], None] = lambda connection: None,
    ) -> ClientResponse:
        """Sends a request, and returns its response before there is its content."""
        body, kind = content_of(content, None if json is UNSET else json, data, files, json is not UNSET)
        fields = self._fields(headers, auth)
        if kind is not None and not _has(fields, "content-type"):
            fields.append(("content-type", kind))
        url = join_url(self.base_url, url, params)
        limit = self.timeout if isinstance(timeout, Unset) else timeout
        follows = self.follow_redirects if follow_redirects is None else follow_redirects
        history: list[ClientResponse] = []
        while True:
            response = self._exchange(method, url, fields, body, cookies, limit, opened)
            response.history = list(history)
            if not (follows and response.is_redirect):
                return response
            response.read()
            history.append(response)
            if len(history) > _MAX_REDIRECTS:
                raise ConnectionBroken(f"more than {_MAX_REDIRECTS} redirects, the last one to {url}")
            target = join_url(self.base_url, urljoin(url, response.headers["location"]))
            if urlsplit(target).netloc != urlsplit(url).netloc:
                fields = [field for field in fields if field[0] != "authorization"]
            url = target
            if response.status == 303 or (response.status in (301, 302) and method == "POST"):
                # RFC 9110 §15.4: what was sent is not sent again.
                method, body = "HEAD" if method == "HEAD" else "GET", b""
                fields = [field for field in fields if not field[0].startswith("content-")]
            elif not isinstance(body, bytes):
                raise TypeError("content that was iterated over can't be sent to where a redirect leads")

    def request(self, method: str, url: str, **given: Any) -> ClientResponse:
        """Sends a request, and returns its whole response."""
        response = self.stream(method, url, **given)
        response.read()
        return response

    def websocket(
        self,
        url: str,
        *,
        subprotocols: Optional[list[str]] = None,
        params: Any = None,
        headers: Any = None,
        cookies: Optional[Mapping[str, str]] = None,
        auth: Optional[tuple[str, str]] = None,
        timeout: Union[float, Unset, None] = UNSET,
        opened: Callable[[Connection], None] = lambda connection: None,
    ) -> ClientWebSocket:
        """Opens a WebSocket."""
        handshake = Handshake(tuple(subprotocols or ()))
        url = join_url(self.base_url, url, params)
        limit = self.timeout if isinstance(timeout, Unset) else timeout
        pool, is_tls = self._running(), url.startswith(("https", "wss"))
        connection = pool.connect(is_tls)
        opened(connection)
        try:
            fields = self._fields(headers, auth)
            fields += [field for field in handshake.fields() if not _has(fields, field[0])]
            found = self._send(connection, "GET", url, fields, b"", cookies, limit)
            # What came right behind the answer is in this file.
            file = found.fp
            response = ClientResponse(
                found, method="GET", url=url, done=lambda is_whole: None, abort=connection.abort
            )
            response.cookies = self.cookies.take(url, response.headers.getlist("set-cookie"))
            if response.status != 101:
                response.read()
                raise WebSocketRejected(response)
            chosen = handshake.check(response.headers)
        except BaseException:
            pool.drop(connection)
            raise
        response._content, response._done = b"", None
        return ClientWebSocket(connection, file, response, chosen, limit)

    def _running(self) -> Pool:
        if self._pool is None:
            raise RuntimeError("the client is not started: use it with `with`")
        return self._pool

    def _fields(self, headers: Any, auth: Optional[tuple[str, str]]) -> Fields:
        pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
        given = [(str(name).lower(), str(value)) for name, value in pairs]
        fields = [field for field in self.headers.items() if not _has(given, field[0])] + given
        if auth is not None:
            encoded = base64.b64encode(f"{auth[0]}:{auth[1]}".encode()).decode()
            fields.append(("authorization", f"Basic {encoded}"))
        return fields

    def _exchange(
        self,
        method: str,
        url: str,
        fields: Fields,
        body: Content,
        cookies: Optional[Mapping[str, str]],
        timeout: Optional[float],
        opened: Callable[[Connection], None],
    ) -> ClientResponse:
        pool, is_tls = self._running(), url.startswith(("https", "wss"))
        connection = pool.take(is_tls)
        opened(connection)
        try:
            found = self._send(connection, method, url, fields, body, cookies, timeout)
        except BaseException:
            pool.drop(connection)
            raise

        def done(is_whole: bool) -> None:
            if is_whole:
                pool.give_back(connection, is_tls)
            else:
                pool.drop(connection)

        response = ClientResponse(found, method=method, url=url, done=done, abort=connection.abort)
        response.cookies = self.cookies.take(url, response.headers.getlist("set-cookie"))
        return response

    def _send(
        self,
        connection: Connection,
        method: str,
        url: str,
        fields: Fields,
        body: Content,
        cookies: Optional[Mapping[str, str]],
        timeout: Optional[float],
    ) -> Any:
        parts = urlsplit(url)
        sent = list(fields)
        if not _has(sent, "host"):
            sent.insert(0, ("host", parts.netloc))
        if not _has(sent, "cookie") and (cookie := self.cookies.field_for(url, cookies)):
            sent.append(("cookie", cookie))
        if not _has(sent, "content-length") and not _has(sent, "transfer-encoding"):
            if not isinstance(body, bytes):
                sent.append(("transfer-encoding", "chunked"))
            elif body or method in ("POST", "PUT", "PATCH"):
                # RFC 9110 §8.6.
                sent.append(("content-length", str(len(body))))
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            return connection.exchange(method, target, sent, body, timeout)
        except (http.client.HTTPException, ConnectionError) as error:
            raise ConnectionBroken("the server has closed the connection without a response") from error


def _has(fields: Fields, name: str) -> bool:
    return any(field[0] == name for field in fields)
