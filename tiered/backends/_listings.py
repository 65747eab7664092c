"""Listings under way: the keys of each, sorted, kept from one page to the next."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from heapq import merge
from itertools import islice
from typing import NamedTuple

from ..backend import Op

LISTINGS = 64
"""Listings that are remembered; beyond, and beyond `KEYS`, the one used longest ago begins anew where it was."""

KEYS = 1_000_000
"""Keys that are remembered, of all of them."""

IDLE = 300.0
"""Seconds for which a listing is remembered that nobody goes on with."""


_PART = 50_000
"""Keys sorted in one step."""


def in_order(keys: Iterable[str]) -> list[str]:
    """`keys` sorted, part by part: one step over all of them would hold up every thread, a loop's too."""
    names = iter(keys)
    parts = list(iter(lambda: sorted(islice(names, _PART)), []))
    return parts[0] if len(parts) == 1 else list(merge(*parts))


class _Listing(NamedTuple):
    keys: list[str]
    used: float


class Listings:
    """The newest listings, by what they list. Thread-safe without a lock, each step of a dictionary being one: so a
    forked child finds none held.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Listing] = {}  # the one used last comes last

    def keys(self, space: str, prefix: str, after: str | None, collect: Callable[[], Op[list[str]]]) -> Op[list[str]]:
        """The sorted keys after `after`: of a new listing, by `collect`, where `after` is None."""
        name = space, prefix
        kept = None if after is None else self._kept.get(name)
        keys = (yield from collect()) if kept is None else kept.keys
        self._kept.pop(name, None)
        self._kept[name] = _Listing(keys, time.monotonic())
        self.tidy()
        return keys if after is None else keys[bisect_right(keys, after) :]

    def end(self, space: str, prefix: str) -> None:
        self._kept.pop((space, prefix), None)

    def tidy(self) -> None:
        """Forget what nobody went on with for long, and what is too much, but for the newest."""
        listings = list(self._kept.items())
        total, count, now = sum(len(listing.keys) for _, listing in listings), len(listings), time.monotonic()
        for at, (name, listing) in enumerate(listings):
            much = (count > LISTINGS or total > KEYS) and at < len(listings) - 1
            if (much or now - listing.used > IDLE) and self._kept.pop(name, None) is not None:
                count -= 1
                total -= len(listing.keys)
