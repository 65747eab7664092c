"""Runs plans on an event loop, never blocking it."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, TypeVar

from ..clock import Clock
from ..effects import Join, Load, Parallel, Plan, Sleep, Spawn, adrive
from ..flight import Caller, Flight, Outcome, Waiter
from .background import REFRESHES, Job, background
from .sync import LOOK, SyncEngine, loading

T = TypeVar("T")

GRACE = 5.0
"""Seconds that a cancelled refresh may take to end while its store is being closed."""


class AsyncEngine:
    """Performs effects by awaiting them; several at once as tasks. One instance serves any number of loops."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds them weakly
        self._stopped = False

    def caller(self) -> Caller:
        return Caller(asyncio.get_running_loop().is_running, may_wait=True)

    async def run(self, plan: Plan[T]) -> T:
        return await adrive(plan, self.perform)

    async def perform(self, effect: Any) -> Any:
        if isinstance(effect, Parallel):
            return await asyncio.gather(*map(self.perform, effect.asks), return_exceptions=True)
        if isinstance(effect, Sleep):
            return await self._clock.asleep(effect.seconds)
        if isinstance(effect, Load):
            with loading(effect.flights):
                loaded = effect.function(effect.argument)
                return await loaded if inspect.isawaitable(loaded) else loaded
        if isinstance(effect, Join):
            return await _join(effect.flight, effect.caller)
        if isinstance(effect, Spawn):
            return self._spawn(effect)
        return await effect.level.backend.arun(effect.op(), effect.level.timeout)

    def _spawn(self, effect: Spawn) -> bool:
        loop, job = asyncio.get_running_loop(), Job()
        if len(self._tasks) >= REFRESHES:
            for task in list(self._tasks):
                if task.get_loop().is_closed():  # in the middle: it will never be done
                    self._tasks.discard(task)
        if self._stopped or len(self._tasks) >= REFRESHES:
            return False
        plan = effect.plan(Caller(lambda: job.alive() and loop.is_running(), may_wait=True))
        tasks = self._tasks
        job.ending = loop.create_task(self.run(plan), context=background())
        tasks.add(job.ending)
        job.ending.add_done_callback(tasks.discard)
        return True

    def forked(self) -> None:
        """In a forked child: the parent's tasks go on in the parent only, and their loop does not."""
        self._tasks = set()

    def stop(self) -> None:
        """Cancel the refreshes, and begin no more: the store is being closed."""
        self._stopped = True
        for task in list(self._tasks):
            try:
                task.get_loop().call_soon_threadsafe(task.cancel)
            except RuntimeError:  # a closed loop: nothing runs there
                self._tasks.discard(task)

    async def astop(self, threads: SyncEngine) -> None:
        """The same, for both faces, and wait for those of this loop."""
        self.stop()
        if threads.busy:
            await asyncio.to_thread(threads.stop)
        else:
            threads.stop()
        loop = asyncio.get_running_loop()
        ending = [task for task in list(self._tasks) if task.get_loop() is loop]
        if ending:
            await asyncio.wait(ending, timeout=GRACE)


async def _join(flight: Flight, caller: Caller) -> Outcome:
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[Outcome] = loop.create_future()

    def settle(outcome: Outcome) -> None:
        if not woken.done():
            woken.set_result(outcome)
        elif outcome.lead:  # cancelled while the news was on its way
            flight.hand_over(caller.alive)

    def wake(outcome: Outcome) -> bool:
        try:
            loop.call_soon_threadsafe(settle, outcome)
        except RuntimeError:  # the loop is closed: this waiter is gone
            return False
        return True

    waiter = Waiter(wake, caller.alive)
    outcome = flight.subscribe(waiter)
    if outcome is not None:
        return outcome
    try:
        while not woken.done():
            await asyncio.wait([woken], timeout=LOOK)
            flight.rescue()
        return woken.result()
    except BaseException:  # cancelled, or thrown away: what it was woken with must not be lost
        flight.unsubscribe(waiter)
        if woken.done() and not woken.cancelled() and woken.result().lead:
            flight.hand_over(caller.alive)
        woken.cancel()
        raise
