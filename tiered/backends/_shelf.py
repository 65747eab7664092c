"""Where the slots of a memory tier are kept: what is common, and our own bounded tables.

Every method needs the lock, unless it says otherwise.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from math import inf

from ..clock import SYSTEM
from ..entry import VALUE, Entry
from ..policies.eviction import BLOCK, Policy
from ._slot import Home, Rare, Slot, cost_of
from ._wheel import Wheel

REAP = 8
"""Slots looked at by a write in search of expired ones: more than a write adds, so that none linger."""


class Shelf(ABC):
    """The homes of all namespaces, and the lock that guards every change to them."""

    entries: int
    bytes: int
    hits: int
    evictions: int

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.homes: weakref.WeakValueDictionary[str, Home] = weakref.WeakValueDictionary()
        self.time = SYSTEM.time
        self.expired = 0
        _shelves.add(self)

    def home(self, name: str) -> Home:
        """The namespace's home, made if there is none."""
        home = self.homes.get(name)
        if home is None:
            home = self.homes[name] = Home(name, self._table(), self._table())
        return home

    @abstractmethod
    def _table(self) -> MutableMapping[str, Slot]:
        """An empty table for a home."""

    @abstractmethod
    def find(self, home: Home, key: str) -> Slot | None:
        """What is held for `key`, of any kind and age; counts as a read."""

    @abstractmethod
    def put(
        self,
        home: Home,
        key: str,
        value: bytes | None,
        stamp: bytes,
        deadline: float,
        *,
        seen: float = inf,
        record: Entry | None = None,
    ) -> bool:
        """Set what is held for `key`, whatever was there before -> whether it is now held.

        What has expired or does not fit at all is not held, and neither is what it would have replaced.
        """

    @abstractmethod
    def remove(self, slot: Slot) -> None:
        """Let go of a slot that is held."""

    @abstractmethod
    def reap(self, now: float, limit: int = REAP) -> int:
        """Look at up to `limit` slots whose time may have come -> how many of them had expired and are gone."""


class Own(Shelf):
    """Bounded by bytes and entries, in dicts that readers use without the lock."""

    def __init__(self, policy: Policy, max_bytes: float, max_entries: float) -> None:
        super().__init__()
        self.entries = 0
        self.evictions = 0
        self._policy = policy
        self._blocks = 0
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._wheel = Wheel()

    def _table(self) -> MutableMapping[str, Slot]:
        return {}

    @property
    def bytes(self) -> int:  # type: ignore[override]
        return self._blocks * BLOCK + self._policy.nbytes

    def find(self, home: Home, key: str) -> Slot | None:
        slot = home.slots.get(key)
        if slot is not None and slot.value is not None and slot.due > self.time():
            slot.freq += 1
            self._policy.touch(slot)
        return slot

    @property
    def hits(self) -> int:  # type: ignore[override]
        live = sum(slot.freq for home in self.homes.values() for slot in home.slots.values())
        return self._policy.retired + live

    def put(
        self,
        home: Home,
        key: str,
        value: bytes | None,
        stamp: bytes,
        deadline: float,
        *,
        seen: float = inf,
        record: Entry | None = None,
    ) -> bool:
        now = self.time()
        self.reap(now)
        cost = cost_of(key, value, self._policy.per_item)
        slot = home.slots.get(key)
        if cost * BLOCK > self._max_bytes or (record is None and life(home, deadline, seen) <= now):
            if slot is not None:
                self.remove(slot)
            return False
        if slot is not None and type(slot) is Slot and record is None:
            slot.deadline = 0.0
            slot.value = value
            slot.stamp = stamp
            slot.deadline = deadline
            self._wheel.remove(slot)
            self._wheel.add(slot, deadline)
            self._blocks += cost - slot.cost
            self._policy.resize(slot, cost)
            self._fit(0, 0)
            return slot.value is not None
        if slot is not None:
            self.remove(slot)
        self._fit(1, cost)
        if record is None and home.sliding is None:
            slot = Slot(home, key, value, stamp, deadline)
        else:
            slot = rare(home, key, value, stamp, deadline, seen, record)
        slot.cost = cost
        self.entries += 1
        self._blocks += cost
        self._policy.add(slot)
        self._wheel.add(slot, slot.due)
        home.slots[key] = slot
        return True

    def remove(self, slot: Slot) -> None:
        self._policy.forget(slot)
        self._left(slot)

    def _left(self, slot: Slot) -> None:
        """The policy has let go of the slot: so does everything else."""
        home = slot.home
        slot.deadline = 0.0
        del home.slots[slot.key]
        home.marks.pop(slot.key, None)
        self._wheel.remove(slot)
        self.entries -= 1
        self._blocks -= slot.cost
        self._policy.retired += slot.freq
        slot.freq = 0
        slot.value = None
        left = len(home.slots)
        if not left & 63 and sys.getsizeof(home.slots) > 96 * left + 4096:
            # deletes never shrink a dict; readers miss for a moment and ask again under the lock
            kept = dict(home.slots)
            home.slots.clear()
            home.slots.update(kept)

    def _fit(self, entries: int, blocks: int) -> None:
        """Evict until that much more fits."""
        policy = self._policy
        while (
            self.entries + entries > self._max_entries
            or (self._blocks + blocks) * BLOCK + policy.nbytes > self._max_bytes
        ):
            victim = policy.evict()
            if victim is None:
                return
            self.evictions += 1
            self._left(victim)  # type: ignore[arg-type]  # the policy holds the slots it was given

    def reap(self, now: float, limit: int = REAP) -> int:
        count = 0
        for slot in self._wheel.take(now, limit):
            due = slot.due
            if due <= now:
                self.remove(slot)
                count += 1
            else:
                self._wheel.add(slot, due)
        self.expired += count
        return count


def life(home: Home, deadline: float, seen: float) -> float:
    """When a value would expire, in seconds since the epoch."""
    return deadline if home.sliding is None else min(deadline, seen + home.sliding)


def rare(
    home: Home, key: str, value: bytes | None, stamp: bytes, deadline: float, seen: float, record: Entry | None
) -> Rare:
    """A slot that is more than a value with a deadline."""
    slot = Rare(home, key, value, stamp, deadline)
    slot.seen, slot.record = seen, record
    if record is not None and record.kind != VALUE:
        slot.deadline = 0.0
        slot.value = None
        home.marks[key] = slot
    return slot


_shelves: weakref.WeakSet[Shelf] = weakref.WeakSet()
_held: list[Shelf] = []


def _before_fork() -> None:
    """Hold every lock while forking: the child must not copy a half-made change."""
    _held.extend(sorted(_shelves, key=id))
    for shelf in _held:
        shelf.lock.acquire()


def _after_in_parent() -> None:
    while _held:
        _held.pop().lock.release()


def _after_in_child() -> None:
    """The entries stay; the operations that were in flight are the parent's."""
    while _held:
        shelf = _held.pop()
        shelf.lock = threading.Lock()
        for home in list(shelf.homes.values()):
            home.flights.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
