"""MariaDB: one server, with as many databases as asked for."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import machine
from .machine import HOST
from .process import Server
from .templates import copy_of, run

if TYPE_CHECKING:
    import pymysql

FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/opt/homebrew/opt/mariadb/bin")
SMALL = ["--innodb-log-file-size=8M", "--aria-log-file-size=8M"]


class MariaDB(Server):
    """A MariaDB: `arguments` are those of mariadbd, such as "--max-allowed-packet=1M".

    Without `durable` it never flushes; what it acknowledged is there after a kill either way.
    """

    kind = "mariadb"

    def __init__(self, *arguments: str, durable: bool = False) -> None:
        super().__init__(*arguments, durable=durable)
        self._names = (f"db{number}" for number in itertools.count(1))

    @classmethod
    def require(cls) -> None:
        machine.driver("pymysql", "mysql")
        for name in ("mariadb-install-db", "mariadbd"):
            machine.program(name, "mariadb-server", *FOLDERS)

    @classmethod
    def runs_as(cls) -> str | None:
        return machine.account("mysql", "nobody")

    @property
    def url(self) -> str:
        return self.url_as("root", database="start")

    def url_as(self, user: str, password: str = "", database: str = "start") -> str:
        """The URL for another user, password or database. `start` is a database every server has."""
        who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        return f"mariadb://{who}@{HOST}:{self.port}/{quote(database, safe='')}"

    def database(self, name: str = "") -> str:
        """Makes a database, empty, under this name or a new one, and gives its URL. It ends with the server."""
        name = name or next(self._names)
        self.execute(f"CREATE DATABASE `{name}`")
        return self.url_as("root", database=name)

    def connect(self, database: str | None = None, **options: Any) -> pymysql.Connection[Any]:
        """A PyMySQL connection of root's, autocommit. Close it."""
        import pymysql

        given: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 10, "autocommit": True, "charset": "utf8mb4"}
        return pymysql.connect(host=HOST, port=self.port, user="root", database=database, **{**given, **options})

    def execute(self, statement: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """The rows of one statement, over a connection of its own."""
        with self.connect(database) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def prepare(self) -> None:
        copy_of(self.kind, self._install, self.data)

    def command(self) -> list[str]:
        flush = ["--innodb-flush-log-at-trx-commit=1"] if self.durable else ["--innodb-flush-log-at-trx-commit=2"]
        return [
            machine.program("mariadbd", "mariadb-server", *FOLDERS),
            "--no-defaults",  # must come first
            f"--datadir={self.data}",
            f"--port={self.port}",
            f"--bind-address={HOST}",
            f"--socket={self.place}/s",
            f"--pid-file={self.place}/pid",
            "--skip-name-resolve",
            "--innodb-buffer-pool-size=32M",
            "--performance-schema=OFF",
            "--character-set-server=utf8mb4",
            f"--innodb-flush-method={'fsync' if self.durable else 'nosync'}",
            *SMALL,
            *flush,
            *self.arguments,
        ]

    @classmethod
    def unready(cls) -> type[Exception]:
        from pymysql import MySQLError

        error: type[Exception] = MySQLError
        return error

    def check(self) -> bool:
        if self.execute("SELECT @@datadir") != [(f"{self.data}/",)]:
            return False
        self.execute("CREATE DATABASE IF NOT EXISTS start")
        return True

    def _install(self, target: Path) -> None:
        install = machine.program("mariadb-install-db", "mariadb-server", *FOLDERS)
        made = self.place / "new"
        options = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        quick = ["--innodb-flush-method=nosync", *SMALL]
        run([install, "--no-defaults", f"--datadir={made}", *options, *quick], self.account, self.place)
        made.rename(target)
