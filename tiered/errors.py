"""Every error a user of tiered can meet.

Each one derives from `TieredError` and from the built-in that fits, so code that knows nothing of tiered still
catches it. `tier` is the name of the tier where it happened, or None where no single tier is to blame.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self


class TieredError(Exception):
    """Base of all errors raised by tiered. `key` is the key it is about, where there is one."""

    answered = False
    """Whether the system was there and said no (a full disk, a missing folder): trying again would not help."""

    def __init__(self, message: str, *, tier: str | None = None, key: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.tier = tier
        self.key = key

    def __str__(self) -> str:
        where = f"[{self.tier}] " if self.tier else ""
        return f"{where}{self.message}" + (f" (key {self.key!r:.80})" if self.key is not None else "")

    def at(self, tier: str, key: str | None = None) -> Self:
        """The same error, naming `tier` and `key` unless it names them already."""
        self.tier = self.tier or tier
        self.key = key if self.key is None else self.key
        return self


class ConfigurationError(TieredError, ValueError):
    """The stack, a tier, a policy or a URL makes no sense as given. Raised before any I/O."""


class InvalidKey(TieredError, ValueError):
    """A key is empty, not a str, not encodable, or too long for a tier. Nothing was written."""


class InvalidValue(TieredError, TypeError):
    """A value is None, not bytes, or too large for a tier. Nothing was written."""


class Unsupported(TieredError):
    """A tier of this stack cannot do what was asked. Nothing was written."""


class FaceUnavailable(TieredError):
    """A store was given for one face only, synchronous or asynchronous, and the other was used. Nothing was written."""


class BackendUnavailable(TieredError, ConnectionError):
    """The tier that had to answer did not. A read knows nothing; a write wrote nothing. Safe to try again."""


class Indeterminate(TieredError):
    """A write of one key got no answer: it may or may not have happened. Read the key, or write it again."""


class BatchError(TieredError):
    """A batch was written in part. `unknown` keys may or may not have been written: they belong to neither list."""

    def __init__(
        self,
        message: str,
        *,
        written: Iterable[str] = (),
        not_written: Iterable[str] = (),
        unknown: Iterable[str] = (),
        tier: str | None = None,
    ) -> None:
        super().__init__(message, tier=tier)
        self.written = list(written)
        self.not_written = list(not_written)
        self.unknown = list(unknown)


class CorruptEntry(TieredError):
    """A stored record is truncated, altered, or belongs to another key. It is never served."""


class UnknownVersion(TieredError):
    """A stored record was written by a newer release, in a form this one cannot read."""


class ForeignValue(TieredError):
    """What is stored under our name was not written by us, or not in this layout. It is left untouched."""


class StoreClosed(TieredError):
    """The store was closed and cannot be used any more."""
