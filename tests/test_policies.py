"""Policies are frozen values with pure functions."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiered import TTL, Memory, Tier, WriteThrough, Zstd
from tiered.errors import ConfigurationError
from tiered.policies import Retry
from tiered.policies.ttl import LONGEST, seconds

POLICIES: list[Any] = [TTL(60), TTL(60, sliding=True, cap=3_600), Zstd(), Zstd(level=9), Retry(), WriteThrough()]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_policies_are_frozen_equal_by_value_and_show_themselves(policy: Any) -> None:
    same = dataclasses.replace(policy)
    assert same is not policy
    assert same == policy
    assert hash(same) == hash(policy)
    assert eval(repr(policy)) == policy
    for field in dataclasses.fields(policy):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(policy, field.name, None)
    with pytest.raises((AttributeError, TypeError)):
        policy.something = 1


# -- TTL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [(1, 1.0), (0.25, 0.25), (1e-9, 1e-9), (timedelta(minutes=2), 120.0), (LONGEST, LONGEST), (10**9, 1e9)],
)
def test_seconds_are_numbers_or_timedeltas(given: Any, expected: float) -> None:
    assert seconds(given) == expected
    assert type(seconds(given)) is float
    assert TTL(given).length(0) == expected


@pytest.mark.parametrize("bad", [True, False, "60", b"60", None, [60], 60j, object()], ids=repr)
def test_a_ttl_of_the_wrong_type_is_a_type_error(bad: Any) -> None:
    with pytest.raises(TypeError, match="give seconds or a timedelta"):
        seconds(bad)
    with pytest.raises(TypeError):
        TTL(bad)
    with pytest.raises(TypeError, match="share from 0 to 1"):
        TTL(60, jitter=bad)


@pytest.mark.parametrize(
    "bad",
    [
        0,
        0.0,
        -1,
        -0.5,
        float("nan"),
        float("inf"),
        float("-inf"),
        1e300,
        10**30,
        timedelta(0),
        timedelta(-1),
        timedelta.max,
    ],
    ids=repr,
)
def test_a_ttl_out_of_range_is_a_value_error(bad: Any) -> None:
    with pytest.raises(ValueError, match="more than 0 seconds"):
        seconds(bad)
    with pytest.raises(ValueError, match="more than 0 seconds"):
        TTL(bad)
    with pytest.raises(ValueError, match="cap"):
        TTL(1, sliding=True, cap=bad)


@pytest.mark.parametrize("bad", [-0.1, 1, 1.5, float("nan"), float("inf")])
def test_jitter_is_a_share_below_one(bad: float) -> None:
    with pytest.raises(ValueError, match="share"):
        TTL(60, jitter=bad)


def test_sliding_needs_a_cap_no_shorter_and_only_sliding_takes_one() -> None:
    with pytest.raises(ValueError, match=r"needs a cap: TTL\(60, sliding=True, cap=3600\)"):
        TTL(60, sliding=True)
    with pytest.raises(ValueError, match="belongs to a sliding"):
        TTL(60, cap=3_600)
    with pytest.raises(ValueError, match="below the TTL"):
        TTL(60, sliding=True, cap=59)
    assert TTL(60, sliding=True, cap=60).limit() == 60


@given(
    st.floats(1e-3, 1e9),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
)
def test_jitter_only_shortens_by_up_to_its_share(ttl: float, jitter: float, chance: float) -> None:
    policy = TTL(ttl, jitter=jitter)
    assert ttl * (1 - jitter) <= policy.length(chance) * (1 + 1e-12)
    assert policy.length(chance) <= ttl == policy.length(0) == policy.limit()
    assert policy.length(chance) == policy.length(chance)


def test_the_limit_is_the_cap_of_a_sliding_ttl() -> None:
    assert TTL(timedelta(minutes=1), sliding=True, cap=timedelta(hours=1)).limit() == 3_600


# -- Zstd ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 23, -1, 3.0, "3", True, None], ids=repr)
def test_a_level_is_an_int_from_1_to_22(level: Any) -> None:
    with pytest.raises(ConfigurationError, match="from 1 to 22"):
        Zstd(level=level)


@pytest.mark.parametrize("size", [-1, 2.5, "256", None, True], ids=repr)
def test_a_minimum_size_is_a_number_of_bytes(size: Any) -> None:
    with pytest.raises(ConfigurationError, match="number of bytes"):
        Zstd(min_size=size)


def test_packing_gives_the_same_for_the_same() -> None:
    payload = b"compress me " * 100
    assert Zstd().pack(payload) == Zstd().pack(payload)
    assert len(Zstd(level=19).pack(payload)[1]) <= len(Zstd(level=1).pack(payload)[1]) < len(payload)


# -- Retry, WriteThrough, Tier -------------------------------------------------------------------------------------


def test_retries_are_bounded_and_pauses_grow_up_to_the_most() -> None:
    retry = Retry(attempts=6, first=0.1, most=0.3)
    for failures, most in ((1, 0.1), (2, 0.2), (3, 0.3), (4, 0.3), (5, 0.3)):
        pauses = [retry.pause(failures) for _ in range(200)]
        assert all(pause is not None and 0 <= pause <= most + 1e-9 for pause in pauses)
        assert len(set(pauses)) > 1  # jittered: many that failed together must not come back together
    assert retry.pause(6) is None
    assert retry.pause(7) is None
    assert Retry(attempts=1).pause(1) is None


def test_a_tier_is_a_frozen_value_with_its_ttl_as_a_policy() -> None:
    memory = Memory()
    tier = Tier(memory, ttl=30, timeout=timedelta(seconds=2))
    assert tier.ttl == TTL(30)
    assert tier.timeout == 2.0
    assert Tier(memory, ttl=None).ttl is None
    assert Tier(memory, ttl=TTL(5)) == Tier(memory, ttl=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        tier.ttl = None
    assert WriteThrough() == WriteThrough()
