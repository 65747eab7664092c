"""A simulated tier: a dict whose every operation is one atomic step, so that an engine can put faults around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tiered.backend import SCOPE, Capabilities, Found, Op
from tiered.backends.base import BaseBackend
from tiered.clock import ZERO, micros
from tiered.effects import adrive, drive
from tiered.entry import INVALID, VALUE, Entry, Packing, beats
from tiered.errors import BackendUnavailable, BatchError, Indeterminate

T = TypeVar("T")

Fault = Callable[[str], str]
"""Told the operation's name, says "ok", "before" (refused), "after" (done, but the answer is lost), "late" (the
answer is lost, the request arrives when `arrive()` is called), "half" (a batch written in part)."""

WRITES = {"put", "swap", "fill", "void", "purge", "retract"}


class SimTier(BaseBackend):
    """Keeps stamps, never forgets one. `fault` decides what happens to each request of the real engines.

    `plain`: holds nothing but values, without stamp and expiry.
    """

    def __init__(self, scheme: str = "sim", *, plain: bool = False) -> None:
        self.capabilities = Capabilities(shared=False, forgets=False, stamps=not plain, expiry=not plain)
        self.plain = plain
        self.scheme = scheme
        self.rows: dict[tuple[str, str], Entry] = {}
        self.fault: Fault = lambda name: "ok"
        self.log: list[str] = []  # the name of each request
        self.asked: list[tuple[str, Any]] = []  # with what it was about
        self.late: list[Callable[[], Any]] = []
        self.closed = 0
        self.lock = threading.Lock()  # a step is atomic; what `fault` waits for is outside of it

    # -- operations: each yields (name, step, items, half a step) --------------------------------------------------

    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]:
        return (yield "fetch", lambda: [self.rows.get((space, key)) for key in keys], keys)

    def lease(self, space: str, keys: Sequence[str], now_ms: int) -> Op[list[Found]]:
        return self.fetch(space, keys)

    def offer(
        self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None, fresh: Callable[[], bool]
    ) -> Op[Mapping[str, bytes]]:
        return self.put(space, items, packing)

    def overwrite(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[None]:
        yield from self.put(space, items, packing)

    def add(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[None]:
        yield from self.fill(space, [(key, entry, b"") for key, entry in items], packing)

    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[Mapping[str, bytes]]:
        return (yield "put", lambda some=items: self._put(space, some), items)

    def fill(self, space: str, items: Sequence[tuple[str, Entry, bytes]], packing: Packing | None) -> Op[None]:
        def step() -> None:
            absent = [(key, entry) for key, entry, _ in items if not self.plain or (space, key) not in self.rows]
            self._put(space, absent)

        yield "fill", step, items

    def _put(self, space: str, items: Sequence[tuple[str, Entry]]) -> dict[str, bytes]:
        if self.plain:
            self._put_plain(space, items)
            return {}
        refused = {}
        for key, entry in items:
            old = self.rows.get((space, key))
            if old is None or beats(entry, old):
                self.rows[space, key] = entry
            elif old.stamp > entry.stamp:
                refused[key] = old.stamp
        return refused

    def _put_plain(self, space: str, items: Sequence[tuple[str, Entry]]) -> None:
        for key, entry in items:
            if entry.kind == VALUE:
                self.rows[space, key] = Entry(VALUE, ZERO, None, entry.value)
            else:
                self.rows.pop((space, key), None)

    def swap(
        self, space: str, items: Sequence[tuple[str, Entry, bytes | None]], packing: Packing | None
    ) -> Op[set[str]]:
        def step() -> set[str]:
            refused = set()
            for key, entry, seen in items:
                old = self.rows.get((space, key))
                if (None if old is None else old.stamp) == seen:
                    self.rows[space, key] = Entry(VALUE, ZERO, None, entry.value) if self.plain else entry
                else:
                    refused.add(key)
            return refused

        return (yield "swap", step, items)

    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        def step() -> None:
            for key, stamp in marks:
                old = self.rows.get((space, key))
                if self.plain:
                    self.rows.pop((space, key), None)
                elif old is None or old.stamp <= stamp:
                    self.rows[space, key] = Entry(INVALID, stamp, None, b"")

        return (yield "void", step, marks)

    def retract(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        def step() -> None:
            for key, stamp in marks:
                old = self.rows.get((space, key))
                if old is not None and (old.kind, old.stamp) == (INVALID, stamp):
                    del self.rows[space, key]

        return (yield "retract", step, marks)

    def spaces(self, space: str) -> Op[list[str]]:
        return (yield "spaces", lambda: sorted({s for s, _ in self.rows if s.startswith(space + SCOPE)}), None)

    def scan(self, space: str, prefix: str, after: str | None, limit: int, now_ms: int) -> Op[list[str]]:
        def step() -> list[str]:
            live = sorted(
                k for (s, k), e in self.rows.items() if s == space and k.startswith(prefix) and e.live(now_ms)
            )
            return [key for key in live if after is None or key > after][:limit]

        return (yield "scan", step, prefix)

    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> Op[int]:
        def step() -> int:
            rows = [(name, entry) for name, entry in self.rows.items() if name[0] == space]
            due = [
                (name, entry)
                for name, entry in rows
                if (entry.kind == VALUE and entry.expires is not None and entry.expires <= now_ms)
                or (entry.kind != VALUE and max(micros(entry.stamp) // 1000, entry.expires or 0) < now_ms - grace_ms)
            ][:limit]
            for name, entry in due:
                if entry.kind == VALUE:
                    self.rows[name] = entry._replace(kind=into, value=b"")
                else:
                    del self.rows[name]
            return len(due)

        return (yield "purge", step, (into, limit))

    def ping(self) -> Op[None]:
        return (yield "ping", lambda: None, None)

    # -- real engines --------------------------------------------------------------------------------------------

    def perform(self, request: tuple[str, Callable[..., Any], Any]) -> Any:
        name, step, items = request
        self.log.append(name)
        self.asked.append((name, items))
        fault = self.fault(name)
        if fault == "before":
            raise BackendUnavailable(f"simulated: {name} refused")
        if fault == "half" and len(items) > 1:  # the first half is written, of the next key nothing is known
            half = len(items) // 2
            with self.lock:
                step(items[:half])
            keys = [key for key, _ in items]
            raise BatchError(
                "simulated", written=keys[:half], unknown=keys[half : half + 1], not_written=keys[half + 1 :]
            )
        if fault == "late":
            self.late.append(step)
        else:
            with self.lock:
                answer = step()
        if fault != "ok":
            raise (Indeterminate if name in WRITES else BackendUnavailable)(f"simulated: {name} lost its answer")
        return answer

    def arrive(self) -> None:
        """What was late arrives now."""
        with self.lock:
            while self.late:
                self.late.pop(0)()

    def run(self, op: Op[T], timeout: float) -> T:
        return drive(op, self.perform)

    async def arun(self, op: Op[T], timeout: float) -> T:
        async def perform(request: Any) -> Any:
            return self.perform(request)

        return await adrive(op, perform)

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1

    # -- for tests -----------------------------------------------------------------------------------------------

    def value(self, key: str, space: str = "") -> bytes | None:
        """What a reader of this tier alone would get."""
        entry = self.rows.get((space, key))
        return entry.value if entry is not None and entry.kind == VALUE else None

    def script(self, name: str, *faults: str) -> None:
        """The next requests called `name` meet these faults, one each; all others go well."""
        left = list(faults)
        self.fault = lambda asked: left.pop(0) if asked == name and left else "ok"

    def fail(self, *names: str, how: str = "before") -> None:
        """All requests with these names (none given: all) fail from here on."""
        self.fault = lambda asked: how if not names or asked in names else "ok"

    def heal(self) -> None:
        self.fault = lambda asked: "ok"
