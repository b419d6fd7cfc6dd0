"""What several test modules use: an app, really served, and a client for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import httpx
import pytest
from httpy import App, Server

Serve = Callable[..., httpx.Client]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves an app until the test ends; returns a client for it, which follows no redirects."""
    with contextlib.ExitStack() as stack:

        def start(app: App, **config: object) -> httpx.Client:
            server = stack.enter_context(Server(app, port=0, **config))
            return stack.enter_context(httpx.Client(base_url=server.url, timeout=10, trust_env=False))

        yield start
