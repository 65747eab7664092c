"""Refreshes behind the callers' backs: how many at once, and how they end when their store is closed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any

from ..effects import Load, Plan, Spawn, drive
from ..flight import LOADING, Caller

REFRESHES = 16
"""Refreshes at once: on threads in a process, and as tasks of a store. What finds no room is tried again by the next
caller that finds the value stale."""


class Job:
    """One plan in the background; `ending` is its task, as soon as there is one."""

    __slots__ = ("ending", "lost", "step")

    def __init__(self) -> None:
        self.ending: Any = None
        self.lost = False  # for good: over, or never begun
        self.step = threading.Lock()  # held while a tier is asked

    def alive(self) -> bool:
        return not self.lost and (self.ending is None or not self.ending.done())


class Stopped(BaseException):
    """Thrown into a plan in the background when its store is closed, as a cancellation."""


class _Room:
    """The threads of this process that refresh, whichever store they are of."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.jobs: set[Job] = set()


_room = _Room()


class Threads:
    """The refreshes of one store that run on threads.

    Daemons, which a loader that hangs cannot keep the interpreter with; what they were at when it ends is lost.
    """

    def __init__(self, perform: Callable[[Any], Any]) -> None:
        self._perform = perform
        self._stopped = False
        self.forked()

    def forked(self) -> None:
        """In a forked child: the parent's threads are not here."""
        self._jobs: set[Job] = set()

    def spawn(self, effect: Spawn) -> bool:
        """Run a plan on a thread of its own -> False if there is no room."""
        job = Job()
        with _room.lock:
            if self._stopped or len(_room.jobs) >= REFRESHES:
                return False
            _room.jobs.add(job)
            self._jobs.add(job)
        try:
            plan = effect.plan(Caller(job.alive, may_wait=True))
            run = background().run
            threading.Thread(target=run, args=(self._run, job, plan), name="tiered-refresh", daemon=True).start()
        except BaseException as error:
            self._over(job)
            if isinstance(error, RuntimeError):  # no new threads: the interpreter is about to end
                return False
            raise
        return True

    def stop(self) -> None:
        """No refresh asks a tier from here on. A loader that is at work is left to end, its value is lost.

        Waits for the request under way, which the tier's time-out bounds.
        """
        self._stopped = True
        with _room.lock:
            jobs = list(self._jobs)
        for job in jobs:
            with job.step:
                pass

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def _run(self, job: Job, plan: Plan[None]) -> None:
        def perform(effect: Any) -> Any:
            with job.step:
                if self._stopped:
                    raise Stopped
                if not isinstance(effect, Load):
                    return self._perform(effect)
            return self._perform(effect)  # which may take as long as it likes

        try:
            drive(plan, perform)
        except Stopped:
            pass
        finally:
            self._over(job)

    def _over(self, job: Job) -> None:
        job.lost = True
        with _room.lock:
            _room.jobs.discard(job)
            self._jobs.discard(job)


def background() -> Context:
    """The caller's context, but in nobody's loader."""
    context = copy_context()
    context.run(LOADING.set, ())
    return context


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_room.__init__)  # type: ignore[misc]


_pools: dict[tuple[int, str], ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def pool(name: str, threads: int) -> ThreadPoolExecutor:
    """One pool of each name a process; a forked child has none of its parent's threads."""
    place = os.getpid(), name
    found = _pools.get(place)
    if found is None:
        with _pools_lock:
            found = _pools.setdefault(place, ThreadPoolExecutor(threads, thread_name_prefix=name))
    return found
