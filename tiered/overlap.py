"""Which keys are written here by more than one at a time: what an unstamped authority then holds, nobody knows (R9)."""

from __future__ import annotations

import threading
from collections.abc import Iterable

Name = tuple[str, str]


class Overlaps:
    """The writes under way in this process, by (namespace, key). Thread-safe.

    A writer is known by identity, not counted: an interrupt may break off `begin`, and `end` mends it, also twice.
    """

    def __init__(self) -> None:
        self.forked()

    def begin(self, writer: object, space: str, keys: Iterable[str]) -> None:
        """A write of these keys begins."""
        with self._lock:
            for key in keys:
                writers = self._writing.setdefault((space, key), {})
                overlap = bool(writers.keys() - {writer})
                for other in writers:
                    writers[other] = True
                writers[writer] = overlap

    def alone(self, writer: object, space: str, key: str) -> bool:
        """Whether no other write of the key was under way since this one began."""
        return not self._writing.get((space, key), {}).get(writer, True)

    def end(self, writer: object, space: str, keys: Iterable[str]) -> None:
        """That write has ended, if it ever began."""
        with self._lock:
            for key in keys:
                writers = self._writing.get((space, key), {})
                writers.pop(writer, None)
                if not writers:
                    self._writing.pop((space, key), None)

    def forked(self) -> None:
        """In a forked child: no write of the parent ends here."""
        self._lock = threading.Lock()
        self._writing: dict[Name, dict[object, bool]] = {}
