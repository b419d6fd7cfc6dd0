"""The documents are true: their Python compiles, their examples answer as they say, and their links lead somewhere.

A comment right before a ```python block has it run. If the block defines `app`, that is served, and each line of the
comment is a request, with what comes back (a status, perhaps the beginning of a text that is in the content)::

    <!-- test
    GET /users/7 -> 200 {"id":7}
    POST /users {"name": "Ada"} -> 201
    -->

`<!-- test -->` alone is `GET / -> 200`. A block without a comment is only compiled. One that imports a framework is
left out where that is not installed (`make test-apps` installs it).
"""

from __future__ import annotations

import ast
import contextlib
import http.client
import importlib.util
import pathlib
import re
import sys
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader

import pytest

import httpy
from httpy import App, Server, _httpy
from httpy.flags import shown_default
from httpy.settings import table

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]

BLOCK = re.compile(
    r"(?:<!-- test\b(?P<test>.*?)-->\n+)?^```python\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)
STEP = re.compile(
    r"(?P<method>[A-Z]+) (?P<target>\S+)(?: (?P<body>.+?))? -> (?P<status>\d{3})(?: (?P<content>.+))?"
)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")
PATIENCE_S = 10.0
FRAMEWORKS = ("fastapi", "flask", "werkzeug")


@dataclass
class Block:
    """A block of Python in a page."""

    place: str
    code: str
    # The requests to send; None if the block is not to be run.
    steps: list[re.Match[str]] | None


def blocks(text: str, page: str) -> list[Block]:
    """The Python in a page, with what is to be tested of it."""
    found = []
    for match in BLOCK.finditer(text):
        place = f"{page}:{text[: match.start('code')].count(chr(10)) + 1}"
        found.append(
            Block(place, match["code"], None if match["test"] is None else steps(match["test"], place))
        )
    tested = sum(block.steps is not None for block in found)
    assert text.count("<!-- test") == tested, f"{page}: a test comment has no ```python block right after it"
    return found


def steps(comment: str, place: str) -> list[re.Match[str]]:
    """The requests that a comment names."""
    lines = [line.strip() for line in comment.splitlines() if line.strip()] or ["GET / -> 200"]
    matches = [STEP.fullmatch(line) for line in lines]
    assert None not in matches, (
        f"{place}: a test is `METHOD /target [body] -> status [content]`, found {lines}"
    )
    return [match for match in matches if match]


def run(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a block, and sends its requests if it has an app."""
    for framework in FRAMEWORKS:
        if f"from {framework} import" in block.code:
            pytest.importorskip(framework)
    # With a loader: since Python 3.15 a traceback through a module without one is a warning.
    spec = importlib.util.spec_from_loader("example", SourceFileLoader("example", block.place))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "example", module)
    code = "\n" * int(block.place.rpartition(":")[2]) + block.code
    exec(compile(code, block.place, "exec"), vars(module))
    app = getattr(module, "app", None)
    if not isinstance(app, App):
        return
    with Server(app, port=0) as server:
        for step in block.steps or []:
            status, content = ask(server.port, step["method"], step["target"], step["body"])
            assert status == int(step["status"]), f"{block.place}: {step[0]}: {status} {content}"
            assert (step["content"] or "") in content, f"{block.place}: {step[0]}: {content}"


def ask(port: int, method: str, target: str, body: str | None) -> tuple[int, str]:
    """Sends a request; returns status and content."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as client:
        client.request(method, target, body)
        response = client.getresponse()
        return response.status, response.read().decode()


ALL = [
    block for page in PAGES for block in blocks(page.read_text("utf-8"), page.relative_to(ROOT).as_posix())
]


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.place)
def test_compiles(block):
    compile(block.code, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize(
    "block", [one for one in ALL if one.steps is not None], ids=lambda block: block.place
)
def test_does_what_the_page_says(block, monkeypatch):
    run(block, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    targets = {(page.parent / link).resolve() for link in LINK.findall(page.read_text("utf-8"))}

    assert [target for target in targets if not target.exists()] == []


def test_every_public_name_is_described():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)

    assert [name for name in httpy.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_every_limit_is_described_with_its_default():
    text = (ROOT / "docs" / "running.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+|True|False|None|'[^']*') \|", text, re.MULTILINE))

    assert {name: ast.literal_eval(value) for name, value in rows.items()} == _httpy.defaults()


def test_every_flag_is_described_with_its_default():
    text = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    rows = re.findall(r"^\| (?:`-\w`, )?`(--[\w-]+)[^`]*` \| (.+?) \|", text, re.MULTILINE)
    settings = [one for one in table().values() if one.name not in {*_httpy.defaults(), "app"}]

    assert dict(rows) == {setting.flag: shown_default(setting) for setting in settings}
    assert len(rows) == len(settings)


def test_every_short_flag_is_described():
    text = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    rows = re.findall(r"^\| `(-\w)`, `(--[\w-]+)", text, re.MULTILINE)

    assert set(rows) == {(setting.short, setting.flag) for setting in table().values() if setting.short}


def test_every_setting_of_workers_is_described_with_its_default():
    text = (ROOT / "docs" / "workers.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\w.]+) \|", text, re.MULTILINE))

    assert rows == {name: str(value) for name, value in _httpy.supervision_defaults().items()}


# -- the tests above can fail --------------------------------------------------------------------------------------

PAGE = """
<!-- test
{test}
-->
```python
from httpy import App

app = App()

@app.get("/")
def index():
    return "Hello"
```
"""


def test_an_example_that_answers_as_it_says_passes(monkeypatch):
    (block,) = blocks(PAGE.format(test="GET / -> 200 Hello"), "page")

    run(block, monkeypatch)


@pytest.mark.parametrize("test", ["GET / -> 201", "GET / -> 200 Goodbye", "GET /nowhere -> 200"])
def test_an_example_that_answers_otherwise_fails(test, monkeypatch):
    (block,) = blocks(PAGE.format(test=test), "page")

    with pytest.raises(AssertionError, match="page:6"):
        run(block, monkeypatch)


def test_an_example_that_raises_fails(monkeypatch):
    (block,) = blocks("<!-- test -->\n```python\n1 / 0\n```\n", "page")

    with pytest.raises(ZeroDivisionError):
        run(block, monkeypatch)


@pytest.mark.parametrize(
    "text", ["<!-- test -->\nno block\n", "<!-- test\nGET / is 200\n-->\n```python\npass\n```\n"]
)
def test_a_comment_that_tests_nothing_fails(text):
    with pytest.raises(AssertionError, match="page"):
        blocks(text, "page")
