"""Vectors: their bytes, with and without numpy, and many of them as one array."""

from __future__ import annotations

import math
import subprocess
import sys
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serializer_kit import (
    same,
)
from tiered.errors import ConfigurationError, CorruptEntry, InvalidValue
from tiered.serializers import Vector

EXACT = [0.0, -0.0, 1.0, -1.5, 0.25, 60_000.0]


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_a_vector_of_numbers_that_fit_comes_back_exactly(kind: Any) -> None:
    for vector in (EXACT, tuple(EXACT), array("d", EXACT), array("f", EXACT)):
        data = Vector(kind).dumps(vector)
        assert len(data) == 8 + len(EXACT) * (4 if kind == "float32" else 2)
        back = Vector(kind).loads(data)
        assert type(back) is list
        assert same(back, EXACT)
    assert same(Vector(kind).loads(Vector(kind).dumps([1, 2, True])), [1.0, 2.0, 1.0])


def test_the_bytes_of_a_vector_are_pinned() -> None:
    assert Vector().dumps([1.0, -2.0]).hex() == "f6560100020000000000803f000000c0"
    assert Vector("float16").dumps([1.0, -2.0]).hex() == "f656020002000000003c00c0"
    assert Vector("int8").dumps([127.0, -63.5]).hex() == "f6560300020000000000803f7fc0"
    assert repr(Vector("int8")) == "Vector('int8')"


numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1))
def test_float32_rounds_once(vector: list[float]) -> None:
    import struct

    assert Vector().loads(Vector().dumps(vector)) == [struct.unpack("<f", struct.pack("<f", n))[0] for n in vector]


@settings(deadline=None)
@given(st.lists(st.floats(-1e30, 1e30), min_size=1))
def test_int8_is_within_half_a_step(vector: list[float]) -> None:
    largest = max(map(abs, vector))
    back = Vector("int8").loads(Vector("int8").dumps(vector))
    assert all(abs(a - b) <= largest / 127 * 0.5001 + 1e-37 for a, b in zip(vector, back, strict=True))


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
@pytest.mark.parametrize(
    ("vector", "says"),
    [
        ([], "empty"),
        ([math.nan], "NaN or infinity"),
        ([1.0, -math.inf], "NaN or infinity"),
        ([1e308, 1.0], "cannot store"),
        (["1"], "must be real number"),
        ([None], "must be real number"),
        ([1j], "must be real number"),
        ([[1.0]], "must be real number"),
        ("1.0", "not str"),
        (b"1.0", "not bytes"),
        (bytearray(b"a"), "not bytearray"),
        (memoryview(b"a"), "not memoryview"),
        (5, "not int"),
        (None, "not NoneType"),
        ({1.0: 2.0}, "not dict"),
        ({1.0}, "not set"),
        ([10**400], "too large"),
    ],
    ids=lambda it: repr(it)[:20],
)
def test_what_is_no_vector_is_refused(kind: Any, vector: Any, says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        Vector(kind).dumps(vector)


def test_a_number_too_large_for_its_kind_is_refused() -> None:
    for kind, number in (("float16", 65_520.0), ("float32", 3.5e38), ("int8", 1e41)):
        with pytest.raises(InvalidValue, match="cannot store this vector"):
            Vector(kind).dumps([1.0, number])  # type: ignore[arg-type]


def test_any_vector_reads_any_kind() -> None:
    for writer in ("float32", "float16", "int8"):
        assert Vector("int8").loads(Vector(writer).dumps([127.0, -1.0])) == [127.0, -1.0]  # type: ignore[arg-type]
    assert Vector("int8").loads(Vector("int8").dumps([0.0, -0.0])) == [0.0, 0.0]
    assert Vector("int8").loads(Vector("int8").dumps([5e-324])) == [0.0]


GOOD = {kind: Vector(kind).dumps([1.0, 2.0]) for kind in ("float32", "float16", "int8")}  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", GOOD)
def test_a_vector_that_was_cut_or_changed_is_corrupt(kind: str) -> None:
    good = GOOD[kind]
    bad = [good[:end] for end in range(len(good))] + [good + b"\0", b"\xf6W" + good[2:], good[:2] + b"\x09" + good[3:]]
    bad += [good[:3] + b"\1" + good[4:], good[:4] + b"\xff\xff\xff\xff" + good[8:], good[:4] + bytes(4)]
    if kind == "int8":
        bad.append(good[:8] + b"\0\0\xc0\x7f" + good[12:])
    for data in bad:
        with pytest.raises(CorruptEntry):
            Vector().loads(data)


def test_an_unknown_kind_of_vector_names_the_close_match() -> None:
    for kind, says in (("float23", "did you mean 'float32'"), ("double", "known: float32"), (32, "known: float32")):
        with pytest.raises(ConfigurationError, match=says):
            Vector(kind)  # type: ignore[arg-type]


def test_without_numpy_a_vector_is_the_same_and_an_array_says_what_is_missing() -> None:
    code = f"""
import sys
sys.modules["numpy"] = None
from tiered.serializers import Vector
for kind, good in {GOOD!r}.items():
    assert Vector(kind).dumps([1.0, 2.0]) == good
    assert all(abs(a - b) < 0.01 for a, b in zip(Vector(kind).loads(good), [1.0, 2.0]))
try:
    Vector().array([])
except ImportError as error:
    assert "pip install numpy" in str(error)
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_numpy_gives_the_same_bytes(kind: Any) -> None:
    numpy = pytest.importorskip("numpy")
    random = numpy.random.default_rng(5)
    for scale in (1e-3, 1.0, 300.0):
        plain = (random.standard_normal(300) * scale).tolist()
        for dtype in ("f8", "f4", "f2", ">f8"):
            row = numpy.array(plain, dtype)
            assert Vector(kind).dumps(row) == Vector(kind).dumps(row.tolist())
            assert Vector(kind).dumps(list(row)) == Vector(kind).dumps(row.tolist())
        assert Vector(kind).dumps(numpy.array(plain)[::2]) == Vector(kind).dumps(plain[::2])
    assert Vector(kind).dumps(numpy.arange(5)) == Vector(kind).dumps([0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    "made",
    ["zeros((2, 2))", "array(1.0)", "array(['a'])", "array([1j])", "array([None])", "array([True])", "array([])"],
)
def test_arrays_that_are_no_vector_are_refused(made: str) -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(InvalidValue):
        Vector().dumps(eval(f"numpy.{made}", {"numpy": numpy}))
    with pytest.raises(InvalidValue, match="NaN or infinity"):
        Vector().dumps(numpy.array([1.0, numpy.nan]))
    with pytest.raises(InvalidValue, match="cannot store"):
        Vector("float16").dumps(numpy.array([1.0, 1e6]))


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_many_vectors_make_one_array(kind: Any) -> None:
    numpy = pytest.importorskip("numpy")
    rows = [[float(n), 1.0, -2.5] for n in range(5)]
    stored = [Vector(kind).dumps(row) for row in rows]
    whole = Vector(kind).array(stored)
    assert whole.dtype == numpy.float32
    assert whole.shape == (5, 3)
    assert whole.flags.c_contiguous
    assert whole.flags.writeable
    expected = numpy.array([Vector(kind).loads(data) for data in stored], numpy.float32)
    assert (whole == expected).all()


def test_an_array_of_several_kinds_and_of_missing_vectors() -> None:
    numpy = pytest.importorskip("numpy")
    mixed = Vector().array([GOOD["float32"], None, GOOD["int8"], GOOD["float16"], None])
    assert mixed.shape == (5, 2)
    assert numpy.isnan(mixed).all(axis=1).tolist() == [False, True, False, False, True]
    assert numpy.allclose(mixed[[0, 2, 3]], [1.0, 2.0], atol=0.01)
    one = Vector().array([None, GOOD["float32"]])
    assert (numpy.isnan(one[0]).all(), one[1].tolist()) == (True, [1.0, 2.0])
    assert Vector().array([]).shape == (0, 0)
    assert Vector().array([None, None]).shape == (2, 0)
    with pytest.raises(InvalidValue, match="of 2 and of 3 numbers make no array"):
        Vector().array([GOOD["float32"], Vector().dumps([1, 2, 3])])
    for bad in (b"", b"[1.0]", GOOD["float32"][:-1], b"\xf6V\x09\0" + GOOD["float32"][4:]):
        for stored in ([GOOD["float32"], bad], [bad, GOOD["float32"]], [bad], [bad, bad]):
            with pytest.raises(CorruptEntry):
                Vector().array(stored)
