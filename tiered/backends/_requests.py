"""What an SQL operation may ask its executor for, the vocabulary between operations and databases; and the queue
in which threads wait to ask.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from ..backend import Op

Row: TypeAlias = tuple[Any, ...]


class Query(NamedTuple):
    """Read rows -> `shape(rows)`. `shape` runs while the rows stream in, off the event loop; so does `params`,
    where it is a function, before.
    """

    sql: str
    params: Sequence[Any] | Callable[[], Sequence[Any]]
    shape: Callable[[Iterable[Any]], Any] = list
    collects: bool = False
    """The statement hands values to `tiered_collect(value)`, a row says only that some have come: `shape` gets lists
    of them. That spares a tuple and a step of the interpreter for each: 7 % of a large read.
    """


class Many(NamedTuple):
    """Run one statement for each row of parameters -> rows changed. Only inside a transaction."""

    sql: str
    rows: Sequence[Row]


class Transaction(NamedTuple):
    """Run an operation's requests in one write transaction and commit -> its result.

    `begin()` makes the operation off the event loop, before the transaction takes the write lock: encode there.
    Raises BackendUnavailable when nothing was written, Indeterminate when the commit got no clear answer.
    """

    begin: Callable[[], Op[Any]]


class Turn:
    """A place in a queue: `served` when its owner may go, `over` when it has gone or given up."""

    __slots__ = ("gate", "over", "served")

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.served = self.over = False
        self.gate.acquire()


class Slots:
    """A semaphore for threads that serves them in the order they came (threading.Semaphore starves them).

    An interrupt (Ctrl-C) may strike after any call. So a turn is over by an assignment, and `serve` may be broken
    off and repeated anywhere: whoever comes next completes it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._turns: list[Turn] = []
        self._lock = threading.Lock()

    def enter(self, turn: Turn, deadline: float) -> bool:
        """Wait until `turn` is served -> whether it was. Either way its owner says when it is over."""
        with self._lock:
            self._turns.append(turn)
        self.serve()
        if not turn.served:
            turn.gate.acquire(timeout=min(max(deadline - time.monotonic(), 0), threading.TIMEOUT_MAX))
            self.serve()
        return turn.served

    def serve(self) -> None:
        """Let in those whose turn it is."""
        with self._lock:
            self._turns = [turn for turn in self._turns if not turn.over]
            for turn in self._turns[: self._limit]:
                if not turn.served:
                    turn.served = True
                    turn.gate.release()
