"""The command line: `httpy run`, `httpy routes`.

A value comes from its flag, else from its `HTTPY_*` variable, else from the default. Mistakes of whoever
types (a module that is not there, a port that is taken) are one line and exit 2; a program that fails shows
its traceback and exits 1. This is the only module that reads the environment or decides how the process
exits.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from . import _httpy
from .errors import ConfigError, RouteError
from .loader import load_app
from .loops import LOOPS
from .server import Server

_LOG_LEVELS = ("critical", "error", "warning", "info", "debug")

# What the native half's values mean. Names and defaults are its own; one that is missing here is shown
# without words.
_MEANINGS = {
    "max_target_bytes": "longest request target, in bytes; longer is 414",
    "max_head_bytes": "largest request head, in bytes; larger is 431",
    "max_fields": "most field lines of a request; more is 431",
    "max_body_bytes": "largest request body a handler is given, in bytes; larger is 413",
    "head_timeout": "longest wait for a complete request head, in seconds",
    "grace": "longest wait for running requests when stopping, in seconds",
    "backlog": "connections the system may queue before they are accepted",
}


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs a command.

    Args:
        arguments: Those after the program's name. Defaults to the process's own.

    Returns:
        The exit status: 0, 1 if the program failed, 2 if the command line is wrong.
    """
    parser = _parser()
    try:
        parsed = parser.parse_args(arguments)
        command: Optional[Callable[[argparse.Namespace], None]] = getattr(parsed, "command", None)
        if command is None:
            parser.print_help()
            return 2
        command(parsed)
    except (ConfigError, RouteError) as error:
        print(f"httpy: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _run(parsed: argparse.Namespace) -> None:
    given = _given(parsed, os.environ)
    level = given.pop("log_level")
    debug = given.pop("debug")
    _log_to_stderr(level)
    app = load_app(parsed.app or os.environ.get("HTTPY_APP"))
    if debug:
        app.debug = True
    Server(app, **given).run()


def _routes(parsed: argparse.Namespace) -> None:
    load_app(parsed.app or os.environ.get("HTTPY_APP")).describe()


@dataclass(frozen=True)
class Setting:
    """One value of `httpy run`: its flag, its variable, its default.

    Attributes:
        name: As Python has it; the flag is `--name`, the variable `HTTPY_NAME`.
        kind: Turns text into the value; bool makes it a switch.
        default: Unless flag or variable say otherwise.
        meaning: For `--help`.
        choices: What it may be. None means anything.
    """

    name: str
    kind: Callable[[str], Any]
    default: Any
    meaning: str
    choices: Optional[tuple[str, ...]] = None

    @property
    def flag(self) -> str:
        """The option, `--max-body-bytes`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable, `HTTPY_MAX_BODY_BYTES`."""
        return "HTTPY_" + self.name.upper()

    def add_to(self, parser: argparse._ActionsContainer) -> None:
        """Adds the flag, whose absence is None."""
        shown = "off" if self.default is False else self.default
        text = f"{self.meaning} (default: {shown}; {self.variable})".replace("%", "%%")
        if self.kind is bool:
            parser.add_argument(self.flag, dest=self.name, action="store_true", default=None, help=text)
            return
        metavar = {int: "N", float: "SECONDS"}.get(self.kind, self.name.upper())  # type: ignore[call-overload]
        parser.add_argument(
            self.flag,
            dest=self.name,
            type=self.kind,
            default=None,
            choices=self.choices,
            metavar=None if self.choices else metavar,
            help=text,
        )

    def read(self, text: str) -> Any:
        """Reads the variable's text.

        Raises:
            ConfigError: if it is not what the value has to be.
        """
        if self.kind is bool:
            return text.strip().lower() in ("1", "true", "yes", "on")
        try:
            value = self.kind(text)
        except ValueError:
            raise ConfigError(f"{self.variable}={text!r} is not {self.kind.__name__}") from None
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.variable} is one of {', '.join(self.choices)}, not {text!r}")
        return value


def _settings() -> list[Setting]:
    """The values of `httpy run`; those of the native half come from there."""
    own = [
        Setting("host", str, "127.0.0.1", "address or host name to listen on"),
        Setting("port", int, 8000, "port to listen on; 0 has the system choose"),
        Setting("loop", str, "auto", "how the asyncio loop is served", LOOPS),
        Setting("log_level", str, "info", "least level that is logged", _LOG_LEVELS),
        Setting("debug", bool, False, "answer crashes with a page that shows them"),
    ]
    native = [
        Setting(name, type(default), default, _MEANINGS.get(name, ""))
        for name, default in _httpy.defaults().items()
    ]
    return own + native


def _given(parsed: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, Any]:
    """The values to run with. Native ones nobody gave are left out: the native half has their default."""
    values: dict[str, Any] = {}
    native = _httpy.defaults()
    for setting in _settings():
        value = getattr(parsed, setting.name)
        if value is None and setting.variable in environment:
            value = setting.read(environment[setting.variable])
        if value is None and setting.name not in native:
            value = setting.default
        if value is not None:
            values[setting.name] = value
    return values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="httpy", description="Serves Python applications over HTTP.", formatter_class=_Formatter
    )
    parser.add_argument("--version", action="version", version=f"httpy {_httpy.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="serve an app",
        description="Serves an app until SIGINT or SIGTERM.",
        formatter_class=_Formatter,
    )
    _add_app(run)
    serving, limits = run.add_argument_group("serving"), run.add_argument_group("limits and times")
    native = _httpy.defaults()
    for setting in _settings():
        setting.add_to(limits if setting.name in native else serving)
    run.set_defaults(command=_run)

    routes = commands.add_parser(
        "routes",
        help="show an app's routes",
        description="Shows an app's routes and chain.",
        formatter_class=_Formatter,
    )
    _add_app(routes)
    routes.set_defaults(command=_routes)
    return parser


class _Formatter(argparse.HelpFormatter):
    """Writes help as wide as the terminal.

    argparse's own finds out how wide by `shutil`, at every start, which brings two compression libraries along.
    """

    def __init__(self, prog: str) -> None:
        try:
            columns = int(os.environ.get("COLUMNS", "")) or os.get_terminal_size().columns
        except (ValueError, OSError):
            columns = 80
        super().__init__(prog, width=columns - 2)


def _add_app(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "app",
        nargs="?",
        metavar="APP",
        help="module:app, path/to/file.py:app or module:create_app() "
        "(default: HTTPY_APP, else main.py or app.py of this folder)",
    )


def _log_to_stderr(level: str) -> None:
    """Has what HTTPy logs shown, unless the app has set up logging already."""
    logger = logging.getLogger("httpy")
    logger.setLevel(level.upper())
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
