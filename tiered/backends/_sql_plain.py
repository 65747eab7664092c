"""The plain layout on SQLite: LangChain's table, with bytes in it as LangChain's SQLStore writes them.

No stamps and no expiry. Keys and namespaces are TEXT there; they are compared byte by byte, as everywhere, for
SQLite's BINARY collation compares the bytes of their UTF-8.
"""

# ruff: noqa: ARG002  every layout's operations take the same arguments

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from typing import Any

from ..backend import SCOPE, Capabilities, Found, Op
from ..clock import ZERO
from ..entry import VALUE, Entry, Packing
from ..errors import CorruptEntry, ForeignValue, TieredError
from ..record import MAGIC, is_record
from . import _sql_batches as batches
from ._requests import Many, Query, Row, Transaction
from .base import Values

TABLE = "langchain_key_value_stores"
_TEXT = frozenset({"VARCHAR", "TEXT"})  # TEXT: as made by older releases of theirs
SCHEMA = batches.Schema(
    {
        TABLE: (  # the indexes with the table only: one that somebody dropped stays away
            f"""CREATE TABLE IF NOT EXISTS {TABLE} (
                  namespace VARCHAR NOT NULL, "key" VARCHAR NOT NULL, value BLOB NOT NULL,
                  PRIMARY KEY (namespace, "key"))""",
            f"CREATE INDEX IF NOT EXISTS ix_{TABLE}_namespace ON {TABLE} (namespace)",
            f'CREATE INDEX IF NOT EXISTS ix_{TABLE}_key ON {TABLE} ("key")',
        )
    },
    {TABLE: {"namespace": (_TEXT, 1, 1), "key": (_TEXT, 1, 2), "value": (frozenset({"BLOB"}), 1, 0)}},
)

_BY_JSON = f"FROM json_each(?) j LEFT JOIN {TABLE} t ON t.namespace = ? AND t.key = j.value"
_BY_NAME = f"FROM {TABLE} t WHERE t.namespace = ? AND t.key IN ({{}})"
_HOLE = "CAST(? AS TEXT)"
READ = batches.Reading(f"SELECT t.value {_BY_JSON}", f"SELECT CAST(t.key AS BLOB), t.value {_BY_NAME}", _HOLE)
READ_PRESENT = batches.Reading(
    f"SELECT CASE WHEN t.key IS NOT NULL THEN x'' END {_BY_JSON}", f"SELECT CAST(t.key AS BLOB), x'' {_BY_NAME}", _HOLE
)
_INSERT = f"INSERT INTO {TABLE} (namespace, key, value) VALUES (?, ?, ?)"
PUT = f"{_INSERT} ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value"
ADD = f"{_INSERT} ON CONFLICT DO NOTHING"
DROP = f"DELETE FROM {TABLE} WHERE namespace = ? AND key = ?"
# Text is cast, both ways: bounds need not be UTF-8, and a stored key that is not is reported as what it is.
_SCAN = f"""SELECT CAST(key AS BLOB) FROM {TABLE} WHERE namespace = ? AND key {{}} CAST(? AS TEXT)
            AND key < CAST(? AS TEXT) ORDER BY key LIMIT ?"""
SCAN_AFTER, SCAN_FROM = _SCAN.format(">"), _SCAN.format(">=")
SPACES = f"""WITH RECURSIVE found(name) AS (
               SELECT min(namespace) FROM {TABLE}
               WHERE namespace >= CAST(?1 AS TEXT) AND namespace < CAST(?2 AS TEXT) UNION ALL
               SELECT (SELECT min(namespace) FROM {TABLE} WHERE namespace > name AND namespace < CAST(?2 AS TEXT))
               FROM found WHERE name IS NOT NULL)
             SELECT CAST(name AS BLOB) FROM found WHERE name IS NOT NULL"""
DROP_TABLE = f"DROP TABLE IF EXISTS {TABLE}"

_first = itemgetter(slice(1))
_OURS = bytes((MAGIC,))
_BATCH = 100


class PlainTable:
    """The operations of the plain layout. `packing` is not for it: its bytes are the values themselves."""

    name = "plain"
    schema = SCHEMA
    capabilities = Capabilities(shared=False, forgets=False, stamps=False, expiry=False)

    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]:
        """The value of each of `keys` with stamp 0, None, or why what is there cannot be served."""

        def shape(some: Sequence[str], rows: Iterable[Row]) -> list[Found]:
            values, errors = _read(some, rows)
            found: list[Found] = [None if value is None else Entry(VALUE, ZERO, None, value) for value in values]
            for at, error in errors:
                found[at] = error
            return found

        return list(chain.from_iterable((yield from batches.lookup(READ, space, keys, shape))))

    def values(self, space: str, keys: Sequence[str], now_ms: int) -> Op[Values]:
        """The values alone."""

        def shape(some: Sequence[str], rows: Iterable[Row]) -> Values:
            values, errors = _read(some, rows)
            return Values(values, b"", errors)

        return Values.joined((yield from batches.lookup(READ, space, keys, shape)))

    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[Mapping[str, bytes]]:
        """Store values over whatever is there, delete the keys of tombstones; nothing is refused."""
        return (yield from self._written(space, items, PUT))

    def fill(self, space: str, items: Sequence[tuple[str, Entry, bytes]], packing: Packing | None) -> Op[None]:
        """Store what is absent."""
        yield from self._written(space, [(key, entry) for key, entry, _ in items if entry.kind == VALUE], ADD)

    def swap(
        self, space: str, items: Sequence[tuple[str, Entry, bytes | None]], packing: Packing | None
    ) -> Op[set[str]]:
        """Store each entry whose key is still absent (None), or still holds something (stamp 0) -> the refused keys."""

        def write(rows: list[Row]) -> Op[dict[str, bytes]]:
            keys = [row[1] for row in rows]
            chunks = yield from batches.lookup(READ_PRESENT, space, keys, _present)
            states = [None if there is None else ZERO for there in chain.from_iterable(chunks)]
            yield from _store(PUT, [row[:3] for row, state in zip(rows, states, strict=True) if row[3] == state])
            return {row[1]: b"" for row, state in zip(rows, states, strict=True) if row[3] != state}

        def row(item: tuple[str, Entry, bytes | None]) -> Row:
            return (*_row(space, item[0], item[1]), item[2])

        return set((yield from batches.written(items, row, write)))

    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        """Delete: there are no stamps to compare."""
        rows = sorted((space, key) for key, _ in marks)
        for at in range(0, len(rows), batches.CHUNK):
            yield Transaction(partial(batches.many, DROP, rows[at : at + batches.CHUNK]))

    def retract(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        """Nothing to do: this layout holds no "invalid"."""
        yield from ()

    def spaces(self, space: str) -> Op[list[str]]:
        """The namespaces scoped under `space`, each found by one step through the index."""
        first = (space + SCOPE).encode()
        found: list[str] = yield Query(SPACES, (first, batches.beyond(first)), batches.decoded)
        return found

    def scan(self, space: str, prefix: str, after: str | None, limit: int, now_ms: int) -> Op[list[str]]:
        """Up to `limit` keys that begin with `prefix`, after `after`, in the order of their UTF-8 bytes."""
        whole, start, end = batches.bounds(prefix, after)
        sql = SCAN_FROM if whole else SCAN_AFTER
        keys: list[str] = yield Query(sql, (space, start, end, limit), batches.decoded)
        return keys

    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> Op[int]:
        """Nothing expires here."""
        yield from ()
        return 0

    def _written(self, space: str, items: Sequence[tuple[str, Entry]], sql: str) -> Op[dict[str, bytes]]:
        return (yield from batches.written(items, lambda item: _row(space, *item), partial(_store, sql)))


def _row(space: str, key: str, entry: Entry) -> Row:
    """namespace, key, value or None to delete."""
    return space, key, entry.value if entry.kind == VALUE else None


def _store(sql: str, rows: Sequence[Row]) -> Op[dict[str, bytes]]:
    gone = [row[:2] for row in rows if row[2] is None]
    yield Many(sql, [row for row in rows if row[2] is not None] if gone else rows)
    yield Many(DROP, gone)
    return {}


def _present(_: Sequence[str], rows: Iterable[Row]) -> list[Any]:
    return [there for (there,) in rows]


def _read(keys: Sequence[str], rows: Iterable[Row]) -> tuple[list[bytes | None], list[tuple[int, TieredError]]]:
    """The values in `rows`, and (place, error) of what is no value of this layout."""
    values: list[Any] = []
    suspects: list[int] = []
    column = chain.from_iterable(rows)
    while some := list(islice(column, _BATCH)):
        try:  # one look at the first byte of each, at the speed of C, while it is in the processor's cache
            firsts = list(map(_first, some))
        except TypeError:  # misses, columns of other types
            suspects += range(len(values), len(values) + len(some))
        else:
            if _OURS in firsts:
                suspects += [at for at, first in enumerate(firsts, len(values)) if first == _OURS]
        values += some
    errors = [(at, fault) for at in suspects if (fault := _fault(keys[at], values[at])) is not None]
    for at, _ in errors:
        values[at] = None
    return values, errors


def _fault(key: str, value: Any) -> TieredError | None:
    if value is None:
        return None
    if not isinstance(value, bytes):
        return CorruptEntry("a row's value is not of the type that SQLStore writes: something else wrote it")
    if is_record(key.encode(), value):
        return ForeignValue(
            'the stored bytes are a record of tiered, in the place of a plain value: open it with layout="record", '
            "or write the key anew"
        )
    return None
