"""zstd, one context a thread (a context is not safe to share)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .errors import CorruptEntry

if TYPE_CHECKING:
    from zstandard import ZstdCompressor, ZstdDecompressor

RAW, ZSTD = 0, 1
"""Codec ids of record format v1. Reserved: 2 (zstd with a dictionary), 3 (encryption)."""

LIMIT = 512 * 2**20
"""The most bytes that a stored frame may unpack to."""


class _Contexts(threading.local):
    def __init__(self) -> None:
        self.compressors: dict[int, ZstdCompressor] = {}
        self.decompressor: ZstdDecompressor | None = None


_contexts = _Contexts()


def compress(payload: bytes, level: int) -> bytes:
    """One zstd frame that states its content size."""
    compressor = _contexts.compressors.get(level)
    if compressor is None:
        from zstandard import ZstdCompressor  # 25 ms, only where it is used

        compressor = _contexts.compressors[level] = ZstdCompressor(level=level)
    return compressor.compress(payload)


def decompress(frame: bytes, limit: int = LIMIT) -> bytes:
    """The content of a frame; CorruptEntry if it is damaged, states no size, or claims more than `limit` bytes."""
    import zstandard

    try:
        size = zstandard.frame_content_size(frame)
        if not 0 <= size <= limit:  # -1: no size stated; judged before a byte is allocated
            raise CorruptEntry(f"a compressed value claims {size} bytes; the limit is {limit}")
        if _contexts.decompressor is None:
            _contexts.decompressor = zstandard.ZstdDecompressor()
        return _contexts.decompressor.decompress(frame)
    except zstandard.ZstdError as error:
        raise CorruptEntry(f"a compressed value cannot be unpacked: {error}") from error
