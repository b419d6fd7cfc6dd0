"""The line that a server says when it accepts connections."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from . import _httpy

PROTOCOLS = ("HTTP/1.1", "HTTP/2", "WebSocket")


def banner(
    app: str,
    urls: Sequence[str],
    *,
    driver: str,
    workers: int = 1,
    note: str = "",
    format: str = "text",
    color: bool = False,
) -> str:
    """Returns what is served where, and how.

    Args:
        app: What is served, as whoever started it named it.
        urls: Where.
        driver: How the loop is served.
        workers: In how many processes.
        note: What else there is to know, `reloading`.
        format: "text", or "json" for one object.
        color: Whether text has colours.
    """
    from .logs import painted, to_json

    version = sys.version.split()[0]
    if format == "json":
        return to_json(_entry(app, urls, driver, workers, note, version))
    where = ", ".join(painted(url, "36", color) for url in urls)
    how = [
        "+".join(PROTOCOLS),
        "1 worker" if workers == 1 else f"{workers} workers",
        f"loop {driver}",
        f"Python {version}",
    ]
    title = painted(f"HTTPy {_httpy.__version__}", "1", color)
    rest = "; ".join([", ".join(how), *([note] if note else []), "Ctrl-C stops"])
    return f"{title} serves {painted(app, '1', color)} on {where} ({rest})"


def _entry(
    app: str, urls: Sequence[str], driver: str, workers: int, note: str, version: str
) -> dict[str, Any]:
    import time

    from .logs import utc

    return {
        "time": utc(time.time(), 6),
        "level": "info",
        "logger": "httpy",
        "message": f"serves {app}" + (f"; {note}" if note else ""),
        "version": _httpy.__version__,
        "app": app,
        "addresses": list(urls),
        "protocols": list(PROTOCOLS),
        "workers": workers,
        "loop": driver,
        "python": version,
    }
