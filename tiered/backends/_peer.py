"""A store of somebody else's, and how it is called: what blocks or awaits for the `Foreign` backend."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeAlias

from ..base import BaseStore, Handle
from ..errors import FaceUnavailable, TieredError, Unsupported
from ._files import call_files, is_files
from ._locks import Locks, Turn
from ._workers import Job, Stuck, Workers
from .base import BaseBackend

METHODS = ("mget", "mset", "mdelete", "yield_keys")

LARGE = 2**16
"""Bytes that take too long to be encoded or decoded on an event loop."""

MANY = 1_000
"""Values, or keys, that do so whatever their size."""

_BREATH = 10_000
"""Names that a listing on an event loop takes before it lets others run."""


class Call(NamedTuple):
    """Call a method with `argument()` -> `shape(answer)`, both computed where the method runs.

    `turn` is held until the call has ended, also when nobody waits for it any more. `heavy`: what is computed for an
    mset, or of a large answer, takes long enough to be kept off an event loop.
    """

    method: str
    argument: Callable[[], Any]
    shape: Callable[[Any], Any]
    turn: Turn | None = None
    heavy: bool = False


class Compute(NamedTuple):
    """`work()`, off the event loop."""

    work: Callable[[], Any]


class Listing(NamedTuple):
    """Call `sink` with every name there is. It may take any time, as long as names keep coming."""

    sink: Callable[[Any], None]
    method: str = "yield_keys"


Request: TypeAlias = Turn | Call | Compute | Listing
"""A turn is waited for until it holds its names."""


class Peer:
    """One store in this process: every backend over it has the same locks and threads (`Peer.of`)."""

    _known: ClassVar[weakref.WeakValueDictionary[int, Peer]] = weakref.WeakValueDictionary()
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, store: Any) -> None:
        self.store = store
        self.name = type(store).__name__
        self.in_memory = _in_memory(store)
        self.files = is_files(store)
        self.inline = self.in_memory or _bounded(store)
        self._native = {name for name in METHODS if _native(store, name)}
        self.renew()

    def renew(self) -> None:
        """Also in a forked child, where the threads are not, and the locks of others would be held for ever."""
        self.locks = Locks()
        self._workers = Workers()

    @classmethod
    def of(cls, store: Any) -> Peer:
        with cls._guard:
            peer = cls._known.get(id(store))
            if peer is None:  # while there is one it holds the store, so the number is that store's
                peer = cls._known[id(store)] = cls(store)
            return peer

    def perform(self, request: Request, timeout: float) -> Any:
        """Raises Stuck, a TieredError, or what the store raises."""
        if isinstance(request, Turn):
            return request.enter(timeout)
        if isinstance(request, Compute):
            return request.work()
        try:
            if self.inline:
                return self._run(request, None)
            return self._workers.result(self._submit(request), timeout)
        except NotImplementedError as error:
            raise self._missing(request.method, "a" + request.method, request.method in self._native) from error

    async def aperform(self, request: Request, timeout: float) -> Any:
        if isinstance(request, Turn):
            return await request.aenter(timeout)
        if isinstance(request, Compute):
            return await _aside(request.work)
        # what lies in memory is listed by a thread: it would hold up the loop
        native = request.method in self._native and not (self.in_memory and isinstance(request, Listing))
        try:
            if native:
                return await _arun(self.store, request, timeout)
            return await self._workers.aresult(self._submit(request), timeout)
        except NotImplementedError as error:
            asked = "a" + request.method if native else request.method
            raise self._missing(asked, request.method, native) from error

    def _submit(self, request: Call | Listing) -> Job:
        job = Job(lambda job: self._run(request, job))
        turn = request.turn if isinstance(request, Call) else None
        try:
            if turn is not None:
                job.after = turn.ended
                turn.calls.add(job)
            self._workers.submit(job)
        except BaseException:
            self._workers.abandon(job)
            raise
        return job

    def _run(self, request: Call | Listing, job: Job | None) -> Any:
        try:
            if isinstance(request, Call):
                return request.shape(self._answer(request.method, request.argument()))
            # a dictionary must not change while it is iterated: its keys are copied in one step
            names = list(self.store.store) if self.in_memory else self.store.yield_keys()
            try:
                for name in names:
                    if job is not None:
                        if job.abandoned:
                            return None
                        job.progress += 1
                    request.sink(name)
            finally:
                getattr(names, "close", bool)()
            return None
        except StopIteration as error:  # a future could not carry it
            raise RuntimeError("StopIteration") from error

    def _answer(self, method: str, argument: Any) -> Any:
        if self.files:
            return call_files(self.store, method, argument)
        return getattr(self.store, method)(argument)

    def _missing(self, asked: str, other: str, there: bool) -> TieredError:
        if there:
            return FaceUnavailable(f"{self.name} does not implement {asked}(): use the face that has {other}()")
        return Unsupported(f"{self.name} does not implement {asked}()")

    def close(self) -> None:
        self._workers.close()


def _in_memory(store: Any) -> bool:
    """Whether it is LangChain's dictionary, whose methods never wait."""
    core = sys.modules.get("langchain_core.stores")
    plain = getattr(core, "InMemoryBaseStore", None)
    return plain is not None and all(getattr(type(store), name, None) is getattr(plain, name) for name in METHODS)


def _bounded(store: Any) -> bool:
    """Whether it bounds its waits itself: a backend or a stack of ours; not a typed store, whose store may be any."""
    return isinstance(store, BaseBackend) or (isinstance(store, Handle) and "_made" in vars(store))


def _native(store: Any, name: str) -> bool:
    """Whether the store has an asynchronous method of its own: the inherited one would take a thread, for each key."""
    method = getattr(store, "a" + name, None)
    return method is not None and getattr(method, "__func__", method) is not getattr(BaseStore, "a" + name)


async def _arun(store: Any, request: Call | Listing, timeout: float) -> Any:
    import asyncio

    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            if isinstance(request, Call):
                ahead = request.heavy and request.method == "mset"
                argument = await _aside(request.argument) if ahead else request.argument()
                answer = await getattr(store, "a" + request.method)(argument)
                if request.heavy and isinstance(answer, list) and heavy(answer):
                    return await _aside(lambda: request.shape(answer))
                return request.shape(answer)
            names = store.ayield_keys()
            try:
                count = 0
                async for name in names:
                    limit.reschedule(loop.time() + timeout)
                    request.sink(name)
                    count += 1
                    if count % _BREATH == 0:
                        await asyncio.sleep(0)
            finally:
                await getattr(names, "aclose", _nothing)()
            return None
    except TimeoutError:
        if not limit.expired():  # its own
            raise
        raise Stuck(f"it did not answer within {timeout:g} s", sent=True) from None


async def _aside(work: Callable[[], Any]) -> Any:
    import asyncio

    return await asyncio.to_thread(work)


def heavy(values: Sequence[Any]) -> bool:
    """Whether encoding or decoding them would hold up an event loop."""
    return len(values) >= MANY or sum(len(value) for value in values if isinstance(value, bytes)) >= LARGE


async def _nothing() -> None: ...


def _after_in_child() -> None:
    Peer._guard = threading.Lock()  # noqa: SLF001
    for peer in list(Peer._known.values()):  # noqa: SLF001
        peer.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
