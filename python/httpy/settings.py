"""Every setting of a server: one table, and how values get into it.

A value comes from its flag, else from its `HTTPY_*` variable, else from the configuration file, else it is the
default. The table is the only list of them: `--help`, `App.run`, the configuration file and the documents follow it.
What the native half limits is not listed here: names and defaults are its own.

One file, because half of it is the table, and the rest says what a row means.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Optional

from . import _httpy
from .config import INTERFACES, LOG_FORMATS, LOOPS, nearest, read_root_path
from .errors import ConfigError

LOG_LEVELS = ("critical", "error", "warning", "info", "debug", "trace")
COLOURS = ("auto", "always", "never")

# The groups of `--help`, in its order.
APP, ADDRESSES, TLS, PROCESSES, RELOAD, LOGS, LIMITS = (
    "the app",
    "addresses",
    "encryption (TLS)",
    "processes",
    "reloading",
    "logs",
    "limits and times",
)
GROUPS = (APP, ADDRESSES, TLS, PROCESSES, RELOAD, LOGS, LIMITS)

# Where the app is and where its settings come from: what `App.run` knows without being told.
COMMAND_LINE_ONLY = ("app", "factory", "app_dir", "chdir", "env_file", "config")

# Settings that have no place in a file: they say which file, or are decided before it is read.
_NOT_IN_FILES = ("config",)

# What a later version will do.
LATER = ("http3",)


class Setting(NamedTuple):
    """One setting.

    Attributes:
        name: As Python and files have it; the flag is `--name`, the variable `HTTPY_NAME`.
        read: Turns a value, text or not, into what the setting holds. Raises ValueError, saying what is expected.
        default: Unless somebody says otherwise.
        meaning: For `--help`.
        group: One of `GROUPS`.
        metavar: What its value is called in `--help`.
        choices: What it may be. Empty means anything that `read` takes.
        short: The one-letter flag, if it has one.
        is_many: Whether it may be given several times.
    """

    name: str
    read: Callable[[Any], Any]
    default: Any
    meaning: str
    group: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    short: str = ""
    is_many: bool = False

    @property
    def flag(self) -> str:
        """The flag, `--max-body-bytes`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable, `HTTPY_MAX_BODY_BYTES`."""
        return "HTTPY_" + self.name.upper()

    @property
    def is_switch(self) -> bool:
        """Whether its flag may stand alone."""
        return self.read in (switch, switch_or_path, switch_or_port)

    def value(self, found: Any, source: str) -> Any:
        """Checks a value.

        Args:
            found: Text, or what a file or a program has.
            source: Where it was found, for the message.

        Raises:
            ConfigError: if it is not what the setting has to be.
        """
        if not self.is_many:
            return self._one(found, source)
        if isinstance(found, (str, os.PathLike)):
            return [self._one(found, source)]
        if not isinstance(found, (list, tuple)):
            raise ConfigError(f"{source} is a list, not {found!r}")
        return [self._one(one, source) for one in found]

    def _one(self, found: Any, source: str) -> Any:
        try:
            value = self.read(found)
        except ValueError as error:
            raise ConfigError(f"{source} is {error}, not {found!r}") from None
        if self.choices and value not in self.choices:
            raise ConfigError(f"{source} is one of {', '.join(self.choices)}, not {found!r}")
        return value


# Readers


def text(found: Any) -> str:
    """Reads text that is not empty."""
    if not isinstance(found, str) or not found:
        raise ValueError("text")
    return found


def path(found: Any) -> str:
    """Reads a path that is not empty."""
    try:
        return text(os.fspath(found))
    except (TypeError, ValueError):
        raise ValueError("a path") from None


def version(found: Any) -> str:
    """Reads a version, which a file may have as a number."""
    return text(str(found) if isinstance(found, float) else found)


def whole(found: Any) -> int:
    """Reads a whole number that is not negative."""
    return _whole(found, "a whole number that is not negative")


def at_least_one(found: Any) -> int:
    """Reads a whole number from 1 on."""
    expected = "a whole number from 1 on"
    number = _whole(found, expected)
    if not number:
        raise ValueError(expected)
    return number


def port(found: Any) -> int:
    """Reads a port."""
    expected = "a number from 0 to 65535"
    number = _whole(found, expected)
    if number > 65535:
        raise ValueError(expected)
    return number


def seconds(found: Any) -> float:
    """Reads a time in seconds that is not negative."""
    expected = "a number of seconds that is not negative"
    if isinstance(found, bool) or not isinstance(found, (int, float, str)):
        raise ValueError(expected)
    try:
        number = float(found)
    except ValueError:
        raise ValueError(expected) from None
    # Not a number is not equal to itself.
    if not 0 <= number < float("inf"):
        raise ValueError(expected)
    return number


def switch(found: Any) -> bool:
    """Reads yes or no."""
    if isinstance(found, bool):
        return found
    word = found.strip().lower() if isinstance(found, str) else None
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("true or false")


def switch_or_path(found: Any) -> Any:
    """Reads yes, no, or the path of a file; `-` is yes."""
    if found == "-":
        return True
    try:
        return switch(found)
    except ValueError:
        if not isinstance(found, str):
            raise ValueError("true, false or a path") from None
        return found


def switch_or_port(found: Any) -> Any:
    """Reads yes, no, or a port; 1 is yes, and no port for this."""
    try:
        return switch(found)
    except ValueError:
        try:
            number = port(found)
        except ValueError:
            number = 0
        if not number:
            raise ValueError("true, false or a port") from None
        return number


def fraction(found: Any) -> float:
    """Reads a number that is not negative."""
    try:
        return seconds(found)
    except ValueError:
        raise ValueError("a number that is not negative") from None


def workers(found: Any) -> Any:
    """Reads how many workers: a whole number from 1 on, or "auto"."""
    if found == "auto":
        return found
    try:
        return at_least_one(found)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


def mode(found: Any) -> int:
    """Reads permissions in octal digits."""
    expected = "permissions in octal, such as 027"
    if isinstance(found, int) and not isinstance(found, bool):
        # TOML's 0o027; a decimal number can't be told from it.
        number = found
    else:
        try:
            number = int(found, 8)
        except (TypeError, ValueError):
            raise ValueError(expected) from None
    if not 0 <= number <= 0o7777:
        raise ValueError(expected)
    return number


def _whole(found: Any, expected: str) -> int:
    if isinstance(found, bool) or not isinstance(found, (int, str)):
        raise ValueError(expected)
    try:
        number = int(found)
    except ValueError:
        raise ValueError(expected) from None
    if number < 0:
        raise ValueError(expected)
    return number


# The table


def table() -> dict[str, Setting]:
    """Returns every setting of `httpy run`, by name."""
    supervision, limits = _httpy.supervision_defaults(), _httpy.defaults()
    settings = [*_native(supervision, PROCESSES), *_OWN, *_tls(), *_native(limits, LIMITS)]
    return {setting.name: setting for setting in settings}


_OWN = (
    Setting("app", text, None, "what to serve, for files and the environment", APP, "APP"),
    Setting("factory", switch, False, "call what APP names for the app", APP),
    Setting("interface", text, "auto", "what kind of app it is; auto finds out", APP, choices=INTERFACES),
    Setting("app_dir", text, None, "folder to import from, beside the current one", APP, "DIR"),
    Setting("chdir", text, None, "folder to go to before anything is read or imported", APP, "DIR"),
    Setting("config", text, None, "configuration file, TOML", APP, "FILE", short="-c"),
    Setting("env_file", text, None, "file of NAME=value lines for the environment", APP, "FILE"),
    Setting("root_path", read_root_path, "", "path that a proxy takes away before it asks", APP, "PATH"),
    Setting("debug", switch, False, "answer crashes with a page that shows them", APP),
    Setting("host", text, "127.0.0.1", "address or host name to listen on", ADDRESSES),
    Setting("port", port, 8000, "port to listen on; 0 has the system choose", ADDRESSES, "N"),
    Setting(
        "bind",
        text,
        [],
        "where to listen instead: HOST:PORT, [::1]:PORT, :PORT, unix:PATH[,mode=660,user=U,group=G], fd://N, each "
        "with ,plain for no TLS; may be given several times",
        ADDRESSES,
        "ADDRESS",
        short="-b",
        is_many=True,
    ),
    Setting("dev_cert", switch, False, "use a certificate for this machine alone, made if needed", TLS),
    Setting(
        "https_redirect",
        switch_or_port,
        False,
        "send requests without TLS to where it is; with =PORT to that one",
        TLS,
        "PORT",
    ),
    Setting("loop", text, "auto", "how the asyncio loop is served", PROCESSES, choices=LOOPS),
    Setting(
        "pid_file", text, None, "file that holds the process id meanwhile", PROCESSES, "FILE", short="-p"
    ),
    Setting("user", text, None, "user to become when the addresses are bound", PROCESSES, short="-u"),
    Setting("group", text, None, "group to become likewise", PROCESSES, short="-g"),
    Setting("umask", mode, None, "permissions that new files don't get", PROCESSES, "OCTAL", short="-m"),
    Setting("reload", switch, False, "start anew when a file has changed", RELOAD),
    Setting("reload_dir", text, [], "folder to watch", RELOAD, "DIR", is_many=True),
    Setting("reload_include", text, ["*.py"], "files to watch", RELOAD, "PATTERN", is_many=True),
    Setting(
        "reload_exclude",
        text,
        [".*", "__pycache__", "node_modules"],
        "files and folders not to watch",
        RELOAD,
        "PATTERN",
        is_many=True,
    ),
    Setting("log_level", text, "info", "least level that is logged", LOGS, choices=LOG_LEVELS),
    Setting("log_format", text, "text", "how lines look", LOGS, choices=LOG_FORMATS),
    Setting(
        "access_log",
        switch_or_path,
        False,
        "log every request: to standard output, or with =FILE to its end",
        LOGS,
        "FILE",
    ),
    Setting("color", text, "auto", "colours; auto has them on a terminal", LOGS, choices=COLOURS),
)


def _tls() -> Iterable[Setting]:
    known = _httpy.tls_defaults()
    several = "; may be given several times"
    yield Setting(
        "certfile",
        path,
        [],
        f"certificate and those of its issuers, PEM, one for each host name{several}",
        TLS,
        "FILE",
        is_many=True,
    )
    yield Setting(
        "keyfile",
        path,
        [],
        f"its private key, PEM, unless that is in the same file{several}",
        TLS,
        "FILE",
        is_many=True,
    )
    yield Setting(
        "client_ca", path, known["client_ca"], "authorities whose clients are trusted, PEM", TLS, "FILE"
    )
    yield Setting(
        "client_auth",
        text,
        known["client_auth"],
        "whether clients have to have a certificate then",
        TLS,
        choices=("required", "optional"),
    )
    yield Setting(
        "tls_min_version", version, known["tls_min_version"], "least version", TLS, choices=("1.2", "1.3")
    )
    yield Setting(
        "ciphers",
        text,
        known["ciphers"],
        f"cipher suite, by its name with IANA{several}",
        TLS,
        "NAME",
        is_many=True,
    )
    yield Setting(
        "tls_reload_interval",
        seconds,
        known["tls_reload_interval"],
        "how often these files are looked at for changes, in seconds; 0 is never",
        TLS,
        "SECONDS",
    )


# What the native half's values mean. One that is missing here is shown without words.
MEANINGS = {
    "max_target_bytes": "longest request target, in bytes; longer is 414",
    "max_head_bytes": "largest request head, in bytes; larger is 431",
    "max_field_bytes": "longest field line of a request, in bytes; longer is 431",
    "max_fields": "most field lines of a request; more is 431",
    "max_body_bytes": "largest request body a handler is given, in bytes; larger is 413",
    "keep_alive_timeout": "longest wait for the first byte of a request, in seconds",
    "head_timeout": "longest wait for the rest of a request head, in seconds",
    "body_min_rate": "least rate of arriving content, in bytes a second; slower is 408, 0 is no limit",
    "body_timeout": "over how long that rate is measured, in seconds",
    "write_timeout": "longest wait for a client to read any of a response, in seconds",
    "grace": "longest wait for running requests when stopping, in seconds",
    "idle_grace": "when stopping, how long an idle connection is kept for one more request, in seconds",
    "shutdown_timeout": "longest the app's shutdown may take, in seconds",
    "backlog": "connections the system may queue before they are accepted",
    "max_connections": "most open connections; then idle ones are closed for new ones; 0 is no limit",
    "max_connections_per_address": "most open connections of one public address; more are closed; 0 is no limit",
    "handshake_timeout": "longest a connection may take to be set up, in seconds",
    "max_in_flight": "most requests that are answered at the same time; 0 is no limit",
    "max_queued": "most requests that wait for one of these to end; more are 503",
    "queue_timeout": "longest they wait, in seconds; longer is 503",
    "handler_timeout": "longest a handler may take to answer, in seconds; longer is 503; 0 is no limit",
    "h1_early_hints": "send early hints (103) by HTTP/1.1, too: all clients are known to take them",
    "h2_max_concurrent_streams": "most requests under way on one HTTP/2 connection; more are refused",
    "h2_stream_window_bytes": "content of one HTTP/2 request that may be unread, in bytes",
    "h2_connection_window_bytes": "content of all requests on one HTTP/2 connection that may be unread, in bytes",
    "h2_max_resets": "most HTTP/2 streams a client may reset in a row; then it is sent away",
    "h2_max_idle_frames": "most HTTP/2 frames in a row that do nothing; then the client is sent away",
    "h2_ping_interval": "silence after which an HTTP/2 client is asked for a sign of life, in seconds; 0 is never",
    "h2_ping_timeout": "longest wait for that sign, in seconds",
    "ws_max_message_bytes": "longest WebSocket message, in bytes; longer is a close with 1009",
    "ws_max_frame_bytes": "longest WebSocket frame, in bytes; longer is a close with 1009",
    "ws_max_queue_bytes": "what may wait for a WebSocket client that reads too slowly, in bytes",
    "ws_ping_interval": "silence after which a WebSocket client is sent a ping, in seconds; 0 is never",
    "ws_ping_timeout": "longest wait for anything to come after that, in seconds",
    "ws_close_timeout": "longest wait for a WebSocket client to answer a close, in seconds",
    "ws_handler_grace": "how long a WebSocket's handler may go on when its client has gone, in seconds",
    "ws_max_rooms": "most rooms a WebSocket may be in",
    "rooms_max_queue_bytes": "messages to rooms that may wait for another process, in bytes; more are dropped",
    "rooms_url": "Redis that servers on several machines share their rooms by, redis://HOST:PORT/DB",
    "rooms_channel": "channel there; who has the same shares the same rooms",
    "ws_compression": "compress WebSocket messages for clients that can (permessage-deflate)",
    "ws_compression_window_bits": "largest window that either side keeps for that, 9 to 15 bits",
    "workers": "how many processes serve; auto is one for each processor",
    "worker_timeout": "how long a worker's loop may be stuck before it is replaced, in seconds; 0 is for ever",
    "max_requests": "requests after which a worker is replaced; 0 is never",
    "max_rss": "resident memory with which a worker is replaced, in bytes; 0 is any",
    "recycle_jitter": "by how much of themselves these two are raised at most, at random",
    "reuse_port": "give every worker a listening socket of its own (SO_REUSEPORT)",
}

# The one-letter flags of native values.
_SHORT = {"workers": "-w"}

# Where a native value is shown, unless it is a limit.
_GROUPS = {"backlog": ADDRESSES, "rooms_url": PROCESSES, "rooms_channel": PROCESSES}


def _native(defaults: Mapping[str, Any], group: str) -> Iterable[Setting]:
    for name, default in defaults.items():
        reader, metavar = _reader(name, default)
        short, meaning = _SHORT.get(name, ""), MEANINGS.get(name, "")
        yield Setting(name, reader, default, meaning, _GROUPS.get(name, group), metavar, short=short)


def _reader(name: str, default: Any) -> tuple[Callable[[Any], Any], str]:
    """How a native value is read, which its default tells."""
    if name == "workers":
        return workers, "N"
    if name == "recycle_jitter":
        return fraction, "FRACTION"
    if isinstance(default, bool):
        return switch, ""
    if isinstance(default, int):
        return whole, "N"
    if isinstance(default, float):
        return seconds, "SECONDS"
    return text, name.upper()


# Where values come from

Given = dict[str, Any]


def from_environment(environment: Mapping[str, str]) -> Given:
    """Reads the `HTTPY_*` variables.

    An empty variable is as good as none. A list is separated by spaces.

    Raises:
        ConfigError: if a value is wrong.
    """
    given: Given = {}
    for setting in table().values():
        found = environment.get(setting.variable)
        if found:
            given[setting.name] = setting.value(found.split() if setting.is_many else found, setting.variable)
    return given


def misspelled_variables(environment: Mapping[str, str]) -> list[str]:
    """Returns what to say about `HTTPY_*` variables that are no settings, but nearly.

    They are not refused: a variable may be meant for another program, or for the app.
    """
    known = {setting.variable for setting in table().values()}
    unknown = sorted(name for name in environment if name.startswith("HTTPY_") and name not in known)
    if not unknown:
        return []
    import difflib

    likely = ((name, difflib.get_close_matches(name, known, n=1, cutoff=0.85)) for name in unknown)
    return [f"{name} is no setting; did you mean {near[0]}?" for name, near in likely if near]


def from_mapping(values: Mapping[str, Any], source: str = "") -> Given:
    """Checks values that a file or a program has.

    Args:
        values: By name; in files a name may have dashes.
        source: The file, for the message. Empty for programs.

    Raises:
        ConfigError: if a name is unknown (the nearest one is named), or a value is wrong.
    """
    settings = table()
    before = f"{source}: " if source else ""
    given: Given = {}
    for written, found in values.items():
        name = written.replace("-", "_") if source else written
        if name in LATER:
            refuse_later(name, found)
            continue
        setting = settings.get(name)
        if setting is None or (source and name in _NOT_IN_FILES):
            raise ConfigError(f"{before}no setting {written!r}{nearest(name, settings)}")
        given[name] = setting.value(found, before + written)
    return given


def refuse_later(name: str, value: Any) -> None:
    """Refuses what is not there yet, unless it asks for nothing.

    Raises:
        ConfigError: naming it.
    """
    if value not in (None, False):
        raise ConfigError(f"{name}={value!r} is not there yet in this version of HTTPy")


def find_file(explicit: Optional[str]) -> Optional[tuple[str, Mapping[str, Any]]]:
    """Reads the configuration file: the one that was named, else `httpy.toml`, else `[tool.httpy]` of `pyproject.toml`.

    Returns:
        Its name for messages, and its values. None if there is none.

    Raises:
        ConfigError: if it can't be read or is not TOML.
    """
    if explicit is not None:
        if explicit.endswith(".py"):
            raise ConfigError(f"{explicit}: a configuration file is TOML; gunicorn's in Python is not read")
        return _read_file(explicit)
    if os.path.isfile("httpy.toml"):
        return _read_file("httpy.toml")
    if os.path.isfile("pyproject.toml"):
        found = _read_file("pyproject.toml")
        return found if found[1] else None
    return None


def _read_file(path: str) -> tuple[str, Mapping[str, Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            values = _httpy.read_toml(file.read())
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8, as TOML has to be") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if os.path.basename(path) != "pyproject.toml":
        return path, values
    section = values.get("tool", {}).get("httpy", {})
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: tool.httpy is a table, not {section!r}")
    return f"{path}: [tool.httpy]", section


def merge(*levels: Given) -> Given:
    """Returns the values of several sources, the first of which wins.

    Host, port and bind say one thing, where to listen: what a source says of it takes the place of what later ones do.

    Raises:
        ConfigError: if one source says it twice.
    """
    merged: Given = {}
    for level in levels:
        if "bind" in level and ("host" in level or "port" in level):
            other = "host" if "host" in level else "port"
            raise ConfigError(f"bind and {other} both say where to listen: leave {other} out")
        if "bind" in merged:
            level = {name: value for name, value in level.items() if name not in ("host", "port")}
        elif "host" in merged or "port" in merged:
            level = {name: value for name, value in level.items() if name != "bind"}
        merged = {**level, **merged}
    return merged


def with_defaults(given: Given) -> Given:
    """Adds the defaults of what was not given. Those of the native half stay with it."""
    return {**{setting.name: setting.default for setting in _OWN}, **given}
