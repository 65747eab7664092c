"""Locks by name: who waits for whom, and what becomes of a turn that is given up."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import threading
from typing import Any

import pytest

from tiered.backends._locks import Locks, Turn
from tiered.backends._workers import Stuck

LONG = 30.0


@pytest.fixture
def locks() -> Locks:
    return Locks()


def turn(locks: Locks, *names: str, shared: bool = False) -> Turn:
    made = Turn(locks, names, shared=shared)
    with contextlib.suppress(Stuck):
        made.enter(0.0)
    return made


def test_one_writer_at_a_time_and_in_the_order_they_came(locks: Locks) -> None:
    first, second, third = (turn(locks, "a") for _ in range(3))
    assert [t.ready for t in (first, second, third)] == [True, False, False]
    first.leave()
    assert [t.ready for t in (second, third)] == [True, False]
    second.leave()
    assert third.ready


def test_readers_share_and_a_waiting_writer_is_not_overtaken(locks: Locks) -> None:
    readers = [turn(locks, "a", shared=True) for _ in range(2)]
    writer = turn(locks, "a")
    late = [turn(locks, "a", shared=True) for _ in range(2)]
    assert [t.ready for t in (*readers, writer, *late)] == [True, True, False, False, False]
    readers[1].leave()
    assert not writer.ready
    readers[0].leave()
    assert [t.ready for t in (writer, *late)] == [True, False, False]
    writer.leave()
    assert all(t.ready for t in late)


def test_other_names_do_not_wait_and_no_line_stays_behind(locks: Locks) -> None:
    one, other = turn(locks, "a"), turn(locks, "b", "c")
    assert (one.ready, other.ready, turn(locks).ready) == (True, True, True)
    both = turn(locks, "b", "a", "a")
    assert not both.ready
    for each in (one, other, both):
        each.leave()
    assert locks._lines == {}


def test_who_gives_up_waiting_lets_the_next_one_pass(locks: Locks) -> None:
    held = turn(locks, "b")
    given_up = turn(locks, "a", "b")  # holds a, waits for b
    waiting = turn(locks, "a")
    assert not waiting.ready
    given_up.leave()
    assert waiting.ready
    held.leave()
    assert turn(locks, "b").ready


def test_a_turn_ends_with_the_last_that_keeps_it(locks: Locks) -> None:
    held = turn(locks, "a")
    held.calls |= {"first", "second"}
    waiting = turn(locks, "a")
    held.leave()
    held.ended("first")
    assert not waiting.ready
    held.ended("second")
    held.ended("second")
    assert waiting.ready


def test_a_turn_that_ends_inside_of_another_s_step_is_not_lost(locks: Locks) -> None:
    """As when the garbage collector runs there: the step is this very thread's."""
    held, waiting, other = turn(locks, "a"), turn(locks, "a"), turn(locks, "b")
    waking = Turn(locks, ["b"])
    with contextlib.suppress(Stuck):
        waking.enter(0.0)
    waking.wake = held.leave
    other.leave()
    assert (waking.ready, waiting.ready) == (True, True)
    assert not turn(locks, "a").ready


def test_a_turn_whose_end_was_interrupted_is_passed_over(locks: Locks) -> None:
    turn(locks, "a").left = True  # Ctrl-C struck before it was taken out of its line
    assert turn(locks, "a").ready


def test_an_interrupt_after_any_call_of_a_turn_leaves_nothing_locked() -> None:
    """Ctrl-C is raised after the first call made in there, after the second, and so on."""

    def one_turn(locks: Locks) -> None:
        mine = Turn(locks, ["a", "b"])
        try:
            mine.enter(0.0)
        finally:
            mine.left = True
            mine.leave()

    for at in range(1, 1_000):
        locks, calls, struck = Locks(), 0, False

        def strike(frame: Any, event: str, argument: Any, at: int = at) -> None:
            nonlocal calls, struck
            if event in ("call", "c_return") and frame.f_globals["__name__"] == Turn.__module__:
                calls += 1
                if calls == at:
                    struck = True
                    raise KeyboardInterrupt

        waiting = turn(locks, "b")
        behind = turn(locks, "a", "b")
        sys.setprofile(strike)
        try:
            one_turn(locks)
        except (KeyboardInterrupt, Stuck):
            pass
        finally:
            sys.setprofile(None)
        waiting.leave()
        behind.leave()
        thread = threading.Thread(target=turn, args=(locks, "b", "a"), daemon=True)
        thread.start()
        thread.join(LONG)
        assert not thread.is_alive(), f"the lock itself is held, after {at} calls"
        [last] = {held for line in locks._lines.values() for held in line}
        assert last.ready, at
        if not struck:
            break
    assert at > 10


async def test_a_task_waits_without_holding_up_its_loop(locks: Locks) -> None:
    held = turn(locks, "a")
    waiting = Turn(locks, ["a"], shared=False)
    task = asyncio.create_task(waiting.aenter(LONG))
    await asyncio.sleep(0)
    assert not task.done()
    threading.Thread(target=held.leave).start()
    await task
    assert waiting.ready


async def test_blocking_the_loop_of_the_task_that_has_the_name_is_refused(locks: Locks) -> None:
    """The task could never let go of it."""
    task, elsewhere = Turn(locks, ["a"]), turn(locks, "b")
    await task.aenter(LONG)
    with pytest.raises(Stuck, match="use the asynchronous face"):
        Turn(locks, ["a"]).enter(LONG)
    threading.Thread(target=elsewhere.leave).start()
    other = Turn(locks, ["b"])
    other.enter(LONG)  # another thread's: it will end
    assert other.ready


async def test_a_task_that_is_cancelled_or_runs_out_of_time_leaves_nothing(locks: Locks) -> None:
    held = turn(locks, "a")
    cancelled, late = (Turn(locks, ["a"], shared=False) for _ in range(2))
    task = asyncio.create_task(cancelled.aenter(LONG))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(Stuck, match=r"did not end within 0\.001 s"):
        await late.aenter(0.001)
    cancelled.leave()
    late.leave()
    held.leave()
    assert turn(locks, "a").ready


def test_a_turn_of_a_loop_that_was_closed_is_passed_over(locks: Locks) -> None:
    held = turn(locks, "a")
    gone = Turn(locks, ["a"], shared=False)
    loop = asyncio.new_event_loop()
    task: Any = loop.create_task(gone.aenter(LONG))
    task._log_destroy_pending = False
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    waiting = turn(locks, "a")
    held.leave()
    assert waiting.ready
    task.get_coro().close()


def test_threads_and_tasks_of_several_loops_never_write_together(locks: Locks) -> None:
    names = [f"n{at}" for at in range(12)]
    holders: dict[str, list[str]] = {name: [] for name in names}
    wrong: list[Any] = []

    def inside(asked: list[str], shared: bool, who: str) -> None:
        for name in asked:
            holders[name].append("r" if shared else "w")
            now = holders[name][:]
            if "w" in now and len(now) > 1:
                wrong.append((who, name, now))
        for name in asked:
            holders[name].pop()

    def blocking(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            asked, shared = chance.sample(names, 3), chance.random() < 0.4
            one = Turn(locks, asked, shared=shared)
            one.enter(LONG)
            inside(asked, shared, "thread")
            one.leave()

    async def task(chance: random.Random) -> None:
        for _ in range(30):
            asked, shared = chance.sample(names, 3), chance.random() < 0.4
            one = Turn(locks, asked, shared=shared)
            await one.aenter(LONG)
            inside(asked, shared, "task")
            await asyncio.sleep(0)
            one.leave()

    def loop(seed: int) -> None:
        async def tasks() -> None:
            await asyncio.gather(*(task(random.Random(seed + at)) for at in range(4)))

        asyncio.run(tasks())

    threads = [threading.Thread(target=blocking, args=(seed,)) for seed in range(4)]
    threads += [threading.Thread(target=loop, args=(seed,)) for seed in (100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert wrong == []
    assert locks._lines == {}
