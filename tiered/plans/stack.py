"""What the plans of one stack share: its tiers, how they are asked, and how a write ends."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from ..clock import Clock
from ..effects import Ask, Parallel, Plan, Put, Void
from ..entry import VALUE, Entry
from ..errors import TieredError
from ..flight import Flights
from ..level import Counters, Level, Skipped
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


class NoFront:
    """The front of a stack that has no memory tier above its authority."""

    def enter(self, keys: Iterable[str]) -> None: ...
    def leave(self, keys: Iterable[str]) -> None: ...
    def install_many(self, items: Iterable[Copy]) -> None: ...
    def drop_many(self, stamps: Iterable[tuple[str, bytes]]) -> None: ...


@dataclass(slots=True)
class Pace:
    """How much the next write purges, and when: expired rows never gain on the writes that made them."""

    written: int = 0
    due: float = 0.0

    def limit(self, written: int, now: float) -> int:
        """Rows to purge at monotonic time `now`, after `written` more keys were written; 0 for not yet."""
        self.written += written
        if now < self.due and self.written < 1_000:
            return 0
        limit = min(5_000, 64 + 2 * self.written)
        self.written, self.due = 0, now + 1.0
        return limit


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
    front_count: Counters = field(default_factory=Counters)
    flights: Flights = field(default_factory=Flights)
    pace: Pace = field(default_factory=Pace)
    retry: Retry = field(default_factory=Retry)
    chance: Callable[[], float] = random.random

    def now_ms(self) -> int:
        return int(self.clock.time() * 1000)

    def aged(self, entry: Entry, began: float, ttl: TTL | None) -> Entry:
        """A copy of `entry`: it expires with it, and when the tier's maximum age since `began` is reached (R10)."""
        if ttl is None:
            return entry
        limit = int((began + ttl.length(self.chance())) * 1000)
        if entry.expires is not None and entry.expires <= limit:
            return entry
        return entry._replace(expires=limit)

    def remember(self, entries: Mapping[str, Entry], began: float) -> None:
        """Put values into memory; the age of each copy runs from `began` (R10)."""
        self.front.install_many(self._copies(entries, began))

    def _copies(self, entries: Mapping[str, Entry], began: float) -> Iterator[Copy]:
        ttl = self.front_ttl
        ages = began + ttl.length(1.0) if ttl else NEVER  # the shortest; drawn again for each where there is jitter
        cap = began + ttl.limit() if ttl else NEVER
        for key, (kind, stamp, expires, value, _) in entries.items():
            if kind == VALUE:
                if ttl and ttl.jitter:
                    ages = began + ttl.length(self.chance())
                own = NEVER if expires is None else expires / 1000
                yield key, value, stamp, min(own, ages), min(own, cap)


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


def repair(stack: Stack, level: Level) -> Plan[bool]:
    """Void what this tier missed, a bounded number of keys (R16) -> whether it could be reached."""
    for space, stamps in level.repairs().items():
        [answer] = yield from ask(stack, [Void(level, space, list(stamps.items()))])
        if isinstance(answer, TieredError):
            return False
        level.unmark(space, stamps)
    return True


class Writing:
    """A write of `keys` under way: the one exit path of failure, time-out and cancellation, without awaiting (R15).

    Used as `with`: however the block ends, memory and the shared tiers hold nothing older than the newest stamp
    that this write may have left in the authority.
    """

    def __init__(self, stack: Stack, keys: Iterable[str]) -> None:
        self._stack = stack
        self._keys = list(keys)
        self._stamps: dict[str, bytes] = {}

    def __enter__(self) -> Writing:
        self._stack.front.enter(self._keys)
        return self

    def stamp(self, keys: Iterable[str]) -> bytes:
        """A new stamp for `keys`, whose copies above are not to be trusted from here on (R13)."""
        stamp = self._stack.clock.draw()
        names = list(keys)
        self._stamps.update(dict.fromkeys(names, stamp))
        for level in self._stack.uppers:
            level.mark(self._stack.space, names, stamp)
        return stamp

    def abandon(self) -> None:
        """The write ended badly: nothing older than its stamps stays readable above the authority."""
        stack = self._stack
        stack.front.drop_many(self._stamps.items())
        for level in stack.uppers:
            level.break_off(stack.space, self._stamps, stack.clock.monotonic())

    def withdraw(self) -> None:
        """The authority refused it for good: what lies above is as good, or as bad, as before."""
        for level in self._stack.uppers:
            level.unmark(self._stack.space, self._stamps, arrived=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self.abandon()
        finally:
            self._stack.front.leave(self._keys)


def publish(stack: Stack, entries: Mapping[str, Entry], began: float) -> Plan[None]:
    """After the authority: all shared tiers in parallel, then memory (R17)."""
    lost: dict[str, bytes] = {}
    if stack.uppers:
        stamps = {key: entry.stamp for key, entry in entries.items()}
        puts = [
            Put(
                level,
                stack.space,
                [(key, stack.aged(entry, began, level.ttl)) for key, entry in entries.items()],
            )
            for level in stack.uppers
        ]
        for level, answer in zip(stack.uppers, (yield from ask(stack, puts)), strict=True):
            if isinstance(answer, TieredError):
                level.break_off(stack.space, stamps, stack.clock.monotonic())
            else:
                level.unmark(stack.space, stamps)
                lost.update(answer)
    stack.remember(entries, began)
    stack.front.drop_many([(key, entry.stamp) for key, entry in entries.items() if entry.kind != VALUE])
    stack.front.drop_many(lost.items())  # R19: the other writer won
