"""The judge of invariant 3, after CacheLib's: every operation on a key is logged with when it began and ended.

A read may return the value of a write unless that write was over before another acknowledged write began which
was itself over before the read began.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

FOREVER = float("inf")


@dataclass
class Write:
    value: Any  # None for a delete
    began: float
    ended: float = FOREVER  # of a write that failed: when it was reported
    acknowledged: bool = False


@dataclass
class Oracle:
    """`now()` is any counter that grows with every event. Thread-safe."""

    now: Callable[[], float]
    writes: dict[Hashable, list[Write]] = field(default_factory=lambda: defaultdict(lambda: [Write(None, -1, 0, True)]))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, key: Hashable, value: Any) -> Write:
        with self.lock:
            write = Write(value, self.now())
            self.writes[key].append(write)
            return write

    def end(self, write: Write, acknowledged: bool) -> None:
        with self.lock:
            write.ended = self.now()
            write.acknowledged = acknowledged

    def check(self, key: Hashable, value: Any, began: float, what: str = "read") -> None:
        """Raise AssertionError if a read that began at `began` may not have returned `value` by now."""
        with self.lock:
            writes = list(self.writes[key])
        known = [write for write in writes if write.value == value]
        assert known, f"{what} of {key!r} returned {value!r}, which nobody wrote"
        for write in known:
            if not any(
                other.acknowledged and other.ended < began and write.ended < other.began for other in writes
            ):
                return
        newest = max((w for w in writes if w.acknowledged and w.ended < began), key=lambda w: w.began)
        raise AssertionError(f"{what} of {key!r} begun at {began} returned {value!r}, older than {newest}; {writes}")
