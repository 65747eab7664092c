"""The kinds of servers, by name. Another one is a file of its own and a line here."""

from __future__ import annotations

from functools import partial
from typing import Any

from .mariadb import MariaDB
from .postgres import Postgres
from .redis import Redis, Valkey
from .redis_groups import Cluster, Replicated, ValkeyCluster, ValkeyReplicated, ValkeyWatched, Watched

KINDS: dict[str, Any] = {
    "redis": Redis,
    "redis-tls": partial(Redis, tls=True),
    "redis-replica": Replicated,
    "redis-sentinel": Watched,
    "redis-cluster": Cluster,
    "valkey": Valkey,
    "valkey-replica": ValkeyReplicated,
    "valkey-sentinel": ValkeyWatched,
    "valkey-cluster": ValkeyCluster,
    "postgres": Postgres,
    "mariadb": MariaDB,
}


def make(kind: str, *arguments: str, **options: Any) -> Any:
    """Starts a server of this kind. Raises ValueError, Missing, StartError."""
    if kind not in KINDS:
        raise ValueError(f"no server {kind!r}: one of {', '.join(KINDS)}")
    return KINDS[kind](*arguments, **options).boot()
