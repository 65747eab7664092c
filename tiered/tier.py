"""A store in its place in a stack, with the policies of that place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .backend import Backend
from .base import BaseStore
from .errors import ConfigurationError
from .policies.compression import Zstd
from .policies.ttl import TTL, Seconds, seconds


class Unset:
    """Marks an argument that was left out, where None has a meaning of its own."""

    def __repr__(self) -> str:
        return "<default>"


UNSET: Final = Unset()

AGES = {"memory": TTL(60), "shared": TTL(3600)}
"""How long a copy may live where nothing else is said."""

TIMEOUT_ABOVE, TIMEOUT_AUTHORITY = 0.25, 5.0
"""Seconds a request may take, above the authority and at it."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier of a stack: a store of ours, or any `BaseStore[str, bytes]` (then see `tiered.backends.foreign`).

    `ttl` is the longest this tier may keep a *copy* (seconds, timedelta or `TTL`; None for ever; by default a
    minute in memory, an hour elsewhere); the authority, the last tier, takes none. `compression` packs values on
    their way in. `timeout` bounds each request in seconds (default 0.25, at the authority 5). `name` is how
    errors and `stats()` call it, by default the scheme.
    """

    store: Backend | BaseStore[str, bytes]
    ttl: TTL | Seconds | Unset | None = UNSET
    compression: Zstd | None = None
    timeout: Seconds | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.ttl, TTL | Unset | None):
            object.__setattr__(self, "ttl", TTL(self.ttl))
        if self.compression is not None and not isinstance(self.compression, Zstd):
            raise ConfigurationError(f"compression={self.compression!r}: give Zstd(level=3) or None")
        if self.timeout is not None:
            object.__setattr__(self, "timeout", seconds(self.timeout, "timeout"))
        if self.name is not None and (not isinstance(self.name, str) or not self.name):
            raise ConfigurationError(f"name={self.name!r}: a tier's name is a non-empty str")
