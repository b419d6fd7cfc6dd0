"""Where a server listens: reads addresses, opens their sockets, and cleans up after them.

1. `host:port`, `[::1]:port`; `:port` is every address of the machine, and so is `[::]:port`: IPv4 comes to it too
   (IPV6_V6ONLY off), unless `0.0.0.0` with that port is asked for beside it. Without IPv6, `:port` is `0.0.0.0:port`.
2. `unix:PATH`, with options after commas: `mode=660`, `user=NAME`, `group=NAME`. `unix:@NAME` is a name without a file
   (Linux). A socket file that nobody listens on is replaced, one that somebody does is not. It has its permissions from
   its first moment, and is removed at the end by the process that made it.
3. `fd://N` is a socket that listens already, inherited from whoever started the process.
4. With a certificate all of them are served with TLS, but for those that have the option `plain`: `:8000,plain`.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

from .errors import ConfigError
from .identity import group_id, user_id

_FORMS = "HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH or fd://N"
_PLAIN = ",plain"

# Who may connect to a unix socket unless its address says otherwise: its owner and group. 660, as most do: a proxy that
# runs as somebody else is put into the group.
_MODE = 0o660

# How long to wait for whoever listens on a socket file, in seconds. It is this machine: an answer comes at once.
_PATIENCE_S = 1.0


class Address(NamedTuple):
    """Where to listen.

    Attributes:
        text: As it was written.
        host: A host name or IP address; "" is every address. None for the other kinds.
        port: Its port.
        path: Of a unix socket; `@NAME` without a file.
        mode: The socket file's permissions.
        user: The socket file's owner. None leaves it.
        group: Likewise.
        descriptor: Of a socket that is there already.
        plain: Whether it is served without TLS even if there is a certificate.
    """

    text: str
    host: Optional[str] = None
    port: int = 0
    path: Optional[str] = None
    mode: int = _MODE
    user: Optional[str] = None
    group: Optional[str] = None
    descriptor: Optional[int] = None
    plain: bool = False


class Bound:
    """Is a socket that listens, and what is to be removed when it does not any more.

    Args:
        listening: The socket.
        is_foreign: Whether another process has opened it, and may hold it too.
        path: Its file, which this process is to remove. None if it has none, or that is somebody else's business.

    Attributes:
        socket: The socket.
        is_foreign: As above.
        plain: Whether it is served without TLS even if there is a certificate.
    """

    def __init__(
        self, listening: socket.socket, *, is_foreign: bool = False, path: Optional[str] = None
    ) -> None:
        self.socket = listening
        self.is_foreign = is_foreign
        self.plain = False
        self._path = path
        self._process = os.getpid()
        # Another file in its place is somebody else's.
        self._identity = None if path is None else _identity(path)

    def leave(self) -> None:
        """Leaves the socket's file to a process that has taken over."""
        self._path = None

    def remove(self) -> None:
        """Removes the socket's file, if it is still the one, and this is the process that is to do it."""
        if self._path is None or self._process != os.getpid():
            return
        try:
            if _identity(self._path) == self._identity:
                os.unlink(self._path)
        except OSError:
            # Gone already; or privileges are, and then the next start replaces it.
            pass


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def read_address(written: str, default_port: int = 8000) -> Address:
    """Reads an address.

    Raises:
        ConfigError: if it is none; says what one looks like.
    """
    if written.startswith("unix:"):
        return _read_unix(written)
    if written.endswith(_PLAIN):
        address = read_address(written.removesuffix(_PLAIN), default_port)
        return address._replace(text=written, plain=True)
    if written.startswith("fd:"):
        digits = written[3:].removeprefix("//")
        if not (digits.isascii() and digits.isdigit()):
            raise ConfigError(f"bind {written!r}: fd://N has the number of an open descriptor")
        return Address(written, descriptor=int(digits))
    if written.startswith(("http://", "https://", "tls://")):
        raise ConfigError(
            f"bind {written!r} is no address: write HOST:PORT, which is served with TLS if there is a certificate "
            "(certfile), and HOST:PORT,plain without it in any case"
        )
    if "://" in written or "/" in written:
        raise ConfigError(f"bind {written!r} is no address: write {_FORMS}")
    host, separator, port = written.rpartition(":")
    if written.startswith("["):
        host, bracket, rest = written[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ConfigError(f"bind {written!r} is no address: write [IPV6]:PORT")
        port = rest[1:] if rest else str(default_port)
    elif not separator:
        if written.isdigit():
            raise ConfigError(f"bind {written!r}: write :{written} for every address, or 127.0.0.1:{written}")
        host, port = written, str(default_port)
    elif ":" in host:
        raise ConfigError(f"bind {written!r}: an IPv6 address with a port is written [{host}]:{port}")
    if not (port.isdigit() and port.isascii() and int(port) <= 65535):
        raise ConfigError(f"bind {written!r}: a port is a number from 0 to 65535, not {port!r}")
    return Address(written, host=host, port=int(port))


def _read_unix(written: str) -> Address:
    path, *options = written[len("unix:") :].split(",")
    if path.startswith("//"):
        path = path[2:]
    if not path:
        raise ConfigError(f"bind {written!r}: a unix socket has a path, unix:/run/app.sock")
    address = Address(written, path=path)
    for option in options:
        name, _, value = option.partition("=")
        if name == "mode":
            if not value or set(value) - set("01234567") or int(value, 8) > 0o777:
                raise ConfigError(
                    f"bind {written!r}: mode is permissions in octal, such as 660, not {value!r}"
                )
            address = address._replace(mode=int(value, 8))
        elif option == "plain":
            address = address._replace(plain=True)
        elif name in ("user", "group") and value:
            address = address._replace(user=value) if name == "user" else address._replace(group=value)
        else:
            raise ConfigError(f"bind {written!r}: options are mode=, user=, group= and plain, not {option!r}")
    if path.startswith("@") and set(options) - {"plain"}:
        raise ConfigError(f"bind {written!r}: a socket without a file has no permissions")
    return address


class _Options(NamedTuple):
    backlog: int
    reuse_port: bool
    # The ports on which 0.0.0.0 is wanted by itself.
    ipv4_ports: frozenset[int]


def open_all(addresses: Sequence[Address], backlog: int, *, reuse_port: bool = False) -> list[Bound]:
    """Opens a socket for each address, all or none.

    Args:
        addresses: Where to listen.
        backlog: Connections that the system may queue before they are accepted.
        reuse_port: Whether others that say so too may listen on the same ports (`SO_REUSEPORT`).

    Raises:
        ConfigError: if one can't be had; says why, and what can be done.
    """
    ipv4_ports = frozenset(
        address.port for address in addresses if address.host == "0.0.0.0" and address.port
    )
    options = _Options(backlog, reuse_port, ipv4_ports)
    bound: list[Bound] = []
    try:
        for address in addresses:
            bound.append(_open(address, options))
            bound[-1].plain = address.plain
    except BaseException:
        close_all(bound)
        raise
    return bound


def adopt_all(
    sockets: Sequence[socket.socket], *, are_ours: bool, addresses: Sequence[Address] = ()
) -> list[Bound]:
    """Takes over sockets that another process has opened.

    Args:
        sockets: The sockets; they listen.
        are_ours: Whether that process was this program, so that it is for this one to remove their files.
        addresses: What this process would have opened, if that is known: of as many, one is for each.
    """
    bound = []
    for one in sockets:
        name = one.getsockname()
        has_file = isinstance(name, str) and name.startswith("/") and os.path.exists(name)
        bound.append(Bound(one, is_foreign=not are_ours, path=name if are_ours and has_file else None))
    if len(addresses) == len(bound):
        for made, address in zip(bound, addresses):
            made.plain = address.plain
    return bound


def close_all(bound: Iterable[Bound]) -> None:
    """Closes sockets and removes their files."""
    for one in bound:
        one.socket.close()
        one.remove()


def _open(address: Address, options: _Options) -> Bound:
    if address.descriptor is not None:
        return Bound(_adopt(address.descriptor), is_foreign=True)
    if address.path is not None:
        return _open_unix(address, address.path, options.backlog)
    family, host = _resolve(address)
    try:
        return Bound(_listen(family, host, address.port, options))
    except OSError as error:
        if address.host != "" or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise _refused(address, error) from None
    # A machine without IPv6.
    try:
        return Bound(_listen(socket.AF_INET, "0.0.0.0", address.port, options))
    except OSError as error:
        raise _refused(address, error) from None


def _resolve(address: Address) -> tuple[int, str]:
    if not address.host:
        return (socket.AF_INET6, "::") if socket.has_ipv6 else (socket.AF_INET, "0.0.0.0")
    try:
        # As bytes: `str` goes through Python's IDNA, whose tables an address like 127.0.0.1 has no use for.
        name = address.host.encode("ascii" if address.host.isascii() else "idna")
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"host {address.host!r} has no address: {reason}") from None
    # IPv4 first: `localhost` is 127.0.0.1 to most clients.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    # The scope of a link-local address is part of what `getaddrinfo` makes of it.
    return found[0][0], address.host if "%" in address.host else str(found[0][4][0])


def _listen(family: int, host: str, port: int, options: _Options) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # A restart does not wait for TIME_WAIT. On Windows it means that two may share a port.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.reuse_port:
            if not hasattr(socket, "SO_REUSEPORT"):
                raise ConfigError("reuse_port: this system has no SO_REUSEPORT")
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # `::` takes IPv4 as well, and would be in the way of whoever asks for that by itself.
            is_both = host == "::" and port not in options.ipv4_ports
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_both else 1)
        listening.bind((host, port))
        listening.listen(options.backlog)
    except BaseException:
        listening.close()
        raise
    return listening


def _adopt(descriptor: int) -> socket.socket:
    try:
        listening = socket.socket(fileno=descriptor)
    except OSError as error:
        what = "is open in this process" if error.errno == errno.EBADF else "is a socket"
        raise ConfigError(f"fd://{descriptor}: nothing with this number {what}") from None
    # Unknown on some systems; adopting it tells then.
    listens = getattr(socket, "SO_ACCEPTCONN", None)
    is_stream = listening.type == socket.SOCK_STREAM
    if not is_stream or (listens is not None and not listening.getsockopt(socket.SOL_SOCKET, listens)):
        listening.detach()
        raise ConfigError(f"fd://{descriptor} is no stream socket that listens")
    return listening


def _open_unix(address: Address, path: str, backlog: int) -> Bound:
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError(f"{address.text}: this system has no unix sockets")
    has_file = not path.startswith("@")
    # Whole, so that it still leads there from another folder.
    name = path = os.path.abspath(path) if has_file else "\0" + path[1:]
    user = -1 if address.user is None else user_id(address.user)
    group = -1 if address.group is None else group_id(address.group)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Permissions are those of the mask: set afterwards, there would be a moment in which everybody may connect.
    mask = os.umask(0o777 & ~address.mode)
    try:
        if has_file:
            _clear(path)
        listening.bind(name)
        if not has_file:
            listening.listen(backlog)
            return Bound(listening)
        if (user, group) != (-1, -1):
            os.chown(path, user, group)
        listening.listen(backlog)
        return Bound(listening, path=path)
    except OSError as error:
        listening.close()
        if "too long" in str(error):
            raise ConfigError(f"{address.text}: a socket's path has about 100 bytes at most") from None
        raise _refused(address, error) from None
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(mask)


def _clear(path: str) -> None:
    """Removes a socket file that nobody listens on.

    Raises:
        ConfigError: if somebody does, or it is no socket.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"unix:{path} is there already, and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE_S)
        try:
            client.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except PermissionError:
            raise ConfigError(f"unix:{path} is there already, and belongs to somebody else") from None
        except OSError:
            # A full queue, or one that takes long: somebody is there.
            pass
    raise ConfigError(
        f"unix:{path} is taken: another program listens on it; stop that, or choose another path"
    )


def _refused(address: Address, error: OSError) -> ConfigError:
    where = address.text if address.path is not None else f"{address.host or '*'}:{address.port}"
    if ":" in (address.host or ""):
        where = f"[{address.host}]:{address.port}"
    code = error.errno
    if code == errno.EADDRINUSE:
        from .holders import who_listens

        holder = who_listens(address.port) if address.path is None else None
        by = f" by {holder}" if holder else ""
        advice = f"it is taken{by}; stop that, or choose another port"
        if address.path is not None:
            advice = "it is taken; stop the other program, or choose another path"
    elif code in (errno.EACCES, errno.EPERM):
        if address.path is not None:
            advice = "no permission to make a socket there"
        else:
            advice = (
                "no permission: ports below 1024 are for root. Choose another port, or start as root with --user, "
                "or have systemd open it"
            )
    elif code == errno.EADDRNOTAVAIL:
        advice = "this machine has no such address; 0.0.0.0 and :: are all it has"
    elif code == errno.ENOENT:
        advice = "there is no such folder"
    else:
        advice = error.strerror or str(error)
    return ConfigError(f"can't listen on {where}: {advice}")
