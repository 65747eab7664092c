"""Each rule of the protocol, and each invariant that this layer answers for, has a test that is named after it.

Most drive one plan by hand (`tests.simulation.hand`) to force the very interleaving that the rule is there for.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import tiered
from tiered import Memory, Tier, TieredStore, level
from tiered.clock import Clock, micros
from tiered.entry import DELETED, INVALID, VALUE, Entry
from tiered.errors import (
    BackendUnavailable,
    BatchError,
    ConfigurationError,
    CorruptEntry,
    ForeignValue,
    Indeterminate,
    InvalidValue,
    UnknownVersion,
)
from tiered.plans import stack as stack_plans
from tiered.plans.write import TRIES
from tiered.testing import FakeClock

from .simulation.hand import Hand, deleting, getting, loading, setting
from .simulation.stand import Stand, ages, call, evict, faces, remembered, seconds_of, stamp_at
from .simulation.tier import SimTier

DAY = 86_400.0


def stamps(tier: SimTier, name: str = "put") -> list[bytes]:
    """The stamp of each entry that was sent to `tier`."""
    return [item[1].stamp for asked, items in tier.asked if asked == name for item in items]


def fails(error: type[BaseException]) -> Any:
    return pytest.raises(error)


# -- R1: stamps ------------------------------------------------------------------------------------------------------


def test_R1_stamps_only_grow_though_the_clock_stands_still_or_steps_back() -> None:
    clock = FakeClock()
    drawn = [clock.draw(), clock.draw()]
    clock.advance(-3600)
    drawn += [clock.draw(), clock.draw()]
    clock.advance(7200)
    drawn.append(clock.draw())
    assert drawn == sorted(set(drawn))
    assert seconds_of(drawn[-1]) == pytest.approx(clock.time(), abs=1e-3)


def test_R1_threads_never_draw_the_same_stamp() -> None:
    clock, lists = FakeClock(), [list[bytes]() for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda own=own: own.extend(clock.draw() for _ in range(2_000))) for own in lists
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert all(own == sorted(own) for own in lists)
    assert len(set().union(*lists)) == 8_000


@pytest.mark.parametrize("where", ["authority", "upper", "refusal"])
def test_R1_the_clock_advances_past_every_stamp_read(where: str) -> None:
    stand = Stand()
    ahead = Entry(VALUE, stamp_at(stand.clock.time() + 3600), None, b"theirs")
    tier = stand.upper if where == "upper" else stand.bottom
    tier.rows["", "k"] = ahead
    if where == "refusal":
        stand.store.set("k", b"ours")
        assert stand.bottom.value("k") == b"ours"
    else:
        assert stand.store.get("k") == b"theirs"
    assert stand.clock.draw() > ahead.stamp


@faces
def test_R1_a_stamp_far_ahead_is_an_error_at_the_authority_and_is_not_adopted(face: str) -> None:
    stand = Stand()
    stand.bottom.rows["", "k"] = Entry(VALUE, stamp_at(stand.clock.time() + DAY + 60), None, b"theirs")
    stand.bottom.rows["", "near"] = Entry(VALUE, stamp_at(stand.clock.time() + DAY - 60), None, b"near")
    with fails(CorruptEntry) as caught:
        call(face, stand.store, "get", "k")
    assert caught.value.tier == "bottom"
    assert seconds_of(stand.clock.draw()) < stand.clock.time() + 60
    with fails(CorruptEntry) as caught:
        call(face, stand.store, "set", "k", b"ours")  # refused for ever: a typed error too
    assert caught.value.tier == "bottom"
    assert call(face, stand.store, "get", "near") == b"near"
    assert stand.store.stats().tiers["bottom"].corrupt == 1


@faces
def test_R1_get_or_load_answers_though_what_is_stored_is_far_ahead(face: str) -> None:
    stand = Stand()
    stand.bottom.rows["", "k"] = Entry(VALUE, stamp_at(stand.clock.time() + 2 * DAY), None, b"theirs")
    assert call(face, stand.store, "get_or_load", "k", lambda key: b"loaded") == b"loaded"
    assert seconds_of(stand.clock.draw()) < stand.clock.time() + 60


def test_R1_a_stamp_far_ahead_is_a_counted_miss_above_the_authority() -> None:
    stand = Stand()
    stand.seed("k", b"true", stand.bottom)
    stand.upper.rows["", "k"] = Entry(VALUE, stamp_at(stand.clock.time() + DAY + 60), None, b"far")
    assert stand.store.get("k") == b"true"
    assert seconds_of(stand.clock.draw()) < stand.clock.time() + 60
    upper = stand.store.stats().tiers["upper"]
    assert (upper.corrupt, upper.misses, upper.hits) == (1, 1, 0)
    evict(stand.store)
    stand.seed("fine", b"fine", stand.upper)
    assert stand.store.mget(["k", "fine"]) == [b"true", b"fine"], "one bad copy does not spoil the batch"
    assert stand.store.stats().tiers["upper"].hits == 2, "the bad copy was voided, and made again"


FORKED = """
import os
from tiered.clock import Clock, SYSTEM
from tiered.testing import FakeClock
clocks = [SYSTEM, Clock(), FakeClock()]
before = [clock.draw() for clock in clocks]
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, b"".join(clock.draw() for clock in clocks))
    os._exit(0)
os.wait()
drawn = os.read(read, 1000)
for at, clock in enumerate(clocks):
    child, parent = drawn[12 * at : 12 * at + 12], clock.draw()
    assert child > before[at] and parent > before[at], "stamps went back"
    assert before[at][8:] == parent[8:], "the parent's id changed"
    assert child[8:] != parent[8:], "one writer id on both sides of a fork"
assert len({clock.draw()[8:] for clock in clocks}) == 3, "two clocks with one writer id"
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_R1_the_writer_id_is_drawn_anew_after_a_fork() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "fine\n", done.stderr


# -- R2: a refused write is stamped again ----------------------------------------------------------------------------


@faces
def test_R2_invariant_5_a_write_by_a_clock_that_is_behind_is_not_dropped(face: str) -> None:
    stand = Stand(skew=-30)
    fast, _ = stand.other(skew=+30)
    fast.mset({"k": b"theirs", "other": b"theirs"})
    call(face, stand.store, "mset", {"k": b"ours", "fresh": b"ours"})
    assert stand.bottom.value("k") == stand.upper.value("k") == remembered(stand.store, "k") == b"ours"
    assert stamps(stand.bottom)[2:] == sorted(stamps(stand.bottom)[2:])
    assert len(stand.bottom.asked[-2][1]) == 1, "only what was refused is sent again"
    fast.delete("k")
    call(face, stand.store, "delete", "other")
    assert stand.bottom.rows["", "k"].kind == stand.bottom.rows["", "other"].kind == DELETED


def test_R2_the_tries_are_bounded() -> None:
    stand = Stand()
    ahead = itertools.count(int(stand.clock.time()) + 10)

    def theirs(name: str) -> str:
        if name == "put":  # another writer is faster, every time
            stand.bottom.rows["", "k"] = Entry(VALUE, stamp_at(next(ahead)), None, b"theirs")
        return "ok"

    stand.bottom.fault = theirs
    with fails(BackendUnavailable) as caught:
        stand.store.set("k", b"ours")
    assert caught.value.tier == "bottom"
    assert stand.bottom.log.count("put") == TRIES
    assert remembered(stand.store, "k") is None


@faces
def test_R2_a_try_without_an_answer_is_made_again_with_the_same_stamp(face: str) -> None:
    stand = Stand()
    stand.bottom.script("put", "after", "late", "ok")
    call(face, stand.store, "set", "k", b"ours")
    assert len(set(stamps(stand.bottom))) == 1
    assert stand.bottom.log.count("put") == 3
    stand.bottom.arrive()
    assert stand.bottom.value("k") == stand.store.get("k") == b"ours"


@faces
@pytest.mark.parametrize("how", ["after", "late"])
def test_R2_a_try_without_an_answer_that_meets_a_newer_stamp_is_not_stamped_again(face: str, how: str) -> None:
    stand = Stand()
    faults = iter([how])

    def fault(name: str) -> str:
        if name != "put":
            return "ok"
        if stand.bottom.log.count("put") == 2:  # between our two tries
            stand.bottom.rows["", "k"] = Entry(VALUE, stamp_at(stand.clock.time() + 5), None, b"theirs")
        return next(faults, "ok")

    stand.bottom.fault = fault
    with fails(Indeterminate) as caught:
        call(face, stand.store, "set", "k", b"ours")
    assert caught.value.tier == "bottom"
    assert len(set(stamps(stand.bottom))) == 1
    stand.bottom.arrive()
    assert stand.bottom.value("k") == stand.store.get("k") == b"theirs", "v1, v2, v1"


def test_R2_what_is_refused_and_what_is_unknown_in_one_batch() -> None:
    """The written key is known as written, though the batch then fails for the unknown one."""
    stand = Stand()

    def fault(name: str) -> str:
        if name == "put" and stand.bottom.log.count("put") == 1:
            return "late"
        if name == "put":
            stand.bottom.rows["", "b"] = Entry(VALUE, stamp_at(stand.clock.time() + 5), None, b"theirs")
        return "ok"

    stand.bottom.fault = fault
    with fails(BatchError) as caught:
        stand.store.mset({"a": b"ours", "b": b"ours"})
    assert (caught.value.written, caught.value.not_written, caught.value.unknown) == (["a"], [], ["b"])
    assert stand.store.mget(["a", "b"]) == [b"ours", b"theirs"]


@faces
def test_R2_what_a_failed_batch_did_write_is_not_written_again(face: str) -> None:
    """Of the first try "a" arrived; then somebody wrote it; the next try is for "b" alone."""
    stand = Stand()
    theirs = Entry(VALUE, stamp_at(stand.clock.time() + 5), None, b"theirs")

    def fault(name: str) -> str:
        if name == "put" and stand.bottom.log.count("put") == 1:
            return "half"
        if name == "put":
            stand.bottom.rows["", "a"] = theirs
        return "ok"

    stand.bottom.fault = fault
    call(face, stand.store, "mset", {"a": b"ours", "b": b"ours"})
    assert [len(items) for name, items in stand.bottom.asked if name == "put"] == [2, 1]
    assert stand.bottom.value("b") == b"ours"
    assert stand.bottom.value("a") == b"theirs", "v1, v2, v1"


def test_R2_what_a_later_try_did_write_is_not_unknown() -> None:
    stand = Stand()
    stand.bottom.script("put", "after", "half", "before", "before")
    with fails(BatchError) as caught:
        stand.store.mset({"a": b"1", "b": b"2"})
    assert (caught.value.written, caught.value.not_written, caught.value.unknown) == (["a"], [], ["b"])


# -- R3: nothing else is ---------------------------------------------------------------------------------------------


def test_R3_loads_fills_and_repairs_are_never_stamped_again() -> None:
    stand = Stand()
    seeded = stand.seed("k", b"v", stand.bottom)
    stand.clock.advance(10)
    assert stand.store.get("k") == b"v"
    assert stamps(stand.upper, "fill") == [seeded.stamp]
    assert stand.store._made.space.peek("k").stamp == seeded.stamp

    load = loading(stand.store, "new", lambda key: b"loaded").to("swap bottom")
    stand.bottom.rows["", "new"] = Entry(VALUE, stamp_at(stand.clock.time() + 5), None, b"theirs")
    assert load.result() == b"theirs"
    assert stand.bottom.log.count("swap") == 1
    assert stand.bottom.log.count("put") == 0

    stand.upper.script("put", "before")
    stand.store.set("k", b"w")
    written = stand.bottom.rows["", "k"].stamp
    stand.store.flush()
    assert stand.upper.asked[-1] == ("void", [("k", written)])


# -- R10: ages never add up ------------------------------------------------------------------------------------------


def test_R10_ages_do_not_add_up_and_caps_travel_through_three_tiers() -> None:
    """memory 60 s over 600 s over 6,000 s over the authority; each read copies what is nearly too old."""
    stand = Stand(("upper", "lower"))
    began = stand.clock.time()
    stand.seed("k", b"v", stand.bottom)
    assert stand.store.get("k") == b"v"
    for tier in stand.uppers:
        assert tier.rows["", "k"].expires == int((began + ages[tier.scheme]) * 1000)

    stand.clock.advance(590)
    reader, clock = stand.other()
    clock.advance(590)
    assert reader.get("k") == b"v"
    assert reader._made.space.peek("k").expires == int((began + 600) * 1000), "the copy of a copy is as old"

    clock.advance(5_400)  # upper's copy is over, lower's almost
    stand.upper.rows.clear()
    assert reader.get("k") == b"v"
    assert stand.upper.rows["", "k"].expires == int((began + 6_000) * 1000)
    assert reader._made.space.peek("k").expires == int((began + 6_000) * 1000)
    clock.advance(11)
    stand.bottom.rows.clear()
    assert reader.get("k") is None


@pytest.mark.parametrize("source", ["bottom", "lower"])
def test_R10_the_age_runs_from_before_the_lower_read(source: str) -> None:
    stand = Stand(("upper", "lower"))
    tier = stand.bottom if source == "bottom" else stand.uppers[1]
    stand.seed("k", b"v", stand.bottom, tier)
    began = stand.clock.time()
    tier.fault = lambda name: (stand.clock.advance(40), "ok")[1] if name == "fetch" else "ok"
    assert stand.store.get("k") == b"v"
    assert stand.store._made.space.peek("k").expires == int((began + 60) * 1000)
    assert stand.upper.rows["", "k"].expires == int((began + 600) * 1000)


def test_R10_the_age_of_a_written_copy_runs_from_before_the_write() -> None:
    stand = Stand()
    began = stand.clock.time()
    stand.bottom.fault = lambda name: (stand.clock.advance(40), "ok")[1] if name == "put" else "ok"
    stand.store.set("k", b"v")
    assert stand.store._made.space.peek("k").expires == int((began + 60) * 1000)
    assert stand.upper.rows["", "k"].expires == int((began + 600) * 1000)
    assert stand.bottom.rows["", "k"].expires is None


@faces
def test_R10_invariant_6_the_expiry_of_a_write_travels_to_every_copy(face: str) -> None:
    stand = Stand(("upper", "lower"))
    call(face, stand.store, "set", "k", b"v", ttl=30)
    expires = stand.bottom.rows["", "k"].expires
    assert expires == int((stand.clock.time() + 30) * 1000)
    for tier in stand.uppers:
        assert tier.rows["", "k"].expires == expires
        tier.rows.clear()
    evict(stand.store)
    stand.clock.advance(20)
    assert call(face, stand.store, "get", "k") == b"v"  # promoted: no longer life
    assert all(tier.rows["", "k"].expires == expires for tier in stand.uppers)
    assert stand.store._made.space.peek("k").expires == expires
    stand.clock.advance(10.001)
    assert call(face, stand.store, "get", "k") is None
    assert call(face, stand.store, "mget", ["k"]) == [None]
    assert list(stand.store.yield_keys()) == []


@pytest.mark.parametrize("cache", [None, {}], ids=["own", "borrowed"])
@pytest.mark.parametrize("by", ["get", "set", "scope", "another stack"])
def test_R10_a_wall_clock_that_steps_back_does_not_lengthen_the_life_of_copies(by: str, cache: Any) -> None:
    clock, bottom = FakeClock(), SimTier("bottom")
    memory = Memory() if cache is None else Memory(cache=dict(cache))
    store = TieredStore([memory, bottom], clock=clock)
    store.set("k", b"old")
    clock.advance(50)
    clock.advance(-0.9)
    store.get("other")
    assert remembered(store, "k") == b"old", "so little is no matter"
    clock.advance(-3_600)
    if by == "get":
        assert store.get("other") is None
    elif by == "set":
        store.set("other", b"v")
    elif by == "scope":
        store.scoped("s").get("other")
    else:
        TieredStore([memory, SimTier("elsewhere")], clock=clock).get("other")
    bottom.rows["", "k"] = Entry(VALUE, stamp_at(clock.time() + 7_200), None, b"theirs")
    assert store.get("k") == b"theirs"
    assert store.get("k") == remembered(store, "k") == b"theirs", "and copies are made as before"
    clock.advance(3_600)
    store.set("l", b"v")
    clock.advance(30)
    store.get("other")
    assert remembered(store, "l") == b"v", "forward is no step back"


def test_R10_many_small_steps_back_are_one_large_one() -> None:
    stand = Stand(())
    stand.store.set("k", b"old")
    for _ in range(3):
        stand.clock.advance(-0.5)
        stand.store.get("other")
    assert remembered(stand.store, "k") is None


def test_R10_what_memory_holds_as_the_authority_stays_when_the_clock_steps_back() -> None:
    clock = FakeClock()
    store = TieredStore([Memory()], clock=clock)
    store.set("k", b"v")
    clock.advance(-3_600)
    assert store.get("other") is None
    assert store.get("k") == b"v"


def test_invariant_6_an_expired_copy_above_is_a_miss_though_the_authority_still_has_it() -> None:
    stand = Stand()
    stand.store.set("k", b"v")
    stand.clock.advance(ages["upper"] + 1)
    newer = stand.seed("k", b"theirs", stand.bottom)
    assert stand.store.get("k") == b"theirs"
    assert stand.store.stats().tiers["upper"].expired == 1
    assert stand.upper.rows["", "k"].stamp == newer.stamp


def test_invariant_6_expired_entries_of_one_batch_among_live_ones() -> None:
    stand = Stand()
    stand.store.mset({"short": b"s"}, ttl=5)
    stand.store.mset({"long": b"l"}, ttl=50)
    stand.clock.advance(6)
    assert stand.store.mget(["short", "long", "short"]) == [None, b"l", None]
    evict(stand.store)
    assert stand.store.mget(["short", "long"]) == [None, b"l"]


# -- R12: what may enter memory --------------------------------------------------------------------------------------


def overtaken(stand: Stand) -> Hand:
    """A read that has seen v0 below, and has it still to bring up to memory."""
    stand.seed("k", b"v0", stand.bottom)
    stand.clock.advance(1)
    return getting(stand.store, "k").to("fetch bottom")


class Landed(Exception):
    pass


def fetched(reader: Hand) -> Any:
    """The answer that is on its way to a reader, taken now and delivered later."""
    return reader._perform(reader.effect)


@pytest.mark.parametrize("by", ["put", "delete", "failed write", "foreign write seen by another read"])
@pytest.mark.parametrize("evicted", [True, False])
def test_R12_a_slow_fill_never_replaces_what_is_newer_nor_follows_it_out(by: str, evicted: bool) -> None:
    stand = Stand(())
    reader = overtaken(stand)
    answer = fetched(reader)
    if by == "put":
        stand.store.set("k", b"v1")
    elif by == "delete":
        stand.store.delete("k")
    elif by == "failed write":
        stand.bottom.fail("put", how="after")
        with fails(Indeterminate):
            stand.store.set("k", b"v1")
        stand.bottom.heal()
    else:
        stand.seed("k", b"v1", stand.bottom)
        assert stand.store.get("k") == b"v1"
    if evicted:
        evict(stand.store)
    reader._go(lambda: reader._plan.send(answer))
    assert reader.result() == b"v0", "the read began before: it may say so"
    expected = None if by == "delete" else b"v1"
    assert remembered(stand.store, "k") != b"v0"
    assert stand.store.get("k") == expected


def test_R12_a_slow_put_never_replaces_a_newer_one() -> None:
    """W1 is slow between the authority and memory; W2 comes and goes, and is evicted."""
    stand = Stand()
    first = setting(stand.store, "k", b"v1").to("put upper")
    stand.clock.advance(1)
    stand.store.set("k", b"v2")
    evict(stand.store)
    first.result()
    assert remembered(stand.store, "k") in (None, b"v2")
    assert stand.store.get("k") == b"v2"


def test_R12_a_put_older_than_the_entry_present_is_refused() -> None:
    stand = Stand(())
    first = setting(stand.store, "k", b"v1").to("put bottom")
    first.step()  # over already, were it not for the purge
    stand.clock.advance(1)
    space = stand.store._made.space
    assert space.install("k", b"v2", stamp_at(stand.clock.time()), float("inf"))
    assert not space.install("k", b"old", stamp_at(stand.clock.time() - 1), float("inf"))
    assert remembered(stand.store, "k") == b"v2"


ENDINGS = ["well", "error", "cancelled", "thrown away"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("operation", ["get", "mget", "set", "delete", "get_or_load"])
def test_R12_invariant_11_nothing_is_in_flight_once_an_operation_has_ended(operation: str, ending: str) -> None:
    stand = Stand()
    store = stand.store
    hand = {
        "get": lambda: getting(store, "k"),
        "mget": lambda: Hand(store, store._mget(["k", "l"], [None, None])),
        "set": lambda: setting(store, "k", b"v"),
        "delete": lambda: deleting(store, "k"),
        "get_or_load": lambda: loading(store, "k", lambda key: b"v"),
    }[operation]()
    space = store._made.space
    assert space.busy("k")
    if ending == "well":
        hand.result()
    elif ending == "thrown away":
        hand.close()
    else:
        hand.throw(asyncio.CancelledError() if ending == "cancelled" else BackendUnavailable("simulated"))
        for tier in (stand.upper, stand.bottom):
            tier.fail()
        with fails(BaseException):
            hand.result()
            assert ending != "error" or operation != "get_or_load"
    assert not space.busy("k")
    assert not space.busy("l")
    assert not store._stack.flights.flights


# -- R13: memory is written last -------------------------------------------------------------------------------------


@faces
def test_R13_R17_the_order_of_a_write(face: str) -> None:
    """dirty mark, authority, all shared tiers at once, memory, acknowledge."""
    stand = Stand(("upper", "lower"))
    stand.store.set("k", b"v0")
    seen: list[tuple[str, bool, bytes | None]] = []

    def watch(tier: SimTier) -> None:
        def fault(name: str) -> str:
            if name == "put":
                dirty = all(("", "k") in one.marks for one in stand.store._stack.uppers)
                seen.append((tier.scheme, dirty, remembered(stand.store, "k")))
            return "ok"

        tier.fault = fault

    for tier in (*stand.uppers, stand.bottom):
        watch(tier)
    call(face, stand.store, "set", "k", b"v1")
    assert seen[0] == ("bottom", True, b"v0")
    assert sorted(seen[1:]) == [("lower", True, b"v0"), ("upper", True, b"v0")]
    assert remembered(stand.store, "k") == b"v1"
    assert not any(one.marks for one in stand.store._stack.uppers)


@pytest.mark.parametrize("what", ["set", "delete"])
def test_R13_a_read_that_misses_memory_does_not_take_the_old_copy_of_a_shared_tier(what: str) -> None:
    stand = Stand()
    stand.store.set("k", b"v0")
    evict(stand.store)
    write = setting(stand.store, "k", b"v1") if what == "set" else deleting(stand.store, "k")
    write.to("put upper")
    assert stand.upper.value("k") == b"v0"
    assert stand.store.get("k") == (b"v1" if what == "set" else None)
    assert stand.upper.log[-1] != "fetch"
    write.result()


# -- R14: a write detaches the flight --------------------------------------------------------------------------------


def test_R14_R20_a_load_that_began_before_a_write_is_not_joined_after_it() -> None:
    stand = Stand()
    old = loading(stand.store, "k", lambda key: b"loaded long ago").to("load")
    stand.store.set("k", b"v1")
    evict(stand.store)
    later = loading(stand.store, "k", lambda key: pytest.fail("it is stored"))
    assert later.at != "join"
    assert later.result() == b"v1"
    assert old.result() == b"v1"
    assert stand.store.get("k") == stand.bottom.value("k") == b"v1"


@pytest.mark.parametrize("ending", ["well", "thrown away", "cancelled"])
def test_R14_a_load_that_began_during_a_write_is_not_joined_after_it(ending: str) -> None:
    """The load saw the authority before the write got there; a reader after the write must not get that."""
    stand = Stand()
    stand.seed("k", b"v0", stand.bottom)
    stand.clock.advance(1)
    write = setting(stand.store, "k", b"v1").to("put bottom")
    old = loading(stand.store, "k", lambda key: pytest.fail("it is stored")).to("fetch bottom")
    answer = fetched(old)  # v0, on its way
    if ending == "well":
        write.result()
    else:
        write.step()
        if ending == "cancelled":
            write.throw(asyncio.CancelledError())
        else:
            write.close()
    evict(stand.store)
    later = loading(stand.store, "k", lambda key: pytest.fail("it is stored"))
    assert later.at != "join"
    old._go(lambda: old._plan.send(answer))
    assert later.result() == b"v1"
    assert old.result() == b"v0"
    assert stand.store.get("k") == b"v1"


# -- R15: the one exit path ------------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """A KeyboardInterrupt, or a cancellation."""


def bad_write(stand: Stand, face: str, ending: str) -> None:
    """A write of v1 over v0 that arrived at the authority, or may have, and ended badly."""
    if ending == "time-out":
        stand.bottom.fail("put", how="after")
        with fails(Indeterminate):
            call(face, stand.store, "set", "k", b"v1")
    elif ending == "cancelled":

        def fault(name: str) -> str:
            if name == "put":
                stand.bottom.rows["", "k"] = stand.bottom.asked[-1][1][0][1]
                raise Interrupted
            return "ok"

        stand.bottom.fault = fault
        with fails(Interrupted):
            call(face, stand.store, "set", "k", b"v1")
    else:  # cancelled between the authority and the shared tier

        def late(name: str) -> str:
            if name == "put":
                raise Interrupted
            return "ok"

        stand.upper.fault = late
        with fails(Interrupted):
            call(face, stand.store, "set", "k", b"v1")
    stand.bottom.heal()
    stand.upper.heal()


@faces
@pytest.mark.parametrize("ending", ["time-out", "cancelled", "cancelled above"])
def test_R15_invariant_4_a_write_that_ended_badly_leaves_nothing_older_above(face: str, ending: str) -> None:
    stand = Stand()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)
    bad_write(stand, face, ending)
    assert remembered(stand.store, "k") is None
    assert ("", "k") in stand.level.marks
    assert ("", "k") in stand.level.broken
    assert call(face, stand.store, "get", "k") == b"v1"
    assert stand.upper.rows["", "k"].stamp == stand.bottom.rows["", "k"].stamp
    assert not stand.level.marks


@faces
def test_R15_a_failed_write_that_never_arrived_keeps_serving_what_is_there(face: str) -> None:
    stand = Stand()
    stand.store.set("k", b"v0")
    stand.bottom.fail("put")
    with fails(BackendUnavailable):
        call(face, stand.store, "set", "k", b"v1")
    stand.bottom.heal()
    assert remembered(stand.store, "k") is None
    assert call(face, stand.store, "get", "k") == b"v0"


def test_R15_a_real_task_that_is_cancelled_leaves_nothing_older_above() -> None:
    stand = Stand()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)

    async def main() -> None:
        arrived, never = asyncio.Event(), asyncio.Event()
        arun = stand.bottom.arun

        async def hanging(op: Any, timeout: float) -> Any:
            answer = await arun(op, timeout)
            arrived.set()
            await never.wait()
            return answer

        stand.bottom.arun = hanging  # type: ignore[method-assign]
        task = asyncio.ensure_future(stand.store.aset("k", b"v1"))
        await arrived.wait()
        task.cancel()
        with fails(asyncio.CancelledError):
            await task
        stand.bottom.arun = arun  # type: ignore[method-assign]
        assert remembered(stand.store, "k") is None
        assert not stand.store._made.space.busy("k")
        assert await stand.store.aget("k") == b"v1"

    asyncio.run(main())


@faces
def test_R15_invariant_9_a_partly_failed_batch_names_its_keys_and_leaves_nothing_older_above(face: str) -> None:
    stand = Stand()
    keys = ["a", "b", "c", "d"]
    stand.store.mset(dict.fromkeys(keys, b"v0"))
    stand.clock.advance(1)
    stand.bottom.script("put", "half", "before", "before", "before")
    with fails(BatchError) as caught:
        call(face, stand.store, "mset", dict.fromkeys(keys, b"v1"))
    error = caught.value
    assert (error.written, error.unknown, error.not_written) == (["a", "b"], ["c"], ["d"])
    assert error.tier == "bottom"
    stand.bottom.heal()
    assert [remembered(stand.store, key) for key in keys[:3]] == [None] * 3
    assert all(("", key) in stand.level.broken for key in keys[:3])
    assert call(face, stand.store, "mget", keys) == [b"v1", b"v1", b"v0", b"v0"]
    assert call(face, stand.store, "mget", keys) == [b"v1", b"v1", b"v0", b"v0"]


@faces
def test_invariant_9_one_key_is_indeterminate_and_nothing_written_is_unavailable(face: str) -> None:
    stand = Stand(())
    stand.bottom.fail("put", how="after")
    with fails(Indeterminate) as unknown:
        call(face, stand.store, "set", "k", b"v")
    assert unknown.value.tier == "bottom"
    stand.bottom.fail("put")
    stand.clock.advance(60)
    with fails(BackendUnavailable):
        call(face, stand.store, "mset", {"a": b"", "b": b""})


def test_invariant_9_what_a_later_try_wrote_is_not_unknown() -> None:
    stand = Stand(())
    stand.bottom.script("put", "half", "ok")
    stand.store.mset({"a": b"1", "b": b"2", "c": b"3", "d": b"4"})
    assert stand.store.mget(["a", "b", "c", "d"]) == [b"1", b"2", b"3", b"4"]
    assert len(set(stamps(stand.bottom))) == 1
    stand.bottom.script("put", "after", "before", "before", "before")
    with fails(BatchError) as caught:
        stand.store.mset({"a": b"5", "b": b"6"})
    assert (caught.value.written, caught.value.not_written, caught.value.unknown) == ([], [], ["a", "b"])


# -- R16: dirty marks ------------------------------------------------------------------------------------------------


def test_R16_a_mark_is_cleared_by_stamp_only() -> None:
    """W2 failed above; the late put of W1 does not make its key clean again."""
    stand = Stand()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)
    first = setting(stand.store, "k", b"v1").to("put upper")
    stand.clock.advance(1)
    second = setting(stand.store, "k", b"v2").to("put upper")
    second.throw(BackendUnavailable("simulated"))
    second.result()
    first.to("void upper")  # it has put its own, and the tier answers: what is broken there is repaired with it
    assert stand.upper.value("k") == b"v1"
    assert ("", "k") in stand.level.marks
    evict(stand.store)
    first.result()
    assert stand.upper.value("k") is None
    assert stand.store.get("k") == b"v2"


def test_R16_a_write_repairs_a_tier_that_answers() -> None:
    stand = Stand()
    stand.store.set("k", b"v0")
    stand.upper.script("put", "before")
    stand.store.set("k", b"v1")
    assert ("", "k") in stand.level.marks, "it has just failed: not asked again at once"
    stand.store.set("other", b"v")
    assert ("", "k") not in stand.level.marks
    assert stand.upper.value("k") is None


def test_R16_a_repair_clears_no_mark_that_is_newer_than_itself() -> None:
    stand = Stand()
    stand.upper.script("put", "before")
    stand.store.set("k", b"v1")
    repair = Hand(stand.store, stack_plans.repair(stand.store._stack, stand.level))
    assert repair.at == "void upper"
    stand.clock.advance(1)
    write = setting(stand.store, "k", b"v2").to("put upper")
    repair.result()
    assert ("", "k") in stand.level.marks
    write.throw(BackendUnavailable("simulated"))
    write.result()
    evict(stand.store)
    assert stand.store.get("k") == b"v2"
    assert not stand.level.marks


def test_R16_a_repair_in_the_middle_of_a_write_leaves_room_for_it() -> None:
    """It voids up to the newest mark, that of the write: the value of that very stamp replaces `invalid`."""
    stand = Stand()
    stand.upper.script("put", "before")
    stand.store.set("k", b"v1")
    stand.clock.advance(1)
    write = setting(stand.store, "k", b"v2").to("put upper")
    stand.store.get("elsewhere")
    assert stand.upper.rows["", "k"].kind == INVALID
    write.result()
    assert stand.upper.value("k") == b"v2"
    assert not stand.level.marks


def test_R16_marks_only_rise() -> None:
    """Two threads draw stamps in one order and mark in the other; a write that failed is older than one under way."""
    one = level.Level("x", SimTier(), None, None, 1.0)
    one.mark("", ["k"], b"2" * 12)
    one.mark("", ["k"], b"1" * 12)
    assert one.marks == {("", "k"): b"2" * 12}
    one.break_off("", {"k": b"1" * 12}, 0.0)
    assert one.marks == {("", "k"): b"2" * 12}
    assert one.repairs() == {"": {"k": b"2" * 12}}
    one.unmark("", {"k": b"1" * 12})
    assert one.marks == {("", "k"): b"2" * 12}


def test_R16_in_a_forked_child_the_writes_of_the_parent_never_end() -> None:
    stand = Stand()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)
    write = setting(stand.store, "k", b"v1").to("put upper")
    stand.level.lock.acquire()  # as another thread may at the moment of the fork
    stand.store._forked()
    evict(stand.store)
    assert stand.store.get("k") == b"v1"
    assert not stand.level.marks, "repaired"
    write.close()


def test_R16_an_own_put_that_arrives_clears_the_mark() -> None:
    stand = Stand()
    stand.upper.script("put", "before")
    stand.store.set("k", b"v1")
    assert ("", "k") in stand.level.broken
    stand.store.set("k", b"v2")
    assert not stand.level.marks
    assert not stand.level.broken


def test_R13_a_load_that_is_refused_does_not_clear_the_mark_of_a_write_under_way() -> None:
    stand = Stand()
    load = loading(stand.store, "k", lambda key: b"loaded").to("load")
    stand.seed("k", b"v0", stand.bottom, stand.upper)
    stand.clock.advance(1)
    write = setting(stand.store, "k", b"v1").to("put bottom")
    own = write.effect.items[0][1].stamp
    load.to("swap bottom")
    write.step()
    load.step()
    assert stand.level.marks["", "k"] == own, "no higher than what may be in the authority"
    assert load.result() == b"v1"
    assert stand.store.get("k") == b"v1", "the shared tier still holds the old one"
    write.result()
    assert stand.store.get("k") == stand.upper.value("k") == b"v1"
    stand.store.flush()
    assert not stand.level.marks


def test_R16_what_is_called_off_leaves_no_mark_that_nobody_repairs() -> None:
    """The write that had marked the key is over by then: its put left the newer mark where it was."""
    stand = Stand()
    write = setting(stand.store, "k", b"v1").to("put bottom")
    load = loading(stand.store, "k", lambda key: b"loaded").to("swap bottom")
    write.result()
    assert ("", "k") in stand.level.marks
    assert load.result() == b"v1"
    stand.store.flush()
    assert not stand.level.marks
    evict(stand.store)
    assert stand.store.get("k") == stand.upper.value("k") == b"v1"


@pytest.mark.parametrize("newer", ["write", "load"])
def test_R16_what_is_called_off_leaves_newer_marks(newer: str) -> None:
    stand = Stand()
    load = loading(stand.store, "k", lambda key: b"loaded").to("swap bottom")
    stand.seed("k", b"v0", stand.bottom, stand.upper)
    write = setting(stand.store, "k", b"v1").to("put bottom")
    mark = stand.level.marks["", "k"]
    load.result()
    assert stand.level.marks["", "k"] == mark
    if newer == "write":
        write.result()
        assert not stand.level.marks
    else:
        write.close()
        assert ("", "k") in stand.level.broken


def test_R16_a_load_that_is_refused_does_not_clear_the_mark_of_a_delete_that_failed_above() -> None:
    stand = Stand()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)
    stand.upper.fail()
    stand.store.delete("k")
    load = loading(stand.store, "k", lambda key: b"loaded").to("swap bottom")
    stand.clock.advance(1)
    stand.seed("k", b"theirs", stand.bottom)
    assert load.result() == b"theirs"
    assert ("", "k") in stand.level.marks
    stand.upper.heal()
    assert stand.upper.value("k") == b"v0"
    assert stand.store.get("k") == b"theirs", "older than our own delete"


def test_R16_dirty_keys_bypass_the_shared_tier_and_clean_ones_do_not() -> None:
    stand = Stand()
    stand.store.mset({"clean": b"c", "dirty": b"old"})
    stand.clock.advance(1)
    stand.upper.fail("put", "void")
    stand.store.set("dirty", b"new")
    evict(stand.store)
    assert stand.store.get("dirty") == b"new", "a repair that fails does not make it clean"
    evict(stand.store)
    stand.upper.heal()
    stand.level.broken.clear()  # as while the write is still under way
    assert stand.store.mget(["clean", "dirty"]) == [b"c", b"new"]
    assert stand.upper.asked[-1] == ("fetch", ["clean"])


def test_R16_a_skipped_tier_counts_as_failed_for_writes() -> None:
    stand = Stand()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)
    stand.upper.fail()
    for _ in range(level.PATIENCE):
        evict(stand.store)
        stand.store.get("other")
    asked = len(stand.upper.log)
    stand.store.set("k", b"v1")
    assert len(stand.upper.log) == asked, "it is skipped"
    assert ("", "k") in stand.level.broken
    stand.upper.heal()
    stand.clock.advance(60)
    evict(stand.store)
    assert stand.store.get("k") == b"v1"


@faces
def test_R16_invariant_2_a_skipped_authority_raises_at_once(face: str) -> None:
    stand = Stand()
    stand.bottom.fail()
    for _ in range(level.PATIENCE):
        with fails(BackendUnavailable):
            stand.store.get("k")
    asked = len(stand.bottom.log)
    operations = [
        ("get", "k"),
        ("set", "k", b"v"),
        ("delete", "k"),
        ("mget", ["k"]),
        ("get_or_load", "k", lambda key: b""),
    ]
    for operation in operations:
        with fails(BackendUnavailable) as caught:
            call(face, stand.store, *operation)
        assert caught.value.tier == "bottom"
    with fails(BackendUnavailable):
        list(stand.store.yield_keys())
    assert len(stand.bottom.log) == asked
    assert stand.clock.monotonic() == 0, "no pauses between tries either"


@faces
def test_R16_repair_runs_256_keys_at_a_time_with_the_next_read(face: str) -> None:
    stand = Stand()
    stand.upper.fail("put")
    keys = [f"k{number}" for number in range(600)]
    stand.store.mset(dict.fromkeys(keys, b"v"))
    assert len(stand.level.broken) == 600
    stand.upper.heal()
    for left in (600 - 256, 600 - 512, 0):
        call(face, stand.store, "get", "elsewhere")
        assert len(stand.level.broken) == len(stand.level.marks) == left
    voids = [items for name, items in stand.upper.asked if name == "void"]
    assert [len(items) for items in voids] == [256, 256, 88]


@faces
@pytest.mark.parametrize("how", ["flush", "close"])
def test_R16_repair_runs_in_flush_and_close(face: str, how: str) -> None:
    stand = Stand()
    stand.store.mset(dict.fromkeys(map(str, range(600)), b"v0"))
    stand.clock.advance(1)
    stand.upper.fail()
    stand.store.mset(dict.fromkeys(map(str, range(600)), b"v1"))
    call(face, stand.store, "flush")  # in vain, and silently
    assert len(stand.level.broken) == 600
    stand.upper.heal()
    call(face, stand.store, how)
    assert not stand.level.marks
    assert {entry.kind for entry in stand.upper.rows.values()} == {INVALID}


def test_R16_flush_reaches_a_tier_that_is_back_though_it_is_being_skipped() -> None:
    stand = Stand()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)
    stand.upper.fail()
    stand.store.set("k", b"v1")
    for _ in range(level.PATIENCE + 5):
        evict(stand.store)
        stand.clock.advance(31)
        stand.store.get("k")
    stand.upper.heal()
    stand.store.close()  # the last chance: the marks die with the process
    assert stand.upper.rows["", "k"].kind == INVALID


def test_R16_invariant_11_beyond_the_bound_a_floor_stands_in_for_the_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert level.MARKS == 65_536
    monkeypatch.setattr(level, "MARKS", 10)
    stand = Stand()
    keys = [f"k{number}" for number in range(11)]
    stand.store.mset(dict.fromkeys(keys, b"v0"))
    bystander = stand.seed("bystander", b"old too", stand.bottom, stand.upper)
    stand.clock.advance(1)
    stand.upper.fail("put", "void")
    for key in keys:
        stand.store.set(key, b"v1")
    assert not stand.level.broken
    assert not stand.level.marks
    stand.upper.heal()
    assert stand.store.ping()["upper"], "and it is not skipped any more"
    evict(stand.store)
    assert stand.store.mget(keys) == [b"v1"] * 11
    assert stand.store.get("bystander") == b"old too"
    assert stand.upper.rows["", "bystander"] == bystander
    assert stand.store.stats().tiers["upper"].hits == 0, "nothing up to the floor is believed"
    stand.clock.advance(1)
    stand.store.set("young", b"y")
    evict(stand.store)
    assert stand.store.get("young") == b"y"
    assert stand.store.stats().tiers["upper"].hits == 1, "what is newer is"
    stand.clock.advance(ages["upper"] - 2)
    assert stand.level.floor_until > stand.clock.monotonic(), "for as long as a copy may live"
    stand.clock.advance(2)
    assert stand.level.floor_until <= stand.clock.monotonic()
    evict(stand.store)
    assert stand.store.get("bystander") == b"old too"
    assert stand.store.stats().tiers["upper"].hits == 2, "and no longer"


def test_R16_the_floor_of_a_tier_that_keeps_copies_for_ever_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level, "MARKS", 1)
    one = level.Level("x", SimTier(), None, None, 1.0)
    one.mark("", ["inflight"], b"9" * 12)
    one.break_off("", {"a": b"5" * 12, "b": b"7" * 12}, 10.0)
    assert (one.floor, one.floor_until) == (b"7" * 12, float("inf"))
    assert one.marks == {("", "inflight"): b"9" * 12}, "writes under way keep their marks"


# -- R17, R19 --------------------------------------------------------------------------------------------------------


def test_R17_all_shared_tiers_are_written_in_parallel() -> None:
    stand = Stand(("upper", "lower"))
    write = setting(stand.store, "k", b"v").to("put upper+lower")
    assert remembered(stand.store, "k") is None
    assert stand.bottom.value("k") == b"v"
    write.result()


@faces
def test_R17_parallel_is_parallel(face: str) -> None:
    """Each of two tiers answers only once the other was asked too."""
    stand = Stand(("upper", "lower"))
    if face == "sync":
        barrier = threading.Barrier(2, timeout=30)

        def fault(name: str) -> str:
            if name == "put":
                barrier.wait()
            return "ok"

        for tier in stand.uppers:
            tier.fault = fault
        stand.store.set("k", b"v")
    else:

        async def main() -> None:
            events = [asyncio.Event(), asyncio.Event()]

            def slow(at: int, tier: SimTier) -> None:
                arun = tier.arun

                async def run(op: Any, timeout: float) -> Any:
                    events[at].set()
                    await asyncio.wait_for(events[1 - at].wait(), 30)
                    return await arun(op, timeout)

                tier.arun = run  # type: ignore[method-assign]

            for at, tier in enumerate(stand.uppers):
                slow(at, tier)
            await stand.store.aset("k", b"v")

        stand.store._stack.pace.due = float("inf")
        asyncio.run(main())
    assert [tier.value("k") for tier in stand.uppers] == [b"v", b"v"]


@faces
def test_R17_a_shared_tier_that_fails_does_not_fail_the_write(face: str) -> None:
    stand = Stand(("upper", "lower"))
    stand.upper.fail()
    call(face, stand.store, "set", "k", b"v")
    assert stand.uppers[1].value("k") == stand.bottom.value("k") == remembered(stand.store, "k") == b"v"


@faces
def test_R19_a_put_that_a_shared_tier_refuses_leaves_memory_empty(face: str) -> None:
    stand = Stand()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)
    theirs = Entry(VALUE, stamp_at(stand.clock.time() + 5), None, b"theirs")

    def overtaken_by_another(name: str) -> str:
        if name == "put":
            stand.upper.rows["", "k"] = stand.bottom.rows["", "k"] = theirs
        return "ok"

    stand.upper.fault = overtaken_by_another
    call(face, stand.store, "set", "k", b"v1")
    stand.upper.heal()
    assert remembered(stand.store, "k") is None
    assert call(face, stand.store, "get", "k") == b"theirs"
    assert not stand.level.marks


# -- R20: get_or_load ------------------------------------------------------------------------------------------------


STATES = ["absent", "expired", "deleted"]


def prepare(stand: Stand, state: str) -> None:
    if state == "expired":
        stand.store.set("k", b"v0", ttl=1)
        stand.clock.advance(2)
    elif state == "deleted":
        stand.store.set("k", b"v0")
        stand.store.delete("k")
        stand.clock.advance(1)
    evict(stand.store)


@faces
@pytest.mark.parametrize("state", STATES)
def test_R20_what_is_loaded_is_stored_over_the_state_seen_at_the_miss(face: str, state: str) -> None:
    stand = Stand()
    prepare(stand, state)
    assert call(face, stand.store, "get_or_load", "k", lambda key: b"loaded", ttl=30) == b"loaded"
    row = stand.bottom.rows["", "k"]
    assert (row.kind, row.value, row.expires) == (VALUE, b"loaded", int((stand.clock.time() + 30) * 1000))
    assert stand.upper.value("k") == remembered(stand.store, "k") == b"loaded"
    assert call(face, stand.store, "get_or_load", "k", lambda key: pytest.fail("stored")) == b"loaded"


@pytest.mark.parametrize("who", ["here", "elsewhere"])
@pytest.mark.parametrize("state", STATES)
def test_R20_refused_because_somebody_wrote_meanwhile(state: str, who: str) -> None:
    stand = Stand()
    prepare(stand, state)
    load = loading(stand.store, "k", lambda key: b"loaded").to("load")
    if who == "here":
        stand.store.set("k", b"written")
    else:
        stand.seed("k", b"written", stand.bottom)
    assert load.result() == b"written"
    assert not stand.level.marks
    evict(stand.store)
    stand.upper.rows.clear()
    assert stand.store.get("k") == stand.bottom.value("k") == b"written"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("then", ["deleted", "expired"])
def test_R20_refused_and_the_key_now_absent(state: str, then: str) -> None:
    """Written and gone again meanwhile: what was loaded is returned, and not stored."""
    stand = Stand()
    prepare(stand, state)
    load = loading(stand.store, "k", lambda key: b"loaded").to("load")
    if then == "deleted":
        stand.store.delete("k")
    else:
        stand.store.set("k", b"short", ttl=1)
        stand.clock.advance(2)
    assert load.result() == b"loaded"
    assert stand.bottom.value("k") != b"loaded"
    assert stand.store.get("k") is None


def test_R20_the_state_seen_counts_and_not_the_order_of_stamps() -> None:
    """A stamp drawn after the load is newer than the delete during the load; it must not win for that."""
    stand = Stand()
    load = loading(stand.store, "k", lambda key: b"loaded").to("load")
    stand.store.delete("k")
    stand.clock.advance(60)
    assert load.result() == b"loaded"
    assert stand.store.get("k") is None
    assert stand.bottom.rows["", "k"].kind == DELETED


@faces
def test_R20_none_is_not_stored(face: str) -> None:
    stand = Stand()
    assert call(face, stand.store, "get_or_load", "k", lambda key: None) is None
    assert not stand.bottom.rows
    assert not stand.level.marks
    assert stand.bottom.log == ["fetch"]


@faces
@pytest.mark.parametrize("how", ["before", "after"])
def test_R20_with_the_authority_away_it_is_returned_and_not_kept_above(face: str, how: str) -> None:
    stand = Stand()
    stand.bottom.fail("swap", how=how)
    assert call(face, stand.store, "get_or_load", "k", lambda key: b"loaded") == b"loaded"
    assert remembered(stand.store, "k") is None
    assert stand.upper.value("k") is None
    assert not stand.store._made.space.busy("k")
    assert ("", "k") in stand.level.broken
    assert stand.store.get("k") == (b"loaded" if how == "after" else None)
    assert not stand.level.marks


@faces
def test_R20_what_a_loader_returns_is_checked_and_not_stored_if_it_is_no_value(face: str) -> None:
    stand = Stand()
    for wrong in ("text", 1, bytearray(b"x")):
        with fails(InvalidValue):
            call(face, stand.store, "get_or_load", "k", lambda key, wrong=wrong: wrong)
    assert not stand.bottom.rows


@faces
def test_R20_what_is_not_ours_is_not_loaded_over(face: str) -> None:
    stand = Stand()

    def foreign(space: str, keys: Any) -> Any:
        yield "fetch", lambda: None, keys
        return [ForeignValue("simulated")]

    stand.bottom.fetch = foreign  # type: ignore[method-assign]
    with fails(ForeignValue):
        call(face, stand.store, "get_or_load", "k", lambda key: pytest.fail("loaded"))


@faces
def test_R20_invariant_2_a_load_does_not_begin_while_nobody_knows_whether_it_is_stored(face: str) -> None:
    stand = Stand()
    stand.bottom.fail("fetch")
    with fails(BackendUnavailable):
        call(face, stand.store, "get_or_load", "k", lambda key: pytest.fail("a miss was made up"))


@faces
@pytest.mark.parametrize("error", [CorruptEntry, UnknownVersion])
def test_R20_what_cannot_be_read_is_loaded_again(face: str, error: type[Any]) -> None:
    stand = Stand()
    stand.seed("k", b"damaged", stand.bottom)
    stand.clock.advance(1)
    fetch = stand.bottom.fetch

    def damaged(space: str, keys: Any) -> Any:
        found = yield from fetch(space, keys)
        return [error("simulated") if one is not None and one.value == b"damaged" else one for one in found]

    stand.bottom.fetch = damaged  # type: ignore[method-assign]
    with fails(error):
        call(face, stand.store, "get", "k")
    assert call(face, stand.store, "get_or_load", "k", lambda key: b"loaded") == b"loaded"
    assert call(face, stand.store, "get", "k") == stand.bottom.value("k") == b"loaded"


# -- R28: purge ------------------------------------------------------------------------------------------------------


@faces
def test_R28_purge_turns_expired_into_deleted_and_that_goes_after_its_grace(face: str) -> None:
    stand = Stand(tombstone_ttl=100)
    stand.store.set("short", b"s", ttl=5)
    stand.store.set("long", b"l")
    stand.store.delete("gone")
    written = {key: stand.bottom.rows["", key] for key in ("short", "long", "gone")}
    stand.clock.advance(6)
    call(face, stand.store, "purge_expired")
    row = stand.bottom.rows["", "short"]
    assert (row.kind, row.stamp, row.value) == (DELETED, written["short"].stamp, b"")
    row = stand.upper.rows["", "short"]
    assert (row.kind, row.stamp, row.value) == (INVALID, written["short"].stamp, b""), "above it says nothing"
    assert stand.bottom.rows["", "long"] == written["long"]
    stand.clock.advance(95)  # since the delete 101 s, since the expiry 96
    call(face, stand.store, "purge_expired")
    assert set(stand.bottom.rows) == {("", "short"), ("", "long")}
    stand.clock.advance(6)
    call(face, stand.store, "purge_expired")
    assert set(stand.bottom.rows) == {("", "long")}
    assert call(face, stand.store, "get", "long") == b"l"


def test_R28_invariant_11_writes_purge_a_bounded_number_of_rows_at_a_bounded_rate() -> None:
    stand = Stand()
    for _ in range(50):
        stand.store.set("k", b"v")
    purges = [items for name, items in stand.bottom.asked if name == "purge"]
    assert len(purges) == 1, "at most once a second"
    stand.clock.advance(1)
    stand.store.mset({f"k{number}": b"" for number in range(100)})
    purges = [items for name, items in stand.bottom.asked if name == "purge"]
    assert len(purges) == 2
    assert all(limit <= 5_000 for _, limit in purges)
    assert purges[1][1] > 100, "more than was written, or expired rows gain on the writes"
    assert [into for into, _ in purges] == [DELETED, DELETED]


@faces
def test_R28_a_purge_that_fails_does_not_fail_the_write(face: str) -> None:
    stand = Stand()
    stand.bottom.fail("purge")
    stand.upper.fail("purge")
    call(face, stand.store, "set", "k", b"v")
    assert stand.store.get("k") == b"v"


def test_R28_a_copy_that_reached_its_age_is_replaced_by_a_fresh_one_of_the_same_write() -> None:
    stand = Stand()
    stand.store.set("k", b"v")
    stand.clock.advance(ages["upper"] + 1)
    evict(stand.store)
    assert stand.store.get("k") == b"v"
    evict(stand.store)
    assert stand.store.get("k") == b"v"
    assert stand.store.stats().tiers["upper"].hits == 1, "a tier must not miss for ever what it held once"


# -- invariants ------------------------------------------------------------------------------------------------------


@faces
def test_invariant_2_unavailable_is_not_absent(face: str) -> None:
    stand = Stand()
    stand.store.set("k", b"v")
    evict(stand.store)
    stand.upper.rows.clear()
    for how in ("before", "after"):
        stand.bottom.fail(how=how)
        for operation in (("get", "k"), ("mget", ["k", "none"])):
            with fails(BackendUnavailable) as caught:
                call(face, stand.store, *operation)
            assert caught.value.tier == "bottom"
    with fails(BackendUnavailable):
        list(stand.store.yield_keys())


@faces
def test_invariant_2_a_shared_tier_that_fails_is_passed_over_counted_and_not_filled(face: str) -> None:
    stand = Stand()
    stand.seed("k", b"v", stand.bottom)
    stand.upper.fail("fetch")
    assert call(face, stand.store, "get", "k") == b"v"
    assert call(face, stand.store, "get", "none") is None
    upper = stand.store.stats().tiers["upper"]
    assert (upper.errors, upper.misses, upper.fills) == (2, 0, 0)
    assert "fill" not in stand.upper.log, "an error is not a miss"


@faces
def test_invariant_2_a_copy_answers_while_the_authority_is_away(face: str) -> None:
    stand = Stand()
    stand.store.set("k", b"v")
    stand.bottom.fail()
    evict(stand.store)
    assert call(face, stand.store, "get", "k") == b"v"


def test_invariant_2_invalid_answers_nothing_and_deleted_answers_absent() -> None:
    stand = Stand()
    stand.seed("k", b"v", stand.bottom)
    stand.upper.rows["", "k"] = Entry(INVALID, stamp_at(stand.clock.time() - 5), None, b"")
    assert stand.store.get("k") == b"v"
    assert stand.upper.value("k") == b"v", "filled: at a newer stamp"
    stand.upper.rows["", "gone"] = Entry(DELETED, stamp_at(stand.clock.time()), None, b"")
    stand.bottom.log.clear()
    assert stand.store.get("gone") is None
    assert stand.bottom.log == [], "a delete that is known needs no question"


def test_invariant_2_a_deleted_row_of_the_authority_is_known_above_for_the_age_of_a_copy() -> None:
    stand = Stand()
    stand.seed("k", b"", stand.bottom, kind=DELETED)
    assert stand.store.get("k") is None
    row = stand.upper.rows["", "k"]
    assert (row.kind, row.expires) == (DELETED, int((stand.clock.time() + ages["upper"]) * 1000))
    assert stand.store.get("absent") is None
    assert ("", "absent") not in stand.upper.rows, "a miss everywhere fills nothing"


@pytest.mark.parametrize("evicted", [True, False])
@pytest.mark.parametrize("upper", ["well", "failed", "lost", "restarted"])
@faces
def test_invariant_3_no_read_is_older_than_the_last_write(face: str, upper: str, evicted: bool) -> None:
    stand = Stand()
    for number in range(3):
        stand.clock.advance(0.5)
        if upper in ("failed", "lost"):
            stand.upper.script("put", "before" if upper == "failed" else "late")
        value = b"%d" % number
        call(face, stand.store, "set", "k", value)
        stand.upper.arrive()
        if upper == "restarted":
            stand.upper.rows.clear()
        if evicted:
            evict(stand.store)
        assert call(face, stand.store, "get", "k") == value
        evict(stand.store)
        assert call(face, stand.store, "get", "k") == value
        call(face, stand.store, "delete", "k")
        evict(stand.store)
        assert call(face, stand.store, "get", "k") is None


def test_invariant_4_a_write_is_acknowledged_only_once_the_authority_has_it() -> None:
    stand = Stand()
    write = setting(stand.store, "k", b"v").to("put bottom")
    assert stand.upper.value("k") is remembered(stand.store, "k") is None
    write.to("put upper")
    assert stand.bottom.value("k") == b"v"
    write.result()


@faces
def test_invariant_11_tries_and_their_time_are_bounded(face: str) -> None:
    stand = Stand()
    stand.bottom.fail("put", how="after")
    with fails(Indeterminate):
        call(face, stand.store, "set", "k", b"v")
    assert stand.bottom.log.count("put") == 4
    assert 0 < stand.clock.monotonic() <= 5
    stand = Stand()
    stand.bottom.fault = lambda name: (stand.clock.advance(6), "after")[1] if name == "put" else "ok"
    with fails(Indeterminate):
        call(face, stand.store, "set", "k", b"v")
    assert stand.bottom.log.count("put") == 1, "the time is up"


@faces
def test_invariant_11_reads_are_not_tried_again(face: str) -> None:
    stand = Stand()
    stand.upper.fail()
    stand.bottom.fail()
    with fails(BackendUnavailable):
        call(face, stand.store, "get", "k")
    assert (stand.upper.log, stand.bottom.log) == (["fetch"], ["fetch"])


def test_invariant_12_no_pickle_and_no_code_by_name() -> None:
    """Nothing in the package can turn stored bytes into code: no pickle, marshal, eval, import by a computed name."""
    forbidden = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    package = Path(tiered.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "__import__"}, f"{path}:{node.lineno}"
            assert not forbidden & {name.split(".")[0] for name in names}, f"{path}:{node.lineno}"


def test_invariant_12_no_secret_in_repr_errors_or_stats(tmp_path: Path) -> None:
    secret = "hunter2"
    texts = []
    for url in (
        f"sqlite://user:{secret}@host/x.db",
        f"nosuch://user:{secret}@host/",
        f"sqlite:///x.db?password={secret}",
    ):
        with fails(tiered.errors.TieredError) as caught:
            tiered.open("memory://", url)
        texts.append(str(caught.value))
    store = tiered.open("memory://", f"sqlite:///{tmp_path}/x.db")
    store.set("k", secret.encode())
    texts += [repr(store), repr(store.stats()), repr(store.inspect("k")), repr(store.ping())]
    store.close()
    assert not [text for text in texts if secret in text]


def test_invariant_3_two_keys_of_one_batch_are_independent() -> None:
    """A read of both while only one is dirty, invalid, expired or corrupt above."""
    stand = Stand()
    stand.store.mset(dict.fromkeys(("dirty", "invalid", "expired", "fine"), b"v0"))
    stand.clock.advance(1)
    stand.upper.script("put", "before")
    stand.store.set("dirty", b"v1")
    stand.level.broken.clear()
    old = stand.upper.rows["", "invalid"]
    stand.upper.rows["", "invalid"] = Entry(INVALID, old.stamp, None, b"")
    stand.upper.rows["", "expired"] = stand.upper.rows["", "expired"]._replace(expires=1)
    evict(stand.store)
    assert stand.store.mget(["dirty", "invalid", "expired", "fine"]) == [b"v1", b"v0", b"v0", b"v0"]
    assert [tuple(items) for name, items in stand.upper.asked if name == "fetch"][-1] == ("invalid", "expired", "fine")
    assert stand.bottom.asked[-1] == ("fetch", ["dirty", "invalid", "expired"])


def test_a_stack_of_one_tier_is_the_authority_itself() -> None:
    store = TieredStore([Memory()], clock=FakeClock())
    store.set("k", b"v0")
    store.set("k", b"v1")
    assert store.get("k") == b"v1"
    store.delete("k")
    assert store.get("k") is None
    assert store.get_or_load("k", lambda key: b"loaded") == b"loaded" == store.get("k")


__all__ = ["Clock", "Tier", "micros"]


def test_two_stacks_over_one_memory_do_not_undo_each_others_writes() -> None:
    """They share its room only: the other stack does not know that the copy in `upper` is dirty, and reads it."""
    stand = Stand()
    memory, clock = Memory(), stand.clock
    one, two = (
        TieredStore([Tier(memory, ttl=60), Tier(stand.upper, ttl=600), stand.bottom], clock=clock) for _ in range(2)
    )
    one.set("k", b"old")
    stand.upper.script("put", "before")
    one.set("k", b"new")
    clock.advance(61)
    assert two.get("k") == b"old", "as in another process (E2)"
    assert one.get("k") == b"new"


def test_what_may_forget_is_refused_above_another_tier_unless_it_gives_leases() -> None:
    stand = Stand()
    upper = SimTier("upper")
    upper.capabilities = dataclasses.replace(upper.capabilities, forgets=True)
    with pytest.raises(ConfigurationError, match="may forget"):
        TieredStore([upper, stand.bottom])
    with pytest.raises(ConfigurationError, match="put its tiers into this one"):
        TieredStore([stand.store, SimTier("below")])
    TieredStore([upper, stand.bottom], immutable=True)
    upper.capabilities = dataclasses.replace(upper.capabilities, leases=True)
    TieredStore([upper, stand.bottom])
