"""Slots kept in a mapping the user brought: a `cachetools.Cache`, or anything that maps."""

from __future__ import annotations

import heapq
import itertools
import logging
import weakref
from collections.abc import Hashable, MutableMapping
from math import inf
from typing import Any, NamedTuple

from ..entry import VALUE, Entry
from ..policies.eviction import BLOCK
from ._shelf import Shelf, rare
from ._slot import Home, Rare, Slot, cost_of

log = logging.getLogger("tiered")


class Place(NamedTuple):
    """The key in the user's mapping."""

    namespace: str
    key: str
    owner: Hashable = None


class Borrowed(Shelf):
    """The mapping alone decides what stays; it is touched under the lock only.

    It may drop anything at any time without a word, so homes refer to its slots weakly, and expiries lie in a heap
    of weak references that is rebuilt when most of them are dead. What it raises is its own affair: an entry that it
    does not take, give or let go is not held, which is logged. Marks are kept here, not in the mapping.
    """

    def __init__(self, mapping: MutableMapping[Any, Any]) -> None:
        super().__init__()
        self.mapping = mapping
        self.hits = 0
        self._placed = 0
        self._taken = 0
        self._expiries: list[tuple[float, int, weakref.ref[Rare]]] = []
        self._rebuild_at = 64
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
        try:
            slot = self.mapping.get(Place(home.name, key, home.owner))
        except Exception:
            log.warning("the mapping given as cache= did not say what it holds", exc_info=True)
            return None
        held = home.slots.get(key)
        return held if held is slot or key in home.marks else None  # type: ignore[return-value]  # all are rare here

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
        if self.pause <= 0:
            self.tidy(home)
        old = home.slots.get(key)
        if (old is not None and stamp < old.stamp) or not home.admits(key, stamp):
            return False
        if old is not None:
            self.remove(old)
        slot = rare(home, deadline, seen, record)
        slot.key, slot.value, slot.stamp = key, value, stamp
        slot.freq, slot.cost = 0, cost_of(key, value)
        self._placed += 1
        home.slots[key] = slot
        if record is not None and record.kind != VALUE:
            self._mark(home, slot)
        else:
            try:
                self.mapping[Place(home.name, key, home.owner)] = slot
            except BaseException as error:
                self._lose(home, key)
                if not isinstance(error, Exception):
                    raise
                if not isinstance(error, ValueError):  # cachetools: "value too large"
                    log.warning("the mapping given as cache= did not take an entry", exc_info=True)
                return False
        if slot.due != inf:
            heapq.heappush(self._expiries, (slot.due, next(self._numbers), weakref.ref(slot)))
            if len(self._expiries) > self._rebuild_at:
                self._expiries = [expiry for expiry in self._expiries if expiry[2]() is not None]
                heapq.heapify(self._expiries)
                self._rebuild_at = 2 * len(self._expiries) + 32
        return True

    def remove(self, slot: Slot) -> None:
        self._taken += 1
        slot.deadline = 0.0
        self._lose(slot.home, slot.key)

    def _lose(self, home: Home, key: str) -> None:
        """It is not held here any more, and not in the mapping either if that lets go of it."""
        slot = home.slots.pop(key, None)
        if slot is not None and key in home.marks:
            self._unmark(home, slot)
            return
        try:
            self.mapping.pop(Place(home.name, key, home.owner), None)
        except Exception:
            log.warning("the mapping given as cache= did not let go of an entry", exc_info=True)

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
