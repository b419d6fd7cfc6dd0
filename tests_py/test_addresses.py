"""Addresses: how they are read, opened and cleaned up."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from httpy import ConfigError, addresses
from httpy.addresses import Address, Bound, adopt_all, close_all, open_all, read_address
from httpy.holders import who_listens

unix_only = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="unix sockets")
ipv6_only = pytest.mark.skipif(not socket.has_ipv6, reason="IPv6")


@pytest.fixture
def opened() -> Iterator[Any]:
    """Opens addresses, and closes them in the end."""
    bound: list[Bound] = []

    def start(*written: str) -> list[Bound]:
        new = open_all([read_address(one) for one in written], 10)
        bound.extend(new)
        return new

    yield start
    close_all(bound)


def refusal(*written: str) -> str:
    """What is said about addresses that can't be had."""
    with pytest.raises(ConfigError) as refused:
        close_all(open_all([read_address(one) for one in written], 10))
    return str(refused.value)


def connects(family: int, address: Any) -> bool:
    with socket.socket(family) as client:
        client.settimeout(5)
        try:
            client.connect(address)
        except OSError:
            return False
        return True


# Reading


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("127.0.0.1:80", {"host": "127.0.0.1", "port": 80}),
        ("localhost:0", {"host": "localhost", "port": 0}),
        (":65535", {"host": "", "port": 65535}),
        ("[::1]:80", {"host": "::1", "port": 80}),
        ("[::]", {"host": "::", "port": 8000}),
        ("example.org", {"host": "example.org", "port": 8000}),
        ("unix:/run/a.sock", {"path": "/run/a.sock"}),
        ("unix:///run/a.sock", {"path": "/run/a.sock"}),
        ("unix:a.sock", {"path": "a.sock"}),
        ("unix:@name", {"path": "@name"}),
        ("unix:/a,mode=600,user=www,group=7", {"path": "/a", "mode": 0o600, "user": "www", "group": "7"}),
        ("fd://3", {"descriptor": 3}),
        ("fd:3", {"descriptor": 3}),
        (":80,plain", {"host": "", "port": 80, "plain": True}),
        ("[::1],plain", {"host": "::1", "port": 8000, "plain": True}),
        ("fd://3,plain", {"descriptor": 3, "plain": True}),
        ("unix:/a,plain,mode=600", {"path": "/a", "plain": True, "mode": 0o600}),
        ("unix:@name,plain", {"path": "@name", "plain": True}),
    ],
)
def test_addresses_are_read(written: str, expected: dict[str, Any]) -> None:
    assert read_address(written) == Address(written, **expected)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("80", "bind '80': write :80 for every address, or 127.0.0.1:80"),
        ("::1:80", "bind '::1:80': an IPv6 address with a port is written [::1]:80"),
        ("[::1", "bind '[::1' is no address: write [IPV6]:PORT"),
        ("[::1]80", "bind '[::1]80' is no address: write [IPV6]:PORT"),
        ("a:65536", "bind 'a:65536': a port is a number from 0 to 65535, not '65536'"),
        ("a:80,tls", "bind 'a:80,tls': a port is a number from 0 to 65535, not '80,tls'"),
        ("a:", "bind 'a:': a port is a number from 0 to 65535, not ''"),
        ("a:http", "bind 'a:http': a port is a number from 0 to 65535, not 'http'"),
        ("a:\uff18\uff10", "bind 'a:\uff18\uff10': a port is a number"),
        (
            "http://a:80",
            "bind 'http://a:80' is no address: write HOST:PORT, which is served with TLS if there is a certificate",
        ),
        ("/run/a.sock", "bind '/run/a.sock' is no address"),
        ("unix:", "bind 'unix:': a unix socket has a path, unix:/run/app.sock"),
        ("unix:/a,mode=999", "bind 'unix:/a,mode=999': mode is permissions in octal, such as 660, not '999'"),
        ("unix:/a,mode=", "bind 'unix:/a,mode=': mode is permissions in octal"),
        ("unix:/a,mode=1777", "bind 'unix:/a,mode=1777': mode is permissions in octal"),
        (
            "unix:/a,owner=x",
            "bind 'unix:/a,owner=x': options are mode=, user=, group= and plain, not 'owner=x'",
        ),
        ("unix:/a,user=", "bind 'unix:/a,user=': options are mode=, user=, group= and plain, not 'user='"),
        ("unix:@a,mode=600", "bind 'unix:@a,mode=600': a socket without a file has no permissions"),
        ("fd://x", "bind 'fd://x': fd://N has the number of an open descriptor"),
        ("fd://\u00b2", "bind 'fd://\u00b2': fd://N has the number of an open descriptor"),
        ("fd://-1", "bind 'fd://-1': fd://N has the number of an open descriptor"),
    ],
)
def test_what_is_no_address_is_said(written: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_address(written)

    assert str(refused.value).startswith(message)


# TCP


def test_several_addresses_listen(opened: Any) -> None:
    first, second = opened("127.0.0.1:0", "localhost:0")

    assert first.socket.getsockname()[0] == second.socket.getsockname()[0] == "127.0.0.1"
    assert connects(socket.AF_INET, first.socket.getsockname())
    assert connects(socket.AF_INET, second.socket.getsockname())


@ipv6_only
@pytest.mark.parametrize("written", [":0", "[::]:0"])
def test_every_address_is_both_versions(written: str, opened: Any) -> None:
    (bound,) = opened(written)
    port = bound.socket.getsockname()[1]

    assert connects(socket.AF_INET, ("127.0.0.1", port))
    assert connects(socket.AF_INET6, ("::1", port))


@ipv6_only
def test_one_ipv6_address_is_no_ipv4_address(opened: Any) -> None:
    (bound,) = opened("[::1]:0")
    port = bound.socket.getsockname()[1]

    assert connects(socket.AF_INET6, ("::1", port))
    assert not connects(socket.AF_INET, ("127.0.0.1", port))


@ipv6_only
def test_ipv4_beside_ipv6_is_left_to_its_own_socket(opened: Any) -> None:
    (bound,) = opened("127.0.0.1:0")
    port = bound.socket.getsockname()[1]
    bound.socket.close()

    both = opened(f"[::]:{port}", f"0.0.0.0:{port}")

    assert [one.socket.family for one in both] == [socket.AF_INET6, socket.AF_INET]
    assert [one.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) for one in both[:1]] == [1]


def test_without_ipv6_every_address_is_ipv4(monkeypatch: pytest.MonkeyPatch, opened: Any) -> None:
    listen = addresses._listen

    def refuses_ipv6(family: int, *rest: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return listen(family, *rest)

    monkeypatch.setattr(addresses, "_listen", refuses_ipv6)
    (bound,) = opened(":0")

    assert bound.socket.getsockname()[0] == "0.0.0.0"
    assert "can't listen on [::]:0: " in refusal("[::]:0")


def test_a_taken_port_is_said_and_who_has_it(opened: Any) -> None:
    (bound,) = opened("127.0.0.1:0")
    port = bound.socket.getsockname()[1]

    message = refusal(f"127.0.0.1:{port}")

    who = f" by process {os.getpid()}, " if sys.platform == "linux" else ""
    assert message.startswith(f"can't listen on 127.0.0.1:{port}: it is taken{who}")
    assert message.endswith("; stop that, or choose another port")


def test_who_listens_is_nobody_on_a_free_port() -> None:
    with socket.socket() as free:
        # Bound, and so nobody else's; and nobody listens.
        free.bind(("127.0.0.1", 0))
        assert who_listens(free.getsockname()[1]) is None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            errno.EACCES,
            "no permission: ports below 1024 are for root. Choose another port, or start as root with --user",
        ),
        (errno.EADDRNOTAVAIL, "this machine has no such address"),
        (errno.ENOBUFS, os.strerror(errno.ENOBUFS)),
    ],
)
def test_why_an_address_can_not_be_had_is_said(
    code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*anything: Any) -> socket.socket:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(addresses, "_listen", refuses)

    assert refusal("127.0.0.1:80").startswith(f"can't listen on 127.0.0.1:80: {message}")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example", "-"])
def test_a_host_without_address_is_said(host: str) -> None:
    assert refusal(f"{host}:0").startswith(f"host {host!r} has no address: ")


def test_all_are_opened_or_none(tmp_path: Path, opened: Any) -> None:
    (bound,) = opened("127.0.0.1:0")

    refusal("127.0.0.1:0", f"unix:{tmp_path}/a.sock", f"127.0.0.1:{bound.socket.getsockname()[1]}")

    assert list(tmp_path.iterdir()) == []


# unix


@unix_only
def test_a_unix_socket_has_its_permissions_from_the_start(
    tmp_path: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    listen = socket.socket.listen

    def looks(listening: socket.socket, backlog: int) -> None:
        modes.append(stat.S_IMODE(os.stat(listening.getsockname()).st_mode))
        listen(listening, backlog)

    monkeypatch.setattr(socket.socket, "listen", looks)
    mask = os.umask(0)
    try:
        opened(f"unix:{tmp_path}/a.sock", f"unix:{tmp_path}/b.sock,mode=600")
        assert os.umask(0) == 0
    finally:
        os.umask(mask)

    assert modes == [0o660, 0o600]


@unix_only
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_unix_socket_has_its_owner(tmp_path: Path, opened: Any) -> None:
    opened(f"unix:{tmp_path}/a.sock,user=12345,group=12346")

    found = os.stat(tmp_path / "a.sock")
    assert (found.st_uid, found.st_gid) == (12345, 12346)


@unix_only
@pytest.mark.parametrize("option", ["user", "group"])
def test_an_owner_that_is_not_there_is_said(option: str, tmp_path: Path) -> None:
    message = refusal(f"unix:{tmp_path}/a.sock,{option}=no-such-name")

    assert message == f"there is no {option} 'no-such-name' on this system"
    assert list(tmp_path.iterdir()) == []


@unix_only
def test_a_socket_file_that_nobody_listens_on_is_replaced(tmp_path: Path, opened: Any) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "a.sock"))

    opened(f"unix:{tmp_path}/a.sock")

    assert connects(socket.AF_UNIX, str(tmp_path / "a.sock"))


@unix_only
def test_a_socket_file_that_somebody_listens_on_is_left(tmp_path: Path, opened: Any) -> None:
    opened(f"unix:{tmp_path}/a.sock")

    message = refusal(f"unix:{tmp_path}/a.sock")

    assert (
        message
        == f"unix:{tmp_path}/a.sock is taken: another program listens on it; stop that, or choose another path"
    )
    assert connects(socket.AF_UNIX, str(tmp_path / "a.sock"))


@unix_only
def test_what_is_no_socket_is_left(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")

    assert refusal(f"unix:{tmp_path}/a") == f"unix:{tmp_path}/a is there already, and is no socket"
    assert (tmp_path / "a").read_text() == "mine"


@unix_only
def test_why_a_unix_socket_can_not_be_had_is_said(tmp_path: Path) -> None:
    assert refusal(f"unix:{tmp_path}/no/a").endswith("/no/a: there is no such folder")
    assert "a socket's path has about 100 bytes at most" in refusal(f"unix:{tmp_path}/{'a' * 200}")


@unix_only
def test_a_socket_file_is_removed_in_the_end(
    tmp_path: Path, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bound = opened("unix:a.sock")
    monkeypatch.chdir("/")

    close_all(bound)

    assert list(tmp_path.iterdir()) == []


@unix_only
def test_a_socket_file_that_is_somebody_elses_is_left(tmp_path: Path, opened: Any) -> None:
    bound = opened(f"unix:{tmp_path}/a.sock")
    (tmp_path / "a.sock").unlink()
    # A file may get the inode of the one that was there: so there is another one first.
    (tmp_path / "other").write_text("")
    (tmp_path / "a.sock").write_text("other")

    close_all(bound)

    assert (tmp_path / "a.sock").exists()


@unix_only
def test_a_socket_file_is_left_to_whoever_takes_over(tmp_path: Path, opened: Any) -> None:
    (bound,) = opened(f"unix:{tmp_path}/a.sock")
    (successor,) = adopt_all([bound.socket.dup()], are_ours=True)

    bound.leave()
    close_all([bound])
    assert (tmp_path / "a.sock").exists()

    close_all([successor])
    assert list(tmp_path.iterdir()) == []


@unix_only
def test_a_socket_file_of_a_service_manager_is_left(tmp_path: Path, opened: Any) -> None:
    (bound,) = opened(f"unix:{tmp_path}/a.sock")

    (adopted,) = adopt_all([bound.socket.dup()], are_ours=False)
    close_all([adopted])

    assert adopted.is_foreign
    assert (tmp_path / "a.sock").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names without a file are Linux's")
def test_a_unix_socket_may_have_no_file(opened: Any) -> None:
    opened(f"unix:@httpy-test-{os.getpid()}")

    assert connects(socket.AF_UNIX, f"\0httpy-test-{os.getpid()}")


# Descriptors


def test_a_descriptor_that_listens_is_taken_over(opened: Any) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()

    (bound,) = opened(f"fd://{listening.detach()}")

    assert bound.is_foreign
    assert connects(socket.AF_INET, address)


def test_a_descriptor_that_does_not_listen_is_refused_and_left(tmp_path: Path) -> None:
    with (
        socket.socket() as tcp,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
        open(tmp_path / "a", "w") as file,
    ):
        for one in (tcp, udp):
            assert refusal(f"fd://{one.fileno()}") == f"fd://{one.fileno()} is no stream socket that listens"
            assert one.getsockname()
        message = refusal(f"fd://{file.fileno()}")
        assert message == f"fd://{file.fileno()}: nothing with this number is a socket"
        file.write("still open")
    assert refusal("fd://999999") == "fd://999999: nothing with this number is open in this process"
