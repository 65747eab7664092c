"""How long things live: the TTL of a write, and the maximum age of a tier's copies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

Seconds: TypeAlias = float | int | timedelta

OR_NEVER = ", or None for never"

LONGEST = 100 * 365.25 * 86_400
"""The longest TTL in seconds; beyond a century say None."""


def seconds(value: Seconds, what: str = "ttl", instead: str = "") -> float:
    """`value` in seconds: TypeError unless it is a number or timedelta, ValueError unless 0 < value <= a century.

    Errors call it `what`, and say what else could be given `instead`.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what}={value!r:.60}: give seconds or a timedelta{instead}")
    if not 0 < value <= LONGEST or math.isnan(value):
        raise ValueError(f"{what}={value!r:.60}: give more than 0 seconds and at most a century{instead}")
    return float(value)


@dataclass(frozen=True, slots=True)
class TTL:
    """The longest that a tier may keep a copy, in seconds (or a timedelta).

    `jitter` shortens it by up to that share at random, so that copies made together do not expire together.
    `sliding` starts it again at every hit, up to `cap` seconds after the copy was made; a cap is required, for it
    is what bounds how stale a copy can be.
    """

    ttl: Seconds
    jitter: float = 0.0
    sliding: bool = False
    cap: Seconds | None = None

    def __post_init__(self) -> None:
        length = seconds(self.ttl)
        object.__setattr__(self, "ttl", length)
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, int | float):
            raise TypeError(f"jitter={self.jitter!r}: give a share from 0 to 1")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter={self.jitter!r}: give a share from 0 up to, not including, 1")
        if self.sliding and self.cap is None:
            raise ValueError("a sliding TTL needs a cap: TTL(60, sliding=True, cap=3600)")
        if not self.sliding and self.cap is not None:
            raise ValueError("cap= belongs to a sliding TTL")
        if self.cap is not None:
            cap = seconds(self.cap, "cap")
            object.__setattr__(self, "cap", cap)
            if cap < length:
                raise ValueError(f"cap={cap:g} is below the TTL of {length:g} seconds")

    def length(self, chance: float) -> float:
        """Seconds a new copy may live; `chance` is a random number in [0, 1)."""
        return float(self.ttl) * (1 - self.jitter * chance)  # type: ignore[arg-type]

    def idle(self) -> float | None:
        """Seconds without a hit after which a copy is gone; None unless it slides."""
        return self.length(0.0) if self.sliding else None

    def limit(self) -> float:
        """Seconds after which a copy is gone for certain."""
        return float(self.cap if self.cap is not None else self.ttl)  # type: ignore[arg-type]
