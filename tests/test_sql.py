"""The SQLite backend by itself: what each operation promises, bad input, damage, locks, cancellation."""

from __future__ import annotations

import _thread
import asyncio
import random
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tiered.backends import _sql_batches, _sql_record, _sqlite
from tiered.backends._clients import READERS
from tiered.backends._requests import Many, Query, Slots, Transaction, Turn
from tiered.backends.sql import SQL
from tiered.clock import Clock
from tiered.entry import DELETED, INVALID, VALUE, Entry, beats
from tiered.errors import (
    BackendUnavailable,
    BatchError,
    ConfigurationError,
    CorruptEntry,
    ForeignValue,
    Indeterminate,
    TieredError,
    UnknownVersion,
)
from tiered.record import decode, decode_rows, encode

NS = "docs"
Run = Callable[[Any], Any]


def stamp(at: int, writer: int = 1) -> bytes:
    """The stamp of writer 1 at `at` milliseconds."""
    return (at * 1000).to_bytes(8, "big") + writer.to_bytes(4, "big")


def value(at: int, payload: bytes = b"v", expires: int | None = None) -> Entry:
    return Entry(VALUE, stamp(at), expires, payload)


def deleted(at: int, expires: int | None = None) -> Entry:
    return Entry(DELETED, stamp(at), expires, b"")


def invalid(at: int) -> Entry:
    return Entry(INVALID, stamp(at), None, b"")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQL]:
    store = SQL(f"sqlite:///{path}", namespace=NS)
    yield store
    store.close()


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest, store: SQL) -> Iterator[Run]:
    """Runs an operation by either executor."""
    if request.param == "sync":
        yield lambda op: store.run(op, 5.0)
        return
    with asyncio.Runner() as runner:
        yield lambda op: runner.run(store.arun(op, 5.0))


@pytest.fixture
def raw(store: SQL, path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else to the same file, in autocommit."""
    store.run(store.ping(), 5.0)
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    yield connection
    connection.close()


def put(run: Run, store: SQL, *items: tuple[str, Entry]) -> Any:
    return run(store.put(NS, items, None))


def fetch(run: Run, store: SQL, *keys: str) -> Any:
    return run(store.fetch(NS, keys))


def scan(run: Run, store: SQL, prefix: str = "", after: str | None = None, limit: int = 1000, now: int = 0) -> Any:
    return run(store.scan(NS, prefix, after, limit, now))


# -- reading and writing -----------------------------------------------------------------------------------------


def test_rows_come_in_the_order_asked_with_repeats_and_gaps(store: SQL, run: Run) -> None:
    put(run, store, ("a", value(1, b"1")), ("b", value(1, b"")))
    found = fetch(run, store, "b", "zz", "a", "b")
    assert [entry and entry.value for entry in found] == [b"", None, b"1", b""]


@pytest.mark.parametrize(
    "key", ["a", "é", "漢字", "\U0001f600", "\U0010ffff", "n\0ul", "\0", "'\"\\", "x" * 65_535, "\ufeff", "\x7f\x80"]
)
def test_any_key_is_itself_and_no_other(store: SQL, run: Run, key: str) -> None:
    assert put(run, store, (key, value(1, b"it")), ("other", value(1, b"other"))) == {}
    found = fetch(run, store, key, key + "x", "other", key)
    assert [entry and entry.value for entry in found] == [b"it", None, b"other", b"it"]
    assert scan(run, store, key) == [key]


def test_a_key_cut_at_its_nul_is_another_key(store: SQL, run: Run) -> None:
    put(run, store, ("a", value(1, b"short")), ("a\0b", value(1, b"long")))
    assert [entry.value for entry in fetch(run, store, "a\0b", "a")] == [b"long", b"short"]


def test_every_kind_keeps_stamp_expiry_and_soft_expiry(store: SQL, run: Run) -> None:
    entries = [
        Entry(VALUE, stamp(5), None, b"v"),
        Entry(VALUE, stamp(5), 9, b"expired long ago"),
        Entry(VALUE, stamp(5), 2**63, b"far"),
        Entry(VALUE, stamp(5), 9_000, b"soft", 8_000),
        Entry(DELETED, stamp(5), None, b""),
        Entry(DELETED, stamp(5), 7, b""),
        Entry(INVALID, stamp(5), None, b"12345678"),
    ]
    put(run, store, *((f"k{at}", entry) for at, entry in enumerate(entries)))
    assert fetch(run, store, *(f"k{at}" for at in range(len(entries)))) == entries


def test_batches_beyond_one_statement(store: SQL, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sql_batches, "CHUNK", 7)
    monkeypatch.setattr(_sql_batches, "NAMED", 3)
    keys = [f"k{at}" for at in range(40)]
    assert put(run, store, *((key, value(1, key.encode())) for key in keys)) == {}
    assert [entry.value.decode() for entry in fetch(run, store, *reversed(keys))] == keys[::-1]
    asked = [*keys, "no\0such", *keys]
    assert [entry and entry.value.decode() for entry in fetch(run, store, *asked)] == [*keys, None, *keys]


def test_transactions_are_bounded_in_bytes(store: SQL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sql_batches, "CHUNK_BYTES", 1_000)
    sent: list[Any] = []
    perform = store._clients.perform
    monkeypatch.setattr(store._clients, "perform", lambda *request: sent.append(1) or perform(*request))
    store.run(store.put(NS, [(f"k{at}", value(1, b"x" * 400)) for at in range(9)], None), 5.0)
    assert len(sent) == 3


def test_an_empty_batch_does_nothing(store: SQL, run: Run, path: Path) -> None:
    assert put(run, store) == {}
    assert fetch(run, store) == []
    assert run(store.swap(NS, [], None)) == set()
    run(store.void(NS, []))
    assert not path.exists()


def test_namespaces_are_apart(store: SQL, run: Run) -> None:
    run(store.put("a", [("b:c", value(1, b"1"))], None))
    run(store.put("a:b", [("c", value(1, b"2"))], None))
    run(store.put("", [("c", value(1, b"3"))], None))
    assert [run(store.scan(space, "", None, 9, 0)) for space in ("a", "a:b", "", "zz")] == [["b:c"], ["c"], ["c"], []]
    assert [run(store.fetch(space, ["c"]))[0] is None for space in ("a", "a:b", "")] == [True, False, False]


# -- stamps ------------------------------------------------------------------------------------------------------


def test_a_newer_stamp_wins_and_the_refused_are_told_it(store: SQL, run: Run) -> None:
    put(run, store, ("a", value(5, b"five")), ("b", value(1, b"one")))
    refused = put(run, store, ("a", value(3, b"three")), ("b", value(3, b"three")), ("c", value(3, b"three")))
    assert refused == {"a": stamp(5)}
    assert [entry.value for entry in fetch(run, store, "a", "b", "c")] == [b"five", b"three", b"three"]


def test_the_writer_breaks_a_tie_of_time(store: SQL, run: Run) -> None:
    high, low = Entry(VALUE, stamp(1, 9), None, b"9"), Entry(VALUE, stamp(1, 8), None, b"8")
    put(run, store, ("a", high))
    assert put(run, store, ("a", low)) == {"a": stamp(1, 9)}


def test_the_same_write_again_is_done_already(store: SQL, run: Run) -> None:
    items = [("a", value(5)), ("b", deleted(5)), ("c\0", value(5))]
    assert put(run, store, *items) == {}
    assert put(run, store, *items) == {}


def test_put_agrees_with_beats_for_every_pair_of_states(store: SQL, run: Run) -> None:
    states = [maker(at) for at in (1, 2) for maker in (value, deleted, invalid, lambda at: value(at, expires=at + 1))]
    pairs = [(f"{at}", old, new) for at, (old, new) in enumerate((old, new) for old in states for new in states)]
    put(run, store, *((key, old) for key, old, _ in pairs))
    refused = put(run, store, *((key, new) for key, _, new in pairs))
    found = fetch(run, store, *(key for key, _, _ in pairs))
    for (key, old, new), entry in zip(pairs, found, strict=True):
        assert entry == (new if beats(new, old) else old), (old, new)
        assert (key in refused) == (old.stamp > new.stamp), (old, new)


def test_the_last_of_many_random_writes_is_the_highest(store: SQL, run: Run) -> None:
    chance = random.Random(7)
    model: dict[str, Entry] = {}
    for _ in range(60):
        batch = {
            f"k{chance.randrange(9)}": value(chance.randrange(1, 40), bytes([chance.randrange(256)])) for _ in "12345"
        }
        refused = put(run, store, *batch.items())
        expected = {key for key, new in batch.items() if key in model and model[key].stamp > new.stamp}
        assert set(refused) == expected
        model |= {key: new for key, new in batch.items() if key not in model or beats(new, model[key])}
    assert fetch(run, store, *model) == list(model.values())


def test_swap_stores_only_over_the_state_seen(store: SQL, run: Run) -> None:
    put(run, store, ("old", value(1)), ("grave", deleted(1)), ("moved", value(2)), ("there", value(1)))
    new = value(9, b"new")
    items = [
        ("old", new, stamp(1)),
        ("grave", new, stamp(1)),
        ("absent", new, None),
        ("moved", new, stamp(1)),
        ("there", new, None),
        ("gone", new, stamp(1)),
    ]
    assert run(store.swap(NS, items, None)) == {"moved", "there", "gone"}
    assert fetch(run, store, "old", "grave", "absent", "moved", "there", "gone") == [
        new, new, new, value(2), value(1), None
    ]  # fmt: skip
    assert run(store.swap(NS, items[:3], None)) == set(), "our own stamp there: done already"


def test_swap_may_go_below_the_stamp_it_saw(store: SQL, run: Run) -> None:
    put(run, store, ("a", value(9, expires=1)))
    assert run(store.swap(NS, [("a", value(5, b"loaded"), stamp(9))], None)) == set()
    assert fetch(run, store, "a") == [value(5, b"loaded")]


def test_void_covers_what_is_not_newer_and_absence(store: SQL, run: Run) -> None:
    put(run, store, ("older", value(1)), ("same", value(5)), ("newer", value(9)))
    run(store.void(NS, [(key, stamp(5)) for key in ("older", "same", "newer", "absent")]))
    assert fetch(run, store, "older", "same", "newer", "absent") == [invalid(5), invalid(5), value(9), invalid(5)]
    assert scan(run, store) == ["newer"]
    assert put(run, store, ("same", value(5))) == {}, "at equal stamp a value replaces invalid"
    assert fetch(run, store, "same") == [value(5)]


def test_fill_is_refused_by_a_newer_stamp_in_silence(store: SQL, run: Run) -> None:
    put(run, store, ("a", value(5)))
    run(store.fill(NS, [("a", value(3), b""), ("b", value(3), b"")], None))
    assert fetch(run, store, "a", "b") == [value(5), value(3)]


# -- listing -----------------------------------------------------------------------------------------------------


def test_scan_lists_live_keys_only(store: SQL, run: Run) -> None:
    put(
        run, store,
        ("live", value(1)), ("later", value(1, expires=101)), ("expired", value(1, expires=100)),
        ("deleted", deleted(1)), ("deleted far", deleted(1, expires=999)), ("invalid", invalid(1)),
    )  # fmt: skip
    assert scan(run, store, now=100) == ["later", "live"]


def test_scan_is_by_exact_prefix(store: SQL, run: Run) -> None:
    keys = ["a", "a*b", "a.b", "a_b", "a%", "aa", "axb", "b", "á", "\x7f", "\x7f\x01", "\u07ff", "\uffff", "\U00010000"]
    keys += ["\U0010ffff", "\U0010ffff\U0010ffff", "\U0010fffe", "\U0010ffff\0"]
    put(run, store, *((key, value(1)) for key in keys))
    for prefix in ["", "a", "a*", "a.", "a_", "a%", "zz", *keys]:
        assert scan(run, store, prefix) == sorted(key for key in keys if key.startswith(prefix)), prefix


def test_scan_pages_give_each_key_once_in_order(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    keys = sorted(f"k:{random.Random(at).randrange(10**9):09d}:{at}" for at in range(100_000))
    raw.execute("BEGIN")
    raw.executemany(
        "INSERT INTO tiered_entries (namespace, key, stamp, value) VALUES (?, ?, ?, '')",
        ((NS.encode(), key.encode(), stamp(1)) for key in random.Random(1).sample(keys, len(keys))),
    )
    raw.execute("COMMIT")
    listed: list[str] = []
    page = scan(run, store, "k:", None, 9_999)
    while page:
        listed += page
        page = scan(run, store, "k:", page[-1], 9_999)
    assert listed == keys
    assert sum(1 for _ in store.yield_keys()) == len(keys)


def plan(raw: sqlite3.Connection, statement: str, *params: Any) -> str:
    return " / ".join(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", params))


def test_statements_use_their_indexes_and_listing_never_reads_values(raw: sqlite3.Connection) -> None:
    by_key = "SEARCH t USING INDEX sqlite_autoindex_tiered_entries_1 (namespace=? AND key=?)"
    raw.create_function("tiered_collect", 1, bool)
    for reading in (_sql_record.READ, _sql_record.READ_VALUES, _sql_record.READ_STAMPS):
        assert by_key in plan(raw, reading.by_json, "[]", b"")
    read: set[str] = set()
    raw.set_authorizer(lambda action, _, column, *__: read.add(column) or sqlite3.SQLITE_OK)
    for statement in (_sql_record.SCAN_FROM, _sql_record.SCAN_AFTER):
        shown = plan(raw, statement, b"", b"", b"", 0, 9)
        assert "(namespace=? AND key>? AND key<?)" in shown
        assert "TEMP B-TREE" not in shown
    assert "key" in read
    assert "value" not in read
    shown = plan(raw, _sql_record.DUE, b"", 0, 0, 9)
    assert "USING INDEX tiered_entries_expiry (namespace=? AND expires_at>? AND expires_at<?)" in shown
    assert "TEMP B-TREE" not in shown


# -- purge (R28) -------------------------------------------------------------------------------------------------


def purge(run: Run, store: SQL, now: int, grace: int = 1_000, limit: int = 100, into: int = DELETED) -> int:
    changed: int = run(store.purge(NS, now, grace, limit, into))
    return changed


def purged(raw: sqlite3.Connection) -> Any:
    return raw.execute("SELECT purged_stamp FROM tiered_meta WHERE namespace = ?", (NS.encode(),)).fetchone()


@pytest.mark.parametrize("into", [DELETED, INVALID])
def test_purge_keeps_the_stamp_of_what_expired(store: SQL, run: Run, raw: sqlite3.Connection, into: int) -> None:
    put(
        run,
        store,
        ("old", value(50, expires=100)),
        ("due now", value(50, expires=200)),
        ("live", value(50, expires=201)),
    )
    assert purge(run, store, 200, into=into) == 2
    assert fetch(run, store, "old", "due now", "live") == [
        Entry(into, stamp(50), 100, b""), Entry(into, stamp(50), 200, b""), value(50, expires=201)
    ]  # fmt: skip
    assert purged(raw) is None
    assert purge(run, store, 200, into=into) == 0
    assert put(run, store, ("old", value(49))) == {"old": stamp(50)}, "a late write is still refused"


def test_purge_drops_tombstones_after_their_grace_and_remembers_the_highest_stamp(
    store: SQL, run: Run, raw: sqlite3.Connection
) -> None:
    put(run, store, ("by stamp", deleted(500)), ("by expiry", deleted(100, expires=900)), ("void", invalid(300)))
    assert purge(run, store, 1_299) == 0
    assert purge(run, store, 1_300) == 1
    assert fetch(run, store, "void") == [None]
    assert purged(raw) == (stamp(300),)
    assert purge(run, store, 1_899) == 1
    assert purge(run, store, 1_900) == 1
    assert fetch(run, store, "by stamp", "by expiry") == [None, None]
    assert purged(raw) == (stamp(500),), "not lowered by what goes later"
    assert raw.execute("SELECT count(*) FROM tiered_entries").fetchone() == (0,)


def test_purge_is_bounded(store: SQL, run: Run) -> None:
    put(run, store, *((f"k{at}", value(1, expires=at + 1)) for at in range(10)))
    assert [purge(run, store, 100, limit=4) for _ in range(4)] == [4, 4, 2, 0]


def test_purge_with_nothing_due_takes_no_write_lock(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    put(run, store, ("a", value(1, expires=500)), ("b", deleted(100)), ("c", value(1)))
    raw.execute("BEGIN IMMEDIATE")
    assert purge(run, store, 400) == 0
    raw.execute("ROLLBACK")


def test_purge_leaves_other_namespaces(store: SQL, run: Run) -> None:
    run(store.put("other", [("a", value(1, expires=1))], None))
    assert purge(run, store, 10**6) == 0


def test_purge_leaves_a_damaged_row_for_reads_to_report(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    put(run, store, ("bad", value(1, expires=5)), ("good", value(1, expires=6)))
    raw.execute("UPDATE tiered_entries SET stamp = 'x' WHERE key = ?", (b"bad",))
    assert purge(run, store, 10, limit=1) == 1
    assert purge(run, store, 10, limit=1) == 1
    assert purge(run, store, 10, limit=1) == 0
    bad, good = fetch(run, store, "bad", "good")
    assert isinstance(bad, CorruptEntry)
    assert good == Entry(DELETED, stamp(1), 6, b"")


# -- damage ------------------------------------------------------------------------------------------------------


def spoil(raw: sqlite3.Connection, column: str, content: Any) -> None:
    assert raw.execute(f"UPDATE tiered_entries SET {column} = ? WHERE key = ?", (content, b"a")).rowcount == 1


@pytest.mark.parametrize(
    ("column", "content"),
    [
        ("value", None), ("value", "text"), ("value", 12), ("value", 1.5), ("value", b""), ("value", b"\x80pickle"),
        ("value", b"\xc1"), ("stamp", None), ("stamp", "text"), ("stamp", 7), ("expires_at", "soon"),
        ("expires_at", b"x"),
    ],
)  # fmt: skip
def test_foreign_content_in_our_table_is_corrupt(
    store: SQL, run: Run, raw: sqlite3.Connection, column: str, content: Any
) -> None:
    put(run, store, ("a", value(5)), ("b", value(5)))
    spoil(raw, column, content)
    bad, good, nothing = fetch(run, store, "a", "b", "c")
    assert isinstance(bad, CorruptEntry)
    assert (good, nothing) == (value(5), None)
    [bad] = fetch(run, store, "a\0b", "a")[1:]
    assert isinstance(bad, CorruptEntry)
    with pytest.raises(CorruptEntry, match="sqlite"):
        store.mget(["a"])
    assert put(run, store, ("a", value(6, b"healed"))) == {}
    assert fetch(run, store, "a") == [value(6, b"healed")]


def test_every_flipped_bit_is_noticed(store: SQL, raw: sqlite3.Connection) -> None:
    run: Run = lambda op: store.run(op, 5.0)  # noqa: E731
    put(run, store, ("a", value(5, b"payload")))
    record = encode(b"a", value(5, b"payload"))
    for bit in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[bit // 8] ^= 1 << bit % 8
        spoil(raw, "value", bytes(flipped))
        assert isinstance(fetch(run, store, "a")[0], CorruptEntry | UnknownVersion), bit


def test_a_record_of_another_key_is_not_served(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    put(run, store, ("a", value(5)))
    spoil(raw, "value", encode(b"b", value(5)))
    assert isinstance(fetch(run, store, "a")[0], CorruptEntry)


def test_a_damaged_stamp_does_not_refuse_writes_for_ever(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    put(run, store, ("a", value(5)))
    spoil(raw, "stamp", b"\xff")
    assert put(run, store, ("a", value(6))) == {}
    assert fetch(run, store, "a") == [value(6)]


def test_a_stored_key_that_is_not_utf8_is_reported(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    put(run, store, ("a", value(5)))
    raw.execute("UPDATE tiered_entries SET key = x'ff00'")
    assert scan(run, store) == [], "beyond every key of ours"
    raw.execute("UPDATE tiered_entries SET key = x'61c3'")
    with pytest.raises(CorruptEntry):
        scan(run, store)


def test_decoding_in_batches_is_decoding_one_by_one() -> None:
    chance = random.Random(3)
    keys = [b"k%d" % at for at in range(450)]
    raws: list[Any] = []
    for at, key in enumerate(keys):
        expires = chance.choice([None, 1, 2**40])
        soft = chance.choice([None, None, None, 5]) if at % 150 < 100 else None
        raws.append(encode(key, Entry(VALUE, stamp(at), expires, chance.randbytes(chance.randrange(40)), soft)))
    raws[210], raws[211], raws[212] = None, encode(b"k212", deleted(3)), raws[210]
    found = decode_rows(keys, ((raw,) for raw in raws))
    for key, raw, entry in zip(keys, raws, found, strict=True):
        if raw is None:
            assert entry is None
        elif isinstance(entry, TieredError):
            assert key in (b"k211", b"k212")
        else:
            assert entry == decode(key, raw)


# -- the file ----------------------------------------------------------------------------------------------------


def test_nothing_is_opened_before_the_first_use(store: SQL, path: Path) -> None:
    assert not path.exists()
    store.mset({"a": b"1"})
    assert path.exists()


def test_the_schema_is_the_contract(raw: sqlite3.Connection) -> None:
    assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    columns = {name for _, name, *_ in raw.execute("PRAGMA table_info(tiered_entries)")}
    assert columns == {"namespace", "key", "value", "stamp", "expires_at"}
    assert {name for _, name, *_ in raw.execute("PRAGMA table_info(tiered_meta)")} == {"namespace", "purged_stamp"}


def test_columns_say_what_the_record_says(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    put(
        run, store,
        ("value", value(5)), ("ttl", value(5, expires=70)), ("gone", deleted(5)), ("gone ttl", deleted(5, expires=70)),
    )  # fmt: skip
    rows = raw.execute("SELECT namespace, key, stamp, expires_at, value FROM tiered_entries ORDER BY key").fetchall()
    assert [row[3] for row in rows] == [-5, -70, 70, None]
    assert {(row[0], row[2]) for row in rows} == {(b"docs", stamp(5))}
    assert decode(b"ttl", rows[2][4]) == value(5, expires=70)


def test_what_was_stored_is_there_after_close_and_in_a_new_store(store: SQL, run: Run, path: Path) -> None:
    put(run, store, ("a", value(1)))
    store.close()
    store.close()
    assert fetch(run, store, "a") == [value(1)], "later use connects again"
    again = SQL(f"sqlite+pysqlite:///{path}")
    assert again.run(again.fetch(NS, ["a"]), 5.0) == [value(1)]
    again.close()


def test_a_dropped_index_is_made_again(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    store.close()
    raw.execute("DROP INDEX tiered_entries_expiry")
    run(store.ping())
    assert raw.execute("SELECT count(*) FROM sqlite_master WHERE name = 'tiered_entries_expiry'").fetchone() == (1,)


def test_another_programs_tables_are_no_concern(store: SQL, run: Run, path: Path) -> None:
    theirs = sqlite3.connect(path)
    with theirs:
        theirs.execute("CREATE TABLE users (name)")
        theirs.execute("INSERT INTO users VALUES ('ann')")
    put(run, store, ("a", value(1)))
    assert theirs.execute("SELECT * FROM users").fetchall() == [("ann",)]
    theirs.close()


def untouched(path: Path, run: Run, store: SQL, match: str) -> None:
    before = path.read_bytes()
    for op in (store.ping(), store.fetch(NS, ["a"]), store.put(NS, [("a", value(1))], None)):
        with pytest.raises(ForeignValue, match=match):
            run(op)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04" + bytes(10_000), b"SQLite format 2\0" + bytes(1_000)])
def test_a_file_that_is_not_sqlite_is_left_untouched(store: SQL, run: Run, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    untouched(path, run, store, "not an SQLite database")


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE tiered_entries (id INTEGER PRIMARY KEY)",
        "CREATE TABLE tiered_entries (namespace BLOB NOT NULL, key BLOB NOT NULL, stamp BLOB, at INT, value BLOB)",
        "CREATE TABLE tiered_entries (namespace TEXT, key TEXT, value BLOB, PRIMARY KEY (namespace, key))",
        "CREATE VIEW tiered_entries AS SELECT 1 AS key",
        "CREATE TABLE tiered_meta (namespace TEXT)",
    ],
)
def test_a_table_of_another_shape_under_our_name_is_left_untouched(
    store: SQL, run: Run, path: Path, table: str
) -> None:
    theirs = sqlite3.connect(path)
    theirs.execute(table)
    theirs.close()
    untouched(path, run, store, "of another shape")


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_a_file_of_another_encoding_is_left_untouched(store: SQL, run: Run, path: Path, encoding: str) -> None:
    theirs = sqlite3.connect(path)
    theirs.execute(f"PRAGMA encoding = '{encoding}'")
    theirs.execute("CREATE TABLE users (name)")
    theirs.close()
    untouched(path, run, store, f"{encoding}.* use another file")


def test_a_damaged_file_is_said_to_be_damaged(store: SQL, run: Run, path: Path) -> None:
    put(run, store, *((f"k{at}", value(1, bytes(500))) for at in range(100)))
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x55" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(CorruptEntry, match="recover"):
        fetch(run, store, "k1")


def test_a_missing_folder_is_named_and_not_made(tmp_path: Path) -> None:
    store = SQL(f"sqlite:///{tmp_path}/no/such/cache.db")
    with pytest.raises(BackendUnavailable, match="no/such does not exist: create it"):
        store.mset({"a": b"1"})
    with pytest.raises(BackendUnavailable, match="no/such does not exist: create it"):
        asyncio.run(store.amget(["a"]))
    assert not (tmp_path / "no").exists()
    (tmp_path / "no/such").mkdir(parents=True)
    store.mset({"a": b"1"})
    assert asyncio.run(store.amget(["a"])) == [b"1"]
    store.close()


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="is a folder"):
        SQL(f"sqlite:///{tmp_path}").mget(["a"])


# -- the URL -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("sqlite://", "memory://"),
        ("sqlite:///", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///file::memory:", "memory://"),
        ("sqlite:///file:x?mode=memory&uri=true", "takes no options"),
        ("sqlite://cache.db", "three slashes"),
        ("sqlite:cache.db", "three slashes"),
        ("sqlite//cache.db", "not a URL"),
        ("cache.db", "not a URL"),
        ("", "not a URL"),
        ("sqllite:///cache.db", "did you mean sqlite://"),
        ("sqlite+psycopg:///cache.db", "unknown driver"),
        ("sqlite:///cache.db?namspace=x", "takes no options"),
        ("sqlite:///a\0b", "NUL"),
        ("oracle://u:secret@db/app", "does not know the scheme oracle"),
        (None, "not NoneType"),
        (Path("cache.db"), "sqlite:///cache.db"),
    ],
)
def test_a_url_that_cannot_work_says_what_would(url: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        SQL(url)
    assert "secret" not in str(caught.value)


def test_urls_are_paths_from_here_or_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SQL("sqlite+aiosqlite:///some dir%20/ca#che.db")
    assert repr(store) == f"SQL('sqlite:///{tmp_path}/some dir%20/ca#che.db')"
    (tmp_path / "some dir%20").mkdir()
    monkeypatch.chdir("/")
    store.mset({"a": b"1"})
    assert asyncio.run(store.amget(["a"])) == [b"1"]
    assert (tmp_path / "some dir%20/ca#che.db").exists()
    store.close()
    assert repr(SQL("SQLITE:////abs.db", namespace="n")) == "SQL('sqlite:////abs.db', namespace='n')"


def test_two_that_write_to_one_file_are_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    monkeypatch.chdir(tmp_path)
    urls = ["sqlite:///there/a.db", f"sqlite:///{tmp_path}/link/a.db", "sqlite+aiosqlite:///there/../link/./a.db"]
    assert len({SQL(url).identity for url in urls}) == 1
    assert SQL("sqlite:///there/b.db").identity != SQL(urls[0]).identity
    (tmp_path / "there/a.db").touch()
    assert len({SQL(url).identity for url in urls}) == 1


# -- failures of writes ------------------------------------------------------------------------------------------

ITEMS = [(f"k{at}", value(5)) for at in range(6)]


def failing(error: TieredError, at: int, store: SQL, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction number `at` (from 0) of `store` fails with `error`."""
    perform, count = store._clients.perform, iter(range(99))

    def fail(request: Any, timeout: float) -> Any:
        if isinstance(request, Transaction) and next(count) == at:
            raise error
        return perform(request, timeout)

    monkeypatch.setattr(store._clients, "perform", fail)
    monkeypatch.setattr(_sql_batches, "CHUNK", 2)


def test_a_first_chunk_that_fails_wrote_nothing(store: SQL, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(BackendUnavailable("locked"), 0, store, monkeypatch)
    with pytest.raises(BackendUnavailable, match="locked"):
        store.run(store.put(NS, ITEMS, None), 5.0)


def test_a_later_chunk_that_fails_leaves_the_earlier_written(store: SQL, monkeypatch: pytest.MonkeyPatch) -> None:
    store.run(store.put(NS, [("k1", value(9))], None), 5.0)
    failing(BackendUnavailable("locked"), 1, store, monkeypatch)
    with pytest.raises(BatchError, match="1 of 6 keys were written, then: locked") as caught:
        store.run(store.put(NS, ITEMS, None), 5.0)
    error = caught.value
    assert (error.written, error.not_written, error.unknown) == (["k0"], ["k1", "k2", "k3", "k4", "k5"], [])
    found = store.run(store.fetch(NS, [key for key, _ in ITEMS]), 5.0)
    assert [entry and entry.stamp for entry in found] == [stamp(5), stamp(9), None, None, None, None]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_chunk_of_unknown_outcome_is_unknown(store: SQL, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    failing(Indeterminate("?"), at, store, monkeypatch)
    with pytest.raises(BatchError) as caught:
        store.run(store.void(NS, [(key, entry.stamp) for key, entry in ITEMS]), 5.0)
    error, keys = caught.value, [key for key, _ in ITEMS]
    assert error.written == keys[: 2 * at]
    assert error.unknown == keys[2 * at : 2 * at + 2]
    assert error.not_written == keys[2 * at + 2 :]


def failing_commit(monkeypatch: pytest.MonkeyPatch, code: int, *, after: bool) -> None:
    def execute(self: sqlite3.Connection, statement: str, *params: Any) -> sqlite3.Cursor:
        if statement == "COMMIT":
            if after:
                sqlite3.Connection.execute(self, statement)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = code
            raise error
        return sqlite3.Connection.execute(self, statement, *params)

    monkeypatch.setattr(_sqlite.Session, "execute", execute, raising=False)


@pytest.mark.parametrize("after", [False, True])
def test_a_commit_without_a_clear_answer_is_unknown(
    store: SQL, run: Run, raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    run(store.ping())
    with monkeypatch.context() as broken:
        failing_commit(broken, sqlite3.SQLITE_IOERR_FSYNC, after=after)
        with pytest.raises(Indeterminate, match="may or may not"):
            put(run, store, ("a", value(5)))
        with pytest.raises(BatchError) as caught:
            put(run, store, ("b", value(5)), ("c", value(5)))
        assert caught.value.unknown == ["b", "c"]
    assert fetch(run, store, "a") == [value(5) if after else None]
    assert put(run, store, ("a", value(5))) == {}, "the same stamp again: done, or done now"
    raw.execute("BEGIN IMMEDIATE")  # no transaction was left open
    raw.execute("ROLLBACK")


def test_a_commit_that_could_not_be_written_wrote_nothing(
    store: SQL, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(store.ping())
    with monkeypatch.context() as full:
        failing_commit(full, sqlite3.SQLITE_FULL, after=False)
        with pytest.raises(BackendUnavailable, match=r"full.*nothing was written"):
            put(run, store, ("a", value(5)))
    assert fetch(run, store, "a") == [None]


def test_an_operation_that_raises_inside_its_transaction_leaves_none(
    store: SQL, run: Run, raw: sqlite3.Connection
) -> None:
    def bad() -> Any:
        yield Many(_sql_record.PUT, [(NS.encode(), b"a", stamp(1), None, b"")])
        raise ZeroDivisionError

    def op() -> Any:
        yield Transaction(bad)

    with pytest.raises(ZeroDivisionError):
        run(op())
    assert fetch(run, store, "a") == [None]
    raw.execute("BEGIN IMMEDIATE")
    raw.execute("ROLLBACK")


# -- locks -------------------------------------------------------------------------------------------------------


def test_a_lock_that_stays_is_reported_and_nothing_is_written(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    raw.execute("BEGIN IMMEDIATE")
    with pytest.raises(BackendUnavailable, match=r"locked by another process .* nothing was written; try again"):
        store.run(store.put(NS, [("a", value(5))], None), 0.01)
    assert fetch(run, store, "a") == [None], "a writer does not keep readers out"
    raw.execute("ROLLBACK")
    assert put(run, store, ("a", value(5))) == {}


def test_a_statement_past_the_time_out_is_ended(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    for op in (endless, half_written):
        with pytest.raises(BackendUnavailable, match="longer than its time-out; nothing was written"):
            store.run(op(), 0.01)
        with pytest.raises(BackendUnavailable, match="longer than its time-out; nothing was written"):
            asyncio.run(store.arun(op(), 0.01))
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("ROLLBACK")
    assert fetch(run, store, "half") == [None]
    assert put(run, store, ("a", value(1))) == {}


def test_an_interrupt_during_a_statement_is_not_lost(store: SQL, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ringing(_sqlite.Session):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.create_function("ring", 0, _thread.interrupt_main)  # as Ctrl-C does, in the midst of SQLite

    def ringing() -> Any:
        yield Query("WITH n (i) AS (VALUES (ring()) UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n", ())

    monkeypatch.setitem(_sqlite.CONNECT, "factory", Ringing)
    with pytest.raises(KeyboardInterrupt):
        store.run(ringing(), 0.05)
    assert store.mget(["a"]) == [None]


def test_a_commit_that_has_begun_is_not_broken_off(store: SQL, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[Any] = []
    at_commit: list[Any] = []

    class Watched(_sqlite.Session):
        def set_progress_handler(self, handler: Any, *steps: Any) -> None:
            handlers.append(handler)
            super().set_progress_handler(handler, *steps)

        def execute(self, statement: str, *params: Any) -> sqlite3.Cursor:
            if statement == "COMMIT":
                at_commit.append(handlers[-1])
            return super().execute(statement, *params)

    store.mset({"a": b"1"})
    store.close()
    monkeypatch.setitem(_sqlite.CONNECT, "factory", Watched)
    store.mset({"a": b"2"})
    assert at_commit == [None]
    assert handlers[0] is not None


def test_a_fork_that_closes_what_was_just_used_fails_nothing(store: SQL, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forked(_sqlite.Session):
        @property
        def in_transaction(self) -> bool:  # type: ignore[override]
            if not self._gate.locked():
                self.shut()
            return super().in_transaction

    monkeypatch.setitem(_sqlite.CONNECT, "factory", Forked)
    store.mset({"a": b"1"})
    assert store.mget(["a"]) == [b"1"]


def busy(store: SQL) -> bool:
    with _sqlite._registry:
        return any(session._gate.locked() for session in list(_sqlite._sessions))


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110  there is no event to wait for
        await asyncio.sleep(0)


def test_a_lock_is_waited_for(store: SQL, raw: sqlite3.Connection) -> None:
    raw.execute("BEGIN IMMEDIATE")
    writer = threading.Thread(target=store.mset, args=({"a": b"1"},))
    writer.start()
    while not busy(store):
        pass
    raw.execute("ROLLBACK")
    writer.join()
    assert store.mget(["a"]) == [b"1"]


async def test_a_lock_is_waited_for_without_blocking_the_loop(store: SQL, raw: sqlite3.Connection) -> None:
    raw.execute("BEGIN IMMEDIATE")
    writing = [asyncio.create_task(store.amset({f"a{at}": b"1"})) for at in range(5)]
    await until(lambda: busy(store))
    for _ in range(100):  # the loop runs on; reads are served; nobody has given up
        await asyncio.sleep(0)
    assert await store.amget(["a0"]) == [None]
    assert not any(task.done() for task in writing)
    raw.execute("ROLLBACK")
    await asyncio.gather(*writing)
    assert await store.amget([f"a{at}" for at in range(5)]) == [b"1"] * 5
    await store.aclose()


def test_waiting_for_this_process_is_bounded_too(store: SQL, raw: sqlite3.Connection) -> None:
    raw.execute("BEGIN IMMEDIATE")
    writer = threading.Thread(target=store.mset, args=({"a": b"1"},))
    writer.start()
    while not busy(store):
        pass
    with pytest.raises(BackendUnavailable, match="other writes of this process"):
        store.run(store.put(NS, [("b", value(1))], None), 0.01)

    async def second() -> None:
        await store.arun(store.ping(), 5.0)
        held = asyncio.create_task(store.arun(store.put(NS, [("b", value(1))], None), 5.0))
        [(pool, _)] = store._clients._loops.values()
        await until(pool._writer.locked)
        with pytest.raises(BackendUnavailable, match="other writes of this process"):
            await store.arun(store.put(NS, [("c", value(1))], None), 0.01)
        raw.execute("ROLLBACK")
        await held
        assert not pool._writer.locked()

    asyncio.run(second())
    writer.join()


# -- threads, tasks, loops ---------------------------------------------------------------------------------------


def test_threads_and_tasks_share_one_store(store: SQL) -> None:
    clock, errors = Clock(), []
    highest: dict[str, bytes] = {}
    lock = threading.Lock()

    def items(worker: int) -> list[tuple[str, Entry]]:
        return [(f"k{at}", Entry(VALUE, clock.draw(), None, b"%d" % worker)) for at in range(4)]

    def note(written: list[tuple[str, Entry]]) -> None:
        with lock:
            for key, entry in written:
                highest[key] = max(highest.get(key, b""), entry.stamp)

    def thread(worker: int) -> None:
        try:
            for _ in range(10):
                written = items(worker)
                store.run(store.put(NS, written, None), 30.0)
                note(written)
                store.mget(["k0"])
        except Exception as error:
            errors.append(error)

    async def task(worker: int) -> None:
        written = items(worker)
        await store.arun(store.put(NS, written, None), 30.0)
        note(written)
        await store.arun(store.fetch(NS, ["k0", "k1"]), 30.0)

    async def tasks() -> None:
        await asyncio.gather(*(task(worker) for worker in range(64)))

    workers = [threading.Thread(target=thread, args=(worker,)) for worker in range(16)]
    workers += [threading.Thread(target=asyncio.run, args=(tasks(),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == []
    found = store.run(store.fetch(NS, list(highest)), 5.0)
    assert [entry.stamp for entry in found] == list(highest.values())


def test_one_face_reads_what_the_other_wrote(store: SQL) -> None:
    async def go() -> None:
        for at in range(20):
            store.mset({"k": b"%d" % at})
            assert await store.amget(["k"]) == [b"%d" % at]
            await store.amset({"k": b"-%d" % at})
            assert store.mget(["k"]) == [b"-%d" % at]

    asyncio.run(go())


def endless() -> Any:
    yield Query("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", ())


def half_written() -> Any:
    def write() -> Any:
        yield Many(_sql_record.PUT, [(NS.encode(), b"half", stamp(1), None, encode(b"half", value(1)))])
        yield from endless()

    yield Transaction(write)


@pytest.mark.parametrize("op", [endless, half_written])
async def test_cancelling_ends_the_statement_and_keeps_the_connection(
    store: SQL, raw: sqlite3.Connection, op: Callable[[], Any]
) -> None:
    for _ in range(12):  # more often than there are connections
        task = asyncio.create_task(store.arun(op(), 5.0))
        await until(lambda: busy(store))
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # once more while it is being ended
        with pytest.raises(asyncio.CancelledError):
            await task
        raw.execute("BEGIN IMMEDIATE")  # nobody holds the write lock
        raw.execute("ROLLBACK")
    assert await store.arun(store.fetch(NS, ["half"]), 5.0) == [None]
    await store.amset({"a": b"1"})
    assert await store.amget(["a"]) == [b"1"]
    await store.aclose()


def test_rows_are_packed_before_the_write_lock_and_off_the_loop(
    store: SQL, run: Run, raw: sqlite3.Connection, request: pytest.FixtureRequest
) -> None:
    here, where = threading.current_thread(), list[bool]()

    def packing(payload: bytes) -> tuple[int, bytes]:
        where.append(threading.current_thread() is here)
        raw.execute("BEGIN IMMEDIATE")  # nobody holds the write lock
        raw.execute("ROLLBACK")
        return 0, payload

    run(store.ping())
    raw = sqlite3.connect(store._clients.path, isolation_level=None, timeout=0, check_same_thread=False)
    assert run(store.put(NS, [("a", value(1)), ("b", value(1))], packing)) == {}
    assert run(store.swap(NS, [("c", value(1), None), ("b", value(2), stamp(1))], packing)) == set()
    raw.close()
    assert where == [request.node.callspec.params["run"] == "sync"] * 4
    assert fetch(run, store, "a", "b", "c") == [value(1), value(2), value(1)]


async def test_a_timeout_around_an_operation_ends_it(store: SQL) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await store.arun(endless(), 5.0)
    await store.arun(store.ping(), 5.0)
    assert not busy(store)
    await store.aclose()


async def test_cancelled_waits_for_a_connection_leave_nothing_behind(store: SQL, raw: sqlite3.Connection) -> None:
    raw.execute("BEGIN IMMEDIATE")
    waiting = [asyncio.create_task(store.amset({f"k{at}": b"1"})) for at in range(30)]
    await until(lambda: busy(store))
    for task in waiting:
        task.cancel()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(end) for end in ended} == {asyncio.CancelledError}
    raw.execute("ROLLBACK")
    await store.amset({"a": b"1"})
    assert [key async for key in store.ayield_keys()] == ["a"]
    await store.aclose()


def test_loops_take_their_connections_with_them(store: SQL) -> None:
    async def use() -> bytes | None:
        assert len(store._clients._loops) <= 1
        await store.amset({"a": b"1"})
        return (await store.amget(["a"]))[0]

    before = threading.active_count()
    for _ in range(5):
        assert asyncio.run(use()) == b"1"
        assert len(store._clients._loops) == 0
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(use()) == b"1"
    loop.close()  # without shutting its generators down
    assert asyncio.run(use()) == b"1", "another loop clears up after it"
    assert len(store._clients._loops) == 0
    while threading.active_count() > before:
        pass


def test_close_ends_the_connections_of_other_loops(store: SQL) -> None:
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(store.amget(["a"])) == [None]
    before = threading.active_count()
    store.close()
    while threading.active_count() >= before:
        pass
    assert loop.run_until_complete(store.amget(["a"])) == [None]
    loop.run_until_complete(store.aclose())
    loop.run_until_complete(store.aclose())
    assert loop.run_until_complete(store.amget(["a"])) == [None]
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_close_while_a_write_waits_lets_it_end(store: SQL, raw: sqlite3.Connection) -> None:
    raw.execute("BEGIN IMMEDIATE")
    ended: list[Any] = []
    writer = threading.Thread(target=lambda: ended.append(store.mset({"a": b"1"})))
    writer.start()
    while not busy(store):
        pass
    store.close()
    raw.execute("ROLLBACK")
    writer.join()
    assert ended == [None]
    assert store.mget(["a"]) == [b"1"]


def test_close_does_not_fail_what_waits_for_its_turn(store: SQL, raw: sqlite3.Connection) -> None:
    raw.execute("BEGIN IMMEDIATE")
    ended: list[Any] = []
    writers = [threading.Thread(target=lambda: ended.append(store.mset({"a": b"1"}))) for _ in range(3)]
    for writer in writers:
        writer.start()
    pool = store._clients._threads
    assert pool
    while len(pool._writer._turns) < 3:
        pass
    store.close()
    raw.execute("ROLLBACK")
    for writer in writers:
        writer.join()
    assert ended == [None] * 3
    assert store._clients._threads is not pool


async def test_close_does_not_fail_a_task_that_waits_for_its_turn(store: SQL, raw: sqlite3.Connection) -> None:
    raw.execute("BEGIN IMMEDIATE")
    writers = [asyncio.create_task(store.amset({"a": b"1"})) for _ in range(3)]
    await until(lambda: busy(store))
    await store.aclose()
    raw.execute("ROLLBACK")
    assert await asyncio.gather(*writers) == [None] * 3
    assert await store.amget(["a"]) == [b"1"]
    await store.aclose()


def test_an_aclose_that_is_cancelled_leaves_nothing_open(store: SQL) -> None:
    async def go(steps: int) -> bool:
        await asyncio.gather(*(store.amget(["a"]) for _ in range(9)))
        closing = asyncio.create_task(store.aclose())
        for _ in range(steps):
            await asyncio.sleep(0)
        whole = closing.done()
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        if steps:
            assert not [thread for thread in threading.enumerate() if "_connection_worker" in thread.name]
        await store.aclose()
        return whole

    for steps in range(5):
        assert not asyncio.run(go(steps))
        assert not [thread for thread in threading.enumerate() if "_connection_worker" in thread.name]


# -- turns and interrupts ----------------------------------------------------------------------------------------


def test_turns_are_served_in_the_order_they_came() -> None:
    slots, turns = Slots(2), [Turn() for _ in range(6)]
    assert [slots.enter(turn, 0.0) for turn in turns] == [True, True, False, False, False, False]
    turns[3].over = turns[1].over = True  # one has given up, one has gone
    assert not slots.enter(Turn(), 0.0), "a newcomer does not overtake"
    assert [turn.served for turn in turns] == [True, True, True, False, False, False]
    turns[0].over = True
    slots.serve()
    assert [turn.served for turn in turns] == [True, True, True, False, True, False]


def test_a_thread_that_writes_again_and_again_does_not_overtake(store: SQL, monkeypatch: pytest.MonkeyPatch) -> None:
    store.mset({"a": b"1"})
    pool, order, perform = store._clients._threads, list[str](), _sqlite.Session.perform
    assert pool

    def noted(self: Any, *request: Any) -> Any:
        order.append(threading.current_thread().name)
        while len(order) == 1 and len(pool._writer._turns) < 2:
            pass
        return perform(self, *request)

    def often() -> None:
        for _ in range(3):
            store.mset({"a": b"1"})

    monkeypatch.setattr(_sqlite.Session, "perform", noted)
    greedy, patient = threading.Thread(target=often, name="greedy"), threading.Thread(target=often, name="patient")
    greedy.start()
    while not order:
        pass
    patient.start()
    greedy.join()
    patient.join()
    assert order[:5] == ["greedy", "patient"] * 2 + ["greedy"]


def test_connections_lost_elsewhere_keep_nobody_waiting(store: SQL) -> None:
    store.mset({"a": b"1"})
    pool = store._clients._threads
    assert pool
    lost = [pool._engine.raw_connection() for _ in range(READERS + 2)]
    assert store.mget(["a"]) == [b"1"]
    for held in lost:
        held.invalidate()

    async def go() -> None:
        pool = await store._clients._pool()
        lost = [await pool._engine.raw_connection() for _ in range(READERS + 2)]
        assert await store.amget(["a"]) == [b"1"]
        for held in lost:
            await held.driver_connection.close()
            held.invalidate()

    asyncio.run(go())


def test_an_interrupt_of_who_leaves_still_lets_the_next_in(store: SQL, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Turn()

    class Struck(Slots):
        struck = False

        def serve(self) -> None:
            if not self.struck and any(turn.over for turn in self._turns):
                self.struck = True
                raise KeyboardInterrupt
            super().serve()

    store.mset({"a": b"1"})
    pool = store._clients._threads
    assert pool
    pool._writer = Struck(1)
    monkeypatch.setattr(_sqlite.Session, "perform", lambda *_: pool._writer.enter(waiting, 0.0))
    with pytest.raises(KeyboardInterrupt):
        store.run(store.put(NS, [("a", value(1))], None), 5.0)
    assert waiting.served


@pytest.mark.filterwarnings(
    "ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning"
)  # closed by the collector
@pytest.mark.parametrize("within", [("tiered/backends", "/threading.py"), ("sqlalchemy/pool",)])
def test_an_interrupt_at_any_point_loses_no_turn_and_no_connection(
    store: SQL, raw: sqlite3.Connection, within: tuple[str, ...]
) -> None:
    # Python runs signal handlers where a function begins and after calls: an interrupt strikes there
    def profile(frame: Any, event: str, _: Any) -> None:
        nonlocal left
        if event in ("call", "c_return") and any(part in frame.f_code.co_filename for part in within):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt  # which also ends profiling

    for at in count():
        if at % 2:
            for session in list(_sqlite._sessions):
                session.shut()  # as a fork does: the next request connects
        left = at // 2
        try:
            sys.setprofile(profile)
            store.mset({"a": b"1"})
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        raw.execute("BEGIN IMMEDIATE")  # no transaction was left open
        raw.execute("ROLLBACK")
        store.mset({"a": b"2"})
        pool = store._clients._threads
        assert pool
        assert not pool._writer._lock.locked()
        assert not pool._writer._turns
        if at % 2 and left >= 0:
            break
    assert at > 50
