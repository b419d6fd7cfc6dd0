"""Spares a worker the memory of what it may never use.

asyncio imports `ssl`, and with it OpenSSL, for connections that many apps never make: 4 MiB of every worker's
20. Here `ssl`, and asyncio's half of it, are loaded when somebody first touches them: an app that imports a TLS
client, or opens a connection by asyncio, finds them as ever. Only the command line asks for this, because only
there is the process HTTPy's own.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Optional

# Those that asyncio imports and does not touch before it makes a connection. Guarded by tests_py/test_sparing.py.
LATER = ("ssl", "asyncio.sslproto")

# One for all modules: `asyncio.sslproto` loads `ssl`. Two locks could be taken in both orders.
_loading = threading.RLock()


def import_asyncio() -> None:
    """Imports asyncio, and leaves for later what it needs for TLS alone.

    Without effect on what is imported already.
    """
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        import asyncio  # noqa: F401
    finally:
        sys.meta_path.remove(finder)


class _Finder:
    """Finds the modules in `LATER`, as empty ones that fill themselves."""

    def find_spec(
        self, name: str, path: Optional[Sequence[str]] = None, target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        spec = PathFinder.find_spec(name, path) if name in LATER else None
        if spec is None or spec.loader is None:
            return None
        # Its base class would bring `importlib.resources` along, and `tempfile` with it.
        return ModuleSpec(name, _Loader(spec), origin=spec.origin)  # type: ignore[arg-type]


class _Loader:
    """Makes a module that fills itself at the first attribute that is asked for."""

    def __init__(self, spec: ModuleSpec) -> None:
        self._spec = spec

    def create_module(self, spec: ModuleSpec) -> None:
        """As usual."""

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
        module.__loader__ = self._spec.loader
        if self._spec.origin is not None:
            module.__file__ = self._spec.origin
        # Last: the import itself looks for attributes that a module may not have.
        module.__class__ = _Later


class _Later(ModuleType):
    """A module before its first use."""

    def __getattr__(self, name: str) -> Any:
        # The standard library has lazy modules too (`importlib.util.LazyLoader`), but before Python 3.12 two
        # threads that touch one at once may find it half full.
        with _loading:
            if self.__class__ is _Later:
                if "_is_loading" in self.__dict__:
                    # The module's own code asks, as `hasattr` does: there is none yet.
                    raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
                self._load()
        return getattr(self, name)

    def _load(self) -> None:
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        self.__dict__["_is_loading"] = True
        try:
            spec.loader.exec_module(self)
        finally:
            del self.__dict__["_is_loading"]
        self.__class__ = ModuleType  # type: ignore[assignment]
