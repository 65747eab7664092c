"""An SQLAlchemy engine the user brought: its connections are borrowed for a request each, and nothing is closed.

Their settings stay what they are: no write-ahead log is switched on, no cache enlarged. For a connection and for a lock
is waited as long as they say, so a request may take that much longer than its time-out. An Engine serves the
synchronous face, an AsyncEngine the other.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from typing import Any, NoReturn

from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import BackendUnavailable, ConfigurationError, FaceUnavailable
from . import _sqlite
from ._clients import Request, hop
from ._sql_batches import Schema

_DRIVERS = ("pysqlite", "aiosqlite")


class Guest(_sqlite.Performer):
    """A connection of the user's."""

    def __init__(self, connection: Any, path: str, schema: Schema) -> None:
        super().__init__(path, schema)
        self.turn = asyncio.Lock()  # tasks may share one: a cancelled one must not interrupt another's request
        self._connection = connection
        self.execute, self.executemany = connection.execute, connection.executemany
        self.interrupt, self.set_progress_handler = connection.interrupt, connection.set_progress_handler

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.in_transaction)

    def _attempt(self, request: Request, deadline: float) -> Any:
        connection = self._connection
        before = connection.text_factory, connection.row_factory
        connection.text_factory, connection.row_factory = _sqlite.Text, None
        try:
            return super()._attempt(request, deadline)
        finally:
            connection.text_factory, connection.row_factory = before

    def _prepare(self, deadline: float) -> None:
        connection = self._connection
        if self.in_transaction:
            raise ConfigurationError(
                "a connection of engine= is in a transaction already (autocommit=False, or isolation_level= of another "
                "kind): let SQLAlchemy connect as it does by default, or give db_url="
            )
        before = connection.text_factory, connection.row_factory
        connection.text_factory, connection.row_factory = str, None
        try:
            if self._patiently(self._missing, deadline):
                self._make(deadline)
        finally:
            connection.text_factory, connection.row_factory = before

    def _discard(self) -> None:
        """It is the user's: it stays."""


class Guests:
    """The connections of one engine."""

    def __init__(self, engine: Engine | AsyncEngine, schema: Schema) -> None:
        if engine.dialect.name != "sqlite" or engine.dialect.driver not in _DRIVERS:
            raise ConfigurationError(
                f"engine= speaks {engine.dialect.name}+{engine.dialect.driver}: SQLStore supports SQLite so far, "
                f"by {' or '.join(_DRIVERS)}"
            )
        self._engine = engine
        self._schema = schema
        database = engine.url.database
        named = database and database != ":memory:" and not database.startswith("file:")
        self.path = os.path.abspath(database) if database and named else f":memory: of engine {id(engine):#x}"  # noqa: PTH100

    def perform(self, request: Request, timeout: float) -> Any:
        engine = self._engine
        if isinstance(engine, AsyncEngine):
            self._refuse("AsyncEngine", "synchronous", "an Engine")
        deadline = time.monotonic() + timeout
        try:
            held = engine.raw_connection()
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise self._explain(error) from error
        try:
            return self._guest(held, held.driver_connection).perform(request, deadline)
        finally:
            held.close()  # back to its pool

    async def aperform(self, request: Request, timeout: float) -> Any:
        engine = self._engine
        if isinstance(engine, Engine):
            self._refuse("Engine", "asynchronous", "an AsyncEngine")
        deadline = time.monotonic() + timeout
        try:
            connection = await engine.connect()
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise self._explain(error) from error
        try:
            held = await connection.get_raw_connection()
            driver: Any = held.driver_connection
            guest = self._guest(held, driver._connection)  # noqa: SLF001
            async with guest.turn:
                return await hop(driver, guest, request, deadline)
        finally:
            await connection.close()  # back to its pool

    def _guest(self, held: PoolProxiedConnection, connection: Any) -> Guest:
        """One for a connection, as long as its pool keeps it."""
        name = f"tiered {next(iter(self._schema.makes))}"
        guest: Guest = held.info.setdefault(name, Guest(connection, self.path, self._schema))
        return guest

    def _explain(self, error: Exception) -> Exception:
        cause = getattr(error, "orig", error)  # SQLAlchemy's own errors wrap the driver's
        if isinstance(cause, sqlite3.Error):
            return _sqlite.explain(cause, self.path)
        return BackendUnavailable(f"engine= gave no connection ({type(error).__name__}); nothing was written")

    def _refuse(self, given: str, face: str, wanted: str) -> NoReturn:
        raise FaceUnavailable(
            f"engine= is an {given}, so the {face} methods have no connection: give {wanted} as engine=, or db_url=, "
            "which serves both; nothing was written"
        )

    def close(self) -> None:
        """Nothing: the engine is the user's."""

    async def aclose(self) -> None:
        """Nothing: the engine is the user's."""
