"""Writes the golden records of format v1 that are missing: `python -m tests.golden.make`.

A golden file is never overwritten and never removed: it stands for what some release has stored somewhere. The
records are put together here by hand, from the table in tiered/record.py, so that a change of the encoder shows.
"""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
MANIFEST = "manifest.json"

VALUE, DELETED, INVALID = 0, 1, 2
STAMP = (1_700_000_000_000_000).to_bytes(8, "big") + b"\xde\xad\xbe\xef"
EXPIRES = 1_700_000_060_000
SOFT = bytes([1, 8]) + (1_700_000_030_000).to_bytes(8, "big")


class Golden(NamedTuple):
    """A record, and what decoding it must give: an entry, or the name of an error."""

    name: str
    key: str = "key"
    payload: bytes = b"value"
    kind: int = VALUE
    stamp: bytes = STAMP
    expires: int | None = None
    extension: bytes = b""
    soft: int | None = None
    codec: int = 0
    stored: bytes | None = None  # the payload as it is stored, where that differs
    version: int = 1
    spare: int = 0
    error: str | None = None
    same: bool = True  # whether today's encoder writes these very bytes

    def record(self) -> bytes:
        stored = self.payload if self.stored is None else self.stored
        flags = self.kind | (0 if self.expires is None else 8) | self.spare
        body = struct.pack(
            ">BB12sBBQHI",
            0xC1,
            self.version,
            self.stamp,
            flags,
            self.codec,
            self.expires or 0,
            len(self.extension),
            len(stored),
        )
        body += self.extension + stored
        return body + struct.pack("<I", zlib.crc32(body, zlib.crc32(self.key.encode())))

    def expected(self) -> dict[str, Any]:
        row: dict[str, Any] = {"file": f"{self.name}.bin", "key": self.key}
        if self.error:
            return row | {"error": self.error}
        return row | {
            "kind": self.kind,
            "stamp": self.stamp.hex(),
            "expires": self.expires,
            "soft": self.soft,
            "value": b64encode(self.payload).decode(),
            "same": self.same,
        }


TEXT = b"The quick brown fox jumps over the lazy dog. " * 40


def goldens() -> Iterator[Golden]:
    """Add new ones at the end; change none."""
    from zstandard import ZstdCompressor

    def zstd(payload: bytes, level: int = 3, *, checksum: bool = False) -> bytes:
        return ZstdCompressor(level=level, write_checksum=checksum).compress(payload)

    yield Golden("value")
    yield Golden("value-empty", payload=b"")
    yield Golden("value-expires", expires=EXPIRES)
    yield Golden("value-expires-at-zero", expires=0)
    yield Golden("value-expires-latest", expires=2**64 - 1)
    yield Golden("value-soft", expires=EXPIRES, extension=SOFT, soft=1_700_000_030_000)
    yield Golden("value-soft-no-expiry", extension=SOFT, soft=1_700_000_030_000)
    yield Golden("value-soft-empty", payload=b"", extension=bytes([1, 8]) + bytes(8), soft=0)
    yield Golden("value-stamp-zero", stamp=bytes(12))
    yield Golden("value-stamp-highest", stamp=b"\xff" * 12)
    yield Golden("value-all-bytes", payload=bytes(range(256)))
    yield Golden("value-like-a-record", payload=Golden("inner").record())
    yield Golden("value-like-zstd", payload=bytes.fromhex("28b52ffd2005110000") + b"hello")
    yield Golden("value-long", payload=bytes(i * i % 251 for i in range(20_000)))
    yield Golden("deleted", payload=b"", kind=DELETED)
    yield Golden("deleted-expires", payload=b"", kind=DELETED, expires=EXPIRES)
    yield Golden("deleted-stamp-zero", payload=b"", kind=DELETED, stamp=bytes(12))
    yield Golden("invalid", payload=b"", kind=INVALID)
    yield Golden("invalid-expires", payload=b"", kind=INVALID, expires=EXPIRES)
    yield Golden("lease-on-absence", payload=bytes(range(8)), kind=INVALID, stamp=bytes(12), expires=EXPIRES)
    yield Golden("lease-on-a-stamp", payload=b"\xff" * 8, kind=INVALID, expires=EXPIRES)
    yield Golden("key-one-letter", key="k")
    yield Golden("key-latin", key="clé/ßtraße")
    yield Golden("key-combining", key="cle\u0301")
    yield Golden("key-astral", key="\U0001f9ca\U0010ffff")
    yield Golden("key-nul", key="a\x00b")
    yield Golden("key-wildcards", key="100%_*?[x]\\'\"")
    yield Golden("key-long", key="k" * 3_000)
    yield Golden("zstd", payload=TEXT, codec=1, stored=zstd(TEXT), same=False)
    yield Golden("zstd-level-19", payload=TEXT, codec=1, stored=zstd(TEXT, 19), same=False)
    yield Golden("zstd-checksum", payload=TEXT, codec=1, stored=zstd(TEXT, checksum=True), same=False)
    yield Golden("zstd-empty", payload=b"", codec=1, stored=zstd(b""), same=False)
    yield Golden(
        "zstd-expires-soft",
        payload=TEXT,
        codec=1,
        stored=zstd(TEXT),
        expires=EXPIRES,
        extension=SOFT,
        soft=1_700_000_030_000,
        same=False,
    )
    yield Golden("tag-unknown-ignored", extension=bytes([2, 3]) + b"abc", same=False)
    yield Golden("tag-unknown-empty", extension=bytes([127, 0]), same=False)
    yield Golden("tags-around-soft", extension=b"\x05\x01x" + SOFT + b"\x06\x00", soft=1_700_000_030_000, same=False)
    yield Golden("tag-soft-of-another-length", extension=bytes([1, 4]) + b"abcd", same=False)
    yield Golden("tags-many", extension=b"\x07\x02ab" * 500, same=False)

    yield Golden("newer-version", version=2, error="UnknownVersion")
    yield Golden("newer-kind", kind=3, error="UnknownVersion")
    yield Golden("newer-kind-last", kind=7, error="UnknownVersion")
    for bit in range(4, 8):
        yield Golden(f"newer-flag-{bit}", spare=1 << bit, error="UnknownVersion")
    yield Golden("newer-codec-dictionary", codec=2, error="UnknownVersion")
    yield Golden("newer-codec-encryption", codec=3, error="UnknownVersion")
    yield Golden("newer-codec-last", codec=255, error="UnknownVersion")
    yield Golden("newer-tag-critical", extension=b"\x80\x00", error="UnknownVersion")
    yield Golden("newer-tag-after-soft", extension=SOFT + b"\xff\x01x", error="UnknownVersion")
    yield Golden("broken-extension-cut", extension=b"\x02\x09ab", error="CorruptEntry")
    yield Golden("broken-extension-half", extension=b"\x02", error="CorruptEntry")
    yield Golden("broken-zstd-junk", codec=1, stored=b"not a frame", error="CorruptEntry")
    yield Golden("broken-zstd-cut", codec=1, stored=zstd(TEXT)[:-5], error="CorruptEntry")
    claims = bytes.fromhex("28b52ffd") + b"\xe0" + (4 * 2**30).to_bytes(8, "little")
    yield Golden("broken-zstd-4-gib", codec=1, stored=claims + bytes(100), error="CorruptEntry")


def make(folder: Path) -> list[str]:
    """Write what is missing in `folder` -> its file names."""
    manifest = folder / MANIFEST
    rows = json.loads(manifest.read_text()) if manifest.exists() else []
    known = {row["file"] for row in rows}
    written = []
    for golden in goldens():
        row = golden.expected()
        file = folder / row["file"]
        if not file.exists():
            file.write_bytes(golden.record())
            written.append(file.name)
        if file.name not in known:
            rows.append(row)
    manifest.write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n")
    return written


if __name__ == "__main__":
    print(f"{len(make(FOLDER))} written, the rest was there")  # noqa: T201
