"""The memory tier against a dict and against cachetools.TTLCache under an RLock: `python -m benchmarks.memory`."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Literal

import cachetools

from tiered.backends.memory import Memory, Space

from .rows import Row, best_of, table

KEYS = [f"key:{number:07}" for number in range(1_000)]
VALUE = b"x" * 100
STAMP = (1 << 50).to_bytes(12, "big")
ENTRIES = 10_000
BATCH = 10_000


def run() -> list[Row]:
    """All rows, in about 20 seconds."""
    return [*_reads(), *_evicting("adaptive"), *_evicting("lru"), *_bytes()]


def _space(policy: Literal["adaptive", "lru"] = "adaptive") -> Space:
    return Memory(max_bytes=None, max_entries=ENTRIES, policy=policy).space("bench", time.time)


def _reads() -> list[Row]:
    space, plain = _space(), dict.fromkeys(KEYS, VALUE)
    cache: Any = cachetools.TTLCache(ENTRIES, 600)
    lock = threading.RLock()
    for key in KEYS:
        space.install(key, VALUE, STAMP, time.time() + 600)
        cache[key] = VALUE
    hit, hits, get = space.hit, space.hits, plain.get

    def ours() -> None:
        for key in KEYS:
            hit(key)

    def gets() -> None:
        for key in KEYS:
            get(key)

    def locked() -> None:
        for key in KEYS:
            with lock:
                cache.get(key)

    one, bare, theirs = (seconds * 1e6 for seconds in best_of([ours, gets, locked], 200))  # us a 1,000 = ns each
    many, comprehension = (
        seconds * 1e6 for seconds in best_of([lambda: hits(KEYS), lambda: [plain.get(key) for key in KEYS]], 500)
    )
    return [
        _at_most("hit with TTL / dict.get", one, bare, "ns", 8, "loop included in both"),
        _faster("hit with TTL, TTLCache under RLock", one, theirs, "ns", 8),
        _at_most("hits of 1,000 / comprehension of dict.get", many, comprehension, "us", 2.5),
    ]


def _evicting(policy: Literal["adaptive", "lru"]) -> list[Row]:
    install, deadline = _space(policy).install, time.time() + 600
    cache: Any = cachetools.TTLCache(ENTRIES, 600)
    lock = threading.RLock()
    batches = [[f"set:{start + number:09}" for number in range(BATCH)] for start in range(0, 30 * BATCH, BATCH)]
    mine, other = itertools.cycle(batches), itertools.cycle(batches)

    def ours() -> None:
        for key in next(mine):
            install(key, VALUE, STAMP, deadline)

    def theirs() -> None:
        for key in next(other):
            with lock:
                cache[key] = VALUE

    for warm in (ours, theirs, ours, theirs):
        warm()
    a, b = (seconds / BATCH * 1e9 for seconds in best_of([ours, theirs], 60))
    return [_faster(f"set that evicts ({policy}), TTLCache under RLock", a, b, "ns", 1.5)]


def _bytes() -> list[Row]:
    """Memory an entry takes beyond key and value, ghosts full; tables have just doubled at 22,000 and 44,000."""
    rows = []
    for entries in (20_000, 22_000, 30_000, 44_000):
        memory = Memory(max_bytes=None, max_entries=entries)
        space = memory.space("bench", time.time)
        names = [f"key:{number:09}" for number in range(3 * entries)]
        began = time.time() + 600
        gc.collect()
        tracemalloc.start()
        for number, name in enumerate(names):
            space.install(name, VALUE, (number + (1 << 50)).to_bytes(12, "big"), began + number * 1e-4)
        taken = tracemalloc.get_traced_memory()[0] / memory.entries
        tracemalloc.stop()
        said = memory.bytes / memory.entries
        rows.append(
            Row(
                f"bytes an entry beyond key and value, {entries:,} entries",
                taken,
                400,
                "B",
                taken / 400,
                "at most 400 B",
                taken <= 400,
                f"accounted {said:.0f} B with a key of 62 B and one shared value of 133 B",
            )
        )
    return rows


def _at_most(name: str, ours: float, theirs: float, unit: str, bar: float, note: str = "") -> Row:
    return Row(name, ours, theirs, unit, ours / theirs, f"at most {bar:g}x", ours / theirs <= bar, note)


def _faster(name: str, ours: float, theirs: float, unit: str, bar: float) -> Row:
    return Row(name, ours, theirs, unit, theirs / ours, f"{bar:g}x faster", theirs / ours >= bar)


def main(show: Callable[[str], None] = print) -> None:
    show(table(run()))


if __name__ == "__main__":
    main()
