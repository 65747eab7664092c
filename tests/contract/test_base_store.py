"""The contract of every store, bare backends included: `BaseStore`, invariants 1 and 8 (DESIGN section 5)."""

from __future__ import annotations

import copy
import pickle
from collections import deque
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiered.base import BaseStore
from tiered.errors import InvalidKey, InvalidValue

LONGEST = "\U0001f9ca" * 16_383 + "kkk"  # 65,535 bytes

KEYS = [
    *("a", "ab", "abc", "A", "b", " ", " a", "a ", "a b", "1", "null", "None", "{}", '["a"]'),
    *("é", "e\u0301", "ß", "ẞ", "\u0131", "I", "\ufeffa", "\u2028", "\u200b", "\u202eabc", "שלום"),
    *("\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0001f9ca", "\U0001f468\u200d\U0001f469", "\U0010ffff"),
    *("\x00", "\x00\x00", "a\x00", "a\x00b", "\x00a", "\x01", "\x1f", "\x7f", "\x80", "\n", "\r\n", "\t", "\\0"),
    *("%", "%%", "a%", "a%b", "_", "a_b", "axb", "*", "a*b", "?", "a?b", "[ab]", "[", "]", "^a", "a.b", "(", "$"),
    *("\\", "\\%", "'", "''", '"', "`", ";", "--", "/*", ":a", "@a", "#", "a/b", "a:b", "../a", "/", "%00", "%61"),
    *("k" * 300, "k" * 3_000, "ß" * 3_000, "k" * 3_000 + "\x00", LONGEST),
]

VALUES = [
    b"",
    b"\x00",
    bytes(range(256)),
    b"null",
    b"\xc1\x01" + bytes(40),  # begins as our records do
    bytes.fromhex("28b52ffd2005290000") + b"hello",  # a frame of zstd
    b"x" * 100_000,
    bytes(i * i % 251 for i in range(100_003)),
]


def test_it_is_a_base_store_true_when_empty_and_its_own_copy(store: Any) -> None:
    assert isinstance(store.store, BaseStore)
    assert store.keys() == []
    assert bool(store.store) is True
    assert copy.copy(store.store) is store.store
    assert copy.deepcopy([store.store])[0] is store.store
    with pytest.raises(TypeError, match="open it in the other process"):
        pickle.dumps(store.store)


def test_invariant_1_mget_follows_the_keys_in_order_and_length_repeats_included(store: Any) -> None:
    store.mset([("a", b"1"), ("b", b"2"), ("c", b"3")])
    assert store.mget(["c", "a", "zzz", "a", "b", "zzz", "c", "c"]) == [b"3", b"1", None, b"1", b"2", None, b"3", b"3"]
    assert store.mget(["zzz"]) == [None]
    assert type(store.mget(["a"])) is list


def test_invariant_1_large_batches_keep_order(store: Any) -> None:
    pairs = [(f"k{at * 7919 % 2_100:05}", b"%d" % at) for at in range(2_100)]
    store.mset(pairs)
    names = [key for key, _ in pairs][::-1]
    names[5::500] = ["absent"] * len(names[5::500])
    names += names[:50]
    values = dict(pairs)
    assert store.mget(names) == [values.get(name) for name in names]


def test_invariant_1_of_repeated_keys_the_last_wins(store: Any) -> None:
    store.mset([("a", b"1"), ("b", b"x"), ("a", b"2"), ("a", b"3"), ("b", b"y")])
    assert store.mget(["a", "b"]) == [b"3", b"y"]
    assert sorted(store.keys()) == ["a", "b"]
    store.mdelete(["a", "a", "zzz", "a"])
    assert store.mget(["a", "b"]) == [None, b"y"]


def test_invariant_1_empty_batches_do_nothing(store: Any) -> None:
    store.mset([("a", b"1")])
    assert store.mget([]) == []
    for nothing in ([], (), {}, iter(())):
        assert store.mset(nothing) is None
    assert store.mdelete([]) is None
    assert store.mdelete(iter(())) is None
    assert store.mget(["a"]) == [b"1"]
    assert store.keys() == ["a"]


def test_invariant_1_an_empty_value_is_a_value(store: Any) -> None:
    store.mset([("empty", b""), ("full", b"1")])
    assert store.mget(["empty", "full", "none"]) == [b"", b"1", None]
    assert store.mget(["empty"]) == [b""]
    assert sorted(store.keys()) == ["empty", "full"]


def test_values_come_back_as_they_were(store: Any) -> None:
    store.mset([(f"v{at}", value) for at, value in enumerate(VALUES)])
    found = store.mget([f"v{at}" for at in range(len(VALUES))])
    assert found == VALUES
    assert {type(value) for value in found} == {bytes}


def test_a_write_replaces_what_was_there_also_with_less(store: Any) -> None:
    for value in (b"x" * 70_000, b"short", b"", b"y" * 300):
        store.mset([("a", value)])
        assert store.mget(["a"]) == [value]
    assert store.keys() == ["a"]


def test_mset_takes_pairs_in_any_iterable_and_mappings(store: Any) -> None:
    shapes: list[Any] = [list, tuple, iter, dict, deque, dict.items, MappingProxyType]
    for at, shape in enumerate(shapes):
        pairs: Any = [("a", b"1%d" % at), ("b", b"2%d" % at)]
        store.mset(shape(dict(pairs) if shape in (dict.items, MappingProxyType) else pairs))
        assert store.mget(["a", "b"]) == [value for _, value in pairs], shape


def test_mget_and_mdelete_take_keys_in_any_iterable(store: Any) -> None:
    shapes: list[Any] = [
        tuple,
        iter,
        deque,
        dict.fromkeys,
        lambda keys: dict.fromkeys(keys).keys(),
        lambda keys: (k for k in keys),
    ]
    for shape in shapes:
        store.mset([("a", b"1"), ("b", b"2"), ("c", b"3")])
        assert store.mget(shape(["b", "zzz", "a"])) == [b"2", None, b"1"]
        store.mdelete(shape(["b", "zzz", "a"]))
        assert store.mget(shape(["a", "b", "c"])) == [None, None, b"3"]


def test_what_the_caller_gave_is_neither_kept_nor_changed(store: Any) -> None:
    keys, pairs = ["a", "b"], [["a", b"1"], ["b", b"2"]]
    store.mset(pairs)
    pairs[0][1] = b"changed"
    found = store.mget(keys)
    found[1] = b"changed"
    assert keys == ["a", "b"]
    assert store.mget(keys) == [b"1", b"2"]


def test_deleted_keys_are_absent_and_can_be_set_again(store: Any) -> None:
    store.mset([("a", b"1"), ("b", b"2")])
    store.mdelete(["a", "never"])
    assert store.mget(["a", "b", "never"]) == [None, b"2", None]
    assert store.keys() == ["b"]
    store.mset([("a", b"3")])
    assert store.mget(["a"]) == [b"3"]
    assert sorted(store.keys()) == ["a", "b"]


def test_every_key_is_its_own_whatever_its_characters(store: Any) -> None:
    assert len(set(KEYS)) == len(KEYS)
    values = {key: b"%d" % at for at, key in enumerate(KEYS)}
    store.mset(values)
    assert store.mget(KEYS) == list(values.values())
    for key in KEYS:
        assert store.mget([key]) == [values[key]]
    store.mdelete(KEYS[::2])
    assert store.mget(KEYS) == [None if at % 2 == 0 else values[key] for at, key in enumerate(KEYS)]
    assert sorted(store.keys()) == sorted(KEYS[1::2])


def test_invariant_8_prefixes_are_exact_strings(store: Any) -> None:
    store.mset([(key, b"1") for key in KEYS])
    assert sorted(store.keys()) == sorted(KEYS)
    assert sorted(store.keys(prefix=None)) == sorted(KEYS)
    assert sorted(store.keys(prefix="")) == sorted(KEYS)
    for prefix in [*KEYS, *(key[0] for key in KEYS), "k" * 299, "a%c", "zzz", LONGEST[:-1], "\U0010fffe"]:
        expected = sorted(key for key in KEYS if key.startswith(prefix))
        assert sorted(store.keys(prefix=prefix)) == expected, f"prefix {prefix!r:.60}"


def test_invariant_8_deleted_keys_are_left_out_and_overwritten_ones_listed_once(store: Any) -> None:
    store.mset([(f"k{at}", b"1") for at in range(30)])
    store.mset([(f"k{at}", b"2") for at in range(30)])
    store.mdelete([f"k{at}" for at in range(0, 30, 3)])
    store.mset([("k0", b"3")])
    assert sorted(store.keys(prefix="k")) == sorted(["k0", *(f"k{at}" for at in range(30) if at % 3)])


def test_invariant_8_scans_cross_pages_and_name_each_key_once(store: Any) -> None:
    for count, first in ((999, "p"), (1, "q"), (1_000, "r")):
        names = [f"{first}{at:06}" for at in range(count)]
        store.mset([(name, b"1") for name in names])
        listed = store.keys(prefix=first)
        assert len(listed) == count
        assert sorted(listed) == names
    listed = store.keys()
    assert len(listed) == len(set(listed)) == 2_000


def test_invariant_8_a_scan_lives_with_the_changes_it_causes(store: Any) -> None:
    """Deleting each key as it is listed, which many do, must neither skip nor repeat any."""
    names = {f"k{at:05}" for at in range(1_500)}
    store.mset([(name, b"1") for name in names])
    seen = []
    for key in store.store.yield_keys(prefix="k"):
        seen.append(key)
        if len(seen) % 100 == 0:
            store.mdelete(seen[-100:])
    assert len(seen) == len(names)
    assert set(seen) == names
    assert store.keys() == []


def test_yield_keys_is_a_generator_that_can_be_left_early(store: Any) -> None:
    store.mset([(f"k{at:05}", b"1") for at in range(1_500)])
    scan = store.store.yield_keys()
    assert isinstance(scan, Iterator)
    assert next(scan).startswith("k")
    scan.close()
    store.mset([("k", b"2")])
    assert store.mget(["k"]) == [b"2"]


def test_invariant_1_anything_bad_in_a_batch_stores_nothing_of_it(store: Any) -> None:
    store.mset([("kept", b"1")])
    for pairs in ([("a", b"1"), ("", b"2")], [("a", b"1"), ("b" * 65_536, b"2")], [("a", b"1"), ("\ud800", b"2")]):
        with pytest.raises(InvalidKey):
            store.mset(pairs)
        with pytest.raises(InvalidKey):
            store.mget([key for key, _ in pairs])
        with pytest.raises(InvalidKey):
            store.mdelete(["kept", *(key for key, _ in pairs)])
    for value in (None, "text", bytearray(b"1"), memoryview(b"1"), 1, [b"1"]):
        with pytest.raises(InvalidValue):
            store.mset([("a", b"1"), ("b", value)])
    assert store.keys() == ["kept"]
    assert store.mget(["kept"]) == [b"1"]


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
    database=None,
)
@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), st.binary(max_size=20)),
    st.text(max_size=2).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text)),
)
def test_any_text_is_a_key_and_any_bytes_a_value(store: Any, pairs: dict[str, bytes], prefix: str) -> None:
    store.mdelete(store.keys())
    store.mset(pairs)
    assert store.mget(pairs) == list(pairs.values())
    listed = store.keys(prefix=prefix)
    assert sorted(listed) == sorted(key for key in pairs if key.startswith(prefix))
