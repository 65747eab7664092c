"""get_or_load: one caller loads, all get the value, and it is stored only if nobody wrote meanwhile (R20)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..effects import Fetch, Join, Load, Plan, Put, Swap
from ..entry import VALUE, Entry
from ..errors import CorruptEntry, TieredError, UnknownVersion
from ..flight import Caller, Flight, Outcome
from .publish import Writing, publish
from .read import look, observe
from .stack import Stack, ask, log

Admit = Callable[[Any], bytes | None]
"""Checks what a loader returned; raises InvalidValue."""


def load(
    stack: Stack,
    key: str,
    loader: Callable[[str], Any],
    expires: Callable[[], int | None],
    admit: Admit,
    caller: Caller,
) -> Plan[bytes | None]:
    """The value of `key`, or what `loader(key)` returns, stored to expire at `expires()` ms.

    One load a key at a time; the loader's exception goes to every waiter; a leader that is cancelled, or whose
    thread or loop is gone, is replaced by one waiter.
    """
    while True:
        flight, leads = stack.flights.join((stack.space, key), caller)
        if flight is None:
            return (yield from _look_or_load(stack, key, loader, expires, admit, None))
        if leads:
            return (yield from _lead(stack, flight, key, loader, expires, admit, caller))
        try:
            outcome: Outcome = yield Join(flight, caller)
        finally:
            stack.flights.joined(flight)
        if outcome.error is not None:
            raise outcome.error
        if not outcome.lead:
            return outcome.value
        if flight.outcome is None:  # handed over with its other waiters; else it is over, and a new one begins
            return (yield from _lead(stack, flight, key, loader, expires, admit, caller))


def _lead(
    stack: Stack,
    flight: Flight,
    key: str,
    loader: Callable[[str], Any],
    expires: Callable[[], int | None],
    admit: Admit,
    caller: Caller,
) -> Plan[bytes | None]:
    try:
        value = yield from _look_or_load(stack, key, loader, expires, admit, flight)
    except Exception as error:
        flight.land(caller.alive, Outcome(error=error))
        raise
    except BaseException:  # cancelled, or the generator is thrown away: not an answer for the others
        flight.hand_over(caller.alive)
        raise
    else:
        flight.land(caller.alive, Outcome(value))
        return value


def _look_or_load(
    stack: Stack,
    key: str,
    loader: Callable[[str], Any],
    expires: Callable[[], int | None],
    admit: Admit,
    flight: Flight | None,
) -> Plan[bytes | None]:
    with Writing(stack, [key]) as writing:
        sight = yield from look(stack, [key])
        if key in sight.live:
            return sight.live[key].value
        broken = sight.errors.get(key)
        if broken is not None and not isinstance(broken, CorruptEntry | UnknownVersion):
            raise broken
        value = admit((yield Load(loader, key, flight)))
        if value is None:
            return None
        began = stack.clock.time()
        entry = Entry(VALUE, writing.stamp([key]), expires(), value)
        if broken is None:
            swap = Swap(stack.authority, stack.space, [(key, entry, sight.state[key])])
            [answer] = yield from ask(stack, [swap])
        else:  # a record that cannot be read has no state to compare with: replace it by stamp
            [answer] = yield from ask(stack, [Put(stack.authority, stack.space, [(key, entry)])])
        if isinstance(answer, TieredError):
            log.warning("tier %s: a loaded value was not stored: %s", stack.authority.name, answer)
            writing.abandon()
            return value
        if not answer:
            yield from publish(stack, writing, {key: entry}, began)
            return value
        writing.withdraw()
        [answer] = yield from ask(stack, [Fetch(stack.authority, stack.space, [key])])
        [found] = [None] if isinstance(answer, TieredError) else observe(stack, answer)
        return found.value if isinstance(found, Entry) and found.live(stack.now_ms()) else value
