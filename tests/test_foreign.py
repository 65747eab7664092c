"""Stores of somebody else's as tiers: what each layout stores and compares, and every way such a store can go wrong."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.foreign_kit import AsyncOnly, Both, Stuck, SyncOnly
from tiered import Memory
from tiered.backends import _listings, _names
from tiered.backends._listings import IDLE, LISTINGS
from tiered.backends._workers import THREADS, Job
from tiered.backends.foreign import Foreign
from tiered.clock import SYSTEM, ZERO
from tiered.entry import DELETED, INVALID, VALUE, Entry
from tiered.errors import (
    BackendUnavailable,
    BatchError,
    ConfigurationError,
    CorruptEntry,
    FaceUnavailable,
    ForeignValue,
    Indeterminate,
    InvalidValue,
    UnknownVersion,
    Unsupported,
)
from tiered.record import encode
from tiered.serializers import Str
from tiered.testing import memory_stack
from tiered.typed import TypedStore

S = [at.to_bytes(8, "big") + b"test" for at in range(1, 10)]
SOON, LONG = 0.4, 30.0
NOW = 1_000_000


def entry(at: int, value: bytes = b"v", *, kind: int = VALUE, expires: int | None = None) -> Entry:
    return Entry(kind, S[at], expires, value)


class Face:
    """One backend, run by blocking or on a loop."""

    def __init__(self, name: str, backend: Foreign, timeout: float = LONG) -> None:
        self.name, self.backend, self.timeout = name, backend, timeout

    def __call__(self, op: Any, timeout: float | None = None) -> Any:
        timeout = self.timeout if timeout is None else timeout
        if self.name == "sync":
            return self.backend.run(op, timeout)
        return asyncio.run(self.backend.arun(op, timeout))


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Callable[..., Face]:
    made: list[Foreign] = []

    def make(store: Any, *args: Any, **options: Any) -> Face:
        made.append(Foreign(store, *args, **options))
        return Face(request.param, made[-1])

    return make


# -- names -----------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x1f"), max_size=6)
LIKE = st.sampled_from(["", "t1:", "t1:0::", "t1:1:a:", "a", ":", "ü", "t1:2:ü:k", "0", "1:a:b"])


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.tuples(TEXT | LIKE, TEXT | LIKE), st.tuples(TEXT | LIKE, LIKE).map("".join).filter(bool))
def test_invariant_10_names_lead_back_to_where_they_came_from(spaces: tuple[str, str], key: str) -> None:
    for space in spaces:
        [name] = _names.joined(space, [key])
        assert _names.split(name) == (space, key)
    assert (_names.joined(spaces[0], [key]) == _names.joined(spaces[1], [key])) == (spaces[0] == spaces[1])


@pytest.mark.parametrize(
    "name",
    ["", "t1:", "t1:k", "t1:0::k", "t1:01:a:k", "t1:1:a", "t1:1:a:", "t1:9:a:k", "t1:1:ü:k", "t1:-1::k", "\ud800"],
)
def test_names_that_nobody_gave_are_nobody_s(name: str) -> None:
    assert _names.split(name) is None


def test_invariant_10_what_is_there_is_served_and_namespaces_are_kept_apart(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    store.data |= {"old": b"1", "t1:stray": b"2"}
    run = face(store)
    ops = run.backend
    assert run(ops.fetch("", ["old", "t1:stray"])) == [Entry(VALUE, ZERO, None, b"1"), None]
    run(ops.put("", [("t1:stray", entry(0, b"3")), ("k", entry(0, b"4"))], None))
    run(ops.put("dé", [("k", entry(0, b"5"))], None))
    run(ops.put("dé\x1fsub", [("k", entry(0, b"6"))], None))
    assert store.data == {
        "old": b"1",
        "t1:stray": b"2",
        "t1:0::t1:stray": b"3",
        "k": b"4",
        "t1:3:dé:k": b"5",
        "t1:7:dé\x1fsub:k": b"6",
    }
    assert run(ops.scan("", "", None, 10, NOW)) == ["k", "old", "t1:stray"]
    assert run(ops.scan("dé", "", None, 10, NOW)) == ["k"]
    assert run(ops.spaces("dé")) == ["dé\x1fsub"]
    assert run(ops.spaces("")) == []


# -- plain -----------------------------------------------------------------------------------------------------------


def test_plain_values_are_stored_as_they_are_and_the_last_writer_wins(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    run = face(store)
    ops = run.backend
    assert (ops.capabilities.stamps, ops.capabilities.expiry) == (False, False)
    assert run(ops.put("", [("a", entry(5, b"1")), ("b", entry(5, b""))], None)) == {}
    assert run(ops.put("", [("a", entry(1, b"2")), ("b", entry(1, b"", kind=DELETED))], None)) == {}
    assert store.data == {"a": b"2"}
    assert run(ops.fetch("", ["b", "a", "b", "a"])) == [None, Entry(VALUE, ZERO, None, b"2")] * 2
    run(ops.void("", [("a", S[0]), ("zzz", S[0])]))
    assert store.data == {}
    assert run(ops.retract("", [("a", S[0])])) is None
    assert run(ops.purge("", NOW, 0, 10, DELETED)) == 0


def test_r20_plain_swap_and_fill_store_only_what_is_absent(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    store.data["there"] = b"theirs"
    run = face(store)
    ops = run.backend
    items = [("there", entry(9 - 1), None), ("new", entry(0, b"ours"), None), ("seen", entry(8), ZERO)]
    assert run(ops.swap("", items, None)) == {"there", "seen"}
    assert store.data == {"there": b"theirs", "new": b"ours"}
    fills = [("there", entry(8), b""), ("filled", entry(0, b"f"), b""), ("gone", entry(0, b"", kind=DELETED), b"")]
    run(ops.fill("", [*fills, ("mortal", entry(0, b"m", expires=NOW), b"")], None))
    assert store.data == {"there": b"theirs", "new": b"ours", "filled": b"f"}


def test_a_record_in_the_place_of_a_plain_value_is_a_foreign_value(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    store.data |= {"ours": encode(b"ours", entry(3)), "looks": b"\xc1\x01" + bytes(40), "moved": encode(b"x", entry(3))}
    run = face(store)
    ours, looks, moved = run(run.backend.fetch("", ["ours", "looks", "moved"]))
    assert isinstance(ours, ForeignValue)
    assert 'layout="record"' in str(ours)
    assert (looks.value, moved.value) == (store.data["looks"], store.data["moved"])


def test_what_plain_cannot_say_is_refused_before_anything_is_written(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    run = face(store)
    with pytest.raises(Unsupported, match=r"no expiry.*'b'"):
        run(run.backend.put("", [("a", entry(0)), ("b", entry(0, expires=NOW))], None))
    with pytest.raises(InvalidValue, match=r"record of tiered.*'b'"):
        run(run.backend.put("", [("a", entry(0)), ("b", entry(0, encode(b"b", entry(1))))], None))
    assert store.data == {}


# -- records ---------------------------------------------------------------------------------------------------------


def test_records_are_compared_by_stamp(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    run = face(store, "record")
    ops = run.backend
    assert (ops.capabilities.stamps, ops.capabilities.expiry) == (True, True)
    assert run(ops.put("n", [("a", entry(3, b"3")), ("b", entry(3, b"3", expires=NOW))], None)) == {}
    assert store.data["t1:1:n:a"] == encode(b"a", entry(3, b"3"))
    assert run(ops.put("n", [("a", entry(2)), ("b", entry(4, b"4")), ("c", entry(2, b"2"))], None)) == {"a": S[3]}
    assert run(ops.put("n", [("a", entry(3, b"again"))], None)) == {}  # equal: already done
    assert run(ops.fetch("n", ["c", "a", "b", "a", "zzz"])) == [
        *(entry(2, b"2"), entry(3, b"3"), entry(4, b"4"), entry(3, b"3"), None)
    ]
    assert run(ops.put("n", [("a", entry(5, b"", kind=DELETED))], None)) == {}
    assert run(ops.fetch("n", ["a"])) == [entry(5, b"", kind=DELETED)]


def test_r20_records_are_swapped_on_the_stamp_that_was_seen(face: Callable[..., Face]) -> None:
    run = face(SyncOnly(), "record")
    ops = run.backend
    run(ops.put("", [("a", entry(3)), ("b", entry(3))], None))
    items = [("a", entry(1, b"new"), S[3]), ("b", entry(8), S[2]), ("c", entry(8), S[2]), ("d", entry(1, b"d"), None)]
    assert run(ops.swap("", [*items, ("b2", entry(8), None)], None)) == {"b", "c"}
    found = run(ops.fetch("", ["a", "b", "c", "d"]))
    assert found == [entry(1, b"new"), entry(3), None, entry(1, b"d")]
    assert run(ops.swap("", [("a", entry(8), None)], None)) == {"a"}


def test_r8_void_marks_what_is_not_newer_and_absence_too(face: Callable[..., Face]) -> None:
    run = face(SyncOnly(), "record")
    ops = run.backend
    run(ops.put("", [("old", entry(2)), ("same", entry(3)), ("new", entry(4))], None))
    run(ops.void("", [(key, S[3]) for key in ("old", "same", "new", "none")]))
    mark = entry(3, b"", kind=INVALID)
    assert run(ops.fetch("", ["old", "same", "new", "none"])) == [mark, mark, entry(4), mark]
    run(ops.fill("", [("none", entry(2), b""), ("old", entry(3, b"back"), b"")], None))
    assert run(ops.fetch("", ["none", "old"])) == [mark, entry(3, b"back")]


def test_r18_retract_takes_back_its_own_mark_only(face: Callable[..., Face]) -> None:
    run = face(SyncOnly(), "record")
    ops = run.backend
    run(ops.void("", [("mine", S[3]), ("newer", S[4])]))
    run(ops.put("", [("value", entry(3))], None))
    run(ops.retract("", [(key, S[3]) for key in ("mine", "newer", "value", "none")]))
    found = run(ops.fetch("", ["mine", "newer", "value", "none"]))
    assert found == [None, entry(4, b"", kind=INVALID), entry(3), None]


def test_damaged_records_are_replaced_and_what_others_wrote_is_left_alone(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    good = encode(b"damaged", entry(7))
    store.data |= {"damaged": good[:-1] + b"?", "theirs": b"precious", "torn": good[:9], "empty": b""}
    run = face(store, "record")
    ops = run.backend
    damaged, theirs, torn, empty = run(ops.fetch("", ["damaged", "theirs", "torn", "empty"]))
    assert type(theirs) is ForeignValue
    assert type(damaged) is type(torn) is type(empty) is CorruptEntry
    assert run(ops.scan("", "", None, 10, NOW)) == []
    assert run(ops.swap("", [("damaged", entry(8), S[7]), ("theirs", entry(8), None)], None)) == {"damaged", "theirs"}
    run(ops.fill("", [("theirs", entry(8), b"")], None))
    run(ops.void("", [("theirs", S[8])]))
    with pytest.raises(ForeignValue, match="theirs"):
        run(ops.put("", [("fresh", entry(8)), ("theirs", entry(8))], None))
    assert store.data["theirs"] == b"precious"
    assert "fresh" not in store.data
    run(ops.void("", [("damaged", S[0])]))
    run(ops.put("", [("damaged", entry(1)), ("torn", entry(1)), ("empty", entry(1))], None))
    assert run(ops.fetch("", ["damaged", "torn", "empty"])) == [entry(1)] * 3


@pytest.mark.parametrize(
    "theirs", [b"\xc1somebody's ciphertext", b"\xc1", b"\xc1\x02" + bytes(60), b"\xc1\x01" + bytes(12) + b"\xff" * 40]
)
def test_what_others_wrote_is_left_alone_though_it_begins_like_a_record(
    face: Callable[..., Face], theirs: bytes
) -> None:
    store = SyncOnly()
    store.data["k"] = theirs
    run = face(store, "record")
    ops = run.backend
    assert type(run(ops.fetch("", ["k"]))[0]) is ForeignValue
    with pytest.raises(ForeignValue, match="something else wrote them"):
        run(ops.put("", [("k", entry(8))], None))
    assert run(ops.swap("", [("k", entry(8), None)], None)) == {"k"}
    run(ops.void("", [("k", S[8])]))
    run(ops.fill("", [("k", entry(8), b"")], None))
    assert store.data["k"] == theirs


def test_an_empty_value_in_memory_is_somebody_else_s() -> None:
    core = pytest.importorskip("langchain_core.stores")
    store = core.InMemoryByteStore()
    store.mset([("k", b"")])
    backend = Foreign(store, "record")
    with pytest.raises(ForeignValue):
        backend.run(backend.put("", [("k", entry(8))], None), LONG)
    assert store.mget(["k"]) == [b""]


def of_version_2(key: str, at: int) -> bytes:
    raw = bytearray(encode(key.encode(), entry(at)))
    raw[1] = 2
    raw[-4:] = zlib.crc32(raw[:-4], zlib.crc32(key.encode())).to_bytes(4, "little")
    return bytes(raw)


def test_a_record_of_a_newer_release_gives_way_to_a_newer_stamp_only(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    newer = store.data["k"] = of_version_2("k", 5)
    run = face(store, "record")
    ops = run.backend
    assert isinstance(run(ops.fetch("", ["k"]))[0], UnknownVersion)
    assert run(ops.put("", [("k", entry(4))], None)) == {"k": S[5]}
    assert run(ops.put("", [("k", entry(5))], None)) == {}
    run(ops.fill("", [("k", entry(8), b"")], None))
    run(ops.void("", [("k", S[4])]))
    assert store.data["k"] == newer
    run(ops.void("", [("k", S[5])]))
    assert run(ops.fetch("", ["k"])) == [entry(5, b"", kind=INVALID)]
    store.data["k"] = newer
    assert run(ops.put("", [("k", entry(6))], None)) == {}
    assert run(ops.fetch("", ["k"])) == [entry(6)]


def test_r28_a_write_pays_for_a_part_of_a_sweep_only(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    run = face(store, "record")
    ops = run.backend
    stored = {f"k{at}": entry(1, expires=1_000 if at < 3 else NOW) for at in range(1_700)}
    store.data |= {key: encode(key.encode(), value) for key, value in stored.items()}
    read: list[int] = []
    mget = store.mget
    store.mget = lambda keys: read.append(len(keys)) or mget(keys)  # type: ignore[method-assign,func-returns-value]
    buried = []
    for at in range(6):
        read.clear()
        buried.append(run(ops.purge("", 100_000 * (at + 1), 2**40, 2, DELETED)))
        assert sum(read) <= 502
        read.clear()
        run(ops.purge("", 100_000 * (at + 1), 2**40, 2, DELETED))
        assert sum(read) <= 1, "it takes a part of the time, too"
    assert sum(buried) == 2
    assert store.log.count("yield_keys") == 1
    assert run(ops.fetch("", ["k0", "k1", "k2"])) == [entry(1, b"", kind=DELETED, expires=1_000)] * 3
    fresh = Foreign(store, "record")
    assert run(fresh.purge("", 900_000, 2**40, 1_000, DELETED)) == 0
    total = 0
    while rows := run(fresh.purge("", 2**41, 2**42, 1_000, DELETED)):
        total += rows
    assert total == 1_697, "who purges many goes on to the end"


def test_batches_go_in_chunks_each_with_the_whole_time_out(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    run = face(store)
    ops = run.backend
    calls: list[int] = []
    mget, mset = store.mget, store.mset
    store.mget = lambda keys: calls.append(len(keys)) or mget(keys)  # type: ignore[method-assign,func-returns-value]

    def failing(pairs: Any) -> None:
        calls.append(len(pairs))
        if len(calls) == 2:
            raise Broken("disk")
        mset(pairs)

    items = [(f"k{at:04}", entry(1, b"%d" % at)) for at in range(1_200)]
    store.mset = failing  # type: ignore[method-assign]
    with pytest.raises(BatchError) as caught:
        run(ops.put("", items, None))
    keys = [key for key, _ in items]
    assert calls == [500, 500]
    assert (caught.value.written, caught.value.unknown, caught.value.not_written) == (
        *(keys[:500], keys[500:1_000], keys[1_000:]),
    )
    assert caught.value.answered
    calls[:] = [0, 0]
    run(ops.put("", items, None))
    assert calls == [0, 0, 500, 500, 200]
    calls.clear()
    found = run(ops.fetch("", [*keys, "k0000"]))
    assert calls == [500, 500, 200]
    assert [one.value for one in found] == [b"%d" % at for at in (*range(1_200), 0)]
    store.data.clear()
    bad = [*items[:-1], ("bad", entry(1, expires=NOW))]
    for write in (ops.put("", bad, None), ops.swap("", [(*item, None) for item in bad], None)):
        with pytest.raises(Unsupported, match="'bad'"):
            run(write)
    assert store.data == {}


def test_a_batch_that_fails_before_anything_was_written_says_so(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    store.data["k0"] = b"theirs"
    run = face(store, "record")
    items = [(f"k{at}", entry(1)) for at in range(600)]
    with pytest.raises(ForeignValue):
        run(run.backend.put("", items, None))
    assert store.data == {"k0": b"theirs"}
    store.data["k599"] = store.data.pop("k0")
    with pytest.raises(BatchError) as caught:
        run(run.backend.put("", items, None))
    assert (len(caught.value.written), len(caught.value.not_written), caught.value.unknown) == (500, 100, [])


async def test_large_values_are_packed_and_unpacked_off_the_loop() -> None:
    store = Both()
    backend = Foreign(store, "record")
    here: list[bool] = []

    def packing(payload: bytes) -> tuple[int, bytes]:
        here.append(threading.current_thread() is threading.main_thread())
        return 0, payload

    await backend.arun(backend.put("", [("small", entry(1))], packing), LONG)
    await backend.arun(backend.put("", [("large", entry(1, bytes(2**17)))], packing), LONG)
    assert here == [True, False]
    assert await backend.arun(backend.fetch("", ["large"]), LONG) == [entry(1, bytes(2**17))]

    class Watched(Upper):
        def dumps(self, value: Any) -> bytes:
            here.append(threading.current_thread() is threading.main_thread())
            return super().dumps(value)

    store.data = {f"k{at}": "V" for at in range(2_000)}
    plain = Foreign(store, serializer=Watched())
    plain._peer.inline = True  # as with a stack of ours: in one chunk
    here.clear()
    assert len(await plain.arun(plain.fetch("", list(store.data)), LONG)) == 2_000
    assert set(here) == {False}


def test_r28_what_expired_is_buried_and_what_was_buried_goes(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    run = face(store, "record")
    ops = run.backend
    assert run(ops.purge("", 0, 100, 10, DELETED)) == 0
    run(ops.put("", [(f"k{at}", entry(1, expires=1_000 + at)) for at in range(5)], None))
    run(ops.put("", [("kept", entry(1)), ("later", entry(1, expires=NOW))], None))
    run(ops.put("other", [("k", entry(1, expires=1))], None))
    before = store.log.count("mget")
    assert run(ops.purge("", 500, 100, 10, DELETED)) == 0
    rounds = [run(ops.purge("", 900_000, 100, 2, INVALID)) for _ in range(3)]
    assert rounds == [2, 2, 1]
    assert run(ops.fetch("", ["k0"])) == [Entry(INVALID, S[1], 1_000, b"")]
    assert run(ops.purge("", 2**40, 100, 10, INVALID)) == 6  # the five marks, and what expired since
    assert sorted(store.data) == ["kept", "later", "t1:5:other:k"]
    assert run(ops.fetch("", ["kept", "later"])) == [entry(1), Entry(INVALID, S[1], NOW, b"")]
    assert store.log.count("mget") > before
    asked = len(store.log)
    assert run(ops.purge("", 2**40 - 1, 100, 10, INVALID)) == 0
    assert len(store.log) == asked, "nothing can be due, so nothing is read"


# -- compare and set -------------------------------------------------------------------------------------------------


def started(work: Callable[[], Any]) -> Any:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


@pytest.mark.parametrize("kind", [SyncOnly, Both])
def test_nobody_else_writes_between_compare_and_set(face: Callable[..., Face], kind: Any) -> None:
    """The first write has compared and is about to set; the other one, of another object, must not compare yet."""
    store = kind()
    first, second = face(store, "record"), face(store, "record")
    with Stuck(store, "mset") as stuck:
        older = started(lambda: first(first.backend.put("", [("a", entry(1, b"older"))], None)))
        assert stuck.held.acquire(timeout=LONG)
        newer = started(lambda: second(second.backend.put("", [("a", entry(5, b"newer"))], None)))
        stuck.release()
        assert (older.result(LONG), newer.result(LONG)) == ({}, {})
    assert first(first.backend.fetch("", ["a"])) == [entry(5, b"newer")]


@pytest.mark.parametrize("kind", [SyncOnly, Both])
def test_threads_and_loops_together_end_with_the_newest(kind: Any) -> None:
    store = kind()
    wrong: list[Any] = []

    def write(number: int) -> None:
        backend = Foreign(store, "record")
        mine = [(f"k{at % 5}", Entry(VALUE, (at * 31 % 97).to_bytes(12, "big"), None, b"")) for at in range(60)]
        mine = mine[number:] + mine[:number]
        if number % 2:
            for item in mine:
                backend.run(backend.put("", [item], None), LONG)
        else:

            async def all_at_once() -> None:
                await asyncio.gather(*(backend.arun(backend.put("", [item], None), LONG) for item in mine))

            asyncio.run(all_at_once())
        for key in range(5):
            [found] = backend.run(backend.fetch("", [f"k{key}"]), LONG)
            best = max(item.stamp for name, item in mine if name == f"k{key}")
            if found.stamp != best:
                wrong.append((number, key, found.stamp, best))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert wrong == []


@pytest.mark.parametrize("layout", ["plain", "record"])
def test_a_value_is_not_read_while_it_is_being_written(face: Callable[..., Face], layout: Any) -> None:
    """LocalFileStore empties a file before it fills it."""
    store = SyncOnly()
    run = face(store, layout)
    with Stuck(store, "mset") as stuck:
        writing = started(lambda: run(run.backend.put("", [("a", entry(1, b"whole"))], None)))
        assert stuck.held.acquire(timeout=LONG)
        store.data["a"] = encode(b"a", entry(1))[:20]
        reading = started(lambda: run(run.backend.fetch("", ["a"])))
        with pytest.raises(BackendUnavailable, match="other operations on these keys") as caught:
            run(run.backend.fetch("", ["a"]), SOON)
        assert caught.value.answered, "it is this key, not the store"
        stuck.release()
        writing.result(LONG)
    [found] = reading.result(LONG)
    assert found.value == b"whole"


# -- stores that lie -------------------------------------------------------------------------------------------------

LIES: dict[str, Any] = {
    "one too few": lambda values: values[:-1],
    "one too many": lambda values: [*values, b"x"],
    "nothing": lambda values: [],
    "text": lambda values: ["text" for _ in values],
    "a number": lambda values: [1 for _ in values],
    "a list": lambda values: [[b"x"] for _ in values],
}


@pytest.mark.parametrize("kind", [SyncOnly, Both])
@pytest.mark.parametrize("layout", ["plain", "record"])
@pytest.mark.parametrize("lie", LIES)
def test_wrong_answers_are_errors_and_never_values(face: Callable[..., Face], lie: str, layout: Any, kind: Any) -> None:
    store = kind()
    run = face(store, layout)
    run(run.backend.put("", [("a", entry(1)), ("b", entry(1))], None))
    stored = dict(store.data)
    store.after = lambda method, answer: LIES[lie](answer) if method == "mget" else answer
    with pytest.raises(BackendUnavailable, match=r"mget\(\) of (SyncOnly|Both) answered") as caught:
        run(run.backend.fetch("", ["a", "b", "c"]))
    assert caught.value.answered, "trying again would not help"
    if layout == "record":
        with pytest.raises(BackendUnavailable):
            run(run.backend.put("", [("a", entry(5)), ("b", entry(5))], None))
        assert store.data == stored


@pytest.mark.parametrize("lie", [None, 7, b"bytes"])
def test_answers_that_are_no_list_at_all_are_errors(face: Callable[..., Face], lie: Any) -> None:
    store = SyncOnly()
    store.after = lambda method, answer: lie
    run = face(store)
    with pytest.raises(BackendUnavailable, match=r"mget\(\) of SyncOnly"):
        run(run.backend.fetch("", ["a", "b"]))


def test_bytes_by_another_name_are_bytes(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    store.data |= {"a": bytearray(b"1"), "b": memoryview(b"2"), "c": type("Own", (bytes,), {})(b"3")}
    run = face(store)
    found = run(run.backend.fetch("", ["a", "b", "c"]))
    assert [(type(one.value), one.value) for one in found] == [(bytes, b"1"), (bytes, b"2"), (bytes, b"3")]


@pytest.mark.parametrize("kind", [SyncOnly, Both])
def test_listings_leave_out_repeats_and_refuse_what_is_no_name(face: Callable[..., Face], kind: Any) -> None:
    store = kind()
    run = face(store)
    store.after = lambda method, answer: ["b", "a", "b", "", "\ud800", "a"]
    assert run(run.backend.scan("", "", None, 10, NOW)) == ["a", "b"]
    store.after = lambda method, answer: ["a", b"b"]
    with pytest.raises(BackendUnavailable, match="a bytes among its keys"):
        run(run.backend.scan("", "", None, 10, NOW))


# -- stores that raise -----------------------------------------------------------------------------------------------


class Broken(Exception):
    pass


def raising(error: BaseException) -> Callable[[str], object]:
    def before(method: str) -> object:
        raise error

    return before


@pytest.mark.parametrize("kind", [SyncOnly, Both])
@pytest.mark.parametrize("error", [Broken("secret"), TimeoutError("secret"), StopIteration("secret")])
def test_what_it_raises_is_ours_with_the_cause_linked(face: Callable[..., Face], error: Exception, kind: Any) -> None:
    store = kind()
    store.before = raising(error)
    run = face(store)
    ops = run.backend
    for read in (ops.fetch("", ["a"]), ops.scan("", "", None, 10, NOW), ops.ping(), ops.spaces("")):
        with pytest.raises(BackendUnavailable, match=r"raised \w+") as caught:
            run(read)
        assert caught.value.answered == (not isinstance(error, TimeoutError)), "a call that returned is no outage"
        assert "secret" not in str(caught.value)
        assert "secret" in "".join(traceback.format_exception(caught.value))
    for write in (ops.put("", [("a", entry(1))], None), ops.void("", [("a", S[1])])):
        with pytest.raises(Indeterminate, match="raised"):
            run(write)
    with pytest.raises(BackendUnavailable):  # it failed before anything was set
        run(ops.swap("", [("a", entry(1), None)], None))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_passes(error: Any) -> None:
    store = SyncOnly()
    store.before = raising(error())
    run = Face("sync", Foreign(store))
    with pytest.raises(error):
        run(run.backend.fetch("", ["a"]))
    store.before = lambda method: None
    assert run(run.backend.fetch("", ["a"])) == [None]


async def test_a_cancellation_passes_and_frees_the_keys() -> None:
    store = Both()
    backend = Foreign(store, "record")
    entered, never = asyncio.Event(), asyncio.Event()

    async def wait(method: str) -> None:
        entered.set()
        await never.wait()

    store.abefore = wait
    task = asyncio.create_task(backend.arun(backend.put("", [("a", entry(1))], None), LONG))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    store.abefore = lambda method: asyncio.sleep(0)
    assert await backend.arun(backend.put("", [("a", entry(2))], None), LONG) == {}


def test_errors_of_a_stack_of_ours_are_passed_on_with_our_keys(face: Callable[..., Face]) -> None:
    from tiered.errors import BatchError, StoreClosed

    store = SyncOnly()
    run = face(store)
    store.before = raising(BatchError("part", written=["t1:1:n:a"], not_written=["t1:1:n:b"], unknown=["t1:1:n:c"]))
    with pytest.raises(BatchError, match="SyncOnly: part") as caught:
        run(run.backend.put("n", [(key, entry(1)) for key in "abc"], None))
    assert (caught.value.written, caught.value.not_written, caught.value.unknown) == (["a"], ["b"], ["c"])
    store.before = raising(StoreClosed("closed"))
    with pytest.raises(StoreClosed):
        run(run.backend.put("n", [("a", entry(1))], None))


# -- stores that do not answer ---------------------------------------------------------------------------------------


def test_a_read_that_hangs_is_given_up(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    run = face(store, "record")
    with (
        Stuck(store, "mget"),
        pytest.raises(BackendUnavailable, match=r"mget\(\) of SyncOnly: it did not answer within"),
    ):
        run(run.backend.fetch("", ["a"]), SOON)
    assert run(run.backend.fetch("", ["a"])) == [None]


@pytest.mark.parametrize("layout", ["plain", "record"])
def test_e11_a_write_that_hangs_cannot_land_after_a_later_one_of_this_process(
    face: Callable[..., Face], layout: Any
) -> None:
    store = SyncOnly()
    run = face(store, layout)
    ops = run.backend
    with Stuck(store, "mset") as stuck:
        with pytest.raises(Indeterminate, match=r"mset\(\) of SyncOnly: it did not answer"):
            run(ops.put("", [("a", entry(1, b"late"))], None), SOON)
        with pytest.raises(BackendUnavailable, match="other operations on these keys"):
            run(ops.put("", [("a", entry(2, b"later"))], None), SOON)
        assert store.log.count("mset") == 1
    assert stuck.ended.acquire(timeout=LONG)
    run(ops.put("", [("a", entry(2, b"later"))], None))
    assert [found.value for found in run(ops.fetch("", ["a"]))] == [b"later"]


def test_invariant_11_stuck_calls_are_bounded_and_then_fail_at_once(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    run = face(store, "record")
    with Stuck(store, "mget") as stuck:
        held = 0
        while held < THREADS:  # one may be given up before its thread has begun
            with pytest.raises(BackendUnavailable):
                run(run.backend.fetch("", ["a"]), 0.01)
            held += stuck.held.acquire(blocking=False)
        for _ in range(3):
            with pytest.raises(BackendUnavailable, match=f"all of its {THREADS} threads are held"):
                run(run.backend.fetch("", ["a"]), LONG)
            with pytest.raises(BackendUnavailable, match="threads are held"):
                run(run.backend.put("", [("b", entry(1))], None), LONG)
        assert store.log.count("mget") == THREADS
    for _ in range(THREADS):
        assert stuck.ended.acquire(timeout=LONG)
    freed = False
    while not freed:  # the threads are about to be free
        try:
            freed = run(run.backend.fetch("", ["a"])) == [None]
        except BackendUnavailable:
            continue


def test_calls_that_wait_for_a_thread_and_give_up_have_not_been_sent() -> None:
    store = SyncOnly()
    backend = Foreign(store)
    free, *keys = (f"k{at}" for at in range(THREADS + 1))
    with Stuck(store, "mset") as stuck:
        slow = [started(lambda key=key: backend.run(backend.put("", [(key, entry(1))], None), LONG)) for key in keys]
        for _ in range(THREADS):
            assert stuck.held.acquire(timeout=LONG)
        with pytest.raises(BackendUnavailable, match=f"all of its {THREADS} threads were busy"):
            backend.run(backend.put("", [(free, entry(1))], None), SOON)
        stuck.release()
        assert [future.result(LONG) for future in slow] == [{}] * THREADS
    assert free not in store.data
    backend.run(backend.put("", [(free, entry(1))], None), LONG)  # its keys are free again


async def test_the_loop_goes_on_while_a_blocking_store_blocks() -> None:
    store = SyncOnly()
    backend = Foreign(store)
    with Stuck(store, "mget") as stuck:
        task = asyncio.create_task(backend.arun(backend.fetch("", ["a"]), LONG))
        assert await asyncio.to_thread(stuck.held.acquire, timeout=LONG)
        assert not task.done()
        stuck.release()
        assert await task == [None]
    assert threading.get_ident() not in store.threads


async def test_a_native_method_that_hangs_is_given_up_and_its_own_time_out_is_not_ours() -> None:
    store = Both()
    backend = Foreign(store)
    never = asyncio.Event()
    store.abefore = lambda method: never.wait()
    with pytest.raises(BackendUnavailable, match="it did not answer within"):
        await backend.arun(backend.fetch("", ["a"]), SOON)
    with pytest.raises(Indeterminate, match="it did not answer within"):
        await backend.arun(backend.put("", [("a", entry(1))], None), SOON)
    with pytest.raises(BackendUnavailable, match="it did not answer within"):
        await backend.arun(backend.scan("", "", None, 10, NOW), SOON)
    store.abefore = lambda method: asyncio.sleep(0)
    store.before = raising(TimeoutError())
    with pytest.raises(BackendUnavailable, match="raised TimeoutError"):
        await backend.arun(backend.fetch("", ["a"]), LONG)


def test_a_listing_may_take_any_time_as_long_as_names_keep_coming(
    face: Callable[..., Face], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name comes each time that the caller's patience has just run out."""
    store = SyncOnly()
    run = face(store)
    out_of_patience = threading.Semaphore(0)
    ended, wait = Job.ended, asyncio.wait

    def watched(job: Job, timeout: float) -> bool:
        if ended(job, timeout):
            return True
        out_of_patience.release()
        return False

    async def awaited(*args: Any, **options: Any) -> Any:
        done, pending = await wait(*args, **options)
        if not done:
            out_of_patience.release()
        return done, pending

    monkeypatch.setattr(Job, "ended", watched)
    monkeypatch.setattr(asyncio, "wait", awaited)

    def slowly(method: str, answer: Any) -> Iterator[str]:
        for name in "abc":
            yield name
            assert out_of_patience.acquire(timeout=LONG)

    store.after = slowly
    assert run(run.backend.scan("", "", None, 10, NOW), 0.5) == list("abc")


async def test_a_native_listing_may_take_any_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    began, passed = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: began() + passed)

    class Slow(Both):
        async def ayield_keys(self, *, prefix: str | None = None) -> Any:
            nonlocal passed
            for name in "abc":
                passed += 0.8 * LONG
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                yield name

    backend = Foreign(Slow())
    assert await backend.arun(backend.scan("", "", None, 10, NOW), LONG) == list("abc")


def test_pages_go_on_in_one_listing_and_few_are_kept(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    store.data = dict.fromkeys(map("k{:02}".format, range(25)), b"")
    run = face(store)
    ops = run.backend
    kept = ops._listings._kept

    def page(prefix: str, after: str | None) -> list[str]:
        return run(ops.scan("", prefix, after, 10, NOW))

    first = page("k", None)
    store.data["k00+"] = b""
    second = page("k", first[-1])
    assert store.log == ["yield_keys"]
    assert (first + second + page("k", second[-1])) == [f"k{at:02}" for at in range(25)]
    assert not kept, "it has ended"
    store.data = {f"{number}:{at:02}": b"" for number in range(LISTINGS + 1) for at in range(11)}
    prefixes = [f"{number}:" for number in range(40)]
    pages = [page(prefix, None) for prefix in prefixes]
    asked = store.log.count("yield_keys")
    assert all(len(page(prefix, pages[at][-1])) == 1 for at, prefix in enumerate(prefixes))
    assert store.log.count("yield_keys") == asked, "so many at once each go on in their own"
    assert not kept
    for number in range(LISTINGS + 1):
        page(f"{number}:", None)
    assert len(kept) == LISTINGS
    asked = store.log.count("yield_keys")
    assert page("0:", "0:09") == ["0:10"]
    assert store.log.count("yield_keys") == asked + 1, "a listing that was dropped begins anew where it was"


@pytest.mark.parametrize("count", [0, 1, 9, 10, 25])
def test_keys_are_sorted_part_by_part(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_listings, "_PART", 10)
    keys = [f"{at * 7 % 25:02}" for at in range(count)]
    assert _listings.in_order(set(keys)) == sorted(keys)


def test_listings_are_forgotten_when_nobody_goes_on_or_they_hold_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SyncOnly()
    store.data = dict.fromkeys(map("k{:02}".format, range(25)), b"")
    backend = Foreign(store)
    kept, passed = backend._listings._kept, 0.0
    began = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: began() + passed)

    def page(prefix: str, after: str | None) -> list[str]:
        return backend.run(backend.scan("", prefix, after, 10, NOW), LONG)

    page("", None)
    page("k", None)
    passed = 0.6 * IDLE
    backend.run(backend.purge("", NOW, 0, 1, DELETED), LONG)
    page("k", "k09")
    passed = 1.2 * IDLE
    backend.run(backend.purge("", NOW, 0, 1, DELETED), LONG)
    assert list(kept) == [("", "k")], "nobody went on with the other"
    monkeypatch.setattr(_listings, "KEYS", 30)
    page("", None)
    assert list(kept) == [("", "")]


@pytest.mark.parametrize("layout", ["plain", "record"])
def test_an_interrupt_after_any_call_leaves_the_keys_free(layout: Any) -> None:
    """Ctrl-C is raised after the first call made in there, after the second, and so on."""
    ours = {f"tiered.backends.{name}" for name in ("_locks", "_workers", "_peer", "_calls", "foreign")}
    store = SyncOnly()
    backend = Foreign(store, layout)
    calls = due = struck = 0

    def strike(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls, struck
        if event in ("call", "c_return") and frame.f_globals["__name__"] in ours:
            calls += 1
            if calls == due:
                struck += 1
                raise KeyboardInterrupt

    while struck == due:
        due, calls = due + 1, 0
        write = backend.put("", [("a", Entry(VALUE, due.to_bytes(12, "big"), None, b"1"))], None)
        sys.setprofile(strike)
        try:
            backend.run(write, LONG)
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        write.close()
        waiting = started(
            lambda: backend.run(backend.put("", [("a", Entry(VALUE, b"\xff" * 12, None, b"2"))], None), 5)
        )
        assert waiting.result(LONG) == {}, due
        store.data.clear()
    assert struck > 50
    assert backend._peer.locks._lines == {}
    assert not backend._peer._workers._running


# -- faces -----------------------------------------------------------------------------------------------------------


async def test_native_methods_are_awaited_where_the_caller_is() -> None:
    store = Both()
    backend = Foreign(store)
    await backend.arun(backend.put("", [("a", entry(1))], None), LONG)
    await backend.arun(backend.fetch("", ["a"]), LONG)
    assert await backend.arun(backend.scan("", "", None, 10, NOW), LONG) == ["a"]
    assert store.threads == {threading.get_ident()}


def test_a_face_that_a_store_does_not_implement_is_said_to_be_missing() -> None:
    store = AsyncOnly()
    backend = Foreign(store)
    for op in (backend.fetch("", ["a"]), backend.put("", [("a", entry(1))], None), backend.scan("", "", None, 9, 0)):
        with pytest.raises(
            FaceUnavailable, match=r"AsyncOnly does not implement \w+\(\): use the face that has a\w+\(\)"
        ):
            backend.run(op, LONG)
    asyncio.run(backend.arun(backend.put("", [("a", entry(1))], None), LONG))
    assert asyncio.run(backend.arun(backend.fetch("", ["a"]), LONG)) == [Entry(VALUE, ZERO, None, b"v")]


def test_a_method_that_no_face_implements_is_unsupported(face: Callable[..., Face]) -> None:
    class ReadOnly(SyncOnly):
        def mset(self, key_value_pairs: Any) -> None:
            raise NotImplementedError

    run = face(ReadOnly())
    with pytest.raises(Unsupported, match=r"ReadOnly does not implement mset\(\)"):
        run(run.backend.put("", [("a", entry(1))], None))


def test_threads_see_the_caller_s_context(face: Callable[..., Face]) -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    store = SyncOnly()
    seen: list[str] = []
    store.before = lambda method: seen.append(who.get())
    run = face(store)
    token = who.set("caller")
    run(run.backend.fetch("", ["a"]))
    who.reset(token)
    assert seen == ["caller"]
    assert threading.get_ident() not in store.threads


def test_stores_in_memory_are_called_where_the_caller_is() -> None:
    core = pytest.importorskip("langchain_core.stores")
    before = threading.active_count()
    backend = Foreign(core.InMemoryByteStore())
    backend.mset({"a": b"1"})
    assert backend.mget(["a"]) == [b"1"]
    assert list(backend.yield_keys()) == ["a"]
    assert threading.active_count() == before

    class Own(core.InMemoryByteStore):  # type: ignore[misc,name-defined]
        where = 0

        def mget(self, keys: Any) -> Any:
            self.where = threading.get_ident()
            return super().mget(keys)

    own = Own()
    Foreign(own).mget(["a"])
    assert own.where != threading.get_ident(), "who knows what a method of its own does"


def test_a_dictionary_is_not_listed_while_it_changes() -> None:
    core = pytest.importorskip("langchain_core.stores")
    store = core.InMemoryByteStore()
    store.mset([(f"k{at}", b"") for at in range(2_000)])
    backend, other = Foreign(store), Foreign(store)
    stop = threading.Event()

    def write() -> None:
        at = 0
        while not stop.is_set():
            at += 1
            other.mset([(f"new{at}", b"")])
            other.mdelete([f"new{at - 500}"])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(30):
            assert len(list(backend.yield_keys(prefix="k"))) == 2_000
            assert len(asyncio.run(backend.arun(backend.scan("", "k", None, 3_000, NOW), LONG))) == 2_000
    finally:
        stop.set()
        writer.join()


def test_a_typed_store_is_given_up_too() -> None:
    """Who knows what lies under it."""
    under = SyncOnly()
    backend = Foreign(TypedStore(under, Str()), serializer=Str())
    with Stuck(under, "mget") as stuck:
        with pytest.raises(BackendUnavailable, match="did not answer within"):
            backend.run(backend.fetch("", ["a"]), SOON)
        stuck.release()
    stack = memory_stack()
    assert Foreign(stack)._peer.inline
    assert Foreign(stack.scoped("x"))._peer.inline
    stack.close()


def test_idle_threads_end_when_it_is_closed_and_come_back(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    run = face(store)
    run(run.backend.fetch("", ["a"]))
    [worker] = [thread for thread in threading.enumerate() if thread.ident in store.threads]
    run.backend.close()
    worker.join(LONG)
    assert not worker.is_alive()
    assert run(run.backend.fetch("", ["a"])) == [None]
    asyncio.run(run.backend.aclose())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_threads_and_locks_of_its_own() -> None:
    store = SyncOnly()
    backend = Foreign(store, "record")
    with Stuck(store, "mset") as stuck:
        future = started(lambda: backend.run(backend.put("", [("a", entry(1))], None), LONG))
        assert stuck.held.acquire(timeout=LONG)  # the key is locked, by a thread that the child does not have
        child = os.fork()
        if child == 0:
            store.before = lambda method: None
            store.after = lambda method, answer: answer
            try:
                fine = backend.run(backend.put("", [("a", entry(2))], None), LONG) == {}
                os._exit(0 if fine else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        stuck.release()
        assert future.result(LONG) == {}


# -- the object ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (lambda: Foreign({}), "dict is not a store"),
        (lambda: Foreign(SyncOnly), "SyncOnly is not a store"),
        (lambda: Foreign(Memory()), "is a tier itself"),
        (lambda: Foreign(SyncOnly(), layout="records"), "layout='records'"),  # type: ignore[arg-type]
        (lambda: Foreign(SyncOnly(), namespace="a\x1fb"), "namespace"),
        (lambda: Foreign(SyncOnly(), serializer=3), "serializer=int"),  # type: ignore[arg-type]
        (lambda: Foreign(SyncOnly(), "record", serializer=Upper()), "serializer= is for the plain layout"),
    ],
)
def test_bad_arguments_are_refused(bad: Callable[[], Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        bad()


def test_it_says_what_it_is_and_two_over_one_store_are_the_same_place() -> None:
    one, other = SyncOnly(), SyncOnly()
    one.data["key"] = b"secret"
    assert repr(Foreign(one, namespace="n")) == "Foreign(SyncOnly, layout='plain', namespace='n')"
    assert Foreign(one).identity == Foreign(one, "record").identity != Foreign(other).identity
    assert hash(Foreign(one).identity) is not None
    assert Foreign(one).scheme == "foreign"


def test_duck_typed_stores_need_no_asynchronous_methods() -> None:
    class Duck:
        def __init__(self) -> None:
            self.inner = SyncOnly()
            for name in ("mget", "mset", "mdelete", "yield_keys"):
                setattr(self, name, getattr(self.inner, name))

    backend = Foreign(Duck())
    backend.mset({"a": b"1"})
    assert asyncio.run(backend.amget(["a", "b"])) == [b"1", None]


# -- other values than bytes -----------------------------------------------------------------------------------------


class Upper:
    """Values are upper-case texts."""

    def dumps(self, value: Any) -> bytes:
        return value.lower().encode()

    def loads(self, data: bytes) -> Any:
        return data.decode().upper()


def test_a_serializer_stands_between_bytes_and_the_values_of_the_store(face: Callable[..., Face]) -> None:
    store = SyncOnly()
    store.data |= {"a": "ÄB", "odd": 7}
    run = face(store, serializer=Upper())
    ops = run.backend
    a, odd, none = run(ops.fetch("", ["a", "odd", "none"]))
    assert (a.value, none) == ("äb".encode(), None)
    assert isinstance(odd, ForeignValue)
    assert isinstance(odd.__cause__, AttributeError)
    run(ops.put("", [("b", entry(1, b"xyz"))], None))
    assert store.data["b"] == "XYZ"
    with pytest.raises(InvalidValue, match="serializer"):
        run(ops.put("", [("c", entry(1, b"ok")), ("d", entry(1, b"\xff"))], None))
    assert "c" not in store.data
    assert run(ops.swap("", [("a", entry(1, b"new"), None), ("e", entry(1, b"e"), None)], None)) == {"a"}
    assert (store.data["a"], store.data["e"]) == ("ÄB", "E")


def test_the_bare_backend_is_a_store_of_its_own() -> None:
    backend = Foreign(SyncOnly(), "record")
    backend.mset({"a": b"1"})
    newest = SYSTEM.draw()
    assert backend.mget(["a"]) == [b"1"]
    assert SYSTEM.draw() > newest
