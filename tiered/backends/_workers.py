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
    """A call did not end in time. `sent`: it had begun, and may still have its effect. `busy`: it was not made, for
    other operations have its keys, which says nothing of the store.
    """

    def __init__(self, why: str, *, sent: bool, busy: bool = False) -> None:
        super().__init__(why)
        self.sent = sent
        self.busy = busy


class Job(Future[Any]):
    """A call on its way through a thread."""

    def __init__(self, work: Callable[[Job], Any]) -> None:
        super().__init__()
        self.work: Callable[[Job], Any] | None = work
        self.context: Context = copy_context()
        self.progress = 0  # raised by work that takes long but moves
        self.abandoned = False
        self.after: Callable[[Job], object] = bool  # called when it has ended or will never begin, perhaps twice
        self._gate = gate = threading.Lock()
        gate.acquire()
        self.add_done_callback(lambda _: gate.release())

    def ended(self, timeout: float) -> bool:
        """Wait for its end, at most so many seconds -> whether it came. (Future.result minds an interrupt.)"""
        return self.done() or self._gate.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX)) or self.done()


class Workers:
    """Up to `THREADS` threads, started when there is work for them and ended when there is none."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a handler of a signal may use the store, too
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = self._idle = self._pending = 0
        self._running: set[Job] = set()

    def submit(self, job: Job) -> None:
        """Raises Stuck when every thread is held by a call that was given up."""
        with self._lock:  # an interrupt in here leaves nothing that is counted wrong: threads count themselves
            if sum(running.abandoned for running in list(self._running)) >= THREADS:
                raise Stuck(f"all of its {THREADS} threads are held by calls that did not end", sent=False)
            if self._pending >= self._idle and self._threads < THREADS:
                try:
                    threading.Thread(target=self._serve, name="tiered-foreign", daemon=True).start()
                except RuntimeError as error:  # too many threads, or the interpreter is ending
                    raise Stuck("no thread could be started for it", sent=False) from error
            self._pending += 1
            self._jobs.put(job)

    def result(self, job: Job, timeout: float) -> Any:
        """Wait for a job, blocking; Stuck when it neither ends nor makes progress for `timeout` seconds."""
        seen = 0
        try:
            while not job.ended(timeout):
                if job.progress == seen:
                    raise self._given_up(job, timeout)
                seen = job.progress
            return job.result()
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
            if job.cancelled():
                job.after(job)
        else:
            job.abandoned = True

    def close(self) -> None:
        """Let idle threads end now."""
        with self._lock:
            for _ in range(self._threads):
                self._jobs.put(None)

    def _serve(self) -> None:
        with self._lock:
            if self._threads >= THREADS:
                return
            self._threads += 1
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
            job.after(job)
            return
        self._running.add(job)
        answer, raised = None, None
        try:
            answer = job.context.run(work, job)
        except BaseException as error:
            raised = error
        self._running.discard(job)
        job.after(job)
        if raised is None:
            job.set_result(answer)
        else:
            job.set_exception(raised)
        del raised  # or the frames it holds would hold it
