"""What the tests of serializers share: types, values of every kind, and what it is to be the same."""

# ruff: noqa: DTZ001, DTZ901 (naive moments are values too)

from __future__ import annotations

import enum
import math
from collections import namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

BERLIN = ZoneInfo("Europe/Berlin")


@dataclass
class Point:
    x: int
    y: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    a: tuple[int, ...]
    when: datetime


@dataclass
class Counted:
    name: str
    size: int = field(init=False)
    doubled: int = 1

    def __post_init__(self) -> None:
        self.size = len(self.name)
        self.doubled *= 2


class Colour(enum.Enum):
    RED = object()
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    A = "a"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    left: Any
    right: Any


Old = namedtuple("Old", "left right")
NAMED = [Point, Sealed, Counted, Colour, Level, Name, Right, Pair, Old]


class Odd(tzinfo):
    def utcoffset(self, _: Any) -> timedelta:
        return timedelta(hours=2)

    def dst(self, _: Any) -> None:
        return None


class Text(str):
    pass


def same(one: Any, other: Any) -> bool:
    """Equal and of the same types all the way down; NaN is NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, datetime | time):
        return repr(one) == repr(other)
    if isinstance(one, set | frozenset):
        return sorted(map(repr, one)) == sorted(map(repr, other))
    if isinstance(one, Decimal):
        return str(one) == str(other)  # a signalling NaN cannot be compared
    return bool(one == other)


PLAIN = [
    *(None, True, False, 0, 1, -1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400, -(10**400)),
    *(0.0, -0.0, 1.5, math.nan, math.inf, -math.inf, 5e-324, "", "ä\0𐍈", b"", b"\x91\xc1\xf6", "text", b"text"),
    *([], [1, "a"], {}, {"a": 1, 2: "b", b"c": [], (1, (2,)): {}, None: 0, 1.5: 1, frozenset({1}): 2}),
    *((), (1,), ((),), [()], ([], [((),)]), {"a": (1, 2)}, set(), {1, "a", (2,)}, frozenset(), frozenset({b"x"})),
    *(date.min, date.max, time.min, time.max, time(1, 2, 3, 4, fold=1), time(1, tzinfo=UTC), time(1, tzinfo=BERLIN)),
    *(timedelta.min, timedelta.max, timedelta(microseconds=-1), timedelta(0)),
    *(datetime.min, datetime.max, datetime(2024, 2, 29, 1, 2, 3, 999_999), datetime(2024, 1, 1, tzinfo=UTC)),
    *(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=timezone(timedelta(hours=-23, minutes=-59)))),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30, seconds=1, microseconds=7))),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")),
    datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
    datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),  # the second time that hour strikes
    datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN),  # a time that never was
    datetime(1880, 1, 1, tzinfo=BERLIN),  # an offset with seconds
    datetime(2024, 10, 27, 2, 30, fold=1),
    *(Decimal("0.10"), Decimal("-0"), Decimal("1E+400"), Decimal("NaN123"), Decimal("sNaN"), Decimal("-Infinity")),
    *(UUID(int=0), UUID(int=2**128 - 1), [[[[{"a": [({1: (2,)},)]}]]]]),
]


def looped() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def deep(levels: int, wrap: Any) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value
