"""The test client for tests that are functions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Optional, Union

from .cookies import Cookies
from .response import ClientResponse
from .session import UNSET, MemoryServer, Session, Unset
from .websocket import ClientWebSocket


class TestClient:
    """Has an app served in this process, on a thread of its own and over memory, and sends requests to it.

    What serves is the real server: protocols, limits, middleware, errors and the app's lifespan are those of
    `Server`. Nothing listens anywhere. From any thread; each request has a connection of its own while it runs.

    Args:
        app: The app: one of HTTPy, of ASGI or of WSGI.
        base_url: Where relative URLs begin. With `https`, the app sees requests that came encrypted. Defaults to
            "http://testserver".
        headers: Fields of every request. Defaults to none but `Accept` and `User-Agent`.
        cookies: Cookies to begin with; `client.cookies` has them. Defaults to none.
        follow_redirects: Whether redirects are followed. Defaults to False.
        timeout: The longest to wait for the server at a time, in seconds. None waits for ever. Defaults to 10.
        client: The client's address, as the app sees it. None has none, as with a unix socket. Defaults to
            ("127.0.0.1", 50000).
        **config: As of `Server`: limits, `loop`, `root_path`, `access_log`.

    Raises:
        ConfigError: if a value is wrong.

    Example:
        >>> with TestClient(app) as client:
        ...     assert client.get("/users/7").json() == {"id": 7}
    """

    # pytest takes classes with such a name for tests.
    __test__ = False

    def __init__(
        self,
        app: Any,
        *,
        base_url: str = "http://testserver",
        headers: Optional[Mapping[str, str]] = None,
        cookies: Optional[Mapping[str, str]] = None,
        follow_redirects: bool = False,
        timeout: Optional[float] = 10.0,
        client: Optional[tuple[str, int]] = ("127.0.0.1", 50000),
        **config: Any,
    ) -> None:
        self.app = app
        self._server = MemoryServer(app, **config)
        self._session = Session(
            base_url=base_url,
            headers=headers,
            cookies=cookies,
            follow_redirects=follow_redirects,
            timeout=timeout,
            client=client,
        )

    @property
    def cookies(self) -> Cookies:
        """The cookies that it keeps and sends."""
        return self._session.cookies

    @property
    def headers(self) -> dict[str, str]:
        """Fields of every request, by their names in lower case."""
        return self._session.headers

    @property
    def base_url(self) -> str:
        """Where relative URLs begin."""
        return self._session.base_url

    def __enter__(self) -> TestClient:
        self._server.start()
        self._session.open(self._server.memory)
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._session.close()
        self._server.stop()

    def request(
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
    ) -> ClientResponse:
        """Sends a request, and returns its response.

        `get`, `post`, `put`, `patch`, `delete`, `head` and `options` are the same for one method.

        Args:
            method: The method.
            url: The URL, absolute or relative. An absolute one goes to the app, too.
            params: For its query: a mapping or pairs. A list has its name several times, None is left out.
            headers: Fields: a mapping or pairs. They replace the client's own.
            json: Content in JSON: anything that a handler may return as JSON.
            data: A form, urlencoded; with `files`, its fields. `bytes` or `str` are sent as they are.
            files: Files of a form (RFC 7578): a mapping or pairs of names and content, which is `bytes`, `str`, an
                open file, or (filename, content, content type). A list has its name several times.
            content: Any content: `bytes`, `str`, an open file, or an iterable, which is sent chunk by chunk.
            cookies: Cookies of this request alone, besides the client's.
            auth: User and password (RFC 7617).
            timeout: As of the client, for this request.
            follow_redirects: As of the client, for this request.

        Raises:
            ConnectionBroken: if the server closes the connection before the response is whole.
            TimeoutError: if it takes too long.
            TypeError: if there are two contents.
        """
        return self._session.request(
            method,
            url,
            params=params,
            headers=headers,
            json=json,
            data=data,
            files=files,
            content=content,
            cookies=cookies,
            auth=auth,
            timeout=timeout,
            follow_redirects=follow_redirects,
        )

    def get(self, url: str, **given: Any) -> ClientResponse:
        """Sends GET; see `request`."""
        return self.request("GET", url, **given)

    def post(self, url: str, **given: Any) -> ClientResponse:
        """Sends POST; see `request`."""
        return self.request("POST", url, **given)

    def put(self, url: str, **given: Any) -> ClientResponse:
        """Sends PUT; see `request`."""
        return self.request("PUT", url, **given)

    def patch(self, url: str, **given: Any) -> ClientResponse:
        """Sends PATCH; see `request`."""
        return self.request("PATCH", url, **given)

    def delete(self, url: str, **given: Any) -> ClientResponse:
        """Sends DELETE; see `request`."""
        return self.request("DELETE", url, **given)

    def head(self, url: str, **given: Any) -> ClientResponse:
        """Sends HEAD; see `request`."""
        return self.request("HEAD", url, **given)

    def options(self, url: str, **given: Any) -> ClientResponse:
        """Sends OPTIONS; see `request`."""
        return self.request("OPTIONS", url, **given)

    @contextlib.contextmanager
    def stream(self, method: str, url: str, **given: Any) -> Iterator[ClientResponse]:
        """Sends a request, and gives its response as soon as its head is there.

        Its content is read with `iter_bytes`, `iter_text`, `iter_lines` or `read`; what is not read by the end of
        the block is left, and the connection with it, which the app notices. Arguments and errors are those of
        `request`.
        """
        response = self._session.stream(method, url, **given)
        try:
            yield response
        finally:
            response.close()

    def websocket(
        self,
        url: str,
        subprotocols: Optional[list[str]] = None,
        headers: Any = None,
        *,
        params: Any = None,
        cookies: Optional[Mapping[str, str]] = None,
        auth: Optional[tuple[str, str]] = None,
        timeout: Union[float, Unset, None] = UNSET,
    ) -> ClientWebSocket:
        """Opens a WebSocket, without compression.

        Args:
            url: The URL, absolute or relative.
            subprotocols: Those to offer, the preferred first.
            headers: Fields of the handshake; they replace its own, `Sec-WebSocket-Version` for example.
            params: As of `request`.
            cookies: As of `request`.
            auth: As of `request`.
            timeout: The longest to wait for the server at a time. Defaults to the client's.

        Raises:
            WebSocketRejected: if the app answers with a response, which the error has.
            ProtocolError: if the answer is against RFC 6455.
            ConnectionBroken: if there is none.
            TimeoutError: if it takes too long.
        """
        return self._session.websocket(
            url,
            subprotocols=subprotocols,
            headers=headers,
            params=params,
            cookies=cookies,
            auth=auth,
            timeout=timeout,
        )
