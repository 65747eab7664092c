"""Batches of any size as statements and transactions of bounded size, for every layout of a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from ..backend import Op
from ..errors import BatchError, CorruptEntry, Indeterminate, TieredError
from ._requests import Many, Query, Row, Transaction

T = TypeVar("T")
Item = TypeVar("Item", bound=tuple[Any, ...])

CHUNK = 10_000
"""Rows a statement reads, or a transaction writes."""

CHUNK_BYTES = 64 * 2**20
"""Bytes a transaction writes before it commits."""

NAMED = 500
"""Keys of an IN list, where a key holds NUL and json_each would cut it."""

SOME = 100
"""Values collected before they are looked at: few enough to be in the processor's cache still."""

_key = itemgetter(1)
_json = json.JSONEncoder(ensure_ascii=False).encode


class Reading(NamedTuple):
    """Two statements that read one column by key."""

    by_json: str
    """Takes a JSON array of keys and the namespace -> one row for each key, in their order."""
    by_name: str
    """Takes the namespace and the keys as bytes -> (key as bytes, column) of those that exist."""
    hole: str = "?"
    collects: bool = False
    """Whether `by_json` does, see `Query`: `shape` gets lists of values in place of rows."""


class Schema(NamedTuple):
    """What a layout needs in a file."""

    makes: dict[str, tuple[str, ...]]
    """Table or index -> the statements that make it."""
    shapes: dict[str, dict[str, tuple[frozenset[str], int, int]]]
    """Table -> {column: (types that will do, not null, place in the primary key)}."""


def bounds(prefix: str, after: str | None) -> tuple[bool, bytes, bytes]:
    """A scan's range in the order of UTF-8 bytes: whether its first key belongs to it, that key, and the first key
    that no longer begins with `prefix`.
    """
    first = prefix.encode()
    last = b"" if after is None else after.encode()
    return last < first or after is None, max(first, last), beyond(first)


def beyond(first: bytes) -> bytes:
    """The end of the range of all that begins with `first`."""
    # UTF-8 never holds 0xFF, so its last byte can always be raised; nothing sorts after a lone 0xFF
    return first[:-1] + bytes([first[-1] + 1]) if first else b"\xff"


def decoded(rows: Iterable[Row]) -> list[str]:
    """Keys from their bytes. Raises CorruptEntry where they are no UTF-8."""
    try:
        return [key.decode() for (key,) in rows]
    except UnicodeDecodeError as error:
        raise CorruptEntry("a stored key is not UTF-8: something else wrote it; delete that row") from error


def lookup(
    reading: Reading, space: bytes | str, keys: Sequence[str], shape: Callable[[Sequence[str], Iterable[Any]], T]
) -> Op[list[T]]:
    """`shape` of some keys and a row, a 1-tuple, for each, in their order -> one answer for every 10,000 keys."""
    found: list[T] = []
    for at in range(0, len(keys), CHUNK):
        chunk = keys[at : at + CHUNK]
        joined = '","'.join(chunk)
        if "\0" not in joined:
            asked = partial(_asked, chunk, joined, space)
            found.append((yield Query(reading.by_json, asked, partial(shape, chunk), reading.collects)))
            continue
        names = [key.encode() for key in chunk]
        rows: dict[bytes, Any] = {}
        for start in range(0, len(names), NAMED):
            some = names[start : start + NAMED]
            rows |= yield Query(reading.by_name.format(",".join([reading.hole] * len(some))), (space, *some), dict)
        column = list(map(rows.get, names))
        found.append(shape(chunk, _some(column) if reading.collects else zip(column)))
    return found


def _some(column: list[T]) -> Iterator[list[T]]:
    return (column[at : at + SOME] for at in range(0, len(column), SOME))


def _asked(keys: Sequence[str], joined: str, space: bytes | str) -> Row:
    if joined.isprintable() and joined.count('"') == 2 * (len(keys) - 1) and "\\" not in joined:
        return f'["{joined}"]', space  # nothing to escape: twice as fast as the encoder
    return _json(keys), space


def written(
    items: Sequence[Item], row: Callable[[Item], Row], write: Callable[[list[Row]], Op[dict[str, bytes]]]
) -> Op[dict[str, bytes]]:
    """Run `write` on the rows of each chunk of `items`, in a transaction of its own -> what all of them refused.

    Items are `(key, entry, ..)`, rows `(namespace, key, ..)`. When a chunk fails, those before it stay written:
    BatchError.
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


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Transactions' worth of items."""
    start = size = 0
    for at, item in enumerate(items, 1):
        size += len(item[1].value)
        if at - start >= CHUNK or size >= CHUNK_BYTES:
            yield items[start:at]
            start, size = at, 0
    if start < len(items):
        yield items[start:]


def many(sql: str, rows: Sequence[Row]) -> Op[None]:
    """One statement as a transaction of its own."""
    yield Many(sql, rows)
