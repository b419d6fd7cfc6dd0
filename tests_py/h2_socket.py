"""A client of WebSockets by HTTP/2 (RFC 8441), over hyper-h2: frames go and come as they are."""

from __future__ import annotations

import socket
import struct

import h2.config
import h2.connection
import h2.events

from support import PATIENCE_S


class H2Socket:
    """A WebSocket on an HTTP/2 stream, with the subprotocol `chat` on offer.

    Attributes:
        fields: Those of the answer to the handshake, once it has come.
        data: What has come and was not taken.
        is_over: Whether the server has ended the stream.
    """

    def __init__(self, port: int, path: str) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.h2.initiate_connection()
        self.fields: dict[bytes, bytes] = {}
        self.data = b""
        self.is_enabled = False
        self.is_over = False
        self.flush()
        while not self.is_enabled:
            self.read()
        fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", path),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
        ]
        self.h2.send_headers(1, fields)
        self.flush()

    def __enter__(self) -> H2Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def flush(self) -> None:
        """Sends what there is to send."""
        self.connection.sendall(self.h2.data_to_send())

    def read(self) -> None:
        """Reads some, and notes what has come."""
        received = self.connection.recv(65536)
        assert received, "the server closed"
        for event in self.h2.receive_data(received):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                # RFC 8441 section 3: SETTINGS_ENABLE_CONNECT_PROTOCOL.
                self.is_enabled |= self.h2.remote_settings.enable_connect_protocol == 1
            elif isinstance(event, h2.events.ResponseReceived):
                self.fields = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self.is_over = True
        self.flush()

    def take(self, size: int) -> bytes:
        """Reads until so many bytes of data have come, and takes them."""
        while len(self.data) < size:
            self.read()
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def read_frame(self) -> tuple[int, bytes]:
        """Reads a frame: its first byte and its content."""
        first, length = self.take(2)
        if length == 126:
            (length,) = struct.unpack(">H", self.take(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self.take(8))
        return first, self.take(length)

    def send_frame(self, first: int, content: bytes) -> None:
        """Sends a frame."""
        if len(content) < 126:
            head = struct.pack(">BB", first, 0x80 | len(content))
        else:
            head = struct.pack(">BBQ", first, 0xFF, len(content))
        # A mask of zeros changes nothing.
        data = head + bytes(4) + content
        while data:
            room = min(self.h2.local_flow_control_window(1), self.h2.max_outbound_frame_size, len(data))
            if room == 0:
                self.read()
                continue
            self.h2.send_data(1, data[:room])
            self.flush()
            data = data[room:]

    def answer(self) -> tuple[int, bytes]:
        """Reads an answer that does not open the WebSocket: status and content."""
        while not self.is_over:
            self.read()
        return int(self.fields[b":status"]), self.data
