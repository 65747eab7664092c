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
from enum import Enum, Flag
from functools import cached_property
from hashlib import blake2b
from pathlib import PurePath
from types import MemberDescriptorType
from typing import Any, Generic, NamedTuple
from uuid import UUID
from weakref import WeakKeyDictionary

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
        return f"#{digest(text, 20)}"
    return text


def digest(text: str, size: int) -> str:
    """A hash of `size` bytes, in hexadecimal."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def encode(value: Any) -> str:
    """The text of one value; raises Unkeyable, or RecursionError for one that holds itself."""
    known = _ENCODERS.get(type(value))
    return known(value) if known is not None else _encode_rare(value)


def _encode_rare(value: Any) -> str:
    kind = type(value)
    own = None if isinstance(value, type) else getattr(value, "__tiered_key__", None)
    if own is not None:
        return _of(kind) + encode(own() if callable(own) else own)
    if isinstance(value, Flag):  # some have no name
        return _of(kind) + encode(value.value)
    if isinstance(value, Enum):
        return _of(kind) + _sized("s", value.name)
    if isinstance(value, PurePath):
        _check_state(value, ())
        return _of(kind) + _sized("P", str(value))
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        _check_state(value, ())
        return _of(kind) + _several("u", value)
    if is_dataclass(kind):
        names = [field.name for field in fields(value)]
        _check_state(value, names)
        unset = [name for name in names if not hasattr(value, name)]
        if unset:
            raise Unkeyable(f"{_name(kind)} whose field {unset[0]!r} is not set")
        return _of(kind) + _pairs({name: getattr(value, name) for name in names})
    raise Unkeyable(_name(kind))


_HEAP = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: a class made by Python code. The others may hold more than attributes."""


class _Beyond(NamedTuple):
    """Where objects of a class may keep what is in no field."""

    solid: type | None  # a base that is not of Python
    slots: tuple[str, ...]
    derived: frozenset[str]  # attributes that the class works out of the others


_beyond: WeakKeyDictionary[type, _Beyond] = WeakKeyDictionary()


def _look_beyond(kind: type) -> _Beyond:
    found = _beyond.get(kind)
    if found is None:
        bases = [base for base in kind.__mro__ if base not in (object, Generic)]
        members = [
            pair for base in bases if base.__module__.partition(".")[0] != "pathlib" for pair in vars(base).items()
        ]
        solid = next((base for base in bases if not base.__flags__ & _HEAP and not issubclass(base, tuple)), None)
        found = _beyond[kind] = _Beyond(
            solid,
            tuple(name for name, it in members if isinstance(it, MemberDescriptorType)),
            frozenset(name for name, it in members if isinstance(it, cached_property)),
        )
    return found


def _check_state(value: Any, names: Collection[str]) -> None:
    """Raises Unkeyable if it holds anything besides `names` that its class does not work out of these."""
    kind = type(value)
    solid, slots, derived = _look_beyond(kind)
    if solid is not None:
        raise Unkeyable(f"{_name(kind)}, which holds what a {solid.__qualname__} holds besides its fields")
    for name in (*getattr(value, "__dict__", ()), *slots):
        if name not in names and name not in derived and name[:2] != "__" and hasattr(value, name):
            raise Unkeyable(f"{_name(kind)} whose {name!r} is none of its fields")


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _sized(tag: str, text: str) -> str:
    return f"{tag}{len(text)}:{text}"


def _of(kind: type) -> str:
    return _sized("c", _name(kind))


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
