"""Stacks from URLs: each scheme, its store, and the options it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from .clock import Clock
from .errors import ConfigurationError
from .policies.compression import Zstd
from .policies.ttl import Seconds, seconds
from .policies.write import WriteMode
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


def word(text: str) -> str:
    """Text."""
    return text


def boolean(text: str) -> bool:
    """true or false."""
    if text.lower() not in ("true", "false"):
        raise ValueError("give true or false")
    return text.lower() == "true"


@dataclass(frozen=True, slots=True)
class Option:
    """One option: how its text is read (the parser's docstring says what may be written), and what it means."""

    parse: Callable[[str], Any]
    says: str


TIER_OPTIONS: Mapping[str, Option] = {
    "ttl": Option(age, "how long this tier may keep a copy; not for the last tier (a minute in memory, else an hour)"),
    "timeout": Option(number, "the longest a request may take (0.25 s, in the last tier 5 s)"),
    "compression": Option(compression, "packs values on their way in; not for memory (none)"),
    "name": Option(word, "what errors and `stats()` call this tier (the scheme)"),
    "namespace": Option(word, "keeps stacks that share a server or a file apart; one for the whole stack (empty)"),
}
"""Options that any tier takes; in brackets the default."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How URLs of one kind are read: the class, by module and name; its options; whether it wants the URL itself."""

    module: str
    name: str
    example: str
    options: Mapping[str, Option] = field(default_factory=dict)
    takes_url: bool = True


SCHEMES: Mapping[str, Scheme] = {
    "memory": Scheme(
        "backends.memory",
        "Memory",
        "memory://",
        {
            "max_bytes": Option(size, "the most that keys and values may take (64MiB)"),
            "max_entries": Option(count, "the most entries (no bound)"),
            "policy": Option(word, "what goes when it is full: adaptive or lru (adaptive)"),
        },
        takes_url=False,
    ),
    "sqlite": Scheme(
        "backends.sql",
        "SQL",
        "sqlite:///cache.db",
        {
            "layout": Option(
                word, "how values are stored: record, or plain as LangChain's SQLStore does, without expiry (record)"
            ),
        },
    ),
}
_EXAMPLE = ", ".join(scheme.example for scheme in SCHEMES.values())


def open(  # noqa: A001
    *urls: str,
    namespace: str | None = None,
    write: WriteMode | None = None,
    default_ttl: Seconds | None = None,
    tombstone_ttl: Seconds = 86_400,
    immutable: bool = False,
    clock: Clock | None = None,
) -> TieredStore:
    """A stack of the stores at `urls`, fastest first, the authority last.

    For example `open("memory://?max_bytes=256MiB&ttl=30", "sqlite:///cache.db", namespace="docs")`. docs/options.md
    lists the schemes and the options that URLs carry; the other arguments are those of `TieredStore`. Raises
    ConfigurationError, which names the close match of what it does not know.
    """
    made = [tier_of(url) for url in urls]
    return TieredStore(
        [tier for tier, _ in made],
        namespace=one_namespace(namespace, [own for _, own in made]),
        write=write,
        default_ttl=default_ttl,
        tombstone_ttl=tombstone_ttl,
        immutable=immutable,
        clock=clock,
    )


def one_namespace(given: str | None, named: Iterable[str | None]) -> str | None:
    """The namespace of a stack: the one that all agree on. Raises ConfigurationError."""
    for own in named:
        if own is not None:
            if given not in (None, own):
                raise ConfigurationError(f"namespace {own!r} of a tier against {given!r}: a stack has one")
            given = own
    return given


def tier_of(url: str, table: Mapping[str, str] | None = None, place: str = "") -> tuple[Tier, str | None]:
    """The tier at `url`, with the options in its query and in `table` -> it, and the namespace it was given.

    `place` is where `table` stands, for errors.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"a URL is a str, not {type(url).__name__}; for stores use TieredStore([..])")
    address, _, query = url.partition("?")
    name, separator, rest = address.partition("://")
    kind = name.partition("+")[0].lower()
    scheme = SCHEMES.get(kind) if separator else None
    if scheme is None:
        if not separator:
            raise ConfigurationError(f"a URL has no scheme: write {_EXAMPLE}")
        unknown("scheme", name, SCHEMES, _EXAMPLE)
    if not scheme.takes_url and (rest.strip("/") or "+" in name):
        raise ConfigurationError(f"{kind}:// takes options only, as in {kind}://?max_bytes=64MiB")
    pairs = parse_qsl(query, keep_blank_values=True)
    queried, tabled = dict(pairs), table or {}
    if len(queried) < len(pairs):
        raise ConfigurationError(f"a {kind}:// URL gives an option twice: give each once")
    known = {**scheme.options, **TIER_OPTIONS}
    values = {}
    for option, text in [*queried.items(), *tabled.items()]:
        where = f"{place}.{option}" if option in tabled else f"{kind}://?{option}"
        if option not in known:
            unknown(f"option of {kind}://", option, known, place=where if option in tabled else "")
        if option in queried and option in tabled:
            raise ConfigurationError(f"{where}: the URL gives it as well: give it once")
        values[option] = parsed(where, text, known[option])
    namespace = values.pop("namespace", None)
    own = {option: value for option, value in values.items() if option in scheme.options}
    place_of = {option: value for option, value in values.items() if option not in scheme.options}
    store = getattr(import_module(f"tiered.{scheme.module}"), scheme.name)
    return Tier(store(*([address] if scheme.takes_url else []), **own), **place_of), namespace


def parsed(where: str, text: str, option: Option) -> Any:
    """The value of an option. Raises ConfigurationError, saying where it is given."""
    try:
        return option.parse(text)
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(f"{where}={text}: {error}") from error


def unknown(what: str, name: str, known: Iterable[str], example: str = "", place: str = "") -> NoReturn:
    """Raises ConfigurationError for a name that is none of those known, with the close match."""
    names = list(known)
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
    if not re.fullmatch(r"[A-Za-z][\w+.-]{0,30}", name):
        name = ".."  # of a URL that went wrong it may be any part, also one that holds a password
    where = f"{place}: " if place else ""
    raise ConfigurationError(f"{where}unknown {what} {name!r}: {hint}" + (f" (as in {example})" if example else ""))


def rows(options: Mapping[str, Option]) -> list[str]:
    """The options as rows of a Markdown table: name, what may be written, meaning."""
    return [
        f"| `{name}` | {(option.parse.__doc__ or '').splitlines()[0]} | {option.says} |"
        for name, option in options.items()
    ]


HEAD = ["| option | value | meaning, and the default |", "|---|---|---|"]


def options_table() -> str:
    """Every option that a URL takes, as Markdown."""
    lines = ["## Any URL", "", *HEAD, *rows(TIER_OPTIONS)]
    for scheme in SCHEMES.values():
        lines += ["", f"## `{scheme.example}`", "", *HEAD, *rows(scheme.options)]
    return "\n".join(lines)
