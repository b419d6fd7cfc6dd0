"""Finds the app that a command line names.

`module:app`, `path/to/file.py:app`; without `:app` the module's `app`, or the only App in it. Apps of ASGI and WSGI
are wrapped (`hosting.py`). `module:create_app()`, and a function that takes nothing, are called for the app. Without
anything the usual places are looked at (`find_target`).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, Optional

from .errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType

    from .servable import Servable

_USUAL_NAMES = ("app", "application", "create_app", "make_app")
_USUAL_FILES = ("main.py", "app.py", "api.py", "server.py")
# Where packages are, seen from the folder of a project.
_USUAL_FOLDERS = ("", "src")


def load_app(
    target: Optional[str], *, factory: bool = False, app_dir: Optional[str] = None, interface: str = "auto"
) -> Servable:
    """Imports the app that a target names.

    Args:
        target: `module:app`. None is the one that `find_target` finds.
        factory: Whether what it names is called for the app, whatever it is.
        app_dir: A folder to import from, before the current one.
        interface: What kind of app it is: "httpy", "asgi", "wsgi", or "auto", which finds out.

    Raises:
        ConfigError: if there is no such module, nothing of that name in it, or it is no app; says what was
            likely meant.
        Exception: what the app's own code raised.
    """
    add_to_path(app_dir)
    target = target or find_target(app_dir)
    where, _, attribute = target.partition(":")
    if not where:
        raise ConfigError(f"{target!r} is no target: write module:app or path/to/file.py:app")
    module = _import(where, app_dir)
    name = attribute.strip() or _usual_name(module, where)
    is_call = factory or name.endswith("()")
    return _as_app(_find(module, where, name), f"{where}:{name}", is_call=is_call, interface=interface)


def add_to_path(app_dir: Optional[str]) -> None:
    """Has modules be found in a folder, and in the current one.

    Raises:
        ConfigError: if there is no such folder.
    """
    if app_dir is not None and not os.path.isdir(app_dir):
        raise ConfigError(f"app_dir {app_dir!r} is no folder")
    for folder in (os.getcwd(), app_dir and os.path.abspath(app_dir)):
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)


def find_target(app_dir: Optional[str] = None) -> str:
    """Returns the target of who names none.

    It is `main.py`, `app.py`, `api.py` or `server.py` of the folder; else such a file in its only package that has one,
    there or in `src`; else the only package whose `__init__.py` makes an app.

    Raises:
        ConfigError: if there is none, or several packages have one.
    """
    base = app_dir or os.curdir
    for name in _USUAL_FILES:
        if os.path.isfile(os.path.join(base, name)):
            return os.path.normpath(os.path.join(base, name))
    found = []
    for folder in _USUAL_FOLDERS:
        inside = os.path.join(base, folder)
        for package in sorted(_packages(inside)):
            module = _usual_module(inside, package)
            if module:
                found.append((inside, module))
    if len(found) > 1:
        names = ", ".join(module for _, module in found)
        raise ConfigError(
            f"no app was named, and several packages may have one ({names}): name one, as {found[0][1]}:app"
        )
    if not found:
        files = " or ".join([", ".join(_USUAL_FILES[:-1]), _USUAL_FILES[-1]])
        raise ConfigError(
            f"no app was named, and here is no {files}, nor a package with one: write module:app"
        )
    inside, module = found[0]
    add_to_path(inside)
    return module


def _packages(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    is_package = os.path.join(folder, "{}", "__init__.py").format
    return [name for name in os.listdir(folder) if name.isidentifier() and os.path.isfile(is_package(name))]


def _usual_module(folder: str, package: str) -> Optional[str]:
    for name in _USUAL_FILES:
        if os.path.isfile(os.path.join(folder, package, name)):
            return f"{package}.{name[: -len('.py')]}"
    with open(os.path.join(folder, package, "__init__.py"), encoding="utf-8", errors="replace") as file:
        return package if "App(" in file.read() else None


def _import(where: str, app_dir: Optional[str]) -> ModuleType:
    if where.endswith(".py") or "/" in where or os.sep in where:
        return _import_file(where)
    if not all(part.isidentifier() for part in where.split(".")):
        raise ConfigError(f"{where!r} is no module name: write module:app or path/to/file.py:app")
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not (where == error.name or where.startswith(f"{error.name}.")):
            raise
        raise ConfigError(f"no module {where!r}{_likely(where, _modules_near(where, app_dir))}") from None


def _import_file(path: str) -> ModuleType:
    # Not above: a module is imported without it, and without pathlib, which takes a MiB with all it imports.
    import importlib.util

    folder = os.path.dirname(os.path.realpath(path))
    name, _ = os.path.splitext(os.path.basename(path))
    if not os.path.isfile(path):
        there = os.listdir(folder) if os.path.isdir(folder) else []
        near = [os.path.join(os.path.dirname(path), other) for other in there if other.endswith(".py")]
        raise ConfigError(f"no file {path!r}{_likely(path, near)}")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path!r} is not Python")
    module = importlib.util.module_from_spec(spec)
    # Found under its name by what looks modules up there: dataclasses, pickle, string annotations.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _modules_near(where: str, app_dir: Optional[str]) -> list[str]:
    import pkgutil

    package, _, _ = where.rpartition(".")
    folders = [os.path.join(base, *package.split(".")) for base in (app_dir or os.curdir, os.curdir)]
    return [
        f"{package}.{module.name}" if package else module.name
        for module in pkgutil.iter_modules(dict.fromkeys(folders))
    ]


def _usual_name(module: ModuleType, where: str) -> str:
    for name in _USUAL_NAMES:
        if hasattr(module, name):
            return name
    apps = _candidates(module)
    if len(apps) == 1:
        return apps[0]
    what = f"several apps ({', '.join(apps)}): name one" if apps else "no app: name it"
    raise ConfigError(f"{where} has {what}, as {where}:{apps[0] if apps else 'app'}")


def _find(module: ModuleType, where: str, name: str) -> Any:
    value: Any = module
    for part in name[:-2].split(".") if name.endswith("()") else name.split("."):
        if not hasattr(value, part):
            candidates = _candidates(module)
            there = f"; there is {', '.join(candidates)}" if candidates else "; there is no App in it"
            hint = _likely(part, [*candidates, *vars(module)]) or there
            raise ConfigError(f"{where} has no {part!r}{hint}")
        value = getattr(value, part)
    return value


def _as_app(value: Any, shown: str, *, is_call: bool, interface: str) -> Servable:
    from .app import App

    if isinstance(value, App) and interface in ("auto", "httpy") and not is_call:
        return value
    from .hosting import as_app, find_interface

    if is_call or (_is_function(value) and interface in ("auto", "httpy") and not find_interface(value)):
        made = _call(value, shown)
        if _is_coroutine(made):
            # Of an `async def`, such as a handler: nobody will await it.
            made.close()
        return as_app(made, f"what {shown} returned", interface)
    return as_app(value, shown, interface)


def _is_coroutine(value: Any) -> bool:
    from types import CoroutineType

    return isinstance(value, CoroutineType)


def _call(value: Any, shown: str) -> Any:
    import inspect

    if not callable(value):
        raise ConfigError(
            f"{shown} is a {type(value).__name__}, which can't be called for an app: leave factory out"
        )
    try:
        inspect.signature(value).bind()
    except TypeError as error:
        raise ConfigError(f"{shown} can't be called for an app: {error}") from None
    except ValueError:
        # Something native, which does not tell what it takes.
        pass
    return value()


def _is_function(value: Any) -> bool:
    from types import FunctionType

    return isinstance(value, FunctionType)


def _candidates(module: ModuleType) -> list[str]:
    from .servable import Servable

    return [name for name, value in vars(module).items() if isinstance(value, Servable)]


def _likely(name: str, known: list[str]) -> str:
    import difflib

    public = dict.fromkeys(other for other in known if not other.startswith("_"))
    likely = difflib.get_close_matches(name, public, n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(map(repr, likely))}?" if likely else ""
