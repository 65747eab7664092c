"""A simulated tier: a dict whose every operation is one atomic step, so that an engine can put faults around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tiered.backend import Capabilities, Found, Op
from tiered.backends.base import BaseBackend
from tiered.effects import adrive, drive
from tiered.entry import DELETED, INVALID, VALUE, Entry, Packing, beats
from tiered.errors import BackendUnavailable, Indeterminate

T = TypeVar("T")

Fault = Callable[[str], str]
"""Told the operation's name, says "ok", "before" (refused) or "after" (done, but the answer is lost)."""


class SimTier(BaseBackend):
    """Keeps stamps, never forgets one. `fault` decides what happens to each request of the real engines."""

    scheme = "sim"
    capabilities = Capabilities(shared=False, forgets=False)

    def __init__(self, scheme: str = "sim") -> None:
        self.scheme = scheme
        self.rows: dict[tuple[str, str], Entry] = {}
        self.fault: Fault = lambda name: "ok"
        self.log: list[str] = []
        self.closed = 0

    # -- operations ----------------------------------------------------------------------------------------------

    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]:
        return (yield "fetch", lambda: [self.rows.get((space, key)) for key in keys])

    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[Mapping[str, bytes]]:
        def step() -> dict[str, bytes]:
            refused = {}
            for key, entry in items:
                old = self.rows.get((space, key))
                if old is None or beats(entry, old):
                    self.rows[space, key] = entry
                elif old.stamp > entry.stamp:
                    refused[key] = old.stamp
            return refused

        return (yield "put", step)

    def swap(
        self, space: str, items: Sequence[tuple[str, Entry, bytes | None]], packing: Packing | None
    ) -> Op[set[str]]:
        def step() -> set[str]:
            refused = set()
            for key, entry, seen in items:
                old = self.rows.get((space, key))
                if (None if old is None else old.stamp) == seen:
                    self.rows[space, key] = entry
                else:
                    refused.add(key)
            return refused

        return (yield "swap", step)

    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        def step() -> None:
            for key, stamp in marks:
                old = self.rows.get((space, key))
                if old is None or old.stamp <= stamp:
                    self.rows[space, key] = Entry(INVALID, stamp, None, b"")

        return (yield "void", step)

    def scan(self, space: str, prefix: str, after: str | None, limit: int, now_ms: int) -> Op[list[str]]:
        def step() -> list[str]:
            live = sorted(k for (s, k), e in self.rows.items() if s == space and k.startswith(prefix) and e.live(now_ms))
            return [key for key in live if after is None or key > after][:limit]

        return (yield "scan", step)

    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> Op[int]:
        def step() -> int:
            due = [
                (name, entry)
                for name, entry in self.rows.items()
                if entry.kind == VALUE and entry.expires is not None and entry.expires <= now_ms
            ][:limit]
            for name, entry in due:
                self.rows[name] = entry._replace(kind=into, value=b"")
            return len(due)

        return (yield "purge", step)

    def ping(self) -> Op[None]:
        return (yield "ping", lambda: None)

    # -- real engines --------------------------------------------------------------------------------------------

    def perform(self, request: tuple[str, Callable[[], Any]]) -> Any:
        name, step = request
        self.log.append(name)
        fault = self.fault(name)
        if fault == "before":
            raise BackendUnavailable(f"simulated: {name} refused")
        answer = step()
        if fault == "after":
            raise (Indeterminate if name in WRITES else BackendUnavailable)(f"simulated: {name} lost its answer")
        return answer

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

    def value(self, key: str, space: str = "") -> bytes | None:
        """What a reader of this tier alone would get."""
        entry = self.rows.get((space, key))
        return entry.value if entry is not None and entry.kind == VALUE else None


WRITES = {"put", "swap", "fill", "void"}

__all__ = ["DELETED", "SimTier", "WRITES"]
