"""Many keys: one call of the loader with what is missing, single flight for each key, and no deadlock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import tiered
from tiered import Memory, TieredStore
from tiered import flight as flights
from tiered.engine import aio, sync
from tiered.errors import BackendUnavailable, BatchError, CorruptEntry, ForeignValue, InvalidKey, InvalidValue
from tiered.flight import LOADS

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
from .simulation.hand import Hand
from .simulation.stand import Stand, call, evict, faces, remembered
from .simulation.tier import SimTier


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "LOOK", 0.005)
    monkeypatch.setattr(aio, "LOOK", 0.005)


class Many:
    """A loader of many: notes what it is asked for, and has no value for keys that begin with "no"."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, keys: list[str]) -> dict[str, bytes | None]:
        self.asked.append(keys)
        return {key: key.encode() for key in keys if not key.startswith("no")}


def never(keys: Any) -> Any:
    pytest.fail("loaded")


# -- what is loaded, returned and stored -----------------------------------------------------------------------------


@faces
def test_one_call_with_the_missing_keys_once_each_in_the_order_and_with_the_repeats_of_mget(face: str) -> None:
    stand = Stand()
    stand.store.set("b", b"stored")
    many = Many()
    keys = ["c", "b", "a", "no", "c", "a", "b"]
    got = call(face, stand.store, "mget_or_load", keys, many, ttl=30)
    assert got == [b"c", b"stored", b"a", None, b"c", b"a", b"stored"]
    assert many.asked == [["c", "a", "no"]]
    row = stand.bottom.rows["", "a"]
    assert (row.value, row.expires) == (b"a", int((stand.clock.time() + 30) * 1000))
    assert stand.upper.value("a") == remembered(stand.store, "a") == b"a"
    assert ("", "no") not in stand.bottom.rows
    assert call(face, stand.store, "mget_or_load", ["a", "b", "c"], never) == [b"a", b"stored", b"c"]
    assert stand.bottom.log.count("swap") == 1, "stored in one request too"
    nothing_left(stand.store)


@faces
def test_none_is_absent_and_what_was_not_asked_for_is_left_alone(face: str) -> None:
    stand = Stand()
    loader: Any = lambda keys: {"a": None, "b": b"", "other": b"x"}  # noqa: E731
    assert call(face, stand.store, "mget_or_load", iter(["a", "b"]), loader) == [None, b""]
    assert {key for _, key in stand.bottom.rows} == {"b"}


@faces
def test_nothing_is_loaded_for_no_keys(face: str) -> None:
    stand = Stand()
    assert call(face, stand.store, "mget_or_load", [], never) == []
    assert stand.bottom.log == []


def test_a_coroutine_function_loads_for_the_async_face_only() -> None:
    store = TieredStore([Memory()])

    async def load(keys: list[str]) -> dict[str, bytes]:
        return dict.fromkeys(keys, b"v")

    assert asyncio.run(store.amget_or_load(["a", "b"], load)) == [b"v", b"v"]
    with pytest.raises(InvalidValue, match="use amget_or_load"):
        store.mget_or_load(["c"], load)  # type: ignore[arg-type]


@faces
@pytest.mark.parametrize(
    ("returned", "error", "match"),
    [
        ([b"a", b"b"], InvalidValue, "must return a mapping"),
        (None, InvalidValue, "must return a mapping"),
        (b"ab", InvalidValue, "must return a mapping"),
        ({"a": b"fine", "b": "text"}, InvalidValue, "'b'"),
        ({"a": b"fine", "b": 1}, InvalidValue, "'b'"),
    ],
)
def test_what_a_loader_may_not_return(face: str, returned: Any, error: type[Exception], match: str) -> None:
    stand = Stand()
    with pytest.raises(error, match=match):
        call(face, stand.store, "mget_or_load", ["a", "b"], lambda keys: returned)
    assert not stand.bottom.rows, "nothing is stored, of the good ones neither"
    nothing_left(stand.store)


@faces
@pytest.mark.parametrize(
    ("keys", "loader", "terms", "error"),
    [
        ("ab", never, {}, TypeError),
        (b"ab", never, {}, TypeError),
        (5, never, {}, TypeError),
        (["a", ""], never, {}, InvalidKey),
        (["a", 5], never, {}, InvalidKey),
        (["a"], {"a": b"1"}, {}, TypeError),
        (["a"], None, {}, TypeError),
        (["a"], never, {"ttl": 0}, ValueError),
        (["a"], never, {"ttl": "1"}, TypeError),
    ],
)
def test_bad_input(face: str, keys: Any, loader: Any, terms: Any, error: type[Exception]) -> None:
    stand = Stand()
    with pytest.raises(error):
        call(face, stand.store, "mget_or_load", keys, loader, **terms)
    assert stand.bottom.log == []
    nothing_left(stand.store)


def test_a_loader_may_change_the_list_it_is_given() -> None:
    store = TieredStore([Memory()])

    def load(keys: list[str]) -> dict[str, bytes]:
        return {keys.pop(): b"v" for _ in range(len(keys))}

    assert store.mget_or_load(["a", "b"], load) == [b"v", b"v"]


# -- failures --------------------------------------------------------------------------------------------------------


@faces
def test_what_is_loaded_is_returned_though_a_part_could_not_be_stored(face: str) -> None:
    stand = Stand()
    stand.bottom.fault = lambda name: "after" if name == "swap" else "ok"
    assert call(face, stand.store, "mget_or_load", ["a", "b", "c"], Many()) == [b"a", b"b", b"c"]
    assert [remembered(stand.store, key) for key in "abc"] == [None] * 3
    assert {key for _, key in stand.level.broken} == {"a", "b", "c"}
    nothing_left(stand.store)


@faces
def test_a_batch_stored_by_half_is_returned_whole(face: str) -> None:
    stand = Stand()

    def half(space: str, items: Any, packing: Any) -> Any:
        (yield "swap", lambda: None, items)
        raise BatchError("simulated", written=["a"], unknown=["b"])

    stand.bottom.swap = half  # type: ignore[method-assign]
    assert call(face, stand.store, "mget_or_load", ["a", "b"], Many()) == [b"a", b"b"]
    assert {key for _, key in stand.level.broken} == {"a", "b"}


@faces
def test_where_somebody_wrote_meanwhile_theirs_is_returned_and_the_others_are_stored(face: str) -> None:
    stand = Stand()

    def load(keys: list[str]) -> dict[str, bytes]:
        stand.store.set("b", b"written")
        stand.seed("c", b"elsewhere", stand.bottom)
        return dict.fromkeys(keys, b"loaded")

    assert call(face, stand.store, "mget_or_load", ["a", "b", "c"], load) == [b"loaded", b"written", b"elsewhere"]
    assert not stand.level.marks
    evict(stand.store)
    stand.upper.rows.clear()
    assert stand.store.mget(["a", "b", "c"]) == [b"loaded", b"written", b"elsewhere"]
    nothing_left(stand.store)


@faces
def test_records_that_cannot_be_read_are_loaded_again_with_the_rest(face: str) -> None:
    stand = Stand()
    stand.store.set("a", b"stored")
    evict(stand.store)
    stand.upper.rows.clear()
    broken = CorruptEntry("simulated")
    real = stand.bottom.fetch

    def fetch(space: str, keys: Any) -> Any:
        answers = yield from real(space, keys)
        return [broken if key == "bad" else answer for key, answer in zip(keys, answers, strict=True)]

    stand.bottom.fetch = fetch  # type: ignore[method-assign]
    many = Many()
    assert call(face, stand.store, "mget_or_load", ["a", "bad", "new"], many) == [b"stored", b"bad", b"new"]
    assert many.asked == [["new", "bad"]]
    assert stand.bottom.value("bad") == b"bad"


@faces
def test_what_is_not_ours_is_not_loaded_over(face: str) -> None:
    stand = Stand()

    def foreign(space: str, keys: Any) -> Any:
        yield "fetch", lambda: None, keys
        return [ForeignValue("simulated") for _ in keys]

    stand.bottom.fetch = foreign  # type: ignore[method-assign]
    with pytest.raises(ForeignValue):
        call(face, stand.store, "mget_or_load", ["a", "b"], never)
    nothing_left(stand.store)


def test_the_loaders_exception_goes_to_all_who_wait_but_not_to_those_whose_key_was_there() -> None:
    store = TieredStore([SimTier("bottom")])
    store.set("there", b"v")
    loads = Loads(error=LookupError("simulated"))
    with ThreadPoolExecutor(4) as pool:
        batch = pool.submit(store.mget_or_load, ["there", "k", "l"], loads.sync)
        assert loads.began.wait(DEADLINE)
        assert waiting(store, "there") == -1, "it is over for the key that was found"
        alone = pool.submit(store.get_or_load, "k", never)
        other = pool.submit(store.mget_or_load, ["there", "l"], never)
        until(lambda: waiting(store, "k") == waiting(store, "l") == 1)
        loads.release.set()
        assert {type(future.exception(DEADLINE)) for future in (batch, alone, other)} == {LookupError}
    assert loads.asked == [["k", "l"]]
    assert not store._stack.flights.flights


# -- single flight ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leader", ["thread", "task"])
def test_a_thousand_identical_calls_load_once(leader: str) -> None:
    store = TieredStore([Memory(), SimTier("bottom")])
    loads = Loads()
    keys = ["k", "l"]
    with loop_in_a_thread() as one, loop_in_a_thread() as two, ThreadPoolExecutor(50) as pool:
        first = (
            pool.submit(store.mget_or_load, keys, loads.sync)
            if leader == "thread"
            else submit(one, store.amget_or_load(keys, loads.aio))
        )
        futures = [first]
        assert loads.began.wait(DEADLINE)
        futures += [pool.submit(store.mget_or_load, keys, loads.sync) for _ in range(49)]
        while len(futures) < 1_000:
            futures.append(submit([one, two][len(futures) % 2], store.amget_or_load(keys, loads.aio)))
        until(lambda: waiting(store, "k") + waiting(store, "l") == 999)
        loads.release.set()
        assert all(future.result(DEADLINE) == [b"loaded"] * 2 for future in futures)
    assert loads.asked == [keys]
    nothing_left(store)


def test_keys_under_way_elsewhere_are_waited_for_and_not_loaded_again() -> None:
    store = TieredStore([Memory(), SimTier("bottom")])
    single, many = Loads(b"single"), Many()
    with ThreadPoolExecutor(2) as pool:
        alone = pool.submit(store.get_or_load, "k", single.sync)
        assert single.began.wait(DEADLINE)
        batch = pool.submit(store.mget_or_load, ["a", "k", "b"], many)
        until(lambda: waiting(store) == 1)
        assert many.asked == [["a", "b"]], "its own first"
        assert store.mget(["a", "b"]) == [b"a", b"b"], "stored, and told to others, before it waits"
        single.release.set()
        assert (alone.result(DEADLINE), batch.result(DEADLINE)) == (b"single", [b"a", b"single", b"b"])
    nothing_left(store)


def test_two_batches_that_each_lead_what_the_other_wants() -> None:
    store = TieredStore([Memory(), SimTier("bottom")])
    first, second = Loads(b"first"), Loads(b"second")
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(store.mget_or_load, ["a", "b"], first.sync)
        assert first.began.wait(DEADLINE)
        two = pool.submit(store.mget_or_load, ["c", "b", "a"], second.sync)
        assert second.began.wait(DEADLINE)
        assert (first.asked, second.asked) == ([["a", "b"]], [["c"]])
        second.release.set()
        until(lambda: waiting(store, "b") == 1)
        first.release.set()
        assert one.result(DEADLINE) == [b"first", b"first"]
        assert two.result(DEADLINE) == [b"second", b"first", b"first"]
    nothing_left(store)


def test_loaders_of_two_batches_that_ask_for_each_others_keys() -> None:
    store = TieredStore([Memory(), SimTier("bottom")])
    barrier = threading.Barrier(2)
    alone: list[list[str]] = []

    def last(keys: list[str]) -> dict[str, bytes]:
        alone.append(keys)
        return dict.fromkeys(keys, b"alone")

    def load(keys: list[str]) -> dict[str, bytes]:
        barrier.wait(DEADLINE)  # both lead
        others = ["c", "d"] if keys == ["a", "b"] else ["a", "b"]
        store.mget_or_load(others, last)
        return dict.fromkeys(keys, b"loaded")

    with ThreadPoolExecutor(2) as pool:
        batches = [pool.submit(store.mget_or_load, keys, load) for keys in (["a", "b"], ["c", "d"])]
        for batch in batches:
            assert None not in batch.result(DEADLINE)
    assert len(alone) == 1
    nothing_left(store)


def test_a_loader_may_ask_for_keys_of_its_own_batch() -> None:
    store = TieredStore([Memory(), SimTier("bottom")])

    def load(keys: list[str]) -> dict[str, bytes]:
        inner = store.get_or_load("b", lambda key: b"inner") or b""
        return dict.fromkeys(keys, inner + b"+")

    assert store.mget_or_load(["a", "b"], load) == [b"inner+", b"inner"]
    nothing_left(store)


def test_of_a_batch_that_is_cancelled_a_waiter_takes_over_its_key() -> None:
    store = TieredStore([Memory(), SimTier("bottom")])
    lost, many = Loads(), Many()

    async def main() -> None:
        leader = asyncio.ensure_future(store.amget_or_load(["a", "b", "c"], lost.aio))
        await auntil(lost.began.is_set)
        waiters = [asyncio.ensure_future(store.amget_or_load(keys, many)) for keys in (["a", "b"], ["b", "x"], ["c"])]
        await auntil(lambda: waiting(store, "a") == waiting(store, "b") == waiting(store, "c") == 1)
        leader.cancel()
        assert await asyncio.gather(*waiters) == [[b"a", b"b"], [b"b", b"x"], [b"c"]]

    asyncio.run(main())
    assert sorted(many.asked) == [["a"], ["b"], ["c"], ["x"]]
    nothing_left(store)


def test_a_key_whose_flight_was_lost_before_it_was_waited_for_is_loaded_in_a_new_round() -> None:
    stand = Stand()
    store = stand.store
    caller = store._engine.caller()
    leader = Hand(store, store._load("k", never, None, caller)).to("load")
    many = Many()
    batch = Hand(store, store._mload(["a", "k"], [None, None], many, None, caller, None, None, "load")).to("join")
    leader.throw(KeyboardInterrupt())
    assert batch.result() == [b"a", b"k"]
    assert many.asked == [["a"], ["k"]]
    nothing_left(store)


def test_a_waiting_batch_that_gives_up_is_not_waited_for_in_turn() -> None:
    stand = Stand()
    store = stand.store
    caller = store._engine.caller()
    inner = Hand(store, store._load("inner", never, None, caller)).to("load")
    outer, _ = join(store._stack.flights, "outer", caller)
    assert outer is not None
    with sync.loading([outer]):
        batch = Hand(store, store._mload(["inner", "x"], [None] * 2, Many(), None, caller, None, None, "load"))
        batch.to("join")
        assert waited_for(outer) == [("", "inner")]
        batch.throw(KeyboardInterrupt())
        assert waited_for(outer) == []
    inner.close()


# -- invariant 6: what is found and joined ---------------------------------------------------------------------------


def test_invariant_6_who_joins_after_the_value_found_has_expired_does_not_get_it() -> None:
    stand = Stand(uppers=("upper",), memory=False)
    stand.store.set("k", b"short", ttl=5)
    stand.upper.rows.clear()
    caller = stand.store._engine.caller()
    leader = Hand(stand.store, stand.store._load("k", never, None, caller)).to("fill upper")  # it has found the value
    early = Hand(stand.store, stand.store._load("k", never, None, caller))
    stand.clock.advance(5)
    late = Hand(stand.store, stand.store._load("k", lambda key: b"loaded", None, caller))
    assert early.at == late.at == "join"
    assert leader.result() == b"short"
    assert early.result() == b"short", "it was live when this one asked"
    assert late.result() == b"loaded"


def test_invariant_6_the_same_of_a_value_that_was_loaded_and_is_long_in_storing() -> None:
    stand = Stand()
    caller = stand.store._engine.caller()
    leader = Hand(stand.store, stand.store._load("k", lambda key: b"short", 5, caller)).to("put upper")
    stand.clock.advance(5)
    late = Hand(stand.store, stand.store._load("k", lambda key: b"loaded", None, caller))
    assert late.at == "join"
    assert leader.result() == b"short"
    assert late.result() == b"loaded"


# -- leaders that never end ------------------------------------------------------------------------------------------


def test_a_flight_re_entered_by_a_thread_that_does_not_know_of_it_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ThreadPoolExecutor.submit does not copy the context, so the inner call looks like anybody's."""
    monkeypatch.setattr(flights, "LONGEST", 0.02)
    store = TieredStore([Memory(), SimTier("bottom")])
    with ThreadPoolExecutor(1) as inner:

        def load(key: str) -> bytes:
            return (inner.submit(store.get_or_load, key, lambda key: b"inner").result(DEADLINE) or b"") + b"+"

        assert store.get_or_load("k", load) == b"inner", "what was stored first"
    nothing_left(store)


# -- when no tier can be read ----------------------------------------------------------------------------------------


@faces
def test_when_the_cache_cannot_be_read_it_is_loaded_and_nothing_is_stored(face: str) -> None:
    stand = Stand()
    stand.bottom.fail()
    many = Many()
    assert call(face, stand.store, "mget_or_load", ["a", "no", "a"], many) == [b"a", None, b"a"]
    assert call(face, stand.store, "get_or_load", "k", lambda key: b"v", on_cache_error="load") == b"v"
    assert stand.store.stats().loads.unread == 2
    stand.bottom.heal()
    assert not stand.bottom.rows
    assert not stand.level.marks
    nothing_left(stand.store)


@faces
def test_or_the_error_is_raised(face: str) -> None:
    stand = Stand()
    stand.bottom.fail("fetch")
    with pytest.raises(BackendUnavailable):
        call(face, stand.store, "mget_or_load", ["a"], never, on_cache_error="raise")
    with pytest.raises(BackendUnavailable):
        call(face, stand.store, "get_or_load", "a", never)
    nothing_left(stand.store)


def test_single_flight_goes_on_without_a_cache() -> None:
    stand = Stand()
    stand.bottom.fail()
    loads = Loads()
    with ThreadPoolExecutor(10) as pool:
        futures = [pool.submit(stand.store.mget_or_load, ["k"], loads.sync)]
        assert loads.began.wait(DEADLINE)
        futures += [pool.submit(stand.store.mget_or_load, ["k"], loads.sync) for _ in range(9)]
        until(lambda: waiting(stand.store) == 9)
        loads.release.set()
        assert [future.result(DEADLINE) for future in futures] == [[b"loaded"]] * 10
    assert loads.count == 1
    nothing_left(stand.store)


def test_loads_without_a_cache_are_bounded_threads_and_tasks_alike() -> None:
    stand = Stand()
    stand.bottom.fail()
    number, most, lock = 0, 0, threading.Lock()
    full, release = threading.Event(), threading.Event()

    def enter() -> None:
        nonlocal number, most
        with lock:
            number += 1
            most = max(most, number)
            if number == LOADS:
                full.set()

    def leave() -> None:
        nonlocal number
        with lock:
            number -= 1

    def load(keys: list[str]) -> dict[str, bytes]:
        enter()
        assert release.wait(DEADLINE)
        leave()
        return dict.fromkeys(keys, b"v")

    async def aload(keys: list[str]) -> dict[str, bytes]:
        enter()
        await auntil(release.is_set)
        leave()
        return dict.fromkeys(keys, b"v")

    with loop_in_a_thread() as loop, ThreadPoolExecutor(30) as pool:
        futures = [pool.submit(stand.store.mget_or_load, [f"t{n}"], load) for n in range(30)]
        futures += [submit(loop, stand.store.amget_or_load([f"a{n}"], aload)) for n in range(30)]
        assert full.wait(DEADLINE)
        slots = stand.store._stack.flights.slots
        until(lambda: sum(1 + len(slot.waiters) for slot in slots.values()) == 60)
        release.set()
        assert all(future.result(DEADLINE) == [b"v"] for future in futures)
    assert most == LOADS
    nothing_left(stand.store)


def test_a_load_within_a_load_needs_no_place_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all places could be held by loads that wait for one."""
    monkeypatch.setattr(flights, "LOADS", 1)
    stand = Stand()
    stand.bottom.fail()

    def load(keys: list[str]) -> dict[str, bytes]:
        [inner] = stand.store.mget_or_load(["inner"], lambda keys: {"inner": b"inner"})
        return dict.fromkeys(keys, inner or b"")

    assert stand.store.mget_or_load(["outer"], load) == [b"inner"]
    nothing_left(stand.store)


@pytest.mark.parametrize("first", ["place", "key"])
def test_who_has_the_place_and_who_has_the_key_do_not_wait_for_each_other(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One loads, and its loader wants k; who leads k wants to load."""
    monkeypatch.setattr(flights, "LOADS", 1)
    stand = Stand()
    stand.bottom.fail()
    holder_began, go = threading.Event(), threading.Event()

    def holder(key: str) -> bytes:
        holder_began.set()
        assert go.wait(DEADLINE)
        return stand.store.get_or_load("k", lambda key: b"alone", on_cache_error="load") or b""

    with ThreadPoolExecutor(1) as pool:
        outer = pool.submit(stand.store.get_or_load, "outer", holder, on_cache_error="load")
        assert holder_began.wait(DEADLINE)
        caller = stand.store._engine.caller()
        plan = stand.store._load("k", lambda key: b"led", None, caller, on_cache_error="load")
        leader = Hand(stand.store, plan)
        if first == "place":  # who leads k waits for the place, then k is wanted
            leader.to("join")
            go.set()
            assert outer.result(DEADLINE) == b"alone"
        else:
            go.set()
            until(lambda: waiting(stand.store) == 1)
            leader.to("load")
        assert leader.result() == b"led"
        assert outer.result(DEADLINE) in (b"alone", b"led")
    nothing_left(stand.store)


def test_who_gives_up_waiting_for_a_place_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flights, "LOADS", 1)
    stand = Stand()
    stand.bottom.fail()
    loads = Loads()

    async def main() -> None:
        holder = asyncio.ensure_future(stand.store.amget_or_load(["a"], loads.aio))
        await auntil(loads.began.is_set)
        waiter = asyncio.ensure_future(stand.store.amget_or_load(["b"], never))
        slots = stand.store._stack.flights.slots
        await auntil(lambda: bool(slots) and len(slots[0].waiters) == 1)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        assert slots[0].waiters == []
        loads.release.set()
        assert await holder == [b"loaded"]
        assert await stand.store.amget_or_load(["b"], Many()) == [b"b"]

    asyncio.run(main())
    nothing_left(stand.store)


# -- bypass ----------------------------------------------------------------------------------------------------------


@faces
def test_in_a_bypass_loaders_run_and_no_tier_is_touched(face: str) -> None:
    stand = Stand()
    stand.store.mset({"a": b"stored", "k": b"stored"})
    for tier in (stand.upper, stand.bottom):
        tier.log.clear()
    before = stand.store.stats()
    with tiered.bypass():
        assert call(face, stand.store, "get_or_load", "k", lambda key: b"fresh", ttl=5) == b"fresh"
        assert call(face, stand.store, "get_or_load", "k", lambda key: None) is None
        assert call(face, stand.store, "mget_or_load", ["a", "b", "a"], Many()) == [b"a", b"b", b"a"]
        assert stand.upper.log == stand.bottom.log == []
        assert stand.store.stats() == before
        assert stand.store.get("k") == b"stored", "plain reads are as ever"
        with tiered.bypass():
            pass
        assert call(face, stand.store, "get_or_load", "k", lambda key: b"still") == b"still"
        with pytest.raises(InvalidValue):
            call(face, stand.store, "get_or_load", "k", lambda key: "text")
    assert call(face, stand.store, "get_or_load", "k", never) == b"stored"


def test_a_bypass_is_for_this_thread_and_its_tasks() -> None:
    store = TieredStore([Memory()])
    store.set("k", b"stored")
    fresh: Callable[[str], bytes] = lambda key: b"fresh"  # noqa: E731

    async def main() -> tuple[bytes | None, bytes | None, bytes | None]:
        with tiered.bypass():
            task = asyncio.ensure_future(store.aget_or_load("k", fresh))
            thread = await asyncio.to_thread(store.get_or_load, "k", fresh)
        return await task, thread, await store.aget_or_load("k", fresh)

    assert asyncio.run(main()) == (b"fresh", b"fresh", b"stored")
    with tiered.bypass(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(store.get_or_load, "k", fresh).result(DEADLINE) == b"stored"
