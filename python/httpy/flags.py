"""Reads the arguments of a command, and prints its help.

By hand and not with argparse: that takes a tenth of an idle worker's memory, and its messages are several lines.

1. A flag is written whole: `--port 80`, `--port=80`, `-w 2`. Beginnings of flags are not understood: a later version
   may have two that begin alike.
2. A switch stands alone, has a twin that turns it off (`--no-reload`), and takes a value after `=` only.
3. The spellings of uvicorn and gunicorn are understood where they mean the same (`_SAME`); where they don't, the
   message says what there is instead (`_DIFFERENT`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

from .config import nearest
from .errors import ConfigError
from .settings import GROUPS, Given, Setting

# Flags of uvicorn and gunicorn that mean what one of ours means, and how their value becomes ours.
_SAME = {
    # uvicorn
    "--uds": ("bind", "unix:{}"),
    "--fd": ("bind", "fd://{}"),
    "--use-colors": ("color", "always"),
    "--no-use-colors": ("color", "never"),
    "--limit-concurrency": ("max_in_flight", "{}"),
    "--limit-max-requests": ("max_requests", "{}"),
    "--timeout-keep-alive": ("keep_alive_timeout", "{}"),
    "--timeout-graceful-shutdown": ("grace", "{}"),
    "--ssl-certfile": ("certfile", "{}"),
    "--ssl-keyfile": ("keyfile", "{}"),
    # gunicorn
    "--graceful-timeout": ("grace", "{}"),
    "--keep-alive": ("keep_alive_timeout", "{}"),
    "--timeout": ("worker_timeout", "{}"),
    "-t": ("worker_timeout", "{}"),
    "--worker-connections": ("max_connections", "{}"),
    "--limit-request-fields": ("max_fields", "{}"),
    "--limit-request-field_size": ("max_field_bytes", "{}"),
    "--access-logfile": ("access_log", "{}"),
    "--pid": ("pid_file", "{}"),
}

_CLIENTS = (
    "use --client-ca: it also has clients asked for certificates, which --client-auth may make optional"
)
_AUTH = "use --client-ca to ask clients for certificates, and --client-auth to say whether they need one"
_VERSION = "use --tls-min-version 1.2 or 1.3"
_PROXY = "HTTPy does not read X-Forwarded-* yet"
_ONE_PROTOCOL = "HTTPy's protocols are its own: leave it out"
_FORMAT = "the access log has two forms: --log-format text is the combined log format, json is an object on each line"
_SERVICE = "HTTPy stays in the foreground: let systemd, a container or `&` put it elsewhere"
_JITTER = "use --recycle-jitter: a fraction of --max-requests; 0.1 unless you say otherwise"
_LOGGING = "set logging up in the app; HTTPy's loggers are `httpy` and those below it"
_STDERR = "logs go to standard error: redirect that"

# Those that can't mean the same, and what there is instead.
_DIFFERENT = {
    # uvicorn
    "--http": _ONE_PROTOCOL,
    "--ws": _ONE_PROTOCOL,
    "--lifespan": "startup and shutdown always run, and one that fails ends the server: leave it out",
    "--log-config": _LOGGING,
    "--proxy-headers": _PROXY,
    "--no-proxy-headers": "HTTPy does not read X-Forwarded-*: leave it out",
    "--forwarded-allow-ips": _PROXY,
    "--header": "let a middleware set response fields",
    "--server-header": "HTTPy sends no Server field: let a middleware set it",
    "--no-server-header": "HTTPy sends no Server field: leave it out",
    "--date-header": "HTTPy always sends Date: leave it out",
    "--no-date-header": "HTTPy always sends Date, as RFC 9110 §6.6.1 asks",
    "--h11-max-incomplete-event-size": "use --max-head-bytes: the largest request head, in bytes",
    "--limit-max-requests-jitter": _JITTER,
    "--timeout-worker-healthcheck": "use --worker-timeout: how long a worker may not answer, in seconds",
    "--reload-delay": "HTTPy hears of changes at once: leave it out",
    "--ssl-keyfile-password": "decrypt the key, with openssl pkey: there is nobody to ask, when it is read again",
    "--ssl-version": _VERSION,
    "--ssl-cert-reqs": _AUTH,
    "--ssl-ca-certs": _CLIENTS,
    "--ssl-ciphers": "use --ciphers with names of IANA, such as TLS_AES_128_GCM_SHA256",
    "--http3": "HTTP/3 is not there yet in this version of HTTPy",
    # gunicorn
    "--cert-reqs": _AUTH,
    "--ca-certs": _CLIENTS,
    "--do-handshake-on-connect": "a handshake holds up nobody else: leave it out",
    "--suppress-ragged-eofs": "leave it out",
    "-k": "HTTPy has one kind of worker: leave it out",
    "--worker-class": "HTTPy has one kind of worker: leave it out",
    "--threads": "HTTPy adds threads for `def` handlers when they block: leave it out",
    "--max-requests-jitter": _JITTER,
    "--preload": "workers import the app themselves: leave it out",
    "--limit-request-line": "use --max-target-bytes: the longest request target, without method and version",
    "-D": _SERVICE,
    "--daemon": _SERVICE,
    "-n": "HTTPy does not rename its processes: leave it out",
    "--name": "HTTPy does not rename its processes: leave it out",
    "-e": "use --env-file, or set it before the command",
    "--env": "use --env-file, or set it before the command",
    "--access-logformat": _FORMAT,
    "--error-logfile": _STDERR,
    "--log-file": _STDERR,
    "--capture-output": _STDERR,
    "--logger-class": _LOGGING,
    "--worker-tmp-dir": "workers need no folder: leave it out",
    "--reload-engine": "the system tells of changes: leave it out",
    "--reload-extra-file": "use --reload-include with a pattern",
    "--check-config": "use `httpy check`",
    "--print-config": "use `httpy check`",
    "--disable-redirect-access-to-syslog": _STDERR,
    "--enable-stdio-inheritance": "what the app prints is never taken away: leave it out",
    "--statsd-host": "HTTPy speaks no statsd",
    "--paste": "paste files are not read: name the app as module:app",
    "--no-sendfile": "leave it out",
}

# uvicorn's word for a loop that asyncio itself makes.
_VALUES = {"loop": {"asyncio": "thread", "none": "auto"}}


class Option(NamedTuple):
    """A flag that is no setting: of one command, or of all.

    Attributes:
        name: In what `parse` returns.
        flags: Its spellings.
        metavar: What its value is called; empty if it stands alone.
        meaning: For `--help`.
    """

    name: str
    flags: tuple[str, ...]
    metavar: str
    meaning: str


HELP = Option("help", ("--help", "-h"), "", "show this and end")


class Parsed(NamedTuple):
    """What the arguments say.

    Attributes:
        words: Those that are no flags.
        settings: The settings that were given, checked.
        options: The options that were given, by name; "" for those without a value.
    """

    words: list[str]
    settings: Given
    options: dict[str, str]


def parse(arguments: Sequence[str], settings: dict[str, Setting], options: Sequence[Option] = ()) -> Parsed:
    """Reads arguments.

    Args:
        arguments: Those after the command.
        settings: The settings that the command takes, by name.
        options: What else it takes.

    Raises:
        ConfigError: if a flag is unknown (the nearest one is named), its value is missing, or wrong.
    """
    by_flag = {setting.flag: setting for setting in settings.values()}
    by_flag.update({setting.short: setting for setting in settings.values() if setting.short})
    off = {f"--no-{one.flag[2:]}": one for one in settings.values() if one.is_switch}
    own = {flag: option for option in (*options, HELP) for flag in option.flags}
    parsed = Parsed([], {}, {})
    left = list(reversed(arguments))

    def value_of(flag: str, attached: Optional[str]) -> str:
        if attached is not None:
            return attached
        if not left or (left[-1].startswith("--") and left[-1] != "--"):
            raise ConfigError(f"{flag} needs a value")
        return left.pop()

    while left:
        argument = left.pop()
        if argument == "--":
            parsed.words.extend(reversed(left))
            break
        if not argument.startswith("-") or argument == "-":
            parsed.words.append(argument)
            continue
        flag, attached = _split(argument)
        if flag in own:
            option = own[flag]
            parsed.options[option.name] = (
                value_of(flag, attached) if option.metavar else _none(flag, attached)
            )
        elif flag in by_flag:
            setting = by_flag[flag]
            alone = setting.is_switch and attached is None
            _put(parsed.settings, setting, True if alone else value_of(flag, attached), flag)
        elif flag in off:
            _none(flag, attached)
            parsed.settings[off[flag].name] = False
        elif flag in _SAME and _SAME[flag][0] in settings:
            name, form = _SAME[flag]
            value = form.format(value_of(flag, attached)) if "{}" in form else form
            _put(parsed.settings, settings[name], value, flag)
        else:
            raise ConfigError(_unknown(flag, [*by_flag, *off, *own], settings))
    return parsed


def _split(argument: str) -> tuple[str, Optional[str]]:
    """Takes `--port=80` and `-p80` apart."""
    if argument.startswith("--"):
        flag, equals, value = argument.partition("=")
        return flag, value if equals else None
    return argument[:2], argument[2:].removeprefix("=") if len(argument) > 2 else None


def _put(given: Given, setting: Setting, value: object, flag: str) -> None:
    if isinstance(value, str):
        value = _VALUES.get(setting.name, {}).get(value, value)
    found = setting.value(value, flag)
    given[setting.name] = [*given.get(setting.name, []), *found] if setting.is_many else found


def _none(flag: str, attached: Optional[str]) -> str:
    if attached is not None:
        raise ConfigError(f"{flag} takes no value, found {attached!r}")
    return ""


def _unknown(flag: str, known: Iterable[str], settings: dict[str, Setting]) -> str:
    if flag in _DIFFERENT and settings:
        return f"{flag}: {_DIFFERENT[flag]}"
    hint = nearest(flag, [one for one in known if one.startswith("--")]) if flag.startswith("--") else ""
    return f"no flag {flag}{hint or '; see --help'}"


# Help


def help_text(
    usage: str,
    description: str,
    settings: Iterable[Setting],
    options: Sequence[Option] = (),
    notes: Sequence[str] = (),
) -> str:
    """Returns the help of a command: its own flags, then the settings by group, each with default and variable."""
    import textwrap

    width = max(60, min(_columns(), 110))
    lines = [f"usage: {usage}", "", *textwrap.wrap(description, width)]

    def add(title: str, rows: Iterable[tuple[str, str]]) -> None:
        lines.extend(["", f"{title}:"])
        for left, right in rows:
            wrapped = textwrap.wrap(right, width - 28) or [""]
            if len(left) > 24:
                lines.append(f"  {left}")
            else:
                lines.append(f"  {left:<24}  {wrapped.pop(0)}")
            lines.extend(" " * 28 + line for line in wrapped)

    add("flags", [(_spelled(one.flags, one.metavar), one.meaning) for one in (*options, HELP)])
    settings = list(settings)
    for group in GROUPS:
        rows = [_row(setting) for setting in settings if setting.group == group and setting.name != "app"]
        if rows:
            add(group, rows)
    for note in notes:
        lines.extend(["", *textwrap.wrap(note, width)])
    return "\n".join(lines)


def _row(setting: Setting) -> tuple[str, str]:
    metavar = (
        f"{{{','.join(setting.choices)}}}" if setting.choices else setting.metavar or setting.name.upper()
    )
    flags = (setting.short, setting.flag) if setting.short else (setting.flag,)
    if setting.is_switch:
        left = _spelled(flags, "") + (f"[={metavar}]" if setting.metavar else "")
    else:
        left = _spelled(flags, metavar)
    return left, f"{setting.meaning} (default: {shown_default(setting)}; {setting.variable})".lstrip()


def shown_default(setting: Setting) -> str:
    """Returns a setting's default as people write it."""
    default = setting.default
    if default is None or default == "" or default == []:
        return "none"
    if isinstance(default, bool):
        return "on" if default else "off"
    return " ".join(map(str, default)) if isinstance(default, list) else str(default)


def _spelled(flags: Iterable[str], metavar: str) -> str:
    return ", ".join(flags) + (f" {metavar}" if metavar else "")


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):
        # No terminal, or no real standard output.
        return 100
