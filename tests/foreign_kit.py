"""Stores of somebody else's, well-behaved and otherwise."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from tiered.base import BaseStore


class SyncOnly(BaseStore[str, Any]):
    """A dictionary with the four methods, and whatever a test makes of them."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.log: list[str] = []
        self.threads: set[int] = set()
        self.before: Callable[[str], object] = lambda method: None  # called before each call takes effect
        self.after: Callable[[str, Any], Any] = lambda method, answer: answer  # what it answers instead

    def _begin(self, method: str) -> None:
        self.log.append(method)
        self.threads.add(threading.get_ident())
        self.before(method)

    def mget(self, keys: Sequence[str]) -> list[Any]:
        self._begin("mget")
        return self.after("mget", [self.data.get(key) for key in keys])

    def mset(self, key_value_pairs: Sequence[tuple[str, Any]]) -> None:
        self._begin("mset")
        self.data.update(key_value_pairs)
        self.after("mset", None)

    def mdelete(self, keys: Sequence[str]) -> None:
        self._begin("mdelete")
        for key in keys:
            self.data.pop(key, None)
        self.after("mdelete", None)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        self._begin("yield_keys")
        yield from self.after("yield_keys", list(self.data))


class Both(SyncOnly):
    """With asynchronous methods of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.abefore: Callable[[str], Any] = lambda method: asyncio.sleep(0)

    async def amget(self, keys: Sequence[str]) -> list[Any]:
        await self.abefore("amget")
        return SyncOnly.mget(self, keys)

    async def amset(self, key_value_pairs: Sequence[tuple[str, Any]]) -> None:
        await self.abefore("amset")
        SyncOnly.mset(self, key_value_pairs)

    async def amdelete(self, keys: Sequence[str]) -> None:
        await self.abefore("amdelete")
        SyncOnly.mdelete(self, keys)

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        await self.abefore("ayield_keys")
        for key in SyncOnly.yield_keys(self):
            yield key


class AsyncOnly(Both):
    """It has no other face."""

    def mget(self, keys: Sequence[str]) -> list[Any]:
        raise NotImplementedError

    def mset(self, key_value_pairs: Sequence[tuple[str, Any]]) -> None:
        raise NotImplementedError

    def mdelete(self, keys: Sequence[str]) -> None:
        raise NotImplementedError

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        raise NotImplementedError


class Stuck:
    """Makes the calls of one method wait until `release()`; `held` counts those that are waiting or have waited."""

    def __init__(self, store: SyncOnly, *methods: str) -> None:
        self.methods = methods
        self.gate = threading.Event()
        self.held = threading.Semaphore(0)
        self.ended = threading.Semaphore(0)
        store.before = self._before
        store.after = self._after

    def _before(self, method: str) -> None:
        if method in self.methods and not self.gate.is_set():
            self.held.release()
            assert self.gate.wait(60)

    def _after(self, method: str, answer: Any) -> Any:
        if method in self.methods:
            self.ended.release()
        return answer

    def release(self) -> None:
        self.gate.set()

    def __enter__(self) -> Stuck:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
