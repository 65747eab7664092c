"""Runs plans by blocking."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from ..clock import Clock
from ..effects import Join, Load, Parallel, Plan, Sleep, Spawn, drive
from ..flight import LOADING, Caller, Flight, Outcome, Waiter, Work, working
from .background import Threads, pool

T = TypeVar("T")

THREADS = 8
"""Requests to different tiers under way at once, in one process."""

LOOK = 1.0
"""Seconds between two looks at whether the leader of a flight is still there."""


class SyncEngine:
    """Performs effects on the calling thread; several at once on a small pool of its own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._background = Threads(self.perform)

    def caller(self) -> Caller:
        """Sync code on the thread of a running loop must not wait: what it waits for may need that loop."""
        asyncio = sys.modules.get("asyncio")
        on_loop = asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001
        return Caller(threading.current_thread().is_alive, not on_loop)

    def run(self, plan: Plan[T]) -> T:
        return drive(plan, self.perform)

    def perform(self, effect: Any) -> Any:
        if isinstance(effect, Parallel):
            return self._parallel(effect)
        if isinstance(effect, Sleep):
            return self._clock.sleep(effect.seconds)
        if isinstance(effect, Load):
            with loading(effect.flights):
                return effect.function(effect.argument)
        if isinstance(effect, Join):
            return _join(effect.flight, effect.caller)
        if isinstance(effect, Spawn):
            return self._background.spawn(effect)
        return effect.level.backend.run(effect.op(), effect.level.timeout)

    @property
    def busy(self) -> bool:
        """Whether refreshes are under way."""
        return self._background.busy

    def forked(self) -> None:
        self._background.forked()

    def stop(self) -> None:
        """End the refreshes, and begin no more: the store is being closed."""
        self._background.stop()

    def _parallel(self, effect: Parallel) -> list[Any]:
        futures = [pool("tiered", THREADS).submit(self.perform, ask) for ask in effect.asks[1:]]
        first: Any
        try:
            first = self.perform(effect.asks[0])
        except Exception as error:
            first = error
        return [first, *(future.exception() or future.result() for future in futures)]


@contextmanager
def loading(flights: Sequence[Flight]) -> Iterator[None]:
    """Marks the code inside as the loader of these flights, so that it never waits for itself."""
    if not flights:
        yield
        return
    work = Work()
    for flight in flights:
        flight.work = work
    token = LOADING.set((*working(), work))
    try:
        yield
    finally:
        work.over = True
        try:
            LOADING.reset(token)
        except ValueError:  # thrown away with its loop, by the garbage collector, in another context
            pass


def _join(flight: Flight, caller: Caller) -> Outcome:
    woken: list[Outcome] = []
    gate = threading.Lock()
    gate.acquire()

    def wake(outcome: Outcome) -> bool:
        woken.append(outcome)
        gate.release()
        return True

    waiter = Waiter(wake, caller.alive)
    outcome = flight.subscribe(waiter)
    if outcome is not None:
        return outcome
    try:
        while not gate.acquire(timeout=LOOK):
            flight.rescue()
        return woken[0]
    except BaseException:  # interrupted: what it was woken with must not be lost
        if not flight.unsubscribe(waiter) and not woken:
            gate.acquire()  # the news is on its way
        if woken and woken[0].lead:
            flight.hand_over(caller.alive)
        raise
