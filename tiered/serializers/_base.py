"""What a serializer is."""

from __future__ import annotations

from typing import Protocol, TypeVar

V = TypeVar("V")


class Serializer(Protocol[V]):
    """Turns values into bytes and back. Any object with these two methods will do.

    What cannot come back equal and of the same type is refused; what was not written by `dumps` is an error, never
    a value.
    """

    def dumps(self, value: V, /) -> bytes:
        """The bytes to store. Raises InvalidValue, naming the type, for what it does not take."""

    def loads(self, data: bytes, /) -> V:
        """The value. Raises CorruptEntry for bytes that `dumps` did not write, or wrote for a type that changed."""
