"""The record layout on SQLite: a table of ours, in which the database itself compares stamps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from ..backend import SCOPE, Capabilities, Found, Op
from ..clock import micros
from ..entry import INVALID, VALUE, Entry, Packing
from ..record import decode_rows, decode_values, encode
from . import _sql_batches as batches
from ._requests import Many, Query, Row, Transaction
from .base import Values

_BLOB, _INTEGER = frozenset({"BLOB"}), frozenset({"INTEGER"})
# `value` comes last: SQLite walks a spilled value's overflow pages to reach a column behind it.
# `expires_at`: NULL never expires; > 0 a value until then; < 0 not a value (deleted, invalid) since minus that.
# No NOT NULL on stamp and value: a damaged row must be readable to be reported.
SCHEMA = batches.Schema(
    {
        "tiered_entries": (
            """CREATE TABLE IF NOT EXISTS tiered_entries (
                 namespace BLOB NOT NULL, key BLOB NOT NULL, stamp BLOB, expires_at INTEGER, value BLOB,
                 PRIMARY KEY (namespace, key))""",
        ),
        "tiered_entries_expiry": (
            """CREATE INDEX IF NOT EXISTS tiered_entries_expiry ON tiered_entries (namespace, expires_at)
               WHERE expires_at IS NOT NULL""",
        ),
        "tiered_meta": (
            "CREATE TABLE IF NOT EXISTS tiered_meta (namespace BLOB NOT NULL PRIMARY KEY, purged_stamp BLOB)",
        ),
    },
    {
        "tiered_entries": {
            "namespace": (_BLOB, 1, 1),
            "key": (_BLOB, 1, 2),
            "stamp": (_BLOB, 0, 0),
            "expires_at": (_INTEGER, 0, 0),
            "value": (_BLOB, 0, 0),
        },
        "tiered_meta": {"namespace": (_BLOB, 1, 1), "purged_stamp": (_BLOB, 0, 0)},
    },
)

# 0 stands for a row whose columns are of the wrong type, NULL for no row. Comparisons, for they cost less than
# typeof(): only a blob is at or above x'', only an integer or NULL is its own cast.
_RECORD = """CASE WHEN t.stamp >= x'' AND t.expires_at IS CAST(t.expires_at AS INTEGER) AND t.value >= x''
             THEN t.value WHEN t.key IS NULL THEN NULL ELSE 0 END"""
_BY_JSON = """SELECT {} FROM json_each(?) j
              LEFT JOIN tiered_entries t ON t.namespace = ? AND t.key = CAST(j.value AS BLOB)"""
_BY_NAME = "SELECT t.key, {} FROM tiered_entries t WHERE t.namespace = ? AND t.key IN ({{}})"
READ = batches.Reading(_BY_JSON.format(_RECORD), _BY_NAME.format(_RECORD))
READ_VALUES = batches.Reading(
    f"{_BY_JSON.format(1)} WHERE tiered_collect({_RECORD}) IS NOT NULL OR j.key % {batches.SOME} = {batches.SOME - 1}",
    READ.by_name,
    collects=True,
)
READ_STAMPS = batches.Reading(_BY_JSON.format("t.stamp"), _BY_NAME.format("t.stamp"))

_INSERT = "INSERT INTO tiered_entries (namespace, key, stamp, expires_at, value) VALUES (?, ?, ?, ?, ?)"
_UPSERT = f"""{_INSERT} ON CONFLICT (namespace, key) DO UPDATE
              SET stamp = excluded.stamp, expires_at = excluded.expires_at, value = excluded.value WHERE """
_DAMAGED = "typeof(stamp) <> 'blob' OR length(stamp) <> 12"  # must not refuse writes for ever
_INVALID = "substr({}.value, 15, 1) IN (x'02', x'0A')"  # the record's flags: kind invalid, with and without expiry
_RENEWED = "expires_at > 0 AND (excluded.expires_at IS NULL OR excluded.expires_at > expires_at)"  # a copy, read again
PUT = f"""{_UPSERT} excluded.stamp > stamp OR {_DAMAGED} OR (excluded.stamp = stamp AND ({_RENEWED}
          OR ({_INVALID.format("tiered_entries")} AND NOT {_INVALID.format("excluded")})))"""
VOID = f"{_UPSERT} excluded.stamp >= stamp OR {_DAMAGED}"
ADD = f"{_INSERT} ON CONFLICT DO NOTHING"
CHANGE = "UPDATE tiered_entries SET stamp = ?, expires_at = ?, value = ? WHERE namespace = ? AND key = ? AND stamp = ?"

RETRACT = (
    f"DELETE FROM tiered_entries WHERE namespace = ? AND key = ? AND stamp = ? AND {_INVALID.format('tiered_entries')}"
)
SPACES = """WITH RECURSIVE found(name) AS (
              SELECT min(namespace) FROM tiered_entries WHERE namespace >= ?1 AND namespace < ?2 UNION ALL
              SELECT (SELECT min(namespace) FROM tiered_entries WHERE namespace > name AND namespace < ?2) FROM found
              WHERE name IS NOT NULL)
            SELECT name FROM found WHERE name IS NOT NULL"""

_SCAN = """SELECT key FROM tiered_entries WHERE namespace = ? AND key {} ? AND key < ?
           AND (expires_at IS NULL OR expires_at > ?) ORDER BY key LIMIT ?"""
SCAN_AFTER, SCAN_FROM = _SCAN.format(">"), _SCAN.format(">=")

# One range holds both: from the oldest tombstone past its grace (negative) up to values expired now.
DUE = """SELECT key, stamp, expires_at FROM tiered_entries
         WHERE namespace = ? AND expires_at >= ? AND expires_at <= ? ORDER BY expires_at LIMIT ?"""
BURY = "UPDATE tiered_entries SET expires_at = ?, value = ? WHERE namespace = ? AND key = ?"
DROP = "DELETE FROM tiered_entries WHERE namespace = ? AND key = ?"
KEEP = "UPDATE tiered_entries SET expires_at = NULL WHERE namespace = ? AND key = ?"
PURGED = """INSERT INTO tiered_meta (namespace, purged_stamp) VALUES (?, ?) ON CONFLICT (namespace) DO UPDATE
            SET purged_stamp = max(ifnull(purged_stamp, x''), excluded.purged_stamp)"""

_FAR = 2**63 - 1  # the largest INTEGER


class RecordTable:
    """The operations of the record layout."""

    name = "record"
    schema = SCHEMA
    capabilities = Capabilities(shared=False, forgets=False)

    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]:
        """What is stored for each of `keys`, in their order, repeats included; errors stand for bad rows."""

        def shape(some: Sequence[str], rows: Iterable[Row]) -> list[Found]:
            return decode_rows(list(map(str.encode, some)), rows)

        chunks = yield from batches.lookup(READ, space.encode(), keys, shape)
        return chunks[0] if len(chunks) == 1 else list(chain.from_iterable(chunks))

    def values(self, space: str, keys: Sequence[str], now_ms: int) -> Op[Values]:
        """The live values alone, without an entry around each."""

        def shape(some: Sequence[str], arrivals: Iterable[list[Any]]) -> Values:
            return Values(*decode_values(list(map(str.encode, some)), arrivals, now_ms))

        return Values.joined((yield from batches.lookup(READ_VALUES, space.encode(), keys, shape)))

    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[Mapping[str, bytes]]:
        """Store what beats what is there, in transactions of up to 10,000 rows or 64 MiB -> {refused: newer stamp}."""

        def write(rows: list[Row]) -> Op[dict[str, bytes]]:
            changed = yield Many(PUT, rows)
            if changed == len(rows):
                return {}
            # in the same transaction: afterwards another writer's newer row would look like a refusal
            stamps = yield from _stamps(space, rows)
            return {row[1].decode(): stamp for row, stamp in zip(rows, stamps, strict=True) if stamp and stamp > row[2]}

        def row(item: tuple[str, Entry]) -> Row:
            return _row(space, *item, packing)

        return (yield from batches.written(items, row, write))

    def swap(
        self, space: str, items: Sequence[tuple[str, Entry, bytes | None]], packing: Packing | None
    ) -> Op[set[str]]:
        """Store each entry whose row still has the stamp seen (None: is still absent) -> the refused keys."""

        def write(rows: list[Row]) -> Op[dict[str, bytes]]:
            new = [row[:5] for row in rows if row[5] is None]
            known = [(*row[2:5], *row[:2], row[5]) for row in rows if row[5] is not None]
            changed = yield Many(ADD, new)
            changed += yield Many(CHANGE, known)
            if changed == len(rows):
                return {}
            stamps = yield from _stamps(space, rows)
            return {row[1].decode(): stamp or b"" for row, stamp in zip(rows, stamps, strict=True) if stamp != row[2]}

        def row(item: tuple[str, Entry, bytes | None]) -> Row:
            key, entry, seen = item
            return (*_row(space, key, entry, packing), seen)

        return set((yield from batches.written(items, row, write)))

    def fill(self, space: str, items: Sequence[tuple[str, Entry, bytes]], packing: Packing | None) -> Op[None]:
        """As `put`: the stamp alone refuses what is late."""
        yield from self.put(space, [(key, entry) for key, entry, _ in items], packing)

    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        """Write "invalid" with the stamp over whatever is not newer, and where nothing is."""

        def write(rows: list[Row]) -> Op[dict[str, bytes]]:
            yield Many(VOID, rows)
            return {}

        def row(item: tuple[str, Entry]) -> Row:
            return _row(space, *item, None)

        yield from batches.written([(key, Entry(INVALID, stamp, None, b"")) for key, stamp in marks], row, write)

    def retract(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        """Forget each key that holds an "invalid" with this very stamp."""
        rows = [(space.encode(), key.encode(), stamp) for key, stamp in marks]
        for at in range(0, len(rows), batches.CHUNK):
            yield Transaction(partial(batches.many, RETRACT, rows[at : at + batches.CHUNK]))

    def spaces(self, space: str) -> Op[list[str]]:
        """The namespaces scoped under `space`, each found by one step through the index."""
        first = (space + SCOPE).encode()
        found: list[str] = yield Query(SPACES, (first, batches.beyond(first)), batches.decoded)
        return found

    def scan(self, space: str, prefix: str, after: str | None, limit: int, now_ms: int) -> Op[list[str]]:
        """Up to `limit` live keys that begin with `prefix`, after `after`, in the order of their UTF-8 bytes."""
        whole, start, end = batches.bounds(prefix, after)
        sql = SCAN_FROM if whole else SCAN_AFTER
        keys: list[str] = yield Query(sql, (space.encode(), start, end, now_ms, limit), batches.decoded)
        return keys

    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> Op[int]:
        """Bury up to `limit` expired values and drop tombstones older than `grace_ms` (R28) -> rows changed."""
        name = space.encode()
        due = (name, min(grace_ms - now_ms, 0), now_ms)
        if not (yield Query(DUE, (*due, 1))):
            return 0  # the common case takes no write lock
        changed: int = yield Transaction(partial(_purge, name, due, limit, into))
        return changed


def _row(space: str, key: str, entry: Entry, packing: Packing | None) -> Row:
    """namespace, key, stamp, expires_at, value."""
    name = key.encode()
    if entry.kind == VALUE:
        until = entry.expires and min(entry.expires, _FAR)
    else:
        until = _buried(entry.stamp, entry.expires or 0)
    return space.encode(), name, entry.stamp, until, encode(name, entry, packing)


def _buried(stamp: bytes, expires: int) -> int:
    """`expires_at` of what is not a value: minus the later of its stamp's time and its expiry, in ms."""
    return -min(max(micros(stamp) // 1000, expires, 1), _FAR)


def _stamps(space: str, rows: Sequence[Row]) -> Op[list[bytes | None]]:
    """The stamps now stored for the keys of `rows`; None for no row, or none that is a stamp."""

    def shape(_: Sequence[str], found: Iterable[Row]) -> list[bytes | None]:
        return [stamp if isinstance(stamp, bytes) else None for (stamp,) in found]

    keys = [row[1].decode() for row in rows]
    return list(chain.from_iterable((yield from batches.lookup(READ_STAMPS, space.encode(), keys, shape))))


def _purge(name: bytes, due: tuple[bytes, int, int], limit: int, into: int) -> Op[int]:
    rows: list[Row] = yield Query(DUE, (*due, limit))
    buried: list[Row] = []
    dropped: list[Row] = []
    kept: list[Row] = []  # damaged: nothing can be said of it, so it stays, out of purge's way, for reads to report
    highest = b""
    for key, stamp, until in rows:
        if not isinstance(stamp, bytes) or len(stamp) != 12:
            kept.append((name, key))
        elif until > 0:
            record = encode(key, Entry(into, stamp, until, b""))
            buried.append((_buried(stamp, until), record, name, key))
        else:
            dropped.append((name, key))
            highest = max(highest, stamp)
    yield Many(BURY, buried)
    yield Many(KEEP, kept)
    yield Many(DROP, dropped)
    if dropped:
        yield Many(PURGED, [(name, highest)])
    return len(rows)
