"""`with tiered.bypass():`: loaders run, and no tier is touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

BYPASS: ContextVar[bool] = ContextVar("tiered_bypass", default=False)


@contextmanager
def bypass() -> Iterator[None]:
    """In this block `get_or_load`, `mget_or_load` and cached functions load, and neither read nor store anything.

    It holds for this thread or task, and for the tasks that are begun in the block. What is loaded is not shared with
    other callers either. Plain reads and writes are as ever.
    """
    token = BYPASS.set(True)
    try:
        yield
    finally:
        BYPASS.reset(token)
