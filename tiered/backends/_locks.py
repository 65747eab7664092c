"""Locks by name for threads and tasks alike: waiting blocks a thread, or suspends a task, but never a loop.

A name has a line of turns while anybody wants it, and none otherwise, so there are no more lines than names in use.
A turn joins all its lines in one step and holds its names when nobody before it excludes it from any of them: so no
two turns wait for each other.

An interrupt (Ctrl-C) may strike after any call. So a turn is over by an assignment, locks are taken by `with` alone,
and `serve` may be broken off anywhere: whoever comes next, or has waited in vain, completes it.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ._workers import Stuck


class Turn:
    """A wish for some names. `ready`: it holds them all. It ends with `left = True` and `leave`, from anywhere.

    `calls` are under way in threads: they keep the names when whoever made them has given up.
    """

    __slots__ = ("_locks", "calls", "left", "loop", "ready", "shared", "wake", "wanted")

    def __init__(self, locks: Locks, names: Iterable[str], *, shared: bool = False) -> None:
        self._locks = locks
        self.wanted = list(dict.fromkeys(names))
        self.shared = shared
        self.ready = self.left = False
        self.calls: set[Any] = set()
        self.wake: Callable[[], object] = bool
        self.loop: Any = None  # that of the task whose it is

    @property
    def over(self) -> bool:
        return self.left and not self.calls

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
                    busy=True,
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
            self._locks.serve(self.wanted)
        if not self.ready:
            raise Stuck(
                f"other operations on these keys in this process did not end within {timeout:g} s",
                sent=False,
                busy=True,
            )

    def leave(self) -> None:
        self.left = True
        if not self.calls:
            self._locks.serve(self.wanted)

    def ended(self, call: Any) -> None:
        """One of its calls has ended; said again, it makes no difference."""
        self.calls.discard(call)
        if self.over:
            self._locks.serve(self.wanted)


class Locks:
    """The lines. Nothing here waits for longer than a few steps of another thread.

    A turn may end while the garbage collector runs inside of a step here, in the same thread: then that step goes on
    with what it left (`_inside`).
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._inside = False
        self._lines: dict[str, list[Turn]] = {}
        self._due: deque[Sequence[str]] = deque()  # names that somebody has left

    def join(self, turn: Turn) -> None:
        with self._lock:
            was, self._inside = self._inside, True
            try:
                alone = True
                for name in turn.wanted:
                    line = self._lines.setdefault(name, [])
                    line.append(turn)
                    alone = alone and len(line) == 1
                turn.ready = alone or self._free(turn)
            finally:
                self._inside = was
        if self._due:
            self.serve(())

    def serve(self, names: Sequence[str]) -> None:
        """Somebody has left these names: let in those who hold theirs now."""
        self._due.append(names)
        with self._lock:
            if self._inside:
                return
            self._inside = True
            try:
                while self._due:
                    self._pass(self._due[0])
                    self._due.popleft()
            finally:
                self._inside = False

    def behind(self, turn: Turn, loop: Any) -> bool:
        """Whether a task of `loop` has a name that `turn` waits for, or comes before it."""
        if loop is None:
            return False
        with self._lock:
            for name in turn.wanted:
                for other in list(self._lines.get(name, ())):
                    if other is turn:
                        break
                    if other.loop is loop and not other.over:
                        return True
        return False

    def _pass(self, names: Sequence[str]) -> None:
        waiting: dict[Turn, None] = {}
        for name in names:
            line = self._lines.get(name)
            if line is None:
                continue
            line[:] = [turn for turn in line if not turn.over]
            if not line:
                del self._lines[name]
            for turn in line:
                if not turn.ready:
                    waiting[turn] = None
                if not turn.shared:
                    break
        for turn in waiting:
            if self._free(turn):
                turn.ready = True
                try:
                    turn.wake()
                except RuntimeError:  # its loop is closed: nobody will ever use it
                    turn.left = True
                    self._due.append(turn.wanted)

    def _free(self, turn: Turn) -> bool:
        """Whether nobody before `turn` excludes it."""
        for name in turn.wanted:
            for other in self._lines.get(name, ()):
                if other is turn:
                    break
                if not (other.over or (turn.shared and other.shared)):
                    return False
            else:  # it was interrupted while it joined
                return False
        return True


def _running_loop() -> Any:
    asyncio = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()  # noqa: SLF001  None where there is none
