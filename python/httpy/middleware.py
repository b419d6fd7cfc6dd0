"""Checks middleware when it is added, so that a mistake shows at once and not at the first request.

A middleware takes a request and `next`, and returns a response::

    async def timing(request, next):
        started = time.perf_counter()
        response = await next(request)
        response.headers["x-took"] = f"{time.perf_counter() - started:.6f}"
        return response

`next(request)` goes on with the chain and gives its response, a `Response` whatever the handler returned. The
order is the order written; the first is the outermost.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from . import hints
from ._httpy import Request, Response
from .errors import ConfigError
from .plan import is_async

Next = Callable[[Request], Awaitable[Response]]
Middleware = Callable[[Request, Next], Awaitable[Any]]


def check_middleware(middleware: Any) -> Middleware:
    """Returns a middleware if it is one.

    Raises:
        ConfigError: if it is not callable, not async, or does not take two arguments.
    """
    expected = "a middleware is `async def name(request, next)`, or an object with such a `__call__`"
    if isinstance(middleware, type):
        raise ConfigError(f"{expected}; found the class {middleware.__name__}: pass an instance of it")
    if not callable(middleware):
        raise ConfigError(f"{expected}; found {middleware!r}")
    found = f"{hints.place(middleware)}: `{hints.name_of(middleware)}`"
    try:
        inspect.signature(middleware).bind(object(), object())
    except TypeError as error:
        raise ConfigError(f"{expected}; {found} can't be called with two arguments: {error}") from None
    except ValueError:
        # Some callables written in C don't tell what they take.
        pass
    if not is_async(middleware) or inspect.isasyncgenfunction(inspect.unwrap(middleware)):
        raise ConfigError(f"{expected}; {found} is not `async def`, so nobody could await it")
    return middleware  # type: ignore[no-any-return]
