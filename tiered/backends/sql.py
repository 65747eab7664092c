"""SQL databases as tiers. SQLite so far."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

from ..backend import Capabilities, Found, Op
from ..checks import check_namespace
from ..effects import adrive, drive
from ..entry import Entry, Packing
from ..errors import ConfigurationError
from . import _sqlite
from ._clients import Clients
from ._guests import Guests
from ._requests import Query
from ._sql_batches import Schema
from ._sql_plain import PlainTable
from ._sql_record import RecordTable
from .base import BaseBackend, Values

T = TypeVar("T")

_DRIVERS = {"sqlite": ("pysqlite", "aiosqlite")}
_TABLES: Mapping[str, RecordTable | PlainTable] = {table.name: table for table in (RecordTable(), PlainTable())}


class SQL(BaseBackend):
    """A store in an SQL database: `SQL("sqlite:///cache.db")`, `SQL("sqlite:////absolute/path.db")`.

    The URL is SQLAlchemy's, without a driver: the fitting ones are chosen for each face (one that is named is
    accepted). The file is made at first use, its folder never. Threads, tasks, event loops and processes may
    share one file and one object; writes of one file happen one after the other, and a lock is waited for.
    `namespace` keeps several stores apart in one file; "" if left out.

    `layout="record"` keeps stamp, expiry and checksum with each value, in a table of ours. `layout="plain"` is the
    table of LangChain's SQLStore: each reads what the other wrote; no expiry, and writers cannot be told apart, so as
    a tier it goes last. One file may hold both.

    Raises ConfigurationError for a URL that cannot work, before any I/O.
    """

    scheme: ClassVar[str] = "sqlite"

    def __init__(self, url: str, *, namespace: str | None = None, layout: str = "record") -> None:
        self._open(layout, namespace, partial(Clients, _path(url)))

    def _open(self, layout: str, namespace: str | None, clients: Callable[[Schema], Clients | Guests]) -> None:
        table = _TABLES.get(layout) if isinstance(layout, str) else None
        if table is None:
            raise ConfigurationError(f"layout={layout!r:.40}: give {' or '.join(map(repr, _TABLES))}")
        self._table = table
        self.namespace = None if namespace is None else check_namespace(namespace)
        self._clients = clients(table.schema)

    def __repr__(self) -> str:
        named = "" if self.namespace is None else f", namespace={self.namespace!r}"
        layout = "" if self.layout == "record" else f", layout={self.layout!r}"
        return f"SQL('sqlite:///{self._clients.path}'{named}{layout})"

    @property
    def layout(self) -> str:
        """ "record" or "plain"."""
        return self._table.name

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]  # never assigned
        return self._table.capabilities

    @property
    def identity(self) -> tuple[str, str, str]:
        """Equal for two that write to the same table."""
        return self.scheme, os.path.realpath(self._clients.path), self.layout

    # -- operations: those of the layout -----------------------------------------------------------------------

    def fetch(self, space: str, keys: Sequence[str]) -> Op[list[Found]]:
        return self._table.fetch(space, keys)

    def values(self, space: str, keys: Sequence[str], now_ms: int) -> Op[Values]:
        return self._table.values(space, keys, now_ms)

    def put(self, space: str, items: Sequence[tuple[str, Entry]], packing: Packing | None) -> Op[Mapping[str, bytes]]:
        return self._table.put(space, items, packing)

    def swap(
        self, space: str, items: Sequence[tuple[str, Entry, bytes | None]], packing: Packing | None
    ) -> Op[set[str]]:
        return self._table.swap(space, items, packing)

    def fill(self, space: str, items: Sequence[tuple[str, Entry, bytes]], packing: Packing | None) -> Op[None]:
        return self._table.fill(space, items, packing)

    def void(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        return self._table.void(space, marks)

    def retract(self, space: str, marks: Sequence[tuple[str, bytes]]) -> Op[None]:
        return self._table.retract(space, marks)

    def spaces(self, space: str) -> Op[list[str]]:
        return self._table.spaces(space)

    def scan(self, space: str, prefix: str, after: str | None, limit: int, now_ms: int) -> Op[list[str]]:
        return self._table.scan(space, prefix, after, limit, now_ms)

    def purge(self, space: str, now_ms: int, grace_ms: int, limit: int, into: int) -> Op[int]:
        return self._table.purge(space, now_ms, grace_ms, limit, into)

    def ping(self) -> Op[None]:
        """Connect if need be and read from the file, or raise BackendUnavailable."""
        yield Query(_sqlite.PING, ())

    # -- executors ---------------------------------------------------------------------------------------------

    def run(self, op: Op[T], timeout: float) -> T:
        """Run an operation, waiting for locks up to `timeout` seconds a request."""
        return drive(op, lambda request: self._clients.perform(request, timeout))

    async def arun(self, op: Op[T], timeout: float) -> T:
        """The same without blocking the loop. A cancelled request has ended when CancelledError arrives."""
        return await adrive(op, lambda request: self._clients.aperform(request, timeout))

    def close(self) -> None:
        """Close all connections, those of other threads' loops too. Later use connects again."""
        self._clients.close()

    async def aclose(self) -> None:
        await self._clients.aclose()


def _path(url: str) -> str:
    """The absolute path of the file that `url` names. Never repeats the URL: it may hold a password."""
    if not isinstance(url, str):
        raise ConfigurationError(f"SQL takes a URL such as 'sqlite:///cache.db', not {type(url).__name__}")
    parts = re.fullmatch(r"([A-Za-z0-9_]+)(?:\+([A-Za-z0-9_]+))?:(?://([^/?]*)(?:/([^?]*))?(?:\?(.*))?|.*)", url)
    if not parts:
        raise ConfigurationError("not a URL: write 'sqlite:///cache.db' (three slashes, then the path)")
    scheme, driver, host, path, query = parts.groups()
    scheme = scheme.lower()
    if scheme not in _DRIVERS:
        close = difflib.get_close_matches(scheme, _DRIVERS, 1)
        hint = f"did you mean {close[0]}://?" if close else f"known: {', '.join(_DRIVERS)}"
        raise ConfigurationError(f"SQL does not know the scheme {scheme}://; {hint}")
    if driver and driver not in _DRIVERS[scheme]:
        raise ConfigurationError(f"unknown driver {scheme}+{driver}: write {scheme}:///.., drivers are chosen for you")
    if query:
        raise ConfigurationError("SQL takes no options in an SQLite URL: give namespace= to SQL(), or use tiered.open")
    if host or host is None:
        raise ConfigurationError("an SQLite URL has three slashes, then the path: 'sqlite:///cache.db'")
    if not path or path == ":memory:" or path.startswith("file:"):
        raise ConfigurationError(
            "an SQLite database in memory cannot be shared by threads and loops: use memory:// (tiered.Memory), "
            "or a file: 'sqlite:///cache.db'"
        )
    if "\0" in path:
        raise ConfigurationError("the path in an SQLite URL holds a NUL character: no file can be named so")
    return str(Path(path).absolute())
