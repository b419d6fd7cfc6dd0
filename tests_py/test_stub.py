"""The stub says what the native half has, in the same words."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import subprocess
from pathlib import Path
from typing import Any

import pytest

from httpy import _httpy
from support import python

HERE = Path(__file__).parent
STUB = Path(_httpy.__file__).with_name("_httpy.pyi")


def documented(nodes: list[ast.stmt], place: str = "") -> dict[str, str]:
    """The docstring of every class and function in the stub, "" if it has none; of overloads the first one's."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            found[place + node.name] = ast.get_docstring(node) or ""
            found.update(documented(node.body, f"{place}{node.name}."))
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("__"):
            found.setdefault(place + node.name, ast.get_docstring(node) or "")
    return found


STATED = documented(ast.parse(STUB.read_text(encoding="utf-8")).body)
# On Windows there is no Selector.
NAMES = [name for name in STATED if hasattr(_httpy, name.partition(".")[0])]


def native(name: str) -> Any:
    owner, _, member = name.partition(".")
    found = getattr(_httpy, owner)
    return vars(found)[member] if member else found


def summary(docstring: str) -> str:
    return inspect.cleandoc(docstring).partition("\n")[0]


@pytest.mark.parametrize("name", NAMES)
def test_stub_and_native_half_have_the_same_summary(name: str) -> None:
    stated = summary(STATED[name])

    assert stated, "the stub has no docstring"
    assert stated.endswith("."), "a summary is a sentence"
    assert stated == summary(native(name).__doc__ or "")


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "." not in name and isinstance(native(name), type)]
)
def test_a_class_is_what_the_stub_says_it_is(name: str) -> None:
    """Stubtest does not look at base classes that are only registered."""
    node = next(
        node for node in ast.parse(STUB.read_text(encoding="utf-8")).body if getattr(node, "name", "") == name
    )
    assert isinstance(node, ast.ClassDef)
    for base in node.bases:
        said = ast.unparse(base).partition("[")[0]
        assert issubclass(native(name), getattr(collections.abc, said))


@pytest.mark.slow
def test_stubtest_finds_no_difference() -> None:
    pytest.importorskip("mypy", reason="only on the Python that has the linters")

    found = subprocess.run(
        python("-m", "mypy.stubtest", "httpy._httpy", "--allowlist", str(HERE / "stubtest-allowlist.txt")),
        capture_output=True,
        text=True,
        cwd=HERE.parent,
    )

    assert found.returncode == 0, found.stdout
