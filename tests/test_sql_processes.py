"""SQLite under several processes: schema made at once, stamps under contention, fork, full disks, exits."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tiered.backends import _sqlite
from tiered.backends.sql import SQL

ROOT = Path(__file__).parents[1]


def start(script: str, *args: object) -> subprocess.Popen[str]:
    """A process that runs `script` with warnings of forgotten resources as errors."""
    code = "import asyncio, os, sys\nfrom tiered.backends.sql import SQL\n" + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def finish(*started: subprocess.Popen[str]) -> list[str]:
    """What each wrote. Those that wait for a line on stdin get it once all have said that they are ready."""
    ended = [process.communicate("go\n") for process in started]
    assert [(process.returncode, told[1]) for process, told in zip(started, ended, strict=True)] == [(0, "")] * len(
        started
    )
    return [told[0] for told in ended]


def together(script: str, *argss: tuple[object, ...]) -> list[str]:
    """Runs `script` in a process each, beginning at the same moment."""
    gate = "\nprint('ready', flush=True)\nsys.stdin.readline()\n"
    started = [start(gate + textwrap.dedent(script), *args) for args in argss]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return finish(*started)


def test_four_processes_make_the_schema_at_once(tmp_path: Path) -> None:
    script = """
        for round in range(10):
            store = SQL(f"sqlite:///{sys.argv[1]}/{round}.db")
            if int(sys.argv[2]) % 2:
                store.mset({sys.argv[2]: b"1"})
            else:
                asyncio.run(store.amset({sys.argv[2]: b"1"}))
            store.close()
    """
    together(script, *((tmp_path, worker) for worker in range(4)))
    for file in sorted(tmp_path.glob("*.db")):
        store = SQL(f"sqlite:///{file}")
        assert list(store.yield_keys()) == ["0", "1", "2", "3"]
        store.close()


def test_the_highest_stamp_of_four_processes_wins(tmp_path: Path) -> None:
    script = """
        from tiered.clock import Clock
        from tiered.entry import Entry
        clock, store, highest = Clock(), SQL(sys.argv[1]), {}
        def batch():
            items = [(f"k{at}", Entry(0, clock.draw(), None, sys.argv[2].encode())) for at in range(20)]
            highest.update((key, entry.stamp) for key, entry in items)
            return items
        for _ in range(40):
            items = batch()
            refused = store.run(store.put("", items, None), 60.0)
            assert all(refused[key] > entry.stamp for key, entry in items if key in refused)
        async def tasks():
            await asyncio.gather(*(store.arun(store.put("", batch(), None), 60.0) for _ in range(10)))
        asyncio.run(tasks())
        store.close()
        for key, stamp in highest.items():
            print(key, stamp.hex())
    """
    url = f"sqlite:///{tmp_path}/cache.db"
    highest: dict[str, str] = {}
    for told in together(script, *((url, worker) for worker in range(4))):
        for line in told.splitlines():
            key, stamp = line.split()
            highest[key] = max(highest.get(key, ""), stamp)
    store = SQL(url)
    found = store.run(store.fetch("", list(highest)), 5.0)
    assert [entry.stamp.hex() for entry in found if entry is not None and not isinstance(entry, Exception)] == list(
        highest.values()
    )
    store.close()


def test_fifty_loops_on_one_store_leave_nothing_open(tmp_path: Path) -> None:
    script = """
        import gc, threading
        store = SQL(sys.argv[1])
        async def use(at):
            await store.amset({f"k{at}": b"1"})
            assert await store.amget([f"k{at}", "zz"]) == [b"1", None]
            assert len([key async for key in store.ayield_keys()]) == at + 1
        for at in range(50):
            asyncio.run(use(at))
        gc.collect()
        assert threading.active_count() == 1, threading.enumerate()
        del store
        gc.collect()
    """
    finish(start(script, f"sqlite:///{tmp_path}/cache.db"))


def test_a_store_that_is_never_closed_ends_in_silence(tmp_path: Path) -> None:
    script = """
        import gc
        store = SQL(sys.argv[1])
        store.mset({"a": b"1"})
        loop = asyncio.new_event_loop()
        loop.run_until_complete(store.amget(["a"]))
        if sys.argv[2] == "closed":
            loop.close()
        elif sys.argv[2] == "forgotten":
            del store
            gc.collect()
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
    """
    finish(*(start(script, f"sqlite:///{tmp_path}/{how}.db", how) for how in ("closed", "forgotten")))
    assert not list(tmp_path.glob("*-wal")), "closed properly: the log was written back"


def in_child(work: Callable[[], None]) -> int:
    """Fork; the child does `work` and exits. -> its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def test_a_forked_child_loses_nothing_when_its_parent_closes(tmp_path: Path) -> None:
    # SQLite's memory of file locks is inherited: a child whose parent had connections open at the fork holds no
    # locks of its own, so the parent's close deletes the log that the child goes on writing to.
    store = SQL(f"sqlite:///{tmp_path}/cache.db")
    store.mset({"parent": b"1"})
    written, write_end = os.pipe()
    read_end, closed = os.pipe()

    def work() -> None:
        store.mset({"first": b"1"})
        os.write(write_end, b"x")
        os.read(read_end, 1)
        store.mset({"second": b"1"})

    child = in_child(work)
    os.read(written, 1)
    store.close()
    os.write(closed, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(store.yield_keys()) == ["first", "parent", "second"]
    store.close()
    for end in (written, write_end, read_end, closed):
        os.close(end)


def test_parent_and_child_both_go_on_after_a_fork(tmp_path: Path) -> None:
    store = SQL(f"sqlite:///{tmp_path}/cache.db")
    loop = asyncio.new_event_loop()
    store.mset({"a": b"1"})
    loop.run_until_complete(store.amset({"b": b"1"}))

    def work() -> None:
        assert store.mget(["a", "b"]) == [b"1", b"1"]
        store.mset({"child": b"1"})
        asyncio.run(store.amset({"child async": b"1"}))
        store.close()

    children = [in_child(work) for _ in range(3)]
    store.mset({"parent": b"1"})
    loop.run_until_complete(store.amset({"parent async": b"1"}))
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list(store.yield_keys())) == 6
    assert loop.run_until_complete(store.amget(["child async"])) == [b"1"]
    loop.run_until_complete(store.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_a_fork_waits_once_for_all_that_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Busy:
        def shut(self, wait: float) -> None:
            nonlocal now
            assert wait >= 0
            now += wait

    monkeypatch.setattr(_sqlite, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(_sqlite, "_sessions", [Busy(), Busy(), Busy()])
    _sqlite._before_fork()
    _sqlite._registry.release()
    assert now == _sqlite._FORK_WAIT


def test_a_full_disk_writes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    script = """
        import resource
        from tiered.errors import BackendUnavailable
        store = SQL(sys.argv[1])
        store.mset({"kept": b"1"})
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
        def refused(write):
            try:
                write()
            except BackendUnavailable as error:
                assert "full" in str(error) and "nothing was written" in str(error), error
            else:
                raise AssertionError("was written")
        many = {f"k{at}": bytes(1000) for at in range(5000)}
        refused(lambda: store.mset(many))
        refused(lambda: asyncio.run(store.amset(many)))
        refused(lambda: store.mset({"huge": bytes(60 * 2**20)}))
        assert store.mget(["kept", "k0", "huge"]) == [b"1", None, None]
        store.mset({"small": b"1"})
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        store.mset(many)
        assert len(list(store.yield_keys())) == 5002
        store.close()
    """
    finish(start(script, f"sqlite:///{tmp_path}/cache.db"))


def test_a_read_only_folder_or_file_is_unavailable() -> None:
    script = """
        import tempfile
        from tiered.errors import BackendUnavailable
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            def both(store):  # also imports all that the drivers need, while this user may
                store.mset({"a": b"1"})
                asyncio.run(store.amset({"a": b"1"}))
                store.close()
            both(SQL(f"sqlite:///{folder}/there.db"))
            os.chmod(folder, 0o555)
            os.chmod(f"{folder}/there.db", 0o444)
            if os.geteuid() == 0:
                os.seteuid(65534)  # nobody; root may write anywhere
            for name in ("there", "new"):
                store = SQL(f"sqlite:///{folder}/{name}.db")
                for write in (lambda: store.mset({"b": b"1"}), lambda: asyncio.run(store.amset({"b": b"1"}))):
                    try:
                        write()
                    except BackendUnavailable as error:
                        assert "read-only" in str(error) or "permissions" in str(error), error
                    else:
                        raise AssertionError("was written")
                store.close()
            assert os.listdir(folder) == ["there.db"]
            if os.getuid() == 0:
                os.seteuid(0)
            os.chmod(folder, 0o755)
    """
    finish(start(script))
