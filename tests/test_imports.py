"""What importing tiered costs, the names it shows, and the base class with and without LangChain."""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

import tiered

HEAVY = [
    "asyncio",
    "tenacity",
    "sqlalchemy",
    "redis",
    "numpy",
    "langchain_core",
    "zstandard",
    "aiosqlite",
    "sqlite3",
    "msgpack",
]
NAMES = [
    "SQL",
    "TTL",
    "Foreign",
    "Memory",
    "Tier",
    "TieredStore",
    "WriteAround",
    "WriteThrough",
    "Zstd",
    "bypass",
    "cached",
    "errors",
    "from_config",
    "open",
    "wrap",
]
METHODS = ["mget", "mset", "mdelete", "yield_keys", "amget", "amset", "amdelete", "ayield_keys"]

WITHOUT_LANGCHAIN = "import sys; sys.modules['langchain_core'] = sys.modules['langchain_core.stores'] = None\n"


def python(code: str) -> Any:
    """What a new interpreter prints, as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_importing_tiered_imports_nothing_heavy() -> None:
    code = f"import json, sys, tiered; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    assert python(code) == []


def test_policies_and_errors_are_light_too() -> None:
    code = (
        "import json, sys, tiered; tiered.TTL(5); tiered.Zstd(); tiered.WriteThrough(); tiered.errors.BatchError('x')\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    assert python(code) == []


def test_a_memory_stack_starts_without_a_database_or_a_loop() -> None:
    code = WITHOUT_LANGCHAIN + (
        "import json, tiered; store = tiered.open('memory://'); store.set('a', b'1'); store.mget(['a', 'b'])\n"
        "absent = ['asyncio', 'tenacity', 'sqlalchemy', 'aiosqlite', 'numpy']\n"
        "print(json.dumps([name for name in absent if name in sys.modules]))"
    )
    assert python(code) == []


def test_the_public_names_are_there_and_listed() -> None:
    assert sorted([*tiered.__all__, "open"]) == sorted(NAMES), "`import *` must not replace the built-in open"
    assert set(NAMES) | {"__version__"} <= set(dir(tiered))
    for name in NAMES:
        value = getattr(tiered, name)
        assert name == "errors" or value.__doc__, f"{name} says nothing of itself"
    namespace: dict[str, Any] = {}
    exec("from tiered import *", namespace)
    assert set(NAMES) - {"open"} <= set(namespace)
    assert "open" not in namespace
    with pytest.raises(AttributeError, match="no attribute 'Reddis'"):
        tiered.Reddis  # noqa: B018
    with pytest.raises(ImportError):
        exec("from tiered import Reddis")


def test_names_are_the_same_objects_wherever_they_are_found() -> None:
    from tiered import policies, testing

    assert policies.TTL is tiered.TTL
    assert policies.Zstd is tiered.Zstd
    assert policies.WriteThrough is tiered.WriteThrough
    assert testing.FakeClock.__doc__


def test_the_backends_are_found_in_tiered_backends() -> None:
    from tiered import backends

    assert backends.Memory is tiered.Memory
    assert backends.SQL is tiered.SQL


def test_the_errors_are_those_of_the_design() -> None:
    from tiered import errors

    parents = {
        "TieredError": Exception,
        "ConfigurationError": ValueError,
        "InvalidKey": ValueError,
        "InvalidValue": TypeError,
        "Unsupported": errors.TieredError,
        "BackendUnavailable": ConnectionError,
        "Indeterminate": errors.TieredError,
        "BatchError": errors.TieredError,
        "CorruptEntry": errors.TieredError,
        "UnknownVersion": errors.TieredError,
        "ForeignValue": errors.TieredError,
        "StoreClosed": errors.TieredError,
    }
    for name, parent in parents.items():
        error = getattr(errors, name)
        assert issubclass(error, parent)
        assert issubclass(error, errors.TieredError)
        made = error("what to do", tier="redis")
        assert (made.tier, str(made)) == ("redis", "[redis] what to do")
        assert error("what to do").tier is None
        assert str(error("what to do")) == "what to do"
        assert made.at("other").tier == "redis"
        assert error("x").at("other").tier == "other"
    batch = errors.BatchError("x", written=iter("a"), not_written=("b",), unknown={"c": 1})
    assert (batch.written, batch.not_written, batch.unknown) == (["a"], ["b"], ["c"])


def test_errors_travel_between_processes() -> None:
    import pickle

    from tiered import errors

    batch = errors.BatchError("told", written=["a"], not_written=["b"], unknown=["c"], tier="sqlite")
    back = pickle.loads(pickle.dumps(batch))
    assert (str(back), back.tier, back.written, back.unknown) == ("[sqlite] told", "sqlite", ["a"], ["c"])
    gone = pickle.loads(pickle.dumps(errors.BackendUnavailable("gone", tier="sqlite")))
    assert (str(gone), gone.tier) == ("[sqlite] gone", "sqlite")


# -- BaseStore -----------------------------------------------------------------------------------------------------

OWN = (
    WITHOUT_LANGCHAIN
    + """
import asyncio, inspect, json
from tiered.base import BaseStore

class Plain(BaseStore[str, bytes]):
    def __init__(self):
        self.kept = {}
    def mget(self, keys):
        return [self.kept.get(key) for key in keys]
    def mset(self, key_value_pairs):
        self.kept.update(key_value_pairs)
    def mdelete(self, keys):
        for key in keys:
            self.kept.pop(key, None)
    def yield_keys(self, *, prefix=None):
        yield from [key for key in self.kept if key.startswith(prefix or "")]
"""
)


def test_without_langchain_there_is_an_equal_base_class_whose_async_methods_work() -> None:
    code = (
        OWN
        + """
async def use():
    store = Plain()
    await store.amset([("a", b"1"), ("ab", b"2"), ("b", b"3")])
    await store.amdelete(["b", "zzz"])
    values = await store.amget(["ab", "b", "a"])
    listed = [key async for key in store.ayield_keys(prefix="ab")]
    everything = [key async for key in store.ayield_keys()]
    return [[value and value.decode() for value in values], listed, everything]

missing = []
for name in ("mget", "mset", "mdelete", "yield_keys"):
    try:
        type("Partial", (Plain,), {name: BaseStore.__dict__[name]})()
    except TypeError:
        missing.append(name)
print(json.dumps([asyncio.run(use()), missing, BaseStore.__module__]))
"""
    )
    got, abstract, module = python(code)
    assert got == [["2", None, "1"], ["ab"], ["a", "ab"]]
    assert abstract == ["mget", "mset", "mdelete", "yield_keys"]
    assert module == "tiered.base"


def test_without_langchain_stores_work_as_they_do_with_it() -> None:
    code = (
        WITHOUT_LANGCHAIN
        + """
import asyncio, json, tempfile, tiered
from tiered.base import BaseStore

async def use(store):
    await store.amset({"a": b"1"})
    return [value.decode() for value in await store.amget(["a"])] + [key async for key in store.ayield_keys()]

with tempfile.TemporaryDirectory() as folder, tiered.open("memory://", f"sqlite:///{folder}/x.db") as store:
    print(json.dumps([isinstance(store, BaseStore), asyncio.run(use(store)), store.get("a").decode()]))
"""
    )
    assert python(code) == [True, ["1", "a"], "1"]


@pytest.mark.skipif(not importlib.util.find_spec("langchain_core"), reason="langchain-core is not installed")
def test_with_langchain_its_class_is_the_base_and_ours_has_the_same_signatures() -> None:
    from langchain_core.stores import BaseStore

    from tiered.base import BaseStore as Base

    assert Base is BaseStore
    shape = "[[p.name, p.kind.name, p.default is p.empty] for p in inspect.signature(method).parameters.values()]"
    listed = f"methods = [getattr(BaseStore, name) for name in {METHODS}]\n"
    ours = python(OWN + listed + f"print(json.dumps([{shape} for method in methods]))")
    theirs = [inspect.signature(getattr(BaseStore, name)).parameters.values() for name in METHODS]
    assert ours == [[[p.name, p.kind.name, p.default is p.empty] for p in parameters] for parameters in theirs]
    assert {name for name in METHODS if callable(getattr(tiered.TieredStore, name))} == set(METHODS)
