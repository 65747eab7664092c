"""The simulated engine: many plans at once, one step at a time, in an order and with faults drawn from a seed.

A process is a `TieredStore` with its own memory and clock; processes share the simulated tiers below. Everything
between two effects of a plan is one atomic step, as it is for tasks on one loop; what threads do to each other in
the middle of a step is the business of tests/stepper.py. That a tier does what was asked, and that its answer
arrives, are two steps: an answer may be old news when it comes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from tiered.effects import Join, Load, Parallel, Sleep, Spawn
from tiered.errors import BackendUnavailable, BatchError, Indeterminate, TieredError
from tiered.flight import LEAD, LOADING, Caller, Outcome, Waiter
from tiered.store import TieredStore
from tiered.testing import FakeClock

from .tier import WRITES


class Cancelled(BaseException):
    """Stands for a cancelled task."""


class LoaderError(Exception):
    """What simulated loaders raise."""


@dataclass(eq=False)
class Task:
    name: str
    plan: Generator[Any, Any, Any]
    clock: FakeClock
    done: Callable[[Any, BaseException | None], None]
    began: int = 0
    effect: Any = None
    answer: list[Any] = field(default_factory=list)  # on its way
    until: int = 0  # the step before which it does not arrive
    parts: dict[int, Any] = field(default_factory=dict)  # of a Parallel: what has been answered
    woken: list[Outcome] = field(default_factory=list)
    waiter: Waiter | None = None
    dead: bool = False


class World:
    """Runs tasks to their end. `faulty(level name, operation)` says how likely a request is to fail."""

    def __init__(self, seed: int, faulty: Callable[[str, str], float] = lambda level, name: 0.0) -> None:
        self.random = random.Random(seed)
        self.faulty = faulty
        self.tasks: list[Task] = []
        self.late: list[Callable[[], Any]] = []
        self.now = 0  # steps so far: the time of the oracle
        self.trace: list[tuple[int, str, str]] = []
        self.loads: Callable[[Task], None] = lambda task: None  # told of each task that comes to its loader
        self.refreshing: Callable[[Task], Callable[[], None]] = lambda task: lambda: None  # told of refreshes, -> end

    def spawn(
        self,
        name: str,
        clock: FakeClock,
        plan: Generator[Any, Any, Any],
        done: Callable[[Any, BaseException | None], None],
        began: int | None = None,
    ) -> Task:
        task = Task(name, plan, clock, done, self.now if began is None else began)
        self.tasks.append(task)
        self._advance(task, lambda: next(plan))
        return task

    def caller(self, task: Callable[[], Task]) -> Caller:
        return Caller(lambda: not task().dead, may_wait=True)

    def step(self) -> bool:
        """One random thing happens; False if there is nothing left to happen."""
        self.now += 1
        if self.late and self.random.random() < 0.2:
            self.late.pop(self.random.randrange(len(self.late)))()
            return True
        ready = [task for task in self.tasks if not (isinstance(task.effect, Join) and not task.woken)]
        ready = [task for task in ready if task.until <= self.now] or ready  # nothing else left: it arrives
        if not ready:
            if self.tasks:
                raise AssertionError(f"deadlock: {[task.name for task in self.tasks]}")
            return bool(self.late)
        task = self.random.choice(ready)
        self.trace.append((self.now, task.name, type(task.effect).__name__))
        self._perform(task)
        return True

    def run(self) -> None:
        while self.tasks or self.late:
            self.step()

    def cancel(self, task: Task) -> None:
        """As asyncio does it: thrown in at the effect under way, whose requests may still arrive later."""
        if task in self.tasks:
            if not task.answer:
                asks = task.effect.asks if isinstance(task.effect, Parallel) else [task.effect]
                for at, ask in enumerate(asks):
                    if hasattr(ask, "op") and at not in task.parts and self.random.random() < 0.5:
                        self.late.append(next(ask.op())[1])
            self._leave(task)
            task.answer, task.parts = [], {}
            if self.random.random() < 0.2:
                task.plan.close()  # thrown away with its loop
                self._end(task, None, Cancelled())
            else:
                self._advance(task, lambda: task.plan.throw(Cancelled()))

    # -- one effect ------------------------------------------------------------------------------------------------

    def _perform(self, task: Task) -> None:
        effect = task.effect
        if task.answer:
            self._deliver(task, task.answer.pop())
        elif isinstance(effect, Parallel):
            left = [at for at in range(len(effect.asks)) if at not in task.parts]
            at = self.random.choice(left)
            task.parts[at] = self._ask(effect.asks[at])
            if len(task.parts) == len(effect.asks):
                answers, task.parts = [task.parts[at] for at in range(len(effect.asks))], {}
                self._answer(task, answers)
        elif isinstance(effect, Sleep):
            task.clock.advance(0.05)  # not effect.seconds: jittered, and a seed must replay
            self._deliver(task, None)
        elif isinstance(effect, Join):
            self._deliver(task, task.woken.pop())
        elif isinstance(effect, Spawn):
            self._deliver(task, self.random.random() < 0.8 and self._background(task, effect))
        elif isinstance(effect, Load):
            if self.random.random() < 0.5:
                return  # a slow loader
            try:
                value = effect.function(effect.argument)
            except Exception as error:
                value = error
            self._answer(task, value)
        else:
            self._answer(task, self._ask(effect))

    def _background(self, task: Task, effect: Spawn) -> bool:
        """A refresh is a task like any other, under the flight of the one that began it."""
        refresh: list[Task] = []
        plan = effect.plan(self.caller(lambda: refresh[0]))
        ended = self.refreshing(task)
        refresh.append(self.spawn(task.name, task.clock, plan, lambda value, error: ended(), task.began))
        return True

    def _answer(self, task: Task, answer: Any) -> None:
        """It arrives now, or in a later step, or much later."""
        if self.random.random() < 0.5:
            task.answer = [answer]
            if self.random.random() < 0.2:
                task.until = self.now + self.random.randrange(5, 50)
        else:
            self._deliver(task, answer)

    def _deliver(self, task: Task, answer: Any) -> None:
        if isinstance(answer, Exception):
            self._advance(task, lambda: task.plan.throw(answer))
        else:
            self._advance(task, lambda: task.plan.send(answer))

    def _ask(self, effect: Any) -> Any:
        """Answer one request, or fail before it, after it, in the middle, or before it and the request arrives late."""
        op = effect.op()
        name, step, items = next(op)
        if self.random.random() < self.faulty(effect.level.name, name):
            how = self.random.choice(["before", "after", "late", "half"])
            if how == "half" and name == "put" and len(items) > 1:
                keys = [key for key, _ in items]
                half = self.random.randrange(len(items))
                refused = step(items[:half])
                if self.random.random() < 0.5:
                    step(items[half : half + 1])
                written = [key for key in keys[:half] if key not in refused]
                not_written = [key for key in keys if key in refused] + keys[half + 1 :]
                return BatchError("simulated", written=written, unknown=keys[half : half + 1], not_written=not_written)
            if how == "after":
                step()
            elif how in ("late", "half"):
                self.late.append(step)
            if how == "before" or name not in WRITES:
                return BackendUnavailable(f"simulated {how}")
            return Indeterminate(f"simulated {how}")
        return _last(op, step())

    def _advance(self, task: Task, resume: Callable[[], Any]) -> None:
        held = LOADING.set(())
        try:
            task.effect = resume()
        except StopIteration as stop:
            self._end(task, stop.value, None)
        except (TieredError, Cancelled, LoaderError) as error:
            self._end(task, None, error)
        else:
            if isinstance(task.effect, Join):
                self._subscribe(task)
            elif isinstance(task.effect, Load):
                self.loads(task)
        finally:
            LOADING.reset(held)

    def _subscribe(self, task: Task) -> None:
        def wake(outcome: Outcome) -> bool:
            if task.dead:
                return False
            task.woken.append(outcome)
            return True

        flight = task.effect.flight
        task.waiter = Waiter(wake, task.effect.caller.alive)
        outcome = flight.subscribe(task.waiter)
        if outcome is not None:
            task.woken.append(outcome)

    def _leave(self, task: Task) -> None:
        """A waiter that is cancelled passes on what it was woken with."""
        if isinstance(task.effect, Join) and task.waiter is not None:
            task.effect.flight.unsubscribe(task.waiter)
            if task.woken and task.woken.pop() is LEAD:
                task.effect.flight.hand_over(task.effect.caller.alive)

    def _end(self, task: Task, value: Any, error: BaseException | None) -> None:
        task.dead = True
        if task in self.tasks:
            self.tasks.remove(task)
        self.now += 1
        task.done(value, error)


def _last(op: Generator[Any, Any, Any], answer: Any) -> Any:
    try:
        op.send(answer)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a simulated operation is one step")


def process(tiers: list[Any], number: int = 0, skew: float = 0.0, **options: Any) -> tuple[TieredStore, FakeClock]:
    """One process: its own clock, wrong by `skew` seconds, and its own writer id. The same in every run."""
    clock = FakeClock()
    clock._now = 1_700_000_000 + skew
    clock._writer = number.to_bytes(4, "big")
    return TieredStore(tiers, clock=clock, **options), clock
