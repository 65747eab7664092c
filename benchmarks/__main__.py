"""`make bench`: every benchmark, as a Markdown table on the terminal and as files in benchmarks/results/.

Each row is a ratio measured in this run, with both raw figures. `make bench ARGS="memory sqlite"` runs some.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sqlite3
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .rows import Row, table

MODULES = ["memory", "hit_ratio", "store", "cached", "sqlite", "typed", "wrap"]
PEERS = [
    "cachetools",
    "langchain-core",
    "langchain-community",
    "libcachesim",
    "sqlalchemy",
    "aiosqlite",
    "aiocache",
    "cashews",
    "dogpile.cache",
]
RESULTS = Path(__file__).parent / "results"
HEADINGS = {
    "wrap": "Memory in front of a store of somebody else's",
    "memory": "Memory tier",
    "hit_ratio": "Hit ratio of the default policy (percent; the ratio column is ours minus theirs, in points)",
    "store": "TieredStore over memory",
    "cached": "Cached functions",
    "sqlite": "SQLite",
    "typed": "Typed stores over memory",
}


@dataclass(frozen=True)
class Machine:
    """Where the figures come from."""

    date: str
    python: str
    cores: int
    system: str
    sqlite: str
    peers: dict[str, str]


def machine() -> Machine:
    peers = {}
    for name in PEERS:
        try:
            peers[name] = version(name)
        except PackageNotFoundError:
            peers[name] = "not installed"
    return Machine(
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        python=platform.python_version(),
        cores=os.cpu_count() or 0,
        system=f"{platform.system()} {platform.machine()}",
        sqlite=sqlite3.sqlite_version,
        peers=peers,
    )


def markdown(found: dict[str, list[Row]], where: Machine) -> str:
    peers = ", ".join(f"{name} {number}" for name, number in where.peers.items())
    lines = [
        "# Benchmarks",
        "",
        f"{where.date}, Python {where.python}, {where.cores} cores, {where.system}, SQLite {where.sqlite}; {peers}.",
        "",
    ]
    for name, rows in found.items():
        lines += [f"## {HEADINGS[name]}", "", table(rows), ""]
    return "\n".join(lines)


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(MODULES))
    if unknown:
        print(f"unknown benchmark {', '.join(unknown)}; there are {', '.join(MODULES)}", file=sys.stderr)
        return 2
    found: dict[str, list[Row]] = {}
    for name in names or MODULES:
        print(f"{name} ..", file=sys.stderr, flush=True)
        found[name] = importlib.import_module(f"benchmarks.{name}").run()
    where = machine()
    text = markdown(found, where)
    print(text)
    if not names:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "latest.md").write_text(text + "\n")
        rows = {name: [row._asdict() for row in found[name]] for name in found}
        (RESULTS / "latest.json").write_text(json.dumps({"machine": where.__dict__, "rows": rows}, indent=1) + "\n")
    missed = [row.name for rows in found.values() for row in rows if row.ok is False]
    print(f"bars missed: {'; '.join(missed) or 'none'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
