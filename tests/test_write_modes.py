"""Strict writes, writes around, and authorities without stamps (R8, R9, R18-R20, R22, E2, E11).

Most drive plans by hand (`tests.simulation.hand`) to force the very interleaving that a rule is there for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tiered import Memory, Tier, TieredStore, WriteAround, WriteThrough
from tiered.entry import DELETED, INVALID, VALUE, Entry
from tiered.errors import (
    BackendUnavailable,
    BatchError,
    ConfigurationError,
    CorruptEntry,
    Indeterminate,
    Unsupported,
)
from tiered.level import PATIENCE

from .simulation.hand import Hand, deleting, getting, loading, setting
from .simulation.stand import Stand, ages, call, evict, faces, remembered, stamp_at
from .simulation.tier import SimTier

STRICT = WriteThrough(strict=True)
DAY = 86_400.0


def strict(uppers: tuple[str, ...] = ("upper",), **options: Any) -> Stand:
    return Stand(uppers, write=STRICT, **options)


def writing(what: str, store: TieredStore, key: str = "k") -> Hand:
    return setting(store, key, b"v1") if what == "set" else deleting(store, key)


def put(face: str, what: str, store: TieredStore) -> None:
    """The same through a face, to its end."""
    call(face, store, what, "k", *([b"v1"] if what == "set" else []))


def behind_authority(write: Hand) -> Hand:
    """Just before the last step, above the authority."""
    write.to("put bottom").step()
    return write


def written(what: str) -> bytes | None:
    return b"v1" if what == "set" else None


def deliver(reader: Hand, answer: Any) -> Any:
    """A reader gets the answer that was on its way, and ends."""
    reader._go(lambda: reader._plan.send(answer))
    return reader.result()


def fetched(reader: Hand) -> Any:
    return reader._perform(reader.effect)


writes = pytest.mark.parametrize("what", ["set", "delete"])


# -- R18: strict -----------------------------------------------------------------------------------------------------


@writes
def test_R18_the_marker_comes_before_the_authority_and_hides_the_older_copy_from_others(what: str) -> None:
    stand = strict()
    stand.store.set("k", b"v0")
    other, _ = stand.other()
    write = writing(what, stand.store).to("put bottom")
    assert stand.upper.rows["", "k"].kind == INVALID
    assert stand.upper.rows["", "k"].stamp == write.effect.items[0][1].stamp, "the marker carries the write's stamp"
    assert stand.bottom.value("k") == b"v0"
    assert other.get("k") == b"v0", "not yet written"
    assert stand.upper.rows["", "k"].kind == INVALID, "what was read meanwhile is refused: the marker is newer"
    evict(other)
    write.step()
    assert not write.done, "the value is still to come to the shared tier"
    assert other.get("k") == written(what), "between the authority and the shared tier"
    write.result()
    evict(other)
    assert other.get("k") == written(what)


def test_R18_the_marker_is_replaced_by_the_value_and_only_lasts_for_the_writes_deadline() -> None:
    stand = strict(("upper", "lower"))
    write = setting(stand.store, "k", b"v1").to("put bottom")
    now = stand.clock.time() * 1000
    for tier in stand.uppers:
        marker = tier.rows["", "k"]
        assert marker.kind == INVALID
        assert marker.value == b""
        assert now < (marker.expires or 0) <= now + 10_000, "seconds"
    write.result()
    for tier in stand.uppers:
        assert (tier.value("k"), tier.rows["", "k"].stamp) == (b"v1", stand.bottom.rows["", "k"].stamp)
        assert tier.rows["", "k"].expires == int((stand.clock.time() + ages[tier.scheme]) * 1000), "R10"
    assert remembered(stand.store, "k") == b"v1"
    assert not any(level.marks for level in stand.store._stack.uppers)


@writes
@pytest.mark.parametrize("dies", ["cancelled", "thrown away"])
def test_R18_closes_E2_a_writer_that_dies_after_the_authority(what: str, dies: str) -> None:
    """Its own dirty marks die with it: others see the new state at once with strict, the old copy without."""
    seen = {}
    for mode in (STRICT, WriteThrough()):
        stand = Stand(write=mode)
        stand.store.set("k", b"v0")
        other, _ = stand.other()
        write = writing(what, stand.store).to("put bottom")
        write.step()
        if dies == "cancelled":
            write.throw(asyncio.CancelledError())
        else:
            write.close()
        assert stand.bottom.rows["", "k"].kind == (VALUE if what == "set" else DELETED)
        seen[mode] = other.get("k")
    assert seen == {STRICT: written(what), WriteThrough(): b"v0"}


@faces
@writes
def test_R18_a_refused_marker_is_stamped_again_before_the_authority(face: str, what: str) -> None:
    """The shared tier holds what a clock ahead of ours wrote; the authority lost it, or never had it."""
    stand = strict(("upper", "lower"))
    ahead = Entry(VALUE, stamp_at(stand.clock.time() + 60), None, b"theirs")
    stand.uppers[1].rows["", "k"] = ahead
    put(face, what, stand.store)
    assert stand.bottom.log.count("put") == 1, "nothing came to the authority before every marker was taken"
    row = stand.bottom.rows["", "k"]
    assert row.stamp > ahead.stamp
    assert [tier.rows["", "k"].stamp for tier in stand.uppers] == [row.stamp] * 2
    assert stand.store.get("k") == written(what)
    evict(stand.store)
    assert stand.store.get("k") == written(what)


def test_R18_markers_that_are_refused_for_ever_leave_the_authority_untouched() -> None:
    stand = strict()
    seconds = [stand.clock.time()]

    def theirs(name: str) -> str:
        if name == "swap":
            seconds[0] += 10
            stand.upper.rows["", "k"] = Entry(VALUE, stamp_at(seconds[0]), None, b"theirs")
        return "ok"

    stand.upper.fault = theirs
    with pytest.raises(BackendUnavailable):
        stand.store.set("k", b"v1")
    assert stand.bottom.log == []


@faces
@writes
@pytest.mark.parametrize("how", ["before", "after", "late", "skipped"])
def test_R18_without_a_confirmed_marker_nothing_is_written_and_the_old_value_is_served(
    face: str, what: str, how: str
) -> None:
    stand = strict()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)
    if how == "skipped":
        stand.upper.fail()
        for at in range(PATIENCE):
            stand.store.get(f"other {at}")
        stand.upper.heal()
    else:
        stand.upper.script("swap", how)
    puts = stand.bottom.log.count("put")
    with pytest.raises(BackendUnavailable, match="nothing was written") as caught:
        put(face, what, stand.store)
    assert caught.value.tier == "upper"
    assert stand.bottom.log.count("put") == puts, "the authority is untouched"
    assert not stand.level.marks, "what lies above is as good as before"
    assert call(face, stand.store, "get", "k") == remembered(stand.store, "k") == b"v0"
    evict(stand.store)
    stand.clock.advance(60)
    assert call(face, stand.store, "get", "k") == b"v0"
    stand.upper.arrive()
    evict(stand.store)
    assert call(face, stand.store, "get", "k") == b"v0"


def test_R18_a_shared_tier_that_cannot_be_looked_at_is_none_that_takes_a_marker() -> None:
    stand = strict()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)
    puts, rows = stand.bottom.log.count("put"), dict(stand.upper.rows)
    stand.upper.script("fetch", "before")
    with pytest.raises(BackendUnavailable, match="nothing was written"):
        stand.store.set("k", b"v1")
    assert stand.bottom.log.count("put") == puts
    assert stand.upper.rows == rows


def test_R18_a_marker_that_one_of_two_tiers_refused_to_take_is_removed_from_the_other() -> None:
    stand = strict(("upper", "lower"))
    stand.uppers[1].script("swap", "before")
    with pytest.raises(BackendUnavailable):
        stand.store.set("k", b"v1")
    assert ("", "k") not in stand.upper.rows
    assert stand.bottom.log == []


@writes
def test_R18_a_write_that_failed_for_certain_takes_its_marker_back_and_the_tier_fills_again(what: str) -> None:
    stand = strict()
    stand.seed("k", b"v0", stand.bottom)
    stand.clock.advance(1)
    stand.bottom.fail("put")
    with pytest.raises(BackendUnavailable):
        writing(what, stand.store).result()
    assert ("", "k") not in stand.upper.rows, "compared and removed"
    stand.bottom.heal()
    assert stand.store.get("k") == b"v0"
    assert stand.upper.value("k") == b"v0"


@pytest.mark.parametrize("leases", [False, True])
@pytest.mark.parametrize("there", ["value", "deleted", "invalid", "nothing", "damaged"])
def test_R18_R8_a_marker_that_is_taken_back_leaves_the_stamp_of_what_it_replaced(there: str, leases: bool) -> None:
    """Else a slow fill from before that would find nothing to refuse it, where fills need no lease."""
    stand = strict()
    stand.upper.capabilities = replace(stand.upper.capabilities, leases=leases)
    old = stand.seed("k", b"old", stand.bottom)
    stand.clock.advance(1)
    other, _ = stand.other()
    slow = getting(other, "k").to("fill upper")
    new = stand.seed("k", b"new", stand.bottom)
    kind = {"value": VALUE, "deleted": DELETED, "invalid": INVALID}.get(there)
    if kind is not None:
        stand.upper.rows["", "k"] = new._replace(kind=kind)
    if there == "damaged":
        stand.upper.rows["", "k"] = CorruptEntry("simulated")  # type: ignore[assignment]
        stand.upper.rows["", "k"].stamp, stand.upper.rows["", "k"].kind = new.stamp, VALUE  # type: ignore[misc]
    stand.clock.advance(1)
    stand.bottom.fail("put")
    with pytest.raises(BackendUnavailable):
        stand.store.set("k", b"never")
    stand.bottom.heal()
    left = stand.upper.rows.get(("", "k"))
    if there == "nothing" or leases:
        assert left is None
    elif there == "damaged":
        assert left is not None
        assert left.kind == INVALID, "what it replaced is not known: it stays"
    else:
        assert left == Entry(INVALID, new.stamp, None, b"")
    if not leases:
        slow.result()
        assert there == "nothing" or stand.upper.value("k") != b"old"
        assert stand.store.get("k") == (b"old" if there == "nothing" else b"new"), "E2: it knew nothing of the new one"
    assert old.stamp < new.stamp


def test_R18_a_marker_of_a_marker_is_taken_back_to_what_was_there_first() -> None:
    stand = strict()
    stand.store.set("k", b"v0")
    first = stand.upper.rows["", "k"].stamp
    stand.clock.advance(1)
    stand.bottom.rows["", "k"] = Entry(VALUE, stamp_at(stand.clock.time() + 60), None, b"theirs")
    write = setting(stand.store, "k", b"v1").to("put bottom")
    write.step()
    write.to("put bottom")
    stand.bottom.fail("put")
    with pytest.raises(BackendUnavailable):
        write.result()
    assert stand.upper.rows["", "k"] == Entry(INVALID, first, None, b"")


def test_R18_only_the_own_marker_is_taken_back() -> None:
    stand = strict()
    other, _ = stand.other(skew=+5)
    stand.bottom.fail("put")
    write = setting(stand.store, "k", b"v1").to("retract upper")  # there was nothing below it
    theirs = setting(other, "k", b"theirs").to("put bottom")
    marker = stand.upper.rows["", "k"]
    with pytest.raises(BackendUnavailable):
        write.result()
    assert stand.upper.rows["", "k"] == marker
    stand.bottom.heal()
    theirs.result()
    assert stand.upper.value("k") == b"theirs"


@writes
def test_R18_an_indeterminate_write_leaves_its_marker(what: str) -> None:
    stand = strict()
    stand.store.set("k", b"v0")
    other, _ = stand.other()
    stand.clock.advance(1)
    stand.bottom.fail("put", how="late")
    with pytest.raises(Indeterminate):
        writing(what, stand.store).result()
    stand.bottom.heal()
    assert stand.upper.rows["", "k"].kind == INVALID
    assert other.get("k") == b"v0"
    assert stand.upper.rows["", "k"].kind == INVALID, "the late write is newer than what others fill"
    stand.bottom.arrive()
    evict(other)
    assert other.get("k") == written(what)
    assert stand.store.get("k") == written(what)


@faces
@writes
def test_R18_what_the_authority_refuses_begins_again_at_the_marker(face: str, what: str) -> None:
    stand = strict()
    stand.bottom.rows["", "k"] = Entry(VALUE, stamp_at(stand.clock.time() + 60), None, b"theirs")
    events: list[tuple[str, bytes]] = []

    def watch(tier: SimTier) -> None:
        def fault(name: str) -> str:
            if name in ("put", "swap"):
                events.append((f"{name} {tier.scheme}", tier.asked[-1][1][0][1].stamp))
            return "ok"

        tier.fault = fault

    watch(stand.upper)
    watch(stand.bottom)
    put(face, what, stand.store)
    assert [name for name, _ in events] == ["swap upper", "put bottom"] * 2 + ["swap upper"]
    first, second = events[0][1], events[2][1]
    assert [stamp for _, stamp in events] == [first, first, second, second, second]
    assert stand.bottom.rows["", "k"].stamp == stand.upper.rows["", "k"].stamp == second
    assert stand.store.get("k") == written(what)


@pytest.mark.parametrize("there", ["absent", "older", "lease", "newer value", "newer marker"])
@writes
def test_R18_R19_the_last_step_replaces_nothing_but_the_own_marker(what: str, there: str) -> None:
    stand = strict()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)
    write = behind_authority(writing(what, stand.store))
    now = stand.clock.time()
    name = ("", "k")
    entry = {
        "absent": None,
        "older": Entry(VALUE, stamp_at(now - 1), None, b"old"),
        "lease": Entry(INVALID, bytes(12), None, b"12345678"),
        "newer value": Entry(VALUE, stamp_at(now + 1), None, b"newer"),
        "newer marker": Entry(INVALID, stamp_at(now + 1), None, b""),
    }[there]
    del stand.upper.rows[name]
    if entry is not None:
        stand.upper.rows[name] = entry
    write.result()
    if there.startswith("newer"):
        assert stand.upper.rows[name] == entry
        assert remembered(stand.store, "k") is None, "R19: the other writer won"
    else:
        assert stand.upper.value("k") is None, "nothing is installed, and nothing older stays"
        assert stand.upper.rows.get(name, Entry(INVALID, b"", None, b"")).kind == INVALID
    assert name not in stand.level.marks
    evict(stand.store)
    assert stand.store.get("k") == (b"newer" if there == "newer value" else written(what))


@pytest.mark.parametrize("step", ["swap", "void"])
def test_R18_a_last_step_that_fails_is_repaired_and_shows_nobody_the_old_value(step: str) -> None:
    stand = strict()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)
    other, _ = stand.other()
    write = behind_authority(setting(stand.store, "k", b"v1"))
    stand.upper.script(step, "before")
    if step == "void":
        stand.upper.rows["", "k"] = Entry(VALUE, stamp_at(stand.clock.time() - 1), None, b"old")
    write.result()
    assert ("", "k") in stand.level.broken
    assert stand.store.get("k") == b"v1"
    if step == "swap":
        assert other.get("k") == b"v1"
    stand.store.flush()
    assert not stand.level.marks
    evict(stand.store)
    assert stand.store.get("k") == b"v1"


def test_R18_of_two_strict_writers_the_newer_stays_everywhere() -> None:
    stand = strict()
    other, _ = stand.other(skew=+5)
    first = setting(stand.store, "k", b"v1").to("put bottom")
    second = setting(other, "k", b"v2").to("put bottom")
    first.step()
    assert first.at == "swap upper"
    second.result()
    first.result()
    assert stand.upper.value("k") == stand.bottom.value("k") == stand.store.get("k") == other.get("k") == b"v2"


def test_R18_an_older_write_that_is_slow_above_the_authority_brings_nothing_back() -> None:
    stand = strict()
    slow = behind_authority(setting(stand.store, "k", b"v1"))
    other, _ = stand.other(skew=+1)
    other.delete("k")
    slow.result()
    assert remembered(stand.store, "k") is None
    assert stand.store.get("k") is None
    assert stand.upper.rows["", "k"].kind == DELETED


@faces
def test_R18_invariant_9_a_batch_in_part(face: str) -> None:
    stand = strict()
    keys = ["a", "b", "c", "d"]
    stand.store.mset(dict.fromkeys(keys, b"v0"))
    stand.clock.advance(1)
    other, _ = stand.other()
    before = stand.upper.rows["", "d"].stamp
    stand.bottom.script("put", "half", "before", "before", "before")
    with pytest.raises(BatchError) as caught:
        call(face, stand.store, "mset", dict.fromkeys(keys, b"v1"))
    error = caught.value
    assert (error.written, error.unknown, error.not_written) == (["a", "b"], ["c"], ["d"])
    assert stand.upper.rows["", "d"] == Entry(INVALID, before, None, b""), "not written: the marker is taken back"
    assert {stand.upper.rows["", key].kind for key in "abc"} == {INVALID}
    assert ("", "d") not in stand.level.marks
    assert all(("", key) in stand.level.broken for key in "abc")
    stand.bottom.heal()
    evict(stand.store, "d")
    assert stand.store.get("d") == stand.upper.value("d") == b"v0", "it fills again"
    stand.bottom.heal()
    expected = [b"v1", b"v1", b"v0", b"v0"]
    assert other.mget(keys) == expected
    assert call(face, stand.store, "mget", keys) == expected
    assert not stand.level.marks


def test_R18_of_a_batch_only_what_was_refused_is_announced_again() -> None:
    stand = strict()
    stand.bottom.rows["", "b"] = Entry(VALUE, stamp_at(stand.clock.time() + 60), None, b"theirs")
    stand.store.mset({"a": b"1", "b": b"2"})
    puts = [[key for key, *_ in items] for name, items in stand.upper.asked if name == "swap"]
    assert puts == [["a", "b"], ["b"], ["a", "b"]], "two rounds of markers, and the last step"
    assert [stand.upper.rows["", key] for key in "ab"] == [
        stand.bottom.rows["", key]._replace(expires=stand.upper.rows["", key].expires) for key in "ab"
    ]
    assert stand.store.mget(["a", "b"]) == [b"1", b"2"]


@pytest.mark.parametrize("leases", [False, True])
def test_R18_R1_a_marker_refused_by_a_stamp_from_too_far_ahead_does_not_stop_writes_for_ever(leases: bool) -> None:
    stand = strict()
    stand.upper.capabilities = replace(stand.upper.capabilities, leases=leases)
    stand.store.set("k", b"v0")
    stand.upper.rows["", "k"] = Entry(VALUE, stamp_at(stand.clock.time() + 2 * DAY), None, b"far")
    stand.store.set("k", b"v1")
    assert stand.bottom.value("k") == stand.store.get("k") == b"v1"
    evict(stand.store)
    assert stand.store.get("k") == b"v1"
    assert stand.clock.draw() < stamp_at(stand.clock.time() + DAY)


def test_R18_strict_over_the_authority_alone_is_a_plain_write() -> None:
    stand = Stand((), write=STRICT)
    stand.store.set("k", b"v")
    assert stand.bottom.log[0] == "put"
    assert stand.store.get("k") == b"v"


@pytest.mark.parametrize("ending", ["error", "cancelled", "thrown away"])
@pytest.mark.parametrize("at", ["marker", "put bottom", "last step"])
def test_R12_R15_a_strict_write_that_ends_anywhere_leaves_nothing_older_above(at: str, ending: str) -> None:
    stand = strict()
    stand.store.set("k", b"v0")
    stand.clock.advance(1)
    write = setting(stand.store, "k", b"v1")
    if at == "last step":
        behind_authority(write)
    else:
        write.to("swap upper" if at == "marker" else at)
    answer = write._perform(write.effect)
    assert answer is not None
    if ending == "thrown away":
        write.close()
    else:
        write.throw(asyncio.CancelledError() if ending == "cancelled" else Indeterminate("simulated"))
        if not write.done:
            write.close()
    assert not stand.store._made.space.busy("k")
    assert stand.store.get("k") == (b"v0" if at == "marker" else b"v1")
    other, _ = stand.other()
    assert other.get("k") == stand.store.get("k")


# -- WriteAround -----------------------------------------------------------------------------------------------------


@faces
@writes
def test_R17_a_write_around_voids_shared_tiers_drops_memory_and_the_next_read_brings_it(face: str, what: str) -> None:
    stand = Stand(("upper", "lower"), write=WriteAround())
    old = stand.seed("k", b"v0", stand.bottom, *stand.uppers)
    assert stand.store.get("k") == b"v0"
    stand.clock.advance(1)
    put(face, what, stand.store)
    for tier in stand.uppers:
        assert tier.rows["", "k"].kind == INVALID
        assert tier.rows["", "k"].stamp > old.stamp
        assert "put" not in tier.log
    assert remembered(stand.store, "k") is None
    assert not any(level.marks for level in stand.store._stack.uppers)
    assert call(face, stand.store, "get", "k") == written(what)
    for tier in stand.uppers:
        assert tier.rows["", "k"].kind == (VALUE if what == "set" else DELETED)
        assert tier.rows["", "k"].stamp == stand.bottom.rows["", "k"].stamp
    assert remembered(stand.store, "k") == written(what)


def test_R17_around_a_tier_that_cannot_be_voided_is_repaired() -> None:
    stand = Stand(write=WriteAround())
    stand.seed("k", b"v0", stand.bottom, stand.upper)
    stand.clock.advance(1)
    stand.upper.script("void", "before")
    stand.store.set("k", b"v1")
    assert ("", "k") in stand.level.broken
    assert stand.store.get("k") == b"v1"
    evict(stand.store)
    assert stand.store.get("k") == b"v1"
    assert not stand.level.marks


@writes
def test_R12_around_a_slow_read_from_before_the_write_reinstalls_nothing(what: str) -> None:
    stand = Stand(write=WriteAround())
    stand.seed("k", b"v0", stand.bottom)
    stand.clock.advance(1)
    reader = getting(stand.store, "k").to("fetch bottom")
    answer = fetched(reader)
    writing(what, stand.store).result()
    assert deliver(reader, answer) == b"v0"
    assert remembered(stand.store, "k") is None
    assert stand.upper.value("k") is None
    assert stand.store.get("k") == written(what)


def test_get_or_load_over_around_still_keeps_what_it_loaded() -> None:
    """Nobody wrote it: the copy is as good as one that a read made."""
    stand = Stand(write=WriteAround())
    assert loading(stand.store, "k", lambda key: b"loaded").result() == b"loaded"
    assert stand.bottom.value("k") == b"loaded"
    assert stand.store.get("k") == b"loaded"


# -- R9: authorities without stamps ----------------------------------------------------------------------------------


def plain(**options: Any) -> Stand:
    return Stand((), plain=True, **options)


@faces
def test_R9_memory_keeps_a_write_that_no_other_overlapped(face: str) -> None:
    stand = plain()
    call(face, stand.store, "set", "k", b"v1")
    assert remembered(stand.store, "k") == b"v1"
    call(face, stand.store, "mset", {"k": b"v2", "l": b"w"})
    assert [remembered(stand.store, key) for key in "kl"] == [b"v2", b"w"]
    call(face, stand.store, "delete", "k")
    assert remembered(stand.store, "k") is None
    assert call(face, stand.store, "mget", ["k", "l"]) == [None, b"w"]
    assert ("", "k") not in stand.bottom.rows


@pytest.mark.parametrize("last", ["first", "second"])
@pytest.mark.parametrize("ends", ["in order", "crossed"])
def test_R9_of_two_overlapping_writes_memory_keeps_neither(last: str, ends: str) -> None:
    """Either may have come last in the authority, and no stamp says which."""
    stand = plain()
    stand.store.set("k", b"v0")
    one = setting(stand.store, "k", b"v1").to("put bottom")
    two = setting(stand.store, "k", b"v2").to("put bottom")
    early, late = (two, one) if last == "first" else (one, two)
    answers = {early: early._perform(early.effect), late: late._perform(late.effect)}
    for hand in (early, late) if ends == "in order" else (late, early):
        deliver(hand, answers[hand])
        assert remembered(stand.store, "k") is None
    assert stand.store.get("k") == stand.bottom.value("k") == (b"v1" if last == "first" else b"v2")


def test_R9_three_writes_in_a_chain_each_overlapping_the_next() -> None:
    stand = plain()
    one = setting(stand.store, "k", b"v1").to("put bottom")
    two = setting(stand.store, "k", b"v2").to("put bottom")
    one.result()
    three = setting(stand.store, "k", b"v3").to("put bottom")
    three.step()
    two.result()
    three.result()
    assert remembered(stand.store, "k") in (None, stand.bottom.value("k"))
    assert stand.store.get("k") == stand.bottom.value("k") == b"v2"
    stand.store.set("k", b"v4")
    assert remembered(stand.store, "k") == b"v4", "and then all is as before"
    assert not stand.store._stack.overlaps._writing


def test_R9_writes_of_other_keys_and_of_other_namespaces_do_not_overlap() -> None:
    stand = plain()
    scope = stand.store.scoped("s")
    hands = [
        setting(stand.store, "k", b"v1").to("put bottom"),
        setting(stand.store, "l", b"v2").to("put bottom"),
        setting(scope, "k", b"v3").to("put bottom"),
    ]
    for hand in hands:
        hand.result()
    assert [remembered(stand.store, "k"), remembered(stand.store, "l"), remembered(scope, "k")] == [b"v1", b"v2", b"v3"]


@writes
@pytest.mark.parametrize("evicted", [True, False])
def test_R9_R12_a_slow_read_never_brings_back_what_a_write_replaced(what: str, evicted: bool) -> None:
    stand = plain()
    stand.store.set("k", b"v0")
    evict(stand.store)
    reader = getting(stand.store, "k").to("fetch bottom")
    answer = fetched(reader)
    writing(what, stand.store).result()
    if evicted:
        evict(stand.store)
    assert deliver(reader, answer) == b"v0", "it began before: it may say so"
    assert remembered(stand.store, "k") != b"v0"
    assert stand.store.get("k") == written(what)


@writes
def test_R9_R12_a_read_that_began_during_a_write_does_not_outlast_it(what: str) -> None:
    """Its generation is above the stamp that the write drew when it began."""
    stand = plain()
    stand.store.set("k", b"v0")
    evict(stand.store)
    write = writing(what, stand.store).to("put bottom")
    reader = getting(stand.store, "k").to("fetch bottom")
    answer = fetched(reader)
    write.step()
    write.result()
    deliver(reader, answer)
    assert remembered(stand.store, "k") == written(what)
    write = writing("set", stand.store).to("put bottom")
    evict(stand.store)
    assert stand.store.get("k") == written(what), "read and cached while the write is on its way"
    write.result()
    assert remembered(stand.store, "k") == stand.store.get("k") == b"v1"


@pytest.mark.parametrize("ending", ["error", "time-out", "cancelled", "thrown away"])
def test_R9_R15_a_write_that_ended_badly_leaves_nothing_older_in_memory(ending: str) -> None:
    stand = plain()
    stand.store.set("k", b"v0")
    evict(stand.store)
    write = setting(stand.store, "k", b"v1").to("put bottom")
    assert stand.store.get("k") == b"v0", "cached with a generation above the write's stamp"
    reader = Hand(stand.store, stand.store._mget(["k"], [None])).to("fetch bottom")
    answer = fetched(reader)
    write._perform(write.effect)  # it arrives
    if ending == "thrown away":
        write.close()
    elif ending == "cancelled":
        write.throw(asyncio.CancelledError())
    else:
        write.throw(Indeterminate("simulated") if ending == "time-out" else RuntimeError("simulated"))
    assert write.done
    deliver(reader, answer)
    assert remembered(stand.store, "k") is None
    assert stand.store.get("k") == b"v1"


@faces
@pytest.mark.parametrize("how", ["after", "late"])
def test_E11_a_timed_out_write_is_never_tried_again(face: str, how: str) -> None:
    """It may land after a later write: a second try would bring it back once more."""
    stand = plain()
    stand.bottom.script("put", how)
    with pytest.raises(Indeterminate):
        call(face, stand.store, "set", "k", b"v1")
    assert stand.bottom.log.count("put") == 1
    call(face, stand.store, "set", "k", b"v2")
    stand.bottom.arrive()
    assert stand.bottom.value("k") == (b"v1" if how == "late" else b"v2"), "E11, or not"
    assert stand.bottom.log.count("put") == 2


def test_E11_nor_is_the_unknown_part_of_a_batch() -> None:
    stand = plain()
    stand.bottom.script("put", "half")
    with pytest.raises(BatchError) as caught:
        stand.store.mset({"a": b"1", "b": b"2", "c": b"3", "d": b"4"})
    error = caught.value
    assert (error.written, error.unknown, error.not_written) == (["a", "b"], ["c"], ["d"])
    assert stand.bottom.log.count("put") == 1


def test_E11_what_failed_for_certain_is_tried_again() -> None:
    stand = plain()
    stand.bottom.script("put", "before")
    stand.store.set("k", b"v1")
    assert stand.bottom.log.count("put") == 2
    assert stand.store.get("k") == b"v1"


@faces
def test_R9_a_read_after_the_copy_expired_is_cached_again(face: str) -> None:
    stand = plain()
    call(face, stand.store, "set", "k", b"v1")
    stand.clock.advance(ages["memory"] + 1)
    fetches = stand.bottom.log.count("fetch")
    assert call(face, stand.store, "get", "k") == b"v1"
    assert call(face, stand.store, "get", "k") == b"v1"
    assert stand.bottom.log.count("fetch") == fetches + 1


def test_E1_what_another_process_wrote_is_seen_once_the_copy_is_too_old() -> None:
    stand = plain()
    stand.store.set("k", b"v1")
    other, _ = stand.other()
    other.set("k", b"v2")
    assert stand.store.get("k") == b"v1"
    stand.clock.advance(ages["memory"])
    assert stand.store.get("k") == b"v2"


@faces
def test_R22_a_ttl_over_what_keeps_no_expiry_is_refused_before_anything_is_written(face: str) -> None:
    stand = plain()
    for attempt in (
        lambda: call(face, stand.store, "set", "k", b"v", ttl=5),
        lambda: call(face, stand.store, "mset", {"k": b"v"}, ttl=5),
        lambda: call(face, stand.store, "get_or_load", "k", lambda key: pytest.fail("loaded"), ttl=5),
    ):
        with pytest.raises(Unsupported, match="no expiry") as caught:
            attempt()
        assert caught.value.tier == "bottom"
    assert stand.bottom.rows == {}
    assert "put" not in stand.bottom.log
    call(face, stand.store, "set", "k", b"v", ttl=None)
    assert stand.bottom.value("k") == b"v"


def test_R22_default_ttl_is_refused_at_construction() -> None:
    with pytest.raises(Unsupported, match="no expiry"):
        plain(default_ttl=60)
    assert plain(default_ttl=None).store.get("k") is None


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), True, "5"])
def test_R22_a_bad_ttl_is_a_bad_ttl_first(bad: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        plain().store.set("k", b"v", ttl=bad)
    assert not isinstance(caught.value, Unsupported)


def test_R20_over_plain_what_was_loaded_is_stored_if_nobody_wrote() -> None:
    stand = plain()
    assert loading(stand.store, "k", lambda key: b"loaded").result() == b"loaded"
    assert stand.bottom.value("k") == remembered(stand.store, "k") == b"loaded"


@pytest.mark.parametrize("then", ["present", "deleted again", "still under way"])
def test_R20_over_plain_nothing_is_stored_if_a_write_overlapped(then: str) -> None:
    """Where inserting into absence is not native nothing else tells: what is stored is returned."""
    stand = plain()
    load = loading(stand.store, "k", lambda key: b"loaded").to("load")
    write = setting(stand.store, "k", b"v1").to("put bottom")
    if then != "still under way":
        write.result()
    if then == "deleted again":
        stand.store.delete("k")
    assert load.result() == (b"v1" if then == "present" else b"loaded")
    assert stand.bottom.value("k") == (b"v1" if then == "present" else None)
    write.result()
    assert stand.store.get("k") == stand.bottom.value("k") == (None if then == "deleted again" else b"v1")


def test_R9_a_load_that_a_write_overlapped_is_not_kept_in_memory() -> None:
    stand = plain()
    load = loading(stand.store, "k", lambda key: b"loaded").to("swap bottom")
    write = setting(stand.store, "k", b"v1").to("put bottom")
    load.step()
    write.step()
    for hand in (load, write):
        hand.result()
    assert remembered(stand.store, "k") is None
    assert stand.store.get("k") == stand.bottom.value("k")


def test_R9_a_scan_and_clear_over_plain() -> None:
    stand = plain()
    stand.store.mset({"a": b"1", "b": b"2"})
    assert list(stand.store.yield_keys()) == ["a", "b"]
    assert stand.store.clear(all=True) == 2
    assert stand.bottom.rows == {}
    assert stand.store.mget(["a", "b"]) == [None, None]


# -- what cannot be put together -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tiers", "match"),
    [
        (lambda: [SimTier("middle", plain=True), SimTier()], "plain values above"),
        (lambda: [Memory(), Tier(SimTier("middle", plain=True), ttl=None), SimTier()], "plain values above"),
        (lambda: [SimTier("middle"), SimTier("bottom", plain=True)], "keeps no stamps"),
        (lambda: [Memory(), SimTier("middle"), SimTier("bottom", plain=True)], "keeps no stamps"),
    ],
)
def test_R9_plain_middles_and_tiers_above_a_plain_authority_are_refused_unless_immutable(
    tiers: Callable[[], list[Any]], match: str
) -> None:
    with pytest.raises(ConfigurationError, match=match):
        TieredStore(tiers())


def test_the_modes_are_checked_at_construction() -> None:
    for bad in ("strict", WriteThrough, 1, True):
        with pytest.raises(ConfigurationError, match="write="):
            TieredStore([Memory()], write=bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="strict="):
        WriteThrough(strict=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="immutable="):
        TieredStore([Memory()], immutable=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no older copies"):
        TieredStore([Memory(), SimTier()], immutable=True, write=STRICT)
    assert WriteThrough() == WriteThrough(strict=False) != WriteThrough(strict=True)
    assert WriteAround() == WriteAround()


# -- immutable -------------------------------------------------------------------------------------------------------


def test_immutable_has_no_maximum_ages_and_takes_plain_middles() -> None:
    middle, bottom = SimTier("middle", plain=True), SimTier("bottom", plain=True)
    stand = Stand((), immutable=True)
    store = TieredStore([Memory(), middle, bottom], immutable=True, clock=stand.clock)
    store.set("k", b"v")
    assert middle.value("k") == bottom.value("k") == b"v"
    stand.clock.advance(400 * DAY)
    assert store._hit("k") == b"v", "no maximum age"
    evict(store)
    bottom.rows.clear()
    assert store.get("k") == b"v", "the copy answers"
    middle.rows.clear()
    evict(store)
    bottom.rows["", "k"] = Entry(VALUE, bytes(12), None, b"v")
    assert store.get("k") == b"v"
    assert middle.value("k") == b"v", "and is made again"


def test_immutable_over_plain_keeps_copies_in_a_stamped_tier() -> None:
    middle, bottom = SimTier("middle"), SimTier("bottom", plain=True)
    clock = Stand(()).clock
    store = TieredStore([Memory(), middle, bottom], immutable=True, clock=clock)
    bottom.rows["", "k"] = Entry(VALUE, bytes(12), None, b"v")
    assert store.get("k") == b"v"
    assert middle.rows["", "k"].expires is None
    bottom.rows.clear()
    evict(store)
    assert store.get("k") == b"v"
    store.set("l", b"w")
    assert middle.value("l") == bottom.value("l") == b"w"


def test_immutable_a_plain_middle_that_keeps_no_expiry_takes_no_ttl() -> None:
    with pytest.raises(ConfigurationError, match="no expiry"):
        TieredStore([Tier(SimTier("middle", plain=True), ttl=60), SimTier()], immutable=True)


@pytest.mark.parametrize("middle", ["plain", "stamped"])
def test_E7_immutable_fills_are_set_if_absent(middle: str) -> None:
    """A `deleted` record above stops a late fill; where none can be kept, a delete can be undone by it."""
    upper, bottom = SimTier("upper", plain=middle == "plain"), SimTier("bottom")
    clock = Stand(()).clock
    store = TieredStore([upper, bottom], immutable=True, clock=clock)
    bottom.rows["", "k"] = Entry(VALUE, stamp_at(clock.time() - 1), None, b"v")
    reader = getting(store, "k").to("fill upper")
    store.delete("k")
    reader.result()
    assert store.get("k") == (b"v" if middle == "plain" else None), "E7, or not"


def test_immutable_a_fill_over_a_plain_middle_does_not_replace_what_is_there() -> None:
    upper, bottom = SimTier("upper", plain=True), SimTier("bottom", plain=True)
    store = TieredStore([upper, bottom], immutable=True, clock=Stand(()).clock)
    bottom.rows["", "k"] = Entry(VALUE, bytes(12), None, b"v")
    reader = getting(store, "k").to("fill upper")
    upper.rows["", "k"] = Entry(VALUE, bytes(12), None, b"there")
    reader.result()
    assert upper.value("k") == b"there"


def test_immutable_ttl_over_a_plain_middle_is_unsupported() -> None:
    store = TieredStore([SimTier("upper", plain=True), SimTier()], immutable=True)
    with pytest.raises(Unsupported) as caught:
        store.set("k", b"v", ttl=5)
    assert caught.value.tier == "upper"


# -- R8 without leases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", ["absent", "older", "same", "newer"])
def test_R8_a_void_writes_invalid_over_what_is_not_newer_and_into_absence(there: str) -> None:
    """So that a slow fill finds it: what is absent would take anything."""
    stand = Stand(write=WriteAround())
    write = setting(stand.store, "k", b"v1").to("void upper")
    own = stand.bottom.rows["", "k"]
    entry = {
        "absent": None,
        "older": own._replace(stamp=stamp_at(stand.clock.time() - 1), value=b"v0"),
        "same": own,
        "newer": own._replace(stamp=stamp_at(stand.clock.time() + 1), value=b"v2"),
    }[there]
    if entry is not None:
        stand.upper.rows["", "k"] = entry
    write.result()
    now = stand.upper.rows["", "k"]
    if there == "newer":
        assert now == entry
    else:
        assert (now.kind, now.stamp) == (INVALID, own.stamp)


def test_R8_what_was_voided_is_kept_for_the_longer_of_tombstone_ttl_and_the_tiers_age() -> None:
    for tombstone, kept in ((60, ages["upper"]), (2_000, 2_000)):
        stand = Stand(write=WriteAround(), tombstone_ttl=tombstone)
        stand.store.set("k", b"v1")
        assert stand.upper.rows["", "k"].kind == INVALID
        stand.clock.advance(kept - 1)
        stand.store.purge_expired()
        assert ("", "k") in stand.upper.rows
        stand.clock.advance(2)
        stand.store.purge_expired()
        assert ("", "k") not in stand.upper.rows
