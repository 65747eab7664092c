"""Values read without entries: the same checks, the same answers. And what the first use of SQL may import."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiered import SQL, Memory
from tiered.backends import _sqlite
from tiered.backends.base import Values
from tiered.clock import SYSTEM
from tiered.entry import DELETED, INVALID, VALUE, Entry
from tiered.errors import CorruptEntry, TieredError
from tiered.policies.compression import Zstd
from tiered.record import RESIDUE, decode_rows, decode_values, encode, is_record

NOW = 5_000
KINDS = st.sampled_from([VALUE, VALUE, VALUE, DELETED, INVALID])
STAMPS = st.binary(min_size=12, max_size=12)
EXPIRIES = st.sampled_from([None, None, 1, NOW, NOW + 1, 2**62])
ENTRIES = st.builds(Entry, KINDS, STAMPS, EXPIRIES, st.binary(max_size=60), st.sampled_from([None, None, 7]))


def expected(found: list[Any]) -> tuple[list[Any], bytes, list[Any]]:
    """What `decode_values` must say, told from entries."""
    values = [entry.value if isinstance(entry, Entry) and entry.live(NOW) else None for entry in found]
    newest = max((entry.stamp for entry in found if isinstance(entry, Entry)), default=b"")
    errors = [(at, type(entry), str(entry)) for at, entry in enumerate(found) if isinstance(entry, TieredError)]
    return values, newest, errors


def told(keys: list[bytes], raws: list[Any]) -> tuple[list[Any], bytes, list[Any]]:
    values, newest, errors = decode_values(keys, (raws[at : at + 100] for at in range(0, len(raws), 100)), NOW)
    return values, newest, [(at, type(error), str(error)) for at, error in errors]


@given(st.lists(ENTRIES | st.none() | st.sampled_from([0, 1.5, "text", b"", b"\xc1\x01", b"x" * 40]), max_size=12))
def test_values_are_those_of_the_entries(cells: list[Any]) -> None:
    keys = [b"k%d" % at for at in range(len(cells))]
    raws = [encode(key, cell) if isinstance(cell, Entry) else cell for key, cell in zip(keys, cells, strict=True)]
    assert told(keys, raws) == expected(decode_rows(keys, ((raw,) for raw in raws)))


@pytest.mark.parametrize("spoil", [None, 3, 99, 100, 101, 250, 349])
def test_values_of_several_batches_are_those_of_the_entries(spoil: int | None) -> None:
    chance = random.Random(11)
    keys = [b"k%d" % at for at in range(350)]
    entries = [
        Entry(VALUE, chance.randbytes(12), None if at < 200 else chance.choice([None, NOW, 9**9]), chance.randbytes(at))
        for at in range(350)
    ]
    raws: list[Any] = [encode(key, entry) for key, entry in zip(keys, entries, strict=True)]
    if spoil is not None:
        raws[spoil] = raws[spoil][:-1] + bytes([raws[spoil][-1] ^ 1])
    values, newest, errors = told(keys, raws)
    assert (values, newest, errors) == expected(decode_rows(keys, ((raw,) for raw in raws)))
    assert [at for at, *_ in errors] == ([] if spoil is None else [spoil])
    assert sum(value is not None for value in values) > 200


@pytest.mark.parametrize("at", [0, 1, 14, 15, 24, 25, 26, 27, 28, 29])
def test_a_header_that_says_otherwise_is_no_plain_value_though_its_checksum_is_right(at: int) -> None:
    """Each field the quick path looks at: its checksum is made right again after the change."""
    from zlib import crc32

    keys = [b"a", b"b", b"c"]
    raws = [encode(key, Entry(VALUE, bytes(12), None, b"v" * 300)) for key in keys]
    body = raws[1][:at] + bytes([raws[1][at] ^ 0x20]) + raws[1][at + 1 : -4]
    raws[1] = body + crc32(body, crc32(b"b")).to_bytes(4, "little")
    assert crc32(raws[1], crc32(b"b")) == RESIDUE
    values, _, errors = decode_values(keys, [raws], NOW)
    assert (values[0], values[2]) == (b"v" * 300, b"v" * 300)
    assert values[1] is None
    assert [place for place, _ in errors] == [1]


def test_what_is_too_short_for_a_header_is_no_record_though_its_checksum_is_right() -> None:
    from zlib import crc32

    for nonce in range(10_000):  # until the checksum itself looks like the rest of the header
        body = b"\xc1\x01" + nonce.to_bytes(12, "big") + bytes(11)
        raw = body + crc32(body, crc32(b"k")).to_bytes(4, "little")
        if raw[25] == 0:
            break
    assert (len(raw), raw[25], crc32(raw, crc32(b"k"))) == (29, 0, RESIDUE)
    [error] = decode_rows([b"k"], [(raw,)])
    assert isinstance(error, CorruptEntry)


def test_a_record_is_known_by_magic_and_checksum() -> None:
    raw = encode(b"k", Entry(VALUE, bytes(12), None, b"v"))
    assert is_record(b"k", raw)
    assert not is_record(b"other", raw)
    assert not is_record(b"k", raw[:-1])
    assert not is_record(b"k", b"")
    assert not is_record(b"k", b"\xc1" + bytes(40))


def test_chunks_of_values_are_joined_with_their_places() -> None:
    first, second = CorruptEntry("1"), CorruptEntry("2")
    parts = [Values([b"a", None], b"1" * 12, [(1, first)]), Values([None, b"b"], b"2" * 12, [(0, second)])]
    assert Values.joined(parts) == ([b"a", None, None, b"b"], b"2" * 12, [(1, first), (2, second)])
    assert Values.joined([]) == ([], b"", [])


def test_a_backend_without_a_quick_way_answers_by_its_entries() -> None:
    store = Memory()
    store.mset({"a": b"1", "b": b"2"})
    found = store.run(super(Memory, store).values("", ["b", "zz", "a"], NOW), 5.0)
    assert (found.values, found.errors) == ([b"2", None, b"1"], [])
    assert len(found.newest) == 12


def test_mget_of_sql_keeps_every_promise_of_the_entries(tmp_path: Path) -> None:
    store = SQL(f"sqlite:///{tmp_path}/x.db")
    far = (SYSTEM.time() + 3600) * 1_000_000  # an hour ahead: believed
    stamp = int(far).to_bytes(8, "big") + b"abcd"
    soon = int(SYSTEM.time() * 1000) + 3_600_000
    entries = {
        "plain": Entry(VALUE, stamp, None, b"1"),
        "expires": Entry(VALUE, stamp, soon, b"2"),
        "expired": Entry(VALUE, stamp, 1, b"3"),
        "deleted": Entry(DELETED, stamp, None, b""),
    }
    store.run(store.put("", list(entries.items()), None), 5.0)
    store.run(store.put("", [("packed", Entry(VALUE, stamp, None, b"p" * 5_000))], Zstd(min_size=0).pack), 5.0)
    assert store.mget(list(entries)) == [b"1", b"2", None, None]
    assert store.mget(["packed", "plain"]) == [b"p" * 5_000, b"1"]
    assert SYSTEM.draw() > stamp, "read stamps advance the clock (R1)"
    store.close()


@pytest.mark.parametrize("layout", ["record", "plain"])
def test_text_where_bytes_belong_is_corrupt_also_when_it_is_no_utf8(tmp_path: Path, layout: str) -> None:
    store = SQL(f"sqlite:///{tmp_path}/x.db", layout=layout)
    store.mset({"a": b"1", "b": b"2"})
    table = {"record": "tiered_entries", "plain": "langchain_key_value_stores"}[layout]
    with closing(sqlite3.connect(tmp_path / "x.db")) as db, db:
        for text in ("'fine'", "CAST(x'ff00' AS TEXT)", "5"):
            db.execute(
                f"UPDATE {table} SET value = {text} WHERE key = CAST('a' AS {'BLOB' if layout == 'record' else 'TEXT'})"
            )
            db.commit()
            with pytest.raises(CorruptEntry) as caught:
                store.mget(["b", "a"])
            assert (caught.value.tier, caught.value.key) == ("sqlite", "a")
            assert store.mget(["b"]) == [b"2"]
            [found] = store.run(store.fetch("", ["a"]), 5.0)
            assert isinstance(found, CorruptEntry)
    store.close()


def test_a_table_dropped_while_a_connection_is_open_is_made_again(tmp_path: Path) -> None:
    store = SQL(f"sqlite:///{tmp_path}/x.db")
    store.mset({"a": b"1"})
    with closing(sqlite3.connect(tmp_path / "x.db")) as db, db:
        db.execute("DROP TABLE tiered_entries")
    assert store.mget(["a"]) == [None]
    store.mset({"a": b"2"})
    with closing(sqlite3.connect(tmp_path / "x.db")) as db, db:
        db.execute("DROP TABLE tiered_entries")
    store.mset({"b": b"3"})
    assert store.mget(["a", "b"]) == [None, b"3"]
    store.close()


@pytest.mark.parametrize("face", ["sync", "async"])
def test_a_fork_while_a_connection_is_being_made_only_delays_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, face: str
) -> None:
    """A fork closes every connection, also one that SQLAlchemy has not handed over yet."""
    closed: list[Any] = []

    class Forked(_sqlite.Session):
        def create_function(self, *args: Any, **options: Any) -> None:  # SQLAlchemy does it to a new connection
            if not closed:
                closed.append(self)
                self.shut()
            super().create_function(*args, **options)

    monkeypatch.setitem(_sqlite.CONNECT, "factory", Forked)
    store = SQL(f"sqlite:///{tmp_path}/x.db")

    async def use() -> None:
        await store.amset({"a": b"1"})
        assert await store.amget(["a"]) == [b"1"]
        await store.aclose()

    if face == "async":
        asyncio.run(use())
    else:
        store.mset({"a": b"1"})
        assert store.mget(["a"]) == [b"1"]
    assert closed
    store.close()


def test_the_first_use_imports_nothing(tmp_path: Path) -> None:
    """A fork in another thread during an import leaves the child waiting for ever for that import's lock."""
    code = """
import asyncio, sys
from tiered import SQL
store = SQL("sqlite:///" + sys.argv[1])
before = set(sys.modules)
store.mset({"a": b"1"})
assert store.mget(["a"]) == [b"1"]
async def use():
    await store.amset({"b": b"2"})
    assert await store.amget(["b"]) == [b"2"]
    await store.aclose()
asyncio.run(use())
store.close()
print(sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.db")], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_fewer_rows_than_keys_are_no_answer() -> None:
    raw = encode(b"a", Entry(VALUE, bytes(12), None, b"v"))
    with pytest.raises(ValueError, match="1 rows for 2 keys"):
        decode_values([b"a", b"b"], [[], [raw], []], NOW)


@pytest.mark.parametrize("count", [1, 99, 100, 101, 199, 200, 201, 350])
def test_values_collected_some_at_a_time_are_all_there_in_order(tmp_path: Path, count: int) -> None:
    store = SQL(f"sqlite:///{tmp_path}/x.db")
    keys = [f"k{at:03}" for at in range(count)]
    store.mset([(key, key.encode()) for key in keys])
    assert store.mget(keys) == [key.encode() for key in keys]
    asked = [*keys[::-1], "zz", keys[0]]
    answers = [*(key.encode() for key in keys[::-1]), None, b"k000"]
    assert store.mget(asked) == answers
    store.mset([("n\0l", b"nul")])
    assert store.mget(["n\0l", *asked]) == [b"nul", *answers]
    store.close()
