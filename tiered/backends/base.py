"""What all backends share: a backend used on its own is a plain `BaseStore` too."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

from ..backend import Capabilities, Found, Op, Page, all_live
from ..base import BaseStore, Handle
from ..checks import check_keys, check_pairs, check_prefix
from ..clock import SYSTEM
from ..entry import DELETED, VALUE, Entry, Packing
from ..errors import BackendUnavailable, TieredError
from ..plans.scan import PAGE
from ..plans.write import TRIES

T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds a request of a backend used on its own may take."""


UPKEEP = 1_000
"""Writes of a backend used on its own between two purges."""

GRACE = 86_400_000
"""Milliseconds for which a backend used on its own remembers a deletion."""


class Values(NamedTuple):
    """What was found for some keys, without an entry around each."""

    values: list[bytes | None]
    """In the order of the keys; None where there is no live value."""
    newest: bytes
    """The newest stamp met, b"" for none."""
    errors: list[tuple[int, TieredError]]
    """The places of what cannot be served, and why."""

    @staticmethod
    def joined(parts: Sequence[Values]) -> Values:
        """Those of several chunks of keys as one."""
        if len(parts) == 1:
            return parts[0]
        whole = Values([], max((part.newest for part in parts), default=b""), [])
        for part in parts:
            whole.errors.extend((len(whole.values) + at, error) for at, error in part.errors)
            whole.values.extend(part.values)
        return whole


class BaseBackend(Handle, BaseStore[str, bytes]):
    """A store that speaks to one system; `tiered.backend.Backend` says what each operation means."""

    scheme: ClassVar[str]
    capabilities: Capabilities
    namespace: str | None = None
    _written = 0

    @property
    def identity(self) -> Hashable:
        return self

    @abstractmethod
    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]: ...
    @abstractmethod
    def put(
        self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None
    ) -> Op[Mapping[str, bytes]]: ...
    @abstractmethod
    def swap(
        self, space: str, items: Sequence[tuple[str, Entry, bytes | None]], packing: Packing | None
    ) -> Op[set[str]]: ...
    @abstractmethod
    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]: ...
    @abstractmethod
    def retract(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]: ...
    @abstractmethod
    def spaces(self, space: str) -> Op[list[str]]: ...
    @abstractmethod
    def scan(self, space: str, prefix: str, after: Any, limit: int, now_ms: int) -> Op[list[str]]: ...
    @abstractmethod
    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> Op[int]: ...
    @abstractmethod
    def ping(self) -> Op[None]: ...
    @abstractmethod
    def run(self, op: Op[T], timeout: float) -> T: ...
    @abstractmethod
    async def arun(self, op: Op[T], timeout: float) -> T: ...
    @abstractmethod
    def close(self) -> None: ...
    @abstractmethod
    async def aclose(self) -> None: ...

    def lease(self, space: str, keys: Sequence[str], now_ms: int) -> Op[list[Found]]:  # noqa: ARG002
        """A system that never forgets a stamp gives no leases."""
        return self.fetch(space, keys)

    def offer(
        self,
        space: str,
        items: Sequence[tuple[str, Entry]],
        packing: Packing | None,
        fresh: Callable[[], bool],  # noqa: ARG002
    ) -> Op[Mapping[str, bytes]]:
        """Nor is it ever too late to put there: absence is what the key is in."""
        return self.put(space, items, packing)

    def fill(self, space: str, items: Sequence[tuple[str, Entry, bytes]], packing: Packing | None) -> Op[None]:
        """A system that never forgets a stamp needs no lease: the stamp alone refuses what is late."""
        yield from self.put(space, [(key, entry) for key, entry, _ in items], packing)

    def overwrite(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[None]:
        yield from self.put(space, items, packing)

    def add(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[None]:
        yield from self.fill(space, [(key, entry, b"") for key, entry in items], packing)

    def values(self, space: str, keys: Sequence[str], now_ms: int) -> Op[Values]:
        """The live values alone; for backends that can answer so faster than by `fetch`."""
        answers = yield from self.fetch(space, keys)
        if all_live(answers, now_ms):
            entries = cast("list[Any]", answers)
            return Values(list(map(itemgetter(3), entries)), max(map(itemgetter(1), entries)), [])
        entries = [entry if isinstance(entry, Entry) else None for entry in answers]
        return Values(
            [entry.value if entry is not None and entry.live(now_ms) else None for entry in entries],
            max((entry.stamp for entry in entries if entry is not None), default=b""),
            [(at, error) for at, error in enumerate(answers) if isinstance(error, TieredError)],
        )

    # -- the plain BaseStore face ------------------------------------------------------------------------------

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of `keys` in their order, None where there is none or it has expired."""
        return self.run(self._read(keys), TIMEOUT)

    async def amget(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self.arun(self._read(keys), TIMEOUT)

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]] | Mapping[str, bytes]) -> None:
        """Store every pair, without expiry."""
        self.run(self._store(self._valued(key_value_pairs)), TIMEOUT)

    async def amset(self, key_value_pairs: Sequence[tuple[str, bytes]] | Mapping[str, bytes]) -> None:
        await self.arun(self._store(self._valued(key_value_pairs)), TIMEOUT)

    def mdelete(self, keys: Sequence[str]) -> None:
        """Delete `keys`."""
        self.run(self._store(self._deleted(keys)), TIMEOUT)

    async def amdelete(self, keys: Sequence[str]) -> None:
        await self.arun(self._store(self._deleted(keys)), TIMEOUT)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """The live keys that begin with `prefix`, each once."""
        page = Page((), None)
        while True:
            page = self.run(self._page(prefix, page.mark), TIMEOUT)
            yield from page
            if page.mark is None:
                return

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        page = Page((), None)
        while True:
            page = await self.arun(self._page(prefix, page.mark), TIMEOUT)
            for key in page:
                yield key
            if page.mark is None:
                return

    def _page(self, prefix: str | None, after: Any) -> Op[Page]:
        now = int(SYSTEM.time() * 1000)
        return Page.of((yield from self.scan(self.namespace or "", check_prefix(prefix), after, PAGE, now)), PAGE)

    def _read(self, keys: Sequence[str]) -> Op[list[bytes | None]]:
        names = check_keys(keys, self.capabilities.max_key)
        if not names:
            return []
        found = yield from self.values(self.namespace or "", names, int(SYSTEM.time() * 1000))
        for at, error in found.errors:
            raise error.at(self.scheme, names[at])
        SYSTEM.observe(found.newest)
        return found.values

    def _valued(self, pairs: Any) -> dict[str, tuple[int, bytes]]:
        checked = check_pairs(pairs, self.capabilities.max_key, self.capabilities.max_value)
        return {key: (VALUE, value) for key, value in checked.items()}

    def _deleted(self, keys: Sequence[str]) -> dict[str, tuple[int, bytes]]:
        return dict.fromkeys(check_keys(keys, self.capabilities.max_key), (DELETED, b""))

    def _store(self, states: dict[str, tuple[int, bytes]]) -> Op[None]:
        self._written += len(states)
        if self._written >= UPKEEP:  # as a stack does it, for nothing else would ever remove what expired here
            self._written = 0
            now = int(SYSTEM.time() * 1000)
            yield from self.purge(self.namespace or "", now, GRACE, 2 * UPKEEP + len(states), DELETED)
        for _ in range(TRIES):
            if not states:
                return
            stamp = SYSTEM.draw()
            items = [(key, Entry(kind, stamp, None, value)) for key, (kind, value) in states.items()]
            refused = yield from self.put(self.namespace or "", items, None)
            for newer in refused.values():
                SYSTEM.observe(newer)
            states = {key: states[key] for key in refused}
        raise BackendUnavailable(f"{len(states)} keys were written by others {TRIES} times over: try again")
