"""Users, groups and pid files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from httpy import ConfigError
from httpy.identity import become, group_id, pid_file, user_id
from support import environment, python

posix_only = pytest.mark.skipif(os.name != "posix", reason="users and groups are Unix's")
root_only = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root becomes somebody else"
)


def runs(code: str) -> str:
    """What a program of its own says: a process that has given up its privileges does not get them back."""
    ended = subprocess.run(python("-c", code), capture_output=True, text=True, env=environment())
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


# Users and groups


@posix_only
def test_names_and_numbers_are_known() -> None:
    assert user_id("root") == group_id("0") == 0
    assert user_id("12345") == 12345
    for find, kind in ((user_id, "user"), (group_id, "group")):
        with pytest.raises(ConfigError, match=f"there is no {kind} 'no-such-name' on this system"):
            find("no-such-name")
        with pytest.raises(ConfigError, match=f"there is no {kind} '\u00b2' on this system"):
            find("\u00b2")


@posix_only
def test_who_is_that_user_already_stays() -> None:
    become(None, None)
    become(str(os.geteuid()), str(os.getegid()))


@root_only
def test_privileges_are_given_up_for_good() -> None:
    code = """
import os
from httpy.identity import become
become("nobody", None)
print(os.getresuid(), os.getresgid() == (os.getgid(),) * 3, 0 in os.getgroups())
try:
    os.setuid(0)
except PermissionError:
    print("never again")
"""
    import pwd

    nobody = pwd.getpwnam("nobody").pw_uid
    assert runs(code).splitlines() == [f"({nobody}, {nobody}, {nobody}) True False", "never again"]


@root_only
def test_a_user_may_be_a_number_without_a_name_and_have_any_group() -> None:
    code = """
import os
from httpy.identity import become
become("54321", "54322")
print(os.getresuid(), os.getresgid(), os.getgroups())
"""
    assert runs(code) == "(54321, 54321, 54321) (54322, 54322, 54322) [54322]"


@root_only
def test_who_is_not_root_can_not_become_anybody() -> None:
    code = """
import os
from httpy import ConfigError
from httpy.identity import become
os.setuid(54321)
for user, group in (("root", None), (None, "54322")):
    try:
        become(user, group)
    except ConfigError as error:
        print(error)
"""
    assert runs(code).splitlines() == [
        "no permission to become user root: start as root, or leave it out",
        "no permission to become group 54322: start as root, or leave it out",
    ]


# Pid files


def test_a_pid_file_is_there_meanwhile(tmp_path: Path) -> None:
    with pid_file(str(tmp_path / "pid")):
        assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
        assert len(list(tmp_path.iterdir())) == 1

    assert list(tmp_path.iterdir()) == []


def test_no_pid_file_is_none() -> None:
    with pid_file(None):
        pass


@posix_only
def test_the_pid_file_of_a_process_that_runs_is_left(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(f"{os.getppid()}\n")

    with (
        pytest.raises(ConfigError, match=f"is of process {os.getppid()}, which runs"),
        pid_file(str(tmp_path / "pid")),
    ):
        pass
    assert (tmp_path / "pid").read_text() == f"{os.getppid()}\n"

    with pid_file(str(tmp_path / "pid"), predecessor=os.getppid()):
        assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", ["", "nonsense", "99999999999999999999", "0" * 100])
def test_a_pid_file_that_is_stale_is_replaced(content: str, tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(content)

    with pid_file(str(tmp_path / "pid")):
        assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"


def test_the_pid_file_of_a_process_that_has_ended_is_replaced(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "pid").write_text(str(ended.pid))

    with pid_file(str(tmp_path / "pid")):
        assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"


def test_a_pid_file_that_another_has_taken_over_is_left(tmp_path: Path) -> None:
    with pid_file(str(tmp_path / "pid")):
        (tmp_path / "pid").write_text("1\n")

    assert (tmp_path / "pid").read_text() == "1\n"


def test_a_pid_file_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"pid_file .*/no/pid can't be written: No such file"),
        pid_file(str(tmp_path / "no" / "pid")),
    ):
        pass


@root_only
def test_a_pid_file_is_written_by_who_takes_over_without_privileges() -> None:
    # Not in a folder of pytest's, into which only their owner may look.
    code = """
import os, tempfile
from httpy.identity import become, pid_file
with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    path = os.path.join(folder, "pid")
    with pid_file(path, user="54321"):
        child = os.fork()
        if not child:
            become("54321", None)
            with pid_file(path, predecessor=os.getppid()):
                print(open(path).read().strip() == str(os.getpid()), flush=True)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert runs(code).splitlines() == ["True", "0"]
