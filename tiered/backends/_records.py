"""The record layout of a foreign store: stamps compared here, since the store cannot, while nobody else writes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any

from ..backend import Found, Op
from ..clock import micros
from ..codecs import RAW, ZSTD
from ..entry import INVALID, VALUE, Entry, Packing, beats
from ..errors import CorruptEntry, ForeignValue, TieredError, UnknownVersion
from ..record import FLAGS_AT, MAGIC, STAMP_AT, VERSION, decode, encode, is_record
from ._calls import Calls
from ._locks import Turn
from ._names import joined, split
from ._peer import heavy

_CHUNK = 500
"""Records a sweep reads at a time; so many a purge of few rows reads in all, the next one goes on from there."""

_SWEEPS = 1_000
"""Namespaces of which it is remembered what is due."""

_SHARE = 50
"""A sweep may take this part of the time (a fiftieth)."""


class Records:
    """What each operation of `tiered.backend.Backend` does to records.

    Other people's bytes under a key of ours are left as they are: they never answer, and refuse to be written over.
    """

    def __init__(self, calls: Calls, *, torn: bool) -> None:
        self._calls = calls
        self._torn = torn  # a record could be read while it is being written
        self._sweeps: dict[str, _Sweep] = {}

    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]:
        def steps(turn: Turn | None) -> Op[list[Found]]:
            return self._read(space, keys, turn)

        if self._torn:
            return (yield from self._calls.hold(joined(space, keys), steps, shared=True))
        return (yield from steps(None))

    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[Mapping[str, bytes]]:
        entries = dict(items)
        refused: dict[str, bytes] = {}

        def decide(key: str, held: Found) -> Entry | None:
            entry = entries[key]
            if isinstance(held, ForeignValue):
                held.key = key
                raise held
            if isinstance(held, Entry) and beats(entry, held):
                return entry
            there = _stamp(held)
            if there is None or entry.stamp > there:
                return entry
            if there > entry.stamp:
                refused[key] = there
            return None

        yield from self._change(space, list(entries), decide, packing)
        return refused

    def swap(
        self, space: str, items: Sequence[tuple[str, Entry, bytes | None]], packing: Packing | None
    ) -> Op[set[str]]:
        wanted = {key: (entry, seen) for key, entry, seen in items}
        refused: set[str] = set()

        def decide(key: str, held: Found) -> Entry | None:
            entry, seen = wanted[key]
            if (held is None and seen is None) or (isinstance(held, Entry) and held.stamp == seen):
                return entry
            refused.add(key)
            return None

        yield from self._change(space, list(wanted), decide, packing)
        return refused

    def fill(self, space: str, items: Sequence[tuple[str, Entry, bytes]], packing: Packing | None) -> Op[None]:
        entries = {key: entry for key, entry, _ in items}

        def decide(key: str, held: Found) -> Entry | None:
            if held is None or (isinstance(held, Entry) and beats(entries[key], held)):
                return entries[key]
            return None

        yield from self._change(space, list(entries), decide, packing)

    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        """A mark goes into absence too: there are no leases (R8)."""
        stamps = dict(marks)

        def decide(key: str, held: Found) -> Entry | None:
            there = _stamp(held)
            if isinstance(held, ForeignValue) or (there is not None and there > stamps[key]):
                return None
            return Entry(INVALID, stamps[key], None, b"")

        yield from self._change(space, list(stamps), decide, None)

    def retract(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        keys = [key for key, _ in marks]

        def steps(turn: Turn) -> Op[None]:
            found = yield from self._read(space, keys, turn)
            mine = [
                key
                for (key, stamp), held in zip(marks, found, strict=True)
                if isinstance(held, Entry) and (held.kind, held.stamp) == (INVALID, stamp)
            ]
            yield from self._calls.mdelete(joined(space, mine), turn)

        yield from self._calls.hold(joined(space, keys), steps)

    def live(self, space: str, keys: Sequence[str], now_ms: int) -> Op[list[str]]:
        """Those of `keys` that hold a value."""
        found = yield from self.fetch(space, keys)
        return [key for key, held in zip(keys, found, strict=True) if isinstance(held, Entry) and held.live(now_ms)]

    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> Op[int]:
        """As in `Backend`. When something may be due all records are read by and by, in at most a fiftieth of the time;
        by one who purges many without a pause.
        """
        sweep = self._sweeps.pop(space, None) or _Sweep()
        self._sweeps[space] = sweep
        if len(self._sweeps) > _SWEEPS:  # the one not purged for longest begins anew
            del self._sweeps[next(iter(self._sweeps))]
        sweep.grace = grace_ms
        many = limit >= _CHUNK
        try:
            if (
                not sweep.due
                and (now_ms >= sweep.rest or (sweep.left and many))
                and (sweep.left or now_ms >= sweep.first)
            ):
                yield from self._sweep(space, sweep, now_ms, many)
            return (yield from self._bury(space, sweep.some(limit), sweep, now_ms, into))
        except BaseException:
            sweep.left, sweep.first = [], 0.0  # whatever was not seen, or not buried, is still due
            raise

    def _sweep(self, space: str, sweep: _Sweep, now_ms: int, many: bool) -> Op[None]:
        """Find some of what is due now, and when something will be next."""
        began = time.monotonic()
        if not sweep.left:
            sweep.first = inf
            names = yield from self._calls.names()
            sweep.left = [names[at : at + _CHUNK] for at in range(0, len(names), _CHUNK)]
        while sweep.left and not sweep.due:
            places = map(split, sweep.left.pop())  # in one step, for others may be at it too
            keys = [place[1] for place in places if place is not None and place[0] == space]
            found = (yield from self.fetch(space, keys)) if keys else []
            for key, held in zip(keys, found, strict=True):
                if isinstance(held, Entry):
                    if sweep.over(held) <= now_ms:
                        sweep.due.append(key)
                    else:
                        sweep.note(held)
            if not many:
                break
        sweep.rest = now_ms + (time.monotonic() - began) * 1000 * _SHARE

    def _bury(self, space: str, keys: list[str], sweep: _Sweep, now_ms: int, into: int) -> Op[int]:
        """What is still due of `keys` becomes `into`, or goes -> how many."""

        def steps(turn: Turn) -> Op[int]:
            found = yield from self._read(space, keys, turn)
            due = [
                (key, held)
                for key, held in zip(keys, found, strict=True)
                if isinstance(held, Entry) and sweep.over(held) <= now_ms
            ]
            graves = {key: held._replace(kind=into, value=b"", soft=None) for key, held in due if held.kind == VALUE}
            yield from self._write(space, graves, None, turn)
            yield from self._calls.mdelete(joined(space, [key for key, held in due if held.kind != VALUE]), turn)
            return len(due)

        return (yield from self._calls.hold(joined(space, keys), steps)) if keys else 0

    def _change(
        self,
        space: str,
        keys: Sequence[str],
        decide: Callable[[str, Found], Entry | None],
        packing: Packing | None,
    ) -> Op[None]:
        """Read, `decide` what to store for each key (None: leave it), write."""

        def steps(turn: Turn) -> Op[None]:
            found = yield from self._read(space, keys, turn)
            chosen = {key: decide(key, held) for key, held in zip(keys, found, strict=True)}
            entries = {key: entry for key, entry in chosen.items() if entry is not None}
            yield from self._write(space, entries, packing, turn)

        if keys:
            yield from self._calls.hold(joined(space, keys), steps)

    def _read(self, space: str, keys: Sequence[str], turn: Turn | None) -> Op[list[Found]]:
        def shape(values: list[Any]) -> list[Found]:
            raw = self._calls.raw
            return [
                None if value is None else self._decoded(key, raw(value))
                for key, value in zip(keys, values, strict=True)
            ]

        return (yield from self._calls.mget(joined(space, keys), shape, turn, heavy=True))

    def _write(self, space: str, entries: Mapping[str, Entry], packing: Packing | None, turn: Turn) -> Op[None]:
        sweep = self._sweeps.get(space)
        if sweep is not None:
            for entry in entries.values():
                sweep.note(entry)

        def pairs() -> list[tuple[str, bytes]]:
            records = [encode(key.encode(), entry, packing) for key, entry in entries.items()]
            return list(zip(joined(space, entries), records, strict=True))

        if entries:
            yield from self._calls.mset(pairs, turn, heavy([entry.value for entry in entries.values()]))

    def _decoded(self, key: str, raw: bytes) -> Found:
        try:
            return decode(key.encode(), raw)
        except UnknownVersion as error:
            if is_record(key.encode(), raw) and len(raw) >= FLAGS_AT:
                return _Newer(error.message, raw[STAMP_AT:FLAGS_AT])
        except TieredError as error:
            if not isinstance(error, CorruptEntry) or _may_be_ours(raw) or (self._torn and not raw):
                return error
        return ForeignValue("the stored bytes are not a record of tiered: something else wrote them")


class _Newer(UnknownVersion):
    """A sound record of a newer release: its stamp, the place of which never changes, is compared all the same."""

    def __init__(self, message: str, stamp: bytes) -> None:
        super().__init__(message)
        self.stamp = stamp


class _Sweep:
    """When the records of one namespace are to be looked through for what is over. All times in ms."""

    def __init__(self) -> None:
        self.left: list[list[str]] = []  # names not looked at yet, of all namespaces
        self.due: deque[str] = deque()  # keys found and not yet buried
        self.first = 0.0  # nothing is due before
        self.rest = 0.0  # no sweep before
        self.grace = 0

    def some(self, limit: int) -> list[str]:
        """Take up to `limit` of what is due."""
        taken: list[str] = []
        with suppress(IndexError):
            while len(taken) < limit:
                taken.append(self.due.popleft())
        return taken

    def over(self, entry: Entry) -> float:
        """When it may be buried, or go (R28)."""
        if entry.kind == VALUE:
            return inf if entry.expires is None else entry.expires
        return max(micros(entry.stamp) // 1000, entry.expires or 0) + self.grace

    def note(self, entry: Entry) -> None:
        self.first = min(self.first, self.over(entry))


def _stamp(held: Found) -> bytes | None:
    return held.stamp if isinstance(held, Entry | _Newer) else None


def _may_be_ours(raw: bytes) -> bool:
    """Whether the bytes may be what is left of a record, or another key's: its header makes sense as far as it goes."""
    return (
        raw[:2] == bytes((MAGIC, VERSION))
        and raw[FLAGS_AT : FLAGS_AT + 1] <= b"\x0f"
        and raw[FLAGS_AT + 1 : FLAGS_AT + 2] <= bytes((max(RAW, ZSTD),))
    )
