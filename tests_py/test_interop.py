"""Other people's clients: each fetches pages, posts content, and sees pushes and early hints where it can.

Over cleartext and TLS, by HTTP/2, and by HTTP/1.1 where the client chooses. A client that is not installed is skipped;
`.ci/run` installs them. Browsers: `test_browser.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from httpy import App, Request, Server, _httpy
from support import PATIENCE_S

LARGE = 5_000_000

app = App()


@app.get("/", inline=True)
def index() -> str:
    return "Hello"


@app.get("/async")
async def later() -> str:
    return "later"


@app.get("/large")
def large() -> bytes:
    return b"x" * LARGE


@app.post("/length")
async def length(request: Request) -> str:
    return str(len(request.body))


@app.get("/request")
async def seen(request: Request) -> dict[str, Any]:
    return {"version": request.version, "scheme": request.scheme}


@app.get("/page")
async def page(request: Request) -> dict[str, bool]:
    hinted = await request.early_hints(["</app.css>; rel=preload; as=style"])
    return {"hinted": hinted, "pushed": request.push("/request?a=b")}


class Served(NamedTuple):
    """A server, and the certificate that its clients have to trust, if it has one."""

    url: str
    certfile: str


@pytest.fixture(scope="module", params=["http", "https"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    config: dict[str, Any] = {}
    if request.param == "https":
        certfile, keyfile = _httpy.dev_certificate(str(tmp_path_factory.mktemp("certificate")))
        config = {"certfile": str(certfile), "keyfile": str(keyfile)}
    with Server(app, port=0, **config) as server:
        yield Served(server.url, config.get("certfile", ""))


def program(*names: str) -> str:
    """The path of the first of these programs that there is; the test is skipped if there is none."""
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"{names[0]} is not installed")
    return path


def run(*command: str | Path, **environment: str) -> str:
    """What a program prints."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_curl(served: Served, version: str, tmp_path: Path) -> None:
    curl = program("curl")
    if version == "2" and "HTTP2" not in run(curl, "--version"):
        pytest.skip("this curl has no HTTP/2")
    content = tmp_path / "content"
    content.write_bytes(b"x" * 3_000_000)
    by = {"1.1": "--http1.1", "2": "--http2" if served.certfile else "--http2-prior-knowledge"}[version]
    command = [curl, "-sS", by, "-w", " %{http_version} %{http_code}"]
    if served.certfile:
        command += ["--cacert", served.certfile]

    assert run(*command, f"{served.url}/") == f"Hello {version} 200"
    assert run(*command, "-I", "-o", "/dev/null", f"{served.url}/") == f" {version} 200"
    assert run(*command, "-o", "/dev/null", f"{served.url}/large") == f" {version} 200"
    assert run(*command, "--data-binary", f"@{content}", f"{served.url}/length") == f"3000000 {version} 200"
    assert (
        run(*command, "--data-binary", f"@{content}", "-o", "/dev/null", f"{served.url}/")
        == f" {version} 405"
    )
    hints = run(*command, "-i", f"{served.url}/page")
    assert hints.startswith("HTTP/2 103 \n" if version == "2" else "HTTP/1.1 200 OK\n"), hints


@pytest.mark.parametrize("served", ["https"], indirect=True)
@pytest.mark.parametrize("version", ["--tlsv1.3", "--tls-max=1.2"])
def test_curl_by_versions_of_tls(served: Served, version: str) -> None:
    command = [program("curl"), "-sS", *version.split("="), "--cacert", served.certfile]

    assert run(*command, f"{served.url}/") == "Hello"


def test_nghttp(served: Served) -> None:
    shown = run(program("nghttp"), "-nv", f"{served.url}/page")

    assert "recv PUSH_PROMISE frame" in shown
    assert ":path: /request?a=b" in shown
    assert shown.count(":status: 200") == 2
    assert ":status: 103" in shown


def test_nghttp_that_wants_no_pushes(served: Served) -> None:
    shown = run(program("nghttp"), "-v", "--no-push", f"{served.url}/page")

    assert "PUSH_PROMISE" not in shown
    assert '"pushed":false' in shown


def test_nghttp_posts(served: Served, tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(b"x" * 1_000_000)

    # With a trailer section behind the content.
    shown = run(program("nghttp"), "-d", content, "--trailer=x: y", f"{served.url}/length")

    assert shown == "1000000"


def test_h2load(served: Served) -> None:
    shown = run(program("h2load"), "-n1000", "-c5", "-m50", f"{served.url}/", f"{served.url}/async")

    assert "1000 succeeded, 0 failed, 0 errored, 0 timeout" in shown


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_httpx(served: Served, version: str) -> None:
    verify = ssl.create_default_context(cafile=served.certfile) if served.certfile else False
    is_2 = version == "HTTP/2"
    options: dict[str, Any] = {"http1": not is_2, "http2": is_2, "verify": verify, "trust_env": False}
    with httpx.Client(base_url=served.url, timeout=PATIENCE_S, **options) as client:
        assert client.get("/request").json() == {"version": version, "scheme": served.url.partition(":")[0]}
        assert client.get("/large").content == b"x" * LARGE
        assert client.post("/length", content=b"x" * 1_000_000).text == "1000000"
        # By HTTP/2 it takes hints, but no pushes.
        assert client.get("/page").json() == {"hinted": is_2, "pushed": False}


NODE = """
const fs = require("node:fs"), http2 = require("node:http2");
const [url, certificate] = process.argv.slice(2);
const client = http2.connect(url, certificate ? { ca: fs.readFileSync(certificate) } : {});
const seen = { pushes: [], hints: [] };
client.on("stream", (pushed, head) => { pushed.on("push", () => seen.pushes.push(head[":path"])); pushed.resume(); });
const ask = (fields, content, trailers) => new Promise((resolve, reject) => {
  const stream = client.request(fields, trailers && { waitForTrailers: true });
  let status, text = "";
  stream.on("headers", (head) => seen.hints.push([head[":status"], head.link]));
  stream.on("response", (head) => { status = head[":status"]; });
  stream.on("wantTrailers", () => stream.sendTrailers(trailers));
  stream.on("data", (chunk) => { text += chunk; });
  stream.on("end", () => resolve([status, text.length > 50 ? text.length : text]));
  stream.on("error", reject);
  stream.end(content);
});
Promise.all([
  ask({ ":path": "/" }),
  ask({ ":path": "/large" }),
  ask({ ":path": "/length", ":method": "POST" }, "x".repeat(1000000), { x: "y" }),
  ask({ ":path": "/page" }),
]).then((answers) => { console.log(JSON.stringify({ answers, ...seen })); client.close(); });
"""


def test_node(served: Served, tmp_path: Path) -> None:
    script = tmp_path / "client.js"
    script.write_text(NODE)

    shown = json.loads(run(program("node", "nodejs"), script, served.url, served.certfile))

    assert shown == {
        "answers": [[200, "Hello"], [200, LARGE], [200, "1000000"], [200, '{"hinted":true,"pushed":true}']],
        "pushes": ["/request?a=b"],
        "hints": [[103, "</app.css>; rel=preload; as=style"]],
    }


GO = """
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
)

func show(response *http.Response, err error) {
	if err != nil {
		panic(err)
	}
	content, err := io.ReadAll(response.Body)
	fmt.Println(response.Proto, response.StatusCode, len(content), err)
}

func main() {
	url, transport := os.Args[1], &http.Transport{ForceAttemptHTTP2: true}
	if strings.HasPrefix(url, "https:") {
		pem, _ := os.ReadFile(os.Args[2])
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	} else {
		PLAIN
	}
	client := &http.Client{Transport: transport}
	show(client.Get(url + "/large"))
	request, _ := http.NewRequest("POST", url+"/length", strings.NewReader(strings.Repeat("x", 1000000)))
	request.ContentLength = -1
	request.Trailer = http.Header{"X": {"y"}}
	show(client.Do(request))
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		fmt.Println(code, header["Link"])
		return nil
	}}
	request, _ = http.NewRequest("GET", url+"/page", nil)
	show(client.Do(request.WithContext(httptrace.WithClientTrace(context.Background(), trace))))
}
"""
GO_PLAIN = "transport.Protocols = new(http.Protocols)\n\t\ttransport.Protocols.SetUnencryptedHTTP2(true)"


@pytest.mark.slow
def test_go(served: Served, tmp_path: Path) -> None:
    go = program("go")
    major, minor = run(go, "env", "GOVERSION").strip().removeprefix("go").split(".")[:2]
    if not served.certfile and (int(major), int(minor)) < (1, 24):
        pytest.skip("this go has no HTTP/2 without TLS")
    source = tmp_path / "main.go"
    source.write_text(GO.replace("PLAIN", "" if served.certfile else GO_PLAIN))

    shown = run(go, "run", source, served.url, served.certfile, GOFLAGS="-mod=mod")

    assert shown.splitlines() == [
        f"HTTP/2.0 200 {LARGE} <nil>",
        "HTTP/2.0 200 7 <nil>",
        "103 [</app.css>; rel=preload; as=style]",
        "HTTP/2.0 200 30 <nil>",
    ]
