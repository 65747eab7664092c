"""Any `BaseStore` as a tier: LangChain's, or one of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from ..backend import SCOPE, Capabilities, Found, Op
from ..checks import check_namespace
from ..effects import adrive, drive
from ..entry import Entry, Packing
from ..errors import BatchError, ConfigurationError, Indeterminate, TieredError
from ._calls import Calls
from ._files import check_paths
from ._listings import Listings, in_order
from ._peer import METHODS, Peer
from ._plain import Plain
from ._records import Records
from .base import BaseBackend

if TYPE_CHECKING:
    from ..serializers import Serializer

T = TypeVar("T")

I = TypeVar("I", bound=tuple[Any, ...])  # noqa: E741

LAYOUTS = ("plain", "record")

CHUNK = 500
"""Keys of one call."""


class Foreign(BaseBackend):
    """A tier over `store`, anything with mget, mset, mdelete and yield_keys: `Foreign(InMemoryByteStore())`.

    A bare store in a list of tiers becomes one by itself: `layout="plain"` in last place (values as they are, without
    stamps and TTLs), `layout="record"` above (stamps and expiries are kept in what is stored). `serializer` (`dumps`
    and `loads`, see tiered.serializers) is for a store of other values than bytes, plain only. Keys of the namespace
    "" are stored as they are, so existing data is served; others as `t1:<bytes of namespace>:<namespace>:<key>`.

    What it can promise, the store being what it is:

    - Stamps are compared, and absence is checked, under a lock of this process for each key, the same for all
      backends over one store *object*. Other processes and other objects over the same data are not seen:
      two that write one key may lose a write, and keep the older one above.
    - In last place a write that timed out is `Indeterminate`, is not tried again, and may land after a later one that
      was acknowledged, where the store lets go of a call that is not over (E11). Within this process the keys of a
      call in a thread stay locked until it ends: reads and writes of them are `BackendUnavailable` meanwhile.
      Deletions leave no trace: what another stack deletes during a `get_or_load` is stored again.
    - Above, it must keep what it is given: a store that drops entries by itself may bring back an old value.
    - A listing asks for all names, of all namespaces, and holds those that match (a store's own prefixes mean
      something else in each): it shows the keys as they were when it began. In the record layout it reads the values
      too, and so does now and then a purge.

    How it is called: methods of an `a..` name that the store defines itself are awaited, everything else runs in up to
    16 threads of its own, with the caller's context; so does everything for blocking callers (about 30 us a call),
    except LangChain's in-memory stores and stores of tiered, which are called where the caller is. A call that
    takes longer than the tier's time-out is given up; in a thread it goes on, and after 16 of those further calls
    fail at once. What the store raises is a `BackendUnavailable` of a read and an `Indeterminate` of a write, with
    the cause linked, and counts as an outage only where it is called so (ConnectionError, TimeoutError, ..); an
    answer of the wrong length or kind is `BackendUnavailable` too. A face that the store does not implement is
    `FaceUnavailable`. The store is never closed here.

    A stack of tiered as the store: a value is served by the outer stack for as long as that says, whatever expiry the
    inner one has given it (values come without theirs), so give the outer memory a `ttl` to bound that.

    Batches go in chunks of 500 keys, each with the whole time-out; a batch whose later chunk fails is a `BatchError`.

    LocalFileStore: keys are relative paths of letters, digits, `_.-` and `/`, and no namespace; others are
    `InvalidKey` before anything is written.
    """

    scheme: ClassVar[str] = "foreign"

    def __init__(
        self,
        store: Any,
        layout: Literal["plain", "record"] = "plain",
        *,
        namespace: str | None = None,
        serializer: Serializer[Any] | None = None,
    ) -> None:
        if isinstance(store, BaseBackend):
            raise ConfigurationError(f"{type(store).__name__} is a tier itself: give it to the stack as it is")
        if isinstance(store, type) or not all(callable(getattr(store, name, None)) for name in METHODS):
            what = store.__name__ if isinstance(store, type) else type(store).__name__
            raise ConfigurationError(f"{what} is not a store: an object with {', '.join(METHODS)} is due")
        if layout not in LAYOUTS:
            raise ConfigurationError(f'layout={layout!r:.40}: give "plain" or "record"')
        if serializer is not None and layout != "plain":
            raise ConfigurationError("serializer= is for the plain layout: records are bytes")
        if serializer is not None and not all(callable(getattr(serializer, name, None)) for name in ("dumps", "loads")):
            raise ConfigurationError(f"serializer={type(serializer).__name__}: an object with dumps and loads is due")
        self.namespace = None if namespace is None else check_namespace(namespace)
        self.capabilities = Capabilities(
            shared=False, forgets=False, stamps=layout == "record", expiry=layout == "record"
        )
        self._layout = layout
        self._peer = Peer.of(store)
        self._calls = Calls(self._peer)
        torn = not self._peer.in_memory
        self._kept = (
            Records(self._calls, torn=torn) if layout == "record" else Plain(self._calls, serializer, torn=torn)
        )
        self._listings = Listings()

    def __repr__(self) -> str:
        named = "" if self.namespace is None else f", namespace={self.namespace!r}"
        return f"Foreign({self._peer.name}, layout={self._layout!r}{named})"

    @property
    def identity(self) -> Hashable:
        """Equal for two over one object."""
        return self._peer

    # -- operations --------------------------------------------------------------------------------------------

    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]:
        """What is stored for each of `keys`, in their order, repeats included."""
        distinct = list(dict.fromkeys(keys))
        if not self._checked(space, distinct):
            return []
        found: list[Found] = []
        for chunk in self._chunks(distinct):
            found += yield from self._kept.fetch(space, chunk)
        if len(distinct) == len(keys):
            return found
        by_key = dict(zip(distinct, found, strict=True))
        return [by_key[key] for key in keys]

    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[Mapping[str, bytes]]:
        if not self._checked(space, [item[0] for item in items]):
            return {}
        yield from self._check(items)
        refused: dict[str, bytes] = {}
        yield from self._in_chunks(items, lambda chunk: self._kept.put(space, chunk, packing), refused.update)
        return refused

    def swap(
        self, space: str, items: Sequence[tuple[str, Entry, bytes | None]], packing: Packing | None
    ) -> Op[set[str]]:
        refused: set[str] = set()
        if self._checked(space, [item[0] for item in items]):
            yield from self._check(items)
            yield from self._in_chunks(items, lambda chunk: self._kept.swap(space, chunk, packing), refused.update)
        return refused

    def fill(self, space: str, items: Sequence[tuple[str, Entry, bytes]], packing: Packing | None) -> Op[None]:
        if self._checked(space, [item[0] for item in items]):
            yield from self._in_chunks(items, lambda chunk: self._kept.fill(space, chunk, packing))

    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        if self._checked(space, [mark[0] for mark in marks]):
            yield from self._in_chunks(marks, lambda chunk: self._kept.void(space, chunk))

    def retract(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        if self._checked(space, [mark[0] for mark in marks]):
            yield from self._in_chunks(marks, lambda chunk: self._kept.retract(space, chunk))

    def _check(self, items: Sequence[tuple[Any, ...]]) -> Op[None]:
        """Raises what the values of a later chunk would raise, before the first is written."""
        plain = self._kept
        if isinstance(plain, Plain) and len(self._chunks(items)) > 1:
            yield from self._calls.compute(lambda: plain.check(items), len(items))

    def _chunks(self, items: Sequence[T]) -> list[Sequence[T]]:
        """`items` by the call: each has the whole time-out. Stores of ours cut their batches themselves."""
        size = len(items) if self._peer.inline else CHUNK
        return [items[at : at + size] for at in range(0, len(items), size or 1)]

    def _in_chunks(
        self,
        items: Sequence[I],
        write: Callable[[Sequence[I]], Op[Any]],
        learn: Callable[[Any], object] = bool,
    ) -> Op[None]:
        """`write` chunk after chunk up to the first that fails. Raises BatchError when others were to follow it."""
        chunks = self._chunks(items)
        for at, chunk in enumerate(chunks):
            try:
                learn((yield from write(chunk)))
            except TieredError as error:
                unknown = isinstance(error, Indeterminate)
                if len(chunks) == 1 or (at == 0 and not (unknown or isinstance(error, BatchError))):
                    raise
                here = [item[0] for item in chunk]
                parts = (error.written, error.not_written, error.unknown) if isinstance(error, BatchError) else None
                written, not_written, lost = parts or (([], [], here) if unknown else ([], here, []))
                parted = BatchError(
                    error.message,
                    written=[*(item[0] for done in chunks[:at] for item in done), *written],
                    not_written=[*not_written, *(item[0] for later in chunks[at + 1 :] for item in later)],
                    unknown=lost,
                )
                parted.answered = error.answered
                raise parted from error

    def spaces(self, space: str) -> Op[list[str]]:
        """The namespaces scoped under `space`. Asks for all names."""
        found = yield from self._calls.listed(lambda place: place[0] if place[0].startswith(space + SCOPE) else None)
        return sorted(found)

    def scan(self, space: str, prefix: str, after: str | None, limit: int, now_ms: int) -> Op[list[str]]:
        """As in `Backend`, sorted, as of when the listing began (`after` is None)."""

        def choose(place: tuple[str, str]) -> str | None:
            return place[1] if place[0] == space and place[1].startswith(prefix) else None

        def collect() -> Op[list[str]]:
            found = yield from self._calls.listed(choose)
            return (yield from self._calls.compute(lambda: in_order(found), len(found)))

        keys = yield from self._listings.keys(space, prefix, after, collect)
        page: list[str] = []
        for at in range(0, len(keys), limit):
            page += yield from self._kept.live(space, keys[at : at + limit], now_ms)
            if len(page) >= limit:
                return page[:limit]
        self._listings.end(space, prefix)
        return page

    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> Op[int]:
        """As in `Backend`; plain values never expire."""
        self._listings.tidy()
        return (yield from self._kept.purge(space, now_ms, grace_ms, limit, into))

    def ping(self) -> Op[None]:
        """Ask for a key; whether it is there does not matter."""
        yield from self._calls.mget(["ping"], len)

    def _checked(self, space: str, keys: Sequence[str]) -> bool:
        """Whether there are any. Raises InvalidKey for what a LocalFileStore would refuse half-way."""
        if self._peer.files and keys:
            check_paths(space, keys)
        return bool(keys)

    # -- executors ---------------------------------------------------------------------------------------------

    def run(self, op: Op[T], timeout: float) -> T:
        """Run an operation, waiting up to `timeout` seconds a call."""
        return drive(op, lambda request: self._peer.perform(request, timeout))

    async def arun(self, op: Op[T], timeout: float) -> T:
        return await adrive(op, lambda request: self._peer.aperform(request, timeout))

    def close(self) -> None:
        """Let idle threads go. The store stays as it is, and this can be used again."""
        self._peer.close()

    async def aclose(self) -> None:
        self.close()
