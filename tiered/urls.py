"""Stacks from URLs: each scheme, its store, and the options it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from .errors import ConfigurationError
from .policies.compression import Zstd
from .policies.ttl import Seconds
from .policies.write import WriteThrough
from .store import TieredStore
from .tier import Tier

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def size(text: str) -> int:
    """Bytes: a number with an optional unit, as in 256MiB, 64 MB, 1048576."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in UNITS:
        raise ValueError("give bytes, as in 256MiB, 64MB or 1048576")
    return int(float(match[1]) * UNITS[match[2].upper()])


def number(text: str) -> float:
    """Seconds."""
    return float(text)


def age(text: str) -> float | None:
    """Seconds, or "none" for ever."""
    return None if text.lower() == "none" else float(text)


def compression(text: str) -> Zstd | None:
    """zstd, zstd:LEVEL, or none."""
    name, _, level = text.lower().partition(":")
    if name == "none" and not level:
        return None
    if name != "zstd":
        raise ValueError("give zstd, zstd:LEVEL or none")
    return Zstd(level=int(level)) if level else Zstd()


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
        "backends.memory", "Memory", {"max_bytes": size, "max_entries": int, "policy": str}, takes_url=False
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
    scheme = SCHEMES.get(name.partition("+")[0].lower()) if separator else None
    if scheme is None:
        # The rest of the URL may hold a password: name the scheme only.
        _unknown("scheme", name if separator else "(none)", SCHEMES, "memory://, sqlite:///cache.db")
    if not scheme.takes_url and rest.strip("/"):
        raise ConfigurationError(f"{name}:// takes options only, as in {name}://?max_bytes=64MiB")
    place: dict[str, Any] = {}
    own: dict[str, Any] = {}
    namespace = None
    for option, text in parse_qsl(query, keep_blank_values=True):
        if option == "namespace":
            namespace = text
        elif option in TIER_OPTIONS:
            place[option] = _parsed(name, option, text, TIER_OPTIONS[option])
        elif option in scheme.options:
            own[option] = _parsed(name, option, text, scheme.options[option])
        else:
            _unknown(f"option of {name}://", option, [*scheme.options, *TIER_OPTIONS, "namespace"])
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
    raise ConfigurationError(f"unknown {what} {name!r}: {hint}" + (f" (as in {example})" if example else ""))
