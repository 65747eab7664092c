"""Connections: who may use which, when, and when they end. All that blocks or awaits for an SQL backend.

One pool for threads, one for each event loop; each lets four readers and one writer in, in the order they came.
A writer waits here for the others of its pool and in the database for those of other pools and processes; both
count towards the request's time-out. A request holds one connection and nothing else, so waiting cannot deadlock.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401  by `asyncio.to_thread`, which must not import it while another thread forks
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeAlias

import aiosqlite
from sqlalchemy import URL, Engine, NullPool, PoolProxiedConnection, create_engine
from sqlalchemy.dialects import registry
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..errors import BackendUnavailable
from . import _sqlite
from ._requests import Query, Slots, Transaction, Turn
from ._sql_batches import Schema

# SQLAlchemy imports a dialect at first use. A fork in another thread meanwhile leaves the child waiting for ever.
_DIALECTS = [registry.load(f"sqlite.{driver}") for driver in ("pysqlite", "aiosqlite")]

Request: TypeAlias = Query | Transaction

READERS = 4
"""Reads at a time in one pool: more gain nothing under the interpreter lock, and each may cache 16 MiB."""


def _crowded(request: Request, began: float) -> BackendUnavailable:
    what = "other writes" if isinstance(request, Transaction) else f"{READERS} other reads"
    return BackendUnavailable(
        f"{what} of this process took longer than {time.monotonic() - began:.2g} s; nothing was written; try again"
    )


class ThreadPool:
    """Connections for blocking callers, from any thread."""

    def __init__(self, path: str, schema: Schema) -> None:
        self._path = path
        # SQLAlchemy connects; the slots bound how many there are. Its QueuePool counts connections and waits under
        # locks in Python code, where an interrupt can lose a count or leave a lock held.
        self._engine: Engine = create_engine(
            URL.create("sqlite+pysqlite", database=path),
            poolclass=NullPool,
            pool_reset_on_return=None,
            connect_args={**_sqlite.CONNECT, "schema": schema},
        )
        self._idle: deque[PoolProxiedConnection] = deque()  # the last used, with the warmest page cache, goes first
        self._readers = Slots(READERS)
        self._writer = Slots(1)
        self._closed = False
        self._finalizer = weakref.finalize(self, _drain, self._idle)

    def perform(self, request: Request, deadline: float) -> Any:
        """Raises _sqlite.Gone when the pool was closed before the request was sent."""
        began = time.monotonic()
        slots = self._writer if isinstance(request, Transaction) else self._readers
        turn = Turn()
        try:
            if not slots.enter(turn, deadline):
                raise _crowded(request, began)
            while not self._closed:
                try:
                    return self._attempt(request, deadline)
                except _sqlite.Gone:
                    continue
            raise _sqlite.Gone
        finally:
            turn.over = True  # before anything that an interrupt could strike
            try:
                slots.serve()
            except BaseException:
                slots.serve()
                raise

    def _attempt(self, request: Request, deadline: float) -> Any:
        held: PoolProxiedConnection | None = None
        fit = False
        try:
            try:
                held = self._idle.pop()
            except IndexError:
                held = self._connect()
            session: Any = held.driver_connection
            try:
                return session.perform(request, deadline)
            finally:
                fit = session.fit() and not self._closed
        finally:
            if fit and held is not None:
                self._idle.append(held)
                if self._closed:
                    _drain(self._idle)
            elif held is not None:
                held.invalidate()

    def _connect(self) -> PoolProxiedConnection:
        try:
            return self._engine.raw_connection()
        except sqlite3.Error as error:
            raise _sqlite.unconnected(error, self._path) from error

    def close(self) -> None:
        """Close what is idle now, and what is in use when it is returned."""
        self._closed = True
        _drain(self._idle)

    def disown(self) -> None:
        """In a forked child: the locks inside may be held by threads that do not exist here. Touch nothing."""
        self._finalizer.detach()


def _drain(idle: deque[PoolProxiedConnection]) -> None:
    while idle:
        try:
            held = idle.pop()
        except IndexError:  # another thread took the last
            return
        held.close()


async def hop(driver: Any, session: _sqlite.Performer, request: Request, deadline: float) -> Any:
    """Have `session` perform a request in the driver's thread. It has ended when this returns, or is cancelled."""
    ended = threading.Event()

    def job() -> Any:
        try:
            return session.perform(request, deadline)
        finally:
            ended.set()

    try:
        # aiosqlite has no public way to run a function in its thread; SQLAlchemy does as we do
        return await driver._execute(job)  # noqa: SLF001
    except asyncio.CancelledError:
        # again and again: an interruption is lost on a statement that has not quite begun
        try:
            await _until(ended.is_set, session.abandon)
        finally:
            session.resume()
        raise


class LoopPool:
    """Connections for the tasks of one event loop, each with its aiosqlite thread.

    A driver (aiosqlite's connection) belongs to whoever took it out of `_idle` under the lock: a task that uses it,
    or `close`, which may run in any thread.
    """

    def __init__(self, path: str, schema: Schema) -> None:
        self._engine: AsyncEngine = create_async_engine(
            URL.create("sqlite+aiosqlite", database=path),
            pool_size=READERS + 1,
            max_overflow=-1,  # the semaphores bound how many there are: the pool itself never waits
            pool_use_lifo=True,  # the connection used last has the warmest page cache
            pool_reset_on_return=None,  # a Session ends its transactions itself
            connect_args={**_sqlite.CONNECT, "schema": schema, "async_creator_fn": _connected},
        )
        self._path = path
        self._readers = asyncio.Semaphore(READERS)  # serves in the order they came
        self._writer = asyncio.Semaphore(1)
        self._lock = threading.Lock()
        self._idle: set[Any] = set()
        self._closed = False
        self._finalizer = weakref.finalize(self, _stop, self._idle)

    async def perform(self, request: Request, deadline: float) -> Any:
        """Raises _sqlite.Gone when the pool was closed before the request was sent."""
        began = time.monotonic()
        slots = self._writer if isinstance(request, Transaction) else self._readers
        if slots.locked():
            try:
                async with asyncio.timeout(deadline - began):
                    await slots.acquire()
            except TimeoutError:
                raise _crowded(request, began) from None
        else:
            await slots.acquire()
        try:
            while not self._closed:
                try:
                    return await self._hop(request, deadline)
                except _sqlite.Gone:
                    continue
            raise _sqlite.Gone
        finally:
            slots.release()

    async def _hop(self, request: Request, deadline: float) -> Any:
        """Perform a request, transaction and all, in one hop to a driver's thread and back."""
        try:
            held = await self._engine.raw_connection()
        except sqlite3.Error as error:
            raise _sqlite.unconnected(error, self._path) from error
        driver: Any = held.driver_connection
        with self._lock:
            closed = self._closed
            self._idle.discard(driver)
        session = driver._connection  # noqa: SLF001
        try:
            if closed:
                raise _sqlite.Gone
            return await hop(driver, session, request, deadline)
        finally:
            with self._lock:
                fit = not (self._closed or session is None or session.closed)
                if fit:
                    self._idle.add(driver)
            if fit:
                held.close()
            else:
                held.invalidate()
                await _until(lambda: not driver._thread.is_alive())  # noqa: SLF001

    async def aclose(self) -> None:
        """On the loop itself: close what is idle and end its threads; what is in use when it is returned.

        All of it has happened when this returns, also when it was cancelled.
        """
        with self._lock:
            self._closed = True
            ending = [driver._thread for driver in self._idle]  # noqa: SLF001
            _stop(self._idle, there=True)
        await _until(lambda: not any(thread.is_alive() for thread in ending))

    def close(self) -> None:
        """The same from anywhere, also when the loop is closed, without waiting for the threads."""
        with self._lock:
            self._closed = True
            self._finalizer()

    def disown(self) -> None:
        self._finalizer.detach()
        for driver in self._idle:
            driver._connection = None  # noqa: SLF001  its thread did not survive the fork; its Session is closed


def _stop(idle: set[Any], *, there: bool = False) -> None:
    """Close idle drivers, here or in their threads, and end these, without waiting for them and without any loop."""
    for driver in idle:
        shut = driver._connection.shut  # noqa: SLF001
        if there:
            driver._tx.put_nowait((None, shut))  # noqa: SLF001
        else:
            shut()
        driver._connection = None  # noqa: SLF001  else a driver collected at exit would warn
        # In its own thread: elsewhere `stop` promises its answer to a loop, which may be closed by then.
        driver._tx.put_nowait((None, driver.stop))  # noqa: SLF001
    idle.clear()


async def _connected(*args: Any, **options: Any) -> Any:
    """A connected driver. When that fails, or is cancelled, its thread has ended before the error arrives."""
    driver: Any = aiosqlite.connect(*args, **options)
    driver._thread.daemon = True  # noqa: SLF001  as SQLAlchemy sets it
    try:
        return await driver
    except BaseException:
        await _until(lambda: not driver._thread.is_alive())  # noqa: SLF001
        raise


async def _until(done: Callable[[], bool], nudge: Callable[[], object] = bool) -> None:
    """Wait for another thread, also when cancelled: it is about to call back into this loop."""
    cancelled: asyncio.CancelledError | None = None
    while not done():
        nudge()
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        raise cancelled


_Held: TypeAlias = tuple[LoopPool, AsyncGenerator[None, None]]


class Clients:
    """All pools of one backend: made at first use, renewed after a fork, made again after close()."""

    def __init__(self, path: str, schema: Schema) -> None:
        self.path = path
        self._schema = schema
        self._renew()
        _alive.add(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._threads: ThreadPool | None = None
        self._loops: weakref.WeakKeyDictionary[Any, _Held] = weakref.WeakKeyDictionary()

    def perform(self, request: Request, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            pool = self._threads
            if pool is None:
                with self._lock:
                    pool = self._threads = self._threads or ThreadPool(self.path, self._schema)
            try:
                return pool.perform(request, deadline)
            except _sqlite.Gone:  # closed before the request was sent: a closed pool is no longer ours
                continue

    async def aperform(self, request: Request, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            pool = await self._pool()
            try:
                return await pool.perform(request, deadline)
            except _sqlite.Gone:
                continue

    async def _pool(self) -> LoopPool:
        """The running loop's; does not suspend."""
        loop = asyncio.get_running_loop()
        held = self._loops.get(loop)
        if held is None:
            pool = LoopPool(self.path, self._schema)
            guard = self._guard(pool, loop)
            await anext(guard)
            with self._lock:
                dead = [self._loops.pop(other) for other in list(self._loops) if other.is_closed()]
                self._loops[loop] = held = pool, guard
            for other_pool, _ in dead:
                other_pool.close()
        return held[0]

    async def _guard(self, pool: LoopPool, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        """Closes the pool with its loop: asyncio.run and the like end every suspended async generator."""
        try:
            yield
        finally:
            with self._lock:
                held = self._loops.get(loop)
                ours = held is not None and held[0] is pool
                if ours:
                    del self._loops[loop]
            if ours:
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
            pool, guard = held
            await guard.aclose()  # the pool is no longer its concern: does not suspend
            await pool.aclose()
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
