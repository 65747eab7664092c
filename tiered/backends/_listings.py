"""Listings under way: the keys of each, sorted, kept from one page to the next."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict

from ..backend import Op

LISTINGS = 4
"""Listings that are remembered; beyond, one that goes on begins anew where it was."""


class Listings:
    """The newest listings, by what they list. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], list[str]] = OrderedDict()
        self._idle: set[tuple[str, str]] = set()  # there at the last `tidy` and not used since

    def keys(self, space: str, prefix: str, after: str | None, collect: Op[set[str]]) -> Op[list[str]]:
        """The sorted keys after `after`: of a new listing, which runs `collect`, where `after` is None."""
        name = space, prefix
        with self._lock:
            keys = None if after is None else self._kept.get(name)
            self._idle.discard(name)
        if keys is None:
            keys = sorted((yield from collect))
            with self._lock:
                self._kept[name] = keys
                self._kept.move_to_end(name)
                if len(self._kept) > LISTINGS:
                    self._kept.popitem(last=False)
        else:
            collect.close()
        return keys if after is None else keys[bisect_right(keys, after) :]

    def end(self, space: str, prefix: str) -> None:
        with self._lock:
            self._kept.pop((space, prefix), None)

    def tidy(self) -> None:
        """Forget what nobody went on with since the last time."""
        with self._lock:
            for name in self._idle:
                self._kept.pop(name, None)
            self._idle = set(self._kept)
