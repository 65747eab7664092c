"""What every benchmark gives back, and how it is measured and shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Row(NamedTuple):
    """One comparison. `ratio` is what `bar` speaks of; `ok` is None where there is no bar."""

    name: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    bar: str
    ok: bool | None
    note: str = ""


def best(fn: Callable[[], object], repeat: int) -> float:
    """Seconds of the fastest of `repeat` calls: the least disturbed one."""
    return best_of([fn], repeat)[0]


def best_of(fns: Iterable[Callable[[], object]], repeat: int) -> list[float]:
    """The same for several, taking turns, so that a noisy moment falls on all of them."""
    works = list(fns)
    fastest = [float("inf")] * len(works)
    for _ in range(repeat):
        for at, fn in enumerate(works):
            began = time.perf_counter()
            fn()
            fastest[at] = min(fastest[at], time.perf_counter() - began)
    return fastest


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | ours | theirs | ratio | bar | met | note |", "|---|---:|---:|---:|---|---|---|"]
    for row in rows:
        met = "" if row.ok is None else "yes" if row.ok else "**no**"
        lines.append(
            f"| {row.name} | {row.ours:,.2f} {row.unit} | {row.theirs:,.2f} {row.unit} "
            f"| {row.ratio:.2f} | {row.bar} | {met} | {row.note} |"
        )
    return "\n".join(lines)
