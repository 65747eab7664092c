"""When a write is acknowledged, and what the tiers above the authority then hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WriteThrough:
    """Acknowledge once the authority has the write; then the shared tiers and memory get it too (R17)."""
