"""What a tier can hold for a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

Packing: TypeAlias = Callable[[bytes], tuple[int, bytes]]
"""Packs a payload for storage: payload -> (codec id, bytes)."""

VALUE, DELETED, INVALID = 0, 1, 2
"""Kinds: a value; "deleted" (answers absent); "invalid" (answers nothing: ask the tier below)."""


class Entry(NamedTuple):
    """One stored state of one key. Immutable.

    `stamp` orders writes (12 bytes, see `tiered.clock`); `expires` is in milliseconds since the epoch, None for
    never; `value` is the payload, for an invalid entry its lease token; `soft` is the soft expiry in milliseconds.
    """

    kind: int
    stamp: bytes
    expires: int | None
    value: bytes
    soft: int | None = None

    def live(self, now_ms: int) -> bool:
        """Whether this is a value that may still be served."""
        return self.kind == VALUE and (self.expires is None or self.expires > now_ms)


def beats(new: Entry, old: Entry) -> bool:
    """Whether `new` replaces `old`: a greater stamp; at equal stamp anything over `invalid`, and of two copies of one
    value the one that lives longer (else a tier would miss for ever what has reached its maximum age there).
    """
    if new.stamp != old.stamp:
        return new.stamp > old.stamp
    if new.kind == old.kind == VALUE:
        return old.expires is not None and (new.expires is None or new.expires > old.expires)
    return old.kind == INVALID and new.kind != INVALID
