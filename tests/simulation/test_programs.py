"""Random programs in the simulated engine: two processes, memory over a shared tier over the authority, faults anywhere."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

from tests.oracle import Oracle
from tiered import Memory, Tier, TieredStore
from tiered.entry import VALUE
from tiered.errors import TieredError
from tiered.plans import scan

from .tier import SimTier
from .world import Cancelled, LoaderError, World, process

SEEDS = int(os.environ.get("SEEDS", "300"))
KEYS = ["a", "b", "c"]


class Program:
    """A seed's worth of operations on some processes, judged as it runs."""

    def __init__(self, seed: int, *, processes: int, faults: float, shared: bool, cancels: bool, memory: bool = True) -> None:
        self.world = World(seed, lambda level, name: faults)
        self.random = self.world.random
        self.cancels = cancels
        self.upper, self.bottom = SimTier("upper"), SimTier("bottom")
        self.values = itertools.count()
        self.stores: list[TieredStore] = []
        self.clocks = []
        self.oracles = []
        self.everyone = Oracle(lambda: self.world.now)
        for number in range(processes):
            front = [Memory(max_entries=2)] if memory else []
            middle = [Tier(self.upper, ttl=3600)] if shared else []
            store, clock = process([*front, *middle, self.bottom], number, skew=self.random.choice([-5.0, 0.0, 0.001, 5.0]))
            self.stores.append(store)
            self.clocks.append(clock)
            self.oracles.append(Oracle(lambda: self.world.now))
        self.tasks: list[Any] = []
        self.errors: list[BaseException] = []

    def run(self, operations: int) -> None:
        for _ in range(operations):
            self.start(self.random.randrange(len(self.stores)))
            for _ in range(self.random.randrange(12)):
                self.world.step()
            if self.cancels and self.random.random() < 0.1 and self.world.tasks:
                self.world.cancel(self.random.choice(self.world.tasks))
            if self.random.random() < 0.2:
                self.random.choice(self.clocks).advance(self.random.choice([0.0, 0.001, 1.0, 40.0, -1.0]))
        self.world.run()

    def start(self, which: int) -> None:
        store = self.stores[which]
        operation = self.random.choice([self.read, self.read, self.read, self.write, self.write, self.delete, self.load])
        keys = self.random.sample(KEYS, self.random.choice([1, 1, 2]))
        operation(which, store, keys)

    def spawn(self, name: str, which: int, plan: Any, done: Any) -> None:
        def ended(value: Any, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, TieredError | LoaderError | Cancelled):
                self.errors.append(error)
            done(value, error)

        self.world.spawn(f"{name}@{which}", self.clocks[which], plan, ended)

    def read(self, which: int, store: TieredStore, keys: list[str]) -> None:
        began = self.world.now
        known = store._hits(keys)

        def done(values: Any, error: BaseException | None) -> None:
            if error is None:
                for key, value in zip(keys, values, strict=True):
                    self.judge(which, key, value, began)

        if None in known:
            self.spawn("read", which, store._mget(keys, known), done)
        else:
            done(known, None)

    def judge(self, which: int, key: str, value: bytes | None, began: float) -> None:
        """A process is bound by its own writes; what it may see of others' is not judged here."""
        oracle = self.oracles[which]
        mine = sum(write.value == value for write in oracle.writes[key])
        anyones = sum(write.value == value for write in self.everyone.writes[key])
        assert anyones, f"{key!r} is {value!r}, which nobody wrote"
        if mine == anyones:
            oracle.check(key, value, began)

    def write(self, which: int, store: TieredStore, keys: list[str]) -> None:
        self.store(which, store, keys, {key: b"%d" % next(self.values) for key in keys})

    def delete(self, which: int, store: TieredStore, keys: list[str]) -> None:
        self.store(which, store, keys, dict.fromkeys(keys))

    def store(self, which: int, store: TieredStore, keys: list[str], values: dict[str, bytes | None]) -> None:
        logs = [
            (oracle, oracle.begin(key, value))
            for key, value in values.items()
            for oracle in (self.oracles[which], self.everyone)
        ]
        deleting = None in values.values()
        plan = store._mdelete(keys) if deleting else store._mset(values, None)

        def done(_: Any, error: BaseException | None) -> None:
            for oracle, write in logs:
                # Among processes, a write whose end is unknown may arrive at any time later.
                if error is None or oracle is not self.everyone:
                    oracle.end(write, error is None)

        self.spawn("delete" if deleting else "write", which, plan, done)

    def load(self, which: int, store: TieredStore, keys: list[str]) -> None:
        key = keys[0]
        began = self.world.now
        value = b"%d" % next(self.values)
        fails = self.random.random() < 0.2
        task: list[Any] = []
        logs: list[Any] = []

        def loader(_: str) -> bytes:
            logs.extend((oracle, oracle.begin(key, value)) for oracle in (self.oracles[which], self.everyone))
            if fails:
                raise LoaderError
            return value

        def done(found: Any, error: BaseException | None) -> None:
            for oracle, write in logs:
                oracle.end(write, False)
            if error is None:
                self.judge(which, key, found, began)

        if store._hit(key) is None:
            plan = store._load(key, loader, None, self.world.caller(lambda: task[0]))
            before = len(self.world.tasks)
            self.spawn("load", which, plan, done)
            task.extend(self.world.tasks[before:])

    def settle(self) -> None:
        """Faults end; every process repairs; then tiers must agree and nothing acknowledged may be lost."""
        self.world.faulty = lambda level, name: 0.0
        for which, store in enumerate(self.stores):
            self.clocks[which].advance(60)
            self.spawn("flush", which, scan.flush(store._stack), lambda value, error: None)
        self.world.run()
        assert not self.errors
        for key in KEYS:
            self.everyone.check(key, self.bottom.value(key), self.world.now, "the authority at the end")
            above = self.upper.rows.get(("", key))
            below = self.bottom.rows.get(("", key))
            if above is not None and above.kind == VALUE:
                assert below is not None
                assert (above.stamp, above.value) == (below.stamp, below.value), f"tiers disagree on {key}"
        for store in self.stores:
            assert store._made.memory is None or not any(store._made.space.busy(key) for key in KEYS)


SHAPES = {
    "one process, faults and cancellations": {"processes": 1, "faults": 0.15, "shared": True, "cancels": True},
    "two processes, faults": {"processes": 2, "faults": 0.1, "shared": True, "cancels": False},
    "two processes over the authority alone": {"processes": 2, "faults": 0.1, "shared": False, "cancels": True},
    "no faults": {"processes": 2, "faults": 0.0, "shared": True, "cancels": False},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_invariants_3_4_5_random_programs(shape: str) -> None:
    for seed in range(SEEDS):
        program = Program(seed, **SHAPES[shape])
        try:
            program.run(25)
            program.settle()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_a_seed_replays_identically() -> None:
    def trace(seed: int) -> list[tuple[float, str]]:
        program = Program(seed, **SHAPES["two processes, faults"])
        steps = []
        perform = program.world._perform
        program.world._perform = lambda task: (steps.append((program.world.now, task.name)), perform(task))[1]
        program.run(25)
        return steps

    assert trace(7) == trace(7)
    assert trace(7) != trace(8)
