"""What most tests of the rules stand on: memory over simulated tiers, and a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tiered import Memory, Tier, TieredStore
from tiered.clock import micros
from tiered.entry import VALUE, Entry
from tiered.testing import FakeClock

from .tier import SimTier
from .world import process

ages = {"memory": 60.0, "upper": 600.0, "lower": 6_000.0}
"""The maximum age of each tier's copies, seconds."""


class Stand:
    """One process (`store`) over shared tiers; `other()` is another process over the same ones."""

    store: TieredStore
    clock: FakeClock

    def __init__(
        self,
        uppers: Sequence[str] = ("upper",),
        *,
        memory: bool = True,
        plain: bool = False,
        skew: float = 0.0,
        **options: Any,
    ) -> None:
        self.uppers = [SimTier(name) for name in uppers]
        self.upper = self.uppers[0] if self.uppers else SimTier("unused")
        self.bottom = SimTier("bottom", plain=plain)
        self._processes = 0
        self._memory, self._options = memory, options
        self.store, self.clock = self.other(skew)

    def other(self, skew: float = 0.0) -> tuple[TieredStore, FakeClock]:
        front = [Tier(Memory(), ttl=ages["memory"])] if self._memory else []
        middle = [Tier(tier, ttl=ages[tier.scheme]) for tier in self.uppers]
        self._processes += 1
        return process([*front, *middle, self.bottom], self._processes, skew, **self._options)

    @property
    def level(self) -> Any:
        """The first tier below memory, at work in the first process."""
        return self.store._stack.uppers[0]

    def seed(self, key: str, value: bytes, *tiers: SimTier, expires: int | None = None, kind: int = VALUE) -> Entry:
        """Put a value, stamped now by nobody in particular, straight into tiers."""
        entry = Entry(kind, stamp_at(self.clock.time()), expires, value)
        for tier in tiers:
            tier.rows["", key] = entry
        return entry


def stamp_at(seconds: float, writer: bytes = b"seed") -> bytes:
    return int(seconds * 1_000_000).to_bytes(8, "big") + writer


def seconds_of(stamp: bytes) -> float:
    return micros(stamp) / 1e6


def evict(store: TieredStore, *keys: str) -> None:
    """Memory lets go of the keys, as it does for want of room: it keeps no trace of them."""
    space = store._made.space
    with space._shelf.lock:
        for key in keys or tuple(space._home.slots):
            slot = space._home.slots.get(key)
            if slot is not None:
                space._shelf.remove(slot)


def remembered(store: TieredStore, key: str) -> bytes | None:
    """What memory would answer, without counting."""
    entry = store._made.space.peek(key)
    return entry.value if entry is not None and entry.live(int(store._clock.time() * 1000)) else None


def call(face: str, store: TieredStore, name: str, *args: Any, **kwargs: Any) -> Any:
    """`name` through one face of a store."""
    if face == "sync":
        return getattr(store, name)(*args, **kwargs)
    return asyncio.run(getattr(store, "a" + name)(*args, **kwargs))


faces = pytest.mark.parametrize("face", ["sync", "async"])
