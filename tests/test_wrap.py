"""`tiered.wrap`, and stacks with somebody else's store in last place or above it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tiered
from tests.contract.faces import face
from tests.foreign_kit import AsyncOnly, Both, Stuck, SyncOnly
from tiered import SQL, Foreign, Memory, Tier, TieredStore, WriteThrough
from tiered.base import BaseStore
from tiered.errors import (
    BackendUnavailable,
    BatchError,
    ConfigurationError,
    CorruptEntry,
    FaceUnavailable,
    ForeignValue,
    Indeterminate,
    InvalidKey,
    InvalidValue,
    Unsupported,
)
from tiered.record import encode
from tiered.serializers import Json
from tiered.testing import FakeClock
from tiered.typed import TypedStore

LONG = 30.0


@pytest.fixture(params=["sync", "async"])
def faced(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Any]]:
    opened: list[Any] = []

    def make(store: Any) -> Any:
        opened.append(face(request.param, store))
        return opened[-1]

    yield make
    for one in opened:
        if isinstance(one.store, TypedStore):
            one.store = one.store._store
        one.done()


@pytest.fixture(params=[SyncOnly, Both])
def under(request: pytest.FixtureRequest) -> SyncOnly:
    store: SyncOnly = request.param()
    return store


class Down(Exception):
    pass


def fail(store: SyncOnly, *methods: str) -> None:
    def before(method: str) -> None:
        if not methods or method in methods:
            raise Down("password")

    store.before = before


def heal(store: SyncOnly) -> None:
    store.before = lambda method: None


# -- memory in front -------------------------------------------------------------------------------------------------


def test_what_the_store_holds_is_served_and_what_is_written_lies_there_as_it_is(faced: Any, under: SyncOnly) -> None:
    under.data["old"] = b"1"
    store = faced(tiered.wrap(under))
    assert isinstance(store.store, TieredStore)
    assert store.mget(["old", "none", "old"]) == [b"1", None, b"1"]
    store.mset([("new", b"2")])
    store.set("one", b"")
    assert under.data == {"old": b"1", "new": b"2", "one": b""}
    assert sorted(store.keys()) == ["new", "old", "one"]
    assert store.keys(prefix="o") == ["old", "one"]
    store.mdelete(["old", "none"])
    assert under.data == {"new": b"2", "one": b""}
    assert store.mget(["old", "new"]) == [None, b"2"]


def test_memory_answers_for_as_long_as_it_may(faced: Any, under: SyncOnly, clock: FakeClock) -> None:
    store = faced(tiered.wrap(under, ttl=30, clock=clock))
    store.set("written", b"1")
    under.data["read"] = b"1"
    assert store.get("read") == b"1"
    asked = len(under.log)
    under.data |= {"written": b"2", "read": b"2"}
    clock.advance(29)
    assert store.mget(["written", "read"]) == [b"1", b"1"]
    assert len(under.log) == asked
    clock.advance(2)
    assert store.mget(["written", "read"]) == [b"2", b"2"]


def test_invalidate_shows_what_was_changed_behind_it(faced: Any, under: SyncOnly) -> None:
    store = faced(tiered.wrap(under, ttl=None))
    store.set("a", b"1")
    under.data["a"] = b"2"
    assert store.get("a") == b"1"
    store.invalidate(["a"])
    assert store.get("a") == b"2"


def test_the_bounds_of_memory_are_what_was_asked_for(under: SyncOnly) -> None:
    store = tiered.wrap(under, max_bytes=10_000)
    store.mset({f"k{at}": b"x" * 1_000 for at in range(50)})
    taken = store.stats().tiers["memory"].bytes
    assert taken is not None
    assert 0 < taken <= 10_000


def test_invariant_10_namespaces_of_one_store_are_kept_apart(faced: Any, under: SyncOnly) -> None:
    stores = {name: faced(tiered.wrap(under, namespace=name)) for name in (None, "a", "a:b")}
    for name, store in stores.items():
        store.set("k", repr(name).encode())
    for name, store in stores.items():
        assert store.get("k") == repr(name).encode()
        assert store.keys() == ["k"]
    assert sorted(under.data) == ["k", "t1:1:a:k", "t1:3:a:b:k"]
    scope = stores["a"].store.scoped("tenant")
    scope.set("k", b"scoped")
    assert stores["a"].get("k") == b"'a'"
    assert stores["a"].store.clear(all=True) == 2
    assert sorted(under.data) == ["k", "t1:3:a:b:k"]


def test_one_load_for_all_and_what_somebody_stored_meanwhile_stays(faced: Any, under: SyncOnly) -> None:
    store = faced(tiered.wrap(under))

    def load(key: str) -> bytes:
        under.data.setdefault("raced", b"theirs")
        return b"loaded " + key.encode()

    assert store.get_or_load("a", load) == b"loaded a"
    assert under.data["a"] == b"loaded a"
    assert store.get_or_load("raced", load) == b"theirs"
    assert store.get_or_load("none", lambda key: None) is None
    assert "none" not in under.data


def test_r22_a_time_to_live_that_could_not_be_kept_is_refused(faced: Any, under: SyncOnly) -> None:
    store = faced(tiered.wrap(under))
    with pytest.raises(Unsupported, match="keeps no expiry"):
        store.set("a", b"1", ttl=5)
    with pytest.raises(Unsupported):
        store.get_or_load("a", lambda key: b"1", ttl=5)
    assert under.data == {}
    with pytest.raises((ConfigurationError, Unsupported)):
        TieredStore([Memory(), under], default_ttl=5)


def test_invariant_1_bad_input_stores_nothing(faced: Any, under: SyncOnly) -> None:
    store = faced(tiered.wrap(under))
    for pairs, error in (([("a", b"1"), ("", b"2")], InvalidKey), ([("a", b"1"), ("b", "text")], InvalidValue)):
        with pytest.raises(error):
            store.mset(pairs)
    with pytest.raises(TypeError):
        store.mget("abc")
    assert under.data == {}


def test_a_record_in_the_authority_s_place_is_not_served(faced: Any, under: SyncOnly) -> None:
    from tiered.entry import VALUE, Entry

    under.data["a"] = encode(b"a", Entry(VALUE, bytes(12), None, b"1"))
    store = faced(tiered.wrap(under))
    with pytest.raises(ForeignValue, match=r"\[foreign\].*layout=\"record\".*'a'"):
        store.get("a")


# -- a broken authority ----------------------------------------------------------------------------------------------


def test_invariant_2_a_store_that_raises_is_unavailable_not_empty(faced: Any, under: SyncOnly) -> None:
    store = faced(tiered.wrap(under))
    store.set("a", b"1")
    fail(under)
    assert store.get("a") == b"1"
    for read in (lambda: store.get("b"), lambda: store.mget(["a", "b"]), store.keys):
        with pytest.raises(BackendUnavailable, match=r"\[foreign\].* raised Down") as caught:
            read()
        assert "password" not in str(caught.value)
    assert store.ping()["foreign"].ok is False
    heal(under)
    assert store.mget(["a", "b"]) == [b"1", None]


def test_a_write_that_raised_may_have_happened_and_leaves_nothing_older_readable(faced: Any, under: SyncOnly) -> None:
    store = faced(tiered.wrap(under))
    store.mset({"a": b"1", "b": b"1"})

    def after(method: str, answer: Any) -> Any:
        if method == "mset":
            raise Down
        return answer

    under.after = after
    with pytest.raises(Indeterminate, match="raised Down"):
        store.set("a", b"2")
    with pytest.raises(BatchError) as caught:
        store.mset({"a": b"3", "b": b"3"})
    assert sorted(caught.value.unknown) == ["a", "b"]
    assert under.log.count("mset") == 3, "E11: not tried again"
    under.after = lambda method, answer: answer
    assert store.mget(["a", "b"]) == [b"3", b"3"]


@pytest.mark.parametrize(
    "lie", [lambda values: values[:-1], lambda values: [*values, b"x"], lambda values: ["x"] * len(values)]
)
def test_a_store_that_lies_reaches_neither_callers_nor_memory(faced: Any, under: SyncOnly, lie: Any) -> None:
    store = faced(tiered.wrap(under))
    under.data |= {"a": b"1", "b": b"2", "c": b"3"}
    under.after = lambda method, answer: lie(answer) if method == "mget" else answer
    with pytest.raises(BackendUnavailable, match="answered"):
        store.mget(["a", "b", "c"])
    under.after = lambda method, answer: answer
    assert store.mget(["a", "b", "c"]) == [b"1", b"2", b"3"]


def test_a_store_that_blocks_is_given_up(faced: Any) -> None:
    under = SyncOnly()
    store = faced(TieredStore([Memory(), Tier(under, timeout=0.5)]))
    store.set("warm", b"1")
    with Stuck(under, "mget", "mset") as stuck:
        with pytest.raises(BackendUnavailable, match=r"did not answer within 0\.5 s"):
            store.get("cold")
        assert store.get("warm") == b"1"
        with pytest.raises(Indeterminate, match=r"did not answer within 0\.5 s"):
            store.set("warm", b"2")
        stuck.release()
        assert stuck.ended.acquire(timeout=LONG)
        assert stuck.ended.acquire(timeout=LONG)
    assert under.data["warm"] == b"2"
    found = None
    while found is None:  # the late call is about to let go of its key
        try:
            found = store.get("warm")
        except BackendUnavailable:
            continue
    assert found == b"2"


async def test_many_tasks_wait_for_one_read_each_and_the_loop_goes_on() -> None:
    under = SyncOnly()
    under.data |= {f"k{at}": b"%d" % at for at in range(100)}
    store = tiered.wrap(under)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    found = await asyncio.gather(*(store.aget(f"k{at}") for at in range(100)))
    ticking.cancel()
    assert found == [b"%d" % at for at in range(100)]
    assert ticks > 1
    await store.aclose()


def test_a_store_with_asynchronous_methods_only(faced: Any) -> None:
    under = AsyncOnly()
    under.data["a"] = b"1"
    store = tiered.wrap(under)
    with pytest.raises(FaceUnavailable, match="use the face that has amget"):
        store.get("a")
    assert asyncio.run(store.aget("a")) == b"1"
    assert store.get("a") == b"1", "memory has it"
    with pytest.raises(FaceUnavailable):
        store.set("a", b"2")


def test_threads_writing_and_reading_end_with_what_was_acknowledged_last(under: SyncOnly) -> None:
    """Each thread owns its keys: what it wrote last it must read, from memory and from the store."""
    store = tiered.wrap(under)
    wrong: list[Any] = []

    def work(number: int) -> None:
        for at in range(40):
            key, value = f"{number}:{at % 3}", b"%d" % at
            store.set(key, value)
            if store.get(key) != value:
                wrong.append((key, at))
            if at % 7 == 0:
                store.delete(key)
                if store.get(key) is not None:
                    wrong.append((key, at, "deleted"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert wrong == []
    fresh = tiered.wrap(under)
    assert fresh.mget(sorted(under.data)) == store.mget(sorted(under.data))
    assert len(under.data) == 18


# -- above an authority ----------------------------------------------------------------------------------------------


def test_above_it_holds_records_and_serves_them(faced: Any, under: SyncOnly, tmp_path: Path, clock: FakeClock) -> None:
    base = SQL(f"sqlite:///{tmp_path}/a.db")
    store = faced(TieredStore([Memory(), under, base], clock=clock))
    store.mset({"a": b"1", "b": b"2"}, ttl=7_200)
    assert under.data["a"][:1] == b"\xc1"
    fresh = faced(TieredStore([under, base], clock=clock))
    assert fresh.mget(["a", "b"]) == [b"1", b"2"]
    assert fresh.stats().tiers["foreign"].hits == 2
    clock.advance(3_601)  # the longest it may keep a copy
    assert fresh.get("a") == b"1"
    assert fresh.stats().tiers["sqlite"].hits == 1
    fresh.delete("a")
    assert fresh.get("a") is None
    assert fresh.inspect("a")["foreign"].state in ("deleted", "invalid", "absent")


def test_above_it_may_fail_and_is_repaired_before_it_is_believed(faced: Any, under: SyncOnly, tmp_path: Path) -> None:
    base = SQL(f"sqlite:///{tmp_path}/a.db")
    store = faced(TieredStore([under, base]))
    store.set("a", b"1")
    fail(under)
    store.set("a", b"2")
    assert store.get("a") == b"2"
    heal(under)
    assert store.get("a") == b"2"
    other = faced(TieredStore([under, base]))
    assert other.get("a") == b"2"


def test_above_it_what_others_wrote_there_is_left_alone(faced: Any, under: SyncOnly, tmp_path: Path) -> None:
    under.data["a"] = b"precious"
    store = faced(TieredStore([under, SQL(f"sqlite:///{tmp_path}/a.db")]))
    store.set("a", b"1")
    assert store.get("a") == b"1"
    store.set("b", b"2")
    assert store.mget(["a", "b"]) == [b"1", b"2"]
    assert under.data["a"] == b"precious"


def test_r18_strict_marks_it_before_the_authority(faced: Any, under: SyncOnly, tmp_path: Path) -> None:
    base = SQL(f"sqlite:///{tmp_path}/a.db")
    store = faced(TieredStore([under, base], write=WriteThrough(strict=True)))
    store.set("a", b"1")
    fail(under, "mset")
    with pytest.raises((BackendUnavailable, Indeterminate)):
        store.set("a", b"2")
    heal(under)
    assert store.get("a") == b"1"
    store.set("a", b"3")
    assert faced(TieredStore([under, base])).get("a") == b"3"


def test_records_may_be_the_authority_too_with_expiry(faced: Any, under: SyncOnly, clock: FakeClock) -> None:
    store = faced(TieredStore([Memory(), Foreign(under, "record")], clock=clock))
    store.set("a", b"1", ttl=10)
    assert store.get("a") == b"1"
    clock.advance(11)
    assert store.get("a") is None
    assert store.keys() == []
    assert store.purge_expired() >= 1
    store.set("b", b"2")
    under.data["b"] = under.data["b"][:-1] + b"?"
    with pytest.raises(CorruptEntry):
        faced(TieredStore([Foreign(under, "record")], clock=clock)).get("b")


def test_two_stacks_over_one_store_share_its_locks(under: SyncOnly, tmp_path: Path) -> None:
    base = SQL(f"sqlite:///{tmp_path}/a.db")
    stacks = [TieredStore([under, base]) for _ in range(3)]

    def write(number: int) -> None:
        for at in range(15):
            stacks[number].set("k", b"%d:%d" % (number, at))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    last = TieredStore([base]).get("k")
    assert last is not None
    assert [stack.get("k") for stack in stacks] == [last] * 3
    for stack in stacks:
        stack.close()


@pytest.mark.parametrize("layout", ["plain", "record"])
def test_immutable_values_may_lie_above_in_either_layout(
    faced: Any, under: SyncOnly, tmp_path: Path, layout: Any
) -> None:
    tiers: list[Any] = [Memory(), Foreign(under, layout), SQL(f"sqlite:///{tmp_path}/a.db")]
    store = faced(TieredStore(tiers, immutable=True))
    store.mset({"a": b"1", "b": b"2"})
    fresh = faced(TieredStore(tiers[1:], immutable=True))
    assert fresh.mget(["a", "none", "b"]) == [b"1", None, b"2"]
    assert fresh.get_or_load("c", lambda key: b"3") == b"3"
    assert (under.data["c"] == b"3") is (layout == "plain")
    fresh.delete("a")
    assert fresh.get("a") is None


def test_plain_values_above_an_authority_are_refused(under: SyncOnly, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds plain values above another tier"):
        TieredStore([Foreign(under, "plain"), SQL(f"sqlite:///{tmp_path}/a.db")])


# -- LocalFileStore --------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Any:
    storage = pytest.importorskip("langchain_classic.storage", reason="langchain-classic is not installed")
    return storage.LocalFileStore(tmp_path / "files")


def test_files_prefixes_are_of_keys_not_of_folders(faced: Any, files: Any, tmp_path: Path) -> None:
    store = faced(tiered.wrap(files))
    store.mset({"ab": b"1", "abc": b"", "a/b": b"3", "b-1.txt": b"4"})
    assert (tmp_path / "files" / "a" / "b").read_bytes() == b"3"
    assert sorted(store.keys(prefix="a")) == ["a/b", "ab", "abc"]
    assert store.keys(prefix="ab") == ["ab", "abc"]
    assert store.keys(prefix="a/") == ["a/b"]
    fresh = faced(tiered.wrap(files))
    assert fresh.mget(["abc", "a/b", "none"]) == [b"", b"3", None]
    fresh.mdelete(["a/b", "none"])
    assert fresh.keys() == ["ab", "abc", "b-1.txt"]


@pytest.mark.parametrize("key", ["a b", "ü", "a:b", "../up", "a/../b", "./a", "a//b", "/a", "a/", ".", "..", "a\n"])
def test_files_refuse_bad_keys_before_anything_is_written(faced: Any, files: Any, tmp_path: Path, key: str) -> None:
    store = faced(tiered.wrap(files))
    with pytest.raises(InvalidKey, match="LocalFileStore"):
        store.mset({"fine": b"1", key: b"2"})
    for use in (lambda: store.get(key), lambda: store.delete(key), lambda: store.get_or_load(key, lambda key: b"1")):
        with pytest.raises(InvalidKey):
            use()
    assert not (tmp_path / "files").exists()
    assert store.get("fine") is None


def test_files_one_odd_key_takes_nothing_from_the_others(faced: Any, files: Any) -> None:
    store = faced(tiered.wrap(files))
    store.mset({"good": b"1", "dir/x": b"2", "ping/x": b"3"})
    fresh = faced(tiered.wrap(files))
    for _ in range(6):
        fresh.invalidate(["dir", "good"])
        assert fresh.mget(["dir", "good"]) == [None, b"1"], "a folder is no value"
        with pytest.raises(InvalidKey, match="up to 255 bytes"):
            fresh.get("a/" + "k" * 256)
    fresh.mdelete(["dir"])
    for _ in range(6):
        with pytest.raises(Indeterminate, match="raised IsADirectoryError"):
            fresh.set("dir", b"x")
    assert fresh.get("dir/x") == b"2"
    fresh.set("k" * 255, b"4")
    assert faced(tiered.wrap(files)).get("k" * 255) == b"4"
    assert fresh.ping()["foreign"].ok


def test_files_that_are_no_keys_are_not_listed(faced: Any, files: Any, tmp_path: Path) -> None:
    for store in (faced(tiered.wrap(files)), faced(TieredStore([Foreign(files, layout="record")]))):
        store.set("a", b"1")
        (tmp_path / "files" / "my file.txt").write_bytes(b"x")
        assert store.keys() == ["a"]
        store.purge_expired()
        assert store.clear(all=True) == 1


def test_one_key_that_hangs_takes_nothing_from_the_others(faced: Any) -> None:
    under = SyncOnly()
    under.data["good"] = b"1"
    store = faced(TieredStore([Tier(Foreign(under), timeout=0.1)]))
    with Stuck(under, "mset") as stuck:
        with pytest.raises(Indeterminate):
            store.set("hangs", b"x")
        for _ in range(6):
            with pytest.raises(BackendUnavailable, match="other operations on these keys"):
                store.get("hangs")
        assert store.get("good") == b"1"
        stuck.release()


def test_a_store_by_its_methods_alone_may_be_in_a_list_of_tiers(faced: Any) -> None:
    class Duck:
        def __init__(self) -> None:
            inner = SyncOnly()
            self.mget, self.mset = inner.mget, inner.mset
            self.mdelete, self.yield_keys = inner.mdelete, inner.yield_keys

    store = faced(TieredStore([Memory(), Duck()]))  # type: ignore[list-item]
    store.set("a", b"1")
    assert store.keys() == ["a"]


def test_files_have_no_place_for_a_namespace(faced: Any, files: Any) -> None:
    store = faced(tiered.wrap(files, namespace="docs"))
    with pytest.raises(InvalidKey, match="no place for the namespace 'docs'"):
        store.set("a", b"1")


def test_files_above_an_authority_hold_records(faced: Any, files: Any, tmp_path: Path) -> None:
    base = SQL(f"sqlite:///{tmp_path}/a.db")
    store = faced(TieredStore([files, base]))
    store.mset({"a": b"1", "b": b"2"})
    (tmp_path / "files" / "a").write_bytes((tmp_path / "files" / "a").read_bytes()[:-3])  # a torn write
    assert store.mget(["a", "b"]) == [b"1", b"2"]
    assert store.stats().tiers["foreign"].corrupt == 1


# -- what can be wrapped ---------------------------------------------------------------------------------------------


def test_stores_of_ours_can_be_wrapped(faced: Any, tmp_path: Path) -> None:
    base = SQL(f"sqlite:///{tmp_path}/a.db", namespace="docs")
    store = faced(tiered.wrap(base))
    store.set("a", b"1", ttl=60)
    assert list(store.stats().tiers) == ["memory", "sqlite"]
    inner = TieredStore([Memory(), base])
    outer = faced(tiered.wrap(inner))
    assert outer.get("a") == b"1"
    outer.set("b", b"2")
    assert inner.get("b") == b"2"
    inner.close()
    with pytest.raises(tiered.errors.StoreClosed):
        outer.get("c")


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (lambda: tiered.wrap({}), "dict is not a store"),
        (lambda: tiered.wrap(SyncOnly), "SyncOnly is not a store"),
        (lambda: tiered.wrap(Memory()), "this is memory"),
        (lambda: tiered.wrap("memory://"), "str is not a store"),
        (lambda: tiered.wrap(SyncOnly(), serializer=Json), "serializer="),
        (lambda: tiered.wrap(SyncOnly(), max_bytes=0), "max_bytes"),
        (lambda: tiered.wrap(SyncOnly(), namespace="a\x1fb"), "namespace"),
    ],
)
def test_what_cannot_be_wrapped_is_said_at_once(bad: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        bad()


@pytest.mark.parametrize(("ttl", "error"), [(0, ValueError), (True, TypeError), ("60", TypeError)])
def test_bad_ages_are_refused(ttl: Any, error: Any) -> None:
    with pytest.raises(error):
        tiered.wrap(SyncOnly(), ttl=ttl)


def test_the_store_is_not_closed_with_the_stack(under: Any) -> None:
    under.close = under.aclose = lambda: pytest.fail("it is the user's")
    with tiered.wrap(under) as store:
        store.set("a", b"1")
    assert under.data == {"a": b"1"}


# -- other values than bytes -----------------------------------------------------------------------------------------


def test_a_store_of_other_values_keeps_them_as_they_are(faced: Any, under: SyncOnly) -> None:
    under.data |= {"old": {"n": 1}, "zero": 0}
    store = faced(tiered.wrap(under, serializer=Json()))
    assert isinstance(store.store, TypedStore)
    assert isinstance(store.store, BaseStore)
    assert store.mget(["old", "zero", "none"]) == [{"n": 1}, 0, None]
    asked = len(under.log)
    assert store.mget(["zero", "old"]) == [0, {"n": 1}]
    assert len(under.log) == asked, "memory answers"
    store.mset([("new", [1, "ü"]), ("text", "plain")])
    assert under.data["new"] == [1, "ü"]
    assert under.data["text"] == "plain"
    store.mdelete(["old"])
    assert store.mget(["old", "new"]) == [None, [1, "ü"]]
    assert store.keys(prefix="t") == ["text"]
    with pytest.raises(InvalidValue):
        store.mset([("fine", 1), ("bad", {1, 2})])
    assert "fine" not in under.data


def test_what_the_serializer_does_not_take_is_not_served_nor_hides_the_rest(faced: Any, under: SyncOnly) -> None:
    under.data |= {"odd": {1, 2}, "fine": 1}
    store = faced(tiered.wrap(under, serializer=Json()))
    with pytest.raises(ForeignValue, match=r"serializer cannot take the stored set.*'odd'"):
        store.mget(["fine", "odd"])
    assert store.mget(["fine"]) == [1]
    assert under.data["odd"] == {1, 2}


def test_over_bytes_of_ours_the_serializer_s_bytes_are_stored(tmp_path: Path) -> None:
    base = SQL(f"sqlite:///{tmp_path}/a.db")
    store = tiered.wrap(base, serializer=Json())
    store.mset([("a", {"n": 1})])
    assert base.mget(["a"]) == [b'{"n":1}']
    assert tiered.wrap(TieredStore([base]), serializer=Json()).mget(["a"]) == [{"n": 1}]
    base.close()
