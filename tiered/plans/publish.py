"""How a write begins and ends above the authority: marks, copies, and the one exit path of whatever goes wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType

from ..effects import Ask, Offer, Overwrite, Plan, Swap, Void
from ..entry import VALUE, Entry
from ..errors import TieredError
from ..level import Level
from .stack import Stack, ask

FRESH = 1.0
"""Seconds from the authority's acknowledgement within which a writer may install a value where nothing is (R7)."""


class Writing:
    """A write of `keys` under way: the one exit path of failure, time-out and cancellation, without awaiting (R15).

    Used as `with`: however the block ends, memory and the shared tiers hold nothing older than the newest stamp
    that this write may have left in the authority.
    """

    def __init__(self, stack: Stack, keys: Iterable[str]) -> None:
        self._stack = stack
        self._keys = list(keys)
        self._stamps: dict[str, bytes] = {}
        self._marked: dict[Level, dict[str, bytes]] = {}  # how others had marked the keys before

    def __enter__(self) -> Writing:
        self._stack.front.enter(self._keys)
        if not self._stack.stamped:
            try:
                self._stack.overlaps.begin(self, self._stack.space, self._keys)
            except BaseException:  # interrupted
                self._leave()
                raise
        return self

    def _leave(self) -> None:
        if not self._stack.stamped:
            self._stack.overlaps.end(self, self._stack.space, self._keys)
        self._stack.front.leave(self._keys)

    def stamp(self, keys: Iterable[str]) -> bytes:
        """A new stamp for `keys`, whose copies above are not to be trusted from here on (R13)."""
        stamp = self._stack.clock.draw()
        names = list(keys)
        for level in self._stack.uppers:
            for key, mark in level.mark(self._stack.space, names, stamp).items():
                if mark != self._stamps.get(key):
                    self._marked.setdefault(level, {})[key] = mark
        self._stamps.update(dict.fromkeys(names, stamp))
        return stamp

    def alone(self, key: str) -> bool:
        """Whether no other write of `key` was under way here meanwhile (R9); stamps make that needless."""
        return self._stack.stamped or self._stack.overlaps.alone(self, self._stack.space, key)

    def abandon(self) -> None:
        """The write ended badly: nothing older than its stamps stays readable above the authority."""
        stack = self._stack
        stamps = self._stamps
        if stamps and not stack.stamped:  # a copy read meanwhile has a generation above ours
            stamps = dict.fromkeys(stamps, stack.clock.draw())
        stack.front.drop_many(stamps.items())
        for level in stack.uppers:
            level.break_off(stack.space, stamps, stack.clock.monotonic())

    def withdraw(self, keys: Iterable[str] | None = None) -> None:
        """The authority does not have these (all of them: None) for certain: what lies above is as good as before."""
        names = self._keys if keys is None else keys
        gone = {key: stamp for key in names if (stamp := self._stamps.pop(key, None)) is not None}
        for level in self._stack.uppers:
            level.call_off(self._stack.space, gone, self._marked.get(level, {}))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self.abandon()
        finally:
            self._leave()


def publish(
    stack: Stack,
    writing: Writing,
    entries: Mapping[str, Entry],
    began: float,
    *,
    around: bool = False,
    announced: bool = False,
) -> Plan[None]:
    """After the authority: all shared tiers in parallel, then memory (R17).

    `around` voids in place of putting; `announced`: markers are there (R18).

    Over an unstamped authority shared tiers are voided, and memory keeps only what no other write overlapped: of
    two that did, either may have come last (R9). What others read meanwhile has a generation above our stamp, so
    what ends the write is stamped afresh.
    """
    if not stack.stamped:
        fresh = stack.clock.draw()
        entries = {key: entry._replace(stamp=fresh) for key, entry in entries.items()}
    stamps = {key: entry.stamp for key, entry in entries.items()}
    lost: dict[str, bytes] = {}
    stack.note(entries)
    if around or not (stack.stamped or stack.immutable):
        yield from void(stack, stamps)
    elif announced:
        lost = yield from _replace_markers(stack, entries, began)
    elif stack.uppers:
        for level, answer in zip(stack.uppers, (yield from ask(stack, _puts(stack, entries, began))), strict=True):
            if isinstance(answer, TieredError):
                level.break_off(stack.space, stamps, stack.clock.monotonic())
            else:
                level.unmark(stack.space, stamps)
                lost.update(answer or {})
    kept: Mapping[str, Entry] = entries
    if around:
        kept = {}
    elif not stack.stamped and not stack.immutable:
        kept = {key: entry for key, entry in entries.items() if writing.alone(key)}
    stack.remember(kept, began)
    gone = [(key, entry.stamp) for key, entry in entries.items() if entry.kind != VALUE or key not in kept]
    stack.front.drop_many(gone)
    stack.front.drop_many(lost.items())  # R19: the other writer won


def _puts(stack: Stack, entries: Mapping[str, Entry], began: float) -> list[Ask]:
    """The last step of a write in each shared tier, of values that never change the fastest one."""
    values = stack.immutable and all(entry.kind == VALUE for entry in entries.values())
    acknowledged, monotonic = stack.clock.monotonic(), stack.clock.monotonic

    def fresh() -> bool:  # R7
        return monotonic() < acknowledged + FRESH

    items = [(level, _aged(stack, level, entries, began)) for level in stack.uppers]
    if values:
        return [Overwrite(level, stack.space, some) for level, some in items]
    return [Offer(level, stack.space, some, fresh) for level, some in items]


def _aged(stack: Stack, level: Level, entries: Mapping[str, Entry], began: float) -> list[tuple[str, Entry]]:
    return [
        (key, stack.aged(entry._replace(expires=stack.grave(level, entry.kind, entry.expires)), began, level.ttl))
        if entry.kind != VALUE
        else (key, stack.aged(entry, began, level.ttl))
        for key, entry in entries.items()
    ]


def void(stack: Stack, stamps: Mapping[str, bytes]) -> Plan[None]:
    """Void copies in every shared tier, at once; what cannot be reached is repaired later."""
    voids = [Void(level, stack.space, list(stamps.items())) for level in stack.uppers]
    for level, answer in zip(stack.uppers, (yield from ask(stack, voids)), strict=True):
        if isinstance(answer, TieredError):
            level.break_off(stack.space, stamps, stack.clock.monotonic())
        else:
            level.unmark(stack.space, stamps)


def _replace_markers(stack: Stack, entries: Mapping[str, Entry], began: float) -> Plan[dict[str, bytes]]:
    """The last step of a strict write: our own marker becomes the value; what is older goes; a newer one wins.

    -> the keys not taken. Where the marker is gone, nothing is installed: whoever came in between may have been newer.
    """
    stamps = {key: entry.stamp for key, entry in entries.items()}
    swaps: list[Ask] = [
        Swap(level, stack.space, [(key, entry, entry.stamp) for key, entry in _aged(stack, level, entries, began)])
        for level in stack.uppers
    ]
    lost: dict[str, bytes] = {}
    for level, answer in zip(stack.uppers, (yield from ask(stack, swaps)), strict=True):
        failed = isinstance(answer, TieredError)
        if not failed and answer:
            gone = {key: stamps[key] for key in answer}
            lost.update(gone)
            [voided] = yield from ask(stack, [Void(level, stack.space, list(gone.items()))])
            failed = isinstance(voided, TieredError)
        if failed:
            level.break_off(stack.space, stamps, stack.clock.monotonic())
        else:
            level.unmark(stack.space, stamps)
    return lost
