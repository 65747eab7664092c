"""PostgreSQL: one server, with as many databases as asked for."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import machine
from .machine import HOST
from .process import Server
from .templates import copy_of, run

if TYPE_CHECKING:
    import psycopg

FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")

# The owner needs no password on this port; every other role does, so that a wrong one is noticed.
ACCESS = f"local all all trust\nhost all postgres {HOST}/32 trust\nhost all all {HOST}/32 scram-sha-256\n"


class Postgres(Server):
    """A PostgreSQL: `arguments` are those of postgres, such as "-c", "max_connections=10".

    Without `durable` it never flushes, and what it acknowledged in the last second may be lost when it is killed.
    """

    kind = "postgres"
    stop_signal = signal.SIGINT  # "fast": does not wait for clients
    disposable = False  # a segment of shared memory

    def __init__(self, *arguments: str, durable: bool = False) -> None:
        super().__init__(*arguments, durable=durable)
        self._names = (f"db{number}" for number in itertools.count(1))

    @classmethod
    def require(cls) -> None:
        machine.driver("psycopg", "postgresql")
        for name in ("initdb", "postgres"):
            machine.program(name, "postgresql", *FOLDERS)

    @classmethod
    def runs_as(cls) -> str | None:
        return machine.account("postgres", "nobody")

    @property
    def url(self) -> str:
        return self.url_as("postgres")

    def url_as(self, user: str, password: str = "", database: str = "postgres") -> str:
        """The URL for another role, password or database."""
        who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        return f"postgresql://{who}@{HOST}:{self.port}/{quote(database, safe='')}"

    def database(self, name: str = "") -> str:
        """Makes a database, empty, under this name or a new one, and gives its URL. It ends with the server."""
        name = name or next(self._names)
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url_as("postgres", database=name)

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """A psycopg connection of the owner's, autocommit. Close it."""
        import psycopg

        return psycopg.connect(
            self.url_as("postgres", database=database), autocommit=True, connect_timeout=5, **options
        )

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """The rows of one statement, over a connection of its own."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def prepare(self) -> None:
        copy_of(self.kind, self._initdb, self.data)

    def command(self) -> list[str]:
        settings = ["listen_addresses=" + HOST, "max_connections=200", "dynamic_shared_memory_type=mmap"]
        if not self.durable:
            settings += ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
        options = [part for setting in settings for part in ("-c", setting)]
        where = ["-D", str(self.data), "-p", str(self.port), "-k", str(self.place)]
        return [machine.program("postgres", "postgresql", *FOLDERS), *where, *options, *self.arguments]

    @classmethod
    def unready(cls) -> type[Exception]:
        from psycopg import Error

        return Error

    def check(self) -> bool:
        return self.execute("SHOW data_directory") == [(str(self.data),)]

    def cleanup(self) -> None:
        lock = self.data / "postmaster.pid"  # there only if it was killed: then its segment of shared memory is, too
        lines = lock.read_text().splitlines() if lock.exists() else []
        if len(lines) > 6 and (ipcrm := shutil.which("ipcrm")):
            subprocess.run([ipcrm, "-m", lines[6].split()[1]], capture_output=True, check=False, timeout=10)

    def _initdb(self, target: Path) -> None:
        initdb = machine.program("initdb", "postgresql", *FOLDERS)
        made = self.place / "new"
        options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]
        run([initdb, "-D", str(made), *options], self.account, self.place)
        (made / "pg_hba.conf").write_text(ACCESS)
        made.rename(target)
