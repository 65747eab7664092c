"""The memory tier when it is interrupted, when its user's mapping fails, and when threads fork at once."""

from __future__ import annotations

import linecache
import logging
import os
import subprocess
import sys
from collections import UserDict
from collections.abc import Callable
from math import inf
from types import FrameType
from typing import Any

import pytest

from tiered.backends.memory import Memory
from tiered.entry import DELETED, INVALID, VALUE, Entry

from .memory_kit import START, Time, run, stamp
from .stepper import PATIENCE, TRACED, check

STEPS = 2_000
"""More lines than any operation below has."""


# -- interrupts ----------------------------------------------------------------------------------------------


def interrupted(action: Callable[[], Any], line: int, error: type[BaseException]) -> bool:
    """Run `action` and raise `error` at its `line`-th traced line -> whether it has as many."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        return step if frame.f_code.co_filename in TRACED else None

    def step(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        line_of = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
        if event == "line" and not line_of.startswith("with "):  # leaving it is a line too, but no signal comes there
            lines += 1
            if lines == line:
                raise error
        return step

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    except error:
        return True
    finally:
        sys.settrace(before)
    return False


class Stage:
    """A full memory, with things expired and marks in it, and what can be done to it."""

    def __init__(self, policy: Any, sliding: float | None = None) -> None:
        self.time = Time()
        self.memory = Memory(max_entries=12, policy=policy)
        self.space = self.memory.space("ns", self.time, sliding)
        self.space.enter(["flying", "k3"])
        self.space.drop("flying", stamp(50))
        for number in range(30):
            key = f"k{number % 17}"
            self.space.hit(key)
            self.space.install(key, b"v", stamp(number), START + 10 + number * 5, START + 500)
        self.memory.run(self.memory.put("ns", [(self.held(), Entry(DELETED, stamp(60), None, b""))], None), 1)
        self.time.now = START + 120

    def held(self) -> str:
        return min(self.space.keys())

    def install(self) -> None:
        self.space.install("new", b"v", stamp(70), START + 1000, START + 1000)
        self.space.install("newer", b"v", stamp(70), START + 1000, START + 1000)

    def overwrite(self) -> None:
        self.space.install(max(self.space.keys()), b"longer", stamp(70), START + 1000, START + 1000)

    def batch(self) -> None:
        self.space.install_many([(f"b{number}", b"v", stamp(70), START + 1000, START + 1000) for number in range(9)])

    def drop(self) -> None:
        self.space.drop_many([(key, stamp(70)) for key in sorted(self.space.keys())])

    def delete(self) -> None:
        keys = [*sorted(self.space.keys())[:3], "absent"]
        run(self.memory, self.memory.put("ns", [(key, Entry(DELETED, stamp(80), None, b"")) for key in keys], None))

    def void(self) -> None:
        run(self.memory, self.memory.void("ns", [(self.held(), stamp(90)), ("absent", stamp(90))]))

    def purge(self) -> None:
        run(self.memory, self.memory.purge("ns", int(self.time.now * 1000), 0, 100, INVALID))

    def fetch(self) -> None:
        run(self.memory, self.memory.fetch("ns", [f"k{number}" for number in range(17)]))
        run(self.memory, self.memory.fetch("ns", ["k1"]))


@pytest.mark.parametrize("policy", ["adaptive", "lru"])
@pytest.mark.parametrize("action", ["install", "overwrite", "batch", "drop", "delete", "void", "purge", "fetch"])
def test_an_interrupt_at_any_line_leaves_everything_in_order(policy: str, action: str) -> None:
    for line in range(1, STEPS):
        stage = Stage(policy, 400 if line % 2 else None)
        reached = interrupted(getattr(stage, action), line, KeyboardInterrupt)
        check(stage.memory)
        assert stage.space.busy("flying")
        assert stage.space.busy("k3")
        assert not stage.space.install("flying", b"old", stamp(40), inf, inf), "what is in flight is still known (R12)"
        for number in range(40):
            stage.space.install(f"after{number}", b"v", stamp(number), START + 130 + number, START + 900)
        assert stage.space.hit("after39") == b"v"
        check(stage.memory)
        if not reached:
            assert line > 20
            return
    raise AssertionError


def test_what_an_interrupt_empties_is_counted_and_given_back(time: Time) -> None:
    memory = Memory()
    space = memory.space("ns", time)
    for number in range(100):
        space.install(f"k{number}", b"v", stamp(1), START + 100)
        space.hit(f"k{number}")
    shelf: Any = memory._shelf

    def fail(item: object) -> None:
        raise MemoryError

    shelf._policy.add, add = fail, shelf._policy.add
    with pytest.raises(MemoryError):
        space.install("k", b"v", stamp(1), inf)
    shelf._policy.add = add
    assert (memory.entries, memory.bytes, memory.hits) == (0, 0, 100)
    assert space.install("k", b"v", stamp(1), inf)
    assert space.hit("k") == b"v"
    check(memory)


# -- a mapping of the user's ---------------------------------------------------------------------------------


class Faulty(UserDict[Any, Any]):
    """Raises `error` in the methods named in `fails`, `after` having done what was asked or before."""

    def __init__(self, error: BaseException, after: bool = False) -> None:
        super().__init__()
        self.error, self.after = error, after
        self.fails: set[str] = set()

    def _may(self, name: str) -> None:
        if name in self.fails:
            raise self.error

    def __setitem__(self, key: Any, item: Any) -> None:
        if not self.after:
            self._may("set")
        super().__setitem__(key, item)
        self._may("set")

    def __getitem__(self, key: Any) -> Any:
        self._may("get")
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        self._may("get")
        return super().get(key, default)

    def pop(self, key: Any, default: Any = None) -> Any:
        self._may("pop")
        return super().pop(key, default)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("mine"), OSError("full"), KeyError("k")])
def test_what_the_users_mapping_raises_is_a_miss_and_logged(
    error: Exception, after: bool, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tiered")
    cache = Faulty(error, after)
    memory = Memory(cache=cache)
    space = memory.space("ns", time)
    assert space.install("k", b"1", stamp(1), inf)
    cache.fails = {"set"}
    assert run(memory, memory.put("ns", [("k", Entry(VALUE, stamp(2), None, b"2"))], None)) == {}
    assert "did not take" in caplog.text
    assert memory.evictions == 1
    assert run(memory, memory.fetch("ns", ["k"])) == [None]
    assert space.hit("k") is None, "what was there is older"
    cache.fails = set()
    assert space.install("k", b"3", stamp(3), inf)
    cache.fails = {"pop"}
    space.drop("k", stamp(4))
    assert "did not let go" in caplog.text
    assert space.hit("k") is None
    assert run(memory, memory.fetch("ns", ["k"])) == [None]
    cache.fails = {"get"}
    assert space.hits(["k", "j"]) == [None, None]
    assert "did not say" in caplog.text
    cache.fails = set()
    assert space.install("k", b"5", stamp(5), inf)
    assert space.hit("k") == b"5"


def test_an_interrupt_in_the_users_mapping_is_raised_and_costs_the_entry(time: Time) -> None:
    cache = Faulty(KeyboardInterrupt(), after=True)
    memory = Memory(cache=cache)
    space = memory.space("ns", time)
    space.enter(["k"])
    space.install("k", b"1", stamp(1), inf)
    cache.fails = {"set"}
    with pytest.raises(KeyboardInterrupt):
        space.install("k", b"2", stamp(2), inf)
    cache.fails = set()
    assert space.hit("k") is None
    assert not cache
    assert not space.install("k", b"1", stamp(1), inf), "what is in flight is still known (R12)"


def test_two_memories_over_one_mapping_do_not_serve_each_others_entries(time: Time) -> None:
    cache: dict[Any, Any] = {}
    one, two = (Memory(cache=cache).space("ns", time) for _ in range(2))
    one.install("k", b"1", stamp(1), inf)
    assert two.hit("k") is None
    assert one.hit("k") == b"1"


# -- forks ---------------------------------------------------------------------------------------------------

FORKS = """
import concurrent.futures.thread, logging  # their hooks would come before ours, and one is a lock
import os, threading
from tiered.backends import _shelf
from tiered.backends.memory import Memory

class Told:
    # A lock: when `first` has it `second` begins, and `first` goes on when `second` has come to a lock itself.
    def __init__(self, lock, begins):
        self.lock, self.begins = lock, begins

    def acquire(self):
        if threading.current_thread() is second:
            waiting.set()
        self.lock.acquire()
        if self.begins and threading.current_thread() is first and not waiting.is_set():
            second.start()
            waiting.wait()

    def release(self):
        self.lock.release()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *_):
        self.release()

def fork():
    child = os.fork()
    if child == 0:
        again = os.fork()
        if again == 0:
            space = Memory().space("ns", lambda: 0.0)
            os._exit(0 if space.install("k", b"v", b"s", 1.0) else 1)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(again, 0)[1]))
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

codes, waiting = [], threading.Event()
memories = [Memory() for _ in range(5)]
for memory in memories:
    memory._shelf.lock = Told(threading.Lock(), begins=True)
_shelf._forking = Told(threading.RLock(), begins=False)
first, second = (threading.Thread(target=fork) for _ in range(2))
first.start()
first.join()
second.join()
assert codes == [0, 0]
assert not any(memory._shelf.lock.lock.locked() for memory in memories)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_threads_may_fork_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], timeout=PATIENCE, check=False)
    assert done.returncode == 0
