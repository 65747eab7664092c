"""One plan driven by hand: it stops before each effect, so that a test chooses the interleaving."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from tiered.effects import Parallel
from tiered.engine.sync import SyncEngine
from tiered.flight import Caller
from tiered.store import TieredStore

NAMES = {"lease": "fetch", "offer": "put", "overwrite": "put", "add": "fill"}
"""What effects on shared tiers are called that are as good as others where nothing is forgotten."""


class Hand:
    """`effect` is what the plan waits for; `step()` performs it."""

    def __init__(self, store: TieredStore, plan: Generator[Any, Any, Any]) -> None:
        self._perform = SyncEngine(store._clock).perform
        self._plan = plan
        self.effect: Any = None
        self.done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._go(lambda: next(plan))

    @property
    def at(self) -> str:
        """The pending effect: "fetch upper", "put upper+lower", "load", "join", or "done"."""
        if self.done:
            return "done"
        asks = self.effect.asks if isinstance(self.effect, Parallel) else [self.effect]
        names = "+".join(ask.level.name for ask in asks if hasattr(ask, "level"))
        kind = type(asks[0]).__name__.lower()
        return f"{NAMES.get(kind, kind)} {names}".strip()

    def step(self) -> None:
        try:
            answer = self._perform(self.effect)
        except BaseException as error:
            raised = error
            self._go(lambda: self._plan.throw(raised))
        else:
            self._go(lambda: self._plan.send(answer))

    def to(self, at: str) -> Hand:
        """Go on until just before `at`."""
        for _ in range(100):
            if self.at == at:
                return self
            assert not self.done, f"ended before {at}"
            self.step()
        raise AssertionError(f"never came to {at}, is at {self.at}")

    def throw(self, error: BaseException) -> None:
        """Cancel it, or let the pending effect fail."""
        self._go(lambda: self._plan.throw(error))

    def close(self) -> None:
        """As the garbage collector does it to a plan that nobody drives any more."""
        self._plan.close()
        self.done = True

    def result(self) -> Any:
        """Run to the end."""
        while not self.done:
            self.step()
        if self._error is not None:
            raise self._error
        return self._value

    def _go(self, resume: Callable[[], Any]) -> None:
        try:
            self.effect = resume()
        except StopIteration as stop:
            self.done, self._value = True, stop.value
        except BaseException as error:
            self.done, self._error = True, error


def getting(store: TieredStore, key: str) -> Hand:
    return Hand(store, store._get(key))


def setting(store: TieredStore, key: str, value: bytes, ttl: float | None = None) -> Hand:
    return Hand(store, store._set(key, value, ttl))


def deleting(store: TieredStore, key: str) -> Hand:
    return Hand(store, store._mdelete([key]))


def loading(
    store: TieredStore, key: str, loader: Callable[[str], Any], alive: Callable[[], bool] = lambda: True
) -> Hand:
    return Hand(store, store._load(key, loader, None, Caller(alive, may_wait=True)))
