"""Random programs of get_or_load with `stale=`: values that are stale soon, refreshed in the background."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tiered import TieredStore
from tiered.errors import TieredError

from .test_programs import SEEDS, Program, Shape
from .world import Task

SHAPES = {
    "everything": Shape(faults=0.05, cancels=True, outages=True, keys=2),
    "one process, one key": Shape(processes=1, faults=0.03, cancels=True, keys=1),
    "no memory": Shape(faults=0.03, memory=False, keys=2),
    "one process, no memory, nothing fails": Shape(processes=1, memory=False, steps=False, keys=1),
    "the authority alone": Shape(shared=0, cancels=True, steps=False, keys=2),
}


class Refreshing(Program):
    """A program that mostly loads. A call is over when the refresh it began is."""

    def __init__(self, seed: int, shape: Shape) -> None:
        super().__init__(seed, shape)
        self.world.refreshing = self.refreshing
        self.refreshes: set[Task] = set()
        self.waiting: dict[Task, Callable[[], None]] = {}

    def operations(self) -> dict[Callable[[int, TieredStore, list[str]], None], int]:
        return {self.read: 2, self.write: 3, self.delete: 1, self.loads: 12, self.upkeep: 4}

    def terms(self) -> tuple[float | None, float]:
        return 0.5, self.random.choice([20.0, 200.0])

    def refreshing(self, task: Task) -> Callable[[], None]:
        self.refreshes.add(task)

        def ended() -> None:
            self.refreshes.remove(task)
            self.waiting.pop(task, lambda: None)()

        return ended

    def loaded(self, task: list[Task], over: Callable[[], None]) -> None:
        if task and task[0] in self.refreshes:
            self.waiting[task[0]] = over
        else:
            over()


@pytest.mark.parametrize("shape", SHAPES)
def test_R14_R20_random_programs_with_refreshes(shape: str) -> None:
    refreshes = 0
    for seed in range(SEEDS):
        program = Refreshing(seed, SHAPES[shape])
        try:
            program.run(30)
            program.settle()
        except (AssertionError, TieredError) as error:
            raise AssertionError(f"{shape}, seed {seed}: {error}") from error
        refreshes += sum(store.stats().loads.refreshes for store in program.stores)
    assert refreshes > SEEDS / 10, "hardly anything was refreshed"
