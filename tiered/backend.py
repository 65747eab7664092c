"""What a backend is: the operations that plans ask of a system, each written once.

An operation is a generator that yields requests of its own driver, is sent their results and returns the answer;
`run` and `arun` of the backend are all that blocks or awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from .entry import VALUE, Entry, Packing
from .errors import TieredError

T = TypeVar("T")

Op: TypeAlias = Generator[Any, Any, T]
"""Yields requests of one driver, returns T."""

SCOPE = "\x1f"
"""Between a namespace and the name of a scope in it; names hold none."""

Found: TypeAlias = Entry | TieredError | None
"""What a tier answered for one key: an entry, why its record cannot be served, or nothing."""


class Page(list[str]):
    """Keys, and where the next ones are to be asked for: `mark`, None at the end."""

    __slots__ = ("mark",)

    def __init__(self, keys: Iterable[str], mark: Any) -> None:
        super().__init__(keys)
        self.mark = mark

    @staticmethod
    def of(keys: list[str], limit: int) -> Page:
        """Of a listing in order, asked for up to `limit` keys: fewer means the end."""
        return keys if isinstance(keys, Page) else Page(keys, keys[-1] if len(keys) >= limit else None)


def all_live(answers: Sequence[Found], now_ms: int) -> bool:
    """Whether nothing but live values came back: the common case of a large batch, judged at the speed of C."""
    try:
        kinds = set(map(itemgetter(0), cast("Sequence[Entry]", answers)))
        expiries = set(map(itemgetter(2), cast("Sequence[Entry]", answers))) - {None}
    except TypeError:  # a miss, or an error
        return False
    return kinds == {VALUE} and min(expiries, default=now_ms + 1) > now_ms


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a system can do, as far as the plans must know. Limits are in bytes."""

    shared: bool  # other machines see it: a namespace is required, copies default to an hour
    forgets: bool  # may drop any key at any time
    leases: bool = False  # its misses give tokens, without which it takes no fill (R4, R5)
    drops: bool = False  # removes by itself what has expired, so what is deleted needs an expiry too
    stamps: bool = True  # compares them and reports refusals; else it holds plain values, read with stamp 0
    expiry: bool = True  # keeps the expiry of an entry
    max_key: int = 65_535
    max_value: int = 512 * 2**20


class Backend(Protocol):
    """A store that speaks to one system. Every operation is written once, as a generator of driver requests.

    `space` is the namespace. Errors: `BackendUnavailable` when nothing was written, `Indeterminate` when that is
    unknown, `BatchError` when a batch was written in part.
    """

    namespace: str | None
    capabilities: Capabilities

    @property
    def scheme(self) -> str:
        """How the tier is called where it is given no name."""

    @property
    def identity(self) -> Hashable:
        """Equal for two backends that keep their entries in the same place."""

    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]:
        """What is stored for each of `keys`, expired and deleted entries included."""

    def lease(self, space: str, keys: Sequence[str], now_ms: int) -> Op[list[Found]]:
        """`fetch` in a shared tier; where leases are given, a miss leaves one: `invalid` with a token (R4)."""

    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[Mapping[str, bytes]]:
        """Store each entry that beats (`tiered.entry.beats`) what is there -> {refused key: the newer stamp}.

        The same entry again is "already done", not refused. Keys are distinct.
        """

    def offer(
        self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None, fresh: Callable[[], bool]
    ) -> Op[Mapping[str, bytes]]:
        """`put` as a writer's last step in a shared tier; where leases are given, into absence (a lease on nothing is
        that too) only while `fresh()`, asked just before sending: else the lease is removed and nothing stored (R7).
        """

    def swap(
        self, space: str, items: Sequence[tuple[str, Entry, bytes | None]], packing: Packing | None
    ) -> Op[set[str]]:
        """Store each entry whose key still has the given stamp (None: is absent) -> the refused keys (R20)."""

    def fill(self, space: str, items: Sequence[tuple[str, Entry, bytes]], packing: Packing | None) -> Op[None]:
        """Store copies read from below, each with the token its miss gave (b"" for none): see R5."""

    def overwrite(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[None]:
        """Store each value by the fastest way, whatever is there: for values that never change (`immutable=True`)."""

    def add(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[None]:
        """Store each copy of a value that never changes, but not over `deleted` (E7)."""

    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        """Make whatever is not newer than the stamp unreadable (R8); where leases are given: remove it, and tokens."""

    def retract(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        """Compare and remove: forget each key that holds an `invalid` with this very stamp (R18)."""

    def spaces(self, space: str) -> Op[list[str]]:
        """The namespaces scoped under `space`, which is what begins with it and `SCOPE`, that hold anything."""

    def scan(self, space: str, prefix: str, after: Any, limit: int, now_ms: int) -> Op[list[str]]:
        """Up to `limit` live keys that begin with `prefix`, in a fixed order, after `after`; fewer means the end.

        A system that has no order answers a `Page`, maybe an empty one, whose mark is the next `after`.
        """

    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> Op[int]:
        """Turn up to `limit` expired rows into the kind `into`, same stamp, and drop rows that have not been values
        for `grace_ms` (R28) -> rows changed.
        """

    def ping(self) -> Op[None]:
        """Answer, or raise BackendUnavailable."""

    def run(self, op: Op[T], timeout: float) -> T:
        """Run an operation, blocking at most about `timeout` seconds a request."""

    async def arun(self, op: Op[T], timeout: float) -> T:
        """The same without blocking the loop."""

    def close(self) -> None: ...

    async def aclose(self) -> None: ...
