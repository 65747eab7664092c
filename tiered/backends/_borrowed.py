"""Slots kept in a mapping the user brought: a `cachetools.Cache`, or anything that maps."""

from __future__ import annotations

import heapq
import itertools
import weakref
from collections.abc import MutableMapping
from math import inf
from typing import Any, NamedTuple

from ..entry import Entry
from ..policies.eviction import BLOCK
from ._shelf import Shelf, rare
from ._slot import Home, Rare, Slot, cost_of


class Place(NamedTuple):
    """The key in the user's mapping."""

    namespace: str
    key: str


class Borrowed(Shelf):
    """The mapping alone decides what stays; it is touched under the lock only.

    It may drop anything at any time without a word, so homes refer to its slots weakly, and expiries lie in a heap
    of weak references that is rebuilt when most of them are dead.
    """

    def __init__(self, mapping: MutableMapping[Any, Any]) -> None:
        super().__init__()
        self.mapping = mapping
        self.hits = 0
        self._placed = 0
        self._taken = 0
        self._expiries: list[tuple[float, int, weakref.ref[Rare]]] = []
        self._numbers = itertools.count()  # heap entries of equal time need an order

    def _table(self) -> MutableMapping[str, Slot]:
        return weakref.WeakValueDictionary()

    def _slots(self) -> list[Slot]:
        return [slot for home in list(self.homes.values()) for slot in list(home.slots.values())]

    @property
    def entries(self) -> int:  # type: ignore[override]
        return len(self._slots())

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return sum(slot.cost for slot in self._slots()) * BLOCK

    @property
    def evictions(self) -> int:  # type: ignore[override]
        return max(0, self._placed - self._taken - self.entries)

    def find(self, home: Home, key: str) -> Rare | None:
        """What the mapping still holds for `key`; this is the access it sees."""
        slot = self.mapping.get(Place(home.name, key))
        return slot if isinstance(slot, Rare) else None

    def put(
        self,
        home: Home,
        key: str,
        value: bytes,
        stamp: bytes,
        deadline: float,
        seen: float = inf,
        record: Entry | None = None,
    ) -> bool:
        self.pause -= 1
        if not self.pause:
            self.tidy(home)
        old = home.slots.get(key)
        if (old is not None and stamp < old.stamp) or not home.admits(key, stamp):
            return False
        if old is not None:
            self.remove(old)
        slot = rare(home, deadline, seen, record)
        slot.key, slot.value, slot.stamp = key, value, stamp
        slot.freq, slot.cost = 0, cost_of(key, value)
        try:
            self.mapping[Place(home.name, key)] = slot
        except ValueError:  # cachetools: "value too large"
            return False
        self._placed += 1
        home.slots[key] = slot
        if record is not None:
            home.marks[key] = slot
        if slot.due != inf:
            heapq.heappush(self._expiries, (slot.due, next(self._numbers), weakref.ref(slot)))
            if len(self._expiries) > 2 * len(self.mapping) + 64:
                self._expiries = [expiry for expiry in self._expiries if expiry[2]() is not None]
                heapq.heapify(self._expiries)
        return True

    def remove(self, slot: Slot) -> None:
        home = slot.home
        slot.deadline = 0.0
        home.slots.pop(slot.key, None)
        home.marks.pop(slot.key, None)
        self.mapping.pop(Place(home.name, slot.key), None)
        self._taken += 1

    def reap(self, now: float, limit: int) -> int:
        count = 0
        while limit > 0 and self._expiries and self._expiries[0][0] <= now:
            limit -= 1
            slot = heapq.heappop(self._expiries)[2]()
            if slot is None or slot.home.slots.get(slot.key) is not slot:
                continue
            if slot.due <= now:
                self.remove(slot)
                count += 1
            else:
                heapq.heappush(self._expiries, (slot.due, next(self._numbers), weakref.ref(slot)))
        self.expired += count
        return count
