"""When a write is acknowledged, and what the tiers above the authority then hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class WriteThrough:
    """Acknowledge once the authority has the write; then the shared tiers and memory get it too (R17).

    `strict` first marks the keys in every shared tier, so that no process reads an older copy there even when the
    writer dies in between (R18). It costs a round trip to them, and a write fails while one of them is away.
    """

    strict: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.strict, bool):
            raise ConfigurationError(f"WriteThrough(strict={self.strict!r}): give True or False")


@dataclass(frozen=True, slots=True)
class WriteAround:
    """Acknowledge once the authority has the write; copies above it are voided, and made again by reads (R17).

    For values that are written more often than they are read.
    """


WriteMode: TypeAlias = WriteThrough | WriteAround
