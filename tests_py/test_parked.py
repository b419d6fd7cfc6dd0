"""Tasks of handlers that suspended serve again, and nothing of one request can be seen through them in the next."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
import weakref

import pytest

from support import PATIENCE_S, serve

since_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio has it since 3.11")

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def suspend() -> None:
    await asyncio.sleep(0)


def wait_for(something: list) -> None:
    late = time.monotonic() + PATIENCE_S
    while not something and time.monotonic() < late:
        time.sleep(0.001)
    assert something


def serve_twice(driver, handler):
    """What the first and the second request are answered."""
    return serve(driver, {"/": handler}, lambda server: [server.get("/"), server.get("/")])


def test_a_task_serves_again_after_its_handler_has_suspended():
    """On the driver that parks them. A weak reference tells the task from another at its address."""
    seen: list[weakref.ref[asyncio.Task]] = []

    async def handler():
        seen.append(weakref.ref(asyncio.current_task()))
        await suspend()
        return ""

    def ask(server):
        for _ in range(5):
            server.get("/")
        return [task() is not None for task in seen]

    assert serve("selector", {"/": handler}, ask) == [True] * 5
    assert len({id(task) for task in seen}) == 1, "one weak reference, since it is of one task"


def test_many_at_once_serve_again():
    seen: set[int] = set()

    async def handler():
        seen.add(id(asyncio.current_task()))
        await asyncio.sleep(0.02)
        return "slept"

    answers = serve("selector", {"/": handler}, lambda server: [server.get_all(["/"] * 20) for _ in range(3)])

    assert answers == [["slept"] * 20] * 3
    assert len(seen) < 40


def test_a_context_variable_does_not_reach_the_next_request(driver):
    async def handler():
        before = variable.get()
        await suspend()
        variable.set("set")
        return before

    assert serve_twice(driver, handler) == ["unset", "unset"]


def test_a_name_does_not_reach_the_next_request(driver):
    async def handler():
        before = asyncio.current_task().get_name()
        await suspend()
        asyncio.current_task().set_name("renamed")
        return before

    assert "renamed" not in serve_twice(driver, handler)


@since_311
def test_a_cancellation_that_was_swallowed_does_not_reach_the_next_request(driver):
    async def handler():
        task = asyncio.current_task()
        before = task.cancelling()
        task.cancel()
        try:
            await suspend()
        except asyncio.CancelledError:
            pass
        return str(before)

    assert serve_twice(driver, handler) == ["0", "0"]


def test_a_cancellation_after_the_last_suspension_does_not_reach_the_next_request(driver):
    async def handler():
        await suspend()
        asyncio.current_task().cancel()
        return "answered"

    assert serve_twice(driver, handler) == ["answered", "answered"]


def test_one_that_served_before_can_cancel_itself_in_its_first_step(driver):
    async def calm():
        await suspend()
        return "calm"

    async def cancels():
        asyncio.current_task().cancel()
        try:
            await suspend()
        except asyncio.CancelledError:
            return "cancelled"
        return "not cancelled"

    routes = {"/calm": calm, "/cancels": cancels}

    answers = serve(driver, routes, lambda server: [server.get(path) for path in ("/calm", "/cancels") * 2])

    assert answers == ["calm", "cancelled"] * 2


def test_whoever_waits_for_one_is_told_at_once(driver):
    kept: list[asyncio.Task] = []

    async def handler():
        kept.append(asyncio.current_task())
        await asyncio.sleep(0.05)
        return "first"

    async def waits():
        while not kept:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(asyncio.wait({kept[0]}), PATIENCE_S)
        return str(kept[0].done())

    routes = {"/": handler, "/waits": waits}

    assert serve(driver, routes, lambda server: server.get_all(["/", "/waits"])) == ["first", "True"]


def test_a_holder_that_cancels_one_whose_handler_has_ended_finds_it_done(driver):
    async def handler():
        task = asyncio.current_task()
        await suspend()
        # Called in the round of callbacks in which the handler ends, after it.
        asyncio.get_running_loop().call_soon(task.cancel)
        handler.task = task
        return "answered"

    async def after():
        task = handler.task
        return f"{task.done()} {task.cancelled()}"

    routes = {"/": handler, "/after": after}

    assert serve(driver, routes, lambda server: [server.get("/"), server.get("/after")]) == [
        "answered",
        "True False",
    ]


def test_those_that_wait_for_a_handler_are_not_among_all_tasks(driver):
    async def handler():
        await asyncio.sleep(0.01)
        return ""

    async def count():
        names = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        return str(names.count("httpy-handler"))

    def ask(server):
        server.get_all(["/"] * 8)
        return server.get("/count")

    assert serve(driver, {"/": handler, "/count": count}, ask) == "0"


def test_one_that_serves_again_is_among_all_tasks(driver):
    async def handler():
        await suspend()
        return str(asyncio.current_task() in asyncio.all_tasks())

    assert serve_twice(driver, handler) == ["True", "True"]


def test_one_whose_client_went_away_is_not_used_again(driver):
    """Its handler is cancelled: the task ends like any other."""
    began, ended = [], []

    async def handler():
        began.append(1)
        try:
            await asyncio.sleep(PATIENCE_S)
        finally:
            ended.append(asyncio.current_task())
        return ""

    async def well():
        await suspend()
        return str([task.cancelled() for task in ended])

    def ask(server):
        with server.send("/"):
            wait_for(began)
        wait_for(ended)
        return server.get("/well")

    assert serve(driver, {"/": handler, "/well": well}, ask) == "[True]"


def test_a_handler_that_yields_its_turn_can_be_cancelled_before_that_comes(driver):
    async def handler():
        loop = asyncio.get_running_loop()
        loop.call_soon(asyncio.current_task().cancel)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return "cancelled in its turn"
        return "not cancelled"

    assert serve_twice(driver, handler) == ["cancelled in its turn"] * 2


def test_a_handler_that_cancels_itself_and_yields_its_turn_is_cancelled(driver):
    async def handler():
        asyncio.current_task().cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return "cancelled"
        return "not cancelled"

    assert serve_twice(driver, handler) == ["cancelled"] * 2


def test_what_was_ready_before_a_handler_yields_its_turn_runs_first(driver):
    async def handler():
        order: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_soon(order.append, "ready")
        await asyncio.sleep(0)
        order.append("turn")
        loop.call_soon(order.append, "ready")
        await asyncio.sleep(0)
        return " ".join([*order, "turn"])

    assert serve_twice(driver, handler) == ["ready turn ready turn"] * 2


def test_what_was_ready_runs_before_the_turn_of_each_of_many(driver):
    seen: list[tuple[str, int]] = []

    async def handler():
        number = len(seen)
        asyncio.get_running_loop().call_soon(seen.append, ("ready", number))
        seen.append(("began", number))
        await asyncio.sleep(0)
        seen.append(("turn", number))
        return ""

    serve(driver, {"/": handler}, lambda server: [server.get_all(["/"] * 20) for _ in range(3)])

    numbers = [number for what, number in seen if what == "began"]
    assert len(numbers) == 60
    assert all(seen.index(("ready", number)) < seen.index(("turn", number)) for number in numbers)
    turns = [number for what, number in seen if what == "turn"]
    assert turns == numbers, "first come, first served"
