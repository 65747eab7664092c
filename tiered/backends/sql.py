"""SQL databases as tiers. SQLite so far; stamps are compared by the database itself."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ..backend import SCOPE, Capabilities, Found, Op
from ..checks import check_namespace
from ..clock import micros
from ..effects import adrive, drive
from ..entry import INVALID, VALUE, Entry, Packing
from ..errors import BatchError, ConfigurationError, CorruptEntry, Indeterminate, TieredError
from ..record import decode_rows, encode
from . import _sqlite
from ._clients import Clients
from ._requests import Many, Query, Row, Transaction
from .base import BaseBackend

T = TypeVar("T")
Item = TypeVar("Item", bound=tuple[Any, ...])

CHUNK = 10_000
"""Rows a statement reads, or a transaction writes."""

CHUNK_BYTES = 64 * 2**20
"""Bytes a transaction writes before it commits."""

_IN = 500  # keys of an IN list, where a key holds NUL and json_each would cut it
_FAR = 2**63 - 1  # the largest INTEGER
_key = itemgetter(1)
_json = json.JSONEncoder(ensure_ascii=False).encode
_DRIVERS = {"sqlite": ("pysqlite", "aiosqlite")}


class SQL(BaseBackend):
    """A store in an SQL database: `SQL("sqlite:///cache.db")`, `SQL("sqlite:////absolute/path.db")`.

    The URL is SQLAlchemy's, without a driver: the fitting ones are chosen for each face (one that is named is
    accepted). The file is made at first use, its folder never. Threads, tasks, event loops and processes may
    share one file and one object; writes of one file happen one after the other, and a lock is waited for.
    `namespace` keeps several stores apart in one file; "" if left out.

    Raises ConfigurationError for a URL that cannot work, before any I/O.
    """

    scheme: ClassVar[str] = "sqlite"
    capabilities = Capabilities(shared=False, forgets=False)

    def __init__(self, url: str, *, namespace: str | None = None) -> None:
        self.namespace = None if namespace is None else check_namespace(namespace)
        self._clients = Clients(_path(url))

    def __repr__(self) -> str:
        named = "" if self.namespace is None else f", namespace={self.namespace!r}"
        return f"SQL('sqlite:///{self._clients.path}'{named})"

    @property
    def identity(self) -> tuple[str, str]:
        """Equal for two that write to the same file."""
        return self.scheme, os.path.realpath(self._clients.path)

    # -- operations --------------------------------------------------------------------------------------------

    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]:
        """What is stored for each of `keys`, in their order, repeats included; errors stand for bad rows."""
        found: list[Found] = yield from _lookup(_sqlite.RECORD, space, keys, decode_rows)
        return found

    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[Mapping[str, bytes]]:
        """Store what beats what is there, in transactions of up to 10,000 rows or 64 MiB -> {refused: newer stamp}."""

        def write(rows: list[Row]) -> Op[dict[str, bytes]]:
            changed = yield Many(_sqlite.PUT, rows)
            if changed == len(rows):
                return {}
            # in the same transaction: afterwards another writer's newer row would look like a refusal
            stamps = yield from _stamps(space, rows)
            return {row[1].decode(): stamp for row, stamp in zip(rows, stamps, strict=True) if stamp and stamp > row[2]}

        def row(item: tuple[str, Entry]) -> Row:
            return _row(space, *item, packing)

        return (yield from _written(items, row, write))

    def swap(
        self, space: str, items: Sequence[tuple[str, Entry, bytes | None]], packing: Packing | None
    ) -> Op[set[str]]:
        """Store each entry whose row still has the stamp seen (None: is still absent) -> the refused keys."""

        def write(rows: list[Row]) -> Op[dict[str, bytes]]:
            new = [row[:5] for row in rows if row[5] is None]
            known = [(*row[2:5], *row[:2], row[5]) for row in rows if row[5] is not None]
            changed = yield Many(_sqlite.ADD, new)
            changed += yield Many(_sqlite.CHANGE, known)
            if changed == len(rows):
                return {}
            stamps = yield from _stamps(space, rows)
            return {row[1].decode(): stamp or b"" for row, stamp in zip(rows, stamps, strict=True) if stamp != row[2]}

        def row(item: tuple[str, Entry, bytes | None]) -> Row:
            key, entry, seen = item
            return (*_row(space, key, entry, packing), seen)

        return set((yield from _written(items, row, write)))

    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        """Write "invalid" with the stamp over whatever is not newer, and where nothing is."""

        def write(rows: list[Row]) -> Op[dict[str, bytes]]:
            yield Many(_sqlite.VOID, rows)
            return {}

        def row(item: tuple[str, Entry]) -> Row:
            return _row(space, *item, None)

        yield from _written([(key, Entry(INVALID, stamp, None, b"")) for key, stamp in marks], row, write)

    def retract(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        """Forget each key that holds an "invalid" with this very stamp."""
        rows = [(space.encode(), key.encode(), stamp) for key, stamp in marks]
        for at in range(0, len(rows), CHUNK):
            yield Transaction(partial(_many, _sqlite.RETRACT, rows[at : at + CHUNK]))

    def spaces(self, space: str) -> Op[list[str]]:
        """The namespaces scoped under `space`, each found by one step through the index."""
        first = (space + SCOPE).encode()
        found: list[str] = yield Query(_sqlite.SPACES, (first, first[:-1] + bytes([first[-1] + 1])), _decoded)
        return found

    def scan(self, space: str, prefix: str, after: str | None, limit: int, now_ms: int) -> Op[list[str]]:
        """Up to `limit` live keys that begin with `prefix`, after `after`, in the order of their UTF-8 bytes."""
        first = prefix.encode()
        # UTF-8 never holds 0xFF, so its last byte can always be raised; nothing sorts after a lone 0xFF
        beyond = first[:-1] + bytes([first[-1] + 1]) if first else b"\xff"
        sql = _sqlite.SCAN_FROM if after is None else _sqlite.SCAN_AFTER
        start = first if after is None else max(first, after.encode())
        keys: list[str] = yield Query(sql, (space.encode(), start, beyond, now_ms, limit), _decoded)
        return keys

    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> Op[int]:
        """Bury up to `limit` expired values and drop tombstones older than `grace_ms` (R28) -> rows changed."""
        name = space.encode()
        due = (name, min(grace_ms - now_ms, 0), now_ms)
        if not (yield Query(_sqlite.DUE, (*due, 1))):
            return 0  # the common case takes no write lock
        changed: int = yield Transaction(partial(_purge, name, due, limit, into))
        return changed

    def ping(self) -> Op[None]:
        """Connect if need be and read from the file, or raise BackendUnavailable."""
        yield Query(_sqlite.PING, ())

    # -- executors ---------------------------------------------------------------------------------------------

    def run(self, op: Op[T], timeout: float) -> T:
        """Run an operation, waiting for locks up to `timeout` seconds a request."""
        return drive(op, lambda request: self._clients.perform(request, timeout))

    async def arun(self, op: Op[T], timeout: float) -> T:
        """The same without blocking the loop. A cancelled request has ended when CancelledError arrives."""
        return await adrive(op, lambda request: self._clients.aperform(request, timeout))

    def close(self) -> None:
        """Close all connections, those of other threads' loops too. Later use connects again."""
        self._clients.close()

    async def aclose(self) -> None:
        await self._clients.aclose()


def _path(url: str) -> str:
    """The absolute path of the file that `url` names. Never repeats the URL: it may hold a password."""
    if not isinstance(url, str):
        raise ConfigurationError(f"SQL takes a URL such as 'sqlite:///cache.db', not {type(url).__name__}")
    parts = re.fullmatch(r"([A-Za-z0-9_]+)(?:\+([A-Za-z0-9_]+))?:(?://([^/?]*)(?:/([^?]*))?(?:\?(.*))?|.*)", url)
    if not parts:
        raise ConfigurationError("not a URL: write 'sqlite:///cache.db' (three slashes, then the path)")
    scheme, driver, host, path, query = parts.groups()
    scheme = scheme.lower()
    if scheme not in _DRIVERS:
        close = difflib.get_close_matches(scheme, _DRIVERS, 1)
        hint = f"did you mean {close[0]}://?" if close else f"known: {', '.join(_DRIVERS)}"
        raise ConfigurationError(f"SQL does not know the scheme {scheme}://; {hint}")
    if driver and driver not in _DRIVERS[scheme]:
        raise ConfigurationError(f"unknown driver {scheme}+{driver}: write {scheme}:///.., drivers are chosen for you")
    if query:
        raise ConfigurationError("SQL takes no options in an SQLite URL: give namespace= to SQL(), or use tiered.open")
    if host or host is None:
        raise ConfigurationError("an SQLite URL has three slashes, then the path: 'sqlite:///cache.db'")
    if not path or path == ":memory:" or path.startswith("file:"):
        raise ConfigurationError(
            "an SQLite database in memory cannot be shared by threads and loops: use memory:// (tiered.Memory), "
            "or a file: 'sqlite:///cache.db'"
        )
    if "\0" in path:
        raise ConfigurationError("the path in an SQLite URL holds a NUL character: no file can be named so")
    return str(Path(path).absolute())


# -- rows ------------------------------------------------------------------------------------------------------


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


def _lookup(
    column: str, space: str, keys: Sequence[str], shape: Callable[[Sequence[bytes], Iterable[Row]], list[T]]
) -> Op[list[T]]:
    """`shape` of the keys and one 1-tuple for each, in their order."""
    name, found = space.encode(), list[T]()
    sql = _sqlite.READ if column is _sqlite.RECORD else _sqlite.READ_STAMPS
    for at in range(0, len(keys), CHUNK):
        chunk = keys[at : at + CHUNK]
        if "\0" not in "".join(chunk):
            found += yield Query(sql, partial(_asked, chunk, name), partial(_answered, chunk, shape))
            continue
        names = [key.encode() for key in chunk]
        rows: dict[bytes, Any] = {}
        for start in range(0, len(names), _IN):
            some = names[start : start + _IN]
            holes = ",".join("?" * len(some))
            rows |= yield Query(
                f"SELECT t.key, {column} FROM tiered_entries t WHERE t.namespace = ? AND t.key IN ({holes})",
                (name, *some),
                dict,
            )
        found += shape(names, ((rows.get(key),) for key in names))
    return found


def _asked(keys: Sequence[str], name: bytes) -> Row:
    return _json(keys), name


def _answered(
    keys: Sequence[str], shape: Callable[[Sequence[bytes], Iterable[Row]], list[T]], rows: Iterable[Row]
) -> list[T]:
    return shape([key.encode() for key in keys], rows)


def _stamps(space: str, rows: Sequence[Row]) -> Op[list[bytes | None]]:
    """The stamps now stored for the keys of `rows`; None for no row, or none that is a stamp."""

    def shape(_: Sequence[bytes], found: Iterable[Row]) -> list[bytes | None]:
        return [stamp if isinstance(stamp, bytes) else None for (stamp,) in found]

    return (yield from _lookup(_sqlite.STAMP, space, [row[1].decode() for row in rows], shape))


def _decoded(rows: Iterable[Row]) -> list[str]:
    try:
        return [key.decode() for (key,) in rows]
    except UnicodeDecodeError as error:
        raise CorruptEntry("a stored key is not UTF-8: something else wrote it; delete that row") from error


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Items `(key, entry, ..)` in transactions' worth."""
    start = size = 0
    for at, item in enumerate(items, 1):
        size += len(item[1].value)
        if at - start >= CHUNK or size >= CHUNK_BYTES:
            yield items[start:at]
            start, size = at, 0
    if start < len(items):
        yield items[start:]


def _written(
    items: Sequence[Item], row: Callable[[Item], Row], write: Callable[[list[Row]], Op[dict[str, bytes]]]
) -> Op[dict[str, bytes]]:
    """Run `write` on the rows of each chunk of `items`, in a transaction of its own -> what all of them refused.

    When a chunk fails, those before it stay written: BatchError.
    """

    def begin(chunk: Sequence[Item]) -> Op[dict[str, bytes]]:
        # in the order of their keys: neighbours share pages, up to 1.1x on new keys
        return write(sorted(map(row, chunk), key=_key))

    refused: dict[str, bytes] = {}
    done = 0
    for chunk in _chunks(items):
        try:
            refused |= yield Transaction(partial(begin, chunk))
        except TieredError as error:
            keys = [item[0] for item in items]
            unknown = keys[done : done + len(chunk)] if isinstance(error, Indeterminate) else []
            if len(keys) == 1 or not (done or unknown):
                raise
            raise BatchError(
                f"{done - len(refused)} of {len(keys)} keys were written, then: {error.message}",
                written=[key for key in keys[:done] if key not in refused],
                not_written=[*refused, *keys[done + len(unknown) :]],
                unknown=unknown,
            ) from error
        done += len(chunk)
    return refused


def _many(sql: str, rows: Sequence[Row]) -> Op[None]:
    yield Many(sql, rows)


def _purge(name: bytes, due: tuple[bytes, int, int], limit: int, into: int) -> Op[int]:
    rows: list[Row] = yield Query(_sqlite.DUE, (*due, limit))
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
    yield Many(_sqlite.BURY, buried)
    yield Many(_sqlite.KEEP, kept)
    yield Many(_sqlite.DROP, dropped)
    if dropped:
        yield Many(_sqlite.PURGED, [(name, highest)])
    return len(rows)
