"""One store over many event loops, one after the other and at once, and on both sides of a fork."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tiered import SQL, Memory, TieredStore


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


async def some_use(store: TieredStore, name: str) -> None:
    """Every kind of operation, some of it concurrently, none of it answered by memory alone."""
    keys = [f"{name}-{number}" for number in range(5)]
    await store.amset({key: key.encode() for key in keys})
    assert await store.amget(keys) == [key.encode() for key in keys]
    await asyncio.gather(*(store.aset(key, b"again " + key.encode()) for key in keys))
    await store.adelete(keys[0])
    assert [await store.aget(key) for key in keys[:2]] == [None, f"again {keys[1]}".encode()]
    loaded = await asyncio.gather(*(store.aget_or_load(f"{name}-loaded", lambda key: b"loaded") for _ in range(5)))
    assert loaded == [b"loaded"] * 5
    assert sorted([key async for key in store.ayield_keys(prefix=f"{name}-")]) == sorted([*keys[1:], f"{name}-loaded"])


def test_fifty_loops_one_after_the_other_leave_nothing_behind(tmp_path: Path) -> None:
    store = TieredStore([Memory(max_entries=10), SQL(f"sqlite:///{tmp_path}/x.db")])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for number in range(50):
            asyncio.run(some_use(store, f"loop{number}"))
            if number == 4:
                gc.collect()
                files, threads = open_files(), threading.active_count()
        gc.collect()
        assert open_files() <= files + 2, "connections of loops that are gone"
        assert threading.active_count() <= threads + 1, "threads of loops that are gone"
        assert len(list(store.yield_keys())) == 50 * 5, "and the sync face sees it all"
        store.close()
        gc.collect()


def test_close_and_aclose_whatever_loop_was_used(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for close_async in (False, True):
            store = TieredStore([SQL(f"sqlite:///{tmp_path}/x.db")])
            asyncio.run(some_use(store, "first"))
            store.set("sync", b"s")
            if close_async:
                asyncio.run(store.aclose())
            else:
                store.close()
            gc.collect()


def test_several_loops_in_threads_at_once(tmp_path: Path) -> None:
    store = TieredStore([Memory(max_entries=10), SQL(f"sqlite:///{tmp_path}/x.db")])
    barrier = threading.Barrier(6)

    def loops(number: int) -> None:
        for turn in range(4):
            barrier.wait(60)
            asyncio.run(some_use(store, f"{number}-{turn}"))

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(loops, number) for number in range(6)]:
            future.result(100)
    assert len(list(store.yield_keys())) == 6 * 4 * 5
    store.close()


def test_a_loader_of_one_loop_serves_the_waiters_of_others(tmp_path: Path) -> None:
    store = TieredStore([Memory(), SQL(f"sqlite:///{tmp_path}/x.db")])
    loads, barrier = [], threading.Barrier(5)

    async def one() -> bytes | None:
        await asyncio.to_thread(barrier.wait, 60)
        return await store.aget_or_load("k", load)

    async def load(key: str) -> bytes:
        loads.append(key)
        await asyncio.sleep(0)
        return b"loaded"

    with ThreadPoolExecutor(5) as pool:
        assert {future.result(60) for future in [pool.submit(asyncio.run, one()) for _ in range(5)]} == {b"loaded"}
    assert loads == ["k"]
    store.close()


PREAMBLE = """
import asyncio, faulthandler, os, signal, sys, threading
from tiered import SQL, Memory, TieredStore
faulthandler.register(signal.SIGALRM, chain=True)  # what hangs says where, and dies
signal.alarm(60)

def child(work):
    '''Runs work() in a forked child -> what it printed of itself.'''
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            os.write(writer, repr(work()).encode())
            code = 0
        except BaseException as error:
            os.write(writer, repr(error).encode())
            code = 1
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said
    return eval(said)

store = TieredStore([Memory(), SQL("sqlite:///" + sys.argv[1])])
"""


def forking(script: str, path: Path) -> None:
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", PREAMBLE + textwrap.dedent(script), str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine\n", done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr


fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@fork
def test_a_forked_child_reads_and_writes_and_the_parent_goes_on(tmp_path: Path) -> None:
    forking(
        """
        store.set("before", b"parent")
        asyncio.run(store.aset("async before", b"parent"))
        parent_id = store._clock.draw()[8:]

        def work():
            assert store.get("before") == b"parent"
            store.set("from child", b"sync")
            asyncio.run(store.aset("from child, async", b"async"))
            store.set("before", b"child")
            assert store.get("before") == b"child"
            assert store.get_or_load("loaded", lambda key: b"l") == b"l"
            mine = store._clock.draw()[8:]
            store.close()  # the child's own: the parent's stays
            return mine

        child_id = child(work)
        assert child_id != parent_id, "one writer id on both sides"
        assert store._clock.draw()[8:] == parent_id
        assert store.get("from child") == b"sync"
        assert asyncio.run(store.aget("from child, async")) == b"async"
        store.set("after", b"parent")
        assert store.get("after") == b"parent"
        keys = ["after", "async before", "before", "from child", "from child, async", "loaded"]
        assert sorted(store.yield_keys()) == keys
        fresh = TieredStore([SQL("sqlite:///" + sys.argv[1])])
        assert fresh.get("before") == b"child", "the later write of the child"
        fresh.close()
        store.close()
        print("fine")
        """,
        tmp_path / "x.db",
    )


@fork
def test_grandchildren_have_ids_of_their_own(tmp_path: Path) -> None:
    forking(
        """
        def work():
            inner = child(lambda: (store.set("grandchild", b"g"), [store._clock.draw()[8:]])[1])
            store.set("child", b"c")
            return [store._clock.draw()[8:], *inner]

        ids = {store._clock.draw()[8:], *child(work), *child(work)}
        assert len(ids) == 5, ids
        assert store.mget(["child", "grandchild"]) == [b"c", b"g"]
        store.close()
        print("fine")
        """,
        tmp_path / "x.db",
    )


@fork
def test_a_fork_while_other_threads_use_the_store(tmp_path: Path) -> None:
    """Locks may be held by threads that do not exist in the child."""
    forking(
        """
        store.set("first", b"use")  # Python itself cannot fork while another thread imports a module
        stop = threading.Event()

        def hammer(number):
            count = 0
            while not stop.is_set():
                count += 1
                store.set(f"k{number}", b"%d" % count)
                store.get(f"k{number + 1}")
                store.get_or_load(f"l{number}-{count % 7}", lambda key: b"l")

        threads = [threading.Thread(target=hammer, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()

        def work():
            for number in range(5):
                store.set("child", b"%d" % number)
                assert store.get("child") == b"%d" % number
                store.mget([f"k{n}" for n in range(4)])
                assert store.get_or_load("child loads", lambda key: b"l") == b"l"
            return asyncio.run(store.aget("child"))

        try:
            for _ in range(8):
                assert child(work) == b"4"
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        store.close()
        print("fine")
        """,
        tmp_path / "x.db",
    )


@fork
def test_a_fork_during_a_load_and_during_a_write(tmp_path: Path) -> None:
    """In the child the parent's flight is not joined, and what was in flight in memory is over."""
    forking(
        """
        began, release = threading.Event(), threading.Event()

        def load(key):
            began.set()
            release.wait()
            return b"parent's"

        loads = threading.Thread(target=store.get_or_load, args=("k", load))
        loads.start()
        began.wait()

        def work():
            value = store.get_or_load("k", lambda key: b"child's")
            return value, store._made.space.busy("k"), len(store._stack.flights.flights)

        assert child(work) == (b"child's", False, 0)
        release.set()
        loads.join()
        assert store.get("k") == b"child's", "stored first, by compare-and-set"
        store.close()
        print("fine")
        """,
        tmp_path / "x.db",
    )
