"""The plain layout of a foreign store: values as they are, without stamp or expiry (R9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..backend import Found, Op
from ..clock import ZERO
from ..entry import VALUE, Entry, Packing
from ..errors import ForeignValue, InvalidValue, Unsupported
from ..record import MAGIC, is_record
from ._calls import Calls
from ._locks import Turn
from ._names import joined
from ._peer import heavy

if TYPE_CHECKING:
    from ..serializers import Serializer


_MAGIC = bytes([MAGIC])


class Plain:
    """What each operation of `tiered.backend.Backend` does to plain values. Writes are steps nobody else gets between.

    With a `codec` the store holds values of its own kind, and an entry carries their bytes.
    """

    def __init__(self, calls: Calls, codec: Serializer[Any] | None, *, torn: bool) -> None:
        self._calls = calls
        self._codec = codec
        self._torn = torn  # a value could be read while it is being written

    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]:
        names = joined(space, keys)

        def shape(values: list[Any]) -> list[Found]:
            if (
                self._codec is None
                and set(map(type, values)) == {bytes}
                and _MAGIC not in {value[:1] for value in values}
            ):
                return [Entry(VALUE, ZERO, None, value) for value in values]  # the common case of a large batch
            return [self._found(key, value) for key, value in zip(keys, values, strict=True)]

        def steps(turn: Turn | None) -> Op[list[Found]]:
            return self._calls.mget(names, shape, turn, heavy=self._codec is not None)

        return (yield from (self._calls.hold(names, steps, shared=True) if self._torn else steps(None)))

    def check(self, items: Sequence[tuple[Any, ...]]) -> None:
        """Raises what a write of these (key, entry, ..) would raise."""
        for key, entry, *_ in items:
            if entry.kind == VALUE:
                self._loaded(key, entry)

    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[Mapping[str, bytes]]:  # noqa: ARG002
        """The last writer wins: nothing is ever refused."""
        values = {key: entry for key, entry in items if entry.kind == VALUE}
        gone = joined(space, [key for key, entry in items if entry.kind != VALUE])

        def steps(turn: Turn) -> Op[Mapping[str, bytes]]:
            yield from self._write(space, values, turn)
            yield from self._calls.mdelete(gone, turn)
            return {}

        return (yield from self._calls.hold([*joined(space, values), *gone], steps))

    def swap(
        self,
        space: str,
        items: Sequence[tuple[str, Entry, bytes | None]],
        packing: Packing | None,  # noqa: ARG002
    ) -> Op[set[str]]:
        """Store what is still absent; a plain value that was seen may be any value by now."""
        refused = {key for key, _, seen in items if seen is not None}
        return refused | (yield from self._add(space, {key: entry for key, entry, seen in items if seen is None}))

    def fill(self, space: str, items: Sequence[tuple[str, Entry, bytes]], packing: Packing | None) -> Op[None]:  # noqa: ARG002
        """What is absent, lives for ever and is a value: anything else could not be said here."""
        yield from self._add(
            space, {key: entry for key, entry, _ in items if (entry.kind, entry.expires) == (VALUE, None)}
        )

    def _add(self, space: str, entries: Mapping[str, Entry]) -> Op[set[str]]:
        """Store what is absent -> the keys that are not."""
        names = joined(space, entries)

        def steps(turn: Turn) -> Op[set[str]]:
            there = yield from self._calls.mget(names, lambda values: [value is not None for value in values], turn)
            taken = {key for key, is_there in zip(entries, there, strict=True) if is_there}
            yield from self._write(space, {key: entry for key, entry in entries.items() if key not in taken}, turn)
            return taken

        return (yield from self._calls.hold(names, steps)) if names else set()

    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        names = joined(space, [key for key, _ in marks])

        def steps(turn: Turn) -> Op[None]:
            return self._calls.mdelete(names, turn)

        yield from self._calls.hold(names, steps)

    def retract(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:  # noqa: ARG002
        """There is no "invalid" here."""
        yield from ()

    def live(self, space: str, keys: Sequence[str], now_ms: int) -> Op[list[str]]:  # noqa: ARG002
        """All that is listed is a value."""
        yield from ()
        return list(keys)

    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> Op[int]:  # noqa: ARG002
        """Nothing expires, and deletions leave nothing."""
        yield from ()
        return 0

    def _write(self, space: str, entries: Mapping[str, Entry], turn: Turn) -> Op[None]:
        def pairs() -> list[tuple[str, Any]]:
            names = joined(space, entries)
            return [(name, self._loaded(*item)) for name, item in zip(names, entries.items(), strict=True)]

        if entries:
            yield from self._calls.mset(
                pairs, turn, self._codec is not None and heavy([entry.value for entry in entries.values()])
            )

    def _found(self, key: str, value: Any) -> Found:
        if value is None:
            return None
        if self._codec is None:
            data = self._calls.raw(value)
        else:
            try:
                data = self._codec.dumps(value)
            except Exception as error:
                broken = ForeignValue(f"the serializer cannot take the stored {type(value).__name__}")
                broken.__cause__ = error
                return broken
        if data[:1] == _MAGIC and is_record(key.encode(), data):
            return ForeignValue('a record of tiered, where plain values are due: open the store with layout="record"')
        return Entry(VALUE, ZERO, None, data)

    def _loaded(self, key: str, entry: Entry) -> Any:
        """What is to be stored. Its errors come before anything is written."""
        if entry.expires is not None:
            raise Unsupported("a plain foreign store keeps no expiry: write without ttl=", key=key)
        if entry.value[:1] == _MAGIC and is_record(key.encode(), entry.value):
            raise InvalidValue(
                "a record of tiered for this very key could not be told from one of the stack's", key=key
            )
        if self._codec is None:
            return entry.value
        try:
            return self._codec.loads(entry.value)
        except Exception as error:
            raise InvalidValue("the serializer cannot read the value that was to be stored", key=key) from error
