"""Serializers: Json, Str and Document, and what each of all makes of the others' bytes."""

# ruff: noqa: DTZ901 (naive moments are values too)

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serializer_kit import (
    PLAIN,
    Level,
    Name,
    Point,
    Text,
    deep,
    looped,
    same,
)
from tiered.errors import CorruptEntry, InvalidValue
from tiered.serializers import Json, Msgpack, Str, Vector

# -- Json and Str --------------------------------------------------------------------------------------------------

JSON = [None, True, 0, -5, 10**30, 1.5, -0.0, "", "ä\0𐍈\u2028", [], {}, {"a": [1, {"b": None}], "": ""}, [[1], [1]]]


@pytest.mark.parametrize("value", JSON, ids=repr)
def test_json_gives_back_what_it_was_given_and_is_json(value: Any) -> None:
    data = Json().dumps(value)
    assert same(Json().loads(data), value)
    assert same(json.loads(data), value)
    shared = [value, value]
    assert same(Json().loads(Json().dumps([shared, shared])), [shared, shared])


def test_json_is_compact_and_readable() -> None:
    assert Json().dumps({"ä": [1, 2.5]}) == '{"ä":[1,2.5]}'.encode()
    assert Json().loads(b' {"a": [1, "\\u00e4"]}\n') == {"a": [1, "ä"]}
    assert repr(Json()) == "Json()"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ((1, 2), "a tuple"),
        ({"a": [(1,)]}, "a tuple"),
        ({1: "a"}, "a dict with a key of type int"),
        ({None: 1}, "a dict with a key of type NoneType"),
        ({Text("a"): 1}, "a dict with a key of type Text"),
        ({(1, 2): 1}, "a dict with a key of type tuple"),
        (Text("a"), "a Text"),
        (Level.LOW, "a Level"),
        (OrderedDict(), "a OrderedDict"),
        (b"a", "a bytes"),
        (datetime.min, "a datetime"),
        ({1}, "a set"),
        (object(), "a object"),
        (math.nan, "this .*: Out of range float"),
        (math.inf, "this .*: Out of range float"),
        (looped(), "this .*: Circular reference"),
        (deep(100_000, lambda it: [it]), "this .*: maximum recursion"),
        ("\ud800", "lone surrogates"),
        ({"\udfff": 1}, "lone surrogates"),
        (10**5_000, "this .*: Exceeds the limit"),
    ],
    ids=lambda it: type(it).__name__,
)
def test_what_json_would_change_is_refused(value: Any, says: str) -> None:
    for whole in (value, [value], {"a": value}):
        with pytest.raises(InvalidValue, match=says):
            Json().dumps(whole)


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"{",
            b"[1,]",
            b"{1:2}",
            b"nan",
            b"NaN",
            b"[Infinity]",
            b"-Infinity",
            b"'a'",
            b"1 2",
            b"\xff",
            b"\xff\xfe[\0",
        ),
        *('["a"]'.encode("utf-16"), b"\xef\xbb\xbf[]", b"[" * 200_000, b'{"a":' * 200_000, b"9" * 5_000, b'"\\x"'),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_bytes_that_are_no_json_are_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptEntry):
        Json().loads(data)


@settings(deadline=None)
@given(st.text())
def test_str_is_the_text_itself(text: str) -> None:
    try:
        assert Str().dumps(text) == text.encode()
        assert Str().loads(Str().dumps(text)) == text
    except InvalidValue:
        assert any("\ud800" <= letter <= "\udfff" for letter in text)


@pytest.mark.parametrize("value", [None, b"a", 5, Text("a"), Name.A, ["a"], "\ud800"])
def test_str_takes_nothing_but_str(value: Any) -> None:
    with pytest.raises(InvalidValue, match=r"Str takes str, not|lone surrogates"):
        Str().dumps(value)


# -- one serializer's bytes read by another --------------------------------------------------------------------------

ALL: dict[str, tuple[Any, list[Any]]] = {
    "Msgpack": (Msgpack(), [*PLAIN]),
    "Vector": (Vector(), [[1.0], [0.5, 2.0], [0.0] * 300]),
    "Json": (Json(), JSON),
    "Str": (Str(), ["", "a", "5", "[1]", "\x91", "hello"]),
}


@pytest.mark.parametrize("reader", ALL)
@pytest.mark.parametrize("writer", ALL)
def test_what_another_serializer_wrote_is_corrupt(writer: str, reader: str) -> None:
    if {writer, reader} <= {"Json", "Str"} or writer == reader:
        return  # plain text both: documented
    for value in ALL[writer][1]:
        with pytest.raises(CorruptEntry):
            ALL[reader][0].loads(ALL[writer][0].dumps(value))


@pytest.mark.parametrize("name", ALL)
def test_records_of_tiers_and_frames_of_zstd_are_no_values(name: str) -> None:
    for data in (b"\xc1\x01" + bytes(40), b"\x28\xb5\x2f\xfd" + bytes(9), b"\x80\x04\x95\x00", b"\x89PNG\r\n"):
        with pytest.raises(CorruptEntry):
            ALL[name][0].loads(data)


# -- Document ------------------------------------------------------------------------------------------------------


def test_documents_come_back_with_the_types_of_their_metadata() -> None:
    documents = pytest.importorskip("langchain_core.documents")
    from tiered.serializers import Document

    for it in (
        documents.Document(page_content=""),
        documents.Document(page_content="ä", id="7", metadata={"when": datetime(2024, 1, 1, tzinfo=UTC), "t": (1,)}),
    ):
        back = Document().loads(Document().dumps(it))
        assert type(back) is documents.Document
        assert back == it
        assert same(back.metadata, it.metadata)
    assert repr(Document()) == "Document()"
    sub = type("Sub", (documents.Document,), {})(page_content="a")
    for bad in (sub, "a", None, {"page_content": "a"}):
        with pytest.raises(InvalidValue, match="takes LangChain's Document, not"):
            Document().dumps(bad)
    with pytest.raises(InvalidValue, match="a object"):
        Document().dumps(documents.Document(page_content="a", metadata={"x": object()}))
    good = Document().dumps(documents.Document(page_content="a"))
    with pytest.raises(CorruptEntry, match=r"not named, 'langchain\.Document'"):
        Msgpack().loads(good)
    for fields in ([1, {}, None], ["a", [], None], ["a", {}, 5], ["a", {}], {}, None):
        data = msgpack.packb([[msgpack.ExtType(19, b"langchain.Document"), fields]])
        with pytest.raises(CorruptEntry):
            Document().loads(data)
    for data in (Msgpack().dumps({"page_content": "a"}), b'{"page_content": "a"}', b"", good[:-1]):
        with pytest.raises(CorruptEntry):
            Document().loads(data)


def test_without_langchain_documents_say_what_to_install() -> None:
    code = """
import sys
sys.modules["langchain_core"] = sys.modules["langchain_core.documents"] = None
from tiered.serializers import Document
try:
    Document()
except ImportError as error:
    assert "tiered[langchain]" in str(error)
else:
    raise AssertionError
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# -- all -----------------------------------------------------------------------------------------------------------


def test_serializers_import_nothing_heavy_before_the_first_value() -> None:
    code = """
import sys
from tiered.serializers import Json, Msgpack, Str, Vector
Msgpack(), Json(), Str(), Vector("int8").dumps([1.0])
print(sorted({"msgpack", "numpy", "langchain_core", "zoneinfo", "asyncio"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_one_serializer_serves_many_threads() -> None:
    packer, wrong = Msgpack([Point]), []

    def work(number: int) -> None:
        value = {"n": number, "points": (Point(number, (number,)),) * 20, "s": {number}}
        wrong.extend(1 for _ in range(200) if packer.loads(packer.dumps(value)) != value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
