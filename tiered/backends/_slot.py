"""What the memory tier holds: a slot for each key, a home for each namespace."""

from __future__ import annotations

import random
import sys
import weakref
from collections.abc import Hashable, MutableMapping
from math import inf

from ..clock import ZERO
from ..entry import VALUE, Entry
from ..policies.eviction import BLOCK, Item


class Slot(Item):
    """A key's value in the cache.

    Readers take no lock, so `deadline` is the gate: a slot is served while it lies ahead, and it is 0 while the slot
    is being overwritten and for ever once it has left. Overwriting goes deadline = 0, value, deadline: whoever sees
    the new deadline sees the new value.
    """

    __slots__ = ("after", "before", "deadline", "home", "stamp", "value")

    value: bytes
    stamp: bytes
    deadline: float  # seconds since the epoch, inf for never
    home: Home
    before: Slot | None  # neighbours in a bucket of the wheel; None while in none
    after: Slot | None

    @property
    def due(self) -> float:
        """When it expires, in seconds since the epoch."""
        return self.deadline

    def entry(self) -> Entry:
        expires = None if self.deadline == inf else int(self.deadline * 1000 + 1e-3)
        return Entry(VALUE, self.stamp, expires, self.value)


class Rare(Slot):
    """A slot with what few need: a mark or a soft expiry (`record`), or a sliding time to live (`seen`).

    With a soft expiry `deadline` is that: hits stop there, and `due` is when the value is gone.

    With a sliding time to live `deadline` is the cap, and the slot also needs a hit every `home.sliding` seconds.
    A hit only writes `seen`, with the time it began: an overwrite that it races with loses nothing by it.
    """

    __slots__ = ("__weakref__", "record", "seen")

    record: Entry | None
    seen: float

    def __len__(self) -> int:
        """Bytes of the value: lets a mapping of the user's measure with `getsizeof=len`."""
        return len(self.value)

    def __bool__(self) -> bool:
        return True

    @property
    def due(self) -> float:
        if self.record is not None:
            return inf if self.record.expires is None else self.record.expires / 1000
        return self.deadline if self.home.sliding is None else min(self.deadline, self.seen + self.home.sliding)

    def entry(self) -> Entry:
        if self.record is not None:
            return self.record
        due = self.due
        expires = None if due == inf else int(due * 1000 + 1e-3)
        return Entry(VALUE, self.stamp, expires, self.value)


class Home:
    """One namespace of one owner: its slots by key, and the operations in flight on its keys (R12).

    It lives as long as a slot in a queue, or a `Space`, refers to it.
    """

    __slots__ = ("__weakref__", "flights", "marks", "modulus", "name", "owner", "sliding", "slots", "users", "weight")

    def __init__(self, name: str, owner: Hashable, slots: MutableMapping[str, Slot]) -> None:
        self.name = name
        self.owner = owner
        self.slots = slots
        self.marks: dict[str, Slot] = {}  # the slots that are no values: purge looks at nothing else
        self.flights: dict[str, Flight] = {}
        self.users: list[weakref.ref[object]] = []  # the handles in use
        self.weight = 0  # bytes of the table, as last accounted for
        self.sliding: float | None = None
        self.modulus = (1 << 29) + random.getrandbits(29) | 1

    def admits(self, key: str, stamp: bytes) -> bool:
        """R12: whether nothing newer than `stamp` was put, filled or dropped for `key` while it is in flight."""
        flight = self.flights.get(key)
        if flight is not None:
            if stamp < flight.high:
                return False
            flight.high = stamp
        return True


class Flight:
    """What is in flight for one key: how many operations, and the newest stamp put, filled or dropped for (R12)."""

    __slots__ = ("count", "high")

    def __init__(self) -> None:
        self.count = 0
        self.high = ZERO


PER_ENTRY = sys.getsizeof(Slot()) + sys.getsizeof(ZERO) + sys.getsizeof(0.0) + sys.getsizeof(b"") + sys.getsizeof("")
"""Bytes that an entry takes beyond the lengths of its key and value, without its share of tables."""


def cost_of(key: str, value: bytes) -> int:
    """The blocks of memory that an entry takes, without its share of tables."""
    size = PER_ENTRY + len(value)
    size += len(key) if key.isascii() else sys.getsizeof(key) - sys.getsizeof("")
    return size + BLOCK // 2 >> 4
