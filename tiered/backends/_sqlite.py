"""SQLite: the schema, its statements, and one connection that performs requests.

Whatever blocks, blocks here, in the caller's thread or in aiosqlite's. A lock is waited for up to the request's
deadline; a file is looked at before anything is changed in it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..effects import drive
from ..errors import BackendUnavailable, CorruptEntry, ForeignValue, Indeterminate, TieredError
from ._requests import Many, Query, Transaction

T = TypeVar("T")

# `value` comes last: SQLite walks a spilled value's overflow pages to reach a column behind it.
# `expires_at`: NULL never expires; > 0 a value until then; < 0 not a value (deleted, invalid) since minus that.
# No NOT NULL on stamp and value: a damaged row must be readable to be reported.
SCHEMA = {
    "tiered_entries": """
        CREATE TABLE IF NOT EXISTS tiered_entries (
            namespace BLOB NOT NULL, key BLOB NOT NULL, stamp BLOB, expires_at INTEGER, value BLOB,
            PRIMARY KEY (namespace, key))""",
    "tiered_entries_expiry": """
        CREATE INDEX IF NOT EXISTS tiered_entries_expiry ON tiered_entries (namespace, expires_at)
        WHERE expires_at IS NOT NULL""",
    "tiered_meta": """
        CREATE TABLE IF NOT EXISTS tiered_meta (namespace BLOB NOT NULL PRIMARY KEY, purged_stamp BLOB)""",
}
_SHAPES = {  # table -> {column: (type, not null, place in the primary key)}
    "tiered_entries": {
        "namespace": ("BLOB", 1, 1),
        "key": ("BLOB", 1, 2),
        "stamp": ("BLOB", 0, 0),
        "expires_at": ("INTEGER", 0, 0),
        "value": ("BLOB", 0, 0),
    },
    "tiered_meta": {"namespace": ("BLOB", 1, 1), "purged_stamp": ("BLOB", 0, 0)},
}

# 0 stands for a row whose columns are of the wrong type, NULL for no row.
RECORD = """CASE WHEN typeof(t.stamp) = 'blob' AND typeof(t.expires_at) IN ('integer', 'null')
            THEN ifnull(t.value, 0) WHEN t.key IS NULL THEN NULL ELSE 0 END"""
STAMP = "t.stamp"
_BY_JSON = """SELECT {} FROM json_each(?) j
              LEFT JOIN tiered_entries t ON t.namespace = ? AND t.key = CAST(j.value AS BLOB)"""
READ, READ_STAMPS = _BY_JSON.format(RECORD), _BY_JSON.format(STAMP)

_INSERT = "INSERT INTO tiered_entries (namespace, key, stamp, expires_at, value) VALUES (?, ?, ?, ?, ?)"
_UPSERT = f"""{_INSERT} ON CONFLICT (namespace, key) DO UPDATE
              SET stamp = excluded.stamp, expires_at = excluded.expires_at, value = excluded.value WHERE """
_DAMAGED = "typeof(stamp) <> 'blob' OR length(stamp) <> 12"  # must not refuse writes for ever
_INVALID = "substr({}.value, 15, 1) IN (x'02', x'0A')"  # the record's flags: kind invalid, with and without expiry
_RENEWED = "expires_at > 0 AND (excluded.expires_at IS NULL OR excluded.expires_at > expires_at)"  # a copy, read again
PUT = f"""{_UPSERT} excluded.stamp > stamp OR {_DAMAGED} OR (excluded.stamp = stamp AND ({_RENEWED}
          OR ({_INVALID.format("tiered_entries")} AND NOT {_INVALID.format("excluded")})))"""
VOID = f"{_UPSERT} excluded.stamp >= stamp OR {_DAMAGED}"
ADD = f"{_INSERT} ON CONFLICT DO NOTHING"
CHANGE = "UPDATE tiered_entries SET stamp = ?, expires_at = ?, value = ? WHERE namespace = ? AND key = ? AND stamp = ?"

RETRACT = (
    f"DELETE FROM tiered_entries WHERE namespace = ? AND key = ? AND stamp = ? AND {_INVALID.format('tiered_entries')}"
)
SPACES = """WITH RECURSIVE found(name) AS (
              SELECT min(namespace) FROM tiered_entries WHERE namespace >= ?1 AND namespace < ?2 UNION ALL
              SELECT (SELECT min(namespace) FROM tiered_entries WHERE namespace > name AND namespace < ?2) FROM found
              WHERE name IS NOT NULL)
            SELECT name FROM found WHERE name IS NOT NULL"""

SCAN = """SELECT key FROM tiered_entries WHERE namespace = ? AND key {} ? AND key < ?
          AND (expires_at IS NULL OR expires_at > ?) ORDER BY key LIMIT ?"""
SCAN_AFTER, SCAN_FROM = SCAN.format(">"), SCAN.format(">=")

# One range holds both: from the oldest tombstone past its grace (negative) up to values expired now.
DUE = """SELECT key, stamp, expires_at FROM tiered_entries
         WHERE namespace = ? AND expires_at >= ? AND expires_at <= ? ORDER BY expires_at LIMIT ?"""
BURY = "UPDATE tiered_entries SET expires_at = ?, value = ? WHERE namespace = ? AND key = ?"
DROP = "DELETE FROM tiered_entries WHERE namespace = ? AND key = ?"
KEEP = "UPDATE tiered_entries SET expires_at = NULL WHERE namespace = ? AND key = ?"
PURGED = """INSERT INTO tiered_meta (namespace, purged_stamp) VALUES (?, ?) ON CONFLICT (namespace) DO UPDATE
            SET purged_stamp = max(ifnull(purged_stamp, x''), excluded.purged_stamp)"""
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


class Session(sqlite3.Connection):
    """One connection to one file. Performs requests, one at a time, in whichever thread calls."""

    def __init__(self, database: str, **options: Any) -> None:
        self.path = database
        self.closed = False
        self._ready = False
        self._broken = False  # to be closed after this request
        self._abandoned = False
        self._gate = threading.Lock()
        with _registry:
            try:
                super().__init__(database, **options)
                _sessions.add(self)
            except KeyboardInterrupt:  # it is raised after a call, so it has been opened
                self.close()
                raise

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
                if not self._ready:
                    self._broken = True
                    self._prepare(deadline)
                    self._ready, self._broken = True, False
                if isinstance(request, Transaction):
                    return self._transact(request, deadline)
                return self._patiently(lambda: self._statement(request), deadline)
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
                if self._broken:  # the next use connects and looks at the file afresh
                    self.closed = True
                    self.close()

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

    def shut(self, wait: float = -1) -> None:
        """Close once the request being performed has ended; leave it open when that takes over `wait` seconds."""
        if self._gate.acquire(timeout=wait):
            try:
                self.closed = True
                self.close()
            finally:
                self._gate.release()

    # -- statements --------------------------------------------------------------------------------------------

    def _statement(self, request: Query | Many) -> Any:
        if self._abandoned:
            raise BackendUnavailable("cancelled; nothing was written")
        if isinstance(request, Many):
            return self.executemany(request.sql, request.rows).rowcount
        cursor = self.execute(request.sql, request.params() if callable(request.params) else request.params)
        try:
            return request.shape(cursor)
        finally:
            cursor.close()

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

    # -- opening -----------------------------------------------------------------------------------------------

    def _prepare(self, deadline: float) -> None:
        """Look at the file, and only then switch it to WAL and make what is missing. Safe in many processes."""
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
            self._patiently(lambda: self.execute("BEGIN IMMEDIATE"), deadline)
            for name in self._missing():
                self.execute(SCHEMA[name])
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
        there = {
            name for (name,) in self.execute("SELECT name FROM sqlite_master WHERE name LIKE 'tiered\\_%' ESCAPE '\\'")
        }
        for table, columns in _SHAPES.items():
            if table not in there:
                continue
            info = self.execute('SELECT name, type, "notnull", pk FROM pragma_table_info(?)', (table,))
            if {name: (kind.upper(), notnull, pk) for name, kind, notnull, pk in info} != columns:
                raise ForeignValue(
                    f"{self.path} has a table {table} of another shape, not made by tiered: "
                    "it was left untouched; use another file, or rename that table"
                )
        return [name for name in SCHEMA if name not in there]


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
