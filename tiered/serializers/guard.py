"""Any serializer's errors as ours: what it does not take is InvalidValue, what it cannot read is CorruptEntry."""

from __future__ import annotations

from typing import Any, TypeVar

from ..errors import CorruptEntry, InvalidValue, TieredError
from ._base import Serializer

V = TypeVar("V")


def encode(serializer: Serializer[V], value: V) -> bytes:
    """The bytes of `value`; an error of ours for whatever a serializer that is not ours raises or returns."""
    try:
        data: Any = serializer.dumps(value)
    except TieredError:
        raise
    except Exception as error:
        raise InvalidValue(
            f"{serializer!r:.80} cannot store a {type(value).__qualname__}: {type(error).__name__}"
        ) from error
    if not isinstance(data, bytes):
        raise InvalidValue(f"{serializer!r:.80} made {type(data).__name__} of a value, not bytes")
    return data


def decode(serializer: Serializer[V], data: bytes) -> V:
    """The value of `data`."""
    try:
        return serializer.loads(data)
    except TieredError:
        raise
    except Exception as error:
        raise CorruptEntry(f"{serializer!r:.80} cannot read what is stored: {type(error).__name__}") from error
