"""`tiered.wrap` against the store it wraps, and against a bare dict: `python -m benchmarks wrap`."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from langchain_classic.storage import LocalFileStore
from langchain_core.stores import InMemoryByteStore

import tiered
from tiered import Foreign
from tiered.base import BaseStore

from .rows import Row, best_of

KEYS = [f"user:{number:06d}" for number in range(1_000)]
VALUE = b"x" * 1_024


def run() -> list[Row]:
    return [*_hits(), *_files(), *_calls(), asyncio.run(_async_misses())]


def _hits() -> list[Row]:
    plain = dict.fromkeys(KEYS, VALUE)
    inner = InMemoryByteStore()
    store = tiered.wrap(inner)
    store.mset(plain)
    many, comprehension, theirs = (
        seconds * 1e6
        for seconds in best_of(
            [lambda: store.mget(KEYS), lambda: [plain.get(key) for key in KEYS], lambda: inner.mget(KEYS)], 500
        )
    )
    return [
        _at_most(
            "wrap(InMemoryByteStore).mget of 1,000 hits, against the comprehension", many, comprehension, "us", 2.5
        ),
        _shown("wrap(InMemoryByteStore).mget of 1,000 hits, against InMemoryByteStore.mget", many, theirs, "us"),
    ]


def _files() -> list[Row]:
    """What memory in front of LangChain's LocalFileStore is for."""
    with tempfile.TemporaryDirectory() as place:
        inner = LocalFileStore(Path(place))
        keys = KEYS[:200]
        inner.mset([(key.replace(":", "-"), VALUE) for key in keys])
        names = [key.replace(":", "-") for key in keys]
        store = tiered.wrap(inner)
        bare = Foreign(inner)
        store.mget(names)
        ours, misses, theirs = (
            seconds * 1e6
            for seconds in best_of([lambda: store.mget(names), lambda: bare.mget(names), lambda: inner.mget(names)], 20)
        )
    return [
        _shown("wrap(LocalFileStore).mget of 200 hits, against LocalFileStore.mget", ours, theirs, "us"),
        _shown("Foreign(LocalFileStore).mget of 200, against LocalFileStore.mget", misses, theirs, "us"),
    ]


class _Threaded(InMemoryByteStore):
    """As quick, but nobody can know: a method of its own."""

    def mget(self, keys: Any) -> Any:
        return super().mget(keys)


def _calls() -> list[Row]:
    """What one call costs where memory does not answer: in place, and by a thread."""
    rows = []
    for name, inner in (("where the caller is", InMemoryByteStore()), ("in a thread", _Threaded())):
        inner.mset([("k", VALUE)])
        for layout in ("plain", "record"):
            backend = Foreign(inner, layout, namespace=layout)  # type: ignore[arg-type]
            backend.mset({"k": VALUE})
            fetch = backend.fetch

            def ours(backend: Foreign = backend, fetch: Any = fetch, layout: str = layout) -> None:
                for _ in range(100):
                    backend.run(fetch(layout, ["k"]), 5.0)

            def theirs(inner: Any = inner) -> None:
                for _ in range(100):
                    inner.mget(["k"])

            a, b = (seconds * 1e4 for seconds in best_of([ours, theirs], 40))
            rows.append(_shown(f"read of one key from a dictionary, {layout}, called {name}", a, b, "us"))
    return rows


async def _async_misses() -> Row:
    """LangChain's default `amget` runs `mget` in an executor; so does Foreign, with a time-out."""
    inner = _Threaded()
    inner.mset([("k", VALUE)])
    BaseStoreOf = type("BaseStoreOf", (_Threaded,), {"amget": BaseStore.amget})  # noqa: N806
    slow = BaseStoreOf()
    slow.mset([("k", VALUE)])
    backend = Foreign(slow)

    async def timed(amget: Callable[[list[str]], Awaitable[object]]) -> float:
        began = time.perf_counter()
        for _ in range(200):
            await amget(["k"])
        return (time.perf_counter() - began) / 200 * 1e6

    ours = theirs = float("inf")
    for _ in range(10):
        ours = min(ours, await timed(backend.amget))
        theirs = min(theirs, await timed(slow.amget))
    return _shown("amget of one key of a blocking store, against BaseStore.amget", ours, theirs, "us")


def _at_most(name: str, ours: float, theirs: float, unit: str, bar: float) -> Row:
    return Row(name, ours, theirs, unit, ours / theirs, f"at most {bar:g}x", ours / theirs <= bar)


def _shown(name: str, ours: float, theirs: float, unit: str) -> Row:
    return Row(name, ours, theirs, unit, ours / theirs, "", None)
