"""The client beside an attack: asks over and over, each time on a new connection, until its standard input ends.

It prints "ready" when it begins, and then how long each answer took in seconds, as JSON. A process of its own, so that
what it measures is the server and not the attack: `python witness.py PORT`.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

# How long it rests between two requests. 5 ms: many measurements, and little load.
REST_S = 0.005
# How long it waits for an answer. What takes longer counts as that long.
LONGEST_S = 5.0


def main() -> None:
    times: list[float] = []
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], REST_S)[0]:
        times.append(ask(int(sys.argv[1])))
    print(json.dumps(times))


def ask(port: int) -> float:
    """How long connecting, asking and closing takes."""
    begun = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", port), LONGEST_S) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            answer = b""
            while received := connection.recv(65536):
                answer += received
    except OSError:
        return LONGEST_S
    return time.perf_counter() - begun if answer.endswith(b"Hello") else LONGEST_S


if __name__ == "__main__":
    main()
