"""`@cached` where memory answers: a function of two ints, against the decorators that people use today.

Each of them keeps results in this process, for as long. Those of aiocache and cashews are for coroutine functions only,
so theirs is the cost of an awaited call, as is our second row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiocache
import cashews
from dogpile.cache import make_region

import tiered

from .rows import Row, best_of

CALLS = 5_000
ROUNDS = 15
TTL = 300


def run() -> list[Row]:
    found = measure()
    ours, ours_async = found.pop("tiered"), found.pop("tiered, async")
    name = min(found, key=lambda peer: found[peer])
    theirs = found[name]
    note = ", ".join(f"{peer} {took:.1f} us" for peer, took in found.items())
    return [
        Row(
            "@cached hit, memory, two ints", ours, 5.0, "us", ours / 5.0, "at most 5 us", ours <= 5.0, "theirs: the bar"
        ),
        Row(
            f"@cached hit against the fastest of three ({name})",
            ours,
            theirs,
            "us",
            theirs / ours,
            "at least 3x faster",
            theirs / ours >= 3,
            note,
        ),
        Row("the same, awaited", ours_async, theirs, "us", theirs / ours_async, "", None, note),
    ]


def measure() -> dict[str, float]:
    """Microseconds a hit, by decorator; the best of interleaved rounds."""
    store = tiered.TieredStore([tiered.Memory()])
    region = make_region().configure("dogpile.cache.memory", expiration_time=TTL)
    cashews.cache.setup("mem://")

    @tiered.cached(store, ttl=TTL)
    def ours(a: int, b: int) -> int:
        return a + b

    @region.cache_on_arguments()
    def dogpile(a: int, b: int) -> int:
        return a + b

    @tiered.cached(store, ttl=TTL)
    async def ours_async(a: int, b: int) -> int:
        return a + b

    @aiocache.cached(ttl=TTL)
    async def aio(a: int, b: int) -> int:
        return a + b

    @cashews.cache(ttl=TTL)
    async def cashew(a: int, b: int) -> int:
        return a + b

    with asyncio.Runner() as runner:
        coroutines = {"tiered, async": ours_async, "aiocache": aio, "cashews": cashew}
        functions: dict[str, Callable[[], object]] = {"tiered": looped(ours), "dogpile.cache": looped(dogpile)}
        for name, function in coroutines.items():
            functions[name] = awaited(runner, function)
        for function in functions.values():
            function()  # the first call is no hit
        took = best_of(functions.values(), ROUNDS)
    return {name: seconds / CALLS * 1e6 for name, seconds in zip(functions, took, strict=True)}


def looped(function: Callable[[int, int], object]) -> Callable[[], None]:
    def loop() -> None:
        for _ in range(CALLS):
            function(1, 2)

    return loop


def awaited(runner: asyncio.Runner, function: Callable[[int, int], Awaitable[Any]]) -> Callable[[], None]:
    async def loop() -> None:
        for _ in range(CALLS):
            await function(1, 2)

    return lambda: runner.run(loop())
