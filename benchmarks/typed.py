"""Typed stores over memory, against the bare formats: `python -m benchmarks.typed`."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy

from tiered import Memory, TieredStore
from tiered.serializers import Json, Msgpack, Vector
from tiered.typed import TypedStore

from .rows import Row, best_of, table

VECTORS, DIMENSION = 5_000, 1_536
ROUNDS = 5
REPORT = {
    "user": 17,
    "name": "Ada Lovelace",
    "tags": ["a", "b", "c"],
    "scores": [{"id": number, "score": number / 7, "ok": number % 2 == 0} for number in range(20)],
}


def run() -> list[Row]:
    """All rows, in about half a minute, most of it json.loads."""
    return [*_vectors(), *_values()]


def _vectors() -> list[Row]:
    keys = [f"doc:{number:05}" for number in range(VECTORS)]
    rows = numpy.random.default_rng(1).standard_normal((VECTORS, DIMENSION), numpy.float32)
    texts = [json.dumps(row.tolist()).encode() for row in rows]

    def parsed() -> list[Any]:
        return [json.loads(text) for text in texts]

    works: list[Callable[[], object]] = [parsed]
    for precision in ("float32", "float16", "int8"):
        store = TypedStore(TieredStore([Memory(max_bytes=None)]), Vector(precision))
        store.mset(dict(zip(keys, rows, strict=True)))
        whole = store.mget_array(keys)
        assert numpy.allclose(whole, rows, rtol=1e-2, atol=0.05)
        works.append(lambda store=store: store.mget_array(keys))
        if precision == "float32":
            assert (whole == rows).all()
            works.append(lambda store=store: store.mget(keys))
    floor, array, lists, half, small = (seconds * 1e3 for seconds in best_of(works, ROUNDS))
    what = f"{VECTORS:,} x {DIMENSION:,} against json.loads of the same"
    note = "JSON of 5,000 vectors already in memory, no store"
    return [
        _faster(f'typed Vector("float32"), mget_array of {what}', array, floor, "ms", 100, note),
        _faster(f'typed Vector("float16"), mget_array of {what}', half, floor, "ms", None),
        _faster(f'typed Vector("int8"), mget_array of {what}', small, floor, "ms", None),
        _faster(f'typed Vector("float32"), mget of {what}, as lists of float', lists, floor, "ms", None),
    ]


def _values() -> list[Row]:
    """One value of about 1 KB and a batch of them, through a typed store and through the standard library alone."""
    keys = [f"report:{number:04}" for number in range(1_000)]
    when = {**REPORT, "when": datetime(2024, 1, 1, tzinfo=UTC), "pair": (1, 2)}
    made = []
    for serializer, value, dump, load, name in (
        (Json(), REPORT, json.dumps, json.loads, "json"),
        (Msgpack(), REPORT, json.dumps, json.loads, "json"),
        (Msgpack(), when, pickle.dumps, pickle.loads, "pickle"),
    ):
        store: Any = TypedStore(TieredStore([Memory(max_bytes=None)]), serializer)
        pairs = dict.fromkeys(keys, value)
        stored = [dump(value)] * len(keys)
        store.mset(pairs)
        read, bare_read, write, bare_write = (
            seconds * 1e3
            for seconds in best_of(
                [
                    lambda store=store: store.mget(keys),
                    lambda load=load, stored=stored: [load(data) for data in stored],
                    lambda store=store, pairs=pairs: store.mset(pairs),
                    lambda dump=dump, value=value: [dump(value) for _ in keys],
                ],
                20,
            )
        )
        kind = "with datetime and tuple, " if value is when else ""
        made += [
            _at_most(f"typed {serializer!r}, mget of 1,000 {kind}against {name}.loads alone", read, bare_read),
            _at_most(f"typed {serializer!r}, mset of 1,000 {kind}against {name}.dumps alone", write, bare_write),
        ]
    return made


def _at_most(name: str, ours: float, theirs: float) -> Row:
    return Row(name, ours, theirs, "ms", ours / theirs, "", None)


def _faster(name: str, ours: float, theirs: float, unit: str, bar: float | None, note: str = "") -> Row:
    said = "" if bar is None else f"{bar:g}x faster"
    return Row(name, ours, theirs, unit, theirs / ours, said, None if bar is None else theirs / ours >= bar, note)


def main(show: Callable[[str], None] = print) -> None:
    show(table(run()))


if __name__ == "__main__":
    main()
