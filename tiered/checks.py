"""What comes in from users, checked before anything is written."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence, Sized
from typing import Any

from .errors import ConfigurationError, InvalidKey, InvalidValue

MAX_KEY = 65_535
"""The longest key anywhere, in bytes of UTF-8."""


def check_key(key: Any, max_key: int = MAX_KEY) -> str:
    """`key`, if it is a non-empty str of at most `max_key` bytes in UTF-8; else InvalidKey."""
    if not isinstance(key, str):
        raise InvalidKey(f"a key must be a str, not {type(key).__name__}: {key!r:.80}")
    if not key:
        raise InvalidKey("a key must not be empty")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidKey(f"a key must not hold lone surrogates: {key!r:.80}") from error
    if size > max_key:
        raise InvalidKey(f"a key of {size} bytes is longer than the {max_key} this stack can store: {key!r:.40}..")
    return key if type(key) is str else key.encode().decode()


def check_keys(keys: Any, max_key: int = MAX_KEY) -> list[str]:
    """All of `keys` (any iterable but a str or bytes, which is a TypeError), each as by `check_key`."""
    if isinstance(keys, str | bytes | bytearray):
        raise TypeError(f"give several keys, as in [{keys!r:.40}], or use get() and delete() for one")
    if not isinstance(keys, Iterable):
        raise TypeError(f"keys must be an iterable of str, not {type(keys).__name__}")
    names = list(keys)
    try:  # all at once, at the speed of C
        fine = max(map(len, map(str.encode, names)), default=0) <= max_key and all(names)
    except (TypeError, UnicodeEncodeError):
        fine = False
    if not fine:
        for name in names:
            check_key(name, max_key)
    if set(map(type, names)) <= {str}:
        return names
    return [name.encode().decode() for name in names]  # of a subclass: what a database would give back


def check_prefix(prefix: Any) -> str:
    """`prefix`, "" for None; TypeError unless it is a str, InvalidKey where no key could begin so."""
    if prefix is None:
        return ""
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str, not {type(prefix).__name__}")
    try:
        prefix.encode()
    except UnicodeEncodeError as error:
        raise InvalidKey(f"a prefix must not hold lone surrogates: {prefix!r:.80}") from error
    return prefix


def check_namespace(namespace: Any) -> str:
    """`namespace`, if it is a str that can be stored and does not hold \\x1f; else ConfigurationError."""
    if not isinstance(namespace, str) or "\x1f" in namespace:
        raise ConfigurationError(f"namespace={namespace!r:.80}: a str without \\x1f")
    try:
        namespace.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"namespace={namespace!r:.80} holds lone surrogates") from error
    return namespace


def check_value(value: Any, max_value: int) -> bytes:
    """`value`, if it is bytes of at most `max_value`; else InvalidValue."""
    if not isinstance(value, bytes):
        hint = "delete the key instead" if value is None else "encode it first"
        raise InvalidValue(f"a value must be bytes, not {type(value).__name__}: {hint}")
    if len(value) > max_value:
        raise InvalidValue(f"a value of {len(value)} bytes is larger than the {max_value} this stack can store")
    return value if type(value) is bytes else bytes(value)


def check_listed(pairs: Any, max_key: int = MAX_KEY) -> list[tuple[str, Any]]:
    """(key, value) pairs or a mapping as a list of pairs, the keys as by `check_keys`."""
    if isinstance(pairs, Mapping):
        pairs = pairs.items()
    if isinstance(pairs, str | bytes | bytearray) or not isinstance(pairs, Iterable):
        raise TypeError("give (key, value) pairs or a mapping")
    listed = list(pairs)
    for pair in listed:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            size = f" of {len(pair)}" if isinstance(pair, Sized) else ""  # its content may be secret
            raise InvalidValue(f"mset takes (key, value) pairs, not a {type(pair).__name__}{size}")
    return list(zip(check_keys([key for key, _ in listed], max_key), [value for _, value in listed], strict=True))


def check_pairs(pairs: Any, max_key: int, max_value: int) -> dict[str, bytes]:
    """(key, value) pairs or a mapping as a dict, so that of repeated keys the last wins."""
    return {
        key: value if type(value) is bytes and len(value) <= max_value else check_value(value, max_value)
        for key, value in check_listed(pairs, max_key)
    }


def check_awaited(loaded: Any, method: str) -> None:
    """InvalidValue if a loader gave the sync face of `method` something to await."""
    if isinstance(loaded, Awaitable):
        if isinstance(loaded, Coroutine):
            loaded.close()
        raise InvalidValue(f"{method} cannot await its loader: use a{method}, or a plain function")


def check_loaded(loaded: Any, keys: Sequence[str], max_value: int) -> dict[str, bytes]:
    """What `load_many(keys)` returned: the values of those keys, None and others left out."""
    if not isinstance(loaded, Mapping):
        raise InvalidValue(f"load_many(keys) must return a mapping of keys to bytes, not {type(loaded).__name__}")
    some = {key: value for key in keys if (value := loaded.get(key)) is not None}
    for key, value in some.items():
        try:
            some[key] = check_value(value, max_value)
        except InvalidValue as error:
            error.key = key
            raise
    return some


def check_on_error(on_cache_error: Any) -> bool:
    """Whether to load although the cache cannot be read; ValueError unless it is "load" or "raise"."""
    if on_cache_error not in ("load", "raise"):
        raise ValueError(f'on_cache_error={on_cache_error!r:.60}: give "load" or "raise"')
    return bool(on_cache_error == "load")
