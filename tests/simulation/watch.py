"""What must hold in a random program at any moment, beyond what any one read can show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiered.entry import INVALID, VALUE, Entry

if TYPE_CHECKING:
    from .test_programs import Program

STALE = 0.002
"""Seconds that times in milliseconds may be wrong by."""


class Watch:
    """Looks at every tier of a program, after each of its steps."""

    def __init__(self, program: Program, oldest: float) -> None:
        self.program = program
        self.oldest = oldest  # the age of any copy, seconds
        self.history: dict[str, list[bytes]] = {}  # the values that the authority had, one after the other
        self.remembered: dict[tuple[int, str], bytes] = {}  # the stamps that memories had
        self.current: dict[str, bytes] = {}  # the stamp that the authority has
        self.held: dict[tuple[str, bytes], float] = {}  # when it last had a stamp
        self.highest = 0.0  # what any clock has said

    def look(self, keys: list[str], *, strict: bool) -> None:
        program = self.program
        self.highest = max(self.highest, program.latest, *(clock.time() for clock in program.clocks))
        for key in keys:
            row = program.row(key)
            self.authority_goes_on(key, row)
            memories = [store._made.space.peek(key) for store in program.stores if program.shape.memory]
            self.memories_go_on(key, memories)
            if row is not None and not program.shape.plain:
                copies = [tier.rows.get((program.space, key)) for tier in program.uppers]
                older = [
                    copy for copy in copies if copy is not None and copy.kind != INVALID and copy.stamp < row.stamp
                ]
                if older:
                    self.nobody_trusts_what_he_replaced(key, row)
                if strict and row.value not in program.from_loads:
                    for copy in older:
                        self.is_past(copy, f"{copy} of {key} can be read over {row}")
            if not program.shape.plain:
                self.copies_are_of_age(key, row, memories)

    def authority_goes_on(self, key: str, row: Entry | None) -> None:
        """R2: what was replaced does not come back."""
        values = self.history.setdefault(key, [])
        if row is not None and row.kind == VALUE and (not values or values[-1] != row.value):
            assert row.value not in values, f"{key}: {row.value!r} is there again after {values[-1]!r} (R2)"
            values.append(row.value)

    def memories_go_on(self, key: str, memories: list[Entry | None]) -> None:
        for which, entry in enumerate(memories):
            stamp = b"" if entry is None else entry.stamp
            before = self.remembered.get((which, key), b"")
            assert not stamp or stamp >= before, f"{key}: memory of {which} went back (R12)"
            self.remembered[which, key] = stamp

    def nobody_trusts_what_he_replaced(self, key: str, row: Entry) -> None:
        """R13, R16: what a process wrote to the authority it never takes from a shared tier in an older state."""
        program = self.program
        for store, clock in zip(program.stores, program.clocks, strict=True):
            if row.stamp[8:] != clock._writer:
                continue
            for tier, level in zip(program.uppers, store._stack.uppers, strict=True):
                copy = tier.rows.get((program.space, key))
                if copy is None or copy.kind == INVALID or copy.stamp >= row.stamp:
                    continue
                if copy.expires is None or copy.expires > clock.time() * 1000:
                    floors = [of for prefix, of in level.floors(program.space, 0.0) if key.startswith(prefix)]
                    trusted = level.trusted(program.space, [key]) and copy.stamp > max(floors, default=b"")
                    assert not trusted, f"{store} trusts {copy} of {key} over its own {row}"

    def is_past(self, copy: Entry, what: str) -> None:
        """R18: in no shared tier, at no moment, but for what a load replaced: that is no write."""
        assert copy.expires is not None, what
        assert copy.expires <= self.highest * 1000, what

    def copies_are_of_age(self, key: str, row: Entry | None, memories: list[Entry | None]) -> None:
        """R10: the age of a copy runs from when the authority held it, at the latest."""
        if key in self.current:
            self.held[key, self.current.pop(key)] = self.highest
        if row is not None:
            self.held[key, row.stamp] = self.highest
            self.current[key] = row.stamp
        copies = [tier.rows.get((self.program.space, key)) for tier in self.program.uppers]
        for copy in copies + memories:
            if copy is not None and copy.kind != INVALID and (key, copy.stamp) in self.held:
                assert copy.expires is not None
                late = copy.expires / 1000 - self.oldest - self.held[key, copy.stamp]
                assert late < STALE, f"{copy} of {key} is kept {late} s too long"
