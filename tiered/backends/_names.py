"""How a namespace and a key become one name in a store that knows names only, and back (invariant 10).

    namespace ""     the key as it is, so that what was there before is served; `t1:0::<key>` if it begins with `t1:`
    any other        `t1:<UTF-8 bytes of the namespace>:<namespace>:<key>`

A name that begins with `t1:` and is not of this form is nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import repeat

MARK = "t1:"
_MARKED = re.compile(r"t1:(0|[1-9][0-9]{0,8}):")


def joined(space: str, keys: Iterable[str]) -> list[str]:
    """The names of `keys`."""
    names, head = list(keys), heading(space)
    if space:
        return [head + key for key in names]
    if any(map(str.startswith, names, repeat(MARK))):
        return [head + key if key.startswith(MARK) else key for key in names]
    return names


def heading(space: str) -> str:
    return f"{MARK}{len(space.encode())}:{space}:"


def split(name: str) -> tuple[str, str] | None:
    """The namespace and the key of `name`, None where it is nobody's or its key could not be asked for."""
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        return None
    if not name.startswith(MARK):
        return ("", name) if name else None
    match = _MARKED.match(name)
    if match is None:
        return None
    start = match.end()
    end = start + int(match[1])
    if raw[end : end + 1] != b":":
        return None
    try:
        space, key = raw[start:end].decode(), raw[end + 1 :].decode()
    except UnicodeDecodeError:
        return None
    if not key or not (space or key.startswith(MARK)):
        return None
    return space, key
