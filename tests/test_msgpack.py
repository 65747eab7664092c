"""Msgpack: what comes back is what was stored, or an error says why not."""

# ruff: noqa: DTZ001, DTZ901 (naive moments are values too)

from __future__ import annotations

import enum
import subprocess
import sys
from collections import OrderedDict, namedtuple
from dataclasses import InitVar, dataclass, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serializer_kit import (
    BERLIN,
    NAMED,
    PLAIN,
    Colour,
    Counted,
    Level,
    Name,
    Odd,
    Old,
    Pair,
    Point,
    Right,
    Sealed,
    Text,
    deep,
    looped,
    same,
)
from tiered.errors import ConfigurationError, CorruptEntry, InvalidValue
from tiered.serializers import Msgpack


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: f"{type(value).__name__} {value!r:.40}")
def test_msgpack_gives_back_what_it_was_given(value: Any) -> None:
    data = Msgpack().dumps(value)
    assert type(data) is bytes
    assert same(Msgpack().loads(data), value)
    inside = [value, {"k": value, "t": (value, value)}]
    assert same(Msgpack().loads(Msgpack().dumps(inside)), inside)


hashables = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.timezones() | st.just(UTC))
    | st.times()
    | st.timedeltas()
    | st.decimals()
    | st.uuids(),
    lambda inner: st.tuples(inner, inner),
    max_leaves=4,
)
values = st.recursive(
    hashables,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=12,
)


@settings(deadline=None)
@given(values)
def test_msgpack_gives_back_any_value(value: Any) -> None:
    assert same(Msgpack().loads(Msgpack().dumps(value)), value)


@settings(deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_msgpack_reads_any_bytes_or_says_that_it_cannot(data: bytes, whole: bool) -> None:
    try:
        Msgpack([Point, Colour]).loads(data if whole else b"\x91" + data)
    except CorruptEntry:
        return


@settings(deadline=None)
@given(values, st.data())
def test_msgpack_never_takes_part_of_a_value_for_the_value(value: Any, data: st.DataObject) -> None:
    packed = Msgpack().dumps(value)
    with pytest.raises(CorruptEntry):
        Msgpack().loads(packed[: data.draw(st.integers(0, len(packed) - 1))])
    with pytest.raises(CorruptEntry):
        Msgpack().loads(packed + b"\xc0")


def test_the_bytes_of_msgpack_are_pinned() -> None:
    assert Msgpack().dumps({"a": [1, "b", b"c", None]}) == msgpack.packb([{"a": [1, "b", b"c", None]}])
    expected = {
        (1, "a"): "9193c7001001a161",
        frozenset({5}): "9192c7001205",
        datetime(2024, 2, 29, 23, 59, 58, 7): "91c70c0107e8021d173b3a0000000700",
        datetime(2024, 1, 1, tzinfo=UTC): "91c7150107e801010000000000000000000000000000000000",
        datetime(
            2024, 1, 1, tzinfo=BERLIN
        ): "91c7220107e80101000000000000000000000000d693a400024575726f70652f4265726c696e",
        date(2024, 2, 29): "91d60207e8021d",
        time(1, 2, 3, 4): "91d7030102030000000400",
        timedelta(days=-1, seconds=2, microseconds=3): "91c70c04ffffffff0000000200000003",
        Decimal("1.50"): "91d605312e3530",
        UUID(int=1): "91d80600000000000000000000000000000001",
        2**64: "91c70907010000000000000000",
    }
    assert {value: Msgpack().dumps(value).hex() for value in expected} == expected
    named = msgpack.packb([[msgpack.ExtType(19, b"tests.serializer_kit.Point"), {"x": 1, "y": None}]])
    assert Msgpack([Point]).dumps(Point(1)) == named


def test_a_zone_that_is_kept_by_its_offset_is_the_same_moment() -> None:
    moment = datetime(2024, 1, 1, 12, tzinfo=Odd())
    back = Msgpack().loads(Msgpack().dumps(moment))
    assert back == moment
    assert back.tzinfo == timezone(timedelta(hours=2))
    with pytest.raises(InvalidValue, match="utcoffset"):
        Msgpack().dumps(datetime(2024, 1, 1, tzinfo=tzinfo()))
    with pytest.raises(InvalidValue, match="gives no offset"):
        Msgpack().dumps(time(1, tzinfo=type("None", (Odd,), {"utcoffset": lambda self, _: None})()))


def planted_moment(offset: int, how: int, name: str) -> bytes:
    import struct

    head = struct.pack(">HBBBBBIB", 2024, 7, 1, 12, 0, 0, 0, 0)
    return msgpack.packb([msgpack.ExtType(1, head + struct.pack(">qB", offset * 1_000_000, how) + name.encode())])


def test_a_zone_that_moved_or_is_gone_gives_the_stored_moment_by_its_offset() -> None:
    for zone in ("Europe/Berlin", "Europe/Atlantis", "Europe", "os", "this"):
        back = Msgpack().loads(planted_moment(3600, 2, zone))
        assert back == datetime(2024, 7, 1, 11, tzinfo=UTC)
        assert back.tzinfo == timezone(timedelta(hours=1)), zone
    assert Msgpack().loads(planted_moment(7200, 2, "Europe/Berlin")).tzinfo is BERLIN
    paths = [(3600, 2, name) for name in ("../../etc/passwd", "/etc/localtime", "os.path", "a/", "")]
    for offset, how, name in (*paths, (86_400, 0, ""), (-86_400, 1, "x"), (0, 3, ""), (0, 0, "x")):
        with pytest.raises(CorruptEntry):
            Msgpack().loads(planted_moment(offset, how, name))


# -- Msgpack: named types ------------------------------------------------------------------------------------------

OBJECTS = [
    *(Point(1), Point((1, 2), [Point(3)]), Sealed(a=(1,), when=datetime.min), Colour.RED, Colour.BLUE, Level.LOW),
    *(Name.A, Right.READ, Right.READ | Right.WRITE, Right(0), Pair(1, Pair(2, ())), Old(1, 2), {Colour.RED: Point(1)}),
]


@pytest.mark.parametrize("value", OBJECTS, ids=repr)
def test_named_types_come_back(value: Any) -> None:
    packer = Msgpack(types=NAMED)
    assert same(packer.loads(packer.dumps([value])), [value])
    with pytest.raises(InvalidValue, match=r"name it, as in Msgpack\(types=\["):
        Msgpack().dumps([value])
    with pytest.raises(CorruptEntry, match=r"a type that was not named, 'tests\.serializer_kit"):
        Msgpack([Counted]).loads(packer.dumps([value]))


def test_a_dataclass_comes_back_as_it_was_and_not_as_it_began() -> None:
    it = Counted("abc")
    it.name, it.size = "longer", 17
    assert it.doubled == 2
    back = Msgpack([Counted]).loads(Msgpack([Counted]).dumps(it))
    assert (back.name, back.size, back.doubled) == ("longer", 17, 2)


@pytest.mark.parametrize("fields", [["x"], ["x", "y", "z"], ["x", "z"], []])
def test_a_dataclass_that_changed_is_an_error_and_never_a_guess(fields: list[str]) -> None:
    changed = make_dataclass("Point", [(name, Any, None) for name in fields])
    changed.__module__ = Point.__module__
    for new, old in ((changed, Point), (Point, changed)):
        with pytest.raises(CorruptEntry, match="Point has changed: stored were the fields"):
            Msgpack([new]).loads(Msgpack([old]).dumps(old(**dict.fromkeys(["x"] if old is Point else []))))


def test_other_named_types_that_changed_are_errors_too() -> None:
    packed = Msgpack([Pair, Colour]).dumps([Pair(1, 2)]), Msgpack([Pair, Colour]).dumps(Colour.RED)
    pair = namedtuple("Pair", "left middle right")
    colour = enum.Enum("Colour", ["GREEN"])
    for kind, data in zip((pair, colour), packed, strict=True):
        kind.__module__ = Pair.__module__
        with pytest.raises(CorruptEntry):
            Msgpack([kind]).loads(data)


def test_a_class_that_refuses_what_was_stored_is_an_error_that_names_it() -> None:
    @dataclass
    class Positive:
        n: int

        def __post_init__(self) -> None:
            if self.n <= 0:
                raise RuntimeError("must be positive")

    it = Positive(1)
    it.n = -1
    packer = Msgpack([Positive])
    with pytest.raises(CorruptEntry, match=r"Positive can be made of what is stored: RuntimeError"):
        packer.loads(packer.dumps(it))


def test_pydantic_models_come_back_with_all_they_hold() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        name: str = pydantic.Field(alias="n")
        tags: set[str] = set()  # noqa: RUF012
        _secret: int = pydantic.PrivateAttr(default=1)

        @pydantic.field_validator("name")
        @classmethod
        def twice(cls, name: str) -> str:
            return name + name

    it = Model(n="a", more=(1, 2))
    it._secret = 5
    packer = Msgpack([Model])
    back = packer.loads(packer.dumps(it))
    assert back == it
    assert (back.name, back.more, back._secret, back.model_fields_set) == ("aa", (1, 2), 5, {"name", "more"})
    with pytest.raises(InvalidValue, match="name it"):
        Msgpack().dumps(it)
    changed = pydantic.create_model("Model", __module__=Model.__module__, name=(str, ...))
    changed.__qualname__ = Model.__qualname__
    with pytest.raises(CorruptEntry, match="has changed"):
        Msgpack([changed]).loads(packer.dumps(it))


def test_a_planted_type_name_imports_nothing_and_makes_nothing() -> None:
    code = """
import sys
from tiered.errors import CorruptEntry
from tiered.serializers import Msgpack
import msgpack
Msgpack().loads(Msgpack().dumps(1))
before = set(sys.modules)
for name in ("this", "antigravity", "subprocess.Popen", "os.system", "", "tests.serializer_kit.Point", "a\\0b"):
    for content in ({"args": ["true"]}, ["true"], {}, None):
        for whole in ([[msgpack.ExtType(19, name.encode()), content]], [{"a": msgpack.ExtType(19, name.encode())}]):
            try:
                Msgpack().loads(msgpack.packb(whole))
            except CorruptEntry as error:
                assert "not named" in str(error), error
            else:
                raise AssertionError(name)
assert set(sys.modules) == before, set(sys.modules) - before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("types", "says"),
    [
        (Point, r"a list of classes, as in Msgpack\(types=\[Report\]\)"),
        ("Point", "a list of classes"),
        (5, "a list of classes"),
        (["Point"], "classes, not str"),
        ([Point(1)], "classes, not Point"),
        ([list[int]], "classes, not GenericAlias"),
        ([object], "builtins.object is none"),
        ([Text], "Text is none"),
        ([Point, make_dataclass("Point", ["a"], namespace={"__module__": Point.__module__})], "two classes called"),
        ([make_dataclass("Fed", [("a", InitVar[int])])], "has an InitVar"),
    ],
)
def test_types_that_cannot_be_named(types: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Msgpack(types)


def test_types_that_always_come_back_may_be_named_too() -> None:
    assert repr(Msgpack([datetime, int, Point, Point])) == "Msgpack(types=[Point])"
    assert repr(Msgpack()) == "Msgpack()"


# -- Msgpack: what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "a object: convert it to plain values first"),
        (1j, "a complex"),
        (Text("a"), "a tests.serializer_kit.Text: convert it to str first"),
        (OrderedDict(a=1), "a collections.OrderedDict: convert it to dict first"),
        (range(3), "a range"),
        (lambda: 1, "a function"),
        (ValueError("x"), "a ValueError"),
        (int, "a type"),
        ((n for n in ()), "a generator"),
        (type("Moment", (datetime,), {})(2024, 1, 1), "Moment: convert it to datetime first"),
        (Point(1), r"name it, as in Msgpack\(types=\[Point\]\)"),
        (Level.LOW, r"name it, as in Msgpack\(types=\[Level\]\)"),
        (Pair(1, 2), r"name it, as in Msgpack\(types=\[Pair\]\)"),
        ("\ud800", "this str: .*surrogates"),
        (looped(), "this list: recursion limit"),
        (deep(3_000, lambda it: [it]), "recursion limit"),
        (deep(3_000, lambda it: (it,)), "recursion limit"),
        (deep(3_000, lambda it: {"a": it}), "recursion limit"),
    ],
    ids=lambda it: type(it).__name__,
)
def test_what_msgpack_cannot_give_back_is_refused_with_its_type(value: Any, says: str) -> None:
    for whole in (value, [value], {"a": (value,)}):
        with pytest.raises(
            InvalidValue,
            match=says.replace("this str", "this").replace("this list", "this").replace("this:", "this .*:"),
        ):
            Msgpack().dumps(whole)


def test_what_can_be_stored_deep_down_can_be_read() -> None:
    packer = Msgpack([Point])
    unwrap = [(lambda it: [it], lambda it: it[0]), (lambda it: (it,), lambda it: it[0]), (Point, lambda it: it.x)]
    for wrap, inner in [*unwrap, (lambda it: {"a": it}, lambda it: it["a"])]:
        levels = 250 if wrap is Point else 500  # an object is a sign and a dict
        value = packer.loads(packer.dumps(deep(levels, wrap)))
        for _ in range(levels):
            assert type(value) is type(wrap(1))
            value = inner(value)
        assert value == 1


def bomb(count: int) -> bytes:
    return (b"\xdd" + count.to_bytes(4, "big")) * 900


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\x91", b"\xc0", b"\x01", b"\x90", b"\x92\x01\x02", b"\x91\xc1", b"\x91\x01\x01", b"A", b"5", b"{}"),
        *(b"\x91" * 5_000 + b"\xc0", b"\x91" + b"\x81" * 5_000, b"\x91" + bomb(2**32 - 1), b"\x91" + bomb(4_000)),
        *(b"\x91\xdf\xff\xff\xff\xff", b"\x91\xdb\xff\xff\xff\xffab", b"\x91\xc6\x7f\xff\xff\xffab"),
        *(b"\x91\xc9\xff\xff\xff\xff\x10", b"\x91\xa1\xff", b"\x91\x81\x90\x01", b"\x91\x81\x80\x01"),
        *(b"\x91\xc7\x00\x10", b"\x91\x92\x01\xc7\x00\x10", b"\x91\x81\xa1a\xc7\x00\x10", b"\x91\x81\xc7\x00\x10\x01"),
        *(b"\x92\xc7\x00\x10\x01", b"\x91\xc7\x00\x11", b"\x91\x92\xc7\x00\x11\x90", b"\x91\x91\xc7\x01\x10a"),
        *(b"\x91\xc7\x00\x08", b"\x91\xc7\x00\x14", b"\x91\xd4\x7f\x00", b"\x91\xd4\x80\x00", b"\x91\xc7\x00\x00"),
        *(b"\x91\xd4\x01\x00", b"\x91\xd6\x02\x00\x00\x00\x00", b"\x91\xd6\x02\x07\xe8\x02\x1f", b"\x91\xd4\x06\x00"),
        *(b"\x91\xd6\x05abcd", b"\x91\xd5\x05\xff\xff", b"\x91\xd4\x13\xff", b"\x91\x91\xc7\x00\x13"),
    ],
    ids=lambda data: data[:8].hex(),
)
def test_bytes_that_msgpack_did_not_write_are_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptEntry):
        Msgpack([Point]).loads(data)


@dataclass(frozen=True)
class Key:
    name: str


def test_an_extension_that_is_not_ours_is_refused() -> None:
    """It would come back as what that extension means here, or not at all."""
    store = Msgpack(types=[Key])
    for code, data in ((6, b"x" * 16), (17, b""), (99, b"\xd4" * 300)):
        for value in (
            msgpack.ExtType(code, data),
            [(1, 2), msgpack.ExtType(code, data)],
            {Key("\u0531"): {1: msgpack.ExtType(code, data)}},
        ):
            with pytest.raises(InvalidValue, match="ExtType"):
                store.dumps(value)


def test_what_looks_like_an_extension_is_none() -> None:
    store = Msgpack(types=[Key])
    for value in (b"\xd4\xc7" * 50, "\u0531\u0628", {Key("\u0531"): "\u0531", ("\u0531", b"\xd8"): 0xD4}, 2.0**0.5):
        assert store.loads(store.dumps(value)) == value
