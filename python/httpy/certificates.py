"""The certificate of a server, as far as its settings decide: one for this machine alone, and where it is kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from . import _httpy
from .errors import ConfigError


def with_certificate(given: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Returns settings with the certificate that `dev_cert` asks for, if it does.

    Args:
        given: The settings that somebody gave.
        environment: Says where programs keep what they can make again.

    Raises:
        ConfigError: if there is another certificate, or it can't be kept.
    """
    if not given.get("dev_cert"):
        return dict(given)
    if given.get("certfile"):
        raise ConfigError("dev_cert and certfile both say which certificate: leave one of them out")
    chain, key = _httpy.dev_certificate(os.path.join(cache_folder(environment), "httpy"))
    return {**given, "certfile": [str(chain)], "keyfile": [str(key)]}


def check_plain(settings: Mapping[str, Any], plain: Sequence[bool]) -> None:
    """Checks that what is said about addresses without TLS can be meant.

    Args:
        settings: All settings.
        plain: Of each address whether it is plain.

    Raises:
        ConfigError: if not.
    """
    if settings.get("certfile") and all(plain):
        raise ConfigError("there is a certificate (certfile), but every address is plain")
    if settings["https_redirect"] is not False:
        if not settings.get("certfile"):
            raise ConfigError("https_redirect is given, but no certificate (certfile)")
        if not any(plain):
            raise ConfigError("https_redirect is for an address without TLS: add one, --bind :80,plain")


def cache_folder(environment: Mapping[str, str]) -> str:
    """Returns where programs of this user keep what they can make again."""
    if sys.platform == "win32":
        return environment.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Caches")
    folder = environment.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    return folder if os.path.isabs(folder) else os.path.expanduser("~/.cache")


def how_to_trust(settings: Mapping[str, Any]) -> str:
    """Returns what clients have to be told about the certificate of `dev_cert`; nothing about others."""
    if not settings.get("dev_cert"):
        return ""
    return f"the certificate is of this machine alone: trust {settings['certfile'][0]}, or curl --cacert it"
