"""Markers of a strict write: no shared tier shows an older copy from before the authority has it (R18).

    marker in every shared tier  ->  authority  ->  each marker becomes the value
                                     fails for certain: each marker becomes what it was placed over, though no value

A marker that was simply removed would let a slow fill in that is older than what it replaced. Where a fill needs a
lease that cannot be; elsewhere the marker is placed by compare-and-set, so that its predecessor's stamp is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..effects import Ask, Fetch, Plan, Put, Retract, Swap
from ..entry import INVALID, Entry
from ..errors import BackendUnavailable, CorruptEntry, TieredError
from ..level import Level
from .read import believe
from .stack import Stack, ask, expel


@dataclass(slots=True)
class Markers:
    """The markers of one write, by tier: the stamp of each key's, and that of what it lies over (None: nothing)."""

    placed: dict[Level, dict[str, tuple[bytes, bytes | None]]] = field(default_factory=dict)

    def place(self, level: Level, key: str, stamp: bytes, below: bytes | None) -> None:
        own = self.placed.setdefault(level, {})
        before = own.get(key)
        own[key] = (stamp, before[1] if before is not None and before[0] == below else below)


def announce(stack: Stack, markers: Markers, batch: Mapping[str, Entry]) -> Plan[Mapping[str, bytes]]:
    """Before the authority: a marker in every shared tier -> the keys to be stamped again, each above what.

    Raises BackendUnavailable where one could not be placed: the authority is untouched then.
    """
    below = yield from _look_below(stack, list(batch))
    until = stack.now_ms() + int((stack.authority.timeout + max(level.timeout for level in stack.uppers)) * 1000)
    asks: list[Ask] = []
    newer: dict[str, bytes] = {}
    for level in stack.uppers:
        seen = below.get(level, {})
        swaps = []
        for key, stamp in seen.items():
            if stamp is not None and stamp > batch[key].stamp:
                newer[key] = max(stamp, newer.get(key, stamp))
            else:
                swaps.append((key, Entry(INVALID, batch[key].stamp, until, b""), stamp))
        puts = [(key, Entry(INVALID, entry.stamp, until, b"")) for key, entry in batch.items() if key not in seen]
        asks += [Swap(level, stack.space, swaps)] if swaps else []
        asks += [Put(level, stack.space, puts)] if puts else []
    failed: tuple[Level, TieredError] | None = None
    for asked, answer in zip(asks, (yield from ask(stack, asks)), strict=True):
        level = asked.level
        if isinstance(answer, TieredError):
            failed = failed or (level, answer)
        elif isinstance(asked, Swap):
            for key, _, stamp in asked.items:
                if key in answer:  # somebody came in between: look again
                    newer.setdefault(key, batch[key].stamp)
                else:
                    markers.place(level, key, batch[key].stamp, stamp)
        else:
            newer |= yield from _put(stack, markers, level, batch, answer, leased=level not in below)
    if failed is not None:
        raise _unannounced(*failed)
    return newer


def _look_below(stack: Stack, keys: list[str]) -> Plan[dict[Level, dict[str, bytes | None]]]:
    """The stamps that the markers will lie over, in tiers without leases; what cannot be read is left out."""
    settled = [level for level in stack.uppers if not level.backend.capabilities.leases]
    below: dict[Level, dict[str, bytes | None]] = {}
    for level, answer in zip(
        settled, (yield from ask(stack, [Fetch(level, stack.space, keys) for level in settled])), strict=True
    ):
        if isinstance(answer, TieredError):
            raise _unannounced(level, answer)
        found = yield from believe(stack, level, keys, answer)
        below[level] = {
            key: one.stamp if one is not None else None
            for key, one in zip(keys, found, strict=True)
            if not isinstance(one, TieredError)
        }
    return below


def _put(
    stack: Stack, markers: Markers, level: Level, batch: Mapping[str, Entry], refused: Mapping[str, bytes], leased: bool
) -> Plan[Mapping[str, bytes]]:
    """Markers that were put, not swapped in -> what refused them, without what nobody can go above (R1)."""
    if leased:
        for key in batch.keys() - refused.keys():
            markers.place(level, key, batch[key].stamp, None)
    far = [(key, stamp) for key, stamp in refused.items() if not _believed(stack, stamp)]
    if far:
        level.count.corrupt += len(far)
        yield from expel(stack, level, far)
    return {**refused, **{key: batch[key].stamp for key, _ in far}}


def _believed(stack: Stack, stamp: bytes) -> bool:
    try:
        stack.clock.observe(stamp)
    except CorruptEntry:
        return False
    return True


def _unannounced(level: Level, error: TieredError) -> BackendUnavailable:
    unavailable = BackendUnavailable(
        f"a strict write must reach every shared tier first: {error.message}; nothing was written; "
        "try again, or use WriteThrough() without strict",
        tier=level.name,
    )
    unavailable.__cause__ = error
    return unavailable


def retract(stack: Stack, markers: Markers, keys: list[str]) -> Plan[None]:
    """The authority does not have these writes for certain: take back the markers that are still there."""
    asks: list[Ask] = []
    for level, placed in markers.placed.items():
        own = [(key, *placed[key]) for key in keys if key in placed]
        over = [(key, Entry(INVALID, below, None, b""), stamp) for key, stamp, below in own if below is not None]
        alone = [(key, stamp) for key, stamp, below in own if below is None]
        asks += [Swap(level, stack.space, over)] if over else []
        asks += [Retract(level, stack.space, alone)] if alone else []
    yield from ask(stack, asks)
