"""Turns a list of tiers into a stack, refusing what makes no sense, and reports on what it made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .backend import Backend, Found
from .backends.base import BaseBackend
from .backends.memory import Memory, Space
from .base import BaseStore
from .checks import MAX_KEY, check_namespace
from .clock import ZERO, Clock, micros
from .effects import Plan
from .entry import DELETED, INVALID
from .errors import ConfigurationError, CorruptEntry, TieredError, UnknownVersion
from .level import Counters, Level
from .plans import scan
from .plans.stack import NoFront, Stack
from .policies.ttl import TTL
from .policies.write import WriteAround, WriteMode, WriteThrough
from .stats import Health, Holding, LoadStats, Stats, TierStats
from .tier import AGES, TIMEOUT_ABOVE, TIMEOUT_AUTHORITY, Tier, Unset


@dataclass(frozen=True, slots=True)
class Assembly:
    """A stack with what is needed around it."""

    stack: Stack
    names: tuple[str, ...]
    memory: Memory | None  # the first tier, if it is one
    space: Space | None  # this namespace in it
    open_space: Callable[[str], Space] | None  # any namespace in it
    max_key: int
    max_value: int
    forgetful: str | None  # a tier below memory that keeps no expiry

    @property
    def levels(self) -> tuple[Level, ...]:
        """The tiers below the front."""
        return (*self.stack.uppers, self.stack.authority)

    @property
    def hit(self) -> Callable[[Any], bytes | None]:
        return self.space.hit if self.space is not None else _miss

    @property
    def hits(self) -> Callable[[list[str]], list[bytes | None]]:
        return self.space.hits if self.space is not None else _misses

    @property
    def fronted(self) -> bool:
        """Whether memory lies above the authority (rather than being it, or absent)."""
        return len(self.names) > len(self.levels)

    def within(self, space: str) -> Assembly:
        """The same tiers seen through another namespace; everything else is shared."""
        handle = self.open_space(space) if self.open_space is not None else None
        front = handle if self.fronted and handle is not None else self.stack.front
        return replace(self, stack=replace(self.stack, space=space, front=front), space=handle)

    def stats(self) -> Stats:
        tiers = {}
        if self.fronted:
            tiers[self.names[0]] = _tier_stats(self.stack.front_count, self.memory)
        for level in self.levels:
            own = level.backend if isinstance(level.backend, Memory) else None
            tiers[level.name] = _tier_stats(level.count, own)
        loads = self.stack.flights.count
        return Stats(tiers, LoadStats(loads.refreshes, loads.failed, loads.postponed, loads.unread))

    def ping(self, closed: bool) -> Plan[dict[str, Health]]:
        if closed:
            return {name: Health(False, 0.0, "this store was closed") for name in self.names}
        answers = {self.names[0]: Health(True, 0.0)} if self.fronted else {}
        for level in self.levels:
            began = self.stack.clock.monotonic()
            error = yield from scan.ping(level)
            took = self.stack.clock.monotonic() - began
            answers[level.name] = Health(error is None, took, None if error is None else str(error))
        return answers

    def inspect(self, key: str) -> Plan[dict[str, Holding]]:
        now = self.stack.clock.time()
        answers = {}
        if self.fronted and self.space is not None:
            answers[self.names[0]] = _holding(self.space.peek(key), now, dirty=False)
        for level in self.levels:
            if self.space is not None and isinstance(level.backend, Memory):
                found: Found = self.space.peek(key)  # a fetch would count as a read
            else:
                found = yield from scan.probe(level, self.stack.space, key)
            answers[level.name] = _holding(found, now, dirty=not level.trusted(self.stack.space, [key]))
        return answers

    def purge_front(self) -> int:
        """Drop what has expired in the memory tier above the authority -> entries."""
        if self.memory is None or not self.fronted:
            return 0
        everything = self.memory.entries
        return self.memory.run(self.memory.purge(self.stack.space, self.stack.now_ms(), 0, everything, DELETED), 0)

    def backends(self) -> list[Backend]:
        return [level.backend for level in self.levels]


def assemble(
    tiers: Iterable[Tier | Backend | BaseStore[str, bytes]],
    namespace: str | None,
    write: WriteMode,
    tombstone_ttl: float,
    immutable: bool,
    clock: Clock,
) -> Assembly:
    """The stack of `tiers`, fastest first. Raises ConfigurationError; does no I/O."""
    if isinstance(tiers, Tier | BaseStore | str | bytes) or not isinstance(tiers, Iterable):
        raise ConfigurationError("tiers is a list of stores, fastest first; URLs are for tiered.open(..)")
    given = [tier if isinstance(tier, Tier) else Tier(tier) for tier in tiers]
    if not given:
        raise ConfigurationError("a stack needs at least one tier")
    placed = [_place(tier, last=at == len(given) - 1) for at, tier in enumerate(given)]
    _check_places(placed)
    _check_stamps(placed, immutable)
    space = _namespace(placed, namespace)
    names = _names(placed)
    first, last = placed[0].store, len(placed) - 1
    memory = first if isinstance(first, Memory) else None
    front_ttl = _age(placed[0], immutable)
    idle = front_ttl.idle() if front_ttl is not None else None
    fronted = memory is not None and last > 0
    # A stack's copies are its own: another stack knows nothing of its writes under way, nor of what it must repair.
    owner = object() if fronted else None
    open_space = (
        None
        if memory is None
        else partial(memory.space, time=clock.time, sliding=idle, owner=owner, monotonic=clock.monotonic)
    )
    front = open_space(space) if open_space is not None else None
    levels = [
        Level(
            name=name,
            backend=tier.store,
            ttl=None if at == last else _age(tier, immutable),
            packing=tier.compression.pack if tier.compression is not None else None,
            timeout=_timeout(tier, TIMEOUT_AUTHORITY if at == last else TIMEOUT_ABOVE),
        )
        for at, (tier, name) in enumerate(zip(placed, names, strict=True))
        if at > 0 or not fronted
    ]
    return Assembly(
        stack=Stack(
            space=space,
            clock=clock,
            front=front if fronted and front is not None else NoFront(),
            front_ttl=front_ttl,
            uppers=tuple(levels[:-1]),
            authority=levels[-1],
            tombstone_ttl=tombstone_ttl,
            strict=isinstance(write, WriteThrough) and write.strict,
            around=isinstance(write, WriteAround),
            immutable=immutable,
        ),
        names=names,
        memory=memory,
        space=front,
        open_space=open_space,
        max_key=min(MAX_KEY, *(tier.store.capabilities.max_key for tier in placed)),
        max_value=min(tier.store.capabilities.max_value for tier in (placed[1:] if fronted else placed)),
        forgetful=next((level.name for level in levels if not level.backend.capabilities.expiry), None),
    )


@dataclass(frozen=True, slots=True)
class _Placed(Tier):
    """A tier whose store is one of ours."""

    store: Backend


def _place(tier: Tier, *, last: bool) -> _Placed:
    """A store of somebody else's becomes a tier: plain in last place, above it holds records (PROTOCOL section 3)."""
    store: Any = tier.store
    if not last and isinstance(getattr(store, "_made", None), Assembly):
        raise ConfigurationError("a stack cannot be a tier above another: put its tiers into this one")
    alike = all(callable(getattr(store, name, None)) for name in ("mget", "mset", "mdelete", "yield_keys"))
    if alike and not isinstance(store, BaseBackend | type):
        from .backends.foreign import Foreign

        store = Foreign(store, layout="plain" if last else "record")
    return _Placed(store, tier.ttl, tier.compression, tier.timeout, tier.name)


def _check_places(placed: list[_Placed]) -> None:
    for at, tier in enumerate(placed):
        what = f"tier {at + 1} ({type(tier.store).__name__})"
        if not isinstance(tier.store, BaseBackend):
            raise ConfigurationError(
                f"{what} is not a store: give Memory, SQL, .., any BaseStore[str, bytes], or tiered.open a URL"
            )
        if tier.compression is not None and not tier.store.capabilities.stamps:
            raise ConfigurationError(f"{what}: plain values are kept as they are; compression= needs the record layout")
        if isinstance(tier.store, Memory):
            if at > 0:
                raise ConfigurationError(f"{what}: memory belongs first; below another tier it would never be faster")
            if tier.compression is not None:
                raise ConfigurationError(
                    f"{what}: memory keeps values as they are; compression= belongs to a lower tier"
                )
        elif isinstance(tier.ttl, TTL) and tier.ttl.sliding:
            raise ConfigurationError(f"{what}: a sliding TTL is for the memory tier")
    if not isinstance(placed[-1].ttl, Unset):
        raise ConfigurationError(
            "the last tier is the authority and takes no ttl=: give a ttl to writes, or default_ttl= to the stack"
        )
    if len({tier.store.identity for tier in placed}) < len(placed):
        raise ConfigurationError("two tiers keep their entries in the same place: a tier cannot be a copy of itself")


def _check_stamps(placed: list[_Placed], immutable: bool) -> None:
    """R9, R22: what plain tiers can take part in."""
    for at, tier in enumerate(placed[:-1]):
        what = f"tier {at + 1} ({type(tier.store).__name__})"
        if immutable or isinstance(tier.store, Memory):
            pass
        elif not tier.store.capabilities.stamps:
            raise ConfigurationError(
                f"{what} holds plain values above another tier, so nothing keeps a slow read from bringing back an old "
                "one: put it last, use its record layout, or say immutable=True if a key's value never changes"
            )
        elif tier.store.capabilities.forgets and not tier.store.capabilities.leases:
            raise ConfigurationError(
                f"{what} may forget what it was told, so nothing keeps a slow read from bringing back an old value "
                "into it: put it last, or say immutable=True if a key's value never changes"
            )
        elif not (placed[-1].store.capabilities.stamps or tier.store.capabilities.leases):
            raise ConfigurationError(
                f"{what} cannot tell old from new above {type(placed[-1].store).__name__}, which keeps no stamps: put "
                "only Memory above it, or say immutable=True if a key's value never changes"
            )
        if not tier.store.capabilities.expiry and _age(tier, immutable) is not None:
            raise ConfigurationError(f"{what} keeps no expiry, so no ttl= can bound the age of its copies")


def _namespace(placed: list[_Placed], namespace: str | None) -> str:
    for tier in placed:
        own = tier.store.namespace
        if own is not None:
            if namespace is not None and own != namespace:
                raise ConfigurationError(
                    f"namespace {own!r} of a store against {namespace!r}: a stack has one for all tiers"
                )
            namespace = own
    if namespace is None:
        if any(tier.store.capabilities.shared for tier in placed):
            raise ConfigurationError("a tier is shared by a server: give the stack a namespace=")
        return ""
    return check_namespace(namespace)


def _names(placed: list[_Placed]) -> tuple[str, ...]:
    """Given names, and schemes numbered from the second of their kind."""
    taken = {tier.name for tier in placed if tier.name is not None}
    if len(taken) < sum(tier.name is not None for tier in placed):
        raise ConfigurationError("two tiers have the same name=")
    names = []
    for tier in placed:
        name, number = tier.name, 1
        while name is None:
            candidate = tier.store.scheme if number == 1 else f"{tier.store.scheme}{number}"
            if candidate not in taken:
                name = candidate
                taken.add(name)
            number += 1
        names.append(name)
    return tuple(names)


def _age(tier: Tier, immutable: bool) -> TTL | None:
    if isinstance(tier.ttl, Unset):
        return None if immutable else AGES["memory" if isinstance(tier.store, Memory) else "shared"]
    return tier.ttl  # type: ignore[return-value]  # a Tier makes everything else a TTL


def _timeout(tier: Tier, default: float) -> float:
    return default if tier.timeout is None else float(tier.timeout)  # type: ignore[arg-type]


def _miss(_: Any) -> None:
    return None


def _misses(keys: list[str]) -> list[bytes | None]:
    return [None] * len(keys)


def _tier_stats(count: Counters, memory: Memory | None) -> TierStats:
    return TierStats(
        hits=count.hits + (memory.hits if memory is not None else 0),
        misses=count.misses,
        fills=count.fills,
        evictions=memory.evictions if memory is not None else 0,
        expired=count.expired + (memory.expired if memory is not None else 0),
        errors=count.errors,
        corrupt=count.corrupt,
        skipped=count.skipped,
        entries=memory.entries if memory is not None else None,
        bytes=memory.bytes if memory is not None else None,
    )


def _holding(found: Found, now: float, *, dirty: bool) -> Holding:
    """In words, what a tier holds."""
    if found is None:
        return Holding("absent", "nothing is stored")
    if isinstance(found, CorruptEntry | UnknownVersion):
        return Holding("corrupt", found.message)
    if isinstance(found, TieredError):
        return Holding("unavailable", found.message)
    written = micros(found.stamp) / 1e6 if found.stamp != ZERO else None
    expires = None if found.expires is None else found.expires / 1000
    why = f"written {now - written:.1f} s ago" if written is not None else "a plain value, of unknown age"
    if expires is not None:
        why += f", expires in {expires - now:.1f} s" if expires > now else f", expired {now - expires:.1f} s ago"
    if dirty:
        why += "; not trusted until repaired: a write did not reach this tier"
    if found.kind == DELETED:
        return Holding("deleted", why, written, expires)
    if found.kind == INVALID:
        return Holding("invalid", why, written, expires)
    live = expires is None or expires > now
    return Holding("value" if live else "expired", why, written, expires, len(found.value))
