"""The memory tier as the front of a stack: one namespace of a `Memory`, read without a lock (R12)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from math import inf
from typing import TypeAlias, cast

from ..backend import SCOPE
from ..entry import Entry
from ._borrowed import Borrowed
from ._shelf import Shelf
from ._slot import Flight, Home, Rare, Slot

SLICE = 64
"""Keys changed in one hold of the lock, so that a large batch lets others in."""

Hit: TypeAlias = Callable[[str], bytes | None]
Hits: TypeAlias = Callable[[Sequence[str]], list[bytes | None]]


class Space:
    """What a stack holds of a memory tier. All handles of a namespace share its entries and what is in flight.

    `hit(key)` -> the value, or None when there is no live one here; `hits(keys)` -> the same for many, in order.
    Neither checks its keys nor raises for odd ones: what was never stored is a miss.
    """

    __slots__ = ("__weakref__", "_home", "_shelf", "hit", "hits")

    hit: Hit
    hits: Hits

    def __init__(self, shelf: Shelf, home: Home, hit: Hit) -> None:
        self._shelf = shelf
        self._home = home
        self.hit = hit

    def enter(self, keys: Iterable[str]) -> None:
        """An operation on `keys` begins: until it leaves, nothing older than what it puts or drops gets in."""
        home, shelf = self._home, self._shelf
        flights = home.flights
        rest = iter(keys)
        while batch := list(itertools.islice(rest, SLICE)):
            with shelf.lock:
                shelf.read(home, 0)
                for key in batch:
                    flight = flights.get(key)
                    if flight is None:
                        flight = flights[key] = Flight()
                    flight.count += 1
                shelf.pause -= len(batch)

    def leave(self, keys: Iterable[str]) -> None:
        """The operation is over, however it ended. Once for each `enter`, with the same keys."""
        flights = self._home.flights
        rest = iter(keys)
        while batch := list(itertools.islice(rest, SLICE)):
            with self._shelf.lock:
                for key in batch:
                    flight = flights.get(key)
                    if flight is None:  # the fork was in between
                        continue
                    flight.count -= 1
                    if not flight.count:
                        del flights[key]
                if not flights:
                    flights.clear()  # a dict that was large keeps its table until then

    def busy(self, key: str) -> bool:
        """Whether an operation on `key` is in flight."""
        return key in self._home.flights

    def install(self, key: str, value: bytes, stamp: bytes, deadline: float, cap: float = inf) -> bool:
        """Hold `value` until `deadline`, wall seconds, unless something newer is known (R12) -> whether it is held.

        With a sliding time to live hits extend the deadline, never past `cap`. A value that does not fit is not held,
        and neither is what it would have replaced.
        """
        home, shelf = self._home, self._shelf
        with shelf.lock:
            if home.sliding is None:
                return shelf.put(home, key, value, stamp, deadline)
            return shelf.put(home, key, value, stamp, cap, deadline - home.sliding)

    def install_many(self, items: Iterable[tuple[str, bytes, bytes, float, float]]) -> None:
        """`install` for each (key, value, stamp, deadline, cap)."""
        home, put = self._home, self._shelf.put
        rest = iter(items)
        while batch := list(itertools.islice(rest, SLICE)):
            with self._shelf.lock:
                for key, value, stamp, deadline, cap in batch:
                    if home.sliding is None:
                        put(home, key, value, stamp, deadline)
                    else:
                        put(home, key, value, stamp, cap, deadline - home.sliding)

    def drop(self, key: str, stamp: bytes) -> None:
        """Forget what is not newer than `stamp`, and let nothing older in while the key is in flight (R12)."""
        with self._shelf.lock:
            self._drop(key, stamp)

    def drop_many(self, marks: Iterable[tuple[str, bytes]]) -> None:
        """`drop` for each (key, stamp)."""
        rest = iter(marks)
        while batch := list(itertools.islice(rest, SLICE)):
            with self._shelf.lock:
                for key, stamp in batch:
                    self._drop(key, stamp)

    def _drop(self, key: str, stamp: bytes) -> None:
        self._home.admits(key, stamp)
        slot = self._home.slots.get(key)
        if slot is not None and slot.stamp <= stamp:
            self._shelf.remove(slot)

    def sweep(self, prefix: str, stamp: bytes) -> None:
        """`drop` for every key that begins with `prefix` and is held or in flight."""
        with self._shelf.lock:
            names = {*self._home.slots, *self._home.flights}
        self.drop_many((key, stamp) for key in names if key.startswith(prefix))

    def spaces(self) -> list[str]:
        """The namespaces scoped under this one, of the same owner, of which something is held."""
        within, owner = self._home.name + SCOPE, self._home.owner
        with self._shelf.lock:
            return [name for name, whose in self._shelf.homes if whose == owner and name.startswith(within)]

    def peek(self, key: str) -> Entry | None:
        """What is held for `key`, expired or not, without counting as a read."""
        with self._shelf.lock:
            slot = self._home.slots.get(key)
            return None if slot is None else slot.entry()

    def keys(self) -> list[str]:
        """The keys held now, of whatever kind and expired or not, in no order."""
        with self._shelf.lock:
            return list(self._home.slots)


def open_space(shelf: Shelf, home: Home, time: Callable[[], float], touch: Callable[[Slot], None] | None) -> Space:
    """A handle on `home` with the leanest readers its policy and time to live allow."""
    if isinstance(shelf, Borrowed):
        hit = _locked(shelf, home, time)
    elif home.sliding is not None:
        hit = _sliding(home, time, home.sliding, touch)
    elif touch is not None:
        hit = _touching(home, time, touch)
    else:
        space = Space(shelf, home, _plain(home, time))
        space.hits = _plain_hits(home, time, space.hit)
        return space
    space = Space(shelf, home, hit)
    space.hits = lambda keys: [hit(key) for key in keys]
    return space


def _plain(home: Home, time: Callable[[], float]) -> Hit:
    slots = home.slots

    def hit(key: str) -> bytes | None:
        try:
            slot = slots[key]
        except (KeyError, TypeError):
            return None
        if slot.deadline > time():
            slot.freq += 1
            return slot.value
        return None

    return hit


def _plain_hits(home: Home, time: Callable[[], float], hit: Hit) -> Hits:
    find = home.slots.__getitem__

    def hits(keys: Sequence[str]) -> list[bytes | None]:
        if len(keys) == 1:
            return [hit(keys[0])]
        try:
            slots = list(map(find, keys))
        except (KeyError, TypeError):
            return [hit(key) for key in keys]
        now = time()
        expired = False
        for slot in slots:  # one attribute a loop: half the time of one loop that appends
            if slot.deadline > now:
                slot.freq += 1
            else:
                expired = True
        if expired:
            return [slot.value if slot.deadline > now else None for slot in slots]
        return [slot.value for slot in slots]

    return hits


def _touching(home: Home, time: Callable[[], float], touch: Callable[[Slot], None]) -> Hit:
    slots = home.slots

    def hit(key: str) -> bytes | None:
        try:
            slot = slots[key]
            if slot.deadline > time():
                slot.freq += 1
                value = slot.value
                touch(slot)
                return value
        except (KeyError, TypeError):
            return None
        return None

    return hit


def _sliding(home: Home, time: Callable[[], float], idle: float, touch: Callable[[Slot], None] | None) -> Hit:
    slots = cast("MutableMapping[str, Rare]", home.slots)  # all are, where the time to live slides

    def hit(key: str) -> bytes | None:
        try:
            slot = slots[key]
        except (KeyError, TypeError):
            return None
        now = time()
        if slot.deadline > now and slot.seen + idle > now:
            if now > slot.seen:
                slot.seen = now
            slot.freq += 1
            value = slot.value
            if touch is not None:
                try:
                    touch(slot)
                except KeyError:  # it left just now
                    return None
            return value
        return None

    return hit


def _locked(shelf: Borrowed, home: Home, time: Callable[[], float]) -> Hit:
    def hit(key: object) -> bytes | None:
        if not isinstance(key, str):
            return None
        with shelf.lock:
            slot = shelf.find(home, key)
            now = time()
            if slot is None or slot.deadline <= now or slot.due <= now:
                return None
            if home.sliding is not None and now > slot.seen:
                slot.seen = now
            slot.freq += 1
            shelf.hits += 1
            return slot.value

    return hit
