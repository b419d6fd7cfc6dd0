"""What a process can know of itself and its machine: processors, its command, and what others left to it."""

from __future__ import annotations

import contextlib
import os
import sys

from .errors import ConfigError
from .inheritance import python_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container


def count_of(workers: int | str) -> int:
    """Returns how many workers are meant.

    Raises:
        ConfigError: if it is neither "auto" nor a number from 1.
    """
    if workers == "auto":
        return processors()
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ConfigError(f"workers is a number from 1, or 'auto', not {workers!r}")
    return workers


def processors() -> int:
    """Returns how many processors this process may use: those it is bound to, and no more than its container has."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as limit:
            quota, period = limit.read().split()
        # Of half a processor there is one.
        count = min(count, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        # No cgroups, or no limit, which is the word "max".
        pass
    return count


def bury_orphans(known: Container[int]) -> None:
    """Takes in the ends of processes that others have left behind: the duty of a container's first process.

    Args:
        known: This process's own children, whose ends are still to be seen.
    """
    with contextlib.suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid in known:
                return
            os.waitpid(ended.si_pid, 0)


def own_command() -> tuple[list[str], str]:
    """Returns the command that has started this program, and the directory it is in."""
    known = getattr(sys, "orig_argv", None)
    if known:
        return [sys.executable, *known[1:]], os.getcwd()
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    # Python 3.9: a package that is run with -m is known by its `__main__` module.
    program = ["-m", spec.name.removesuffix(".__main__")] if spec else [sys.argv[0]]
    return [sys.executable, *python_flags(), *program, *sys.argv[1:]], os.getcwd()
