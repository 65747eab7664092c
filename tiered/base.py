"""`BaseStore`: LangChain's own class where langchain-core is installed, else one with the same eight methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Generic, NoReturn, Self, TypeVar

K = TypeVar("K")
V = TypeVar("V")

try:
    from langchain_core.stores import BaseStore
except ImportError:

    class BaseStore(ABC, Generic[K, V]):  # type: ignore[no-redef]
        """A key-value store: four operations, each with an asynchronous twin that defaults to a thread."""

        @abstractmethod
        def mget(self, keys: Sequence[K]) -> list[V | None]:
            """The values of `keys`, in their order; None where there is none."""

        @abstractmethod
        def mset(self, key_value_pairs: Sequence[tuple[K, V]]) -> None:
            """Store every pair."""

        @abstractmethod
        def mdelete(self, keys: Sequence[K]) -> None:
            """Delete `keys`; absent ones are no error."""

        @abstractmethod
        def yield_keys(self, *, prefix: str | None = None) -> Iterator[K]:
            """The keys, or those that begin with `prefix`."""

        async def amget(self, keys: Sequence[K]) -> list[V | None]:
            import asyncio

            return await asyncio.to_thread(self.mget, keys)

        async def amset(self, key_value_pairs: Sequence[tuple[K, V]]) -> None:
            import asyncio

            await asyncio.to_thread(self.mset, key_value_pairs)

        async def amdelete(self, keys: Sequence[K]) -> None:
            import asyncio

            await asyncio.to_thread(self.mdelete, keys)

        async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[K]:
            import asyncio

            for key in await asyncio.to_thread(lambda: list(self.yield_keys(prefix=prefix))):
                yield key


class Handle:
    """What every store of ours is besides: true even when empty, its own copy, and bound to its process."""

    def __bool__(self) -> bool:
        return True

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled: open it in the other process")


__all__ = ["BaseStore", "Handle"]
