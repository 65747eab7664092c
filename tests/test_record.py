"""Record format v1: golden files pin it, and nothing that was not written as it stands is ever decoded."""

from __future__ import annotations

import json
import random
import shutil
import struct
import tracemalloc
import zlib
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from zstandard import ZstdCompressor

from tests.golden import make
from tiered import Zstd, errors
from tiered.codecs import LIMIT, RAW, ZSTD, compress, decompress
from tiered.entry import DELETED, INVALID, VALUE, Entry
from tiered.errors import CorruptEntry, ForeignValue, TieredError, UnknownVersion
from tiered.record import HEADER, MAGIC, OVERHEAD, decode, decode_rows, encode

GOLDEN = Path(__file__).parent / "golden"
ROWS: list[dict[str, Any]] = json.loads((GOLDEN / make.MANIFEST).read_text())
REFUSED = (CorruptEntry, UnknownVersion, ForeignValue)

stamps = st.binary(min_size=12, max_size=12)
millis = st.integers(0, 2**64 - 1)
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.encode)
entries = st.one_of(
    st.builds(Entry, st.just(VALUE), stamps, st.none() | millis, st.binary(max_size=300), st.none() | millis),
    st.builds(Entry, st.just(DELETED), stamps, st.none() | millis, st.just(b""), st.none()),
    st.builds(
        Entry, st.just(INVALID), stamps, st.none() | millis, st.just(b"") | st.binary(min_size=8, max_size=8), st.none()
    ),
)
packings = st.sampled_from([None, Zstd(min_size=0).pack, Zstd(level=1).pack])


def record(row: dict[str, Any]) -> tuple[bytes, bytes]:
    """The key and the stored bytes of a golden file."""
    return row["key"].encode(), (GOLDEN / row["file"]).read_bytes()


def entry(row: dict[str, Any]) -> Entry:
    return Entry(row["kind"], bytes.fromhex(row["stamp"]), row["expires"], b64decode(row["value"]), row["soft"])


def sealed(key: bytes, body: bytes) -> bytes:
    """`body` with a checksum that is right: what only a writer, or an attacker, makes."""
    return body + struct.pack("<I", zlib.crc32(body, zlib.crc32(key)))


def outcome(key: bytes, raw: bytes) -> Entry | TieredError:
    """What decoding gives: an entry or a typed error, never anything else."""
    try:
        return decode(key, raw)
    except TieredError as error:
        return error


def refusal(key: bytes, raw: bytes) -> TieredError:
    """Why `raw` is not decoded; fails when it is."""
    found = outcome(key, raw)
    assert isinstance(found, REFUSED), f"{raw!r} was decoded"
    assert found.message
    return found


def flips(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Every single-bit change, with its bit; of a long record all of its header and a sample of the rest."""
    bits = range(8 * len(raw))
    if len(raw) > 500:
        bits = sorted({*range(8 * HEADER), *random.Random(len(raw)).sample(bits, 2_000), bits[-1]})
    whole = int.from_bytes(raw, "big")
    for bit in bits:
        yield bit, (whole ^ 1 << (8 * len(raw) - 1 - bit)).to_bytes(len(raw), "big")


# -- golden files --------------------------------------------------------------------------------------------------


def test_there_are_golden_files_of_every_kind() -> None:
    assert len(ROWS) == len({row["file"] for row in ROWS}) >= 30
    assert {row["file"] for row in ROWS} == {file.name for file in GOLDEN.glob("*.bin")}
    assert {row.get("kind") for row in ROWS} >= {VALUE, DELETED, INVALID}
    codecs = {record(row)[1][15] for row in ROWS if "error" not in row}
    assert codecs == {RAW, ZSTD}
    assert {row.get("error") for row in ROWS} == {None, "UnknownVersion", "CorruptEntry"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"].removesuffix(".bin"))
def test_invariant_7_golden_files_decode_as_the_manifest_says(row: dict[str, Any]) -> None:
    key, raw = record(row)
    if "error" in row:
        assert type(refusal(key, raw)) is getattr(errors, row["error"])
        [found] = decode_rows([key], [(raw,)])
        assert type(found) is getattr(errors, row["error"])
        return
    assert decode(key, raw) == entry(row)
    assert type(decode(key, raw)) is Entry
    assert decode_rows([key], [(raw,)]) == [entry(row)]
    assert (encode(key, entry(row)) == raw) is row["same"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"].removesuffix(".bin"))
def test_golden_files_altered_in_one_bit_or_cut_are_refused(row: dict[str, Any]) -> None:
    key, raw = record(row)
    for bit, altered in flips(raw):
        error = refusal(key, altered)
        if raw[1] == 1:
            assert type(error) in ((CorruptEntry, UnknownVersion) if 8 <= bit < 16 else (CorruptEntry,)), error
    for length in (
        range(len(raw)) if len(raw) < 500 else [*range(OVERHEAD + 8), *range(100, len(raw), 97), len(raw) - 1]
    ):
        refusal(key, raw[:length])
    refusal(key, raw + b"\0")
    refusal(key, raw * 2)
    refusal(key + b"x", raw)


def test_the_generator_writes_what_is_missing_and_overwrites_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    manifest = (folder / make.MANIFEST).read_bytes()
    (folder / "value.bin").unlink()
    (folder / "deleted.bin").write_bytes(b"kept as it is")
    assert make.make(folder) == ["value.bin"]
    assert (folder / "value.bin").read_bytes() == (GOLDEN / "value.bin").read_bytes()
    assert (folder / "deleted.bin").read_bytes() == b"kept as it is"
    assert (folder / make.MANIFEST).read_bytes() == manifest
    assert make.make(folder) == []


# -- the bytes themselves ------------------------------------------------------------------------------------------


def test_the_stamp_lies_where_servers_compare_it_and_nothing_else_begins_so() -> None:
    raw = encode(b"k", Entry(VALUE, b"123456789012", None, b"v"))
    assert raw[0] == MAGIC
    assert raw[2:14] == b"123456789012"
    with pytest.raises(UnicodeDecodeError):
        bytes([MAGIC]).decode()
    for other in (b"{", b"[", b'"', b"\x80\x04", b"(", compress(b"zstd", 3), b"\x93", b"\xdf"):
        assert other[0] != MAGIC


@given(keys, entries, packings)
@example(b"k", Entry(VALUE, bytes(12), 0, b"", 0), None)
@example(b"k", Entry(VALUE, b"\xff" * 12, 2**64 - 1, bytes(300), 2**64 - 1), Zstd(min_size=0).pack)
def test_what_is_encoded_is_decoded(key: bytes, given: Entry, packing: Any) -> None:
    raw = encode(key, given, packing)
    assert decode(key, raw) == given
    assert decode_rows([key, key], [(raw,), (None,)]) == [given, None]


@settings(max_examples=60, deadline=None)
@given(keys, entries, packings)
def test_every_truncation_and_every_single_bit_flip_is_rejected(key: bytes, given: Entry, packing: Any) -> None:
    raw = encode(key, given, packing)
    for bit, altered in flips(raw):
        error = refusal(key, altered)
        assert bit >= 8 or type(error) is CorruptEntry
        assert 8 <= bit < 16 or type(error) is CorruptEntry
    for length in range(len(raw)):
        assert type(refusal(key, raw[:length])) is CorruptEntry


@given(keys, keys, entries)
def test_a_record_of_another_key_is_rejected(key: bytes, other: bytes, given: Entry) -> None:
    if key == other:
        other += b"2"
    assert type(refusal(other, encode(key, given))) is CorruptEntry


@given(keys, st.binary(max_size=200), st.sampled_from([b"", b"\xc1", b"\xc1\x01", b"\xc1\x02"]))
@example(b"k", b"", b"")
def test_random_junk_never_decodes(key: bytes, junk: bytes, beginning: bytes) -> None:
    error = refusal(key, beginning + junk)
    assert (type(error) is ForeignValue) == (bool(beginning + junk) and (beginning + junk)[0] != MAGIC)


@pytest.mark.parametrize("text", ['{"a": 1}', "plain text", "\U0001f9ca", "x" * 100])
def test_what_others_store_is_foreign_and_names_no_damage(text: str) -> None:
    assert type(refusal(b"k", text.encode())) is ForeignValue


@settings(max_examples=300)
@given(
    keys,
    st.integers(0, 3),
    st.integers(0, 255),
    st.integers(0, 4),
    st.integers(0, 40),
    st.integers(0, 60),
    st.binary(max_size=60),
)
def test_a_right_checksum_over_nonsense_gives_an_entry_or_a_typed_error(
    key: bytes, version: int, flags: int, codec: int, more: int, size: int, rest: bytes
) -> None:
    body = struct.pack(">BB12sBBQHI", MAGIC, version, bytes(12), flags, codec, 5, more, size) + rest
    raw = sealed(key, body)
    found = outcome(key, raw)
    if isinstance(found, TieredError):
        assert isinstance(found, REFUSED)
        known = version == 1 and not flags & 0xF0 and flags & 7 <= INVALID and codec in (RAW, ZSTD)
        assert known or isinstance(found, UnknownVersion)
    else:
        assert (version, flags & 0xF0, len(rest)) == (1, 0, more + size)
        assert found.kind == flags & 7 <= INVALID
        assert found.expires == (5 if flags & 8 else None)
    [listed] = decode_rows([key], [(raw,)])
    assert isinstance(listed, Entry | CorruptEntry | UnknownVersion)


@given(keys, st.binary(max_size=60))
def test_a_right_checksum_over_anything_gives_a_typed_error(key: bytes, body: bytes) -> None:
    with pytest.raises(TieredError):
        decode(key, sealed(key, body))


@pytest.mark.parametrize(
    ("at", "bits"), [(14, 3), (14, 7), (14, 0x10), (14, 0x20), (14, 0x40), (14, 0x80), (15, 2), (15, 3), (15, 99)]
)
def test_kinds_flags_and_codecs_of_a_newer_release_are_unknown_versions(at: int, bits: int) -> None:
    body = bytearray(encode(b"k", Entry(VALUE, bytes(12), None, b"v"))[:-4])
    body[at] |= bits
    error = refusal(b"k", sealed(b"k", bytes(body)))
    assert type(error) is UnknownVersion
    assert "upgrade" in error.message


@pytest.mark.parametrize("version", [2, 3, 255])
def test_a_newer_version_is_recognised_whatever_follows_its_first_bytes(version: int) -> None:
    for rest in (b"", bytes(3), bytes(80)):
        assert type(refusal(b"k", sealed(b"k", bytes([MAGIC, version]) + rest))) is UnknownVersion


@given(st.lists(st.tuples(st.integers(2, 255), st.binary(max_size=20)), max_size=6), st.none() | millis)
def test_unknown_tags_below_128_are_ignored_and_others_refuse_the_record(
    tags: list[tuple[int, bytes]], soft: int | None
) -> None:
    extension = b"".join(bytes([tag, len(body)]) + body for tag, body in tags)
    if soft is not None:
        extension += bytes([1, 8]) + soft.to_bytes(8, "big")
    body = struct.pack(">BB12sBBQHI", MAGIC, 1, bytes(12), 0, 0, 0, len(extension), 3) + extension + b"abc"
    raw = sealed(b"k", body)
    if any(tag >= 128 for tag, _ in tags):
        assert type(refusal(b"k", raw)) is UnknownVersion
    else:
        assert decode(b"k", raw) == Entry(VALUE, bytes(12), None, b"abc", soft)


# -- rows of a table -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [0, 1, 2.5, "text", "", True])
def test_a_column_of_the_wrong_type_is_a_corrupt_entry_and_spares_its_neighbours(column: Any) -> None:
    good = Entry(VALUE, bytes(12), None, b"v")
    first, found, last = decode_rows([b"a", b"b", b"c"], [(encode(b"a", good),), (column,), (encode(b"c", good),)])
    assert (first, last) == (good, good)
    assert type(found) is CorruptEntry


@given(keys, st.binary(max_size=100), st.booleans())
def test_decoding_rows_agrees_with_decoding_one(key: bytes, junk: bytes, right: bool) -> None:
    raw = sealed(key, junk) if right else junk
    error = refusal(key, raw)
    [found] = decode_rows([key], [(raw,)])
    expected = CorruptEntry if type(error) is ForeignValue else type(error)  # nothing else belongs in that table
    assert type(found) is expected


def test_swapped_rows_are_both_corrupt() -> None:
    a, b = (encode(key, Entry(VALUE, bytes(12), None, b"same")) for key in (b"a", b"b"))
    assert [type(found) for found in decode_rows([b"a", b"b"], [(b,), (a,)])] == [CorruptEntry, CorruptEntry]


# -- compression ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [LIMIT + 1, 4 * 2**30, 2**63, 2**64 - 1])
def test_a_frame_that_claims_too_much_is_refused_without_the_memory(claim: int) -> None:
    frame = bytes.fromhex("28b52ffd") + b"\xe0" + claim.to_bytes(8, "little") + bytes(100)
    body = struct.pack(">BB12sBBQHI", MAGIC, 1, bytes(12), 0, ZSTD, 0, 0, len(frame)) + frame
    raw = sealed(b"k", body)
    refusal(b"k", raw)  # imports, contexts
    tracemalloc.start()
    try:
        error = refusal(b"k", raw)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert type(error) is CorruptEntry
    assert peak < 2**20


def test_a_frame_beyond_a_limit_or_without_a_size_is_refused() -> None:
    payload = bytes(5_000)
    frame = compress(payload, 3)
    assert decompress(frame, limit=5_000) == payload
    with pytest.raises(CorruptEntry, match="claims 5000 bytes; the limit is 4999"):
        decompress(frame, limit=4_999)
    streamed = ZstdCompressor(write_content_size=False).compress(payload)
    with pytest.raises(CorruptEntry):
        decompress(streamed)
    with pytest.raises(CorruptEntry, match="cannot be unpacked"):
        decompress(frame[:-1])
    with pytest.raises(CorruptEntry):
        decompress(b"")


@given(st.binary(max_size=2_000), st.integers(0, 2_000), st.integers(1, 22))
@example(bytes(2_000), 2_001, 3)
@example(bytes(2_000), 2_000, 3)
@settings(max_examples=50, deadline=None)
def test_values_are_packed_only_from_the_size_on_and_only_when_it_gains_a_tenth(
    payload: bytes, min_size: int, level: int
) -> None:
    codec, stored = Zstd(level=level, min_size=min_size).pack(payload)
    if codec == RAW:
        assert stored is payload
        assert len(payload) < min_size or len(compress(payload, level)) > 0.9 * len(payload)
    else:
        assert codec == ZSTD
        assert len(payload) >= min_size
        assert len(stored) <= 0.9 * len(payload)
        assert decompress(stored) == payload


def test_packing_is_decided_at_exactly_a_tenth() -> None:
    """A payload whose frame is 90 % of it, to the byte, is packed; one byte more of noise, and it is not."""
    noise = random.Random(1).randbytes(4_000)
    packed = {zeros: Zstd().pack(noise + bytes(zeros))[0] for zeros in range(300, 600)}
    sizes = {zeros: len(compress(noise + bytes(zeros), 3)) / (4_000 + zeros) for zeros in packed}
    assert set(packed.values()) == {RAW, ZSTD}
    for zeros, codec in packed.items():
        assert (codec == ZSTD) == (sizes[zeros] <= 0.9)


def test_leases_are_never_packed() -> None:
    lease = Entry(INVALID, bytes(12), None, bytes(8))
    assert encode(b"k", lease, Zstd(min_size=0).pack) == encode(b"k", lease)
