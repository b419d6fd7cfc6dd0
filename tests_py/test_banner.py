"""The line about what is served."""

from __future__ import annotations

import json
import re
import sys

from httpy import _httpy
from httpy.banner import banner

PYTHON = sys.version.split()[0]


def test_it_says_what_is_served_where_and_how() -> None:
    line = banner("main:app", ["http://127.0.0.1:80", "unix:/a"], driver="selector")

    assert line == (
        f"HTTPy {_httpy.__version__} serves main:app on http://127.0.0.1:80, unix:/a "
        f"(HTTP/1.1+HTTP/2+WebSocket, 1 worker, loop selector, Python {PYTHON}; Ctrl-C stops)"
    )


def test_it_says_what_else_there_is_to_know() -> None:
    line = banner("main:app", ["http://a:80"], driver="thread", workers=2, note="reloads")

    assert line.endswith(
        f"(HTTP/1.1+HTTP/2+WebSocket, 2 workers, loop thread, Python {PYTHON}; reloads; Ctrl-C stops)"
    )


def test_it_may_have_colours() -> None:
    line = banner("main:app", ["http://a:80"], driver="thread", color=True)

    assert "\033[36mhttp://a:80\033[0m" in line
    assert re.sub(r"\033\[\d+m", "", line) == banner("main:app", ["http://a:80"], driver="thread")


def test_it_may_be_json() -> None:
    found = json.loads(banner("main:app", ["http://a:80"], driver="thread", workers=2, format="json"))

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}Z", found.pop("time"))
    assert found == {
        "level": "info",
        "logger": "httpy",
        "message": "serves main:app",
        "version": _httpy.__version__,
        "app": "main:app",
        "addresses": ["http://a:80"],
        "protocols": ["HTTP/1.1", "HTTP/2", "WebSocket"],
        "workers": 2,
        "loop": "thread",
        "python": PYTHON,
    }
