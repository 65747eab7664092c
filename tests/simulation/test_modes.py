"""Random programs of the other modes: strict, around, authorities without stamps; with invalidate, clear and scopes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from tests.oracle import FOREVER, Write
from tiered import TieredStore, WriteAround
from tiered.clock import ZERO, micros
from tiered.entry import VALUE, Entry
from tiered.errors import TieredError

from .test_programs import KEYS, MEMORY_AGE, SEEDS, STRICT, UPPER_AGE, Program, Shape

FOREIGN = "somebody who knows nothing of the stack"
NOISE = b"of another namespace"

FAULTY: dict[str, Any] = {"faults": 0.08, "outages": True, "cancels": True}

SHAPES = {
    "strict, no memory": Shape(processes=3, mode=STRICT, memory=False, steps=False, **FAULTY),
    "strict, one key, no memory": Shape(mode=STRICT, memory=False, keys=1, **FAULTY),
    "strict, two shared tiers": Shape(mode=STRICT, shared=2, **FAULTY),
    "around": Shape(mode=WriteAround(), **FAULTY),
    "around, one process, no memory": Shape(processes=1, mode=WriteAround(), memory=False, **FAULTY),
    "plain, one process": Shape(processes=1, plain=True, shared=0, expiry=False, **FAULTY),
    "plain, one key": Shape(processes=1, plain=True, shared=0, expiry=False, keys=1, steps=False),
    "plain, two processes": Shape(plain=True, shared=0, expiry=False, **FAULTY),
    "forgetting": Shape(processes=1, forgets=True, steps=False, **FAULTY),
    "forgetting, two processes, two shared tiers": Shape(forgets=True, shared=2, steps=False, faults=0.05),
    "forgetting, strict": Shape(forgets=True, mode=STRICT, steps=False, **FAULTY),
    "forgetting, around": Shape(forgets=True, mode=WriteAround(), steps=False, **FAULTY),
    "forgetting, plain": Shape(forgets=True, plain=True, shared=0, steps=False, expiry=False, **FAULTY),
    "scoped": Shape(scoped=True, forgets=True, steps=False, **FAULTY),
    "scoped, plain": Shape(scoped=True, forgets=True, plain=True, shared=0, steps=False, expiry=False, faults=0.05),
}


class Forgetful(Program):
    """A program that also invalidates and clears, and whose tiers other namespaces use."""

    def __init__(self, seed: int, shape: Shape) -> None:
        super().__init__(seed, shape)
        self.told: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)  # when invalidate began and ended
        self.roots = self.stores
        if shape.scoped:
            self.space = "\x1fs"
            self.stores = [store.scoped("s") for store in self.roots]

    def operations(self) -> dict[Callable[[int, TieredStore, list[str]], None], int]:
        more = {self.change: 2, self.clear: 1} if self.shape.forgets else {}
        return super().operations() | more | ({self.noise: 6} if self.shape.scoped else {})

    def change(self, which: int, store: TieredStore, keys: list[str]) -> None:
        """Somebody changes the authority behind the stack, and may tell this process."""
        for clock in self.clocks:
            clock.advance(0.001)  # so that stamps drawn from here on are newer than all drawn before
        latest = max(int(clock.time() * 1_000_000) for clock in self.clocks)
        for key in keys:
            row = self.row(key)
            value = b"%d" % next(self.values)
            write = self.oracle.begin(key, value, FOREIGN)
            stamp = max(latest, micros(row.stamp) + 1 if row is not None else 0)
            new = ZERO if self.shape.plain else stamp.to_bytes(8, "big") + b"fore"
            self.bottom.rows[self.space, key] = Entry(VALUE, new, None, value)
            self.oracle.end(write, True, seen_at=[clock.time() for clock in self.clocks])
            self.world.now += 1
        self.watch()
        if self.random.random() < 0.8:
            self.invalidate(which, store, keys)

    def invalidate(self, which: int, store: TieredStore, keys: list[str]) -> None:
        began = self.world.now
        going = self.detaching(which, keys)

        def done(_: Any, error: BaseException | None) -> None:
            going()
            for key in keys if error is None else []:
                self.told[which, key].append((began, self.world.now))

        self.spawn(f"invalidate {keys}", which, store._invalidate(keys), done)

    def detaching(self, which: int, keys: list[str]) -> Callable[[], None]:
        """Meanwhile no load has to be joined."""
        going = (which, list(keys))
        self.writing.append(going)

        def ended() -> None:
            self.writing.remove(going)
            self.detached.update(((which, key), self.world.now) for key in keys)

        return ended

    def clear(self, which: int, store: TieredStore, keys: list[str]) -> None:
        keys = KEYS if self.random.random() < 0.5 else keys[:1]
        plan = store._clear(None, True) if len(keys) > 1 else store._clear(keys[0], False)
        logs = [(key, self.oracle.begin(key, None, which)) for key in keys]
        going = self.detaching(which, keys)

        def done(_: Any, error: BaseException | None) -> None:
            going()
            for key, write in logs:
                self.oracle.end(write, error is None, seen_at=[clock.time() for clock in self.clocks])
                for other in self.oracle.writes[key]:  # of a key that is not there it leaves nothing to refuse them
                    if other.ended == FOREVER:
                        other.reported = FOREVER

        self.spawn(f"clear {keys}", which, plan, done)

    def noise(self, which: int, store: TieredStore, keys: list[str]) -> None:
        root = self.roots[which]
        plan: Any
        what = self.random.randrange(4)
        if what == 0:
            plan = root._mset(dict.fromkeys(keys, NOISE), None)
        elif what == 1:
            plan = root._mdelete(keys)
        elif what == 2:
            plan = root._clear(keys[0], False)
        else:
            plan = root._mget(keys, [None] * len(keys))

        def done(values: Any, error: BaseException | None) -> None:
            assert error is not None or what != 3 or set(values) <= {None, NOISE}

        self.spawn(f"noise {keys}", which, plan, done)

    def bound(self, which: int, key: str, other: Write, time: float, began: int) -> bool:
        if other.owner != FOREIGN:
            return super().bound(which, key, other, time, began)
        if any(other.ended <= start and end < began for start, end in self.told[which, key]):
            return True
        age = MEMORY_AGE if self.shape.memory else 0.0
        if self.shape.shared:
            age = max(age, UPPER_AGE)
        return bool(other.seen_at[which] + age < time)

    def settle(self) -> None:
        if self.shape.forgets:
            self.world.faulty = lambda level, name: 0.0
            self.world.run()
            for which, store in enumerate(self.stores):
                self.spawn("flush", which, store._flush(), lambda value, error: None)
                self.invalidate(which, store, KEYS)
            self.world.run()
        super().settle()

    def everyone_agrees(self) -> None:
        if self.shape.plain and self.shape.processes == 1 and not self.shape.faults and not self.shape.forgets:
            self.memory_agrees()
        super().everyone_agrees()

    def memory_agrees(self) -> None:
        """R9: with nobody else about and nothing lost, memory holds what the authority holds, or nothing."""
        for key in KEYS:
            held, row = self.stores[0]._made.space.peek(key), self.row(key)
            assert held is None or held.value == (row and row.value), f"memory has {held} of {key} over {row}"


@pytest.mark.parametrize("shape", SHAPES)
def test_invariants_2_to_6_10_random_programs(shape: str) -> None:
    reads = 0
    for seed in range(SEEDS):
        program = Forgetful(seed, SHAPES[shape])
        try:
            program.run(25)
            program.settle()
        except (AssertionError, TieredError) as error:
            raise AssertionError(f"{shape}, seed {seed}: {error}") from error
        reads += program.reads
    assert reads > SEEDS * 5, "hardly anything was read"
