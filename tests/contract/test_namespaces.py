"""Invariant 10: no two (namespace, key) pairs share a stored key, and none can list another's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tiered import SQL, Memory, TieredStore
from tiered.testing import FakeClock

from .faces import FACES, face
from .matrix import Rig, rigs, sql

PAIRS = [  # each would be one stored key under some way of joining a namespace with a key
    *(("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", "c")),
    *(("a", "/b"), ("a/", "b"), ("", "a/b"), ("a/b", "b")),
    *(("a", ":b"), ("a:", "b"), ("a:b", ":"), ("t1:1:a", "b")),
    *(("a", "\x00b"), ("a\x00", "b"), ("a\x00b", "\x00")),
    *(("%", "a"), ("_", "a"), ("*", "a"), ("a%", "%"), ("A", "bc"), ("a ", "bc"), (" a", "bc")),
    *(("\U0001f9ca", "é"), ("\U0001f9caé", "e"), ("e\u0301", "x"), ("é", "x")),
    ("n" * 1_000, "k" * 1_000),
    ("n" * 999, "nk" * 500),
    *(("None", "a"), ("null", "a"), ("'", '"'), ("\\", "\\"), ("--", ";")),
]
NAMESPACES = sorted({namespace for namespace, _ in PAIRS})


@rigs(["memory", "sqlite", "memory > sqlite > sqlite", "cachetools > sqlite", "memory > sim > sqlite"])
def test_invariant_10_namespaces_are_injective_and_see_nothing_of_each_other(rig: Rig) -> None:
    stacks = {namespace: rig.open(namespace=namespace) for namespace in NAMESPACES}
    for at, (namespace, key) in enumerate(PAIRS):
        stacks[namespace].set(key, b"%d" % at)
    for at, (namespace, key) in enumerate(PAIRS):
        assert stacks[namespace].get(key) == b"%d" % at
    for namespace, stack in stacks.items():
        own = sorted(key for name, key in PAIRS if name == namespace)
        assert sorted(stack.keys()) == own
        for prefix in ("a", "b", "%", "*", "\x00", "k", "/"):
            assert sorted(stack.keys(prefix=prefix)) == [key for key in own if key.startswith(prefix)]
    victim = stacks["a"]
    victim.mdelete([key for _, key in PAIRS])
    assert victim.keys() == []
    left = sum(len(stack.keys()) for stack in stacks.values())
    assert left == len([namespace for namespace, _ in PAIRS if namespace != "a"])


@rigs()
def test_one_key_in_two_namespaces_has_two_lives(rig: Rig, clock: FakeClock) -> None:
    one, two = rig.open(namespace="one"), rig.open(namespace="two")
    one.set("k", b"1", ttl=10)
    assert two.get("k") is None
    assert two.get_or_load("k", lambda key: b"2") == b"2"
    two.mset({"only": b"two"})
    clock.advance(10)
    assert one.get("k") is None
    assert two.mget(["k", "only"]) == [b"2", b"two"]
    two.delete("k")
    one.set("k", b"3")
    assert (one.get("k"), two.get("k")) == (b"3", None)
    assert one.inspect("only").popitem()[1].state == "absent"


@rigs()
def test_no_namespace_is_the_empty_one(rig: Rig) -> None:
    none, empty = rig.open(), rig.open(namespace="")
    none.set("k", b"1")
    assert empty.get("k") == b"1"
    assert empty.keys() == ["k"]


@rigs()
def test_purging_one_namespace_leaves_the_others_values(rig: Rig, clock: FakeClock) -> None:
    one, two = rig.open(namespace="one"), rig.open(namespace="two")
    one.set("k", b"1", ttl=10)
    two.set("k", b"2", ttl=10)
    two.set("kept", b"3")
    clock.advance(12)
    assert one.purge_expired() >= 1
    assert two.get("k") is None
    assert two.get("kept") == b"3"


@pytest.mark.parametrize("name", FACES)
def test_invariant_10_bare_backends_share_a_file_by_namespace(name: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    stores = {namespace: face(name, SQL(url, namespace=namespace)) for namespace in NAMESPACES}
    for at, (namespace, key) in enumerate(PAIRS):
        stores[namespace].mset([(key, b"%d" % at)])
    for at, (namespace, key) in enumerate(PAIRS):
        assert stores[namespace].mget([key]) == [b"%d" % at]
    for namespace, store in stores.items():
        assert sorted(store.keys()) == sorted(key for own, key in PAIRS if own == namespace)
    for store in stores.values():
        store.done()


@pytest.mark.parametrize("name", FACES)
def test_a_bare_backend_and_a_stack_over_it_are_the_same_data(name: str, tmp_path: Path) -> None:
    bare = face(name, SQL(f"sqlite:///{tmp_path}/authority.db", namespace="docs"))
    stack = face(name, TieredStore([Memory(), sql(tmp_path)], namespace="docs"))
    try:
        bare.mset([("a", b"1")])
        assert stack.get("a") == b"1"
        stack.set("b", b"2")
        assert bare.mget(["a", "b"]) == [b"1", b"2"]
        assert sorted(bare.keys()) == ["a", "b"]
    finally:
        bare.done()
        stack.done()


def test_a_stack_takes_the_namespace_of_its_stores(tmp_path: Path) -> None:
    store = TieredStore([Memory(), SQL(f"sqlite:///{tmp_path}/x.db", namespace="docs")])
    assert repr(store).endswith("namespace='docs')")
    store.set("a", b"1")
    store.close()
    bare: Any = SQL(f"sqlite:///{tmp_path}/x.db", namespace="docs")
    assert bare.mget(["a"]) == [b"1"]
    bare.close()
