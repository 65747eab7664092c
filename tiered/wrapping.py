"""`wrap`: memory in front of any store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from .backends.base import BaseBackend
from .backends.foreign import Foreign
from .backends.memory import MAX_BYTES, Memory
from .base import BaseStore
from .clock import Clock
from .errors import ConfigurationError
from .policies.ttl import TTL, Seconds
from .store import TieredStore
from .tier import Tier

if TYPE_CHECKING:
    from .serializers import Serializer
    from .typed import TypedStore

V = TypeVar("V")


@overload
def wrap(
    store: BaseStore[str, bytes],
    *,
    namespace: str | None = ...,
    max_bytes: int | None = ...,
    ttl: TTL | Seconds | None = ...,
    clock: Clock | None = ...,
) -> TieredStore: ...
@overload
def wrap(
    store: BaseBackend | TieredStore,
    *,
    serializer: Serializer[V],
    namespace: str | None = ...,
    max_bytes: int | None = ...,
    ttl: TTL | Seconds | None = ...,
    clock: Clock | None = ...,
) -> TypedStore[V]: ...
@overload
def wrap(
    store: BaseStore[str, V],
    *,
    serializer: Serializer[V],
    namespace: str | None = ...,
    max_bytes: int | None = ...,
    ttl: TTL | Seconds | None = ...,
    clock: Clock | None = ...,
) -> TypedStore[V]: ...
def wrap(
    store: Any,
    *,
    serializer: Serializer[Any] | None = None,
    namespace: str | None = None,
    max_bytes: int | None = MAX_BYTES,
    ttl: TTL | Seconds | None = 60,
    clock: Clock | None = None,
) -> TieredStore | TypedStore[Any]:
    """Memory in front of `store`: `wrap(LocalFileStore(".."))` is a `TieredStore` over memory and that store.

    Any `BaseStore[str, bytes]` will do; what can be promised over one that is not ours is said by `tiered.Foreign`.
    Its values stay as they are, and what it holds already is served. `max_bytes` bounds the memory, None for no
    bound; `ttl` is how long a value is served from it (seconds, timedelta or `TTL`; None for ever): so long a change
    that somebody else makes in `store` may go unseen. `namespace` is put before the keys, see `Foreign`; `clock` is
    for tests, as in `TieredStore`.

    A store of other values takes a `serializer` (tiered.serializers): memory keeps their bytes, `store` the values
    themselves, and the result is a `TypedStore` of them. Over a store of ours that holds bytes the serializer's
    bytes are what is stored there.

    Over another `TieredStore` it is `ttl` alone that bounds how long a value is served: the expiry that the inner stack
    gave it is not seen here.

    The result is closed like any other stack (a `TypedStore` by its `.store`); `store` is closed with it only if it is
    a backend of ours (`SQL`, ..).
    Raises ConfigurationError; does no I/O.
    """
    if isinstance(store, Memory):
        raise ConfigurationError("wrap puts memory in front of a store, and this is memory: TieredStore([..]) takes it")
    ours = isinstance(store, BaseBackend | TieredStore)  # of bytes, whatever goes into them
    last = store if isinstance(store, BaseBackend) else Foreign(store, serializer=None if ours else serializer)
    stack = TieredStore([Tier(Memory(max_bytes), ttl=ttl), last], namespace=namespace, clock=clock)
    return stack if serializer is None else stack.typed(serializer)
