"""The servers the tests run on: they start, answer, recover, pause, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

import tests.servers
from tests.servers import StartError, machine, process, until

SINGLE = ("redis", "redis-tls", "valkey", "postgres", "mariadb")
HERE = Path(__file__).parent.parent


class Notes:
    """A table or a list to keep words in, over one connection that stays open."""

    def __init__(self, server: Any) -> None:
        self.redis = hasattr(server, "client")
        self.connection = server.client(socket_timeout=60) if self.redis else server.connect(server.url.split("/")[-1])

    def sql(self, statement: str) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement)
            return [row[0] for row in cursor.fetchall()] if cursor.description else []

    def add(self, word: str) -> None:
        if self.redis:
            self.connection.rpush("notes", word)
        else:
            self.sql("CREATE TABLE IF NOT EXISTS notes (word VARCHAR(20))")
            self.sql(f"INSERT INTO notes VALUES ('{word}')")

    def read(self) -> list[str]:
        if self.redis:
            return [word.decode() for word in self.connection.lrange("notes", 0, -1)]
        return self.sql("SELECT word FROM notes")


def notes(server: Any, work: Callable[[Notes], Any]) -> Any:
    """What `work` makes of the notes, over a new connection."""
    kept = Notes(server)
    try:
        return work(kept)
    finally:
        kept.connection.close()


def refuses(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((machine.HOST, port)) != 0


@pytest.mark.parametrize("kind", SINGLE)
def test_a_server_recovers_from_a_kill_and_leaves_nothing_when_it_is_stopped(kind: str) -> None:
    with tests.servers.start(kind, durable=True) as server:
        notes(server, lambda kept: kept.add("before"))
        first, port, place = server.pid, server.port, server.place
        server.kill()
        assert refuses(port)
        server.restart()
        assert (server.port, server.pid != first) == (port, True)
        assert notes(server, Notes.read) == ["before"]
        server.restart()
        assert notes(server, Notes.read) == ["before"]
        server.restart(empty=True)
        notes(server, lambda kept: kept.add("after"))
        assert notes(server, Notes.read) == ["after"]
        last = server.pid
    assert refuses(port)
    assert not place.exists()
    assert machine.ended(last)
    server.stop()  # once more is fine


@pytest.mark.parametrize("kind", SINGLE)
def test_a_paused_server_answers_when_it_is_resumed(kind: str) -> None:
    with tests.servers.start(kind) as server, ThreadPoolExecutor(1) as thread:
        kept = Notes(server)
        kept.add("word")
        server.pause()
        answer = thread.submit(kept.read)
        try:
            assert not wait([answer], timeout=0.3).done
        finally:
            server.resume()
        assert answer.result(60) == ["word"]
        kept.connection.close()
        server.pause()  # and one that is paused is stopped all the same


def test_a_server_killed_for_good_is_cleaned_up() -> None:
    with tests.servers.start("postgres") as server:
        segment = (server.data / "postmaster.pid").read_text().splitlines()[6].split()[1]
        server.kill()
        assert "not running" in repr(server)
    listed = Path("/proc/sysvipc/shm")
    assert not server.place.exists()
    assert not listed.exists() or segment not in [line.split()[1] for line in listed.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_databases_are_apart(kind: str) -> None:
    server = tests.servers.shared(kind)
    one, other = server.database(), server.database()
    name, second = one.rpartition("/")[2], other.rpartition("/")[2]
    assert name != second
    server.execute("CREATE TABLE thing (x INT)", name)
    server.execute("CREATE TABLE thing (x INT)", second)


def test_a_session_shares_one_server_and_keeps_namespaces_apart() -> None:
    server = tests.servers.shared("redis")
    assert tests.servers.shared("redis") is server
    assert server.ask("PING")
    assert tests.servers.namespace() != tests.servers.namespace()


def test_arguments_reach_the_server() -> None:
    with tests.servers.start("redis", "--maxmemory", "4mb", "--maxmemory-policy", "allkeys-lru") as server:
        info = server.ask("INFO", "memory")
        assert (info["maxmemory"], info["maxmemory_policy"]) == (4 << 20, "allkeys-lru")
    with tests.servers.start("postgres", "-c", "max_connections=7") as server:
        assert server.execute("SHOW max_connections") == [("7",)]
    with tests.servers.start("mariadb", "--max-allowed-packet=1M") as server:
        assert server.execute("SELECT @@global.max_allowed_packet") == [(1 << 20,)]


def test_redis_with_a_password_users_and_a_socket() -> None:
    import redis

    password = 'hard to/%41:\\guess@"'  # must survive a URL and a line of redis.conf
    user = "app on >word ~docs:* +@read"
    with tests.servers.start("redis", password=password, users=(user,)) as server:
        assert password not in repr(server)
        assert "guess" not in repr(server)
        for url in (server.url, server.socket_url):
            with redis.Redis.from_url(url) as client:
                assert client.ping()
        with redis.Redis.from_url(server.url_as("app", "word")) as client, pytest.raises(redis.ResponseError):
            client.set("docs:1", "x")
        with redis.Redis.from_url(server.url_as("", "wrong")) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_tls_needs_the_authority() -> None:
    import redis

    with tests.servers.start("redis-tls") as server:
        plain = server.url.partition("?")[0]
        with redis.Redis.from_url(plain) as client, pytest.raises(redis.ConnectionError, match="certificate"):
            client.ping()
        with redis.Redis.from_url(plain.replace("rediss", "redis")) as client, pytest.raises(redis.RedisError):
            client.ping()


def test_roles_of_postgres_need_their_password() -> None:
    import psycopg

    server = tests.servers.shared("postgres")
    server.execute("CREATE ROLE app LOGIN PASSWORD 'word'")
    psycopg.connect(server.url_as("app", "word")).close()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.url_as("app", "wrong"))


def test_sentinels_replace_a_primary() -> None:
    import redis

    with tests.servers.start("redis-sentinel") as group:
        addresses = [(machine.HOST, sentinel.port) for sentinel in group.sentinels]
        finder = redis.Sentinel(addresses, socket_timeout=5)
        old = group.primary
        assert finder.discover_master(group.service) == (machine.HOST, old.port)
        assert len(finder.discover_slaves(group.service)) == 2
        old.kill()
        until(lambda: group.primary is not old, "a new primary")

        def found() -> object:
            try:
                return finder.discover_master(group.service)
            except redis.sentinel.MasterNotFoundError:  # the sentinels do not agree yet
                return None

        until(lambda: found() == (machine.HOST, group.primary.port), "the sentinels to agree")
        old.restart()
        pids = [member.pid for member in group.members]
    assert all(map(machine.ended, pids))


def test_a_cluster_replaces_a_primary() -> None:
    from redis.cluster import RedisCluster

    with tests.servers.start("valkey-cluster", node_timeout_ms=1000) as group:
        with RedisCluster.from_url(group.nodes[1].url) as client:
            assert client.set("key", "value")
            assert client.wait(1, 5000, target_nodes=client.get_node_from_key("key")) == 1
            primary = group.at(client.get_node_from_key("key").port)
        replica = group.nodes[group.nodes.index(primary) + 3]
        primary.kill()
        assert not group.whole()
        until(lambda: replica.ask("INFO", "replication")["role"] == "master", "the replica takes over")
        primary.restart()
        until(group.whole, "the old primary is back")
        with RedisCluster.from_url(replica.url) as client:
            assert client.get("key") == b"value"


@pytest.mark.parametrize("kind", ["redis-replica", "valkey-replica", "valkey-sentinel"])
def test_replicas_follow(kind: str) -> None:
    with tests.servers.start(kind) as group:
        primary, *replicas = group.nodes
        with primary.client() as client:
            client.set("key", "value")
            assert client.wait(len(replicas), 5000) == len(replicas)
        assert [replica.ask("GET", "key") for replica in replicas] == [b"value"] * len(replicas)


def test_a_cluster_serves_every_slot() -> None:
    from redis.cluster import RedisCluster

    with tests.servers.start("redis-cluster") as group, RedisCluster.from_url(group.nodes[5].url) as client:
        keys = [f"key {number}" for number in range(50)]
        assert client.mset_nonatomic(dict.fromkeys(keys, "value"))
        assert client.mget_nonatomic(keys) == [b"value"] * 50
        assert {client.get_node_from_key(key).port for key in keys} == {node.port for node in group.nodes[:3]}


def folders() -> set[Path]:
    return set(machine.root().iterdir())


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        ("redis", ("--no-such-option", "1"), "no-such-option"),
        ("postgres", ("-c", "no_such=1"), "no_such"),
        ("mariadb", ("--no-such-option",), "no-such-option"),
    ],
)
def test_a_server_that_ends_at_once_is_an_error_with_its_log(kind: str, arguments: tuple[str, ...], said: str) -> None:
    tests.servers.start(kind).stop()  # skips when it is missing
    before = folders()
    with pytest.raises(StartError, match=said):
        tests.servers.start(kind, *arguments)
    assert folders() == before


@pytest.mark.parametrize("kind", SINGLE)
def test_a_port_that_was_taken_meanwhile_is_replaced(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    free = machine.free_port
    with tests.servers.start(kind) as other:  # one that answers just as well
        ports: Iterator[int] = iter([other.port, free()])
        monkeypatch.setattr(process, "free_port", lambda: next(ports))
        with tests.servers.start(kind) as server:
            assert server.port != other.port
            assert server.check()


def test_a_fork_stops_nothing() -> None:
    with tests.servers.start("redis") as server:
        child = os.fork()
        if not child:
            try:
                process.stop_all()
            finally:
                os._exit(0 if server.alive else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert server.ask("PING")


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"'oracle'.*redis.*postgres"):
        tests.servers.start("oracle")


# A session of its own.

NEEDS_REDIS = """
import tests.servers

def test_one():
    tests.servers.shared("redis")

def test_other():
    tests.servers.start("redis")
"""

INTERRUPTED = """
import tests.servers

def test_one():
    raise KeyboardInterrupt(tests.servers.shared("redis").pid)
"""


def session(place: Path, code: str, **environment: str) -> tuple[int, str]:
    """Code and output of a pytest session over one file, with temporary files in `place`/tmp."""
    (place / "test_it.py").write_text(code)
    (place / "tmp").mkdir()
    (place / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-c", f"{place}/pytest.ini", "-p", "tests.servers.plugin", "-rsf"]
    variables = {**os.environ, "TMPDIR": f"{place}/tmp", "TIERED_REQUIRE_SERVERS": "", "PYTHONPATH": str(HERE)}
    variables["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # quicker
    done = subprocess.run(
        [*command, f"{place}/test_it.py"],
        env={**variables, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_missing_server_is_a_skip_the_summary_names(tmp_path: Path) -> None:
    code, said = session(tmp_path, NEEDS_REDIS, PATH="")
    assert (code, "2 skipped" in said) == (0, True), said
    line = "servers missing: redis (redis-server not found: install redis-server)"
    assert said.splitlines().count(line) == 1


def test_a_missing_server_that_is_required_is_a_failure(tmp_path: Path) -> None:
    code, said = session(tmp_path, NEEDS_REDIS, PATH="", TIERED_REQUIRE_SERVERS="1")
    assert (code, "2 failed" in said) == (1, True), said
    assert "servers missing: redis (" in said


def test_a_server_that_does_not_come_up_is_a_failure(tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "redis-server"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho I am broken\nexit 3\n")
    broken.chmod(0o755)
    code, said = session(tmp_path, NEEDS_REDIS, PATH=str(broken.parent))
    assert (code, "2 failed" in said) == (1, True), said
    assert "redis: it ended with code 3\nE   I am broken" in said.replace("E       ", "E   ")
    assert "servers missing" not in said


def test_an_interrupted_session_leaves_nothing(tmp_path: Path) -> None:
    tests.servers.start("redis").stop()  # skips when it is missing
    code, said = session(tmp_path, INTERRUPTED)
    assert code == 2, said
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_command_line_prints_urls_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    import redis

    tests.servers.start("redis").stop()  # skips when it is missing
    command = [sys.executable, "-m", "tests.servers", "redis", "redis-replica"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE, env=environment) as running:
        assert running.stdout
        urls = dict(running.stdout.readline().strip().split("=", 1) for _ in range(2))
        assert list(urls) == ["REDIS_URL", "REDIS_REPLICA_URL"]
        for url in urls.values():
            with redis.Redis.from_url(url) as client:
                assert client.ping()
        running.send_signal(number)
        assert running.wait(60) == (0 if number != signal.SIGKILL else -signal.SIGKILL)
    if number == signal.SIGKILL:
        until(lambda: not list(tmp_path.iterdir()), "the guard removes what is left")
    assert not list(tmp_path.iterdir())
    for url in urls.values():
        port = int(url.rpartition(":")[2].partition("/")[0])
        until(lambda port=port: refuses(port), "the end of the server")
