"""Tracebacks of an app's own code."""

from __future__ import annotations

import os

_PLACES = (
    "<frozen importlib",
    os.path.join(os.path.dirname(os.__file__), "importlib", ""),
    os.path.join(os.path.dirname(os.path.abspath(__file__)), ""),
)


def own_traceback(error: BaseException) -> str:
    """Returns the traceback of a program that failed, without how HTTPy and the import system came to it.

    All of it if nothing else is there: then HTTPy failed.
    """
    # Not above: only failures need it.
    import traceback

    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PLACES):
        trace = trace.tb_next
    if trace is None and not isinstance(error, SyntaxError):
        trace = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip("\n")
