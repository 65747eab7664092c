"""Connections: who may use which, when, and when they end. All that blocks or awaits for an SQL backend.

One pool for threads, one for each event loop; each lets four readers and one writer in. A writer waits here for
the others of its pool and in the database for those of other pools and processes; both count towards the
request's time-out. A request holds one connection and nothing else, so waiting cannot deadlock.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator
from typing import Any, TypeAlias

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..errors import BackendUnavailable, TieredError
from . import _sqlite
from ._requests import Query, Transaction

Request: TypeAlias = Query | Transaction

READERS = 4
"""Reads at a time in one pool: more gain nothing under the interpreter lock, and each may cache 32 MiB."""


_POOL: dict[str, Any] = {
    "pool_size": READERS + 1,
    "max_overflow": 0,
    "pool_use_lifo": True,  # the connection used last has the warmest page cache
    "pool_reset_on_return": None,  # a Session ends its transactions itself
    "connect_args": _sqlite.CONNECT,
}


def _crowded(request: Request, timeout: float) -> BackendUnavailable:
    what = "another write" if isinstance(request, Transaction) else f"{READERS} other reads"
    return BackendUnavailable(
        f"{what} of this process took longer than {timeout:.2g} s; nothing was written; try again"
    )


def _refused(error: DBAPIError, path: str) -> TieredError:
    return _sqlite.explain(error.orig or error, path)


_CLOSED = "the store was closed meanwhile; nothing was written"


class ThreadPool:
    """Connections for blocking callers, from any thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._engine: Engine = create_engine(URL.create("sqlite+pysqlite", database=path), **_POOL)
        self._readers = threading.BoundedSemaphore(READERS)
        self._writer = threading.BoundedSemaphore(1)
        self._closed = False
        self._finalizer = weakref.finalize(self, self._engine.dispose)

    def perform(self, request: Request, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        slots = self._writer if isinstance(request, Transaction) else self._readers
        if not slots.acquire(timeout=timeout):
            raise _crowded(request, timeout)
        try:
            while not self._closed:
                try:
                    held = self._engine.raw_connection()
                except DBAPIError as error:
                    raise _refused(error, self._path) from error
                session: Any = held.driver_connection
                try:
                    return session.perform(request, deadline)
                except _sqlite.Gone:
                    session.broken = True
                finally:
                    if session.broken or self._closed:
                        held.invalidate()
                    else:
                        held.close()
            raise BackendUnavailable(_CLOSED)
        finally:
            slots.release()

    def close(self) -> None:
        """Close what is idle now, and what is in use when it is returned."""
        self._closed = True
        self._finalizer()

    def disown(self) -> None:
        """In a forked child: the locks inside may be held by threads that do not exist here. Touch nothing."""
        self._finalizer.detach()


class LoopPool:
    """Connections for the tasks of one event loop, each with its aiosqlite thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._engine: AsyncEngine = create_async_engine(URL.create("sqlite+aiosqlite", database=path), **_POOL)
        self._readers = asyncio.Semaphore(READERS)
        self._writer = asyncio.Semaphore(1)
        self._drivers: set[Any] = set()
        self._closed = False
        self._finalizer = weakref.finalize(self, _stop, self._drivers)
        self._finalizer.atexit = False  # no thread can be started by then, and the workers are daemons

    async def perform(self, request: Request, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        slots = self._writer if isinstance(request, Transaction) else self._readers
        if slots.locked():
            try:
                async with asyncio.timeout(timeout):
                    await slots.acquire()
            except TimeoutError:
                raise _crowded(request, timeout) from None
        else:
            await slots.acquire()
        try:
            while not self._closed:
                try:
                    held = await self._engine.raw_connection()
                except DBAPIError as error:
                    raise _refused(error, self._path) from error
                driver: Any = held.driver_connection
                session = driver._connection  # noqa: SLF001
                if session is None:  # close() was quicker
                    held.invalidate()
                    continue
                self._drivers.add(driver)
                try:
                    # the one way to run a function in aiosqlite's thread: a request, transaction and all, is one hop
                    return await driver._execute(session.perform, request, deadline)  # noqa: SLF001
                except _sqlite.Gone:
                    session.broken = True
                except asyncio.CancelledError:
                    session.abandon()
                    await _idle(driver)
                    session.resume()
                    raise
                finally:
                    if session.broken or self._closed:
                        self._drivers.discard(driver)
                        held.invalidate()
                    else:
                        held.close()
            raise BackendUnavailable(_CLOSED)
        finally:
            slots.release()

    async def aclose(self) -> None:
        """On the loop itself: close every connection and end its thread."""
        if not self._closed:
            self._closed = True
            try:
                await self._engine.dispose()
                self._drivers.clear()
            finally:
                self._finalizer()

    def close(self) -> None:
        """From anywhere, also when the loop is closed."""
        self._closed = True
        self._finalizer()

    def disown(self) -> None:
        self._finalizer.detach()
        for driver in self._drivers:
            driver._connection = None  # noqa: SLF001  its thread did not survive the fork; its Session is closed


def _stop(drivers: set[Any]) -> None:
    """End aiosqlite's threads without their loop. In a thread that has no loop: `stop` would else create one."""

    def stop() -> None:
        for driver in list(drivers):
            driver.stop()

    if drivers:
        stopper = threading.Thread(target=stop)
        stopper.start()
        stopper.join()
        drivers.clear()


async def _idle(driver: Any) -> None:
    """Wait until the driver's thread has ended its present job, however often the waiting task is cancelled."""
    nothing = asyncio.ensure_future(driver._execute(int))  # noqa: SLF001  jobs run in order
    while not nothing.done():
        try:
            await asyncio.wait([nothing])
        except asyncio.CancelledError:
            continue  # the caller re-raises the first one


_Held: TypeAlias = tuple[LoopPool, AsyncGenerator[None, None]]


class Clients:
    """All pools of one backend: made at first use, renewed after a fork, made again after close()."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._renew()
        _alive.add(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._threads: ThreadPool | None = None
        self._loops: weakref.WeakKeyDictionary[Any, _Held] = weakref.WeakKeyDictionary()

    def perform(self, request: Request, timeout: float) -> Any:
        pool = self._threads
        if pool is None:
            with self._lock:
                pool = self._threads = self._threads or ThreadPool(self.path)
        return pool.perform(request, timeout)

    async def aperform(self, request: Request, timeout: float) -> Any:
        loop = asyncio.get_running_loop()
        held = self._loops.get(loop)
        if held is None:
            pool = LoopPool(self.path)
            guard = self._guard(pool, loop)
            await anext(guard)  # does not suspend
            with self._lock:
                dead = [self._loops.pop(other) for other in list(self._loops) if other.is_closed()]
                self._loops[loop] = held = pool, guard
            for other_pool, _ in dead:
                other_pool.close()
        return await held[0].perform(request, timeout)

    async def _guard(self, pool: LoopPool, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        """Closes the pool with its loop: asyncio.run and the like end every suspended async generator."""
        try:
            yield
        finally:
            with self._lock:
                self._loops.pop(loop, None)
            await pool.aclose()

    def close(self) -> None:
        """Close every connection, of all threads and loops. The next use connects again."""
        with self._lock:
            threads, self._threads = self._threads, None
            loops = list(self._loops.values())
            self._loops.clear()
        for pool, _ in loops:
            pool.close()
        if threads:
            threads.close()

    async def aclose(self) -> None:
        """The same; those of the running loop are closed without blocking it."""
        with self._lock:
            held = self._loops.pop(asyncio.get_running_loop(), None)
        if held:
            await held[1].aclose()
        await asyncio.to_thread(self.close)

    def disown(self) -> None:
        """In a forked child."""
        inherited = [self._threads, *(pool for pool, _ in self._loops.values())]
        for pool in inherited:
            if pool:
                pool.disown()
        _inherited.append((inherited, self._loops))
        self._renew()


_alive: weakref.WeakSet[Clients] = weakref.WeakSet()
_inherited: list[Any] = []  # never closed nor collected in the child


def _after_in_child() -> None:
    for clients in list(_alive):
        clients.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
