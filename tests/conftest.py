"""What all tests share."""

from __future__ import annotations

import gc

import pytest

from tests.memory_kit import Time
from tiered.testing import FakeClock

pytest_plugins = ("tests.servers.plugin",)


def pytest_collection_finish() -> None:
    """What importing all tests made is there for good: without this every collection walks through it (3x the time)."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def clock() -> FakeClock:
    """Time that stands still at a whole second, so that sums of seconds and halves are exact."""
    clock = FakeClock()
    clock._now = float(int(clock._now))
    return clock


@pytest.fixture
def time() -> Time:
    """A clock for the memory tier that moves when its `now` is set."""
    return Time()
