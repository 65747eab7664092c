"""Both faces of a store behind one set of methods, so that each test is written once."""

from __future__ import annotations

import asyncio
from typing import Any

FACES = ("sync", "async")


class Sync:
    """The plain methods."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def keys(self, **prefix: Any) -> list[str]:
        return list(self.store.yield_keys(**prefix))

    def close(self) -> None:
        self.store.close()

    def done(self) -> None:
        self.store.close()


class Async:
    """The methods with an `a` before their name, on an event loop of their own; loaders become coroutine functions."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.runner = asyncio.Runner()
        self.stats = getattr(store, "stats", None)  # no I/O, so it has no twin

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, f"a{name}")
        return lambda *args, **options: self.runner.run(method(*args, **options))

    def get_or_load(self, key: Any, load: Any, **options: Any) -> Any:
        return self.runner.run(self.store.aget_or_load(key, _awaited(load), **options))

    def keys(self, **prefix: Any) -> list[str]:
        async def listed() -> list[str]:
            return [key async for key in self.store.ayield_keys(**prefix)]

        return self.runner.run(listed())

    def done(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()


def _awaited(load: Any) -> Any:
    if not callable(load):
        return load

    async def loader(key: str) -> Any:
        await asyncio.sleep(0)
        return load(key)

    return loader


def face(name: str, store: Any) -> Any:
    """The `name`d face of a store, to be ended by `done()`."""
    return {"sync": Sync, "async": Async}[name](store)
