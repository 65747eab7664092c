"""Time zones in bytes: nothing for none, else the offset in microseconds, how the zone is kept, and its name or key."""

from __future__ import annotations

import re
import struct
import sys
from datetime import datetime, time, timedelta, timezone, tzinfo
from typing import TypeVar

from ..errors import CorruptEntry, InvalidValue

Zoned = TypeVar("Zoned", datetime, time)

_head = struct.Struct(">qB")
_OFFSET, _NAMED, _ZONE = range(3)
_UNKNOWN = -(2**63)  # the offset of a time of day in a zone that changes
_MICROSECOND = timedelta(microseconds=1)
_KEY = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")


def pack_zone(zone: tzinfo | None, offset: timedelta | None) -> bytes:
    """The zone of a moment that has this offset there."""
    if zone is None:
        return b""
    how, name = _OFFSET, ""
    key = _key(zone)
    if type(zone) is timezone:
        given = zone.__reduce__()[1]  # (offset,) or (offset, name)
        if len(given) == 2:
            how, name = _NAMED, given[1]
    elif key is not None:
        how, name = _ZONE, key
    if offset is None and how != _ZONE:
        raise InvalidValue(f"a time in a {type(zone).__qualname__} that gives no offset cannot be stored")
    return _head.pack(_UNKNOWN if offset is None else offset // _MICROSECOND, how) + name.encode()


def unpack_zone(data: bytes, naive: Zoned) -> Zoned:
    """`naive` in the zone of `data`; by its offset alone where the zone is unknown here or has another offset now."""
    if not data:
        return naive
    micros, how = _head.unpack_from(data)
    name = str(data[_head.size :], "utf-8")
    offset = None if micros == _UNKNOWN else timedelta(microseconds=micros)
    if how == _ZONE and _KEY.fullmatch(name):  # anything else might name a file or a module elsewhere
        from zoneinfo import ZoneInfo

        try:
            there = naive.replace(tzinfo=ZoneInfo(name))
        except (LookupError, ValueError, OSError):
            there = None
        if there is not None and there.utcoffset() == offset:
            return there
    elif how not in (_OFFSET, _NAMED) or (name and how == _OFFSET):
        raise CorruptEntry("a stored time has a zone that cannot be read")
    if offset is None:
        raise CorruptEntry("a stored time of day is in a zone that is unknown here")
    return naive.replace(tzinfo=timezone(offset, name) if how == _NAMED else timezone(offset))


def _key(zone: tzinfo) -> str | None:
    """The key of a `ZoneInfo` that has one; without importing zoneinfo, for then it is none."""
    module = sys.modules.get("zoneinfo")
    if module is None or type(zone) is not module.ZoneInfo:
        return None
    key: str | None = zone.key  # type: ignore[attr-defined]
    return key if key and _KEY.fullmatch(key) else None
