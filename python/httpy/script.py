"""Finds in a worker the app that a script runs with `app.run(workers=...)`.

A worker is a new interpreter, so the script is run there once more, under the name `__mp_main__`, as multiprocessing
does: what is under `if __name__ == "__main__":` does not run then. A script that calls `app.run` without such a line
calls it in the worker too, and that ends the script there: the app is found.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Mapping
from types import CodeType, ModuleType
from typing import Any, Optional

from .errors import ConfigError
from .supervisor import Target

_MAIN = "__main__"
_COPY = "__mp_main__"


class _Found(BaseException):
    """Ends the script: the app is found."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.app = app


# Whether a script is being run for its app; in a worker, which has but one.
_is_searching = False
# A module's variables must outlive it in sys.modules: its functions still run.
_replaced: list[Optional[ModuleType]] = []


def stop_search(app: Any) -> None:
    """Ends the script that is being run to find its app. Without effect elsewhere."""
    if _is_searching:
        raise _Found(app)


def target_of(app: Any, caller: Mapping[str, Any]) -> Target:
    """Returns how a worker gets this app.

    Args:
        app: The app.
        caller: The variables of the module in which `app.run` is called.

    Raises:
        ConfigError: if a worker could not find it.
    """
    main = sys.modules[_MAIN]
    script = _place(main)
    name, home = _name_in(main, app), None
    if name is None:
        name, home = _find(app)
    if caller is not vars(main) and (name is None or home is not None):
        # The script, if there is one, has nothing to do with this.
        script = {}
    if not script and home is None:
        raise ConfigError(
            "workers are new processes, which have to find the app: make it a variable of a module, "
            "or use `httpy run module:app --workers N`"
        )
    return Target("httpy.script:load", script=script, home=home, name=name, argv=sys.argv, path=sys.path)


def load(
    script: Mapping[str, str], home: Optional[str], name: Optional[str], argv: list[str], path: list[str]
) -> Any:
    """Runs a script as far as it takes to find its app, and returns that.

    Args:
        script: `file` or `module`. Nothing if none is to be run.
        home: The module that has the app. None means the script.
        name: The variable that holds the app there. None if only the script's own `app.run` tells.
        argv: The arguments of the script.
        path: Where modules are looked for.

    Raises:
        ConfigError: if the script does not come to have an app.
    """
    sys.argv[:], sys.path[:] = argv, path
    values: Mapping[str, Any] = {}
    if script:
        try:
            values = _run(**script)
        except _Found as found:
            return found.app
    if home is not None:
        values = vars(importlib.import_module(home))
    app = values.get(name) if name is not None else None
    if app is None:
        where = home or " ".join(script.values())
        raise ConfigError(f"a worker has run {where!r} and found no app: make it a variable of the module")
    return app


def _run(file: Optional[str] = None, module: Optional[str] = None) -> Mapping[str, Any]:
    """Runs a script and returns its variables."""
    global _is_searching
    copy, code = _prepare(file, module)
    _replaced.append(sys.modules.get(_MAIN))
    # From now on, too: pickle and others look there for what a script has defined.
    sys.modules[_MAIN] = sys.modules[_COPY] = copy
    _is_searching = True
    try:
        exec(code, vars(copy))
    finally:
        _is_searching = False
    return vars(copy)


def _place(main: ModuleType) -> dict[str, str]:
    """Where the script is; nothing if there is none, but a prompt or a notebook."""
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return {"module": spec.name}
    file = getattr(main, "__file__", None)
    return {"file": os.path.abspath(file)} if file else {}


def _prepare(file: Optional[str], module: Optional[str]) -> tuple[ModuleType, CodeType]:
    """A module for a script to run in, and its code."""
    copy = ModuleType(_COPY)
    if file is not None:
        with io.open_code(file) as source:
            code = compile(source.read(), file, "exec", dont_inherit=True)
        copy.__file__ = file
        return copy, code
    assert module is not None
    spec = importlib.util.find_spec(module)
    # What -m itself asks for.
    get_code = getattr(spec.loader if spec is not None else None, "get_code", None)
    found = get_code(module) if get_code is not None else None
    if spec is None or found is None:
        raise ConfigError(f"a worker can't find the module {module!r} that was run with -m")
    copy.__spec__, copy.__loader__ = spec, spec.loader
    copy.__package__, copy.__file__ = spec.parent, spec.origin or ""
    return copy, found


def _find(app: Any) -> tuple[Optional[str], Optional[str]]:
    """The variable of a module that holds the app, and that module."""
    for module, found in list(sys.modules.items()):
        if module not in (_MAIN, _COPY) and isinstance(found, ModuleType):
            name = _name_in(found, app)
            if name is not None:
                return name, module
    return None, None


def _name_in(module: ModuleType, app: Any) -> Optional[str]:
    return next((name for name, value in list(vars(module).items()) if value is app), None)
