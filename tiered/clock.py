"""Time and stamps: one clock per process, wall time for expiry, monotonic time for waiting (R1).

A stamp is 12 bytes, big-endian, so comparing bytes compares stamps: 8 bytes of a hybrid logical clock in
microseconds, then the 4-byte id of the writer. The hybrid logical clock follows Kulkarni et al., "Logical
Physical Clocks" (2014), with the counter folded into the microseconds.
"""

from __future__ import annotations

import os
import threading
import time
import weakref

from .errors import CorruptEntry

ZERO = bytes(12)
"""The stamp of what was never stamped: older than every drawn stamp."""

HORIZON = 24 * 3600 * 1_000_000
"""How far ahead of this clock, in microseconds, a foreign stamp may be and still be believed (R1)."""


def micros(stamp: bytes) -> int:
    """The microseconds since the epoch that a stamp carries."""
    return int.from_bytes(stamp[:8], "big")


class Clock:
    """Wall and monotonic time of this process, and the stamps drawn from it. Thread-safe.

    Subclass it to control time in tests (`tiered.testing.FakeClock`); every store that shares a clock object
    shares its stamps.
    """

    def __init__(self) -> None:
        self._renew()
        _clocks.add(self)

    def _renew(self) -> None:
        """A new incarnation: also in a forked child, where a shared writer id would lose writes (R1)."""
        self._lock = threading.Lock()
        self._writer = os.urandom(4)
        if not hasattr(self, "_last"):
            self._last = 0

    def time(self) -> float:
        """Seconds since the epoch; judges expiry."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go backwards; measures waits."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        import asyncio

        await asyncio.sleep(seconds)

    def draw(self) -> bytes:
        """A stamp greater than every stamp drawn or observed here before."""
        with self._lock:
            now = int(self.time() * 1_000_000)
            self._last = now if now > self._last else self._last + 1
            return self._last.to_bytes(8, "big") + self._writer

    def observe(self, stamp: bytes) -> None:
        """Advance past a stamp that was read. Raises CorruptEntry for one over 24 h ahead, and forgets it."""
        seen = micros(stamp)
        if seen <= self._last:
            return
        ahead = seen - int(self.time() * 1_000_000)
        if ahead > HORIZON:
            raise CorruptEntry(
                f"a stored stamp is {ahead / 3.6e9:.0f} h ahead of this machine's clock and is not believed: "
                "set the clock right, or delete the row"
            )
        with self._lock:
            self._last = max(self._last, seen)


_clocks: weakref.WeakSet[Clock] = weakref.WeakSet()


def _renew_all() -> None:
    for clock in _clocks:
        clock._renew()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)

SYSTEM = Clock()
"""The clock of this process, used by every store that is given no other."""
