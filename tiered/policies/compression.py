"""How values are packed on their way into a tier."""

from __future__ import annotations

from dataclasses import dataclass

from ..codecs import RAW, ZSTD, compress
from ..errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Zstd:
    """Compress with zstd, from `min_size` bytes on, and only where it saves at least a tenth.

    `level` is zstd's, 1 to 22. Any tier reads what any other setting wrote: each record names its codec.
    """

    level: int = 3
    min_size: int = 256

    def __post_init__(self) -> None:
        if type(self.level) is not int or not 1 <= self.level <= 22:
            raise ConfigurationError(f"Zstd(level={self.level!r}): a level is an int from 1 to 22")
        if type(self.min_size) is not int or self.min_size < 0:
            raise ConfigurationError(f"Zstd(min_size={self.min_size!r}): a size is a number of bytes")

    def pack(self, payload: bytes) -> tuple[int, bytes]:
        """The codec id and the bytes to store."""
        if len(payload) >= self.min_size:
            packed = compress(payload, self.level)
            if len(packed) * 10 <= len(payload) * 9:
                return ZSTD, packed
        return RAW, payload
