"""When a loaded value is to be loaded again: at its TTL, before, or after while the old one is still served."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .ttl import Seconds, seconds


@dataclass(frozen=True, slots=True)
class Staleness:
    """For `stale` seconds after its TTL an old value is served while a new one is loaded; in the last `ahead` share
    of its TTL a new one is loaded already.

    The first is HTTP's stale-while-revalidate (RFC 5861), the second FusionCache's eager refresh. XFetch, which tosses
    a coin at every read (Vattani et al. 2015), was set aside: hits in memory would have to toss it too.
    """

    stale: float = 0.0
    ahead: float = 0.0

    def __bool__(self) -> bool:
        return self.stale > 0 or self.ahead > 0

    def expiries(self, expires: int | None, now_ms: int) -> tuple[int | None, int | None]:
        """Expiry and soft expiry of what is loaded at `now_ms` and is fresh until `expires`; all in ms."""
        if expires is None or not self:
            return expires, None
        return expires + round(self.stale * 1000), expires - round(self.ahead * (expires - now_ms))


def staleness(stale: Seconds | None, refresh_ahead: float | None) -> Staleness:
    """TypeError or ValueError unless `stale` is None or seconds, and `refresh_ahead` None or a share of 1."""
    ahead: Any = refresh_ahead
    if ahead is not None:
        if isinstance(ahead, bool) or not isinstance(ahead, int | float):
            raise TypeError(f"refresh_ahead={ahead!r:.60}: give a share of the ttl, such as 0.1")
        if not 0 < ahead < 1 or math.isnan(ahead):
            raise ValueError(f"refresh_ahead={ahead!r:.60}: give a share of the ttl between 0 and 1, such as 0.1")
    return Staleness(
        0.0 if stale is None else seconds(stale, "stale", ", or None to serve nothing stale"), float(ahead or 0.0)
    )
