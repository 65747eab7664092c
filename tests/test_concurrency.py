"""Invariant 3 under real threads and tasks: every read of every worker is judged by the oracle."""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tiered import SQL, Memory, Tier, TieredStore
from tiered.errors import TieredError
from tiered.testing import FakeClock

from .oracle import Oracle
from .simulation.tier import SimTier

KEYS = [f"k{number}" for number in range(6)]
THREADS, TASKS = 16, 64
OPERATIONS = 6_000
"""In all, shared out among the workers."""


class Turnstile:
    """Slow without sleeping: who comes here waits until others have done so much more, or it has been long enough."""

    def __init__(self) -> None:
        self.done = 0
        self._changed = threading.Condition()

    def tick(self) -> None:
        with self._changed:
            self.done += 1
            self._changed.notify_all()

    def wait(self, steps: int) -> None:
        with self._changed:
            goal = self.done + steps
            self._changed.wait_for(lambda: self.done >= goal, timeout=0.02)  # the others may wait for us

    async def await_(self, steps: int) -> None:
        goal = self.done + steps
        for _ in range(100):
            if self.done >= goal:
                return
            await asyncio.sleep(0)


class Moody(SimTier):
    """Fails and dawdles at random."""

    def __init__(self, scheme: str, seed: int, failing: float, slow: float) -> None:
        super().__init__(scheme)
        self.turnstile = Turnstile()
        self._random, self._failing, self._slow = random.Random(seed), failing, slow
        self.fault = self._mood

    def _mood(self, name: str) -> str:
        draw = self._random.random()
        return self._random.choice(["before", "after", "late"]) if draw < self._failing else "ok"

    def calm(self) -> None:
        self._failing = self._slow = 0.0
        self.arrive()

    def perform(self, request: Any) -> Any:
        if self._random.random() < self._slow:
            self.turnstile.wait(self._random.randrange(1, 10))
        answer = super().perform(request)
        if self._random.random() < self._slow:
            self.turnstile.wait(self._random.randrange(1, 10))
        return answer

    async def arun(self, op: Any, timeout: float) -> Any:
        if self._random.random() < self._slow:
            await self.turnstile.await_(self._random.randrange(1, 10))
        answer = super().run(op, timeout) if self._slow == 0.0 else self._at_once(op)
        if self._random.random() < self._slow:
            await self.turnstile.await_(self._random.randrange(1, 10))
        return answer

    def _at_once(self, op: Any) -> Any:
        from tiered.effects import drive

        return drive(op, lambda request: SimTier.perform(self, request))


class Lab:
    """One store, a clock that only moves when a worker moves it, and the oracle."""

    def __init__(self, shape: str, path: Path) -> None:
        self.clock = FakeClock()
        sql = SQL(f"sqlite:///{path}/x.db")
        self.moody: list[Moody] = []
        memory = Memory(max_entries=3)
        if shape == "memory over SQLite":
            tiers: list[Any] = [memory, sql]
        elif shape == "with a moody shared tier":
            self.moody = [Moody("upper", 1, failing=0.1, slow=0.1)]
            tiers = [memory, Tier(self.moody[0], ttl=100), sql]
        else:
            self.moody = [Moody("upper", 2, failing=0.05, slow=0.1), Moody("bottom", 3, failing=0.05, slow=0.05)]
            tiers = [memory, Tier(self.moody[0], ttl=100), self.moody[1]]
        self.store = TieredStore(tiers, clock=self.clock)
        ticks, self.values = itertools.count(1), itertools.count()
        self.oracle = Oracle(lambda: next(ticks))
        self.reads = itertools.count()

    # -- one operation, for either face: what to call, and what to do with the answer --------------------------------

    def choose(self, rng: random.Random) -> tuple[str, tuple[Any, ...], Callable[[Any, BaseException | None], None]]:
        keys = rng.sample(KEYS, rng.choice([1, 1, 1, 2, 4]))
        [what] = rng.choices(["get", "mget", "set", "mset", "delete", "load"], [6, 4, 4, 2, 1, 3])
        if rng.random() < 0.05:
            self.clock.advance(rng.choice([0.3, 2.0, 31.0]))
            for tier in self.moody:
                tier.arrive()
        if what in ("get", "mget"):
            return self._read(what, keys)
        if what == "load":
            return self._load(keys[0])
        return self._write(what, keys)

    def _read(self, what: str, keys: list[str]) -> Any:
        began = self.oracle.now()

        def done(answer: Any, error: BaseException | None) -> None:
            if error is None:
                for key, value in zip(keys, answer if what == "mget" else [answer], strict=False):
                    next(self.reads)
                    self.oracle.check(key, value, began)

        return what, ((keys,) if what == "mget" else (keys[0],)), done

    def _write(self, what: str, keys: list[str]) -> Any:
        keys = keys if what == "mset" else keys[:1]
        values = {key: None if what == "delete" else b"%d" % next(self.values) for key in keys}
        logs = [self.oracle.begin(key, value) for key, value in values.items()]

        def done(_: Any, error: BaseException | None) -> None:
            for log in logs:
                self.oracle.end(log, error is None)

        if what == "delete":
            return what, (keys[0],), done
        return what, ((values,) if what == "mset" else (keys[0], values[keys[0]])), done

    def _load(self, key: str) -> Any:
        began, value = self.oracle.now(), b"%d" % next(self.values)
        logs: list[Any] = []

        def loader(_: str) -> bytes:
            logs.append(self.oracle.begin(key, value))
            return value

        def done(answer: Any, error: BaseException | None) -> None:
            for log in logs:
                self.oracle.end(log, False, over=True)
            if error is None:
                next(self.reads)
                self.oracle.check(key, answer, began)

        return "get_or_load", (key, loader), done

    # -- workers -----------------------------------------------------------------------------------------------------

    def work(self, seed: int, operations: int) -> None:
        rng = random.Random(seed)
        for _ in range(operations):
            name, arguments, done = self.choose(rng)
            try:
                answer = getattr(self.store, name)(*arguments)
            except TieredError as error:
                done(None, error)
            else:
                done(answer, None)
            self._tick()

    async def awork(self, seed: int, operations: int) -> None:
        rng = random.Random(seed)
        for _ in range(operations):
            name, arguments, done = self.choose(rng)
            try:
                answer = await getattr(self.store, "a" + name)(*arguments)
            except TieredError as error:
                done(None, error)
            else:
                done(answer, None)
            self._tick()
            await asyncio.sleep(0)

    def _tick(self) -> None:
        for tier in self.moody:
            tier.turnstile.tick()

    def settle(self) -> None:
        """Faults are over: tiers agree with the last writes, and nothing is left in flight."""
        for tier in self.moody:
            tier.calm()
        self.clock.advance(60)
        self.store.ping()
        self.store.flush()
        for _ in range(2):
            began = self.oracle.now()
            for key, value in zip(KEYS, self.store.mget(KEYS), strict=True):
                self.oracle.check(key, value, began)
            assert self.store._made.space is not None
        stack = self.store._stack
        assert not stack.flights.flights
        assert not self.store._made.space._home.flights
        assert not any(level.marks or level.broken for level in stack.uppers)
        assert next(self.reads) > OPERATIONS / 4
        self.store.close()


@contextmanager
def restless() -> Iterator[None]:
    """Threads are switched as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


SHAPES = ["memory over SQLite", "with a moody shared tier", "with a moody authority"]


@pytest.mark.parametrize("shape", SHAPES)
def test_invariant_3_under_16_threads(shape: str, tmp_path: Path) -> None:
    lab = Lab(shape, tmp_path)
    with restless(), ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(lab.work, seed, OPERATIONS // THREADS) for seed in range(THREADS)]:
            future.result(100)
    lab.settle()


@pytest.mark.parametrize("shape", SHAPES)
def test_invariant_3_under_64_tasks(shape: str, tmp_path: Path) -> None:
    lab = Lab(shape, tmp_path)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for seed in range(TASKS):
                group.create_task(lab.awork(seed, OPERATIONS // TASKS))
        await lab.store.aflush()

    asyncio.run(main())
    lab.settle()


def test_invariant_3_under_threads_and_tasks_on_two_loops_at_once(tmp_path: Path) -> None:
    lab = Lab("memory over SQLite", tmp_path)

    async def main(base: int) -> None:
        async with asyncio.TaskGroup() as group:
            for seed in range(16):
                group.create_task(lab.awork(base + seed, OPERATIONS // 40))

    with restless(), ThreadPoolExecutor(10) as pool:
        futures = [pool.submit(lab.work, seed, OPERATIONS // 40) for seed in range(8)]
        futures += [pool.submit(asyncio.run, main(base)) for base in (100, 200)]
        for future in futures:
            future.result(100)
    lab.settle()


def test_the_oracle_itself_is_not_fooled() -> None:
    ticks = itertools.count(1)
    oracle = Oracle(lambda: next(ticks))
    first = oracle.begin("k", b"1")
    oracle.end(first, True)
    second = oracle.begin("k", b"2")
    began = oracle.now()
    oracle.check("k", b"1", began)  # the second is under way: either
    oracle.check("k", b"2", began)
    with pytest.raises(AssertionError):
        oracle.check("k", None, began)
    oracle.end(second, True)
    began = oracle.now()
    oracle.check("k", b"2", began)
    with pytest.raises(AssertionError):
        oracle.check("k", b"1", began)
    failed = oracle.begin("k", b"3")
    oracle.end(failed, False)
    began = oracle.now()
    oracle.check("k", b"2", began)
    oracle.check("k", b"3", began)
    with pytest.raises(AssertionError):
        oracle.check("k", b"4", began)
