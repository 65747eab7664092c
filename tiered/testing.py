"""For tests of code that uses tiered: time that moves when told to."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal, NamedTuple, TypedDict, TypeVar, Unpack

from .backend import Capabilities, Found, Op
from .backends.base import BaseBackend, Values
from .backends.memory import Memory
from .clock import Clock
from .effects import adrive, drive
from .entry import Entry, Packing
from .errors import BackendUnavailable, ConfigurationError, Indeterminate
from .policies.ttl import Seconds, seconds
from .policies.write import WriteMode
from .store import TieredStore

T = TypeVar("T")


class FakeClock(Clock):
    """A clock that stands still, starting at the real time: `TieredStore(.., clock=FakeClock())`.

    `advance(seconds)` moves it. A pause that the store itself makes (between two tries of a write) moves it too,
    and takes no real time.
    """

    def __init__(self) -> None:
        self._moving = threading.Lock()
        self._now = time.time()
        self._elapsed = 0.0
        super().__init__()

    def advance(self, seconds: float) -> None:
        """Move wall and monotonic time by `seconds`; negative steps wall time back, as a corrected clock does."""
        with self._moving:
            self._now += seconds
            self._elapsed += max(0.0, seconds)

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        self.advance(seconds)


class StackOptions(TypedDict, total=False):
    """What `TieredStore` takes besides tiers and clock."""

    namespace: str | None
    write: WriteMode | None
    default_ttl: Seconds | None
    tombstone_ttl: Seconds
    immutable: bool


class MemoryStack(TieredStore):
    """A stack that `memory_stack` made; `clock` is its time."""

    clock: FakeClock


def memory_stack(clock: FakeClock | None = None, **options: Unpack[StackOptions]) -> MemoryStack:
    """A `TieredStore` of memory alone, for unit tests: no file, nothing to clean up, time stands still.

        store = memory_stack(default_ttl=60)
        store.set("a", b"1")
        store.clock.advance(61)
        assert store.get("a") is None

    `clock` is a `FakeClock` that is shared with something else; a new one if left out. Other options are those of
    `TieredStore`. For a stack of two tiers without a file put memory over memory, whose failures are yours to choose:
    `TieredStore([Memory(), Faulty(Memory())], clock=clock)`.
    """
    if not isinstance(clock, FakeClock | None):
        raise ConfigurationError(f"memory_stack takes a FakeClock, not {type(clock).__name__}")
    time = FakeClock() if clock is None else clock
    store = MemoryStack([Memory()], clock=time, **options)
    store.clock = time
    return store


Fault = Literal["ok", "fail", "lose"]

READS = ("fetch", "scan", "spaces", "ping")
WRITES = ("put", "swap", "fill", "void", "retract", "purge")
_GROUPS = {"read": READS, "write": WRITES}
_FAULTS = ("ok", "fail", "lose")


class _Request(NamedTuple):
    """What `Faulty` is asked to pass on."""

    name: str
    op: Op[Any]


def _asked(name: str, op: Op[T]) -> Op[T]:
    answer: T = yield _Request(name, op)
    return answer


class Faulty(BaseBackend):
    """A backend whose requests fail or are slow when you say so: `TieredStore([Memory(), Faulty(SQL(..))])`.

    A request can "fail": refused, BackendUnavailable, nothing happened; or "lose": it takes effect and the answer is
    lost, Indeterminate for a write, BackendUnavailable for a read. Which do is said by odds, the same in every run
    with the same `seed` (`fail` and `lose` are shares of the requests, from 0 to 1); by `down()` until `up()`; or for
    the next ones by `script`.

    `delay` is what every request takes, in seconds of `clock`, which is required with it: a `FakeClock` moves, a
    `tiered.clock.Clock` really waits. A request slower than its time-out is lost.

    Operations are called fetch, scan, spaces and ping (the reads), put, swap, fill, void, retract and purge (the
    writes). `requests` counts them by name, failed ones included: `requests.clear()` starts anew.
    """

    def __init__(
        self,
        store: BaseBackend,
        *,
        fail: float = 0.0,
        lose: float = 0.0,
        delay: Seconds | None = None,
        seed: int = 0,
        clock: Clock | None = None,
    ) -> None:
        if not isinstance(store, BaseBackend):
            raise ConfigurationError(
                f"Faulty goes around a backend (Memory, SQL, Foreign, ..), not around a {type(store).__name__}"
            )
        for name, share in (("fail", fail), ("lose", lose)):
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ConfigurationError(f"{name}={share!r:.40}: a share of the requests is from 0 to 1")
        if fail + lose > 1:
            raise ConfigurationError(f"fail={fail} and lose={lose} are more than all requests")
        if (delay is None) != (clock is None):
            raise ConfigurationError("delay= and clock= belong together: the clock is what a delay is waited by")
        self.store = store
        self.scheme = store.scheme  # type: ignore[misc]  # a class variable elsewhere; here it is that of the store
        self.namespace = store.namespace
        self.requests: Counter[str] = Counter()
        self._odds = fail, lose
        self._random = random.Random(seed)  # noqa: S311
        self._delay = 0.0 if delay is None else seconds(delay, "delay")
        self._clock = clock
        self._down: frozenset[str] = frozenset()
        self._script: dict[str, deque[Fault]] = defaultdict(deque)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Faulty({self.store!r})"

    # -- faults --------------------------------------------------------------------------------------------------

    def down(self, *operations: str) -> None:
        """Every request of these operations (or "read", "write"; none given: of all) fails from here on."""
        names = [name for operation in operations for name in _GROUPS.get(operation, (operation,))]
        self._down = frozenset(map(_operation, names)) if operations else frozenset(READS + WRITES)

    def up(self) -> None:
        """`down` and `script` are over; the odds hold again."""
        with self._lock:
            self._down = frozenset()
            self._script.clear()

    def script(self, operation: str, *faults: Fault) -> None:
        """The next requests of this operation meet these faults, one each: "ok", "fail", "lose"."""
        for fault in faults:
            if fault not in _FAULTS:
                raise ConfigurationError(f"a fault is one of {', '.join(_FAULTS)}, not {fault!r:.40}")
        with self._lock:
            self._script[_operation(operation)].extend(faults)

    def _fault(self, name: str, timeout: float) -> Fault:
        with self._lock:
            self.requests[name] += 1
            chance = self._random.random()
            if self._script[name]:
                fault = self._script[name].popleft()
            elif name in self._down or chance < self._odds[0]:
                fault = "fail"
            else:
                fault = "lose" if chance < sum(self._odds) else "ok"
        if fault == "fail":
            raise BackendUnavailable(f"Faulty: this {name} was refused")
        return "lose" if self._delay > timeout else fault

    def _answer(self, name: str, fault: Fault, answer: T) -> T:
        if fault == "ok":
            return answer
        kind = Indeterminate if name in WRITES else BackendUnavailable
        raise kind(f"Faulty: this {name} was carried out, its answer was lost")

    def run(self, op: Op[T], timeout: float) -> T:
        return drive(op, partial(self._perform, timeout))

    def _perform(self, timeout: float, request: _Request) -> Any:
        fault = self._fault(request.name, timeout)
        if self._clock is not None:
            self._clock.sleep(min(self._delay, timeout))
        return self._answer(request.name, fault, self.store.run(request.op, timeout))

    async def arun(self, op: Op[T], timeout: float) -> T:
        return await adrive(op, partial(self._aperform, timeout))

    async def _aperform(self, timeout: float, request: _Request) -> Any:
        fault = self._fault(request.name, timeout)
        if self._clock is not None:
            await self._clock.asleep(min(self._delay, timeout))
        return self._answer(request.name, fault, await self.store.arun(request.op, timeout))

    # -- what the store does --------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # never assigned
        return self.store.capabilities

    @property
    def identity(self) -> Hashable:
        return self.store.identity

    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]:
        return _asked("fetch", self.store.fetch(space, keys))

    def lease(self, space: str, keys: Sequence[str], now_ms: int) -> Op[list[Found]]:
        return _asked("fetch", self.store.lease(space, keys, now_ms))

    def values(self, space: str, keys: Sequence[str], now_ms: int) -> Op[Values]:
        return _asked("fetch", self.store.values(space, keys, now_ms))

    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[Mapping[str, bytes]]:
        return _asked("put", self.store.put(space, items, packing))

    def offer(
        self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None, fresh: Callable[[], bool]
    ) -> Op[Mapping[str, bytes]]:
        return _asked("put", self.store.offer(space, items, packing, fresh))

    def overwrite(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[None]:
        return _asked("put", self.store.overwrite(space, items, packing))

    def add(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[None]:
        return _asked("fill", self.store.add(space, items, packing))

    def swap(
        self, space: str, items: Sequence[tuple[str, Entry, bytes | None]], packing: Packing | None
    ) -> Op[set[str]]:
        return _asked("swap", self.store.swap(space, items, packing))

    def fill(self, space: str, items: Sequence[tuple[str, Entry, bytes]], packing: Packing | None) -> Op[None]:
        return _asked("fill", self.store.fill(space, items, packing))

    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        return _asked("void", self.store.void(space, marks))

    def retract(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        return _asked("retract", self.store.retract(space, marks))

    def spaces(self, space: str) -> Op[list[str]]:
        return _asked("spaces", self.store.spaces(space))

    def scan(self, space: str, prefix: str, after: Any, limit: int, now_ms: int) -> Op[list[str]]:
        return _asked("scan", self.store.scan(space, prefix, after, limit, now_ms))

    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> Op[int]:
        return _asked("purge", self.store.purge(space, now_ms, grace_ms, limit, into))

    def ping(self) -> Op[None]:
        return _asked("ping", self.store.ping())

    def close(self) -> None:
        self.store.close()

    async def aclose(self) -> None:
        await self.store.aclose()


def _operation(name: str) -> str:
    if name not in READS + WRITES:
        close = get_close_matches(str(name), READS + WRITES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(READS + WRITES)}"
        raise ConfigurationError(f"unknown operation {name!r:.40}: {hint}")
    return name
