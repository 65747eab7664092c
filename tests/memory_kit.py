"""What the tests of the memory tier share: stamps, a clock that stands still, and a way to run its operations."""

from __future__ import annotations

from typing import Any

from tiered.backends.memory import Memory

START = 1_700_000_000.0


def stamp(number: int) -> bytes:
    return number.to_bytes(12, "big")


class Time:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def run(memory: Memory, op: Any) -> Any:
    return memory.run(op, 1)
