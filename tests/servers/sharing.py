"""Servers for tests: one of each kind for a session, started at first use; a missing one is a skip, or a failure.

Tests keep apart by namespace or database, never by a server of their own, unless they kill or pause it.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from typing import Any

from .kinds import make
from .machine import Missing, StartError
from .process import Running

missing: dict[str, str] = {}  # by kind: why, for the summary of the session

_shared: dict[str, Running | StartError] = {}
_lock = threading.RLock()
_numbers = itertools.count(1)


def start(kind: str, *arguments: str, **options: Any) -> Any:
    """Starts a server of this test's own: `with start("redis", "--maxmemory", "4mb") as server:` stops it again.

    Skips the test when the machine lacks the server; fails it instead with TIERED_REQUIRE_SERVERS=1. Outside of a
    test that is `Missing`. Raises ValueError for a kind there is none of, StartError for a server that does not come
    up.
    """
    try:
        return make(kind, *arguments, **options)
    except Missing as error:
        if not _in_test():
            raise
        _give_up(kind, str(error))


def shared(kind: str) -> Any:
    """The server of this kind that all tests of the session share, started at first use. Do not stop, kill or flush it.

    Skips, fails and raises like `start`.
    """
    with _lock:
        if kind not in _shared:
            try:
                _shared[kind] = start(kind)
            except StartError as error:
                _shared[kind] = error  # the next test shall not wait for it again
        found = _shared[kind]
        if isinstance(found, StartError):
            raise found
        if not found.alive:
            raise StartError(f"the shared {kind} ended: did a test stop it?\n{found.log_tail()}")
        return found


def namespace() -> str:
    """A namespace nobody used in this session: how tests on one shared Redis keep apart."""
    return f"t{next(_numbers)}"


def _in_test() -> bool:
    return "pytest" in sys.modules and "PYTEST_CURRENT_TEST" in os.environ  # children inherit the latter


def _give_up(kind: str, reason: str) -> None:
    import pytest

    missing[kind] = reason
    if os.environ.get("TIERED_REQUIRE_SERVERS") == "1":
        pytest.fail(f"server missing: {kind} ({reason}); TIERED_REQUIRE_SERVERS=1 wants it", pytrace=False)
    pytest.skip(f"server missing: {kind} ({reason})")
