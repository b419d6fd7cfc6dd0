"""Runs an app as its settings say: what `httpy run` and `App.run` have in common.

In this order: the pid file, the addresses, the privileges that are given up, the logs, the app. So a port that is taken
is told before a slow import, and nothing of the app runs as root that need not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from . import _httpy
from .addresses import Address, Bound, close_all, open_all, read_address
from .banner import banner
from .errors import ConfigError
from .identity import become, pid_file
from .loader import target_of
from .logs import give_way, set_up, wants_color
from .settings import COMMAND_LINE_ONLY, Given, from_mapping, merge, with_defaults

if TYPE_CHECKING:
    import asyncio

    from .app import App
    from .server import Server

# What a server takes besides what the native half does.
_SERVER = ("loop", "access_log", "log_format", "root_path")


class Program(NamedTuple):
    """What is to be run.

    Attributes:
        shown: Its name, for people.
        target: How other processes find it, as `loader.load_app` reads it. None if they can't.
        factory: Whether what the target names is called for the app.
        app_dir: A folder to import from.
        app: The app, if it is here already.
    """

    shown: str
    target: Optional[str] = None
    factory: bool = False
    app_dir: Optional[str] = None
    app: Optional[App] = None

    def load(self) -> App:
        """Returns the app, imported if need be.

        Raises:
            ConfigError: if there is none.
            Exception: what the app's own code raised.
        """
        from .loader import load_app

        return self.app or load_app(self.target, factory=self.factory, app_dir=self.app_dir)


def run(program: Program, given: Given) -> int:
    """Runs a program until it is told to end.

    Args:
        program: What to run.
        given: The settings that somebody gave, checked.

    Returns:
        The exit status.

    Raises:
        ConfigError: if a setting can't be followed.
        Exception: what the app's own code raised.
    """
    settings = with_defaults(given)
    if settings["umask"] is not None:
        os.umask(settings["umask"])
    addresses = addresses_of(settings)
    with pid_file(settings["pid_file"]):
        bound = open_all(addresses, settings.get("backlog", _httpy.defaults()["backlog"]))
        try:
            become(settings["user"], settings["group"])
            return _serve(program, settings, bound)
        finally:
            close_all(bound)


def run_app(app: App, values: Mapping[str, Any]) -> None:
    """Runs an app that is here already, as `App.run` does.

    Args:
        app: The app.
        values: Settings by name.

    Raises:
        ConfigError: if a setting is unknown, wrong, or only for the command line.
        Exception: what the app's own code raised.
    """
    for name in COMMAND_LINE_ONLY:
        if name in values:
            raise ConfigError(f"{name} is for the command line: a program has its app already")
    given = merge(from_mapping(values))
    target = target_of(app)
    shown = _short(target) if target else app.title
    run(Program(shown=shown, target=target, app=app), given)


def _short(target: str) -> str:
    """A target in the current folder without that."""
    below = os.path.relpath(target)
    return target if below.startswith(os.pardir) else below


def addresses_of(settings: Mapping[str, Any]) -> list[Address]:
    """Returns where to listen.

    Raises:
        ConfigError: if an address is none.
    """
    if settings["bind"]:
        return [read_address(written, settings["port"]) for written in settings["bind"]]
    host, port = settings["host"], settings["port"]
    return [Address(f"{host}:{port}", host=host.strip("[]"), port=port)]


def set_up_logs(settings: Mapping[str, Any]) -> None:
    """Has HTTPy's logs shown as the settings say."""
    set_up(settings["log_level"], settings["log_format"], wants_color(settings["color"], sys.stderr))


def server_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of the settings that a `Server` takes."""
    native = _httpy.defaults()
    return {name: value for name, value in settings.items() if name in native or name in _SERVER}


def make_app(program: Program, settings: Mapping[str, Any]) -> App:
    """Returns the app, with the settings that are its own."""
    app = program.load()
    # The app may have set up logging.
    give_way()
    if settings["debug"]:
        app.debug = True
    return app


def _serve(program: Program, settings: Mapping[str, Any], bound: Sequence[Bound]) -> int:
    from .server import Observer, Server

    class Announcer(Observer):
        def accepting(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
            from .loops import driver_name

            announce(program, settings, server.urls, driver=driver_name(loop))

    set_up_logs(settings)
    app = make_app(program, settings)
    sockets = [one.socket for one in bound]
    Server(app, sockets=sockets, shared=False, **server_settings(settings)).run(Announcer())
    return 0


def announce(
    program: Program,
    settings: Mapping[str, Any],
    urls: Sequence[str],
    *,
    driver: str,
    workers: int = 1,
    note: str = "",
) -> None:
    """Says on standard error what is served."""
    line = banner(
        program.shown,
        urls,
        driver=driver,
        workers=workers,
        note=note,
        format=settings["log_format"],
        color=wants_color(settings["color"], sys.stderr),
    )
    print(line, file=sys.stderr, flush=True)
