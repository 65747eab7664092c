"""LangChain's retrievers and embeddings over stores of ours: real objects, a model that only counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

core = pytest.importorskip("langchain_core.stores", reason="langchain-core is not installed")
classic = pytest.importorskip("langchain_classic.storage", reason="langchain-classic is not installed")
pytest.importorskip("langchain_text_splitters", reason="langchain-text-splitters is not installed")

from langchain_classic.embeddings import CacheBackedEmbeddings  # noqa: E402
from langchain_classic.retrievers import MultiVectorRetriever, ParentDocumentRetriever  # noqa: E402
from langchain_core.documents import Document  # noqa: E402
from langchain_core.embeddings import Embeddings  # noqa: E402
from langchain_core.vectorstores import InMemoryVectorStore  # noqa: E402
from langchain_text_splitters import CharacterTextSplitter  # noqa: E402

import tiered  # noqa: E402
from tests.foreign_kit import SyncOnly  # noqa: E402
from tiered import SQL, Foreign, Memory, TieredStore  # noqa: E402
from tiered.serializers import Document as Documents  # noqa: E402

BYTES: dict[str, Callable[[Path], Any]] = {
    "wrap(InMemoryByteStore)": lambda place: tiered.wrap(core.InMemoryByteStore()),
    "wrap(LocalFileStore)": lambda place: tiered.wrap(classic.LocalFileStore(place / "files")),
    "wrap(user's)": lambda place: tiered.wrap(SyncOnly(), namespace="docs"),
    "wrap(SQL)": lambda place: tiered.wrap(SQL(f"sqlite:///{place}/a.db")),
    "Foreign": lambda place: Foreign(core.InMemoryByteStore()),
    "memory > files > sqlite": lambda place: TieredStore(
        [Memory(), classic.LocalFileStore(place / "files"), SQL(f"sqlite:///{place}/a.db")]
    ),
}
DOCUMENTS: dict[str, Callable[[Path], Any]] = {
    "wrap(InMemoryStore)": lambda place: tiered.wrap(core.InMemoryStore(), serializer=Documents()),
    "wrap(create_kv_docstore)": lambda place: tiered.wrap(
        classic.create_kv_docstore(classic.LocalFileStore(place / "files")), serializer=Documents()
    ),
    "create_kv_docstore(wrap)": lambda place: classic.create_kv_docstore(tiered.wrap(core.InMemoryByteStore())),
    "typed": lambda place: tiered.wrap(SQL(f"sqlite:///{place}/a.db")).typed(Documents()),
}


class Counting(Embeddings):
    """Texts with the same letters are near."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += texts
        return [[float(text.lower().count(letter)) + 0.01 for letter in "abcdefghijkl"] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


@pytest.fixture(params=BYTES)
def byte_store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    store = BYTES[request.param](tmp_path)
    yield store
    store.close()


@pytest.fixture(params=DOCUMENTS)
def docstore(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return DOCUMENTS[request.param](tmp_path)


PARENTS = [
    Document(id="1", page_content="aaa bbb. aaa ccc", metadata={"id": "one", "n": [1, 2]}),
    Document(id="2", page_content="ddd eee. ddd fff \U0001f9ca", metadata={"id": "two"}),
]


async def finds_parents(retriever: Any) -> None:
    """Small parts are searched, what they are part of comes back, in both faces."""
    parts = [
        Document(page_content=part, metadata={"doc": parent.metadata["id"]})
        for parent in PARENTS
        for part in parent.page_content.split(". ")
    ]
    retriever.vectorstore.add_documents(parts)
    retriever.docstore.mset([(parent.metadata["id"], parent) for parent in PARENTS])
    assert [found.page_content for found in retriever.invoke("ccc aaa")][:1] == [PARENTS[0].page_content]
    [first, *_] = await retriever.ainvoke("fff ddd")
    assert (first.page_content, first.metadata) == (PARENTS[1].page_content, PARENTS[1].metadata)
    assert sorted(retriever.docstore.yield_keys()) == ["one", "two"]
    retriever.docstore.mdelete(["two"])
    assert retriever.docstore.mget(["two", "one"])[0] is None
    await retriever.docstore.amset([("two", PARENTS[1])])
    assert len(await retriever.docstore.amget(["two", "one", "none"])) == 3


async def test_multi_vector_retriever_takes_it_as_byte_store(byte_store: Any) -> None:
    await finds_parents(
        MultiVectorRetriever(vectorstore=InMemoryVectorStore(Counting()), byte_store=byte_store, id_key="doc")
    )


async def test_multi_vector_retriever_takes_it_as_docstore(docstore: Any) -> None:
    await finds_parents(
        MultiVectorRetriever(vectorstore=InMemoryVectorStore(Counting()), docstore=docstore, id_key="doc")
    )


def parent_document_retriever(**store: Any) -> ParentDocumentRetriever:
    return ParentDocumentRetriever(
        vectorstore=InMemoryVectorStore(Counting()),
        child_splitter=CharacterTextSplitter(separator=". ", chunk_size=8, chunk_overlap=0),
        **store,
    )


async def splits_and_finds(retriever: ParentDocumentRetriever) -> None:
    retriever.add_documents(PARENTS[:1], ids=["first"])
    await retriever.aadd_documents(PARENTS[1:], ids=["second"])
    assert retriever.invoke("ccc")[0].page_content == PARENTS[0].page_content
    assert (await retriever.ainvoke("fff"))[0].page_content == PARENTS[1].page_content
    assert retriever.docstore.mget(["second", "none", "first"])[1] is None


async def test_parent_document_retriever_takes_it_as_byte_store(byte_store: Any) -> None:
    await splits_and_finds(parent_document_retriever(byte_store=byte_store))
    assert sorted(byte_store.yield_keys()) == ["first", "second"]


async def test_parent_document_retriever_takes_it_as_docstore(docstore: Any) -> None:
    await splits_and_finds(parent_document_retriever(docstore=docstore))


async def test_it_lies_under_cache_backed_embeddings(byte_store: Any) -> None:
    model = Counting()
    cached = CacheBackedEmbeddings.from_bytes_store(
        model, byte_store, namespace="m-", key_encoder="sha256", query_embedding_cache=True
    )
    first = cached.embed_documents(["aa", "bb", "cc"])
    assert cached.embed_documents(["cc", "aa"]) == [first[2], first[0]]
    assert await cached.aembed_documents(["bb", "dd"]) == [first[1], model.embed_documents(["dd"])[0]]
    assert cached.embed_query("query") == await cached.aembed_query("query")
    assert model.texts == ["aa", "bb", "cc", "dd", "dd", "query"]
    assert len(list(byte_store.yield_keys(prefix="m-"))) == 5


async def test_it_lies_under_an_encoder_backed_store(byte_store: Any) -> None:
    store = classic.EncoderBackedStore(byte_store, lambda key: f"n{key}", lambda value: b"%d" % value, int)
    store.mset([(1, 10), (2, 20)])
    await store.amset([(3, 30)])
    assert store.mget([3, 9, 1]) == [30, None, 10]
    assert await store.amget([2]) == [20]
    assert sorted(store.yield_keys(prefix="n")) == ["n1", "n2", "n3"]
    store.mdelete([1])
    await store.amdelete([2])
    assert [key async for key in store.ayield_keys()] == ["n3"]


async def test_an_encoder_backed_store_can_lie_under_it() -> None:
    inner = classic.EncoderBackedStore(core.InMemoryByteStore(), str, lambda value: b"<" + value, lambda raw: raw[1:])
    store = tiered.wrap(inner)
    store.mset({"a": b"1"})
    assert inner.store.store == {"a": b"<1"}
    assert await tiered.wrap(inner).aget("a") == b"1"


def test_what_a_file_store_holds_already_is_served_by_the_retriever(tmp_path: Path) -> None:
    """Existing data, written by LangChain alone, before anybody thought of tiers."""
    files = classic.LocalFileStore(tmp_path)
    classic.create_kv_docstore(files).mset([("one", PARENTS[0])])
    retriever = MultiVectorRetriever(
        vectorstore=InMemoryVectorStore(Counting()), byte_store=tiered.wrap(files), id_key="doc"
    )
    retriever.vectorstore.add_documents([Document(page_content="aaa", metadata={"doc": "one"})])
    [found] = retriever.invoke("aaa")
    assert (found.page_content, found.metadata) == (PARENTS[0].page_content, PARENTS[0].metadata)
