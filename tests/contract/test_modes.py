"""The contract of the write modes, and of what forgets, over real files: a shared tier that does not forget (R8)."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from tests.simulation.stand import evict
from tiered import Memory, Tier
from tiered.errors import BackendUnavailable, Unsupported

from .matrix import MODES, ONCE_ONLY, STACKS, Rig, rigs

SHAPES = [*ONCE_ONLY, *(shape for shape in STACKS if shape.split()[0] in MODES)]
FRESH = [shape for shape in SHAPES if not shape.startswith("immutable")]
SHARED = [shape for shape in FRESH if "plain" not in shape]
STRICT = [shape for shape in SHAPES if shape.startswith("strict")]


def other_process(rig: Rig) -> Any:
    """Another process over the same shared tiers, with a memory of its own."""
    return rig.open([Memory(), *rig.tiers[1:]] if isinstance(rig.tiers[0], Memory) else list(rig.tiers))


def held(rig: Rig, key: str) -> list[str]:
    """What each tier holds, the memory of the first process first."""
    return [holding.state for holding in rig._opened[0].inspect(key).values()]


@rigs(SHAPES)
def test_what_is_written_is_read_from_every_tier_and_by_others(rig: Rig, stack: Any) -> None:
    pairs = {f"k{at}": b"%d" % at for at in range(50)}
    stack.mset(pairs)
    other = other_process(rig)
    for reader in (stack, other, stack, other):
        assert reader.mget(list(pairs)) == list(pairs.values())
    if isinstance(rig.tiers[0], Memory):
        evict(stack.store)
    assert stack.mget(list(pairs)) == list(pairs.values())
    assert sorted(stack.keys()) == sorted(pairs)
    stack.mdelete(list(pairs)[:25])
    assert stack.mget(list(pairs)) == [None] * 25 + list(pairs.values())[25:]
    assert other_process(rig).mget(list(pairs)) == [None] * 25 + list(pairs.values())[25:]
    assert sorted(other.keys()) == sorted(list(pairs)[25:])


@rigs(SHARED)
def test_no_shared_tier_shows_others_anything_older_once_a_write_is_acknowledged(rig: Rig, stack: Any) -> None:
    for at in range(5):
        value = b"%d" % at
        rig.clock.advance(0.001)
        if at == 3:
            stack.delete("k")
        else:
            stack.set("k", value, ttl=None if at else 60)
        expected = None if at == 3 else value
        for _ in range(2):
            assert other_process(rig).get("k") == stack.get("k") == expected


@rigs(FRESH)
def test_a_write_of_another_process_is_seen_when_the_copy_is_too_old(rig: Rig, stack: Any) -> None:
    stack.set("k", b"1")
    other = other_process(rig)
    rig.clock.advance(1)
    other.set("k", b"2")
    rig.clock.advance(61)
    assert stack.get("k") == b"2"
    stack.delete("k")
    rig.clock.advance(61)
    assert other.get("k") is None


@rigs(SHAPES)
def test_invalidate_brings_what_the_authority_now_has(rig: Rig, stack: Any) -> None:
    other = other_process(rig)
    stack.set("k", b"old")
    assert stack.get("k") == other.get("k") == b"old"
    rig.clock.advance(1)
    rig.beside().set("k", b"new")
    stack.invalidate(["k", "never"])
    assert stack.get("k") == b"new"
    if not rig.shape.startswith("immutable"):
        rig.clock.advance(61)
        assert other.get("k") == b"new"
    other.invalidate(["k"])
    assert other.get("k") == b"new"
    assert stack.get("never") is None


@rigs(SHAPES)
def test_clear_and_scopes(rig: Rig, stack: Any) -> None:
    scope = rig.keep(stack.store.scoped("tenant"))
    other = other_process(rig)
    for store in (stack, scope):
        store.mset({f"{letter}{at}": b"v" for letter in "ab" for at in range(3)})
    assert other.get("a0") == b"v"
    assert stack.clear(prefix="a") == 3
    assert sorted(stack.keys()) == ["b0", "b1", "b2"]
    assert stack.mget(["a0", "b0"]) == scope.mget(["zzz", "b0"]) == [None, b"v"]
    assert scope.clear(prefix="b1") == 1
    assert len(scope.keys()) == 5
    assert stack.clear(all=True) == 3 + 5
    assert stack.keys() == scope.keys() == []
    assert stack.mget(["b0"]) == scope.mget(["a0"]) == [None]
    if "sim" not in rig.shape:
        assert rig.restart().mget(["a0", "b0"]) == [None, None]


@rigs([shape for shape in SHAPES if "plain" not in shape])
def test_a_ttl_travels_to_every_copy_in_every_mode(rig: Rig, stack: Any) -> None:
    stack.set("k", b"v", ttl=30)
    other = other_process(rig)
    assert other.get("k") == stack.get("k") == b"v"
    rig.clock.advance(29)
    assert other.get("k") == stack.get("k") == b"v"
    rig.clock.advance(2)
    assert other.get("k") is None
    assert stack.get("k") is None


@rigs([shape for shape in SHAPES if "plain" in shape])
def test_R22_a_ttl_over_plain_is_unsupported(rig: Rig, stack: Any) -> None:
    for write in (lambda: stack.set("k", b"v", ttl=5), lambda: stack.mset({"k": b"v"}, ttl=5)):
        with pytest.raises(Unsupported):
            write()
    assert stack.keys() == []


@rigs(SHAPES)
def test_get_or_load_in_every_mode(rig: Rig, stack: Any) -> None:
    assert stack.get_or_load("k", lambda key: b"loaded") == b"loaded"
    assert stack.get_or_load("k", lambda key: b"again") == b"loaded"
    assert other_process(rig).get_or_load("k", lambda key: b"again") == b"loaded"
    stack.set("k", b"set")
    assert stack.get_or_load("k", lambda key: b"again") == b"set"


@rigs(["strict memory > sqlite > sqlite", "strict sqlite > sqlite"])
def test_R18_markers_over_files(rig: Rig, stack: Any) -> None:
    """The authority is locked by somebody else: nothing was written, and the middle is as good as before."""
    stack.set("k", b"v0")
    other = other_process(rig)
    rig.clock.advance(1)
    blocked = rig.open([*rig.tiers[:-1], _impatient(rig)])
    locked = sqlite3.connect(rig.place / "authority.db", isolation_level=None)
    try:
        locked.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailable):
            blocked.set("k", b"v1")
    finally:
        locked.close()
    assert stack.get("k") == other.get("k") == blocked.get("k") == b"v0"
    assert held(rig, "k")[-2:] == ["value", "value"], "the middle filled again"
    rig.clock.advance(60)
    blocked.set("k", b"v2")
    assert other.get("k") == b"v2"


def _impatient(rig: Rig) -> Tier:
    return Tier(rig.tiers[-1], timeout=0.01)


@rigs(["strict memory > sqlite > sqlite"])
def test_R18_no_write_without_the_middle(rig: Rig, stack: Any) -> None:
    stack.set("k", b"v0")
    rig.clock.advance(1)
    locked = sqlite3.connect(rig.place / "middle.db", isolation_level=None)
    try:
        locked.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BackendUnavailable, match="nothing was written") as caught:
            stack.set("k", b"v1")
        assert caught.value.tier == "sqlite"
    finally:
        locked.close()
    assert stack.get("k") == rig.beside().get("k") == b"v0"
    stack.set("k", b"v2")
    assert other_process(rig).get("k") == b"v2"


@rigs(["around memory > sqlite > sqlite", "around sqlite > sqlite"])
def test_R17_around_leaves_copies_to_reads(rig: Rig, stack: Any) -> None:
    stack.set("k", b"v1")
    assert held(rig, "k")[-2:] == ["invalid", "value"]
    assert set(held(rig, "k")[:-2]) <= {"absent"}
    assert stack.get("k") == b"v1"
    assert set(held(rig, "k")) == {"value"}
    rig.clock.advance(1)
    stack.delete("k")
    assert held(rig, "k")[-2:] == ["invalid", "deleted"]
    assert stack.get("k") is None


@rigs(["immutable memory > sqlite > sqlite"])
def test_immutable_copies_never_grow_too_old(rig: Rig, stack: Any) -> None:
    stack.set("k", b"v")
    rig.clock.advance(400 * 86_400)
    rig.beside().delete("k")
    assert stack.get("k") == b"v"
    assert other_process(rig).get("k") == b"v"
    for holding in list(stack.inspect("k").values())[:-1]:
        assert (holding.state, holding.expires) == ("value", None)


def test_the_shapes_of_the_matrix_are_what_their_names_say() -> None:
    assert set(MODES) == {shape.split()[0] for shape in SHAPES} - {"memory"}
