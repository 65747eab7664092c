"""tiered.storage.SQLStore by itself: its arguments, an engine of the user's, the table, and a stack it is a tier of."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, StaticPool, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tiered import SQL, Memory, TieredStore, storage
from tiered.backends._requests import Query
from tiered.errors import (
    BackendUnavailable,
    ConfigurationError,
    FaceUnavailable,
    ForeignValue,
    InvalidKey,
    InvalidValue,
)
from tiered.storage import SQLStore

TABLE = "langchain_key_value_stores"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLStore]:
    store = SQLStore(namespace="docs", db_url=f"sqlite:///{path}")
    yield store
    store.close()


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{path}")
    yield engine
    engine.dispose()


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as db:
        return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


# -- arguments -------------------------------------------------------------------------------------------------------


def test_names_are_found_lazily_and_misspelt_ones_are_refused() -> None:
    code = (
        "import sys, tiered.storage as storage; assert 'sqlalchemy' not in sys.modules; storage.SQLStore\n"
        "from tiered.storage import LangchainKeyValueStores, items_equal"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert set(storage.__all__) == {"SQLStore", "LangchainKeyValueStores", "items_equal"}
    with pytest.raises(AttributeError, match="no attribute 'SqlStore'"):
        storage.SqlStore  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "either db_url= or engine="),
        ({"db_url": "sqlite:///x.db", "engine": object()}, "either db_url= or engine="),
        ({"engine": object()}, "not object"),
        ({"engine": "sqlite:///x.db"}, "not str"),
        ({"db_url": "sqlite:///x.db", "engine_kwargs": {"echo": True}}, "engine=create_engine"),
        ({"db_url": "sqlite:///x.db", "async_mode": "yes"}, "async_mode"),
        ({"db_url": "sqlite:///x.db", "async_mode": 1.5}, "async_mode"),
        ({"db_url": "postgresql://u:secret@h/d"}, "sqlite"),
        ({"db_url": "sqlite://"}, "in memory"),
        ({"db_url": "sqlite:///:memory:"}, "memory"),
        ({"db_url": 5}, "not int"),
        ({"db_url": ""}, "not a URL"),
        ({"db_url": "sqlite:///x.db", "namespace": None}, "namespace"),
        ({"db_url": "sqlite:///x.db", "namespace": 5}, "namespace"),
        ({"db_url": "sqlite:///x.db", "namespace": "a\x1fb"}, "namespace"),
    ],
)
def test_arguments_that_cannot_work(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        SQLStore(**{"namespace": "docs", **arguments})
    assert isinstance(caught.value, ValueError)
    assert "secret" not in str(caught.value)


def test_an_engine_of_another_database_is_refused() -> None:
    class Dialect:
        name, driver = "postgresql", "psycopg"

    engine = create_engine("sqlite://")
    engine.dialect = Dialect()  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match=r"postgresql\+psycopg.*supports SQLite"):
        SQLStore(namespace="docs", engine=engine)


def test_nothing_is_opened_before_the_first_use(path: Path, engine: Engine) -> None:
    SQLStore(namespace="docs", db_url=f"sqlite:///{path}")
    SQLStore(namespace="docs", engine=engine)
    assert not path.exists()


def test_what_theirs_would_be_given(path: Path) -> None:
    for given in (f"sqlite:///{path}", f"sqlite+pysqlite:///{path}", f"sqlite+aiosqlite:///{path}"):
        for async_mode in (None, True, False):
            store = SQLStore(namespace="docs", db_url=given, engine_kwargs={}, async_mode=async_mode)
            store.mset([("k", given.encode())])
            assert store.mget(["k"]) == [given.encode()]
            store.close()
    assert repr(store) == f"SQLStore(namespace='docs', db_url='sqlite:///{path}')"


def test_bad_input_is_refused_before_anything_is_written(store: SQLStore) -> None:
    for pairs, error in [
        ([("a", b"1"), ("", b"2")], InvalidKey),
        ([("a", b"1"), ("\ud800", b"2")], InvalidKey),
        ([("a", b"1"), ("k" * 65_536, b"2")], InvalidKey),
        ([("a", b"1"), ("b", None)], InvalidValue),
        ([("a", b"1"), ("b", "text")], InvalidValue),
    ]:
        with pytest.raises(error):
            store.mset(pairs)  # type: ignore[arg-type]
    assert list(store.yield_keys()) == []


def test_empty_batches_do_nothing(store: SQLStore, path: Path) -> None:
    store.mset([])
    store.mdelete([])
    assert store.mget([]) == []
    assert list(store.yield_keys()) == []


# -- the table -------------------------------------------------------------------------------------------------------


def test_create_and_drop_with_either_face(store: SQLStore, path: Path) -> None:
    store.create_schema()
    store.create_schema()
    assert tables(path) == {TABLE}
    store.mset([("a", b"1")])
    other = SQLStore(namespace="other", db_url=f"sqlite:///{path}")
    assert other.mget(["a"]) == [None]
    store.drop()
    assert tables(path) == set()
    store.drop()
    assert other.mget(["a"]) == [None], "open connections of others make it anew"
    asyncio.run(store.acreate_schema())
    store.mset([("a", b"2")])
    asyncio.run(store.adrop())
    assert tables(path) == set()
    assert store.mget(["a"]) == [None]
    other.close()


def test_a_foreign_table_is_neither_used_nor_dropped(store: SQLStore, path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"CREATE TABLE {TABLE} (x)")
    for use in (store.create_schema, store.drop, lambda: store.mget(["a"])):
        with pytest.raises(ForeignValue, match="another shape"):
            use()
    assert tables(path) == {TABLE}


def test_threads_writing_the_same_fresh_keys_all_succeed(path: Path) -> None:
    """Theirs deletes and inserts in one transaction; on Postgres that fails and deadlocks, here upserts cannot."""
    stores = [SQLStore(namespace="docs", db_url=f"sqlite:///{path}") for _ in range(2)]
    barrier = threading.Barrier(4)

    def write(number: int) -> None:
        for turn in range(10):
            barrier.wait(30)
            keys = [f"{turn}-{at}" for at in range(20)]
            stores[number % 2].mset([(key, b"%d" % number) for key in (keys if number % 3 else reversed(keys))])

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(write, number) for number in range(4)]:
            future.result(60)
    assert len(list(stores[0].yield_keys())) == 200
    for one in stores:
        one.close()


# -- an engine of the user's -----------------------------------------------------------------------------------------


def use(store: Any) -> None:
    store.mset([("a", b"1"), ("b", b"2"), ("a", b"3"), ("n\0l", b"nul")])
    assert store.mget(["b", "a", "zz", "n\0l"]) == [b"2", b"3", None, b"nul"]
    assert list(store.yield_keys(prefix="n")) == ["n\0l"]
    store.mdelete(["b", "zz"])
    assert list(store.yield_keys()) == ["a", "n\0l"]
    store.drop()
    assert store.mget(["a"]) == [None]
    store.create_schema()


async def ause(store: Any) -> None:
    await store.amset([("a", b"1"), ("b", b"2"), ("a", b"3"), ("n\0l", b"nul")])
    assert await store.amget(["b", "a", "zz", "n\0l"]) == [b"2", b"3", None, b"nul"]
    assert [key async for key in store.ayield_keys(prefix="n")] == ["n\0l"]
    await asyncio.gather(*(store.amset([(f"k{at}", b"v")]) for at in range(20)))
    await store.amdelete(["b", "zz", *(f"k{at}" for at in range(20))])
    assert [key async for key in store.ayield_keys()] == ["a", "n\0l"]
    await store.adrop()
    assert await store.amget(["a"]) == [None]
    await store.acreate_schema()


@pytest.mark.parametrize("where", ["file", "memory"])
def test_an_engine_serves_its_face_and_stays_open(where: str, path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}") if where == "file" else create_engine("sqlite://", poolclass=StaticPool)
    store = SQLStore(namespace="docs", engine=engine)
    use(store)
    for attempt in (store.amget(["a"]), store.amset([("a", b"1")]), store.adrop()):
        with pytest.raises(FaceUnavailable, match=r"engine= is an Engine.*AsyncEngine as engine="):
            asyncio.run(attempt)
    store.mset([("a", b"kept")])
    store.close()
    store.close()
    with engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT value FROM {TABLE}").fetchall() == [(b"kept",)]
    engine.dispose()


@pytest.mark.parametrize("where", ["file", "memory"])
async def test_an_async_engine_serves_its_face_and_stays_open(where: str, path: Path) -> None:
    database = path if where == "file" else ":memory:"
    engine: AsyncEngine = create_async_engine(f"sqlite+aiosqlite:///{database}")
    store = SQLStore(namespace="docs", engine=engine)
    await ause(store)
    attempts: list[Callable[[], Any]] = [lambda: store.mget(["a"]), lambda: store.mset([("a", b"1")]), store.drop]
    for attempt in attempts:
        with pytest.raises(FaceUnavailable, match=r"engine= is an AsyncEngine.*give an Engine"):
            attempt()
    await store.amset([("a", b"kept")])
    await store.aclose()
    async with engine.connect() as connection:
        assert (await connection.exec_driver_sql(f"SELECT value FROM {TABLE}")).fetchall() == [(b"kept",)]
    await engine.dispose()


def test_the_settings_of_an_engine_stay_what_they_are(path: Path, engine: Engine) -> None:
    made: list[Any] = []

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.row_factory = lambda cursor, row: {"row": row}
        connection.text_factory = bytes
        made.append(connection)

    store = SQLStore(namespace="docs", engine=engine)
    use(store)
    assert made
    for connection in made:
        assert connection.text_factory is bytes
        assert connection.execute("PRAGMA journal_mode").fetchone() == {"row": (b"delete",)}
        assert not connection.in_transaction


def test_an_engine_that_cannot_connect_is_unavailable(tmp_path: Path) -> None:
    store = SQLStore(namespace="docs", engine=create_engine(f"sqlite:///{tmp_path}/none/x.db"))
    with pytest.raises(BackendUnavailable, match="does not exist"):
        store.mget(["a"])


async def test_an_async_engine_that_cannot_connect_is_unavailable(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    store = SQLStore(namespace="docs", engine=create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/none/x.db"))
    with pytest.raises(BackendUnavailable, match="does not exist"):
        await store.amget(["a"])
    for thread in set(threading.enumerate()) - threads:  # the driver's, which calls back into this loop
        await asyncio.to_thread(thread.join)


def test_a_pool_that_is_empty_is_unavailable(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0, pool_timeout=0.01)
    store = SQLStore(namespace="docs", engine=engine)
    with engine.connect(), pytest.raises(BackendUnavailable, match="gave no connection"):
        store.mget(["a"])
    assert store.mget(["a"]) == [None]
    engine.dispose()


def test_a_connection_in_a_transaction_of_its_own_is_refused(path: Path, engine: Engine) -> None:
    @event.listens_for(engine, "checkout")
    def begun(connection: Any, *_: Any) -> None:
        connection.execute("BEGIN")

    store = SQLStore(namespace="docs", engine=engine)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="in a transaction"):
            store.mset([("a", b"1")])


def test_a_failed_request_gives_the_connection_back_fit(path: Path, engine: Engine) -> None:
    store = SQLStore(namespace="docs", engine=engine)
    store.mset([("a", b"1")])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        engine.dispose()
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 1"))
        with pytest.raises(BackendUnavailable, match="locked"):
            store.run(store.put("docs", [("a", _entry(b"2"))], None), 0.05)
        other.execute("ROLLBACK")
    store.mset([("a", b"3")])
    assert store.mget(["a"]) == [b"3"]


def _entry(payload: bytes) -> Any:
    from tiered.entry import VALUE, Entry

    return Entry(VALUE, bytes(12), None, payload)


async def test_a_cancelled_write_leaves_an_async_engine_fit(path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    store = SQLStore(namespace="docs", engine=engine)
    await store.amset([("a", b"1")])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA busy_timeout = 1")
        task = asyncio.create_task(store.amset([("a", b"2")]))
        await asyncio.wait([task], timeout=0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        other.execute("ROLLBACK")
    assert await store.amget(["a"]) == [b"1"]
    await store.amset([("a", b"3")])
    assert await store.amget(["a"]) == [b"3"]
    await engine.dispose()


async def test_a_cancelled_task_does_not_interrupt_another_on_the_same_connection() -> None:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    store = SQLStore(namespace="docs", engine=engine)
    await store.acreate_schema()
    count = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2000000) SELECT max(x) FROM c"

    def slow() -> Any:
        return (yield Query(count, ()))

    first = asyncio.create_task(store.arun(slow(), 60.0))
    second = asyncio.create_task(store.amset([("a", b"1")]))
    await asyncio.wait([first, second], timeout=0.02)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await first == [(2_000_000,)]
    assert await store.amget(["a"]) == [None]
    await engine.dispose()


# -- as a tier -------------------------------------------------------------------------------------------------------


def test_it_may_be_the_last_tier_of_a_stack(store: SQLStore, path: Path) -> None:
    stack = TieredStore([Memory(), store], namespace="docs")
    stack.mset({"a": b"1", "b": b"2"})
    assert store.mget(["a", "b"]) == [b"1", b"2"]
    assert stack.get_or_load("c", lambda key: b"loaded") == b"loaded"
    stack.delete("a")
    assert sorted(stack.yield_keys()) == sorted(store.yield_keys()) == ["b", "c"]
    stack.close()
    again = TieredStore([Memory(), SQL(f"sqlite:///{path}", layout="plain")], namespace="docs")
    assert again.mget(["a", "b", "c"]) == [None, b"2", b"loaded"]
    again.close()


def test_an_engine_may_be_shared_by_stores_and_is_freed_with_the_last(path: Path, engine: Engine) -> None:
    stores = [SQLStore(namespace=name, engine=engine) for name in ("a", "b")]
    for one in stores:
        one.mset([("k", one.namespace.encode())])  # type: ignore[union-attr]
    assert [one.mget(["k"]) for one in stores] == [[b"a"], [b"b"]]
    assert stores[0].identity == stores[1].identity == SQL(f"sqlite:///{path}", layout="plain").identity
    del stores, one
    gc.collect()
    with engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT count(*) FROM {TABLE}").scalar() == 2
