"""get_or_load: one caller loads, all get the value, and it is stored only if nobody wrote meanwhile (R20).

join   a flight for each key: some are ours to lead, others are waited for
look   through the tiers; what is there is the answer, and is refreshed in the background if it is stale
load   the rest of our own, in one call
store  by compare-and-set on the state seen, tell those who wait, and only then wait for the others' flights
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..effects import Ask, Fetch, Join, Load, Plan, Put, Spawn, Swap
from ..entry import VALUE, Entry
from ..errors import BackendUnavailable, CorruptEntry, ForeignValue, StoreClosed, TieredError, UnknownVersion
from ..flight import LEAD, Caller, Flight, Outcome, working
from .publish import Writing, publish
from .read import Sight, look, observe, read
from .stack import Stack, ask, log

ABSENT = Outcome()

BROKEN = BackendUnavailable, CorruptEntry, ForeignValue, UnknownVersion
"""What a read raises for a tier that cannot tell: it is away, damaged, or not ours."""


class Fresh(NamedTuple):
    """A loaded value; expiry and soft expiry in ms since the epoch. `keep` False: for those who wait, not to store."""

    value: bytes
    expires: int | None = None
    soft: int | None = None
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """Where values come from that are in no tier."""

    load: Callable[[list[str]], Any]  # the user's loader; called with the missing keys, once each
    admit: Callable[[Any, list[str]], Mapping[str, Fresh]]  # judges what it returned; raises InvalidValue
    usable: Callable[[bytes], bool] | None = None  # whether a stored value will do; else it is loaded again
    unread: bool = False  # load although the tiers cannot be read
    again: Callable[[list[str]], Any] | None = None  # the loader of a refresh, if that is another
    closed: Callable[[], bool] = bool  # whether the store was closed meanwhile: then nothing is stored any more


def load(stack: Stack, keys: Iterable[str], source: Source, caller: Caller) -> Plan[dict[str, bytes]]:
    """The values of distinct `keys`, loaded where there is none; those of which there is none are left out.

    One load a key at a time; the loader's exception goes to every waiter; a leader that is cancelled, or whose
    thread or loop is gone, is replaced by one waiter. Nobody waits while leading flights that have not begun.
    """
    values: dict[str, bytes] = {}
    pending = list(keys)
    while pending:
        if source.closed():
            raise StoreClosed("this store was closed while a value was waited for: open another")
        own: dict[str, Flight | None] = {}  # None: alone, for waiting would deadlock
        theirs: dict[str, Flight] = {}
        joined, held = stack.now_ms(), working()
        try:
            stack.flights.join(stack.space, pending, caller, held, own, theirs)
            pending = []
            if own:
                values.update((yield from _lead(stack, own, source, caller)))
            values.update((yield from _meanwhile(stack, theirs, source)))
            for key, flight in theirs.items():
                if key in values:
                    continue
                outcome: Outcome = yield Join(flight, caller)
                if outcome.error is not None:
                    raise outcome.error
                if outcome.lead and flight.outcome is None:  # handed over with its other waiters
                    own[key] = flight
                    values.update((yield from _lead(stack, {key: flight}, source, caller)))
                elif outcome.lead or (outcome.expires is not None and outcome.expires <= joined):
                    pending.append(key)
                elif outcome.value is not None:
                    if not source.usable or source.usable(outcome.value):
                        values[key] = outcome.value
                    else:
                        pending.append(key)
        finally:
            _hand_over(own, caller)  # cancelled, interrupted or thrown away: not an answer for the others
            stack.flights.joined(theirs.values(), held)
    return values


def _meanwhile(stack: Stack, theirs: Mapping[str, Flight], source: Source) -> Plan[dict[str, bytes]]:
    """The values that flights refresh, as long as they are good: nobody waits for those.

    A flight has its value as a copy in memory would be had, for no longer (E1); without that the tiers are asked.
    """
    values: dict[str, bytes] = {}
    asked: list[str] = []
    for key, flight in theirs.items():
        old = flight.meanwhile
        if old is not None:
            flight.rescue()
            if flight.outcome is None and old.live(stack.now_ms()):
                values[key] = old.value
            elif flight.outcome is None:
                asked.append(key)
    if asked:
        try:
            found = yield from read(stack, asked)
        except (CorruptEntry, UnknownVersion):  # the refresh will mend it
            found = {}
        except BROKEN:
            if not source.unread:
                raise
            found = {}
        values.update((key, entry.value) for key, entry in found.items())
    return {key: value for key, value in values.items() if not source.usable or source.usable(value)}


def _lead(stack: Stack, own: Mapping[str, Flight | None], source: Source, caller: Caller) -> Plan[dict[str, bytes]]:
    """Answer the keys of flights that are ours, and those who wait for them; but if cut short hand over nothing yet."""
    try:
        outcomes = yield from _answer(stack, own, source, caller, None)
    except Exception as error:
        for flight in own.values():
            if flight is not None:
                flight.land(caller.alive, Outcome(error=error))
        raise
    _land(own, outcomes, own, caller)
    return {key: outcome.value for key, outcome in outcomes.items() if outcome.value is not None}


def _hand_over(own: Mapping[str, Flight | None], caller: Caller) -> None:
    for flight in own.values():
        if flight is not None and flight.outcome is None:
            flight.hand_over(caller.alive)


def _land(own: Mapping[str, Flight | None], outcomes: Mapping[str, Outcome], keys: Iterable[str], who: Caller) -> None:
    for key in keys:
        flight = own[key]
        if flight is not None:
            flight.land(who.alive, outcomes.get(key, ABSENT))


@dataclass(slots=True)
class _Missing:
    """Keys to be loaded, with the stamp that lies where the value will go (None: nothing does)."""

    state: dict[str, bytes | None] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)  # records that cannot be read: no state to compare with


def _answer(
    stack: Stack, own: Mapping[str, Flight | None], source: Source, caller: Caller, seen: Mapping[str, Entry] | None
) -> Plan[dict[str, Outcome]]:
    """What to tell those who want the keys of our flights. `seen`: load over these entries, without a look."""
    flights = [flight for flight in own.values() if flight is not None]
    outcomes: dict[str, Outcome] = {}
    with Writing(stack, own) as writing:
        missing = _Missing({key: entry.stamp for key, entry in seen.items()} if seen else {})
        if not seen:
            began = stack.clock.time()
            try:
                sight = yield from look(stack, list(own))
            except BROKEN as error:
                if not source.unread:
                    raise
                return (yield from _load_unread(stack, list(own), flights, source, caller, error))
            missing = yield from _sift(stack, sight, own, source, outcomes, caller, began)
        keys = [*missing.state, *missing.broken]
        if keys:
            fresh = source.admit((yield Load(source.load, list(keys), flights)), keys)
            outcomes.update((key, Outcome(one.value, expires=one.expires)) for key, one in fresh.items())
            kept = {key: one for key, one in fresh.items() if one.keep}
            if kept and not source.closed():
                yield from _store(stack, writing, kept, missing, source, outcomes)
    return outcomes


def _sift(
    stack: Stack,
    sight: Sight,
    own: Mapping[str, Flight | None],
    source: Source,
    outcomes: dict[str, Outcome],
    caller: Caller,
    began: float,
) -> Plan[_Missing]:
    """What the tiers have goes into `outcomes` and to those who wait for it -> what is missing."""
    missing = _Missing()
    stale: dict[str, Entry] = {}
    now = stack.now_ms()
    for key in own:
        entry, error = sight.live.get(key), sight.errors.get(key)
        if entry is not None and (not source.usable or source.usable(entry.value)):
            outcomes[key] = Outcome(entry.value, expires=entry.expires)
            if entry.soft is not None and entry.soft <= now:
                stale[key] = entry
        elif entry is not None:
            missing.state[key] = entry.stamp
        elif isinstance(error, CorruptEntry | UnknownVersion):
            missing.broken.append(key)
        elif error is not None:
            raise error
        else:
            missing.state[key] = sight.state[key]
    if stale:
        yield from _refresh_later(stack, own, stale, source, caller, began)
    _land(own, outcomes, outcomes, caller)
    return missing


def _load_unread(
    stack: Stack, keys: list[str], flights: Sequence[Flight], source: Source, caller: Caller, error: TieredError
) -> Plan[dict[str, Outcome]]:
    """No tier can tell: load all the same, but a bounded number at a time, and store nothing."""
    log.warning("loading without the cache: %s", error)
    stack.flights.count.unread += 1
    slot = yield from _slot(stack, flights, caller)
    try:
        mine = [*flights, slot] if slot is not None else flights
        fresh = source.admit((yield Load(source.load, list(keys), mine)), keys)
    finally:
        if slot is not None:
            slot.hand_over(caller.alive)
    return {key: Outcome(one.value, expires=one.expires) for key, one in fresh.items()}


def _slot(stack: Stack, flights: Sequence[Flight], caller: Caller) -> Plan[Flight | None]:
    """Wait for one of the few loads at a time."""
    while True:
        slot, work = stack.flights.slot(caller, flights)
        if slot is None or work is None:
            return slot
        try:
            outcome: Outcome = yield Join(slot, caller)
        finally:
            work.over = True
        if outcome.lead and slot.outcome is None:
            return slot


def _store(
    stack: Stack,
    writing: Writing,
    fresh: Mapping[str, Fresh],
    missing: _Missing,
    source: Source,
    outcomes: dict[str, Outcome],
) -> Plan[None]:
    """Store what was loaded where nobody wrote meanwhile; where somebody did, theirs is the answer (R20)."""
    began = stack.clock.time()
    stamp = writing.stamp(fresh)
    entries = {key: Entry(VALUE, stamp, one.expires, one.value, one.soft) for key, one in fresh.items()}
    authority, refused = stack.authority, {key for key in entries if not writing.alone(key)}
    sent = {key: entry for key, entry in entries.items() if key not in refused}
    swaps = [(key, entry, missing.state[key]) for key, entry in sent.items() if key in missing.state]
    puts = [(key, entry) for key, entry in sent.items() if key not in missing.state]  # replaced by stamp
    asks: list[Ask] = [Swap(authority, stack.space, swaps)] if swaps else []
    asks += [Put(authority, stack.space, puts)] if puts else []
    for answer in (yield from ask(stack, asks)):
        if isinstance(answer, TieredError):
            log.warning("tier %s: loaded values were not stored: %s", authority.name, answer)
            writing.abandon()
            return
        refused.update(answer)
    taken = {key: entry for key, entry in entries.items() if key not in refused}
    if taken:
        yield from publish(stack, writing, taken, began)
    if refused:
        names = [key for key in entries if key in refused]
        writing.withdraw(names)
        [answer] = yield from ask(stack, [Fetch(authority, stack.space, names)])
        if isinstance(answer, TieredError):
            return
        for key, found in zip(names, observe(stack, answer), strict=True):
            live = isinstance(found, Entry) and found.live(stack.now_ms())
            if isinstance(found, Entry) and live and (not source.usable or source.usable(found.value)):
                outcomes[key] = Outcome(found.value, expires=found.expires)


# -- refreshes -------------------------------------------------------------------------------------------------------


def _refresh_later(
    stack: Stack,
    own: Mapping[str, Flight | None],
    stale: Mapping[str, Entry],
    source: Source,
    caller: Caller,
    began: float,
) -> Plan[None]:
    """Have stale values loaded again in the background, under the flights that found them."""
    paused = stack.flights.paused(stack.space, stale, stack.clock.monotonic())
    flights = {key: flight for key in stale if key not in paused and (flight := own[key]) is not None}
    if not flights:  # somebody else is at it, or it failed just now
        return

    def refresh(background: Caller) -> Plan[None]:
        for key, flight in flights.items():
            flight.defer(caller.alive, stale[key], stack.copy(stale[key], began), background.alive)
        return _refresh(stack, flights, stale, source, background)

    if not (yield Spawn(refresh)):
        stack.flights.count.postponed += len(flights)


def _refresh(
    stack: Stack, flights: Mapping[str, Flight], stale: Mapping[str, Entry], source: Source, caller: Caller
) -> Plan[None]:
    """The old value stays until it expires, or until the new one takes its place; unless a write came first (R20)."""
    count, outcomes = stack.flights.count, dict[str, Outcome]()
    if source.again is not None:
        source = replace(source, load=source.again)
    try:
        outcomes = yield from _answer(stack, flights, source, caller, {key: stale[key] for key in flights})
        count.refreshes += len(flights)
    except Exception as error:  # one line each: it may be so for as long as callers ask
        count.failed += len(flights)
        log.warning("a refresh failed, the old values stay until they expire: %r", error)
    except BaseException:
        _hand_over(flights, caller)
        raise
    without = [key for key in flights if key not in outcomes]
    stack.flights.pause(stack.space, without, stack.clock.monotonic())
    _land(flights, outcomes | {key: _old(stack, flights[key]) for key in without}, flights, caller)


def _old(stack: Stack, flight: Flight) -> Outcome:
    """What those get who waited for a refresh that brought nothing: the old value while it is good, else to look."""
    old = flight.meanwhile
    return Outcome(old.value, expires=old.expires) if old is not None and old.live(stack.now_ms()) else LEAD
