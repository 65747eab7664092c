"""Hit ratios of our policies against S3-FIFO and LRU: `python -m benchmarks.hit_ratio [folder of traces]`.

The traces are looked for in the argument, then in $TIERED_TRACES, then in ../shared/traces beside the repository.
S3-FIFO is libCacheSim's (PyPI `libcachesim`); all policies count objects.
"""

from __future__ import annotations

import itertools
import lzma
import math
import os
import random
import sys
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tiered.policies.eviction import Adaptive, Item

from .rows import Row, table

TRACES = {"web07": (204, 2_048), "web12": (137, 1_375)}
"""Cache sizes in entries: 1 % and 10 % of the unique keys."""


MODULUS = (1 << 30) - 35


class Case(NamedTuple):
    """A stream of keys and a cache size in entries; `lead` is how far above S3-FIFO we must be, in points."""

    name: str
    size: int
    stream: Sequence[int]
    lead: float = -0.3


def run(traces: Path | None = None) -> list[Row]:
    """A row a case: ours, and the target max(S3-FIFO + lead, LRU - 1), in percent hits; `ratio` is ours minus it."""
    rows = []
    for case in cases(traces):
        ours, s3fifo, lru = adaptive(case.size, case.stream), reference(case.size, case.stream), plain_lru(*case[1:3])
        target = max(s3fifo + case.lead, lru - 1)
        note = f"S3-FIFO {s3fifo:.2f}, LRU {lru:.2f}"
        bar = f"S3-FIFO {case.lead:+g}, LRU -1"
        rows.append(Row(case.name, ours, target, "%", ours - target, bar, ours >= target, note))
    return rows


def cases(traces: Path | None = None) -> Iterator[Case]:
    """The contract's streams, from fixed seeds, and the traces where they are found."""
    folder = find_traces(traces)
    if folder is None:
        print("hit_ratio: traces not found, skipped (give their folder, or set TIERED_TRACES)", file=sys.stderr)
    else:
        for name, sizes in TRACES.items():
            keys = array("I", lzma.decompress((folder / f"{name}.trace.xz").read_bytes()))
            for size in sizes:
                yield Case(f"{name}, {size:,} entries", size, keys)
    size = 1_000
    yield Case("loop 10 % larger than the cache", size, [number % 1_100 for number in range(80_000)])
    yield Case("scan mixed into hot keys", size, scan(size))
    yield Case("Zipf with a shifting hot set", size, shifting())
    yield Case("pure recency (LRU stack distance)", size, recency(size), 1.0)


def find_traces(folder: Path | None = None) -> Path | None:
    beside = Path(__file__).resolve().parents[2] / "shared" / "traces"
    if folder is None:
        folder = Path(os.environ.get("TIERED_TRACES", beside))
    return folder if (folder / "web07.trace.xz").is_file() else None


def zipf(rng: random.Random, count: int, keys: int, skew: float) -> list[int]:
    weights = list(itertools.accumulate(1 / rank**skew for rank in range(1, keys + 1)))
    return rng.choices(range(keys), cum_weights=weights, k=count)


def scan(size: int) -> list[int]:
    """Every fourth request is for a key never seen before; the others are Zipf over keys that nearly fit."""
    fresh = itertools.count(10**6)
    stream = []
    for number, key in enumerate(zipf(random.Random(2), 90_000, size * 3 // 4, 0.9)):
        stream.append(key)
        if number % 3 == 0:
            stream.append(next(fresh))
    return stream


def shifting() -> list[int]:
    """Zipf over 10,000 keys; a seventh of the hottest move on every 10,000 requests."""
    return [key + number // 10_000 * 1_400 for number, key in enumerate(zipf(random.Random(3), 120_000, 10_000, 1.0))]


def recency(size: int) -> list[int]:
    """Stack distances are exponential with half the cache as mean: only how long ago a key was used says anything."""
    rng = random.Random(4)
    stack, fresh, stream = list(range(5 * size)), itertools.count(10**6), []
    for _ in range(100_000):
        distance = int(rng.expovariate(2 / size))
        key = stack.pop(-1 - distance) if distance < len(stack) else next(fresh)
        stack.append(key)
        stream.append(key)
    return stream


def adaptive(size: int, stream: Sequence[int]) -> float:
    policy, held, hits = Adaptive(size, math.inf), {}, 0
    for key in stream:
        item = held.get(key)
        if item is not None:
            item.freq += 1
            hits += 1
            continue
        if len(held) >= size:
            for victim in policy.evict(1 + (size >> 10)):
                del held[int(victim.key)]
        item = held[key] = Item()
        item.key, item.cost, item.freq, item.modulus = str(key), 1, 0, MODULUS
        policy.add(item)
    return 100 * hits / len(stream)


def plain_lru(size: int, stream: Sequence[int]) -> float:
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in stream:
        if key in held:
            held.move_to_end(key)
            hits += 1
            continue
        if len(held) >= size:
            held.popitem(last=False)
        held[key] = None
    return 100 * hits / len(stream)


def reference(size: int, stream: Sequence[int]) -> float:
    """libCacheSim's S3-FIFO."""
    import libcachesim

    cache, request, hits = libcachesim.S3FIFO(size), libcachesim.Request(), 0
    request.obj_size = 1
    for key in stream:
        request.obj_id = key
        hits += cache.get(request)
    return 100 * hits / len(stream)


if __name__ == "__main__":
    print(table(run(Path(sys.argv[1]) if len(sys.argv) > 1 else None)))
