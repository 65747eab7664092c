"""How much the memory tier takes and says it takes, and how what has expired goes."""

from __future__ import annotations

import gc
import os
import random
import tracemalloc
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from tiered.backends._shelf import MOST, PAUSE, REAP
from tiered.backends.memory import Memory
from tiered.errors import ConfigurationError

from .memory_kit import START, Time, run, stamp
from .stepper import check

# -- bounds and accounting -----------------------------------------------------------------------------------


def fill(space: Any, count: int, size: int, *, ttl: float = 600, first: int = 0) -> None:
    for number in range(first, first + count):
        space.install(f"key:{number:09}", os.urandom(size), stamp(number + 10**7), START + ttl + number * 0.001)


def growth(work: Callable[[Memory], None], **bounds: Any) -> tuple[float, Memory]:
    """(what the memory says it takes) / (what tracemalloc shows)."""
    memory = Memory(**bounds)
    gc.collect()
    gc.freeze()  # else each collection below walks through all that earlier tests left: 8x the time
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work(memory)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    return memory.bytes / taken, memory


@pytest.mark.parametrize("policy", ["adaptive", "lru"])
@pytest.mark.parametrize("size", [2, 40, 1000, 20_000])
@pytest.mark.parametrize("entries", [2_500, 7_000])
def test_bytes_are_within_15_percent_of_tracemalloc(policy: str, size: int, entries: int, time: Time) -> None:
    if size * entries > 50 * 2**20:
        entries = 2_500

    def few(memory: Memory) -> None:
        fill(memory.space("ns", time), entries // 2, size)

    def churn(memory: Memory) -> None:
        fill(memory.space("ns", time), entries * 4, size)

    def emptied(memory: Memory) -> None:
        space = memory.space("ns", time)
        fill(space, entries * 3, size)
        for key in sorted(space.keys())[entries // 4 :]:
            space.drop(key, stamp(10**9))

    for work in (few, churn, emptied):
        ratio, memory = growth(work, max_entries=entries, max_bytes=None, policy=policy)
        assert 0.85 <= ratio <= 1.15, (work.__name__, ratio)
        check(memory)


def test_bytes_within_15_percent_where_bytes_are_the_bound(time: Time) -> None:
    def churn(memory: Memory) -> None:
        rng = random.Random(5)
        space = memory.space("ns", time)
        for number in range(12_000):
            key = f"key:{rng.randrange(8_000)}"
            if space.hit(key) is None:
                space.install(key, bytes(rng.choice([10, 100, 3_000])), stamp(number), START + 500)

    ratio, memory = growth(churn, max_bytes=2 * 2**20)
    assert 0.85 <= ratio <= 1.15
    assert 1.9 * 2**20 < memory.bytes <= 2 * 2**20
    check(memory)


@pytest.mark.parametrize("entries", [5_500, 7_500, 9_000, 11_000])
def test_an_entry_takes_at_most_400_bytes_beyond_key_and_value(entries: int, time: Time) -> None:
    keys = [f"key:{number:09}" for number in range(3 * entries)]
    value, most = bytes(100), 0.0
    memory = Memory(max_entries=entries, max_bytes=None)
    space = memory.space("ns", time)
    gc.collect()
    tracemalloc.start()
    try:
        for number, key in enumerate(keys):  # ghosts are full, each entry has a stamp and an expiry of its own
            space.install(key, value, stamp(number + 10**7), START + 60 + number * 0.001)
            if (
                number > 2 * entries and not number % 500
            ):  # the tables are at their widest at some moment, not at the end
                most = max(most, tracemalloc.get_traced_memory()[0] / memory.entries)
    finally:
        tracemalloc.stop()
    assert memory.entries > entries - 16
    assert 0 < most <= 400


def test_both_bounds_hold_at_once(time: Time) -> None:
    memory = Memory(max_bytes=200_000, max_entries=100)
    space = memory.space("ns", time)
    fill(space, 500, 10)
    assert memory.entries == 100
    assert memory.evictions == 400
    fill(space, 500, 10_000, first=500)
    assert memory.bytes <= 200_000
    check(memory)


@pytest.mark.parametrize("policy", ["adaptive", "lru"])
def test_the_newcomer_is_held_even_where_it_is_large(policy: Any, time: Time) -> None:
    memory = Memory(max_bytes=100_000, policy=policy)
    space = memory.space("ns", time)
    fill(space, 500, 100)
    for number, size in enumerate([60_000, 90_000, 50_000, 95_000]):
        assert space.install("large", bytes(size), stamp(10**8 + number), inf)
        assert space.hit("large") == bytes(size)
        assert memory.bytes <= 100_000
        check(memory)


def test_what_is_too_large_is_not_held_and_neither_is_what_it_replaces(time: Time) -> None:
    memory = Memory(max_bytes=10_000)
    space = memory.space("ns", time)
    assert space.install("k", b"small", stamp(1), inf)
    space.enter(["k"])
    assert not space.install("k", bytes(20_000), stamp(2), inf)
    assert space.hit("k") is None
    assert not space.install("k", b"older", stamp(1), inf), "the large value was newer"
    space.leave(["k"])
    check(memory)


@pytest.mark.parametrize("bound", [1, 2, 3, 10])
@pytest.mark.parametrize("policy", ["adaptive", "lru"])
def test_tiny_bounds(bound: int, policy: Any, time: Time) -> None:
    memory = Memory(max_entries=bound, policy=policy)
    space = memory.space("ns", time)
    for number in range(100):
        space.install(f"k{number}", b"v", stamp(number), inf)
        assert space.hit(f"k{number}") == b"v"
        check(memory)
    assert memory.entries == bound


# -- expiry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [0.5, 1, 10, 63, 64, 65, 4000, 4097, 300_000, 20_000_000])
@pytest.mark.parametrize("cache", [None, dict])
def test_expired_entries_do_not_linger(ttl: float, cache: Any, time: Time) -> None:
    memory = Memory(max_bytes=None, cache=None if cache is None else cache())
    space, other = memory.space("ns", time), memory.space("other", time)
    for number in range(300):
        space.install(f"k{number}", b"v", stamp(1), time.now + ttl)
    time.now += ttl + 2
    for number in range(PAUSE * 2 * (300 // REAP + 2)):  # writes to another namespace
        other.install("w", b"v", stamp(number + 1), inf)
    assert memory.entries == 1
    assert memory.expired == 300
    assert space.keys() == []


def test_a_write_does_bounded_work_and_writes_keep_up(time: Time) -> None:
    memory = Memory(max_bytes=None)
    space = memory.space("ns", time)
    for number in range(5_000):
        space.install(f"k{number}", b"v", stamp(1), START + 10)
    time.now = START + 20
    before = memory.entries
    for number in range(PAUSE):
        space.install(f"n{number}", b"v", stamp(1), inf)
    assert before - REAP <= memory.entries - PAUSE < before
    live = 0
    for number in range(20_000):
        space.install(f"m{number}", b"v", stamp(1), time.now + 5)
        time.now += 0.01
        live = max(live, memory.entries) if number > 3_000 else 0
    assert live < 1_000, "500 are alive at any time"


@pytest.mark.parametrize("cache", [None, dict])
@pytest.mark.parametrize("role", ["front", "authority"])
@pytest.mark.parametrize("batch", [1, 40, 1_000])
def test_reads_remove_what_has_expired(cache: Any, role: str, batch: int, time: Time) -> None:
    memory = Memory(max_bytes=None, cache=None if cache is None else cache())
    space = memory.space("ns", time)
    keys = [f"k{number}" for number in range(1_000)]
    for key in keys:
        space.install(key, b"v", stamp(1), START + 10)
    time.now = START + 20
    for start in [*range(0, 1_000, batch), 0]:
        some = keys[start : start + batch]
        held = memory.entries
        if role == "authority":
            run(memory, memory.fetch("ns", some))
        else:
            space.enter(some)
            space.leave(some)
        assert held - memory.entries <= 2 * batch + REAP, "bounded by what was read"
    assert memory.entries == 0
    assert memory.expired == 1_000


def test_a_read_after_a_large_one_does_bounded_work(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(max_bytes=None)
    space = memory.space("ns", time)
    for number in range(10_000):
        space.install(f"k{number}", b"v", stamp(1), START + 10)
    time.now = START + 20
    limits: list[int] = []
    reap = memory._shelf.reap

    def reaped(now: float, limit: int) -> int:
        limits.append(limit)
        return reap(now, limit)

    monkeypatch.setattr(memory._shelf, "reap", reaped)
    space.enter([f"k{number}" for number in range(10_000)])
    assert space.install("w", b"v", stamp(1), inf)
    assert len(limits) > 1
    assert 0 < max(limits) <= MOST


def test_nothing_grows_under_churn(time: Time) -> None:
    """Far expiries of what was overwritten, deleted or evicted leave nothing behind."""

    def work(memory: Memory) -> None:
        space = memory.space("ns", time)
        for number in range(30_000):
            space.install("one", b"v", stamp(2 * number), START + 10**6 + number % 5_000)
            space.install("two", b"v", stamp(2 * number), START + 10**6 - number)
            space.drop("two", stamp(2 * number + 1))
            space.install(f"k{number}", b"v", stamp(1), START + 10**6 + number)

    memory = Memory(max_entries=50)
    work(memory)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work(memory)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
    check(memory)


def test_a_table_shrinks_when_its_entries_go(time: Time) -> None:
    memory = Memory(max_bytes=None)
    space = memory.space("ns", time)
    fill(space, 20_000, 10)
    keys = space.keys()
    kept = keys[::100]
    for key in sorted(set(keys) - set(kept)):
        space.drop(key, stamp(10**9))
    shelf = memory._shelf
    assert shelf.homes["ns", None].slots.__sizeof__() < 96 * 256 + 4096 + 20_000
    assert all(space.hits(kept))
    space.enter(keys)
    space.leave(keys)
    assert shelf.homes["ns", None].flights.__sizeof__() < 1_000


def test_clock_steps_back_and_forth(time: Time) -> None:
    memory = Memory()
    space = memory.space("ns", time)
    space.install("k", b"v", stamp(1), START + 100)
    time.now = START - 10_000
    assert space.hit("k") == b"v"
    for number in range(100):
        space.install("w", b"v", stamp(number), time.now + 50)
        time.now += 1
    check(memory)
    time.now = START + 99
    assert space.hit("k") == b"v"
    time.now = START + 101.5
    assert space.hit("k") is None
    for number in range(100, 200):
        space.install("w", b"v", stamp(number), inf)
    assert space.keys() == ["w"]


def test_sliding_extends_up_to_the_cap(time: Time) -> None:
    for policy in ("adaptive", "lru"):
        time.now = START
        memory = Memory(policy=policy)  # type: ignore[arg-type]
        space = memory.space("ns", time, 60)
        space.install("k", b"v", stamp(1), START + 60, START + 200)
        space.install("idle", b"v", stamp(1), START + 60, START + 200)
        for at in (59, 118, 177):
            time.now = START + at
            assert space.hits(["k"]) == [b"v"]
        assert space.hit("idle") is None
        time.now = START + 199.5
        assert space.hit("k") == b"v"
        for number in range(PAUSE * 4):
            space.install("w", b"v", stamp(number), inf)
        assert sorted(space.keys()) == ["k", "w"]
        time.now = START + 200
        assert space.hit("k") is None
        check(memory)


def test_two_sliding_times_in_one_namespace_are_refused_while_both_are_used(time: Time) -> None:
    memory = Memory()
    space = memory.space("ns", time, 60)
    space.install("k", b"v", stamp(1), START + 60, START + 600)
    with pytest.raises(ConfigurationError, match="sliding"):
        memory.space("ns", time)
    memory.space("other", time)
    del space
    gc.collect()
    assert memory.space("ns", time).hit("k") is None, "kept by another rule"
    check(memory)
