"""What an SQL operation may ask its executor for: the vocabulary between operations and databases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from ..backend import Op

Row: TypeAlias = tuple[Any, ...]


class Query(NamedTuple):
    """Read rows -> `shape(rows)`. `shape` runs while the rows stream in, off the event loop."""

    sql: str
    params: Sequence[Any]
    shape: Callable[[Iterable[Row]], Any] = list


class Many(NamedTuple):
    """Run one statement for each row of parameters -> rows changed. Only inside a transaction."""

    sql: str
    rows: Sequence[Row]


class Transaction(NamedTuple):
    """Run an operation's requests in one write transaction and commit -> its result.

    Raises BackendUnavailable when nothing was written, Indeterminate when the commit got no clear answer.
    """

    op: Op[Any]
