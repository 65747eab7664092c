"""Single flight: of all who want a key loaded at once, threads and tasks alike, one loads it.

The idea is groupcache's `singleflight`; here the leader may die, and then one waiter takes over (HAZARDS 14).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .entry import Entry

LONGEST = 300.0
"""Seconds after which a leader counts as lost, though it is there: its loader may be waiting for the flight itself, by
a thread that does not know whose loader it works for. So a load that takes longer may be made twice."""

PAUSE = 1.0
"""Seconds, by the stack's clock, until a value whose refresh brought nothing is refreshed again."""

LOADS = 16
"""Loads at once, for each stack of a process, while its tiers cannot be read: what they kept from the source of the
values falls on it all at once."""


class Outcome(NamedTuple):
    """How a flight ended for one who waited: with a value, with the loader's error, or by having to lead it."""

    value: bytes | None = None
    error: BaseException | None = None
    lead: bool = False
    expires: int | None = None  # of the value, in ms: not for those who joined later (invariant 6)


LEAD = Outcome(lead=True)


class Caller(NamedTuple):
    """Who runs a plan: whether its thread or loop is still there, and whether it may wait for others."""

    alive: Callable[[], bool]
    may_wait: bool


class Waiter(NamedTuple):
    """`wake` tells one waiter, from any thread; it returns False if that waiter cannot be reached any more."""

    wake: Callable[[Outcome], bool]
    alive: Callable[[], bool]


@dataclass(slots=True, eq=False)
class Work:
    """One call of a loader for all the flights it was made for, or its leader's wait for a slot."""

    waits_for: dict[Flight, int] = field(default_factory=dict, repr=False)  # how many times over
    over: bool = False  # what it began may go on, but it waits for nothing any more


@dataclass(slots=True, eq=False)
class Flight:
    """One load of one key. Its state is guarded by the lock of its `Flights`, which it leaves when it is over."""

    name: tuple[str, str] | int
    group: Flights = field(repr=False)
    alive: Callable[[], bool] = field(repr=False)
    outcome: Outcome | None = None
    waiters: list[Waiter] = field(default_factory=list)
    work: Work | None = field(default=None, repr=False)  # what its leader does, once that may wait for others
    meanwhile: Entry | None = None  # what others are given while it loads: a refresh
    since: float = field(default_factory=time.monotonic)  # when its leader began

    def subscribe(self, waiter: Waiter) -> Outcome | None:
        """Be woken with the outcome; or get it, if it is there already."""
        with self.group.lock:
            if self.outcome is None:
                self.waiters.append(waiter)
            return self.outcome

    def unsubscribe(self, waiter: Waiter) -> bool:
        """False if it is no longer among the waiters: it has been woken, or is about to be."""
        with self.group.lock:
            found = waiter in self.waiters
            if found:
                self.waiters.remove(waiter)
            return found

    def land(self, leader: Callable[[], bool], outcome: Outcome) -> None:
        """Give every waiter the outcome; `leader` as for `hand_over`."""
        with self.group.lock:
            if self.alive is not leader or self.outcome is not None:
                return
            self._end(outcome)
            waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.wake(outcome)

    def defer(self, leader: Callable[[], bool], entry: Entry, copy: Entry, successor: Callable[[], bool]) -> None:
        """The value is there, though stale: the waiters get it, those who come get the copy while it is good, and a
        successor goes on behind their backs.
        """
        with self.group.lock:
            if self.alive is not leader or self.outcome is not None:
                return
            self.alive, self.since, self.meanwhile = successor, time.monotonic(), copy
            waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.wake(Outcome(entry.value, expires=entry.expires))

    def hand_over(self, leader: Callable[[], bool]) -> None:
        """The leader, known by its `alive`, has nothing to show: the first waiter that can be reached leads.

        Nothing happens if it leads no longer: a rescued flight's old leader may be thrown away much later.
        """
        while True:
            with self.group.lock:
                if self.outcome is not None or self.alive is not leader:
                    return
                if not self.waiters:
                    self._end(LEAD)
                    return
                waiter = self.waiters.pop(0)
                self.alive = leader = waiter.alive
                self.since = time.monotonic()
            if waiter.wake(LEAD):
                return

    def rescue(self) -> None:
        """Hand over if the leader's thread ended, or its loop was closed in the middle, or if it takes too long.

        Waiters call it now and then.
        """
        leader = self.alive
        if not leader() or time.monotonic() - self.since > LONGEST:
            self.hand_over(leader)

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        table: dict[Any, Flight] = self.group.slots if isinstance(self.name, int) else self.group.flights
        if table.get(self.name) is self:  # not where a write detached it
            del table[self.name]


LOADING: ContextVar[tuple[Work, ...]] = ContextVar("tiered_loading", default=())
"""The loaders that run around the current code, or that it was begun by."""


def working() -> tuple[Work, ...]:
    """The loaders around the current code that are still at work."""
    return tuple(work for work in LOADING.get() if not work.over)


@dataclass(slots=True)
class LoadCounters:
    """Of one stack, since it was made."""

    refreshes: int = 0  # values loaded behind the callers' backs
    failed: int = 0  # refreshes whose loader, or whose look at the tiers, raised
    postponed: int = 0  # not begun, for want of room: the next caller tries again
    unread: int = 0  # loads because the tiers could not be read


class Flights:
    """The flights of one stack by (namespace, key), and by number those that bound its loads while no tier answers."""

    def __init__(self) -> None:
        self.count = LoadCounters()
        self.forked()

    def join(
        self,
        space: str,
        keys: Iterable[str],
        caller: Caller,
        held: Sequence[Work],
        own: dict[str, Flight | None],
        theirs: dict[str, Flight],
    ) -> None:
        """Sort the flights of `keys` into those the caller leads, and those of others; `held` are its `working()`.

        None among its own: load alone, for waiting would deadlock. That is so for a caller that must not block (sync
        code on the thread of a running loop) and for a loader that would wait for itself, directly or through the
        flights it waits for. All at once, so that what waits for what is walked once however many the keys.
        """
        known: dict[Work, bool] = {}
        with self.lock:
            for key in keys:
                name = space, key
                flight = self.flights.get(name)
                if flight is None:
                    own[key] = flight = Flight(name, self, caller.alive)  # first, should this be interrupted
                    self.flights[name] = flight
                elif not caller.may_wait or _waits_for(flight, held, known):
                    own[key] = None
                else:
                    for outer in held:  # none of them is over before this one lands
                        outer.waits_for[flight] = outer.waits_for.get(flight, 0) + 1
                    theirs[key] = flight

    def joined(self, flights: Iterable[Flight], held: Sequence[Work]) -> None:
        """The caller of `join` or `slot` waits for these no longer."""
        if held:
            with self.lock:
                for flight in flights:
                    for work in held:
                        left = work.waits_for.pop(flight, 1) - 1
                        if left:
                            work.waits_for[flight] = left

    def slot(self, caller: Caller, own: Sequence[Flight]) -> tuple[Flight | None, Work | None]:
        """The right to load while no tier can be read, and what waits for it: None, it is the caller's at once.

        No flight: load without it, for waiting would deadlock. `own` are the flights the caller leads.

        The leader hands it over when it has loaded. A loader that is within another has none to wait for: the outer
        one would wait for it in turn.
        """
        if not caller.may_wait or working():
            return None, None
        with self.lock:
            number = min(range(LOADS), key=self._queue)
            flight = self.slots.get(number)
            if flight is None:
                flight = self.slots[number] = Flight(number, self, caller.alive)
                return flight, None
            work = Work()
            for one in own:  # their loaders may not wait for what this one's holder loads
                one.work = work
            if _waits_for(flight, [work], {}):
                return None, None
            work.waits_for[flight] = 1
            return flight, work

    def _queue(self, number: int) -> int:
        flight = self.slots.get(number)
        return 0 if flight is None else 1 + len(flight.waiters)

    def detach(self, space: str, keys: Iterable[str]) -> None:
        """A write is about to be acknowledged: later readers must not join a load that began before that (R14)."""
        if self.flights:
            with self.lock:
                for key in keys:
                    self.flights.pop((space, key), None)

    def forked(self) -> None:
        """In a forked child: no flight of the parent will ever land here."""
        self.lock = threading.Lock()
        self.flights: dict[tuple[str, str], Flight] = {}
        self.slots: dict[int, Flight] = {}
        self._pauses: dict[tuple[str, str], float] = {}

    def pause(self, space: str, keys: Iterable[str], now: float) -> None:
        """The refreshes of these brought nothing; `now` in seconds of monotonic time."""
        with self.lock:
            self._pauses = {name: end for name, end in self._pauses.items() if end > now}
            self._pauses.update(((space, key), now + PAUSE) for key in keys)

    def paused(self, space: str, keys: Iterable[str], now: float) -> set[str]:
        """Which of these are not to be refreshed yet."""
        pauses = self._pauses
        return {key for key in keys if pauses.get((space, key), now) > now} if pauses else set()


def _waits_for(flight: Flight, held: Sequence[Work], known: dict[Work, bool]) -> bool:
    """Whether the flight's leader waits for one of `held`, or is one; `known` is what was found for others."""
    start = flight.work
    if not held or start is None:
        return False
    seen, todo = set[Work](), [start]
    while todo:
        work = todo.pop()
        if work in held or known.get(work):
            known[start] = True
            return True
        if work not in seen and work not in known and not work.over:
            seen.add(work)
            todo += [one.work for one in work.waits_for if one.work is not None]
    known.update(dict.fromkeys(seen, False))
    return False
