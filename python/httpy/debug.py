"""The page that shows a crash, in debug mode only: it tells strangers what the program looks like inside."""

from __future__ import annotations

import traceback

from ._httpy import Request, Response
from .responses import HTMLResponse, PlainTextResponse

_HINT = "This page is here because of debug=True. Never use that where others can reach the server."

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color:
#222 }} h1 {{ font-size: 1.3rem; overflow-wrap: anywhere }} pre {{ background: #f5f5f5; padding: 1rem;
overflow: auto; font-size: 13px }} small {{ color: #666 }} </style> </head> <body> <h1>{title}</h1>
<p><code>{line}</code></p> <pre>{trace}</pre> <h2>Request fields</h2> <pre>{fields}</pre>
<p><small>{hint}</small></p> </body> </html>
"""

# Fields whose values give access to something.
_SECRET = ("authorization", "proxy-authorization", "cookie")


def debug_page(request: Request, error: BaseException) -> Response:
    """Returns a 500 with the traceback: HTML for those who accept it, else plain text."""
    title = f"{type(error).__name__}: {error}"
    line = f"{request.method} {request.url} {request.version}"
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    if "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse(f"{line}\n\n{trace}\n{_HINT}\n", 500)
    fields = "\n".join(
        f"{name}: {'...' if name.lower() in _SECRET else value}"
        for name, value in request.headers.multi_items()
    )
    shown = {"title": title, "line": line, "trace": trace, "fields": fields, "hint": _HINT}
    # Not above: the table of entities takes half a MiB, and this page is rare.
    from html import escape

    page = _PAGE.format(**{name: escape(text) for name, text in shown.items()})
    # The page shows what a client sent: nothing in it may run.
    return HTMLResponse(
        page, 500, {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
    )
