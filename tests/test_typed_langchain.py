"""Typed stores where LangChain takes a store: its standard suites, and a retriever's docstore."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core.stores", reason="langchain-core is not installed")
suites = pytest.importorskip("langchain_tests.integration_tests", reason="langchain-tests is not installed")

from langchain_core.documents import Document  # noqa: E402
from langchain_core.embeddings import DeterministicFakeEmbedding  # noqa: E402
from langchain_core.stores import InMemoryByteStore  # noqa: E402
from langchain_core.vectorstores import InMemoryVectorStore  # noqa: E402

import tiered  # noqa: E402
from tiered.serializers import Document as Documents  # noqa: E402
from tiered.serializers import Json, Msgpack, Str  # noqa: E402
from tiered.typed import TypedStore  # noqa: E402

SERIALIZERS = {"Json": Json(), "Msgpack": Msgpack(), "Str": Str()}


class Given:
    @pytest.fixture(params=SERIALIZERS)
    def kv_store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
        with tiered.open("memory://", f"sqlite:///{tmp_path}/x.db") as store:
            yield store.typed(SERIALIZERS[request.param])

    @pytest.fixture
    def three_values(self) -> tuple[str, str, str]:
        return "foo", "", "ä\0"


class TestSync(Given, suites.BaseStoreSyncTests[str]):
    pass


class TestAsync(Given, suites.BaseStoreAsyncTests[str]):
    @pytest.fixture(params=SERIALIZERS)
    async def kv_store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        async with tiered.open("memory://", f"sqlite:///{tmp_path}/x.db") as store:
            yield store.typed(SERIALIZERS[request.param])


def test_a_typed_store_goes_around_langchains_own() -> None:
    below = InMemoryByteStore()
    store = TypedStore(below, Msgpack())
    store.mset([("a", (1,)), ("b", {"x"})])
    assert store.mget(["a", "b", "c"]) == [(1,), {"x"}, None]
    assert sorted(store.yield_keys()) == ["a", "b"]
    store.delete("a")
    assert list(below.yield_keys()) == ["b"]


def test_a_retriever_keeps_its_documents_in_a_typed_store(tmp_path: Path) -> None:
    retrievers = pytest.importorskip("langchain_classic.retrievers.multi_vector")
    with tiered.open("memory://", f"sqlite:///{tmp_path}/x.db", namespace="docs") as store:
        docstore = store.typed(Documents())
        vectors = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
        retriever = retrievers.MultiVectorRetriever(vectorstore=vectors, docstore=docstore, id_key="doc")
        whole = Document(page_content="the whole text", metadata={"page": (1, 2)}, id="7")
        vectors.add_documents([Document(page_content="a part", metadata={"doc": "7"})])
        docstore.mset([("7", whole)])
        assert retriever.invoke("a part") == [whole]
    with tiered.open(f"sqlite:///{tmp_path}/x.db", namespace="docs") as again:
        assert again.typed(Documents()).get("7") == whole
