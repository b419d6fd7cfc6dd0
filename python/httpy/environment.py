"""Reads a file of `NAME=value` lines, as `--env-file` names it.

Comments begin with `#`; `export ` before a name is allowed. A value in single quotes is as it stands; in double quotes
`\\n`, `\\t`, `\\"` and `\\\\` mean what they usually do. Nothing is expanded: a password may have a `$`.
"""

from __future__ import annotations

import re

from .errors import ConfigError

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}


def read_env_file(path: str) -> dict[str, str]:
    """Returns the variables of a file.

    Raises:
        ConfigError: if it can't be read, or a line is none; says which.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise ConfigError(f"env_file {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"env_file {path} is not UTF-8") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").partition("=")
        name = name.strip()
        # The value is not shown: it may be a secret.
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(f"env_file {path}, line {number}: not NAME=value")
        try:
            found[name] = _read_value(value.strip())
        except ValueError as error:
            raise ConfigError(f"env_file {path}, line {number}: {error}") from None
    return found


def _read_value(written: str) -> str:
    if written[:1] not in ("'", '"'):
        # A comment needs a space before it: `#` is in many passwords.
        return re.split(r"\s#", written, maxsplit=1)[0].rstrip()
    quoted = re.fullmatch(r"'([^']*)'|\"((?:[^\"\\]|\\.)*)\"", re.sub(r"(['\"])\s+#[^'\"]*$", r"\1", written))
    if quoted is None:
        raise ValueError("a quote is not closed, or something comes after it")
    if quoted[1] is not None:
        return quoted[1]
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), quoted[2])
