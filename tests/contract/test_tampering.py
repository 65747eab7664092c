"""Invariant 7: a stored record that is truncated, altered, of another key or an unknown version is never served."""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tiered import SQL
from tiered.entry import VALUE, Entry
from tiered.errors import CorruptEntry, UnknownVersion
from tiered.record import encode
from tiered.testing import FakeClock

from .faces import FACES, face
from .matrix import Rig, rigs

OTHER = b"o" * 40
GOOD = b"good" * 10


def rows(file: Path) -> dict[str, bytes]:
    with closing(sqlite3.connect(file)) as db:
        return {key.decode(): value for key, value in db.execute("SELECT key, value FROM tiered_entries")}


def rewrite(file: Path, values: dict[str, Any]) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        for key, value in values.items():
            done = db.execute("UPDATE tiered_entries SET value = ? WHERE key = ?", (value, key.encode()))
            assert done.rowcount == 1


def flip(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :]


def resealed(key: bytes, raw: bytes, at: int, value: int) -> bytes:
    body = raw[:at] + bytes([value]) + raw[at + 1 : -4]
    return body + zlib.crc32(body, zlib.crc32(key)).to_bytes(4, "little")


TAMPERINGS: dict[str, Callable[[bytes, bytes], Any]] = {
    **{f"byte {at}": (lambda raw, _, at=at: flip(raw, at)) for at in (0, 1, 2, 13, 14, 15, 23, 25, 29, 30, -5, -4, -1)},
    "empty": lambda raw, _: b"",
    "one byte": lambda raw, _: raw[:1],
    "half": lambda raw, _: raw[: len(raw) // 2],
    "last byte gone": lambda raw, _: raw[:-1],
    "a byte more": lambda raw, _: raw + b"\0",
    "zeros": lambda raw, _: bytes(len(raw)),
    "the record of another key": lambda _, other: other,
    "NULL": lambda raw, _: None,
    "text": lambda raw, _: "text",
    "a number": lambda raw, _: 5,
    "the bare value": lambda raw, _: GOOD,
    "version 2": lambda raw, _: resealed(b"bad", raw, 1, 2),
    "an unknown codec": lambda raw, _: resealed(b"bad", raw, 15, 9),
    "an unknown flag": lambda raw, _: resealed(b"bad", raw, 14, 0x80),
}


def tamper(file: Path, how: str) -> None:
    stored = rows(file)
    rewrite(file, {"bad": TAMPERINGS[how](stored["bad"], stored["other"])})


def fill(stack: Any) -> None:
    stack.mset({"bad": GOOD, "other": OTHER, "fine": b"1"})


@rigs(["sqlite", "memory > sqlite > sqlite"])
def test_invariant_7_the_authority_refuses_a_tampered_record_by_name(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    fill(rig.open())
    for how in TAMPERINGS:
        for file in rig.place.glob("*.db"):
            tamper(file, how)
        stack = rig.restart()
        for read in (lambda s=stack: s.get("bad"), lambda s=stack: s.mget(["fine", "bad"])):
            with pytest.raises((CorruptEntry, UnknownVersion)) as caught:
                read()
            assert caught.value.tier == rig.names[-1], how
            assert rig.names[-1] in str(caught.value)
        assert stack.mget(["fine", "other"]) == [b"1", OTHER]
        assert list(stack.stats().tiers.values())[-1].corrupt == 2
        assert list(stack.inspect("bad").values())[-1].state == "corrupt"
        stack.set("bad", GOOD)  # writing it anew repairs it
        assert stack.get("bad") == GOOD
        assert rig.restart().get("bad") == GOOD


@rigs(["memory > sqlite", "memory > sqlite > sqlite"])
def test_invariant_7_get_or_load_replaces_a_tampered_record(rig: Rig) -> None:
    fill(rig.open())
    for how in TAMPERINGS:
        for file in rig.place.glob("*.db"):
            tamper(file, how)
        stack = rig.restart()
        assert stack.get_or_load("bad", lambda key: GOOD) == GOOD, how
        assert stack.get("bad") == GOOD
        assert rig.restart().get("bad") == GOOD, how


@rigs(["memory > sqlite"])
def test_a_tampered_record_can_be_deleted(rig: Rig) -> None:
    fill(rig.open())
    for how in TAMPERINGS:
        tamper(rig.place / "authority.db", how)
        stack = rig.restart()
        stack.delete("bad")
        assert stack.get("bad") is None
        assert sorted(stack.keys()) == ["fine", "other"]
        stack.set("bad", GOOD)


@rigs(["memory > sqlite > sqlite", "sqlite > sqlite", "jittered memory > jittered zstd sqlite > sqlite"])
def test_invariant_7_an_upper_tier_misses_a_tampered_record_counts_and_logs_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    middle = "sqlite"  # the first of that name; the authority is sqlite2
    fill(rig.open())
    kept = rows(rig.place / "middle.db")
    for how in TAMPERINGS:
        rewrite(rig.place / "middle.db", kept)
        tamper(rig.place / "middle.db", how)
        stack = rig.restart()
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="tiered"):
            assert stack.mget(["bad", "other", "fine"]) == [GOOD, OTHER, b"1"], how
        assert stack.get("bad") == GOOD
        stats = stack.stats().tiers
        assert stats[middle].corrupt >= 1
        assert stats[rig.names[-1]].corrupt == 0
        assert any(middle in record.getMessage() for record in caplog.records)


@rigs(["memory > sqlite > sqlite"])
def test_a_tampered_copy_in_an_upper_tier_is_replaced_by_the_read_that_met_it(rig: Rig) -> None:
    """PROTOCOL section 3: a copy that fails its checksum is removed if unchanged; it must not be missed for ever."""
    fill(rig.open())
    tamper(rig.place / "middle.db", "half")
    assert rig.restart().get("bad") == GOOD
    stack = rig.restart()
    assert stack.get("bad") == GOOD
    stats = stack.stats().tiers
    assert (stats["sqlite"].corrupt, stats["sqlite"].hits, stats["sqlite2"].hits) == (0, 1, 0)


@rigs(["sqlite", "memory > sqlite"])
def test_invariant_7_the_rows_of_two_keys_swapped(rig: Rig) -> None:
    fill(rig.open())
    file = rig.place / "authority.db"
    stored = rows(file)
    rewrite(file, {"bad": stored["other"], "other": stored["bad"]})
    stack = rig.restart()
    for key in ("bad", "other"):
        with pytest.raises(CorruptEntry, match="another key"):
            stack.get(key)
    assert stack.get("fine") == b"1"


@rigs(["memory > sqlite"])
def test_r1_a_stamp_from_the_far_future_is_not_believed(rig: Rig, clock: FakeClock) -> None:
    """A record of a machine whose clock was wrong: refused by name, and our clock is not dragged along."""
    fill(rig.open())
    stamp = (int(clock.time() + 90_000) * 1_000_000).to_bytes(8, "big") + b"abcd"
    raw = encode(b"bad", Entry(VALUE, stamp, None, b"future"))
    with closing(sqlite3.connect(rig.place / "authority.db")) as db, db:
        db.execute("UPDATE tiered_entries SET value = ?, stamp = ? WHERE key = ?", (raw, stamp, b"bad"))
    stack = rig.restart()
    with pytest.raises(CorruptEntry, match="ahead of this machine's clock"):
        stack.get("bad")
    assert stack.mget(["fine", "other"]) == [b"1", OTHER]
    stack.set("fine", b"2")
    assert abs(list(stack.inspect("fine").values())[-1].written - clock.time()) < 5


@rigs(["memory > sqlite"])
def test_r1_get_or_load_of_a_stamp_from_the_far_future_serves_what_it_loads(rig: Rig, clock: FakeClock) -> None:
    fill(rig.open())
    stamp = (int(clock.time() + 90_000) * 1_000_000).to_bytes(8, "big") + b"abcd"
    raw = encode(b"bad", Entry(VALUE, stamp, None, b"future"))
    with closing(sqlite3.connect(rig.place / "authority.db")) as db, db:
        db.execute("UPDATE tiered_entries SET value = ?, stamp = ? WHERE key = ?", (raw, stamp, b"bad"))
    stack = rig.restart()
    assert stack.get_or_load("bad", lambda key: b"loaded") == b"loaded"


@pytest.mark.parametrize("name", FACES)
def test_invariant_7_a_bare_backend_refuses_a_tampered_record(name: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bare.db"
    for how in TAMPERINGS:
        store = face(name, SQL(url))
        fill(store)
        tamper(tmp_path / "bare.db", how)
        with pytest.raises((CorruptEntry, UnknownVersion)) as caught:
            store.mget(["fine", "bad"])
        assert caught.value.tier == "sqlite"
        assert store.mget(["fine", "other"]) == [b"1", OTHER]
        store.mset([("bad", GOOD)])
        assert store.mget(["bad"]) == [GOOD]
        store.done()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    for record in caplog.records:
        assert GOOD.decode() not in record.getMessage()  # values are not for logs
