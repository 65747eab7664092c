"""Fixtures of the contract: a store of any kind, and a rig to open stacks with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tiered import TieredStore
from tiered.testing import FakeClock

from .faces import FACES, face
from .matrix import BARE, STACKS, Rig, options_of


@pytest.fixture
def rig(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Rig]:
    shape, name = request.param
    rig = Rig(shape, name, tmp_path, clock)
    yield rig
    rig.done()


@pytest.fixture
def stack(rig: Rig) -> Any:
    """A face of a stack."""
    return rig.open()


@pytest.fixture(params=[(kind, name) for kind in (*BARE, *STACKS) for name in FACES], ids=" | ".join)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Any]:
    """A face of any store at all: bare backends and stacks."""
    kind, name = request.param
    made = (
        BARE[kind](tmp_path) if kind in BARE else TieredStore(STACKS[kind](tmp_path), clock=clock, **options_of(kind))
    )
    opened = face(name, made)
    yield opened
    opened.done()
