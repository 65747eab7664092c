"""`TieredStore`: a stack of tiers that is itself a plain `BaseStore`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .assembly import assemble
from .backend import SCOPE, Backend
from .base import BaseStore, Handle
from .bypassing import BYPASS
from .checks import check_keys, check_namespace
from .clock import SYSTEM, Clock
from .engine.sync import SyncEngine
from .errors import ConfigurationError
from .lifecycle import Lifecycle
from .policies.ttl import OR_NEVER, Seconds, seconds
from .policies.write import WriteAround, WriteMode, WriteThrough
from .stats import Health, Holding, Stats
from .tier import UNSET, Tier, Unset

if TYPE_CHECKING:
    from .serializers import Serializer
    from .typed import TypedStore

V = TypeVar("V")

Loader = Callable[[str], bytes | None]
AsyncLoader = Callable[[str], Awaitable[bytes | None]]
ManyLoader = Callable[[list[str]], Mapping[str, bytes | None]]
AsyncManyLoader = Callable[[list[str]], Awaitable[Mapping[str, bytes | None]]]
OnCacheError = Literal["load", "raise"]


class TieredStore(Lifecycle, Handle, BaseStore[str, bytes]):
    """Memory in front of slower stores, the last of which is the authority, as one `BaseStore[str, bytes]`.

    `tiers` go from the fastest to the authority; a bare store stands for `Tier(store)`. `namespace` keeps stacks
    that share a server apart. `default_ttl` (seconds, timedelta, None for never) applies to writes that say none;
    `tombstone_ttl` is how long a deletion is remembered. Nothing is connected before the first use; `with` and
    `async with` connect at once. Safe for threads, tasks, several event loops, and forked children.

    Errors of all operations: InvalidKey and InvalidValue before anything is written; BackendUnavailable where the
    authority did not answer; for writes also Indeterminate and BatchError; for reads CorruptEntry and
    UnknownVersion; StoreClosed after `close()`.
    """

    def __init__(
        self,
        tiers: Iterable[Tier | Backend | BaseStore[str, bytes]],
        *,
        namespace: str | None = None,
        write: WriteMode | None = None,
        default_ttl: Seconds | None = None,
        tombstone_ttl: Seconds = 86_400,
        immutable: bool = False,
        clock: Clock | None = None,
    ) -> None:
        write = WriteThrough() if write is None else write
        if not isinstance(write, WriteThrough | WriteAround):
            raise ConfigurationError(f"write={write!r:.80}: give WriteThrough() or WriteAround()")
        if not isinstance(immutable, bool):
            raise ConfigurationError(f"immutable={immutable!r:.40}: give True or False")
        if immutable and write == WriteThrough(strict=True):
            raise ConfigurationError("immutable values have no older copies: leave strict=True out")
        if clock is not None and not isinstance(clock, Clock):
            raise ConfigurationError(f"clock={clock!r}: give a tiered.clock.Clock")
        self._default_ttl = None if default_ttl is None else seconds(default_ttl, "default_ttl", OR_NEVER)
        self._clock = clock or SYSTEM
        age = seconds(tombstone_ttl, "tombstone_ttl")
        self._engine = SyncEngine(self._clock)
        self._see(assemble(tiers, namespace, write, age, immutable, self._clock))
        self._expiry(UNSET)  # R22

    def __repr__(self) -> str:
        return f"TieredStore({' > '.join(self._made.names)}, namespace={self._stack.space!r})"

    # -- one key -------------------------------------------------------------------------------------------------

    def get(self, key: str) -> bytes | None:
        """The value of `key`, or None."""
        value = self._hit(key)
        if value is not None:
            return value
        return self._engine.run(self._get(key))

    async def aget(self, key: str) -> bytes | None:
        value = self._hit(key)
        if value is not None:
            return value
        return await self._aio().run(self._get(key))

    def set(self, key: str, value: bytes, *, ttl: Seconds | Unset | None = UNSET) -> None:
        """Store a value; `ttl` in seconds or as timedelta, None for never, left out for the `default_ttl`."""
        self._engine.run(self._set(key, value, ttl))

    async def aset(self, key: str, value: bytes, *, ttl: Seconds | Unset | None = UNSET) -> None:
        await self._aio().run(self._set(key, value, ttl))

    def delete(self, key: str) -> None:
        """Delete `key`; an absent one is no error."""
        self._engine.run(self._mdelete([key]))

    async def adelete(self, key: str) -> None:
        await self._aio().run(self._mdelete([key]))

    def get_or_load(
        self,
        key: str,
        load: Loader,
        *,
        ttl: Seconds | Unset | None = UNSET,
        stale: Seconds | None = None,
        refresh_ahead: float | None = None,
        on_cache_error: OnCacheError = "raise",
    ) -> bytes | None:
        """The value of `key`, or what `load(key)` returns, which is stored too unless it is None.

        Of all callers at once, threads and tasks alike, one loads. Its exception reaches all of them. A value is
        stored only if nobody wrote the key meanwhile; if somebody did, theirs is returned.

        `stale`: for so many seconds after its `ttl` the old value is returned at once, by every get_or_load, while
        one of them has it loaded again in the background (a thread; a task in `aget_or_load`). `get` serves it all
        that time. `refresh_ahead`: a share of the `ttl`; in that last part of it a value is loaded again already, so
        that one in use never expires. A refresh that fails is logged, the old value stays until it expires, and
        for a second nobody tries again.

        `on_cache_error`: what to do when no tier can tell whether there is a value: "raise" what the tier says, or
        "load" all the same: at most 16 at a time for each store, and nothing is stored.
        """
        value = None if BYPASS.get() else self._hit(key)
        if value is not None:
            return value
        plan = self._load(key, load, ttl, self._engine.caller(), stale, refresh_ahead, on_cache_error)
        return self._engine.run(plan)

    async def aget_or_load(
        self,
        key: str,
        load: AsyncLoader | Loader,
        *,
        ttl: Seconds | Unset | None = UNSET,
        stale: Seconds | None = None,
        refresh_ahead: float | None = None,
        on_cache_error: OnCacheError = "raise",
    ) -> bytes | None:
        """As `get_or_load`, with a coroutine function as loader."""
        value = None if BYPASS.get() else self._hit(key)
        if value is not None:
            return value
        engine = self._aio()
        return await engine.run(self._load(key, load, ttl, engine.caller(), stale, refresh_ahead, on_cache_error))

    # -- many keys -----------------------------------------------------------------------------------------------

    def mget(self, keys: Iterable[str]) -> list[bytes | None]:
        """The values of `keys` in their order, repeats included; None where there is none."""
        names = keys if type(keys) is list else _listed(keys)
        values = self._hits(names)
        if all(values) or None not in values:
            return values
        return self._engine.run(self._mget(names, values))

    async def amget(self, keys: Iterable[str]) -> list[bytes | None]:
        names = keys if type(keys) is list else _listed(keys)
        values = self._hits(names)
        if all(values) or None not in values:
            return values
        return await self._aio().run(self._mget(list(names), values))  # a copy: the caller may change its list

    def mget_or_load(
        self,
        keys: Iterable[str],
        load_many: ManyLoader,
        *,
        ttl: Seconds | Unset | None = UNSET,
        stale: Seconds | None = None,
        refresh_ahead: float | None = None,
        on_cache_error: OnCacheError = "load",
    ) -> list[bytes | None]:
        """The values of `keys` as by `mget`, those that are missing by one call `load_many(missing)`.

        It gets the missing keys once each, in a list, and returns a mapping; a key left out, or None, is absent. Keys
        that are being loaded already, by this or by `get_or_load`, are waited for. Everything else as `get_or_load`.
        """
        names = list(_listed(keys))
        values: list[bytes | None] = [None] * len(names) if BYPASS.get() else self._hits(names)
        if None not in values:
            return values
        caller = self._engine.caller()
        plan = self._mload(names, values, load_many, ttl, caller, stale, refresh_ahead, on_cache_error)
        return self._engine.run(plan)

    async def amget_or_load(
        self,
        keys: Iterable[str],
        load_many: AsyncManyLoader | ManyLoader,
        *,
        ttl: Seconds | Unset | None = UNSET,
        stale: Seconds | None = None,
        refresh_ahead: float | None = None,
        on_cache_error: OnCacheError = "load",
    ) -> list[bytes | None]:
        """As `mget_or_load`, with a coroutine function as loader."""
        names = list(_listed(keys))
        values: list[bytes | None] = [None] * len(names) if BYPASS.get() else self._hits(names)
        if None not in values:
            return values
        engine = self._aio()
        plan = self._mload(names, values, load_many, ttl, engine.caller(), stale, refresh_ahead, on_cache_error)
        return await engine.run(plan)

    def mset(
        self,
        key_value_pairs: Iterable[tuple[str, bytes]] | Mapping[str, bytes],
        *,
        ttl: Seconds | Unset | None = UNSET,
    ) -> None:
        """Store every pair; of repeated keys the last wins. `ttl` as for `set`."""
        self._engine.run(self._mset(key_value_pairs, ttl))

    async def amset(
        self,
        key_value_pairs: Iterable[tuple[str, bytes]] | Mapping[str, bytes],
        *,
        ttl: Seconds | Unset | None = UNSET,
    ) -> None:
        await self._aio().run(self._mset(key_value_pairs, ttl))

    def mdelete(self, keys: Iterable[str]) -> None:
        """Delete `keys`."""
        self._engine.run(self._mdelete(keys))

    async def amdelete(self, keys: Iterable[str]) -> None:
        await self._aio().run(self._mdelete(keys))

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """The live keys that begin with exactly `prefix`, each once, a page in memory at a time."""
        after: Any = None
        while True:
            keys = self._engine.run(self._page(prefix, after))
            yield from keys
            after = keys.mark
            if after is None:
                return

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        after: Any = None
        while True:
            keys = await self._aio().run(self._page(prefix, after))
            for key in keys:
                yield key
            after = keys.mark
            if after is None:
                return

    # -- forgetting ----------------------------------------------------------------------------------------------

    def invalidate(self, keys: Iterable[str]) -> None:
        """Forget the copies of `keys` above the authority, which was changed behind the stack. It is not touched.

        What a shared tier could not be told is repaired when it is back; until then only this process knows.
        """
        self._engine.run(self._invalidate(keys))

    async def ainvalidate(self, keys: Iterable[str]) -> None:
        await self._aio().run(self._invalidate(keys))

    def clear(self, *, prefix: str | None = None, all: bool = False) -> int:  # noqa: A002
        """Delete the keys that begin with `prefix` in every tier -> how many live ones there were.

        `all=True`: every key of this namespace and of the scopes in it. Raises ValueError without either.
        """
        return self._engine.run(self._clear(prefix, all))

    async def aclear(self, *, prefix: str | None = None, all: bool = False) -> int:  # noqa: A002
        return await self._aio().run(self._clear(prefix, all))

    # -- the stack itself ----------------------------------------------------------------------------------------

    def scoped(self, name: str) -> TieredStore:
        """The same stack seen through a namespace of its own within this one: a tenant's, say.

        It shares everything, and is closed with this store; closing it alone leaves this store open. Neither lists
        the other's keys. Raises ConfigurationError for a name that is empty or holds \\x1f.
        """
        self._usable()
        if not check_namespace(name):
            raise ConfigurationError("a scope needs a name")
        scope: TieredStore = object.__new__(type(self))
        scope.__dict__.update(self.__dict__)
        scope._parent = self
        scope._see(self._made.within(self._stack.space + SCOPE + name))
        self._scopes.add(scope)
        return scope

    def typed(self, serializer: Serializer[V]) -> TypedStore[V]:
        """This store for values of another type than bytes, as `serializer` (tiered.serializers) writes them."""
        from .typed import TypedStore

        return TypedStore(self, serializer)

    def stats(self) -> Stats:
        """Counters by tier. No I/O."""
        return self._made.stats()

    def inspect(self, key: str) -> dict[str, Holding]:
        """What each tier holds for `key`, and why; changes nothing."""
        return self._engine.run(self._inspect(key))

    async def ainspect(self, key: str) -> dict[str, Holding]:
        return await self._aio().run(self._inspect(key))

    def ping(self) -> dict[str, Health]:
        """The health of each tier; never raises."""
        return self._engine.run(self._made.ping(self._closed))

    async def aping(self) -> dict[str, Health]:
        return await self._aio().run(self._made.ping(self._closed))

    def flush(self) -> None:
        """Repair what unreachable tiers missed, as far as they are back."""
        self._engine.run(self._flush())

    async def aflush(self) -> None:
        await self._aio().run(self._flush())

    def purge_expired(self) -> int:
        """Remove expired entries, and deletions past `tombstone_ttl`, from every tier -> entries touched."""
        return self._engine.run(self._purge())

    async def apurge_expired(self) -> int:
        return await self._aio().run(self._purge())


def _listed(keys: Any) -> list[str]:
    if isinstance(keys, str | bytes | bytearray) or not isinstance(keys, Iterable):
        return check_keys(keys)
    return list(keys)
