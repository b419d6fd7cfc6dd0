"""The examples run, and the URLs they name answer."""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from programs import running
from support import PATIENCE_S, python

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

# By file and target: the status, and something that is in the content.
EXPECTED = {
    "chat.py": {"/": (200, "<h1>Chat</h1>")},
    "showcase.py": {
        "/": (200, "<h1>HTTPy</h1>"),
        "/hello/world?excited=yes": (200, "Hello, world!"),
        "/me": (200, '"protocol":"HTTP/1.1"'),
        "/count/5": (200, "1\n2\n3\n4\n5\n"),
        "/api/tasks": (200, '"title":"Try HTTPy"'),
        "/api/tasks?status=done": (200, "[]"),
        "/api/tasks/7": (404, '{"detail":"no task 7"}'),
        "/api/tasks?status=maybe": (422, '"loc":["query","status"]'),
        "/divide/1/0": (400, '{"detail":"/divide/1/0: division by zero"}'),
    },
}


def named(text: str) -> set[str]:
    """The targets an example names: in its tour, and in URLs."""
    tour = re.findall(r'^    \("(/[^"]*)", "', text, re.MULTILINE)
    return {"/", *tour, *re.findall(r"http://127\.0\.0\.1:8000(/[\w/?=&]*)", text)}


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_every_target_of_an_example_is_tried(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")

    assert named(text) == set(EXPECTED[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_answers(name: str) -> None:
    command = python("-m", "httpy", "run", f"{EXAMPLES / name}:app", "--port", "0")
    answered = {}
    with running(command) as port:
        for target in EXPECTED[name]:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            client.request("GET", target)
            response = client.getresponse()
            answered[target] = response.status, response.read().decode()
            client.close()

    for target, (status, content) in EXPECTED[name].items():
        assert answered[target][0] == status, target
        assert content in answered[target][1], target


@pytest.mark.slow
def test_the_showcase_takes_what_its_curl_command_sends() -> None:
    with running(python("-m", "httpy", "run", f"{EXAMPLES / 'showcase.py'}:app", "--port", "0")) as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        content_type = {"content-type": "application/x-www-form-urlencoded"}
        client.request("POST", "/api/tasks", '{"title": "More"}', content_type)
        response = client.getresponse()
        content = response.read().decode()
        client.close()

    assert response.status == 201
    assert '"title":"More"' in content
    assert response.headers["location"] == "/api/tasks/3"


@pytest.mark.slow
def test_members_of_the_chat_hear_each_other_and_only_in_their_room() -> None:
    command = python("-m", "httpy", "run", f"{EXAMPLES / 'chat.py'}:app", "--port", "0", "--workers", "2")
    with running(command) as port:
        url = f"ws://127.0.0.1:{port}/rooms/"
        with connect(f"{url}lobby?name=Anna") as anna, connect(f"{url}attic?name=Carl") as carl:
            heard = hear(anna, "Anna came") + hear(carl, "Carl came")
            with connect(f"{url}lobby?name=Bert") as bert:
                heard += hear(anna, "Bert came") + hear(bert, "Bert came")
                carl.send("Is anybody there?")
                heard += hear(carl, "Is anybody there?")
                anna.send("Hello Bert")
                heard += hear(anna, "Hello Bert") + hear(bert, "Hello Bert")
            heard += hear(anna, "Bert left")

    said = [(message["who"], message["what"]) for message in heard]
    assert said.count(("Carl", "Is anybody there?")) == 1
    assert said.count(("Anna", "Hello Bert")) == 2
    assert [message["count"] for message in heard if "Carl" in message["who"] + message["what"]] == [1, 1]


def hear(client: ClientConnection, wanted: str) -> list[dict[str, Any]]:
    """Returns what is said, until this was."""
    heard: list[dict[str, Any]] = []
    while not heard or heard[-1]["what"] != wanted:
        heard.append(json.loads(client.recv(PATIENCE_S)))
    return heard
