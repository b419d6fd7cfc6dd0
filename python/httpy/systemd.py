"""What systemd and its services say to each other: sockets that it opened, and notifications.

See sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3). Everything here is without effect elsewhere.
"""

from __future__ import annotations

import os
import socket
import time

from .errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Optional

# SD_LISTEN_FDS_START.
_FIRST = 3


def listening_sockets(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Returns the sockets that the service manager has opened for this process, and forgets where they were.

    Args:
        environment: LISTEN_FDS and LISTEN_PID are looked for there, and removed.

    Raises:
        ConfigError: if they can't be used.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if not count or pid != str(os.getpid()):
        # For the process that started this one.
        return []
    if not count.isdigit():
        raise ConfigError(f"LISTEN_FDS is a number of sockets, found {count!r}")
    return [listening_socket(number) for number in range(_FIRST, _FIRST + int(count))]


def listening_socket(descriptor: int) -> socket.socket:
    """Returns the socket with a descriptor that this process was started with.

    Raises:
        ConfigError: if there is none, or it is no stream socket.
    """
    try:
        found = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigError(f"descriptor {descriptor} is no socket: {error.strerror or error}") from None
    if found.type != socket.SOCK_STREAM:
        found.detach()
        raise ConfigError(f"descriptor {descriptor} is no stream socket: it can't carry HTTP")
    os.set_inheritable(descriptor, False)
    return found


class Notifier:
    """Tells the service manager how a service is doing.

    Args:
        environment: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are looked for there, and removed.

    Attributes:
        variables: The environment by which another process can take this one's place.
        watchdog_s: How often `alive` has to be called, at least, in seconds. None if never.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        usec, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        is_watched = self._address and usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
        self.watchdog_s: Optional[float] = int(usec) / 1e6 if is_watched else None
        self.variables = {"NOTIFY_SOCKET": self._address} if self._address else {}
        if self.watchdog_s is not None:
            self.variables["WATCHDOG_USEC"] = usec

    def ready(self, status: str = "") -> None:
        """The service serves; after `reloading`: again."""
        self._notify("READY=1", f"STATUS={status}")  # An empty one takes the last one back.

    def reloading(self) -> None:
        """The service takes up its configuration, or its code, anew."""
        # systemd 253 and later: so that it can tell this reload's READY from one that was under way.
        self._notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The service ends."""
        self._notify("STOPPING=1")

    def alive(self) -> None:
        """The service is not stuck. Without effect if nobody watches."""
        if self.watchdog_s is not None:
            self._notify("WATCHDOG=1")

    def main_process(self, pid: int) -> None:
        """The service is another process from now on."""
        self._notify(f"MAINPID={pid}")

    def _notify(self, *lines: str) -> None:
        if not self._address:
            return
        # @ stands for the NUL of a name without a file.
        address = "\0" + self._address[1:] if self._address[:1] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.connect(address)
                connection.send("\n".join(lines).encode())
        except OSError as error:
            import logging

            logging.getLogger("httpy.systemd").warning("can't notify %s: %s", self._address, error)
            self._address = ""
