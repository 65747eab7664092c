"""Runs plans by blocking."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from ..clock import Clock
from ..effects import Join, Load, Parallel, Plan, Sleep, drive
from ..flight import LOADING, Caller, Flight, Outcome, Waiter

T = TypeVar("T")

THREADS = 8
"""Requests to different tiers under way at once, in one process."""

LOOK = 1.0
"""Seconds between two looks at whether the leader of a flight is still there."""


class SyncEngine:
    """Performs effects on the calling thread; several at once on a small pool of its own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

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
            with loading(effect.flight):
                return effect.function(effect.key)
        if isinstance(effect, Join):
            return _join(effect.flight, effect.caller)
        return effect.level.backend.run(effect.op(), effect.level.timeout)

    def _parallel(self, effect: Parallel) -> list[Any]:
        futures = [_pool().submit(self.perform, ask) for ask in effect.asks[1:]]
        first: Any
        try:
            first = self.perform(effect.asks[0])
        except Exception as error:
            first = error
        return [first, *(future.exception() or future.result() for future in futures)]


@contextmanager
def loading(flight: Flight | None) -> Iterator[None]:
    """Marks the code inside as the loader of a flight, so that it never waits for itself."""
    token = LOADING.set((*LOADING.get(), flight)) if flight is not None else None
    try:
        yield
    finally:
        if token is not None:
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


_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _pool() -> ThreadPoolExecutor:
    """One pool a process; a forked child has none of its parent's threads."""
    pid = os.getpid()
    pool = _pools.get(pid)
    if pool is None:
        with _pools_lock:
            pool = _pools.setdefault(pid, ThreadPoolExecutor(THREADS, thread_name_prefix="tiered"))
    return pool
