"""`TypedStore`: a store of bytes seen through a serializer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypedDict, TypeVar, Unpack, cast

from .base import BaseStore, Handle
from .bypassing import BYPASS
from .checks import check_awaited, check_key, check_keys, check_listed, check_loaded, check_on_error
from .effects import Plan, adrive, drive
from .errors import BackendUnavailable, ConfigurationError, CorruptEntry, InvalidValue, TieredError, Unsupported
from .flight import Caller
from .operations import Operations
from .plans.load import Fresh, Source
from .policies.ttl import Seconds
from .serializers import Serializer
from .serializers.guard import decode, encode
from .tier import UNSET, Unset

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from .store import TieredStore

V = TypeVar("V")
T = TypeVar("T")

MANY, LARGE = 100, 256 * 1024
"""Values, or bytes, from which on asyncio has them serialized in a thread: a millisecond, or a few."""


class Serialize(NamedTuple):
    """Work of the serializer's on a batch; `heavy`: too much for an event loop's thread."""

    work: Callable[[], Any]
    heavy: bool


Step: TypeAlias = tuple[str, tuple[Any, ...], dict[str, Any]] | Callable[[Caller], Plan[Any]] | Serialize
"""A call of the store of bytes (the method, without the "a" of its asynchronous twin, and its arguments), a plan of
the stack's, or serialization.
"""

Steps: TypeAlias = Generator[Step, Any, T]


class LoadOptions(TypedDict, total=False):
    """What `TieredStore.get_or_load` takes besides `ttl`."""

    stale: Seconds | None
    refresh_ahead: float | None
    on_cache_error: Literal["load", "raise"]


class TypedStore(Handle, BaseStore[str, V], Generic[V]):
    """A `BaseStore[str, V]` over a `BaseStore[str, bytes]`; `store.typed(Json())` makes one.

    Values go through `serializer` on their way in and out. A TTL, `get_or_load` and single flight are those of the
    stack below; over a store that is not a `TieredStore` these are `Unsupported`: `tiered.wrap` it first. None is no
    value: deleting is. `.store` is the store of bytes, to be closed, cleared and so on.

    Errors beside those of the store: InvalidValue, with the key, for what the serializer does not take, before
    anything is written; CorruptEntry, with the key, for what it cannot read, which `get_or_load` replaces.
    """

    def __init__(self, store: BaseStore[str, bytes], serializer: Serializer[V]) -> None:
        if not isinstance(store, BaseStore):
            raise ConfigurationError(f"a typed store is made of a BaseStore, not of {type(store).__name__}")
        if isinstance(serializer, type) or not all(
            callable(getattr(serializer, name, None)) for name in ("dumps", "loads")
        ):
            raise ConfigurationError(
                f"serializer={serializer!r:.80}: give an object with dumps and loads, as in Json()"
            )
        self._store = store
        self._serializer = serializer

    @property
    def store(self) -> BaseStore[str, bytes]:
        """The store of bytes below."""
        return self._store

    def __repr__(self) -> str:
        return f"TypedStore({self._store!r}, {self._serializer!r})"

    # -- one key -------------------------------------------------------------------------------------------------

    def get(self, key: str) -> V | None:
        """The value of `key`, or None."""
        return drive(self._get(key), self._call)

    async def aget(self, key: str) -> V | None:
        return await adrive(self._get(key), self._acall)

    def set(self, key: str, value: V, *, ttl: Seconds | Unset | None = UNSET) -> None:
        """Store a value; `ttl` as for `TieredStore.set`."""
        drive(self._set(key, value, ttl), self._call)

    async def aset(self, key: str, value: V, *, ttl: Seconds | Unset | None = UNSET) -> None:
        await adrive(self._set(key, value, ttl), self._acall)

    def delete(self, key: str) -> None:
        """Delete `key`; an absent one is no error."""
        drive(self._mdelete([key]), self._call)

    async def adelete(self, key: str) -> None:
        await adrive(self._mdelete([key]), self._acall)

    def get_or_load(
        self,
        key: str,
        load: Callable[[str], V | None],
        *,
        ttl: Seconds | Unset | None = UNSET,
        **options: Unpack[LoadOptions],
    ) -> V | None:
        """The value of `key`, or what `load(key)` returns, which is stored too unless it is None.

        As `TieredStore.get_or_load`, with its options. All callers get what the serializer gives back, each an object
        of its own. What is stored and cannot be read counts as absent, and is replaced.
        """
        return drive(self._get_or_load(key, load, ttl, options), self._call)

    async def aget_or_load(
        self,
        key: str,
        load: Callable[[str], Awaitable[V | None]] | Callable[[str], V | None],
        *,
        ttl: Seconds | Unset | None = UNSET,
        **options: Unpack[LoadOptions],
    ) -> V | None:
        """As `get_or_load`, with a coroutine function as loader."""
        return await adrive(self._get_or_load(key, load, ttl, options), self._acall)

    # -- many keys -----------------------------------------------------------------------------------------------

    def mget(self, keys: Iterable[str]) -> list[V | None]:
        """The values of `keys` in their order, repeats included; None where there is none."""
        return drive(self._mget(keys), self._call)

    async def amget(self, keys: Iterable[str]) -> list[V | None]:
        return await adrive(self._mget(keys), self._acall)

    def mget_or_load(
        self,
        keys: Iterable[str],
        load_many: Callable[[list[str]], Mapping[str, V | None]],
        *,
        ttl: Seconds | Unset | None = UNSET,
        **options: Unpack[LoadOptions],
    ) -> list[V | None]:
        """The values of `keys` as by `mget`, those that are missing, or cannot be read, by `load_many(missing)`.

        As `TieredStore.mget_or_load`, with its options.
        """
        return drive(self._mget_or_load(keys, load_many, ttl, options), self._call)

    async def amget_or_load(
        self,
        keys: Iterable[str],
        load_many: Callable[[list[str]], Awaitable[Mapping[str, V | None]]]
        | Callable[[list[str]], Mapping[str, V | None]],
        *,
        ttl: Seconds | Unset | None = UNSET,
        **options: Unpack[LoadOptions],
    ) -> list[V | None]:
        """As `mget_or_load`, with a coroutine function as loader."""
        return await adrive(self._mget_or_load(keys, load_many, ttl, options), self._acall)

    def mget_array(self, keys: Iterable[str]) -> NDArray[numpy.float32]:
        """The vectors of `keys` as one new array of float32, shape (keys, dimension), a row of NaN where there is none.

        For `Vector`, which stores no NaN; else Unsupported. Needs numpy. With none of the keys there, the dimension
        is 0. Raises InvalidValue where the vectors have different dimensions.
        """
        return drive(self._mget_array(keys), self._call)

    async def amget_array(self, keys: Iterable[str]) -> NDArray[numpy.float32]:
        return await adrive(self._mget_array(keys), self._acall)

    def mset(
        self, key_value_pairs: Iterable[tuple[str, V]] | Mapping[str, V], *, ttl: Seconds | Unset | None = UNSET
    ) -> None:
        """Store every pair; of repeated keys the last wins."""
        drive(self._mset(key_value_pairs, ttl), self._call)

    async def amset(
        self, key_value_pairs: Iterable[tuple[str, V]] | Mapping[str, V], *, ttl: Seconds | Unset | None = UNSET
    ) -> None:
        await adrive(self._mset(key_value_pairs, ttl), self._acall)

    def mdelete(self, keys: Iterable[str]) -> None:
        """Delete `keys`."""
        drive(self._mdelete(keys), self._call)

    async def amdelete(self, keys: Iterable[str]) -> None:
        await adrive(self._mdelete(keys), self._acall)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """The keys of the store below that begin with `prefix`, as it lists them."""
        yield from self._store.yield_keys(prefix=prefix)

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        async for key in self._store.ayield_keys(prefix=prefix):
            yield key

    # -- each operation, once ------------------------------------------------------------------------------------

    def _get(self, key: str) -> Steps[V | None]:
        [value] = yield from self._mget([check_key(key)])
        return value

    def _mget(self, keys: Iterable[str]) -> Steps[list[V | None]]:
        names, stored = yield from self._stored(keys)
        heavy = len(stored) >= MANY or sum(len(data) for data in stored if isinstance(data, bytes)) >= LARGE
        values: list[V | None] = yield Serialize(lambda: list(map(self._decoded, names, stored)), heavy)
        return values

    def _mget_array(self, keys: Iterable[str]) -> Steps[NDArray[numpy.float32]]:
        array = getattr(self._serializer, "array", None)
        if array is None:
            raise Unsupported(f"{self._serializer!r} makes no arrays: mget_array is for Vector")
        names, stored = yield from self._stored(keys)
        try:
            whole: NDArray[numpy.float32] = array(stored)
        except CorruptEntry:
            for name, data in zip(names, stored, strict=True):
                self._decoded(name, data)  # the one it is raises, with its key
            raise
        return whole

    def _stored(self, keys: Iterable[str]) -> Steps[tuple[list[str], Sequence[bytes | None]]]:
        names = check_keys(keys)
        stored = (yield "mget", (names,), {}) if names else []
        if len(stored) != len(names):
            raise BackendUnavailable(f"the store answered {len(stored)} values for {len(names)} keys: none can be used")
        return names, stored

    def _set(self, key: str, value: V, ttl: Seconds | Unset | None) -> Steps[None]:
        key = check_key(key)
        yield "mset", ([(key, self._encoded(key, value))],), self._options(ttl)

    def _mset(self, pairs: Iterable[tuple[str, V]] | Mapping[str, V], ttl: Seconds | Unset | None) -> Steps[None]:
        options = self._options(ttl)
        listed = check_listed(pairs)
        encoded: list[tuple[str, bytes]] = yield Serialize(
            lambda: [(key, self._encoded(key, value)) for key, value in listed], len(listed) >= MANY
        )
        if encoded:
            yield "mset", (list(dict(encoded).items()),), options

    def _mdelete(self, keys: Iterable[str]) -> Steps[None]:
        names = check_keys(keys)
        if names:
            yield "mdelete", (names,), {}

    def _get_or_load(
        self, key: str, load: Callable[[str], Any], ttl: Seconds | Unset | None, options: LoadOptions
    ) -> Steps[V | None]:
        def load_one(keys: list[str]) -> Any:
            return load(keys[0])

        def mapped(loaded: Any, keys: list[str]) -> Mapping[str, V | None]:
            return {keys[0]: loaded}

        if not callable(load):
            raise TypeError(f"load must be callable as load(key), not {type(load).__name__}")
        names, more = [check_key(key)], LoadOptions(on_cache_error="raise") | options
        [value] = yield from self._find_or_load("get_or_load", names, load_one, mapped, ttl, more)
        return value

    def _mget_or_load(
        self, keys: Iterable[str], load: Callable[[list[str]], Any], ttl: Seconds | Unset | None, options: LoadOptions
    ) -> Steps[list[V | None]]:
        def mapped(loaded: Any, _: list[str]) -> Mapping[str, V | None]:
            if not isinstance(loaded, Mapping):
                raise InvalidValue(
                    f"load_many(keys) must return a mapping of keys to values, not {type(loaded).__qualname__}"
                )
            return loaded

        if not callable(load):
            raise TypeError(f"load_many must be callable as load_many(keys), not {type(load).__name__}")
        names, more = check_keys(keys), LoadOptions(on_cache_error="load") | options
        return (yield from self._find_or_load("mget_or_load", names, load, mapped, ttl, more))

    def _find_or_load(
        self,
        method: str,
        names: list[str],
        load: Callable[[list[str]], Any],
        mapped: Callable[[Any, list[str]], Mapping[str, V | None]],
        ttl: Seconds | Unset | None,
        more: LoadOptions,
    ) -> Steps[list[V | None]]:
        """What memory has, then the plan that loads the rest: it takes what cannot be decoded for absent, and
        replaces it by compare-and-set on the stamp it saw (R20), so that no write in between is lost.
        """
        stack = self._stack(method)
        if misspelt := more.keys() - LoadOptions.__annotations__:
            raise TypeError(f"{method}() got an unexpected keyword argument {min(misspelt)!r}")
        expiries = stack._expiries(ttl, more.get("stale"), more.get("refresh_ahead"))  # noqa: SLF001

        def admit(loaded: Any, keys: list[str]) -> dict[str, Fresh]:
            check_awaited(loaded, method)
            some = mapped(loaded, keys)
            stored = {key: self._encoded(key, value) for key in keys if (value := some.get(key)) is not None}
            checked = check_loaded(stored, keys, stack._made.max_value)  # noqa: SLF001
            terms = expiries()
            return {key: Fresh(value, *terms) for key, value in checked.items()}

        def usable(data: bytes) -> bool:
            try:
                self._decoded("", data)
            except CorruptEntry:
                return False
            return True

        source = Source(load, admit, usable, unread=check_on_error(more["on_cache_error"]))
        values: list[V | None] = []
        wanted: list[str] = []
        near = [None] * len(names) if BYPASS.get() else stack._hits(names)  # noqa: SLF001
        for name, data in zip(names, near, strict=True):
            try:
                values.append(self._decoded(name, data))
            except CorruptEntry:
                values.append(None)
            if values[-1] is None:
                wanted.append(name)
        if not wanted:
            return values
        keys = list(dict.fromkeys(wanted))
        found = yield lambda caller: stack._find_or_load(keys, source, caller)  # noqa: SLF001
        return [
            self._decoded(name, found.get(name)) if value is None else value
            for name, value in zip(names, values, strict=True)
        ]

    def _stack(self, method: str) -> TieredStore:
        if not isinstance(self._store, Operations):
            raise Unsupported(f"a {type(self._store).__name__} has no {method}: put tiered.wrap(..) around it")
        return cast("TieredStore", self._store)

    # -- values --------------------------------------------------------------------------------------------------

    def _encoded(self, key: str, value: V) -> bytes:
        if value is None:
            raise _about(key, InvalidValue("a typed store keeps no None: delete the key instead"))
        try:
            return encode(self._serializer, value)
        except TieredError as error:
            raise _about(key, error) from error.__cause__

    def _decoded(self, key: str, data: bytes | None) -> V | None:
        if data is None:
            return None
        try:
            value = decode(self._serializer, data)
        except TieredError as error:
            raise _about(key, error) from error.__cause__
        if value is None:
            raise _about(key, CorruptEntry("what is stored says None, which no typed store writes"))
        return value

    def _options(self, ttl: Seconds | Unset | None) -> dict[str, Any]:
        if isinstance(ttl, Unset):
            return {}
        if not isinstance(self._store, Operations):
            raise Unsupported(f"a {type(self._store).__name__} takes no ttl: put tiered.wrap(..) around it")
        return {"ttl": ttl}

    def _call(self, step: Step) -> Any:
        if isinstance(step, Serialize):
            return step.work()
        if callable(step):
            engine = self._stack("")._engine  # noqa: SLF001
            return engine.run(step(engine.caller()))
        method, args, options = step
        return getattr(self._store, method)(*args, **options)

    async def _acall(self, step: Step) -> Any:
        if isinstance(step, Serialize):
            if not step.heavy:
                return step.work()
            import asyncio

            return await asyncio.to_thread(step.work)
        if callable(step):
            engine = self._stack("")._aio()  # noqa: SLF001
            return await engine.run(step(engine.caller()))
        method, args, options = step
        return await getattr(self._store, f"a{method}")(*args, **options)


def _about(key: str, error: TieredError) -> TieredError:
    if error.key is None:
        error.key = key
    return error
