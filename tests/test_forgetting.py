"""invalidate, clear and scoped: what is forgotten, what is not, and that nothing comes back (DESIGN sections 1, 5)."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from tiered import Memory, Tier, TieredStore, WriteAround, WriteThrough, level
from tiered.backend import SCOPE
from tiered.clock import ZERO
from tiered.entry import DELETED, INVALID, VALUE, Entry
from tiered.errors import BackendUnavailable, BatchError, ConfigurationError, InvalidKey, StoreClosed
from tiered.level import PATIENCE
from tiered.plans.scan import PAGE

from .simulation.hand import Hand, deleting, getting, loading, setting
from .simulation.stand import Stand, ages, call, evict, faces, remembered, stamp_at
from .simulation.tier import SimTier

STRICT = WriteThrough(strict=True)


def behind(stand: Stand, key: str, value: bytes | None) -> None:
    """The authority is changed by somebody who knows nothing of the stack: its stamp says nothing of when."""
    if value is None:
        stand.bottom.rows.pop(("", key), None)
    else:
        stamp = ZERO if stand.bottom.plain else stamp_at(stand.clock.time() - 1_000)
        stand.bottom.rows["", key] = Entry(VALUE, stamp, None, value)


def invalidating(store: TieredStore, *keys: str) -> Hand:
    return Hand(store, store._invalidate(list(keys)))


def clearing(store: TieredStore, prefix: str | None = None) -> Hand:
    return Hand(store, store._clear(prefix, prefix is None))


def deliver(reader: Hand, answer: Any) -> Any:
    reader._go(lambda: reader._plan.send(answer))
    return reader.result()


def fetched(reader: Hand) -> Any:
    return reader._perform(reader.effect)


either = pytest.mark.parametrize("plain", [False, True], ids=["stamped", "plain"])


def over(plain: bool, **options: Any) -> Stand:
    return Stand(() if plain else ("upper",), plain=plain, **options)


# -- invalidate ------------------------------------------------------------------------------------------------------


@faces
@either
@pytest.mark.parametrize("value", [b"new", None])
def test_invalidate_forgets_every_copy_and_leaves_the_authority_alone(
    face: str, plain: bool, value: bytes | None
) -> None:
    stand = Stand((), plain=True) if plain else Stand(("upper", "lower"))
    stand.store.mset({"k": b"old", "other": b"kept"})
    behind(stand, "k", value)
    assert stand.store.get("k") == b"old"
    rows, asked = dict(stand.bottom.rows), len(stand.bottom.log)
    assert call(face, stand.store, "invalidate", iter(["k", "k"])) is None
    assert stand.bottom.rows == rows
    assert len(stand.bottom.log) == asked, "the authority is not even asked"
    assert remembered(stand.store, "k") is None
    for tier in stand.uppers:
        assert tier.rows["", "k"].kind == INVALID
        assert tier.value("other") == b"kept"
    assert remembered(stand.store, "other") == b"kept"
    assert call(face, stand.store, "get", "k") == value
    assert call(face, stand.store, "get", "k") == value == remembered(stand.store, "k")
    assert not any(level.marks for level in stand.store._stack.uppers)


@either
def test_invalidate_a_slow_read_that_began_before_cannot_reinstall(plain: bool) -> None:
    stand = over(plain)
    stand.store.set("k", b"old")
    stand.upper.rows.clear()
    evict(stand.store)
    reader = getting(stand.store, "k").to("fetch bottom")
    answer = fetched(reader)
    behind(stand, "k", b"new")
    stand.store.invalidate(["k"])
    assert deliver(reader, answer) == b"old", "it began before: it may say so"
    assert remembered(stand.store, "k") is None
    assert stand.upper.value("k") is None
    assert stand.store.get("k") == b"new"


@either
def test_invalidate_a_slow_read_that_began_during_it_leaves_nothing_older(plain: bool) -> None:
    stand = over(plain)
    stand.store.set("k", b"old")
    stand.upper.rows.clear()
    evict(stand.store)
    if plain:  # no effect to stop at: what it does is one step
        stand.bottom.fault = lambda name: "ok"
        behind(stand, "k", b"new")
        stand.store.invalidate(["k"])
        assert stand.store.get("k") == b"new"
        return
    forgetting = invalidating(stand.store, "k").to("void upper")
    reader = getting(stand.store, "k").to("fetch bottom")
    answer = fetched(reader)
    behind(stand, "k", b"new")
    forgetting.result()
    deliver(reader, answer)
    assert remembered(stand.store, "k") is None
    assert stand.store.get("k") == b"new"


@either
def test_invalidate_detaches_loads_under_way(plain: bool) -> None:
    stand = over(plain)
    stand.store.set("k", b"old")
    stand.upper.rows.clear()
    evict(stand.store)
    reader = loading(stand.store, "k", lambda key: pytest.fail("it is stored")).to("fetch bottom")
    answer = fetched(reader)
    behind(stand, "k", b"new")
    stand.store.invalidate(["k"])
    later = loading(stand.store, "k", lambda key: pytest.fail("it is stored"))
    assert later.at != "join"
    assert later.result() == b"new"
    assert deliver(reader, answer) == b"old"
    assert stand.store.get("k") == b"new"


def test_invalidate_a_slow_fill_of_a_shared_tier_is_refused() -> None:
    """By another process too, with no memory of its own to tell it."""
    stand = Stand()
    stand.seed("k", b"old", stand.bottom)
    stand.clock.advance(1)
    other, _ = stand.other()
    fill = getting(other, "k").to("fill upper")
    behind(stand, "k", b"new")
    stand.store.invalidate(["k"])
    fill.result()
    assert stand.upper.value("k") is None
    assert stand.store.get("k") == b"new"


@faces
@pytest.mark.parametrize("how", ["before", "after", "late", "skipped"])
def test_invalidate_what_a_shared_tier_could_not_be_told_is_repaired(face: str, how: str) -> None:
    stand = Stand()
    stand.store.set("k", b"old")
    behind(stand, "k", b"new")
    if how == "skipped":
        stand.upper.fail()
        for at in range(PATIENCE):
            stand.store.get(f"other {at}")
        stand.upper.heal()
    else:
        stand.upper.script("void", how)
    call(face, stand.store, "invalidate", ["k"])
    assert ("", "k") in stand.level.broken
    assert stand.store.inspect("k")["upper"].why.endswith("not trusted until repaired: a write did not reach this tier")
    assert call(face, stand.store, "get", "k") == b"new"
    stand.clock.advance(60)
    evict(stand.store)
    call(face, stand.store, "flush")
    assert not stand.level.marks
    assert stand.upper.rows["", "k"].kind == INVALID
    stand.upper.arrive()
    other, _ = stand.other()
    assert other.get("k") == b"new"


def test_R1_invalidate_by_a_clock_that_is_behind_voids_what_a_faster_one_wrote() -> None:
    stand = Stand(skew=-30)
    fast, _ = stand.other(skew=+30)
    fast.set("k", b"old")
    fast.close()
    behind(stand, "k", b"new")
    stand.store.invalidate(["k"])
    reader, _ = stand.other()
    assert stand.store.get("k") == reader.get("k") == b"new"


def test_R1_invalidate_removes_a_copy_from_too_far_ahead() -> None:
    stand = Stand()
    behind(stand, "k", b"new")
    stand.upper.rows["", "k"] = Entry(VALUE, stamp_at(stand.clock.time() + 2 * 86_400), None, b"far")
    stand.store.invalidate(["k"])
    assert stand.upper.value("k") is None
    assert stand.store.get("k") == b"new"
    assert stand.clock.draw() < stamp_at(stand.clock.time() + 86_400)


def test_invalidate_one_tier_away_does_not_spare_the_other() -> None:
    stand = Stand(("upper", "lower"))
    stand.store.set("k", b"old")
    stand.upper.fail()
    stand.store.invalidate(["k"])
    assert stand.uppers[1].rows["", "k"].kind == INVALID
    assert remembered(stand.store, "k") is None


@pytest.mark.parametrize("ending", ["cancelled", "thrown away"])
def test_invalidate_that_is_cut_short_distrusts_what_it_could_not_void(ending: str) -> None:
    stand = Stand()
    stand.store.set("k", b"old")
    behind(stand, "k", b"new")
    forgetting = invalidating(stand.store, "k").to("void upper")
    if ending == "cancelled":
        forgetting.throw(asyncio.CancelledError())
    else:
        forgetting.close()
    assert stand.store.get("k") == b"new"
    assert not stand.store._made.space.busy("k")


@faces
def test_invalidate_checks_its_keys_and_does_nothing_for_none(face: str) -> None:
    stand = Stand()
    stand.store.set("k", b"v")
    asked = len(stand.upper.log)
    call(face, stand.store, "invalidate", [])
    for bad in ("k", b"k", 5):
        with pytest.raises(TypeError):
            call(face, stand.store, "invalidate", bad)
    with pytest.raises(InvalidKey):
        call(face, stand.store, "invalidate", ["k", ""])
    assert len(stand.upper.log) == asked
    assert remembered(stand.store, "k") == b"v"


def test_invalidate_where_memory_is_the_authority_forgets_nothing() -> None:
    store = TieredStore([Memory()])
    store.set("k", b"v")
    store.invalidate(["k"])
    assert store.get("k") == b"v"
    store.close()


def test_invalidate_overlapping_a_plain_write_leaves_nothing_in_memory_that_the_authority_does_not_hold() -> None:
    stand = Stand((), plain=True)
    write = setting(stand.store, "k", b"mine").to("put bottom")
    answer = fetched(write)
    behind(stand, "k", b"theirs")
    stand.store.invalidate(["k"])
    deliver(write, answer)
    assert stand.store.get("k") == b"theirs"


def test_R12_invalidate_over_plain_drops_what_was_read_while_it_was_under_way() -> None:
    """Its generation is above the stamp that invalidate drew when it began."""
    stand = Stand(("upper",), plain=True, immutable=True)
    stand.store.set("k", b"old")
    evict(stand.store)
    forgetting = invalidating(stand.store, "k").to("void upper")
    assert stand.store.get("k") == b"old"
    behind(stand, "k", b"new")
    forgetting.result()
    assert remembered(stand.store, "k") is None
    assert stand.store.get("k") == b"new"


def test_invalidate_immutable_forgets_plain_copies_too() -> None:
    middle, bottom = SimTier("middle", plain=True), SimTier("bottom", plain=True)
    store = TieredStore([Memory(), middle, bottom], immutable=True)
    store.set("k", b"wrong")
    bottom.rows["", "k"] = Entry(VALUE, ZERO, None, b"right")
    store.invalidate(["k"])
    assert store.get("k") == b"right"
    assert middle.value("k") == b"right"


# -- clear -----------------------------------------------------------------------------------------------------------

TRICKY = ["a", "ab", "a%", "a_b", "a*", "A", "b", "a\x00b", "ä", "\U0001f9ca", "a\U0010ffff"]


@faces
@either
@pytest.mark.parametrize("mode", [WriteThrough(), STRICT, WriteAround()], ids=["through", "strict", "around"])
def test_clear_deletes_exactly_what_begins_with_the_prefix_and_counts_it(face: str, plain: bool, mode: Any) -> None:
    for prefix in ("a", "a%", "a_", "ä", "zzz", "\U0001f9ca"):
        stand = over(plain, write=mode)
        stand.store.mset(dict.fromkeys(TRICKY, b"v"))
        doomed = [key for key in TRICKY if key.startswith(prefix)]
        assert call(face, stand.store, "clear", prefix=prefix) == len(doomed)
        left = [None if key in doomed else b"v" for key in TRICKY]
        assert stand.store.mget(TRICKY) == left
        evict(stand.store)
        assert stand.store.mget(TRICKY) == left
        assert sorted(stand.store.yield_keys()) == sorted(set(TRICKY) - set(doomed))
        assert call(face, stand.store, "clear", prefix=prefix) == 0, "nothing is left of it"
        assert call(face, stand.store, "clear", all=True) == len(TRICKY) - len(doomed)
        assert list(stand.store.yield_keys()) == []


def test_clear_counts_live_keys_as_seen_through_the_stack() -> None:
    stand = Stand()
    stand.store.mset({"live": b"1", "deleted": b"2"})
    stand.store.set("expired", b"3", ttl=5)
    stand.store.delete("deleted")
    stand.clock.advance(6)
    stand.seed("copy", b"stray", stand.upper)
    assert stand.store.clear(all=True) == 1


@faces
def test_clear_crosses_pages(face: str) -> None:
    stand = Stand()
    names = [f"k{at:05}" for at in range(2 * PAGE + 1)]
    stand.store.mset([*((name, b"v") for name in names), ("other", b"v")])
    for name in names:
        stand.seed(f"k stray {name}", b"v", stand.upper)
    assert call(face, stand.store, "clear", prefix="k") == len(names)
    assert list(stand.store.yield_keys()) == ["other"]
    assert [key for (_, key), entry in stand.upper.rows.items() if entry.kind == VALUE] == ["other"]


@pytest.mark.parametrize("where", ["upper", "lower"])
def test_clear_voids_copies_that_the_authority_does_not_hold(where: str) -> None:
    """It lost them, or a purge forgot that they were deleted: nobody else would ever void them (E10)."""
    stand = Stand(("upper", "lower"))
    tier = stand.uppers[where == "lower"]
    stand.seed("k1", b"stray", tier)
    stand.seed("other", b"kept", tier)
    assert stand.store.mget(["k1", "other"]) == [b"stray", b"kept"]
    assert stand.store.clear(prefix="k") == 0
    assert remembered(stand.store, "k1") is None
    assert stand.store.mget(["k1", "other"]) == [None, b"kept"]
    other, _ = stand.other()
    assert other.mget(["k1", "other"]) == [None, b"kept"]


def test_R1_clear_by_a_clock_that_is_behind_voids_what_a_faster_one_wrote() -> None:
    stand = Stand()
    stand.upper.rows["", "k"] = Entry(VALUE, stamp_at(stand.clock.time() + 60), None, b"stray")
    stand.store.clear(all=True)
    assert stand.store.get("k") is None


def test_clear_a_slow_read_of_a_lower_tier_does_not_fill_an_upper_one_again() -> None:
    """Each copy is voided in every tier, also where it is not held yet."""
    stand = Stand(("upper", "lower"))
    other, _ = stand.other()
    stand.seed("k", b"stray", stand.uppers[1])
    fill = getting(other, "k").to("fill upper")
    stand.store.clear(all=True)
    fill.result()
    assert stand.upper.value("k") is None
    assert stand.store.get("k") is None


@either
def test_clear_what_only_memory_holds_goes_too(plain: bool) -> None:
    stand = over(plain)
    stand.store.mset({"k1": b"v", "other": b"v"})
    stand.bottom.rows.clear()
    stand.upper.rows.clear()
    assert stand.store.clear(prefix="k") == 0
    assert stand.store.mget(["k1", "other"]) == [None, b"v"]


@either
@pytest.mark.parametrize("held", ["by the authority", "by nobody any more"])
def test_clear_reads_in_flight_cannot_reinstall(plain: bool, held: str) -> None:
    stand = over(plain)
    stand.store.set("k", b"v")
    stand.upper.rows.clear()
    evict(stand.store)
    reader = getting(stand.store, "k").to("fetch bottom")
    answer = fetched(reader)
    if held != "by the authority":
        stand.bottom.rows.clear()
    stand.store.clear(all=True)
    assert deliver(reader, answer) == b"v"
    assert remembered(stand.store, "k") is None
    if plain or held == "by the authority":  # else E10: a shared tier holds what the authority lost
        assert stand.store.get("k") is None


def test_clear_detaches_loads_under_way() -> None:
    stand = Stand()
    load = loading(stand.store, "k", lambda key: b"loaded").to("load")
    beside = loading(stand.store, "other", lambda key: b"loaded").to("load")
    stand.store.clear(prefix="k")
    assert loading(stand.store, "k", lambda key: b"again").at != "join"
    assert loading(stand.store, "other", lambda key: b"again").at == "join"
    load.close()
    beside.close()


@faces
@pytest.mark.parametrize("fault", ["scan", "void"])
def test_clear_a_shared_tier_that_cannot_be_reached_is_not_trusted(face: str, fault: str) -> None:
    stand = Stand()
    stand.store.mset({"k1": b"1", "k2": b"2"})
    stand.seed("k3", b"stray", stand.upper)
    stand.clock.advance(1)
    stand.upper.fail(fault, "put")
    assert call(face, stand.store, "clear", prefix="k") == 2
    stand.upper.heal()
    evict(stand.store)
    assert call(face, stand.store, "mget", ["k1", "k2", "k3"]) == [None, None, None]
    stand.store.flush()
    stand.clock.advance(1)
    assert call(face, stand.store, "mget", ["k1", "k2", "k3"]) == [None, None, None]
    stand.store.set("k1", b"again")
    evict(stand.store)
    fetches = stand.bottom.log.count("fetch")
    assert stand.store.get("k1") == b"again"
    assert stand.bottom.log.count("fetch") == fetches, "newer copies are trusted"


@faces
@pytest.mark.parametrize("fault", ["scan", "put"])
def test_clear_raises_what_the_authority_raises(face: str, fault: str) -> None:
    stand = Stand()
    stand.store.mset({"k1": b"1", "k2": b"2"})
    stand.bottom.fail(fault)
    with pytest.raises(BackendUnavailable) as caught:
        call(face, stand.store, "clear", prefix="k")
    assert caught.value.tier == "bottom"
    stand.bottom.heal()
    stand.clock.advance(60)
    assert stand.store.mget(["k1", "k2"]) == [b"1", b"2"]


def test_clear_that_is_done_in_part_says_which() -> None:
    stand = Stand()
    stand.store.mset({f"k{at}": b"v" for at in range(4)})
    stand.bottom.script("put", "half", "before", "before", "before")
    with pytest.raises(BatchError) as caught:
        stand.store.clear(prefix="k")
    assert caught.value.written == ["k0", "k1"]
    assert stand.store.mget(["k0", "k1", "k3"]) == [None, None, b"v"]


@faces
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, ValueError),
        ({"prefix": ""}, ValueError),
        ({"prefix": None}, ValueError),
        ({"prefix": "", "all": False}, ValueError),
        ({"prefix": "k", "all": True}, ValueError),
        ({"all": 1}, TypeError),
        ({"all": "yes"}, TypeError),
        ({"prefix": b"k"}, TypeError),
        ({"prefix": 5}, TypeError),
    ],
)
def test_clear_without_saying_what_is_refused(face: str, options: dict[str, Any], error: type[Exception]) -> None:
    stand = Stand()
    stand.store.set("k", b"v")
    with pytest.raises(error):
        call(face, stand.store, "clear", **options)
    assert stand.bottom.value("k") == b"v"
    assert "scan" not in stand.bottom.log


def test_clear_all_takes_an_empty_prefix_too() -> None:
    stand = Stand()
    stand.store.set("k", b"v")
    assert stand.store.clear(prefix="", all=True) == 1


def test_clear_where_memory_is_the_authority() -> None:
    store = TieredStore([Memory()])
    store.mset({"k1": b"1", "k2": b"2", "other": b"3"})
    assert store.clear(prefix="k") == 2
    assert store.mget(["k1", "k2", "other"]) == [None, None, b"3"]
    assert store.clear(all=True) == 1
    store.close()


def test_clear_a_write_that_began_before_and_ends_after_is_not_older_than_it() -> None:
    """Above the authority nothing differs from it, whichever of the two came last there."""
    stand = Stand()
    stand.store.set("k", b"v0")
    write = setting(stand.store, "k", b"v1").to("put bottom")
    answer = fetched(write)
    stand.store.clear(all=True)
    deliver(write, answer)
    evicted = stand.store.get("k")
    evict(stand.store)
    assert stand.store.get("k") == evicted == stand.bottom.value("k")


# -- scoped ----------------------------------------------------------------------------------------------------------


@faces
@either
def test_invariant_10_neither_a_scope_nor_its_parent_sees_the_others_keys(face: str, plain: bool) -> None:
    stand = over(plain, namespace="n")
    stores = {
        "n": stand.store,
        "n.t": stand.store.scoped("t"),
        "n.t.u": stand.store.scoped("t").scoped("u"),
        "n.tu": stand.store.scoped("tu"),
        "n.u": stand.store.scoped("u"),
    }
    for name, store in stores.items():
        call(face, store, "mset", {"k": name.encode(), f"only {name}": b""})
    for name, store in stores.items():
        assert call(face, store, "get", "k") == name.encode()
        evict(store)
        assert call(face, store, "get", "k") == name.encode()
        assert sorted(store.yield_keys()) == ["k", f"only {name}"]
        call(face, store, "delete", "k")
        for other, its in stores.items():
            if other > name:
                assert call(face, its, "get", "k") == other.encode()
        assert call(face, store, "get", "k") is None


def test_invariant_10_namespaces_and_scopes_are_injective() -> None:
    spaces = set()
    names = ["a", "b", "ab", ":", "a:b", "/", "%1f", "\\x1f", " ", "ä", "\x1e", "\x00"]
    for namespace in names:
        store = Stand((), namespace=namespace).store
        spaces.add(store._stack.space)
        for name in names:
            scope = store.scoped(name)
            assert scope._stack.space == namespace + SCOPE + name
            spaces.add(scope._stack.space)
            spaces.add(scope.scoped("c")._stack.space)
    assert len(spaces) == len(names) * (1 + 2 * len(names))


@pytest.mark.parametrize("bad", ["", "a\x1fb", "\x1f", "a\x1f", "\ud800"])
def test_a_scope_with_a_bad_name_is_refused(bad: str) -> None:
    store = Stand().store
    with pytest.raises(ConfigurationError):
        store.scoped(bad)
    if bad:
        with pytest.raises(ConfigurationError):
            Stand(namespace=bad)


@pytest.mark.parametrize("bad", [None, 5, b"a"])
def test_a_scope_whose_name_is_no_str_is_refused(bad: Any) -> None:
    with pytest.raises((ConfigurationError, TypeError)):
        Stand().store.scoped(bad)


def test_a_scope_shares_memory_flights_health_and_stats() -> None:
    stand = Stand()
    scope, same = stand.store.scoped("s"), stand.store.scoped("s")
    scope.set("k", b"v")
    assert same.get("k") == b"v"
    assert scope.stats() == same.stats() == stand.store.stats()
    assert stand.store.stats().tiers["memory"].entries == 1
    assert stand.store.stats().tiers["memory"].hits == 1
    first = loading(scope, "l", lambda key: b"loaded").to("load")
    assert loading(same, "l", lambda key: b"again").at == "join"
    assert loading(stand.store, "l", lambda key: b"again").at != "join", "another key"
    first.result()
    stand.upper.fail()
    for at in range(PATIENCE):
        scope.get(f"other {at}")
    stand.upper.heal()
    asked = len(stand.upper.log)
    stand.store.get("k")
    assert len(stand.upper.log) == asked, "the tier is skipped for all of them"


def test_scopes_share_one_budget_of_memory() -> None:
    store = TieredStore([Tier(Memory(max_entries=4, policy="lru")), SimTier()])
    scope = store.scoped("s")
    store.mset({f"p{at}": b"v" for at in range(4)})
    scope.mset({f"s{at}": b"v" for at in range(4)})
    assert store.stats().tiers["memory"].entries == 4
    assert [store._hit(f"p{at}") for at in range(4)] == [None] * 4
    store.close()


def test_R13_R16_dirty_marks_of_a_scope_and_its_parent_are_told_apart() -> None:
    stand = Stand()
    scope = stand.store.scoped("s")
    for store in (stand.store, scope):
        store.set("k", b"v0")
        evict(store)
    stand.clock.advance(1)
    stand.upper.script("put", "before")
    scope.set("k", b"v1")
    evict(scope)
    assert stand.level.marks.keys() == {("\x1fs", "k")}
    fetches = stand.bottom.log.count("fetch")
    stand.level.failed(0.0, BackendUnavailable("simulated"))  # so that no upkeep repairs it
    assert stand.store.get("k") == b"v0"
    assert stand.bottom.log.count("fetch") == fetches, "the parent's copy is trusted"
    assert scope.get("k") == b"v1"
    stand.store.flush()
    assert not stand.level.marks, "any of them repairs"
    assert stand.upper.rows["\x1fs", "k"].value == b"v1"


@faces
def test_clear_of_a_prefix_and_of_a_scope_leave_the_others_alone(face: str) -> None:
    stand = Stand()
    a, b = stand.store.scoped("a"), stand.store.scoped("b")
    for store in (stand.store, a, b, a.scoped("inner")):
        store.mset({"k1": b"1", "k2": b"2"})
    assert call(face, stand.store, "clear", prefix="k") == 2
    for store in (a, b, a.scoped("inner")):
        assert store.mget(["k1", "k2"]) == [b"1", b"2"]
    assert call(face, b, "clear", prefix="k1") == 1
    assert b.mget(["k1", "k2"]) == [None, b"2"]
    assert call(face, a, "clear", all=True) == 4, "its own and the inner scope's"
    assert a.scoped("inner").get("k1") is None
    assert b.get("k2") == b"2"


@faces
@either
def test_clear_all_includes_scopes_wherever_they_are_held(face: str, plain: bool) -> None:
    stand = over(plain)
    a, inner = stand.store.scoped("a"), stand.store.scoped("a").scoped("inner")
    for store in (stand.store, a, inner):
        store.mset({"k1": b"1", "k2": b"2"})
    if not plain:
        stand.upper.rows["\x1fabove", "k"] = Entry(VALUE, stamp_at(stand.clock.time()), None, b"stray")
        above = stand.store.scoped("above")
    memory = stand.store.scoped("memory only")
    memory.set("k", b"v")
    for tier in (*stand.uppers, stand.bottom):
        tier.rows.pop(("\x1fmemory only", "k"), None)
    assert memory.get("k") == b"v"
    assert call(face, stand.store, "clear", all=True) == 6
    for store in (stand.store, a, inner):
        assert store.mget(["k1", "k2"]) == [None, None]
        evict(store)
        assert store.mget(["k1", "k2"]) == [None, None]
    assert memory.get("k") is None
    if not plain:
        assert above.get("k") is None


def test_clear_all_does_not_touch_a_namespace_that_only_begins_alike() -> None:
    stand = Stand(namespace="n")
    beside = TieredStore([*stand.uppers, stand.bottom], namespace="nn", clock=stand.clock)
    beside.set("k", b"v")
    stand.store.set("k", b"v")
    assert stand.store.clear(all=True) == 1
    assert beside.get("k") == b"v"


@faces
def test_clear_all_of_scopes_that_the_authority_cannot_name_raises(face: str) -> None:
    stand = Stand()
    stand.store.scoped("s").set("k", b"v")
    stand.bottom.fail("spaces")
    with pytest.raises(BackendUnavailable):
        call(face, stand.store, "clear", all=True)


@faces
def test_a_closed_scope_leaves_its_parent_and_siblings_open(face: str) -> None:
    stand = Stand()
    scope, sibling, inner = stand.store.scoped("s"), stand.store.scoped("t"), stand.store.scoped("s").scoped("u")
    outer = stand.store.scoped("s")
    inner = outer.scoped("u")
    scope.set("k", b"v")
    call(face, scope, "close")
    call(face, scope, "close")
    with pytest.raises(StoreClosed):
        scope.get("k")
    assert outer.get("k") == b"v"
    for store in (stand.store, sibling, inner):
        store.set("k", b"v")
        assert store.get("k") == b"v"
    call(face, outer, "close")
    with pytest.raises(StoreClosed):
        inner.get("k")
    assert stand.bottom.closed == stand.upper.closed == 0


@faces
def test_a_closed_parent_closes_every_scope(face: str) -> None:
    stand = Stand()
    scope = stand.store.scoped("s")
    inner = scope.scoped("u")
    for store in (scope, inner):
        store.set("k", b"v")
    call(face, stand.store, "close")
    for store in (scope, inner):
        for use in (lambda s=store: s.get("k"), lambda s=store: s.set("k", b"v"), lambda s=store: list(s.yield_keys())):
            with pytest.raises(StoreClosed):
                use()
        with pytest.raises(StoreClosed):
            asyncio.run(store.aget("k"))
        with pytest.raises(StoreClosed):
            store.scoped("more")
        call(face, store, "close")
    assert stand.bottom.closed == stand.upper.closed == 1
    with pytest.raises(StoreClosed):
        stand.store.scoped("more")


def test_a_scope_keeps_what_it_shares_alive() -> None:
    bottom = SimTier("bottom")
    scope = TieredStore([Memory(), bottom]).scoped("s")
    gc.collect()
    scope.set("k", b"v")
    assert scope.get("k") == b"v"
    with scope as entered:
        assert entered is scope
    assert bottom.closed == 0


def test_closing_a_scope_repairs_what_it_can() -> None:
    stand = Stand()
    scope = stand.store.scoped("s")
    scope.set("k", b"v0")
    stand.clock.advance(1)
    stand.upper.script("put", "before")
    scope.set("k", b"v1")
    scope.close()
    assert not stand.level.marks
    assert stand.upper.rows["\x1fs", "k"].kind == INVALID


def test_a_scope_is_told_apart_in_its_repr_and_takes_the_stacks_options() -> None:
    stand = Stand(namespace="n", default_ttl=50)
    scope = stand.store.scoped("s")
    assert "'n\\x1fs'" in repr(scope)
    scope.set("k", b"v")
    assert stand.bottom.rows["n\x1fs", "k"].expires == int((stand.clock.time() + 50) * 1000)


@pytest.mark.parametrize("mode", [STRICT, WriteAround()], ids=["strict", "around"])
def test_a_scope_writes_in_the_mode_of_its_stack(mode: Any) -> None:
    stand = Stand(write=mode)
    scope = stand.store.scoped("s")
    scope.set("k", b"v")
    assert "swap" in stand.upper.log if mode == STRICT else "put" not in stand.upper.log
    assert scope.get("k") == b"v"
    deleting(scope, "k").result()
    assert scope.get("k") is None
    assert stand.bottom.rows["\x1fs", "k"].kind == DELETED
    assert ages["upper"] > 0


@faces
def test_after_close_nothing_is_forgotten_any_more(face: str) -> None:
    stand = Stand()
    stand.store.set("k", b"v")
    stand.store.close()
    asked = len(stand.bottom.log)
    for name, args, options in (("clear", (), {"all": True}), ("clear", (), {}), ("invalidate", (["k"],), {})):
        with pytest.raises(StoreClosed):
            call(face, stand.store, name, *args, **options)
    assert len(stand.bottom.log) == asked


def test_purging_a_store_purges_its_scopes_too() -> None:
    stand = Stand()
    stand.store.scoped("a").scoped("b").set("k", b"v", ttl=5)
    stand.clock.advance(6)
    assert stand.store.purge_expired() >= 2, "in the shared tier and in the authority"
    assert {entry.kind for tier in (stand.upper, stand.bottom) for entry in tier.rows.values()} == {INVALID, DELETED}


def test_expired_rows_of_a_scope_nobody_writes_to_any_more_go_with_the_writes_of_others() -> None:
    stand = Stand()
    stand.store.scoped("idle").set("k", b"v", ttl=5)
    for _ in range(4):  # expired for longer than its marks are kept
        stand.clock.advance(200_000)
        stand.store.set("other", b"v")
    idle = SCOPE + "idle"
    assert [name for tier in (stand.upper, stand.bottom) for name in tier.rows if name[0] == idle] == []


def test_a_shared_tier_that_cannot_be_cleared_is_distrusted_under_that_prefix_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand = Stand()
    stand.store.mset({"a:1": b"1", "b:1": b"1"})
    stand.bottom.rows.pop(("", "a:1"))  # lost there: only its copy is left
    stand.upper.script("scan", "before")
    stand.store.clear(prefix="a:")
    evict(stand.store)
    assert stand.store.mget(["a:1", "b:1"]) == [None, b"1"]
    assert stand.store.stats().tiers["upper"].hits == 1, "b:1"
    monkeypatch.setattr(level, "CLEARS", 1)
    stand.upper.script("scan", "before")
    stand.store.clear(prefix="c:")
    evict(stand.store)
    hits = stand.store.stats().tiers["upper"].hits
    assert stand.store.mget(["a:1", "b:1"]) == [None, b"1"]
    assert stand.store.stats().tiers["upper"].hits == hits, "more prefixes than are remembered: the whole tier"
    assert not stand.level.swept
    stand.clock.advance(ages["upper"])
    assert stand.level.floors("", stand.clock.monotonic()) == []
