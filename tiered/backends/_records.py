"""The record layout of a foreign store: stamps compared here, since the store cannot, while nobody else writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

from ..backend import Found, Op
from ..clock import micros
from ..entry import INVALID, VALUE, Entry, Packing, beats
from ..errors import ForeignValue, TieredError
from ..record import decode, encode
from ._calls import Calls
from ._locks import Turn
from ._names import joined

_CHUNK = 1_000
"""Records a sweep reads at a time."""

_SWEEPS = 1_000
"""Namespaces of which it is remembered what is due."""

_SHARE = 50
"""A sweep may take this part of the time (a fiftieth)."""


class Records:
    """What each operation of `tiered.backend.Backend` does to records.

    Other people's bytes under a key of ours are left as they are: they never answer, and refuse to be written over.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._sweeps: dict[str, _Sweep] = {}

    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]:
        return (yield from self._read(space, keys, None))

    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[Mapping[str, bytes]]:
        entries = dict(items)
        refused: dict[str, bytes] = {}

        def decide(key: str, held: Found) -> Entry | None:
            entry = entries[key]
            if isinstance(held, ForeignValue):
                held.key = key
                raise held
            if not isinstance(held, Entry) or beats(entry, held):
                return entry
            if held.stamp > entry.stamp:
                refused[key] = held.stamp
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
            if isinstance(held, ForeignValue) or (isinstance(held, Entry) and held.stamp > stamps[key]):
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
        """As in `Backend`. When something may be due all records are read, in at most a fiftieth of the time."""
        sweep = self._sweeps.pop(space, None) or _Sweep()
        self._sweeps[space] = sweep
        if len(self._sweeps) > _SWEEPS:  # the one not purged for longest begins anew
            del self._sweeps[next(iter(self._sweeps))]
        sweep.grace = grace_ms
        if not sweep.due:
            if now_ms < max(sweep.first, sweep.rest):
                return 0
            yield from self._sweep(space, sweep, now_ms)
        some, sweep.due = sweep.due[:limit], sweep.due[limit:]
        return (yield from self._bury(space, some, sweep, now_ms, into))

    def _sweep(self, space: str, sweep: _Sweep, now_ms: int) -> Op[None]:
        """Find what is due now, and when something will be next."""
        began = time.monotonic()
        sweep.first = inf
        try:
            keys = sorted((yield from self._calls.listed(lambda place: place[1] if place[0] == space else None)))
            due: list[str] = []
            for at in range(0, len(keys), _CHUNK):
                chunk = keys[at : at + _CHUNK]
                for key, held in zip(chunk, (yield from self.fetch(space, chunk)), strict=True):
                    if isinstance(held, Entry):
                        if sweep.over(held) <= now_ms:
                            due.append(key)
                        else:
                            sweep.note(held)
            sweep.due = due
        except BaseException:
            sweep.first = 0.0  # whatever was not seen is still due
            raise
        finally:
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
                None if value is None else _decoded(key, raw(value)) for key, value in zip(keys, values, strict=True)
            ]

        return (yield from self._calls.mget(joined(space, keys), shape, turn))

    def _write(self, space: str, entries: Mapping[str, Entry], packing: Packing | None, turn: Turn) -> Op[None]:
        sweep = self._sweeps.get(space)
        if sweep is not None:
            for entry in entries.values():
                sweep.note(entry)

        def pairs() -> list[tuple[str, bytes]]:
            records = [encode(key.encode(), entry, packing) for key, entry in entries.items()]
            return list(zip(joined(space, entries), records, strict=True))

        if entries:
            yield from self._calls.mset(pairs, turn)


class _Sweep:
    """When the records of one namespace are to be looked through for what is over. All times in ms."""

    def __init__(self) -> None:
        self.due: list[str] = []  # found and not yet buried
        self.first = 0.0  # nothing is due before
        self.rest = 0.0  # no sweep before
        self.grace = 0

    def over(self, entry: Entry) -> float:
        """When it may be buried, or go (R28)."""
        if entry.kind == VALUE:
            return inf if entry.expires is None else entry.expires
        return max(micros(entry.stamp) // 1000, entry.expires or 0) + self.grace

    def note(self, entry: Entry) -> None:
        self.first = min(self.first, self.over(entry))


def _decoded(key: str, raw: bytes) -> Found:
    try:
        return decode(key.encode(), raw)
    except TieredError as error:
        return error
