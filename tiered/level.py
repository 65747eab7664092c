"""A tier at work: its health, its counters, and which of its copies cannot be trusted."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .backend import Backend
from .entry import Packing
from .errors import BackendUnavailable, BatchError, Indeterminate, TieredError
from .policies.ttl import TTL

PATIENCE = 5
"""Failures in a row after which a tier is skipped."""

LONGEST_PAUSE = 30.0
"""Seconds between two probes of a tier that stays away, at most (1, 2, 4 .. 30)."""

MARKS = 65_536
"""Dirty keys remembered a tier (R16); beyond, a floor for the whole tier stands in."""

CLEARS = 64
"""Prefixes remembered that could not be cleared in a tier; beyond, the floor for the whole tier stands in."""

REPAIRS = 256
"""Dirty keys repaired at a time (R16)."""

Name = tuple[str, str]
"""(namespace, key)."""


def is_outage(error: TieredError) -> bool:
    """Whether this may pass: worth another try, and a sign of a tier that is away."""
    return isinstance(error, BackendUnavailable | Indeterminate | BatchError) and not error.answered


class Skipped(BackendUnavailable):
    """The tier failed too often and was not asked."""


@dataclass(slots=True)
class Counters:
    """Of one tier, since the stack was made. Counted in keys unless said otherwise."""

    hits: int = 0  # answered here
    misses: int = 0  # asked here, not answered
    fills: int = 0  # copies made on the way up
    expired: int = 0  # found past their expiry
    errors: int = 0  # requests that failed
    corrupt: int = 0  # records that could not be decoded
    skipped: int = 0  # requests not sent because the tier kept failing


@dataclass(slots=True, eq=False)
class Level:
    """One tier of one stack. Thread-safe; makes no calls of its own."""

    name: str
    backend: Backend
    ttl: TTL | None
    packing: Packing | None
    timeout: float
    count: Counters = field(default_factory=Counters)
    failures: int = 0
    probe_at: float = 0.0
    probing: bool = False
    reason: str = ""
    marks: dict[Name, bytes] = field(default_factory=dict)  # keys whose copy here may be old, and up to which stamp
    broken: dict[Name, None] = field(default_factory=dict)  # those whose write has ended: to be repaired
    floor: bytes = b""
    floor_until: float = 0.0
    swept: dict[Name, tuple[bytes, float]] = field(default_factory=dict)  # (namespace, prefix): a floor, until when
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    # -- health --------------------------------------------------------------------------------------------------

    def admit(self, now: float) -> bool:
        """Whether to ask this tier at monotonic time `now`: one caller a pause probes a tier that keeps failing."""
        if self.failures < PATIENCE:
            return True
        with self.lock:
            if self.failures >= PATIENCE and now < self.probe_at:
                self.count.skipped += 1
                return False
            self.probe_at = now + self._pause()
            self.probing = True
            return True

    def failed(self, now: float, error: TieredError) -> None:
        """Only what may pass is an outage: a file that is not ours is as reachable as ever."""
        with self.lock:
            self.count.errors += 1
            self.reason = error.message
            if not is_outage(error):
                return
            if self.failures < PATIENCE or self.probing:  # else it was sent before we gave up, as many may have been
                self.failures += 1
                self.probe_at = now + self._pause()
                self.probing = False

    def worked(self) -> None:
        self.failures = 0
        self.probing = False

    def _pause(self) -> float:
        return min(LONGEST_PAUSE, 2.0 ** max(0, min(self.failures - PATIENCE, 10)))

    # -- dirty marks (R13, R15, R16) -------------------------------------------------------------------------------

    def mark(self, space: str, keys: Iterable[str], stamp: bytes) -> dict[str, bytes]:
        """A write with `stamp` is on its way: until it has arrived here too, nobody may read these keys here.

        -> the marks that were there already, of writes that are on their way or broken.
        """
        before: dict[str, bytes] = {}
        with self.lock:
            for key in keys:
                name = (space, key)
                old = self.marks.get(name)
                if old is not None:
                    before[key] = old
                self.marks[name] = stamp if old is None else max(stamp, old)
        return before

    def unmark(self, space: str, stamps: Mapping[str, bytes]) -> None:
        """Writes with these stamps, or repairs up to them, arrived. A newer mark stays (R16)."""
        with self.lock:
            for key, stamp in stamps.items():
                name = (space, key)
                if self.marks.get(name, stamp) <= stamp:
                    self.marks.pop(name, None)
                    self.broken.pop(name, None)

    def call_off(self, space: str, stamps: Mapping[str, bytes], before: Mapping[str, bytes]) -> None:
        """Writes with these stamps will not arrive: what was marked `before` them is to be repaired."""
        with self.lock:
            for key, stamp in stamps.items():
                name = (space, key)
                if self.marks.get(name) != stamp:  # a newer one has taken over
                    continue
                if key in before:
                    self.marks[name] = before[key]
                    self.broken[name] = None
                else:
                    del self.marks[name]
                    self.broken.pop(name, None)

    def break_off(self, space: str, stamps: Mapping[str, bytes], now: float) -> None:
        """These writes ended without arriving here: repair the keys. Beyond the bound, distrust everything older."""
        with self.lock:
            for key, stamp in stamps.items():
                name = (space, key)
                self.marks[name] = max(stamp, self.marks.get(name, stamp))
                self.broken[name] = None
            if len(self.broken) > MARKS:
                self._raise_floor(max(self.marks[name] for name in self.broken), now)
                for name in self.broken:
                    del self.marks[name]
                self.broken.clear()

    def distrust(self, space: str, prefix: str, stamp: bytes, now: float) -> None:
        """From monotonic time `now` on, no copy up to `stamp` of a key that begins so is served, while one may live."""
        with self.lock:
            if len(self.swept) >= CLEARS:  # one floor for the whole tier stands in for them
                self._raise_floor(max(stamp, *(stamp for stamp, _ in self.swept.values())), now)
                self.swept.clear()
            else:
                self.swept[space, prefix] = (stamp, self._age(now))

    def floors(self, space: str, now: float) -> list[tuple[str, bytes]]:
        """(prefix, stamp): copies of keys that begin so are not served up to that stamp."""
        whole = [("", self.floor)] if now < self.floor_until else []
        if not self.swept:
            return whole
        with self.lock:
            return whole + [
                (prefix, stamp) for (of, prefix), (stamp, until) in self.swept.items() if of == space and now < until
            ]

    def _age(self, now: float) -> float:
        """Until when a copy made before monotonic time `now` may live."""
        return now + self.ttl.limit() if self.ttl else float("inf")

    def _raise_floor(self, stamp: bytes, now: float) -> None:
        self.floor = max(self.floor, stamp)
        self.floor_until = self._age(now)

    def repairs(self) -> dict[str, dict[str, bytes]]:
        """The next broken keys with the stamps to void up to, by namespace."""
        if not self.broken:
            return {}
        batch: dict[str, dict[str, bytes]] = {}
        with self.lock:
            for name, _ in zip(self.broken, range(REPAIRS), strict=False):
                batch.setdefault(name[0], {})[name[1]] = self.marks[name]
        return batch

    def trusted(self, space: str, keys: Sequence[str]) -> Sequence[str]:
        """Those of `keys` that may be read here."""
        if not self.marks:
            return keys
        return [key for key in keys if (space, key) not in self.marks]

    def forked(self) -> None:
        """In a forked child: no lock is held, and writes under way in the parent never end here."""
        self.lock = threading.Lock()
        self.broken = dict.fromkeys(self.marks)
