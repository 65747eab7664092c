"""The contract of stacks in time: invariant 6 (R10), TTLs of writes, maximum ages of copies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tiered.testing import FakeClock

from .matrix import Rig, rigs


def gone(stack: Any, key: str) -> None:
    """Nobody gets anything for `key`, by any read."""
    assert stack.get(key) is None
    assert stack.mget([key, key]) == [None, None]
    assert key not in stack.keys(prefix=None)
    assert key not in stack.keys(prefix=key)
    assert all(holding.state != "value" for holding in stack.inspect(key).values())


def there(stack: Any, key: str, value: bytes) -> None:
    assert stack.mget([key]) == [value]
    assert stack.get(key) == value
    assert stack.keys(prefix=key) == [key]


@rigs()
@pytest.mark.parametrize("ttl", [10, 10.0, timedelta(seconds=10)], ids=str)
def test_invariant_6_a_written_ttl_ends_in_every_tier(rig: Rig, stack: Any, clock: FakeClock, ttl: Any) -> None:
    stack.set("one", b"1", ttl=ttl)
    stack.mset([("two", b"2")], ttl=ttl)
    stack.mset({"three": b"3"}, ttl=ttl)
    assert stack.get_or_load("four", lambda key: b"4", ttl=ttl) == b"4"
    stack.set("ever", b"5", ttl=None)
    stack.set("default", b"6")
    clock.advance(9.5)
    for key, value in {"one": b"1", "two": b"2", "three": b"3", "four": b"4"}.items():
        there(stack, key, value)
    clock.advance(0.5)  # at the very end of its time it is over
    for key in ("one", "two", "three", "four"):
        gone(stack, key)
    there(stack, "ever", b"5")
    there(stack, "default", b"6")
    fresh = rig.open()
    gone(fresh, "one")
    there(fresh, "ever", b"5")


@rigs()
def test_invariant_6_copies_made_by_reads_end_with_what_they_copy(rig: Rig, stack: Any, clock: FakeClock) -> None:
    rig.beside().mset({"a": b"1", "b": b"2"}, ttl=10)
    clock.advance(4)
    assert stack.get("a") == b"1"
    clock.advance(5.5)
    assert stack.mget(["a", "b"]) == [b"1", b"2"]
    clock.advance(0.5)
    gone(stack, "a")
    gone(stack, "b")


@rigs()
def test_default_ttl_holds_for_writes_that_say_none(rig: Rig, clock: FakeClock) -> None:
    stack = rig.open(default_ttl=timedelta(seconds=10))
    stack.set("a", b"1")
    stack.mset([("b", b"2")])
    stack.get_or_load("c", lambda key: b"3")
    stack.set("ever", b"4", ttl=None)
    stack.mset([("long", b"5")], ttl=30)
    stack.get_or_load("load", lambda key: b"6", ttl=None)
    clock.advance(9.5)
    for key, value in {"a": b"1", "b": b"2", "c": b"3"}.items():
        there(stack, key, value)
    clock.advance(0.5)
    for key in "abc":
        gone(stack, key)
    there(stack, "long", b"5")
    clock.advance(20)
    gone(stack, "long")
    clock.advance(100_000)
    there(stack, "ever", b"4")
    there(stack, "load", b"6")


@rigs()
def test_a_later_write_brings_its_own_ttl(stack: Any, clock: FakeClock) -> None:
    stack.set("a", b"1", ttl=10)
    stack.set("b", b"1", ttl=10)
    stack.set("c", b"1", ttl=100)
    clock.advance(5)
    stack.set("a", b"2", ttl=10)
    stack.set("b", b"2")
    stack.set("c", b"2", ttl=1)
    clock.advance(6)
    there(stack, "a", b"2")
    there(stack, "b", b"2")
    gone(stack, "c")
    clock.advance(4)
    gone(stack, "a")
    there(stack, "b", b"2")


@rigs()
def test_an_expired_key_can_be_written_deleted_and_loaded_again(stack: Any, clock: FakeClock) -> None:
    stack.mset({"a": b"1", "b": b"1", "c": b"1"}, ttl=1)
    clock.advance(1)
    stack.set("a", b"2")
    stack.delete("b")
    assert stack.get_or_load("c", lambda key: b"loaded") == b"loaded"
    there(stack, "a", b"2")
    gone(stack, "b")
    there(stack, "c", b"loaded")


@rigs()
def test_a_ttl_that_is_over_at_once_stores_nothing_readable(stack: Any, clock: FakeClock) -> None:
    stack.set("a", b"old")
    stack.set("a", b"new", ttl=1e-6)
    clock.advance(0.001)
    gone(stack, "a")


@rigs()
@pytest.mark.parametrize("copied", ["by a write", "by a read", "by a load"])
def test_invariant_6_copies_never_outlive_their_maximum_age(
    rig: Rig, stack: Any, clock: FakeClock, copied: str
) -> None:
    """Read all the time, so that each tier is filled anew from the next, and sliding never ends by itself (R10)."""
    other = rig.beside()
    if copied == "by a write":
        stack.set("a", b"old")
    elif copied == "by a load":
        stack.get_or_load("a", lambda key: b"old")
    else:
        other.set("a", b"old")
        assert stack.get("a") == b"old"
    other.set("a", b"new")
    if rig.age == float("inf"):
        clock.advance(10**8)
        assert stack.get("a") == b"old"  # ttl=None means for ever
        return
    seen, passed = [stack.get("a")], 0.0
    while passed < rig.age:
        clock.advance(20)
        passed += 20
        seen.append(stack.get("a"))
        assert stack.mget(["a"]) == [seen[-1]]
    turns = seen.count(b"old")
    assert seen == [b"old"] * turns + [b"new"] * (len(seen) - turns)
    assert stack.get("a") == b"new"


@rigs(["sliding memory > sqlite", "sliding cachetools > sqlite"])
def test_a_sliding_copy_lives_while_it_is_read_and_no_longer_than_its_cap(
    rig: Rig, stack: Any, clock: FakeClock
) -> None:
    other = rig.beside()
    for key in ("read", "left"):
        stack.set(key, b"old")
        other.set(key, b"new")
    for _ in range(17):
        clock.advance(50)
        assert stack.get("read") == b"old"
    assert stack.get("left") == b"new"  # 60 s after the last hit
    clock.advance(49.5)
    assert stack.mget(["read"]) == [b"old"]
    clock.advance(0.5)  # 900 s: the cap
    assert stack.get("read") == b"new"


@rigs(["sliding memory > sqlite", "sliding cachetools > sqlite"])
def test_a_sliding_copy_ends_with_its_own_ttl(stack: Any, clock: FakeClock) -> None:
    stack.set("a", b"1", ttl=100)
    for _ in range(2):
        clock.advance(45)
        assert stack.get("a") == b"1"
    clock.advance(10)
    gone(stack, "a")


@rigs(["sqlite > sqlite", "memory > sqlite > sqlite", "memory > sim > sqlite"])
def test_a_copy_that_aged_out_is_made_anew_by_the_next_read(rig: Rig, clock: FakeClock) -> None:
    stack = rig.open(rig.tiers[-2:])
    stack.set("a", b"1")
    upper, authority = rig.names
    clock.advance(3_601)
    for hits in ((0, 1), (1, 1), (2, 1)):
        assert stack.get("a") == b"1"
        stats = stack.stats().tiers
        assert (stats[upper].hits, stats[authority].hits) == hits


@rigs(["jittered memory > jittered zstd sqlite > sqlite"])
def test_jitter_only_shortens_and_spreads(rig: Rig, stack: Any, clock: FakeClock) -> None:
    keys = [f"k{at}" for at in range(200)]
    stack.mset([(key, b"old") for key in keys])
    rig.beside().mset([(key, b"new") for key in keys])
    clock.advance(299.5)  # half of 600, less half a second: nothing of the middle tier may have gone
    assert stack.mget(keys) == [b"old"] * 200
    clock.advance(150)
    old = stack.mget(keys).count(b"old")
    assert 50 < old < 150
    clock.advance(150.5)
    assert stack.mget(keys) == [b"new"] * 200


@rigs()
def test_purge_expired_removes_what_is_over_and_counts_it(rig: Rig, stack: Any, clock: FakeClock) -> None:
    assert stack.purge_expired() == 0
    stack.mset([(f"gone{at}", b"x" * 100) for at in range(20)], ttl=10)
    stack.mset([(f"kept{at}", b"x" * 100) for at in range(20)], ttl=1_000)
    stack.mset([(f"ever{at}", b"x" * 100) for at in range(20)])
    assert stack.purge_expired() == 0
    clock.advance(12)  # memory sorts expiries by the second
    removed = stack.purge_expired()
    lost = 20 if rig.shape.startswith("two entries") else 0  # that memory had no room for them
    assert 20 * len(rig.tiers) - lost <= removed <= 20 * len(rig.tiers)
    assert stack.purge_expired() == 0
    assert sorted(stack.keys()) == sorted([*(f"kept{at}" for at in range(20)), *(f"ever{at}" for at in range(20))])
    assert stack.mget([f"kept{at}" for at in range(20)]) == [b"x" * 100] * 20
    gone(stack, "gone0")
    assert all(holding.state != "expired" for holding in stack.inspect("gone7").values())


@rigs()
def test_purge_keeps_deletions_for_the_tombstone_ttl_and_then_drops_them(rig: Rig, clock: FakeClock) -> None:
    stack = rig.open(tombstone_ttl=100)
    stack.set("a", b"1")
    stack.set("b", b"1", ttl=10)
    stack.delete("a")
    clock.advance(99)
    stack.purge_expired()
    assert list(stack.inspect("a").values())[-1].state == "deleted"
    clock.advance(20)
    stack.purge_expired()
    if "sim" not in rig.shape.split(" > ")[-1]:  # the simulated tier keeps them all
        assert list(stack.inspect("a").values())[-1].state == "absent"
    gone(stack, "a")
    gone(stack, "b")
    stack.set("a", b"2")
    there(stack, "a", b"2")


@rigs()
def test_writes_alone_purge_what_has_expired(rig: Rig, stack: Any, clock: FakeClock) -> None:
    """R28: nobody calls purge_expired, and expired rows still do not gather."""
    for turn in range(20):
        stack.mset([(f"k{turn}-{at}", b"x") for at in range(50)], ttl=1)
        clock.advance(2)
    left = [
        holding.state
        for turn in range(20)
        for at in range(0, 50, 10)
        for holding in stack.inspect(f"k{turn}-{at}").values()
    ]
    assert left.count("expired") <= 5 * 2 * len(rig.tiers)


@rigs()
def test_a_clock_that_steps_back_loses_nothing(stack: Any, clock: FakeClock) -> None:
    stack.set("a", b"1", ttl=10)
    clock.advance(-3_600)
    stack.set("a", b"2", ttl=10)
    there(stack, "a", b"2")
    stack.set("b", b"1")
    stack.delete("a")
    gone(stack, "a")
    clock.advance(3_600)
    gone(stack, "a")
    there(stack, "b", b"1")
