"""The contract of every store, kept by stores of somebody else's in both layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.contract import test_base_store
from tests.contract.faces import FACES, face
from tests.foreign_kit import Both, SyncOnly
from tiered.backends.foreign import Foreign

core = pytest.importorskip("langchain_core.stores", reason="langchain-core is not installed")
suites = pytest.importorskip("langchain_tests.integration_tests", reason="langchain-tests is not installed")

KINDS: dict[str, Callable[[], Any]] = {
    "plain in memory": lambda: Foreign(core.InMemoryByteStore()),
    "records in memory": lambda: Foreign(core.InMemoryByteStore(), layout="record"),
    "plain in threads": lambda: Foreign(SyncOnly(), namespace="a:b"),
    "records in threads": lambda: Foreign(SyncOnly(), layout="record", namespace="t1:"),
    "plain both": lambda: Foreign(Both()),
    "records both": lambda: Foreign(Both(), layout="record"),
}


@pytest.fixture(params=[(kind, name) for kind in KINDS for name in FACES], ids=" | ".join)
def store(request: pytest.FixtureRequest) -> Iterator[Any]:
    kind, name = request.param
    opened = face(name, KINDS[kind]())
    yield opened
    opened.done()


class Given:
    """What LangChain's own suites ask for."""

    @pytest.fixture(params=KINDS)
    def kv_store(self, request: pytest.FixtureRequest) -> Iterator[Any]:
        store = KINDS[request.param]()
        yield store
        store.close()

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"foo", b"", bytes(range(256))


class TestSync(Given, suites.BaseStoreSyncTests[bytes]):
    pass


class TestAsync(Given, suites.BaseStoreAsyncTests[bytes]):
    pass


for _name, _test in vars(test_base_store).items():
    if _name.startswith("test_"):
        globals()[_name] = _test
