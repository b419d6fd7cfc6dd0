"""A WebSocket, as a client has it (RFC 6455)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Optional, Union

from .. import MutableHeaders, _httpy
from ..errors import WebSocketDisconnect
from . import frames
from .connection import Connection, Fields
from .frames import ProtocolError
from .response import ClientResponse

Message = Union[str, bytes]

# RFC 6455 §1.3.
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_READ_BYTES = 65536


class Handshake:
    """Is a handshake's request, and what its answer has to be.

    Args:
        subprotocols: Those to offer, the preferred first.
    """

    def __init__(self, subprotocols: tuple[str, ...]) -> None:
        self._subprotocols = subprotocols
        self._key = base64.b64encode(os.urandom(16))

    def fields(self) -> Fields:
        """The request's fields (RFC 6455 §4.1)."""
        fields = [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", self._key.decode()),
            ("sec-websocket-version", "13"),
        ]
        if self._subprotocols:
            fields.append(("sec-websocket-protocol", ", ".join(self._subprotocols)))
        return fields

    def check(self, headers: MutableHeaders) -> Optional[str]:
        """Returns the subprotocol that the server has chosen.

        Raises:
            ProtocolError: if the answer is not one to this request.
        """
        accept = base64.b64encode(hashlib.sha1(self._key + _MAGIC, usedforsecurity=False).digest()).decode()
        if headers.get("sec-websocket-accept") != accept or headers.get("upgrade", "").lower() != "websocket":
            raise ProtocolError(1002, "the answer is not one to this handshake")
        if headers.get("sec-websocket-extensions"):
            raise ProtocolError(1002, "the server has chosen an extension that was not offered")
        chosen = headers.get("sec-websocket-protocol")
        if chosen is not None and chosen not in self._subprotocols:
            raise ProtocolError(1002, "the server has chosen a subprotocol that was not offered")
        return chosen


class ClientWebSocket:
    """Is an open WebSocket. From any thread; one may send while another receives.

    `for message in websocket` receives until the server closes. `with` closes it at the end.

    Attributes:
        response: The answer to the handshake.
        subprotocol: The subprotocol that the server has chosen; None if none.
        close_code: The code of the end; None before that.
        close_reason: What was said about it.
    """

    def __init__(
        self,
        connection: Connection,
        file: Any,
        response: ClientResponse,
        subprotocol: Optional[str],
        timeout: Optional[float],
    ) -> None:
        self._connection = connection
        self._file = file
        self._timeout = timeout
        self._decoder = frames.Decoder()
        self._events: deque[frames.Event] = deque()
        self._messages: deque[Message] = deque()
        self._sending = threading.Lock()
        self._is_closing = False
        self.response = response
        self.subprotocol = subprotocol
        self.close_code: Optional[int] = None
        self.close_reason = ""

    @property
    def response_headers(self) -> MutableHeaders:
        """The fields of the handshake's answer."""
        return self.response.headers

    def __enter__(self) -> ClientWebSocket:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.leave()

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        try:
            return self.receive()
        except WebSocketDisconnect:
            raise StopIteration from None

    def send(self, data: Union[str, bytes, bytearray, memoryview]) -> None:
        """Sends a message: text if it is a `str`, else binary.

        Waits while the server does not read.

        Raises:
            WebSocketDisconnect: if it is closed.
            TimeoutError: if the server does not read in time.
        """
        if isinstance(data, str):
            self.send_frame(frames.TEXT, data.encode())
        else:
            self.send_frame(frames.BINARY, bytes(data))

    def send_text(self, data: str) -> None:
        """Sends a text message. Raises as `send` does."""
        self.send(data)

    def send_bytes(self, data: Union[bytes, bytearray, memoryview]) -> None:
        """Sends a binary message. Raises as `send` does."""
        self.send(data)

    def send_json(self, data: Any) -> None:
        """Sends a value as JSON, in a text message. Raises as `send` does."""
        self.send_frame(frames.TEXT, _httpy.json_dumps(data))

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        """Sends a single frame, also one that breaks the rules (RFC 6455 §5.2).

        Args:
            opcode: 0 continues a message, 1 is text, 2 binary, 8 close, 9 ping, 10 pong.
            payload: What it carries.
            fin: Whether it is the last of its message.

        Raises:
            WebSocketDisconnect: if it is closed.
            TimeoutError: if the server does not read in time.
        """
        self._write(frames.encode(opcode, payload, fin=fin))

    def ping(self, data: Union[str, bytes] = b"", *, timeout: Optional[float] = None) -> None:
        """Sends a ping, and waits for its pong. Messages that come first are kept.

        Raises:
            WebSocketDisconnect: at the end.
            TimeoutError: if no pong comes in time.
        """
        payload = data.encode() if isinstance(data, str) else bytes(data)
        self.send_frame(frames.PING, payload)
        deadline = self._deadline(timeout)
        while (event := self._next_event(deadline)) != (frames.PONG, payload):
            if event.opcode in (frames.TEXT, frames.BINARY):
                self._messages.append(event.data)

    def receive(self, *, timeout: Optional[float] = None) -> Message:
        """Waits for the next message: a `str` or `bytes`.

        Args:
            timeout: The longest to wait, in seconds. None is the client's own.

        Raises:
            WebSocketDisconnect: when the server has closed it, with its code and reason.
            TimeoutError: if nothing comes in time.
        """
        if self._messages:
            return self._messages.popleft()
        deadline = self._deadline(timeout)
        while (event := self._next_event(deadline)).opcode not in (frames.TEXT, frames.BINARY):
            pass
        return event.data

    def receive_text(self, *, timeout: Optional[float] = None) -> str:
        """Waits for the next message, which has to be text.

        Raises:
            TypeError: if it is binary.
            WebSocketDisconnect: as `receive`, as `TimeoutError`.
        """
        message = self.receive(timeout=timeout)
        if not isinstance(message, str):
            raise TypeError(f"the message is binary: {message[:80]!r}")
        return message

    def receive_bytes(self, *, timeout: Optional[float] = None) -> bytes:
        """Waits for the next message, which has to be binary.

        Raises:
            TypeError: if it is text.
            WebSocketDisconnect: as `receive`, as `TimeoutError`.
        """
        message = self.receive(timeout=timeout)
        if not isinstance(message, bytes):
            raise TypeError(f"the message is text: {message[:80]!r}")
        return message

    def receive_json(self, *, timeout: Optional[float] = None) -> Any:
        """Waits for the next message, and returns what it says in JSON.

        Raises:
            ValueError: if it is none.
            WebSocketDisconnect: as `receive`, as `TimeoutError`.
        """
        message = self.receive(timeout=timeout)
        return _httpy.json_loads(message.encode() if isinstance(message, str) else message)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Closes it, and waits until the server has agreed. Messages that come first are dropped.

        Without effect if it is closed.

        Args:
            code: Why (RFC 6455 §7.4). 1005 sends none.
            reason: More about that, at most 123 bytes of UTF-8.

        Raises:
            TimeoutError: if the server does not agree in time.
        """
        if self.close_code is not None:
            return
        frame = frames.encode_close(code, reason)
        with contextlib.suppress(WebSocketDisconnect):
            if not self._is_closing:
                self._write(frame)
                self._is_closing = True
            deadline = self._deadline(None)
            while True:
                self._next_event(deadline)

    def leave(self) -> None:
        """Cuts the connection, without a word."""
        if self.close_code is None:
            self.close_code = 1006
        self._connection.abort()

    def _deadline(self, timeout: Optional[float]) -> Optional[float]:
        timeout = self._timeout if timeout is None else timeout
        return None if timeout is None else time.monotonic() + timeout

    def _write(self, frame: bytes) -> None:
        if self.close_code is not None:
            raise WebSocketDisconnect(self.close_code, self.close_reason)
        try:
            with self._sending:
                self._connection.pipe.write(frame, self._timeout)
        except (BrokenPipeError, ConnectionResetError):
            # It may have said why, and that was not received yet.
            raise WebSocketDisconnect(1006, "the server has closed the connection") from None

    def _next_event(self, deadline: Optional[float]) -> frames.Event:
        """Waits for a message or a pong; answers pings and closes as has to be."""
        while True:
            while not self._events:
                if self.close_code is not None:
                    raise WebSocketDisconnect(self.close_code, self.close_reason)
                self._fill(deadline)
            event = self._events.popleft()
            if event.opcode == frames.PING:
                assert isinstance(event.data, bytes)
                with contextlib.suppress(WebSocketDisconnect):
                    self.send_frame(frames.PONG, event.data)
            elif event.opcode == frames.CLOSE:
                assert isinstance(event.data, bytes)
                self._end(*frames.read_close(event.data))
            else:
                return event

    def _fill(self, deadline: Optional[float]) -> None:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        self._connection.wire.timeout = left
        try:
            data = self._file.read1(_READ_BYTES)
        except (ConnectionError, ValueError):
            data = b""
        if not data:
            self._end(1006, "")
            return
        try:
            self._events.extend(self._decoder.feed(data))
        except ProtocolError as error:
            self._fail(error)
            raise

    def _end(self, code: int, reason: str) -> None:
        """The server has closed it: it is answered, and that is the end (RFC 6455 §5.5.1)."""
        if code != 1006 and not self._is_closing:
            self._is_closing = True
            with contextlib.suppress(WebSocketDisconnect, TimeoutError):
                self._write(frames.encode_close(code, ""))
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
        # The server closes the connection, once it has the answer.
        self._connection.abort()

    def _fail(self, error: ProtocolError) -> None:
        with contextlib.suppress(WebSocketDisconnect, TimeoutError):
            self._write(frames.encode_close(error.code, error.reason))
        self.close_code, self.close_reason = error.code, error.reason
        self._connection.abort()
