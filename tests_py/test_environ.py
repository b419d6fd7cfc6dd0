"""`request.environ`: requests of other packages on top of ours."""

from __future__ import annotations

import wsgiref.util
from typing import Any

import pytest

from conftest import Serve
from httpy import App, Request

FORM = {"data": {"name": "Ada", "many": ["1", "2"]}}


def test_an_environ_is_a_dict_of_the_requests_own(serve: Serve) -> None:
    inner = App()

    @inner.post("/x")
    def told(request: Request) -> Any:
        assert type(request.environ) is dict
        request.environ["mine"] = 1
        assert request.environ["mine"] == 1
        return {
            "url": wsgiref.util.request_uri(request.environ),
            "script": request.environ["SCRIPT_NAME"],
            "content": request.environ["wsgi.input"].read().decode(),
            "body": request.text,
        }

    app = App()
    app.mount("/in", inner)
    client = serve(app)

    assert client.post("/in/x?a=b", content=b"content").json() == {
        "url": f"{str(client.base_url).rstrip('/')}/in/x?a=b",
        "script": "/in",
        "content": "content",
        "body": "content",
    }


@pytest.mark.parametrize("package", ["webob", "werkzeug"])
@pytest.mark.parametrize("kind", ["def", "async def", "stream"])
def test_requests_of_other_packages_work(package: str, kind: str, serve: Serve) -> None:
    pytest.importorskip(package)
    app = App()

    def read(request: Request) -> Any:
        if package == "webob":
            import webob

            theirs = webob.Request(request.environ)
            query, form, many = theirs.GET["q"], theirs.POST["name"], theirs.POST.getall("many")
            cookie = theirs.cookies["c"]
        else:
            import werkzeug

            found = werkzeug.Request(request.environ)
            query, form, many = found.args["q"], found.form["name"], found.form.getlist("many")
            theirs, cookie = found, found.cookies["c"]
        return {
            "method": theirs.method,
            "path": theirs.path,
            "query": query,
            "form": form,
            "many": many,
            "cookie": cookie,
            "host": theirs.host,
        }

    if kind == "async def":

        @app.post("/form")
        async def asynchronous(request: Request) -> Any:
            return read(request)
    else:
        app.post("/form", stream=kind == "stream")(read)
    client = serve(app)

    response = client.post("/form?q=caf%C3%A9", headers={"Cookie": "c=1"}, **FORM)

    assert response.json() == {
        "method": "POST",
        "path": "/form",
        "query": "café",
        "form": "Ada",
        "many": ["1", "2"],
        "cookie": "1",
        "host": f"127.0.0.1:{client.base_url.port}",
    }
