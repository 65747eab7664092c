"""Which keys are written here by more than one at a time: what an unstamped authority then holds, nobody knows (R9)."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Overlaps:
    """The writes under way in this process, by (namespace, key). Thread-safe."""

    def __init__(self) -> None:
        self.forked()

    def begin(self, space: str, keys: Iterable[str]) -> None:
        """A write of these keys begins."""
        with self._lock:
            for key in keys:
                count, _ = self._writing.get((space, key), (0, False))
                self._writing[space, key] = (count + 1, count > 0)

    def alone(self, space: str, key: str) -> bool:
        """Whether no other write of the key was under way since this one began."""
        return not self._writing.get((space, key), (0, True))[1]

    def end(self, space: str, keys: Iterable[str]) -> None:
        """That write has ended. Those it overlapped with stay overlapped."""
        with self._lock:
            for key in keys:
                count, mixed = self._writing.pop((space, key), (0, False))
                if count > 1:
                    self._writing[space, key] = (count - 1, mixed)

    def forked(self) -> None:
        """In a forked child: no write of the parent ends here."""
        self._lock = threading.Lock()
        self._writing: dict[tuple[str, str], tuple[int, bool]] = {}
