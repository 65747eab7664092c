"""The judge of invariant 3, after CacheLib's: every operation on a key is logged with when it began and ended.

A read may return the value of a write unless that write was over before another acknowledged write began which
was itself over before the read began, and which the reader was bound to see.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

FOREVER = float("inf")

Binding = Callable[["Write"], bool]


@dataclass
class Write:
    value: Any  # None for a delete
    began: float
    owner: Hashable = None  # the process
    expires: float | None = None  # seconds since the epoch
    reported: float = FOREVER  # when its caller learned how it ended
    ended: float = FOREVER  # as far as others may tell: without an acknowledgement it may arrive at any time later
    acknowledged: bool = False
    seen_at: Any = None  # what the clocks of all processes said then


def _first() -> list[Write]:
    return [Write(None, -1, reported=0, ended=0, acknowledged=True)]


@dataclass
class Oracle:
    """`now()` is any counter that grows with every event. Thread-safe."""

    now: Callable[[], float]
    writes: dict[Hashable, list[Write]] = field(default_factory=lambda: defaultdict(_first))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, key: Hashable, value: Any, owner: Hashable = None, expires: float | None = None) -> Write:
        with self.lock:
            write = Write(value, self.now(), owner, expires)
            self.writes[key].append(write)
            return write

    def end(self, write: Write, acknowledged: bool, *, over: bool = False, seen_at: Any = None) -> None:
        """`over`: not acknowledged, but it cannot arrive later either."""
        with self.lock:
            write.reported = self.now()
            write.acknowledged, write.seen_at = acknowledged, seen_at
            if acknowledged or over:
                write.ended = write.reported

    def possible(
        self, key: Hashable, began: float, reader: Hashable = None, bound: Binding = lambda write: True
    ) -> list[Write]:
        """The writes that a read begun at `began` may show now; own ones bind it, of others those that `bound` says."""
        with self.lock:
            writes = list(self.writes[key])
            killers = [
                other
                for other in writes
                if other.acknowledged and other.ended < began and (other.owner == reader or bound(other))
            ]
            last = max((other.began for other in killers), default=-FOREVER)
        return [write for write in writes if (write.reported if write.owner == reader else write.ended) >= last]

    def check(
        self,
        key: Hashable,
        value: Any,
        began: float,
        what: str = "read",
        reader: Hashable = None,
        bound: Binding = lambda write: True,
        gone_by: float | None = None,
    ) -> None:
        """Raise AssertionError if a read that began at `began` may not have returned `value` by now.

        `gone_by`: the latest any clock can have said; what had expired by then may read as None.
        """
        possible = self.possible(key, began, reader, bound)
        for write in possible:
            expired = write.expires is not None and gone_by is not None and write.expires <= gone_by + 0.002
            if write.value == value or (value is None and expired):
                return
        writes = self.writes[key]
        known = [write for write in writes if write.value == value]
        assert known, f"{what} of {key!r} returned {value!r}, which nobody wrote"
        raise AssertionError(
            f"{what} of {key!r} begun at {began} by {reader} returned {value!r}; {possible=}; {writes=}"
        )
