"""How loads and refreshes end badly: whom it reaches, what is stored, and when it is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import tiered
from tiered import Memory, TieredStore
from tiered.engine import aio, sync
from tiered.errors import CorruptEntry, ForeignValue, StoreClosed
from tiered.flight import LOADING, Flights, working
from tiered.plans import load as plans
from tiered.serializers import Json, Msgpack
from tiered.testing import FakeClock

from .load_kit import DEADLINE, Loads, auntil, loop_in_a_thread, nothing_left, settled, submit, until, waiting
from .simulation.stand import Stand, call, faces

TERMS = {"ttl": 10, "stale": 20}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "LOOK", 0.005)
    monkeypatch.setattr(aio, "LOOK", 0.005)


def stale_store() -> tuple[TieredStore, FakeClock]:
    clock = FakeClock()
    store = TieredStore([Memory()], clock=clock)
    store.get_or_load("k", lambda key: b"old", **TERMS)  # type: ignore[arg-type]
    clock.advance(10)
    return store, clock


# -- refreshes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [None, OSError("the source is away")])
def test_who_joins_a_refresh_that_brings_nothing_gets_the_old_value(
    result: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lands between their joining it and their asking for the old value."""
    store, _ = stale_store()
    loads = Loads(result, result)
    assert store.get_or_load("k", loads.sync, **TERMS) == b"old"  # type: ignore[arg-type]
    assert loads.began.wait(DEADLINE)
    real = plans._meanwhile

    def slow(*args: Any) -> Any:
        loads.release.set()
        until(lambda: settled(store))
        return (yield from real(*args))

    monkeypatch.setattr(plans, "_meanwhile", slow)
    assert store.get_or_load("k", lambda key: b"never", **TERMS) == b"old"  # type: ignore[arg-type]
    nothing_left(store)


def test_who_waits_for_a_refresh_that_fails_past_the_old_ones_end_loads() -> None:
    store, clock = stale_store()
    loads = Loads(error=OSError("the source is away"))
    assert store.get_or_load("k", loads.sync, **TERMS) == b"old"  # type: ignore[arg-type]
    assert loads.began.wait(DEADLINE)
    clock.advance(30)
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(store.get_or_load, "k", lambda key: b"new")
        until(lambda: waiting(store) == 1)
        loads.release.set()
        assert waiter.result(DEADLINE) == b"new"
    nothing_left(store)


def test_what_a_refresh_left_out_is_refreshed_again_after_a_pause() -> None:
    store, clock = stale_store()
    asked = Loads(None)
    asked.release.set()
    for times in (1, 1, 2):
        assert store.get_or_load("k", asked.sync, **TERMS) == b"old"  # type: ignore[arg-type]
        until(lambda: settled(store))
        assert asked.count == times
        clock.advance(0.5)
    assert store._stack.flights.paused("", ["k", "x"], clock.monotonic()) == {"k"}
    store._stack.flights.pause("", ["x"], clock.monotonic() + 1)
    assert store._stack.flights.paused("", ["k", "x"], clock.monotonic()) == {"x"}, "and past pauses are forgotten"


# -- closing ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sync", "async"])
def begin(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Begin a get_or_load of "k" elsewhere -> its future."""
    if request.param == "sync":
        with ThreadPoolExecutor(4) as pool:
            yield lambda store, loads: pool.submit(store.get_or_load, "k", loads.sync)
        return
    with loop_in_a_thread() as loop:
        yield lambda store, loads: submit(loop, store.aget_or_load("k", loads.aio))


def test_what_is_loaded_when_the_store_has_been_closed_is_returned_and_not_stored(begin: Any) -> None:
    stand, loads = Stand(), Loads()
    future = begin(stand.store, loads)
    assert loads.began.wait(DEADLINE)
    stand.store.close()
    stand.bottom.log.clear()
    loads.release.set()
    assert future.result(DEADLINE) == b"loaded"
    assert stand.bottom.log == []
    assert stand.bottom.value("k") is None


def test_who_would_have_to_look_again_after_close_is_told(begin: Any) -> None:
    stand, loads = Stand(), Loads(error=KeyboardInterrupt())
    leader = stand.store._stack.flights
    own: dict[str, Any] = {}
    me = stand.store._engine.caller()
    leader.join("", ["k"], me, (), own, {})
    future = begin(stand.store, loads)
    until(lambda: waiting(stand.store) == 1)
    stand.store.close()
    stand.bottom.log.clear()
    own["k"].land(me.alive, plans.LEAD)
    with pytest.raises(StoreClosed):
        future.result(DEADLINE)
    assert stand.bottom.log == []
    assert loads.count == 0


def test_a_scope_used_by_tasks_closes_with_its_parent() -> None:
    """Their refreshes are the parent's, which waits for them."""

    async def main() -> None:
        store, loads = TieredStore([Memory()], clock=FakeClock()), Loads(b"new")
        scope = store.scoped("tenant")
        loads.release.set()
        assert await scope.aget_or_load("k", loads.aio, **TERMS) == b"new"  # type: ignore[arg-type]
        store._clock.advance(10)  # type: ignore[attr-defined]
        loads.release.clear()
        assert await scope.aget_or_load("k", loads.aio, **TERMS) == b"new"  # type: ignore[arg-type]
        await auntil(lambda: loads.count == 2)
        await store.aclose()
        assert settled(store)
        assert scope._aio() is store._aio()
        nothing_left(scope)

    asyncio.run(main())


# -- who is told what ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [CorruptEntry("no database"), ForeignValue("a table of another shape")])
@faces
def test_a_tier_that_cannot_be_read_at_all_is_loaded_past(error: Exception, face: str) -> None:
    stand = Stand()

    def fault(name: str) -> str:
        raise error

    stand.bottom.fault = fault
    assert call(face, stand.store, "get_or_load", "k", lambda key: b"v", on_cache_error="load") == b"v"
    with pytest.raises(type(error)):
        call(face, stand.store, "get_or_load", "k", lambda key: b"v")
    nothing_left(stand.store)


def test_an_interrupt_right_after_joining_leaves_no_flight_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    store, real = TieredStore([Memory()]), Flights.join

    def join(*args: Any) -> None:
        real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Flights, "join", join)
        with pytest.raises(KeyboardInterrupt):
            store.get_or_load("k", lambda key: b"v")
    nothing_left(store)


def stop(key: Any) -> bytes:
    raise StopIteration(key)


def test_a_loaders_stop_iteration_reaches_its_callers_as_it_is() -> None:
    store = TieredStore([Memory()])
    with pytest.raises(StopIteration, match="k"):
        store.get_or_load("k", stop)
    with pytest.raises(StopIteration, match="k"):
        store.typed(Json()).get_or_load("k", stop)
    with pytest.raises(RuntimeError, match="StopIteration"):  # as of any coroutine
        asyncio.run(store.aget_or_load("k", stop))
    nothing_left(store)


def test_a_task_waiting_for_a_threads_loader_that_raises_stop_iteration() -> None:
    store = TieredStore([Memory()])
    loads = Loads(error=StopIteration())

    async def main() -> None:
        first = asyncio.ensure_future(asyncio.to_thread(_stops, store, loads))
        await auntil(loads.began.is_set)
        second = asyncio.ensure_future(store.aget_or_load("k", loads.aio))
        await auntil(lambda: waiting(store) == 1)
        loads.release.set()
        assert await first
        with pytest.raises(RuntimeError, match="StopIteration"):
            await second

    asyncio.run(main())


def _stops(store: TieredStore, loads: Loads) -> bool:
    try:
        store.get_or_load("k", loads.sync)
    except StopIteration:
        return True
    return False


def test_who_joins_the_load_of_what_it_cannot_read_loads_itself() -> None:
    store, loads = TieredStore([Memory()]), Loads(1)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.typed(Msgpack()).get_or_load, "k", loads.sync)
        assert loads.began.wait(DEADLINE)
        second = pool.submit(store.typed(Json()).get_or_load, "k", lambda key: 2)
        until(lambda: waiting(store) == 1)
        loads.release.set()
        assert (first.result(DEADLINE), second.result(DEADLINE)) == (1, 2)
    assert store.typed(Json()).get("k") == 2


@pytest.mark.parametrize("bypassed", [False, True])
def test_a_typed_loader_may_change_its_list(bypassed: bool) -> None:
    def load_many(keys: list[str]) -> dict[str, str]:
        return {key: key for key in iter(lambda: keys.pop() if keys else None, None)}

    typed = TieredStore([Memory()]).typed(Json())
    if bypassed:
        with tiered.bypass():
            assert typed.mget_or_load(["a", "b"], load_many) == ["a", "b"]
    else:
        assert typed.mget_or_load(["a", "b"], load_many) == ["a", "b"]


# -- what waits for what ---------------------------------------------------------------------------------------------


def test_a_loader_of_many_that_waits_for_many_leaves_one_note() -> None:
    """Not one for each pair: what waits for what is walked under the lock that all share."""
    stand, count = Stand(), 50
    inner, outer = ([f"{name}{at}" for at in range(count)] for name in ("inner", "outer"))
    loads = Loads(b"v")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(stand.store.mget_or_load, inner, loads.sync)
        assert loads.began.wait(DEADLINE)

        def load_outer(keys: list[str]) -> Any:
            return dict(zip(keys, stand.store.mget_or_load(inner, pytest.fail), strict=True))

        second = pool.submit(stand.store.mget_or_load, outer, load_outer)
        flights = stand.store._stack.flights.flights
        until(lambda: len(flights) == 2 * count and waiting(stand.store, inner[0]) == 1)
        works = {flights["", key].work for key in outer}
        assert len(works) == 1
        assert [len(work.waits_for) for work in works if work is not None] == [count]
        loads.release.set()
        assert first.result(DEADLINE) == second.result(DEADLINE) == [b"v"] * count
    nothing_left(stand.store)


def test_a_task_begun_by_a_loader_is_in_it_no_longer_than_it_runs() -> None:
    store = TieredStore([Memory()])

    async def main() -> None:
        go, seen, tasks = asyncio.Event(), list[Any](), list[Any]()

        async def worker() -> None:
            seen.append(working())
            await go.wait()
            seen.append((LOADING.get() != (), working()))

        async def load(key: str) -> bytes:
            tasks.append(asyncio.ensure_future(worker()))
            await auntil(lambda: len(seen) == 1)
            return b"v"

        await store.aget_or_load("k", load)
        go.set()
        await tasks[0]
        assert len(seen[0]) == 1
        assert seen[1] == (True, ())

    asyncio.run(main())
