"""A store against a dict with expiry: hypothesis chooses the operations, both faces mixed on one store."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.simulation.tier import SimTier
from tiered import SQL, Memory, Tier, TieredStore, Zstd
from tiered.errors import TieredError
from tiered.testing import FakeClock

KEYS = ["a", "ab", "b%", "b\x00", "\U0001f9ca"]

keys = st.sampled_from(KEYS)
batches = st.lists(keys, max_size=6)
values = st.sampled_from([b"", b"1", b"2", b"x" * 400]) | st.binary(max_size=8)
# Times to live end in half seconds and time moves by whole ones: nothing expires at the moment it is looked at.
ttls = st.sampled_from([None, 0.5, 4.5, 59.5, 61.5, 3599.5, 4000.5])
faces = st.booleans()


class Model(RuleBasedStateMachine):
    """`kept` holds (value, end) by key; end is in seconds of the clock, None for never."""

    faults = False

    def tiers(self, place: Path) -> list[Any]:
        raise NotImplementedError

    @initialize(default_ttl=st.sampled_from([None, 9.5]))
    def open(self, default_ttl: float | None) -> None:
        self.place = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.clock._now = 1_700_000_000.0
        self.default_ttl = default_ttl
        self.kept: dict[str, tuple[bytes, float | None]] = {}
        self.store = TieredStore(
            self.tiers(self.place), clock=self.clock, default_ttl=default_ttl, namespace="n", tombstone_ttl=100
        )

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self.store.aclose())
            self.runner.close()
            shutil.rmtree(self.place)

    def call(self, a: bool, name: str, *args: Any, **options: Any) -> Any:
        """By the sync or the async method."""
        if a:
            return self.runner.run(getattr(self.store, f"a{name}")(*args, **options))
        return getattr(self.store, name)(*args, **options)

    def live(self, key: str) -> bytes | None:
        value, end = self.kept.get(key, (None, None))
        return value if end is None or end > self.clock.time() else None

    def put(self, pairs: list[tuple[str, bytes]], ttl: float | None) -> None:
        for key, value in pairs:
            self.kept[key] = value, None if ttl is None else self.clock.time() + ttl

    @rule(a=faces, key=keys, value=values, ttl=ttls)
    def set(self, a: bool, key: str, value: bytes, ttl: float | None) -> None:
        self.call(a, "set", key, value, ttl=ttl)
        self.put([(key, value)], ttl)

    @rule(a=faces, pairs=st.lists(st.tuples(keys, values), max_size=6), mapping=st.booleans())
    def mset(self, a: bool, pairs: list[tuple[str, bytes]], mapping: bool) -> None:
        self.call(a, "mset", dict(pairs) if mapping else iter(pairs))
        self.put(pairs, self.default_ttl)

    @rule(a=faces, key=keys)
    def delete(self, a: bool, key: str) -> None:
        self.call(a, "delete", key)
        self.kept.pop(key, None)

    @rule(a=faces, batch=batches)
    def mdelete(self, a: bool, batch: list[str]) -> None:
        self.call(a, "mdelete", batch)
        for key in batch:
            self.kept.pop(key, None)

    @rule(a=faces, key=keys)
    def get(self, a: bool, key: str) -> None:
        assert self.call(a, "get", key) == self.live(key)

    @rule(a=faces, batch=batches)
    def mget(self, a: bool, batch: list[str]) -> None:
        assert self.call(a, "mget", batch) == [self.live(key) for key in batch]

    @rule(a=faces)
    def get_all(self, a: bool) -> None:
        """One after the other, so that a small memory must ask the tiers below."""
        assert {key: self.call(a, "get", key) for key in KEYS} == {key: self.live(key) for key in KEYS}

    @rule(a=faces, prefix=st.sampled_from([None, "", *KEYS, "%", "ac", "\U0001f9c9"]))
    def yield_keys(self, a: bool, prefix: str | None) -> None:
        async def listed() -> list[str]:
            return [key async for key in self.store.ayield_keys(prefix=prefix)]

        found = self.runner.run(listed()) if a else list(self.store.yield_keys(prefix=prefix))
        assert sorted(found) == sorted(
            key for key in self.kept if self.live(key) is not None and key.startswith(prefix or "")
        )

    @rule(a=faces, key=keys, loaded=st.none() | values, ttl=ttls)
    def get_or_load(self, a: bool, key: str, loaded: bytes | None, ttl: float | None) -> None:
        asked = []

        def load(name: str) -> bytes | None:
            asked.append(name)
            return loaded

        known = self.live(key)
        found = self.call(a, "get_or_load", key, load, ttl=ttl)
        assert (found, asked) == ((known, []) if known is not None else (loaded, [key]))
        if known is None and loaded is not None:
            self.put([(key, loaded)], ttl)

    @rule(seconds=st.sampled_from([1, 4, 10, 59, 60, 61, 101, 3_600, 100_000]))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(a=faces)
    def purge_expired(self, a: bool) -> None:
        try:
            assert self.call(a, "purge_expired") >= 0
        except TieredError:
            assert self.faults

    @rule(a=faces)
    def flush(self, a: bool) -> None:
        self.call(a, "flush")

    @rule(a=faces, key=keys)
    def inspect(self, a: bool, key: str) -> None:
        *above, authority = self.call(a, "inspect", key).values()
        assert (authority.state == "value") == (self.live(key) is not None)
        if not self.faults and authority.state != "value":
            assert "value" not in {holding.state for holding in above}

    @invariant()
    def memory_serves_nothing_that_is_over(self) -> None:
        if hasattr(self, "store"):
            for key in KEYS:
                value = self.store._hit(key)
                assert value is None or value == self.live(key)


class MemoryOverSqlite(Model):
    def tiers(self, place: Path) -> list[Any]:
        return [Memory(max_entries=3), Tier(SQL(f"sqlite:///{place}/x.db"), compression=Zstd(min_size=10))]


class MemoryOverSimulatedOverSqlite(Model):
    """The tier in the middle fails now and then, before or after it did what it was asked; nobody may notice."""

    def tiers(self, place: Path) -> list[Any]:
        self.middle = SimTier()
        return [Memory(max_entries=1), self.middle, SQL(f"sqlite:///{place}/x.db")]

    @rule(how=st.sampled_from(["before", "after"]), operation=st.sampled_from(["fetch", "put", "void", "all"]))
    def fail(self, how: str, operation: str) -> None:
        self.faults = True
        self.middle.fault = lambda name: how if operation in (name, "all") else "ok"

    @rule(a=faces, key=keys, value=st.none() | values, how=st.sampled_from(["before", "after"]))
    def write_while_the_middle_fails(self, a: bool, key: str, value: bytes | None, how: str) -> None:
        self.fail(how, "put")
        if value is None:
            self.delete(a, key)
        else:
            self.set(a, key, value, None)
        self.middle.fault = lambda name: "ok"

    @precondition(lambda self: self.faults)
    @rule(later=st.sampled_from([0, 31]))
    def work_again(self, later: int) -> None:
        self.middle.fault = lambda name: "ok"
        self.clock.advance(later)


OPTIONS = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestMemoryOverSqlite = MemoryOverSqlite.TestCase
TestMemoryOverSqlite.settings = OPTIONS
TestMemoryOverSimulatedOverSqlite = MemoryOverSimulatedOverSqlite.TestCase
TestMemoryOverSimulatedOverSqlite.settings = OPTIONS
