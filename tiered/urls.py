"""Stacks from URLs: each scheme, its store, and the options it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from .errors import ConfigurationError
from .policies.compression import Zstd
from .policies.ttl import Seconds, seconds
from .policies.write import WriteThrough
from .store import TieredStore
from .tier import Tier

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def size(text: str) -> int:
    """Bytes: a number with an optional unit, as in 256MiB, 64 MB, 1048576."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in UNITS:
        raise ValueError("give bytes, as in 256MiB, 64MB or 1048576")
    return int(Decimal(match[1]) * UNITS[match[2].upper()])


def count(text: str) -> int:
    """A whole number."""
    if not text.isascii() or not text.isdigit():
        raise ValueError("give a whole number, as in 10000")
    return int(text)


def number(text: str) -> float:
    """Seconds."""
    if not re.fullmatch(r"-?\d+(\.\d+)?", text):
        raise ValueError("give seconds, as in 30 or 0.25")
    return seconds(float(text), "time")


def age(text: str) -> float | None:
    """Seconds, or "none" for ever."""
    return None if text.lower() == "none" else number(text)


def compression(text: str) -> Zstd | None:
    """zstd, zstd:LEVEL, or none."""
    if text.lower() == "none":
        return None
    match = re.fullmatch(r"zstd(?::(\d{1,3}))?", text.lower())
    if match is None:
        raise ValueError("give zstd, zstd:LEVEL or none")
    return Zstd(level=int(match[1])) if match[1] else Zstd()


TIER_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "ttl": age,
    "timeout": number,
    "compression": compression,
    "name": str,
}
"""Options that any tier takes."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How URLs of one kind are read: the class, by module and name; its options; whether it wants the URL itself."""

    module: str
    name: str
    options: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    takes_url: bool = True


SCHEMES: Mapping[str, Scheme] = {
    "memory": Scheme(
        "backends.memory", "Memory", {"max_bytes": size, "max_entries": count, "policy": str}, takes_url=False
    ),
    "sqlite": Scheme("backends.sql", "SQL"),
}


def open(  # noqa: A001
    *urls: str,
    namespace: str | None = None,
    write: WriteThrough | None = None,
    default_ttl: Seconds | None = None,
) -> TieredStore:
    """A stack of the stores at `urls`, fastest first, the authority last.

    For example `open("memory://?max_bytes=256MiB&ttl=30", "sqlite:///cache.db", namespace="docs")`. Any URL may
    carry `ttl`, `timeout` (seconds), `compression` (zstd, zstd:3), `name` and `namespace`; memory takes `max_bytes`,
    `max_entries` and `policy`. Raises ConfigurationError, which names the close match of what it does not know.
    """
    tiers = []
    for url in urls:
        tier, own = _tier(url)
        if own is not None:
            if namespace not in (None, own):
                raise ConfigurationError(f"namespace {own!r} in a URL against {namespace!r}: a stack has one")
            namespace = own
        tiers.append(tier)
    return TieredStore(tiers, namespace=namespace, write=write, default_ttl=default_ttl)


def _tier(url: str) -> tuple[Tier, str | None]:
    if not isinstance(url, str):
        raise ConfigurationError(f"a URL is a str, not {type(url).__name__}; for stores use TieredStore([..])")
    address, _, query = url.partition("?")
    name, separator, rest = address.partition("://")
    kind = name.partition("+")[0].lower()
    scheme = SCHEMES.get(kind) if separator else None
    if scheme is None:
        _unknown("scheme", name if separator else "", SCHEMES, "memory://, sqlite:///cache.db")
    if not scheme.takes_url and (rest.strip("/") or "+" in name):
        raise ConfigurationError(f"{kind}:// takes options only, as in {kind}://?max_bytes=64MiB")
    place: dict[str, Any] = {}
    own: dict[str, Any] = {}
    namespace = None
    options = parse_qsl(query, keep_blank_values=True)
    if len(dict(options)) < len(options):
        raise ConfigurationError(f"a {kind}:// URL gives an option twice: give each once")
    for option, text in options:
        if option == "namespace":
            namespace = text
        elif option in TIER_OPTIONS:
            place[option] = _parsed(kind, option, text, TIER_OPTIONS[option])
        elif option in scheme.options:
            own[option] = _parsed(kind, option, text, scheme.options[option])
        else:
            _unknown(f"option of {kind}://", option, [*scheme.options, *TIER_OPTIONS, "namespace"])
    store = getattr(import_module(f"tiered.{scheme.module}"), scheme.name)
    return Tier(store(*([address] if scheme.takes_url else []), **own), **place), namespace


def _parsed(scheme: str, option: str, text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(f"{scheme}://?{option}={text}: {error}") from error


def _unknown(what: str, name: str, known: Any, example: str = "") -> NoReturn:
    close = get_close_matches(name.lower(), list(known), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    if not re.fullmatch(r"[A-Za-z][\w+.-]{0,30}", name):
        name = ".."  # of a URL that went wrong it may be any part, also one that holds a password
    raise ConfigurationError(f"unknown {what} {name!r}: {hint}" + (f" (as in {example})" if example else ""))
