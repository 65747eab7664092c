"""The operations of a stack, each written once: what comes in is checked, then a plan says how it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from .assembly import Assembly
from .backend import Page
from .bypassing import BYPASS
from .checks import (
    check_awaited,
    check_key,
    check_keys,
    check_loaded,
    check_on_error,
    check_pairs,
    check_prefix,
    check_value,
)
from .clock import Clock
from .effects import Load, Plan
from .entry import VALUE
from .errors import StoreClosed, Unsupported
from .flight import Caller
from .plans import scan
from .plans.clear import clear, invalidate, scopes
from .plans.delete import delete
from .plans.load import Fresh, Source, load
from .plans.read import read
from .plans.stack import Stack
from .plans.write import State, write
from .policies.stale import staleness
from .policies.ttl import OR_NEVER, Seconds, seconds
from .stats import Holding
from .tier import Unset


class Operations:
    """What `TieredStore` does, apart from how it is run."""

    _made: Assembly
    _stack: Stack
    _clock: Clock
    _default_ttl: float | None
    _closed: bool
    _hit: Callable[[Any], bytes | None]
    _hits: Callable[[list[str]], list[bytes | None]]

    def _get(self, key: str) -> Plan[bytes | None]:
        self._usable()
        key = check_key(key, self._made.max_key)
        self._stack.front_count.misses += 1
        entry = (yield from read(self._stack, [key])).get(key)
        return None if entry is None else entry.value

    def _mget(self, names: list[str], values: list[bytes | None]) -> Plan[list[bytes | None]]:
        """Fill in the values that memory did not have."""
        self._usable()
        missing = check_keys(
            [key for key, value in zip(names, values, strict=True) if value is None], self._made.max_key
        )
        distinct = list(dict.fromkeys(missing))
        self._stack.front_count.misses += len(distinct)
        found = yield from read(self._stack, distinct)
        if len(distinct) == len(names):
            return [entry.value if (entry := found.get(key)) is not None else None for key in names]
        return [
            entry.value if value is None and (entry := found.get(key)) is not None else value
            for key, value in zip(names, values, strict=True)
        ]

    def _set(self, key: str, value: bytes, ttl: Seconds | Unset | None) -> Plan[None]:
        self._usable()
        key = check_key(key, self._made.max_key)
        value = check_value(value, self._made.max_value)
        yield from self._write({key: (VALUE, value)}, self._expiry(ttl))

    def _mset(
        self, pairs: Iterable[tuple[str, bytes]] | Mapping[str, bytes], ttl: Seconds | Unset | None
    ) -> Plan[None]:
        self._usable()
        checked = check_pairs(pairs, self._made.max_key, self._made.max_value)
        yield from self._write({key: (VALUE, value) for key, value in checked.items()}, self._expiry(ttl))

    def _mdelete(self, keys: Iterable[str]) -> Plan[None]:
        self._usable()
        names = dict.fromkeys(check_keys(keys, self._made.max_key))
        if names:
            yield from delete(self._stack, names)
            yield from scan.upkeep(self._stack, len(names))

    def _write(self, states: Mapping[str, State], expires: int | None) -> Plan[None]:
        if states:
            yield from write(self._stack, states, expires)
            yield from scan.upkeep(self._stack, len(states))

    def _load(
        self,
        key: str,
        loader: Any,
        ttl: Seconds | Unset | None,
        caller: Caller,
        stale: Seconds | None = None,
        refresh_ahead: float | None = None,
        on_cache_error: str = "raise",
    ) -> Plan[bytes | None]:
        self._usable()
        key = check_key(key, self._made.max_key)
        if not callable(loader):
            raise TypeError(f"load must be callable as load(key), not {type(loader).__name__}")
        expiries = self._expiries(ttl, stale, refresh_ahead)

        def admit(value: Any, _: Any) -> dict[str, Fresh]:
            check_awaited(value, "get_or_load")
            if value is None:
                return {}
            return {key: Fresh(check_value(value, self._made.max_value), *expiries())}

        source = Source(lambda _: loader(key), admit, unread=check_on_error(on_cache_error))
        return (yield from self._find_or_load([key], source, caller)).get(key)

    def _mload(
        self,
        names: list[str],
        values: list[bytes | None],
        loader: Any,
        ttl: Seconds | Unset | None,
        caller: Caller,
        stale: Seconds | None,
        refresh_ahead: float | None,
        on_cache_error: str,
    ) -> Plan[list[bytes | None]]:
        """Fill in the values that memory did not have, from below or from the loader."""
        self._usable()
        absent = check_keys(
            [key for key, value in zip(names, values, strict=True) if value is None], self._made.max_key
        )
        if not callable(loader):
            raise TypeError(f"load_many must be callable as load_many(keys), not {type(loader).__name__}")
        expiries = self._expiries(ttl, stale, refresh_ahead)

        def admit(loaded: Any, keys: list[str]) -> dict[str, Fresh]:
            check_awaited(loaded, "mget_or_load")
            some = check_loaded(loaded, keys, self._made.max_value)
            terms = expiries()
            return {key: Fresh(value, *terms) for key, value in some.items()}

        source = Source(loader, admit, unread=check_on_error(on_cache_error))
        found = yield from self._find_or_load(list(dict.fromkeys(absent)), source, caller)
        return [found.get(key) if value is None else value for key, value in zip(names, values, strict=True)]

    def _find_or_load(self, keys: list[str], source: Source, caller: Caller) -> Plan[dict[str, bytes]]:
        self._usable()
        if BYPASS.get():
            fresh = source.admit((yield Load(source.load, list(keys), ())), keys) if keys else {}
            return {key: one.value for key, one in fresh.items()}
        self._stack.front_count.misses += len(keys)
        source = replace(source, closed=lambda: self._closed)
        return (yield from load(self._stack, keys, source, caller))

    def _expiries(
        self, ttl: Seconds | Unset | None, stale: Seconds | None, refresh_ahead: float | None
    ) -> Callable[[], tuple[int | None, int | None]]:
        """What says when a value loaded now expires, and when it is to be refreshed; checks what it is given."""
        soft = staleness(stale, refresh_ahead)
        never = self._expiry(ttl) is None
        if soft and never:
            raise ValueError("stale= and refresh_ahead= count from the ttl: give one")
        if soft and not self._stack.stamped:
            raise Unsupported(
                "stale= and refresh_ahead= need the record layout, which keeps a second expiry; nothing was loaded",
                tier=self._stack.authority.name,
            )
        return lambda: soft.expiries(self._expiry(ttl), self._stack.now_ms())

    def _page(self, prefix: str | None, after: Any) -> Plan[Page]:
        self._usable()
        return (yield from scan.page(self._stack, self._stack.authority, check_prefix(prefix), after))

    def _invalidate(self, keys: Iterable[str]) -> Plan[None]:
        self._usable()
        names = check_keys(keys, self._made.max_key)
        if names:
            yield from invalidate(self._stack, names)

    def _clear(self, prefix: str | None, everything: bool) -> Plan[int]:
        self._usable()
        if not isinstance(everything, bool):
            raise TypeError(f"all={everything!r:.40}: give True or False")
        start = check_prefix(prefix)
        if start and everything:
            raise ValueError("clear takes a prefix or all=True, not both")
        if not start and not everything:
            raise ValueError("clear deletes what begins with prefix=; to delete everything say clear(all=True)")
        count = yield from clear(self._stack, start)
        if everything:
            for space in (yield from scopes(self._stack)):
                count += yield from clear(self._made.within(space).stack, "")
        return count

    def _inspect(self, key: str) -> Plan[dict[str, Holding]]:
        self._usable()
        key = check_key(key, self._made.max_key)
        return (yield from self._made.inspect(key))

    def _flush(self) -> Plan[None]:
        self._usable()
        yield from scan.flush(self._stack)

    def _purge(self) -> Plan[int]:
        self._usable()
        rows = self._made.purge_front() + (yield from scan.purge_all(self._stack))
        for space in (yield from scopes(self._stack)):
            rows += yield from scan.purge_all(self._made.within(space).stack)
        return rows

    def _connect(self) -> Plan[None]:
        self._usable()
        error = yield from scan.ping(self._stack.authority)
        if error is not None:
            raise error

    def _expiry(self, ttl: Seconds | Unset | None) -> int | None:
        if isinstance(ttl, Unset):
            ttl = self._default_ttl
        if ttl is not None and self._made.forgetful is not None:
            seconds(ttl, "ttl", OR_NEVER)
            raise Unsupported(  # R22: it would expire above and come back from below
                f"ttl={ttl!r:.40}: this tier keeps no expiry; nothing was written; write without a ttl",
                tier=self._made.forgetful,
            )
        return None if ttl is None else int((self._clock.time() + seconds(ttl, "ttl", OR_NEVER)) * 1000)

    def _usable(self) -> None:
        if self._closed:
            refuse(None)


def refuse(_: Any) -> Any:
    raise StoreClosed("this store was closed: open another")
