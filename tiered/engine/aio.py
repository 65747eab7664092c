"""Runs plans on an event loop, never blocking it."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, TypeVar

from ..clock import Clock
from ..effects import Join, Load, Parallel, Plan, Sleep, adrive
from ..flight import Caller, Flight, Outcome, Waiter
from .sync import LOOK, loading

T = TypeVar("T")


class AsyncEngine:
    """Performs effects by awaiting them; several at once as tasks. One instance serves any number of loops."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

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
            with loading(effect.flight):
                loaded = effect.function(effect.key)
                return await loaded if inspect.isawaitable(loaded) else loaded
        if isinstance(effect, Join):
            return await _join(effect.flight, effect.caller)
        return await effect.level.backend.arun(effect.op(), effect.level.timeout)


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
