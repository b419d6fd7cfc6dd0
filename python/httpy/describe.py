"""Describes an app for people: its routes, and what a request passes on its way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from . import _httpy, hints

if TYPE_CHECKING:
    from .app import App
    from .routing import Route

_PLACES = {
    "async": "async def, on the loop",
    "inline": "def, on the loop",
    "pooled": "def, on a pool thread",
    "asgi": "ASGI app, on the loop",
    "wsgi": "WSGI app, on a pool thread",
}


def describe_app(app: App) -> str:
    """Returns the chain of middleware with where each stage runs, and the routes with what they take."""
    lines = [
        f"{app.title} {app.version}, HTTPy {_httpy.__version__}",
        "",
        *_chain(app),
        "",
        *describe_routes(app),
    ]
    return "\n".join(lines)


def describe_routes(app: App, prefix: str = "") -> list[str]:
    """Returns one line per route, those of mounted apps included."""
    lines = ["Routes"]
    rows = [("METHOD", "PATH", "HANDLER", "RUNS", "TAKES"), *_rows(app, prefix)]
    if len(rows) == 1:
        return [*lines, "  none"]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines += [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    ]
    return lines


def _chain(app: App) -> list[str]:
    stages = " -> ".join([*(hints.name_of(one) for one in app._middleware), "handler"])
    lines = ["Chain, outermost first", f"  [rust: protocol -> router] -> [python: {stages}]"]
    if not app._middleware:
        return [*lines, "  1 crossing into Python; none for what the router answers by itself"]
    return [*lines, "  1 crossing into Python, on the loop's thread; 1 more for a handler on a pool thread"]


def _rows(app: App, prefix: str) -> Iterable[tuple[str, str, str, str, str]]:
    for route in app.routes:
        yield _row(route, prefix)
    for mounted, below in app._mounts:
        if below.interface == "httpy":
            yield from _rows(cast("App", below), prefix + mounted)
        else:
            yield "*", f"{prefix}{mounted}/{{path:path}}", below.title, _PLACES[below.interface], ""


def _row(route: Route, prefix: str) -> tuple[str, str, str, str, str]:
    methods = " ".join(route.methods or ("*",))
    pattern = prefix + _httpy.canonical_pattern(route.pattern)
    name = hints.name_of(route.handler)
    shown = name if route.name == name else f"{name} as {route.name}"
    around = "".join(f"{hints.name_of(one)} -> " for one in route.middleware)
    return methods, pattern, around + shown, _PLACES[route.plan.kind], ", ".join(route.plan.summary)
