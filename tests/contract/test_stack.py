"""The contract of stacks beyond `BaseStore`: single keys, loads, what a stack tells about itself, its end."""

from __future__ import annotations

import dataclasses
import gc
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from tiered import SQL, Memory, Tier, TieredStore
from tiered.errors import BackendUnavailable, InvalidValue, StoreClosed
from tiered.testing import FakeClock

from .faces import FACES, face
from .matrix import STACKS, Rig, rigs


class LoaderFailed(Exception):
    pass


def fail(key: str) -> bytes:
    raise LoaderFailed(key)


def never(key: str) -> bytes:
    raise AssertionError(f"{key} was loaded")


# -- get, set, delete ----------------------------------------------------------------------------------------------


@rigs()
def test_single_keys_and_batches_are_the_same_data(rig: Rig, stack: Any) -> None:
    assert stack.get("a") is None
    stack.set("a", b"1")
    stack.mset({"b": b"2"})
    assert (stack.get("a"), stack.get("b")) == (b"1", b"2")
    assert stack.mget(["a", "b"]) == [b"1", b"2"]
    stack.set("a", b"")
    assert stack.get("a") == b""
    assert stack.mget(["a"]) == [b""]
    stack.delete("a")
    stack.mdelete(["b"])
    assert (stack.get("a"), stack.get("b")) == (None, None)
    stack.delete("never")
    assert stack.keys() == []


@rigs()
def test_what_is_written_and_deleted_reaches_the_authority(rig: Rig, stack: Any) -> None:
    other = rig.beside()
    stack.set("a", b"1")
    stack.mset([("b", b"2"), ("c", b"3")])
    stack.get_or_load("d", lambda key: b"4")
    assert other.mget(["a", "b", "c", "d"]) == [b"1", b"2", b"3", b"4"]
    stack.delete("a")
    stack.mdelete(["b"])
    assert other.mget(["a", "b", "c", "d"]) == [None, None, b"3", b"4"]
    assert sorted(other.keys()) == ["c", "d"]


@rigs([shape for shape in STACKS if shape.endswith("sqlite")])
def test_what_was_acknowledged_is_there_after_a_restart(rig: Rig) -> None:
    stack = rig.open()
    stack.mset([(f"k{at}", b"v%d" % at) for at in range(100)])
    stack.mdelete(["k0", "k1"])
    stack.set("k2", b"")
    stack = rig.restart()
    assert stack.mget(["k0", "k1", "k2", "k3"]) == [None, None, b"", b"v3"]
    assert len(stack.keys()) == 98


@rigs()
def test_an_overwritten_value_is_not_seen_again(rig: Rig, stack: Any) -> None:
    for turn in range(30):
        value = b"%d" % turn
        stack.set("a", value)
        assert stack.get("a") == value
        stack.mset([("a", value + b"!"), ("b", value)])
        assert stack.mget(["b", "a"]) == [value, value + b"!"]
        if turn % 5 == 0:
            stack.delete("a")
            assert stack.get("a") is None
    assert rig.open().get("a") == b"29!"


# -- get_or_load ---------------------------------------------------------------------------------------------------


@rigs()
def test_get_or_load_loads_what_is_absent_once_and_keeps_it(rig: Rig, stack: Any) -> None:
    asked: list[str] = []

    def load(key: str) -> bytes:
        asked.append(key)
        return key.encode() * 3

    assert stack.get_or_load("ab", load) == b"ababab"
    assert stack.get_or_load("ab", load) == b"ababab"
    assert stack.get("ab") == b"ababab"
    assert rig.open().get_or_load("ab", never) == b"ababab"
    stack.set("c", b"stored")
    assert stack.get_or_load("c", never) == b"stored"
    assert asked == ["ab"]


@rigs()
def test_get_or_load_stores_an_empty_value_and_no_none(stack: Any) -> None:
    assert stack.get_or_load("a", lambda key: None) is None
    assert stack.keys() == []
    assert stack.get_or_load("a", lambda key: b"") == b""
    assert stack.get_or_load("a", never) == b""
    assert stack.mget(["a"]) == [b""]


@rigs()
def test_get_or_load_loads_a_deleted_key_again(stack: Any) -> None:
    stack.set("a", b"1")
    stack.delete("a")
    assert stack.get_or_load("a", lambda key: b"2") == b"2"
    assert stack.get("a") == b"2"
    assert stack.keys() == ["a"]


@rigs()
def test_a_loader_that_fails_stores_nothing_and_spoils_nothing(stack: Any) -> None:
    stack.set("other", b"1")
    for _ in range(2):
        with pytest.raises(LoaderFailed, match="a"):
            stack.get_or_load("a", fail)
    assert stack.get("a") is None
    for bad in ("text", 5, bytearray(b"1"), True):
        with pytest.raises(InvalidValue):
            stack.get_or_load("a", lambda key, bad=bad: bad)
    assert stack.keys() == ["other"]
    assert stack.get_or_load("a", lambda key: b"2") == b"2"


@rigs()
def test_a_write_during_a_load_wins(rig: Rig, stack: Any) -> None:
    """R20: what was loaded from before the write must not replace it."""
    other = rig.beside().store

    def load(key: str) -> bytes:
        TieredStore.set(other, key, b"written")
        return b"loaded"

    assert stack.get_or_load("a", load) == b"written"
    assert stack.get("a") == b"written"
    assert rig.beside().get("a") == b"written"


@rigs()
def test_a_delete_during_a_load_is_not_undone(rig: Rig, stack: Any) -> None:
    other = rig.beside().store

    def load(key: str) -> bytes:
        TieredStore.delete(other, key)
        return b"loaded"

    assert stack.get_or_load("a", load) == b"loaded"
    assert stack.get("a") is None
    assert rig.beside().get("a") is None


@rigs()
def test_a_loader_may_use_the_store_and_load_its_own_key(stack: Any) -> None:
    """A loader that re-enters its own key loads itself instead of waiting for itself."""
    inner = stack.store

    def load(key: str) -> bytes:
        return b"outer+" + (inner.get_or_load(key, lambda key: b"inner") or b"")

    def chain(key: str) -> bytes:
        return b"<" + (inner.get_or_load("b", lambda key: b"b") or b"") + b">"

    assert stack.get_or_load("a", load) in (b"outer+inner", b"inner")
    assert stack.get_or_load("c", chain) == b"<b>"
    assert stack.mget(["b", "c"]) == [b"b", b"<b>"]


# -- inspect, stats, ping ------------------------------------------------------------------------------------------


@rigs()
def test_inspect_says_what_each_tier_holds_and_changes_nothing(rig: Rig, stack: Any, clock: FakeClock) -> None:
    assert {holding.state for holding in stack.inspect("a").values()} == {"absent"}
    stack.set("a", b"123", ttl=1_000)
    stack.set("b", b"")
    clock.advance(2)
    before = stack.stats()
    held = stack.inspect("a")
    assert list(held) == rig.names
    for holding in held.values():
        assert (holding.state, holding.size) == ("value", 3)
        assert holding.written == pytest.approx(clock.time() - 2)
        assert clock.time() < holding.expires <= clock.time() + 998.001
        assert "2.0 s ago" in holding.why
    bottom = list(held.values())[-1]
    assert bottom.expires == pytest.approx(clock.time() + 998)
    assert list(stack.inspect("b").values())[-1].expires is None
    assert stack.stats() == before
    stack.delete("a")
    states = [holding.state for holding in stack.inspect("a").values()]
    assert states[-1] == "deleted"
    assert "value" not in states
    clock.advance(-2)


@rigs()
def test_inspect_tells_expired_from_live(rig: Rig, stack: Any, clock: FakeClock) -> None:
    stack.set("a", b"1", ttl=10)
    clock.advance(10)
    states = [holding.state for holding in stack.inspect("a").values()]
    assert set(states) <= {"expired", "absent"}
    assert states[-1] == "expired"


@rigs()
def test_stats_count_by_tier_and_are_frozen(rig: Rig, stack: Any, clock: FakeClock) -> None:
    names = rig.names
    fresh = stack.stats()
    for row in fresh.tiers.values():
        counts = dataclasses.asdict(row)
        assert {counts.pop(name) for name in ("entries", "bytes")} <= {0, None}  # a policy's own tables come later
        assert set(counts.values()) == {0}
    assert stack.get("absent") is None
    assert [row.misses for row in stack.stats().tiers.values()] == [1] * len(names)
    stack.set("a", b"1")
    for _ in range(3):
        assert stack.get("a") == b"1"
    assert stack.mget(["a", "a"]) == [b"1", b"1"]
    rows = stack.stats().tiers
    assert list(rows) == names
    assert sum(row.hits for row in rows.values()) == (5 if "memory" in names else 4)  # below memory, distinct keys
    assert rows[names[0]].hits == sum(row.hits for row in rows.values())
    assert {row.errors + row.corrupt + row.skipped + row.evictions for row in rows.values()} == {0}
    with pytest.raises(dataclasses.FrozenInstanceError):
        stack.stats().tiers = {}
    with pytest.raises(dataclasses.FrozenInstanceError):
        stack.stats().tiers[names[0]].hits = 7


@rigs([shape for shape in STACKS if " > " in shape and not shape.startswith("two")])
def test_stats_count_the_copies_that_reads_make(rig: Rig, stack: Any) -> None:
    rig.beside().mset([("a", b"1"), ("b", b"2")])
    assert stack.mget(["a", "b"]) == [b"1", b"2"]
    *above, authority = stack.stats().tiers.values()
    assert [(row.hits, row.misses, row.fills) for row in above] == [(0, 2, 2)] * len(above)
    assert (authority.hits, authority.misses, authority.fills) == (2, 0, 0)
    assert stack.mget(["a", "b"]) == [b"1", b"2"]
    assert next(iter(stack.stats().tiers.values())).hits == 2


@rigs(["memory > sqlite", "lru > sqlite", "cachetools > sqlite", "dict > sqlite", "memory"])
def test_stats_tell_what_memory_holds(stack: Any) -> None:
    empty = next(iter(stack.stats().tiers.values()))
    stack.mset([(f"k{at}", bytes(1_000)) for at in range(10)])
    row = next(iter(stack.stats().tiers.values()))
    assert (row.entries, empty.entries) == (10, 0)
    assert 10_000 < row.bytes - empty.bytes < 20_000
    stack.mdelete([f"k{at}" for at in range(5)])
    assert next(iter(stack.stats().tiers.values())).evictions == 0


@rigs(["two entries > sqlite"])
def test_a_memory_too_small_for_a_batch_serves_all_of_it_and_counts_evictions(stack: Any) -> None:
    pairs = {f"k{at}": b"%d" % at for at in range(50)}
    stack.mset(pairs)
    assert stack.mget(pairs) == list(pairs.values())
    memory = stack.stats().tiers["memory"]
    assert memory.entries == 2
    assert memory.evictions >= 48


@rigs()
def test_expired_finds_are_counted(rig: Rig, stack: Any, clock: FakeClock) -> None:
    stack.set("a", b"1", ttl=10)
    clock.advance(10)
    assert stack.get("a") is None
    assert list(stack.stats().tiers.values())[-1].expired == 1


@rigs()
def test_ping_names_every_tier(rig: Rig, stack: Any) -> None:
    health = stack.ping()
    assert list(health) == rig.names
    for answer in health.values():
        assert answer
        assert answer.ok
        assert answer.error is None
        assert answer.seconds >= 0


@rigs()
def test_the_repr_names_the_tiers(rig: Rig, stack: Any) -> None:
    assert repr(rig.open(namespace="docs").store) == f"TieredStore({' > '.join(rig.names)}, namespace='docs')"


# -- the end -------------------------------------------------------------------------------------------------------

CALLS: dict[str, Any] = {
    "get": lambda stack: stack.get("a"),
    "set": lambda stack: stack.set("a", b"2"),
    "delete": lambda stack: stack.delete("a"),
    "mget": lambda stack: stack.mget(["a"]),
    "mget of nothing": lambda stack: stack.mget([]),
    "mset": lambda stack: stack.mset([("a", b"2")]),
    "mset of nothing": lambda stack: stack.mset([]),
    "mdelete": lambda stack: stack.mdelete(["a"]),
    "mdelete of nothing": lambda stack: stack.mdelete([]),
    "yield_keys": lambda stack: stack.keys(),
    "get_or_load": lambda stack: stack.get_or_load("a", never),
    "inspect": lambda stack: stack.inspect("a"),
    "flush": lambda stack: stack.flush(),
    "purge_expired": lambda stack: stack.purge_expired(),
}


@rigs()
def test_a_closed_store_says_so_and_closing_twice_is_fine(rig: Rig, stack: Any) -> None:
    stack.set("a", b"1")
    assert stack.get("a") == b"1"
    stack.close()
    stack.close()
    for call in CALLS.values():
        with pytest.raises(StoreClosed, match="open another"):
            call(stack)
    assert bool(stack.store)
    assert stack.stats()
    if rig.shape != "memory":
        assert rig.open().get("a") == b"1"


@rigs()
def test_a_scan_under_way_ends_with_the_store(stack: Any) -> None:
    stack.mset([(f"k{at:05}", b"1") for at in range(1_500)])
    scan = stack.store.yield_keys()
    next(scan)
    stack.close()
    with pytest.raises(StoreClosed):
        list(scan)


@pytest.mark.parametrize("name", FACES)
def test_with_connects_at_once_and_closes(name: str, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    store = TieredStore([Memory(), SQL(f"sqlite:///{missing}/x.db")])
    opened = face(name, store)
    try:
        with pytest.raises(BackendUnavailable, match="does not exist"):
            _use(name, opened, store)
        missing.mkdir()
        assert _use(name, opened, store) is store
        with pytest.raises(StoreClosed):
            opened.get("a")
    finally:
        opened.done()


def _use(name: str, opened: Any, store: TieredStore) -> TieredStore:
    async def use() -> TieredStore:
        async with store as entered:
            await entered.aset("a", b"1")
            return entered

    if name == "async":
        return opened.runner.run(use())
    with store as entered:
        entered.set("a", b"1")
        return entered


def test_constructors_do_no_io(tmp_path: Path) -> None:
    store = TieredStore([Memory(), Tier(SQL(f"sqlite:///{tmp_path}/x.db"))])
    repr(store)
    store.stats()
    store.close()
    assert list(tmp_path.iterdir()) == []


@rigs(["memory > sqlite", "memory > sqlite > sqlite", "cachetools > sqlite"])
def test_a_store_that_was_used_and_closed_leaves_nothing_open(rig: Rig) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack = rig.open()
        stack.set("a", b"1")
        stack.get("a")
        stack.done()
        rig._opened.clear()
        del stack
        rig.tiers = []
        gc.collect()


def test_the_clock_of_a_stack_is_the_systems_unless_given() -> None:
    store = TieredStore([Memory()])
    store.set("a", b"1")
    assert store.inspect("a")["memory"].written == pytest.approx(time.time(), abs=60)
    store.close()
