"""Record format v1: how an entry is stored by every tier that keeps stamps.

    offset  bytes
    0       1      magic, 0xC1: no UTF-8, msgpack, zstd, JSON or pickle begins with it
    1       1      version, 1
    2       12     stamp, big-endian: servers compare it in place
    14      1      flags: bits 0-2 kind, bit 3 has expiry, bits 4-7 spare
    15      1      codec of the payload
    16      8      expiry, milliseconds since the epoch (0 without one)
    24      2      length of the extension
    26      4      length of the payload
    30      ..     extension: (tag, length, bytes)*; tag 1 = soft expiry in ms; unknown tags below 128 are ignored
    ..      ..     payload
    end-4   4      CRC-32 of all before it, seeded with the CRC-32 of the key; little-endian

A checksum stored so leaves a constant residue: one call over the whole record checks header, payload and key.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import chain, islice, repeat
from typing import Any

from zlib_ng.zlib_ng import crc32

from .backend import Found
from .codecs import RAW, ZSTD, decompress
from .entry import INVALID, VALUE, Entry, Packing
from .errors import CorruptEntry, ForeignValue, TieredError, UnknownVersion

MAGIC, VERSION = 0xC1, 1
STAMP_AT, FLAGS_AT = 2, 14
RESIDUE = 0x2144DF1C
SOFT = 1

_HEADER = struct.Struct(">BB12sBBQHI")
_unpack = _HEADER.unpack_from
_MAGIC = bytes((MAGIC, VERSION))
_TAIL = struct.Struct(">BBQHI")  # the header from the flags on
_BATCH = 100
_entry = tuple.__new__
HEADER = _HEADER.size
OVERHEAD = HEADER + 4


def encode(key: bytes, entry: Entry, packing: Packing | None = None) -> bytes:
    """The record of `entry` under `key` (UTF-8)."""
    kind, stamp, expires, payload, soft = entry
    codec = RAW
    if packing is not None and kind != INVALID:
        codec, payload = packing(payload)
    flags = kind if expires is None else kind | 8
    extension = b"" if soft is None else struct.pack(">BBQ", SOFT, 8, soft)
    head = _HEADER.pack(MAGIC, VERSION, stamp, flags, codec, expires or 0, len(extension), len(payload)) + extension
    check = crc32(payload, crc32(head, crc32(key)))
    return b"".join((head, payload, check.to_bytes(4, "little")))


def decode(key: bytes, raw: bytes) -> Entry:
    """The entry stored as `raw` under `key`.

    Raises ForeignValue (not a record at all), UnknownVersion (a newer format) or CorruptEntry.
    """
    if crc32(raw, crc32(key)) == RESIDUE and len(raw) >= OVERHEAD:
        magic, version, stamp, flags, codec, expires, more, size = _unpack(raw)
        if (magic, version, flags & 0xF7, codec, more) == (MAGIC, VERSION, 0, RAW, 0) and len(raw) == OVERHEAD + size:
            return _entry(Entry, (0, stamp, expires if flags else None, raw[HEADER:-4], None))
        if magic == MAGIC:
            return _decode_rare(raw)
    raise _explain(raw)


def decode_rows(keys: Sequence[bytes], rows: Iterable[tuple[Any]]) -> list[Found]:
    """What the record column of a table of ours holds for each of `keys`; None where a row is `(None,)`.

    What is no record stands there as CorruptEntry: nothing else has any business in that table. Plain values are
    decoded a hundred at a time, as far as possible at the speed of C, and each distinct header once: 1.8x as fast as
    by `decode`. A hundred are few enough that SQLite's copies are freed and used again while in the processor's cache.
    """
    found: list[Found] = []
    values = chain.from_iterable(rows)
    while raws := list(islice(values, _BATCH)):
        names = keys[len(found) : len(found) + _BATCH]
        try:
            sound = list(map(crc32, raws, map(crc32, names))).count(RESIDUE) == len(raws)
        except TypeError:  # misses, columns of other types
            sound = False
        heads = [(raw[:STAMP_AT], raw[FLAGS_AT:HEADER], len(raw)) for raw in raws] if sound else []
        plain = {head: _plain_expiry(*head) for head in set(heads)}
        if not sound or None in plain.values():
            found += [None if raw is None else _found(key, raw) for key, raw in zip(names, raws, strict=True)]
            continue
        stamps = [raw[STAMP_AT:FLAGS_AT] for raw in raws]
        expiries = [plain[head][0] for head in heads]  # type: ignore[index]  # none is None
        payloads = [raw[HEADER:-4] for raw in raws]
        found += map(_entry, repeat(Entry), zip(repeat(VALUE), stamps, expiries, payloads, repeat(None)))
    return found


def _plain_expiry(magic: bytes, tail: bytes, length: int) -> tuple[int | None] | None:
    """The expiry in a header that is a plain value's, in a tuple; None for any other header."""
    if magic != _MAGIC or length < OVERHEAD:
        return None
    flags, codec, expires, more, size = _TAIL.unpack(tail)
    if (flags & 0xF7, codec, more, OVERHEAD + size) != (0, RAW, 0, length):
        return None
    return (expires if flags else None,)


def _found(key: bytes, raw: Any) -> Found:
    if not isinstance(raw, bytes):
        return CorruptEntry("a row's columns are not of the types that tiered writes")
    try:
        return decode(key, raw)
    except ForeignValue as error:
        return CorruptEntry(error.message)
    except TieredError as error:
        return error


def _decode_rare(raw: bytes) -> Entry:
    """Anything but a plain value; the checksum has passed."""
    _, version, stamp, flags, codec, expires, more, size = _unpack(raw)
    kind = flags & 7
    if version != VERSION or flags & 0xF0 or kind > INVALID or codec not in (RAW, ZSTD):
        raise UnknownVersion(
            f"a record of version {version}, flags {flags:#04x}, codec {codec} was written by a newer release: upgrade"
        )
    if len(raw) != OVERHEAD + more + size:
        raise CorruptEntry("a record's lengths do not add up")
    soft = _soft_expiry(raw[HEADER : HEADER + more])
    payload = raw[HEADER + more : -4]
    if codec == ZSTD:
        payload = decompress(payload)
    return Entry(kind, stamp, expires if flags & 8 else None, payload, soft)


def _soft_expiry(extension: bytes) -> int | None:
    soft, at = None, 0
    while at < len(extension):
        tag, length = extension[at], extension[at + 1] if at + 1 < len(extension) else 256
        body = extension[at + 2 : at + 2 + length]
        if len(body) != length:
            raise CorruptEntry("a record's extension is cut short")
        if tag == SOFT and length == 8:
            soft = int.from_bytes(body, "big")
        elif tag >= 128:
            raise UnknownVersion(f"a record carries the extension {tag} of a newer release: upgrade")
        at += 2 + length
    return soft


def _explain(raw: bytes) -> TieredError:
    """Why `raw` is not a record of this key."""
    shaped = len(raw) >= OVERHEAD and raw[1] == VERSION and len(raw) == OVERHEAD + sum(_unpack(raw)[6:])
    if raw and raw[0] != MAGIC and not shaped:
        return ForeignValue("the stored bytes are not a record of tiered: something else wrote them")
    if len(raw) > 1 and raw[0] == MAGIC and raw[1] > VERSION:
        return UnknownVersion(f"a record of version {raw[1]} was written by a newer release, or is damaged")
    return CorruptEntry("a stored record is damaged, or belongs to another key")
