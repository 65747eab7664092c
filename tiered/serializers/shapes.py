"""How objects of the types a caller named are taken apart and made again, exactly or not at all."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError, CorruptEntry


@dataclass(frozen=True, slots=True)
class Shape:
    """How objects of a named type are taken apart and made again; `make` may raise anything."""

    name: str
    take: Callable[[Any], Any]
    make: Callable[[Any], Any]


def shapes(types: Iterable[type], plain: Collection[type]) -> dict[type, Shape]:
    """A shape for each of `types` that is not `plain`. Raises ConfigurationError for what none can be made of."""
    if isinstance(types, type | str) or not isinstance(types, Iterable):
        raise ConfigurationError("types= is a list of classes, as in Msgpack(types=[Report])")
    found: dict[type, Shape] = {}
    taken: dict[str, type] = {}
    for kind in types:
        if not isinstance(kind, type):
            raise ConfigurationError(f"types= holds classes, not {type(kind).__name__}")
        if kind in plain:
            continue
        shape = _shape(kind)
        if taken.setdefault(shape.name, kind) is not kind:
            raise ConfigurationError(f"types= holds two classes called {shape.name}: only one can be read back")
        found[kind] = shape
    return found


def nameable(kind: type) -> bool:
    """Whether `types=` takes it."""
    try:
        _shape(kind)
    except ConfigurationError:
        return False
    return True


def _shape(kind: type) -> Shape:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if issubclass(kind, enum.Flag):
        return Shape(name, lambda it: it.value, kind)
    if issubclass(kind, enum.Enum):
        return Shape(name, lambda it: it.name, lambda stored: kind[stored])
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        fields = kind._fields
        return Shape(
            name,
            lambda it: dict(zip(fields, it, strict=True)),
            lambda stored: tuple.__new__(kind, map(_same(name, stored, fields).get, fields)),
        )
    if dataclasses.is_dataclass(kind):
        return _dataclass(name, kind)
    if hasattr(kind, "__pydantic_fields__"):
        return _model(name, kind)
    raise ConfigurationError(
        f"types= takes dataclasses, enums, named tuples and pydantic models; {name} is none: "
        "make plain values of it first"
    )


def _dataclass(name: str, kind: type) -> Shape:
    if any(field._field_type is dataclasses._FIELD_INITVAR for field in kind.__dataclass_fields__.values()):  # type: ignore[attr-defined]  # noqa: SLF001
        raise ConfigurationError(f"{name} has an InitVar, which no object keeps: it cannot be made again")
    if not kind.__dataclass_params__.init:  # type: ignore[attr-defined]
        raise ConfigurationError(f"{name} has an __init__ of its own (init=False): it cannot be made of its fields")
    fields = [field.name for field in dataclasses.fields(kind)]
    given = [field.name for field in dataclasses.fields(kind) if field.init]
    # what __post_init__ computed is stored: it must not be computed a second time from itself
    after = fields if hasattr(kind, "__post_init__") else [field for field in fields if field not in given]

    def take(it: Any) -> dict[str, Any]:
        return {field: getattr(it, field) for field in fields}

    def make(stored: Any) -> Any:
        _same(name, stored, fields)
        it = kind(**{field: stored[field] for field in given})
        for field in after:
            object.__setattr__(it, field, stored[field])
        return it

    return Shape(name, take, make)


def _model(name: str, kind: Any) -> Shape:
    """By the state that pydantic itself pickles: no validator runs a second time."""
    fields = list(kind.__pydantic_fields__)

    def take(it: Any) -> dict[str, Any]:
        state: dict[str, Any] = it.__getstate__()
        return {**state, "__dict__": {field: getattr(it, field) for field in fields}}

    def make(stored: Any) -> Any:
        _same(name, stored["__dict__"], fields)
        it = kind.__new__(kind)
        it.__setstate__(stored)
        return it

    return Shape(name, take, make)


def _same(name: str, stored: Any, fields: Collection[str]) -> dict[str, Any]:
    if type(stored) is not dict or stored.keys() != set(fields):
        had = ", ".join(map(str, stored)) if type(stored) is dict else "none"
        raise CorruptEntry(f"{name} has changed: stored were the fields {had:.200}; today it has {', '.join(fields)}")
    return stored
