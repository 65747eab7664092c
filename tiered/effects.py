"""What a plan may ask for, and how a plan is run.

A plan is a generator: it yields effects, is sent their results (or has their errors thrown in) and returns the
result of the operation. A backend's operation is a generator of the same shape that yields requests of its own
driver. Neither does any I/O. `drive` and `adrive` are all that interprets either; the technique is psycopg 3's
(its `generators` and `waiting`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

from .backend import Found, Op
from .entry import Entry

if TYPE_CHECKING:
    from .flight import Caller, Flight
    from .level import Level

T = TypeVar("T")

Plan: TypeAlias = Generator[Any, Any, T]
"""Yields effects, returns T."""


class Ask(Protocol):
    """An effect that asks one tier; `op()` is the backend operation that answers it."""

    @property
    def level(self) -> Level: ...

    def op(self) -> Op[Any]: ...


class Fetch(NamedTuple):
    level: Level
    space: str
    keys: Sequence[str]

    def op(self) -> Op[list[Found]]:
        return self.level.backend.fetch(self.space, self.keys)


class Lease(NamedTuple):
    level: Level
    space: str
    keys: Sequence[str]
    now_ms: int

    def op(self) -> Op[list[Found]]:
        return self.level.backend.lease(self.space, self.keys, self.now_ms)


class Put(NamedTuple):
    level: Level
    space: str
    items: Sequence[tuple[str, Entry]]

    def op(self) -> Op[Mapping[str, bytes]]:
        return self.level.backend.put(self.space, self.items, self.level.packing)


class Offer(NamedTuple):
    level: Level
    space: str
    items: Sequence[tuple[str, Entry]]
    fresh: Callable[[], bool]

    def op(self) -> Op[Mapping[str, bytes]]:
        return self.level.backend.offer(self.space, self.items, self.level.packing, self.fresh)


class Swap(NamedTuple):
    level: Level
    space: str
    items: Sequence[tuple[str, Entry, bytes | None]]

    def op(self) -> Op[set[str]]:
        return self.level.backend.swap(self.space, self.items, self.level.packing)


class Fill(NamedTuple):
    level: Level
    space: str
    items: Sequence[tuple[str, Entry, bytes]]

    def op(self) -> Op[None]:
        return self.level.backend.fill(self.space, self.items, self.level.packing)


class Overwrite(NamedTuple):
    level: Level
    space: str
    items: Sequence[tuple[str, Entry]]

    def op(self) -> Op[None]:
        return self.level.backend.overwrite(self.space, self.items, self.level.packing)


class Add(NamedTuple):
    level: Level
    space: str
    items: Sequence[tuple[str, Entry]]

    def op(self) -> Op[None]:
        return self.level.backend.add(self.space, self.items, self.level.packing)


class Void(NamedTuple):
    level: Level
    space: str
    marks: Sequence[tuple[str, bytes]]

    def op(self) -> Op[None]:
        return self.level.backend.void(self.space, self.marks)


class Retract(NamedTuple):
    level: Level
    space: str
    marks: Sequence[tuple[str, bytes]]

    def op(self) -> Op[None]:
        return self.level.backend.retract(self.space, self.marks)


class Spaces(NamedTuple):
    level: Level
    space: str

    def op(self) -> Op[list[str]]:
        return self.level.backend.spaces(self.space)


class Scan(NamedTuple):
    level: Level
    space: str
    prefix: str
    after: Any
    limit: int
    now_ms: int

    def op(self) -> Op[list[str]]:
        return self.level.backend.scan(self.space, self.prefix, self.after, self.limit, self.now_ms)


class Purge(NamedTuple):
    level: Level
    space: str
    now_ms: int
    grace_ms: int
    limit: int
    into: int

    def op(self) -> Op[int]:
        return self.level.backend.purge(self.space, self.now_ms, self.grace_ms, self.limit, self.into)


class Ping(NamedTuple):
    level: Level

    def op(self) -> Op[None]:
        return self.level.backend.ping()


class Parallel(NamedTuple):
    """Ask several tiers at once -> a list of results, an exception standing for itself."""

    asks: Sequence[Ask]


class Sleep(NamedTuple):
    seconds: float


class Load(NamedTuple):
    """Call the user's loader, on behalf of flights -> its result, awaited where it is awaitable."""

    function: Callable[[Any], Any]
    argument: Any
    flights: Sequence[Flight]


class Spawn(NamedTuple):
    """Run `plan(caller)` in the background -> False if there is no room: then `plan` was not called.

    Where it is called, that happens before anything else, so that the flights have a leader at every moment.
    """

    plan: Callable[[Caller], Plan[None]]


class Join(NamedTuple):
    """Wait for another caller's flight -> its `Outcome`."""

    flight: Flight
    caller: Caller


class _Carried(Exception):
    """A StopIteration on its way through generators, which would take it for their own end."""

    def __init__(self, error: StopIteration) -> None:
        super().__init__(error)
        self.error = error


def drive(steps: Generator[Any, Any, T], perform: Callable[[Any], Any]) -> T:
    """Run a plan or an operation, performing each thing it yields."""
    try:
        request = next(steps)
        while True:
            try:
                answer = perform(request)
            except StopIteration as error:  # of a loader
                request = steps.throw(_Carried(error))
            except BaseException as error:  # the generator decides: it re-raises what it does not handle
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except _Carried as carried:
        raise carried.error from None
    finally:
        steps.close()


async def adrive(steps: Generator[Any, Any, T], perform: Callable[[Any], Awaitable[Any]]) -> T:
    """The same, awaiting each thing; a cancellation is thrown into the generator like any error."""
    try:
        request = next(steps)
        while True:
            try:
                answer = await perform(request)
            except BaseException as error:
                request = steps.throw(error)
            else:
                request = steps.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except _Carried as carried:  # of a thread's loader; a coroutine cannot raise it
        raise RuntimeError("the loader raised StopIteration") from carried.error
    finally:
        steps.close()
