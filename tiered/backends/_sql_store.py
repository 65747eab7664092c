"""`tiered.storage.SQLStore`: LangChain's class of that name on SQLite, over the plain layout."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, LargeBinary
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ..backend import Op
from ..errors import ConfigurationError
from ._guests import Guests
from ._requests import Query, Transaction
from ._sql_plain import DROP_TABLE, TABLE
from .base import TIMEOUT
from .sql import SQL


class Base(DeclarativeBase):
    """What `LangchainKeyValueStores` is declared on; its `metadata` holds that table alone."""


class LangchainKeyValueStores(Base):
    """The table, as SQLAlchemy sees it."""

    __tablename__ = TABLE

    namespace: Mapped[str] = mapped_column(primary_key=True, index=True)
    key: Mapped[str] = mapped_column(primary_key=True, index=True)
    value: Mapped[bytes] = mapped_column(LargeBinary)


def items_equal(x: Any, y: Any) -> Any:
    """x == y."""
    return x == y


class SQLStore(SQL):
    """A byte store in the table of `langchain_community.storage.SQLStore`: each reads what the other wrote.

    `SQLStore(namespace="docs", db_url="sqlite:///cache.db")`, SQLite so far. One object serves the synchronous and
    the asynchronous methods, whatever `async_mode` says. The table is made at first use, `create_schema()` does it at
    once. As a tier it goes last, and its stack has its namespace.

    In place of `db_url`, `engine` is an SQLAlchemy Engine or AsyncEngine on SQLite. It is never closed here and keeps
    its own settings; only its own face works, the other raises FaceUnavailable. `engine_kwargs` would configure an
    engine that there is none of here: make one, and give it as `engine`.

    Raises ConfigurationError for arguments that cannot work, before any I/O.
    """

    def __init__(
        self,
        *,
        namespace: str,
        db_url: str | Path | None = None,
        engine: Engine | AsyncEngine | None = None,
        engine_kwargs: Mapping[str, Any] | None = None,
        async_mode: bool | None = None,
    ) -> None:
        if (db_url is None) == (engine is None):
            raise ConfigurationError("give SQLStore either db_url= or engine=")
        if engine_kwargs:
            raise ConfigurationError(
                "engine_kwargs= configure an SQLAlchemy engine, and db_url= is opened without one: leave them out, or "
                "give engine=create_engine(url, ..)"
            )
        if async_mode not in (None, True, False):
            raise ConfigurationError("async_mode is True, False or None; both faces work whatever it says")
        if namespace is None:
            raise ConfigurationError("SQLStore needs a namespace, a str")
        if engine is None:
            super().__init__(
                str(db_url) if isinstance(db_url, Path) else db_url or "", namespace=namespace, layout="plain"
            )
        elif isinstance(engine, Engine | AsyncEngine):
            self._open("plain", namespace, partial(Guests, engine))
        else:
            raise ConfigurationError(f"engine= is an SQLAlchemy Engine or AsyncEngine, not {type(engine).__name__}")

    def __repr__(self) -> str:
        return f"SQLStore(namespace={self.namespace!r}, db_url='sqlite:///{self._clients.path}')"

    def create_schema(self) -> None:
        """Make the table if it is not there. Needed by nobody: the first use does it."""
        self.run(self.ping(), TIMEOUT)

    async def acreate_schema(self) -> None:
        await self.arun(self.ping(), TIMEOUT)

    def drop(self) -> None:
        """Drop the table, with what every namespace keeps in it. The next use makes it anew."""
        self.run(_dropped(), TIMEOUT)

    async def adrop(self) -> None:
        await self.arun(_dropped(), TIMEOUT)


def _dropped() -> Op[None]:
    yield Transaction(_drop)


def _drop() -> Op[None]:
    yield Query(DROP_TABLE, ())
