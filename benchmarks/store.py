"""`TieredStore` where the memory tier answers, against a bare dict and against what people use today."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable

import cachetools

from tiered import Memory, TieredStore
from tiered.base import BaseStore

from .rows import Row, best_of

KEYS = [f"user:{number:06d}" for number in range(1_000)]
LOOPS = 200_000


def run() -> list[Row]:
    return [*_reads(), _async_read(), *_writes()]


def _reads() -> list[Row]:
    store = TieredStore([Memory()], default_ttl=3600)
    store.mset([(key, b"value") for key in KEYS])
    plain = dict.fromkeys(KEYS, b"value")
    cache = cachetools.TTLCache(10_000, 3600)
    cache.update(plain)
    lock = threading.RLock()

    def locked(key: str) -> object:
        with lock:
            return cache.get(key)

    def looped(get: Callable[[str], object]) -> Callable[[], None]:
        def loop() -> None:
            for key in itertools.repeat("user:000500", LOOPS):
                get(key)

        return loop

    singles = best_of([looped(store.get), looped(plain.get), looped(locked)], 7)
    ours, floor, theirs = (seconds / LOOPS * 1e9 for seconds in singles)
    batches = best_of([lambda: store.mget(KEYS), lambda: [plain.get(key) for key in KEYS]], 300)
    many, comprehension = (seconds * 1e6 for seconds in batches)
    return [
        _at_most("get, memory hit with TTL, against dict.get", ours, floor, "ns", 8),
        _faster("get, memory hit with TTL, against TTLCache under an RLock", ours, theirs, "ns", 8),
        _at_most("mget of 1,000 hits, against a comprehension of dict.get", many, comprehension, "us", 2.5),
    ]


def _async_read() -> Row:
    """LangChain's default `amget` runs `mget` in an executor."""
    store = TieredStore([Memory()], default_ttl=3600)
    store.set("k", b"value")

    async def timed(amget: Callable[[list[str]], Awaitable[object]], loops: int) -> float:
        took = float("inf")
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(loops):
                await amget(["k"])
            took = min(took, time.perf_counter() - began)
        return took / loops * 1e6

    async def both() -> tuple[float, float]:
        return await timed(store.amget, 20_000), await timed(lambda keys: BaseStore.amget(store, keys), 500)

    ours, theirs = asyncio.run(both())
    return _faster("amget of one key, memory hit, against BaseStore.amget", ours, theirs, "us", 50)


def _writes() -> list[Row]:
    """Reported, without a bar: a set through the plan, against a plain assignment into a locked TTLCache."""
    store = TieredStore([Memory(max_entries=10_000)], default_ttl=3600)
    cache = cachetools.TTLCache(10_000, 3600)
    lock = threading.RLock()
    keys = [f"k{number}" for number in range(30_000)]

    def ours() -> None:
        for key in keys:
            store.set(key, b"value")

    def theirs() -> None:
        for key in keys:
            with lock:
                cache[key] = b"value"

    mine, peer = (seconds / len(keys) * 1e6 for seconds in best_of([ours, theirs], 3))
    return [
        Row("TieredStore([Memory()]).set that evicts, against TTLCache", mine, peer, "us", mine / peer, "", None, "")
    ]


def _at_most(name: str, ours: float, theirs: float, unit: str, bar: float) -> Row:
    return Row(name, ours, theirs, unit, ours / theirs, f"at most {bar:g}x", ours / theirs <= bar, "")


def _faster(name: str, ours: float, theirs: float, unit: str, bar: float) -> Row:
    return Row(name, ours, theirs, unit, theirs / ours, f"at least {bar:g}x faster", theirs / ours >= bar, "")
