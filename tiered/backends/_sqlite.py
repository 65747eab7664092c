"""SQLite: one connection that performs requests, and how a file is opened.

Whatever blocks, blocks here, in the caller's thread or in aiosqlite's. A lock is waited for up to the request's
deadline; a file is looked at before anything is changed in it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..effects import drive
from ..errors import BackendUnavailable, CorruptEntry, ForeignValue, Indeterminate, TieredError
from ._requests import Many, Query, Transaction
from ._sql_batches import Schema

T = TypeVar("T")

PING = "PRAGMA schema_version"  # reads the file, and no row

_PRAGMAS = (
    "PRAGMA synchronous = NORMAL",
    "PRAGMA cache_size = -16384",  # 16 MiB: holds a batch of 5 MB being written; a long scan fills it and no more
    "PRAGMA wal_autocheckpoint = 4000",
)
_SLICE = "PRAGMA busy_timeout = 50"  # SQLite waits so long at a time; between slices we look at deadline and caller
_PAUSE = 0.005  # where SQLite reports a lock without waiting
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
# The frame that carries a commit is written last: a write that failed cannot have completed it.
_NOT_COMMITTED = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, *_BUSY}
_FORK_WAIT = 5.0  # seconds a fork waits for requests to end, all together
_STEPS = 10_000  # of SQLite's virtual machine, between two looks at the clock


class Gone(Exception):
    """The connection was closed, by a fork or by close(): take another."""


class Text:
    """Stands for TEXT where there should be bytes: no text is asked for, and what is there may be no UTF-8."""

    def __init__(self, raw: bytes) -> None:
        """Its content may be secret, and is of no use."""


class Performer:
    """Performs requests on one connection, one at a time, in whichever thread calls."""

    path: str
    execute: Callable[..., sqlite3.Cursor]
    executemany: Callable[..., sqlite3.Cursor]
    interrupt: Callable[[], None]
    set_progress_handler: Callable[..., None]
    create_function: Callable[..., None]
    in_transaction: Any

    def __init__(self, path: str, schema: Schema) -> None:
        self.path = path
        self.closed = False
        self._schema = schema
        self._ready = False
        self._broken = False  # not to be used after this request
        self._abandoned = False
        self._gate = threading.Lock()

    def perform(self, request: Query | Transaction, deadline: float) -> Any:
        """The answer to `request`; locks are waited for until `deadline` (monotonic seconds).

        Raises BackendUnavailable, Indeterminate, ForeignValue or CorruptEntry; Gone when already closed.
        """
        with self._gate:
            if self.closed:
                raise Gone
            try:
                # a C function all through: in Python code a pending interrupt would be raised, and lost in SQLite
                late = map(float(deadline).__lt__, iter(time.monotonic, None)).__next__
                self.set_progress_handler(late, _STEPS)
                self._be_ready(deadline)
                try:
                    return self._attempt(request, deadline)
                except sqlite3.OperationalError as error:
                    if not str(error).startswith("no such table"):
                        raise
                self._rollback()
                self._ready = False  # somebody dropped it while this connection was open
                self._be_ready(deadline)
                return self._attempt(request, deadline)
            except sqlite3.Error as error:
                self._broken = True
                if _code(error) == sqlite3.SQLITE_INTERRUPT:
                    raise BackendUnavailable(
                        f"{self.path}: the request took longer than its time-out; nothing was written; "
                        "ask for less at a time, or allow it more time"
                    ) from error
                raise explain(error, self.path) from error
            finally:
                self.set_progress_handler(None, 0)
                self._rollback()
                if self._broken:
                    self._discard()

    def fit(self) -> bool:
        """Whether another request may be performed. After an interrupt (Ctrl-C) a transaction may be left open."""
        try:
            return not (self.closed or self.in_transaction)
        except sqlite3.ProgrammingError:  # a fork in another thread closes it right now
            return False

    def abandon(self) -> None:
        """From any thread: end the request being performed, uncommitted if it can be."""
        self._abandoned = True
        try:
            self.interrupt()
        except sqlite3.ProgrammingError:
            return  # closed, so it has ended

    def resume(self) -> None:
        """After `abandon`, once the request has ended: take requests again."""
        self._abandoned = False

    # -- each kind of connection in its own way ----------------------------------------------------------------

    def _prepare(self, deadline: float) -> None:
        """Look at the file, and make what is missing."""
        raise NotImplementedError

    def _discard(self) -> None:
        """After a failure."""
        raise NotImplementedError

    # -- statements --------------------------------------------------------------------------------------------

    def _attempt(self, request: Query | Transaction, deadline: float) -> Any:
        if isinstance(request, Transaction):
            return self._transact(request, deadline)
        return self._patiently(lambda: self._statement(request), deadline)

    def _statement(self, request: Query | Many) -> Any:
        if self._abandoned:
            raise BackendUnavailable("cancelled; nothing was written")
        if isinstance(request, Many):
            return self.executemany(request.sql, request.rows).rowcount
        collected: list[Any] = []
        if request.collects:
            self.create_function("tiered_collect", 1, collected.append)
        cursor = self.execute(request.sql, request.params() if callable(request.params) else request.params)
        try:
            return request.shape(_arrivals(cursor, collected) if request.collects else cursor)
        finally:
            cursor.close()
            collected.clear()  # the connection keeps the function

    def _transact(self, request: Transaction, deadline: float) -> Any:
        op = request.begin()  # before the lock: others write while this encodes
        # IMMEDIATE takes the write lock at once: nothing after it can fail for a lock, or for a stale snapshot
        self._patiently(lambda: self.execute("BEGIN IMMEDIATE"), deadline)
        result = drive(op, self._statement)
        if self._abandoned:
            raise BackendUnavailable("cancelled; nothing was written")
        self.set_progress_handler(None, 0)  # a commit that has begun is not broken off
        try:
            self.execute("COMMIT")
        except sqlite3.Error as error:
            if _code(error) in _NOT_COMMITTED:
                raise
            self._broken = True
            raise Indeterminate(
                f"SQLite answered a commit to {self.path} with '{error}': it may or may not have been written"
            ) from error
        return result

    def _rollback(self) -> None:
        """No transaction outlives its request, whatever ended it."""
        if self.in_transaction:
            try:
                self.execute("ROLLBACK")
            except sqlite3.Error:
                self._broken = True  # closing the connection is a rollback too

    def _patiently(self, attempt: Callable[[], T], deadline: float) -> T:
        """Try until it is not refused for a lock, or the deadline has passed."""
        began = time.monotonic()
        while True:
            try:
                return attempt()
            except sqlite3.OperationalError as error:
                if _code(error) & 0xFF not in _BUSY:
                    raise
                if self._abandoned or time.monotonic() >= deadline:
                    raise BackendUnavailable(
                        f"{self.path} was locked by another process or connection for "
                        f"{time.monotonic() - began:.2g} s; nothing was written; try again"
                    ) from error
                time.sleep(_PAUSE)

    # -- the schema --------------------------------------------------------------------------------------------

    def _be_ready(self, deadline: float) -> None:
        if not self._ready:
            self._broken = True
            self._prepare(deadline)
            self._ready, self._broken = True, False

    def _make(self, deadline: float) -> None:
        """Make what is missing. Safe in many processes."""
        self._patiently(lambda: self.execute("BEGIN IMMEDIATE"), deadline)
        for name in self._missing():
            for statement in self._schema.makes[name]:
                self.execute(statement)
        self._missing()  # again: another program may have made tables of these names meanwhile
        self.execute("COMMIT")

    def _missing(self) -> list[str]:
        """What of the schema is not there yet.

        Raises ForeignValue for a table of another shape under our name, and for text that is not UTF-8: there
        SQLite's cast of a key to a blob gives other bytes than ours.
        """
        encoding = self.execute("PRAGMA encoding").fetchone()[0]
        if encoding != "UTF-8":
            raise ForeignValue(
                f"{self.path} holds its text as {encoding}, which tiered does not support: "
                "it was left untouched; use another file (SQLite makes UTF-8 files unless told otherwise)"
            )
        holes = ",".join("?" * len(self._schema.makes))
        named = self.execute(f"SELECT name FROM sqlite_master WHERE name IN ({holes})", list(self._schema.makes))
        there = {name for (name,) in named}
        for table, columns in self._schema.shapes.items():
            if table not in there:
                continue
            found = {
                name: (kind.upper(), notnull, place)
                for name, kind, notnull, place in self.execute(
                    'SELECT name, type, "notnull", pk FROM pragma_table_info(?)', (table,)
                )
            }
            if found.keys() != columns.keys() or not all(
                found[name][0] in kinds and found[name][1:] == (notnull, place)
                for name, (kinds, notnull, place) in columns.items()
            ):
                raise ForeignValue(
                    f"{self.path} has a table {table} of another shape, not made by tiered: "
                    "it was left untouched; use another file, or rename that table"
                )
        return [name for name in self._schema.makes if name not in there]


class Session(Performer, sqlite3.Connection):
    """A connection of ours to one file."""

    def __init__(self, database: str, *, schema: Schema, **options: Any) -> None:
        Performer.__init__(self, database, schema)
        with _registry:
            try:
                sqlite3.Connection.__init__(self, database, **options)
                _sessions.add(self)
            except KeyboardInterrupt:  # it is raised after a call, so it has been opened
                self.close()
                raise

    def shut(self, wait: float = -1) -> None:
        """Close once the request being performed has ended; leave it open when that takes over `wait` seconds."""
        if self._gate.acquire(timeout=wait):
            try:
                self.closed = True
                self.close()
            finally:
                self._gate.release()

    def _prepare(self, deadline: float) -> None:
        """Look at the file, and only then switch it to WAL and make what is missing. Safe in many processes."""
        self.text_factory = str
        self.execute(_SLICE)
        missing = self._patiently(self._missing, deadline)
        mode = self._patiently(lambda: self.execute("PRAGMA journal_mode = WAL").fetchone()[0], deadline)
        if mode != "wal":
            raise BackendUnavailable(
                f"the file system of {self.path} does not support SQLite's write-ahead log: use a local disk"
            )
        for pragma in _PRAGMAS:
            self.execute(pragma)
        if missing:
            self._make(deadline)
        self.text_factory = Text

    def _discard(self) -> None:
        """The next use connects and looks at the file afresh."""
        self.closed = True
        self.close()


def _arrivals(cursor: sqlite3.Cursor, collected: list[Any]) -> Iterator[list[Any]]:
    """What has been collected at each row and at the end; a list is valid until the next."""
    for _ in cursor:  # may run a row ahead
        yield collected
        collected.clear()
    yield collected


CONNECT = {"factory": Session, "isolation_level": None, "check_same_thread": False, "timeout": 0}
"""How SQLAlchemy has the driver connect: as a Session, used by any thread, in transactions of ours only."""


def _code(error: sqlite3.Error) -> int:
    """SQLite's extended result code; 0 for what the Python module raises itself."""
    return getattr(error, "sqlite_errorcode", 0)


def explain(error: sqlite3.Error, path: str) -> TieredError:
    """What a failed request, rolled back, means to the user."""
    code = _code(error) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return ForeignValue(f"{path} is not an SQLite database: it was left untouched; use another file name")
    if code == sqlite3.SQLITE_CORRUPT:
        return CorruptEntry(
            f"the SQLite file {path} is damaged ({error}): restore it from a backup, "
            f"or save what is left with 'sqlite3 {path} .recover'"
        )
    reasons = {
        sqlite3.SQLITE_FULL: "the disk is full: make room, or raise the limit",
        sqlite3.SQLITE_READONLY: "the file or its folder is read-only: make both writable",
        sqlite3.SQLITE_PERM: "permission was denied",
        sqlite3.SQLITE_IOERR: f"the disk failed or is full ({getattr(error, 'sqlite_errorname', error)})",
    }
    if code == sqlite3.SQLITE_CANTOPEN:
        refused = BackendUnavailable(_unopened(Path(path)))
    else:
        refused = BackendUnavailable(f"{path}: {reasons.get(code, str(error))}; nothing was written")
    refused.answered = code in reasons or code == sqlite3.SQLITE_CANTOPEN
    return refused


def unconnected(error: sqlite3.Error, path: str) -> Exception:
    """Why there is no connection. A fork closes also one that SQLAlchemy is still at: then take another."""
    if isinstance(error, sqlite3.ProgrammingError) and "closed database" in str(error):
        return Gone()
    return explain(error, path)


def _unopened(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist: create it (tiered creates the file, never a folder)"
    if path.is_dir():
        return f"{path} is a folder: name a file in it"
    return f"{path} cannot be opened: check the permissions of the file and its folder"


# -- fork ------------------------------------------------------------------------------------------------------
# SQLite keeps a process's file locks in its own memory. A child that inherits that memory believes it holds
# locks that are its parent's; when the parent closes, it then deletes the log the child is writing to, and the
# child's commits are lost (reproduced: tests/test_sql_processes.py). So every connection is closed before.

_registry = threading.Lock()
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _before_fork() -> None:
    _registry.acquire()  # no connection is opened from here until the fork is over
    deadline = time.monotonic() + _FORK_WAIT
    for session in list(_sessions):
        session.shut(max(deadline - time.monotonic(), 0))


def _after_in_child() -> None:
    _registry.release()
    _sessions.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_registry.release, after_in_child=_after_in_child)
