"""LangChain's documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CorruptEntry, InvalidValue
from .packed import Msgpack
from .shapes import Shape

if TYPE_CHECKING:
    from langchain_core.documents import Document as LangChainDocument


class Document:
    """LangChain's `Document`: text, id, and metadata of whatever `Msgpack()` takes, which come back as they were.

    Subclasses are refused. Raises ImportError at once where langchain-core is not installed.
    """

    def __init__(self) -> None:
        try:
            from langchain_core.documents import Document as LangChainDocument
        except ImportError as error:
            raise ImportError("Document() needs LangChain: pip install 'tiered[langchain]'") from error
        self._kind = LangChainDocument

        def make(fields: Any) -> LangChainDocument:
            text, metadata, name = fields
            if type(text) is not str or type(metadata) is not dict or not isinstance(name, str | None):
                raise CorruptEntry("a stored document has fields of other types than it was written with")
            return LangChainDocument(page_content=text, metadata=metadata, id=name)

        # a name of our own: LangChain may move its class
        shape = Shape("langchain.Document", lambda it: [it.page_content, it.metadata, it.id], make)
        self._packed = Msgpack.of({LangChainDocument: shape})

    def __repr__(self) -> str:
        return "Document()"

    def dumps(self, value: LangChainDocument, /) -> bytes:
        if type(value) is not self._kind:
            raise InvalidValue(f"Document takes LangChain's Document, not {type(value).__qualname__}")
        return self._packed.dumps(value)

    def loads(self, data: bytes, /) -> LangChainDocument:
        value = self._packed.loads(data)
        if type(value) is not self._kind:
            raise CorruptEntry(f"this is a {type(value).__qualname__}, not a document: Msgpack wrote it")
        return value
