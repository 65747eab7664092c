"""For tests of code that uses tiered: time that moves when told to."""

from __future__ import annotations

import threading
import time

from .clock import Clock


class FakeClock(Clock):
    """A clock that stands still, starting at the real time: `TieredStore(.., clock=FakeClock())`.

    `advance(seconds)` moves it. A pause that the store itself makes (between two tries of a write) moves it too,
    and takes no real time.
    """

    def __init__(self) -> None:
        self._moving = threading.Lock()
        self._now = time.time()
        self._elapsed = 0.0
        super().__init__()

    def advance(self, seconds: float) -> None:
        """Move wall and monotonic time by `seconds`; negative steps wall time back, as a corrected clock does."""
        with self._moving:
            self._now += seconds
            self._elapsed += max(0.0, seconds)

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        self.advance(seconds)
