"""A deterministic two-thread stepper for the memory tier, and a check of its structure from scratch.

`interleave(lock_owner, first, second, line)` runs `first` up to its `line`-th traced line, then `second` until it
ends or would block on the lock, then `first` to its end, then `second`. Only one thread runs at any time.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import FrameType
from typing import Any

import tiered
from tiered.backends._shelf import Own
from tiered.backends.memory import Memory
from tiered.policies.eviction import BLOCK, MAIN, SMALL, WINDOW, Adaptive, Lru

ROOT = Path(tiered.__file__).parent
TRACED = {
    str(ROOT / "backends" / name)
    for name in ("memory.py", "_shelf.py", "_space.py", "_slot.py", "_wheel.py", "_borrowed.py")
} | {str(ROOT / "policies" / "eviction.py")}
PATIENCE = 20
"""Seconds until a stuck schedule fails: none is ever waited for in a run that passes."""


class Turn:
    """Whose turn it is: 0, 1, or None when both are done."""

    def __init__(self) -> None:
        self.owner = 0
        self.done = [False, False]
        self.changed = threading.Condition()

    def give(self, to: int) -> None:
        """Let `to` run, if it still can."""
        with self.changed:
            if not self.done[to]:
                self.owner = to
                self.changed.notify_all()

    def wait(self, me: int) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: self.owner == me, PATIENCE):
                raise AssertionError(f"thread {me} was never given its turn")

    def finish(self, me: int) -> None:
        with self.changed:
            self.done[me] = True
            if not self.done[1 - me]:
                self.owner = 1 - me
            self.changed.notify_all()


class SteppedLock:
    """The memory's lock, which gives the turn to the other thread where it would block."""

    def __init__(self, turn: Turn) -> None:
        self._lock = threading.Lock()
        self._turn = turn
        self.names: dict[int, int] = {}
        self.blocked = 0

    def acquire(self) -> bool:
        while not self._lock.acquire(blocking=False):
            me = self.names[threading.get_ident()]
            self.blocked += 1
            assert not self._turn.done[1 - me], "the lock was never released"
            self._turn.give(1 - me)
            self._turn.wait(me)
        return True

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Result:
    """What came of one schedule."""

    def __init__(self) -> None:
        self.values: list[Any] = [None, None]
        self.reached = False  # whether `first` has as many lines
        self.blocked = 0


def interleave(memory: Memory, first: Callable[[], Any], second: Callable[[], Any], line: int) -> Result:
    """One schedule; see the module. Errors of either thread are raised here."""
    turn, result = Turn(), Result()
    lock = memory._shelf.lock = SteppedLock(turn)  # type: ignore[assignment]
    errors: list[BaseException] = []
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in TRACED:
            return None
        return step

    def step(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
            if lines == line:
                result.reached = True
                turn.give(1)
                turn.wait(0)
        return step

    def body(me: int, action: Callable[[], Any]) -> None:
        lock.names[threading.get_ident()] = me
        try:
            turn.wait(me)
            if me == 0:
                sys.settrace(trace)
            try:
                result.values[me] = action()
            finally:
                sys.settrace(None)
        except BaseException as error:  # raised again below
            errors.append(error)
        finally:
            turn.finish(me)

    threads = [threading.Thread(target=body, args=(me, action)) for me, action in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
        assert not thread.is_alive(), "stuck"
    memory._shelf.lock = threading.Lock()
    result.blocked = lock.blocked
    if errors:
        raise errors[0]
    return result


def check(memory: Memory) -> None:
    """Compare everything the memory keeps account of with a count from scratch."""
    shelf = memory._shelf
    assert isinstance(shelf, Own)
    assert not shelf.lock.locked()
    held = [slot for home in list(shelf.homes.values()) for slot in home.slots.values()]
    for home in list(shelf.homes.values()):
        for key, slot in home.slots.items():
            assert slot.key == key
            assert slot.home is home
        for key, slot in home.marks.items():
            assert home.slots[key] is slot
        assert all(flight.count > 0 for flight in home.flights.values())
    assert shelf.entries == len(held)
    assert shelf._blocks == sum(slot.cost for slot in held)
    assert shelf.entries <= shelf._max_entries
    assert shelf._blocks + shelf._tables <= shelf._max_blocks or not held
    for slot in held:
        size = sys.getsizeof(slot.key) + len(slot.value)
        assert abs(slot.cost * BLOCK - size - shelf._per_entry) < 80, "the cost follows the value"
    queued = _queued(shelf._policy)
    assert len(queued) == len(held)
    assert set(map(id, queued)) == set(map(id, held))
    _check_wheel(shelf, held)


def _queued(policy: Any) -> list[Any]:
    if isinstance(policy, Lru):
        return list(policy._order)
    assert isinstance(policy, Adaptive)
    small, main = _walk(policy._small, "next", "prev"), _walk(policy._main, "next", "prev")
    assert all(item.queue == MAIN for item in main)
    kinds = [item.queue for item in small]
    assert kinds == sorted(kinds), "the window is the newest part of the small queue"
    window = [item for item in small if item.queue == WINDOW]
    assert {SMALL, WINDOW}.issuperset(kinds)
    assert policy._window_count == len(window)
    assert policy._edge is (window[0] if window else policy._small)
    assert policy._small_count == len(small)
    assert policy._main_count == len(main)
    assert policy._small_cost == sum(item.cost for item in small)
    return small + main


def _check_wheel(shelf: Own, held: list[Any]) -> None:
    wheel = shelf._wheel
    timed = [slot for bucket in (*wheel._buckets.values(), wheel._due) for slot in _walk(bucket, "after", "before")]
    assert len(timed) == len(set(map(id, timed)))
    assert set(map(id, timed)) == {id(slot) for slot in held if slot.due != inf}


def _walk(ring: Any, forward: str, back: str) -> list[Any]:
    items, item = [], ring
    while True:
        following = getattr(item, forward)
        assert getattr(following, back) is item
        if following is ring:
            return items
        items.append(following)
        item = following
