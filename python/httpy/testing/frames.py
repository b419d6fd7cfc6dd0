"""WebSocket frames as a client writes and reads them (RFC 6455 §5). No compression: none is offered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple, Union

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

_FIN, _MASKED = 0x80, 0x80
# RFC 6455 §5.5.
_MAX_CONTROL_BYTES = 125


class ProtocolError(Exception):
    """Says that the server breaks RFC 6455.

    Args:
        code: The code to close with.
        reason: What is wrong.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Event(NamedTuple):
    """A message, or a control frame.

    Attributes:
        opcode: TEXT, BINARY, CLOSE, PING or PONG.
        data: `str` of text, else `bytes`.
    """

    opcode: int
    data: Union[str, bytes]


def encode(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """Writes a frame, masked, as clients have to (RFC 6455 §5.3)."""
    length = len(payload)
    head = bytes([(_FIN if fin else 0) | opcode])
    if length < 126:
        head += bytes([_MASKED | length])
    elif length < 1 << 16:
        head += bytes([_MASKED | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([_MASKED | 127]) + length.to_bytes(8, "big")
    mask = os.urandom(4)
    return head + mask + _masked(payload, mask)


def encode_close(code: int, reason: str) -> bytes:
    """Writes a close frame; 1005 is one without a code (RFC 6455 §7.4.1).

    Raises:
        ValueError: if the reason is too long.
    """
    payload = b"" if code == 1005 else code.to_bytes(2, "big") + reason.encode()
    if len(payload) > _MAX_CONTROL_BYTES:
        raise ValueError("a reason has at most 123 bytes (RFC 6455 §5.5)")
    return encode(CLOSE, payload)


def read_close(payload: bytes) -> tuple[int, str]:
    """Reads what a close frame says.

    Raises:
        ProtocolError: if it can't be read.
    """
    if not payload:
        return 1005, ""
    if len(payload) == 1:
        raise ProtocolError(1002, "a close code has two bytes")
    return int.from_bytes(payload[:2], "big"), _text(payload[2:])


class Decoder:
    """Reads frames, and puts messages together."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._parts: list[bytes] = []
        # What the message in parts is; CONTINUATION if there is none.
        self._kind = CONTINUATION

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yields what is whole with these bytes.

        Raises:
            ProtocolError: if the server breaks the rules.
        """
        self._buffer += data
        while (frame := self._next_frame()) is not None:
            opcode, fin, payload = frame
            if opcode >= CLOSE:
                yield Event(opcode, payload)
                continue
            if (opcode == CONTINUATION) == (self._kind == CONTINUATION):
                raise ProtocolError(1002, "a message begins inside of another, or goes on without one")
            self._kind = opcode or self._kind
            self._parts.append(payload)
            if fin:
                kind, whole = self._kind, b"".join(self._parts)
                self._kind, self._parts = CONTINUATION, []
                yield Event(kind, _text(whole) if kind == TEXT else whole)

    def _next_frame(self) -> Union[tuple[int, bool, bytes], None]:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, length = buffer[0], buffer[1]
        opcode, fin = first & 0x0F, bool(first & _FIN)
        if first & 0x70:
            raise ProtocolError(1002, "a reserved bit is set, without an extension")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise ProtocolError(1002, f"there is no opcode {opcode}")
        if length & _MASKED:
            raise ProtocolError(1002, "a server does not mask")
        if opcode >= CLOSE and (not fin or length > _MAX_CONTROL_BYTES):
            raise ProtocolError(1002, "a control frame is too long, or in parts")
        start = 2
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + length:
            return None
        payload = bytes(buffer[start : start + length])
        del buffer[: start + length]
        return opcode, fin, payload


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProtocolError(1007, "text is not UTF-8") from None


def _masked(payload: bytes, mask: bytes) -> bytes:
    # As one number: a loop over bytes takes a second for 10 MB.
    length = len(payload)
    repeated = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(length, "big")
