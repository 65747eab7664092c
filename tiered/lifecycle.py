"""How a store begins and ends: its engines, its scopes, `with`, closing, and what a fork leaves."""

from __future__ import annotations

import os
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .assembly import Assembly
from .backend import Backend
from .engine.sync import SyncEngine
from .operations import Operations, refuse
from .plans import scan

if TYPE_CHECKING:
    from .engine.aio import AsyncEngine


class Lifecycle(Operations):
    """The part of `TieredStore` that is not about keys."""

    _engine: SyncEngine
    _async: AsyncEngine | None = None
    _parent: Lifecycle | None = None  # of a scope: the store whose it is, and with it what is shared, kept alive
    _scopes: weakref.WeakSet[Lifecycle]

    def _see(self, made: Assembly) -> None:
        """Begin to be a store of these tiers."""
        self._made, self._stack = made, made.stack
        self._hit, self._hits = made.hit, made.hits
        self._closed = False
        self._scopes = weakref.WeakSet()
        if self._parent is None:
            _stores.add(self)

    def close(self) -> None:
        """Repair what can be repaired and let go of every connection. Twice is fine."""
        try:
            if self._shut():
                if self._parent is None:
                    self._engine.stop()
                    if self._async is not None:
                        self._async.stop()
                self._engine.run(scan.flush(self._stack))
        finally:  # also the second time, should the first have been cancelled
            for backend in self._owned():
                backend.close()

    async def aclose(self) -> None:
        try:
            if self._shut():
                if self._parent is None:
                    await self._aio().astop(self._engine)
                await self._aio().run(scan.flush(self._stack))
        finally:
            for backend in self._owned():
                await backend.aclose()

    def _owned(self) -> list[Backend]:
        """What closing this store closes: nothing, where it is a scope of another."""
        return self._made.backends() if self._parent is None else []

    def __enter__(self) -> Self:
        self._engine.run(self._connect())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self._aio().run(self._connect())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _shut(self) -> bool:
        """Refuse everything from here on, memory hits included; False if that was so already."""
        if self._closed:
            return False
        self._closed = True
        self._hit = self._hits = refuse
        for scope in list(self._scopes):
            scope._shut()  # noqa: SLF001
        return True

    def _aio(self) -> AsyncEngine:
        if self._parent is not None:
            return self._parent._aio()  # noqa: SLF001
        if self._async is None:
            from .engine.aio import AsyncEngine  # with the first coroutine only: asyncio takes 100 ms

            self._async = AsyncEngine(self._clock)
        return self._async

    def _forked(self) -> None:
        self._engine.forked()
        if self._async is not None:
            self._async.forked()
        self._stack.flights.forked()
        self._stack.overlaps.forked()
        self._stack.floors.forked()
        self._stack.pace.forked()
        for level in (*self._stack.uppers, self._stack.authority):
            level.forked()


_stores: weakref.WeakSet[Lifecycle] = weakref.WeakSet()


def _after_fork() -> None:
    for store in _stores:
        store._forked()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
