"""How apps are found: by their names, and without."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from httpy import ConfigError
from httpy.loader import find_target, load_app

MODULE = """
from httpy import App

app = App(title="example")
other = App(title="other")
number = 7

@app.get("/")
def index():
    return "hi"

def create_app():
    made = App(title="made")
    made.add_route("GET", "/made", index)
    return made

class Factory:
    def __call__(self):
        return App(title="called")

factory = Factory()

def needs(argument): ...

def makes_nothing(): ...

async def handler(): ...

def asgi(scope, receive, send): ...
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder with modules, as the current one."""
    (tmp_path / "shop.py").write_text(MODULE)
    (tmp_path / "lonely.py").write_text("from httpy import App\nthe_app = App(title='lonely')\n")
    (tmp_path / "two.py").write_text("from httpy import App\na = App()\nb = App()\n")
    (tmp_path / "broken.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "value.py").write_text("raise ValueError('of its own')\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "web.py").write_text(MODULE)
    return own_folder(tmp_path, monkeypatch)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder without anything, as the current one."""
    return own_folder(tmp_path, monkeypatch)


def own_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    for name in (
        "shop",
        "lonely",
        "two",
        "broken",
        "value",
        "pack",
        "pack.web",
        "main",
        "app",
        "site",
        "site.api",
    ):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return folder


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"from httpy import App\napp = App(title={name!r})\n")


def refusal(target: str, **options: bool) -> str:
    with pytest.raises(ConfigError) as refused:
        load_app(target, **options)
    return str(refused.value)


# By name


@pytest.mark.parametrize(
    ("target", "title"),
    [
        ("shop:app", "example"),
        ("shop", "example"),
        ("shop:other", "other"),
        ("shop:create_app", "made"),
        ("shop:create_app()", "made"),
        ("lonely", "lonely"),
        ("pack.web:app", "example"),
        ("shop.py:app", "example"),
        ("pack/web.py", "example"),
        ("./shop.py:create_app()", "made"),
    ],
)
def test_an_app_is_found(target: str, title: str, here: Path) -> None:
    assert load_app(target).title == title


def test_an_absolute_path_is_found(here: Path) -> None:
    assert load_app(f"{here / 'shop.py'}:app").title == "example"


def test_a_factory_is_called_whatever_it_is(here: Path) -> None:
    assert load_app("shop:create_app", factory=True).title == "made"
    assert load_app("shop:factory", factory=True).title == "called"


def test_an_app_is_found_in_its_folder(empty: Path) -> None:
    write(empty, "code/shop.py")

    assert load_app("shop:app", app_dir="code").title == "code/shop.py"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("shpo:app", "no module 'shpo'; did you mean 'shop'?"),
        ("pack.wbe:app", "no module 'pack.wbe'; did you mean 'pack.web'?"),
        ("nothing_like_it", "no module 'nothing_like_it'"),
        ("shop.py.app", "no module 'shop.py.app'"),
        ("a..b", "'a..b' is no module name: write module:app or path/to/file.py:app"),
        ("a-b", "'a-b' is no module name: write module:app or path/to/file.py:app"),
        ("shpo.py:app", "no file 'shpo.py'; did you mean 'shop.py'?"),
        ("a/b.py", "no file 'a/b.py'"),
        ("shop:ap", "shop has no 'ap'; did you mean 'app'?"),
        ("shop:zzzzz", "shop has no 'zzzzz'; there is app, other"),
        ("shop:number", "shop:number is a int, not an HTTPy App"),
        ("shop:asgi", "shop:asgi can't be called for an app: missing a required argument: 'scope'"),
        ("shop:needs()", "shop:needs() can't be called for an app: missing a required argument"),
        ("shop:makes_nothing", "shop:makes_nothing returned a NoneType, not an HTTPy App"),
        ("shop:handler", "shop:handler returned a coroutine, not an HTTPy App"),
        ("shop:factory", "shop:factory is a Factory, not an HTTPy App; ASGI and WSGI apps are not there yet"),
        ("two", "two has several apps (a, b): name one, as two:a"),
        ("pack", "pack has no app: name it, as pack:app"),
        (":app", "':app' is no target: write module:app or path/to/file.py:app"),
    ],
)
def test_a_target_that_is_wrong_is_one_line(target: str, message: str, here: Path) -> None:
    assert refusal(target).startswith(message)


def test_a_factory_that_is_none_is_said(here: Path) -> None:
    assert refusal("shop:number", factory=True) == (
        "shop:number is a int, which can't be called for an app: leave factory out"
    )
    with pytest.raises(ConfigError, match="app_dir 'nope' is no folder"):
        load_app("shop:app", app_dir="nope")


def test_what_the_app_itself_raises_is_passed_on(here: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load_app("broken:app")
    with pytest.raises(ValueError, match="of its own"):
        load_app("value:app")


# Without a name


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["main.py", "app.py", "pack/main.py"], "main.py"),
        (["app.py", "api.py"], "app.py"),
        (["api.py", "server.py"], "api.py"),
        (["server.py"], "server.py"),
        (["shop/__init__.py", "shop/main.py"], "shop.main"),
        (["shop/__init__.py", "shop/api.py", "shop/web.py"], "shop.api"),
        (["shop/__init__.py"], "shop"),
        (["src/shop/__init__.py", "src/shop/app.py"], "shop.app"),
        (["plain/main.py", "shop/__init__.py", "shop/main.py"], "shop.main"),
    ],
)
def test_without_a_target_the_usual_places_are_looked_at(files: list[str], found: str, empty: Path) -> None:
    write(empty, *files)

    assert find_target() == found
    assert load_app(None).title


def test_a_package_without_an_app_is_none(empty: Path) -> None:
    write(empty, "shop/__init__.py")
    (empty / "tests").mkdir()
    (empty / "tests" / "__init__.py").write_text("")

    assert find_target() == "shop"


def test_the_folder_of_the_app_is_looked_at(empty: Path) -> None:
    write(empty, "code/main.py")

    assert find_target("code") == str(Path("code", "main.py"))


def test_several_packages_are_named(empty: Path) -> None:
    write(empty, "a/__init__.py", "a/main.py", "b/__init__.py", "b/main.py")

    with pytest.raises(ConfigError) as refused:
        find_target()

    assert str(refused.value) == (
        "no app was named, and several packages may have one (a.main, b.main): name one, as a.main:app"
    )


def test_nothing_is_said(empty: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        find_target()

    files = "main.py, app.py, api.py or server.py"
    assert (
        str(refused.value)
        == f"no app was named, and here is no {files}, nor a package with one: write module:app"
    )
