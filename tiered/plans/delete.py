"""A delete: a write of `deleted`, also for keys that are not there, so that nothing older can come back."""

from __future__ import annotations

from collections.abc import Iterable

from ..effects import Plan
from ..entry import DELETED
from .stack import Stack
from .write import write


def delete(stack: Stack, keys: Iterable[str]) -> Plan[None]:
    """Delete `keys`. Errors as for a write."""
    yield from write(stack, dict.fromkeys(keys, (DELETED, b"")), None)
