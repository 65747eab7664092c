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
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.rows import Row
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
    """Median seconds of each, taken in turns so that a busy machine slows all alike."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            argument = given()
            gc.collect()
            began = time.perf_counter()
            work(argument)
            if turn:  # the first one warms up
                taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(times) for name, times in taken.items()}


def raw_store(path: str) -> tuple[Callable[[Any], None], Callable[[Any], dict[str, bytes]]]:
    """What one would write by hand on sqlite3: WAL, one upsert transaction, one IN list."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE raw (namespace TEXT, key TEXT, value BLOB, PRIMARY KEY (namespace, key))")

    def mset(items: Any) -> None:
        with connection:
            connection.executemany(UPSERT, items)

    def mget(keys: Any) -> dict[str, bytes]:
        holes = ",".join("?" * len(keys))
        sql = f"SELECT key, value FROM raw WHERE namespace = 'bench' AND key IN ({holes})"
        return dict(connection.execute(sql, keys).fetchall())

    return mset, mget


def batches(folder: str) -> Iterator[Row]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # langchain-community announces its end
        from langchain_community.storage import SQLStore

    theirs = SQLStore(namespace="bench", db_url=f"sqlite:///{folder}/theirs.db")
    theirs.create_schema()
    ours = SQL(f"sqlite:///{folder}/ours.db", namespace="bench")
    raw_mset, raw_mget = raw_store(f"{folder}/raw.db")
    writers = {"ours": ours.mset, "theirs": theirs.mset, "raw": raw_mset}

    def fresh() -> list[tuple[str, bytes]]:
        return pairs(names())()

    took = interleaved(writers, fresh)
    yield faster("mset, new keys", took, "theirs", "LangChain SQLStore", 4.5)
    yield slower("mset, new keys", took, "raw", "raw sqlite3 upsert", None)
    known = names()
    for write in writers.values():
        write(pairs(known)())
    took = interleaved(writers, pairs(known))
    yield faster("overwrite", took, "theirs", "LangChain SQLStore", 4.5)
    yield slower("overwrite", took, "raw", "raw sqlite3 upsert", None)

    def asked() -> list[str]:
        return random.sample(known, len(known))

    took = interleaved({"ours": ours.mget, "theirs": theirs.mget, "raw": raw_mget}, asked, 2 * ROUNDS)
    yield faster("mget", took, "theirs", "LangChain SQLStore", 4.0)
    yield slower("mget", took, "raw", "raw sqlite3 IN", 1.2)
    with asyncio.Runner() as runner:
        took = interleaved(
            {"ours": lambda items: runner.run(ours.amset(items)), "sync": ours.mset}, pairs(known)
        )
        yield slower("amset", took, "sync", "its own mset", 1.3)
        took = interleaved(
            {"ours": lambda keys: runner.run(ours.amget(keys)), "sync": ours.mget}, asked, 2 * ROUNDS
        )
        yield slower("amget", took, "sync", "its own mget", 1.3)
    ours.close()
    theirs.engine.dispose()


def faster(what: str, took: dict[str, float], other: str, peer: str, bar: float) -> Row:
    ratio = took[other] / took["ours"]
    return _row(what, took, other, ratio, f">= {bar}x faster", ratio >= bar, peer)


def slower(what: str, took: dict[str, float], other: str, peer: str, bar: float | None) -> Row:
    ratio = took["ours"] / took[other]
    return _row(what, took, other, ratio, "" if bar is None else f"<= {bar}x", bar is None or ratio <= bar, peer)


def _row(what: str, took: dict[str, float], other: str, ratio: float, bar: str, ok: bool, peer: str) -> Row:
    label = f"SQLite {what}, {KEYS:,} x 1 KiB, against {peer}"
    return Row(label, took["ours"] * 1e3, took[other] * 1e3, "ms", ratio, bar, ok, "")


LISTING = """
import json, resource, sys, time
from tiered import SQL
store = SQL(sys.argv[1], namespace="bench")
store.run(store.ping(), 5.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
keys = store.yield_keys()
next(keys)
first = time.perf_counter() - began
count = 1 + sum(1 for _ in keys)
total = time.perf_counter() - began
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps([first * 1e3, grown, total, count]))
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
        return [*batches(folder), *listing(folder)]


if __name__ == "__main__":
    for row in run():
        print(f"{row.name:75s} {row.ours:8.2f} {row.theirs:8.2f} {row.unit:3s} {row.ratio:5.2f}  {row.bar:14s} {row.ok}")
