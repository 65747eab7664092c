"""What a stack tells about itself: `stats()`, `inspect()`, `ping()`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TierStats:
    """Counters of one tier since the stack was made; keys unless said otherwise."""

    hits: int  # answered here
    misses: int  # asked here and not answered
    fills: int  # copies made here by reads
    evictions: int  # dropped for want of room (memory)
    expired: int  # found, or swept, past their expiry
    errors: int  # requests that failed
    corrupt: int  # records that could not be decoded
    skipped: int  # requests not sent, because the tier kept failing
    entries: int | None  # held now; None where counting would need I/O
    bytes: int | None  # likewise, with the bookkeeping


@dataclass(frozen=True, slots=True)
class LoadStats:
    """Of `get_or_load`, `mget_or_load` and cached functions, since the stack was made."""

    refreshes: int  # stale values loaded again in the background
    failed: int  # refreshes that failed: the old value stays until it expires
    postponed: int  # refreshes not begun for want of room: the next caller tries again
    unread: int  # loads because the tiers could not be read


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters by tier name, fastest tier first."""

    tiers: Mapping[str, TierStats]
    loads: LoadStats


@dataclass(frozen=True, slots=True)
class Holding:
    """What one tier holds for a key."""

    state: Literal["value", "expired", "deleted", "invalid", "absent", "corrupt", "unavailable"]
    why: str  # in words: how old, how long still, what went wrong
    written: float | None = None  # when, seconds since the epoch
    expires: float | None = None  # seconds since the epoch; None for never
    size: int | None = None  # bytes of the value


@dataclass(frozen=True, slots=True)
class Health:
    """What one tier answered to a ping."""

    ok: bool
    seconds: float
    error: str | None = None

    def __bool__(self) -> bool:
        return self.ok
