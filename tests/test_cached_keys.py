"""`@tiered.cached`: two calls share a key only if they are the same call, of the same function."""

from __future__ import annotations

import asyncio
import enum
import functools
import gc
import inspect
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Generic, NamedTuple, TypeVar

import pytest

from tiered import Memory, TieredStore, claims
from tiered.arguments import Unkeyable, text_of
from tiered.errors import ConfigurationError, CorruptEntry, InvalidValue
from tiered.functions import cached
from tiered.serializers import Msgpack
from tiered.testing import FakeClock

from .load_kit import DEADLINE, Loads, settled, until, waiting

T = TypeVar("T")


@pytest.fixture
def store() -> TieredStore:
    return TieredStore([Memory()])


# -- functions -------------------------------------------------------------------------------------------------------


class Client:
    def __init__(self, host: str) -> None:
        self.host = host

    def fetch(self, path: str) -> str:
        return f"{self.host}/{path}"

    @classmethod
    def kind(cls, path: str) -> str:
        return f"{cls.__name__}/{path}"


def test_a_method_bound_to_an_object_needs_a_namespace_or_a_key(store: TieredStore) -> None:
    a, b = Client("a"), Client("b")
    for bound in (a.fetch, Client.kind, [1].count):
        with pytest.raises(ConfigurationError, match="bound to one object"):
            cached(store)(bound)
    kept = cached(store, namespace="of a")(a.fetch)
    again = cached(store, namespace="of a")(a.fetch)
    assert kept("x") == again("x") == "a/x"
    with pytest.raises(ConfigurationError, match="mixed up"):
        cached(store, namespace="of a")(b.fetch)
    assert cached(store, namespace="of b")(b.fetch)("x") == "b/x"
    assert cached(store, key=lambda path: ("c", path))(Client("c").fetch)("x") == "c/x"


def area(width: int, height: int) -> str:
    return f"{width} x {height}"


def test_one_function_known_by_different_parameters_has_different_keys(store: TieredStore) -> None:
    by_height = cached(store, ignore=("width",))(area)
    by_width = cached(store, ignore=("height",))(area)
    assert (by_height(1, 5), by_width(5, 1)) == ("1 x 5", "5 x 1")
    assert by_height(2, 5) == "1 x 5"
    assert by_height.cache_key(1, 5) != by_width.cache_key(5, 1)


def test_a_function_whose_parameters_are_swapped_is_another(store: TieredStore) -> None:
    def price(net: int, tax: int) -> str:
        return f"net={net} tax={tax}"

    def swapped(tax: int, net: int) -> str:
        return f"net={net} tax={tax}"

    one = cached(store, namespace="price")(price)
    assert one(100, 20) == "net=100 tax=20"
    assert cached(TieredStore([Memory()]), namespace="price")(swapped).cache_key(100, 20) != one.cache_key(100, 20)


def width_of(width: int, height: int) -> int:
    return width


def test_one_function_under_two_keys_needs_two_namespaces(store: TieredStore) -> None:
    low = cached(store, key=width_of)(area)
    with pytest.raises(ConfigurationError, match="another key="):
        cached(store, key=lambda width, height: height)(area)
    high = cached(store, key=lambda width, height: height, namespace="high")(area)
    again = cached(store, key=width_of)(area)
    without = cached(store)(area)
    assert (low(1, 7), high(7, 1), again(1, 9), without(1, 8)) == ("1 x 7", "7 x 1", "1 x 7", "1 x 8")


def test_a_parameter_called_key_is_no_key(store: TieredStore) -> None:
    def f(key: int) -> int:
        return key

    plain = cached(store, namespace="f")(f)
    assert plain.cache_key(1) != cached(store, namespace="f", key=lambda key: key)(f).cache_key(1)


def test_what_functions_claimed_is_forgotten_with_them(store: TieredStore) -> None:
    for number in range(50):
        cached(store, namespace=f"user {number}")(lambda x: x)
    kept = cached(store, namespace="kept")(area)
    gc.collect()
    assert list(claims._claims[store]) == ["kept"]
    assert kept(1, 2) == "1 x 2"


def test_a_claim_that_was_taken_over_is_not_forgotten_with_the_first(store: TieredStore) -> None:
    def define() -> Any:
        def function(x: int) -> int:
            return x

        return function

    first = define()
    held = cached(store, namespace="f")(first)
    second = define()
    cached_second = cached(store, namespace="f")(second)
    del first, held
    gc.collect()
    assert claims._claims[store]["f"].function() is second
    assert cached_second(1) == 1


def test_scripts_are_told_apart_by_name_and_place(tmp_path: Path) -> None:
    source = """
import tiered, sys
@tiered.cached(tiered.TieredStore([tiered.Memory()]))
def load(x): return x
print(load.cache_key(1))
"""
    keys = set()
    for name in ("daily/run.py", "weekly/run.py", "daily/other.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        keys |= {_printed(str(path)), _printed(os.path.relpath(path), cwd=None)}
    assert len(keys) == 3
    assert any(key.startswith("cached|other-") for key in keys)
    module = _printed("-m", "run", cwd=tmp_path / "daily")
    assert module.startswith("cached|run.load|"), "as where it is imported"
    assert _printed("-c", source).startswith("cached|__main__.load|")


def _printed(*arguments: str, cwd: Path | None = None) -> str:
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    return done.stdout


def test_a_coroutine_function_behind_a_plain_one_is_told_what_to_do(store: TieredStore) -> None:
    async def inner(x: int) -> int:
        return x

    @functools.wraps(inner)
    def outer(x: int) -> Any:
        return inner(x)

    @functools.wraps(inner)
    def blocking(x: int) -> int:
        return asyncio.run(inner(x))

    with pytest.raises(InvalidValue, match="make it, or the wrapper around it, a coroutine function"):
        cached(store, namespace="f")(outer)(1)
    assert cached(store, namespace="g")(blocking)(1) == 1


class Static:
    @staticmethod
    @cached(TieredStore([Memory()]))
    async def of(x: int) -> int:
        """Doc."""
        return x


def test_a_coroutine_function_under_a_staticmethod_is_known_as_one() -> None:
    assert inspect.iscoroutinefunction(Static.of)
    assert inspect.iscoroutinefunction(Static().of)
    assert Static.of.__doc__ == "Doc."
    assert list(inspect.signature(Static.of).parameters) == ["x"]
    assert asyncio.run(Static.of(3)) == asyncio.run(Static.of(3)) == 3
    asyncio.run(Static.of.invalidate(3))
    assert Static.of.stats().misses == 1


# -- arguments -------------------------------------------------------------------------------------------------------


@dataclass
class Query:
    table: str


class Filtered(Query):
    def __init__(self, table: str, where: str) -> None:
        super().__init__(table)
        self.where = where


class Bare(Query):
    pass


@dataclass(slots=True)
class Slotted:
    table: str


class SlottedMore(Slotted):
    __slots__ = ("__hidden", "where")

    def __init__(self, table: str, where: str) -> None:
        super().__init__(table)
        self.where = where

    def hide(self) -> None:
        self.__hidden = 1


@dataclass
class Named(list):  # type: ignore[type-arg]
    name: str = "n"


class Point(NamedTuple):
    x: int


class Tagged(Point):
    pass


@dataclass
class Box(Generic[T]):
    content: T

    @functools.cached_property
    def size(self) -> int:
        return 1


@dataclass
class Unset:
    a: int
    b: int = field(init=False)


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Bits(enum.IntFlag):
    READ = 1


class Folder(PurePosixPath):
    pass


def test_what_objects_hold_outside_their_fields_cannot_be_left_out() -> None:
    slotted = SlottedMore("t", "a")
    del slotted.where
    assert text_of([slotted]) != text_of([Slotted("t")])
    slotted.hide()
    tagged = Tagged(1)
    assert text_of([tagged]) != text_of([Point(1)])
    tagged.tag = "p"  # type: ignore[attr-defined]
    for value in (Filtered("t", "a=1"), SlottedMore("t", "a"), slotted, Named(), tagged, Unset(1), [Filtered("t", "")]):
        with pytest.raises(Unkeyable):
            text_of([value])
    folder = Folder("a")
    assert text_of([folder]) != text_of([PurePosixPath("a")])
    try:
        folder.label = "x"  # type: ignore[attr-defined]
    except AttributeError:  # it may have none
        return
    with pytest.raises(Unkeyable):
        text_of([folder])


def test_what_the_class_works_out_by_itself_is_no_state() -> None:
    box, used = Box(1), Box[int](1)
    assert used.size == 1
    assert text_of([box]) == text_of([used])
    assert text_of([Bare("t")]) != text_of([Query("t")])
    assert text_of([Slotted("t")]) == text_of([Slotted("t")])


def test_flags_are_known_by_their_bits() -> None:
    values = [Permission(0), Permission.READ, Permission.WRITE, Permission.READ | Permission.WRITE]
    values += [Bits(0), Bits.READ, Bits(8), Bits(9)]
    assert len({text_of([value]) for value in values}) == len(values)


def test_a_refresh_with_arguments_that_have_changed_is_not_kept() -> None:
    """Their caller goes on with its own list, while the function is called with it in the background."""
    clock = FakeClock()
    store, loads, mine = TieredStore([Memory()], clock=clock), Loads(), [1, 2]

    @cached(store, namespace="total", ttl=10, stale=100)
    def total(items: list[int]) -> int:
        loads.sync(None)
        return sum(items)

    loads.release.set()
    assert total(mine) == 3
    clock.advance(10)
    loads.release.clear()
    assert total(mine) == 3
    until(lambda: loads.count == 2)
    mine.append(100)
    loads.release.set()
    until(lambda: settled(store))
    assert total([1, 2]) == 3
    clock.advance(2)
    assert total([1, 2]) == 3, "refreshed by now"
    until(lambda: settled(store))
    assert total.stats().refreshes == 2
    mine.pop()
    kept = total.stats().refreshes
    clock.advance(10)
    mine.append(object())  # type: ignore[arg-type]
    assert total([1, 2]) == 3
    until(lambda: settled(store))
    assert total.stats().refreshes == kept + 1


# -- values ----------------------------------------------------------------------------------------------------------


class Plain:
    """A serializer that is not ours."""

    def dumps(self, value: Any) -> bytes:
        return json.dumps(value).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


def test_errors_of_a_foreign_serializer_are_ours(store: TieredStore) -> None:
    calls = []

    @cached(store, namespace="f", serializer=Plain())
    def f(x: Any) -> Any:
        calls.append(x)
        return {x} if x == 2 else x

    store.set(f.cache_key(1), b"not json")
    assert f(1) == f(1) == 1
    assert (calls, f.stats().corrupt) == ([1], 1)
    with pytest.raises(InvalidValue, match="cannot store a set"):
        f(2)
    store.set(f.cache_key(3), b"not json")
    with pytest.raises(CorruptEntry):
        store.typed(Plain()).get(f.cache_key(3))
    assert store.typed(Plain()).get_or_load(f.cache_key(3), lambda key: 1) == 1


class Sour(Plain):
    def loads(self, data: bytes) -> Any:
        raise LookupError


def test_a_result_that_would_not_come_back_is_not_kept(store: TieredStore) -> None:
    f = cached(store, serializer=Sour())(area)
    with pytest.raises(InvalidValue, match="would not come back"):
        f(1, 2)
    assert store.get(f.cache_key(1, 2)) is None

    @dataclass(init=False)
    class Money:
        cents: int

        def __init__(self, euros: int) -> None:
            self.cents = euros * 100

    with pytest.raises(ConfigurationError, match="init=False"):
        Msgpack(types=[Money])


def test_a_call_that_joined_a_load_which_found_nothing_calls_the_function(store: TieredStore) -> None:
    f, loads = cached(store)(area), Loads(None)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.get_or_load, f.cache_key(1, 2), loads.sync)
        assert loads.began.wait(DEADLINE)
        second = pool.submit(f, 1, 2)
        until(lambda: waiting(store, f.cache_key(1, 2)) == 1)
        loads.release.set()
        assert (first.result(DEADLINE), second.result(DEADLINE)) == (None, "1 x 2")
