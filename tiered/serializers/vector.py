"""Vectors of numbers, a fraction of their JSON in size and time.

    offset  bytes
    0       1      0xF6: no UTF-8 and no record begins with it
    1       1      "V"
    2       1      kind: 1 float32, 2 float16, 3 int8
    3       1      0
    4       4      dimension
    8       4      int8 only: the scale, a float32
    ..      ..     the numbers

All little-endian. An int8 number times the scale is the value; the scale is the largest magnitude by 127.
"""

from __future__ import annotations

import difflib
import struct
import sys
from array import array
from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..errors import ConfigurationError, CorruptEntry, InvalidValue

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

Precision = Literal["float32", "float16", "int8"]

_MAGIC = b"\xf6V"
_head = struct.Struct("<2sBBI")
_scale = struct.Struct("<f")
HEADER = _head.size


class _Kind(NamedTuple):
    code: int
    letter: str  # of the module struct
    size: int  # bytes a number
    dtype: str  # of numpy
    scaled: int  # bytes of the scale


_KINDS = {
    "float32": _Kind(1, "f", 4, "<f4", 0),
    "float16": _Kind(2, "e", 2, "<f2", 0),
    "int8": _Kind(3, "b", 1, "<i1", _scale.size),
}
_CODES = {kind.code: kind for kind in _KINDS.values()}


class Vector:
    """Vectors such as embeddings: list, tuple, array.array or one-dimensional numpy array in, list of float out.

    "float32" takes 4 bytes a number, "float16" 2 (largest 65,504), "int8" 1, scaled to the largest magnitude of the
    vector. What is stored says which it is, so any `Vector` reads what any other wrote. numpy is used where it is
    given, never needed, but for `array`. NaN, infinities, empty vectors and numbers too large are InvalidValue.
    """

    def __init__(self, precision: Precision = "float32") -> None:
        if precision not in _KINDS:
            close = difflib.get_close_matches(str(precision), _KINDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_KINDS)}"
            raise ConfigurationError(f"Vector({precision!r:.40}): {hint}")
        self._precision = precision
        self._kind = _KINDS[precision]

    def __repr__(self) -> str:
        return f"Vector({self._precision!r})"

    def dumps(self, value: Any, /) -> bytes:
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray):
            if value.ndim != 1 or value.dtype.kind not in "fiu":
                raise InvalidValue(f"Vector takes one row of real numbers, not {value.dtype} of shape {value.shape}")
            if not self._kind.scaled:  # a tenth of the time, to the same bytes
                with numpy.errstate(over="ignore"):
                    row = value.astype(self._kind.dtype)
                if row.size and numpy.isfinite(row).all():
                    numbers: bytes = row.tobytes()
                    return _head.pack(_MAGIC, self._kind.code, 0, row.size) + numbers
            value = value.tolist()
        if isinstance(value, str | bytes | bytearray | memoryview) or not isinstance(value, Sequence | array):
            raise InvalidValue(f"Vector takes a list of numbers or a numpy array, not {type(value).__qualname__}")
        try:
            return self._packed(value)
        except (TypeError, ValueError, OverflowError, struct.error) as error:
            raise InvalidValue(f"Vector({self._precision!r}) cannot store this vector: {error}") from error

    def _packed(self, numbers: Sequence[float]) -> bytes:
        count = len(numbers)
        if not count:
            raise ValueError("it is empty")
        if not all(map(isfinite, numbers)):
            raise ValueError("it holds NaN or infinity")
        head = _head.pack(_MAGIC, self._kind.code, 0, count)
        if not self._kind.scaled:
            return head + struct.pack(f"<{count}{self._kind.letter}", *numbers)
        numbers = list(map(float, numbers))  # numpy's own would divide with less precision
        largest = max(map(abs, numbers))
        stored = _scale.pack(largest / 127)
        [scale] = _scale.unpack(stored)
        if scale == 0:  # too small for a float32
            return head + stored + bytes(count)
        small = [max(-127, min(127, round(number / scale))) for number in numbers]
        return head + stored + struct.pack(f"<{count}b", *small)

    def loads(self, data: bytes, /) -> list[float]:
        kind, start, count, scale = _opened(data)
        numbers = struct.unpack_from(f"<{count}{kind.letter}", data, start)
        return [number * scale for number in numbers] if kind.scaled else list(numbers)

    def array(self, stored: Sequence[bytes | None], /) -> NDArray[numpy.float32]:
        """All of `stored` as one new array of float32, shape (len(stored), dimension); None gives a row of NaN.

        Raises CorruptEntry as `loads` does, InvalidValue where dimensions differ, ImportError without numpy.
        """
        try:
            import numpy
        except ImportError as error:
            raise ImportError("arrays need numpy: pip install numpy, or use mget for lists") from error
        present = [data for data in stored if data is not None]
        if not present:
            return numpy.full((len(stored), 0), numpy.nan, numpy.float32)
        kind, start, count, _ = _opened(present[0])
        alike = len(set(map(len, present))) == 1 and len({data[:HEADER] for data in present}) == 1
        if alike and kind.scaled == 0:
            joined = bytearray().join([memoryview(data)[start:] for data in present])
            found = numpy.frombuffer(joined, kind.dtype).reshape(len(present), count)
            found = found.astype(numpy.float32, copy=False)
        else:
            found = numpy.empty((len(present), count), numpy.float32)
            for row, data in zip(found, present, strict=True):
                kind, start, length, scale = _opened(data)
                if length != count:
                    raise InvalidValue(f"vectors of {count} and of {length} numbers make no array: ask for them apart")
                numpy.multiply(
                    numpy.frombuffer(data, kind.dtype, offset=start), numpy.float32(scale), out=row, dtype=numpy.float32
                )
        if len(present) == len(stored):
            return found
        whole = numpy.full((len(stored), count), numpy.nan, numpy.float32)
        whole[[at for at, data in enumerate(stored) if data is not None]] = found
        return whole


def _opened(data: bytes) -> tuple[_Kind, int, int, float]:
    """The kind, where the numbers begin, how many there are, and the scale."""
    if data[:2] != _MAGIC or len(data) < HEADER:
        raise CorruptEntry("Vector did not write this: it does not begin as its values do")
    _, code, spare, count = _head.unpack_from(data)
    kind = _CODES.get(code)
    if kind is None or spare:
        raise CorruptEntry(f"a stored vector is of a kind ({code}, {spare}) that this release does not know")
    start = HEADER + kind.scaled
    if not count or len(data) != start + count * kind.size:
        raise CorruptEntry(f"a stored vector says {count} numbers and has {len(data)} bytes")
    scale = _scale.unpack_from(data, HEADER)[0] if kind.scaled else 1.0
    if not isfinite(scale):
        raise CorruptEntry("a stored vector has a scale that is no number")
    return kind, start, count, scale
