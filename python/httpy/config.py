"""Checks configuration names and values. The defaults themselves live in the native half, and only there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import _httpy
from .errors import ConfigError
from .loops import LOOPS

# What `App.run` takes and a later version will do, with the value that asks for nothing.
_LATER = {"reload": False, "certfile": None, "keyfile": None, "http3": False}


def split_config(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Separates the choice of the loop from what the native half takes.

    Returns:
        The loop, and the native values that were given.

    Raises:
        ConfigError: if a name is unknown (the nearest one is named), or the loop is.
    """
    native = _httpy.defaults()
    known = [*native, "loop"]
    for name in config:
        if name in _httpy.supervision_defaults():
            raise ConfigError(f"{name} is for app.run and httpy run: a Server is one process")
        if name in _LATER:
            refuse_later(**{name: config[name]})
        if name not in known and name not in _LATER:
            raise ConfigError(f"no configuration value {name!r}{nearest(name, known)}")
    loop = config.get("loop", "auto")
    if loop not in LOOPS:
        raise ConfigError(f"loop is one of {', '.join(LOOPS)}, not {loop!r}")
    return str(loop), {name: value for name, value in config.items() if name in native}


def refuse_later(**values: Any) -> None:
    """Refuses what is not there yet.

    Raises:
        ConfigError: naming the first value that asks for it.
    """
    for name, value in values.items():
        if value != _LATER[name]:
            raise ConfigError(f"{name}={value!r} is not there yet in this version of HTTPy")


def nearest(name: str, known: Any) -> str:
    """Returns a hint at the names that are spelled most alike, for the end of a message."""
    # Not above: only mistakes need it.
    import difflib

    likely = difflib.get_close_matches(name, list(known), n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(likely)}?" if likely else f"; there are {', '.join(sorted(known))}"
