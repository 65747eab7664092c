"""Embeddings computed once: MiniLM's vectors of the standard library's docstrings, in memory over SQLite.

    .venv/bin/python examples/demo.py "how do I run another program?"

The same loop runs three times: here, where the model computes what the store lacks; in a new process, where
SQLite has every vector; once more in that process, where memory has. The vectors stay in .demo/.
"""

import argparse
import functools
import hashlib
import multiprocessing
import platform
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import numpy as np
    from rich import box
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Table
    from rich.text import Text
except ImportError as missing:
    sys.exit(f"demo: {missing.name} is not installed: run `make setup`")

from corpus import docstrings

import tiered

if TYPE_CHECKING:
    from minilm import MiniLM

STATE = Path(__file__).resolve().parents[1] / ".demo"
MODEL = "all-MiniLM-L6-v2-onnx-int8, 128 tokens"
QUESTION = "how do I read a file line by line?"
BATCH = 64


@dataclass(frozen=True)
class Pass:
    seconds: float
    hits: dict[str, int]  # by tier
    loads: int  # vectors the model had to compute
    digest: str  # of all vectors, in the order of the texts


def open_store(state: Path) -> tiered.TieredStore:
    return tiered.open("memory://?max_bytes=64MiB", f"sqlite:///{state}/vectors.db", namespace="minilm")


def embed(store: tiered.TieredStore, texts: Sequence[str], done: Callable[[int], object]) -> tuple[list[bytes], Pass]:
    """The vector of each text: from the store if it is there, else from the model, and then stored."""
    vectors: list[bytes] = []
    loads = 0
    before, start = hits(store), time.perf_counter()
    for first in range(0, len(texts), BATCH):
        by_key = {key(text): text for text in texts[first : first + BATCH]}
        found = dict(zip(by_key, store.mget(list(by_key)), strict=True))
        missing = [k for k, vector in found.items() if vector is None]
        if missing:
            computed = dict(zip(missing, model().embed([by_key[k] for k in missing]), strict=True))
            store.mset(computed)
            found |= computed
            loads += len(missing)
        vectors += [vector for vector in found.values() if vector is not None]
        done(len(by_key))
    seconds = time.perf_counter() - start
    gained = {name: count - before[name] for name, count in hits(store).items()}
    return vectors, Pass(seconds, gained, loads, digest(vectors))


def embed_twice(state: Path, texts: Sequence[str]) -> list[Pass]:
    """What the new process runs: its memory begins empty, its SQLite file does not."""
    with open_store(state) as store:
        return [embed(store, texts, done=lambda _: None)[1] for _ in range(2)]


def key(text: str) -> str:
    return hashlib.blake2b(f"{MODEL}\n{text}".encode(), digest_size=16).hexdigest()


def hits(store: tiered.TieredStore) -> dict[str, int]:
    return {name: tier.hits for name, tier in store.stats().tiers.items()}


def digest(vectors: Sequence[bytes]) -> str:
    return hashlib.blake2b(b"".join(vectors), digest_size=16).hexdigest()


@functools.cache
def model() -> "MiniLM":
    """Loaded when a vector is missing: a pass that the store serves never pays for it."""
    from minilm import MiniLM

    return MiniLM()


def nearest(question: bytes, vectors: Sequence[bytes], count: int = 5) -> list[tuple[float, int]]:
    """Cosine similarity (every vector has length 1) and index of the texts closest in meaning."""
    matrix = np.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), -1)
    scores = matrix @ np.frombuffer(question, "<f4")
    return [(float(scores[i]), int(i)) for i in np.argsort(-scores)[:count]]


def run(state: Path, questions: Sequence[str], limit: int | None, console: Console) -> bool:
    documented = list(docstrings().items())[:limit]
    texts = [f"{name}: {doc}" for name, doc in documented]  # the name says what the docstring is about
    python = platform.python_version()
    console.print(f"[bold]{len(texts):,} docstrings[/] of Python {python}, MiniLM int8, memory over SQLite\n")
    with open_store(state) as store, progress(console) as bar:
        task = bar.add_task("first pass", total=len(texts))
        vectors, first = embed(store, texts, done=lambda n: bar.advance(task, n))
    known = known_digest(state, texts, first)

    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as new_process:
        passes = [first, *new_process.submit(embed_twice, state, texts).result()]
    console.print(passes_table(passes, known))
    disk = sum(file.stat().st_size for file in state.glob("vectors.db*")) / 2**20
    note = f"\n{disk:.1f} MiB on disk for {sum(map(len, vectors)) / 2**20:.1f} MiB of vectors, in {state}"
    if not first.loads:
        note += "\nThe first pass found every vector from an earlier run; --fresh begins anew."
    console.print(Text(note, style="dim"))

    with open_store(state) as store:
        asked, _ = embed(store, questions, done=lambda _: None)
    for question, vector in zip(questions, asked, strict=True):
        console.print(Text(f"\n{question}", style="bold"))
        console.print(answers_table([(score, *documented[i]) for score, i in nearest(vector, vectors)]))
    return all(one.digest == (known or first.digest) for one in passes)


def known_digest(state: Path, texts: Sequence[str], first: Pass) -> str | None:
    """The vectors as an earlier run left them when its model was done; None where this run sets the reference."""
    file = state / "computed.txt"
    of_texts = hashlib.blake2b("".join(map(key, texts)).encode(), digest_size=16).hexdigest()
    known = file.read_text().split() if file.exists() else []
    if not first.loads and known[:1] == [of_texts]:
        return known[1]
    file.write_text(f"{of_texts} {first.digest}")
    return None


def progress(console: Console) -> Progress:
    """A bar in a terminal; nothing where there is none, as in CI."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("texts,"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=not console.is_interactive,
    )


def plain_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")


def passes_table(passes: Sequence[Pass], known: str | None) -> Table:
    first = passes[0]
    origins = ["model", "SQLite, new process", "memory, same process"]
    if first.hits["sqlite"]:
        origins[0] = "model and SQLite" if first.loads else "SQLite, earlier run"
    table = plain_table()
    table.add_column("\npass")
    for heading in ("\nseconds", "memory\nhits", "SQLite\nhits", "model\nloads"):
        table.add_column(heading, justify="right")
    table.add_column("vectors equal\nbit for bit")
    for number, (origin, one) in enumerate(zip(origins, passes, strict=True), start=1):
        counts = [f"{n:,}" if n else "[dim]0[/]" for n in (one.hits["memory"], one.hits["sqlite"], one.loads)]
        equal = "[green]yes[/]" if one.digest == (known or first.digest) else "[bold red]NO[/]"
        verdict = "[dim]reference[/]" if number == 1 and known is None else equal
        table.add_row(f"{number}  {origin}", f"{one.seconds:.3f}", *counts, verdict)
    return table


def answers_table(answers: Sequence[tuple[float, str, str]]) -> Table:
    table = plain_table()
    table.add_column("score", justify="right")
    table.add_column("name", style="cyan", no_wrap=True)
    table.add_column("docstring")
    for score, name, doc in answers:
        first_line = Text(doc.partition("\n")[0], no_wrap=True, overflow="ellipsis")
        table.add_row(f"{score:.2f}", name, first_line)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Embeddings of the standard library's docstrings, computed once.")
    parser.add_argument("questions", nargs="*", metavar="question", help="shown with the docstrings nearest to it")
    parser.add_argument("--fresh", action="store_true", help="forget the vectors of earlier runs")
    parser.add_argument("--texts", type=int, metavar="N", help="only the first N docstrings")
    parser.add_argument("--state", type=Path, default=STATE, metavar="DIR", help="where vectors are kept")
    options = parser.parse_args(arguments)
    if options.fresh:
        for file in (*options.state.glob("vectors.db*"), *options.state.glob("computed.txt")):
            file.unlink()
    options.state.mkdir(parents=True, exist_ok=True)
    try:
        equal = run(
            options.state, list(dict.fromkeys([QUESTION, *options.questions])), options.texts, Console(highlight=False)
        )
    except ImportError as missing:
        sys.exit(f"demo: {missing.name} is not installed: run `make setup`")
    except tiered.errors.TieredError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: stopped; the vectors computed so far are kept: run it again to go on")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
