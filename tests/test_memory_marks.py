"""What the memory tier remembers of deletions."""

from __future__ import annotations

from typing import Any

import cachetools
import pytest

from tiered.backends._shelf import MARKS
from tiered.backends.memory import Memory
from tiered.entry import DELETED, VALUE, Entry

from .stepper import check
from .test_memory_bounds import START, Time, fill, run, stamp


def delete(memory: Memory, *keys: str, number: int = 5) -> None:
    gone = Entry(DELETED, stamp(number), None, b"")
    assert run(memory, memory.put("ns", [(key, gone) for key in keys], None)) == {}


@pytest.mark.parametrize("options", [{}, {"policy": "lru"}, {"cache": {}}])
@pytest.mark.parametrize("stored", [False, True])
def test_deletions_remembered_are_bounded(options: Any, stored: bool) -> None:
    memory = Memory(**options) if "cache" in options else Memory(max_bytes=None, **options)
    for number in range(20_000):
        if stored:
            run(memory, memory.put("ns", [(f"k{number}", Entry(VALUE, stamp(1), None, b"v"))], None))
        delete(memory, f"k{number}")
    assert memory.entries == MARKS
    assert memory.evictions == 0
    late = [(f"k{number}", Entry(VALUE, stamp(2), None, b"v")) for number in (0, 19_999)]
    assert run(memory, memory.put("ns", late, None)) == {"k19999": stamp(5)}, "the newest are remembered"
    if "cache" in options:
        assert len(options["cache"]) == 1
        options["cache"].clear()
    else:
        check(memory)


@pytest.mark.parametrize(
    "options", [{"max_entries": 100}, {"max_entries": 100, "policy": "lru"}, {"max_bytes": 40_000}]
)
def test_deletions_of_absent_keys_evict_nothing(options: Any) -> None:
    memory = Memory(**options)
    space = memory.space("ns", Time())
    fill(space, 1_000, 10)
    held = sorted(space.keys())
    delete(memory, *(f"absent{number}" for number in range(500)))
    assert sorted(space.keys()) == held
    delete(memory, held[0], number=10**8)
    assert space.peek(held[0]) is not None, "what was there made room"
    if "max_entries" in options:  # costs are equal
        delete(memory, "absent", number=10**8)
        assert space.peek("absent") is not None, "in the place of an older one"
    check(memory)


@pytest.mark.parametrize("policy", ["adaptive", "lru"])
def test_marks_go_before_values(policy: Any) -> None:
    memory = Memory(max_entries=100, policy=policy)
    space = memory.space("ns", Time())
    delete(memory, *(f"gone{number}" for number in range(60)))
    fill(space, 100, 10)
    assert memory.evictions == 0
    assert all(name.startswith("key:") for name in list(space.keys()))
    check(memory)


def test_the_users_mapping_holds_values_only() -> None:
    cache: Any = cachetools.LRUCache(3)
    memory = Memory(cache=cache)
    space = memory.space("ns", Time())
    fill(space, 3, 1)
    delete(memory, *(f"absent{number}" for number in range(50)), number=10**8)
    assert len(cache) == 3
    assert all(space.hits([f"key:{number:09}" for number in range(3)]))
    delete(memory, "key:000000000", number=10**8)
    assert len(cache) == 2
    found = run(memory, memory.fetch("ns", ["key:000000000"]))
    assert found == [Entry(DELETED, stamp(10**8), None, b"")]
    fill(space, 1, 1)
    assert space.hit("key:000000000") is None, "older"
    assert memory.evictions == 0


def test_purge_keeps_values_that_only_turn_soft() -> None:
    memory, now_ms = Memory(), int(START * 1000)
    old = int((START - 90_000) * 1e6).to_bytes(8, "big") + b"abcd"
    soft = Entry(VALUE, old, now_ms + 10**9, b"v", now_ms + 10**6)
    run(memory, memory.put("ns", [("k", soft)], None))
    assert run(memory, memory.purge("ns", now_ms, 1_000, 100, DELETED)) == 0
    assert memory.entries == 1
