"""The memory of this process as a tier: bounded, with a time to live an entry, read without a lock."""

from __future__ import annotations

import difflib
import functools
import itertools
import time as _time
import weakref
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from math import inf
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar

from ..backend import SCOPE, Capabilities, Found, Op
from ..checks import check_namespace
from ..clock import Clock, micros
from ..effects import drive
from ..entry import INVALID, VALUE, Entry, Packing, beats
from ..errors import ConfigurationError
from ..policies.eviction import BLOCK, Adaptive, Lru
from ._borrowed import Borrowed
from ._shelf import Own, Shelf
from ._slot import Home
from ._space import SLICE, Space, open_space
from .base import BaseBackend

T = TypeVar("T")

P = ParamSpec("P")
A = TypeVar("A")

__all__ = ["Memory", "Space"]

POLICIES = ("adaptive", "lru")
MAX_BYTES = 64 * 2**20

LISTINGS = 4
"""Listings under way that are remembered."""


def _immediate(function: Callable[P, T]) -> Callable[P, Op[T]]:
    """An operation that has nothing to ask: a generator that returns at once when it is run."""

    @functools.wraps(function)
    def operation(*args: P.args, **kwargs: P.kwargs) -> Op[T]:
        yield from ()
        return function(*args, **kwargs)

    return operation


class Memory(BaseBackend):
    """Entries in this process, bounded by bytes and by number.

    `max_bytes` counts keys, values and what keeping them takes, None for no bound; `max_entries` counts entries.
    `policy` chooses what goes when it is full: "adaptive" (tiered.policies.eviction.Adaptive, the best measured) or
    "lru". `cache=` is a mapping of yours, such as a `cachetools.Cache`, which then decides alone what stays: it is
    only touched under this object's lock, and what it holds has the length of the value (`getsizeof=len` works). What
    it raises is logged, and the entry in question is not held.

    It is a backend of its own, also as the last tier (it may evict then too), and the front of a stack by `space`.
    As a backend it remembers the newest 1,024 deletions at most, each for as long as no value needs the room: so
    long a write that is older and comes late is refused, after that nothing tells the key from one never written.

    Thread-safe. A forked child keeps the entries. All stores that share one object should share one clock: the
    newest one's decides when expired entries are removed (each judges for itself what it serves).
    """

    scheme = "memory"

    def __init__(
        self,
        max_bytes: int | None = MAX_BYTES,
        max_entries: int | None = None,
        policy: Literal["adaptive", "lru"] = "adaptive",
        cache: MutableMapping[Any, Any] | None = None,
        *,
        namespace: str | None = None,
    ) -> None:
        _check_bound("max_bytes", max_bytes)
        _check_bound("max_entries", max_entries)
        if policy not in POLICIES:
            close = difflib.get_close_matches(str(policy), POLICIES, n=1)
            hint = f"did you mean {close[0]!r}? It is" if close else "it is"
            raise ConfigurationError(f"unknown policy {policy!r}: {hint} one of {', '.join(POLICIES)}")
        if cache is not None and not isinstance(cache, MutableMapping):
            raise ConfigurationError(f"cache= takes a mutable mapping, not {type(cache).__name__}")
        if cache is not None and not (max_bytes in (None, MAX_BYTES) and max_entries is None and policy == POLICIES[0]):
            raise ConfigurationError(
                "a mapping given as cache= decides alone what stays: max_bytes, max_entries and policy are for memory "
                "without one"
            )
        self.namespace = None if namespace is None else check_namespace(namespace)
        self._touch = None
        self._listings: OrderedDict[tuple[str, str], list[str]] = OrderedDict()  # by namespace and prefix
        self._idle: set[tuple[str, str]] = set()  # listings that were there at the last purge and not used since
        self._shelf: Shelf
        if cache is not None:
            self._shelf = Borrowed(cache)
            self._bounds = f"cache={type(cache).__name__}"
        else:
            count, size = (inf if bound is None else bound for bound in (max_entries, max_bytes))
            chosen: Adaptive | Lru = Adaptive(count, size / BLOCK) if policy == "adaptive" else Lru()
            self._touch = chosen.on_read
            self._shelf = Own(chosen, size, count)
            self._bounds = f"max_bytes={max_bytes}, max_entries={max_entries}, policy={policy!r}"
        limit = 512 * 2**20 if max_bytes is None or cache is not None else max_bytes
        self.capabilities = Capabilities(shared=False, forgets=True, max_value=limit)

    def space(
        self,
        namespace: str,
        time: Callable[[], float],
        sliding: float | None = None,
        *,
        owner: Hashable | None = None,
        monotonic: Callable[[], float] | None = None,
    ) -> Space:
        """A handle on one namespace, for a stack: `time()` is wall seconds, `sliding` the idle seconds allowed.

        Where `monotonic()` shows that wall time stepped back, the copies of all handles with an `owner` are let go of.
        Entries are shared by the handles of equal `owner` only: what they are copies of, and by which rules. None is
        this object as a backend. Raises ConfigurationError when another handle in use slides by another time.
        """
        if getattr(time, "__func__", None) is Clock.time:
            time = _time.time  # what it calls: a third of a hit less
        if getattr(monotonic, "__func__", None) is Clock.monotonic:
            monotonic = _time.monotonic
        shelf = self._shelf
        with shelf.lock:
            shelf.watch(time, monotonic or time)
            home = shelf.home(namespace, owner)
            if home.sliding != sliding:
                if any(user() is not None for user in home.users):
                    raise ConfigurationError(
                        "two stacks share a namespace of one Memory, with different sliding times to live: "
                        "give them the same, or a Memory each"
                    )
                for slot in list(home.slots.values()):  # they were kept by another rule
                    shelf.remove(slot)
                home.sliding = sliding
            space = open_space(shelf, home, time, self._touch)
            home.users = [user for user in home.users if user() is not None] + [weakref.ref(space)]
        return space

    @_immediate
    def fetch(self, space: str, keys: Sequence[str]) -> list[Found]:
        found: list[Found] = []
        for home, some in self._slices(space, keys):
            self._shelf.read(home, len(some))
            for key in some:
                slot = self._shelf.find(home, key)
                found.append(None if slot is None else slot.entry())
        return found

    @_immediate
    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Mapping[str, bytes]:  # noqa: ARG002
        """As in `Backend`; R12 holds here too: while an operation on the key is in flight, nothing older gets in."""
        refused: dict[str, bytes] = {}
        for home, some in self._slices(space, items):
            for key, entry in some:
                newer = self._newer(home, key, entry.stamp)
                if newer is not None:
                    refused[key] = newer
                elif (slot := home.slots.get(key)) is None or beats(entry, slot.entry()):
                    self._keep(home, key, entry)
        return refused

    @_immediate
    def swap(self, space: str, items: Sequence[tuple[str, Entry, bytes | None]], packing: Packing | None) -> set[str]:  # noqa: ARG002
        refused: set[str] = set()
        for home, some in self._slices(space, items):
            for key, entry, seen in some:
                slot = home.slots.get(key)
                held = None if slot is None else slot.stamp
                if held != seen or self._newer(home, key, entry.stamp) is not None:
                    refused.add(key)
                else:
                    self._keep(home, key, entry)
        return refused

    @_immediate
    def fill(self, space: str, items: Sequence[tuple[str, Entry, bytes]], packing: Packing | None) -> None:  # noqa: ARG002
        for home, some in self._slices(space, items):
            for key, entry, _ in some:
                if (slot := home.slots.get(key)) is None or beats(entry, slot.entry()):
                    self._keep(home, key, entry)

    @_immediate
    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> None:
        """As in `Backend`: there are no leases, so a mark is left, into absence too where there is room (R8)."""
        for home, some in self._slices(space, marks):
            for key, stamp in some:
                self._keep(home, key, Entry(INVALID, stamp, None, b""))

    @_immediate
    def retract(self, space: str, marks: Sequence[tuple[str, bytes]]) -> None:
        for home, some in self._slices(space, marks):
            for key, stamp in some:
                slot = home.marks.get(key)
                if slot is not None and slot.stamp == stamp and slot.entry().kind == INVALID:
                    self._shelf.remove(slot)

    @_immediate
    def spaces(self, space: str) -> list[str]:
        with self._shelf.lock:
            homes = list(self._shelf.homes.values())
        return sorted({home.name for home in homes if home.owner is None and home.name.startswith(space + SCOPE)})

    @_immediate
    def scan(self, space: str, prefix: str, after: str | None, limit: int, now_ms: int) -> list[str]:
        """As in `Backend`, sorted.

        The keys are collected and sorted when a listing begins (`after` is None), and kept until it ends: other pages
        after a key go on in the newest listing of that prefix. Of keys that come meanwhile some may be missing.
        """
        keys = self._listed(space, prefix, begin=after is None)
        at = 0 if after is None else bisect_right(keys, after)
        page: list[str] = []
        while at < len(keys) and len(page) < limit:
            with self._shelf.lock:
                slots = self._shelf.home(space).slots
                for key in keys[at : at + SLICE]:
                    slot = slots.get(key)
                    if slot is not None and slot.entry().live(now_ms):
                        page.append(key)
            at += SLICE
        if len(page) < limit:
            with self._shelf.lock:
                if self._listings.get((space, prefix)) is keys:
                    del self._listings[space, prefix]
        return page[:limit]

    def _listed(self, space: str, prefix: str, *, begin: bool) -> list[str]:
        """The keys of the listing, sorted."""
        name = space, prefix
        with self._shelf.lock:
            keys = None if begin else self._listings.get(name)
            if keys is not None:
                self._listings.move_to_end(name)
                self._idle.discard(name)
                return keys
            held = list(self._shelf.home(space).slots)
        keys = sorted(key for key in held if key.startswith(prefix))
        with self._shelf.lock:
            self._listings[name] = keys
            self._listings.move_to_end(name)
            self._idle.discard(name)
            if len(self._listings) > LISTINGS:
                self._listings.popitem(last=False)
        return keys

    @_immediate
    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> int:  # noqa: ARG002 (memory drops, it keeps no marks of what expired)
        """Drop up to `limit` expired entries, of every namespace, and marks of this one older than `grace_ms`."""
        shelf = self._shelf
        with shelf.lock:
            for name in self._idle:  # a listing that nobody went on with
                self._listings.pop(name, None)
            self._idle = set(self._listings)
            home = shelf.home(space)
            gone = shelf.reap(now_ms / 1000, limit)
            old = (slot for slot in home.marks.values() if micros(slot.stamp) < (now_ms - grace_ms) * 1000)
            for slot in list(itertools.islice(old, max(0, limit - gone))):
                shelf.remove(slot)
                gone += 1
        return gone

    @_immediate
    def ping(self) -> None:
        """It always answers."""

    def run(self, op: Op[T], timeout: float) -> T:  # noqa: ARG002
        return drive(op, _unasked)

    async def arun(self, op: Op[T], timeout: float) -> T:  # noqa: ARG002
        return drive(op, _unasked)

    def close(self) -> None:
        """Nothing to close: it can be used as before, by others that hold it too."""

    async def aclose(self) -> None:
        """The same."""

    def _slices(self, space: str, items: Sequence[A]) -> Iterator[tuple[Home, Sequence[A]]]:
        """The items in slices, each to be worked on before the next: the lock is held meanwhile."""
        shelf = self._shelf
        for start in range(0, len(items), SLICE):
            with shelf.lock:
                yield shelf.home(space), items[start : start + SLICE]

    def _newer(self, home: Home, key: str, stamp: bytes) -> bytes | None:
        """The stamp that refuses `stamp`: that of the entry, or of what is in flight (R12)."""
        slot = home.slots.get(key)
        if slot is not None and slot.stamp > stamp:
            return slot.stamp
        return None if home.admits(key, stamp) else home.flights[key].high

    def _keep(self, home: Home, key: str, entry: Entry) -> None:
        plain = entry.kind == VALUE and entry.soft is None
        deadline = inf if entry.expires is None else entry.expires / 1000
        self._shelf.put(home, key, entry.value, entry.stamp, deadline, record=None if plain else entry)

    # -- counters --------------------------------------------------------------------------------------------------

    @property
    def hits(self) -> int:
        """Reads answered since it was made, of this object: of all stacks that share it. Walks over all entries."""
        with self._shelf.lock:
            return self._shelf.hits

    @property
    def evictions(self) -> int:
        """Entries that went to make room, of this object. With `cache=` also what the mapping did not take."""
        with self._shelf.lock:
            return self._shelf.evictions

    @property
    def expired(self) -> int:
        """Entries removed because their time was over, of this object."""
        return self._shelf.expired

    @property
    def entries(self) -> int:
        """Entries held, expired ones that are not yet removed included."""
        with self._shelf.lock:
            return self._shelf.entries

    @property
    def bytes(self) -> int:
        """Memory taken by entries and by keeping them."""
        with self._shelf.lock:
            return self._shelf.nbytes

    # -- object ----------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"Memory({self._bounds})"


def _unasked(request: Any) -> NoReturn:
    raise AssertionError(f"a memory operation asked for {request!r}")


def _check_bound(name: str, bound: int | None) -> None:
    if bound is not None and (not isinstance(bound, int) or isinstance(bound, bool) or bound < 1):
        raise ConfigurationError(f"{name} is a whole number of at least 1, or None for no bound, not {bound!r}")
