"""Scans and batches beyond every page and chunk."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from .faces import FACES, face
from .matrix import BARE, Rig, rigs

COUNT = 25_000


def check(store: Any) -> None:
    names = [f"user:{at:06}" for at in range(COUNT)]
    store.mset([(name, b"%d" % at) for at, name in enumerate(names)])
    store.mset([("other", b"")])
    store.mdelete(names[::1_000])
    left = [name for at, name in enumerate(names) if at % 1_000]
    listed = store.keys(prefix="user:")
    assert len(listed) == len(left)
    assert sorted(listed) == left
    asked = [*names[::-1], "absent", *names[:10]]
    expected = {name: b"%d" % at for at, name in enumerate(names) if at % 1_000}
    assert store.mget(asked) == [expected.get(name) for name in asked]


@rigs(["memory > sqlite", "memory > sqlite > sqlite"])
def test_invariant_8_a_stack_lists_25_000_keys_by_pages(stack: Any) -> None:
    check(stack)


@pytest.mark.parametrize("name", FACES)
@pytest.mark.parametrize("kind", ["Memory()", "SQL()"])
def test_invariant_8_a_backend_lists_25_000_keys_by_pages(kind: str, name: str, tmp_path: Path) -> None:
    opened = face(name, BARE[kind](tmp_path))
    check(opened)
    opened.done()


@rigs(["memory > sqlite"])
def test_invariant_8_a_scan_holds_a_page_and_no_values(rig: Rig) -> None:
    stack = rig.restart()
    stack.mset([(f"k{at:05}", bytes(200)) for at in range(COUNT)])
    stack = rig.restart()
    stack.keys(prefix="none")
    tracemalloc.start()
    try:
        assert sum(1 for _ in stack.store.yield_keys()) == COUNT
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000  # a page of 1,000 keys takes 200 kB; all keys 1.5 MB, all values 6 MB
