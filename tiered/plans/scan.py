"""Listing keys, and the upkeep of tiers: purge, repair, look."""

from __future__ import annotations

from typing import Any

from ..backend import Found, Page
from ..effects import Fetch, Ping, Plan, Purge, Scan
from ..entry import DELETED, INVALID
from ..errors import TieredError
from ..level import Level
from .stack import Stack, ask, log, repair

PAGE = 1_000
"""Keys a page."""


def page(stack: Stack, level: Level, prefix: str, after: Any) -> Plan[Page]:
    """Up to PAGE live keys of one tier after `after`, a page's mark, or None to begin."""
    [answer] = yield from ask(stack, [Scan(level, stack.space, prefix, after, PAGE, stack.now_ms())])
    if isinstance(answer, TieredError):
        raise answer
    return Page.of(answer, PAGE)


def purge(stack: Stack, level: Level, space: str, limit: int) -> Plan[int]:
    """One bounded step of a purge of one namespace in one tier (R28) -> rows changed."""
    into = DELETED if level is stack.authority else INVALID
    grace = max(stack.tombstone_ttl, level.ttl.limit() if level.ttl else 0)  # R8: marks outlive the copies they void
    step = Purge(level, space, stack.now_ms(), int(grace * 1000), limit, into)
    [answer] = yield from ask(stack, [step])
    if isinstance(answer, TieredError):
        raise answer
    rows: int = answer
    return rows


def purge_all(stack: Stack) -> Plan[int]:
    """Purge every tier until nothing is due -> rows changed. Raises what the authority raises."""
    total = 0
    for level in (*stack.uppers, stack.authority):
        try:
            while rows := (yield from purge(stack, level, stack.space, PAGE)):
                total += rows
        except TieredError as error:
            if level is stack.authority:
                raise
            log.warning("tier %s: expired rows were not purged: %s", level.name, error)
    return total


def upkeep(stack: Stack, written: int) -> Plan[None]:
    """After a write: repair what is broken above (R16), and purge twice as much as was written since the last time,
    at most once a second; with it, in turn, the scopes that were written to.
    """
    for level in stack.uppers:
        if level.broken and not level.failures:  # it answers
            yield from repair(stack, level)
    stack.pace.note(stack.space)
    limit = stack.pace.limit(written, stack.clock.monotonic())
    for space in stack.pace.turn(stack.space) if limit else ():
        for level in (*stack.uppers, stack.authority):
            try:
                yield from purge(stack, level, space, limit)
            except TieredError as error:  # the write itself is done; `ask` has counted the failure
                log.warning("tier %s: expired rows were not purged: %s", level.name, error)


def flush(stack: Stack) -> Plan[None]:
    """Repair every tier as far as it can be reached (R16)."""
    for level in stack.uppers:
        if level.broken and (yield from ping(level)) is None:  # asked though it may be skipped: it can be back
            while level.broken and (yield from repair(stack, level)):
                pass


def ping(level: Level) -> Plan[TieredError | None]:
    """What is wrong with a tier, asked even while it is being skipped."""
    try:
        yield Ping(level)
    except TieredError as error:
        return error.at(level.name)
    level.worked()
    return None


def probe(level: Level, space: str, key: str) -> Plan[Found]:
    """What a tier holds for a key; it changes nothing, counters included."""
    try:
        [found] = yield Fetch(level, space, [key])
    except TieredError as error:
        return error
    return found  # type: ignore[no-any-return]
