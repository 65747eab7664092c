"""Past its TTL an old value is served while one caller has it loaded again; in the last part of its TTL already."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tiered import SQL, Memory, TieredStore
from tiered.effects import Spawn
from tiered.engine import aio, background, sync
from tiered.entry import DELETED, VALUE
from tiered.errors import BackendUnavailable, StoreClosed
from tiered.flight import LOADING
from tiered.policies.stale import Staleness, staleness
from tiered.testing import FakeClock

from .load_kit import DEADLINE, Loads, auntil, join, loop_in_a_thread, nothing_left, settled, submit, until, waiting
from .simulation.hand import Hand, loading
from .simulation.stand import Stand, remembered

Ask = Callable[..., Any]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "LOOK", 0.005)
    monkeypatch.setattr(aio, "LOOK", 0.005)


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    """get_or_load by one face, on a loop that goes on running; "k" for 10 s, and 20 s stale, unless told otherwise."""
    if request.param == "sync":
        yield lambda store, loads, key="k", **terms: store.get_or_load(
            key, loads.sync, **({"ttl": 10, "stale": 20} | terms)
        )
        return
    with loop_in_a_thread() as loop:
        yield lambda store, loads, key="k", **terms: submit(
            loop, store.aget_or_load(key, loads.aio, **({"ttl": 10, "stale": 20} | terms))
        ).result(DEADLINE)


def ready(value: bytes = b"new", error: BaseException | None = None) -> Loads:
    loads = Loads(value, error)
    loads.release.set()
    return loads


STACKS: dict[str, Callable[[Path], list[Any]]] = {
    "memory": lambda path: [Memory()],
    "cache=": lambda path: [Memory(cache={})],
    "sqlite": lambda path: [SQL(f"sqlite:///{path}/x.db")],
    "memory > sqlite": lambda path: [Memory(), SQL(f"sqlite:///{path}/x.db")],
    "memory > sqlite > sqlite": lambda path: [Memory(), SQL(f"sqlite:///{path}/y.db"), SQL(f"sqlite:///{path}/x.db")],
}


@pytest.mark.parametrize("stack", STACKS)
def test_the_old_value_is_served_at_once_and_replaced_behind_the_callers(
    stack: str, ask: Ask, tmp_path: Path, clock: FakeClock
) -> None:
    with TieredStore(STACKS[stack](tmp_path), namespace="", clock=clock) as store:
        assert ask(store, ready(b"old")) == b"old"
        clock.advance(9.9)
        assert ask(store, ready(b"too early")) == b"old"
        clock.advance(0.1)
        loads = Loads(b"new")
        assert [ask(store, loads) for _ in range(3)] == [b"old"] * 3, "though the loader has not returned"
        assert store.get("k") == store.mget(["k"])[0] == b"old"
        assert loads.began.wait(DEADLINE)
        loads.release.set()
        until(lambda: settled(store))
        assert loads.count == 1
        assert ask(store, ready(b"not needed")) == store.get("k") == b"new"
        clock.advance(10)
        assert store.get("k") == b"new", "to plain reads it is as good as ever"
        clock.advance(20)
        assert store.get("k") is None
        assert ask(store, ready(b"loaded")) == b"loaded"


def test_the_expiry_is_ttl_and_stale_and_the_soft_expiry_travels_in_the_record(ask: Ask) -> None:
    stand = Stand()
    ask(stand.store, ready())
    now = int(stand.clock.time() * 1000)
    for tier in (stand.bottom, stand.upper):
        entry = tier.rows["", "k"]
        assert (entry.kind, entry.expires, entry.soft) == (VALUE, now + 30_000, now + 10_000)
    other, clock = stand.other()
    clock.advance(10)
    late = ready(b"theirs")
    assert ask(other, late) == b"new"
    until(lambda: settled(other))
    assert late.count == 1, "another process sees that it is stale"


def test_a_get_or_load_without_stale_refreshes_too(ask: Ask) -> None:
    """What is stale was decided when it was stored."""
    stand = Stand()
    ask(stand.store, ready(b"old"))
    stand.clock.advance(10)
    assert ask(stand.store, ready(b"new"), stale=None) == b"old"
    until(lambda: settled(stand.store))
    entry = stand.bottom.rows["", "k"]
    assert (entry.value, entry.soft, entry.expires) == (b"new", None, int((stand.clock.time() + 10) * 1000))


def test_past_the_last_expiry_callers_wait_for_the_refresh_that_is_under_way(ask: Ask) -> None:
    stand = Stand()
    ask(stand.store, ready(b"old"))
    stand.clock.advance(10)
    loads = Loads(b"new")
    assert ask(stand.store, loads) == b"old"
    assert loads.began.wait(DEADLINE)
    stand.clock.advance(20)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(ask(stand.store, ready(b"a second load"))))
    thread.start()
    until(lambda: waiting(stand.store) == 1)
    loads.release.set()
    thread.join(DEADLINE)
    assert found == [b"new"]
    until(lambda: settled(stand.store))
    nothing_left(stand.store)


def test_while_a_refresh_is_under_way_no_tier_is_read(ask: Ask) -> None:
    stand = Stand()
    ask(stand.store, ready(b"old"))
    stand.clock.advance(10)
    loads = Loads()
    assert ask(stand.store, loads) == b"old"
    assert loads.began.wait(DEADLINE)
    stand.upper.log.clear()
    assert ask(stand.store, loads) == b"old"
    assert stand.upper.log == []
    loads.release.set()
    until(lambda: settled(stand.store))
    assert remembered(stand.store, "k") == b"loaded"


@pytest.mark.parametrize("memory", [True, False])
def test_E1_what_a_refresh_has_meanwhile_is_as_old_as_a_copy_in_memory_may_be(memory: bool, ask: Ask) -> None:
    """Another process writes while the loader is at work."""
    stand = Stand(memory=memory)
    ask(stand.store, ready(b"old"), stale=900)
    stand.clock.advance(10)
    loads = Loads()
    assert ask(stand.store, loads, stale=900) == b"old"
    assert loads.began.wait(DEADLINE)
    stand.seed("k", b"theirs", stand.upper, stand.bottom)
    stand.clock.advance(59.9)
    assert ask(stand.store, loads, stale=900) == (b"old" if memory else b"theirs")
    stand.clock.advance(0.1)
    assert ask(stand.store, loads, stale=900) == b"theirs"
    loads.release.set()
    until(lambda: settled(stand.store))
    assert ask(stand.store, ready(b"no"), stale=900) == b"theirs"
    assert loads.count == 1


def test_while_a_refresh_is_under_way_and_the_tiers_are_away(ask: Ask) -> None:
    stand = Stand(uppers=(), memory=False)
    ask(stand.store, ready(b"old"))
    stand.clock.advance(10)
    loads = Loads(b"new")
    assert ask(stand.store, loads) == b"old"
    assert loads.began.wait(DEADLINE)
    stand.bottom.fail("fetch")
    with pytest.raises(BackendUnavailable):
        ask(stand.store, loads)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(ask(stand.store, loads, on_cache_error="load")))
    thread.start()
    until(lambda: waiting(stand.store) == 1)
    loads.release.set()
    thread.join(DEADLINE)
    assert (found, loads.count) == ([b"new"], 1), "it waited for the refresh"


# -- refresh_ahead ---------------------------------------------------------------------------------------------------


def test_refresh_ahead_loads_in_the_last_part_of_the_ttl(ask: Ask) -> None:
    stand = Stand()
    ask(stand.store, ready(b"old"), stale=None, refresh_ahead=0.25)
    entry = stand.bottom.rows["", "k"]
    now = int(stand.clock.time() * 1000)
    assert (entry.soft, entry.expires) == (now + 7_500, now + 10_000)
    stand.clock.advance(7.4)
    assert ask(stand.store, ready(b"too early"), stale=None, refresh_ahead=0.25) == b"old"
    assert settled(stand.store)
    stand.clock.advance(0.1)
    assert ask(stand.store, ready(b"new"), stale=None, refresh_ahead=0.25) == b"old"
    until(lambda: settled(stand.store))
    stand.clock.advance(5)
    assert stand.store.get("k") == b"new", "it never missed"


def test_both_together() -> None:
    assert Staleness(20, 0.1).expiries(110_000, 100_000) == (130_000, 109_000)
    assert Staleness(20, 0.1).expiries(None, 100_000) == (None, None)
    assert Staleness().expiries(110_000, 100_000) == (110_000, None)


# -- refreshes that come to nothing ----------------------------------------------------------------------------------


def test_a_refresh_that_fails_is_logged_and_counted_and_the_old_value_stays(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    stand = Stand()
    ask(stand.store, ready(b"old"))
    stand.clock.advance(10)
    for times in (1, 2):
        with caplog.at_level(logging.WARNING, "tiered"):
            assert ask(stand.store, ready(error=LookupError("the source is away"))) == b"old"
            until(lambda: settled(stand.store))
        assert stand.store.stats().loads.failed == times
        assert "the source is away" in caplog.text
        assert "Traceback" not in caplog.text
        nothing_left(stand.store)
        again = ready()
        assert ask(stand.store, again) == b"old"
        assert settled(stand.store), "for a moment nobody tries again"
        assert again.count == 0
        stand.clock.advance(1)
    stand.clock.advance(20)
    with pytest.raises(LookupError):
        ask(stand.store, ready(error=LookupError("away still")))


def test_a_refresh_that_finds_nothing_leaves_the_old_value(ask: Ask) -> None:
    stand = Stand()
    ask(stand.store, ready(b"old"))
    stand.clock.advance(10)
    assert ask(stand.store, ready(None)) == b"old"  # type: ignore[arg-type]
    until(lambda: settled(stand.store))
    assert stand.bottom.value("k") == b"old"
    nothing_left(stand.store)


@pytest.mark.parametrize("how", ["set", "delete"])
def test_R14_R20_a_write_discards_the_refresh_in_flight(how: str, ask: Ask) -> None:
    stand = Stand()
    ask(stand.store, ready(b"old"))
    stand.clock.advance(10)
    loads = Loads(b"refreshed")
    assert ask(stand.store, loads) == b"old"
    assert loads.began.wait(DEADLINE)
    if how == "set":
        stand.store.set("k", b"written")
    else:
        stand.store.delete("k")
    assert waiting(stand.store) == -1, "detached: later readers do not get what it serves meanwhile"
    if how == "set":
        assert ask(stand.store, ready(b"needless")) == b"written"
    loads.release.set()
    until(lambda: settled(stand.store))
    assert stand.store.get("k") == (b"written" if how == "set" else None)
    assert stand.bottom.rows["", "k"].kind == (VALUE if how == "set" else DELETED)
    assert remembered(stand.store, "k") == (b"written" if how == "set" else None)
    assert not stand.level.marks
    nothing_left(stand.store)


def test_a_refresh_that_cannot_be_stored_leaves_the_old_value_readable_below(ask: Ask) -> None:
    stand = Stand()
    ask(stand.store, ready(b"old"))
    stand.clock.advance(10)
    stand.bottom.script("swap", "before")
    assert ask(stand.store, ready(b"new")) == b"old"
    until(lambda: settled(stand.store))
    assert stand.store.get("k") == b"old"
    nothing_left(stand.store)


# -- how many, and who -----------------------------------------------------------------------------------------------


def test_refreshes_are_bounded_and_what_finds_no_room_is_tried_again(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "REFRESHES", 2)
    monkeypatch.setattr(aio, "REFRESHES", 2)
    stand = Stand()
    keys = ["a", "b", "c", "d"]
    for key in keys:
        ask(stand.store, ready(b"old"), key)
    stand.clock.advance(10)
    loads = Loads()
    assert [ask(stand.store, loads, key) for key in keys] == [b"old"] * 4
    until(lambda: loads.count == 2)
    count = stand.store.stats().loads
    assert count.postponed == 2
    assert set(stand.store._stack.flights.flights) == {("", "a"), ("", "b")}
    loads.release.set()
    until(lambda: settled(stand.store))
    assert [ask(stand.store, ready(b"loaded"), key) for key in keys] == [b"loaded", b"loaded", b"old", b"old"]
    until(lambda: settled(stand.store))
    assert stand.store.mget(keys) == [b"loaded"] * 4
    assert stand.store.stats().loads.refreshes == 4
    nothing_left(stand.store)


def test_waiters_of_the_one_who_finds_it_stale_get_the_old_value_at_once() -> None:
    stand = Stand()
    stand.store.get_or_load("k", lambda key: b"old", ttl=10, stale=20)
    stand.clock.advance(10)
    loads = Loads(b"new")
    leader = Hand(stand.store, stand.store._load("k", loads.sync, 10, stand.store._engine.caller(), 20)).to("spawn")
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.append(stand.store.get_or_load("k", loads.sync, ttl=10, stale=20)))
    waiter.start()
    until(lambda: waiting(stand.store) == 1)
    assert leader.result() == b"old"
    waiter.join(DEADLINE)
    assert found == [b"old"]
    loads.release.set()
    until(lambda: stand.store.get("k") == b"new")
    assert loads.count == 1


def test_a_refresh_is_in_nobodys_loader(ask: Ask) -> None:
    """The one who found it stale may be one: it does not wait for the refresh."""
    stand = Stand()
    ask(stand.store, ready(b"old"))
    stand.clock.advance(10)
    outer, _ = join(stand.store._stack.flights, "outer", stand.store._engine.caller())
    assert outer is not None
    seen: list[Any] = []

    def load(key: str) -> bytes:
        seen.append([work is outer.work for work in LOADING.get()])
        return b"new"

    with sync.loading([outer]):
        assert stand.store.get_or_load("k", load, ttl=10, stale=20) == b"old"
        until(lambda: settled(stand.store))
    assert seen == [[False]]


def test_a_refresh_whose_task_is_cancelled_before_it_began_is_begun_again() -> None:
    stand = Stand()

    async def main() -> None:
        await stand.store.aget_or_load("k", lambda key: b"old", ttl=10, stale=20)
        stand.clock.advance(10)
        assert await stand.store.aget_or_load("k", lambda key: b"lost", ttl=10, stale=20) == b"old"
        [task] = stand.store._aio()._tasks
        task.cancel()
        await auntil(lambda: settled(stand.store))
        assert await stand.store.aget_or_load("k", lambda key: b"new", ttl=10, stale=20) == b"old"
        await auntil(lambda: settled(stand.store))
        assert await stand.store.aget("k") == b"new"

    asyncio.run(main())
    nothing_left(stand.store)


def test_a_refresh_whose_loop_is_closed_in_the_middle_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it takes no room for ever."""
    monkeypatch.setattr(aio, "REFRESHES", 1)
    stand = Stand()
    stand.store.get_or_load("k", lambda key: b"old", ttl=10, stale=20)
    stand.clock.advance(10)
    gone = asyncio.new_event_loop()
    lost = Loads()
    assert gone.run_until_complete(stand.store.aget_or_load("k", lost.aio, ttl=10, stale=20)) == b"old"
    gone.run_until_complete(auntil(lost.began.is_set))
    [task] = stand.store._aio()._tasks
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    gone.close()
    del task

    async def main() -> None:
        assert await stand.store.aget_or_load("k", lambda key: b"new", ttl=10, stale=20) == b"old"
        await auntil(lambda: settled(stand.store))
        assert await stand.store.aget("k") == b"new"

    asyncio.run(main())
    gc.collect()
    nothing_left(stand.store)


def test_when_no_thread_can_be_begun_the_old_value_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand()
    stand.store.get_or_load("k", lambda key: b"old", ttl=10, stale=20)
    stand.clock.advance(10)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert stand.store.get_or_load("k", lambda key: b"never", ttl=10, stale=20) == b"old"
    assert stand.store.get_or_load("k", lambda key: b"new", ttl=10, stale=20) == b"old"
    until(lambda: settled(stand.store))
    assert stand.store.get("k") == b"new"


def test_in_a_forked_child_the_refreshes_of_the_parent_take_no_room(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "REFRESHES", 1)
    monkeypatch.setattr(aio, "REFRESHES", 1)
    monkeypatch.setattr(background, "_room", background._Room())
    stand, stuck, loads = Stand(), Stand(), Loads(b"late")
    for store in (stand.store, stuck.store):
        ask(store, ready(b"old"))
    ask(stand.store, ready(b"old"), "other")
    for one in (stand, stuck):
        one.clock.advance(10)
    jobs = list[Any]()
    assert ask(stand.store, loads, "other") == b"old"
    assert loads.began.wait(DEADLINE)
    jobs += stand.store._engine._background._jobs
    for job in jobs:
        job.step.acquire()
    stand.store._forked()  # as it is in a child
    background._room.__init__()  # type: ignore[misc]
    assert settled(stand.store)
    assert ask(stand.store, ready(b"new")) == b"old"
    until(lambda: settled(stand.store))
    assert stand.store.get("k") == b"new"
    stand.store._engine.stop()  # waits for nobody
    for job in jobs:
        job.step.release()
    loads.release.set()


def test_refreshes_of_one_store_that_hang_leave_the_callers_of_another_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take the threads of the process; the other's value is not refreshed, and loaded once it has expired."""
    monkeypatch.setattr(background, "REFRESHES", 1)
    stuck, stand, loads = Stand(), Stand(), Loads(b"late")
    for one in (stuck, stand):
        one.store.get_or_load("k", lambda key: b"old", ttl=10, stale=20)
        one.clock.advance(10)
    stuck.store.get_or_load("k", loads.sync, ttl=10, stale=20)
    assert loads.began.wait(DEADLINE)
    assert stand.store.get_or_load("k", lambda key: b"never", ttl=10, stale=20) == b"old"
    assert stand.store.stats().loads.postponed == 1
    stand.clock.advance(20)
    assert stand.store.get_or_load("k", lambda key: b"new", ttl=10, stale=20) == b"new"
    loads.release.set()
    until(lambda: settled(stuck.store))


def test_a_refresh_that_hangs_does_not_keep_the_interpreter() -> None:
    program = """
import threading, tiered
from tiered.testing import FakeClock
clock = FakeClock()
store = tiered.TieredStore([tiered.Memory()], clock=clock)
store.get_or_load("k", lambda key: b"old", ttl=10, stale=100)
clock.advance(20)
began = threading.Event()
def hang(key):
    began.set()
    threading.Event().wait()
store.get_or_load("k", hang, ttl=10, stale=100)
began.wait()
store.close()
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=DEADLINE, check=False).returncode == 0


# -- close -----------------------------------------------------------------------------------------------------------


def test_closing_ends_a_refresh_before_it_touches_a_tier_again() -> None:
    stand = Stand()
    stand.store.get_or_load("k", lambda key: b"old", ttl=10, stale=20)
    stand.clock.advance(10)
    loads = Loads(b"new")
    assert stand.store.get_or_load("k", loads.sync, ttl=10, stale=20) == b"old"
    assert loads.began.wait(DEADLINE)
    stand.store.close()
    stand.bottom.log.clear()
    loads.release.set()
    until(lambda: settled(stand.store))
    assert stand.bottom.log == []
    assert stand.bottom.value("k") == b"old"
    nothing_left(stand.store)


def test_closing_waits_for_the_request_that_a_refresh_has_under_way() -> None:
    stand = Stand()
    stand.store.get_or_load("k", lambda key: b"old", ttl=10, stale=20)
    stand.clock.advance(10)
    asked, answer, order = threading.Event(), threading.Event(), list[str]()

    def slow(name: str) -> str:
        if name == "swap":
            asked.set()
            assert answer.wait(DEADLINE)
            order.append("answered")
        return "ok"

    stand.bottom.fault = slow
    assert stand.store.get_or_load("k", lambda key: b"new", ttl=10, stale=20) == b"old"
    assert asked.wait(DEADLINE)

    def close() -> None:
        stand.store.close()
        order.append("closed")

    closing = threading.Thread(target=close)
    closing.start()
    until(lambda: stand.store._engine._background._stopped)
    answer.set()
    closing.join(DEADLINE)
    assert order == ["answered", "closed"]


def test_aclose_cancels_refreshes_and_waits_for_them() -> None:
    stand = Stand()
    ended: list[str] = []

    async def load(key: str) -> bytes:
        began.set()
        try:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        finally:
            ended.append(key)

    async def main() -> None:
        assert await stand.store.aget_or_load("k", load, ttl=10, stale=20) == b"old"
        await auntil(began.is_set)
        await stand.store.aclose()
        assert ended == ["k"]
        assert settled(stand.store)

    began = threading.Event()
    stand.store.get_or_load("k", lambda key: b"old", ttl=10, stale=20)
    stand.clock.advance(10)
    asyncio.run(main())
    assert stand.bottom.value("k") == b"old"
    nothing_left(stand.store)


def test_a_sync_close_cancels_the_refreshes_of_loops_elsewhere() -> None:
    stand = Stand()
    stand.store.get_or_load("k", lambda key: b"old", ttl=10, stale=20)
    stand.clock.advance(10)
    loads = Loads()
    with loop_in_a_thread() as loop:
        assert submit(loop, stand.store.aget_or_load("k", loads.aio, ttl=10, stale=20)).result(DEADLINE) == b"old"
        assert loads.began.wait(DEADLINE)
        stand.store.close()
        until(lambda: settled(stand.store))
    assert stand.bottom.value("k") == b"old"
    nothing_left(stand.store)


def test_aclose_ends_refreshes_on_threads_too() -> None:
    stand = Stand()
    stand.store.get_or_load("k", lambda key: b"old", ttl=10, stale=20)
    stand.clock.advance(10)
    loads = Loads(b"new")
    assert stand.store.get_or_load("k", loads.sync, ttl=10, stale=20) == b"old"
    assert loads.began.wait(DEADLINE)
    asyncio.run(stand.store.aclose())
    loads.release.set()
    until(lambda: settled(stand.store))
    assert stand.bottom.value("k") == b"old"


def test_nothing_is_begun_after_close() -> None:
    stand = Stand()
    begun: list[Any] = []
    stand.store.close()
    assert not stand.store._engine.perform(Spawn(lambda caller: begun.append(caller)))  # type: ignore[func-returns-value,arg-type,return-value]
    assert begun == []
    with pytest.raises(StoreClosed):
        stand.store.get_or_load("k", lambda key: b"", ttl=1, stale=1)


def test_closing_a_scope_leaves_the_refreshes_of_its_parent_alone() -> None:
    stand = Stand()
    stand.store.get_or_load("k", lambda key: b"old", ttl=10, stale=20)
    stand.clock.advance(10)
    stand.store.scoped("a").close()
    assert stand.store.get_or_load("k", lambda key: b"new", ttl=10, stale=20) == b"old"
    until(lambda: settled(stand.store))
    assert stand.store.get("k") == b"new"


# -- one plan by hand ------------------------------------------------------------------------------------------------


def test_who_finds_a_flight_and_a_stale_value_below_leaves_it_to_that_flight() -> None:
    """It may not wait, so it looks for itself; but it has no flight to hand on."""
    stand = Stand()
    stand.store.get_or_load("k", lambda key: b"old", ttl=10, stale=20)
    stand.clock.advance(10)
    leader = loading(stand.store, "k", lambda key: b"new")
    assert leader.at.startswith("fetch")

    async def main() -> bytes | None:
        return stand.store.get_or_load("k", lambda key: pytest.fail("loaded"))

    assert asyncio.run(main()) == b"old"
    assert settled(stand.store)
    assert leader.result() == b"old"
    until(lambda: stand.store.get("k") == b"new")


# -- bad input -------------------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"ttl": 5, "stale": True}, TypeError),
    ({"ttl": 5, "stale": "1"}, TypeError),
    ({"ttl": 5, "stale": 0}, ValueError),
    ({"ttl": 5, "stale": -1}, ValueError),
    ({"ttl": 5, "stale": float("nan")}, ValueError),
    ({"ttl": 5, "refresh_ahead": True}, TypeError),
    ({"ttl": 5, "refresh_ahead": "0.1"}, TypeError),
    ({"ttl": 5, "refresh_ahead": 0}, ValueError),
    ({"ttl": 5, "refresh_ahead": 1}, ValueError),
    ({"ttl": 5, "refresh_ahead": -0.1}, ValueError),
    ({"ttl": 5, "refresh_ahead": float("nan")}, ValueError),
    ({"stale": 5}, ValueError),
    ({"ttl": None, "stale": 5}, ValueError),
    ({"ttl": None, "refresh_ahead": 0.5}, ValueError),
    ({"on_cache_error": "ignore"}, ValueError),
    ({"on_cache_error": None}, ValueError),
]


@pytest.mark.parametrize(("terms", "error"), BAD, ids=[str(terms) for terms, _ in BAD])
def test_bad_terms_are_refused_before_anything_is_loaded(terms: dict[str, Any], error: type[Exception]) -> None:
    stand = Stand()
    fail: Any = lambda key: pytest.fail("loaded")  # noqa: E731
    with pytest.raises(error):
        stand.store.get_or_load("k", fail, **terms)
    with pytest.raises(error):
        stand.store.mget_or_load(["k"], fail, **terms)
    assert stand.bottom.log == []


def test_good_terms() -> None:
    assert staleness(None, None) == Staleness()
    assert not staleness(None, None)
    assert staleness(5, 0.5) == Staleness(5.0, 0.5)


def test_an_unavailable_authority_is_not_taken_for_stale(ask: Ask) -> None:
    stand = Stand(uppers=())
    ask(stand.store, ready(b"old"))
    stand.clock.advance(10)
    stand.bottom.fail("fetch")
    with pytest.raises(BackendUnavailable):
        ask(stand.store, ready(b"new"))
