"""Several Redis (or Valkey) that belong together: a primary with replicas, Sentinel, Cluster. All set up by commands.

Without `repl-diskless-sync-delay 0` a replica comes online 5 s late. A Sentinel that starts before the replicas are
online finds them at its next look, 10 s later.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any, ClassVar, Self

from .machine import HOST, StartError, free_port, until
from .process import PATIENCE, Running
from .redis import Redis, Valkey

SERVICE = "tiered"  # what the Sentinels call the primary
SLOTS = 16_384
PROMPT = "repl-diskless-sync-delay 0"


class Group(Running):
    """Redis servers that belong together: `nodes` hold data, `nodes[0]` is the first primary; `sentinels` watch them.

    `arguments` are those of redis-server, for every node.
    """

    server: ClassVar[type[Redis]] = Redis

    def __init__(self, *arguments: str, durable: bool = False) -> None:
        self.server.require()
        self.arguments = arguments
        self.durable = durable
        self.nodes: list[Redis] = []
        self.sentinels: list[Sentinel] = []

    @property
    def members(self) -> list[Redis]:
        """Every process of it."""
        return [*self.nodes, *self.sentinels]

    @property
    def alive(self) -> bool:
        return all(member.alive for member in self.members)

    def at(self, port: int) -> Redis:
        """The member on this port: clients name servers so. Raises KeyError."""
        return {member.port: member for member in self.members}[port]

    def log_tail(self, lines: int = 20) -> str:
        return "\n".join(f"{member!r}\n{member.log_tail(lines)}" for member in self.members)

    def stop(self) -> None:
        for member in reversed(self.members):
            member.stop()

    def boot(self) -> Self:
        """Starts all of it. Raises StartError, and leaves nothing behind then."""
        try:
            self.assemble()
        except StartError as error:
            tail = self.log_tail(5)
            self.stop()
            raise StartError(f"{self.kind}: {error}\n{tail}") from error
        except BaseException:
            self.stop()
            raise
        return self

    @abstractmethod
    def assemble(self) -> None:
        """Starts the members and joins them."""

    def node(self, *config: str) -> Redis:
        """One more server of the group that holds data."""
        made = self.server(*self.arguments, durable=self.durable, config=(PROMPT, *config))
        self.nodes.append(made)
        return made.boot()

    def __repr__(self) -> str:
        return f"<{self.kind}: {', '.join(map(repr, self.members))}>"


class Replicated(Group):
    """A primary (`nodes[0]`) and so many replicas, online. The URL is the primary's."""

    kind = "redis-replica"

    def __init__(self, *arguments: str, durable: bool = False, replicas: int = 1) -> None:
        super().__init__(*arguments, durable=durable)
        self.count = replicas

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def assemble(self) -> None:
        primary = self.node()
        for _ in range(self.count):
            self.node(f"replicaof {HOST} {primary.port}")
        until(lambda: self._online() == self.count, "replicas online", PATIENCE)

    def _online(self) -> int:
        with self.nodes[0].client() as client:
            info = client.info("replication")
        return sum(info[key]["state"] == "online" for key in info if key.startswith("slave") and key[5:].isdigit())


class Sentinel(Redis):
    """One Sentinel that watches a primary."""

    kind = "sentinel"

    def __init__(self, program: str, primary: int, down_after_ms: int) -> None:
        super().__init__()
        self._program = program
        self.watched = primary
        self.down_after_ms = down_after_ms

    def lines(self) -> list[str]:
        return [
            f"port {self.port}",
            f"bind {HOST}",
            f"dir {self.data}",
            f"sentinel monitor {SERVICE} {HOST} {self.watched} 2",
            f"sentinel down-after-milliseconds {SERVICE} {self.down_after_ms}",
            f"sentinel failover-timeout {SERVICE} 3000",
        ]

    def command(self) -> list[str]:
        return [self._program, str(self.place / "conf"), "--sentinel"]


class Watched(Replicated):
    """A primary, two replicas and three Sentinels that call it `service`. A lost primary is replaced in 2-3 s."""

    kind = "redis-sentinel"
    service = SERVICE

    def __init__(self, *arguments: str, durable: bool = False, down_after_ms: int = 1000) -> None:
        super().__init__(*arguments, durable=durable, replicas=2)
        self.down_after_ms = down_after_ms

    @property
    def url(self) -> str:
        return f"redis+sentinel://{hosts(self.sentinels)}/{SERVICE}/0"

    @property
    def primary(self) -> Redis:
        """The node that is the primary now, as the first Sentinel that runs sees it."""
        sentinel = next(one for one in self.sentinels if one.alive)
        return self.at(int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1]))

    def assemble(self) -> None:
        super().assemble()
        for _ in range(3):
            self.sentinels.append(Sentinel(self.server.program(), self.nodes[0].port, self.down_after_ms))
            self.sentinels[-1].boot()
        until(lambda: all(map(self._informed, self.sentinels)), "Sentinels that know each other", PATIENCE)

    def _informed(self, sentinel: Sentinel) -> bool:
        with sentinel.client(decode_responses=True) as client:
            state = client.info("sentinel")["master0"]
        return state["status"] == "ok" and (state["slaves"], state["sentinels"]) == (2, 3)


class Cluster(Group):
    """Three primaries (`nodes[:3]`) and a replica of each (`nodes[3:]`, in the same order).

    A primary that is gone is replaced after `node_timeout_ms` and about a second.
    """

    kind = "redis-cluster"

    def __init__(self, *arguments: str, durable: bool = False, node_timeout_ms: int = 2000) -> None:
        super().__init__(*arguments, durable=durable)
        self.node_timeout_ms = node_timeout_ms
        self._bus: dict[int, int] = {}

    @property
    def url(self) -> str:
        return f"redis+cluster://{hosts(self.nodes)}"

    def assemble(self) -> None:
        for _ in range(6):
            bus = free_port()
            node = self.node(
                "cluster-enabled yes",
                f"cluster-port {bus}",
                f"cluster-node-timeout {self.node_timeout_ms}",
                "cluster-config-file nodes.conf",
                "cluster-require-full-coverage no",  # the other shards go on during a failover
            )
            self._bus[node.port] = bus
        primaries, replicas = self.nodes[:3], self.nodes[3:]
        for epoch, node in enumerate(self.nodes, 1):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for number, node in enumerate(primaries):
            node.ask("CLUSTER", "ADDSLOTSRANGE", number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1)
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", HOST, node.port, self._bus[node.port])
        until(
            lambda: all(self._info(node)["cluster_known_nodes"] == "6" for node in self.nodes),
            "six nodes met",
            PATIENCE,
        )
        for primary, replica in zip(primaries, replicas, strict=True):
            until(partial(self._follow, replica, primary), "a replica's join", PATIENCE)
        until(self.whole, "a cluster with its replicas", PATIENCE)

    def whole(self) -> bool:
        """Whether every node runs and sees all slots served, and every replica follows its primary."""
        return self.alive and all(map(self._well, self.nodes))

    def _well(self, node: Redis) -> bool:
        with node.client() as client:
            role = client.info("replication")
        linked = role["role"] == "master" or role["master_link_status"] == "up"
        return linked and self._info(node)["cluster_state"] == "ok"

    def _info(self, node: Redis) -> dict[str, str]:
        answer: Any = node.ask("CLUSTER INFO")  # redis-py parses it under this name only
        return dict(answer)

    def _follow(self, replica: Redis, primary: Redis) -> bool:
        from redis.exceptions import ResponseError

        try:
            name = primary.ask("CLUSTER", "MYID")
            return bool(replica.ask("CLUSTER", "REPLICATE", name.decode()))
        except ResponseError:  # it has not heard of the primary yet
            return False


class ValkeyReplicated(Replicated):
    kind = "valkey-replica"
    server = Valkey


class ValkeyWatched(Watched):
    kind = "valkey-sentinel"
    server = Valkey


class ValkeyCluster(Cluster):
    kind = "valkey-cluster"
    server = Valkey


def hosts(servers: list[Redis] | list[Sentinel]) -> str:
    """host:port of each, with commas: the middle part of their URL."""
    return ",".join(f"{HOST}:{server.port}" for server in servers)
