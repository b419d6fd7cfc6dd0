"""Measures what priorities (RFC 9218) do for a page: how long its style sheet takes while 20 images are on their way.

    python scripts/priorities.py [--rounds 5]

The client reads 10 Mbit/s over HTTP/2, and holds as much unread as a link of that kind would have on its way. It asks
for 20 images of 500 KB, after a second for a style sheet of 20 KB, and waits for that.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import time

import h2.config
import h2.connection
import h2.events
import h2.settings

from httpy import App, Server

BYTES_PER_S = 10_000_000 / 8
IMAGES = 20

# 64 KiB of a link of 10 Mbit/s are 50 ms, which is a usual round trip.
ON_THE_WAY = 64 * 1024

# What browsers allow: so much that windows decide nothing.
WINDOW = 15_000_000

app = App()


@app.get("/image")
def image() -> bytes:
    """Something large that is not urgent."""
    return b"x" * 500_000


@app.get("/style")
def style() -> bytes:
    """Something small that everything waits for."""
    return b"x" * 20_000


class Client:
    """A client at the end of a slow link."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket()
        # Half of what is set is for content; set before the connection begins, it also stays as it is.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ON_THE_WAY // 2)
        self._socket.connect(("127.0.0.1", port))
        self._connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._connection.initiate_connection()
        self._connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
        self._connection.increment_flow_control_window(WINDOW)
        self._due = time.monotonic()
        self._send()

    def close(self) -> None:
        """Leaves, whatever is on its way."""
        self._socket.close()

    def ask(self, path: str, priority: str) -> int:
        """Sends a request, and returns its stream's number."""
        stream: int = self._connection.get_next_available_stream_id()
        fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
        if priority:
            fields.append(("priority", priority))
        self._connection.send_headers(stream, fields, end_stream=True)
        self._send()
        return stream

    def read(self) -> list[int]:
        """Reads a piece when it is due; returns the streams that have ended."""
        time.sleep(max(0.0, self._due - time.monotonic()))
        received = self._socket.recv(8192)
        if not received:
            raise SystemExit("priorities: the server has closed")
        self._due = max(self._due, time.monotonic() - 0.01) + len(received) / BYTES_PER_S
        ended = []
        for event in self._connection.receive_data(received):
            if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                ended.append(event.stream_id)
        self._send()
        return ended

    def _send(self) -> None:
        self._socket.sendall(self._connection.data_to_send())


def measure(port: int, images: int, said_of_images: str, said_of_style: str) -> float:
    """How long the style sheet takes, in seconds."""
    client = Client(port)
    try:
        for _ in range(images):
            client.ask("/image", said_of_images)
        until = time.monotonic() + 1
        while images and time.monotonic() < until:
            client.read()
        start = time.monotonic()
        stream = client.ask("/style", said_of_style)
        while stream not in client.read():
            pass
        return time.monotonic() - start
    finally:
        client.close()


def main() -> None:
    """Prints a row for each way of asking."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    cases = {
        "nothing else is downloaded": (0, "", ""),
        "images u=5, i, style sheet u=0": (IMAGES, "u=5, i", "u=0"),
        "only the style sheet says u=0": (IMAGES, "", "u=0"),
        "all alike, in turns (i)": (IMAGES, "i", "i"),
        "nobody says anything: one after the other": (IMAGES, "", ""),
    }
    with Server(app, port=0) as server:
        for name, case in cases.items():
            times = [measure(server.port, *case) for _ in range(rounds)]
            print(f"{name:45} {statistics.median(times) * 1000:8.0f} ms", flush=True)


if __name__ == "__main__":
    main()
