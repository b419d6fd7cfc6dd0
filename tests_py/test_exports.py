"""`httpy` has the names that are documented, and no others. test_docs.py: each has its place in the documents."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

import pytest

import httpy
import httpy.testing
from support import environment, python

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]


def written() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.exists())


def imported() -> set[str]:
    """What the documents and examples import from httpy, or name as `httpy.something`."""
    names: set[str] = set()
    code = [match[1] for match in re.finditer(r"^```python\n(.*?)^```", written(), re.DOTALL | re.MULTILINE)]
    code += [example.read_text(encoding="utf-8") for example in ROOT.glob("examples/*.py")]
    for text in code:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module == "httpy":
                names.update(alias.name for alias in node.names)
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "httpy"
            ):
                names.add(node.attr)
    return names


@pytest.mark.parametrize("name", httpy.__all__)
def test_a_public_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(httpy, name)

    if name != "__version__":
        assert inspect.isclass(value) or callable(value)
        assert value.__doc__
        assert value.__doc__.strip().partition("\n")[0].endswith("."), "a summary is a sentence"


def test_nothing_is_documented_that_is_not_public() -> None:
    modules = {name for name, value in vars(httpy).items() if isinstance(value, types.ModuleType)}

    assert imported() - set(httpy.__all__) - modules == set()


def test_the_list_is_in_order() -> None:
    assert sorted(httpy.__all__) == httpy.__all__
    assert len(set(httpy.__all__)) == len(httpy.__all__)


def test_no_other_name_is_public() -> None:
    # They are imported when they are asked for.
    for name in httpy.__all__:
        getattr(httpy, name)

    public = {
        name
        for name, value in vars(httpy).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    } - {"TYPE_CHECKING"}

    assert public == {name for name in httpy.__all__ if not name.startswith("_")}


def test_all_names_are_listed_before_they_are_asked_for() -> None:
    code = "import httpy, sys; print(set(httpy.__all__) <= set(dir(httpy)), 'asyncio' in sys.modules)"

    assert subprocess.run(python("-c", code), stdout=subprocess.PIPE, text=True).stdout == "True False\n"


@pytest.mark.parametrize("name", [name for name in httpy.__all__ if inspect.isclass(getattr(httpy, name))])
def test_what_a_class_offers_says_what_it_does(name: str) -> None:
    """Everything public that is HTTPy's own, inherited or not."""
    cls = getattr(httpy, name)
    own = [base for base in cls.__mro__ if base.__module__.startswith("httpy")]

    silent = [
        member
        for base in own
        for member, value in vars(base).items()
        if not member.startswith("_")
        and (callable(value) or inspect.isdatadescriptor(value))
        and not (getattr(value, "__doc__", None) or "").strip()
    ]

    assert silent == []


def test_the_package_alone_imports_little() -> None:
    """The process that watches over workers is small."""
    code = "import sys, httpy; print(sorted({'asyncio', 'typing', 'httpy._httpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_free_threaded_python_stays_free_threaded() -> None:
    program = "import sys, httpy; sys.exit(sys._is_gil_enabled())"

    done = subprocess.run(python("-W", "error", "-c", program), env=environment())

    assert done.returncode == 0


@pytest.mark.parametrize("name", httpy.testing.__all__)
def test_what_is_for_tests_is_documented(name: str) -> None:
    value = getattr(httpy.testing, name)

    assert re.search(rf"\b{name}\b", written()), "a page names it"
    assert value.__doc__.strip().partition("\n")[0].endswith("."), "a summary is a sentence"
    for attribute, found in vars(value).items():
        if not attribute.startswith("_") and (callable(found) or isinstance(found, property)):
            assert found.__doc__, f"{name}.{attribute}"


def test_the_list_for_tests_is_in_order() -> None:
    assert sorted(httpy.testing.__all__) == httpy.testing.__all__
