"""What can be served and mounted: HTTPy's own apps, and apps of other interfaces (`hosting.py`)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

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

    @contextlib.asynccontextmanager
    async def _live(self, contexts: Contexts) -> AsyncIterator[None]:
        """The time from startup to shutdown, of this app and then those mounted."""
        async with contextlib.AsyncExitStack() as stack:
            for app, context in contexts:
                context.set_state(await stack.enter_async_context(app._lifespan.running(app)))
            yield
