"""What the plans of one stack share: its tiers, and how they are asked."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..clock import Clock
from ..effects import Ask, Parallel, Plan, Retract, Void
from ..entry import DELETED, VALUE, Entry
from ..errors import TieredError
from ..flight import Flights
from ..floors import Floors
from ..level import Counters, Level, Skipped
from ..overlap import Overlaps
from ..policies.retry import Retry
from ..policies.ttl import TTL

log = logging.getLogger("tiered")

Copy = tuple[str, bytes, bytes, float, float]
"""Key, value, stamp, deadline and sliding cap; the last two in seconds since the epoch."""

NEVER = float("inf")


class Front(Protocol):
    """This process's memory tier, as far as plans touch it. None of it blocks (R12)."""

    def enter(self, keys: Iterable[str]) -> None:
        """An operation on these keys begins: from here on remember the newest stamp of each."""

    def leave(self, keys: Iterable[str]) -> None: ...

    def install_many(self, items: Iterable[Copy]) -> None:
        """Keep each copy, unless something newer was put, filled or dropped for meanwhile."""

    def drop_many(self, stamps: Iterable[tuple[str, bytes]]) -> None:
        """Forget what is not newer than the stamp, and let nothing older in."""

    def sweep(self, prefix: str, stamp: bytes) -> None:
        """`drop_many` for every key that begins with `prefix` and is held or in flight."""

    def spaces(self) -> list[str]:
        """The namespaces scoped under this one of which copies are held."""


class NoFront:
    """The front of a stack that has no memory tier above its authority."""

    def enter(self, keys: Iterable[str]) -> None: ...
    def leave(self, keys: Iterable[str]) -> None: ...
    def install_many(self, items: Iterable[Copy]) -> None: ...
    def drop_many(self, stamps: Iterable[tuple[str, bytes]]) -> None: ...
    def sweep(self, prefix: str, stamp: bytes) -> None: ...
    def spaces(self) -> list[str]:
        return []


SPACES = 65_536
"""Namespaces remembered, of those written to, for their expired rows to be purged."""


@dataclass(slots=True)
class Pace:
    """How much the next write purges, where, and when: expired rows never gain on the writes that made them."""

    written: int = 0
    due: float = 0.0
    spaces: dict[str, None] = field(default_factory=dict)  # written to; the one purged longest ago comes first
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def limit(self, written: int, now: float) -> int:
        """Rows to purge at monotonic time `now`, after `written` more keys were written; 0 for not yet."""
        self.written += written
        if now < self.due and self.written < 1_000:
            return 0
        limit = min(5_000, 64 + 2 * self.written)
        self.written, self.due = 0, now + 1.0
        return limit

    def turn(self, space: str) -> list[str]:
        """The namespaces to purge now: this one, and of all that were written to the one that has waited longest."""
        with self.lock:
            longest = next(iter(self.spaces), space)
            for name in (longest, space):  # to the end of the queue
                self.spaces.pop(name, None)
                self.spaces[name] = None
        return list(dict.fromkeys((space, longest)))

    def note(self, space: str) -> None:
        """This namespace is written to."""
        if space not in self.spaces and len(self.spaces) < SPACES:
            with self.lock:
                self.spaces[space] = None

    def forked(self) -> None:
        self.lock = threading.Lock()


@dataclass(slots=True)
class Stack:
    """One stack seen through one namespace. All but `space` and `front` is shared by its namespaces."""

    space: str
    clock: Clock
    front: Front
    front_ttl: TTL | None
    uppers: tuple[Level, ...]
    authority: Level
    tombstone_ttl: float
    strict: bool = False  # WriteThrough(strict=True)
    around: bool = False  # WriteAround()
    immutable: bool = False
    front_count: Counters = field(default_factory=Counters)
    flights: Flights = field(default_factory=Flights)
    overlaps: Overlaps = field(default_factory=Overlaps)
    floors: Floors = field(default_factory=Floors)
    pace: Pace = field(default_factory=Pace)
    retry: Retry = field(default_factory=Retry)
    chance: Callable[[], float] = random.random

    @property
    def stamped(self) -> bool:
        """Whether the authority keeps stamps."""
        return self.authority.backend.capabilities.stamps

    def now_ms(self) -> int:
        return int(self.clock.time() * 1000)

    def note(self, entries: Mapping[str, Entry]) -> None:
        """These were written, or are returned: no copy in a shared tier that is older will be believed (R11)."""
        if self.uppers and self.stamped and not self.immutable:
            self.floors.lift(self.space, {key: entry.stamp for key, entry in entries.items()})

    def grave(self, level: Level, kind: int, expires: int | None) -> int | None:
        """When a new entry expires in a tier: `deleted` too, where nothing else would ever remove it."""
        if kind == DELETED and expires is None and level.backend.capabilities.drops:
            return self.now_ms() + int(self.tombstone_ttl * 1000)
        return expires

    def aged(self, entry: Entry, began: float, ttl: TTL | None) -> Entry:
        """A copy of `entry`: it expires with it, and when the tier's maximum age since `began` is reached (R10)."""
        if ttl is None:
            return entry
        limit = int((began + ttl.length(self.chance())) * 1000)
        if entry.expires is not None and entry.expires <= limit:
            return entry
        return entry._replace(expires=limit)

    def copy(self, entry: Entry, began: float) -> Entry:
        """`entry` for as long as memory would keep a copy read at `began`: not at all, where there is no memory."""
        if isinstance(self.front, NoFront):
            return entry._replace(expires=0)
        return self.aged(entry, began, self.front_ttl)

    def remember(self, entries: Mapping[str, Entry], began: float, generation: bytes | None = None) -> None:
        """Put values into memory; the age of each copy runs from `began` (R10).

        `generation` orders what was read from an unstamped authority: a stamp drawn before the reading began (R12).
        """
        self.front.install_many(self._copies(entries, began, generation))

    def _copies(self, entries: Mapping[str, Entry], began: float, generation: bytes | None) -> Iterator[Copy]:
        ttl = self.front_ttl
        ages = began + ttl.length(1.0) if ttl else NEVER  # the shortest; drawn again for each where there is jitter
        cap = began + ttl.limit() if ttl else NEVER
        for key, (kind, stamp, expires, value, soft) in entries.items():
            if kind == VALUE:
                if ttl and ttl.jitter:
                    ages = began + ttl.length(self.chance())
                until = expires if soft is None else soft  # so that get_or_load gets to see that it is stale
                own = NEVER if until is None else until / 1000
                yield key, value, generation or stamp, min(own, ages), min(own, cap)


def ask(stack: Stack, asks: Sequence[Ask], *, again: bool = False) -> Plan[list[Any]]:
    """Ask tiers, several at once, -> their answers in order, a TieredError standing for itself.

    This is where failures are counted and a tier that keeps failing is skipped. Asked `again`, a failure is no
    further one: an operation counts once, however often it tries.
    """
    answers: list[Any] = [None] * len(asks)
    now = stack.clock.monotonic()
    going = []
    for at, effect in enumerate(asks):
        if effect.level.admit(now):
            going.append(at)
        else:
            answers[at] = Skipped(
                f"skipped after {effect.level.failures} failures in a row, probed again within 30 s; the last: "
                f"{effect.level.reason}",
                tier=effect.level.name,
            )
    if len(going) == 1:
        try:
            answers[going[0]] = yield asks[going[0]]
        except TieredError as error:
            answers[going[0]] = error
    elif going:
        for at, answer in zip(going, (yield Parallel([asks[at] for at in going])), strict=True):
            answers[at] = answer
    now = stack.clock.monotonic()
    for at in going:
        level, answer = asks[at].level, answers[at]
        if isinstance(answer, TieredError):
            if not again:
                level.failed(now, answer)
            answer.at(level.name)
            log.debug("tier %s: %s", level.name, answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            level.worked()
    return answers


def expel(stack: Stack, level: Level, marks: Sequence[tuple[str, bytes]]) -> Plan[None]:
    """Remove copies with a stamp from too far in the future, over which nothing could ever be written (R1)."""
    yield from ask(stack, [Void(level, stack.space, marks)])
    yield from ask(stack, [Retract(level, stack.space, marks)])


def repair(stack: Stack, level: Level) -> Plan[bool]:
    """Void what this tier missed, a bounded number of keys (R16) -> whether it could be reached."""
    for space, stamps in level.repairs().items():
        [answer] = yield from ask(stack, [Void(level, space, list(stamps.items()))])
        if isinstance(answer, TieredError):
            return False
        level.unmark(space, stamps)
    return True
