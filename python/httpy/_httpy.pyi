"""The native half of HTTPy. Everything public here is re-exported by `httpy`.

The summaries are the native ones too: tests_py/test_stub.py compares them.
"""

from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Protocol, TypeVar, Union, final, overload

from typing_extensions import Self, disjoint_base

_Default = TypeVar("_Default")
_Fields = Union[Mapping[str, str], Iterable[tuple[str, str]]]

# -- data --------------------------------------------------------------------------------------------------------------

@final
class Headers(Mapping[str, str]):
    """A request's header fields: case-insensitive and multi-valued.

    `headers["accept"]` is all lines of a field, joined with `, ` (RFC 9110 §5.3). Values are read as ISO-8859-1, so
    that every byte has a character.
    """
    def __getitem__(self, name: str, /) -> str: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    @overload
    def get(self, name: str, /, default: None = None) -> str | None:
        """Returns a field's value, its lines joined with `, `; the default if it is not there."""
    @overload
    def get(self, name: str, /, default: _Default) -> str | _Default: ...
    def getlist(self, name: str, /) -> list[str]:
        """Returns the values of a field's lines, in order."""
    def keys(self) -> list[str]:  # type: ignore[override]
        """Returns the names, in lower case, each once."""
    def values(self) -> list[str]:  # type: ignore[override]
        """Returns the value of each name."""
    def items(self) -> list[tuple[str, str]]:  # type: ignore[override]
        """Returns (name, value) pairs, each name once."""
    def multi_items(self) -> list[tuple[str, str]]:
        """Returns (name, value) pairs, one for each line."""

@final
class QueryParams(Mapping[str, str]):
    """A request's query parameters, or a form's fields: multi-valued.

    `query["a"]` is the last value of `a`. `+` is a space, percent-encoded bytes are UTF-8 (WHATWG URL §5.1).
    `str(query)` is the query as it was sent.
    """
    def __getitem__(self, name: str, /) -> str: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    @overload
    def get(self, name: str, /, default: None = None) -> str | None:
        """Returns the last value of a name; the default if it is not there."""
    @overload
    def get(self, name: str, /, default: _Default) -> str | _Default: ...
    def getlist(self, name: str, /) -> list[str]:
        """Returns the values of a name, in order."""
    def keys(self) -> list[str]:  # type: ignore[override]
        """Returns the names, each once."""
    def values(self) -> list[str]:  # type: ignore[override]
        """Returns the last value of each name."""
    def items(self) -> list[tuple[str, str]]:  # type: ignore[override]
        """Returns (name, last value) pairs, each name once."""
    def multi_items(self) -> list[tuple[str, str]]:
        """Returns (name, value) pairs, as they were sent."""

@final
class MutableHeaders:
    """A response's header fields: case-insensitive and multi-valued.

    `headers["x-a"] = "1"` replaces all lines of a field. What can't be a field raises ValueError: a name that is no
    token, a value with control characters or with characters outside ISO-8859-1 (RFC 9110 §5.1, §5.5).
    """
    def __getitem__(self, name: str, /) -> str: ...
    def __setitem__(self, name: str, value: str, /) -> None: ...
    def __delitem__(self, name: str, /) -> None: ...
    def __contains__(self, name: object, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    @overload
    def get(self, name: str, /, default: None = None) -> str | None:
        """Returns a field's value, its lines joined with `, `; the default if it is not there."""
    @overload
    def get(self, name: str, /, default: _Default) -> str | _Default: ...
    def getlist(self, name: str, /) -> list[str]:
        """Returns the values of a field's lines, in order."""
    def keys(self) -> list[str]:
        """Returns the names, in lower case, each once."""
    def values(self) -> list[str]:
        """Returns the value of each name."""
    def items(self) -> list[tuple[str, str]]:
        """Returns (name, value) pairs, each name once."""
    def multi_items(self) -> list[tuple[str, str]]:
        """Returns (name, value) pairs, one for each line."""
    def add(self, name: str, value: str, /) -> None:
        """Adds a line and keeps those already there.

        Raises:
            ValueError: if it can't be a field.
        """
    def setdefault(self, name: str, value: str, /) -> str:
        """Sets a field unless it is there, and returns its value.

        Raises:
            ValueError: if it can't be a field.
        """
    def update(self, fields: _Fields, /) -> None:
        """Sets every field of a mapping or of pairs.

        Lines that were there are replaced; a name given several times has several lines.

        Raises:
            ValueError: if one can't be a field; then nothing is changed.
        """

@final
class Request:
    """A request (read-only, filled lazily).

    Nothing is made before it is asked for. The content has arrived before the handler is called, unless that was
    registered with `stream=True`. It may be used on any thread.
    """
    @property
    def method(self) -> str:
        """The method, such as "GET" (RFC 9110 §9)."""
    @property
    def path(self) -> str:
        """The path, percent-decoded, without the query.

        What is not UTF-8 is replaced. In a mounted app it has the prefix of the mount; see `root_path`.
        """
    @property
    def raw_path(self) -> bytes:
        """The path as it was sent."""
    @property
    def environ(self) -> dict[str, Any]:
        """The request as WSGI has it (PEP 3333): a dict of its own, made once.

        For what is made for WSGI: `webob.Request(request.environ)`, `werkzeug.Request(request.environ)`. Its
        `wsgi.input` has the content; in a handler with `stream=True` it waits for that, which only a `def` handler may.
        """
    @property
    def root_path(self) -> str:
        """The path that a proxy and the mounts on the way have taken."""
    @property
    def query_string(self) -> bytes:
        """The query as it was sent, without the `?`."""
    @property
    def scheme(self) -> Literal["http", "https"]:
        """The scheme: `https` on a TLS connection, else `http`."""
    @property
    def http_version(self) -> Literal["1.0", "1.1", "2", "3"]:
        """The version of HTTP: `1.0`, `1.1`, `2` or `3`."""
    @property
    def version(self) -> str:
        """The protocol as HTTP/1 writes it, `HTTP/1.1`."""
    @property
    def url(self) -> str:
        """The target as an absolute URL.

        The host is the target's own, else the Host field's (RFC 9110 §7.1): the client's word, which may be anything.
        """
    @property
    def headers(self) -> Headers:
        """The header fields."""
    @property
    def query(self) -> QueryParams:
        """The query parameters."""
    @property
    def query_params(self) -> QueryParams:
        """The same as `query`, under Starlette's name."""
    @property
    def cookies(self) -> dict[str, str]:
        """The cookies the client sent (RFC 6265 §5.4).

        Of two with one name the first wins, as the more specific path is sent first.
        """
    @property
    def path_params(self) -> dict[str, Any]:
        """The path parameters, converted."""
    @property
    def client(self) -> tuple[str, int] | None:
        """Host and port of the client; None where there are none."""
    @property
    def client_address(self) -> str:
        """The address of the client; empty where there is none."""
    @property
    def server(self) -> tuple[str, int] | None:
        """Host and port the client has connected to; None where there are none."""
    @property
    def body(self) -> bytes:
        """The content.

        At most `max_body_bytes`.

        Raises:
            RuntimeError: with `stream=True`, where it has not arrived: read `stream()`.
        """
    @property
    def text(self) -> str:
        """The content as text.

        By the charset of Content-Type, else UTF-8.

        Raises:
            HTTPError: 400 if it does not decode.
            RuntimeError: with `stream=True`: read `stream()`.
        """
    @property
    def json(self) -> Any:
        """The content as JSON.

        Read once: the same object each time. The content type is not looked at.

        Raises:
            HTTPError: 400 if it is not JSON (RFC 8259), with the place of the mistake.
            RuntimeError: with `stream=True`: read `stream()`.
        """
    @property
    def form(self) -> QueryParams:
        """The fields of an urlencoded form.

        Raises:
            HTTPError: 415 if the content type is not `application/x-www-form-urlencoded`, 400 if it is not UTF-8.
            RuntimeError: with `stream=True`: read `stream()`.
        """
    @property
    def state(self) -> Any:
        """A place for the application's own values, with those `lifespan` yielded.

        One for each request; middleware and handler share it.
        """
    @property
    def app(self) -> Any:
        """The application that answers."""
    @property
    def id(self) -> str:
        """A random id of this request, 32 hexadecimal digits."""
    @property
    def is_keep_alive(self) -> bool:
        """Whether the client wants the connection kept (RFC 9112 §9.3)."""
    @property
    def is_disconnected(self) -> bool:
        """Whether the client went away before it was answered.

        Not known before the handler has awaited something, or runs on a pool thread.
        """
    @property
    def is_stopping(self) -> bool:
        """Whether the server stops: a stream that would go on for long should come to its end."""
    @property
    def route(self) -> str | None:
        """The pattern of the route that answers."""
    @property
    def tls(self) -> TLSSession | None:
        """Details of the TLS session; None on a plain connection."""
    def get_header(self, name: str, default: str | None = None) -> str | None:
        """Returns a field's value, its lines joined with `, `; the default if it is not there."""
    def get_query(self, name: str, default: str | None = None) -> str | None:
        """Returns the last value of a query parameter; the default if it is not there."""
    def supports(self, feature: str, /) -> bool:
        """Whether the protocol this request came by can do something.

        Args:
            feature: "trailers", "early_hints", "push", "websocket", "http3" or another; the error names all.

        Raises:
            ValueError: if there is no such feature.
        """
    def early_hints(self, links: Iterable[str], /) -> Awaitable[bool]:
        """Sends links ahead of the response, as 103 Early Hints.

        They are sent when this is called. Awaiting it does not wait: a `def` handler looks at its truth instead. By
        HTTP/1.1 they are sent only with the setting `h1_early_hints`, and never by HTTP/1.0: not all clients can take
        them there (RFC 8297 §3).

        Args:
            links: Values of `Link` fields, such as `</app.css>; rel=preload; as=style`.

        Returns:
            Whether they were sent: not by a protocol that has no such thing, and not once the response has begun.

        Raises:
            ValueError: if a link can't be a field value.
        """
    def push(self, path: str, headers: _Fields | None = None) -> bool:
        """Pushes: promises the client a response that it did not ask for yet.

        The app answers the promised GET request as if it had come from the client, through all middleware.

        Args:
            path: The path, percent-encoded, with a query or not. Scheme and host are those of this request.
            headers: The fields of the promised request. Defaults to this request's `Accept-Encoding`,
                `Accept-Language`, `Authorization`, `Cookie` and `User-Agent`.

        Returns:
            Whether it was promised: not by a protocol that has no such thing, not to a client that does not want it or
            has enough of it (HTTP/2 clients say so), and not once the response has ended.

        Raises:
            ValueError: if it is no path, or a field can't be one.
        """
    def stream(self) -> Chunks:
        """The content as it arrives, for handlers registered with `stream=True`.

        In other handlers it is the whole content at once.

        Raises:
            RuntimeError: if it was called already: content arrives only once.
        """

@final
class Chunks:
    """Chunks of request content, for `async for`, or for `for` on a thread that may block.

    At most 64 KiB and one frame wait in memory; then the client has to wait.
    """
    def __iter__(self) -> Iterator[bytes]: ...
    def __next__(self) -> bytes: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def __anext__(self) -> Awaitable[bytes]: ...

@final
class WebSocket(AsyncIterator[Union[str, bytes]]):
    """A WebSocket, for `async def` handlers.

    `async for message in websocket` receives until the end. What is sent goes out when the method is called; awaiting
    it waits for room.
    """
    def accept(self, subprotocol: str | None = None, headers: _Fields | None = None) -> Awaitable[None]:
        """Opens the WebSocket.

        Args:
            subprotocol: One of those in `subprotocols`. Defaults to none.
            headers: Fields of the handshake's answer, cookies for example. Defaults to none.

        Raises:
            RuntimeError: if the handshake was answered already.
            ValueError: if the client has not offered the subprotocol, or a field is one of the handshake's own.
        """
    def reject(
        self, content: Any = None, status: int = 403, headers: _Fields | None = None
    ) -> Awaitable[None]:
        """Answers the handshake with an HTTP response instead of opening the WebSocket.

        Args:
            content: What any handler may return, a `Response` for example. Defaults to nothing.
            status: Its status, from 300 on. Defaults to 403.
            headers: Its fields. Defaults to none.

        Raises:
            RuntimeError: if the handshake was answered already.
            ValueError: if the status is a success.
        """
    def receive(self) -> Awaitable[Union[str, bytes]]:
        """Waits for the next message: a `str` or `bytes`, as the client sent it.

        What came before the end is received, then comes the exception. One waits at a time.

        Raises:
            WebSocketDisconnect: at the end, with its code and reason.
            RuntimeError: if it was not accepted, or another task waits.
        """
    def receive_text(self) -> Awaitable[str]:
        """Waits for the next message, which has to be text.

        Raises:
            WebSocketDisconnect: as `receive`; and if it is binary, which closes the WebSocket with 1003.
        """
    def receive_bytes(self) -> Awaitable[bytes]:
        """Waits for the next message, which has to be binary.

        Raises:
            WebSocketDisconnect: as `receive`; and if it is text, which closes the WebSocket with 1003.
        """
    def receive_json(self) -> Awaitable[Any]:
        """Waits for the next message, which has to be JSON, and returns what it says.

        Raises:
            WebSocketDisconnect: as `receive`; and if it is not JSON, which closes the WebSocket with 1007.
        """
    def send(self, data: Union[str, bytes, bytearray, memoryview], /) -> Awaitable[None]:
        """Sends a message: text if it is a `str`, else binary.

        Waits while the client reads too slowly, as far as the route's `when_full` says so.

        Raises:
            WebSocketDisconnect: if it is closed, or about to be.
            RuntimeError: if it was not accepted.
            TypeError: if it is neither text nor bytes.
        """
    def send_text(self, data: str, /) -> Awaitable[None]:
        """Sends a text message.

        Raises:
            WebSocketDisconnect: as `send`.
        """
    def send_bytes(self, data: Union[bytes, bytearray, memoryview], /) -> Awaitable[None]:
        """Sends a binary message.

        Raises:
            WebSocketDisconnect: as `send`.
        """
    def send_json(self, data: Any, /) -> Awaitable[None]:
        """Sends a value as JSON, in a text message.

        Raises:
            WebSocketDisconnect: as `send`.
            TypeError: if JSON can't say it.
        """
    def ping(self, data: Union[str, bytes, bytearray, memoryview, None] = None, /) -> Awaitable[None]:
        """Sends a ping (RFC 6455 §5.5.2). Clients answer by themselves; nobody waits for that.

        Inside of another server, whose own pings are, nothing is sent.

        Raises:
            WebSocketDisconnect: as `send`.
            ValueError: if it has more than 125 bytes.
        """
    def close(self, code: int = 1000, reason: str = "") -> Awaitable[None]:
        """Closes the WebSocket, behind what was sent before.

        Does not wait for the client to agree. Nothing happens if it is closed already.

        Args:
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999 for the application (RFC 6455 §7.4). Defaults to 1000.
            reason: At most 123 bytes. Defaults to nothing.

        Raises:
            ValueError: if code or reason can't be sent.
            RuntimeError: if it was not accepted.
        """
    def join(self, room: str, /) -> Awaitable[None]:
        """Makes it a member of a room, until it leaves or ends.

        It is one when this returns, awaited or not: what `App.broadcast` sends to the room comes from then on. Joining
        twice is joining once.

        Args:
            room: Any name of 1 to 255 bytes. A room is there while it has members.

        Raises:
            WebSocketDisconnect: if it is closed, or about to be.
            RuntimeError: if it was not accepted.
            ValueError: if the name is too long or empty, or it is in `ws_max_rooms` rooms already.
        """
    def leave(self, room: str, /) -> Awaitable[None]:
        """Takes it out of a room.

        Without effect if it is no member.

        Raises:
            RuntimeError: if it was not accepted.
        """
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[Union[str, bytes]]: ...
    @property
    def connection_state(self) -> Literal["connecting", "open", "closed"]:
        """`connecting` until the handshake is answered, then `open`, and `closed` at the end.

        `closed` as soon as nothing more can be sent, because either side has closed.
        """
    @property
    def close_code(self) -> int | None:
        """How it ended: the code of the close, 1006 if there was none; None before."""
    @property
    def close_reason(self) -> str | None:
        """What was said about the close; None before."""
    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, the preferred first."""
    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was accepted, if one was."""
    @property
    def rooms(self) -> list[str]:
        """The rooms that it is in, sorted."""
    @property
    def request(self) -> Request:
        """The request that asked for the WebSocket."""
    @property
    def app(self) -> Any:
        """The application."""
    @property
    def client(self) -> tuple[str, int] | None:
        """Host and port of the client; None where there are none."""
    @property
    def cookies(self) -> dict[str, str]:
        """The cookies of the handshake."""
    @property
    def headers(self) -> Headers:
        """The header fields of the handshake."""
    @property
    def path(self) -> str:
        """The path, percent-decoded, without the query."""
    @property
    def path_params(self) -> dict[str, Any]:
        """The path parameters, converted."""
    @property
    def query(self) -> QueryParams:
        """The query parameters."""
    @property
    def query_params(self) -> QueryParams:
        """The same as `query`, under Starlette's name."""
    @property
    def state(self) -> Any:
        """A place for the application's own values, with those `lifespan` yielded."""
    @property
    def url(self) -> str:
        """The target of the handshake as an absolute URL, `ws:` or `wss:`."""

@final
class BlockingWebSocket(Iterator[Union[str, bytes]]):
    """A WebSocket, for `def` handlers, which run on a thread that may block.

    `for message in websocket` receives until the end.
    """
    def accept(self, subprotocol: str | None = None, headers: _Fields | None = None) -> None:
        """Opens the WebSocket.

        Args:
            subprotocol: One of those in `subprotocols`. Defaults to none.
            headers: Fields of the handshake's answer, cookies for example. Defaults to none.

        Raises:
            RuntimeError: if the handshake was answered already.
            ValueError: if the client has not offered the subprotocol, or a field is one of the handshake's own.
        """
    def reject(self, content: Any = None, status: int = 403, headers: _Fields | None = None) -> None:
        """Answers the handshake with an HTTP response instead of opening the WebSocket.

        Args:
            content: What any handler may return, a `Response` for example. Defaults to nothing.
            status: Its status, from 300 on. Defaults to 403.
            headers: Its fields. Defaults to none.

        Raises:
            RuntimeError: if the handshake was answered already.
            ValueError: if the status is a success.
        """
    def receive(self) -> Union[str, bytes]:
        """Waits for the next message: a `str` or `bytes`, as the client sent it.

        What came before the end is received, then comes the exception. One waits at a time.

        Raises:
            WebSocketDisconnect: at the end, with its code and reason.
            RuntimeError: if it was not accepted, or another task waits.
        """
    def receive_text(self) -> str:
        """Waits for the next message, which has to be text.

        Raises:
            WebSocketDisconnect: as `receive`; and if it is binary, which closes the WebSocket with 1003.
        """
    def receive_bytes(self) -> bytes:
        """Waits for the next message, which has to be binary.

        Raises:
            WebSocketDisconnect: as `receive`; and if it is text, which closes the WebSocket with 1003.
        """
    def receive_json(self) -> Any:
        """Waits for the next message, which has to be JSON, and returns what it says.

        Raises:
            WebSocketDisconnect: as `receive`; and if it is not JSON, which closes the WebSocket with 1007.
        """
    def send(self, data: Union[str, bytes, bytearray, memoryview], /) -> None:
        """Sends a message: text if it is a `str`, else binary.

        Waits while the client reads too slowly, as far as the route's `when_full` says so.

        Raises:
            WebSocketDisconnect: if it is closed, or about to be.
            RuntimeError: if it was not accepted.
            TypeError: if it is neither text nor bytes.
        """
    def send_text(self, data: str, /) -> None:
        """Sends a text message.

        Raises:
            WebSocketDisconnect: as `send`.
        """
    def send_bytes(self, data: Union[bytes, bytearray, memoryview], /) -> None:
        """Sends a binary message.

        Raises:
            WebSocketDisconnect: as `send`.
        """
    def send_json(self, data: Any, /) -> None:
        """Sends a value as JSON, in a text message.

        Raises:
            WebSocketDisconnect: as `send`.
            TypeError: if JSON can't say it.
        """
    def ping(self, data: Union[str, bytes, bytearray, memoryview, None] = None, /) -> None:
        """Sends a ping (RFC 6455 §5.5.2). Clients answer by themselves; nobody waits for that.

        Inside of another server, whose own pings are, nothing is sent.

        Raises:
            WebSocketDisconnect: as `send`.
            ValueError: if it has more than 125 bytes.
        """
    def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes the WebSocket, behind what was sent before.

        Does not wait for the client to agree. Nothing happens if it is closed already.

        Args:
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999 for the application (RFC 6455 §7.4). Defaults to 1000.
            reason: At most 123 bytes. Defaults to nothing.

        Raises:
            ValueError: if code or reason can't be sent.
            RuntimeError: if it was not accepted.
        """
    def join(self, room: str, /) -> None:
        """Makes it a member of a room, until it leaves or ends.

        It is one when this returns, awaited or not: what `App.broadcast` sends to the room comes from then on. Joining
        twice is joining once.

        Args:
            room: Any name of 1 to 255 bytes. A room is there while it has members.

        Raises:
            WebSocketDisconnect: if it is closed, or about to be.
            RuntimeError: if it was not accepted.
            ValueError: if the name is too long or empty, or it is in `ws_max_rooms` rooms already.
        """
    def leave(self, room: str, /) -> None:
        """Takes it out of a room.

        Without effect if it is no member.

        Raises:
            RuntimeError: if it was not accepted.
        """
    def __iter__(self) -> Self: ...
    def __next__(self) -> Union[str, bytes]: ...
    @property
    def connection_state(self) -> Literal["connecting", "open", "closed"]:
        """`connecting` until the handshake is answered, then `open`, and `closed` at the end.

        `closed` as soon as nothing more can be sent, because either side has closed.
        """
    @property
    def close_code(self) -> int | None:
        """How it ended: the code of the close, 1006 if there was none; None before."""
    @property
    def close_reason(self) -> str | None:
        """What was said about the close; None before."""
    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, the preferred first."""
    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was accepted, if one was."""
    @property
    def rooms(self) -> list[str]:
        """The rooms that it is in, sorted."""
    @property
    def request(self) -> Request:
        """The request that asked for the WebSocket."""

@disjoint_base
class Response:
    """A response. Subclasses add ways to make one.

    Args:
        body: str is sent as UTF-8 text, bytes as they are, a dict, list, number or dataclass as JSON, any other
            iterable or async iterable piece by piece. Defaults to no content.
        status: The status code, 200 to 999. Defaults to 200.
        headers: Fields; pairs may have a name several times. Defaults to none.
        media_type: The content type, with `; charset=utf-8` if it is text and says no charset. Defaults to that of the
            body's kind, unless headers has one.
        background: Called after the response was sent: `def`, on a pool thread, or `async def`; or a list of such.
            Defaults to nothing.

    Raises:
        ValueError: if the status is out of range, or something can't be a field (RFC 9110 §5.5).
        TypeError: if the body is nothing that can be sent.
    """
    def __new__(
        cls,
        body: Any = None,
        status: int = 200,
        headers: _Fields | None = None,
        *,
        media_type: str | None = None,
        background: Callable[[], Any] | Sequence[Callable[[], Any]] | None = None,
    ) -> Self: ...
    @property
    def status(self) -> int:
        """The status code."""
    @status.setter
    def status(self, status: int, /) -> None: ...
    @property
    def status_code(self) -> int:
        """The same as `status`, under Starlette's name."""
    @status_code.setter
    def status_code(self, status: int, /) -> None: ...
    @property
    def headers(self) -> MutableHeaders:
        """The header fields."""
    @property
    def body(self) -> Any:
        """The content; of a streamed response the iterable.

        Bytes as they will be sent. What is set is read as in `Response(body)`.
        """
    @body.setter
    def body(self, body: Any, /) -> None: ...
    @property
    def background(self) -> Any:
        """What is called after the response was sent; None means nothing."""
    @background.setter
    def background(self, background: Any, /) -> None: ...
    def set_cookie(
        self,
        name: str,
        value: str = "",
        max_age: int | None = None,
        expires: datetime | float | str | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Literal["lax", "strict", "none"] | None = "lax",
        partitioned: bool = False,
    ) -> None:
        """Adds a `Set-Cookie` field (RFC 6265 §4.1).

        Args:
            name: A token.
            value: Quoted if it needs that. Defaults to nothing.
            max_age: How long it is kept, in seconds. Defaults to None: until the browser ends.
            expires: The same as a time, as seconds from now, or as text; what is old does not know max_age.
            path: Where it is sent. Defaults to everywhere.
            domain: Defaults to None: this host alone.
            secure: Whether it is sent over TLS alone. Defaults to False.
            httponly: Whether scripts can't see it. Defaults to False.
            samesite: Whether it is sent from other sites' pages; None says nothing. Defaults to "lax".
            partitioned: Whether it is kept for each top-level site apart. Defaults to False.

        Raises:
            ValueError: if the name is no token, or something would end the cookie early.
        """
    def delete_cookie(
        self,
        name: str,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: Literal["lax", "strict", "none"] | None = "lax",
        partitioned: bool = False,
    ) -> None:
        """Has the client forget a cookie.

        Path and domain have to be those it was set with.

        Raises:
            ValueError: as `set_cookie` does.
        """

# -- the plan: worked out once by httpy.plan, carried out per request --------------------------------------------------

__version__: Final[str]
REQUIRED: Final[object]
"""Stands for "no default" in a parameter."""

_Parameter = tuple[str, str, Union[str, Callable[[Any], Any]], Any, bool]
"""(name, source, convert, default, many).

name: the argument's name. source: "request", "path", "query" or "body" (the parsed JSON body).
convert: "str" "int" "float" "bool" are converted in Rust; anything else is a callable taking the text (path, query) or
the parsed JSON (body) and raising ValueError/TypeError, which become a 422. An exception with an `errors()` method
(pydantic) has its errors reported with their own loc. default: REQUIRED or the value. many: query only, a list.
"""

@final
class Endpoint:
    """A Python function and how to call it.

    Parameters are passed by position in the order given; the last `keywords` of them by name. `label` names the handler
    in logs, as `module.function`.

    Raises:
        ValueError: if kind or status is none, or `timeout` is negative.
    """
    def __new__(
        cls,
        function: Callable[..., Any],
        *,
        kind: Literal["inline", "async", "pooled"],
        context: Context,
        parameters: Sequence[_Parameter] = ...,
        keywords: int = 0,
        status: int = 200,
        stream: bool = False,
        max_body_bytes: int | None = None,
        timeout: float | None = None,
        label: str = ...,
        middleware: Sequence[Any] = ...,
    ) -> Self: ...
    @classmethod
    def hosting(
        cls,
        app: Callable[..., Any],
        interface: Literal["asgi", "wsgi"],
        *,
        context: Context,
        label: str = ...,
        debug: bool = False,
    ) -> Endpoint:
        """An ASGI or WSGI app as an endpoint: it answers everything at or below a route by itself.

        Raises:
            ValueError: if interface is none.
        """

@final
class SocketEndpoint:
    """A Python function for WebSockets, and how to call it.

    Raises:
        ValueError: if kind or when_full is none.
    """
    def __new__(
        cls,
        function: Callable[..., Any],
        *,
        kind: Literal["async", "pooled"],
        context: Context,
        parameters: Sequence[_Parameter] = ...,
        keywords: int = 0,
        origins: Sequence[str] | None = None,
        when_full: str = "wait",
        label: str = ...,
    ) -> Self: ...

@final
class Context:
    """What all endpoints of one app share.

    The app object, state, and how errors are answered: `on_error` is called with the request and the exception;
    `statuses` are those of HTTPy's own refusals it wants to see as well. `root_path` is what a proxy has taken away
    from the beginning of paths, percent-encoded.
    """
    def __new__(
        cls,
        app: Any,
        *,
        on_error: Callable[[Request, BaseException], Any] | None = None,
        statuses: Sequence[int] = ...,
        root_path: str = ...,
    ) -> Self: ...
    def set_state(self, values: Mapping[str, Any], /) -> None:
        """Sets what appears on every request's `state`."""
    def stop(self) -> None:
        """Tells requests that the server stops."""

@final
class Routes:
    """The routing table of one application."""
    def __new__(
        cls,
        context: Context,
        *,
        middleware: Sequence[Any] = ...,
        redirect_slashes: bool = False,
    ) -> Self: ...
    def add(self, methods: Sequence[str] | None, pattern: str, endpoint: Endpoint, /) -> None:
        """Registers an endpoint for methods (None: any) of a pattern.

        Raises:
            RouteError: if the pattern is malformed, a method is not a token, or another route answers the same.
        """
    def add_websocket(self, pattern: str, endpoint: SocketEndpoint, /) -> None:
        """Registers an endpoint for the WebSockets of a pattern.

        Raises:
            RouteError: if the pattern is malformed, or another route takes the same WebSockets.
        """
    def mount(self, prefix: str, routes: Routes, /) -> None:
        """Has another application's routes answer everything below a prefix.

        Raises:
            RouteError: if the prefix is malformed or has parameters.
        """
    def hand_over(self, endpoint: Endpoint, /) -> None:
        """Has one endpoint answer everything, instead of routes."""

class _Visit(Protocol):
    """A request inside of another server."""
    def next(self) -> Awaitable[tuple[Any, Any, Any]]: ...
    def wait(self) -> tuple[Any, Any, Any]: ...
    def feed(self, data: bytes, more: bool, /) -> None: ...
    def leave(self) -> None: ...

@final
class Guest:
    """An app inside of another server."""
    def __new__(
        cls, routes: Routes, config: Mapping[str, Any] | None, event_loop: AbstractEventLoop, /
    ) -> Self: ...
    def visit(
        self,
        method: str,
        target: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        /,
        *,
        version: str,
        root_len: int = 0,
        client: tuple[str, int] | None = None,
        server: tuple[str, int] | None = None,
        is_tls: bool = False,
        has_content: bool = True,
        subprotocols: Sequence[str] | None = None,
    ) -> _Visit:
        """Has a request answered.

        `root_len` is how many bytes of the target the container has taken; `subprotocols` says that it asks for a
        WebSocket, and may be empty.

        Raises:
            ValueError: if it is none.
            RuntimeError: after `close`.
        """
    @property
    def rooms(self) -> Rooms:
        """The rooms of this process."""
    def close(self) -> None:
        """Ends the runtime; handlers that still run are cancelled."""

def build_path(pattern: str, params: Mapping[str, Any], /) -> str:
    """Builds the path of a pattern, percent-encoded.

    Raises:
        ValueError: if a parameter is missing, not in the pattern, or does not fit its converter.
    """

def pattern_parameters(pattern: str, /) -> list[tuple[str, str]]:
    """The (name, converter) pairs of a pattern.

    Raises:
        RouteError: if it is malformed.
    """

def canonical_pattern(pattern: str, /) -> str:
    """The pattern in the spelling `/users/{id:int}`.

    Raises:
        RouteError: if it is malformed.
    """

def to_bool(text: str, /) -> bool:
    """Reads a bool as a `bool` parameter does: true, 1, yes, on, t, y and their opposites, in any case.

    Raises:
        ValueError: for anything else.
    """

def to_float(text: str, /) -> float:
    """Reads a float as a `float` parameter does: a finite number, in decimal or scientific notation.

    Raises:
        ValueError: for anything else.
    """

def to_int(text: str, /) -> int:
    """Reads an int as an `int` parameter does: a sign, perhaps, and at most 4300 ASCII digits.

    Raises:
        ValueError: for anything else.
    """

# -- on its way: made by the native half, given to Python --------------------------------------------------------------

@final
class Next:
    """What middleware calls to go on."""
    def __call__(self, request: Request) -> Onward: ...

@final
class Onward:
    """The rest of a chain, under way.

    Awaited once, it gives the response.
    """
    def __await__(self) -> Self: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    def send(self, _value: Any) -> Any:
        """Goes on with the chain, as coroutines do."""
    def throw(self, error: Any, value: Any = None, traceback: TracebackType | None = None) -> Any:
        """Raises an exception where the chain waits."""
    def close(self) -> None:
        """Ends the chain where it waits."""

# -- serving -----------------------------------------------------------------------------------------------------------

@final
class Selector:
    """A selector for `asyncio.SelectorEventLoop` that runs a tokio runtime while it waits.

    To be made on the thread that will run the loop. Absent on Windows.
    """
    def __new__(cls) -> Self: ...
    def attach(self, event_loop: Any) -> None:
        """Tells the selector whose it is; until then it only waits for asyncio's descriptors.

        Handlers will run in copies of the present context, so it may be called again.

        Raises:
            RuntimeError: if it is another loop's.
        """
    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        """Registers a descriptor, as `selectors.BaseSelector` has it."""
    def modify(self, fileobj: Any, events: int, data: Any = None) -> Any:
        """Changes what a descriptor is watched for."""
    def unregister(self, fileobj: Any) -> Any:
        """Forgets a descriptor."""
    def get_key(self, fileobj: Any) -> Any:
        """Returns the key of a descriptor."""
    def get_map(self) -> Any:
        """Returns the keys of all descriptors."""
    def select(self, timeout: float | None = None) -> Any:
        """Waits at most `timeout` seconds (None: without end) and returns the descriptors that are ready."""
    def close(self) -> None:
        """Ends the runtime and everything that runs on it.

        Raises:
            RuntimeError: while it waits, or on another thread than its own.
        """

@final
class Counts:
    """How often something was counted, from the first start of a server on."""
    def __new__(cls) -> Self: ...
    def all(self) -> dict[str, int]:
        """Returns all counts by their names."""

@final
class Rooms:
    """The rooms of one server."""
    def broadcast(
        self,
        room: str,
        message: Union[str, bytes, bytearray, memoryview, dict[str, Any], list[Any]],
        /,
        *,
        exclude: Union[
            WebSocket, BlockingWebSocket, Iterable[Union[WebSocket, BlockingWebSocket]], None
        ] = None,
    ) -> Awaitable[None]:
        """Sends a message to every member of a room, without waiting for any.

        Raises:
            ValueError: if the name has not 1 to 255 bytes, or the message more than 16 MiB.
            TypeError: if the message is none.
        """
    def count(self, room: str, /) -> int:
        """How many members a room has, in all processes."""

@final
class RoomHub:
    """What connects the rooms of workers, on a thread of its own.

    It ends when this is dropped.

    Raises:
        OSError: if the system has no thread or descriptor left.
    """
    def __new__(cls, max_queue_bytes: int) -> Self: ...
    def add(self, descriptors: list[int], /) -> None:
        """Connects workers by the sockets behind descriptors, which are the hub's from now on.

        None of them misses what another of them has said, or says later.
        """

@final
class Memory:
    """Opens connections to a server in this process, without sockets."""
    def connect(
        self,
        *,
        client: tuple[str, int] | None = None,
        server: tuple[str, int] | None = None,
        is_tls: bool = False,
    ) -> Pipe:
        """Opens a connection, between these addresses as the server sees it.

        `is_tls` has the server take it for one that was encrypted.

        Raises:
            ValueError: if a host is no IP address.
            ConnectionRefusedError: if the server does not run any more.
        """

@final
class Pipe:
    """The client's end of a connection in memory, which holds 64 KiB each way.

    From any thread; one may write while another reads. Timeouts are in seconds, for a whole call; None waits for ever.
    """
    def read(self, max_bytes: int, timeout: float | None, /) -> bytes:
        """Waits for bytes, at most so many; none are the end.

        Raises:
            TimeoutError: if nothing comes.
        """
    def write(self, data: bytes, timeout: float | None, /) -> None:
        """Sends bytes, all of them. What comes meanwhile is kept, so that both sides may send at once.

        Raises:
            BrokenPipeError: if one of both has closed it.
            TimeoutError: if the server does not read them.
        """
    def is_quiet(self) -> bool:
        """Whether it is open and nothing has come that was not read."""
    def close(self) -> None:
        """Closes it. Whoever waits for it sees the end."""

@final
class Core:
    """A bound server, run by one loop.

    `config` has values by the names of `defaults()`; what is not named keeps its default. `https_redirect` is the port
    to which requests that come without TLS are sent. It counts in `counts`, if that is given.

    Raises:
        ConfigError: if a name or a value is wrong.
    """
    def __new__(
        cls,
        routes: Routes,
        config: Mapping[str, Any] | None = None,
        /,
        *,
        access_log: AccessLog | None = None,
        https_redirect: int | None = None,
        counts: Counts | None = None,
    ) -> Self: ...
    def bind(self, host: str, port: int, /, *, credentials: Credentials | None = None) -> int:
        """Binds a TCP address and returns its port.

        With `credentials`, what comes there is encrypted.

        Raises:
            ConfigError: if the host is not an address or the port can't be had.
        """
    def adopt(self, descriptor: int, /, *, shared: bool, credentials: Credentials | None = None) -> None:
        """Takes over a socket that listens, by its descriptor, which is the server's from now on, even if this fails.

        `shared` says that others may hold the socket too: it is left as it is then when the server stops. With
        `credentials`, what comes there is encrypted.

        Raises:
            ConfigError: if it is no listening stream socket.
        """
    def listen_in_memory(self) -> Memory:
        """Has it listen in memory, and returns what opens connections.

        To be called before `start`.
        """
    def share(self, descriptor: int, place: int, /) -> None:
        """Shares connections with other workers, which are told in the shared memory behind a descriptor.

        The descriptor stays the caller's; `place` is this worker's there. Not on Windows.

        Raises:
            OSError: if that memory can't be used.
        """
    @property
    def rooms(self) -> Rooms:
        """The rooms of this server."""
    def share_rooms(self, descriptor: int, /) -> None:
        """Shares rooms with other workers, through the hub behind a socket, which is the server's from now on.

        To be called before `start`.
        """
    def start(self, selector: Selector | None, event_loop: Any, /) -> None:
        """Starts serving: on the loop's own selector, or (None) beside a loop that runs or is about to."""
    def stop(
        self, grace: float | None, done: Callable[[int], None], /, *, leave_queued: bool = False
    ) -> None:
        """Stops accepting, finishes what runs, and calls `done` on the loop's thread.

        At most `grace` seconds; None is the configured time. `done` gets the number of connections that were cut off.
        Connections that are queued and not accepted yet are served, or with `leave_queued` left to other processes.

        Raises:
            RuntimeError: if the server does not run.
        """
    @property
    def requests(self) -> int:
        """How many requests were given to the app."""
    def after_requests(self, requests: int, function: Callable[[], Any], /) -> None:
        """Calls `function` on the loop's thread when so many requests were given to the app.

        To be called before `start`.
        """
    def close(self) -> None:
        """Ends the thread driver's runtime; the selector's ends with its loop."""

@final
class Credentials:
    """The server's certificates and keys, and whom it trusts.

    `config` has values by the names of `tls_defaults()`; what is not named keeps its default. `certfile` and `keyfile`
    are paths, or lists of them.

    Raises:
        ConfigError: if a value is wrong, or something is wrong with a file.
    """
    def __new__(cls, config: Mapping[str, Any], /) -> Self: ...
    def reload(self) -> None:
        """Reads the files again. New connections get what is in them; nothing becomes of the others.

        Raises:
            ConfigError: if something is wrong with a file. Everything stays as it was then.
        """

@final
class TLSSession:
    """What both sides of a TLS connection agreed on, and who the client is."""
    @property
    def version(self) -> str:
        """The version: "TLSv1.2" or "TLSv1.3"."""
    @property
    def cipher(self) -> str:
        """The cipher suite, by its name with IANA."""
    @property
    def server_name(self) -> str | None:
        """The host name that the client asked for (SNI), in lower case; None if it asked for none."""
    @property
    def alpn(self) -> str | None:
        """The protocol that both agreed on (ALPN), such as "http/1.1"; None if the client asked for none."""
    @property
    def is_resumed(self) -> bool:
        """Whether the client resumed an earlier session."""
    @property
    def peer_certificate(self) -> Certificate | None:
        """The client's certificate, which was checked (`client_ca`); None without one."""

@final
class Certificate:
    """A certificate (X.509)."""
    @property
    def der(self) -> bytes:
        """The certificate itself, in DER."""
    @property
    def subject(self) -> str:
        """Whose it is, as RFC 4514 writes it, such as "CN=client,O=Example"."""
    @property
    def issuer(self) -> str:
        """Who says so, written likewise."""
    @property
    def common_name(self) -> str | None:
        """The common name of the subject; None if it has none."""
    @property
    def names(self) -> list[tuple[str, str]]:
        """The subject's other names: pairs of a kind, "DNS", "IP", "URI" or "email", and a name."""
    @property
    def serial_number(self) -> str:
        """The number that the issuer gave it, in hexadecimal digits."""
    @property
    def not_before(self) -> datetime:
        """From when on it is valid, a `datetime` in UTC."""
    @property
    def not_after(self) -> datetime:
        """Until when it is valid, a `datetime` in UTC."""
    @property
    def fingerprint(self) -> str:
        """The SHA-256 of `der`, in hexadecimal digits."""

@final
class AccessLog:
    """A line for every request, to standard output or the end of a file.

    Written by a thread of its own, without Python; when that does not keep up, lines are dropped and counted.

    Args:
        path: The file, which is opened anew when it was renamed. None is standard output.
        format: "text" is the combined log format and the seconds it took; "json" is an object on each line.

    Raises:
        ConfigError: if it can't be written there.
    """
    def __new__(cls, path: str | None = None, *, format: Literal["text", "json"] = "text") -> Self: ...
    def flush(self) -> bool:
        """Waits until what was logged is written, a second at most, and returns whether it is."""

@final
class Watch:
    """Says which files in folders have changed.

    Args:
        folders: The folders, watched with those below them.
        include: Patterns with `*` and `?` of the files that are wanted: of names, or with a slash of paths below the
            folder.
        exclude: Such patterns of files and folders that are not. A virtual environment never is.

    Raises:
        ConfigError: if a folder is not there, or the system allows no more watches.
    """
    def __new__(cls, folders: Sequence[str], include: Sequence[str], exclude: Sequence[str], /) -> Self: ...
    def wait(self, timeout: float | None = None, /) -> list[str]:
        """Waits for changes, at most so many seconds, and returns the paths of the files, sorted.

        Signals are handled meanwhile. Nothing has changed if it is empty. Several changes that come together are
        told together.
        """

def defaults() -> dict[str, Any]:
    """Every configuration value with its default.

    Sizes in bytes, times in seconds.
    """

def forward_logs(level: int, /) -> None:
    """Has the core's events handed to the loggers `httpy.*`: those of at least this level, in the numbers of `logging`.

    For the whole process; may be called again.
    """

def end_after_hangup(descriptor: int, seconds: float, status: int, /) -> None:
    """Ends this process some seconds after the other end of a socket was closed, whatever runs in it.

    Not on Windows.
    """

def supervision_defaults() -> dict[str, Any]:
    """How workers are looked after, by default.

    Sizes in bytes, times in seconds; 0 is no limit.
    """

def tls_defaults() -> dict[str, Any]:
    """How TLS is configured by default. None: nothing is."""

def ticket_secret(older: str | None = None, /) -> str:
    """Returns what session tickets are made with, for several processes to make them alike.

    A new secret, or what has become of an older one.
    """

def dev_certificate(folder: str, /) -> tuple[Path, Path]:
    """Returns the files of a certificate for this machine alone, and of its key, made in `folder` if there is none.

    Raises:
        ConfigError: if they can't be kept there.
    """

def json_dumps(value: Any, /) -> bytes:
    """Writes a value as JSON.

    UTF-8, without spaces. See docs/json.md for what has a JSON form.

    Raises:
        TypeError: if a value has none, by its place in the document.
        ValueError: for cycles, and for more than 256 levels.
    """

def json_layout(enabled: bool, /) -> bool:
    """Has the JSON writer read CPython's objects in place, or ask for everything. Returns which of both it does now.

    For tests.
    """

def json_loads(data: bytes | bytearray | memoryview | str, /) -> Any:
    """Reads a JSON document.

    Raises:
        ValueError: if it is not JSON (RFC 8259), with line and column; or deeper than 256 levels.
    """

def read_toml(text: str, /) -> dict[str, Any]:
    """Reads a TOML document.

    Dates and times stay text.

    Raises:
        ConfigError: if it is not TOML, with the line.
    """
