"""The arguments of a call as text for a key: equal texts mean equal arguments of equal types.

    n t f          None, True, False              l3: u3: S3: F3:   list, tuple, set, frozenset of three
    i2a;           int, hexadecimal               m2:               dict of two pairs
    d0x1.8p+1;     float, hexadecimal             c9:mod.Point      of this type; what it consists of follows
    s3:abc b616263;  str, bytes                   D T Y H E U P     Decimal, datetime, date, time, timedelta, UUID, path

Each text says where it ends, so that texts put together are as distinct as their parts. A long one, and one that is
not ASCII, is replaced by its BLAKE2b.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from pathlib import PurePath
from typing import Any
from uuid import UUID

from .errors import ConfigurationError

LONG = 128
"""Characters of arguments in a key; what is longer is hashed."""

Bind = Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, ...]]


class Unkeyable(TypeError):
    """A value that cannot be told from others by what it holds."""


def text_of(values: Iterable[Any]) -> str:
    """Text for `values`; raises Unkeyable."""
    text = ""
    for value in values:
        text += f"i{value:x};" if type(value) is int else encode(value)
    if len(text) > LONG or not text.isascii():
        return f"#{blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=20).hexdigest()}"
    return text


def encode(value: Any) -> str:
    """The text of one value; raises Unkeyable, or RecursionError for one that holds itself."""
    known = _ENCODERS.get(type(value))
    return known(value) if known is not None else _encode_rare(value)


def _encode_rare(value: Any) -> str:
    kind = type(value)
    own = None if isinstance(value, type) else getattr(value, "__tiered_key__", None)
    if own is not None:
        return _of(kind) + encode(own() if callable(own) else own)
    if isinstance(value, Enum):
        return _of(kind) + _sized("s", value.name)
    if isinstance(value, PurePath):
        return _of(kind) + _sized("P", str(value))
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return _of(kind) + _several("u", value)
    if is_dataclass(kind):
        return _of(kind) + _pairs({field.name: getattr(value, field.name) for field in fields(value)})
    raise Unkeyable(f"{kind.__module__}.{kind.__qualname__}")


def _sized(tag: str, text: str) -> str:
    return f"{tag}{len(text)}:{text}"


def _of(kind: type) -> str:
    return _sized("c", f"{kind.__module__}.{kind.__qualname__}")


def _several(tag: str, values: Collection[Any]) -> str:
    return f"{tag}{len(values)}:" + "".join(map(encode, values))


def _sorted(tag: str, values: Collection[Any]) -> str:
    return f"{tag}{len(values)}:" + "".join(sorted(map(encode, values)))


def _pairs(pairs: Mapping[Any, Any]) -> str:
    return f"m{len(pairs)}:" + "".join(sorted(encode(key) + encode(value) for key, value in pairs.items()))


def _moment(tag: str, moment: datetime | time) -> str:
    zone = moment.tzinfo
    name = "" if zone is None or type(zone) is timezone else getattr(zone, "key", None)
    if name is None:  # it may be any object at all
        raise Unkeyable(f"{type(moment).__qualname__} in a time zone of type {type(zone).__qualname__}")
    return _sized(tag, f"{moment.isoformat()}/{moment.fold}/{name}")


_ENCODERS: Mapping[type, Callable[[Any], str]] = {
    type(None): lambda value: "n",  # noqa: ARG005
    bool: lambda value: "t" if value else "f",
    int: lambda value: f"i{value:x};",
    float: lambda value: f"d{value.hex()};",
    str: lambda value: f"s{len(value)}:{value}",
    bytes: lambda value: f"b{value.hex()};",
    list: lambda value: _several("l", value),
    tuple: lambda value: _several("u", value),
    set: lambda value: _sorted("S", value),
    frozenset: lambda value: _sorted("F", value),
    dict: _pairs,
    Decimal: lambda value: _sized("D", str(value)),
    datetime: lambda value: _moment("T", value),
    date: lambda value: _sized("Y", value.isoformat()),
    time: lambda value: _moment("H", value),
    timedelta: lambda value: f"E{value.days},{value.seconds},{value.microseconds};",
    UUID: lambda value: f"U{value.hex};",
}


def binder(function: Callable[..., Any], ignore: Collection[str]) -> tuple[tuple[str, ...], Bind]:
    """The names of the parameters but those in `ignore`, and what gives their values for the arguments of a call.

    Defaults are filled in; arguments that do not fit are Python's TypeError.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{function!r:.80} does not tell its parameters: give key=") from error
    parameters = signature.parameters
    unknown = sorted(set(ignore) - set(parameters))
    if unknown:
        raise ConfigurationError(f"ignore= names {unknown}, which are no parameters of {function!r:.80}")
    every = tuple(parameters)
    kept = [at for at, name in enumerate(every) if name not in ignore]
    plain = {parameter.kind for parameter in parameters.values()} <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    defaults = {name: it.default for name, it in parameters.items() if it.default is not inspect.Parameter.empty}
    count, all_kept = len(every), len(kept) == len(every)

    def slow(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{function.__qualname__}() {error}") from None
        bound.apply_defaults()
        return tuple(bound.arguments.values())

    def bind(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Signature.bind takes 3 us, so what most calls look like is done by hand."""
        values = args
        if kwargs or len(args) != count or not plain:
            named = defaults | kwargs
            rest = every[len(args) :]
            if plain and len(args) <= count and kwargs.keys() <= set(rest) and named.keys() >= set(rest):
                values = (*args, *(named[name] for name in rest))
            else:
                values = slow(args, kwargs)
        return values if all_kept else tuple(values[at] for at in kept)

    return tuple(every[at] for at in kept), bind
