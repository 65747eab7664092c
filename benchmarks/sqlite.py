"""SQLite: batches against LangChain's SQLStore and the bare driver, async against sync, listing a million keys.

Run: python -m benchmarks.sqlite
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, table
from tiered import SQL

KEYS, SIZE, ROUNDS = 5_000, 1_024, 9
LISTED = 1_000_000
UPSERT = """INSERT INTO raw VALUES ('bench', ?, ?)
            ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value"""


def values() -> list[bytes]:
    """New ones every round: SQLite skips pages that an overwrite leaves as they are."""
    return [random.randbytes(SIZE) for _ in range(KEYS)]


def pairs(names: list[str]) -> Callable[[], list[tuple[str, bytes]]]:
    return lambda: list(zip(names, values(), strict=True))


def names() -> list[str]:
    return [f"{random.getrandbits(64):016x}" for _ in range(KEYS)]


def interleaved(
    contenders: dict[str, Callable[[Any], Any]], given: Callable[[], Any], rounds: int = ROUNDS
) -> dict[str, float]:
    """Seconds of the fastest round of each, taken in turns so that a busy machine slows all alike."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            argument = given()
            gc.collect()
            began = time.perf_counter()
            work(argument)
            if turn:  # the first one warms up
                taken[name].append(time.perf_counter() - began)
    return {name: min(times) for name, times in taken.items()}


class Raw:
    """What one would write by hand on sqlite3: WAL, one upsert transaction, one IN list into a dict."""

    def __init__(self, path: str, indexes: tuple[str, ...] = ()) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(
            "CREATE TABLE raw (namespace TEXT, key TEXT, value BLOB, PRIMARY KEY (namespace, key))"
        )
        for column in indexes:
            self._connection.execute(f"CREATE INDEX raw_{column} ON raw ({column})")

    def mset(self, items: Any) -> None:
        with self._connection:
            self._connection.executemany(UPSERT, items)

    def mget(self, keys: Any) -> dict[str, bytes]:
        holes = ",".join("?" * len(keys))
        sql = f"SELECT key, value FROM raw WHERE namespace = 'bench' AND key IN ({holes})"
        return dict(self._connection.execute(sql, keys).fetchall())

    def close(self) -> None:
        self._connection.close()


@contextmanager
def stores(folder: str, name: str, layout: str = "record") -> Iterator[tuple[SQL, Any, Raw]]:
    """Ours, LangChain's and the bare driver, each on a file of its own; all three on its table for the plain layout."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # langchain-community announces its end
        from langchain_community.storage import SQLStore

    theirs = SQLStore(namespace="bench", db_url=f"sqlite:///{folder}/{name}-theirs.db")
    theirs.create_schema()
    ours = SQL(f"sqlite:///{folder}/{name}-ours.db", namespace="bench", layout=layout)
    raw = Raw(f"{folder}/{name}-raw.db", ("namespace", "key") if layout == "plain" else ())
    try:
        yield ours, theirs, raw
    finally:
        ours.close()
        theirs.engine.dispose()
        raw.close()


def batches(folder: str) -> Iterator[Row]:
    with stores(folder, "new") as (ours, theirs, raw):
        took = interleaved({"ours": ours.mset, "theirs": theirs.mset, "raw": raw.mset}, lambda: pairs(names())())
        yield faster("mset, new keys", took, "theirs", "LangChain SQLStore", 4.5)
        yield slower("mset, new keys", took, "raw", "raw sqlite3 upsert", None)
    known = sorted(names())
    with stores(folder, "known") as (ours, theirs, raw), asyncio.Runner() as runner:
        took = interleaved({"ours": ours.mset, "theirs": theirs.mset, "raw": raw.mset}, pairs(known))
        yield faster("overwrite", took, "theirs", "LangChain SQLStore", 4.5)
        yield slower("overwrite", took, "raw", "raw sqlite3 upsert", None)
        took = interleaved({"ours": ours.mget, "theirs": theirs.mget, "raw": raw.mget}, lambda: known, 3 * ROUNDS)
        yield faster("mget", took, "theirs", "LangChain SQLStore", 4.0)
        yield slower("mget", took, "raw", "raw sqlite3 IN", 1.2)
        took = interleaved({"ours": lambda items: runner.run(ours.amset(items)), "sync": ours.mset}, pairs(known))
        yield slower("amset", took, "sync", "its own mset", 1.3)
        took = interleaved(
            {"ours": lambda keys: runner.run(ours.amget(keys)), "sync": ours.mget}, lambda: known, 3 * ROUNDS
        )
        yield slower("amget", took, "sync", "its own mget", 1.3)


def plain(folder: str) -> Iterator[Row]:
    """SQL(.., layout="plain"), which is tiered.storage.SQLStore: the same table as LangChain's, indexes included."""
    with stores(folder, "plain new", "plain") as (ours, theirs, raw):
        took = interleaved({"ours": ours.mset, "theirs": theirs.mset, "raw": raw.mset}, lambda: pairs(names())())
        yield faster("plain mset, new keys", took, "theirs", "LangChain SQLStore", 6.0)
        yield slower("plain mset, new keys", took, "raw", "raw sqlite3 upsert", 1.3)
    known = sorted(names())
    with stores(folder, "plain known", "plain") as (ours, theirs, raw):
        took = interleaved({"ours": ours.mset, "theirs": theirs.mset, "raw": raw.mset}, pairs(known))
        yield faster("plain overwrite", took, "theirs", "LangChain SQLStore", 6.0)
        yield slower("plain overwrite", took, "raw", "raw sqlite3 upsert", 1.3)
        took = interleaved({"ours": ours.mget, "theirs": theirs.mget, "raw": raw.mget}, lambda: known, 3 * ROUNDS)
        yield faster("plain mget", took, "theirs", "LangChain SQLStore", 6.0)
        yield slower("plain mget", took, "raw", "raw sqlite3 IN", 0.9)


def faster(what: str, took: dict[str, float], other: str, peer: str, bar: float) -> Row:
    ratio = took[other] / took["ours"]
    return _row(what, took, other, ratio, f">= {bar}x faster", ratio >= bar, peer)


def slower(what: str, took: dict[str, float], other: str, peer: str, bar: float | None) -> Row:
    ratio = took["ours"] / took[other]
    ok = None if bar is None else ratio <= bar
    return _row(what, took, other, ratio, "" if bar is None else f"<= {bar}x", ok, peer)


def _row(what: str, took: dict[str, float], other: str, ratio: float, bar: str, ok: bool | None, peer: str) -> Row:
    label = f"SQLite {what}, {KEYS:,} x 1 KiB, against {peer}"
    return Row(label, took["ours"] * 1e3, took[other] * 1e3, "ms", ratio, bar, ok)


LISTING = """
import json, sys, time
from tiered import SQL

def megabytes(field):
    [line] = [line for line in open("/proc/self/status") if line.startswith(field)]
    return int(line.split()[1]) / 1024

store = SQL(sys.argv[1], namespace="bench")
store.run(store.ping(), 5.0)
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts from here
before = megabytes("VmRSS")
began = time.perf_counter()
keys = store.yield_keys()
next(keys)
first = time.perf_counter() - began
count = 1 + sum(1 for _ in keys)
total = time.perf_counter() - began
print(json.dumps([first * 1e3, megabytes("VmHWM") - before, total, count]))
"""


def listing(folder: str) -> Iterator[Row]:
    path = f"{folder}/many.db"
    with_schema = SQL(f"sqlite:///{path}")
    with_schema.run(with_schema.ping(), 5.0)
    with_schema.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    with connection:
        connection.executemany(
            "INSERT INTO tiered_entries (namespace, key, stamp, value) VALUES (?, ?, ?, ?)",
            ((b"bench", b"user:%08d" % at, bytes(12), b"x" * 64) for at in range(LISTED)),
        )
    connection.close()
    told = subprocess.run(
        [sys.executable, "-c", LISTING, f"sqlite:///{path}"],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    first, grown, total, count = json.loads(told.stdout)
    label = f"SQLite yield_keys over {LISTED:,} keys"
    note = f"{total:.1f} s for all"
    yield Row(f"{label}: first key", first, 20.0, "ms", first / 20, "< 20 ms", first < 20, note)
    fine = grown < 30 and count == LISTED
    yield Row(f"{label}: growth of memory", grown, 30.0, "MB", grown / 30, "< 30 MB", fine, note)


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        return [*batches(folder), *plain(folder), *listing(folder)]


if __name__ == "__main__":
    print(table(run()))
