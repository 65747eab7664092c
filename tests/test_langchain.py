"""LangChain's standard suites over every kind of store, and its classes that take a byte store."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

stores = pytest.importorskip("langchain_core.stores", reason="langchain-core is not installed")
suites = pytest.importorskip("langchain_tests.integration_tests", reason="langchain-tests is not installed")

from tests.contract.matrix import BARE, STACKS  # noqa: E402
from tiered import TieredStore  # noqa: E402
from tiered.base import BaseStore  # noqa: E402

KINDS = [*BARE, "memory", "sqlite", "memory > sqlite", "memory > sqlite > sqlite", "sliding memory > sqlite"]


def made(kind: str, place: Path) -> Any:
    return BARE[kind](place) if kind in BARE else TieredStore(STACKS[kind](place), namespace="langchain")


class Given:
    """What both suites ask for."""

    @pytest.fixture(params=KINDS)
    def kv_store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
        store = made(request.param, tmp_path)
        yield store
        store.close()

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"foo", b"", bytes(range(256))


class TestSync(Given, suites.BaseStoreSyncTests[bytes]):
    pass


class TestAsync(Given, suites.BaseStoreAsyncTests[bytes]):
    @pytest.fixture
    async def kv_store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        store = made(request.param, tmp_path)
        yield store
        await store.aclose()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.cls is TestAsync and "kv_store" in metafunc.fixturenames:
        metafunc.parametrize("kv_store", KINDS, indirect=True)


@pytest.fixture(params=["SQL()", "Memory()", "memory > sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    store = made(request.param, tmp_path)
    yield store
    store.close()


def test_every_store_is_a_langchain_base_store(store: Any) -> None:
    assert BaseStore is stores.BaseStore
    assert isinstance(store, stores.BaseStore)
    assert bool(store) is True


def load(name: str, *homes: str) -> Any:
    """A class of LangChain's by name, from whichever package of its has it."""
    for home in homes:
        try:
            return getattr(importlib.import_module(home), name)
        except (ImportError, AttributeError):
            continue
    pytest.skip(f"{name} is in none of {', '.join(homes)}")


def counting_embeddings() -> Any:
    from langchain_core.embeddings import Embeddings

    class Counting(Embeddings):
        texts = 0

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            self.texts += len(texts)
            return [[float(len(text)), 0.5] for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return self.embed_documents([text])[0]

    return Counting()


async def test_it_is_the_byte_store_of_cache_backed_embeddings(store: Any) -> None:
    cached = load("CacheBackedEmbeddings", "langchain_classic.embeddings", "langchain.embeddings")
    model = counting_embeddings()
    embedder = cached.from_bytes_store(model, store, namespace="counting", key_encoder="sha256")
    first = embedder.embed_documents(["a", "bb", "ccc"])
    assert embedder.embed_documents(["ccc", "a", "bb"]) == [first[2], first[0], first[1]]
    assert await embedder.aembed_documents(["bb", "dddd"]) == [first[1], [4.0, 0.5]]
    assert model.texts == 4
    assert len(list(store.yield_keys(prefix="counting"))) == 4


async def test_it_is_the_byte_store_of_a_document_store(store: Any) -> None:
    create = load("create_kv_docstore", "langchain_classic.storage", "langchain.storage")
    from langchain_core.documents import Document

    docs = create(store)
    documents = [(f"d{at}", Document(page_content="text \U0001f9ca" * at, metadata={"at": at})) for at in range(3)]
    docs.mset(documents)
    assert docs.mget(["d2", "none", "d0"]) == [documents[2][1], None, documents[0][1]]
    assert await docs.amget(["d1"]) == [documents[1][1]]
    assert sorted(docs.yield_keys(prefix="d")) == ["d0", "d1", "d2"]
    docs.mdelete(["d1"])
    assert docs.mget(["d1"]) == [None]


def test_pydantic_consumers_take_it(store: Any) -> None:
    """They check is-instance on the generic's origin, and some test for truth and then drop an empty store."""
    retriever = load("MultiVectorRetriever", "langchain_classic.retrievers", "langchain.retrievers.multi_vector")
    vectors = load("InMemoryVectorStore", "langchain_core.vectorstores")
    made = retriever(vectorstore=vectors(counting_embeddings()), byte_store=store, id_key="id")
    from langchain_core.documents import Document

    made.docstore.mset([("a", Document(page_content="x"))])
    assert list(store.yield_keys()) == ["a"]
