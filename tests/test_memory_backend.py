"""The memory tier as a backend, over a mapping of the user's, in threads and forked processes."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from math import inf
from typing import Any

import cachetools
import pytest

from tiered.backends._shelf import Own
from tiered.backends.memory import Memory
from tiered.clock import SYSTEM
from tiered.entry import DELETED, INVALID, VALUE, Entry

from .memory_kit import START, Time, run, stamp
from .stepper import check

# -- as a backend --------------------------------------------------------------------------------------------

CACHES: list[Any] = [
    dict,
    lambda: {"policy": "lru"},
    lambda: {"cache": {}},
    lambda: {"cache": cachetools.LRUCache(1_000)},
    lambda: {"cache": cachetools.TTLCache(1_000, 3_600)},
    lambda: {"cache": cachetools.LFUCache(10_000, getsizeof=len)},
]


@pytest.mark.parametrize("options", CACHES)
def test_the_backend_protocol(options: Any) -> None:
    memory = Memory(**options())
    now_ms = int(SYSTEM.time() * 1000)
    old, new = Entry(VALUE, stamp(1), None, b"1"), Entry(VALUE, stamp(2), now_ms + 10**6, b"2", now_ms)
    assert run(memory, memory.put("ns", [("k", old), ("j", new)], None)) == {}
    assert run(memory, memory.fetch("ns", ["j", "absent", "k", "j"])) == [new, None, old, new]
    assert run(memory, memory.fetch("other", ["k"])) == [None]
    assert run(memory, memory.put("ns", [("k", old), ("j", old)], None)) == {"j": stamp(2)}, "the same again is done"
    gone = Entry(DELETED, stamp(3), None, b"")
    assert run(memory, memory.put("ns", [("k", gone)], None)) == {}
    assert run(memory, memory.fetch("ns", ["k"])) == [gone]
    assert memory.space("ns", SYSTEM.time).hit("k") is None
    back = Entry(VALUE, stamp(4), now_ms + 10**6, b"4")
    assert run(memory, memory.swap("ns", [("k", back, stamp(2)), ("n", back, stamp(1))], None)) == {"k", "n"}
    assert run(memory, memory.swap("ns", [("k", back, stamp(3)), ("n", back, None)], None)) == set()
    assert run(memory, memory.fetch("ns", ["k", "n"])) == [back, back]
    run(memory, memory.fill("ns", [("k", old, b""), ("f", old, b"")], None))
    assert run(memory, memory.fetch("ns", ["k", "f"])) == [back, old]
    run(memory, memory.void("ns", [("k", stamp(3)), ("f", stamp(1)), ("v", stamp(5))]))
    found = run(memory, memory.fetch("ns", ["k", "f", "v"]))
    assert found == [back, Entry(INVALID, stamp(1), None, b""), Entry(INVALID, stamp(5), None, b"")]
    assert run(memory, memory.put("ns", [("f", old)], None)) == {}
    assert run(memory, memory.fetch("ns", ["f"])) == [old], "a value replaces an invalid of equal stamp"
    run(memory, memory.ping())
    memory.close()
    assert asyncio.run(memory.arun(memory.fetch("ns", ["f"]), 1)) == [old], "closing closes nothing"


def test_scan_pages_in_order_and_leaves_out_what_is_not_live(time: Time) -> None:
    memory = Memory()
    space = memory.space("ns", time)
    keys = sorted(f"{prefix}{number}" for prefix in ("a", "b*", "b*[", "é") for number in range(50))
    for key in random.Random(1).sample(keys, len(keys)):
        space.install(key, b"v", stamp(1), inf)
    space.install("b*expired", b"v", stamp(1), START - 1)
    run(memory, memory.put("ns", [("b*deleted", Entry(DELETED, stamp(1), None, b""))], None))
    now_ms = int(START * 1000)
    for prefix in ("", "a", "b*", "b*[", "zz"):
        pages: list[str] = []
        after = None
        while page := run(memory, memory.scan("ns", prefix, after, 7, now_ms)):
            pages += page
            after = page[-1]
        assert pages == [key for key in keys if key.startswith(prefix)]
    assert run(memory, memory.scan("other", "", None, 7, now_ms)) == []


@pytest.mark.parametrize("options", [{}, {"cache": {}}])
def test_a_listing_collects_its_keys_once(options: Any, time: Time) -> None:
    memory = Memory(**options)
    space = memory.space("ns", time)
    keys = sorted(f"k{number}" for number in range(20_000))
    for key in keys:
        space.install(key, b"v", stamp(1), inf)
    asked = 0

    class Table(type(memory._shelf.home("ns").slots)):  # type: ignore[misc]
        def __iter__(self) -> Any:
            nonlocal asked
            asked += 1
            return super().__iter__()

    memory._shelf.home("ns").slots = Table(memory._shelf.home("ns").slots)
    listings: list[list[str]] = [[], [], []]
    prefixes = ["", "", "k1"]
    going = list(zip(prefixes, listings, strict=True))
    while going:
        for prefix, listed in list(going):
            page = run(memory, memory.scan("ns", prefix, listed[-1] if listed else None, 1_000, int(START * 1000)))
            listed += page
            if len(page) < 1_000:
                going.remove((prefix, listed))
    assert listings == [keys, keys, [key for key in keys if key.startswith("k1")]]
    assert asked <= 4, "once for each listing, and once more after the other of the same keys ended"
    assert not memory._listings


def test_a_listing_meets_each_key_that_stays_once_whatever_else_comes_and_goes(time: Time) -> None:
    memory = Memory()
    space = memory.space("ns", time)
    rng = random.Random(1)
    stay = [f"k{number:04}" for number in range(0, 2_000, 2)]
    for number, key in enumerate(stay):
        space.install(key, b"v", stamp(number), inf)
    listed: list[str] = []
    while page := run(memory, memory.scan("ns", "k", listed[-1] if listed else None, 70, int(START * 1000))):
        listed += page
        for _ in range(50):
            key = f"k{rng.randrange(1, 2_000, 2):04}"
            if rng.random() < 0.5:
                space.install(key, b"v", stamp(1), inf)
            else:
                space.drop(key, stamp(2))
        if rng.random() < 0.3:
            run(memory, memory.purge("ns", int(START * 1000), 0, 100, DELETED))
        if rng.random() < 0.2:
            assert run(memory, memory.scan("ns", "k", None, 5, int(START * 1000)))[0] <= "k0001"
    assert len(set(listed)) == len(listed)
    assert [key for key in listed if int(key[1:]) % 2 == 0] == stay
    assert run(memory, memory.scan("ns", "k", None, 5_000, int(START * 1000))) == sorted(space.keys()), "begun anew"


def test_listings_that_nobody_goes_on_with_are_dropped(time: Time) -> None:
    memory = Memory()
    space = memory.space("ns", time)
    for number in range(100):
        space.install(f"k{number}", b"v", stamp(1), inf)
    for prefix in ("", "k", "k1", "k2", "k3", "k4"):
        assert run(memory, memory.scan("ns", prefix, None, 2, int(START * 1000)))
    assert 0 < len(memory._listings) <= 4
    for _ in range(2):
        run(memory, memory.purge("ns", int(START * 1000), 0, 100, DELETED))
        assert run(memory, memory.scan("ns", "k4", "k4", 2, int(START * 1000))) == ["k40", "k41"]
    assert list(memory._listings) == [("ns", "k4")]


def test_purge_drops_expired_entries_and_old_marks_within_its_limit() -> None:
    now = SYSTEM.time()
    now_ms, day = int(now * 1000), 86_400_000
    memory = Memory()
    for number in range(5):
        run(memory, memory.put("ns", [(f"e{number}", Entry(VALUE, stamp(1), now_ms + 5_000, b"v"))], None))
        old = int((now - 90_000) * 1e6).to_bytes(8, "big") + b"abcd"
        run(memory, memory.put("ns", [(f"d{number}", Entry(DELETED, old, None, b""))], None))
    new = int(now * 1e6).to_bytes(8, "big") + b"abcd"
    run(memory, memory.put("ns", [("d", Entry(DELETED, new, None, b"")), ("v", Entry(VALUE, old, None, b"v"))], None))
    assert run(memory, memory.purge("ns", now_ms, day, 2, DELETED)) == 2, "marks: nothing has expired yet"
    now_ms += 7_000
    assert run(memory, memory.purge("ns", now_ms, day, 5, DELETED)) == 5
    assert run(memory, memory.purge("ns", now_ms, day, 7, DELETED)) == 3
    assert run(memory, memory.purge("ns", now_ms, day, 7, DELETED)) == 0
    assert sorted(memory.space("ns", SYSTEM.time).keys()) == ["d", "v"]
    check(memory)


def test_operations_do_nothing_until_they_are_run() -> None:
    memory = Memory()
    op = memory.put("ns", [("k", Entry(VALUE, stamp(1), None, b"v"))], None)
    assert memory.entries == 0
    assert run(memory, op) == {}
    assert memory.entries == 1


# -- a mapping of the user's ---------------------------------------------------------------------------------


def test_the_users_mapping_decides(time: Time) -> None:
    cache: Any = cachetools.LRUCache(3)
    memory = Memory(cache=cache)
    space, other = memory.space("a", time), memory.space("a|b", time)
    for number in range(3):
        space.install(f"k{number}", b"v", stamp(1), inf)
    assert space.hit("k0") == b"v", "which the mapping sees as an access"
    assert space.peek("k1") is not None, "which it does not"
    other.install("k0", b"w", stamp(1), inf)
    assert [space.hit(f"k{number}") for number in range(3)] == [b"v", None, b"v"]
    assert (memory.entries, memory.evictions, memory.hits) == (3, 1, 3)
    assert len(cache) == 3
    space.enter(["k1"])
    space.install("k1", b"5", stamp(5), inf)
    cache.clear()
    assert not space.install("k1", b"4", stamp(4), inf), "in-flight records are ours"
    space.leave(["k1"])
    assert "max" not in repr(memory)
    assert "LRUCache" in repr(memory)


def test_the_users_mapping_measures_and_refuses(time: Time) -> None:
    cache: Any = cachetools.LRUCache(100, getsizeof=len)
    space = Memory(cache=cache).space("ns", time)
    assert space.install("k", bytes(60), stamp(1), inf)
    assert cache.currsize == 60
    assert not space.install("k", bytes(101), stamp(2), inf)
    assert space.hit("k") is None
    assert space.install("k", bytes(100), stamp(3), inf)
    assert space.hit("k") == bytes(100)


def test_the_users_mapping_does_not_grow_our_side(time: Time) -> None:
    memory = Memory(cache=cachetools.LRUCache(10))
    space = memory.space("ns", time)
    for number in range(5_000):
        space.install(f"k{number}", b"v", stamp(1), START + 10**6)
    shelf: Any = memory._shelf
    assert len(shelf._expiries) <= 2 * 10 + 65
    gc.collect()
    assert len(space.keys()) == 10


def test_the_users_ttl_cache_may_forget_by_its_own_clock(time: Time) -> None:
    now = 0.0
    cache: Any = cachetools.TTLCache(10, 5, timer=lambda: now)
    memory = Memory(cache=cache)
    space = memory.space("ns", time)
    space.install("k", b"v", stamp(1), START + 100)
    assert space.hit("k") == b"v"
    now = 6.0
    assert space.hit("k") is None
    assert run(memory, memory.fetch("ns", ["k"])) == [None]
    now = 0.0
    space.install("j", b"v", stamp(1), START + 100)
    time.now = START + 101
    assert space.hit("j") is None, "our expiry holds too"


# -- processes and threads -----------------------------------------------------------------------------------


def test_a_forked_child_keeps_entries_and_has_a_free_lock_and_nothing_in_flight(time: Time) -> None:
    memory = Memory(max_entries=500)
    space = memory.space("ns", time)
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            space.install(f"k{number % 2_000}", b"v", stamp(number), START + 1_000)

    quiet = Memory(max_entries=5).space("ns", time)  # nothing evicts from this one meanwhile
    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):
            quiet.install("kept", b"v", stamp(10**6 + number), inf)
            space.enter(["kept", "flying"])
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    check(memory)
                    assert not space.busy("flying")
                    assert quiet.hit("kept") == b"v"
                    space.leave(["kept", "flying"])
                    assert space.install("child", b"c", stamp(1), inf)
                    assert space.hit("child") == b"c"
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert space.busy("flying")
            space.leave(["kept", "flying"])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert space.hit("child") is None
    check(memory)


@pytest.mark.parametrize("options", [{"max_entries": 40}, {"max_entries": 40, "policy": "lru"}, {"cache": {}}])
def test_eight_threads_never_read_what_is_older_than_acknowledged(options: Any) -> None:
    """Values carry their stamp; each thread notes what was acknowledged before it reads."""
    memory = Memory(**options)
    space = memory.space("ns", SYSTEM.time)
    keys = [f"k{number}" for number in range(60)]
    acknowledged = dict.fromkeys(keys, 0)
    notes, errors = threading.Lock(), []
    stamps = iter(range(1, 10**9))

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(1_500):
                key = rng.choice(keys)
                floor = acknowledged[key]
                act = rng.random()
                if act < 0.5:
                    for value in [space.hit(key), *space.hits([key, key])]:
                        assert value is None or int(value) >= floor, (key, value, floor)
                    continue
                space.enter([key])  # before the stamp is drawn: else an older one could enter after a newer left
                try:
                    with notes:
                        number = next(stamps)
                    if act < 0.8:
                        space.install(key, str(number).encode(), stamp(number), SYSTEM.time() + rng.choice([0.001, 5]))
                    elif act < 0.9:
                        space.drop(key, stamp(number))
                    else:
                        run(memory, memory.void("ns", [(key, stamp(number))]))
                    with notes:
                        acknowledged[key] = max(acknowledged[key], number)
                finally:
                    space.leave([key])
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not any(space.busy(key) for key in keys)
    if isinstance(memory._shelf, Own):
        check(memory)
