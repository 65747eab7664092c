"""Tiers that fail: skipped and probed, counted, told apart; and stores that are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiered
from tiered import SQL, Memory, Tier, TieredStore, level
from tiered.entry import INVALID, VALUE, Entry
from tiered.errors import BackendUnavailable, CorruptEntry, StoreClosed, TieredError
from tiered.testing import FakeClock

from .simulation.hand import getting
from .simulation.stand import Stand, call, evict, faces, stamp_at
from .simulation.tier import SimTier


def broken_tier(stand: Stand) -> None:
    """The upper tier fails until it is skipped."""
    stand.upper.fail()
    for _ in range(level.PATIENCE):
        stand.store.get("absent")
    stand.upper.log.clear()


# -- skipping and probing --------------------------------------------------------------------------------------------


@faces
def test_five_failures_in_a_row_and_a_tier_is_skipped(face: str) -> None:
    stand = Stand()
    stand.upper.fail()
    for asked in (1, 2, 3, 4, 5, 5, 5):
        assert call(face, stand.store, "get", "absent") is None
        assert len(stand.upper.log) == asked
    upper = stand.store.stats().tiers["upper"]
    assert (upper.errors, upper.skipped) == (5, 2)


def test_four_failures_and_a_success_begin_anew() -> None:
    stand = Stand()
    for _ in range(3):
        stand.upper.script("fetch", *["before"] * 4)
        for _ in range(5):
            stand.store.get("absent")
    assert stand.upper.log.count("fetch") == 15
    assert stand.store.stats().tiers["upper"].skipped == 0


@faces
def test_probes_come_after_1_2_4_8_16_30_30_seconds(face: str) -> None:
    stand = Stand()
    broken_tier(stand)
    for number, pause in enumerate([1, 2, 4, 8, 16, 30, 30, 30]):
        stand.clock.advance(pause - 0.01)
        call(face, stand.store, "get", "absent")
        assert len(stand.upper.log) == number, f"too soon: before {pause} s"
        stand.clock.advance(0.01)
        for _ in range(3):
            call(face, stand.store, "get", "absent")
        assert len(stand.upper.log) == number + 1, f"one probe after {pause} s"


def test_a_probe_that_works_brings_the_tier_back() -> None:
    stand = Stand()
    broken_tier(stand)
    stand.upper.heal()
    stand.store.get("absent")
    assert stand.upper.log == []
    stand.clock.advance(1)
    for _ in range(3):
        stand.store.get("absent")
    assert stand.upper.log == ["fetch"] * 3


def test_one_caller_probes_while_the_others_pass_by() -> None:
    stand = Stand()
    broken_tier(stand)
    stand.clock.advance(1)
    probe = getting(stand.store, "absent")
    assert probe.at == "fetch upper"
    assert getting(stand.store, "absent").at == "fetch bottom"
    probe.close()  # cancelled: the next probe comes after another pause
    assert getting(stand.store, "absent").at == "fetch bottom"
    stand.clock.advance(1)
    assert getting(stand.store, "absent").at == "fetch upper"


def test_many_requests_that_fail_together_do_not_lengthen_the_pause() -> None:
    """Sixty-four tasks were waiting for it when it went: that is one outage, not sixty-four."""
    stand = Stand()
    readers = [getting(stand.store, f"k{number}") for number in range(64)]
    stand.upper.fail()
    for reader in readers:
        reader.result()
    assert stand.store.stats().tiers["upper"].errors == 64
    stand.upper.log.clear()
    stand.clock.advance(1)
    stand.store.get("absent")
    assert stand.upper.log == ["fetch"]
    stand.clock.advance(2)
    stand.store.get("absent")
    assert stand.upper.log == ["fetch"] * 2


@faces
def test_a_skipped_authority_raises_at_once_and_is_probed(face: str) -> None:
    stand = Stand(())
    stand.bottom.fail()
    for _ in range(level.PATIENCE):
        with pytest.raises(BackendUnavailable):
            call(face, stand.store, "get", "k")
    stand.bottom.log.clear()
    with pytest.raises(BackendUnavailable, match="skipped"):
        call(face, stand.store, "set", "k", b"v")
    assert stand.bottom.log == []
    assert stand.store.stats().tiers["bottom"].skipped == 1
    stand.bottom.heal()
    stand.clock.advance(1)
    call(face, stand.store, "set", "k", b"v")
    assert stand.bottom.value("k") == b"v"


@faces
def test_a_write_gives_up_trying_once_the_authority_is_skipped(face: str) -> None:
    stand = Stand(())
    stand.bottom.fail()
    for _ in range(4):
        with pytest.raises(BackendUnavailable):
            call(face, stand.store, "get", "k")
    stand.bottom.log.clear()
    with pytest.raises(BackendUnavailable):
        call(face, stand.store, "set", "k", b"v")
    assert stand.bottom.log == ["put"]


@faces
def test_a_write_counts_as_one_failure_however_often_it_tries(face: str) -> None:
    stand = Stand(())
    stand.bottom.fail()
    for _ in range(4):
        with pytest.raises(BackendUnavailable):
            call(face, stand.store, "set", "k", b"v")
    assert stand.bottom.log == ["put"] * 16
    stand.bottom.log.clear()
    with pytest.raises(BackendUnavailable):
        call(face, stand.store, "get", "k")
    assert stand.bottom.log == ["fetch"], "not skipped yet"


def test_tiers_are_judged_one_by_one() -> None:
    stand = Stand(("upper", "lower"))
    broken_tier(stand)
    stand.store.set("k", b"v")
    assert stand.upper.log == []
    assert stand.uppers[1].value("k") == b"v"
    evict(stand.store)
    assert stand.store.get("k") == b"v"
    assert stand.store.stats().tiers["lower"].hits == 1


def test_answers_that_are_no_failures_do_not_count() -> None:
    """A refused put, a record that cannot be read: the tier works."""
    stand = Stand()
    for _ in range(level.PATIENCE + 1):
        stand.bottom.rows["", "k"] = Entry(VALUE, stamp_at(stand.clock.time() + 10 * 86_400), None, b"far")
        with pytest.raises(CorruptEntry):
            stand.store.get("k")
        with pytest.raises(CorruptEntry):
            stand.store.set("k", b"v")
    assert stand.store.get("other") is None
    assert stand.store.stats().tiers["bottom"].errors == 0


# -- time-outs -------------------------------------------------------------------------------------------------------


@faces
def test_each_tier_gets_its_time_out(face: str) -> None:
    seen: dict[str, float] = {}

    class Noting(SimTier):
        def run(self, op: Any, timeout: float) -> Any:
            seen[self.scheme] = timeout
            return super().run(op, timeout)

        async def arun(self, op: Any, timeout: float) -> Any:
            seen[self.scheme] = timeout
            return await super().arun(op, timeout)

    tiers = [Memory(), Tier(Noting("one")), Tier(Noting("two"), timeout=1.5), Noting("last")]
    call(face, TieredStore(tiers, clock=FakeClock()), "get", "k")
    assert seen == {"one": 0.25, "two": 1.5, "last": 5.0}
    tiers = [Memory(), Tier(Noting("last"), timeout=2)]
    call(face, TieredStore(tiers, clock=FakeClock()), "get", "k")
    assert seen["last"] == 2.0


@faces
def test_a_tier_that_times_out_is_unavailable_and_counted(face: str, tmp_path: Path) -> None:
    """A real time-out: another connection holds SQLite's write lock."""
    import sqlite3

    path = tmp_path / "x.db"
    store = TieredStore([Memory(), Tier(SQL(f"sqlite:///{path}"), timeout=0.05)])
    call(face, store, "set", "k", b"v0")
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(BackendUnavailable):
            call(face, store, "set", "k", b"v1")
        assert store.stats().tiers["sqlite"].errors >= 1
        assert call(face, store, "get", "k") == b"v0", "readers are not locked out"
    finally:
        blocker.close()
    store.flush()
    store._stack.authority.worked()  # instead of waiting for the probe
    call(face, store, "set", "k", b"v2")
    assert call(face, store, "get", "k") == b"v2"
    call(face, store, "close")


# -- ping, with, inspect, stats --------------------------------------------------------------------------------------


@faces
def test_ping_names_the_health_of_each_tier_and_raises_for_none(face: str) -> None:
    stand = Stand()
    health = call(face, stand.store, "ping")
    assert list(health) == ["memory", "upper", "bottom"]
    assert all(health.values())
    stand.upper.fail()
    stand.bottom.fail()
    health = call(face, stand.store, "ping")
    assert [bool(one) for one in health.values()] == [True, False, False]
    assert "simulated" in (health["bottom"].error or "")
    assert stand.store.stats().tiers["bottom"].errors == 0, "asking is not using"


def test_ping_asks_a_skipped_tier_and_brings_it_back() -> None:
    stand = Stand()
    broken_tier(stand)
    assert not stand.store.ping()["upper"]
    stand.upper.heal()
    assert stand.store.ping()["upper"]
    stand.upper.log.clear()
    stand.store.get("absent")
    assert stand.upper.log == ["fetch"]


def test_ping_measures_with_the_monotonic_clock() -> None:
    stand = Stand()
    stand.bottom.fault = lambda name: (stand.clock.advance(0.5), "ok")[1]
    health = stand.store.ping()
    assert (health["upper"].seconds, health["bottom"].seconds) == (0.0, 0.5)


def entering(face: str, store: TieredStore, body: Callable[[], Any]) -> None:
    if face == "sync":
        with store:
            body()
        return

    async def main() -> None:
        async with store:
            body()

    asyncio.run(main())


@faces
def test_with_connects_at_once_and_fails_only_if_the_authority_is_down(face: str) -> None:
    stand = Stand()
    assert not stand.bottom.log, "a constructor asks nothing"
    stand.upper.fail()
    entering(face, stand.store, lambda: stand.bottom.log.index("ping"))
    assert stand.bottom.closed
    assert stand.upper.closed
    stand = Stand()
    stand.bottom.fail()
    with pytest.raises(BackendUnavailable) as caught:
        entering(face, stand.store, lambda: pytest.fail("entered"))
    assert caught.value.tier == "bottom"


@faces
def test_with_closes_when_the_body_raises(face: str) -> None:
    stand = Stand()

    def body() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        entering(face, stand.store, body)
    assert stand.bottom.closed == 1


@faces
def test_inspect_tells_what_each_tier_holds_and_changes_nothing(face: str) -> None:
    stand = Stand(("upper", "lower"))
    store = stand.store
    assert {one.state for one in call(face, store, "inspect", "k").values()} == {"absent"}
    store.set("k", b"value", ttl=30)
    holding = call(face, store, "inspect", "k")
    assert list(holding) == ["memory", "upper", "lower", "bottom"]
    for one in holding.values():
        assert (one.state, one.size) == ("value", 5)
        assert one.expires == pytest.approx(stand.clock.time() + 30, abs=0.01)
        assert one.written == pytest.approx(stand.clock.time(), abs=0.01)
    before = (store.stats(), dict(stand.upper.rows), dict(stand.bottom.rows))
    call(face, store, "inspect", "k")
    assert (store.stats(), dict(stand.upper.rows), dict(stand.bottom.rows)) == before
    stand.clock.advance(31)
    assert {one.state for name, one in call(face, store, "inspect", "k").items() if name != "memory"} == {"expired"}
    store.delete("k")
    holding = call(face, store, "inspect", "k")
    assert (holding["memory"].state, holding["bottom"].state) == ("absent", "deleted")
    stand.upper.rows["", "k"] = Entry(INVALID, stand.bottom.rows["", "k"].stamp, None, b"")
    stand.uppers[1].fail()
    holding = call(face, store, "inspect", "k")
    assert (holding["upper"].state, holding["lower"].state) == ("invalid", "unavailable")
    stand.bottom.fetch = corrupt  # type: ignore[method-assign]
    assert call(face, store, "inspect", "k")["bottom"].state == "corrupt"


def corrupt(space: str, keys: Any) -> Any:
    yield "fetch", lambda: None, keys
    return [CorruptEntry("simulated") for _ in keys]


def test_inspect_says_that_a_copy_is_not_trusted() -> None:
    stand = Stand()
    stand.store.set("k", b"v0")
    assert "not trusted" not in stand.store.inspect("k")["upper"].why
    stand.upper.script("put", "before")
    stand.store.set("k", b"v1")
    assert "not trusted" in stand.store.inspect("k")["upper"].why
    assert "not trusted" not in stand.store.inspect("k")["bottom"].why


def test_stats_count_by_tier() -> None:
    stand = Stand()
    store = stand.store
    store.mset({"a": b"1", "b": b"2"})
    assert store.mget(["a", "b", "none"]) == [b"1", b"2", None]
    evict(store)
    assert store.mget(["a", "none"]) == [b"1", None]
    stand.upper.rows.clear()
    evict(store)
    assert store.get("b") == b"2"
    tiers = store.stats().tiers
    assert (tiers["memory"].hits, tiers["memory"].misses, tiers["memory"].fills) == (2, 4, 2)
    assert (tiers["upper"].hits, tiers["upper"].misses, tiers["upper"].fills) == (1, 3, 1)
    assert (tiers["bottom"].hits, tiers["bottom"].misses, tiers["bottom"].fills) == (1, 2, 0)
    assert tiers["memory"].entries == 1
    with pytest.raises(AttributeError):
        tiers["memory"].hits = 0  # type: ignore[misc]


# -- closed ----------------------------------------------------------------------------------------------------------


EVERYTHING: dict[str, tuple[Any, ...]] = {
    "get": ("k",),
    "set": ("k", b"v"),
    "delete": ("k",),
    "mget": (["k"],),
    "mset": ({"k": b"v"},),
    "mdelete": (["k"],),
    "get_or_load": ("k", lambda key: b"v"),
    "mget_or_load": (["k"], lambda keys: dict.fromkeys(keys, b"v")),
    "inspect": ("k",),
    "invalidate": (["k"],),
    "flush": (),
    "purge_expired": (),
}


@faces
@pytest.mark.parametrize("method", EVERYTHING)
def test_after_close_every_method_raises_store_closed(face: str, method: str) -> None:
    stand = Stand()
    stand.store.set("k", b"in memory")
    call(face, stand.store, "close")
    call(face, stand.store, "close")
    stand.upper.log.clear()
    stand.bottom.log.clear()
    with pytest.raises(StoreClosed):
        call(face, stand.store, method, *EVERYTHING[method])
    assert stand.upper.log == stand.bottom.log == [], "nothing is connected again"
    assert stand.bottom.closed
    assert stand.upper.closed


@faces
def test_ping_does_not_raise_after_close_either(face: str) -> None:
    stand = Stand()
    stand.store.close()
    health = call(face, stand.store, "ping")
    assert {name: (bool(tier), tier.error) for name, tier in health.items()} == dict.fromkeys(
        ["memory", "upper", "bottom"], (False, "this store was closed")
    )
    assert stand.bottom.log == []


def test_after_close_no_keys_and_no_context() -> None:
    stand = Stand()
    stand.store.set("k", b"v")
    stand.store.close()
    with pytest.raises(StoreClosed):
        list(stand.store.yield_keys())

    async def main() -> None:
        with pytest.raises(StoreClosed):
            await anext(stand.store.ayield_keys())
        with pytest.raises(StoreClosed):
            async with stand.store:
                pytest.fail("entered")

    asyncio.run(main())
    with pytest.raises(StoreClosed), stand.store:
        pytest.fail("entered")
    with pytest.raises(StoreClosed):
        stand.store.mget(["k", "k"])
    assert stand.store.stats().tiers["memory"].hits == 0, "what was counted can still be read"


def test_every_public_method_is_in_the_table_of_what_close_ends() -> None:
    known = {*EVERYTHING, "close", "clear", "yield_keys", "stats", "ping", "typed", "scoped"}
    public = {name for name in vars(TieredStore) if not name.startswith("_")}
    assert {name for name in public if name.removeprefix("a") not in known and name not in known} == set()


@faces
def test_closing_a_store_with_a_tier_that_is_away_works(face: str) -> None:
    stand = Stand()
    stand.store.set("k", b"v")
    stand.upper.fail()
    stand.store.set("k", b"w")
    stand.bottom.fail()
    call(face, stand.store, "close")
    assert stand.upper.closed == stand.bottom.closed == 1


@faces
def test_closing_again_asks_no_tier_for_anything(face: str) -> None:
    """Though there is something left to repair: it would connect again."""
    stand = Stand()
    stand.upper.fail()
    stand.store.set("k", b"v")
    call(face, stand.store, "close")
    assert stand.level.broken
    stand.upper.heal()
    stand.upper.log.clear()
    call(face, stand.store, "close")
    assert stand.upper.log == []


def test_errors_are_of_one_family_and_name_their_tier() -> None:
    stand = Stand()
    stand.bottom.fail()
    with pytest.raises(ConnectionError) as caught:
        stand.store.get("k")
    assert isinstance(caught.value, TieredError)
    assert str(caught.value).startswith("[bottom]")
    assert isinstance(caught.value, tiered.errors.BackendUnavailable)
