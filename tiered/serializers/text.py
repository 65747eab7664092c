"""Text and JSON, readable by any program: nothing is added to them."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ..errors import CorruptEntry, InvalidValue

_SCALARS = frozenset({str, int, float, bool, type(None)})


class Str:
    """Text as UTF-8. Takes str only; reads any UTF-8 there is, also what `Json` wrote."""

    def __repr__(self) -> str:
        return "Str()"

    def dumps(self, value: str, /) -> bytes:
        if type(value) is not str:
            raise InvalidValue(f"Str takes str, not {type(value).__name__}")
        return _utf8(value, "Str")

    def loads(self, data: bytes, /) -> str:
        return _text(data, "Str")


class Json:
    """What JSON can say and give back: dict with str keys, list, str, int, finite float, bool, None.

    Compact, UTF-8, nothing escaped that need not be. Anything that would come back as something else is refused, a
    tuple (as list) and a dict key that is an int (as str) included: `Msgpack` takes those.
    """

    def __repr__(self) -> str:
        return "Json()"

    def dumps(self, value: Any, /) -> bytes:
        try:
            text = _encode(value)
        except (TypeError, ValueError, RecursionError) as error:
            found = _misfit(value)  # what JSON cannot say at all, or a value that holds itself
            raise InvalidValue(f"Json cannot store {found or f'this {type(value).__name__}: {error}'}") from error
        found = _misfit(value)
        if found is not None:
            raise InvalidValue(f"Json cannot store {found}")
        return _utf8(text, "Json")

    def loads(self, data: bytes, /) -> Any:
        text = _text(data, "Json")
        try:
            return _decode(text)
        except (ValueError, RecursionError) as error:
            raise CorruptEntry(f"this is no JSON: {error}") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def _misfit(value: Any) -> str | None:
    """What in `value` would not come back as it is, in words; None if all of it does."""
    todo, seen = [value], set()
    while todo:
        item = todo.pop()
        kind = type(item)
        if kind in _SCALARS:
            continue
        if kind is not dict and kind is not list:
            return f"a {kind.__qualname__}"
        if id(item) in seen:  # twice in one value, or in itself, which the encoder finds
            continue
        seen.add(id(item))
        if kind is dict:
            for key in item:
                if type(key) is not str:
                    return f"a dict with a key of type {type(key).__qualname__}"
            item = list(item.values())
        if not _SCALARS.issuperset(map(type, item)):
            todo.extend(item)
    return None


def _utf8(text: str, who: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(f"{who} cannot store a str that holds lone surrogates") from error


def _text(data: bytes, who: str) -> str:
    try:
        return str(data, "utf-8")
    except (TypeError, UnicodeDecodeError) as error:
        raise CorruptEntry(f"this is not UTF-8: {who} did not write it") from error
