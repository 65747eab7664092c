"""Of all who want a key loaded at once, threads and tasks on any loop alike, exactly one loads it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tiered import SQL, Memory, TieredStore
from tiered.engine import aio, sync
from tiered.errors import InvalidValue
from tiered.flight import LEAD, Caller, Flight, Flights, Outcome, Waiter, working

from .load_kit import (
    DEADLINE,
    Loads,
    auntil,
    join,
    loop_in_a_thread,
    nothing_left,
    submit,
    until,
    waited_for,
    waiting,
)
from .simulation.hand import loading
from .simulation.stand import Stand, call, evict, faces
from .simulation.tier import SimTier


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiters look every few milliseconds whether their leader is still there."""
    monkeypatch.setattr(sync, "LOOK", 0.005)
    monkeypatch.setattr(aio, "LOOK", 0.005)


def memory_over_sim() -> tuple[TieredStore, SimTier]:
    bottom = SimTier("bottom")
    return TieredStore([Memory(), bottom]), bottom


# -- one load --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leader", ["thread", "task"])
@pytest.mark.parametrize("error", [None, LookupError("simulated"), InvalidValue("simulated")])
@pytest.mark.parametrize("callers", [10, 100, 1_000])
def test_of_many_mixed_callers_one_loads(callers: int, error: Exception | None, leader: str) -> None:
    """Half a hundred threads and the rest tasks on three loops, all of them waiting before the loader returns."""
    store, bottom = memory_over_sim()
    loads = Loads(error=error)
    threads = min(50, callers // 2)
    with (
        loop_in_a_thread() as one,
        loop_in_a_thread() as two,
        loop_in_a_thread() as three,
        ThreadPoolExecutor(threads) as pool,
    ):
        loops = [one, two, three]
        if leader == "thread":
            futures = [pool.submit(store.get_or_load, "k", loads.sync)]
        else:
            futures = [submit(one, store.aget_or_load("k", loads.aio))]
        assert loads.began.wait(DEADLINE)
        futures += [pool.submit(store.get_or_load, "k", loads.sync) for _ in range(threads - 1)]
        while len(futures) < callers:
            futures.append(submit(loops[len(futures) % 3], store.aget_or_load("k", loads.aio)))
        until(lambda: waiting(store) == callers - 1)
        loads.release.set()
        if error is None:
            assert {future.result(DEADLINE) for future in futures} == {b"loaded"}
        else:
            assert {id(future.exception(DEADLINE)) for future in futures} == {id(error)}
    assert loads.count == 1
    assert bottom.value("k") == (b"loaded" if error is None else None)
    nothing_left(store)


def test_many_callers_at_once_over_sqlite_load_once(tmp_path: Path) -> None:
    """Nobody is held back: some find the flight, some what it stored."""
    store = TieredStore([Memory(), SQL(f"sqlite:///{tmp_path}/x.db")])
    counts = dict.fromkeys(map(str, range(20)), 0)
    barrier = threading.Barrier(16)

    def load(key: str) -> bytes:
        counts[key] += 1
        return key.encode()

    def work() -> None:
        for key in counts:
            barrier.wait(DEADLINE)
            assert store.get_or_load(key, load) == key.encode()

    async def tasks() -> None:
        for key in counts:
            await asyncio.to_thread(barrier.wait, DEADLINE)
            got = await asyncio.gather(*(store.aget_or_load(key, load) for _ in range(16)))
            assert got == [key.encode()] * 16

    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(work) for _ in range(14)] + [pool.submit(asyncio.run, tasks()) for _ in range(2)]
        for future in futures:
            future.result(DEADLINE)
    assert set(counts.values()) == {1}
    nothing_left(store)
    store.close()


def test_none_is_an_answer_to_all_and_the_next_caller_loads_again() -> None:
    store, _ = memory_over_sim()
    loads = Loads()
    loads._value = None  # type: ignore[assignment]
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(store.get_or_load, "k", loads.sync)]
        assert loads.began.wait(DEADLINE)
        futures += [pool.submit(store.get_or_load, "k", loads.sync) for _ in range(3)]
        until(lambda: waiting(store) == 3)
        loads.release.set()
        assert [future.result(DEADLINE) for future in futures] == [None] * 4
    assert loads.count == 1
    assert store.get_or_load("k", lambda key: b"now") == b"now"
    nothing_left(store)


@faces
def test_an_error_of_one_load_is_not_kept(face: str) -> None:
    store, _ = memory_over_sim()

    def fail(key: str) -> bytes:
        raise LookupError

    for _ in range(2):
        with pytest.raises(LookupError):
            call(face, store, "get_or_load", "k", fail)
    assert call(face, store, "get_or_load", "k", lambda key: b"v") == b"v"
    nothing_left(store)


# -- leaders that are lost -------------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """As KeyboardInterrupt, or a thread that is torn down."""


def others(store: TieredStore, loads: Loads, pool: ThreadPoolExecutor, loop: Any, number: int = 3) -> list[Future[Any]]:
    """Waiters of both faces."""
    futures = [pool.submit(store.get_or_load, "k", loads.sync) for _ in range(number)]
    futures += [submit(loop, store.aget_or_load("k", loads.aio)) for _ in range(number)]
    until(lambda: waiting(store) == 2 * number)
    return futures


def one_took_over(store: TieredStore, loads: Loads, futures: list[Future[Any]]) -> None:
    assert loads.began.wait(DEADLINE)
    until(lambda: waiting(store) == len(futures) - 1)
    loads.release.set()
    assert [future.result(DEADLINE) for future in futures] == [b"loaded"] * len(futures)
    assert loads.count == 1
    nothing_left(store)


def test_a_leader_that_is_cancelled_is_replaced_by_one_waiter() -> None:
    store, _ = memory_over_sim()
    lost, loads = Loads(), Loads()
    with loop_in_a_thread() as loop, ThreadPoolExecutor(3) as pool:
        leader = submit(loop, store.aget_or_load("k", lost.aio))
        assert lost.began.wait(DEADLINE)
        futures = others(store, loads, pool, loop)
        leader.cancel()
        one_took_over(store, loads, futures)
    assert lost.count == 1


def test_a_leader_that_is_interrupted_is_replaced_by_one_waiter() -> None:
    store, _ = memory_over_sim()
    lost, loads = Loads(error=Interrupted()), Loads()

    def doomed() -> None:
        with pytest.raises(Interrupted):
            store.get_or_load("k", lost.sync)

    with loop_in_a_thread() as loop, ThreadPoolExecutor(4) as pool:
        leader = pool.submit(doomed)
        assert lost.began.wait(DEADLINE)
        futures = others(store, loads, pool, loop)
        lost.release.set()
        leader.result(DEADLINE)
        one_took_over(store, loads, futures)


@pytest.mark.parametrize("waiters", ["threads", "tasks", "both"])
def test_a_leader_whose_loop_was_closed_is_replaced_by_one_waiter_and_stays_replaced(waiters: str) -> None:
    """What is left of it is thrown away while the new leader loads: no second replacement comes of it."""
    store, _ = memory_over_sim()
    lost, loads = Loads(), Loads()
    gone = asyncio.new_event_loop()
    task = gone.create_task(store.aget_or_load("k", lost.aio))
    gone.run_until_complete(auntil(lost.began.is_set))
    with loop_in_a_thread() as loop, ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(store.get_or_load, "k", loads.sync) for _ in range(3 * (waiters != "tasks"))]
        futures += [submit(loop, store.aget_or_load("k", loads.aio)) for _ in range(3 * (waiters != "threads"))]
        # Waiters look once a second: one may have taken over already, for a loop that is stopped is as good as closed.
        until(lambda: waiting(store) == len(futures) or loads.began.is_set())
        gone.close()
        assert loads.began.wait(DEADLINE)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        del task
        gc.collect()
        one_took_over(store, loads, futures)


def test_waiters_whose_loop_was_closed_are_passed_over() -> None:
    store, _ = memory_over_sim()
    lost, loads = Loads(error=Interrupted()), Loads()
    gone = asyncio.new_event_loop()

    def doomed() -> None:
        with pytest.raises(Interrupted):
            store.get_or_load("k", lost.sync)

    with loop_in_a_thread() as loop, ThreadPoolExecutor(4) as pool:
        leader = pool.submit(doomed)
        assert lost.began.wait(DEADLINE)
        stranded = gone.create_task(store.aget_or_load("k", lost.aio))
        gone.run_until_complete(auntil(lambda: waiting(store) == 1))
        gone.close()
        futures = [pool.submit(store.get_or_load, "k", loads.sync), submit(loop, store.aget_or_load("k", loads.aio))]
        until(lambda: waiting(store) == 3)
        lost.release.set()
        leader.result(DEADLINE)
        stranded._log_destroy_pending = False  # type: ignore[attr-defined]
        del stranded
        one_took_over(store, loads, futures)
        gc.collect()


def test_a_waiter_that_cannot_be_reached_is_passed_over_at_once() -> None:
    leader = Caller(lambda: True, may_wait=True)
    flight = Flight(("", "k"), Flights(), leader.alive)
    heard: list[Outcome] = []
    flight.subscribe(Waiter(lambda outcome: False, lambda: False))
    flight.subscribe(Waiter(lambda outcome: heard.append(outcome) is None, lambda: True))
    flight.hand_over(leader.alive)
    assert heard == [LEAD]


def test_what_has_landed_is_not_joined() -> None:
    """Its leader has not left yet, but a read that begins now must not get what was found before."""
    flights, me = Flights(), Caller(lambda: True, may_wait=True)
    old, _ = join(flights, "k", me)
    assert old is not None
    old.land(me.alive, Outcome(b"old"))
    new, leads = join(flights, "k", me)
    assert leads
    assert new is not old
    old.hand_over(me.alive)
    assert join(flights, "k", me) == (new, False), "and its leaving does not end the new one"


def test_R14_a_detached_flight_that_ends_leaves_the_newer_one_alone() -> None:
    stand = Stand()
    old = loading(stand.store, "k", lambda key: b"old").to("load")
    stand.store.delete("k")
    new = loading(stand.store, "k", lambda key: b"new").to("load")
    old.result()
    assert loading(stand.store, "k", lambda key: b"third").at == "join"
    assert new.result() == b"new"
    assert not stand.store._stack.flights.flights


def test_a_second_leader_that_is_lost_too_is_replaced_too() -> None:
    store, _ = memory_over_sim()
    first, second = Loads(), Loads(value=b"second")

    async def main() -> None:
        leader = asyncio.ensure_future(store.aget_or_load("k", first.aio))
        await auntil(first.began.is_set)
        waiters = [asyncio.ensure_future(store.aget_or_load("k", second.aio)) for _ in range(4)]
        await auntil(lambda: waiting(store) == 4)
        leader.cancel()
        for lost in waiters[:2]:
            await auntil(second.began.is_set)
            second.began.clear()
            lost.cancel()
        second.release.set()
        assert await asyncio.gather(*waiters[2:]) == [b"second"] * 2

    asyncio.run(main())
    assert second.count == 3
    nothing_left(store)


def test_a_flight_whose_leader_is_lost_with_no_waiters_is_over() -> None:
    stand = Stand()
    leader = loading(stand.store, "k", lambda key: b"v").to("load")
    leader.throw(Interrupted())
    assert not stand.store._stack.flights.flights
    assert stand.store.get_or_load("k", lambda key: b"next") == b"next"


def test_a_waiter_that_comes_when_the_leader_is_gone_begins_anew_and_others_can_join_it() -> None:
    stand = Stand()
    leader = loading(stand.store, "k", lambda key: b"v").to("load")
    waiter = loading(stand.store, "k", lambda key: b"next")
    assert waiter.at == "join"
    leader.throw(Interrupted())  # before the waiter subscribed
    waiter.step()
    waiter.to("load")
    assert loading(stand.store, "k", lambda key: b"third").at == "join"
    assert waiter.result() == b"next"


def test_a_waiter_that_comes_when_the_flight_has_landed_gets_the_outcome_at_once() -> None:
    me = Caller(lambda: True, may_wait=True)
    flight = Flight(("", "k"), Flights(), me.alive)
    flight.land(me.alive, Outcome(b"v"))
    assert flight.subscribe(Waiter(lambda outcome: pytest.fail("twice"), me.alive)) == Outcome(b"v")
    assert not flight.waiters


# -- waiters that are lost -------------------------------------------------------------------------------------------


def test_cancelled_waiters_leave_the_load_alone() -> None:
    store, _ = memory_over_sim()
    loads = Loads()

    async def main() -> None:
        tasks = [asyncio.ensure_future(store.aget_or_load("k", loads.aio)) for _ in range(10)]
        await auntil(lambda: waiting(store) == 9)
        for task in tasks[1:6]:
            task.cancel()
        await auntil(lambda: waiting(store) == 4)
        loads.release.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results].count(asyncio.CancelledError) == 5
        assert results.count(b"loaded") == 5

    asyncio.run(main())
    assert loads.count == 1
    nothing_left(store)


@pytest.mark.parametrize("order", ["woken, cancelled", "cancelled, woken"])
def test_a_waiter_that_is_cancelled_as_it_is_told_to_lead_passes_that_on(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aio, "LOOK", DEADLINE)

    async def main() -> None:
        leader = Caller(lambda: True, may_wait=True)
        flight = Flight(("", "k"), Flights(), leader.alive)
        first = asyncio.ensure_future(aio._join(flight, Caller(lambda: True, may_wait=True)))
        await auntil(lambda: len(flight.waiters) == 1)
        second = asyncio.ensure_future(aio._join(flight, Caller(lambda: True, may_wait=True)))
        await auntil(lambda: len(flight.waiters) == 2)
        if order == "woken, cancelled":
            flight.hand_over(leader.alive)
            first.cancel()
        else:
            waiter = flight.waiters.pop(0)  # as another thread does, just before `first` is cancelled
            flight.alive = waiter.alive
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            waiter.wake(LEAD)
        assert await asyncio.wait_for(second, DEADLINE) is LEAD
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())


@pytest.mark.parametrize("moment", ["waiting", "being woken", "woken"])
def test_a_waiting_thread_that_is_interrupted_passes_the_lead_on(moment: str) -> None:
    leader = Caller(lambda: True, may_wait=True)

    class Interrupting(Flight):
        """Interrupts the waiting thread, at a moment of our choice, when it looks after its leader."""

        __slots__ = ()

        def rescue(self) -> None:
            if moment == "being woken":  # chosen already, not told yet
                with self.group.lock:
                    waiter = self.waiters.pop(0)
                    self.alive = waiter.alive

                def tell() -> None:
                    ended.wait(0.2)  # after it has given up; if it knows better it waits for us
                    waiter.wake(LEAD)

                threading.Thread(target=tell).start()
            elif moment == "woken":
                self.hand_over(leader.alive)
            raise Interrupted

    flight = Interrupting(("", "k"), Flights(), leader.alive)
    with ThreadPoolExecutor(2) as pool:
        ended = threading.Event()
        lost = pool.submit(sync._join, flight, Caller(lambda: True, may_wait=True))
        lost.add_done_callback(lambda _: ended.set())
        heard: list[Outcome] = []
        if moment != "waiting":
            flight.subscribe(Waiter(lambda outcome: heard.append(outcome) is None, lambda: True))
        assert isinstance(lost.exception(DEADLINE), Interrupted)
    if moment == "waiting":
        assert not flight.waiters
        flight.hand_over(leader.alive)
        assert flight.outcome is LEAD, "nobody is left to lead"
    else:
        until(lambda: bool(heard) or flight.outcome is LEAD)
        assert heard == [LEAD] or flight.outcome is LEAD, "the lead got lost"


def test_a_real_thread_interrupted_while_it_waits() -> None:
    store, _ = memory_over_sim()
    loads = Loads()
    ended: list[str] = []

    def wait() -> None:
        try:
            store.get_or_load("k", loads.sync)
        except Interrupted:
            ended.append("interrupted")

    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(store.get_or_load, "k", loads.sync)
        assert loads.began.wait(DEADLINE)
        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: waiting(store) == 1)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Interrupted))
        thread.join(DEADLINE)
        assert ended == ["interrupted"]
        assert waiting(store) == 0
        loads.release.set()
        assert leader.result(DEADLINE) == b"loaded"
    nothing_left(store)


def test_only_the_leader_of_the_moment_can_hand_over() -> None:
    old, new = Caller(lambda: False, may_wait=True), Caller(lambda: True, may_wait=True)
    flight = Flight(("", "k"), Flights(), old.alive)
    heard: list[Outcome] = []
    flight.subscribe(Waiter(lambda outcome: heard.append(outcome) is None, new.alive))
    flight.subscribe(Waiter(lambda outcome: pytest.fail("a second leader"), new.alive))
    flight.rescue()
    assert heard == [LEAD]
    flight.rescue()
    flight.hand_over(old.alive)
    assert len(flight.waiters) == 1
    flight.waiters.clear()
    flight.land(old.alive, Outcome(error=LookupError()))
    assert flight.outcome is None
    flight.land(new.alive, Outcome(b"v"))
    flight.hand_over(new.alive)
    assert flight.outcome == Outcome(b"v")


# -- loaders that load -----------------------------------------------------------------------------------------------


@faces
def test_a_loader_may_ask_for_its_own_key(face: str) -> None:
    store, _ = memory_over_sim()

    def again(key: str) -> bytes:
        return (store.get_or_load(key, lambda key: b"inner") or b"") + b"+"

    async def aagain(key: str) -> bytes:
        return (await store.aget_or_load(key, lambda key: b"inner") or b"") + b"+"

    assert call(face, store, "get_or_load", "k", again if face == "sync" else aagain) == b"inner"
    assert store.get("k") == b"inner", "what was stored first stays: the outer load saw the key absent"
    nothing_left(store)


def test_a_loader_may_ask_for_its_own_key_in_a_task_or_thread_of_its_own() -> None:
    store, _ = memory_over_sim()

    async def in_a_task(key: str) -> bytes:
        return await asyncio.ensure_future(store.aget_or_load(key, lambda key: b"task")) or b""

    async def in_a_thread(key: str) -> bytes:
        return await asyncio.to_thread(store.get_or_load, key, lambda key: b"thread") or b""

    assert asyncio.run(store.aget_or_load("a", in_a_task)) == b"task"
    assert asyncio.run(store.aget_or_load("b", in_a_thread)) == b"thread"
    nothing_left(store)


def together(*calls: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(DEADLINE) for future in [pool.submit(one) for one in calls]]


def test_two_loaders_that_wait_for_each_other() -> None:
    store, _ = memory_over_sim()
    barrier = threading.Barrier(2)

    def load(key: str) -> bytes:
        barrier.wait(DEADLINE)  # both lead
        other = "b" if key == "a" else "a"
        return key.encode() + (store.get_or_load(other, lambda key: b"alone") or b"")

    results = together(lambda: store.get_or_load("a", load), lambda: store.get_or_load("b", load))
    assert any(b"alone" in result for result in results)
    nothing_left(store)


def test_two_async_loaders_that_wait_for_each_other() -> None:
    store, _ = memory_over_sim()

    async def main() -> None:
        leading = 0

        async def load(key: str) -> bytes:
            nonlocal leading
            leading += 1
            await auntil(lambda: leading == 2)
            other = "b" if key == "a" else "a"
            return key.encode() + (await store.aget_or_load(other, lambda key: b"alone") or b"")

        both = asyncio.gather(store.aget_or_load("a", load), store.aget_or_load("b", load))
        assert any(b"alone" in result for result in await asyncio.wait_for(both, DEADLINE))

    asyncio.run(main())
    nothing_left(store)


@pytest.mark.parametrize("nested", [False, True])
def test_a_ring_of_three_loaders(nested: bool) -> None:
    """a waits for b waits for c waits for a; nested: one thread leads both a and, inside, b."""
    store, _ = memory_over_sim()
    barrier = threading.Barrier(2 if nested else 3)
    alone: list[str] = []

    def last(key: str) -> bytes:
        alone.append(key)
        return b"alone"

    def load_c(key: str) -> bytes:
        barrier.wait(DEADLINE)
        until(lambda: waiting(store, "c") == 1)
        if not nested:
            until(lambda: waiting(store, "b") == 1)
        return store.get_or_load("a", last) or b""

    def load_b(key: str) -> bytes:
        barrier.wait(DEADLINE)
        return store.get_or_load("c", last) or b""

    def load_a(key: str) -> bytes:
        if nested:
            return store.get_or_load("b", load_b) or b""
        barrier.wait(DEADLINE)
        return store.get_or_load("b", last) or b""

    calls = [lambda: store.get_or_load("a", load_a), lambda: store.get_or_load("c", load_c)]
    if not nested:
        calls.append(lambda: store.get_or_load("b", load_b))
    assert together(*calls) == [b"alone"] * len(calls)
    assert alone == ["a"]
    nothing_left(store)


def test_waiting_for_another_loader_is_forgotten_afterwards() -> None:
    """a's loader once waited for b; a later load of b may wait for a: nothing is held against it."""
    flights = Flights()
    me = Caller(lambda: True, may_wait=True)
    a, _ = join(flights, "a", me)
    b, _ = join(flights, "b", me)
    assert a is not None
    assert b is not None
    with sync.loading([a]):
        assert join(flights, "b", me) == (b, False)
        assert join(flights, "b", me) == (b, False), "as another task of the loader may"
        assert waited_for(a) == [b.name]
        flights.joined([b], working())
        assert waited_for(a) == [b.name]
        flights.joined([b], working())
        assert waited_for(a) == []
    with sync.loading([b]):
        assert join(flights, "a", me) == (a, False)


def test_a_loader_that_gave_up_waiting_for_a_key_is_waited_for_by_that_key() -> None:
    stand = Stand()
    me = Caller(lambda: True, may_wait=True)
    inner = loading(stand.store, "inner", lambda key: b"v").to("load")
    outer, _ = join(stand.store._stack.flights, "outer", me)
    assert outer is not None
    with sync.loading([outer]):
        waiter = loading(stand.store, "inner", lambda key: b"v")
        assert waiter.at == "join"
        waiter.throw(Interrupted())
    with sync.loading(inner.effect.flights):
        assert loading(stand.store, "outer", lambda key: b"v").at == "join"


def test_a_loader_that_waits_for_a_key_gets_the_value_of_its_load() -> None:
    store, _ = memory_over_sim()
    loads = Loads(value=b"inner")
    with ThreadPoolExecutor(2) as pool:
        inner = pool.submit(store.get_or_load, "inner", loads.sync)
        assert loads.began.wait(DEADLINE)
        outer = pool.submit(
            store.get_or_load, "outer", lambda key: (store.get_or_load("inner", loads.sync) or b"") + b" and outer"
        )
        until(lambda: waiting(store, "inner") == 1)
        loads.release.set()
        assert (inner.result(DEADLINE), outer.result(DEADLINE)) == (b"inner", b"inner and outer")
    assert loads.count == 1
    nothing_left(store)


def test_a_sync_caller_on_the_thread_of_a_running_loop_never_waits() -> None:
    """It would wait for a task that needs this very thread."""
    store, _ = memory_over_sim()
    loads = Loads(value=b"from the task")

    async def main() -> None:
        leader = asyncio.ensure_future(store.aget_or_load("k", loads.aio))
        await auntil(loads.began.is_set)
        assert store.get_or_load("k", lambda key: b"from sync code") == b"from sync code"
        assert store.get("k") == b"from sync code"
        loads.release.set()
        assert await asyncio.wait_for(leader, DEADLINE) == b"from sync code", "stored by compare-and-set"
        with_none_waiting = store.get_or_load("other", lambda key: b"first")
        assert with_none_waiting == b"first"

    asyncio.run(main())
    nothing_left(store)


# -- writes during a load --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["set", "delete"])
def test_R14_R20_a_write_during_a_load_wins_and_later_readers_do_not_join(how: str) -> None:
    store, bottom = memory_over_sim()
    loads = Loads(value=b"old")
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(store.get_or_load, "k", loads.sync)
        assert loads.began.wait(DEADLINE)
        waiter = pool.submit(store.get_or_load, "k", loads.sync)
        until(lambda: waiting(store) == 1)
        if how == "set":
            store.set("k", b"new")
            evict(store)
        else:
            store.delete("k")
        assert waiting(store) == -1, "detached"
        later = store.get_or_load("k", lambda key: b"reloaded")
        assert later == (b"new" if how == "set" else b"reloaded")
        loads.release.set()
        assert leader.result(DEADLINE) == waiter.result(DEADLINE) == later
    assert store.get("k") == bottom.value("k") == later
    assert loads.count == 1
    nothing_left(store)


def test_R14_a_detached_flight_that_is_handed_over_does_not_come_back() -> None:
    store, _ = memory_over_sim()
    lost, loads = Loads(), Loads(value=b"old")

    async def main() -> None:
        leader = asyncio.ensure_future(store.aget_or_load("k", lost.aio))
        await auntil(lost.began.is_set)
        waiter = asyncio.ensure_future(store.aget_or_load("k", loads.aio))
        await auntil(lambda: waiting(store) == 1)
        await store.adelete("k")
        leader.cancel()
        await auntil(loads.began.is_set)
        assert waiting(store) == -1
        newer = asyncio.ensure_future(store.aget_or_load("k", lambda key: b"newer"))
        assert await newer == b"newer"
        loads.release.set()
        assert await waiter == b"newer"

    asyncio.run(main())
    nothing_left(store)


def test_in_a_forked_child_no_flight_of_the_parent_is_waited_for() -> None:
    store, _ = memory_over_sim()
    flights = store._stack.flights
    me = Caller(lambda: True, may_wait=True)
    join(flights, "k", me)
    flights.lock.acquire()  # as another thread may at the moment of the fork
    store._forked()
    assert join(flights, "k", me)[1]
