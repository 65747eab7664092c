"""One server process: started, polled until it answers, killed, paused, restarted, stopped without a trace.

`kill -9` leaves in the page cache what the server wrote: it shows recovery from a crash, never that data reached a
disk.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from .machine import HOST, Missing, StartError, acting_as, children, ended, free_port, root, send, until

PATIENCE = 60.0  # seconds for a server to come up: a busy machine is slow, a broken server ends at once
LAST_WORDS = 10.0  # seconds for a server to stop when asked to


class Running(ABC):
    """Something started that has a URL: a server, or several that belong together. A context manager: stops at exit."""

    kind: str

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect. May hold a password: never print it."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether none of its processes has ended."""

    @abstractmethod
    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log."""

    @abstractmethod
    def stop(self) -> None:
        """Ends it and removes its data. Doing so twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class Server(Running):
    """One server on a port of its own, with data of its own. `boot` starts it; `tests.servers.start` has done so."""

    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    disposable: ClassVar[bool] = True  # SIGKILL leaves nothing outside of its folder, and is quicker

    def __init__(self, *arguments: str, durable: bool = False) -> None:
        self.require()
        self.arguments = arguments
        self.durable = durable
        self.host = HOST
        self.port = 0
        self.account = self.runs_as()
        self.place = Path(tempfile.mkdtemp(prefix=f"{self.kind}-", dir=root()))
        self.data = self.place / "data"
        self.process: subprocess.Popen[bytes] | None = None
        self._paused: list[int] = []
        self._owner = os.getpid()
        if self.account:
            shutil.chown(self.place, self.account)

    @classmethod
    @abstractmethod
    def require(cls) -> None:
        """Raises Missing when this machine lacks the program or the driver."""

    @classmethod
    def runs_as(cls) -> str | None:
        """The account that runs it, if not this one. Raises Missing."""
        return None

    @abstractmethod
    def prepare(self) -> None:
        """Makes the folder `data` for an empty server that will listen on `port`."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line of the server."""

    @abstractmethod
    def check(self) -> bool:
        """Whether this very process answers now: True, or False, or one of `unready`."""

    @classmethod
    @abstractmethod
    def unready(cls) -> type[Exception]:
        """What the driver raises while the server comes up, besides OSError."""

    @property
    def pid(self) -> int:
        """The pid of the running process. Raises RuntimeError when there is none."""
        if self.process is None:
            raise RuntimeError(f"{self.kind} on port {self.port} is not running")
        return self.process.pid

    @property
    def alive(self) -> bool:
        ours = self._owner == os.getpid()  # a fork of the process that started it cannot poll it
        return self.process is not None and (not ours or self.process.poll() is None)

    def boot(self) -> Self:
        """Starts it for the first time, on a free port. Raises StartError, and leaves nothing behind then."""
        try:
            for _ in range(5):
                self.port = free_port()
                self._empty()
                self._launch()
                if self._answers():
                    return self
            raise StartError(f"{self.kind}: five ports in a row were taken by others\n{self.log_tail()}")
        except BaseException:
            self.stop()
            raise

    def log_tail(self, lines: int = 20) -> str:
        log = self.place / "log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def kill(self) -> None:
        """SIGKILL to the server and the processes it started. The data stay for `restart`."""
        family = [self.pid, *children(self.pid)]
        send(family, signal.SIGKILL)
        self._collect()
        until(lambda: all(map(ended, family)), f"the end of {self!r} after SIGKILL")

    def pause(self) -> None:
        """SIGSTOP to the server and the processes it started: connections stay open and nothing answers."""
        self._paused = [self.pid]
        send(self._paused, signal.SIGSTOP)  # first the one that starts others
        self._paused += children(self.pid)
        send(self._paused[1:], signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`; nothing when it is not paused."""
        send(self._paused, signal.SIGCONT)
        self._paused = []

    def restart(self, *, empty: bool = False) -> None:
        """Starts it again on the same port, with its data, or with none. A server that still runs is stopped first.

        Raises StartError.
        """
        self._end()
        if empty:
            self._empty()
        self._launch()
        if not self._answers():
            raise StartError(f"{self.kind}: port {self.port} was taken while it was down\n{self.log_tail()}")

    def stop(self) -> None:
        if self._owner != os.getpid():  # a fork of the process that started it
            return
        if self.alive and self.disposable:
            self.kill()
        self._end()
        if self.place.exists():
            self.cleanup()
            shutil.rmtree(self.place)
        _started.discard(self)

    def cleanup(self) -> None:
        """Removes what the server left outside of its folder when it was killed."""

    def __repr__(self) -> str:
        state = f"pid {self.process.pid}" if self.process else "not running"
        return f"<{self.kind} on {self.host}:{self.port}, {state}>"

    def _empty(self) -> None:
        if self.data.exists():
            shutil.rmtree(self.data)
        self.prepare()
        if self.account and self.data.owner() != self.account:
            shutil.chown(self.data, self.account)

    def _launch(self) -> None:
        _started.add(self)
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.place,
                start_new_session=True,  # a Ctrl-C is for us: we stop it
                **acting_as(self.account),
            )
        (self.place / "running").write_text(str(self.process.pid))

    def _answers(self) -> bool:
        """Waits until it answers. False if its port was taken by another. Raises StartError for any other end."""
        deadline = time.monotonic() + PATIENCE
        reason = "it does not answer"
        while self.alive:
            try:
                if self.check():
                    return True
            except (OSError, self.unready()) as error:
                reason = f"{type(error).__name__}: {error}"
            if time.monotonic() > deadline:
                raise StartError(f"{self.kind}: not ready within {PATIENCE:g} s: {reason}\n{self.log_tail()}")
            time.sleep(0.01)
        code = self._collect()
        if "already in use" in self.log_tail().lower():
            return False
        raise StartError(f"{self.kind}: it ended with code {code}\n{self.log_tail()}")

    def _end(self) -> None:
        if self.process is None:
            return
        self.resume()
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._collect()

    def _collect(self) -> int | None:
        process, self.process, self._paused = self.process, None, []
        (self.place / "running").unlink(missing_ok=True)
        return process.wait() if process else None


_started: set[Server] = set()


@atexit.register
def stop_all() -> None:
    """Stops every server this process started and has not stopped."""
    for server in tuple(_started):
        server.stop()


__all__ = ["Missing", "Running", "Server", "StartError", "stop_all"]
