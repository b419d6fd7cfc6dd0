"""What can be served and mounted: HTTPy's own apps, and apps of other interfaces (`hosting.py`)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, Optional

from . import _httpy
from .lifespan import Lifespan

Contexts = list[tuple["Servable", _httpy.Context]]


class Servable:
    """Has a routing table for a server, and may have others mounted in it.

    Attributes:
        interface: "httpy", "asgi" or "wsgi".
        title: Its name, for people.
        version: Its version, likewise.
    """

    interface = "httpy"
    title = ""
    version = ""
    debug = False

    def __init__(self) -> None:
        self._lifespan: Any = Lifespan(None)
        self._mounts: list[tuple[str, Servable]] = []
        self._servers = 0
        # Those of the servers that serve it.
        self._rooms: list[_httpy.Rooms] = []
        self._root_path = ""

    def _native(self, root_path: str = "") -> tuple[_httpy.Routes, Contexts]:
        """The routing table for one server, and the context of each app in it. Every kind of app has its own."""
        raise NotImplementedError

    def _mounted(self) -> Iterator[Servable]:
        """This app and everything mounted below it."""
        yield self
        for _, app in self._mounts:
            yield from app._mounted()

    @contextlib.contextmanager
    def _served(self, root_path: str = "") -> Iterator[None]:
        """The time in which registering has no effect any more."""
        apps = list(self._mounted())
        self._root_path = root_path
        for app in apps:
            app._servers += 1
        try:
            yield
        finally:
            for app in apps:
                app._servers -= 1

    @contextlib.contextmanager
    def _having(self, rooms: Optional[_httpy.Rooms]) -> Iterator[None]:
        """The time in which this app, and those mounted in it, have a server's rooms."""
        if rooms is None:
            yield
            return
        apps = list(self._mounted())
        for app in apps:
            app._rooms = [*app._rooms, rooms]
        try:
            yield
        finally:
            for app in apps:
                app._rooms = [other for other in app._rooms if other is not rooms]

    @contextlib.asynccontextmanager
    async def _live(self, contexts: Contexts, rooms: Optional[_httpy.Rooms] = None) -> AsyncIterator[None]:
        """The time from startup to shutdown, of this app and then those mounted."""
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._having(rooms))
            for app, context in contexts:
                context.set_state(await stack.enter_async_context(app._lifespan.running(app)))
            yield
