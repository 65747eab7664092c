"""A read: down through the tiers until every key is answered, and copies on the way up.

memory  ->  shared tiers, top to bottom  ->  authority
memory  <-  each shared tier that missed <-  (conditional fills)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from ..backend import Found, all_live
from ..clock import ZERO
from ..effects import Add, Ask, Fetch, Fill, Lease, Plan, Void
from ..entry import DELETED, INVALID, VALUE, Entry
from ..errors import CorruptEntry, ForeignValue, TieredError
from ..level import Level
from .stack import Stack, ask, expel, log, repair

Gap = tuple[Level, dict[str, bytes | None]]
"""A shared tier and the keys it missed, each with the lease it gave; None: what it holds is damaged."""


@dataclass(slots=True)
class Sight:
    """What a look through the tiers found."""

    live: dict[str, Entry] = field(default_factory=dict)  # values that may be served
    state: dict[str, bytes | None] = field(default_factory=dict)  # the stamp of what is not live, None: absent
    errors: dict[str, TieredError] = field(default_factory=dict)  # records of the authority that cannot be served


def read(stack: Stack, keys: Sequence[str]) -> Plan[dict[str, Entry]]:
    """The live entries of distinct `keys` that memory does not hold; absent keys are left out.

    Raises BackendUnavailable if the authority had to answer and did not, CorruptEntry or UnknownVersion if what
    it holds cannot be served.
    """
    stack.front.enter(keys)
    try:
        sight = yield from look(stack, keys)
        for error in sight.errors.values():
            raise error
        return sight.live
    finally:
        stack.front.leave(keys)


def look(stack: Stack, keys: Sequence[str]) -> Plan[Sight]:
    """Find `keys` below memory and leave copies above where each was found. The caller has entered the keys (R12)."""
    sight = Sight()
    gaps: list[Gap] = []  # shared tiers that answered "not here", with the leases they gave
    wanted: Sequence[str] = keys
    generation = None if stack.stamped else stack.clock.draw()  # orders what has no stamp (R12)
    for level in stack.uppers:
        if not wanted:
            return sight
        if level.broken and not (yield from repair(stack, level)):
            continue
        asked = level.trusted(stack.space, wanted)  # dirty keys bypass it
        if not asked:
            continue
        began = stack.clock.time()
        [answer] = yield from ask(stack, [_question(stack, level, asked)])
        if isinstance(answer, TieredError):
            continue  # not a miss: a tier that failed is not filled either
        believed = yield from believe(stack, level, asked, answer)
        copies, missed = _sift_copies(stack, level, asked, believed)
        if copies:
            stack.note(copies)
            yield from _keep(stack, gaps, copies, began, generation)
            for key, entry in copies.items():
                if entry.kind == VALUE:
                    sight.live[key] = entry
                else:
                    sight.state[key] = entry.stamp
            wanted = [key for key in wanted if key not in copies]
        if missed:
            gaps.append((level, missed))
    if wanted:
        began = stack.clock.time()
        [answer] = yield from ask(stack, [Fetch(stack.authority, stack.space, wanted)])
        if isinstance(answer, TieredError):
            raise answer
        found = _sift_authority(stack, sight, wanted, answer)
        stack.note(found)
        yield from _keep(stack, gaps, found, began, generation)
    return sight


def _question(stack: Stack, level: Level, keys: Sequence[str]) -> Ask:
    """A miss leaves a lease (R4), which values that never change have no need of."""
    if stack.immutable:
        return Fetch(level, stack.space, keys)
    return Lease(level, stack.space, keys, stack.now_ms())


def _keep(
    stack: Stack, gaps: list[Gap], entries: Mapping[str, Entry], began: float, generation: bytes | None
) -> Plan[None]:
    """Copies into memory and into every tier above that missed; a refusal means that something newer is there."""
    stack.remember(entries, began, generation)
    stack.front_count.fills += sum(entry.kind == VALUE for entry in entries.values())
    fills: list[Ask] = []
    for level, missed in gaps:
        found = [(key, entry) for key, entry in entries.items() if key in missed]
        damaged = [(key, entry.stamp) for key, entry in found if missed[key] is None]
        if damaged:  # its stamp may be this very one, which a fill alone would not replace
            yield from ask(stack, [Void(level, stack.space, damaged)])
        items = [(key, stack.aged(entry, began, level.ttl), missed[key] or b"") for key, entry in found]
        if items and stack.immutable:
            fills.append(Add(level, stack.space, [(key, entry) for key, entry, _ in items]))
        elif items:
            fills.append(Fill(level, stack.space, items))
        level.count.fills += len(items)
    yield from ask(stack, fills)


def believe(stack: Stack, level: Level, keys: Sequence[str], answers: Sequence[Found]) -> Plan[Sequence[Found]]:
    """`observe` for a shared tier, from which it removes what cannot be believed."""
    believed = observe(stack, answers)
    if believed is not answers:
        far = [
            (key, found.stamp)
            for key, found, now in zip(keys, answers, believed, strict=True)
            if isinstance(found, Entry) and now is not found
        ]
        yield from expel(stack, level, far)
    return believed


def observe(stack: Stack, answers: Sequence[Found]) -> Sequence[Found]:
    """Advance the clock past every stamp read; entries from too far in the future become errors (R1)."""
    stamps = [found.stamp for found in answers if found.__class__ is Entry]
    try:
        stack.clock.observe(max(stamps, default=ZERO))
        return answers
    except CorruptEntry:
        return [_believed(stack, found) for found in answers]


def _believed(stack: Stack, found: Found) -> Found:
    if isinstance(found, Entry):
        try:
            stack.clock.observe(found.stamp)
        except CorruptEntry as error:
            return error
    return found


def _sift_copies(
    stack: Stack, level: Level, keys: Sequence[str], answers: Sequence[Found]
) -> tuple[dict[str, Entry], dict[str, bytes | None]]:
    """What a shared tier knows (values, and `deleted`), and what it missed, as in `Gap`."""
    now, monotonic = stack.now_ms(), stack.clock.monotonic()
    floors = level.floors(stack.space, monotonic)
    known = stack.floors.of(stack.space)
    copies: dict[str, Entry] = {}
    missed: dict[str, bytes | None] = {}
    for key, found in zip(keys, answers, strict=True):
        if (
            isinstance(found, Entry)
            and found.kind != INVALID
            and not (floors and _under(floors, key, found))
            and found.stamp >= known.get(key, b"")  # R11
        ):
            if found.expires is None or found.expires > now:
                copies[key] = found
                continue
            level.count.expired += 1
        if isinstance(found, TieredError):
            level.count.corrupt += 1
            log.warning("tier %s: a copy was not served: %s", level.name, found)
            if not isinstance(found, ForeignValue):  # which is not ours to replace
                missed[key] = None
            continue
        missed[key] = found.value if isinstance(found, Entry) and found.kind == INVALID else b""
    level.count.hits += len(copies)
    level.count.misses += len(missed)
    return copies, missed


def _under(floors: list[tuple[str, bytes]], key: str, found: Entry) -> bool:
    return any(found.stamp <= floor and key.startswith(prefix) for prefix, floor in floors)


def _sift_authority(stack: Stack, sight: Sight, keys: Sequence[str], answers: Sequence[Found]) -> Mapping[str, Entry]:
    """Fill in `sight`; what may be copied above: live values, and `deleted`."""
    level, now = stack.authority, stack.now_ms()
    live: dict[str, Entry] = {}
    graves: dict[str, Entry] = {}
    answers = observe(stack, answers)
    if all_live(answers, now):
        live = dict(zip(keys, cast("Sequence[Entry]", answers), strict=True))
        keys = answers = ()
    for key, found in zip(keys, answers, strict=True):
        if isinstance(found, Entry):
            if found.live(now):
                live[key] = found
                continue
            sight.state[key] = found.stamp
            level.count.misses += 1
            if found.kind == DELETED:
                graves[key] = found._replace(expires=None)
            elif found.kind == VALUE:
                level.count.expired += 1
        elif found is None:
            sight.state[key] = None
            level.count.misses += 1
        else:
            level.count.corrupt += 1
            sight.errors[key] = found.at(level.name, key)
            log.warning("a record cannot be served: %s", found)
    level.count.hits += len(live)
    sight.live.update(live)
    return {**live, **graves} if graves else live
