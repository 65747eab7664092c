"""tiered.storage.SQLStore and langchain-community's: each reads what the other wrote, and what theirs does wrong."""

from __future__ import annotations

import asyncio
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, OperationalError

from tiered.backends import _sqlite
from tiered.storage import LangchainKeyValueStores, SQLStore, items_equal

pytest.importorskip("langchain_core", reason="langchain-core is not installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # langchain-community announces its end
    theirs_module = pytest.importorskip(
        "langchain_community.storage.sql", reason="langchain-community is not installed"
    )

NS = "docs"
TABLE = "langchain_key_value_stores"
PAIRS = {
    "a": b"1",
    "ab": b"",
    "a%b": bytes(range(256)),
    "a_b": b"\xc1\x01" + bytes(40),
    "n\0ul": b"nul",
    "n": b"short",
    "\U0001f600": b"\x00",
    "漢字": b"x" * 100_000,
    "'\"\\": b"quoted",
    " ": b"space",
    "k" * 5_000: b"long",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def ours(path: Path) -> Iterator[SQLStore]:
    store = SQLStore(namespace=NS, db_url=f"sqlite:///{path}")
    yield store
    store.close()


@pytest.fixture
def theirs(path: Path) -> Iterator[Any]:
    store = theirs_module.SQLStore(namespace=NS, db_url=f"sqlite:///{path}")
    yield store
    store.engine.dispose()


def shape(path: Path) -> list[Any]:
    """Columns and indexes of the table, as SQLite understands them."""
    with closing(sqlite3.connect(path)) as db:
        columns = db.execute(
            'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?)', (TABLE,)
        ).fetchall()
        indexes = db.execute('SELECT name, "unique", origin, partial FROM pragma_index_list(?)', (TABLE,)).fetchall()
        of = [(name, db.execute("SELECT name FROM pragma_index_info(?)", (name,)).fetchall()) for name, *_ in indexes]
        return [columns, sorted(indexes), sorted(of)]


# -- both ways -------------------------------------------------------------------------------------------------------


def test_the_tables_are_the_same(ours: SQLStore, theirs: Any, tmp_path: Path, path: Path) -> None:
    ours.create_schema()
    other = theirs_module.SQLStore(namespace=NS, db_url=f"sqlite:///{tmp_path}/theirs.db")
    other.create_schema()
    other.engine.dispose()
    assert shape(path) == shape(tmp_path / "theirs.db")
    assert len(shape(path)[1]) == 3


def test_the_models_are_the_same(tmp_path: Path) -> None:
    shapes = []
    for number, model in enumerate((LangchainKeyValueStores, theirs_module.LangchainKeyValueStores)):
        engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/{number}.db")
        model.metadata.create_all(engine)
        engine.dispose()
        shapes.append(shape(tmp_path / f"{number}.db"))
    assert shapes[0] == shapes[1]
    assert LangchainKeyValueStores.__tablename__ == TABLE
    row = LangchainKeyValueStores(namespace=NS, key="k", value=b"v")
    assert (row.namespace, row.key, row.value) == (NS, "k", b"v")
    assert items_equal(1, 1) is theirs_module.items_equal(1, 1) is True
    assert items_equal(1, 2) is theirs_module.items_equal(1, 2) is False


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_each_reads_what_the_other_wrote(ours: SQLStore, theirs: Any, first: str) -> None:
    if first == "theirs":
        theirs.create_schema()
    else:
        ours.create_schema()
    ours.mset(list(PAIRS.items()))
    keys = [*PAIRS, "missing", "a"]
    expected = [*PAIRS.values(), None, b"1"]
    assert theirs.mget(keys) == ours.mget(keys) == expected
    theirs.mset([(key, value + b"!") for key, value in PAIRS.items()])
    expected = [*(value + b"!" for value in PAIRS.values()), None, b"1!"]
    assert ours.mget(keys) == theirs.mget(keys) == expected
    for prefix in (None, "", "a", "a%", "n", "n\0", "漢", "zz"):
        assert sorted(ours.yield_keys(prefix=prefix)) == sorted(theirs.yield_keys(prefix=prefix)), prefix
    theirs.mdelete(["a", "n"])
    ours.mdelete(["ab", "missing"])
    assert ours.mget(["a", "n", "ab", "n\0ul"]) == theirs.mget(["a", "n", "ab", "n\0ul"]) == [None, None, None, b"nul!"]


def test_namespaces_are_the_same(ours: SQLStore, path: Path) -> None:
    ours.create_schema()
    for namespace in ("", "docs/sub", "d%", "Docs", "漢字"):
        mine = SQLStore(namespace=namespace, db_url=f"sqlite:///{path}")
        other = theirs_module.SQLStore(namespace=namespace, db_url=f"sqlite:///{path}")
        other.mset([("k", namespace.encode())])
        assert mine.mget(["k"]) == [namespace.encode()]
        mine.mset([("l", b"2")])
        assert sorted(other.yield_keys()) == ["k", "l"]
        mine.close()
        other.engine.dispose()
    assert list(ours.yield_keys()) == []


async def test_their_async_store_and_ours_on_one_file(path: Path) -> None:
    other = theirs_module.SQLStore(namespace=NS, db_url=f"sqlite+aiosqlite:///{path}", async_mode=True)
    await other.acreate_schema()
    await other.amset(list(PAIRS.items()))
    mine = SQLStore(namespace=NS, db_url=f"sqlite+aiosqlite:///{path}", async_mode=True)
    assert await mine.amget(list(PAIRS)) == list(PAIRS.values())
    await mine.amset([("a", b"new")])
    assert await other.amget(["a"]) == [b"new"]
    await mine.aclose()
    await other.engine.dispose()


def test_one_engine_serves_both(path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    mine, other = SQLStore(namespace=NS, engine=engine), theirs_module.SQLStore(namespace=NS, engine=engine)
    mine.mset(list(PAIRS.items()))
    assert other.mget(list(PAIRS)) == list(PAIRS.values())
    other.mset([("a", b"theirs")])
    assert mine.mget(["a"]) == [b"theirs"]
    mine.close()
    assert other.mget(["a"]) == [b"theirs"], "close() leaves the user's engine alone"
    engine.dispose()


# -- defects of theirs, and what ours does ---------------------------------------------------------------------------


def test_mset_updates_rows_in_place_where_theirs_deletes_and_inserts(ours: SQLStore, theirs: Any, path: Path) -> None:
    def rows() -> dict[str, int]:
        with closing(sqlite3.connect(path)) as db:
            return dict(db.execute(f"SELECT key, rowid FROM {TABLE}"))

    ours.mset([("a", b"1"), ("b", b"1")])
    before = rows()
    ours.mset([("a", b"2")])
    assert rows() == before
    theirs.mset([("a", b"3")])
    assert rows() != before, "theirs was mended: this test can go"


def test_listing_never_asks_for_values_where_theirs_reads_all(
    ours: SQLStore, theirs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours.mset([(f"k{at}", b"v") for at in range(30)])
    asked: list[tuple[str, Any]] = []
    execute = _sqlite.Session.execute

    def noted(session: Any, sql: str, *rest: Any) -> Any:
        asked.append((sql, rest))
        return execute(session, sql, *rest)

    monkeypatch.setattr(_sqlite.Session, "execute", noted, raising=False)
    assert list(ours.yield_keys(prefix="k1")) == ["k1", *(f"k1{at}" for at in range(10))]
    [(sql, rest)] = [(sql, rest) for sql, rest in asked if TABLE in sql]
    assert "value" not in sql.replace(TABLE, "")
    assert b"k1" in rest[0], "the database filters"
    statements: list[tuple[str, Any]] = []
    event.listen(
        theirs.engine, "before_cursor_execute", lambda c, cu, sql, params, *_: statements.append((sql, params))
    )
    assert len(list(theirs.yield_keys(prefix="k1"))) == 11
    [(sql, params)] = statements
    assert f"{TABLE}.value" in sql, "theirs was mended: this can go"
    assert params == (NS,), "theirs was mended: this can go"


def test_batches_are_cut_to_the_bind_limit_where_theirs_fails(
    ours: SQLStore, theirs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 1_000  # 32,766 upstream, whatever a distribution says

    class Limited(_sqlite.Session):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, limit)

    monkeypatch.setitem(_sqlite.CONNECT, "factory", Limited)
    event.listen(theirs.engine, "connect", lambda db, _: db.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, limit))
    keys = [f"k{at}" for at in range(2 * limit)]
    for some in (keys, [*keys, "n\0ul"]):
        ours.mset([(key, key.encode()) for key in some])
        assert ours.mget(some) == [key.encode() for key in some]
        ours.mdelete(some)
    assert list(ours.yield_keys()) == []
    with pytest.raises(OperationalError, match="too many SQL variables"):
        theirs.mget(keys)
    with pytest.raises(OperationalError, match="too many SQL variables"):
        theirs.mset([(key, b"v") for key in keys])
    with pytest.raises(OperationalError, match="too many SQL variables"):
        theirs.mdelete(keys)


@pytest.mark.parametrize("async_mode", [None, False, True])
def test_one_object_serves_both_faces_where_theirs_serves_one(path: Path, async_mode: bool | None) -> None:
    mine = SQLStore(namespace=NS, db_url=f"sqlite:///{path}", async_mode=async_mode)

    async def asynchronous() -> None:
        assert await mine.amget(["a"]) == [b"sync"]
        await mine.amset([("a", b"async")])

    mine.mset([("a", b"sync")])
    asyncio.run(asynchronous())
    assert mine.mget(["a"]) == [b"async"]
    mine.close()
    scheme = "sqlite+aiosqlite" if async_mode else "sqlite"
    other = theirs_module.SQLStore(namespace=NS, db_url=f"{scheme}:///{path}", async_mode=async_mode)
    missing = other.mget if async_mode else lambda keys: asyncio.run(other.amget(keys))
    with pytest.raises((ValueError, AssertionError)):
        missing(["a"])


async def test_of_repeated_keys_the_last_wins_where_their_amset_fails(path: Path) -> None:
    pairs = [("a", b"1"), ("b", b"2"), ("a", b"3")]
    mine = SQLStore(namespace=NS, db_url=f"sqlite:///{path}")
    await mine.amset(pairs)
    assert await mine.amget(["a", "b", "a"]) == [b"3", b"2", b"3"]
    await mine.aclose()
    other = theirs_module.SQLStore(namespace=NS, db_url=f"sqlite+aiosqlite:///{path}", async_mode=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy warns of what comes
        with pytest.raises(IntegrityError):
            await other.amset(pairs)
    await other.engine.dispose()


def test_no_schema_need_be_made_where_theirs_fails_without(ours: SQLStore, theirs: Any) -> None:
    with pytest.raises(OperationalError, match="no such table"):
        theirs.mget(["a"])
    assert ours.mget(["a"]) == [None]


def test_a_mapping_and_generators_will_do(ours: SQLStore) -> None:
    ours.mset({"a": b"1", "b": b"2"})
    assert ours.mget(key for key in ("b", "a")) == [b"2", b"1"]
    ours.mdelete({"a": 1}.keys())
    assert list(ours.yield_keys()) == ["b"]


def test_dropping_is_committed_and_drops_that_table_only(ours: SQLStore, theirs: Any, path: Path) -> None:
    ours.mset([("a", b"1")])
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE mine (x)")
    ours.drop()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    with pytest.raises(OperationalError, match="no such table"):
        theirs.mget(["a"])
    ours.mset([("b", b"2")])
    assert theirs.mget(["a", "b"]) == [None, b"2"]
