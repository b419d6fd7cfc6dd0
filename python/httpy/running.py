"""Runs an app as its settings say: what `httpy run` and `App.run` have in common.

In this order: the pid file, the addresses, the privileges that are given up, the logs, the app. So a port that is taken
is told before a slow import, and nothing of the app runs as root that need not. Who serves is this process, or workers
that it looks after (`supervisor.py`), or one that it starts anew when files change (`reload.py`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from . import _httpy
from .addresses import Address, Bound, adopt_all, close_all, open_all, read_address
from .banner import banner
from .certificates import check_plain, how_to_trust, with_certificate
from .errors import ConfigError
from .identity import become, pid_file
from .logs import give_way, report, set_up, wants_color
from .settings import COMMAND_LINE_ONLY, Given, from_mapping, merge, with_defaults
from .urls import url_of, urls_of

if TYPE_CHECKING:
    import asyncio

    from .app import App
    from .handover import Predecessor
    from .server import Server
    from .supervisor import Target

# What a server takes besides what the native half does.
_SERVER = ("loop", "access_log", "log_format", "root_path", "plain", "https_redirect")

# What a worker does with the app, and for itself.
_WORKER = ("debug", "log_level", "log_format", "color")


class Program(NamedTuple):
    """What is to be run.

    Attributes:
        shown: Its name, for people.
        loader: How a process gets the app: `module:function`, and what that is called with.
        arguments: Of types that JSON knows.
        app: The app, if it is here already.
    """

    shown: str
    loader: str
    arguments: Mapping[str, Any]
    app: Optional[App] = None

    def load(self) -> App:
        """Returns the app.

        Raises:
            ConfigError: if there is none.
            Exception: what the app's own code raised.
        """
        return self.app or _call(self.loader, self.arguments)


def run(program: Program, given: Given, environment: MutableMapping[str, str]) -> int:
    """Runs a program until it is told to end.

    Args:
        program: What to run.
        given: The settings that somebody gave, checked.
        environment: What the service manager and a predecessor say is looked for there, and removed.

    Returns:
        The exit status.

    Raises:
        ConfigError: if a setting can't be followed.
        Exception: what the app's own code raised.
    """
    from .handover import find_predecessor
    from .systemd import listening_sockets

    given = with_certificate(given, environment)
    settings = with_defaults(given)
    if settings["umask"] is not None:
        os.umask(settings["umask"])
    predecessor = find_predecessor(environment)
    inherited = [] if predecessor is not None else listening_sockets(environment)
    user, group = settings["user"], settings["group"]
    with pid_file(settings["pid_file"], predecessor=os.getppid() if predecessor else None, user=user):
        bound = _open(settings, given, predecessor, inherited)
        try:
            become(user, group)
            set_up_logs(settings)
            return _serve(program, {**given, "plain": _plain(given, bound)}, bound, predecessor, environment)
        finally:
            close_all(bound)


def run_app(app: App, values: Mapping[str, Any], caller: Mapping[str, Any]) -> int:
    """Runs an app that is here already, as `App.run` does.

    Args:
        app: The app.
        values: Settings by name.
        caller: The variables of the module that asks for it.

    Returns:
        The exit status.

    Raises:
        ConfigError: if a setting is unknown, wrong, or only for the command line.
        Exception: what the app's own code raised.
    """
    for name in COMMAND_LINE_ONLY:
        if name in values:
            raise ConfigError(f"{name} is for the command line: a program has its app already")
    given = merge(from_mapping(values))
    # Other processes have to find the app; where there are none, it need not be found.
    loader, arguments = "", {}
    if given.get("reload") or _is_supervised(given):
        from .script import target_of

        target = target_of(app, caller)
        loader, arguments = target.loader, target.arguments
    return run(Program(_shown(app, caller), loader, arguments, app), given, os.environ)


def _shown(app: App, caller: Mapping[str, Any]) -> str:
    """An app's name for people: that of a variable in a file."""
    name = next((name for name, value in list(caller.items()) if value is app), None)
    file = caller.get("__file__")
    if name is None or not isinstance(file, str):
        return app.title
    below = os.path.relpath(file)
    return f"{os.path.abspath(file) if below.startswith(os.pardir) else below}:{name}"


# Addresses


def addresses_of(settings: Mapping[str, Any]) -> list[Address]:
    """Returns where to listen.

    Raises:
        ConfigError: if an address is none.
    """
    if settings["bind"]:
        return [read_address(written, settings["port"]) for written in settings["bind"]]
    host, port = settings["host"], settings["port"]
    return [Address(f"{host}:{port}", host=host.strip("[]"), port=port)]


def _open(
    settings: Mapping[str, Any], given: Given, predecessor: Optional[Predecessor], inherited: Sequence[Any]
) -> list[Bound]:
    if predecessor is not None:
        return adopt_all(
            predecessor.sockets, are_ours=not predecessor.shared, addresses=addresses_of(settings)
        )
    is_asked = any(name in given for name in ("bind", "host", "port"))
    if inherited and not is_asked:
        return adopt_all(inherited, are_ours=False)
    addresses = addresses_of(settings)
    for one in inherited:
        # Those that are named by `fd://` are adopted below; the others nobody wants.
        number = one.detach()
        if number not in [address.descriptor for address in addresses]:
            os.close(number)
    backlog = settings.get("backlog", _httpy.defaults()["backlog"])
    return open_all(addresses, backlog, reuse_port=settings.get("reuse_port", False))


def _plain(given: Given, bound: Sequence[Bound]) -> list[str]:
    """Which of the sockets are served without TLS although there is a certificate."""
    check_plain(with_defaults(given), [one.plain for one in bound])
    return [url_of(one.socket) for one in bound if one.plain]


# Who serves


def _serve(
    program: Program,
    given: Given,
    bound: Sequence[Bound],
    predecessor: Optional[Predecessor],
    environment: MutableMapping[str, str],
) -> int:
    settings = with_defaults(given)
    if settings["reload"]:
        return _reload(program, settings, bound)
    if predecessor is not None or _is_supervised(given):
        return _supervise(program, given, bound, predecessor, environment)
    return _serve_here(program, settings, bound, environment)


def _is_supervised(given: Given) -> bool:
    """Whether a process is to look after those that serve: for more than one, and for what only it can do."""
    wanted = {name: given[name] for name in _httpy.supervision_defaults() if name in given}
    return wanted.pop("workers", 1) != 1 or any(wanted.values())


def _serve_here(
    program: Program,
    settings: Mapping[str, Any],
    bound: Sequence[Bound],
    environment: MutableMapping[str, str],
) -> int:
    from .sparing import import_asyncio

    import_asyncio()

    from .server import Observer, Server
    from .systemd import Notifier

    class Announcer(Observer):
        def accepting(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
            from .loops import driver_name

            announce(program.shown, settings, server.urls, driver=driver_name(loop))

    notifier = Notifier(environment)
    app = _prepared(program.load(), settings)
    sockets = [one.socket for one in bound]
    shared = any(one.is_foreign for one in bound)
    Server(app, sockets=sockets, shared=shared, **server_settings(settings)).run(Announcer(), notifier)
    return 0


def _reload(program: Program, settings: Mapping[str, Any], bound: Sequence[Bound]) -> int:
    from .reload import Reloader, folders_of

    if settings.get("workers", 1) != 1:
        import logging

        logging.getLogger("httpy").warning("one worker serves: reload and workers don't go together")
    file = program.arguments.get("file") or str(program.arguments.get("target") or "").partition(":")[0]
    folders = [program.arguments.get("app_dir"), os.path.dirname(file) if file.endswith(".py") else None]
    return Reloader(
        worker_target(program, settings),
        sockets=[one.socket for one in bound],
        shared=any(one.is_foreign for one in bound),
        folders=folders_of([folder for folder in folders if folder], settings),
        shown=program.shown,
        settings=settings,
    ).run()


def _supervise(
    program: Program,
    given: Given,
    bound: Sequence[Bound],
    predecessor: Optional[Predecessor],
    environment: MutableMapping[str, str],
) -> int:
    from .supervisor import Supervisor
    from .systemd import Notifier

    settings = with_defaults(given)
    sockets = [one.socket for one in bound]
    urls = urls_of(sockets, settings)
    supervision = {name: given[name] for name in _httpy.supervision_defaults() if name in given}

    def on_ready(said: Mapping[str, Any]) -> None:
        announce(program.shown, settings, urls, driver=said["loop"], workers=supervisor.count)

    supervisor = Supervisor(
        worker_target(program, settings),
        sockets=sockets,
        shared=any(one.is_foreign for one in bound),
        config=server_settings(settings),
        notifier=Notifier(environment),
        on_ready=on_ready,
        report=lambda text: report(text, settings["log_format"]),
        predecessor=predecessor,
        **supervision,
    )
    status = supervisor.run()
    if supervisor.is_succeeded:
        for one in bound:
            one.leave()
    return status


def announce(
    shown: str,
    settings: Mapping[str, Any],
    urls: Sequence[str],
    *,
    driver: str,
    workers: int = 1,
    notes: Sequence[str] = (),
) -> None:
    """Says on standard error what is served."""
    trust = how_to_trust(settings)
    line = banner(
        shown,
        urls,
        driver=driver,
        workers=workers,
        note="; ".join([*notes, *([trust] if trust else [])]),
        format=settings["log_format"],
        color=wants_color(settings["color"], sys.stderr),
    )
    print(line, file=sys.stderr, flush=True)


# What servers, workers and apps take of the settings


def set_up_logs(settings: Mapping[str, Any]) -> None:
    """Has HTTPy's logs shown as the settings say."""
    set_up(settings["log_level"], settings["log_format"], wants_color(settings["color"], sys.stderr))


def server_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of the settings that a `Server` takes."""
    native = {*_httpy.defaults(), *_httpy.tls_defaults()}
    return {name: value for name, value in settings.items() if name in native or name in _SERVER}


def worker_target(program: Program, settings: Mapping[str, Any]) -> Target:
    """Returns how another process gets a program's app."""
    from .supervisor import Target

    return Target(
        "httpy.running:load_in_worker",
        app_loader=program.loader,
        app_arguments=dict(program.arguments),
        settings={name: settings[name] for name in _WORKER},
    )


def load_in_worker(app_loader: str, app_arguments: Mapping[str, Any], settings: Mapping[str, Any]) -> App:
    """Sets up the logs of a worker, and returns its app."""
    set_up_logs(settings)
    return _prepared(_call(app_loader, app_arguments), settings)


def _prepared(app: App, settings: Mapping[str, Any]) -> App:
    # The app may have set up logging.
    give_way()
    if settings["debug"]:
        app.debug = True
    return app


def _call(loader: str, arguments: Mapping[str, Any]) -> Any:
    from importlib import import_module

    module, _, name = loader.partition(":")
    return getattr(import_module(module), name)(**arguments)
