"""How Rust and an asyncio loop share the work: everything asyncio promises holds inside a handler."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from support import PATIENCE_S, Core, environment, inline, new_event_loop, on_loop, python, run_to_end, serve

since_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio has it since 3.11")
unix = pytest.mark.skipif(os.name != "posix", reason="a thing of Unix")

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


# -- calling handlers ---------------------------------------------------------------------------------------------


def test_answers_by_every_kind_of_handler(driver):
    async def on_the_loop():
        return "async"

    async def later():
        await asyncio.sleep(0.001)
        return "later"

    @inline
    def at_once():
        return "inline"

    def on_a_thread():
        return "pooled"

    routes = {"/async": on_the_loop, "/later": later, "/inline": at_once, "/pooled": on_a_thread}

    answers = serve(driver, routes, lambda server: [server.get(path) for path in routes for _ in range(3)])

    assert answers == [answer for answer in ("async", "later", "inline", "pooled") for _ in range(3)]


@pytest.mark.parametrize("kind", ["async", "late", "inline", "pooled"])
def test_a_handler_that_raises_is_answered_500_and_the_next_works(driver, kind, caplog):
    async def on_the_loop():
        raise ValueError("as expected")

    async def late():
        await asyncio.sleep(0)
        raise ValueError("as expected")

    @inline
    def at_once():
        raise ValueError("as expected")

    def on_a_thread():
        raise ValueError("as expected")

    async def well():
        return "well"

    handlers = {"async": on_the_loop, "late": late, "inline": at_once, "pooled": on_a_thread}

    answers = serve(
        driver,
        {"/ill": handlers[kind], "/well": well},
        lambda server: [server.ask("/ill"), server.ask("/well")],
    )

    assert answers == [(500, '{"detail":"Internal Server Error"}'), (200, "well")]
    assert "as expected" in caplog.text


def test_many_requests_at_once_are_each_answered(driver):
    async def sleeps():
        await asyncio.sleep(0.01)
        return "slept"

    assert serve(driver, {"/": sleeps}, lambda server: server.get_all(["/"] * 50)) == ["slept"] * 50


# -- tasks --------------------------------------------------------------------------------------------------------


def test_the_current_task_is_the_same_before_and_after_a_suspension(driver):
    async def handler():
        before = asyncio.current_task()
        await asyncio.sleep(0)
        between = asyncio.current_task()
        await asyncio.sleep(0.001)
        assert isinstance(before, asyncio.Task)
        return str(before is between is asyncio.current_task())

    assert serve(driver, {"/": handler}, lambda server: server.get("/")) == "True"


def test_requests_at_the_same_time_have_different_tasks(driver):
    tasks = []

    async def handler():
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0.01)
        assert asyncio.current_task() in tasks
        return ""

    serve(driver, {"/": handler}, lambda server: server.get_all(["/"] * 8))

    assert len(set(tasks)) == 8


def test_a_task_that_somebody_kept_is_not_used_for_the_next_request(driver):
    kept = []

    async def handler():
        kept.append(asyncio.current_task())
        return ""

    serve(driver, {"/": handler}, lambda server: [server.get("/") for _ in range(3)])

    assert len(set(kept)) == 3


@pytest.mark.parametrize("ends", ["at once", "later"])
def test_a_task_that_somebody_kept_is_done_when_its_handler_is(driver, ends):
    kept, called = [], []

    async def handler():
        kept.append(asyncio.current_task())
        kept[0].add_done_callback(called.append)
        if ends == "later":
            await asyncio.sleep(0)
        return ""

    async def waits():
        await asyncio.wait_for(asyncio.shield(kept[0]), PATIENCE_S)
        return "waited"

    def client(server):
        server.get("/")
        return server.get("/wait")

    assert serve(driver, {"/": handler, "/wait": waits}, client) == "waited"
    assert called == kept


def test_there_is_no_current_task_outside_of_handlers(driver):
    async def handler():
        asyncio.get_running_loop().call_soon(lambda: seen.append(asyncio.current_task()))
        return ""

    seen = []

    def client(server):
        server.get("/")
        server.get("/")

    serve(driver, {"/": handler}, client)

    assert seen
    assert set(seen) == {None}


def test_what_a_request_does_to_its_task_does_not_reach_the_next(driver):
    called = []

    async def leaves_traces():
        task = asyncio.current_task()
        task.set_name("mine")
        task.add_done_callback(lambda task: called.append(task))
        task.cancel()
        return "left"

    async def looks():
        task = asyncio.current_task()
        await asyncio.sleep(0)
        return f"{task.get_name() == 'mine'} {task.cancelled()}"

    def client(server):
        return [server.get("/leave"), server.get("/look"), server.get("/look")]

    answers = serve(driver, {"/leave": leaves_traces, "/look": looks}, client)

    assert answers[1:] == ["False False", "False False"]


def test_a_name_alone_does_not_reach_the_next_request(driver):
    async def names():
        asyncio.current_task().set_name("mine")
        return ""

    async def looks():
        return asyncio.current_task().get_name()

    def client(server):
        server.get("/name")
        return server.get("/look")

    assert serve(driver, {"/name": names, "/look": looks}, client) != "mine"


def test_a_task_shows_its_handler(driver):
    async def my_handler():
        await asyncio.sleep(0)
        task = asyncio.current_task()
        stack = [frame.f_code.co_name for frame in task.get_stack()]
        return f"{task!r} {stack} {task.get_coro().__qualname__}"

    shown = serve(driver, {"/": my_handler}, lambda server: server.get("/"))

    assert shown.count("my_handler") >= 3, shown


def test_handlers_that_wait_are_among_all_tasks_and_nothing_else_is(driver):
    async def waits():
        await asyncio.sleep(0.05)
        return ""

    async def counts():
        await asyncio.sleep(0)
        return str(len(asyncio.all_tasks()))

    async def answers_at_once():
        return ""

    def client(server):
        server.get("/at-once")
        alone = server.get("/count")
        waiting = server.send("/wait")
        time.sleep(0.02)
        beside = server.get("/count")
        waiting.close()
        return alone, beside

    routes = {"/wait": waits, "/count": counts, "/at-once": answers_at_once}

    assert serve(driver, routes, client) == ("1", "2")


def test_a_handler_that_cancels_itself_ends_at_its_next_await(driver):
    seen = []

    async def sleeps():
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            seen.append("inner")
            raise

    async def handler():
        asyncio.current_task().cancel()
        try:
            await asyncio.create_task(sleeps())
        except asyncio.CancelledError:
            seen.append("outer")
        return "survived"

    async def bare():
        asyncio.current_task().cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return "cancelled"
        return "not cancelled"

    def client(server):
        return server.get("/"), server.get("/bare")

    assert serve(driver, {"/": handler, "/bare": bare}, client) == ("survived", "cancelled")
    assert seen[-1] == "outer"


@pytest.mark.parametrize("first", ["at once", "after a step"])
def test_a_handler_that_is_cancelled_from_outside_is_answered_503(driver, first, capfd):
    tasks = []

    async def handler():
        if first == "after a step":
            await asyncio.sleep(0)
        tasks.append(asyncio.current_task())
        await asyncio.sleep(PATIENCE_S)

    async def cancels():
        tasks.pop().cancel()
        return "done"

    def client(server):
        waiting = server.send("/")
        while not tasks:
            time.sleep(0.001)
        server.get("/cancel")
        return waiting.recv(100)

    assert serve(driver, {"/": handler, "/cancel": cancels}, client).startswith(b"HTTP/1.1 503 ")


# -- context variables --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "late", "pooled"])
def test_what_was_set_before_the_start_is_seen_and_what_a_request_sets_is_not(driver, kind):
    async def on_the_loop():
        return f"{variable.get()} {variable.set('leaked').old_value is not None}"

    async def late():
        before = variable.get()
        variable.set("leaked")
        await asyncio.sleep(0)
        assert variable.get() == "leaked"
        return f"{before} True"

    def on_a_thread():
        return f"{variable.get()} {variable.set('leaked').old_value is not None}"

    handler = {"async": on_the_loop, "late": late, "pooled": on_a_thread}[kind]

    def run():
        variable.set("before")
        return serve(driver, {"/": handler}, lambda server: [server.get("/") for _ in range(3)])

    assert contextvars.copy_context().run(run) == ["before True"] * 3


def test_tasks_of_a_handler_inherit_its_context(driver):
    async def reads():
        return variable.get()

    async def handler():
        variable.set("inherited")
        return await asyncio.create_task(reads())

    assert serve(driver, {"/": handler}, lambda server: server.get("/")) == "inherited"


# -- what asyncio offers ------------------------------------------------------------------------------------------


def test_timers_run_on_time(driver):
    async def handler():
        begun = time.perf_counter()
        await asyncio.sleep(0.02)
        return str(time.perf_counter() - begun)

    slept = float(serve(driver, {"/": handler}, lambda server: server.get("/")))

    assert 0.019 <= slept < 1


def test_what_a_first_step_schedules_runs_although_nothing_else_happens(driver):
    async def handler():
        loop = asyncio.get_running_loop()
        loop.call_soon(ran.append, "soon")
        loop.call_later(0.01, ran.append, "later")
        handler.background = asyncio.create_task(background())
        return ""

    async def background():
        await asyncio.sleep(0.02)
        ran.append("background")

    def client(server):
        server.get("/")
        wait_until(lambda: len(ran) == 3)

    ran = []
    serve(driver, {"/": handler}, client)

    assert ran == ["soon", "later", "background"]


def test_what_an_inline_handler_schedules_runs_although_nothing_else_happens(driver):
    ran = []

    @inline
    def handler():
        asyncio.get_running_loop().call_soon(ran.append, "soon")
        return ""

    def client(server):
        server.get("/")
        wait_until(lambda: ran)

    serve(driver, {"/": handler}, client)


@pytest.mark.parametrize("driver", ["selector", "thread"])
def test_a_call_from_another_thread_while_a_task_is_made_is_neither_lost_nor_mixed_up(driver):
    """It comes right behind the task's own first step, which the fast way takes out of the loop's queue."""
    asked, called = [], []

    def configure(loop):
        call_soon = loop.call_soon

        def with_another(callback, *arguments, context=None):
            handle = call_soon(callback, *arguments, context=context)
            if asyncio.isfuture(getattr(callback, "__self__", None)) and not arguments:
                asked.append(handle)
                call_soon(called.append, handle)
            return handle

        loop.call_soon = with_another

    async def at_once():
        return "at once"

    async def later():
        await asyncio.sleep(0)
        return "later"

    def client(server):
        answers = [server.get(path) for path in ("/at-once", "/later") * 5]
        # Not before the last of them ran: they are called in order.
        on_loop(server, later)
        return answers

    routes = {"/at-once": at_once, "/later": later}

    assert serve(driver, routes, client, configure=configure) == ["at once", "later"] * 5
    assert called == asked
    assert called


def test_the_loop_can_be_called_from_another_thread(driver):
    async def handler():
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        threading.Timer(0.01, loop.call_soon_threadsafe, [future.set_result, "called"]).start()
        return await future

    def client(server):
        async def coroutine():
            return "run"

        return server.get("/"), on_loop(server, coroutine)

    assert serve(driver, {"/": handler}, client) == ("called", "run")


def test_an_executor_works(driver):
    async def handler():
        return await asyncio.get_running_loop().run_in_executor(None, lambda: "executed")

    assert serve(driver, {"/": handler}, lambda server: server.get("/")) == "executed"


def test_streams_work(driver):
    async def handler():
        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"echo\n")
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        server.close()
        return line.decode().strip()

    assert serve(driver, {"/": handler}, lambda server: [server.get("/") for _ in range(5)]) == ["echo"] * 5


def test_large_streams_arrive_whole(driver):
    size = 4_000_000

    async def handler():
        async def send(reader, writer):
            writer.write(b"x" * size)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(send, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        content = await reader.read(-1)
        writer.close()
        server.close()
        return str(len(content))

    assert serve(driver, {"/": handler}, lambda server: server.get("/")) == str(size)


def test_datagrams_work(driver):
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, address):
            self.transport.sendto(data, address)

    class Ask(asyncio.DatagramProtocol):
        def __init__(self, answered):
            self.answered = answered

        def datagram_received(self, data, address):
            self.answered.set_result(data.decode())

    async def handler():
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        answered = loop.create_future()
        address = server.get_extra_info("sockname")
        client, _ = await loop.create_datagram_endpoint(lambda: Ask(answered), remote_addr=address)
        client.sendto(b"datagram")
        answer = await answered
        client.close()
        server.close()
        return answer

    assert serve(driver, {"/": handler}, lambda server: server.get("/")) == "datagram"


@unix
def test_subprocesses_work(driver):
    async def handler():
        process = await asyncio.create_subprocess_exec(
            *python("-c", "print(input())"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        output, _ = await process.communicate(b"out\n")
        return f"{output.decode().strip()} {process.returncode}"

    def blocking():
        return subprocess.run(
            python("-c", "print('out')"), capture_output=True, text=True, check=True
        ).stdout.strip()

    def client(server):
        return server.get("/"), server.get("/blocking")

    assert serve(driver, {"/": handler, "/blocking": blocking}, client) == ("out 0", "out")


@unix
@pytest.mark.parametrize("kind", ["async", "pooled"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_handler_can_fork(driver, kind):
    def fork():
        child = os.fork()
        if child == 0:
            os._exit(7)
        _, status = os.waitpid(child, 0)
        return str(os.WEXITSTATUS(status))

    async def on_the_loop():
        return fork()

    routes = {"/": on_the_loop if kind == "async" else fork}

    assert serve(driver, routes, lambda server: [server.get("/") for _ in range(3)]) == ["7"] * 3


@unix
@pytest.mark.parametrize("kind", ["async", "late", "inline", "pooled"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_handler_that_forks_and_returns_in_both_answers_once(driver, kind, capfd):
    children = []

    def fork():
        child = os.fork()
        if child:
            children.append(child)
        return "parent" if child else "child"

    async def on_the_loop():
        return fork()

    async def late():
        await asyncio.sleep(0)
        return fork()

    handlers = {"async": on_the_loop, "late": late, "inline": inline(lambda: fork()), "pooled": fork}

    def client(server):
        answers = [server.get("/"), server.get("/")]
        return answers, [os.WEXITSTATUS(os.waitpid(child, 0)[1]) for child in children]

    answers, statuses = serve(driver, {"/": handlers[kind]}, client)

    assert answers == ["parent", "parent"]
    assert statuses == [70, 70]
    assert "returned in the child" in capfd.readouterr().err


def test_wait_for_and_gather_work(driver):
    async def handler():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(PATIENCE_S), 0.01)
        return ",".join(await asyncio.gather(*(asyncio.sleep(0.001, str(n)) for n in range(3))))

    assert serve(driver, {"/": handler}, lambda server: server.get("/")) == "0,1,2"


@since_311
def test_timeouts_and_task_groups_work(driver):
    async def handler():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(PATIENCE_S)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0, n)) for n in range(3)]
        with pytest.raises(BaseExceptionGroup):  # noqa: F821
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(PATIENCE_S))
                raise ValueError
        assert asyncio.current_task().cancelling() == 0
        return str(sum(task.result() for task in tasks))

    assert serve(driver, {"/": handler}, lambda server: [server.get("/") for _ in range(3)]) == ["3"] * 3


@since_311
def test_a_timeout_that_does_not_strike_does_not_outlive_its_request(driver):
    async def handler():
        async with asyncio.timeout(0.01):
            pass
        return "in time"

    def client(server):
        first = server.get("/")
        time.sleep(0.02)
        return first, server.get("/")

    assert serve(driver, {"/": handler}, client) == ("in time", "in time")


def test_debug_mode_works(driver):
    async def handler():
        await asyncio.sleep(0.001)
        return "debug"

    async def at_once():
        return "at once"

    answers = serve(
        driver,
        {"/": handler, "/at-once": at_once},
        lambda server: [server.get("/"), server.get("/at-once"), server.get("/at-once")],
        configure=lambda loop: loop.set_debug(True),
    )

    assert answers == ["debug", "at once", "at once"]


# -- signals, and what ends the loop ------------------------------------------------------------------------------


@unix
@pytest.mark.parametrize("way", ["signal.signal", "add_signal_handler"])
def test_signal_handlers_run_at_once_although_nothing_else_happens(driver, way):
    seen = []

    def note(*_):
        seen.append(time.perf_counter())

    def configure(loop):
        if way == "signal.signal":
            signal.signal(signal.SIGUSR1, note)
        else:
            loop.add_signal_handler(signal.SIGUSR1, note)

    def client(server):
        server.get("/")
        delays = []
        for _ in range(5):
            time.sleep(0.02)
            sent = time.perf_counter()
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_until(lambda: seen)
            delays.append(seen.pop() - sent)
        return sorted(delays)

    async def handler():
        return ""

    before = signal.getsignal(signal.SIGUSR1)
    try:
        delays = serve(driver, {"/": handler}, client, configure=configure)
    finally:
        signal.signal(signal.SIGUSR1, before)

    if driver == "uvloop" and way == "signal.signal":
        pytest.skip("uvloop runs plain signal handlers in its own time")
    assert delays[2] < 0.1, delays


@pytest.mark.parametrize("kind", ["async", "late", "inline", "pooled"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_for_the_loop_ends_it(driver, kind, error):
    async def on_the_loop():
        raise error

    async def late():
        await asyncio.sleep(0)
        raise error

    @inline
    def at_once():
        raise error

    def on_a_thread():
        raise error

    handlers = {"async": on_the_loop, "late": late, "inline": at_once, "pooled": on_a_thread}

    def client(server):
        with contextlib.suppress(OSError):
            server.send("/").recv(100)

    with pytest.raises(error):
        serve(driver, {"/": handlers[kind]}, client)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_takes_no_turn_from_other_handlers(driver, error):
    began, ended = [], []

    async def handler():
        number = len(began)
        began.append(number)
        # All the others have been sent by then.
        time.sleep(0.05)
        try:
            await asyncio.sleep(0)
            if number == 1:
                raise error
        finally:
            ended.append(number)

    def client(server):
        for connection in [server.send("/") for _ in range(5)]:
            with contextlib.suppress(OSError):
                connection.recv(100)

    with pytest.raises(error):
        serve(driver, {"/": handler}, client)
    assert len(began) > 2
    assert sorted(ended) == began


@pytest.mark.parametrize("kind", ["async", "late", "inline"])
def test_a_handler_can_stop_the_loop(driver, kind):
    def stop():
        asyncio.get_running_loop().stop()
        return "stopped"

    async def on_the_loop():
        return stop()

    async def late():
        await asyncio.sleep(0)
        return stop()

    handlers = {"async": on_the_loop, "late": late, "inline": inline(stop)}
    loop, selector = new_event_loop(driver)
    core = Core({"/": handlers[kind]})
    core.start(selector, loop)
    connection = []

    def client():
        connection.append(socket.create_connection(("127.0.0.1", core.port)))
        connection[0].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    thread = threading.Thread(target=client)
    thread.start()
    loop.call_later(PATIENCE_S, os._exit, 1)
    loop.run_forever()
    thread.join()
    core.close()
    run_to_end(loop)
    loop.close()
    connection[0].close()


def test_a_loop_that_was_stopped_goes_on_where_it_was(driver):
    async def handler():
        await asyncio.sleep(0.02)
        return "slept"

    async def short():
        await asyncio.sleep(0.001)

    loop, selector = new_event_loop(driver)
    core = Core({"/": handler})
    core.start(selector, loop)
    loop.run_until_complete(short())
    with socket.create_connection(("127.0.0.1", core.port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(10):
            loop.run_until_complete(short())

        answered = loop.run_in_executor(None, connection.recv, 1000)

        assert loop.run_until_complete(answered).endswith(b"slept")
    core.close()
    run_to_end(loop)
    loop.close()


def test_running_the_loop_again_from_a_handler_is_refused(driver):
    async def handler():
        with pytest.raises(RuntimeError) as caught:
            asyncio.get_running_loop().run_until_complete(asyncio.get_running_loop().create_future())
        return str(caught.value)

    assert "already running" in serve(driver, {"/": handler}, lambda server: server.get("/"))


def test_another_loop_can_be_run_from_a_pooled_handler(driver):
    async def coroutine():
        await asyncio.sleep(0.001)
        return "another"

    assert serve(driver, {"/": lambda: asyncio.run(coroutine())}, lambda server: server.get("/")) == "another"


# -- clients that go away, and stopping ---------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["at once", "after a step"])
def test_a_handler_is_cancelled_when_its_client_goes_away(driver, first):
    seen = []

    async def handler():
        if first == "after a step":
            await asyncio.sleep(0)
        seen.append("begun")
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    def client(server):
        connection = server.send("/")
        wait_until(lambda: seen)
        connection.close()
        closed = time.perf_counter()
        wait_until(lambda: len(seen) == 3)
        return time.perf_counter() - closed

    took = serve(driver, {"/": handler}, client)

    assert seen == ["begun", "cancelled", "cleaned up"]
    assert took < 1


def test_a_pooled_call_whose_client_went_away_before_it_began_is_not_made(driver):
    called = []
    release = threading.Event()

    def blocks():
        release.wait(PATIENCE_S)
        return ""

    def counts():
        called.append(1)
        return ""

    def client(server):
        blocked = [server.send("/block") for _ in range(60)]
        time.sleep(0.3)
        gone = server.send("/count")
        time.sleep(0.05)
        gone.close()
        time.sleep(0.05)
        release.set()
        for connection in blocked:
            assert connection.recv(100)

    serve(driver, {"/block": blocks, "/count": counts}, client)

    assert not called


def test_running_requests_finish_before_the_server_stops(driver):
    async def handler():
        await asyncio.sleep(0.1)
        return "finished"

    connections = []

    def client(server):
        connections.append(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S))
        connections[0].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.03)

    serve(driver, {"/": handler}, client)

    with connections[0] as connection:
        assert connection.recv(1000).endswith(b"finished")


def test_requests_that_run_at_the_end_are_cut_off_and_cancelled(driver):
    seen = []

    async def handler():
        seen.append("begun")
        try:
            await asyncio.sleep(PATIENCE_S)
        finally:
            seen.append("cancelled")

    loop, selector = new_event_loop(driver)
    core = Core({"/": handler})
    core.start(selector, loop)
    loop.call_later(0.05, core.stop, lambda cut_off: (seen.append(cut_off), loop.stop()), 0.05)
    with socket.create_connection(("127.0.0.1", core.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        loop.run_forever()
        core.close()
        run_to_end(loop)
        loop.close()

    assert seen == ["begun", 1, "cancelled"]


def test_asyncio_run_ends_a_server_beside_its_own_loop():
    async def handler():
        await asyncio.sleep(0.001)
        return "beside"

    async def main():
        loop = asyncio.get_running_loop()
        core = Core({"/": handler})
        core.start(None, loop)
        reader, writer = await asyncio.open_connection("127.0.0.1", core.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        stopped = loop.create_future()
        core.stop(stopped.set_result)
        cut_off = await stopped
        core.close()
        return answer, cut_off

    answer, cut_off = asyncio.run(main())

    assert answer.endswith(b"beside")
    assert cut_off == 0


def test_a_loop_that_watches_no_descriptors_is_told_by_a_thread():
    class Loop(asyncio.SelectorEventLoop):
        """Like the Proactor loop of Windows."""

        def add_reader(self, *_):
            raise NotImplementedError

    async def handler():
        await asyncio.sleep(0.001)
        return "told"

    loop = Loop()
    core = Core({"/": handler})
    core.start(None, loop)

    def ask():
        with socket.create_connection(("127.0.0.1", core.port), timeout=PATIENCE_S) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            connection.settimeout(PATIENCE_S)
            return b"".join(iter(lambda: connection.recv(1000), b""))

    for _ in range(3):
        assert loop.run_until_complete(loop.run_in_executor(None, ask)).endswith(b"told")
    core.close()
    run_to_end(loop)
    loop.close()


@pytest.mark.slow
def test_requests_beyond_the_queue_wait_and_are_answered():
    """The thread driver's queue holds 1024."""
    resource = pytest.importorskip("resource")
    clients = 1500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * clients + 200:
        pytest.skip("this system allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * clients + 200), hard))

    @inline
    def blocks():
        time.sleep(0.5)
        return ""

    @inline
    def answers():
        return "answered"

    def client(server):
        blocked = server.send("/block")
        time.sleep(0.1)
        waiting = [server.send("/") for _ in range(clients)]
        assert blocked.recv(1000)
        return sum(connection.recv(1000).endswith(b"answered") for connection in waiting)

    try:
        answered = serve("thread", {"/block": blocks, "/": answers}, client)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert answered == clients


# -- sharing the interpreter --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.alone
def test_idle_connections_cost_nothing(driver):
    async def handler():
        return ""

    def client(server):
        server.get("/")
        connections = [server.connect() for _ in range(50)]
        time.sleep(0.3)
        begun = time.process_time()
        time.sleep(1)
        used = time.process_time() - begun
        for connection in connections:
            connection.close()
        return used

    assert serve(driver, {"/": handler}, client) < 0.01


def load(server, path, seconds, connections=16):
    """Keeps connections busy with a program that needs no interpreter of this process; returns latencies in order."""
    program = """if True:
        import selectors, socket, sys, time
        port, path, seconds, count = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
        request = f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode()
        selector, latencies, sent = selectors.DefaultSelector(), [], {}
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port))
            selector.register(connection, selectors.EVENT_READ)
            connection.sendall(request)
            sent[connection] = time.perf_counter()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for key, _ in selector.select(1):
                assert key.fileobj.recv(65536).startswith(b"HTTP/1.1 ")
                now = time.perf_counter()
                latencies.append(now - sent[key.fileobj])
                sent[key.fileobj] = now
                key.fileobj.sendall(request)
        print(*(round(latency * 1e6) for latency in sorted(latencies)))
    """
    arguments = [str(server.port), path, str(seconds), str(connections)]
    done = subprocess.run(python("-c", program, *arguments), capture_output=True, text=True, check=True)
    return [int(latency) / 1e6 for latency in done.stdout.split()]


@contextlib.contextmanager
def hog():
    """A thread that computes without end; yields how many rounds it has made."""
    rounds, ended = [0], []

    def compute():
        while not ended:
            rounds[0] += 1

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield rounds
    finally:
        ended.append(True)
        thread.join()


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("path", ["/no-python", "/async", "/pooled"])
def test_a_busy_server_leaves_other_threads_their_share(driver, path, capsys):
    async def handler():
        return ""

    def pooled():
        return ""

    def client(server):
        with hog() as rounds:
            time.sleep(0.3)
            alone = rounds[0] / 0.3
            begun, before = time.perf_counter(), rounds[0]
            answered = len(load(server, path, 1))
            beside = (rounds[0] - before) / (time.perf_counter() - begun)
        return beside / alone, answered

    share, answered = serve(driver, {"/async": handler, "/pooled": pooled}, client)

    with capsys.disabled():
        print(
            f"\n  {driver} {path}: a computing thread keeps {share:.0%} of its speed beside {answered} requests/s"
        )
    assert share > 0.1
    assert answered > 50


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("path", ["/no-python", "/async", "/inline", "/pooled"])
def test_a_computing_thread_does_not_delay_answers_much(driver, path, capsys):
    async def handler():
        return ""

    def pooled():
        return ""

    routes = {"/async": handler, "/inline": inline(lambda: ""), "/pooled": pooled}

    def client(server):
        with hog():
            return load(server, path, 1, connections=1)

    latencies = serve(driver, routes, client)

    median, slowest = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
    with capsys.disabled():
        print(
            f"\n  {driver} {path}: beside a computing thread, median {median * 1e3:.1f} ms, p99 {slowest * 1e3:.1f} ms"
        )
    assert median < 5 * sys.getswitchinterval()


# -- the pool -----------------------------------------------------------------------------------------------------


def test_handlers_that_block_do_not_wait_for_each_other(driver):
    together = threading.Barrier(5)

    def blocks():
        together.wait(PATIENCE_S)
        return "blocked"

    answers = serve(driver, {"/": blocks}, lambda server: server.get_all(["/"] * 5))

    assert answers == ["blocked"] * 5


def test_a_pooled_handler_may_block_for_good_and_others_are_answered(driver):
    released = threading.Event()

    def blocks():
        released.wait(PATIENCE_S)
        return ""

    def client(server):
        waiting = [server.send("/block") for _ in range(3)]
        answers = [server.get("/") for _ in range(20)]
        released.set()
        for connection in waiting:
            assert connection.recv(100)
        return answers

    assert serve(driver, {"/block": blocks, "/": lambda: "answered"}, client) == ["answered"] * 20


def test_quick_pooled_handlers_share_one_thread(driver):
    async def threads():
        return str(len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 0)

    def client(server):
        before = int(server.get("/threads"))
        for _ in range(200):
            server.get("/")
        return int(server.get("/threads")) - before

    # The thread, and the one that watches over it; two more if this machine has no time for them.
    assert serve(driver, {"/": lambda: "", "/threads": threads}, client) <= 4


def test_the_switch_interval_is_short_only_while_the_pool_is_busy(driver):
    # Threads of the last test may be about to end.
    wait_until(lambda: sys.getswitchinterval() > 0.001)
    before = sys.getswitchinterval()

    def client(server):
        busy = float(server.get("/"))
        wait_until(lambda: sys.getswitchinterval() == before)
        return busy

    assert serve(driver, {"/": lambda: str(sys.getswitchinterval())}, client) < 0.001 < before


def test_a_switch_interval_that_the_application_sets_stays(driver):
    wait_until(lambda: sys.getswitchinterval() > 0.001)
    before = sys.getswitchinterval()

    def sets():
        sys.setswitchinterval(0.003)
        return ""

    def client(server):
        server.get("/")
        time.sleep(0.2)
        return sys.getswitchinterval()

    try:
        assert serve(driver, {"/": sets}, client) == pytest.approx(0.003)
    finally:
        sys.setswitchinterval(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    "doing", ["time.sleep(60)", "while True: pass", "time.sleep(1.27)", "time.sleep(1.6)", "input()"]
)
def test_the_interpreter_ends_while_the_pool_is_busy(driver, doing):
    program = f"""if True:
        import os, sys, time, threading
        from support import serve
        begun = []
        class Late:
            # Makes the end take long enough for a thread to come back in the midst of it.
            def __del__(self, sleep=time.sleep):
                sleep(0.7)
        sys.modules["late"] = Late()
        def handler():
            begun.append(1)
            {doing}
        def client(server):
            for _ in range(4):
                server.send("/")
            while not begun:
                time.sleep(0.001)
            time.sleep(0.05)
        import support
        loop, selector = support.new_event_loop("{driver}")
        core = support.Core({{"/": handler}})
        core.start(selector, loop)
        def act():
            client(support.Server(core.port, loop))
            loop.call_soon_threadsafe(loop.stop)
        threading.Thread(target=act, daemon=True).start()
        loop.run_forever()
        print("ending")
    """
    begun = time.perf_counter()

    done = subprocess.run(
        python("-c", program),
        stdin=subprocess.PIPE,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert (done.returncode, done.stdout) == (0, "ending\n"), done.stderr
    # Other tests may run beside this one; what it must not wait for takes a minute, or forever.
    assert time.perf_counter() - begun < 20


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["selector", "thread"])
@pytest.mark.parametrize(("kind", "seconds"), [("inline", 0.5), ("async", 0.5), ("pooled", 2)])
def test_the_interpreter_ends_although_a_server_was_not_stopped(kind, seconds, loop):
    """Its thread is a daemon, and inside a handler when the interpreter is gone."""
    program = f"""if True:
        import socket, sys, threading, time
        from httpy import App, Server
        class Late:
            def __del__(self, sleep=time.sleep):
                sleep(1.5)
        sys.modules["late"] = Late()
        app, begun = App(), threading.Event()
        def handler():
            begun.set()
            time.sleep({seconds})
        async def async_handler():
            handler()
        app.get("/inline", inline=True)(handler)
        app.get("/async")(async_handler)
        app.get("/pooled")(handler)
        server = Server(app, port=0, loop=sys.argv[1])
        server.start()
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(b"GET /{kind} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        begun.wait()
        print("ending")
    """
    done = subprocess.run(
        python("-c", program, loop), env=environment(), capture_output=True, text=True, timeout=30
    )

    assert (done.returncode, done.stdout) == (0, "ending\n"), done.stderr


# -- real libraries -----------------------------------------------------------------------------------------------


def test_httpx_works(driver):
    httpx = pytest.importorskip("httpx")
    here = []

    async def asks():
        async with httpx.AsyncClient(trust_env=False) as client:
            answers = await asyncio.gather(*(client.get(f"{here[0]}/inner") for _ in range(5)))
            return ",".join(answer.text for answer in answers)

    async def inner():
        await asyncio.sleep(0.001)
        return "inner"

    def client(server):
        here.append(server.url)
        return server.get("/")

    assert serve(driver, {"/": asks, "/inner": inner}, client) == ",".join(["inner"] * 5)


def test_aiohttp_works(driver):
    aiohttp = pytest.importorskip("aiohttp")
    here = []

    async def asks():
        async with aiohttp.ClientSession() as session:

            async def ask():
                async with session.get(f"{here[0]}/inner") as answer:
                    return await answer.text()

            return ",".join(await asyncio.gather(*(ask() for _ in range(5))))

    async def inner():
        return "inner"

    def client(server):
        here.append(server.url)
        return server.get("/")

    assert serve(driver, {"/": asks, "/inner": inner}, client) == ",".join(["inner"] * 5)


def test_anyio_works(driver):
    anyio = pytest.importorskip("anyio")
    import anyio.to_thread

    async def handler():
        results = []

        async def work(number):
            await anyio.sleep(0.001)
            results.append(await anyio.to_thread.run_sync(lambda: number))

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(work, number)
        with anyio.move_on_after(0.005) as scope:
            await anyio.sleep(PATIENCE_S)
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError), anyio.fail_after(0.005):
            await anyio.Event().wait()
        return str(sum(results))

    assert serve(driver, {"/": handler}, lambda server: [server.get("/") for _ in range(3)]) == ["3"] * 3


def test_asyncpg_works(driver, postgres):
    asyncpg = pytest.importorskip("asyncpg")

    async def handler():
        async with asyncpg.create_pool(
            host=postgres, user="tests", database="postgres", min_size=1, max_size=3
        ) as pool:

            async def ask(number):
                async with pool.acquire() as connection, connection.transaction():
                    return await connection.fetchval("select $1::int + pg_backend_pid() * 0", number)

            rows = await asyncio.gather(*(ask(number) for number in range(10)))
            async with pool.acquire() as connection:
                big = await connection.fetch("select repeat('x', 1000) from generate_series(1, 1000)")
                with pytest.raises(asyncio.TimeoutError):
                    await connection.execute("select pg_sleep(10)", timeout=0.05)
            return f"{sum(rows)} {len(big)}"

    assert serve(driver, {"/": handler}, lambda server: server.get("/")) == "45 1000"


def wait_until(condition):
    """Waits until something is true that is to become so at once."""
    end = time.perf_counter() + PATIENCE_S
    while not condition():
        assert time.perf_counter() < end
        time.sleep(0.001)
