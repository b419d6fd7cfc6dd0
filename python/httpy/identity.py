"""Who a process is to the system: its user and group, the permissions of its files, the file with its number."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Optional

from .errors import ConfigError


def user_id(name: str) -> int:
    """Returns the number of a user, given by name or number.

    Raises:
        ConfigError: if there is none.
    """
    if name.isascii() and name.isdigit():
        return int(name)
    import pwd

    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ConfigError(f"there is no user {name!r} on this system") from None


def group_id(name: str) -> int:
    """Returns the number of a group, given by name or number.

    Raises:
        ConfigError: if there is none.
    """
    if name.isascii() and name.isdigit():
        return int(name)
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"there is no group {name!r} on this system") from None


def become(user: Optional[str], group: Optional[str]) -> None:
    """Gives the privileges of root up: from now on this process, and those it starts, are that user and group.

    Args:
        user: By name or number. None stays.
        group: Likewise. None is the user's own group.

    Raises:
        ConfigError: if there is no such user or group, or this process may not become it.
    """
    if user is None and group is None:
        return
    if not hasattr(os, "setuid"):
        raise ConfigError("this system can't change the user of a process: leave user and group out")
    own_user = os.geteuid()
    uid = own_user if user is None else user_id(user)
    gid = _main_group(uid) if group is None else group_id(group)
    if (uid, gid) == (own_user, os.getegid()):
        return
    try:
        # In this order: without root, groups can't be changed any more.
        if own_user == 0:
            _set_groups(uid, gid)
        os.setgid(gid)
        os.setuid(uid)
    except PermissionError:
        who = f"user {user}" if user is not None else f"group {group}"
        raise ConfigError(f"no permission to become {who}: start as root, or leave it out") from None
    if uid != 0 and own_user == 0:
        _check_given_up()


def _main_group(uid: int) -> int:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        # A user with a number and no name, as containers have them.
        return os.getegid()


def _set_groups(uid: int, gid: int) -> None:
    import pwd

    try:
        os.initgroups(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        os.setgroups([gid])


def _check_given_up() -> None:
    """Refuses to run if root could be had back: that is worse than to be root and known to be."""
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise ConfigError("the system let this process be root again: it is not safe to serve")


@contextlib.contextmanager
def pid_file(
    path: Optional[str], *, predecessor: Optional[int] = None, user: Optional[str] = None
) -> Iterator[None]:
    """Has a file hold this process's number meanwhile.

    Args:
        path: The file. None is none.
        predecessor: The process whose place this one takes, and whose file it may be.
        user: Whom the file is given to, so that who takes this one's place without privileges may write it.

    Raises:
        ConfigError: if it holds that of another process that runs, or can't be written.
    """
    if path is None:
        yield
        return
    # The folder may be another one when it is to be removed.
    path = os.path.abspath(path)
    other = _read(path)
    if other is not None and other not in (os.getpid(), predecessor) and _runs(other):
        raise ConfigError(f"{path} is of process {other}, which runs: stop that, or choose another pid_file")
    _write(path)
    if user is not None and hasattr(os, "chown"):
        with contextlib.suppress(PermissionError):
            os.chown(path, user_id(user), -1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _read(path) == os.getpid():
                os.unlink(path)


def _write(path: str) -> None:
    # Beside it first: whoever reads it finds a whole number or nothing.
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
        os.replace(temporary, path)
    except PermissionError:
        _write_in_place(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise ConfigError(f"pid_file {path} can't be written: {error.strerror}") from None


def _write_in_place(path: str) -> None:
    """For a file in a folder that this process may not write to."""
    try:
        with open(path, "r+", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
            file.truncate()
    except OSError as error:
        raise ConfigError(f"pid_file {path} can't be written: {error.strerror}") from None


def _read(path: str) -> Optional[int]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            content = file.read(32).strip()
    except OSError:
        return None
    # 0 is nobody's: asked about, it is the own group of processes.
    return int(content) or None if content.isdigit() else None


def _runs(process: int) -> bool:
    if os.name != "posix":
        # Asking would end it.
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
