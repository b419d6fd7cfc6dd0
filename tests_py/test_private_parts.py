"""The parts of asyncio that it does not document and the drivers use all the same.

A failure here means that this Python needs a look at python/src/driver/parts.rs and step.rs. Until then nothing is
broken: handlers get ordinary tasks, and are slower.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import ctypes
import sys
import threading
import weakref

import pytest

from httpy import _httpy
from support import serve


@pytest.fixture
def loop():
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


async def nothing():
    pass


def new_task(loop):
    task = asyncio.Task(nothing(), loop=loop, name="name")
    handle = loop._ready.pop()
    return task, handle


def finish(loop, task):
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False
    task.get_coro().close()


def test_ready_handles_are_in_a_deque(loop):
    handle = loop.call_soon(print)

    assert type(loop._ready) is collections.deque
    assert list(loop._ready) == [handle]


def test_timers_are_in_a_list_whose_first_is_the_earliest(loop):
    late = loop.call_later(20, print)
    early = loop.call_later(10, print)

    assert type(loop._scheduled) is list
    assert loop._scheduled[0] is early
    assert late in loop._scheduled


def test_stop_sets_a_flag(loop):
    attributes = loop.__dict__
    assert attributes["_stopping"] is False

    loop.stop()

    assert attributes["_stopping"] is True
    loop.run_forever()


def test_a_new_task_leaves_exactly_one_handle_with_its_step_and_context(loop):
    variable = contextvars.ContextVar("variable")
    variable.set("here")

    task, handle = new_task(loop)

    assert not loop._ready
    assert callable(handle._callback)
    assert handle._callback.__self__ is task
    assert handle._args in ((), None)
    assert handle._context[variable] == "here"
    finish(loop, task)


def test_a_task_driven_by_its_step_alone_ends(loop):
    task, handle = new_task(loop)

    def step():
        handle._context.run(handle._callback)
        assert task.done()
        loop.stop()

    loop.call_soon(step)
    loop.run_forever()


def test_a_fresh_task_shows_that_nobody_touched_it(loop):
    task, _ = new_task(loop)

    assert task._must_cancel is False
    assert task._callbacks is None
    assert task.get_name() is task.get_name()
    assert not hasattr(task, "__dict__")
    assert task._log_destroy_pending is True
    finish(loop, task)


def test_a_touched_task_shows_it(loop):
    task, _ = new_task(loop)

    task.cancel()
    task.add_done_callback(print)

    assert task._must_cancel is True
    assert task._callbacks is not None
    finish(loop, task)


def test_a_task_can_be_entered_and_left(loop):
    task, _ = new_task(loop)
    seen = []

    def enter():
        asyncio.tasks._enter_task(loop, task)
        seen.append(asyncio.current_task())
        asyncio.tasks._leave_task(loop, task)
        seen.append(asyncio.current_task())
        loop.stop()

    loop.call_soon(enter)
    loop.run_forever()

    assert seen == [task, None]
    finish(loop, task)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="kept in the thread's state since 3.14")
def test_current_tasks_are_in_a_dict_by_loop(loop):
    current = asyncio.tasks._current_tasks
    task, _ = new_task(loop)
    assert type(current) is dict

    asyncio.tasks._enter_task(loop, task)
    entered = dict(current)
    asyncio.tasks._leave_task(loop, task)

    assert entered == {loop: task}
    assert loop not in current
    current[loop] = task
    assert asyncio.current_task(loop) is task
    del current[loop]
    finish(loop, task)


def test_entering_a_second_task_is_refused(loop):
    task, _ = new_task(loop)
    other, _ = new_task(loop)
    refused = []

    def enter():
        asyncio.tasks._enter_task(loop, task)
        try:
            asyncio.tasks._enter_task(loop, other)
        except RuntimeError as error:
            refused.append(error)
        asyncio.tasks._leave_task(loop, task)
        loop.stop()

    loop.call_soon(enter)
    loop.run_forever()

    assert refused
    finish(loop, task)
    finish(loop, other)


def test_a_task_can_be_hidden_and_shown(loop):
    task, _ = new_task(loop)

    asyncio.tasks._unregister_task(task)
    hidden = asyncio.all_tasks(loop)
    asyncio.tasks._register_task(task)
    shown = asyncio.all_tasks(loop)

    assert task not in hidden
    assert task in shown
    finish(loop, task)


@pytest.mark.parametrize("name", ["PyContext_Enter", "PyContext_Exit", "PyContext_Copy"])
def test_the_interpreter_has(name):
    assert getattr(ctypes.pythonapi, name)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="an inline function until then")
def test_the_interpreter_has_vectorcall():
    assert ctypes.pythonapi.PyObject_Vectorcall


@pytest.mark.skipif(sys.version_info < (3, 10), reason="PyIter_Send is there since 3.10")
def test_the_interpreter_has_iter_send():
    assert ctypes.pythonapi.PyIter_Send


@pytest.mark.parametrize("driver", ["selector", "thread"])
def test_all_of_them_are_in_use(driver):
    """Handlers' tasks have the name that only the fast way gives."""

    async def name():
        return asyncio.current_task().get_name()

    assert serve(driver, {"/": name}, lambda server: server.get("/")) == "httpy-handler"
    assert _httpy.Selector


@pytest.mark.parametrize("driver", ["selector", "thread"])
def test_a_task_is_its_loops_current_one_whatever_other_threads_run(driver):
    entered, leave = threading.Event(), threading.Event()

    async def other():
        entered.set()
        leave.wait(30)

    async def name():
        return asyncio.current_task().get_name()

    def ask(server):
        alone = server.get("/")
        thread = threading.Thread(target=asyncio.run, args=(other(),))
        thread.start()
        entered.wait(30)
        try:
            return alone, server.get("/"), server.get("/")
        finally:
            leave.set()
            thread.join()

    assert serve(driver, {"/": name}, ask) == ("httpy-handler",) * 3


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="native, and fast by itself, since 3.14")
def test_all_tasks_are_weak_references_in_a_set(loop):
    """Adding to the set within is what registering does, without Python code."""
    tasks = asyncio.tasks._scheduled_tasks if sys.version_info >= (3, 12) else asyncio.tasks._all_tasks
    task, _ = new_task(loop)

    assert type(tasks) is weakref.WeakSet
    assert type(tasks.data) is set
    tasks.data.discard(weakref.ref(task))
    assert task not in asyncio.all_tasks(loop)
    tasks.data.add(weakref.ref(task, tasks._remove))
    assert task in asyncio.all_tasks(loop)
    finish(loop, task)


def test_a_task_waits_for_whatever_looks_like_a_future(loop):
    """What `_Parked` is: the task asks it these things and no others, and is stepped by what it gave."""

    class Parked:
        _asyncio_future_blocking = True

        def get_loop(self):
            return loop

        def add_done_callback(self, callback, *, context):
            given.append((callback, context))

        def result(self):
            return None

        def __await__(self):
            yield self

    async def waits():
        await parked
        return "woken"

    given, parked = [], Parked()
    task = asyncio.Task(waits(), loop=loop)
    loop.run_until_complete(asyncio.sleep(0))
    [(callback, context)] = given

    assert isinstance(context, contextvars.Context)
    assert not task.done()
    loop.call_soon(callback, parked)
    assert loop.run_until_complete(task) == "woken"


@pytest.mark.skipif(sys.version_info < (3, 10), reason="attributes are looked up until then")
def test_attributes_of_tasks_are_native(loop):
    for name in ("_must_cancel", "_callbacks"):
        assert type(getattr(asyncio.Task, name)).__name__ == "getset_descriptor"
