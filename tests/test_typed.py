"""Typed stores: values of any type over any store of bytes, in both faces."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.contract.faces import FACES, face
from tiered import SQL, Memory, TieredStore, bypass, typed
from tiered.backends.base import BaseBackend
from tiered.base import BaseStore
from tiered.errors import (
    BackendUnavailable,
    ConfigurationError,
    CorruptEntry,
    InvalidKey,
    InvalidValue,
    StoreClosed,
    Unsupported,
)
from tiered.serializers import Json, Msgpack, Str, Vector
from tiered.testing import FakeClock
from tiered.typed import TypedStore


class Plain(BaseStore[str, bytes]):
    """A store of somebody else: four methods over a dict."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def mget(self, keys: Any) -> list[bytes | None]:
        return [self.held.get(key) for key in keys]

    def mset(self, key_value_pairs: Any) -> None:
        assert type(key_value_pairs) is list  # LangChain promises a sequence
        self.held.update(key_value_pairs)

    def mdelete(self, keys: Any) -> None:
        for key in keys:
            self.held.pop(key, None)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        yield from [key for key in self.held if key.startswith(prefix or "")]


@pytest.fixture(params=FACES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def raw(tmp_path: Path, clock: FakeClock) -> Iterator[TieredStore]:
    with TieredStore([Memory(), SQL(f"sqlite:///{tmp_path}/x.db")], clock=clock) as store:
        yield store


@pytest.fixture
def over(kind: str) -> Iterator[Any]:
    """Makes typed stores, shown by one face; ends what the event loops of the other hold."""
    made = []

    def make(store: Any, serializer: Any) -> Any:
        shown = face(kind, TypedStore(store, serializer))
        made.append((shown, store))
        return shown

    yield make
    for shown, store in made:
        if kind == "async":
            if isinstance(store, TieredStore | BaseBackend):
                shown.runner.run(store.aclose())
            shown.runner.close()


@pytest.fixture(params=["stack", "backend", "plain"])
def below(request: pytest.FixtureRequest, raw: TieredStore) -> Any:
    return {"stack": raw, "backend": Memory(), "plain": Plain()}[request.param]


VALUE = {"n": (1, {2}), "when": datetime(2024, 1, 1, tzinfo=UTC)}


def test_values_go_in_and_out_of_any_store(over: Any, below: Any) -> None:
    store = over(below, Msgpack())
    assert store.get("a") is None
    store.set("a", VALUE)
    store.mset([("b", ()), ("ü", b""), ("b", [])])
    store.mset({"c": False, "d": 0})
    store.mset([])
    store.mdelete([])
    assert store.get("a") == VALUE
    assert store.mget(["b", "zzz", "a", "ü", "b", "c", "d"]) == [[], None, VALUE, b"", [], False, 0]
    assert store.mget([]) == []
    assert sorted(store.keys()) == ["a", "b", "c", "d", "ü"]
    assert store.keys(prefix="a") == ["a"]
    store.delete("a")
    store.delete("a")
    store.mdelete(["b", "zzz", "b"])
    assert sorted(store.keys()) == ["c", "d", "ü"]
    assert below.mget(["c"]) == [Msgpack().dumps(False)]


def test_keys_may_come_from_any_iterable_but_a_str(over: Any, below: Any) -> None:
    store = over(below, Str())
    store.mset((key, key) for key in "ab")
    assert store.mget(dict.fromkeys(["a", "b"])) == ["a", "b"]
    for call in (store.mget, store.mdelete, store.mset):
        with pytest.raises(TypeError):
            call("ab")
        with pytest.raises(TypeError):
            call(5)
    for call in (store.get, store.delete, lambda key: store.set(key, "x"), lambda key: store.mset([(key, "x")])):
        for key in ("", None, 5, b"a", "\ud800"):
            with pytest.raises(InvalidKey):
                call(key)
    for pairs in (["ab"], [("a",)], [("a", "b", "c")], [5]):
        with pytest.raises(InvalidValue, match=r"takes \(key, value\) pairs"):
            store.mset(pairs)
    assert sorted(store.keys()) == ["a", "b"]


def test_what_cannot_be_stored_is_refused_before_anything_is_written(over: Any, below: Any) -> None:
    store = over(below, Msgpack())
    store.set("kept", 1)
    for bad, says in ((None, "keeps no None: delete the key instead"), (object(), "a object"), ([1j], "a complex")):
        for write in (
            lambda bad=bad: store.set("bad", bad),
            lambda bad=bad: store.mset([("kept", 2), ("bad", bad)]),
            lambda bad=bad: store.mset({"kept": 2, "bad": bad}),
            lambda bad=bad: store.mset([("bad", bad), ("bad", 1)]),
        ):
            with pytest.raises(InvalidValue, match=says) as caught:
                write()
            assert caught.value.key == "bad"
            assert "bad" in str(caught.value)
    assert store.mget(["kept", "bad"]) == [1, None]


def test_what_cannot_be_read_is_corrupt_and_names_the_key(over: Any, below: Any) -> None:
    below.mset([("good", Json().dumps(1)), ("bad", b"\xff"), ("none", b"null")])
    store = over(below, Json())
    for key in ("bad", "none"):
        for read in (lambda key=key: store.get(key), lambda key=key: store.mget(["good", key, "zzz"])):
            with pytest.raises(CorruptEntry) as caught:
                read()
            assert caught.value.key == key
    assert store.mget(["good", "zzz"]) == [1, None]
    assert store.get("good") == 1


# -- TTL and loading: those of the stack -----------------------------------------------------------------------------


def test_a_ttl_is_that_of_the_stack(over: Any, raw: TieredStore, clock: FakeClock) -> None:
    store = over(raw, Json())
    store.set("a", 1, ttl=10)
    store.mset({"b": 2}, ttl=timedelta(seconds=20))
    store.get_or_load("c", lambda key: 3, ttl=30)
    store.mget_or_load(["d"], lambda keys: dict.fromkeys(keys, 4), ttl=40)
    store.set("e", 5, ttl=None)
    for left in (["a", "b", "c", "d", "e"], ["b", "c", "d", "e"], ["c", "d", "e"], ["d", "e"], ["e"]):
        assert sorted(store.keys()) == left
        clock.advance(10)
    for bad in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="ttl"):
            store.set("a", 1, ttl=bad)
    with pytest.raises(TypeError, match="ttl"):
        store.mset({"a": 1}, ttl=True)


def test_without_a_stack_there_is_no_ttl_and_no_loading(over: Any) -> None:
    for below in (Memory(), Plain()):
        store = over(below, Json())
        for call in (
            lambda store=store: store.set("a", 1, ttl=5),
            lambda store=store: store.mset({"a": 1}, ttl=None),
            lambda store=store: store.mset({}, ttl=5),
            lambda store=store: store.get_or_load("a", lambda key: 1),
            lambda store=store: store.mget_or_load(["a"], dict.fromkeys),
        ):
            with pytest.raises(Unsupported, match=r"put tiered.wrap\(..\) around it"):
                call()
        assert store.keys() == []


def test_a_loader_gives_values_which_are_stored(over: Any, raw: TieredStore) -> None:
    store, asked = over(raw, Msgpack()), []

    def load(key: str) -> Any:
        asked.append(key)
        return None if key == "none" else [key, (1,)]

    assert store.get_or_load("a", load) == ["a", (1,)]
    assert store.get_or_load("a", load) == ["a", (1,)]
    assert store.get_or_load("none", load) is None
    assert store.get_or_load("none", load) is None
    assert asked == ["a", "none", "none"]
    assert store.get("a") == ["a", (1,)]
    assert store.get_or_load("a", load) is not store.get_or_load("a", load), "an object of its own for each caller"
    with pytest.raises(TypeError, match=r"load must be callable as load\(key\), not int"):
        store.get_or_load("a", 5)
    with pytest.raises(InvalidKey):
        store.get_or_load("", load)
    with pytest.raises(ZeroDivisionError):
        store.get_or_load("b", lambda key: 1 / 0)
    with pytest.raises(InvalidValue, match="a object") as caught:
        store.get_or_load("b", lambda key: object())
    assert caught.value.key == "b"
    assert store.get("b") is None


def test_a_loader_of_many_gives_values_which_are_stored(over: Any, raw: TieredStore) -> None:
    store, asked = over(raw, Msgpack()), []

    def load_many(keys: list[str]) -> Any:
        asked.append(keys)
        return {**{key: (key,) for key in keys if key != "none"}, "none": None, "unasked": object(), 5: 5}

    store.set("b", "here")
    assert store.mget_or_load(["a", "b", "none", "a"], load_many) == [("a",), "here", None, ("a",)]
    assert asked == [["a", "none"]]
    assert store.mget_or_load([], load_many) == []
    assert store.mget_or_load(["a", "b"], load_many) == [("a",), "here"]
    assert len(asked) == 1
    assert sorted(store.keys()) == ["a", "b"]
    with pytest.raises(TypeError, match="load_many must be callable"):
        store.mget_or_load(["a"], 5)
    with pytest.raises(InvalidValue, match="must return a mapping"):
        store.mget_or_load(["c"], list)
    with pytest.raises(InvalidValue, match="a object") as caught:
        store.mget_or_load(["c", "d"], lambda keys: {"d": object()})
    assert caught.value.key == "d"


def test_what_cannot_be_read_is_loaded_again(over: Any, raw: TieredStore) -> None:
    @dataclass
    class Report:
        name: str

    older = Msgpack([Report])
    raw.mset({"json": b"{}", "typed": older.dumps(Report("a")), "good": Msgpack().dumps(0)})
    store, asked = over(raw, Msgpack()), []

    def load(key: str) -> Any:
        asked.append(key)
        return f"new {key}"

    for key in ("json", "typed", "good"):
        with pytest.raises(CorruptEntry) if key != "good" else nullcontext():
            store.get(key)
        assert store.get_or_load(key, load) == (0 if key == "good" else f"new {key}")
        assert store.get(key) == (0 if key == "good" else f"new {key}")
    assert asked == ["json", "typed"]
    raw.set("json", b"{}")
    assert store.get_or_load("json", lambda key: None) is None
    assert raw.get("json") == b"{}", "there is nothing to put in its place"


def test_of_many_only_those_that_cannot_be_read_are_loaded_again(raw: TieredStore) -> None:
    store, asked = TypedStore(raw, Json()), []

    def load_many(keys: list[str]) -> dict[str, Any]:
        asked.append(keys)
        return {key: f"new {key}" for key in keys}

    raw.mset({"a": b"1", "b": b"\xff", "c": b"\xfe"})
    assert store.mget_or_load(["a", "b", "x", "c", "b"], load_many) == [1, "new b", "new x", "new c", "new b"]
    assert asked == [["b", "x", "c"]]


def test_a_write_between_the_look_and_the_load_is_not_lost(raw: TieredStore) -> None:
    raw.set("a", b"\xff")

    class Raced(Json):
        """Somebody writes the key while this reads the old value."""

        def loads(self, data: bytes, /) -> Any:
            if data == b"\xff":
                raw.set("a", b'"theirs"')
            return super().loads(data)

    assert TypedStore(raw, Raced()).get_or_load("a", lambda key: "loaded") == "theirs"
    assert raw.get("a") == b'"theirs"'


def test_a_serializer_that_reads_nothing_of_its_own_ends_in_an_error(raw: TieredStore) -> None:
    class Deaf(Json):
        def loads(self, data: bytes, /) -> Any:
            raise CorruptEntry("never")

    asked: list[str] = []
    with pytest.raises(CorruptEntry, match="never") as caught:
        TypedStore(raw, Deaf()).get_or_load("a", lambda key: asked.append(key) or "x")
    assert (asked, caught.value.key) == (["a"], "a")


def test_of_callers_at_once_one_loads(raw: TieredStore) -> None:
    store, asked, got, inside = TypedStore(raw, Msgpack()), [], [], threading.Event()

    def load(key: str) -> Any:
        asked.append(key)
        inside.wait(10)
        return (key,)

    threads = [threading.Thread(target=lambda: got.append(store.get_or_load("a", load))) for _ in range(5)]
    for thread in threads:
        thread.start()
    inside.set()
    for thread in threads:
        thread.join()
    assert got == [("a",)] * 5
    assert len(asked) == 1


def test_the_sync_face_refuses_to_await_and_the_async_face_takes_both(raw: TieredStore) -> None:
    store = TypedStore(raw, Json())

    async def load(key: str) -> str:
        return key

    with pytest.raises(InvalidValue, match="get_or_load cannot await its loader"):
        store.get_or_load("a", load)  # type: ignore[arg-type, type-var]

    async def load_many(keys: list[str]) -> dict[str, str]:
        return dict(zip(keys, keys, strict=True))

    with pytest.raises(InvalidValue, match="mget_or_load cannot await its loader"):
        store.mget_or_load(["a"], load_many)  # type: ignore[arg-type]

    async def use() -> None:
        assert await store.aget_or_load("a", load) == "a"
        assert await store.aget_or_load("b", lambda key: key) == "b"
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        ready.set_result("c")
        assert await store.aget_or_load("c", lambda key: ready) == "c"
        assert await store.amget_or_load(["a", "d"], load_many) == ["a", "d"]
        await raw.aclose()

    asyncio.run(use())


def test_the_options_of_loading_are_passed_on(over: Any, raw: TieredStore, clock: FakeClock) -> None:
    store = over(raw, Json())
    with pytest.raises(ValueError, match="on_cache_error"):
        store.get_or_load("a", lambda key: 1, on_cache_error="ignore")
    with pytest.raises(TypeError, match="unexpected keyword argument 'tll'"):
        store.get_or_load("a", lambda key: 1, tll=5)
    store.get_or_load("a", lambda key: 1, ttl=10, stale=20)
    clock.advance(25)
    assert store.get("a") == 1, "it is kept for ttl + stale"


def test_under_bypass_the_loader_runs_and_nothing_is_read_or_stored(raw: TieredStore) -> None:
    store = TypedStore(raw, Msgpack())
    store.set("a", "stored")

    async def use() -> None:
        assert await store.aget_or_load("a", lambda key: ("loaded",)) == ("loaded",)
        assert await store.amget_or_load(["a", "b"], lambda keys: {"b": 1}) == [None, 1]

    with bypass():
        assert store.get_or_load("a", lambda key: ("loaded",)) == ("loaded",)
        assert store.mget_or_load(["a", "b"], lambda keys: {"b": 1}) == [None, 1]
        asyncio.run(use())
    assert store.mget(["a", "b"]) == ["stored", None]


def test_a_stack_makes_typed_stores_and_so_does_each_scope(raw: TieredStore) -> None:
    raw.scoped("tenant").typed(Str()).set("a", "theirs")
    store = raw.typed(Str())
    assert type(store) is TypedStore
    assert store.get_or_load("a", lambda key: "ours") == "ours"
    assert raw.scoped("tenant").typed(Str()).get_or_load("a", lambda key: "new") == "theirs"


# -- arrays --------------------------------------------------------------------------------------------------------


def test_many_vectors_are_one_array(over: Any, below: Any) -> None:
    numpy = pytest.importorskip("numpy")
    store = over(below, Vector("float32"))
    store.mset({"a": [1, 2], "b": numpy.array([0.5, -1.0])})
    whole = store.mget_array(["b", "zzz", "a", "b"])
    assert (whole.dtype, whole.shape) == (numpy.float32, (4, 2))
    assert numpy.isnan(whole[1]).all()
    assert whole[[0, 2, 3]].tolist() == [[0.5, -1.0], [1.0, 2.0], [0.5, -1.0]]
    assert store.mget(["a", "zzz"]) == [[1.0, 2.0], None]
    assert store.mget_array([]).shape == (0, 0)
    assert store.mget_array(["zzz"]).shape == (1, 0)
    store.set("c", [1.0])
    with pytest.raises(InvalidValue, match="make no array"):
        store.mget_array(["a", "c"])
    below.mset([("bad", b"[1.0]")])
    with pytest.raises(CorruptEntry) as caught:
        store.mget_array(["a", "bad", "b"])
    assert caught.value.key == "bad"
    with pytest.raises(TypeError, match="give several keys"):
        store.mget_array("a")


def test_only_vectors_make_arrays(over: Any) -> None:
    with pytest.raises(Unsupported, match=r"Json\(\) makes no arrays: mget_array is for Vector"):
        over(Memory(), Json()).mget_array(["a"])


# -- stores and serializers of others --------------------------------------------------------------------------------


class Lying(Plain):
    answers: Any = ()

    def mget(self, keys: Any) -> Any:
        return self.answers


@pytest.mark.parametrize("answers", [[], [b"1"], [b"1", b"1", b"1"]])
def test_a_store_that_answers_too_much_or_too_little_is_not_believed(over: Any, answers: Any) -> None:
    below = Lying()
    below.answers = answers
    with pytest.raises(BackendUnavailable, match="values for 2 keys"):
        over(below, Json()).mget(["a", "b"])


def test_a_store_that_answers_what_is_no_bytes_is_not_believed(over: Any) -> None:
    below = Lying()
    for serializer in (Json(), Str(), Msgpack(), Vector()):
        for wrong in ("1", 5, [1], object()):
            below.answers = [wrong]
            with pytest.raises(CorruptEntry) as caught:
                over(below, serializer).get("a")
            assert caught.value.key == "a"


class Odd:
    """A serializer that raises what it likes."""

    def dumps(self, value: Any, /) -> bytes:
        return value["bytes"]  # type: ignore[no-any-return]

    def loads(self, data: bytes, /) -> Any:
        raise KeyError(data)


def test_errors_of_another_serializer_are_typed_and_show_no_value(over: Any) -> None:
    below = Plain()
    store = over(below, Odd())
    for bad, says in (({"secret": 1}, "cannot store a dict: KeyError"), ({"bytes": "secret"}, "made str of a value")):
        with pytest.raises(InvalidValue, match=says) as invalid:
            store.set("a", bad)
        assert (invalid.value.key, "secret" in str(invalid.value)) == ("a", False)
    store.set("a", {"bytes": b"secret"})
    with pytest.raises(CorruptEntry, match="cannot read what is stored: KeyError") as corrupt:
        store.get("a")
    assert (corrupt.value.key, "secret" in str(corrupt.value)) == ("a", False)


@pytest.mark.parametrize("serializer", [None, "json", Json, object(), dict])
def test_what_is_no_serializer_is_refused(serializer: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"as in Json\(\)"):
        TypedStore(Memory(), serializer)


@pytest.mark.parametrize("store", [None, {}, "memory://", Memory, object()])
def test_what_is_no_store_is_refused(store: Any) -> None:
    with pytest.raises(ConfigurationError, match="is made of a BaseStore, not"):
        TypedStore(store, Json())


# -- object --------------------------------------------------------------------------------------------------------


def test_a_typed_store_is_a_store_like_any_other(raw: TieredStore) -> None:
    store = TypedStore(raw, Json())
    assert isinstance(store, BaseStore)
    assert bool(store) is True
    assert copy.copy(store) is store
    assert copy.deepcopy({"s": store})["s"] is store
    assert repr(store) == f"TypedStore({raw!r}, Json())"
    with pytest.raises(TypeError, match="open it in the other process"):
        pickle.dumps(store)
    assert type(store.yield_keys()).__name__ == "generator"
    assert type(store.ayield_keys()).__name__ == "async_generator"


def test_a_typed_store_ends_with_the_store_below(over: Any, raw: TieredStore) -> None:
    store = over(raw, Json())
    raw.close()
    for call in (lambda: store.get("a"), lambda: store.set("a", 1), lambda: store.get_or_load("a", lambda key: 1)):
        with pytest.raises(StoreClosed):
            call()


def test_types_follow_the_serializer(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    script = tmp_path / "use.py"
    script.write_text(
        "from tiered import Memory\n"
        "from tiered.serializers import Json, Serializer, Str, Vector\n"
        "from tiered.typed import TypedStore\n"
        "reveal_type(TypedStore(Memory(), Str()).get('a'))\n"
        "reveal_type(TypedStore(Memory(), Vector()).mget(['a']))\n"
        "TypedStore(Memory(), Str()).set('a', 5)\n"
        "own: Serializer[str] = Str()\n"
        "wrong: Serializer[bytes] = Str()\n"
    )
    out, _, _ = api.run(["--no-incremental", "--cache-dir", str(tmp_path), "--config-file", "", str(script)])
    assert 'Revealed type is "str | None"' in out or 'Revealed type is "builtins.str | None"' in out, out
    assert "list[" in out
    errors = [line for line in out.splitlines() if ": error:" in line]
    assert [line.split(":")[1] for line in errors] == ["6", "8"], out


class Where:
    """A serializer that remembers in which threads it worked."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def dumps(self, value: str) -> bytes:
        self.threads.add(threading.get_ident())
        return value.encode()

    def loads(self, data: bytes) -> str:
        self.threads.add(threading.get_ident())
        return data.decode()


def test_asyncio_has_large_batches_serialized_off_the_loop() -> None:
    where = Where()
    store = TieredStore([Memory()]).typed(where)
    many = {f"k{at}": "v" for at in range(typed.MANY)}

    async def main() -> None:
        await store.amset({"few": "v"})
        assert await store.amget(["few"]) == ["v"]
        assert where.threads == {threading.get_ident()}, "not worth a hop"
        where.threads.clear()
        await store.amset(many)
        assert await store.amget(many) == list(many.values())
        await store.aset("large", "v" * typed.LARGE)
        where.threads.clear()
        await store.aget("large")
        assert threading.get_ident() not in where.threads

    asyncio.run(main())
    store.mset(many)
    assert threading.get_ident() in where.threads, "a blocking call does it itself"
