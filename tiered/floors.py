"""The newest stamps this process has written or returned: a shared tier that went back in time is noticed by them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from types import MappingProxyType

KEYS = 65_536
"""Keys remembered; beyond, those remembered first are forgotten."""

_NONE: Mapping[str, bytes] = MappingProxyType({})


class Floors:
    """Of each of the last keys the stamp below which no copy of a shared tier is believed (R11). Thread-safe."""

    def __init__(self, limit: int = KEYS) -> None:
        self._limit = limit
        self._spaces: dict[str, dict[str, bytes]] = {}  # namespace -> {key: stamp}
        self._count = 0
        self._lock = threading.Lock()

    def of(self, space: str) -> Mapping[str, bytes]:
        """The floors of one namespace, to look keys up in."""
        return self._spaces.get(space, _NONE)

    def lift(self, space: str, stamps: Mapping[str, bytes]) -> None:
        """These were written, or returned."""
        known = self._spaces.get(space)
        if known is not None and list(map(known.get, stamps)) == list(stamps.values()):
            return  # read again: the common case
        with self._lock:
            known = self._spaces.setdefault(space, {})
            before = len(known)
            for key, stamp in stamps.items():
                if stamp > known.get(key, b""):
                    known[key] = stamp
            self._count += len(known) - before
            while self._count > self._limit:
                self._forget_one()

    def _forget_one(self) -> None:
        space, oldest = next(iter(self._spaces.items()))
        if oldest:
            del oldest[next(iter(oldest))]
            self._count -= 1
        if not oldest:
            del self._spaces[space]

    def drop(self, space: str, keys: Iterable[str]) -> None:
        """The authority was changed behind the stack: it may hold older stamps, or none."""
        with self._lock:
            known = self._spaces.get(space, {})
            for key in keys:
                if known.pop(key, None) is not None:
                    self._count -= 1

    def forked(self) -> None:
        self._lock = threading.Lock()
