"""Locks by name for threads and tasks alike: waiting blocks a thread, or suspends a task, but never a loop.

A name has a line of turns while anybody wants it, and none otherwise, so there are no more lines than names in use.
Those at its head hold it: one, or several that share. A turn takes its names in one order, so that no two turns wait
for each other.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ._workers import Stuck


class Turn:
    """A wish for some names. `ready`: it holds them all. It ends with `leave`, from anywhere.

    `retain` keeps it for one more `leave`: for a call that goes on after whoever made it has given up.
    """

    __slots__ = ("_locks", "_users", "at", "loop", "over", "ready", "shared", "wake", "wanted")

    def __init__(self, locks: Locks, names: Iterable[str], *, shared: bool = False) -> None:
        self._locks = locks
        self.wanted = sorted(set(names))
        self.shared = shared
        self.at = 0  # in the lines of wanted[:at] it is at the head, in that of wanted[at] it waits
        self.ready = self.over = False
        self.wake: Callable[[], object] = bool
        self.loop: Any = None  # that of the task whose it is
        self._users = [None]  # a list, for its append and pop are atomic

    def enter(self, timeout: float) -> None:
        """Wait for the names, blocking. Raises Stuck when they are not to be had."""
        gate = threading.Lock()
        gate.acquire()
        self.wake = gate.release
        self._locks.join(self)
        if not self.ready:
            if self._locks.behind(self, _running_loop()):
                raise Stuck(
                    "a task of this thread's event loop is at work on these keys, and cannot go on while the loop is "
                    "blocked: use the asynchronous face",
                    sent=False,
                )
            gate.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
            self._check(timeout)

    async def aenter(self, timeout: float) -> None:
        """The same, suspending the task."""
        import asyncio

        self.loop = loop = asyncio.get_running_loop()
        woken = asyncio.Event()
        self.wake = lambda: loop.call_soon_threadsafe(woken.set)
        self._locks.join(self)
        if not self.ready:
            try:
                async with asyncio.timeout(timeout):
                    await woken.wait()
            except TimeoutError:
                self._check(timeout)

    def _check(self, timeout: float) -> None:
        if not self.ready:
            raise Stuck(f"other operations on these keys in this process did not end within {timeout:g} s", sent=False)

    def retain(self) -> None:
        self._users.append(None)

    def leave(self) -> None:
        self._users.pop()
        if not self._users:
            self._locks.part(self)


class Locks:
    """The lines. Nothing here waits for longer than a few steps of another thread.

    A turn may end while the garbage collector runs inside of `join`, in the same thread: so whoever does not get the
    lock at once leaves his turn to whoever has it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, list[Turn]] = {}
        self._parted: deque[Turn] = deque()

    def join(self, turn: Turn) -> None:
        with self._lock:
            self._advance(turn)
        self._settle()

    def part(self, turn: Turn) -> None:
        turn.over = True
        self._parted.append(turn)
        self._settle()

    def behind(self, turn: Turn, loop: Any) -> bool:
        """Whether a task of `loop` has a name that `turn` waits for."""
        if loop is None:
            return False
        with self._lock:
            names = turn.wanted[turn.at :]
            found = any(other.loop is loop and not other.over for name in names for other in self._lines.get(name, ()))
        self._settle()
        return found

    def _settle(self) -> None:
        while self._parted and self._lock.acquire(blocking=False):
            ready: list[Turn] = []
            try:
                while self._parted:
                    self._remove(self._parted.popleft(), ready)
            finally:
                self._lock.release()
            for turn in ready:
                try:
                    turn.wake()
                except RuntimeError:  # its loop is closed: nobody will ever use it
                    self.part(turn)

    def _remove(self, turn: Turn, ready: list[Turn]) -> None:
        for name in turn.wanted[: turn.at + 1]:
            line = self._lines.get(name, [])
            if turn in line:
                line.remove(turn)
            if not line:
                self._lines.pop(name, None)
                continue
            for other in list(line):
                if other.at < len(other.wanted) and other.wanted[other.at] == name and self._advance(other):
                    ready.append(other)
                if not other.shared:
                    break

    def _advance(self, turn: Turn) -> bool:
        """Take name after name, as far as they are free -> whether it holds all of them now."""
        lines, wanted = self._lines, turn.wanted
        while turn.at < len(wanted):
            line = lines.get(wanted[turn.at])
            if line is None:
                lines[wanted[turn.at]] = [turn]
            else:
                if turn not in line:
                    line.append(turn)
                if not _free(line, turn):
                    return False
            turn.at += 1
        turn.ready = True
        return True


def _free(line: list[Turn], turn: Turn) -> bool:
    """Whether nobody before `turn` excludes it."""
    for other in line:
        if other is turn:
            return True
        if not other.over and not (turn.shared and other.shared):
            return False
    return False


def _running_loop() -> Any:
    asyncio = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()  # noqa: SLF001  None where there is none
