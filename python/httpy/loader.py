"""Finds the app that a command line names.

`module:app`, `path/to/file.py:app`; without `:app` the module's `app`, or the only App in it.
`module:create_app()` and a function that takes nothing are called for the app. Without anything, `main.py` or
`app.py` of the current folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from types import ModuleType
from typing import Any, Optional

from .app import App
from .errors import ConfigError

_USUAL_NAMES = ("app", "application", "create_app", "make_app")
_USUAL_FILES = ("main.py", "app.py")


def load_app(target: Optional[str]) -> App:
    """Imports the app that a target names.

    Raises:
        ConfigError: if there is no such module, nothing of that name in it, or it is no app; says what was
            likely meant.
        Exception: what the module itself raised.
    """
    where, _, attribute = (target or _usual_target()).partition(":")
    if not where:
        raise ConfigError(f"{target!r} is no target: write module:app or path/to/file.py:app")
    module = _import(where)
    name = attribute.strip() or _usual_name(module, where)
    return _as_app(_find(module, where, name), f"{where}:{name}", is_call=name.endswith("()"))


def _usual_target() -> str:
    found = [name for name in _USUAL_FILES if os.path.isfile(name)]
    if not found:
        raise ConfigError(f"no app was named, and here is no {' or '.join(_USUAL_FILES)}: write module:app")
    return found[0]


def _import(where: str) -> ModuleType:
    if where.endswith(".py") or "/" in where:
        return _import_file(where)
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not (where == error.name or where.startswith(f"{error.name}.")):
            raise
        raise ConfigError(f"no module {where!r}{_likely(where, _modules_near(where))}") from None
    except (ValueError, TypeError):
        raise ConfigError(f"{where!r} is no module name: write module:app or path/to/file.py:app") from None


def _import_file(path: str) -> ModuleType:
    # Without pathlib, which takes a MiB with all it imports.
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


def _modules_near(where: str) -> list[str]:
    import pkgutil

    package, _, _ = where.rpartition(".")
    found = pkgutil.iter_modules([os.path.join(*package.split(".")) if package else os.curdir])
    return [f"{package}.{module.name}" if package else module.name for module in found]


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


def _as_app(value: Any, shown: str, is_call: bool) -> App:
    if isinstance(value, App):
        return value
    if is_call or inspect.isfunction(value):
        try:
            inspect.signature(value).bind()
        except TypeError as error:
            raise ConfigError(f"{shown} can't be called for an app: {error}") from None
        made = value()
        if isinstance(made, App):
            return made
        raise ConfigError(f"{shown} returned a {type(made).__name__}, not an HTTPy App")
    other = "; ASGI and WSGI apps are not there yet" if callable(value) else ""
    raise ConfigError(f"{shown} is a {type(value).__name__}, not an HTTPy App{other}")


def _candidates(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, App)]


def _likely(name: str, known: list[str]) -> str:
    import difflib

    public = dict.fromkeys(other for other in known if not other.startswith("_"))
    likely = difflib.get_close_matches(name, public, n=2, cutoff=0.7)
    return f"; did you mean {' or '.join(map(repr, likely))}?" if likely else ""
