"""Starts workers, replaces them, and ends them: the parent process of a server with several.

It holds the listening sockets and nothing else of the server: it imports neither the app nor asyncio, so that
hardly anything can go wrong in it, and it costs little.

One file, because all that can happen to a worker ends in the same few steps: it is started, told to go, or buried.
A worker's place is a slot. What is to be is written down in slots and in the generation that is wanted, and
`_tend` does what is missing, whenever something has happened. A slot's states::

    empty -> current starts -> current serves -> current and next, which starts -> next has become current
      ^____________/____________________/                                          and the other retires

No worker is ended before the one that takes its place accepts connections.
"""

from __future__ import annotations

import collections
import contextlib
import os
import selectors
import signal
import socket
import sys
import time

from . import _httpy
from .board import make_board
from .errors import ConfigError
from .processes import bury_orphans, count_of, own_command
from .rooms import Switchboard, Waiting
from .urls import url_of, urls_of
from .worker_process import WorkerProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Optional

    from .handover import Predecessor, Successor
    from .systemd import Notifier

# A worker that has served for so long was no failed start.
_LASTING_S = 10.0
# How long a worker that ended at once is waited for, the first time, and at most. Doubled each time.
_FIRST_BACK_OFF_S = 0.5
_LONGEST_BACK_OFF_S = 30.0
# What a stop may take besides the times that are configured, before a worker is killed: it ends itself before that.
_SPARE_S = 5.0
# What workers get when somebody has asked for the second time: they give themselves one second.
_LAST_S = 2.0
# The system may not tell of a worker's end where there is no SIGCHLD: on Windows.
_LONGEST_WAIT_S = 0.5 if sys.platform == "win32" else 60.0
_UNIX = getattr(socket, "AF_UNIX", None)
# Later than this, it was not a busy machine that kept this process from waking, but somebody who had stopped it.
_PAUSE_S = 1.0


class Target:
    """Says how a worker gets the app.

    Args:
        loader: `module:function`, called in each worker, which returns the app.
        **arguments: What it is called with; of types that JSON knows.
    """

    def __init__(self, loader: str, **arguments: Any) -> None:
        self.loader = loader
        self.arguments = arguments


class _Slot:
    """The place of one worker."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self.sockets = sockets
        self.current: Optional[WorkerProcess] = None
        self.next: Optional[WorkerProcess] = None
        # Until when nothing is started here, because the last ones ended at once.
        self.rests_until = 0.0
        self.failures = 0

    def workers(self) -> list[WorkerProcess]:
        return [worker for worker in (self.current, self.next) if worker is not None]


class Supervisor:
    """Serves an app with several processes.

    Args:
        target: How a worker gets the app.
        sockets: Sockets that listen, TCP or unix. They are taken over, and closed in the end.
        shared: Whether others may hold these sockets too, such as the service manager. Defaults to True.
        workers: How many. Defaults to 1; "auto" is one for each processor that this process may use.
        config: What each worker's `Server` is configured with. Defaults to nothing.
        notifier: Is told how it goes. Defaults to nobody.
        on_ready: Called once, when all workers accept connections for the first time, with what they say about
            themselves (`title`, `loop`). Defaults to a line on standard error.
        command: The program and arguments that start this program again, and its directory, for SIGUSR2. Defaults to
            those it was started with, and the directory it is in now.
        report: Called with the text of why a worker could not start. Defaults to printing it on standard error.
        predecessor: The process whose sockets these were, if it was SIGUSR2 that started this one.
        **settings: `worker_timeout`, `max_requests`, `max_rss`, `recycle_jitter`, `reuse_port`.

    Attributes:
        is_succeeded: Whether another process has taken over, with the sockets.

    Raises:
        ConfigError: if a value is wrong.
    """

    def __init__(
        self,
        target: Target,
        *,
        sockets: Sequence[socket.socket],
        shared: bool = True,
        workers: int | str = 1,
        config: Optional[Mapping[str, Any]] = None,
        notifier: Optional[Notifier] = None,
        on_ready: Optional[Callable[[Mapping[str, Any]], None]] = None,
        report: Optional[Callable[[str], None]] = None,
        command: Optional[tuple[Sequence[str], str]] = None,
        predecessor: Optional[Predecessor] = None,
        **settings: Any,
    ) -> None:
        known = _httpy.supervision_defaults()
        for name in settings:
            if name not in known or name == "workers":
                raise ConfigError(f"no setting {name!r}; there are {', '.join(sorted(known))}")
        settings = {**known, **settings}
        for name in ("worker_timeout", "max_requests", "max_rss", "recycle_jitter"):
            value = settings[name]
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not 0 <= value < float("inf")
            ):
                raise ConfigError(f"{name} is a number that is not negative, found {value!r}")
        config = dict(config or {})
        if config.get("certfile"):
            # So that a client can resume its session with any of the workers.
            config["ticket_secret"] = _httpy.ticket_secret()
        limits = {**_httpy.defaults(), **config}
        self._stop_s = limits["grace"] + limits["shutdown_timeout"] + _SPARE_S
        self._worker_timeout: float = settings["worker_timeout"]
        self._config = config
        self._work = {
            "loader": target.loader,
            "arguments": target.arguments,
            "config": config,
            "foreign": shared,
            "others_accept": predecessor is not None,
            "grace": limits["grace"],
            "shutdown_timeout": limits["shutdown_timeout"],
            **{
                name: settings[name]
                for name in ("worker_timeout", "max_requests", "max_rss", "recycle_jitter")
            },
        }
        self._sockets = list(sockets)
        self._shared = shared
        self._reuse_port = bool(settings["reuse_port"])
        self._backlog: int = limits["backlog"]
        self._rooms_max_queue_bytes: int = limits["rooms_max_queue_bytes"]
        self._spare_groups = predecessor.groups[1:] if predecessor else []
        self._slots = [_Slot(self._sockets_for(number)) for number in range(count_of(workers))]
        for number, group in enumerate(self._spare_groups):
            # There were more workers before, and their sockets may have connections queued.
            self._slots[number % len(self._slots)].sockets += group
        self._urls = urls_of(self._sockets, config)
        self._leaving: list[WorkerProcess] = []
        # How often the workers were restarted, by SIGHUP.
        self._generation = 0
        # With sockets of their own, the system spreads connections.
        self._switchboard: Optional[Switchboard] = None
        self._board = None if self._reuse_port else make_board()
        self._notifier = notifier
        self._on_ready = on_ready or self._announce
        self._command = command or own_command()
        self._predecessor = predecessor
        self._successor: Optional[Successor] = None
        self._pending: collections.deque[int] = collections.deque()
        self.is_succeeded = False
        self._is_up = self._is_reloading = self._is_stopping = False
        self._stops = 0
        self._status = 0
        self._report_text = report or _print
        self._reported = ""
        self._next_alive = 0.0

    @property
    def count(self) -> int:
        """How many workers are wanted."""
        return len(self._slots)

    def run(self) -> int:
        """Serves until SIGINT or SIGTERM, from the main thread.

        SIGHUP restarts the workers one after the other, SIGTTIN adds one and SIGTTOU ends one, SIGUSR2 starts this
        program again, which takes over.

        Returns:
            The exit status: 0 after a stop; if no worker could start 1, or 2 if the configuration is wrong.
        """
        with selectors.DefaultSelector() as self._selector, self._taking_signals():
            if not self._config.get("rooms_url"):
                self._switchboard = Switchboard(self._selector, self._rooms_max_queue_bytes)
            if self._predecessor is not None:
                self._selector.register(self._predecessor, selectors.EVENT_READ)
            try:
                while True:
                    self._obey_signals()
                    self._hear()
                    self._bury()
                    self._check()
                    self._tend()
                    if self._is_stopping and not self._leaving:
                        return self._status
                    self._wait()
            finally:
                # None is left, unless this process has failed: then they end by themselves.
                for worker in self._workers():
                    worker.close()
                self._close_sockets()
                if self._switchboard is not None:
                    self._switchboard.close()
                if self._board is not None:
                    self._board.close()

    # -- what is told from outside ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _taking_signals(self) -> Iterator[None]:
        """Has signals wake this process, and remembers them until it gets to them."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            self._selector.register(ours, selectors.EVENT_READ)
            woken_before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            known = {getattr(signal, name, None): what for name, what in self._meanings().items()}
            before = {
                number: signal.signal(number, lambda number, frame: self._pending.append(number))
                for number in known
                if number is not None
            }
            self._known = known
            try:
                yield
            finally:
                signal.set_wakeup_fd(woken_before)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _meanings(self) -> dict[str, Callable[[], None]]:
        return {
            "SIGINT": self._stop_on_signal,
            "SIGTERM": self._stop_on_signal,
            "SIGBREAK": self._stop_on_signal,
            "SIGHUP": self._reload,
            "SIGUSR2": self._hand_over,
            "SIGTTIN": self._add_worker,
            "SIGTTOU": self._take_worker,
            # It has woken this process, which looks after all of them.
            "SIGCHLD": lambda: None,
        }

    def _obey_signals(self) -> None:
        while self._pending:
            self._known[self._pending.popleft()]()

    def _stop_on_signal(self) -> None:
        self._stops += 1
        if self._stops == 1:
            self._stop("stop")
        elif self._stops == 2:
            for worker in self._leaving:
                worker.tell("now")
                worker.end_by(time.monotonic() + _LAST_S)
        else:
            for worker in self._leaving:
                worker.kill()

    def _reload(self) -> None:
        if not self._is_up or self._is_stopping:
            return
        self._generation += 1
        self._is_reloading = True
        _log("info", "restarting all workers")
        if self._notifier is not None:
            self._notifier.reloading()

    def _add_worker(self) -> None:
        if self._is_up and not self._is_stopping:
            self._slots.append(_Slot(self._sockets_for(len(self._slots))))
            _log("info", "%d workers are wanted", len(self._slots))

    def _take_worker(self) -> None:
        if not self._is_up or self._is_stopping or len(self._slots) == 1:
            return
        slot = self._slots.pop()
        has_own = slot.sockets is not self._sockets
        for worker in slot.workers():
            self._dismiss(worker, "stop" if has_own else "retire")
        if has_own:
            for one in slot.sockets:
                if one not in self._sockets:
                    one.close()
        _log("info", "%d workers are wanted", len(self._slots))

    def _hand_over(self) -> None:
        if not self._is_up or self._is_stopping or self._successor is not None:
            return
        from .handover import Successor

        groups: list[Sequence[socket.socket]] = []
        for slot in self._slots:
            if slot.sockets not in groups:
                groups.append(slot.sockets)
        variables = {} if self._notifier is None else self._notifier.variables
        try:
            self._successor = Successor(self._command, groups, shared=self._shared, variables=variables)
        except OSError as error:
            _log("error", "this program can't be started again: %s", error)
            return
        self._selector.register(self._successor, selectors.EVENT_READ)
        self._share_sockets("shared")
        _log("info", "process %d was started, which is to take over", self._successor.pid)

    def _share_sockets(self, word: str) -> None:
        self._work["others_accept"] = word == "shared"
        for worker in self._workers():
            worker.tell(word)

    # -- what workers tell, and what becomes of them ---------------------------------------------------------------

    def _hear(self) -> None:
        for worker in self._workers():
            if not worker.hear():
                self._forget(worker)
        if self._successor is not None:
            self._hear_successor(self._successor)
        if self._predecessor is not None and not self._predecessor.hear():
            self._forget(self._predecessor)
            self._predecessor = None
            self._share_sockets("sole")

    def _hear_successor(self, successor: Successor) -> None:
        state = successor.hear()
        if state != "starting" or successor.is_silent:
            self._forget(successor)
        if state == "starting":
            return
        self._successor = None
        if state == "failed":
            _log(
                "error",
                "process %d, which was to take over, %s; this one goes on",
                successor.pid,
                successor.end,
            )
            self._share_sockets("sole")
            return
        self.is_succeeded = True
        _log("info", "process %d has taken over", successor.pid)
        if self._notifier is not None:
            self._notifier.main_process(successor.pid)
        self._stop("retire")

    def _bury(self) -> None:
        for worker in self._workers():
            if worker.has_ended():
                # Its last words may have come in between.
                worker.hear()
                self._forget(worker)
                self._lose(worker)
                worker.close()
        if os.getpid() == 1:
            bury_orphans({worker.pid for worker in self._workers()})

    def _rest(self, slot: _Slot, *, is_spared: bool = False) -> float:
        """Has a slot wait before the next worker is started, the longer the more have failed; returns how long."""
        rest = min(_FIRST_BACK_OFF_S * 2.0 ** min(slot.failures, 16), _LONGEST_BACK_OFF_S)
        rest = 0.0 if is_spared else rest
        slot.failures += 1
        slot.rests_until = time.monotonic() + rest
        return rest

    def _forget(self, one: Any) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(one)

    def _lose(self, worker: WorkerProcess) -> None:
        """A worker has ended: as it should, or not."""
        if worker in self._leaving:
            self._leaving.remove(worker)
            self._see_how_it_left(worker)
            return
        slot = next(slot for slot in self._slots if worker in slot.workers())
        is_next = slot.next is worker
        if is_next:
            slot.next = None
        else:
            slot.current = None
        if not self._is_up:
            self._fail_to_start(worker)
            return
        if worker.ready is not None and time.monotonic() - worker.started > _LASTING_S:
            slot.failures = 0
        # The first to die is replaced at once.
        rest = self._rest(slot, is_spared=worker.ready is not None and slot.failures == 0)
        how = worker.how_it_ended()
        if worker.failure is not None:
            self._report(worker.failure[0])
        if is_next and self._is_reloading:
            self._give_up_reload()
        elif worker.ready is None:
            _log("error", "worker %d %s before it served; the next is tried in %.1f s", worker.pid, how, rest)
        elif rest:
            _log("error", "worker %d %s; another takes its place in %.1f s", worker.pid, how, rest)
        else:
            _log("error", "worker %d %s; another takes its place", worker.pid, how)

    def _see_how_it_left(self, worker: WorkerProcess) -> None:
        """What goes wrong in the end is no secret either."""
        if worker.failure is not None:
            text, status = worker.failure
            self._report(text)
            if self._is_stopping:
                self._status = self._status or status
        elif worker.has_failed and worker.ready is not None:
            _log("error", "worker %d %s instead of ending well", worker.pid, worker.how_it_ended())

    def _fail_to_start(self, worker: WorkerProcess) -> None:
        """What does not work at all is not tried again."""
        if self._is_stopping:
            return
        unsaid = f"httpy: error: worker {worker.pid} {worker.how_it_ended()} before it served", 1
        text, self._status = worker.failure or unsaid
        self._report(text)
        self._stop("stop")

    def _give_up_reload(self) -> None:
        self._is_reloading = False
        for slot in self._slots:
            if slot.current is not None:
                slot.current.generation = self._generation
        _log("error", "the workers that are there go on: a new one could not start")
        if self._notifier is not None:
            self._notifier.ready("the last reload failed")

    def _report(self, text: str) -> None:
        """Says why a worker could not start; once, however often that happens."""
        if text != self._reported:
            self._reported = text
            self._report_text(text)

    # -- what is to be done ----------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Ends workers that are stuck, or late to end; and says that this process is not stuck itself."""
        now = time.monotonic()
        for worker in self._workers():
            if worker.deadline is not None:
                if now >= worker.deadline:
                    _log("error", "worker %d did not end in time and is killed", worker.pid)
                    worker.kill()
                    worker.deadline = None
            elif self._watches(worker) and worker.silence(now) > self._worker_timeout:
                _log("error", "the loop of worker %d is stuck: the worker is killed", worker.pid)
                worker.abort()
        if self._notifier is not None and self._notifier.watchdog_s is not None and now >= self._next_alive:
            self._notifier.alive()
            # Half of it, as sd_watchdog_enabled(3) recommends.
            self._next_alive = now + self._notifier.watchdog_s / 2
        if "ticket_secret" in self._config:
            # It moves on by itself in the workers, and nobody is to know how they began.
            self._config["ticket_secret"] = _httpy.ticket_secret(self._config["ticket_secret"])

    def _tend(self) -> None:
        """Starts what is missing, and retires what was replaced."""
        if self._is_stopping:
            return
        now = time.monotonic()
        for slot in self._slots:
            if slot.next is not None and slot.next.ready is not None:
                old, slot.current, slot.next = slot.current, slot.next, None
                if old is not None:
                    self._dismiss(old, "retire")
            if slot.current is None and slot.next is not None:
                slot.current, slot.next = slot.next, None
            if slot.current is None and now >= slot.rests_until:
                slot.current = self._start(slot)
                if self._is_stopping:
                    return
        if not self._is_up:
            self._see_whether_up()
        elif not any(slot.next for slot in self._slots):
            # One after the other: a worker more than wanted is enough.
            self._replace_next(now)

    def _see_whether_up(self) -> None:
        if not all(slot.current is not None and slot.current.ready is not None for slot in self._slots):
            return
        self._is_up = True
        first = self._slots[0].current
        assert first is not None
        assert first.ready is not None
        self._on_ready(first.ready)
        if self._notifier is not None:
            self._notifier.ready()
        if self._predecessor is not None:
            self._predecessor.take_over()

    def _replace_next(self, now: float) -> None:
        for slot in self._slots:
            worker = slot.current
            if worker is None or worker.ready is None or now < slot.rests_until:
                continue
            if worker.generation < self._generation or worker.full is not None:
                _log("info", "worker %d is replaced: %s", worker.pid, worker.full or "restart")
                slot.next = self._start(slot)
                return
        workers = [slot.current for slot in self._slots]
        if self._is_reloading and all(worker is not None and worker.ready is not None for worker in workers):
            self._is_reloading = False
            _log("info", "all workers are restarted")
            if self._notifier is not None:
                self._notifier.ready()

    def _start(self, slot: _Slot) -> Optional[WorkerProcess]:
        """Starts a worker; none if the system refuses, which is as a worker that ends at once."""
        try:
            worker = WorkerProcess(slot.sockets, self._work, self._generation, self._board, self._switchboard)
        except OSError as error:
            self._rest(slot)
            _log("error", "no worker can be started: %s", error)
            if not self._is_up:
                self._status = 1
                self._stop("stop")
            return None
        self._selector.register(worker, selectors.EVENT_READ)
        return worker

    def _dismiss(self, worker: WorkerProcess, word: str) -> None:
        worker.tell(word)
        worker.end_by(time.monotonic() + self._stop_s)
        self._leaving.append(worker)

    def _stop(self, word: str) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        if self._notifier is not None and word == "stop":
            self._notifier.stopping()
        workers = [worker for slot in self._slots for worker in slot.workers()]
        for slot in self._slots:
            slot.current = slot.next = None
        for worker in workers:
            self._dismiss(worker, word)
        # They have their own, and close them when they have taken what is queued there.
        self._close_sockets()

    def _close_sockets(self) -> None:
        for one in self._sockets + [one for slot in self._slots for one in slot.sockets]:
            one.close()

    def _wait(self) -> None:
        """Waits until something happens, or is to be done."""
        now = time.monotonic()
        until = now + _LONGEST_WAIT_S
        for worker in self._workers():
            if worker.deadline is not None:
                until = min(until, worker.deadline)
            elif self._watches(worker):
                until = min(until, now + self._worker_timeout - worker.silence(now))
        for slot in self._slots:
            if slot.rests_until > now:
                until = min(until, slot.rests_until)
        if self._notifier is not None and self._notifier.watchdog_s is not None:
            until = min(until, self._next_alive)
        # A little later than at once: `silence` is to be longer than the limit, not as long.
        for key, _ in self._selector.select(max(until - now, 0.0) + 0.001):
            if isinstance(key.fileobj, socket.socket):
                with contextlib.suppress(BlockingIOError):
                    key.fileobj.recv(4096)
            elif isinstance(key.fileobj, Waiting):
                key.fileobj.hear()
        now = time.monotonic()
        if now > until + _PAUSE_S:
            for worker in self._workers():
                worker.excuse(now)

    def _watches(self, worker: WorkerProcess) -> bool:
        """Whether a worker can get stuck: not before it serves, nor when it was killed and has yet to end."""
        return self._worker_timeout > 0 and worker.last_beat is not None and not worker.was_killed

    def _workers(self) -> list[WorkerProcess]:
        return [worker for slot in self._slots for worker in slot.workers()] + self._leaving

    def _sockets_for(self, number: int) -> list[socket.socket]:
        """The sockets of one slot: the same for all, or with SO_REUSEPORT its own."""
        if not self._reuse_port or number == 0:
            return self._sockets
        if self._spare_groups:
            return self._spare_groups.pop(0)
        return [one if one.family == _UNIX else listening_again(one, self._backlog) for one in self._sockets]

    def _announce(self, said: Mapping[str, Any]) -> None:
        count = len(self._slots)
        print(
            f"HTTPy {_httpy.__version__} serves {said['title']} on {', '.join(self._urls)} "
            f"({count} worker{'s' if count > 1 else ''}; loop: {said['loop']}; Ctrl-C stops)",
            file=sys.stderr,
            flush=True,
        )


def listening_again(one: socket.socket, backlog: int) -> socket.socket:
    """Returns another socket that listens where a TCP one does; the system gives each its share of connections.

    Raises:
        ConfigError: if the system can't do that, or the first socket does not allow it.
    """
    if not sys.platform.startswith("linux"):
        raise ConfigError("reuse_port needs Linux: elsewhere the system does not spread connections")
    other = socket.socket(one.family, socket.SOCK_STREAM)
    try:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if one.family == socket.AF_INET6:
            only = one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        other.bind(one.getsockname())
        other.listen(backlog)
    except OSError as error:
        other.close()
        hint = (
            ""
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            else ": it was bound without SO_REUSEPORT"
        )
        raise ConfigError(f"reuse_port: can't listen on {url_of(one)} twice{hint}") from error
    return other


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _log(level: str, message: str, *values: Any) -> None:
    import logging

    getattr(logging.getLogger("httpy.supervisor"), level)(message, *values)
