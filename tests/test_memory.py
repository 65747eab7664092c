"""The memory tier against a model, and what it promises to those who read and write it."""

from __future__ import annotations

import copy
import gc
import pickle
import random
from math import inf
from typing import Any

import cachetools
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tiered.backends.memory import Memory
from tiered.entry import DELETED, VALUE, Entry
from tiered.errors import ConfigurationError

from .memory_kit import START, Time, run, stamp
from .stepper import check

# -- a model -------------------------------------------------------------------------------------------------

KEYS = st.sampled_from([f"k{number}" for number in range(12)] + ["ключ", "🔑"])
TTLS = st.sampled_from([0.5, 1, 3, 63, 64, 65, 100, 5000, 300_000, inf])


class AgainstAModel(RuleBasedStateMachine):
    """A memory that never has to evict agrees with a dict of (value, stamp, deadline)."""

    policy = "adaptive"

    def __init__(self) -> None:
        super().__init__()
        self.time = Time()
        self.memory = Memory(max_entries=100, policy=self.policy)  # type: ignore[arg-type]
        self.space = self.memory.space("ns", self.time)
        self.other = self.memory.space("other", self.time)
        self.model: dict[str, tuple[bytes, int, float]] = {}
        self.high: dict[str, int] = {}
        self.flying: list[str] = []
        self.stamps = 0
        self.latest = START

    def _guarded(self, key: str, number: int) -> bool:
        if key in self.model and self.model[key][1] > number:
            return False
        if key in self.high:
            if number < self.high[key]:
                return False
            self.high[key] = number
        return True

    @rule(key=KEYS, value=st.binary(max_size=40), ttl=TTLS, late=st.integers(0, 3))
    def install(self, key: str, value: bytes, ttl: float, late: int) -> None:
        self.stamps += 1
        number = max(1, self.stamps - late)
        over = key in self.model and self.model[key][2] <= self.latest  # it may have been removed just now
        done = self.space.install(key, value, stamp(number), self.time.now + ttl)
        if over and done:
            del self.model[key]
        assert self._guarded(key, number) is done
        if done:
            self.model[key] = (value, number, self.time.now + ttl)

    @rule(key=KEYS, late=st.integers(0, 3))
    def drop(self, key: str, late: int) -> None:
        self.stamps += 1
        number = max(1, self.stamps - late)
        self.space.drop(key, stamp(number))
        if key in self.high:
            self.high[key] = max(self.high[key], number)
        if key in self.model and self.model[key][1] <= number:
            del self.model[key]

    @rule(seconds=st.sampled_from([0.25, 1, 2, 60, 64, 4096, 400_000, -30]))
    def pass_time(self, seconds: float) -> None:
        self.time.now += seconds
        self.latest = max(self.latest, self.time.now)

    @rule(key=KEYS)
    def enter(self, key: str) -> None:
        self.space.enter([key])
        self.flying.append(key)
        self.high.setdefault(key, 0)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def leave(self, data: Any) -> None:
        key = data.draw(st.sampled_from(self.flying))
        self.flying.remove(key)
        self.space.leave([key])
        if key not in self.flying:
            del self.high[key]

    @rule()
    def purge(self) -> None:
        run(self.memory, self.memory.purge("ns", int(self.time.now * 1000), 0, 1000, DELETED))

    @invariant()
    def agrees(self) -> None:
        now = self.time.now
        gone = {key for key in self.model if self.space.peek(key) is None}
        for key in gone:  # only because its time was over at some time
            assert self.model.pop(key)[2] <= self.latest
        live = {key: value for key, (value, _, deadline) in self.model.items() if deadline > now}
        keys = [*self.model, "absent"]
        assert {key: self.space.hit(key) for key in keys if self.space.hit(key) is not None} == live
        assert self.space.hits(keys) == [live.get(key) for key in keys]
        found = run(self.memory, self.memory.scan("ns", "k", None, 5, int(now * 1000)))
        assert found == sorted(key for key in live if key.startswith("k"))[:5]
        assert self.other.keys() == []
        assert {key: self.space.busy(key) for key in self.high} == dict.fromkeys(self.high, True)
        check(self.memory)


class AgainstAModelLru(AgainstAModel):
    policy = "lru"


for machine in (AgainstAModel, AgainstAModelLru):
    machine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestModel = AgainstAModel.TestCase
TestModelLru = AgainstAModelLru.TestCase


# -- R12 -----------------------------------------------------------------------------------------------------


def test_r12_nothing_older_gets_in_while_a_key_is_in_flight(time: Time) -> None:
    memory = Memory(max_entries=2)
    space, again = memory.space("ns", time), memory.space("ns", time)
    space.enter(["k", "j"])
    again.enter(["k"])
    assert space.install("k", b"5", stamp(5), inf)
    for number in range(10):
        space.install(f"x{number}", b"x", stamp(1), inf)
    for number in range(10):
        space.hit(f"x{9 - number % 2}")
    assert space.peek("k") is None, "evicted"
    assert not again.install("k", b"4", stamp(4), inf)
    space.leave(["k"])
    assert not again.install("k", b"4", stamp(4), inf), "the other operation still holds the record"
    assert run(memory, memory.put("ns", [("k", Entry(VALUE, stamp(4), None, b"4"))], None)) == {"k": stamp(5)}
    assert run(memory, memory.swap("ns", [("k", Entry(VALUE, stamp(4), None, b"4"), None)], None)) == {"k"}
    again.leave(["k"])
    assert not space.busy("k")
    assert space.busy("j")
    assert again.install("k", b"4", stamp(4), inf), "no record: nothing is in flight any more"
    space.leave(["j"])


def test_r12_a_drop_counts_though_nothing_is_there(time: Time) -> None:
    space = Memory().space("ns", time)
    space.enter(["k"])
    space.drop_many([("k", stamp(5))])
    space.install_many([("k", b"4", stamp(4), inf, inf)])
    assert space.hit("k") is None
    space.install_many([("k", b"5", stamp(5), inf, inf)])
    assert space.hit("k") == b"5"
    space.drop("k", stamp(4))
    assert space.hit("k") == b"5", "a drop takes nothing newer with it"


def test_a_key_entered_twice_by_one_operation_is_left_twice(time: Time) -> None:
    space = Memory().space("ns", time)
    space.enter(["k", "k"])
    space.leave(["k"])
    assert space.busy("k")
    space.leave(["k"])
    assert not space.busy("k")


def test_batches_let_others_in(time: Time) -> None:
    memory = Memory()
    space = memory.space("ns", time)
    shelf, holds = memory._shelf, []

    class Counting:
        def __enter__(self) -> None:
            holds.append(0)

        def __exit__(self, *_: object) -> None: ...

    shelf.lock = Counting()  # type: ignore[assignment]
    space.install_many((f"k{number}", b"v", stamp(1), inf, inf) for number in range(1_000))
    assert len(holds) > 10
    space.drop_many([(f"k{number}", stamp(1)) for number in range(1_000)])
    assert len(holds) > 20
    assert space.keys() == []


# -- namespaces ----------------------------------------------------------------------------------------------


def test_namespaces_share_bounds_but_no_keys(time: Time) -> None:
    memory = Memory(max_entries=10, policy="lru")
    one, two = memory.space("a", time), memory.space("a\x1fb", time)
    one.install("k", b"1", stamp(1), inf)
    two.install("k", b"2", stamp(1), inf)
    assert (one.hit("k"), two.hit("k")) == (b"1", b"2")
    one.drop("k", stamp(9))
    assert (one.hit("k"), two.hit("k")) == (None, b"2")
    for number in range(100):
        one.install(f"k{number}", b"v", stamp(1), inf)
    assert memory.entries == 10
    assert two.hit("k") is None, "one bound for all"


def test_handles_of_a_namespace_share_and_unused_ones_vanish(time: Time) -> None:
    memory = Memory()
    for number in range(100):
        memory.space(f"tenant{number}", time)
    space = memory.space("used", time)
    space.install("k", b"v", stamp(1), inf)
    kept = memory.space("kept", time)
    gc.collect()
    assert sorted(memory._shelf.homes) == [("kept", None), ("used", None)]
    assert memory.space("used", time).hit("k") == b"v"
    del space
    gc.collect()
    assert memory.space("used", time).hit("k") == b"v", "entries keep their namespace"
    memory.space("used", time).drop("k", stamp(1))
    gc.collect()
    assert sorted(memory._shelf.homes) == [("kept", None)]
    del kept


@pytest.mark.parametrize("options", [{}, {"policy": "lru"}, {"cache": {}}])
def test_entries_are_shared_by_handles_of_one_owner_only(options: Any, time: Time) -> None:
    memory = Memory(**options)
    mine, again = memory.space("ns", time, owner=("a", 60)), memory.space("ns", time, owner=("a", 60))
    other, bare = memory.space("ns", time, 30, owner=("b", 60)), memory.space("ns", time)
    mine.install("k", b"a", stamp(1), inf)
    other.enter(["k"])
    assert [space.hit("k") for space in (mine, again, other, bare)] == [b"a", b"a", None, None]
    assert run(memory, memory.fetch("ns", ["k"])) == [None]
    assert run(memory, memory.put("ns", [("k", Entry(VALUE, stamp(2), None, b"c"))], None)) == {}
    assert [space.hit("k") for space in (mine, again, other, bare)] == [b"a", b"a", None, b"c"]
    assert not mine.busy("k")
    other.drop("k", stamp(9))
    bare.drop("k", stamp(9))
    assert mine.hit("k") == b"a"


# -- reading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"policy": "lru"}, {"cache": {}}])
@pytest.mark.parametrize("sliding", [None, 60.0])
def test_odd_keys_are_misses(options: Any, sliding: float | None, time: Time) -> None:
    space = Memory(**options).space("ns", time, sliding)
    space.install("1", b"", stamp(1), START + 60, START + 60)
    odd: list[Any] = [1, None, True, b"1", ["1"], {}, 1.0, ("ns", "1"), "2", ""]
    assert [space.hit(key) for key in odd] == [None] * len(odd)
    assert space.hits([*odd, "1"]) == [None] * len(odd) + [b""]
    assert space.hits([]) == []


def test_hits_are_counted_once_each_whatever_happens_to_the_entries(time: Time) -> None:
    every: list[Any] = [{"max_entries": 50}, {"max_entries": 50, "policy": "lru"}, {"cache": cachetools.LRUCache(50)}]
    for options in every:
        memory = Memory(**options)
        space = memory.space("ns", time)
        rng, hits = random.Random(3), 0
        for number in range(5_000):
            key = f"k{int(rng.expovariate(1 / 40))}"
            if space.hit(key) is not None:
                hits += 1
            else:
                space.install(key, b"v", stamp(number), time.now + rng.random() * 40)
            hits += sum(value is not None for value in space.hits([key, "k1", "absent"][: number % 3]))
            time.now += 0.05
        assert memory.hits == hits
        assert memory.expired > 0
        assert memory.evictions > 0
        time.now = START


def test_peek_shows_and_does_not_count(time: Time) -> None:
    memory = Memory()
    space = memory.space("ns", time)
    space.install("k", b"v", stamp(1), START + 1.5)
    assert space.peek("k") == Entry(VALUE, stamp(1), int((START + 1.5) * 1000), b"v")
    assert space.peek("absent") is None
    space.install("for ever", b"v", stamp(1), inf)
    assert space.peek("for ever") == Entry(VALUE, stamp(1), None, b"v")
    assert memory.hits == 0


# -- the object ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "adaptiv"}, "adaptive"),
        ({"policy": "LRU"}, "lru"),
        ({"policy": "zzz"}, "'zzz': it is one of adaptive, lru$"),
        ({"policy": "LRU "}, "'LRU ': .* one of adaptive, lru$"),
        ({"policy": None}, "policy"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": -5}, "max_bytes"),
        ({"max_bytes": True}, "max_bytes"),
        ({"max_bytes": 1e9}, "max_bytes"),
        ({"max_bytes": "64"}, "max_bytes"),
        ({"max_entries": 0}, "max_entries"),
        ({"max_entries": 1.5}, "max_entries"),
        ({"max_entries": False}, "max_entries"),
        ({"cache": [1]}, "mapping"),
        ({"cache": 5}, "mapping"),
        ({"cache": {}, "max_entries": 5}, "decides alone"),
        ({"cache": {}, "max_bytes": 2**20}, "decides alone"),
        ({"cache": {}, "policy": "lru"}, "decides alone"),
    ],
)
def test_what_makes_no_sense_is_refused(options: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Memory(**options)


def test_the_object_is_a_handle(time: Time) -> None:
    memory = Memory(max_bytes=10_000, max_entries=7, policy="lru")
    memory.space("secret", time).install("key", b"value", stamp(1), inf)
    assert bool(memory)
    assert bool(Memory())
    assert copy.copy(memory) is memory
    assert copy.deepcopy(memory) is memory
    with pytest.raises(TypeError, match="other process"):
        pickle.dumps(memory)
    assert repr(memory) == "Memory(max_bytes=10000, max_entries=7, policy='lru')"
    assert memory.scheme == "memory"
    assert not memory.capabilities.shared
    assert memory.capabilities.forgets
    assert memory.capabilities.max_value <= 10_000
