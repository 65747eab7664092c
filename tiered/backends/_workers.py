"""A few threads for calls that may never return.

A call that nobody waits for any more keeps its thread until it ends, so stuck calls are bounded by the number of
threads; when all are stuck, further calls are refused at once. The threads are daemons: a stuck one does not keep
the interpreter from ending (those of `concurrent.futures` do).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Any

THREADS = 16
"""Calls of one foreign store under way in threads at once."""

IDLE = 5.0
"""Seconds after which a thread without work ends."""


class Stuck(Exception):
    """A call did not end in time. `sent`: it had begun, and may still have its effect."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class Job(Future[Any]):
    """A call on its way through a thread."""

    def __init__(self, work: Callable[[Job], Any]) -> None:
        super().__init__()
        self.work: Callable[[Job], Any] | None = work
        self.context: Context = copy_context()
        self.progress = 0  # raised by work that takes long but moves
        self.abandoned = False


class Workers:
    """Up to `THREADS` threads, started when there is work for them and ended when there is none."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # what the garbage collector ends may abandon a job, in any thread
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = self._idle = self._pending = self._stuck = 0

    def submit(self, job: Job) -> None:
        """Raises Stuck when every thread is held by a call that was given up."""
        with self._lock:
            if self._stuck >= THREADS:
                raise Stuck(f"all of its {THREADS} threads are held by calls that did not end", sent=False)
            spawn = self._pending >= self._idle and self._threads < THREADS
            self._pending += 1
            self._threads += spawn
        if spawn:
            try:
                threading.Thread(target=self._serve, name="tiered-foreign", daemon=True).start()
            except BaseException as error:
                with self._lock:
                    self._threads -= 1
                    self._pending -= 1
                if isinstance(error, RuntimeError):  # too many threads, or the interpreter is ending
                    raise Stuck("no thread could be started for it", sent=False) from error
                raise
        self._jobs.put(job)

    def result(self, job: Job, timeout: float) -> Any:
        """Wait for a job, blocking; Stuck when it neither ends nor makes progress for `timeout` seconds."""
        seen = 0
        try:
            while True:
                try:
                    return job.result(min(timeout, threading.TIMEOUT_MAX))
                except TimeoutError:
                    if job.done():  # its own
                        return job.result()
                    if job.progress == seen:
                        raise self._given_up(job, timeout) from None
                    seen = job.progress
        finally:
            self.abandon(job)

    async def aresult(self, job: Job, timeout: float) -> Any:
        """The same, suspending the task."""
        import asyncio

        seen = 0
        waiting = asyncio.wrap_future(job)
        try:
            while not (await asyncio.wait([waiting], timeout=timeout))[0]:
                if job.progress == seen:
                    raise self._given_up(job, timeout)
                seen = job.progress
            return waiting.result()
        finally:
            waiting.cancel()
            self.abandon(job)

    def _given_up(self, job: Job, timeout: float) -> Stuck:
        self.abandon(job)
        if job.cancelled():
            return Stuck(f"all of its {THREADS} threads were busy for {timeout:g} s", sent=False)
        return Stuck(f"it did not answer within {timeout:g} s", sent=True)

    def abandon(self, job: Job) -> None:
        """Nobody waits for it any more. If it has begun, it holds its thread until it ends."""
        if job.done() or job.cancel():
            return
        with self._lock:
            if not (job.done() or job.abandoned):
                job.abandoned = True
                self._stuck += 1

    def close(self) -> None:
        """Let idle threads end now."""
        with self._lock:
            for _ in range(self._threads):
                self._jobs.put(None)

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                job = self._jobs.get(timeout=IDLE)
            except queue.Empty:
                job = None
            with self._lock:
                self._idle -= 1
                if job is not None:
                    self._pending -= 1
                elif self._pending == 0:
                    self._threads -= 1
                    return
            if job is not None:
                self._do(job)
            del job  # or it would live as long as this thread waits

    def _do(self, job: Job) -> None:
        work, job.work = job.work, None
        if work is None or not job.set_running_or_notify_cancel():
            return
        try:
            answer = job.context.run(work, job)
        except BaseException as error:
            job.set_exception(error)
        else:
            job.set_result(answer)
        with self._lock:
            self._stuck -= job.abandoned
