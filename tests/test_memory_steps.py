"""Every interleaving, at every line, of two operations on one key of the memory tier (R12, invariant 3)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tiered.backends.memory import Memory
from tiered.entry import DELETED, VALUE, Entry

from .stepper import Result, check, interleave

S = [number.to_bytes(12, "big") for number in range(10)]
OLD, FILL, VOID, DROP, PUT = b"0", b"1", b"2", b"4", b"5"
START = 1_000_000.0
LIMIT = 4


class Stage:
    """A memory with one key in flight, and what can happen to it. Stamps: old 1, fill 2, void 3, drop 4, put 5."""

    def __init__(self, policy: Any = "adaptive", deadline: float = START + 50, sliding: float | None = None) -> None:
        self.now = START
        self.memory = Memory(max_entries=LIMIT, policy=policy)
        self.space = self.memory.space("ns", lambda: self.now, sliding)
        self.space.install("other", b"o", S[1], START + 1000, START + 1000)
        self.space.install("k", OLD, S[1], deadline, START + 1000)
        self.newest = 1
        self.legal: dict[Any, float] = {OLD: deadline}  # value -> until when it may be served

    def tell(self, stamp: int) -> None:
        self.newest = max(self.newest, stamp)

    def flown(self, action: Callable[[], Any]) -> Any:
        self.space.enter(["k"])
        try:
            return action()
        finally:
            self.space.leave(["k"])

    def put(self) -> None:
        self.legal[PUT] = START + 200
        self.flown(lambda: self.space.install("k", PUT, S[5], START + 200, START + 1000))
        self.tell(5)

    def brief(self) -> None:
        """A put that expires before the old value."""
        self.legal[PUT] = START + 5
        self.flown(lambda: self.space.install("k", PUT, S[5], START + 5, START + 5))
        self.tell(5)

    def fill(self) -> None:
        """A fill whose record was read before the others wrote: refused by the stamp."""
        self.legal[FILL] = START + 200
        self.space.install("k", FILL, S[2], START + 200, START + 1000)

    def drop(self) -> None:
        self.flown(lambda: self.space.drop("k", S[4]))
        self.tell(4)

    def void(self) -> None:
        memory = self.memory
        self.flown(lambda: memory.run(memory.void("ns", [("k", S[3])]), 1))
        self.tell(3)

    def delete(self) -> None:
        memory = self.memory
        self.flown(lambda: memory.run(memory.put("ns", [("k", Entry(DELETED, S[4], None, b""))], None), 1))
        self.tell(4)

    def swap(self) -> None:
        memory, entry = self.memory, Entry(VALUE, S[2], int(START + 200) * 1000, FILL)
        self.legal[FILL] = START + 200
        memory.run(memory.swap("ns", [("k", entry, S[1])], None), 1)

    def evict(self) -> None:
        for number in range(LIMIT + 1):
            self.space.install(f"x{number}", b"x", S[1], START + 1000, START + 1000)

    def expire(self) -> None:
        self.now = START + 60
        self.memory.run(self.memory.purge("ns", int(self.now * 1000), 10**9, 100, DELETED), 1)

    def hit(self) -> None:
        self.served(self.now, self.space.hit("k"))

    def late_hit(self) -> None:
        """A hit when `brief` has expired."""
        self.now = max(self.now, START + 10)
        self.served(self.now, self.space.hit("k"))

    def hits(self) -> None:
        now = self.now
        for value in self.space.hits(["k", "other", "k"])[::2]:
            self.served(now, value)

    def served(self, began: float, value: bytes | None) -> None:
        if value is not None:
            assert self.legal[value] > began, f"{value!r} was served past its deadline"

    def verify(self, result: Result) -> None:
        stamps = {OLD: 1, FILL: 2, PUT: 5}
        value = self.space.hit("k")
        assert value is None or stamps[value] >= self.newest, f"{value!r} is older than what was acknowledged"
        self.served(self.now, value)
        held = self.space.peek("k")
        assert held is None or held.kind != VALUE or held.stamp >= S[self.newest]
        assert not self.space.busy("k"), "an in-flight record was left behind"
        check(self.memory)


ACTIONS = ["put", "brief", "fill", "drop", "void", "delete", "swap", "evict", "expire", "hit", "late_hit", "hits"]


def every_line(make: Callable[[], Stage], first: str, second: str, outer: bool) -> int:
    """Run all schedules of the pair -> how many there were."""
    for line in itertools.count(1):
        stage = make()
        if outer:  # another operation keeps the record in flight, so that even what evicts cannot lose `high`
            stage.space.enter(["k"])
        result = interleave(stage.memory, getattr(stage, first), getattr(stage, second), line)
        if outer:
            assert stage.space.busy("k")
            stage.legal[FILL] = START + 200
            assert stage.space.install("k", FILL, S[2], START + 200, START + 200) is (stage.newest <= 2)
            stage.space.leave(["k"])
        stage.verify(result)
        if not result.reached:
            return line - 1
    raise AssertionError


@pytest.mark.parametrize("second", ACTIONS)
@pytest.mark.parametrize("first", ACTIONS)
def test_r12_every_interleaving(first: str, second: str) -> None:
    late = {"fill", "swap", "evict"} & {first, second}  # what is late began, and is in flight, before the others
    assert every_line(Stage, first, second, outer=bool(late)) > 3


@pytest.mark.parametrize("second", ["put", "brief", "drop", "evict", "hit", "late_hit"])
@pytest.mark.parametrize("first", ["put", "brief", "drop", "evict", "expire", "hit"])
def test_r12_every_interleaving_lru(first: str, second: str) -> None:
    every_line(lambda: Stage("lru"), first, second, outer=False)


@pytest.mark.parametrize("second", ["put", "brief", "drop", "evict", "hit", "late_hit"])
@pytest.mark.parametrize("first", ["put", "brief", "drop", "evict", "expire", "hit"])
def test_r12_every_interleaving_sliding(first: str, second: str) -> None:
    every_line(lambda: Stage(sliding=500.0, deadline=START + 50), first, second, outer=False)


def test_a_reader_between_the_lines_of_an_overwrite_never_gets_the_old_value_with_the_new_deadline() -> None:
    for line in itertools.count(1):
        stage = Stage(deadline=START + 1)
        seen: list[bytes | None] = []

        def later(stage: Stage = stage, seen: list[bytes | None] = seen) -> None:
            stage.now = START + 10  # the old value's time is over, the new one's is not
            seen.append(stage.space.hit("k"))

        result = interleave(stage.memory, stage.put, later, line)
        assert seen[0] in {None, PUT}
        if not result.reached:
            break


def test_the_stepper_blocks_on_the_lock_and_goes_on() -> None:
    blocked = 0
    for line in itertools.count(1):
        stage = Stage()
        result = interleave(stage.memory, stage.put, stage.drop, line)
        blocked += result.blocked
        if not result.reached:
            break
    assert blocked > 10
    assert line > 30
