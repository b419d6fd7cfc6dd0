"""TLS: through the door, and with the clients that people have."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Optional

import httpx
import pytest

from authority import RSA, Authority, Files, needs_openssl, openssl
from commands import Command, httpy
from crew import wait_for
from httpy import App, ConfigError, Request, Server, _httpy

pytestmark = needs_openssl
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_posix = pytest.mark.skipif(os.name != "posix", reason="signals of Unix")

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> Files:
    return authority.sign("DNS:localhost", "IP:127.0.0.1")


@pytest.fixture
def own(authority: Authority, files: Files, tmp_path: Path) -> Files:
    """A certificate that the test may change."""
    copies = [shutil.copy(file, tmp_path / name) for file, name in zip(files, ("cert.pem", "key.pem"))]
    return Files(*map(str, copies))


def telling() -> App:
    """An app that tells what it knows of its connections."""
    app = App()

    @app.get("/")
    def tell(request: Request):
        tls = request.tls
        return {
            "scheme": request.scheme,
            "url": request.url,
            "supports": request.supports("tls"),
            "tls": tls and [tls.version, tls.cipher, tls.server_name, tls.alpn, tls.is_resumed],
            "subject": tls and tls.peer_certificate and tls.peer_certificate.subject,
        }

    @app.get("/process")
    def process():
        return os.getpid()

    @app.post("/echo")
    def echo(request: Request):
        return request.body

    @app.get("/many")
    async def many():
        for number in range(1000):
            yield f"line {number}\n" * 10

    return app


@contextlib.contextmanager
def serving(files: Optional[Files], **config: Any) -> Iterator[Server]:
    if files is not None:
        config.update(files._asdict())
    with Server(telling(), port=0, **config) as server:
        yield server


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.file)


def connect(
    port: int, context: ssl.SSLContext, name: str = "localhost", session: Optional[ssl.SSLSession] = None
) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    try:
        return context.wrap_socket(plain, server_hostname=name, session=session)
    except BaseException:
        plain.close()
        raise


def ask(connection: socket.socket, path: str = "/", *, close: bool = False) -> Any:
    """Sends a request, and returns what the JSON of the answer says."""
    option = "close" if close else "keep-alive"
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {option}\r\n\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received:
        received += more(connection)
    head, _, content = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), received
    length = int(next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))[15:])
    while len(content) < length:
        content += more(connection)
    return json.loads(content)


def more(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    assert received, "closed"
    return received


def serial(port: int, authority: Authority) -> str:
    """The serial number of the certificate that a new connection gets."""
    with connect(port, trusting(authority)) as connection:
        certificate = connection.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


# What the app sees


def test_an_app_is_served_by_tls_and_knows(driver, authority, files):
    with serving(files, loop=driver) as server:
        assert server.url == f"https://127.0.0.1:{server.port}"
        with httpx.Client(verify=trusting(authority), trust_env=False) as client:
            said = client.get(f"https://localhost:{server.port}/?a=b").json()

    assert said == {
        "scheme": "https",
        "url": f"https://localhost:{server.port}/?a=b",
        "supports": True,
        "tls": ["TLSv1.3", said["tls"][1], "localhost", "http/1.1", False],
        "subject": None,
    }
    assert said["tls"][1] in ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256")


def test_without_tls_there_is_nothing_to_know(serve):
    said = serve(telling()).get("/").json()

    assert (said["scheme"], said["tls"], said["supports"]) == ("http", None, False)


def test_a_session_shows_itself_briefly(files, authority):
    app = App()

    @app.get("/")
    def index(request: Request):
        return repr(request.tls)

    with Server(app, port=0, **files._asdict()) as server:
        answer = httpx.get(server.url, verify=trusting(authority), trust_env=False)

    assert answer.text.startswith("<TLSSession TLSv1.3 TLS_AES_")


def test_a_server_on_a_running_loop_has_tls_too(files, authority):
    import asyncio

    async def main() -> Any:
        client = httpx.AsyncClient(verify=trusting(authority), trust_env=False)
        async with Server(telling(), port=0, **files._asdict()) as server, client:
            return (await client.get(server.url)).json()

    assert asyncio.run(main())["scheme"] == "https"


def test_content_passes_both_ways(driver, authority, files):
    content = os.urandom(3_000_000)
    client = httpx.Client(verify=trusting(authority), trust_env=False)
    with serving(files, loop=driver) as server, client:
        for _ in range(2):
            assert client.post(f"{server.url}/echo", content=content).content == content
        many = client.get(f"{server.url}/many").text

    assert many == "".join(f"line {number}\n" * 10 for number in range(1000))


def test_versions_and_ciphers_are_as_configured(authority, files):
    old = trusting(authority)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(files) as server, connect(server.port, old) as connection:
        said = ask(connection)["tls"]
        assert said[0] == connection.version() == "TLSv1.2"
        # OpenSSL has its own names.
        assert said[1].startswith("TLS_ECDHE_ECDSA_WITH_")
    with (
        serving(files, tls_min_version="1.3") as server,
        pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"),
    ):
        connect(server.port, old)
    one = "TLS_CHACHA20_POLY1305_SHA256"
    with serving(files, ciphers=[one]) as server, connect(server.port, trusting(authority)) as connection:
        assert ask(connection)["tls"][1] == one


def test_each_name_has_its_certificate(authority, files):
    wild = authority.sign("DNS:*.example.org")
    pairs = list(zip(files, wild))
    with serving(None, certfile=pairs[0], keyfile=pairs[1]) as server:

        def names(asked: str) -> list[str]:
            context = trusting(authority)
            context.check_hostname = False
            with connect(server.port, context, asked) as connection:
                certificate = connection.getpeercert()
                assert certificate is not None
                return [str(name) for _, name in certificate["subjectAltName"]]

        assert names("localhost") == ["localhost", "127.0.0.1"]
        assert names("a.example.org") == ["*.example.org"]
        assert names("example.com") == ["localhost", "127.0.0.1"]


# Clients with certificates


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("clients"), "clients")


def test_the_app_knows_whose_certificate_the_client_has(authority, files, clients):
    client = clients.sign(
        *("DNS:ada.example", "IP:192.0.2.1", "URI:spiffe://example/ada", "email:ada@example.org"),
        subject="/C=AT/O=Example, Inc/CN=Ada",
        usage="clientAuth",
    )
    seen = []
    app = App()

    @app.get("/")
    def index(request: Request):
        seen.append(request.tls.peer_certificate)

    context = trusting(authority)
    context.load_cert_chain(client.certfile, client.keyfile)
    with Server(app, port=0, client_ca=clients.file, **files._asdict()) as server:
        httpx.get(server.url, verify=context, trust_env=False).raise_for_status()

    (certificate,) = seen
    assert certificate.subject == r"CN=Ada,O=Example\, Inc,C=AT"
    assert certificate.issuer == "CN=clients"
    assert certificate.common_name == "Ada"
    assert certificate.names == [
        ("DNS", "ada.example"),
        ("IP", "192.0.2.1"),
        ("URI", "spiffe://example/ada"),
        ("email", "ada@example.org"),
    ]
    assert certificate.der == ssl.PEM_cert_to_DER_cert(Path(client.certfile).read_text())
    said = openssl("x509", "-in", client.certfile, "-noout", "-serial", "-fingerprint", "-sha256")
    assert f"serial={certificate.serial_number}" in said
    assert certificate.fingerprint in said.replace(":", "").lower()
    now = datetime.now(timezone.utc)
    assert now - timedelta(hours=1) < certificate.not_before <= now
    assert certificate.not_after - certificate.not_before == timedelta(days=30)
    assert repr(certificate) == r"<Certificate CN=Ada,O=Example\, Inc,C=AT>"


def test_who_needs_a_certificate_and_has_none_is_refused(authority, files, clients):
    refused = pytest.raises(ssl.SSLError, match=r"(?i)certificate.required")
    # In TLS 1.3 the client learns of it when it reads.
    with (
        serving(files, client_ca=clients.file) as server,
        refused,
        connect(server.port, trusting(authority)) as connection,
    ):
        ask(connection)


def test_a_certificate_may_be_optional(authority, files, clients):
    with serving(files, client_ca=clients.file, client_auth="optional") as server:
        with connect(server.port, trusting(authority)) as connection:
            assert ask(connection)["subject"] is None
        context = trusting(authority)
        client = clients.sign(subject="/CN=Ada", usage="clientAuth")
        context.load_cert_chain(client.certfile, client.keyfile)
        with connect(server.port, context) as connection:
            assert ask(connection)["subject"] == "CN=Ada"
        stranger = authority.sign(subject="/CN=Eve", usage="clientAuth")
        context = trusting(authority)
        context.load_cert_chain(stranger.certfile, stranger.keyfile)
        with (
            pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"),
            connect(server.port, context) as connection,
        ):
            ask(connection)


# Other programs


@needs_curl
def test_curl_is_served(authority, files):
    with serving(files) as server:
        url = f"https://localhost:{server.port}/"
        for version, expected in (("--tls-max=1.2", "TLSv1.2"), ("--tlsv1.3", "TLSv1.3")):
            said = json.loads(curl("--cacert", authority.file, *version.split("="), url))
            assert said["tls"][0] == expected
        assert "TLSv1.3" in curl("--cacert", authority.file, "--http1.0", url)


@needs_curl
def test_who_speaks_http_to_the_port_is_told(files):
    with serving(files) as server:
        said = curl("-i", "-d", "x" * 100_000, f"http://localhost:{server.port}/")

    assert said.startswith("HTTP/1.1 400 Bad Request\n")
    assert said.endswith("\n\na plain HTTP request was sent to an HTTPS port: use https://\n")


@needs_curl
def test_who_speaks_tls_to_a_plain_port_is_closed(serve):
    client = serve(telling())

    done = subprocess.run(
        ["curl", "-sS", f"https://localhost:{client.base_url.port}/"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )

    assert done.returncode == 35, done.stderr


def curl(*arguments: str) -> str:
    done = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", *arguments], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\r\n", "\n")


@pytest.mark.parametrize("options", [("-tls1_2",), ("-tls1_2", "-no_ticket")], ids=["tickets", "session ids"])
def test_openssl_resumes_sessions(options, authority, files):
    with serving(files) as server:
        said = openssl(
            *("s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", authority.file),
            *("-reconnect", *options),
        )

    # It connects once more, five times.
    assert (said.count("\nNew, TLSv1.2"), said.count("\nReused, TLSv1.2")) == (1, 5), said


def test_openssl_resumes_sessions_of_tls_1_3(authority, files, tmp_path):
    with serving(files) as server:
        kept = str(tmp_path / "session")
        client = ("s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", authority.file, "-ign_eof")
        request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

        first = openssl(*client, "-sess_out", kept, text=request)
        second = openssl(*client, "-sess_in", kept, "-alpn", "http/1.1", text=request)

    assert "New, TLSv1.3" in first
    assert '"http/1.1",true]' in second
    assert "Reused, TLSv1.3" in second
    assert "Max Early Data: 0" in first + second
    assert "Secure Renegotiation IS NOT supported" in second


def test_the_protocol_is_agreed_on(authority, files):
    with serving(files) as server:
        context = trusting(authority)
        context.set_alpn_protocols(["unheard/1", "http/1.1"])
        with connect(server.port, context) as connection:
            assert connection.selected_alpn_protocol() == "http/1.1"
        context.set_alpn_protocols(["unheard/1"])
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
            connect(server.port, context)


def test_close_notify_ends_what_ended_well(authority, files):
    with serving(files) as server:
        context = trusting(authority)
        plain = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
        # Without it, the end would be an error.
        with context.wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        ) as connection:
            connection.sendall(b"GET /many HTTP/1.0\r\n\r\n")
            received = b""
            while True:
                part = connection.recv(65536)
                if not part:
                    break
                received += part

    assert received.endswith(b"line 999\n")
    assert b"content-length" not in received


# Files


@pytest.mark.parametrize("kind", ["pkcs1", "sec1", "pkcs8 rsa", "one file", "chain"])
def test_files_are_read_in_every_form(kind, authority, tmp_path):
    is_rsa = kind in ("pkcs1", "pkcs8 rsa")
    files = authority.sign("DNS:localhost", kind=RSA) if is_rsa else authority.sign("DNS:localhost")
    key = str(tmp_path / "key.pem")
    certificate, own_key = (Path(file).read_text() for file in files)
    config: dict[str, Any] = files._asdict()
    if kind == "pkcs1":
        openssl("rsa", "-in", files.keyfile, "-traditional", "-out", key)
        assert "BEGIN RSA PRIVATE KEY" in Path(key).read_text()
        config["keyfile"] = key
    elif kind == "sec1":
        openssl("ec", "-in", files.keyfile, "-out", key)
        assert "BEGIN EC PRIVATE KEY" in Path(key).read_text()
        config["keyfile"] = Path(key)
    elif kind == "one file":
        Path(key).write_text(own_key + certificate)
        config = {"certfile": key}
    elif kind == "chain":
        Path(key).write_text(certificate + Path(authority.file).read_text())
        config["certfile"] = [key]

    with (
        Server(telling(), port=0, **config) as server,
        connect(server.port, trusting(authority)) as connection,
    ):
        assert ask(connection)["scheme"] == "https"


def test_mistakes_are_told_at_start(authority, files, tmp_path):
    missing = str(tmp_path / "missing.pem")
    other = authority.sign("DNS:other")
    encrypted = str(tmp_path / "encrypted.pem")
    openssl("pkey", "-in", files.keyfile, "-aes256", "-passout", "pass:x", "-out", encrypted)
    traditional = str(tmp_path / "traditional.pem")
    openssl("ec", "-in", files.keyfile, "-aes256", "-passout", "pass:x", "-out", traditional)
    for config, message in [
        ({"certfile": missing}, f"certfile {missing} can't be read: there is no such file"),
        ({"keyfile": missing}, f"keyfile {missing} can't be read: there is no such file"),
        (
            {"keyfile": other.keyfile},
            f"keyfile {other.keyfile} does not belong to the certificate in {files.certfile}",
        ),
        ({"keyfile": encrypted}, f"keyfile {encrypted} has an encrypted key, and there is nobody to ask"),
        ({"keyfile": traditional}, f"keyfile {traditional} has an encrypted key, and there is nobody to ask"),
        ({"keyfile": files.certfile}, f"keyfile {files.certfile} has no private key, but a certificate"),
        ({"certfile": files.keyfile}, f"certfile {files.keyfile} has no certificate, but a key"),
        (
            {"keyfile": [files.keyfile] * 2},
            "there are 1 of certfile and 2 of keyfile: each certificate has a key",
        ),
        ({"client_ca": missing}, f"client_ca {missing} can't be read: there is no such file"),
        ({"ciphers": ["RC4"]}, 'ciphers has "RC4"; there are TLS_AES_256_GCM_SHA384, '),
        ({"ciphers": "RC4"}, "ciphers is a list of names, not 'RC4'"),
        (
            {"client_auth": "maybe", "client_ca": files.certfile},
            'client_auth is "required" or "optional", not \'maybe\'',
        ),
        ({"tls_min_version": 1.3}, 'tls_min_version is "1.2" or "1.3", not 1.3'),
        (
            {"tls_reload_interval": -1},
            "tls_reload_interval is a number of seconds that is not negative, not -1",
        ),
        ({"certfile": 1}, "certfile is a path or a list of paths, not 1"),
    ]:
        server = Server(telling(), port=0, **{**files._asdict(), **config})
        with pytest.raises(ConfigError) as refused:
            server.start()
        assert str(refused.value).startswith(message)


def test_what_needs_a_certificate_says_so():
    for name, value in (("keyfile", "a"), ("client_ca", "a"), ("ciphers", ["a"]), ("tls_min_version", "1.3")):
        with pytest.raises(ConfigError, match=rf"^{name} is given, but no certificate \(certfile\)$"):
            Server(telling(), **{name: value})


@pytest.mark.parametrize("wanted", ["required", "optional"])
def test_asking_clients_for_certificates_needs_authorities(wanted, files):
    with pytest.raises(
        ConfigError, match=r"^client_auth is given, but no authorities to trust \(client_ca\)$"
    ):
        Server(telling(), client_auth=wanted, **files._asdict())


def test_defaults_are_the_native_ones():
    assert _httpy.tls_defaults() == {
        "certfile": None,
        "keyfile": None,
        "client_ca": None,
        "client_auth": "required",
        "tls_min_version": "1.2",
        "ciphers": [],
        "tls_reload_interval": 10.0,
    }


def test_a_ticket_secret_moves_on_and_is_checked():
    first = _httpy.ticket_secret()
    period, _, digits = first.partition(":")
    assert len(digits) == 64
    assert _httpy.ticket_secret(first) == first
    older = f"{int(period) - 1}:{digits}"
    assert _httpy.ticket_secret(older).partition(":")[::2] != (period, digits)
    assert _httpy.ticket_secret(older) == _httpy.ticket_secret(older)
    for wrong in ("", "1", "1:", f"x:{digits}", f"1:{digits[1:]}", f"1:{digits[:-1]}g", f"1:{digits[:-2]}ä"):
        with pytest.raises(ValueError, match="no secret for session tickets"):
            _httpy.ticket_secret(wrong)


# Certificates that change


def renew(authority: Authority, own: Files) -> None:
    """Writes another certificate in place of one."""
    for new, place in zip(authority.sign("DNS:localhost"), own):
        shutil.copy(new, place)


def test_a_new_certificate_is_read_and_connections_live_on(authority, own):
    with serving(own) as server, connect(server.port, trusting(authority)) as before:
        old = serial(server.port, authority)
        ask(before)

        renew(authority, own)
        server.reload_certificates()

        assert serial(server.port, authority) != old
        assert ask(before)["scheme"] == "https"
    server.reload_certificates()


def test_files_are_looked_at(authority, own, caplog):
    caplog.set_level(logging.INFO, "httpy")
    with serving(own, tls_reload_interval=0.05) as server:
        old = serial(server.port, authority)

        renew(authority, own)

        wait_for(lambda: serial(server.port, authority), lambda found: found != old)
    assert "certificates were read again" in caplog.text


def test_a_bad_file_is_told_and_the_old_certificate_stays(authority, own, caplog):
    with serving(own) as server:
        old = serial(server.port, authority)
        Path(own.keyfile).write_text("nothing")

        with pytest.raises(ConfigError, match="is not PEM"):
            server.reload_certificates()

        assert serial(server.port, authority) == old
        wait_for(lambda: [record for record in caplog.records if record.levelno == logging.ERROR])
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith("certificates were not read again, and stay as they were")
    assert f"keyfile {own.keyfile} is not PEM" in record.getMessage()


# Programs


MODULE = """
import os
from httpy import App, Request

app = App()

@app.get("/")
def index(request: Request):
    return {"process": os.getpid(), "scheme": request.scheme, "resumed": request.tls and request.tls.is_resumed}

@app.post("/")
def post():
    return {}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(MODULE)
    return tmp_path


def run(shop: Path, files: Optional[Files], *arguments: str, **variables: str) -> Command:
    if files is not None:
        arguments = ("--certfile", files.certfile, "--keyfile", files.keyfile, *arguments)
    return httpy("run", "shop:app", "--port", "0", *arguments, folder=shop, variables=variables or None)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_a_program_serves_by_tls(authority, files, shop):
    with run(shop, files) as program:
        url = program.url
        assert url.startswith("https://127.0.0.1:")
        with connect(port_of(url), trusting(authority)) as connection:
            assert ask(connection)["scheme"] == "https"
        assert program.end() == 0


def test_mistakes_are_one_line(files, shop):
    with run(shop, files, "--keyfile", "missing.pem") as program:
        assert program.wait() == 2
    assert program.said == [
        "httpy: error: there are 1 of certfile and 2 of keyfile: each certificate has a key of its own, in a keyfile, "
        "or all have theirs in the certfile"
    ]
    with run(shop, None, "--certfile", "missing.pem", "--workers", "2") as program:
        assert program.wait() == 2
    assert program.said == ["httpy: error: certfile missing.pem can't be read: there is no such file"]


@needs_posix
def test_sighup_has_certificates_read_again(authority, own, shop):
    with run(shop, own) as program:
        port = port_of(program.url)
        with connect(port, trusting(authority)) as before:
            process = ask(before)["process"]
            old = serial(port, authority)

            renew(authority, own)
            program.tell(signal.SIGHUP)

            program.wait_for("certificates were read again")
            assert serial(port, authority) != old
            assert ask(before)["process"] == process
        assert program.end() == 0


@needs_posix
def test_sighup_with_a_bad_file_is_an_error_in_the_log(authority, own, shop):
    with run(shop, own) as program:
        port = port_of(program.url)
        old = serial(port, authority)
        Path(own.certfile).write_text("nothing")

        program.tell(signal.SIGHUP)

        program.wait_for(f"ERROR.*certificates were not read again.*{own.certfile}")
        assert serial(port, authority) == old
        assert program.end() == 0


@needs_posix
def test_sighup_of_a_terminal_that_is_closed_ends_the_server(files, shop):
    # A process of its own has the terminal: whoever opens one as the leader of a session belongs to it.
    import pty

    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    program = (
        "import os, sys; os.setsid(); os.open(sys.argv[1], os.O_RDWR); os.execv(sys.executable, [sys.executable, '-m', "
        "'httpy', *sys.argv[2:]])"
    )
    arguments = ("run", "shop:app", "--port", "0", "--certfile", files.certfile, "--keyfile", files.keyfile)
    with Command("-c", program, name, *arguments, folder=shop) as command:
        assert command.url
        os.close(theirs)
        os.close(ours)
        assert command.wait() == 0


@needs_posix
@pytest.mark.slow
def test_workers_are_replaced_by_some_with_the_new_certificate(authority, own, shop):
    with run(shop, own, "--workers", "2") as program:
        port = port_of(program.url)
        old = serial(port, authority)

        renew(authority, own)
        program.tell(signal.SIGHUP)

        program.wait_for("all workers are restarted")
        # One that is told to leave may still accept somebody meanwhile.
        wait_for(lambda: old not in {serial(port, authority) for _ in range(10)})
        assert program.end() == 0


@needs_posix
def test_a_client_resumes_its_session_with_any_worker(authority, files, shop):
    with run(shop, files, "--workers", "2") as program:
        port = port_of(program.url)
        context = trusting(authority)
        # Its tickets come before the end of the handshake.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with connect(port, context) as connection:
            session = connection.session
        said = []
        kept = []
        for _ in range(20):
            kept.append(connect(port, context, session=session))
            said.append(ask(kept[-1]))
        for connection in kept:
            connection.close()
        assert program.end() == 0

    assert {one["resumed"] for one in said} == {True}
    assert len({one["process"] for one in said}) == 2


def test_some_addresses_may_be_plain(authority, files, shop):
    arguments = ("--bind", "127.0.0.1:0,plain", "--bind", "127.0.0.1:0", "--https-redirect")
    with Command(
        *(
            "-m",
            "httpy",
            "run",
            "shop:app",
            "--certfile",
            files.certfile,
            "--keyfile",
            files.keyfile,
            *arguments,
        ),
        folder=shop,
    ) as program:
        found = program.wait_for(r"(http://127.0.0.1:\d+), (https://127.0.0.1:\d+)")
        plain, encrypted = found[1], found[2]
        with httpx.Client(verify=trusting(authority), trust_env=False) as client:
            for method in ("GET", "POST"):
                answer = client.request(method, f"{plain}/a%20b?c=d", content=b"x" * 10)
                assert answer.status_code == 308
                assert answer.headers["location"] == f"{encrypted}/a%20b?c=d"
            assert client.post(f"{plain}/", follow_redirects=True).json() == {}
            assert client.get(f"{encrypted}/").json()["scheme"] == "https"
        assert program.end() == 0


def test_without_a_redirect_a_plain_address_is_served(authority, files):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    plain, encrypted = (one.getsockname()[1] for one in sockets)
    config: dict[str, Any] = {"plain": [f"http://127.0.0.1:{plain}"], **files._asdict()}
    with Server(telling(), sockets=sockets, **config) as server:
        assert server.urls == [f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{encrypted}"]
        assert httpx.get(server.urls[0], trust_env=False).json()["scheme"] == "http"
        assert (
            httpx.get(server.urls[1], verify=trusting(authority), trust_env=False).json()["scheme"] == "https"
        )


def test_a_redirect_leads_to_the_port_that_was_named(files):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    plain = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    for port, expected in ((443, "https://127.0.0.1/"), (1234, "https://127.0.0.1:1234/")):
        copies = [one.dup() for one in sockets]
        with Server(telling(), sockets=copies, plain=[plain], https_redirect=port, **files._asdict()):
            assert httpx.get(plain, trust_env=False).headers["location"] == expected
    for one in sockets:
        one.close()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"https_redirect": True}, "https_redirect is for sockets without TLS beside others with it (plain)"),
        ({"https_redirect": 0}, "https_redirect is true, false or a port, not 0"),
        ({"https_redirect": 65536}, "https_redirect is true, false or a port, not 65536"),
        ({"plain": ["http://a:1"]}, "plain has http://a:1, where no socket of this server is"),
    ],
)
def test_what_can_not_be_meant_is_refused(config, message, files):
    with pytest.raises(ConfigError) as refused:
        Server(telling(), **config, **files._asdict())

    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--bind :0,plain --certfile a", "there is a certificate (certfile), but every address is plain"),
        (
            "--https-redirect --bind :0 --certfile a",
            "https_redirect is for an address without TLS: add one, --bind :80,plain",
        ),
        ("--https-redirect", "https_redirect is given, but no certificate (certfile)"),
        ("--keyfile a", "keyfile is given, but no certificate (certfile)"),
        (
            "--dev-cert --certfile a",
            "dev_cert and certfile both say which certificate: leave one of them out",
        ),
        ("--client-auth maybe", "--client-auth is one of required, optional, not 'maybe'"),
    ],
)
def test_what_a_command_line_can_not_mean_is_refused(arguments, message, shop):
    for command in ("run", "check"):
        with httpy(command, "shop:app", *arguments.split(), folder=shop) as program:
            assert program.wait() == 2
        assert program.said == [f"httpy: error: {message}"]


def test_check_reads_the_files(files, shop):
    with httpy("check", "shop:app", "--certfile", files.certfile, folder=shop) as program:
        assert program.wait() == 2
    assert program.said == [
        f"httpy: error: certfile {files.certfile} has no private key, and no keyfile is given"
    ]
    with httpy(
        "check", "shop:app", "--ssl-certfile", files.certfile, "--ssl-keyfile", files.keyfile, folder=shop
    ) as program:
        assert program.wait() == 0


def test_health_is_asked_by_tls(authority, files, shop):
    with run(shop, files) as program:
        port = port_of(program.url)
        settings = ("--port", str(port), "--certfile", files.certfile)
        # The configured address: this machine, whatever the certificate is for.
        with httpy("check", "--url", "/", *settings, folder=shop) as check:
            assert (check.wait(), check.output[:11]) == (0, "ok: 200 OK ")
        url = f"https://localhost:{port}/"
        with httpy("check", "--url", url, folder=shop, variables={"SSL_CERT_FILE": authority.file}) as check:
            assert (check.wait(), check.output[:11]) == (0, "ok: 200 OK ")
        with httpy("check", "--url", url, folder=shop) as check:
            assert check.wait() == 1
        assert check.said[0].startswith(f"httpy: {url} is not well: no TLS: ")


# The certificate for this machine


def test_a_development_certificate_is_made_and_kept(shop, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    if sys.platform != "linux":
        pytest.skip("elsewhere the folder is not in a variable")
    certificate = cache / "httpy" / "localhost.pem"
    seen = []
    for _ in range(2):
        with run(shop, None, "--dev-cert", "--workers", "2", XDG_CACHE_HOME=str(cache)) as program:
            line = program.wait_for("serves shop:app on https://").string
            assert (
                f"the certificate is of this machine alone: trust {certificate}, or curl --cacert it" in line
            )
            port = int(line.partition("https://127.0.0.1:")[2].partition(" ")[0])
            context = ssl.create_default_context(cafile=str(certificate))
            for name in ("localhost", "127.0.0.1", "::1"):
                with connect(port, context, name) as connection:
                    assert ask(connection)["scheme"] == "https"
            if shutil.which("curl"):
                assert "https" in curl("--cacert", str(certificate), f"https://localhost:{port}/")
            assert program.end() == 0
        seen.append(certificate.read_bytes())

    assert seen[0] == seen[1]
    assert (cache / "httpy" / "localhost-key.pem").stat().st_mode & 0o777 == 0o600


def test_who_does_not_shake_hands_is_closed(files):
    with serving(files, handshake_timeout=0.2) as server:
        start = time.monotonic()
        connection = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
        with connection:
            assert connection.recv(1) == b""
        assert time.monotonic() - start >= 0.2
