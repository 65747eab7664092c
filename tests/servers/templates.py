"""Data folders that take seconds to make: made once for this process, then copied."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from .machine import StartError, acting_as, root

_lock = threading.Lock()


def copy_of(name: str, make: Callable[[Path], None], target: Path) -> None:
    """Copies the folder `make` makes, whole or not at all, to `target`, which must not exist. Owners stay."""
    template = root() / f"template-{name}"
    with _lock:
        if not template.exists():
            make(template)
    subprocess.run(["cp", "-Rp", str(template), str(target)], check=True)


def run(command: list[str], account: str | None, place: Path) -> None:
    """Runs a program that makes a data folder. Raises StartError with what it said."""
    done = subprocess.run(
        command,
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
        **acting_as(account),
    )
    if done.returncode:
        raise StartError(f"{Path(command[0]).name} ended with code {done.returncode}\n{done.stdout}{done.stderr}")
