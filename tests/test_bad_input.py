"""Bad input: each a typed error that says what to do, raised before anything is written; nothing stored is lost."""

from __future__ import annotations

import gc
import logging
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tiered
from tests.contract.faces import FACES, face
from tests.contract.matrix import BARE
from tests.simulation.tier import SimTier
from tiered import SQL, TTL, Memory, Tier, TieredStore, WriteThrough, Zstd
from tiered.errors import (
    BackendUnavailable,
    ConfigurationError,
    CorruptEntry,
    ForeignValue,
    InvalidKey,
    InvalidValue,
    TieredError,
)
from tiered.testing import FakeClock

LONG = "k" * 65_536
KEPT = {"kept": b"1", "kept too": b""}


class Bad(NamedTuple):
    """What is given, the error it must raise, and words of its message."""

    given: Any
    error: type[Exception]
    says: str


KEYS = [
    Bad("", InvalidKey, "must not be empty"),
    Bad(LONG, InvalidKey, "a key of 65536 bytes is longer than the 65535"),
    Bad("ß" * 32_768, InvalidKey, "a key of 65536 bytes"),
    Bad("\ud800", InvalidKey, "lone surrogates"),
    Bad("a\udfffb", InvalidKey, "lone surrogates"),
    Bad(None, InvalidKey, "must be a str, not NoneType"),
    Bad(5, InvalidKey, "must be a str, not int"),
    Bad(True, InvalidKey, "must be a str, not bool"),
    Bad(1.5, InvalidKey, "must be a str, not float"),
    Bad(b"kept", InvalidKey, "must be a str, not bytes"),
    Bad(("kept",), InvalidKey, "must be a str, not tuple"),
    Bad(["kept"], InvalidKey, "must be a str, not list"),
    Bad({}, InvalidKey, "must be a str, not dict"),
]
SEVERAL = [
    Bad("kept", TypeError, "give several keys"),
    Bad("", TypeError, "give several keys"),
    Bad(b"kept", TypeError, "give several keys"),
    Bad(bytearray(b"kept"), TypeError, "give several keys"),
    Bad(None, TypeError, "an iterable of str, not NoneType"),
    Bad(5, TypeError, "an iterable of str, not int"),
    Bad(True, TypeError, "an iterable of str, not bool"),
    Bad(1.5, TypeError, "an iterable of str, not float"),
    Bad(object(), TypeError, "an iterable of str, not object"),
    Bad(memoryview(b"ab"), InvalidKey, "must be a str, not int"),
]
VALUES = [
    Bad(None, InvalidValue, "delete the key instead"),
    Bad("text", InvalidValue, "must be bytes, not str: encode it first"),
    Bad("", InvalidValue, "must be bytes, not str"),
    Bad(5, InvalidValue, "must be bytes, not int"),
    Bad(True, InvalidValue, "must be bytes, not bool"),
    Bad(1.5, InvalidValue, "must be bytes, not float"),
    Bad(bytearray(b"1"), InvalidValue, "must be bytes, not bytearray"),
    Bad(memoryview(b"1"), InvalidValue, "must be bytes, not memoryview"),
    Bad([b"1"], InvalidValue, "must be bytes, not list"),
    Bad({"a": 1}, InvalidValue, "must be bytes, not dict"),
]
PAIRS = [
    Bad(None, TypeError, "pairs or a mapping"),
    Bad(5, TypeError, "pairs or a mapping"),
    Bad(True, TypeError, "pairs or a mapping"),
    Bad("kept", TypeError, "pairs or a mapping"),
    Bad(b"kept", TypeError, "pairs or a mapping"),
    Bad(["kept"], InvalidValue, "pairs, not a str of 4"),
    Bad(["ab"], InvalidValue, "pairs, not a str of 2"),
    Bad([("kept",)], InvalidValue, "pairs, not a tuple of 1"),
    Bad([("kept", b"secret", 5)], InvalidValue, "pairs, not a tuple of 3"),
    Bad([()], InvalidValue, "pairs, not a tuple of 0"),
    Bad([None], InvalidValue, "pairs, not a NoneType"),
    Bad([5], InvalidValue, "pairs, not a int"),
    Bad([{"kept", "too"}], InvalidValue, "pairs, not a set of 2"),
]
TTLS = [
    Bad(True, TypeError, "give seconds or a timedelta, or None for never"),
    Bad(False, TypeError, "give seconds or a timedelta"),
    Bad("60", TypeError, "give seconds or a timedelta"),
    Bad(b"60", TypeError, "give seconds or a timedelta"),
    Bad([60], TypeError, "give seconds or a timedelta"),
    Bad(60j, TypeError, "give seconds or a timedelta"),
    Bad(TTL(60), TypeError, "give seconds or a timedelta"),
    Bad(0, ValueError, "more than 0 seconds and at most a century, or None for never"),
    Bad(0.0, ValueError, "more than 0 seconds"),
    Bad(-1, ValueError, "more than 0 seconds"),
    Bad(float("nan"), ValueError, "more than 0 seconds"),
    Bad(float("inf"), ValueError, "at most a century"),
    Bad(float("-inf"), ValueError, "more than 0 seconds"),
    Bad(1e300, ValueError, "at most a century"),
    Bad(10**400, ValueError, ""),
    Bad(timedelta(0), ValueError, "more than 0 seconds"),
    Bad(timedelta(seconds=-1), ValueError, "more than 0 seconds"),
    Bad(timedelta.max, ValueError, "at most a century"),
]
PREFIXES = [
    Bad(5, TypeError, "must be a str, not int"),
    Bad(0, TypeError, "must be a str, not int"),
    Bad(False, TypeError, "must be a str, not bool"),
    Bad(b"kept", TypeError, "must be a str, not bytes"),
    Bad(b"", TypeError, "must be a str, not bytes"),
    Bad(["kept"], TypeError, "must be a str, not list"),
    Bad("\ud800", InvalidKey, "lone surrogates"),
]
LOADERS = [
    Bad(None, TypeError, "callable as load(key), not NoneType"),
    Bad(b"1", TypeError, "callable as load(key), not bytes"),
    Bad("load", TypeError, "callable as load(key), not str"),
]


def _value(key: str) -> bytes:
    return b"loaded"


# Entry point: how it is called with something bad, and what that may be. `bare`: bare backends have it too.
ENTRIES: dict[str, tuple[Callable[[Any, Any], Any], list[Bad], bool]] = {
    "get(key)": (lambda s, bad: s.get(bad), KEYS, False),
    "set(key)": (lambda s, bad: s.set(bad, b"2"), KEYS, False),
    "set(value)": (lambda s, bad: s.set("kept", bad), VALUES, False),
    "set(ttl)": (lambda s, bad: s.set("kept", b"2", ttl=bad), TTLS, False),
    "delete(key)": (lambda s, bad: s.delete(bad), KEYS, False),
    "inspect(key)": (lambda s, bad: s.inspect(bad), KEYS, False),
    "get_or_load(key)": (lambda s, bad: s.get_or_load(bad, _value), KEYS, False),
    "get_or_load(load)": (lambda s, bad: s.get_or_load("new", bad), LOADERS, False),
    "get_or_load(ttl)": (lambda s, bad: s.get_or_load("new", _value, ttl=bad), TTLS, False),
    "get_or_load(loaded)": (lambda s, bad: s.get_or_load("new", lambda key: bad), VALUES[1:], False),
    "mget(keys)": (lambda s, bad: s.mget(bad), SEVERAL, True),
    "mget(key)": (lambda s, bad: s.mget(["kept", bad]), KEYS, True),
    "mget(generator)": (lambda s, bad: s.mget(key for key in ("kept", bad)), KEYS, True),
    "mset(pairs)": (lambda s, bad: s.mset(bad), PAIRS, True),
    "mset(pair after a good one)": (
        lambda s, bad: s.mset([("kept", b"2"), *bad]),
        [bad for bad in PAIRS if isinstance(bad.given, list)],
        True,
    ),
    "mset(key)": (lambda s, bad: s.mset([("kept", b"2"), (bad, b"2")]), KEYS, True),
    "mset(value)": (lambda s, bad: s.mset([("kept", b"2"), ("new", bad)]), VALUES, True),
    "mset(mapping)": (lambda s, bad: s.mset({"kept": b"2", "new": bad}), VALUES, True),
    "mset(ttl)": (lambda s, bad: s.mset({"kept": b"2"}, ttl=bad), TTLS, False),
    "mset of nothing(ttl)": (lambda s, bad: s.mset([], ttl=bad), TTLS, False),
    "mdelete(keys)": (lambda s, bad: s.mdelete(bad), SEVERAL, True),
    "mdelete(key)": (lambda s, bad: s.mdelete(["kept", bad]), KEYS, True),
    "yield_keys(prefix)": (lambda s, bad: s.keys(prefix=bad), PREFIXES, False),
}

STACKS: dict[str, Callable[[Path], list[Any]]] = {
    "memory > sqlite": lambda place: [Memory(), SQL(f"sqlite:///{place}/x.db")],
    "memory": lambda place: [Memory()],
}


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    kind, name = request.param
    opened = face(name, TieredStore(STACKS[kind](tmp_path)) if kind in STACKS else BARE[kind](tmp_path))
    opened.mset(KEPT)
    yield opened
    opened.done()


def intact(store: Any) -> None:
    assert sorted(store.keys()) == sorted(KEPT)
    assert store.mget(KEPT) == list(KEPT.values())


STORES = {f"{kind} | {name}": (kind, name) for kind in STACKS for name in FACES}
BARE_STORES = {f"{kind} | {name}": (kind, name) for kind in ("Memory()", "SQL()") for name in FACES}


@pytest.mark.parametrize(
    ("store", "entry"),
    [
        pytest.param(case, entry, id=f"{title} | {entry}")
        for entry, (_, _, bare) in ENTRIES.items()
        for title, case in (STORES | BARE_STORES if bare else STORES).items()
    ],
    indirect=["store"],
)
def test_bad_arguments(store: Any, entry: str) -> None:
    call, table, _ = ENTRIES[entry]
    for bad in table:
        with pytest.raises(bad.error) as caught:
            call(store, bad.given)
        assert isinstance(caught.value, TypeError | ValueError)
        assert bad.says in str(caught.value), f"{bad.given!r:.60}: {caught.value}"
        assert "secret" not in str(caught.value)
        assert len(str(caught.value)) < 300
    intact(store)


@pytest.mark.parametrize("kind", ["Memory()", "SQL()"])
def test_bad_prefixes_of_bare_backends(kind: str, tmp_path: Path) -> None:
    store = BARE[kind](tmp_path)
    try:
        for bad in PREFIXES:
            with pytest.raises(bad.error, match=bad.says):
                list(store.yield_keys(prefix=bad.given))
    finally:
        store.close()


@pytest.mark.parametrize("namespace", [5, b"docs", "\ud800", "a\x1fb"])
@pytest.mark.parametrize("make", [Memory, partial(SQL, "sqlite:///x.db")], ids=["Memory", "SQL"])
def test_bad_namespaces_of_bare_backends(make: Any, namespace: Any) -> None:
    with pytest.raises(ConfigurationError):
        make(namespace=namespace)


@pytest.mark.parametrize("store", STORES.values(), ids=STORES, indirect=True)
def test_an_argument_that_does_not_exist_or_stands_in_the_wrong_place_is_python_s_error(store: Any) -> None:
    for call in (
        lambda: store.set("kept", b"2", 60),
        lambda: store.mset({"kept": b"2"}, 60),
        lambda: store.set("kept", b"2", tll=60),
        lambda: store.get("kept", None),
        lambda: store.store.yield_keys("kept"),
    ):
        with pytest.raises(TypeError):
            call()
    intact(store)


def test_a_value_larger_than_a_memory_authority_is_refused_and_than_a_memory_tier_is_not(tmp_path: Path) -> None:
    alone = TieredStore([Memory(max_bytes=100_000)])
    alone.set("kept", b"1")
    with pytest.raises(InvalidValue, match="larger than the 100000"):
        alone.mset({"kept": b"2", "big": bytes(100_001)})
    assert alone.get("kept") == b"1"
    assert list(alone.yield_keys()) == ["kept"]
    with TieredStore([Memory(max_bytes=100_000), SQL(f"sqlite:///{tmp_path}/x.db")]) as over:
        over.set("big", bytes(200_000))
        assert over.get("big") == bytes(200_000)
        assert over.stats().tiers["memory"].entries == 0


def test_a_coroutine_function_as_a_sync_loader_says_which_method_to_use() -> None:
    async def load(key: str) -> bytes:
        return b"1"

    store = TieredStore([Memory()])
    with pytest.raises(InvalidValue, match="use aget_or_load"):
        store.get_or_load("a", load)
    gc.collect()  # "never awaited" would be a warning, which is an error here


# -- construction --------------------------------------------------------------------------------------------------


def sim(name: str = "sim") -> SimTier:
    return SimTier(name)


_twice = sim()

CONSTRUCTIONS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no tiers": (lambda: TieredStore([]), ConfigurationError, "at least one tier"),
    "no list": (lambda: TieredStore(Memory()), ConfigurationError, "list of stores, fastest first"),
    "a tier, no list": (lambda: TieredStore(Tier(Memory())), ConfigurationError, "list of stores"),
    "None": (lambda: TieredStore(None), ConfigurationError, "list of stores"),
    "a URL": (lambda: TieredStore("memory://"), ConfigurationError, "tiered.open"),
    "a list of URLs": (lambda: TieredStore(["memory://"]), ConfigurationError, "tier 1 (str) is not a store"),
    "None in the list": (lambda: TieredStore([Memory(), None]), ConfigurationError, "tier 2 (NoneType)"),
    "a dict in the list": (lambda: TieredStore([{}]), ConfigurationError, "tier 1 (dict)"),
    "a tier of a tier": (lambda: TieredStore([Tier(Tier(Memory()))]), ConfigurationError, "tier 1 (Tier)"),
    "a class": (lambda: TieredStore([Memory]), ConfigurationError, "tier 1 (ABCMeta)"),
    "memory second": (lambda: TieredStore([sim(), Memory()]), ConfigurationError, "memory belongs first"),
    "two memories": (lambda: TieredStore([Memory(), Memory(), sim()]), ConfigurationError, "memory belongs first"),
    "the same store twice": (lambda: TieredStore([_twice, _twice]), ConfigurationError, "same place"),
    "ttl on the authority": (lambda: TieredStore([Memory(), Tier(sim(), ttl=60)]), ConfigurationError, "default_ttl="),
    "ttl=None on the authority": (lambda: TieredStore([Tier(sim(), ttl=None)]), ConfigurationError, "authority"),
    "ttl on the only tier": (lambda: TieredStore([Tier(Memory(), ttl=60)]), ConfigurationError, "authority"),
    "sliding below memory": (
        lambda: TieredStore([Memory(), Tier(sim(), ttl=TTL(5, sliding=True, cap=9)), sim()]),
        ConfigurationError,
        "sliding TTL is for the memory tier",
    ),
    "compressed memory": (
        lambda: TieredStore([Tier(Memory(), compression=Zstd()), sim()]),
        ConfigurationError,
        "compression= belongs to a lower tier",
    ),
    "two tiers of one name": (
        lambda: TieredStore([Tier(sim(), name="x"), Tier(sim(), name="x")]),
        ConfigurationError,
        "same name",
    ),
    "two namespaces": (
        lambda: TieredStore([Memory(namespace="a"), SQL("sqlite:///x.db", namespace="b")]),
        ConfigurationError,
        "a stack has one for all tiers",
    ),
    "a namespace against a store's": (
        lambda: TieredStore([SQL("sqlite:///x.db", namespace="b")], namespace="a"),
        ConfigurationError,
        "a stack has one for all tiers",
    ),
    "namespace=5": (lambda: TieredStore([Memory()], namespace=5), ConfigurationError, "a str without"),
    "namespace=bytes": (lambda: TieredStore([Memory()], namespace=b"a"), ConfigurationError, "a str without"),
    "namespace with \\x1f": (lambda: TieredStore([Memory()], namespace="a\x1fb"), ConfigurationError, "without \\x1f"),
    "namespace with surrogates": (lambda: TieredStore([Memory()], namespace="\ud800"), ConfigurationError, "lone"),
    "write='through'": (lambda: TieredStore([Memory()], write="through"), ConfigurationError, "give WriteThrough()"),
    "write=WriteThrough": (lambda: TieredStore([Memory()], write=WriteThrough), ConfigurationError, "WriteThrough()"),
    "clock=a function": (lambda: TieredStore([Memory()], clock=int), ConfigurationError, "give a tiered.clock.Clock"),
    "default_ttl=0": (lambda: TieredStore([Memory()], default_ttl=0), ValueError, "default_ttl=0: give more than 0"),
    "default_ttl=True": (lambda: TieredStore([Memory()], default_ttl=True), TypeError, "default_ttl=True"),
    "tombstone_ttl=0": (lambda: TieredStore([Memory()], tombstone_ttl=0), ValueError, "tombstone_ttl=0"),
    "tombstone_ttl=None": (lambda: TieredStore([Memory()], tombstone_ttl=None), TypeError, "give seconds or a t"),
    "Tier(ttl='60')": (lambda: Tier(Memory(), ttl="60"), TypeError, "give seconds"),
    "Tier(ttl=TTL)": (lambda: Tier(Memory(), ttl=TTL), TypeError, "give seconds"),
    "Tier(timeout=0)": (lambda: Tier(Memory(), timeout=0), ValueError, "timeout=0"),
    "Tier(timeout=True)": (lambda: Tier(Memory(), timeout=True), TypeError, "timeout=True"),
    "Tier(compression='zstd')": (lambda: Tier(sim(), compression="zstd"), ConfigurationError, "give Zstd(level=3)"),
    "Tier(compression=Zstd)": (lambda: Tier(sim(), compression=Zstd), ConfigurationError, "give Zstd(level=3)"),
    "Tier(name='')": (lambda: Tier(Memory(), name=""), ConfigurationError, "non-empty str"),
    "Tier(name=5)": (lambda: Tier(Memory(), name=5), ConfigurationError, "non-empty str"),
    "TTL sliding without cap": (lambda: TTL(60, sliding=True), ValueError, "needs a cap"),
    "Memory(max_bytes=0)": (lambda: Memory(max_bytes=0), ConfigurationError, "at least 1"),
    "Memory(max_bytes=True)": (lambda: Memory(max_bytes=True), ConfigurationError, "whole number"),
    "Memory(max_bytes='64MiB')": (lambda: Memory(max_bytes="64MiB"), ConfigurationError, "whole number"),
    "Memory(max_entries=-1)": (lambda: Memory(max_entries=-1), ConfigurationError, "at least 1"),
    "Memory(max_entries=1.5)": (lambda: Memory(max_entries=1.5), ConfigurationError, "whole number"),
    "Memory(policy='lfu')": (lambda: Memory(policy="lfu"), ConfigurationError, "adaptive"),
    "Memory(cache=[])": (lambda: Memory(cache=[]), ConfigurationError, "mapping"),
    "SQL(5)": (lambda: SQL(5), ConfigurationError, "URL such as 'sqlite:///cache.db'"),
    "SQL(a path)": (lambda: SQL("/tmp/cache.db"), ConfigurationError, "sqlite:///cache.db"),
    "SQL(Path)": (lambda: SQL(Path("/tmp/cache.db")), ConfigurationError, "sqlite:///cache.db"),
    "SQL in memory": (lambda: SQL("sqlite://"), ConfigurationError, "sqlite:///cache.db"),
    "SQL(:memory:)": (lambda: SQL("sqlite:///:memory:"), ConfigurationError, "memory://"),
    "SQL of a typo": (lambda: SQL("sqlit:///x.db"), ConfigurationError, "did you mean sqlite"),
    "open of nothing": (lambda: tiered.open(), ConfigurationError, "at least one tier"),
    "open of a store": (lambda: tiered.open(Memory()), ConfigurationError, "TieredStore([..])"),
    "open with a bad default": (lambda: tiered.open("memory://", default_ttl=-1), ValueError, "default_ttl=-1"),
}


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_contradictory_constructions(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build, error, says = CONSTRUCTIONS[name]
    with pytest.raises(error) as caught:
        build()
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# -- files ---------------------------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "get": lambda store: store.get("new"),
    "mget": lambda store: store.mget(["new"]),
    "set": lambda store: store.set("new", b"1"),
    "mset": lambda store: store.mset([("new", b"1"), ("newer", b"1")]),
    "delete": lambda store: store.delete("new"),
    "yield_keys": lambda store: store.keys(),
    "get_or_load": lambda store: store.get_or_load("new", _value),
    "purge_expired": lambda store: store.purge_expired(),
}


def refused_everywhere(url: str, name: str, error: type[TieredError], says: str) -> None:
    """Every operation raises this error, naming the tier; ping tells it, and nothing gets into memory."""
    for operation, call in OPERATIONS.items():
        store = face(name, TieredStore([Memory(), SQL(url)], clock=FakeClock()))  # pauses take no time
        try:
            with pytest.raises(error) as caught:
                call(store)
            assert says in str(caught.value), operation
            assert caught.value.tier == "sqlite"
            health = store.ping()
            assert health["memory"].ok
            assert not health["sqlite"].ok
            assert says in health["sqlite"].error
            assert store.inspect("new")["sqlite"].state in ("unavailable", "corrupt")
            assert store.stats().tiers["memory"].entries == 0
        finally:
            store.done()


@pytest.mark.parametrize("name", FACES)
def test_an_authority_that_keeps_failing_still_says_why(name: str, tmp_path: Path) -> None:
    store = face(name, TieredStore([Memory(), SQL(f"sqlite:///{tmp_path}/missing/x.db")], clock=FakeClock()))
    try:
        for _ in range(10):
            with pytest.raises(BackendUnavailable, match="does not exist: create it"):
                store.get("a")
    finally:
        store.done()


@pytest.mark.parametrize("name", FACES)
def test_a_file_that_is_no_database_stays_foreign_however_often_it_is_asked(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"a text file that somebody needs" * 200)
    store = face(name, TieredStore([Memory(), SQL(f"sqlite:///{tmp_path}/x.db")], clock=FakeClock()))
    try:
        for _ in range(10):
            with pytest.raises(ForeignValue, match="left untouched"):
                store.get("a")
    finally:
        store.done()


@pytest.mark.parametrize("name", FACES)
def test_a_folder_where_a_file_is_due(name: str, tmp_path: Path) -> None:
    refused_everywhere(f"sqlite:///{tmp_path}", name, BackendUnavailable, "is a folder: name a file in it")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FACES)
def test_a_missing_folder_is_not_made(name: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/missing/x.db"
    refused_everywhere(url, name, BackendUnavailable, "does not exist: create it")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "missing").mkdir()
    with tiered.open(url) as store:  # and once it is there, all is well
        store.set("a", b"1")
        assert store.get("a") == b"1"


@pytest.mark.parametrize("name", FACES)
@pytest.mark.parametrize("content", [b"a text file that somebody needs\n" * 200, b"SQLite format 2\0" + bytes(5_000)])
def test_a_file_that_is_no_database_is_left_untouched(name: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    file.write_bytes(content)
    refused_everywhere(f"sqlite:///{file}", name, ForeignValue, "left untouched")
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


SHAPES = {
    "other columns": "CREATE TABLE tiered_entries (id INTEGER PRIMARY KEY, name TEXT)",
    "other types": "CREATE TABLE tiered_entries (namespace TEXT NOT NULL, key TEXT NOT NULL, stamp BLOB, "
    "expires_at INTEGER, value BLOB, PRIMARY KEY (namespace, key))",
    "no primary key": "CREATE TABLE tiered_entries (namespace BLOB NOT NULL, key BLOB NOT NULL, stamp BLOB, "
    "expires_at INTEGER, value BLOB)",
    "a view": "CREATE VIEW tiered_entries AS SELECT 1 AS namespace, 2 AS key",
    "other meta": "CREATE TABLE tiered_meta (name TEXT)",
}


@pytest.mark.parametrize("name", FACES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_of_another_shape_under_our_name_is_left_untouched(name: str, shape: str, tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(SHAPES[shape])
        if "id INTEGER" in SHAPES[shape]:
            db.execute("INSERT INTO tiered_entries VALUES (1, 'precious')")
        before = list(db.iterdump())
    refused_everywhere(f"sqlite:///{file}", name, ForeignValue, "left untouched")
    with closing(sqlite3.connect(file)) as db:
        assert list(db.iterdump()) == before


@pytest.mark.parametrize("name", FACES)
def test_a_database_of_another_program_keeps_its_tables(name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("CREATE TABLE theirs (name TEXT)")
        db.execute("INSERT INTO theirs VALUES ('precious')")
    store = face(name, TieredStore([Memory(), SQL(f"sqlite:///{file}")]))
    store.set("a", b"1")
    store.done()
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT * FROM theirs").fetchall() == [("precious",)]


def damage(file: Path) -> bytes:
    """Overwrite what follows the first page of a database of ours, its log included -> what is there now."""
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = file.read_bytes()
    content = content[:4_096] + b"\xa5" * (len(content) - 4_096)
    file.write_bytes(content)
    return content


@pytest.mark.parametrize("name", FACES)
def test_a_damaged_database_is_reported_and_not_made_worse(name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with tiered.open(f"sqlite:///{file}") as store:
        store.mset({f"k{at}": bytes(1_000) for at in range(50)})
    damage(file)
    damaged = face(name, TieredStore([Memory(), SQL(f"sqlite:///{file}")]))
    try:
        for call in (OPERATIONS["get"], OPERATIONS["set"], OPERATIONS["yield_keys"]):
            with pytest.raises(CorruptEntry, match="restore it from a backup"):
                call(damaged)
    finally:
        damaged.done()
    assert file.exists()


@pytest.mark.parametrize("name", FACES)
def test_an_upper_tier_that_cannot_work_does_not_stop_the_stack(name: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.db"
    bad.write_bytes(b"no database " * 1_000)
    tiers = [Memory(), SQL(f"sqlite:///{bad}"), SQL(f"sqlite:///{tmp_path}/good.db")]
    store = face(name, TieredStore(tiers))
    try:
        store.mset(KEPT)
        assert store.mget([*KEPT, "none"]) == [*KEPT.values(), None]
        store.delete("kept too")
        assert store.keys() == ["kept"]
        assert store.stats().tiers["sqlite"].errors > 0
        assert not store.ping()["sqlite"]
        assert store.ping()["sqlite2"]
    finally:
        store.done()
    assert bad.read_bytes() == b"no database " * 1_000


def child(code: str, *arguments: str) -> str:
    """Run `code` in a new interpreter -> what it prints."""
    script = "import asyncio, os, resource, sys, tiered\nfrom tiered.errors import *\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


CALL = """
def call(name, *args):
    if sys.argv[2] == "sync":
        return getattr(store, name)(*args)
    return runner.run(getattr(store, "a" + name)(*args))

store = tiered.open("memory://", f"sqlite:///{sys.argv[1]}/x.db")
runner = asyncio.Runner()
"""


@pytest.mark.parametrize("name", FACES)
def test_a_full_disk_is_reported_and_loses_nothing(name: str, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails as a whole, then works again."""
    printed = child(
        CALL
        + """
call("mset", {f"k{at}": b"old" * 100 for at in range(100)})
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, unlimited[1]))
for _ in range(2):
    try:
        call("mset", {f"k{at}": b"new" * 5_000 for at in range(100)})
    except BackendUnavailable as error:
        print(error)
    else:
        print("written?")
    assert call("mget", [f"k{at}" for at in range(100)]) == [b"old" * 100] * 100
    assert call("get", "k7") == b"old" * 100
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
call("mset", {f"k{at}": b"new" * 5_000 for at in range(100)})
assert call("get", "k7") == b"new" * 5_000
call("close")
store = tiered.open("memory://", f"sqlite:///{sys.argv[1]}/x.db")
assert call("mget", [f"k{at}" for at in range(100)]) == [b"new" * 5_000] * 100
call("close")
runner.close()
""",
        str(tmp_path),
        name,
    )
    first, second = printed.splitlines()
    assert first == second
    assert "[sqlite]" in first
    assert "full" in first
    assert "nothing was written" in first


@pytest.mark.parametrize("name", FACES)
def test_a_folder_one_may_not_write_in(name: str) -> None:
    """As another user where this one is root, whom nothing is forbidden."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        printed = child(
            CALL
            + """
call("set", "warm", b"up")  # all modules are loaded while this user may read them
call("close")
for file in os.listdir(sys.argv[1]):
    os.remove(f"{sys.argv[1]}/{file}")
os.chmod(sys.argv[1], 0o555)
if os.getuid() == 0:
    os.seteuid(65534)
for name, args in (("get", ["a"]), ("set", ["a", b"1"]), ("mset", [{"a": b"1"}])):
    store = tiered.open("memory://", f"sqlite:///{sys.argv[1]}/x.db")
    try:
        call(name, *args)
    except BackendUnavailable as error:
        print(error)
    call("close")
runner.close()
""",
            folder,
            name,
        )
        Path(folder).chmod(0o755)
    assert printed.count("check the permissions of the file and its folder") == 3
    assert printed.count("[sqlite]") == 3


# -- secrets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "urls",
    [
        ("postgresql://user:hunter2@host/db",),
        ("memory://", "redis://user:hunter2@host:6379/0", "postgresql://user:hunter2@host/db"),
        ("memory://", "sqlite://user:hunter2@host/x.db"),
        ("memory://?ttl=soon", "redis://user:hunter2@host"),
        ("memory://?max_bytes=1&password=hunter2",),
        ("sqlite:///x.db?key=hunter2",),
    ],
)
def test_nothing_shows_a_password_of_a_url(urls: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigurationError) as caught:
        tiered.open(*urls)
    shown = [str(caught.value), repr(caught.value), *(str(value) for value in vars(caught.value).values()), caplog.text]
    error: BaseException | None = caught.value
    while error is not None:
        shown += [str(error), repr(error), *map(repr, error.args)]
        error = error.__cause__ or error.__context__
    shown += traceback.format_exception_only(caught.value)
    assert not any("hunter2" in text for text in shown)


def test_logs_and_errors_of_use_show_no_values(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), tiered.open("memory://", f"sqlite:///{tmp_path}/x.db") as store:
        store.set("a", b"hunter2")
        with closing(sqlite3.connect(tmp_path / "x.db")) as db, db:
            db.execute("UPDATE tiered_entries SET value = ?", (b"\xc1\x01 hunter2",))
        with (
            tiered.open("memory://", f"sqlite:///{tmp_path}/x.db") as other,
            pytest.raises(CorruptEntry) as caught,
        ):
            other.get("a")
        assert "hunter2" not in str(caught.value) + repr(store) + repr(store.stats()) + repr(store.inspect("a"))
    assert "corrupt" in caplog.text.lower() or "damaged" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_tier_that_answered_no_is_not_taken_for_one_that_is_away(tmp_path: Path) -> None:
    """A missing folder stays what it is, however often it is met, and is not tried again and again."""
    store = TieredStore([Memory(), SQL(f"sqlite:///{tmp_path}/missing/x.db")], clock=FakeClock())
    for _ in range(7):
        with pytest.raises(BackendUnavailable, match="does not exist: create it"):
            store.set("k", b"v")
    assert store.stats().tiers["sqlite"].errors == 7
    assert store.stats().tiers["sqlite"].skipped == 0


def test_one_memory_under_two_databases_keeps_their_values_apart(tmp_path: Path) -> None:
    memory = Memory()
    one = TieredStore([memory, SQL(f"sqlite:///{tmp_path}/one.db")])
    other = TieredStore([memory, SQL(f"sqlite:///{tmp_path}/other.db")])
    one.set("k", b"one")
    assert other.get("k") is None
    same = TieredStore([memory, SQL(f"sqlite:///{tmp_path}/../{tmp_path.name}/one.db")])
    one.set("k", b"two")
    assert same.get("k") == b"two"
    assert same.stats().tiers["sqlite"].hits == 1, "another stack has copies of its own"
    assert memory.entries == 2, "in the same room"


def test_the_same_file_cannot_be_two_tiers(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="same place"):
        TieredStore([SQL(f"sqlite:///{tmp_path}/x.db"), SQL(f"sqlite:///{tmp_path}/../{tmp_path.name}/x.db")])
