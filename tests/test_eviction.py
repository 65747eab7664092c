"""The eviction policies by themselves, driven as the memory tier drives them."""

from __future__ import annotations

import itertools
import math
import random
from collections import OrderedDict
from sys import getsizeof
from typing import Any

import pytest

from tiered.policies.eviction import MAIN, Adaptive, Item, Lru

from .stepper import _queued


class Cache:
    """Counts hits of a stream through a policy, `size` in entries or in cost."""

    def __init__(self, policy: Any, size: float, by_cost: bool = False) -> None:
        self.policy, self.size, self.by_cost = policy, size, by_cost
        self.held: dict[int, Item] = {}
        self.cost = self.hits = 0

    def full(self, cost: int) -> bool:
        return self.cost + cost > self.size if self.by_cost else len(self.held) >= self.size

    def get(self, key: int, cost: int = 1) -> bool:
        item = self.held.get(key)
        if item is not None:
            item.freq += 1
            self.hits += 1
            if self.policy.on_read is not None:
                self.policy.on_read(item)
            return True
        while self.held and self.full(cost):
            for victim in self.policy.evict(1):
                self.cost -= victim.cost
                self.policy.retired += victim.freq
                del self.held[int(victim.key)]
        item = self.held[key] = Item()
        item.key, item.cost, item.freq, item.modulus = str(key), cost, 0, (1 << 30) - 35
        self.cost += cost
        self.policy.add(item)
        return False

    def forget(self, key: int) -> None:
        item = self.held.pop(key)
        self.policy.forget(item)
        self.policy.retired += item.freq
        self.cost -= item.cost

    def check(self) -> None:
        assert set(map(id, _queued(self.policy))) == set(map(id, self.held.values()))
        assert self.policy.retired + sum(item.freq for item in self.held.values()) == self.hits


def entries(size: int) -> Cache:
    return Cache(Adaptive(size, math.inf), size)


def zipf(count: int, keys: int, seed: int) -> list[int]:
    weights = list(itertools.accumulate(1 / rank for rank in range(1, keys + 1)))
    return random.Random(seed).choices(range(keys), cum_weights=weights, k=count)


@pytest.mark.parametrize("by_cost", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 100])
def test_queues_and_counts_hold_under_random_work(size: int, by_cost: bool) -> None:
    rng = random.Random(size)
    bound = size * 4 if by_cost else size
    for policy in (Adaptive(math.inf if by_cost else size, bound if by_cost else math.inf), Lru()):
        cache = Cache(policy, bound, by_cost)
        for number in range(3_000):
            act = rng.random()
            if act < 0.85 or not cache.held:
                cache.get(int(rng.expovariate(1 / (2 * size))), rng.randint(1, 4))
            elif act < 0.95:
                cache.forget(rng.choice(list(cache.held)))
            else:
                item = rng.choice(list(cache.held.values()))
                cost = rng.randint(1, item.cost)
                cache.cost += cost - item.cost
                policy.resize(item, cost)
            if number % 20 == 0:
                cache.check()
        cache.check()


def test_lru_is_exact() -> None:
    cache, model, hits = Cache(Lru(), 50), OrderedDict[int, None](), 0
    for key in zipf(20_000, 400, 1):
        if key in model:
            model.move_to_end(key)
            hits += 1
        else:
            if len(model) >= 50:
                model.popitem(last=False)
            model[key] = None
        cache.get(key)
        assert cache.hits == hits
    assert [int(item.key) for item in cache.policy._order] == list(model)


@pytest.mark.parametrize("policy", [Adaptive(100, math.inf), Lru()])
def test_evicting_more_than_there_are(policy: Any) -> None:
    assert policy.evict(5) == []
    cache = Cache(policy, 100)
    for key in range(3):
        cache.get(key)
    assert len(policy.evict(5)) == 3
    assert policy.evict(1) == []


@pytest.mark.parametrize("policy", [Adaptive(100, math.inf), Lru()])
def test_clearing_needs_no_order(policy: Any) -> None:
    cache = Cache(policy, 100)
    for key in zipf(3_000, 400, 1):
        cache.get(key)
    if isinstance(policy, Adaptive):
        policy._main.next.next = policy._small.next  # as an interrupt may leave it
        policy._main_count += 1
    policy.clear()
    assert policy.evict(5) == []
    cache.held.clear()
    policy.retired = cache.hits = cache.cost = 0
    for key in zipf(3_000, 400, 2):
        cache.get(key)
    cache.check()


def test_a_loop_does_not_collapse() -> None:
    cache = entries(500)
    for number in range(30_000):
        cache.get(number % 550)
    assert cache.hits / 30_000 > 0.6, "LRU gets none"


def test_a_scan_leaves_hot_keys() -> None:
    cache = entries(500)
    for key in zipf(20_000, 300, 2):
        cache.get(key)
    hot = [key for key in range(100) if key in cache.held]
    for key in range(10**6, 10**6 + 5_000):
        cache.get(key)
    assert sum(key in cache.held for key in hot) >= 0.9 * len(hot)


def test_a_burst_does_not_promote() -> None:
    """Keys read several times at once and never again do not reach the main queue; keys read later do."""
    cache = entries(500)
    for key in zipf(20_000, 2_000, 3):
        cache.get(key)
    for key in range(10**6, 10**6 + 600):
        for _ in range(5):
            cache.get(key)
    assert not any(item.queue == MAIN for key, item in cache.held.items() if key >= 10**6)


def test_recency_grows_the_share() -> None:
    cache = entries(500)
    rng, stack, fresh = random.Random(4), list(range(2_000)), itertools.count(10**6)
    for _ in range(30_000):
        distance = int(rng.expovariate(1 / 250))
        key = stack.pop(-1 - distance) if distance < len(stack) else next(fresh)
        stack.append(key)
        cache.get(key)
    assert cache.policy._share > 0.2


def test_a_ghost_of_the_main_queue_steers_but_does_not_promote() -> None:
    policy = Adaptive(100, math.inf)
    policy._capacity = 100
    policy._steer(0.5)
    policy._young[7] = -1
    assert policy._returns(7, -1) is False
    assert policy._share < 0.5
    assert 7 not in policy._young, "a ghost speaks once"


def test_a_ghost_of_the_small_queue_promotes_within_its_window_only() -> None:
    policy = Adaptive(100, math.inf)
    policy._capacity, policy._from_small = 100, 1_000
    share = policy._share
    assert policy._returns(7, 1_000 - 50) is True
    assert policy._share == share, "not soon enough to steer"
    assert policy._returns(7, 1_000 - 2) is True
    assert policy._share > share
    assert policy._returns(7, 1_000 - 95) is False


def test_ghosts_are_bounded_and_shrink_with_the_capacity() -> None:
    cache = Cache(Adaptive(math.inf, 10_000), 10_000, by_cost=True)
    for key in range(100_000):
        cache.get(key, 2)
    policy = cache.policy
    assert len(policy._young) + len(policy._old) <= 1.3 * 5_000
    for key in list(cache.held):
        cache.forget(key)
    for key in range(10**6, 10**6 + 500):  # ten fit
        cache.get(key, 1_000)
    assert len(policy._young) + len(policy._old) <= 100
    assert policy.nbytes < 20_000


def test_shares_are_of_whichever_bound_is_met_first() -> None:
    for policy, cost in ((Adaptive(200, math.inf), 1), (Adaptive(math.inf, 2_000), 10), (Adaptive(200, 2_000), 10)):
        cache = Cache(policy, 200)
        for key in zipf(20_000, 3_000, 6):
            cache.get(key, cost)
        assert len(cache.held) == 200
        assert 0.05 * 200 <= policy._small_count <= 0.85 * 200


def test_lru_gives_memory_back() -> None:
    cache = Cache(Lru(), 20_000)
    for key in range(20_000):
        cache.get(key)
    for key in range(19_900):
        cache.forget(key)
    assert getsizeof(cache.policy._order) < 300 * 256 + 5_000
    assert [int(item.key) for item in cache.policy._order] == list(range(19_900, 20_000))
