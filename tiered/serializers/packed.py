"""Msgpack with types: what comes back is equal to what was stored, and of the same type.

The bytes are one msgpack array of one value. What msgpack has no form for are extension types:

    code   payload
    1      datetime: year, month, day, hour, minute, second, microsecond, fold; then its zone
    2..6   date, time, timedelta, Decimal, UUID
    7      an int beyond 64 bits, two's complement, big-endian
    16     none; first in an array it says that the others are the items of a tuple
    17, 18 the same for set and frozenset
    19     a name; first in an array of two it says that the other is the content of an object of that type

Arrays with a sign in front, rather than extensions that hold packed arrays: all is read in one pass, so that the
depth of what is stored is bounded by msgpack alone, and nothing recurses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..errors import CorruptEntry, InvalidValue
from .shapes import Shape, nameable, shapes
from .zones import pack_zone, unpack_zone

if TYPE_CHECKING:
    from msgpack import ExtType

FIRST = b"\x91"
"""An array of one: what no text begins with."""

DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, IDENTIFIER, INTEGER = range(1, 8)
TUPLE, SET, FROZENSET, NAMED = range(16, 20)

_moment = struct.Struct(">HBBBBBIB")
_day = struct.Struct(">HBB")
_clock = struct.Struct(">BBBIB")
_span = struct.Struct(">iII")


class Msgpack:
    """Nearly any plain value, by the `msgpack` package: compact, fast, equal and of the same type when it comes back.

    Always: None, bool, int of any size, float (NaN too), str, bytes, list, dict with any hashable keys, tuple, set,
    frozenset, datetime, date, time, timedelta, Decimal, UUID. A datetime keeps its microseconds, fold and zone
    (`timezone`, `ZoneInfo`; of other kinds, and where a zone has another offset by now, only the offset).

    Named in `types`: dataclasses, enums, named tuples and pydantic models, each class by itself. They are stored by
    module and class name, fields by name. Reading imports nothing: a stored name that was not given here is
    CorruptEntry, and so are fields that are not those of the class today. A field whose *type* changed is not noticed.

    Everything else is InvalidValue, subclasses of the types above included. A bytearray or memoryview comes back as
    bytes. Values nest 500 levels deep at least.
    """

    def __init__(self, types: Iterable[type] = ()) -> None:
        self._given(shapes(types, _PLAIN))

    @classmethod
    def of(cls, given: Mapping[type, Shape]) -> Msgpack:
        """With shapes made by hand."""
        packer = cls()
        packer._given(given)
        return packer

    def _given(self, given: Mapping[type, Shape]) -> None:
        self._shapes = given
        self._names = {shape.name: shape for shape in given.values()}

    def __repr__(self) -> str:
        types = ", ".join(kind.__qualname__ for kind in self._shapes)
        return f"Msgpack(types=[{types}])" if types else "Msgpack()"

    def dumps(self, value: Any, /) -> bytes:
        import msgpack  # 13 ms, with the first value only

        made = 0  # extensions: each item that comes here is one

        def other(item: Any) -> Any:
            nonlocal made
            made += 1
            kind = type(item)
            pack = _PACK.get(kind)
            if pack is not None:
                return pack(item, msgpack.ExtType)
            shape = self._shapes.get(kind)
            if shape is None:
                raise InvalidValue(f"Msgpack cannot store a {_named(kind)}: {_advice(kind)}")
            return [msgpack.ExtType(NAMED, shape.name.encode()), shape.take(item)]

        try:
            packed: bytes = msgpack.packb([value], default=other, strict_types=True)
        except InvalidValue:
            raise
        except (
            TypeError,
            ValueError,
            OverflowError,
            AttributeError,
            RuntimeError,
        ) as error:  # too deep is a RuntimeError
            raise InvalidValue(f"Msgpack cannot store this {_named(type(value))}: {error}") from error
        if len(packed) - len(packed.translate(None, _MARKS)) > made and _extensions(packed) > made:
            raise InvalidValue("Msgpack cannot store a msgpack.ExtType: it would come back as something else")
        return packed

    def loads(self, data: bytes, /) -> Any:
        import msgpack

        if data[:1] != FIRST:
            raise CorruptEntry("Msgpack did not write this: it does not begin as its values do")
        reading = _Reading(self._names)
        try:
            whole = msgpack.unpackb(
                data, ext_hook=reading.extension, list_hook=reading.array, strict_map_key=False
            )  # it bounds lengths and depth by the length of `data`
        except CorruptEntry:
            raise
        except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, struct.error) as error:
            raise CorruptEntry(f"Msgpack cannot read this: {error or type(error).__name__}") from error
        if type(whole) is not list or len(whole) != 1 or reading.open:
            raise CorruptEntry("Msgpack did not write this: a sign stands where there is nothing to make of it")
        return whole[0]


_MARKS = b"\xc7\xc8\xc9\xd4\xd5\xd6\xd7\xd8"
"""What extensions begin with. Text and numbers hold these bytes too, so to find some is no proof."""


def _extensions(packed: bytes) -> int:
    """How many there are. msgpack packs an ExtType by itself, and does not ask `default`."""
    import msgpack

    found: list[int] = []
    msgpack.unpackb(
        packed,
        ext_hook=lambda code, _: found.append(code),
        object_pairs_hook=lambda _: None,
        strict_map_key=False,
    )
    return len(found)


class _Sign:
    """Read first in an array: what its other items are."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[list[Any]], Any]) -> None:
        self.make = make


class _Reading:
    """One call of loads."""

    __slots__ = ("names", "open")

    def __init__(self, names: Mapping[str, Shape]) -> None:
        self.names = names
        self.open = 0  # signs read that no array has used

    def extension(self, code: int, data: bytes) -> Any:
        unpack = _UNPACK.get(code)
        if unpack is not None:
            return unpack(data)
        self.open += 1
        if code == NAMED:
            return _Sign(_maker(self.names.get(str(data, "utf-8")), data))
        make = _GATHER.get(code)
        if make is None or data:
            raise CorruptEntry(f"an extension type {code} of {len(data)} bytes is none that Msgpack writes here")
        return _Sign(make)

    def array(self, items: list[Any]) -> Any:
        if items and type(items[0]) is _Sign:
            self.open -= 1
            return items[0].make(items[1:])
        return items


def _maker(shape: Shape | None, name: bytes) -> Callable[[list[Any]], Any]:
    if shape is None:
        raise CorruptEntry(
            f"it holds an object of a type that was not named, {str(name, 'utf-8')!r:.100}: "
            "if that is right, add the class to types="
        )

    def make(items: list[Any]) -> Any:
        try:
            [content] = items
            return shape.make(content)
        except CorruptEntry:
            raise
        except Exception as error:  # the user's class runs here
            raise CorruptEntry(f"no {shape.name} can be made of what is stored: {type(error).__name__}") from error

    return make


def _pack_datetime(it: datetime, ext: type[ExtType]) -> Any:
    head = _moment.pack(it.year, it.month, it.day, it.hour, it.minute, it.second, it.microsecond, it.fold)
    return ext(DATETIME, head + pack_zone(it.tzinfo, it.utcoffset()))


def _unpack_datetime(data: bytes) -> datetime:
    *fields, fold = _moment.unpack_from(data)
    return unpack_zone(data[_moment.size :], datetime(*fields, fold=fold))  # noqa: DTZ001


def _pack_time(it: time, ext: type[ExtType]) -> Any:
    head = _clock.pack(it.hour, it.minute, it.second, it.microsecond, it.fold)
    return ext(TIME, head + pack_zone(it.tzinfo, it.utcoffset()))


def _unpack_time(data: bytes) -> time:
    *fields, fold = _clock.unpack_from(data)
    return unpack_zone(data[_clock.size :], time(*fields, fold=fold))


def _pack_int(it: int, ext: type[ExtType]) -> Any:
    return ext(INTEGER, it.to_bytes(it.bit_length() // 8 + 1, "big", signed=True))


_PACK: Mapping[type, Callable[[Any, type[ExtType]], Any]] = {
    datetime: _pack_datetime,
    date: lambda it, ext: ext(DATE, _day.pack(it.year, it.month, it.day)),
    time: _pack_time,
    timedelta: lambda it, ext: ext(TIMEDELTA, _span.pack(it.days, it.seconds, it.microseconds)),
    Decimal: lambda it, ext: ext(DECIMAL, str(it).encode()),
    UUID: lambda it, ext: ext(IDENTIFIER, it.bytes),
    int: _pack_int,
    tuple: lambda it, ext: [ext(TUPLE, b""), *it],
    set: lambda it, ext: [ext(SET, b""), *it],
    frozenset: lambda it, ext: [ext(FROZENSET, b""), *it],
}

_UNPACK: Mapping[int, Callable[[bytes], Any]] = {
    DATETIME: _unpack_datetime,
    DATE: lambda data: date(*_day.unpack(data)),
    TIME: _unpack_time,
    TIMEDELTA: lambda data: timedelta(*_span.unpack(data)),
    DECIMAL: lambda data: Decimal(str(data, "ascii")),
    IDENTIFIER: lambda data: UUID(bytes=data),
    INTEGER: lambda data: int.from_bytes(data, "big", signed=True),
}

_GATHER: Mapping[int, Callable[[list[Any]], Any]] = {TUPLE: tuple, SET: set, FROZENSET: frozenset}

_PLAIN = frozenset({*_PACK, type(None), bool, float, str, bytes, list, dict})
"""What always comes back."""


def _named(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _advice(kind: type) -> str:
    if nameable(kind):
        return f"name it, as in Msgpack(types=[{kind.__qualname__}])"
    for plain in kind.__mro__[1:]:
        if plain in _PLAIN:
            return f"convert it to {plain.__name__} first"
    return "convert it to plain values first"
