"""What a server needs of the machine: its program, a free port, an account, folders, and the processes it starts."""

from __future__ import annotations

import atexit
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

HOST = "127.0.0.1"
_T = TypeVar("_T")


class Missing(Exception):
    """The program or the driver of a server is not installed here: says which, and what to install."""


class StartError(Exception):
    """A server that exists did not come up, or did not do in time what it should: ends with the tail of its log."""


def program(name: str, install: str, *folders: str) -> str:
    """The path of a program: on PATH, or in one of the folders (globs) where packages put it.

    Raises Missing.
    """
    if found := shutil.which(name):
        return found
    for folder in folders:
        where = Path(folder)
        places = sorted(Path(where.anchor).glob(str(where.relative_to(where.anchor))), reverse=True)
        for place in places:
            if found := shutil.which(name, path=str(place)):
                return found
    raise Missing(f"{name} not found: install {install}")


def driver(module: str, extra: str) -> None:
    """Raises Missing when the Python driver is not installed."""
    if importlib.util.find_spec(module) is None:
        raise Missing(f"driver {module} not found: pip install 'tiered[{extra}]'")


def account(*names: str) -> str | None:
    """Who runs a server that refuses root: the first of these accounts; None (yourself) when this is not root.

    Raises Missing.
    """
    if os.geteuid() != 0:
        return None
    import pwd  # here, so that the tests can be imported on Windows

    for name in names:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise Missing(f"it refuses to run as root, and there is no account {' or '.join(names)}")


def acting_as(name: str | None) -> dict[str, Any]:
    """The options of subprocess.Popen that run a program as this account, and in its group alone."""
    if name is None:
        return {}
    import pwd

    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


_given: set[int] = set()


def free_port() -> int:
    """A port nobody listens on, below those the system gives to clients.

    From that range a client that keeps dialling a killed server may get the server's own port, talk to itself, and
    keep the server from coming back.
    """
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        lowest = 32768
    for _ in range(200):
        port = random.randrange(max(1024, lowest - 15_000), lowest)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
    raise StartError("no free port found in 200 tries")


# Waits for the end of its input, which is our end however it comes, and removes what we left: servers and folder.
GUARD = """cat; for file in "$1"/*/running; do [ -f "$file" ] && kill -9 $(cat "$file"); done; rm -rf "$1" """

_roots: dict[int, tuple[Path, subprocess.Popen[bytes]]] = {}


def root() -> Path:
    """The folder of all servers of this process, made at first use, removed when the process ends, even by SIGKILL.

    A server that runs keeps its pid in the file `running` of its own folder in it.
    """
    if os.getpid() not in _roots:
        made = Path(tempfile.mkdtemp(prefix="tiered-servers-"))
        made.chmod(0o711)  # servers of another account must reach their own folder in it
        quiet = subprocess.DEVNULL
        guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(made)],
            stdin=subprocess.PIPE,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
        )
        _roots[os.getpid()] = made, guard
        atexit.register(remove_root)
    return _roots[os.getpid()][0]


def remove_root() -> None:
    """Removes the folder of all servers; the next `root` makes a new one."""
    made, guard = _roots.pop(os.getpid(), (None, None))
    if made and guard:
        shutil.rmtree(made)
        guard.communicate(timeout=30)


def until(condition: Callable[[], _T], what: str, seconds: float = 30.0, pause: float = 0.02) -> _T:
    """Polls until the condition holds and returns its value. Raises StartError after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise StartError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)


def children(pid: int) -> list[int]:
    """The processes this one started (Postgres has one for each connection, in groups of their own). Linux only."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it ended meanwhile
            continue
        if int(parent) == pid:
            found.append(int(stat.parent.name))
    return found


def ended(pid: int) -> bool:
    """Whether a process that need not be our child is gone, or dead and not yet collected by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def send(pids: list[int], number: signal.Signals) -> None:
    """Sends a signal to those of these processes that still exist."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
