"""The matrix of the contract: every backend and shape of stack, by name, times both faces.

A new backend is one line in BARE and one in STACKS.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cachetools
import pytest

from tests.foreign_kit import SyncOnly
from tests.simulation.tier import SimTier
from tiered import SQL, TTL, Foreign, Memory, Tier, TieredStore, WriteAround, WriteThrough, Zstd
from tiered.storage import SQLStore
from tiered.testing import FakeClock

from .faces import FACES, face


def sql(place: Path, name: str = "authority") -> SQL:
    return SQL(f"sqlite:///{place / name}.db")


_foreign: dict[Path, SyncOnly] = {}


def foreign(place: Path) -> SyncOnly:
    """A store of somebody else's: the same one for a place, as if it were kept there."""
    return _foreign.setdefault(place, SyncOnly())


BARE: dict[str, Callable[[Path], Any]] = {
    "Memory()": lambda place: Memory(),
    "Memory(lru)": lambda place: Memory(policy="lru"),
    "Memory(cachetools)": lambda place: Memory(cache=cachetools.LRUCache(100_000)),
    "SQL()": sql,
    "SQL(plain)": lambda place: SQL(f"sqlite:///{place}/plain.db", layout="plain"),
    "SQLStore()": lambda place: SQLStore(namespace="docs", db_url=f"sqlite:///{place}/store.db"),
    "Foreign()": lambda place: Foreign(foreign(place)),
    "Foreign(record)": lambda place: Foreign(foreign(place), layout="record"),
}

STACKS: dict[str, Callable[[Path], list[Any]]] = {
    "memory": lambda place: [Memory()],
    "sqlite": lambda place: [sql(place)],
    "memory > sqlite": lambda place: [Memory(), sql(place)],
    "memory > sqlite > sqlite": lambda place: [Memory(), sql(place, "middle"), sql(place)],
    "sqlite > sqlite": lambda place: [sql(place, "middle"), sql(place)],
    "lru > sqlite": lambda place: [Memory(policy="lru"), sql(place)],
    "cachetools > sqlite": lambda place: [Memory(cache=cachetools.LRUCache(100_000)), sql(place)],
    "dict > sqlite": lambda place: [Memory(cache={}), sql(place)],
    "two entries > sqlite": lambda place: [Memory(max_entries=2), sql(place)],
    "memory > zstd sqlite": lambda place: [Memory(), Tier(sql(place), compression=Zstd(min_size=0))],
    "sliding memory > sqlite": lambda place: [Tier(Memory(), ttl=TTL(60, sliding=True, cap=900)), sql(place)],
    "sliding cachetools > sqlite": lambda place: [
        Tier(Memory(cache=cachetools.LRUCache(100_000)), ttl=TTL(60, sliding=True, cap=900)),
        sql(place),
    ],
    "jittered memory > jittered zstd sqlite > sqlite": lambda place: [
        Tier(Memory(), ttl=TTL(60, jitter=0.5)),
        Tier(sql(place, "middle"), ttl=TTL(600, jitter=0.5), compression=Zstd(min_size=0)),
        sql(place),
    ],
    "memory > sim > sqlite": lambda place: [Memory(), SimTier(), sql(place)],
    "memory > foreign > sqlite": lambda place: [Memory(), foreign(place), sql(place)],
    "memory for ever > sim for ever > sim": lambda place: [
        Tier(Memory(), ttl=None),
        Tier(SimTier(), ttl=None),
        SimTier("bottom"),
    ],
    "strict memory > sqlite > sqlite": lambda place: [Memory(), sql(place, "middle"), sql(place)],
}

ONCE_ONLY: dict[str, Callable[[Path], list[Any]]] = {  # not for the whole contract
    "strict sqlite > sqlite": lambda place: [sql(place, "middle"), sql(place)],
    "strict memory > sqlite > sim > sqlite": lambda place: [Memory(), sql(place, "middle"), SimTier(), sql(place)],
    "around memory > sqlite > sqlite": lambda place: [Memory(), sql(place, "middle"), sql(place)],
    "around sqlite > sqlite": lambda place: [sql(place, "middle"), sql(place)],
    "immutable memory > sqlite > sqlite": lambda place: [Memory(), sql(place, "middle"), sql(place)],
    "memory > plain": lambda place: [Memory(), SQL(f"sqlite:///{place}/plain.db", layout="plain")],
    "memory > plain foreign": lambda place: [Memory(), foreign(place)],
    "memory > plain sim": lambda place: [Memory(), SimTier(plain=True)],
    "immutable memory > sqlite > plain sim": lambda place: [Memory(), sql(place, "middle"), SimTier(plain=True)],
}

MODES: dict[str, dict[str, Any]] = {
    "strict": {"write": WriteThrough(strict=True)},
    "around": {"write": WriteAround()},
    "immutable": {"immutable": True},
}


def options_of(shape: str) -> dict[str, Any]:
    """The options of a stack of this shape: the first word of its name may be a mode."""
    return MODES.get(shape.split()[0], {})


class Rig:
    """Stacks of one shape, over one set of stores, seen through one face."""

    def __init__(self, shape: str, face_name: str, place: Path, clock: FakeClock) -> None:
        self.shape = shape
        self.face_name = face_name
        self.place = place
        self.clock = clock
        self.make = {**STACKS, **ONCE_ONLY}[shape]
        self.tiers = self.make(place)
        self._opened: list[Any] = []

    def open(self, tiers: list[Any] | None = None, **options: Any) -> Any:
        """A face of a new stack over the rig's stores, or over `tiers`."""
        given = {"clock": self.clock, **options_of(self.shape), **options}
        return self.keep(TieredStore(self.tiers if tiers is None else tiers, **given))

    def beside(self, **options: Any) -> Any:
        """A stack over the authority alone: another process, as far as the tiers above it know."""
        last = self.tiers[-1]
        return self.open(
            [Tier(last.store, compression=last.compression) if isinstance(last, Tier) else last], **options
        )

    def restart(self, **options: Any) -> Any:
        """The same files opened by a new process: empty memory."""
        self.tiers = self.make(self.place)
        return self.open(**options)

    def keep(self, store: Any) -> Any:
        self._opened.append(face(self.face_name, store))
        return self._opened[-1]

    @property
    def names(self) -> list[str]:
        return list(self._opened[0].stats().tiers)

    @property
    def age(self) -> float:
        """Seconds after which no tier above the authority may hold a copy any more."""
        return max((_age(tier) for tier in self.tiers[:-1]), default=0.0)

    def done(self) -> None:
        for opened in self._opened:
            opened.done()


def _age(tier: Any) -> float:
    store, ttl = (tier.store, tier.ttl) if isinstance(tier, Tier) else (tier, ...)
    if ttl is None:
        return float("inf")
    if isinstance(ttl, TTL):
        return float(ttl.cap or ttl.ttl)
    return 60.0 if isinstance(store, Memory) else 3600.0


def rigs(shapes: Any = tuple(STACKS)) -> Any:
    """Runs a test with a `rig` of each of these shapes, over both faces."""
    cases = [(shape, name) for shape in shapes for name in FACES]
    return pytest.mark.parametrize("rig", cases, indirect=True, ids=lambda case: " | ".join(case))
