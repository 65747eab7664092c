"""Forgetting many keys: copies of what changed behind the stack, and everything under a prefix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..effects import Fetch, Plan, Spaces
from ..errors import TieredError
from ..level import Level
from .delete import delete
from .publish import Writing, void
from .read import believe
from .scan import page
from .stack import Stack, ask, log


def invalidate(stack: Stack, keys: Iterable[str]) -> Plan[None]:
    """Forget the copies of `keys` above the authority, and the loads under way."""
    names = list(dict.fromkeys(keys))
    with Writing(stack, names) as writing:
        yield from _catch_up(stack, names)
        stamp = writing.stamp(names)
        stack.flights.detach(stack.space, names)
        stack.floors.drop(stack.space, names)
        yield from void(stack, dict.fromkeys(names, stamp))
        if not stack.stamped:
            stamp = stack.clock.draw()  # above the generation of what was read meanwhile
        stack.front.drop_many([(key, stamp) for key in names])


def clear(stack: Stack, prefix: str) -> Plan[int]:
    """Delete the live keys that begin with `prefix`, and copies of others above -> live keys deleted.

    A key that is written meanwhile may stay. Raises what listing and deleting at the authority raise; of a shared
    tier that cannot be listed no copy under the prefix is trusted any more, up to now.
    """
    count = 0
    after: Any = None
    while True:
        keys = yield from page(stack, stack.authority, prefix, after)
        if keys:
            yield from delete(stack, keys)
            count += len(keys)
        after = keys.mark
        if after is None:
            break
    for level in stack.uppers:
        try:
            yield from _void_all(stack, level, prefix)
        except TieredError as error:
            log.warning("tier %s: not cleared, so not trusted up to now: %s", level.name, error)
            level.distrust(stack.space, prefix, stack.clock.draw(), stack.clock.monotonic())
    stack.front.sweep(prefix, stack.clock.draw())
    with stack.flights.lock:
        flying = [key for space, key in stack.flights.flights if space == stack.space and key.startswith(prefix)]
    stack.flights.detach(stack.space, flying)
    return count


def _catch_up(stack: Stack, keys: Sequence[str]) -> Plan[None]:
    """Advance the clock past the copies: what a clock ahead of ours stamped would outlive the void."""
    fetches = [Fetch(level, stack.space, keys) for level in stack.uppers]
    for level, answer in zip(stack.uppers, (yield from ask(stack, fetches)), strict=True):
        if not isinstance(answer, TieredError):
            yield from believe(stack, level, keys, answer)


def _void_all(stack: Stack, level: Level, prefix: str) -> Plan[None]:
    """Copies of keys that the authority does not list: expired, lost, or deleted there long ago.

    Each is voided in every tier, for a read under way may bring it up from one to another.
    """
    after: Any = None
    while True:
        keys = yield from page(stack, level, prefix, after)
        if keys:
            yield from _catch_up(stack, keys)
            yield from void(stack, dict.fromkeys(keys, stack.clock.draw()))
        after = keys.mark
        if after is None:
            return


def scopes(stack: Stack) -> Plan[Sequence[str]]:
    """The namespaces scoped under this one, of which any tier holds something."""
    found = set(stack.front.spaces())
    for level in (*stack.uppers, stack.authority):
        [answer] = yield from ask(stack, [Spaces(level, stack.space)])
        if not isinstance(answer, TieredError):
            found.update(answer)
        elif level is stack.authority:
            raise answer
    return sorted(found)
