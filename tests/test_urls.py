"""Stacks from URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiered
from tiered import TTL, Memory, TieredStore, WriteAround, Zstd
from tiered.backends.sql import SQL
from tiered.errors import ConfigurationError
from tiered.testing import FakeClock
from tiered.urls import size, tier_of


def refused(*urls: Any, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        tiered.open(*urls, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("1", 1), ("1048576", 2**20), ("10B", 10), ("256MiB", 256 * 2**20), ("64MB", 64 * 10**6), ("1GiB", 2**30)),
        *(
            ("64 MiB", 64 * 2**20),
            ("1.5KiB", 1_536),
            (" 2kb ", 2_000),
            ("3gb", 3 * 10**9),
            ("9007199254740993", 2**53 + 1),
        ),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected
    assert type(size(text)) is int


@pytest.mark.parametrize(
    "text", ["", "MiB", "-1", "1e9", "1 000", "ten", "64XiB", "0x10", "64MiBMiB", "1_000", "inf", "nan"]
)
def test_bad_sizes_say_what_to_give(text: str) -> None:
    with pytest.raises(ValueError, match="as in 256MiB, 64MB or 1048576"):
        size(text)


def test_a_memory_url_takes_bounds_and_a_policy() -> None:
    tier, namespace = tier_of("memory://?max_bytes=1MiB&max_entries=10&policy=lru")
    assert isinstance(tier.store, Memory)
    assert repr(tier.store) == "Memory(max_bytes=1048576, max_entries=10, policy='lru')"
    assert namespace is None
    assert repr(tier_of("memory://")[0].store) == repr(Memory())
    assert repr(tier_of("MEMORY:///")[0].store) == repr(Memory())


def test_any_url_takes_the_options_of_itstier_of(tmp_path: Path) -> None:
    tier, namespace = tier_of(
        f"sqlite:///{tmp_path}/x.db?ttl=60&timeout=0.5&compression=zstd:9&name=disk&namespace=docs"
    )
    assert (tier.ttl, tier.timeout, tier.compression, tier.name) == (TTL(60), 0.5, Zstd(level=9), "disk")
    assert namespace == "docs"
    assert isinstance(tier.store, SQL)
    assert tier_of("memory://?ttl=none")[0].ttl is None
    assert tier_of("memory://?ttl=0.25")[0].ttl == TTL(0.25)
    assert tier_of(f"sqlite:///{tmp_path}/x.db?compression=zstd")[0].compression == Zstd()
    assert tier_of(f"sqlite:///{tmp_path}/x.db?compression=none")[0].compression is None
    assert tier_of("memory://?name=caf%C3%A9%20one")[0].name == "café one"


def test_a_database_url_takes_a_layout() -> None:
    for layout in ("record", "plain"):
        store = tier_of(f"sqlite:///x.db?layout={layout}")[0].store
        assert isinstance(store, SQL)
        assert store.layout == layout
    assert "'plian'" in refused("sqlite:///x.db?layout=plian")


def test_open_passes_on_what_a_stack_takes(tmp_path: Path, clock: FakeClock) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    with tiered.open("memory://", url, default_ttl=10, tombstone_ttl=60, write=WriteAround(), clock=clock) as store:
        store.set("a", b"1")
        assert store.stats().tiers["memory"].entries == 0, "write-around"
        clock.advance(10)
        assert store.get("a") is None
    with tiered.open("memory://", url, immutable=True, clock=clock) as store:
        store.set("b", b"1")
        clock.advance(3_600)
        store.get("b")
        assert store.stats().tiers["memory"].hits == 1, "copies have no maximum age"
    with pytest.raises(ConfigurationError, match="write="):
        tiered.open("memory://", write="around")  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["sqlite", "SQLite", "sqlite+aiosqlite", "sqlite+pysqlite"])
def test_an_sqlite_url_names_the_file(scheme: str, tmp_path: Path) -> None:
    with tiered.open(f"{scheme}:///{tmp_path}/a b.db") as store:
        store.set("a", b"1")
    assert (tmp_path / "a b.db").exists()


def test_three_slashes_are_a_relative_path_and_four_an_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    store = tiered.open("sqlite:///sub/cache.db")
    monkeypatch.chdir("/")  # the path is that of the time it was given
    with store:
        store.set("a", b"1")
    assert (tmp_path / "sub" / "cache.db").exists()
    with tiered.open(f"sqlite:////{str(tmp_path).lstrip('/')}/sub/cache.db") as store:
        assert store.get("a") == b"1"


def test_open_makes_the_stack_that_classes_make(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    store = tiered.open("memory://?max_bytes=1MiB&ttl=30", url, namespace="docs", default_ttl=5)
    assert isinstance(store, TieredStore)
    assert repr(store) == "TieredStore(memory > sqlite, namespace='docs')"
    assert repr(tiered.open("memory://?namespace=docs", url)) == repr(store)
    assert repr(tiered.open("memory://?namespace=docs", f"{url}?namespace=docs", namespace="docs")) == repr(store)
    two = tiered.open("memory://", url, f"sqlite:///{tmp_path}/y.db", f"sqlite:///{tmp_path}/z.db?name=bottom")
    assert repr(two) == "TieredStore(memory > sqlite > sqlite2 > bottom, namespace='')"
    three = tiered.open(url, f"sqlite:///{tmp_path}/y.db", f"sqlite:///{tmp_path}/z.db")
    assert list(three.stats().tiers) == ["sqlite", "sqlite2", "sqlite3"]
    taken = tiered.open(f"{url}?name=sqlite2", f"sqlite:///{tmp_path}/y.db", f"sqlite:///{tmp_path}/z.db")
    assert list(taken.stats().tiers) == ["sqlite2", "sqlite", "sqlite3"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("memroy://", "did you mean 'memory'"),
        ("sqllite:///x.db", "did you mean 'sqlite'"),
        ("foo://x", "known: memory, sqlite"),
        ("", "memory://, sqlite:///cache.db"),
        ("cache.db", "memory://, sqlite:///cache.db"),
        ("/tmp/cache.db", "memory://, sqlite:///cache.db"),
        ("sqlite:/x.db", "memory://, sqlite:///cache.db"),
        ("://", "memory://, sqlite:///cache.db"),
        ("memory://?max_byte=1MiB", "did you mean 'max_bytes'"),
        ("memory://?maxbytes=1MiB", "did you mean 'max_bytes'"),
        ("memory://?max_entires=5", "did you mean 'max_entries'"),
        ("memory://?polcy=lru", "did you mean 'policy'"),
        ("memory://?tll=5", "did you mean 'ttl'"),
        ("sqlite:///x.db?time_out=5", "did you mean 'timeout'"),
        ("sqlite:///x.db?compresion=zstd", "did you mean 'compression'"),
        ("sqlite:///x.db?name_space=a", "did you mean 'namespace'"),
        ("sqlite:///x.db?max_bytes=5", "unknown option of sqlite:// 'max_bytes'"),
        ("sqlite:///x.db?zzz=5", "known: layout, ttl, timeout, compression, name, namespace"),
        ("memory://host", "takes options only, as in memory://?max_bytes=64MiB"),
        ("memory+fast://", "takes options only"),
        ("memory://?ttl=5&ttl=6", "gives an option twice"),
        ("memory://?max_bytes=64XiB", "as in 256MiB"),
        ("memory://?max_bytes=", "as in 256MiB"),
        ("memory://?max_bytes=0", "at least 1"),
        ("memory://?max_entries=ten", "whole number"),
        ("memory://?max_entries=1.5", "whole number"),
        ("memory://?max_entries=-1", "whole number"),
        ("memory://?max_entries=0", "at least 1"),
        ("memory://?policy=lfu", "lru"),
        ("memory://?ttl=soon", "give seconds, as in 30 or 0.25"),
        ("memory://?ttl=", "give seconds"),
        ("memory://?ttl=0", "more than 0 seconds"),
        ("memory://?ttl=-5", "more than 0 seconds"),
        ("memory://?ttl=nan", "give seconds"),
        ("memory://?ttl=inf", "give seconds"),
        ("memory://?ttl=1e300", "give seconds"),
        ("memory://?ttl=99999999999999", "at most a century"),
        ("sqlite:///x.db?timeout=0", "more than 0 seconds"),
        ("sqlite:///x.db?timeout=fast", "give seconds"),
        ("sqlite:///x.db?compression=gzip", "zstd, zstd:LEVEL or none"),
        ("sqlite:///x.db?compression=zstd:fast", "zstd, zstd:LEVEL or none"),
        ("sqlite:///x.db?compression=zstd:", "zstd, zstd:LEVEL or none"),
        ("sqlite:///x.db?compression=zstd:99", "from 1 to 22"),
        ("sqlite:///x.db?name=", "non-empty"),
        ("sqlite://cache.db", "three slashes"),
        ("sqlite://", "sqlite:///cache.db"),
        ("sqlite:///", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite+psycopg:///x.db", "drivers are chosen for you"),
    ],
)
def test_a_url_with_a_mistake_says_what_to_write(url: str, hint: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert hint in refused(url, "sqlite:///authority.db")
    assert list(tmp_path.iterdir()) == []


def test_a_ttl_on_the_authority_and_contradicting_namespaces_are_refused() -> None:
    assert "authority" in refused("memory://", "sqlite:///x.db?ttl=5")
    assert "a stack has one" in refused("memory://?namespace=a", "sqlite:///x.db?namespace=b")
    assert "a stack has one" in refused("memory://", "sqlite:///x.db?namespace=b", namespace="a")
    assert "at least one tier" in refused()
    assert "not Memory" in refused(Memory())
    assert "not NoneType" in refused(None)
    assert "not bytes" in refused(b"memory://")
    assert "memory belongs first" in refused("sqlite:///x.db", "memory://")


SECRETS = [
    "postgrs://user:hunter2@host/db",
    "sqlite://user:hunter2@host/x.db",
    "sqlite://hunter2/x.db",
    "memory://user:hunter2@host",
    "postgresql:user:hunter2@host",
    "user:hunter2@host",
    "user:hunter2@postgres://host",
    "hunter2",
    "sqlite:///x.db?password=hunter2",
    "sqlite:///x.db?user:hunter2@host",
    "sqlite://user:pw?hunter2@host/db",
    "sqlite+hunter2@x:///x.db",
    "sqlite+hunter2@x:///x.db?ttl=1&ttl=2",
    "memory+hunter2@x://?tll=1",
    "sqlite+hunter2@x:///x.db?timeout=soon",
    "memory://?max_bytes=1&user:hunter2@host=5",
]


@pytest.mark.parametrize("url", SECRETS)
def test_no_error_of_open_shows_a_password(url: str) -> None:
    assert "hunter2" not in refused(url)


def test_no_error_of_sql_shows_a_password() -> None:
    for url in SECRETS:
        with pytest.raises(ConfigurationError) as caught:
            SQL(url)
        assert "hunter2" not in str(caught.value), url
