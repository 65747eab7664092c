"""`@tiered.cached`: results of functions, kept by their arguments."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import inspect
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

import tiered
from tiered import SQL, Memory, Tier, TieredStore
from tiered.arguments import LONG, Unkeyable, binder, digest, text_of
from tiered.errors import BackendUnavailable, ConfigurationError, InvalidValue, StoreClosed, Unsupported
from tiered.functions import cached
from tiered.serializers import Json, Msgpack
from tiered.testing import FakeClock

from .load_kit import DEADLINE, auntil, settled, until
from .simulation.stand import Stand, evict

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@pytest.fixture
def store() -> TieredStore:
    return TieredStore([Memory()])


def noted(a: int, b: int = 2) -> list[int]:
    """Doc."""
    calls.append((a, b))
    return [a, b]


async def anoted(a: int, b: int = 2) -> list[int]:
    calls.append((a, b))
    return [a, b]


Run = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(face: str, store: TieredStore, function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """A cached function of either kind, with a sync look: `f(..)`, `f.refresh(..)`, `f.invalidate(..)`."""
    plain = function or noted
    if face == "sync":
        return cached(store, **options)(plain)
    if function is None:
        return Blocking(cached(store, **options)(anoted))

    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        return plain(*args, **kwargs)

    coroutine.__signature__ = inspect.signature(plain)  # type: ignore[attr-defined]
    coroutine.__qualname__, coroutine.__module__ = plain.__qualname__, plain.__module__
    return Blocking(cached(store, **({"namespace": plain.__qualname__} | options))(coroutine))


class Blocking:
    def __init__(self, function: Any) -> None:
        self._function = function
        self.cache_key, self.stats = function.cache_key, function.stats

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(self._function(*args, **kwargs))

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(self._function.refresh(*args, **kwargs))

    def invalidate(self, *args: Any, **kwargs: Any) -> None:
        asyncio.run(self._function.invalidate(*args, **kwargs))


def told(stats: Any) -> tuple[int, int, int, int]:
    return stats.hits, stats.misses, stats.refreshes, stats.corrupt


# -- calls -----------------------------------------------------------------------------------------------------------


def test_a_call_is_made_once_and_known_by_its_bound_arguments(face: str, store: TieredStore) -> None:
    f = made(face, store)
    assert f(1) == f(a=1) == f(1, 2) == f(1, b=2) == f(b=2, a=1) == [1, 2]
    assert calls == [(1, 2)]
    assert f(1, 3) == [1, 3]
    assert told(f.stats()) == (4, 2, 0, 0)


def test_a_hit_is_a_value_of_its_own(store: TieredStore) -> None:
    """Else the caller that changes its list changes everybody's."""
    f = cached(store)(noted)
    first = f(1)
    first.append(99)
    second = f(1)
    second.append(98)
    assert f(1) == [1, 2]


def test_a_first_call_returns_what_a_hit_returns(store: TieredStore) -> None:
    class Tagged(list):  # type: ignore[type-arg]
        pass

    f = cached(store, serializer=Json())(lambda_free_tuple)
    assert f(1) == f(1) == [1, 1], "as JSON has it, from the first call on"


def lambda_free_tuple(a: int) -> Any:
    return [a, a]


def test_none_is_a_hit(face: str, store: TieredStore) -> None:
    f = made(face, store, returns_none)
    assert f(1) is f(1) is None
    assert calls == [1]


def returns_none(a: int) -> None:
    calls.append(a)


def test_exceptions_are_not_kept(face: str, store: TieredStore) -> None:
    f = made(face, store, fails)
    for _ in range(2):
        with pytest.raises(LookupError, match="simulated"):
            f(1)
    assert calls == [1, 1]
    assert told(f.stats()) == (0, 2, 0, 0)


def fails(a: int) -> None:
    calls.append(a)
    raise LookupError("simulated")


def test_wrong_arguments_are_pythons_own_error_and_not_a_call(face: str, store: TieredStore) -> None:
    f = made(face, store)
    for args, kwargs in [((), {}), ((1, 2, 3), {}), ((1,), {"c": 1}), ((1,), {"a": 1})]:
        with pytest.raises(TypeError, match="noted"):
            f(*args, **kwargs)
    assert calls == []


def test_it_lasts_as_long_as_its_ttl_and_survives_the_process(face: str, tmp_path: Path, clock: FakeClock) -> None:
    def opened() -> TieredStore:
        return TieredStore([Memory(), SQL(f"sqlite:///{tmp_path}/x.db")], clock=clock)

    with opened() as store:
        assert made(face, store, ttl=60)(1) == [1, 2]
    with opened() as store:
        f = made(face, store, ttl=60)
        assert f(1) == [1, 2]
        assert (calls, told(f.stats())) == ([(1, 2)], (1, 0, 0, 0))
        clock.advance(60)
        assert f(1) == [1, 2]
        assert calls == [(1, 2)] * 2


def test_ttl_may_follow_from_the_result(face: str, clock: FakeClock) -> None:
    store = TieredStore([Memory()], clock=clock)
    f = made(face, store, ttl=lambda result: 10 if result[0] == 1 else None)
    assert (f(1), f(2)) == ([1, 2], [2, 2])
    clock.advance(10)
    assert (f(1), f(2)) == ([1, 2], [2, 2])
    assert calls == [(1, 2), (2, 2), (1, 2)]


def test_what_does_not_meet_the_condition_is_returned_and_not_kept(face: str, store: TieredStore) -> None:
    f = made(face, store, condition=lambda result: result[0] > 1)
    for _ in range(2):
        assert (f(1), f(2)) == ([1, 2], [2, 2])
    assert calls == [(1, 2), (2, 2), (1, 2)]


def test_calls_at_once_make_one_call_and_all_get_the_result_kept_or_not() -> None:
    store = TieredStore([Memory()])
    began, release = threading.Event(), threading.Event()

    def slow(a: int) -> list[int]:
        calls.append(a)
        began.set()
        assert release.wait(DEADLINE)
        return [a]

    f = cached(store, namespace="slow", condition=lambda result: False)(slow)
    with ThreadPoolExecutor(10) as pool:
        futures = [pool.submit(f, 1)]
        assert began.wait(DEADLINE)
        futures += [pool.submit(f, 1) for _ in range(9)]
        flights = store._stack.flights.flights
        until(lambda: sum(len(flight.waiters) for flight in flights.values()) == 9)
        release.set()
        assert [future.result(DEADLINE) for future in futures] == [[1]] * 10
    assert calls == [1]
    assert told(f.stats()) == (9, 1, 0, 0)
    assert store.get(f.cache_key(1)) is None


def test_a_function_may_call_itself() -> None:
    store = TieredStore([Memory()])

    @cached(store, namespace="fib")
    def fib(n: int) -> int:
        calls.append(n)
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(30) == 832_040
    assert sorted(calls) == list(range(31))


# -- invalidate, refresh, cache_key ----------------------------------------------------------------------------------


def test_invalidate_deletes_the_result_from_every_tier(face: str) -> None:
    stand = Stand()
    f = made(face, stand.store)
    f(1)
    f(2)
    f.invalidate(b=2, a=1)
    key = f.cache_key(1)
    assert stand.bottom.value(key) is stand.upper.value(key) is stand.store.get(key) is None
    assert f(1) == [1, 2]
    assert f(2) == [2, 2]
    assert calls == [(1, 2), (2, 2), (1, 2)]


def test_refresh_calls_and_keeps(face: str, store: TieredStore) -> None:
    f = made(face, store, counting)
    assert (f(1), f(1)) == (1, 1)
    assert f.refresh(1) == 2
    assert f(1) == 2
    assert f.refresh(5) == 3, "also where nothing is kept"
    assert f(5) == 3


def counting(a: int) -> int:
    calls.append(a)
    return len(calls)


def test_refresh_does_not_join_a_call_that_began_before_and_loses_to_a_delete_meanwhile() -> None:
    stand = Stand()
    began, release = threading.Event(), threading.Event()

    def slow(a: int) -> int:
        calls.append(a)
        if len(calls) == 1:
            began.set()
            assert release.wait(DEADLINE)
            return 1
        if len(calls) == 3:
            f.invalidate(a)
        return len(calls)

    f = cached(stand.store, namespace="slow")(slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(f, 7)
        assert began.wait(DEADLINE)
        assert f.refresh(7) == 2
        release.set()
        assert first.result(DEADLINE) == 2, "what is stored is newer"
    assert f(7) == 2
    assert f.refresh(7) == 3
    assert stand.store.get(f.cache_key(7)) is None


def test_keys_begin_so_that_a_function_can_be_cleared(store: TieredStore) -> None:
    f = cached(store, namespace="a|b%", version="2|")(noted)
    assert f.cache_key(1) == f"cached|a%7Cb%25|2%7C|Msgpack|{digest('a,b', 4)}|i1;i2;"
    g = cached(store)(anoted)
    assert g.cache_key(1) == f"cached|tests.test_cached.anoted||Msgpack|{digest('a,b', 4)}|i1;i2;"
    f(1)
    store.set("other", b"1")
    assert store.clear(prefix="cached|") == 1
    assert f.stats().hits == 0


def test_another_version_or_serializer_does_not_see_the_old_results(store: TieredStore) -> None:
    for number, options in enumerate([{}, {"version": 1}, {"version": "2"}, {"serializer": Json()}], 1):
        f: Any = cached(store, **options)(noted)  # type: ignore[arg-type]
        assert f(1) == f(1) == [1, 2]
        assert len(calls) == number


def test_a_key_of_the_users(face: str, store: TieredStore) -> None:
    f = made(face, store, key=lambda a, b=2: a % 10)
    assert (f(1), f(11), f(12)) == ([1, 2], [1, 2], [12, 2])
    g = made(face, store, namespace="by dict", key=lambda *args, **kwargs: {"a": args, "b": kwargs})
    assert (g(1), g(1, b=2)) == ([1, 2], [1, 2])
    assert calls == [(1, 2), (12, 2), (1, 2), (1, 2)]


# -- methods ---------------------------------------------------------------------------------------------------------

shared = TieredStore([Memory()])


class Report:
    def __init__(self, name: str) -> None:
        self.name = name

    def __tiered_key__(self) -> str:
        return self.name

    @cached(shared)
    def keyed(self, x: int) -> str:
        calls.append(x)
        return f"{self.name} {x}"

    @cached(shared, ignore=("self",))
    async def ignored(self, x: int = 1) -> int:
        calls.append(x)
        return x

    @staticmethod
    @cached(shared)
    def static(x: int) -> int:
        calls.append(x)
        return x

    @classmethod
    @cached(shared, ignore=("cls",))
    def of_class(cls, x: int) -> str:
        calls.append(x)
        return cls.__name__ + str(x)


class Plain:
    @cached(shared)
    def method(self, x: int) -> int:
        return x


class Attribute(Plain):
    __tiered_key__ = 5


def test_methods() -> None:
    shared.clear(prefix="cached|")
    one, two = Report("one"), Report("two")
    assert (one.keyed(1), one.keyed(x=1), Report.keyed(one, 1), two.keyed(1)) == ("one 1", "one 1", "one 1", "two 1")
    assert calls == [1, 1]
    one.keyed.invalidate(1)
    Report.keyed.invalidate(two, 1)
    assert (one.keyed(1), two.keyed(1), one.keyed.refresh(1)) == ("one 1", "two 1", "one 1")
    assert len(calls) == 5
    assert one.keyed.cache_key(1) == Report.keyed.cache_key(one, 1) != two.keyed.cache_key(1)
    assert one.keyed.stats() == Report.keyed.stats()
    assert (one.static(9), Report.static(9), one.of_class(9), Report.of_class(9)) == (9, 9, "Report9", "Report9")
    assert calls[5:] == [9, 9]


def test_a_method_that_is_a_coroutine() -> None:
    async def main() -> None:
        one, two = Report("one"), Report("two")
        assert [await one.ignored(), await two.ignored(1), await Report.ignored(one, 1)] == [1, 1, 1]
        assert await one.ignored.refresh() == 1
        await two.ignored.invalidate()
        assert await one.ignored() == 1

    asyncio.run(main())
    assert calls == [1, 1, 1]


def test_an_object_without_a_key_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(TypeError, match=r"argument 'self' of Plain.method .*Plain.*ignore=\('self',\).*__tiered_key__"):
        Plain().method(1)
    assert Attribute().method(1) == 1


# -- arguments -------------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclass(frozen=True)
class Query:
    text: str
    limit: int = 1


@dataclass
class Other:
    text: str
    limit: int = 1


class Own:
    def __init__(self, value: Any) -> None:
        self.__tiered_key__ = value


UTC = dt.timezone.utc  # noqa: UP017
DISTINCT: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2**70,
        10**5000,
        1.0,
        0.0,
        -0.0,
        float("inf"),
        float("nan"),
        "",
        "1",
        "i1;",
        b"",
        b"1",
    ),
    *(
        "a",
        b"a",
        "61",
        "é",
        "e\u0301",
        "\ud800",
        "\x00",
        "n",
        "None",
        Decimal(1),
        Decimal("1.0"),
        Decimal("1.00"),
        "1.0",
    ),
    *(
        [],
        [1],
        [1, 1],
        [[1]],
        [[], 1],
        [[1], []],
        (),
        (1,),
        (1, 1),
        ((1,),),
        {},
        {"a": 1},
        {"a": 2},
        {"b": 1},
        {1: "a"},
    ),
    *(set(), {1}, {1, 2}, frozenset(), frozenset({1}), {(): ()}, {"a": {"b": 1}}, [None], [True], [1.0], ["1"]),
    *(["a", "b"], ["ab"], ["a,b"], [["a"], "b"], "x" * 500, "x" * 501, ["x" * 500], list(range(100)), list(range(101))),
    *(dt.date(2020, 1, 1), dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=UTC)),  # noqa: DTZ001
    dt.datetime(2020, 1, 1, tzinfo=ZoneInfo("UTC")),
    *(dt.datetime(2020, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold) for fold in (0, 1)),
    *(dt.time(1), dt.time(1, tzinfo=UTC), dt.timedelta(1), dt.timedelta(0, 1), dt.timedelta(0, 0, 1), dt.timedelta(-1)),
    *(
        UUID(int=1),
        UUID(int=2),
        Path("/a"),
        PurePosixPath("/a"),
        Path("/b"),
        Colour.RED,
        Number.ONE,
        Point(1, 2),
        (1, 2),
    ),
    *(Query("a"), Query("a", 2), Other("a"), {"text": "a", "limit": 1}, Own(1), Own("1"), [Own(1)], Own(Own(1))),
]


def test_keys_tell_apart_what_differs_in_value_or_type() -> None:
    keys = [text_of([value]) for value in DISTINCT]
    assert len(set(keys)) == len(DISTINCT)
    pairs = [text_of([a, b]) for a in DISTINCT for b in DISTINCT]
    assert len(set(pairs)) == len(DISTINCT) ** 2
    assert not set(pairs) & set(keys)
    assert max(map(len, keys)) <= LONG
    assert all(key.isascii() for key in keys)


def test_equal_values_have_equal_keys() -> None:
    assert text_of([{"a": 1, "b": 2}]) == text_of([{"b": 2, "a": 1}])
    assert text_of([set("abcdefgh")]) == text_of([set("hgfedcba")])
    assert text_of([[10**5000, "x" * 999]]) == text_of([[10**5000, "x" * 999]])


def test_keys_stay_what_they_are() -> None:
    """They are in people's databases: a release that makes others loses every stored result."""
    assert (
        text_of([1, "a", None, 2.5, b"\xff", [True], {"k": (1,)}])
        == "i1;s1:and0x1.4000000000000p+1;bff;l1:tm1:s1:ku1:i1;"
    )
    assert text_of(["x" * 200]) == "#4dbd28ab8f80529af3bdd632a357fb87e9940113"
    assert text_of([Query("a")]) == "c23:tests.test_cached.Querym2:s4:texts1:as5:limiti1;"


class Secret:
    pass


class Zone(dt.tzinfo):
    def utcoffset(self, when: Any) -> dt.timedelta:
        return dt.timedelta(0)


def holding_itself() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    "value",
    [
        Secret(),
        object(),
        Secret,
        len,
        [Secret()],
        {"a": Secret()},
        bytearray(b"x"),
        iter([]),
        dt.datetime(2020, 1, 1, tzinfo=Zone()),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_told_apart_are_named(value: Any, face: str, store: TieredStore) -> None:
    f = made(face, store)
    with pytest.raises(TypeError, match=r"the argument 'b' of a?noted is, or holds, a .*ignore=\('b',\)"):
        f(1, value)
    with pytest.raises(TypeError, match="'a'"):
        f.cache_key(value)
    assert calls == []
    with pytest.raises(Unkeyable):
        text_of([value])


def test_an_argument_that_holds_itself_is_named(store: TieredStore) -> None:
    with pytest.raises(TypeError, match="'a' of noted holds itself"):
        cached(store)(noted)(holding_itself())  # type: ignore[arg-type]


def everything(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> Any:
    return (a, b, rest, c, d, more)


def keyword_only(*, a: int, b: int = 1) -> Any:
    return (a, b)


def positional(a: int, b: int = 1, /) -> Any:
    return (a, b)


def nothing() -> str:
    return "nothing"


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (everything, (1,), {"c": 3}),
        (everything, (1, 5, 6, 7), {"c": 3, "d": 8, "e": 9, "f": 10}),
        (keyword_only, (), {"a": 1}),
        (positional, (1,), {}),
        (positional, (1, 2), {}),
        (nothing, (), {}),
    ],
)
def test_every_kind_of_parameter(function: Any, args: Any, kwargs: Any, face: str, store: TieredStore) -> None:
    f = made(face, store, function)
    assert f(*args, **kwargs) == f(*args, **kwargs) == function(*args, **kwargs)
    assert f.stats().misses == 1


def test_every_kind_is_bound_by_name() -> None:
    names, bind = binder(everything, ("rest", "d"))
    assert names == ("a", "b", "c", "more")
    assert bind((1, 2, 3), {"c": 4, "d": 5, "e": 6}) == (1, 2, 4, {"e": 6})
    with pytest.raises(TypeError, match="everything"):
        bind((1,), {})


def some_defaults(a: int, b: int = 2, c: int = 3) -> Any:
    return (a, b, c)


def test_calls_are_bound_as_python_binds_them_or_refused_as_python_refuses_them() -> None:
    _, bind = binder(some_defaults, ())
    _, without = binder(some_defaults, ("b",))
    names = "abcd"
    for count in range(5):
        for chosen in range(16):
            args = tuple(range(10, 10 + count))
            kwargs = {name: 20 + at for at, name in enumerate(names) if chosen & (1 << at)}
            try:
                expected = some_defaults(*args, **kwargs)
            except TypeError:
                with pytest.raises(TypeError, match="some_defaults"):
                    bind(args, kwargs)
            else:
                assert bind(args, kwargs) == expected
                assert without(args, kwargs) == (expected[0], expected[2])


def test_ignored_parameters_are_not_part_of_the_key(face: str, store: TieredStore) -> None:
    f = made(face, store, ignore=["b"])
    assert f(1, 5) == f(1, Secret()) == [1, 5]  # type: ignore[arg-type]


# -- results ---------------------------------------------------------------------------------------------------------


def returns_object(a: int) -> Any:
    return Secret()


def test_a_result_that_cannot_be_stored_is_an_error_at_the_first_call(face: str, store: TieredStore) -> None:
    f = made(face, store, returns_object)
    with pytest.raises(InvalidValue, match=r"the result of .* cannot be kept: .*Secret"):
        f(1)


def returns_coroutine(a: int) -> Any:
    return anoted(a)


def test_a_plain_function_that_returns_a_coroutine_is_an_error(store: TieredStore) -> None:
    with pytest.raises(InvalidValue, match="coroutine"):
        cached(store)(returns_coroutine)(1)


def query(text: str) -> Query:
    calls.append(text)
    return Query(text)


def test_types_are_named(face: str, store: TieredStore) -> None:
    f = made(face, store, query, types=[Query])
    assert f("a") == f("a") == Query("a")
    assert calls == ["a"]


def test_what_cannot_be_decoded_is_a_counted_miss_and_made_again(face: str) -> None:
    stand = Stand()
    f = made(face, stand.store)
    for bad in (b"\x00garbage", Json().dumps([1, 2]), Msgpack([Query]).dumps(Query("a"))):
        for there in ("memory", "below"):
            calls.clear()
            stand.store.set(f.cache_key(1), bad)
            if there == "below":
                evict(stand.store)
            before = f.stats().corrupt
            assert f(1) == f(1) == [1, 2]
            assert calls == [(1, 2)]
            assert f.stats().corrupt == before + 1
            assert Msgpack().loads(stand.bottom.value(f.cache_key(1)) or b"") == [1, 2]


def test_a_result_too_large_for_the_store_is_an_error(tmp_path: Path) -> None:
    store = TieredStore([Memory(max_bytes=10_000)])
    with pytest.raises(InvalidValue, match="larger"):
        cached(store, namespace="large")(lambda n: "x" * n)(20_000)


# -- the cache is not there ------------------------------------------------------------------------------------------


def test_the_function_is_called_though_the_cache_is_away(face: str) -> None:
    stand = Stand()
    f = made(face, stand.store)
    stand.bottom.fail()
    assert (f(1), f(1)) == ([1, 2], [1, 2])
    assert calls == [(1, 2)] * 2
    stand.bottom.heal()


def test_or_the_error_is_raised(face: str) -> None:
    stand = Stand()
    f = made(face, stand.store, on_cache_error="raise")
    stand.bottom.fail("fetch")
    with pytest.raises(BackendUnavailable):
        f(1)
    assert calls == []


def test_a_result_that_could_not_be_stored_is_returned(face: str, caplog: pytest.LogCaptureFixture) -> None:
    stand = Stand()
    f = made(face, stand.store)
    stand.bottom.fail("swap")
    with caplog.at_level(logging.WARNING, "tiered"):
        assert f(1) == [1, 2]
    assert "not stored" in caplog.text


def test_a_closed_store_is_an_error(face: str) -> None:
    store = TieredStore([Memory()])
    f = made(face, store)
    f(1)
    store.close()
    with pytest.raises(StoreClosed):
        f(1)


def test_in_a_bypass_it_is_the_function_itself(face: str) -> None:
    stand = Stand()
    f = made(face, stand.store, returns_object)
    with tiered.bypass():
        assert isinstance(f(1), Secret)
        assert isinstance(f.refresh(1), Secret)
        assert isinstance(f(object()), Secret), "no key is made"
    assert stand.bottom.log == []


# -- stale -----------------------------------------------------------------------------------------------------------


def test_stale_results_are_served_while_one_call_refreshes(face: str, clock: FakeClock) -> None:
    store = TieredStore([Memory()], clock=clock)
    if face == "sync":
        f = cached(store, ttl=10, stale=20)(counting)
        assert f(1) == 1
        clock.advance(10)
        assert (f(1), f.stats().misses) == (1, 1)
        until(lambda: settled(store))
        assert f(1) == 2
    else:

        async def main() -> None:
            g = cached(store, namespace="g", ttl=10, stale=20)(acounting)
            assert await g(1) == 1
            clock.advance(10)
            assert (await g(1), g.stats().misses) == (1, 1)
            await auntil(lambda: settled(store))
            assert await g(1) == 2
            assert told(g.stats()) == (2, 1, 1, 0)

        asyncio.run(main())


async def acounting(a: int) -> int:
    return counting(a)


def test_refresh_ahead_and_a_ttl_from_the_result(clock: FakeClock) -> None:
    store = TieredStore([Memory()], clock=clock)
    f = cached(store, ttl=lambda result: 10, refresh_ahead=0.5)(counting)
    assert f(1) == 1
    clock.advance(5)
    assert f(1) == 1
    until(lambda: settled(store))
    clock.advance(4.9)
    assert f(1) == 2
    assert told(f.stats()) == (2, 1, 1, 0)


# -- decoration ------------------------------------------------------------------------------------------------------


def test_name_doc_and_signature_are_kept(store: TieredStore) -> None:
    f: Any = cached(store)(noted)
    assert (f.__name__, f.__doc__, f.__module__, f.__wrapped__) == ("noted", "Doc.", __name__, noted)
    assert inspect.signature(f) == inspect.signature(noted)
    assert inspect.isfunction(f)
    g: Any = cached(store)(anoted)
    assert inspect.iscoroutinefunction(g)
    assert inspect.iscoroutinefunction(g.refresh)
    bound: Any = Report("x").keyed
    assert Report.keyed.__name__ == bound.__name__ == "keyed"  # type: ignore[attr-defined]
    assert list(inspect.signature(bound).parameters) == ["x"]
    assert list(inspect.signature(Report.keyed).parameters) == ["self", "x"]
    assert inspect.iscoroutinefunction(Report("x").ignored)
    assert inspect.iscoroutinefunction(Report("x").ignored.refresh)


def generator() -> Any:
    yield 1


async def agenerator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (generator, "generator"),
        (agenerator, "generator"),
        (lambda a: a, "lambda"),
        (staticmethod(noted), "below @staticmethod"),
        (classmethod(noted), "below @classmethod"),
        (Query, "takes functions"),
        (5, "takes functions"),
        (None, "takes functions"),
        (type("Callable", (), {"__call__": lambda self: 1})(), "no name"),
    ],
)
def test_what_cannot_be_cached_is_refused_at_decoration(function: Any, match: str, store: TieredStore) -> None:
    with pytest.raises(ConfigurationError, match=match):
        cached(store)(function)


def test_closures_need_a_namespace(store: TieredStore) -> None:
    def make(n: int, **options: Any) -> Any:
        def add(x: int) -> int:
            return x + n

        return cached(store, **options)(add)

    with pytest.raises(ConfigurationError, match=r"closure.*namespace="):
        make(1)
    one = make(1, namespace="one")
    with pytest.raises(ConfigurationError, match="'one'"):
        make(2, namespace="one")
    two = make(2, namespace="two")
    assert (one(1), two(1)) == (2, 3)
    del one
    assert make(3, namespace="one") is not None, "the first is gone"


def test_what_holds_nothing_of_its_surroundings_is_no_closure(store: TieredStore) -> None:
    def make() -> Any:
        @cached(store)
        def double(x: int) -> int:
            return 2 * x

        return double

    first, second = make(), make()
    assert (first(2), second(2)) == (4, 4)
    assert second.stats().hits == 1


def defined(text: str, name: str = "notebook") -> Any:
    """A function defined at the top of a module."""
    space: dict[str, Any] = {"__name__": name}
    exec(text, space)
    return space["f"]


def test_a_new_definition_at_module_level_replaces_the_old_one(store: TieredStore) -> None:
    old = cached(store)(defined("def f(x): return 1"))
    new = cached(store)(defined("def f(x): return 2"))
    assert old.cache_key(1) == new.cache_key(1)


def test_two_functions_cannot_have_one_namespace(store: TieredStore) -> None:
    kept = [cached(store, namespace="n")(noted)]
    for other in (anoted, defined("def f(x): return 1")):
        with pytest.raises(ConfigurationError, match=r"namespace='n' is that of .*noted"):
            cached(store, namespace="n")(other)
    kept.append(cached(TieredStore([Memory()]), namespace="n")(anoted))  # type: ignore[arg-type]
    kept.append(cached(store, namespace="lambdas")(lambda: 1))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'lambdas'"):
        cached(store, namespace="lambdas")(lambda: 2)

    def make(flag: bool) -> Any:
        if flag:

            def f(x: int) -> int:
                return x

        else:

            def f(x: int) -> int:
                return -x

        return f

    kept.append(cached(store)(make(True)))
    with pytest.raises(ConfigurationError, match="mixed up"):
        cached(store)(make(False))


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"ttl": 0}, ValueError, "ttl"),
    ({"ttl": True}, TypeError, "ttl"),
    ({"ttl": "60"}, TypeError, "ttl"),
    ({"stale": 5}, ValueError, "ttl"),
    ({"ttl": 5, "stale": 0}, ValueError, "stale"),
    ({"ttl": 5, "refresh_ahead": 2}, ValueError, "refresh_ahead"),
    ({"key": 5}, TypeError, "key"),
    ({"condition": True}, TypeError, "condition"),
    ({"ignore": "a"}, TypeError, "ignore"),
    ({"ignore": ["c"]}, ConfigurationError, "'c'"),
    ({"ignore": ["a"], "key": len}, ConfigurationError, "key="),
    ({"namespace": ""}, ConfigurationError, "namespace"),
    ({"namespace": 5}, ConfigurationError, "namespace"),
    ({"namespace": "\ud800"}, ValueError, "surrogates"),
    ({"namespace": "x" * 70_000}, ValueError, "longer"),
    ({"version": 1.5}, TypeError, "version"),
    ({"version": True}, TypeError, "version"),
    ({"types": [Query], "serializer": Json()}, ConfigurationError, "types"),
    ({"on_cache_error": "ignore"}, ValueError, "on_cache_error"),
]


@pytest.mark.parametrize(("options", "error", "match"), BAD, ids=[str(options)[:50] for options, _, _ in BAD])
def test_bad_options(options: dict[str, Any], error: type[Exception], match: str, store: TieredStore) -> None:
    with pytest.raises(error, match=match):
        cached(store, **options)(noted)


def test_a_store_must_be_a_stack() -> None:
    for wrong in (None, {}, Memory(), "memory://"):
        with pytest.raises(ConfigurationError, match="takes a TieredStore"):
            cached(wrong)  # type: ignore[arg-type]


def test_a_ttl_of_the_result_that_makes_no_sense_is_an_error_of_the_call(face: str, store: TieredStore) -> None:
    with pytest.raises(ValueError, match="ttl"):
        made(face, store, ttl=lambda result: -1)(1)


def test_scopes_are_apart(store: TieredStore) -> None:
    f, g = cached(store)(noted), cached(store.scoped("tenant"))(noted)
    assert (f(1), g(1), f(1), g(1)) == ([1, 2],) * 4
    assert len(calls) == 2


# -- types -----------------------------------------------------------------------------------------------------------

TYPED = """
import tiered
from typing import Any

store = tiered.TieredStore([tiered.Memory()])

@tiered.cached(store, ttl=300)
def report(user_id: int, full: bool = False) -> dict[str, int]:
    return {"user": user_id}

@tiered.cached(store)
async def areport(user_id: int) -> str:
    return str(user_id)

class C:
    @tiered.cached(store, ignore=("self",))
    def method(self, x: int) -> str:
        return str(x)

    @tiered.cached(store, ignore=("self",))
    async def amethod(self, x: int) -> bytes:
        return b""

    @staticmethod
    @tiered.cached(store)
    def static(x: int) -> str:
        return str(x)

    @classmethod
    @tiered.cached(store, ignore=("cls",))
    def of_class(cls, x: int) -> str:
        return str(x)

reveal_type(C.static(1))
C.static.invalidate(1)
reveal_type(C().of_class(1))
reveal_type(report(1))
reveal_type(report.refresh(1, full=True))
report.invalidate(1)
reveal_type(report.cache_key(1))
reveal_type(report.stats().hits)
reveal_type(C().method(1))
C().method.invalidate(1)

async def main() -> None:
    reveal_type(await areport(1))
    reveal_type(await areport.refresh(1))
    await areport.invalidate(1)
    reveal_type(await C().amethod(1))
"""
REVEALED = ["str", "str", "dict[str, int]", "dict[str, int]", "str", "int", "str", "str", "str", "bytes"]


WRONG = [
    'report("1")',
    "report()",
    "report(1, 2, 3)",
    "report.invalidate('1')",
    "C().method('1')",
    "C().method.refresh()",
    "C.of_class(1)",  # fine when it runs: see docs/caching-functions.md
]


def test_types_are_kept_for_mypy(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    script = tmp_path / "typed.py"
    script.write_text("\n".join([TYPED, *WRONG]))
    report, _, _ = api.run(["--strict", "--no-incremental", str(script)])
    found = [line.split('"')[1].replace("builtins.", "") for line in report.splitlines() if "Revealed type" in line]
    assert found == REVEALED, report
    first = TYPED.count("\n") + 2
    lines = {int(line.split(":")[1]) for line in report.splitlines() if " error: " in line}
    assert lines == set(range(first, first + len(WRONG))), report


def test_stale_needs_a_place_for_a_second_expiry() -> None:
    stand = Stand()
    stand.bottom.capabilities = tiered.backends.base.Capabilities(shared=False, forgets=False, stamps=False)
    plain = TieredStore([Tier(stand.bottom)])
    with pytest.raises(Unsupported, match="record layout"):
        cached(plain, ttl=5, stale=5)
    with pytest.raises(Unsupported, match="record layout"):
        plain.get_or_load("k", lambda key: b"v", ttl=5, refresh_ahead=0.5)
