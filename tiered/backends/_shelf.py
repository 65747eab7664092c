"""Where the slots of a memory tier are kept: what is common, and our own bounded tables.

Every method needs the lock, unless it says otherwise.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, MutableMapping
from math import inf

from ..clock import SYSTEM
from ..entry import VALUE, Entry
from ..policies.eviction import BLOCK, Policy
from ._slot import PER_ENTRY, Home, Rare, Slot
from ._steps import StepWatch
from ._wheel import Wheel

PAUSE, REAP = 8, 64
"""One write in 8 looks at up to 64 slots whose time may have come: more than writes add, so that none linger."""

MOST = 1_024
"""Slots looked at in one go at most, however many keys were read before it."""

MARKS = 1_024
"""Deletions and voids remembered, of all namespaces together."""


EMPTY_HOME = 600
"""Bytes of a home and the tables that are mostly empty."""


class Shelf(ABC):
    """The homes of all namespaces, and the lock that guards every change to them."""

    entries: int
    nbytes: int
    hits: int
    evictions: int

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.homes: weakref.WeakValueDictionary[tuple[str, Hashable], Home] = weakref.WeakValueDictionary()
        self.time = SYSTEM.time
        self._clock = StepWatch(self.time, self.time)
        self.expired = 0
        self.pause = PAUSE
        self._marks: OrderedDict[Slot, None] = OrderedDict()  # oldest first
        with _forking:
            _shelves.add(self)

    def home(self, name: str, owner: Hashable = None) -> Home:
        """The owner's home of that namespace, made if there is none."""
        home = self.homes.get((name, owner))
        if home is None:
            home = self.homes[name, owner] = Home(name, owner, self._table())
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
        value: bytes,
        stamp: bytes,
        deadline: float,
        seen: float = inf,
        record: Entry | None = None,
    ) -> bool:
        """Set what is held for `key`, unless something newer is there or in flight (R12) -> whether it is now held.

        What does not fit at all is not held, and neither is what it would have replaced. What has expired takes its
        place like the rest, and is never served. A mark (a record that is no value) takes no place but of what it
        replaces and of older marks: where there is none it is not held, and past `MARKS` the oldest goes.

        An exception in here or in `remove` may cost entries, but leaves everything in order (R12 too).
        """

    @abstractmethod
    def remove(self, slot: Slot) -> None:
        """Let go of a slot that is held."""

    def watch(self, time: Callable[[], float], monotonic: Callable[[], float]) -> None:
        """Judge expiry by `time`, which is known to have stepped back by `monotonic`."""
        if (time, monotonic) != (self._clock.time, self._clock.monotonic):
            self.time = time
            self._clock = StepWatch(time, monotonic)

    def _look(self) -> None:
        """Copies would outlive their maximum age by as much as wall time steps back (R10): they go."""
        if self._clock.stepped_back():
            for home in list(self.homes.values()):
                if home.owner is not None:  # None: the authority's entries, which expire when they expire
                    for slot in list(home.slots.values()):
                        self.remove(slot)

    def read(self, home: Home, count: int) -> None:
        """`count` keys are asked for: reads do what writes do, so that nothing lingers where nothing is written."""
        self._look()
        if self.pause <= 0:
            self.tidy(home)
        self.pause -= count

    def tidy(self, home: Home) -> None:  # noqa: ARG002
        """What a write to `home`, one in `PAUSE`, does besides: remove what has expired."""
        limit = min(REAP - self.pause, MOST)
        self.pause = PAUSE
        self.reap(self.time(), limit)

    def _mark(self, home: Home, slot: Slot) -> None:
        """The slot now held is a mark."""
        home.marks[slot.key] = slot
        self._marks[slot] = None
        if len(self._marks) > MARKS:
            self.remove(next(iter(self._marks)))

    def _unmark(self, home: Home, slot: Slot) -> None:
        """The slot leaves, whether it was a mark or not."""
        if home.marks and home.marks.pop(slot.key, None) is not None:
            self._marks.pop(slot, None)

    @abstractmethod
    def reap(self, now: float, limit: int) -> int:
        """Look at up to `limit` slots whose time may have come -> how many of them had expired and are gone."""


class Own(Shelf):
    """Bounded by bytes and entries, in dicts that readers use without the lock."""

    def __init__(self, policy: Policy, max_bytes: float, max_entries: float) -> None:
        super().__init__()
        self.entries = 0
        self.evictions = 0
        self._policy = policy
        self._blocks = 0
        self._max_blocks = max_bytes / BLOCK
        self._max_entries = max_entries
        self._per_entry = PER_ENTRY + BLOCK // 2
        self._homes = self._tables = 0  # tables: of the homes in bytes; with the policy's in blocks
        self._wheel = Wheel()

    def _table(self) -> MutableMapping[str, Slot]:
        return {}

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return (self._blocks + self._tables) * BLOCK

    def find(self, home: Home, key: str) -> Slot | None:
        slot = home.slots.get(key)
        if slot is not None and slot.deadline > (now := self.time()) and slot.due > now:
            slot.freq += 1
            if self._policy.on_read is not None:
                self._policy.on_read(slot)
        return slot

    @property
    def hits(self) -> int:  # type: ignore[override]
        live = sum(slot.freq for home in self.homes.values() for slot in home.slots.values())
        return self._policy.retired + live

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
        try:
            slot = home.slots.get(key)
            if (slot is not None and stamp < slot.stamp) or (home.flights and not home.admits(key, stamp)):
                return False
            cost = (len(key) if key.isascii() else sys.getsizeof(key)) + self._per_entry + len(value) >> 4
            if slot is not None:
                if type(slot) is Slot and record is None and cost <= self._max_blocks and deadline > self.time():
                    self._fit(self._max_entries, self._max_blocks - (cost - slot.cost))
                    if slot.deadline:  # else it was evicted itself
                        self._overwrite(slot, value, stamp, deadline, cost)
                        return True
                else:
                    self.remove(slot)
            if cost > self._max_blocks:
                return False
            mark = record is not None and record.kind != VALUE
            if self.entries >= self._max_entries or self._blocks + cost > self._max_blocks - self._tables:
                if not mark or slot is not None:
                    self._fit(self._max_entries - 1, self._max_blocks - cost)
                elif not self._forget_marks(self._max_entries - 1, self._max_blocks - cost):
                    return False
            if record is None and home.sliding is None:
                slot = Slot()
                slot.deadline = due = deadline
                slot.home = home
            else:
                slot = rare(home, deadline, seen, record)
                due = slot.due
            slot.key = key
            slot.modulus = home.modulus
            slot.freq = 0
            slot.cost = cost
            slot.value = value
            slot.stamp = stamp
            if due == inf:
                slot.before = slot.after = None
            else:  # `Wheel.add` written out, it is on the way of most writes
                wheel = self._wheel
                slot.after = bucket = wheel.bucket if wheel.start <= due < wheel.stop else wheel.choose(due)
                slot.before = last = bucket.before
                last.after = bucket.before = slot
            self._policy.add(slot)
            self.entries += 1
            self._blocks += cost
            home.slots[key] = slot
            if mark:
                self._mark(home, slot)
            if not home.weight:
                self._weigh(home)
            return True
        except BaseException:
            self._start_over()
            raise

    def tidy(self, home: Home) -> None:
        super().tidy(home)
        self._weigh(home)

    def _weigh(self, home: Home) -> None:
        """Account for the table of `home`, and for what the policy keeps, as they are now."""
        weight = (sys.getsizeof(home.slots) + EMPTY_HOME) if home.slots else 0
        self._homes += weight - home.weight
        home.weight = weight
        self._tables = (self._homes + self._policy.nbytes) // BLOCK

    def _overwrite(self, slot: Slot, value: bytes, stamp: bytes, deadline: float, cost: int) -> None:
        """In place, for readers without the lock in this order."""
        slot.deadline = 0.0
        slot.value = value
        slot.stamp = stamp
        slot.deadline = deadline
        self._wheel.remove(slot)
        if deadline != inf:
            self._wheel.add(slot, deadline)
        self._blocks += cost - slot.cost
        self._policy.resize(slot, cost)

    def _fit(self, entries: float, blocks: float) -> None:
        """Evict until no more than that are held; where there are thousands, a few at a time for speed."""
        if self._marks and self._forget_marks(entries, blocks):
            return
        rounds = 0
        while self.entries and (self.entries > entries or self._blocks + self._tables > blocks):
            victims = self._policy.evict(min(16, 1 + (self.entries >> 10)))
            if not victims:
                raise AssertionError("the policy has lost an entry")  # whoever asked starts over
            self.evictions += len(victims)
            self._leave(victims)  # type: ignore[arg-type]  # it was given slots
            rounds += 1
            if not (rounds & 15 and self.entries):  # making much room makes tables smaller
                self._tables = (self._homes + self._policy.nbytes) // BLOCK

    def _forget_marks(self, entries: float, blocks: float) -> bool:
        """Let go of the oldest marks until no more than that are held -> whether they sufficed."""
        while self.entries > entries or self._blocks + self._tables > blocks:
            if not self._marks:
                return False
            self.remove(next(iter(self._marks)))
        return True

    def remove(self, slot: Slot) -> None:
        try:
            self._policy.forget(slot)
            self._leave([slot])
        except BaseException:
            self._start_over()
            raise

    def _start_over(self) -> None:
        """Let go of everything: an exception has left a change half made. What is in flight stays (R12)."""
        self._policy.clear()  # first: a ring that does not close is walked for ever
        self._wheel = Wheel()
        self._marks.clear()
        for home in list(self.homes.values()):
            for slot in list(home.slots.values()):
                slot.deadline = 0.0
                self._policy.retired += slot.freq
            home.slots.clear()
            home.marks.clear()
            home.weight = 0
        self.entries = self._blocks = self._homes = self._tables = 0

    def _leave(self, gone: list[Slot]) -> None:
        """The policy has let go of them: so does everything else."""
        for slot in gone:
            home = slot.home
            slot.deadline = 0.0
            slots = home.slots
            del slots[slot.key]
            if home.marks:
                self._unmark(home, slot)
            before, after = slot.before, slot.after
            if before is not None and after is not None:
                before.after = after
                after.before = before
                slot.before = None
            self._blocks -= slot.cost
            if slot.freq:
                self._policy.retired += slot.freq
                slot.freq = 0
            left = len(slots)
            if not left & 255:
                if sys.getsizeof(slots) > 96 * left + 4096:
                    # deletes never shrink a dict; readers miss for a moment and ask again under the lock
                    kept = dict(slots)
                    slots.clear()
                    slots.update(kept)
                self._weigh(home)
        self.entries -= len(gone)

    def reap(self, now: float, limit: int) -> int:
        count = 0
        try:
            for slot in self._wheel.take(now, limit):
                due = slot.due
                if due <= now:
                    self.remove(slot)
                    count += 1
                else:
                    self._wheel.add(slot, due)
        except BaseException:
            self._start_over()
            raise
        self.expired += count
        return count


def rare(home: Home, deadline: float, seen: float, record: Entry | None) -> Rare:
    """A slot that is more than a value with a deadline; what all slots have is still to be set."""
    slot = Rare()
    slot.home = home
    slot.seen, slot.record = seen, record
    if record is None:
        slot.deadline = deadline
    else:  # past its soft expiry a value is for those who look at its record
        slot.deadline = 0.0 if record.kind != VALUE or record.soft is None else record.soft / 1000
    return slot


_shelves: weakref.WeakSet[Shelf] = weakref.WeakSet()
_forking = threading.RLock()
"""Guards `_shelves` and `_held`, so that one thread forks at a time."""
_held: list[Shelf] = []


def _before_fork() -> None:
    """Hold every lock while forking: the child must not copy a half-made change."""
    _forking.acquire()
    for shelf in sorted(_shelves, key=id):
        shelf.lock.acquire()
        _held.append(shelf)


def _after_in_parent() -> None:
    while _held:
        _held.pop().lock.release()
    _forking.release()


def _after_in_child() -> None:
    """The entries stay; the operations that were in flight are the parent's."""
    global _forking
    _forking = threading.RLock()
    while _held:
        shelf = _held.pop()
        shelf.lock = threading.Lock()
        for home in list(shelf.homes.values()):
            home.flights.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
