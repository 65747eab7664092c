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
"""Refreshes at once: of a store and face, and threads for them in a process. What finds no room is tried again by the
next caller that finds the value stale."""


class Job:
    """One plan in the background; `ending` is the thread's or task's future, as soon as there is one."""

    __slots__ = ("ending", "lost", "step")

    def __init__(self) -> None:
        self.ending: Any = None
        self.lost = False
        self.step = threading.Lock()  # held while a tier is asked

    def alive(self) -> bool:
        return not self.lost and (self.ending is None or not self.ending.done())


class Stopped(BaseException):
    """Thrown into a plan in the background when its store is closed, as a cancellation."""


class Threads:
    """The refreshes of one store that run on threads."""

    def __init__(self, perform: Callable[[Any], Any]) -> None:
        self._perform = perform
        self._jobs: set[Job] = set()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._stopped = False

    def spawn(self, effect: Spawn) -> bool:
        """Run a plan on a thread of its own -> False if there is no room."""
        if self._pid != os.getpid():  # forked: the parent's threads are not here
            self._pid, self._jobs, self._lock = os.getpid(), set(), threading.Lock()
        job = Job()
        with self._lock:
            if self._stopped or len(self._jobs) >= REFRESHES:
                return False
            self._jobs.add(job)
        try:
            plan = effect.plan(Caller(job.alive, may_wait=True))
            job.ending = pool("tiered-refresh", REFRESHES).submit(background().run, self._run, job, plan)
        except RuntimeError:  # no new threads: the interpreter is about to end
            job.lost = True
            self._over(job)
            return False
        job.ending.add_done_callback(lambda _: self._over(job))
        return True

    def stop(self) -> None:
        """No refresh asks a tier from here on. A loader that is at work is left to end, its value is lost.

        Waits for the request under way, which the tier's time-out bounds.
        """
        self._stopped = True
        for job in list(self._jobs) if self.busy else ():
            with job.step:
                pass

    @property
    def busy(self) -> bool:
        return bool(self._jobs) and self._pid == os.getpid()

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

    def _over(self, job: Job) -> None:
        with self._lock:
            self._jobs.discard(job)


def background() -> Context:
    """The caller's context, but in nobody's loader."""
    context = copy_context()
    context.run(LOADING.set, ())
    return context


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
