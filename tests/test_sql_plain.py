"""The plain layout of SQL on SQLite: what each operation means where there are no stamps."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tiered import SQL
from tiered.backend import SCOPE
from tiered.backends import _sql_batches, _sql_plain
from tiered.clock import ZERO
from tiered.entry import DELETED, INVALID, VALUE, Entry
from tiered.errors import BatchError, ConfigurationError, CorruptEntry, ForeignValue, TieredError
from tiered.record import encode

NS = "docs"
TABLE = "langchain_key_value_stores"
Run = Callable[[Any], Any]
STAMP = b"\0\1" * 6


def value(payload: bytes, expires: int | None = None) -> Entry:
    return Entry(VALUE, STAMP, expires, payload)


GONE = Entry(DELETED, STAMP, None, b"")


def stored(payload: bytes) -> Entry:
    return Entry(VALUE, ZERO, None, payload)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQL]:
    store = SQL(f"sqlite:///{path}", namespace=NS, layout="plain")
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


def rows(raw: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return raw.execute(f"SELECT namespace, key, value FROM {TABLE} ORDER BY namespace, key").fetchall()


def put(run: Run, store: SQL, **entries: Entry) -> Any:
    return run(store.put(NS, list(entries.items()), None))


# -- operations ----------------------------------------------------------------------------------------------------


def test_what_it_can_do(store: SQL) -> None:
    assert store.layout == "plain"
    assert (store.capabilities.stamps, store.capabilities.expiry) == (False, False)
    assert (store.capabilities.shared, store.capabilities.forgets) == (False, False)
    assert "layout='plain'" in repr(store)


def test_values_are_stored_as_they_are_and_read_with_stamp_zero(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    assert put(run, store, a=value(b"1"), b=value(b"")) == {}
    assert rows(raw) == [(NS, "a", b"1"), (NS, "b", b"")]
    assert run(store.fetch(NS, ["b", "zz", "a", "b"])) == [stored(b""), None, stored(b"1"), stored(b"")]
    assert run(store.values(NS, ["b", "zz", "a"], 0)) == ([b"", None, b"1"], b"", [])


def test_put_overwrites_and_deletes_and_refuses_nothing(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    put(run, store, a=value(b"1"), b=value(b"2"))
    older = Entry(VALUE, ZERO, None, b"older")
    assert put(run, store, a=older, b=GONE, c=value(b"3"), absent=GONE) == {}
    assert put(run, store, d=Entry(INVALID, STAMP, None, b"")) == {}
    assert rows(raw) == [(NS, "a", b"older"), (NS, "c", b"3")]


def test_swap_stores_where_nothing_is_or_where_something_still_is(
    store: SQL, run: Run, raw: sqlite3.Connection
) -> None:
    put(run, store, there=value(b"1"), seen=value(b"2"), gone=value(b"3"))
    swaps = [
        ("there", value(b"new"), None),
        ("absent", value(b"new"), None),
        ("n\0l", value(b"nul"), None),
        ("seen", value(b"new"), ZERO),
        ("lost", value(b"new"), ZERO),
        ("gone", GONE, ZERO),
        ("other stamp", value(b"new"), STAMP),
    ]
    assert run(store.swap(NS, swaps, None)) == {"there", "lost", "other stamp"}
    assert {key: bytes_ for _, key, bytes_ in rows(raw)} == {
        "there": b"1",
        "absent": b"new",
        "n\0l": b"nul",
        "seen": b"new",
    }


def test_fill_stores_only_where_nothing_is(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    put(run, store, a=value(b"1"))
    run(store.fill(NS, [("a", value(b"late"), b""), ("b", value(b"2"), b""), ("c", GONE, b"")], None))
    assert rows(raw) == [(NS, "a", b"1"), (NS, "b", b"2")]


def test_void_deletes_whatever_the_stamp_and_retract_and_purge_touch_nothing(
    store: SQL, run: Run, raw: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sql_batches, "CHUNK", 2)
    put(run, store, a=value(b"1", expires=1), b=value(b"2"), c=value(b"3"), d=value(b"4"))
    run(store.void(NS, [("c", ZERO), ("a", ZERO), ("zz", STAMP), ("b", STAMP)]))
    run(store.retract(NS, [("d", STAMP), ("d", ZERO)]))
    assert run(store.purge(NS, 2**60, 0, 100, DELETED)) == 0
    assert rows(raw) == [(NS, "d", b"4")]


def test_spaces_are_the_namespaces_under_it(store: SQL, run: Run) -> None:
    for name in ("docs", f"docs{SCOPE}a", f"docs{SCOPE}a{SCOPE}b", f"docs{SCOPE}é", "docs ", "docs0", "doc", "é"):
        run(store.put(name, [("k", value(b"1")), ("l", value(b"1"))], None))
    assert run(store.spaces("docs")) == [f"docs{SCOPE}a", f"docs{SCOPE}a{SCOPE}b", f"docs{SCOPE}é"]
    assert run(store.spaces("none")) == []


def test_listing_is_by_exact_prefix_in_the_order_of_bytes(store: SQL, run: Run) -> None:
    keys = [
        "a",
        "aB",
        "ab",
        "a%",
        "a_",
        "a*",
        "a\0",
        "a\0b",
        "a\0b\0",
        "b",
        "é",
        "\ud7ff",
        "\ue000",
        "\uffff",
        "\U0010ffff",
    ]
    run(store.put(NS, [(key, value(b"1")) for key in keys], None))
    run(store.put("other", [("a", value(b"1"))], None))

    def listed(prefix: str, after: str | None = None, limit: int = 99) -> Any:
        return run(store.scan(NS, prefix, after, limit, 0))

    in_order = sorted(keys, key=str.encode)
    assert listed("") == in_order
    for prefix in ["a", "a%", "a_", "a\0", "a\0b", "é", "\ud7ff", "\U0010ffff", "zz"]:
        assert listed(prefix) == [key for key in in_order if key.startswith(prefix)], prefix
    for after in in_order:
        assert listed("", after) == in_order[in_order.index(after) + 1 :]
        assert listed("", after, 2) == in_order[in_order.index(after) + 1 :][:2]
    assert listed("b", "a") == ["b"]


def test_batches_beyond_one_statement_with_and_without_nul(
    store: SQL, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sql_batches, "CHUNK", 7)
    monkeypatch.setattr(_sql_batches, "NAMED", 3)
    keys = [f"k{at}" + "\0" * (at % 10 == 9) for at in range(40)]
    run(store.put(NS, [(key, value(key.encode())) for key in keys], None))
    asked = [*keys[::-1], "zz", keys[9], "k9"]
    answers = [*(key.encode() for key in keys[::-1]), None, b"k9\0", None]
    assert run(store.values(NS, asked, 0)).values == answers
    assert [found and found.value for found in run(store.fetch(NS, asked))] == answers
    assert run(store.swap(NS, [(key, value(b"x"), None) for key in [*keys, "new"]], None)) == set(keys)


@pytest.mark.parametrize("key", ['"', 'a"b', '","', "\\", "a\\", "\\\\", "\n", "\x7f", "\x1f", "\u2028", "é", "'"])
def test_a_key_of_any_characters_is_found_among_others(store: SQL, run: Run, key: str) -> None:
    run(store.put(NS, [(key, value(b"it")), ("a", value(b"a")), ("b", value(b"b"))], None))
    assert run(store.values(NS, ["a", key, "b"], 0)).values == [b"a", b"it", b"b"]
    assert run(store.values(NS, [key], 0)).values == [b"it"]


def test_a_batch_partly_written_says_so(store: SQL, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sql_batches, "CHUNK", 2)
    perform, count = store._clients.perform, iter(range(9))

    def fail(request: Any, timeout: float) -> Any:
        if next(count) == 1:
            raise TieredError("no")
        return perform(request, timeout)

    monkeypatch.setattr(store._clients, "perform", fail)
    with pytest.raises(BatchError) as caught:
        store.mset(dict.fromkeys("abcd", b"1"))
    assert (caught.value.written, caught.value.not_written, caught.value.unknown) == (["a", "b"], ["c", "d"], [])


# -- layouts mixed up ------------------------------------------------------------------------------------------------


def test_a_record_of_ours_in_its_place_is_a_foreign_value(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    record = encode(b"a", value(b"v"))
    put(run, store, a=value(record), b=value(b"2"), c=value(record), d=value(b"\xc1\x01" + bytes(40)), e=value(b"\xc1"))
    first, *others = run(store.fetch(NS, ["a", "b", "c", "d", "e", "zz"]))
    assert isinstance(first, ForeignValue)
    assert 'layout="record"' in str(first)
    assert others == [stored(b"2"), stored(record), stored(b"\xc1\x01" + bytes(40)), stored(b"\xc1"), None]
    for asked in (["a", "b"], ["b", "a"], ["zz", "a"]):
        with pytest.raises(ForeignValue) as caught:
            store.mget(asked)
        assert (caught.value.tier, caught.value.key) == ("sqlite", "a")
    assert store.mget(["b", "c", "d", "e"]) == [b"2", record, b"\xc1\x01" + bytes(40), b"\xc1"]
    assert (NS, "a", record) in rows(raw), "left untouched"


def test_a_record_late_in_a_large_batch_is_found_too(store: SQL, run: Run) -> None:
    keys = [f"k{at}" for at in range(350)]
    items = [(key, value(b"v")) for key in keys]
    items[270] = ("k270", value(encode(b"k270", value(b"v"))))
    run(store.put(NS, items, None))
    found = run(store.values(NS, [*keys, "zz"], 0))
    assert [at for at, _ in found.errors] == [270]
    assert found.values == [None if at in (270, 350) else b"v" for at in range(351)]


def test_both_layouts_in_one_file_are_two_stores(store: SQL, path: Path) -> None:
    other = SQL(f"sqlite:///{path}", namespace=NS)
    other.mset({"a": b"record"})
    store.mset({"a": b"plain"})
    assert (other.mget(["a"]), store.mget(["a"])) == ([b"record"], [b"plain"])
    assert other.identity != store.identity
    assert store.identity == SQL(f"sqlite:///{path}", layout="plain").identity
    other.close()


@pytest.mark.parametrize("layout", ["Plain", "", "records", None, 1])
def test_an_unknown_layout_is_refused(path: Path, layout: Any) -> None:
    with pytest.raises(ConfigurationError, match="give 'record' or 'plain'"):
        SQL(f"sqlite:///{path}", layout=layout)


# -- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "columns",
    [
        "namespace VARCHAR NOT NULL, key VARCHAR NOT NULL, value TEXT NOT NULL, PRIMARY KEY (namespace, key)",
        "namespace VARCHAR NOT NULL, key VARCHAR NOT NULL, value BLOB NOT NULL",
        "namespace VARCHAR NOT NULL, key VARCHAR NOT NULL, value BLOB NOT NULL, PRIMARY KEY (key, namespace)",
        "key VARCHAR NOT NULL PRIMARY KEY, value BLOB NOT NULL",
        "namespace BLOB NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (namespace, key)",
        "namespace VARCHAR NOT NULL, key VARCHAR NOT NULL, value BLOB NOT NULL, more, PRIMARY KEY (namespace, key)",
    ],
)
def test_a_table_of_another_shape_is_left_untouched(path: Path, columns: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"CREATE TABLE {TABLE} ({columns})")
    db.close()
    before = path.read_bytes()
    store = SQL(f"sqlite:///{path}", layout="plain")
    for use in (lambda: store.mget(["a"]), lambda: store.mset({"a": b"1"}), lambda: list(store.yield_keys())):
        with pytest.raises(ForeignValue, match="another shape"):
            use()
    store.close()
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_tables_of_older_releases_of_theirs_will_do(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(
            f"CREATE TABLE {TABLE} (namespace TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, "
            "PRIMARY KEY (namespace, key))"
        )
    db.close()
    store = SQL(f"sqlite:///{path}", layout="plain")
    store.mset({"a": b"1"})
    assert store.mget(["a"]) == [b"1"]
    store.close()


def plan(raw: sqlite3.Connection, statement: str, *params: Any) -> str:
    return " / ".join(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", params))


@pytest.mark.parametrize("analyzed", [False, True])
def test_statements_use_the_primary_key_and_listing_never_reads_values(
    store: SQL, raw: sqlite3.Connection, analyzed: bool
) -> None:
    if analyzed:
        store.mset({f"k{at}": b"v" for at in range(2_000)})
        raw.execute("ANALYZE")
        raw.close()
        raw = sqlite3.connect(store._clients.path)
    index = f"INDEX sqlite_autoindex_{TABLE}_1"
    for reading in (_sql_plain.READ, _sql_plain.READ_PRESENT):
        assert f"{index} (namespace=? AND key=?)" in plan(raw, reading.by_json, "[]", "")
        assert f"{index} (namespace=? AND key=?)" in plan(raw, reading.by_name.format(reading.hole), "", b"")
    read: set[str] = set()
    raw.set_authorizer(lambda action, _, column, *__: read.add(column) or sqlite3.SQLITE_OK)
    for statement in (_sql_plain.SCAN_FROM, _sql_plain.SCAN_AFTER):
        shown = plan(raw, statement, "", b"", b"", 9)
        assert f"COVERING {index} (namespace=? AND key>? AND key<?)" in shown
        assert "TEMP B-TREE" not in shown
    assert "key" in read
    assert "value" not in read
    raw.set_authorizer(None)
    assert "SCAN" not in plan(raw, _sql_plain.SPACES, b"", b"").replace("SCAN found", "")
    raw.close()


def test_a_stored_key_that_is_not_utf8_is_reported(store: SQL, run: Run, raw: sqlite3.Connection) -> None:
    put(run, store, a=value(b"1"))
    raw.execute(f"UPDATE {TABLE} SET key = CAST(x'61c3' AS TEXT)")
    with pytest.raises(CorruptEntry, match="not UTF-8"):
        run(store.scan(NS, "", None, 9, 0))
