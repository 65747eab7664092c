"""What the tests of loading share: waiting without sleeping, loaders that are told when to return, loops in threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from tiered import TieredStore
from tiered.flight import Caller, Flight, Flights, working

DEADLINE = float(os.environ.get("TEST_DEADLINE", "60"))
"""Seconds until a stuck test fails; none is waited for in a run that passes."""


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(DEADLINE / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("it never came to that")


async def auntil(condition: Callable[[], bool]) -> None:
    for _ in range(int(DEADLINE / 0.002)):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it never came to that")


@contextmanager
def loop_in_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE)
        if not loop.is_closed():
            loop.close()


def submit(loop: asyncio.AbstractEventLoop, coroutine: Any) -> Future[Any]:
    return asyncio.run_coroutine_threadsafe(coroutine, loop)


class Loads:
    """A loader that counts, and that returns when told to. What it returns for several keys is a mapping."""

    def __init__(self, value: Any = b"loaded", error: BaseException | None = None) -> None:
        self.count = 0
        self.asked: list[Any] = []
        self.began, self.release = threading.Event(), threading.Event()
        self._value, self._error = value, error
        self._lock = threading.Lock()

    def _enter(self, key: Any) -> None:
        with self._lock:
            self.count += 1
            self.asked.append(key)
        self.began.set()

    def _leave(self, key: Any) -> Any:
        if self._error is not None:
            raise self._error
        return dict.fromkeys(key, self._value) if isinstance(key, list) else self._value

    def sync(self, key: Any) -> Any:
        self._enter(key)
        assert self.release.wait(DEADLINE)
        return self._leave(key)

    async def aio(self, key: Any) -> Any:
        self._enter(key)
        await auntil(self.release.is_set)
        return self._leave(key)


def waiting(store: TieredStore, key: str = "k") -> int:
    flight = store._stack.flights.flights.get(("", key))
    return -1 if flight is None else len(flight.waiters)


def join(flights: Flights, key: str, caller: Caller) -> tuple[Flight | None, bool]:
    """The flight of one key, and whether the caller leads it; None: it loads alone."""
    own: dict[str, Flight | None] = {}
    theirs: dict[str, Flight] = {}
    flights.join("", [key], caller, working(), own, theirs)
    return (theirs[key], False) if key in theirs else (own[key], own[key] is not None)


def waited_for(flight: Flight) -> list[Any]:
    """The names of the flights that the loader of this one waits for."""
    return [] if flight.work is None else [one.name for one in flight.work.waits_for]


def settled(store: TieredStore) -> bool:
    """No refresh is under way."""
    return not store._engine.busy and not (store._async is not None and store._async._tasks)


def nothing_left(store: TieredStore) -> None:
    flights = store._stack.flights
    assert not flights.flights
    assert not flights.slots
    assert not store._made.space._home.flights
