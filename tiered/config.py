"""Stacks from a file: TOML, or a mapping of the same shape.

    namespace = "docs"
    default_ttl = 3600

    [[tiers]]
    url = "memory://"
    max_bytes = "256MiB"
    ttl = 30

    [[tiers]]
    url = "${CACHE_URL:-sqlite:///cache.db}"

    [write]
    mode = "through"
    strict = true

`python -m tiered.config` prints docs/options.md, which lists all that may stand there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from .clock import Clock
from .errors import ConfigurationError
from .policies.write import WriteAround, WriteMode, WriteThrough
from .store import TieredStore
from .tier import Tier
from .urls import HEAD, Option, age, boolean, number, one_namespace, options_table, parsed, rows, tier_of, unknown, word


@dataclass(frozen=True, slots=True)
class Mode:
    """A write mode by name: its class, and the options that go into it."""

    make: type[WriteMode]
    options: Mapping[str, Option] = field(default_factory=dict)


MODES: Mapping[str, Mode] = {
    "through": Mode(WriteThrough, {"strict": Option(boolean, "no process reads an older copy meanwhile (false)")}),
    "around": Mode(WriteAround),
}

STACK_OPTIONS: Mapping[str, Option] = {
    "namespace": Option(word, "keeps stacks that share a server or a file apart (empty)"),
    "default_ttl": Option(age, "how long a value lives where its write says nothing (none)"),
    "tombstone_ttl": Option(number, "how long a deletion is remembered (86400)"),
    "immutable": Option(boolean, "a value is a function of its key, and never changes (false)"),
}


def from_config(source: str | os.PathLike[str] | Mapping[str, Any], *, clock: Clock | None = None) -> TieredStore:
    """The stack that a TOML file, or a mapping of the same shape, describes.

    `${NAME}` in any text stands for that environment variable, `${NAME:-other}` for `other` where it is unset or
    empty, `$${` for `${` itself. A table in `tiers` has a `url` and takes the options that the URL would. Raises
    ConfigurationError, which says where, names the close match, and never shows the value of a variable. Paths in
    URLs are relative to the current folder.
    """
    table = _read(source)
    secrets: dict[str, str] = {}
    try:
        return _stack(_expanded(table, "", secrets), clock)
    except (ConfigurationError, TypeError, ValueError) as error:
        message = error.message if isinstance(error, ConfigurationError) else str(error)
        shown = ConfigurationError(_hidden(message, secrets))
        # the original shows what it was given
        raise shown from (None if secrets else error)


def _read(source: Any) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    if not isinstance(source, str | os.PathLike):
        raise ConfigurationError(f"from_config takes the path of a TOML file or a mapping, not {type(source).__name__}")
    import tomllib

    path = Path(source)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise ConfigurationError(f"{path} is no TOML: {error}") from error


SHORT = 6
"""Letters that a secret has at least: so many of its first ones are hidden wherever they stand."""

_VARIABLE = re.compile(r"\$(\$\{)|\$\{([^}]*)(\}?)")


def _expanded(value: Any, place: str, secrets: dict[str, str]) -> Any:
    """`value` with variables put in, in all of its text; `secrets` learns what they were."""
    if isinstance(value, Mapping):
        inner = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise ConfigurationError(f"{place or 'the configuration'}: a name is a str, not {type(key).__name__}")
            inner[key] = _expanded(item, f"{place}.{key}" if place else key, secrets)
        return inner
    if isinstance(value, list | tuple):
        return [_expanded(item, f"{place}[{at}]", secrets) for at, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        name, separator, other = match[2].partition(":-")
        if not match[3] or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigurationError(f"{place}: write ${{NAME}} or ${{NAME:-other}}, and $${{ for ${{ itself")
        found = os.environ.get(name)
        if found:
            secrets[name] = found
        elif found is None and not separator:
            raise ConfigurationError(f"{place}: the variable {name} is not set: set it, or write ${{{name}:-other}}")
        return found or other

    return _VARIABLE.sub(variable, value)


def _hidden(message: str, secrets: Mapping[str, str]) -> str:
    """`message` without the values of variables: whole, decoded as in a URL, or cut short."""
    from urllib.parse import unquote, unquote_plus

    found: dict[str, str] = {}
    for name, value in secrets.items():
        for form in (value, unquote(value), unquote_plus(value), value.replace("+", " ")):
            found[form] = found[repr(form)[1:-1]] = name
    seen = {form: _seen(form, message) for form in found}
    for form in sorted(found, key=lambda form: len(seen[form]), reverse=True):  # another form may show more of one
        instead = f"${{{found[form]}}}"
        if len(form) < SHORT:  # by itself only: a single letter is in every message
            message = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", instead, message)  # names hold no backslash
        elif seen[form]:
            message = message.replace(_seen(form, message) or seen[form], instead)
    return message


def _seen(form: str, message: str) -> str:
    """As much of the beginning of a secret as stands in `message`."""
    return next((form[:end] for end in range(len(form), SHORT - 1, -1) if form[:end] in message), "")


def _stack(table: Mapping[str, Any], clock: Clock | None) -> TieredStore:
    options: dict[str, Any] = {}
    for name, value in table.items():
        if name in STACK_OPTIONS:
            options[name] = _option(name, value, STACK_OPTIONS[name])
        elif name not in ("tiers", "write"):
            unknown("setting", name, [*STACK_OPTIONS, "tiers", "write"], place=name)
    tiers = table.get("tiers", [])
    if not isinstance(tiers, list) or not all(isinstance(tier, Mapping) for tier in tiers):
        raise ConfigurationError('tiers: give one table for each, as in [[tiers]] url = "memory://"')
    made = [_tier(f"tiers[{at}]", tier) for at, tier in enumerate(tiers)]
    namespace = one_namespace(options.pop("namespace", None), [own for _, own in made])
    write = _mode(table["write"]) if "write" in table else None
    return TieredStore([tier for tier, _ in made], namespace=namespace, write=write, clock=clock, **options)


def _tier(place: str, table: Mapping[str, Any]) -> tuple[Tier, str | None]:
    url = table.get("url")
    if not isinstance(url, str):
        said = "is missing" if "url" not in table else f"must be text, not {_what(url)}"
        raise ConfigurationError(f'{place}.url: it {said}; give one, as in url = "sqlite:///cache.db"')
    given = {name: _text(f"{place}.{name}", value) for name, value in table.items() if name != "url"}
    try:
        return tier_of(url, given, place)
    except (ConfigurationError, TypeError, ValueError) as error:
        message = error.message if isinstance(error, ConfigurationError) else str(error)
        raise ConfigurationError(message if message.startswith(place) else f"{place}: {message}") from error


def _mode(table: Any) -> WriteMode:
    if not isinstance(table, Mapping):
        raise ConfigurationError(f'write: give a table, as in [write] mode = "through", not {_what(table)}')
    name = table.get("mode", "through")
    if not isinstance(name, str) or name not in MODES:
        unknown("write mode", name if isinstance(name, str) else "", MODES, place="write.mode")
    mode = MODES[name]
    options = {}
    for option, value in table.items():
        if option in mode.options:
            options[option] = _option(f"write.{option}", value, mode.options[option])
        elif option != "mode":
            owners = [repr(other) for other, its in MODES.items() if option in its.options]
            if owners:
                raise ConfigurationError(f"write.{option}: an option of mode {' and '.join(owners)}, not of {name!r}")
            unknown(f"option of write mode {name!r}", option, [*mode.options, "mode"], place=f"write.{option}")
    return mode.make(**options)


def _option(place: str, value: Any, option: Option) -> Any:
    return parsed(place, _text(place, value), option)


def _text(place: str, value: Any) -> str:
    """A value of TOML as a URL would say it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{Decimal(repr(value)):f}"
    raise ConfigurationError(f"{place}: give text, a number, true or false, not {_what(value)}, or leave it out")


def _what(value: Any) -> str:
    names = {dict: "a table", list: "an array", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return names.get(type(value), f"a {type(value).__name__}")


def page() -> str:
    """docs/options.md."""
    lines = [
        "# Options",
        "",
        "Printed by `python -m tiered.config`; a test compares. In brackets what holds where nothing is said.",
        "",
        'A URL carries its options as a query: `tiered.open("memory://?max_bytes=256MiB&ttl=30", ..)`. In a file for',
        "`tiered.from_config` the same names stand beside `url` in a `[[tiers]]` table: text, numbers, true or false.",
        "",
        options_table(),
        "",
        "## The top of a file",
        "",
        *HEAD,
        *rows(STACK_OPTIONS),
        "| `[[tiers]]` | Tables. | one for each tier, fastest first, the authority last; `url` and the options above |",
        '| `[write]` | Table. | `mode`, and the options of that mode (mode = "through") |',
    ]
    for name, mode in MODES.items():
        lines += ["", f'## `[write] mode = "{name}"`', "", (mode.make.__doc__ or "").splitlines()[0]]
        if mode.options:
            lines += ["", *HEAD, *rows(mode.options)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
