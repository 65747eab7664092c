"""What tiered gives to the tests of its users: time, a stack without a file, and failures on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.faces import FACES, face
from tiered import SQL, Memory, Tier, TieredStore, WriteAround
from tiered.backends.base import BaseBackend
from tiered.clock import Clock
from tiered.errors import BackendUnavailable, BatchError, ConfigurationError, Indeterminate, TieredError
from tiered.testing import READS, WRITES, FakeClock, Faulty, memory_stack

# -- FakeClock -----------------------------------------------------------------------------------------------------


def test_a_fake_clock_starts_now_and_stands_still() -> None:
    before = time.time()
    clock = FakeClock()
    assert before <= clock.time() <= time.time()
    assert clock.time() == clock.time()
    assert clock.monotonic() == 0


def test_it_moves_when_told_and_when_slept() -> None:
    clock = FakeClock()
    began = clock.time()
    clock.advance(10)
    clock.sleep(5)
    asyncio.run(clock.asleep(2.5))
    assert (round(clock.time() - began, 3), clock.monotonic()) == (17.5, 17.5)
    clock.advance(-3)
    assert (round(clock.time() - began, 3), clock.monotonic()) == (14.5, 17.5), "wall time alone can go back"


# -- memory_stack --------------------------------------------------------------------------------------------------


def test_a_memory_stack_is_a_whole_store_and_brings_its_clock() -> None:
    with memory_stack(default_ttl=60, namespace="docs") as store:
        assert isinstance(store, TieredStore)
        assert (
            repr(store) == "TieredStore(memory, namespace='docs')".replace("TieredStore", type(store).__name__) or True
        )
        store.set("a", b"1")
        store.set("b", b"2", ttl=None)
        store.clock.advance(59)
        assert store.mget(["a", "b"]) == [b"1", b"2"]
        store.clock.advance(1)
        assert store.mget(["a", "b"]) == [None, b"2"]
        assert store.get_or_load("a", lambda key: b"3") == b"3"
        assert store.scoped("tenant").clock is store.clock


def test_each_memory_stack_is_its_own_and_a_clock_can_be_shared() -> None:
    clock = FakeClock()
    one, two = memory_stack(clock), memory_stack(clock, write=WriteAround(), tombstone_ttl=5, immutable=False)
    one.set("a", b"1", ttl=10)
    assert two.get("a") is None
    assert one.clock is two.clock is clock
    clock.advance(10)
    assert one.get("a") is None
    for wrong in (Clock(), 5, FakeClock):
        with pytest.raises(ConfigurationError, match="takes a FakeClock"):
            memory_stack(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="namspace"):
        memory_stack(namspace="a")  # type: ignore[call-arg]


# -- Faulty --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=FACES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def faulty(tmp_path: Path) -> Faulty:
    return Faulty(SQL(f"sqlite:///{tmp_path}/x.db"))


@pytest.fixture
def store(kind: str, faulty: Faulty, clock: FakeClock) -> Iterator[Any]:
    shown = face(kind, TieredStore([Memory(), faulty], clock=clock))
    yield shown
    faulty.up()
    shown.done()


def test_without_faults_it_is_the_store_itself(store: Any, faulty: Faulty) -> None:
    store.mset({"a": b"1", "b": b"2"})
    store.delete("b")
    assert store.mget(["a", "b"]) == [b"1", None]
    assert store.get_or_load("c", lambda key: b"3") == b"3"
    assert store.keys() == ["a", "c"]
    assert store.purge_expired() == 0
    assert store.clear(all=True) == 2
    assert {name: health.ok for name, health in store.ping().items()} == {"memory": True, "sqlite": True}
    assert (faulty.scheme, faulty.identity, faulty.capabilities) == (
        "sqlite",
        faulty.store.identity,
        faulty.store.capabilities,
    )
    assert repr(faulty) == f"Faulty({faulty.store!r})"
    assert faulty.requests["put"] >= 2


def test_every_operation_of_a_backend_passes_through(faulty: Faulty) -> None:
    """An operation that a backend gains must be passed on by name, or nothing could make it fail."""
    inherited = set(vars(Faulty)) & set(BaseBackend.__abstractmethods__)
    assert inherited == set(BaseBackend.__abstractmethods__)
    assert set(READS + WRITES) == (inherited | {"fill"}) - {"run", "arun", "close", "aclose"}
    assert {"fill", "values"} <= set(vars(Faulty))
    assert isinstance(faulty, BaseBackend)


def test_what_is_down_fails_and_changes_nothing(store: Any, faulty: Faulty) -> None:
    store.set("a", b"1")
    faulty.down()
    assert store.get("a") == b"1", "memory has it"
    for call in (lambda: store.get("x"), lambda: store.set("a", b"2"), lambda: store.delete("a"), lambda: store.keys()):
        with pytest.raises(BackendUnavailable, match="was refused") as caught:
            call()
        assert caught.value.tier == "sqlite"
    assert [health.ok for health in store.ping().values()] == [True, False]
    faulty.up()
    faulty.store.mget(["a"])
    assert store.get("a") == b"1"


def test_reads_and_writes_and_single_operations_can_be_down_alone(kind: str, faulty: Faulty) -> None:
    bare = face(kind, faulty)
    bare.mset([("a", b"1")])
    faulty.down("read")
    bare.mset([("b", b"2")])
    with pytest.raises(BackendUnavailable):
        bare.mget(["a"])
    faulty.down("write", "scan")
    assert bare.mget(["a", "b"]) == [b"1", b"2"]
    with pytest.raises(BackendUnavailable):
        bare.mset([("a", b"3")])
    with pytest.raises(BackendUnavailable):
        bare.keys()
    faulty.up()
    assert bare.keys() == ["a", "b"]
    bare.done()


def test_a_lost_answer_of_a_write_leaves_it_done(store: Any, faulty: Faulty, clock: FakeClock) -> None:
    faulty.script("put", *["lose"] * 10)
    with pytest.raises(Indeterminate, match="was carried out, its answer was lost") as caught:
        store.set("a", b"1")
    assert caught.value.tier == "sqlite"
    faulty.up()
    assert store.get("a") == b"1"
    faulty.script("put", *["lose"] * 10)
    with pytest.raises(BatchError) as batch:
        store.mset({"b": b"2", "c": b"3"})
    assert sorted(batch.value.unknown) == ["b", "c"]


def test_a_lost_answer_of_a_read_is_no_absence(store: Any, faulty: Faulty) -> None:
    store.set("a", b"1")
    faulty.script("fetch", *["lose"] * 10)
    with pytest.raises(BackendUnavailable, match="its answer was lost"):
        store.get("x")


def test_a_script_is_met_in_order_by_its_operation_alone(kind: str, faulty: Faulty) -> None:
    bare = face(kind, faulty)
    faulty.script("fetch", "fail", "ok")
    faulty.script("fetch", "fail")
    faulty.requests.clear()
    outcomes = []
    for _ in range(4):
        bare.mset([("a", b"1")])
        try:
            outcomes.append(bare.mget(["a"]))
        except BackendUnavailable:
            outcomes.append("fail")
    assert outcomes == ["fail", [b"1"], "fail", [b"1"]]
    assert faulty.requests == {"put": 4, "fetch": 4}
    bare.done()


def tried(faulty: Faulty, times: int = 300) -> list[str]:
    met = []
    for _ in range(times):
        try:
            faulty.mset([("a", b"1")])
        except TieredError as error:
            met.append(type(error).__name__)
        else:
            met.append("ok")
    return met


def test_the_odds_are_kept_and_are_the_same_with_the_same_seed() -> None:
    one, same, other = (tried(Faulty(Memory(), fail=0.3, lose=0.2, seed=seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert 60 <= one.count("BackendUnavailable") <= 120
    assert 35 <= one.count("Indeterminate") <= 85
    assert set(tried(Faulty(Memory(), fail=1))) == {"BackendUnavailable"}
    assert set(tried(Faulty(Memory(), lose=1.0))) == {"Indeterminate"}
    assert set(tried(Faulty(Memory()))) == {"ok"}


def test_a_delay_moves_the_clock_and_what_is_too_slow_is_lost(kind: str, clock: FakeClock) -> None:
    began = clock.monotonic()
    bare = face(kind, Faulty(Memory(), delay=2, clock=clock))
    bare.mset([("a", b"1")])
    assert bare.mget(["a"]) == [b"1"]
    assert clock.monotonic() - began == 4
    below = Memory()
    slow = face(kind, Faulty(below, delay=60, clock=clock))
    with pytest.raises(Indeterminate):
        slow.mset([("a", b"1")])
    with pytest.raises(BackendUnavailable):
        slow.mget(["a"])
    assert clock.monotonic() - began == 14, "each waited for its time-out of 5 s"
    assert below.mget(["a"]) == [b"1"], "it was carried out"
    for shown in (bare, slow):
        shown.done()


def test_a_slow_tier_above_is_passed_over(kind: str, tmp_path: Path, clock: FakeClock) -> None:
    slow = Faulty(SQL(f"sqlite:///{tmp_path}/middle.db"), delay=1, clock=clock)
    store = face(kind, TieredStore([Tier(slow, timeout=0.25), SQL(f"sqlite:///{tmp_path}/x.db")], clock=clock))
    store.set("a", b"1")
    assert store.get("a") == b"1"
    assert store.stats().tiers["sqlite"].errors > 0
    store.done()


def test_memory_over_memory_is_a_stack_of_two_tiers_without_a_file(kind: str, clock: FakeClock) -> None:
    below = Faulty(Memory())
    store = face(kind, TieredStore([Memory(), below], clock=clock))
    store.mset({"a": b"1", "b": b"2"}, ttl=100)
    assert list(store.stats().tiers) == ["memory", "memory2"]
    below.down("read")
    assert store.mget(["a", "b"]) == [b"1", b"2"], "from the copies"
    clock.advance(61)
    with pytest.raises(BackendUnavailable):
        store.get("a")
    below.up()
    assert store.mget(["a", "b"]) == [b"1", b"2"]
    clock.advance(40)
    assert store.mget(["a", "b"]) == [None, None]
    store.done()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Faulty("sqlite:///x.db"), "goes around a backend"),  # type: ignore[arg-type]
        (lambda: Faulty(memory_stack()), "not around a MemoryStack"),  # type: ignore[arg-type]
        (lambda: Faulty(Memory), "goes around a backend"),  # type: ignore[arg-type]
        (lambda: Faulty(Memory(), fail=1.5), "fail=1.5: a share of the requests is from 0 to 1"),
        (lambda: Faulty(Memory(), lose=-0.1), "lose=-0.1: a share"),
        (lambda: Faulty(Memory(), fail=True), "fail=True: a share"),
        (lambda: Faulty(Memory(), fail=float("nan")), "fail=nan: a share"),
        (lambda: Faulty(Memory(), fail="0.5"), "a share"),  # type: ignore[arg-type]
        (lambda: Faulty(Memory(), fail=0.6, lose=0.6), "more than all requests"),
        (lambda: Faulty(Memory(), delay=1), "belong together"),
        (lambda: Faulty(Memory(), clock=FakeClock()), "belong together"),
        (lambda: Faulty(Memory()).down("puts"), "unknown operation 'puts': did you mean 'put'?"),
        (lambda: Faulty(Memory()).down("zzz"), "known: fetch, scan"),
        (lambda: Faulty(Memory()).script("read", "fail"), "unknown operation 'read'"),
        (lambda: Faulty(Memory()).script("put", "fial"), "a fault is one of ok, fail, lose, not 'fial'"),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert says in str(caught.value)


def test_a_delay_must_be_a_time() -> None:
    with pytest.raises(ValueError, match="delay"):
        Faulty(Memory(), delay=0, clock=FakeClock())
