"""Checks the configuration of one server. The defaults of limits live in the native half, and only there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import _httpy
from .errors import ConfigError

LOG_FORMATS = ("text", "json")
INTERFACES = ("auto", "httpy", "asgi", "wsgi")
LOOPS = ("auto", "selector", "thread", "uvloop")


# What a supervisor gives to workers, besides their configuration: nobody else's business.
_WORKERS_OWN = ("ticket_secret",)


def split_config(config: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Separates the choice of the loop, the native half's limits, and how it encrypts.

    Returns:
        The loop, and of both the values that were given. None of the latter without a certificate.

    Raises:
        ConfigError: if a name is unknown (the nearest one is named), the loop is, or a certificate is missing.
    """
    native, tls = _httpy.defaults(), (*_httpy.tls_defaults(), *_WORKERS_OWN)
    known = [*native, *_httpy.tls_defaults(), "loop"]
    for name in config:
        if name not in known and name not in _WORKERS_OWN:
            _refuse(name, known)
    loop = config.get("loop", "auto")
    if loop not in LOOPS:
        raise ConfigError(f"loop is one of {', '.join(LOOPS)}, not {loop!r}")
    limits = {name: value for name, value in config.items() if name in native}
    return str(loop), limits, _tls_of({name: value for name, value in config.items() if name in tls})


def _tls_of(given: dict[str, Any]) -> dict[str, Any]:
    if given.get("certfile"):
        if given.get("client_auth") and not given.get("client_ca"):
            # Who says "required" must not find that anybody is served.
            raise ConfigError("client_auth is given, but no authorities to trust (client_ca)")
        return given
    for name, value in given.items():
        if value and name not in _WORKERS_OWN:
            raise ConfigError(f"{name} is given, but no certificate (certfile)")
    return {}


def _refuse(name: str, known: Iterable[str]) -> None:
    # Not above: it needs this module.
    from .settings import LATER, table

    if name in LATER:
        raise ConfigError(f"{name} is not there yet in this version of HTTPy")
    if name in table():
        raise ConfigError(f"{name} is for App.run and the command line, not for a Server")
    raise ConfigError(f"no configuration value {name!r}{nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint at the names that are spelled most alike, for the end of a message."""
    # Not above: only mistakes need it.
    import difflib

    names = list(known)
    likely = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    if likely:
        return f"; did you mean {' or '.join(likely)}?"
    # 12: more is a list that nobody reads.
    return f"; there are {', '.join(sorted(names))}" if len(names) <= 12 else ""


def read_root_path(found: Any) -> str:
    """Returns a root path without the slash at its end.

    Raises:
        ValueError: if it is no path; says what is expected.
    """
    # What belongs to a query or a fragment, or is not to be seen, would end up in the URLs that are built with it.
    is_plain = (
        isinstance(found, str) and found.isascii() and found.isprintable() and not set(found) & set("?#\\ ")
    )
    if not is_plain or (found and not found.startswith("/")):
        raise ValueError("a percent-encoded path, such as /api")
    return str(found).rstrip("/")
