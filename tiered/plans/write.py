"""A write: the authority first, then what lies above it (R17).

    mark the key dirty above  ->  authority (stamped)  ->  shared tiers in parallel  ->  memory  ->  acknowledged
              strict: with a marker in the shared tiers before the authority (R18)

A delete is a write of `deleted` (PROTOCOL section 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..effects import Ask, Overwrite, Plan, Put, Sleep
from ..entry import VALUE, Entry
from ..errors import BackendUnavailable, BatchError, Indeterminate, TieredError
from ..level import Skipped, is_outage
from .publish import Writing, publish
from .stack import Stack, ask
from .strict import Markers, announce, retract

TRIES = 8
"""How often a write goes above the stamps that refuse it (R2)."""

State = tuple[int, bytes]
"""Kind and value."""


def write(stack: Stack, states: Mapping[str, State], expires: int | None) -> Plan[None]:
    """Store a state for each key, all to expire at `expires` (ms since the epoch, None: never).

    Raises BackendUnavailable (nothing written), Indeterminate (one key, unknown), BatchError (in part or unknown).
    """
    with Writing(stack, states) as writing:
        began = stack.clock.time()
        try:
            entries = yield from _settle(stack, writing, states, expires)
        finally:  # R14: not before, for a load that begins meanwhile may still see the old value
            stack.flights.detach(stack.space, states)
        announced = stack.strict and bool(stack.uppers)
        yield from publish(stack, writing, entries, began, around=stack.around, announced=announced)


@dataclass(slots=True)
class _Progress:
    """What is known of the keys of one batch in the authority."""

    written: dict[str, Entry] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)


def _settle(stack: Stack, writing: Writing, states: Mapping[str, State], expires: int | None) -> Plan[dict[str, Entry]]:
    """Write to the authority, above every stamp that refuses a key, a bounded number of times (R2)."""
    progress, pending = _Progress(), states
    markers = Markers()
    announced = set[str]()
    error: TieredError = BackendUnavailable(
        f"other writers were ahead {TRIES} times in a row: try again", tier=stack.authority.name
    )
    for _ in range(TRIES):
        stamp = writing.stamp(pending)
        batch = {
            key: Entry(kind, stamp, stack.grave(stack.authority, kind, expires), value)
            for key, (kind, value) in pending.items()
        }
        try:
            refused: Mapping[str, bytes] = {}
            if stack.strict and stack.uppers:
                announced.update(batch)
                refused = yield from announce(stack, markers, batch)
            if not refused:
                refused = yield from deliver(stack, batch, progress)
                pending = {key: states[key] for key in refused}
            for newer in refused.values():
                stack.clock.observe(newer)
        except TieredError as failure:
            error = failure.at(stack.authority.name)
            break
        if not pending:
            return progress.written
    untouched = [key for key in states if key not in progress.written and key not in progress.unknown]
    if announced:
        yield from retract(stack, markers, untouched)
        writing.withdraw(announced.intersection(untouched))
    raise _failure(states, untouched, progress, error) from error


def deliver(stack: Stack, batch: Mapping[str, Entry], progress: _Progress) -> Plan[Mapping[str, bytes]]:
    """Put entries into the authority with these very stamps, trying again while that is safe -> refusals.

    Trying again is safe because an entry that already arrived is "equal", not written twice. After a try whose
    end is unknown a refused key must not be stamped again: the first try may have been read by others (R2).
    """
    failures, start = 0, stack.clock.monotonic()
    authority = stack.authority
    while True:
        [answer] = yield from ask(stack, [_put(stack, batch)], again=failures > 0)
        if not isinstance(answer, TieredError):
            refused: Mapping[str, bytes] = answer or {}
            progress.written.update((key, entry) for key, entry in batch.items() if key not in refused)
            progress.unknown.difference_update(progress.written)
            if progress.unknown.isdisjoint(refused):
                return refused
            raise Indeterminate("a write without an answer met a newer one: whether it was ever visible is unknown")
        _learn(batch, progress, answer)
        batch = {key: entry for key, entry in batch.items() if key not in progress.written}
        failures += 1
        pause = stack.retry.pause(failures)
        out_of_time = stack.clock.monotonic() - start >= authority.timeout
        late = bool(progress.unknown) and not stack.stamped  # it may still land, after another write (E11)
        if isinstance(answer, Skipped) or not is_outage(answer) or pause is None or out_of_time or late:
            raise answer
        yield Sleep(pause)


def _put(stack: Stack, batch: Mapping[str, Entry]) -> Ask:
    items = list(batch.items())
    if stack.immutable and all(entry.kind == VALUE for entry in batch.values()):
        return Overwrite(stack.authority, stack.space, items)
    return Put(stack.authority, stack.space, items)


def _learn(batch: Mapping[str, Entry], progress: _Progress, error: TieredError) -> None:
    """Note what a failed try says of each key."""
    if isinstance(error, BatchError):
        progress.written.update((key, batch[key]) for key in error.written)
        progress.unknown.update(error.unknown)
    elif isinstance(error, Indeterminate):
        progress.unknown.update(batch)
    progress.unknown.difference_update(progress.written)


def _failure(keys: Iterable[str], untouched: list[str], progress: _Progress, error: TieredError) -> TieredError:
    """The error for the caller: what was written, what was not, what is unknown."""
    names = list(keys)
    if not progress.written and not progress.unknown:
        return error
    if len(names) == 1:
        return Indeterminate(f"whether {names[0]!r:.80} was written is unknown: {error.message}", tier=error.tier)
    return BatchError(
        f"{len(progress.written)} keys written, {len(untouched)} not, {len(progress.unknown)} unknown: {error.message}",
        written=[key for key in names if key in progress.written],
        not_written=untouched,
        unknown=[key for key in names if key in progress.unknown],
        tier=error.tier,
    )
