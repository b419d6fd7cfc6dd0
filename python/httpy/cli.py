"""The command line: `httpy run`, `httpy routes`, `httpy check`.

Mistakes of whoever types (a module that is not there, a port that is taken) are one line and exit 2; a program that
fails shows its traceback and exits 1, and so does a server that is not well. This is the only module that reads the
environment (but for what a terminal says about colours, `logs.py`) or decides how the process exits.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

from . import _httpy
from .config import nearest
from .errors import ConfigError, RouteError
from .flags import Option, Parsed, help_text, parse
from .settings import (
    APP,
    Given,
    Setting,
    find_file,
    from_environment,
    from_mapping,
    merge,
    misspelled_variables,
    table,
    with_defaults,
)

VERSION = Option("version", ("--version", "-V"), "", "show the versions of HTTPy and Python, and end")
URL = Option("url", ("--url",), "URL", "ask a server that runs, instead of loading the app")
TIMEOUT = Option("timeout", ("--timeout",), "SECONDS", "longest wait for its answer (default: 5)")

_APP_NOTE = (
    "APP is module:app, path/to/file.py:app or module:create_app(); without it HTTPY_APP, else main.py, app.py, "
    "api.py or server.py of the folder, or of its only package that has one."
)
_VALUES_NOTE = (
    "A value comes from its flag, else from its HTTPY_* variable, else from --config, httpy.toml or [tool.httpy] of "
    "pyproject.toml, else it is the default. A switch is turned off by --no-NAME."
)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs a command.

    Args:
        arguments: Those after the program's name. Defaults to the process's own.

    Returns:
        The exit status: 0; 1 if the program failed, or the server that was asked is not well; 2 if the command line
        or the configuration is wrong.
    """
    reporter = Reporter()
    try:
        return _command(list(sys.argv[1:] if arguments is None else arguments), reporter)
    except (ConfigError, RouteError) as error:
        reporter.say(f"httpy: error: {error}")
        return 2
    except KeyboardInterrupt:
        return 0
    except Exception as error:
        from .tracebacks import own_traceback

        reporter.say(own_traceback(error))
        return 1


class Reporter:
    """Says what went wrong, in the form that logs have.

    Attributes:
        format: "text", or "json" as soon as that is known to be wanted.
    """

    def __init__(self) -> None:
        self.format = "text"

    def say(self, text: str) -> None:
        """Says it on standard error."""
        # Not above: most commands have nothing to say there, and it imports logging.
        from .logs import report

        report(text, self.format)


# Commands


class Command(NamedTuple):
    """A command.

    Attributes:
        run: What it does with its arguments; returns the exit status.
        settings: The settings that it takes.
        options: What else it takes.
        usage: How it is written.
        meaning: What it does, for `--help`.
        notes: What else there is to know.
    """

    run: Callable[[Parsed, Reporter], int]
    settings: Callable[[], dict[str, Setting]]
    options: tuple[Option, ...]
    usage: str
    meaning: str
    notes: tuple[str, ...] = ()


def _command(arguments: list[str], reporter: Reporter) -> int:
    commands = _commands()
    name = arguments[0] if arguments else ""
    if name in commands:
        command = commands[name]
        settings = command.settings()
        parsed = parse(
            arguments[1:], {key: one for key, one in settings.items() if key != "app"}, command.options
        )
        if "help" in parsed.options:
            print(
                help_text(command.usage, command.meaning, settings.values(), command.options, command.notes)
            )
            return 0
        return command.run(parsed, reporter)
    if name and not name.startswith("-"):
        hint = (
            f"; did you mean `httpy run {name}`?"
            if ":" in name or name.endswith(".py")
            else nearest(name, commands)
        )
        raise ConfigError(f"no command {name!r}{hint}")
    options = parse(arguments, {}, (VERSION,)).options
    if "version" in options:
        print(_version())
        return 0
    print(_overview(commands))
    return 0 if "help" in options else 2


def _commands() -> dict[str, Command]:
    return {
        "run": Command(
            _run,
            table,
            (),
            "httpy run [APP] [flags]",
            "Serves an app until SIGINT or SIGTERM.",
            (_APP_NOTE, _VALUES_NOTE),
        ),
        "routes": Command(
            _routes,
            _app_settings,
            (),
            "httpy routes [APP] [flags]",
            "Shows an app's routes, and what a request passes on its way.",
            (_APP_NOTE,),
        ),
        "check": Command(
            _check,
            table,
            (URL, TIMEOUT),
            "httpy check [APP] [flags] | httpy check --url URL",
            "Says whether `httpy run` would start with this configuration and app; binds nothing. With --url: asks a "
            "server that runs whether it is well (a status from 200 to 399), for containers without another client. "
            "URL is http(s)://HOST:PORT/path, unix:/path/of/socket:/path, or /path for the configured address.",
            (
                _APP_NOTE,
                "Exit status: 0 if it is well; 1 if the app fails, or the server is not well; 2 for mistakes.",
            ),
        ),
    }


def _app_settings() -> dict[str, Setting]:
    return {
        name: setting for name, setting in table().items() if setting.group == APP and name != "root_path"
    }


def _overview(commands: dict[str, Command]) -> str:
    lines = ["usage: httpy COMMAND ...", "", "Serves Python applications over HTTP.", "", "commands:"]
    lines += [f"  {name:<10}{command.meaning.partition('.')[0]}." for name, command in commands.items()]
    lines += ["", "flags:", f"  {', '.join(VERSION.flags):<16}{VERSION.meaning}"]
    lines += ["", "`httpy COMMAND --help` tells more."]
    return "\n".join(lines)


def _version() -> str:
    import platform

    return (
        f"httpy {_httpy.__version__} ({platform.python_implementation()} {platform.python_version()}, "
        f"{platform.system()} {platform.machine()})"
    )


def _run(parsed: Parsed, reporter: Reporter) -> int:
    from .running import run, set_up_logs

    given = _gather(parsed)
    settings = with_defaults(given)
    reporter.format = settings["log_format"]
    for hint in misspelled_variables(os.environ):
        import logging

        set_up_logs(settings)
        logging.getLogger("httpy").warning(hint)
    return run(_program(parsed, given), given, os.environ)


def _routes(parsed: Parsed, reporter: Reporter) -> int:
    given = _gather(parsed)
    _program(parsed, given).load().describe()
    return 0


def _check(parsed: Parsed, reporter: Reporter) -> int:
    if "url" in parsed.options:
        return _probe(parsed)
    if "timeout" in parsed.options:
        raise ConfigError("--timeout is for --url")
    from .certificates import check_plain, with_certificate
    from .identity import group_id, user_id
    from .running import addresses_of, server_settings
    from .server import Server

    given = with_certificate(_gather(parsed), os.environ)
    settings = with_defaults(given)
    reporter.format = settings["log_format"]
    addresses = addresses_of(settings)
    check_plain(settings, [address.plain for address in addresses])
    program = _program(parsed, given)
    app = program.load()
    # Of these it is known only with sockets whether they can be followed.
    without = {"access_log": False, "https_redirect": False}
    server = Server(app, **{**server_settings(settings), **without})
    # Finds out what is known only when the routes of mounts come together, and what a limit may be.
    _httpy.Core(app._native()[0], server._config)
    if server._tls:
        _httpy.Credentials(server._tls)
    if settings["user"] is not None:
        user_id(settings["user"])
    if settings["group"] is not None:
        group_id(settings["group"])
    where = ", ".join(address.text for address in addresses)
    print(f"ok: {program.shown} would be served on {where}")
    return 0


def _probe(parsed: Parsed) -> int:
    from .addresses import read_address
    from .check import Unhealthy, probe, read_url, url_of_address
    from .settings import seconds

    if parsed.words:
        raise ConfigError(f"--url asks a server that runs: leave {parsed.words[0]!r} out")
    url = parsed.options["url"]
    is_encrypted = False
    if url.startswith("/"):
        settings = with_defaults(_gather(parsed))
        host = f"[{settings['host']}]" if ":" in settings["host"] else settings["host"]
        address = read_address([*settings["bind"], f"{host}:{settings['port']}"][0])
        url = url_of_address(address, url)
        is_encrypted = bool(settings.get("certfile") or settings["dev_cert"]) and not address.plain
    written = parsed.options.get("timeout", "5")
    try:
        timeout = seconds(written)
    except ValueError as error:
        raise ConfigError(f"--timeout is {error}, not {written!r}") from None
    target = read_url(url)
    try:
        # What is asked is this machine: the certificate is for those who come from elsewhere.
        print(f"ok: {probe(target._replace(name='') if is_encrypted else target, timeout)}")
    except Unhealthy as error:
        print(f"httpy: {url} is not well: {error}", file=sys.stderr)
        return 1
    return 0


# Settings


def _gather(parsed: Parsed) -> Given:
    """The settings that somebody gave, from everywhere; goes to the folder and reads the environment file they name."""
    flags = parsed.settings
    _change_folder(flags.get("chdir") or os.environ.get("HTTPY_CHDIR"))
    is_read = _read_env_file(flags.get("env_file") or os.environ.get("HTTPY_ENV_FILE"))
    environment = from_environment(os.environ)
    file = find_file(merge(flags, environment).get("config"))
    if file is None:
        return merge(flags, environment)
    source, values = file
    in_file = from_mapping(values, source)
    if "chdir" not in flags and "chdir" not in environment:
        _change_folder(in_file.get("chdir"))
    if not is_read and _read_env_file(in_file.get("env_file")):
        environment = from_environment(os.environ)
    return merge(flags, environment, in_file)


def _change_folder(folder: Optional[str]) -> None:
    if not folder:
        return
    try:
        os.chdir(folder)
    except OSError as error:
        raise ConfigError(f"can't go to the folder {folder!r} (chdir): {error.strerror}") from None


def _read_env_file(path: Optional[str]) -> bool:
    """Reads a file into the environment, what is there already stays. Returns whether there was one to read."""
    if not path:
        return False
    from .environment import read_env_file

    for name, value in read_env_file(path).items():
        os.environ.setdefault(name, value)
    return True


def _program(parsed: Parsed, given: Given) -> Any:
    from .loader import find_target
    from .running import Program

    if len(parsed.words) > 1:
        raise ConfigError(f"one app is served, found {' and '.join(map(repr, parsed.words))}")
    app_dir = given.get("app_dir")
    target = (parsed.words[0] if parsed.words else given.get("app")) or find_target(app_dir)
    arguments = {
        "target": target,
        "factory": given.get("factory", False),
        "app_dir": app_dir,
        "interface": given.get("interface", "auto"),
    }
    return Program(target, "httpy.loader:load_app", arguments)
