"""Stacks from a TOML file or a mapping."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import tiered
from tiered import SQL, TTL, Memory, WriteAround, WriteThrough, Zstd
from tiered.config import MODES, page
from tiered.errors import BackendUnavailable, ConfigurationError
from tiered.testing import FakeClock
from tiered.urls import SCHEMES, TIER_OPTIONS

HERE = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(text: str) -> Path:
    Path("tiered.toml").write_text(text, encoding="utf-8")
    return Path("tiered.toml")


def refused(source: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        tiered.from_config(source)
    assert list(Path().glob("*.db*")) == [], "a refused configuration makes no file"
    return str(caught.value)


FULL = """
namespace = "docs"
default_ttl = 3600
tombstone_ttl = 60.5

[[tiers]]
url = "memory://?policy=lru"
max_bytes = "1MiB"
max_entries = 10
ttl = 30

[[tiers]]
url = "sqlite:///middle.db"
ttl = "none"
timeout = 0.5
compression = "zstd:9"
name = "disk"

[[tiers]]
url = "sqlite:///authority.db"

[write]
mode = "through"
strict = true
"""


def test_a_file_makes_the_stack_that_classes_make(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr("tiered.config.TieredStore", lambda tiers, **options: made.update(options, tiers=tiers))
    tiered.from_config(written(FULL))
    memory, disk, authority = made.pop("tiers")
    assert repr(memory.store) == repr(Memory(max_bytes=2**20, max_entries=10, policy="lru"))
    assert (memory.ttl, memory.name, memory.timeout, memory.compression) == (TTL(30), None, None, None)
    assert repr(disk.store) == repr(SQL("sqlite:///middle.db"))
    assert (disk.ttl, disk.name, disk.timeout, disk.compression) == (None, "disk", 0.5, Zstd(level=9))
    assert repr(authority) == repr(tiered.Tier(SQL("sqlite:///authority.db"))).replace(
        repr(SQL("sqlite:///authority.db")), repr(authority.store)
    )
    assert made == {
        "namespace": "docs",
        "write": WriteThrough(strict=True),
        "default_ttl": 3600.0,
        "tombstone_ttl": 60.5,
        "clock": None,
    }


def test_a_stack_from_a_file_works(clock: FakeClock) -> None:
    text = 'namespace = "docs"\ndefault_ttl = 10\n[[tiers]]\nurl = "memory://"\n[[tiers]]\nurl = "sqlite:///x.db"\n'
    for source in (str(written(text)), written(text)):
        with tiered.from_config(source, clock=clock) as store:
            assert repr(store) == "TieredStore(memory > sqlite, namespace='docs')"
            store.set("a", b"1")
            clock.advance(9)
            assert store.get("a") == b"1"
            clock.advance(1)
            assert store.get("a") is None
    assert Path("x.db").exists()


def test_a_mapping_says_the_same_as_a_file() -> None:
    for tiers in ([{"url": "memory://", "max_bytes": 2**20}], ({"url": "memory://?max_bytes=1MiB"},)):
        store = tiered.from_config(MappingProxyType({"namespace": "docs", "tiers": tiers}))
        assert repr(store) == "TieredStore(memory, namespace='docs')"
    assert repr(tiered.from_config({"tiers": [{"url": "memory://?namespace=a"}]})).endswith("namespace='a')")
    assert repr(tiered.from_config({"tiers": [{"url": "memory://", "namespace": "a"}]})).endswith("namespace='a')")
    both = {"namespace": "a", "tiers": [{"url": "memory://", "namespace": "a"}]}
    assert repr(tiered.from_config(both)).endswith("namespace='a')")


def test_making_a_stack_does_no_io(folder: Path) -> None:
    tiered.from_config({"tiers": [{"url": "memory://"}, {"url": "sqlite:///x.db"}]})
    tiered.from_config({"tiers": [{"url": "sqlite:///missing/x.db"}]})
    assert list(folder.iterdir()) == []
    with pytest.raises(BackendUnavailable), tiered.from_config({"tiers": [{"url": "sqlite:///missing/x.db"}]}):
        pass


ONE = {"tiers": [{"url": "memory://"}]}


@pytest.mark.parametrize(
    ("table", "mode"),
    [
        ({}, WriteThrough()),
        ({"write": {"mode": "through"}}, WriteThrough()),
        ({"write": {"mode": "through", "strict": False}}, WriteThrough()),
        ({"write": {"strict": True}}, WriteThrough(strict=True)),
        ({"write": {}}, WriteThrough()),
        ({"write": {"mode": "through", "strict": "true"}}, WriteThrough(strict=True)),
        ({"write": {"mode": "around"}}, WriteAround()),
    ],
    ids=str,
)
def test_write_modes_by_name(table: Any, mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr("tiered.config.TieredStore", lambda tiers, **options: made.update(options))
    tiered.from_config({**ONE, **table})
    assert (made["write"] or WriteThrough()) == mode


@pytest.mark.parametrize(
    ("value", "ttl"),
    [(30, 30), (0.25, 0.25), (1e3, 1000), (1e-3, 0.001), (1e-7, 1e-7), ("30", 30), ("none", None), ("None", None)],
)
def test_numbers_and_text_are_both_taken(value: Any, ttl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr("tiered.config.TieredStore", lambda tiers, **options: made.extend(tiers))
    tiered.from_config({"tiers": [{"url": "memory://", "ttl": value}]})
    assert made[0].ttl == (None if ttl is None else TTL(ttl))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "at least one tier"),
        ({"tiers": []}, "at least one tier"),
        ({"namespce": "a", **ONE}, "namespce: unknown setting 'namespce': did you mean 'namespace'?"),
        ({"tier": [{"url": "memory://"}]}, "tier: unknown setting 'tier': did you mean 'tiers'?"),
        ({"defualt_ttl": 5, **ONE}, "did you mean 'default_ttl'?"),
        ({"zzz": 5, **ONE}, "known: namespace, default_ttl, tombstone_ttl, immutable, tiers, write"),
        ({"tiers": {"url": "memory://"}}, "tiers: give one table for each, as in [[tiers]]"),
        ({"tiers": "memory://"}, "tiers: give one table for each"),
        ({"tiers": ["memory://"]}, "tiers: give one table for each"),
        ({"tiers": 5}, "tiers: give one table for each"),
        ({"tiers": [{}]}, "tiers[0].url: it is missing; give one"),
        ({"tiers": [{"url": "memory://"}, {"ttl": 5}]}, "tiers[1].url: it is missing"),
        ({"tiers": [{"url": 5}]}, "tiers[0].url: it must be text, not a number"),
        ({"tiers": [{"url": None}]}, "tiers[0].url: it must be text, not a NoneType"),
        ({"tiers": [{"url": "memroy://"}]}, "tiers[0]: unknown scheme 'memroy': did you mean 'memory'?"),
        ({"tiers": [{"url": "cache.db"}]}, "tiers[0]: a URL has no scheme: write memory://"),
        (
            {"tiers": [{"url": "memory://", "tll": 5}]},
            "tiers[0].tll: unknown option of memory:// 'tll': did you mean",
        ),
        ({"tiers": [{"url": "memory://?tll=5"}]}, "tiers[0]: unknown option of memory:// 'tll'"),
        ({"tiers": [{"url": "memory://", "layout": "plain"}]}, "tiers[0].layout: unknown option of memory://"),
        ({"tiers": [{"url": "memory://?ttl=5", "ttl": 5}]}, "tiers[0].ttl: the URL gives it as well: give it once"),
        ({"tiers": [{"url": "memory://?ttl=5&ttl=6"}]}, "tiers[0]: a memory:// URL gives an option twice"),
        ({"tiers": [{"url": "memory://", "ttl": "soon"}]}, "tiers[0].ttl=soon: give seconds, as in 30 or 0.25"),
        ({"tiers": [{"url": "memory://", "ttl": 0}]}, "tiers[0].ttl=0: time=0.0: give more than 0 seconds"),
        ({"tiers": [{"url": "memory://", "ttl": -1.5}]}, "tiers[0].ttl=-1.5:"),
        ({"tiers": [{"url": "memory://", "ttl": True}]}, "tiers[0].ttl=true: give seconds"),
        ({"tiers": [{"url": "memory://", "ttl": float("inf")}]}, "tiers[0].ttl=Infinity: give seconds"),
        ({"tiers": [{"url": "memory://", "ttl": float("nan")}]}, "tiers[0].ttl=NaN: give seconds"),
        (
            {"tiers": [{"url": "memory://", "ttl": None}]},
            "ttl: give text, a number, true or false, not a NoneType",
        ),
        (
            {"tiers": [{"url": "memory://", "ttl": [5]}]},
            "ttl: give text, a number, true or false, not an array",
        ),
        (
            {"tiers": [{"url": "memory://", "ttl": {"s": 5}}]},
            "ttl: give text, a number, true or false, not a table",
        ),
        ({"tiers": [{"url": "memory://", "max_bytes": "64XiB"}]}, "tiers[0].max_bytes=64XiB: give bytes, as in 256MiB"),
        ({"tiers": [{"url": "memory://", "max_entries": 1.5}]}, "tiers[0].max_entries=1.5: give a whole number"),
        ({"tiers": [{"url": "memory://", "max_entries": 0}]}, "tiers[0]: max_entries is a whole number of at least 1"),
        ({"tiers": [{"url": "memory://", "policy": "lfu"}]}, "tiers[0]: unknown policy 'lfu': did you mean"),
        ({"tiers": [{"url": "memory://", "name": ""}]}, "tiers[0]: name=''"),
        ({"tiers": [{"url": "sqlite:///x.db", "layout": "plian"}]}, "tiers[0]: layout='plian'"),
        ({"tiers": [{"url": "memory://"}, {"url": "sqlite:///x.db", "ttl": 5}]}, "authority"),
        ({"tiers": [{"url": "sqlite:///x.db"}, {"url": "memory://"}]}, "memory belongs first"),
        ({"namespace": "a", "tiers": [{"url": "memory://?namespace=b"}]}, "a stack has one"),
        ({"namespace": "a\x1fb", **ONE}, "without \\x1f"),
        ({"namespace": ["a"], **ONE}, "namespace: give text"),
        ({"default_ttl": "soon", **ONE}, "default_ttl=soon: give seconds"),
        ({"default_ttl": 0, **ONE}, "default_ttl=0: time=0.0: give more than 0 seconds"),
        ({"tombstone_ttl": "none", **ONE}, "tombstone_ttl=none: give seconds"),
        ({"immutable": "yes", **ONE}, "immutable=yes: give true or false"),
        ({"immutable": 1, **ONE}, "immutable=1: give true or false"),
        ({"write": "around", **ONE}, 'write: give a table, as in [write] mode = "through", not text'),
        ({"write": ["around"], **ONE}, "not an array"),
        ({"write": {"mode": "thruogh"}, **ONE}, "write.mode: unknown write mode 'thruogh': did you mean 'through'?"),
        ({"write": {"mode": "nope"}, **ONE}, "write.mode: unknown write mode 'nope': known: through, around"),
        ({"write": {"mode": 5}, **ONE}, "write.mode: unknown write mode"),
        (
            {"write": {"mode": "around", "strict": True}, **ONE},
            "write.strict: an option of mode 'through', not",
        ),
        ({"write": {"mode": "through", "stirct": True}, **ONE}, "write.stirct: unknown option of write mode 'through'"),
        ({"write": {"mode": "through", "strict": 1}, **ONE}, "write.strict=1: give true or false"),
        ({5: 1, **ONE}, "the configuration: a name is a str, not int"),
        ({"tiers": [{5: 1, "url": "memory://"}]}, "tiers[0]: a name is a str, not int"),
    ],
    ids=lambda it: str(it)[:60],
)
def test_a_mistake_says_where_it_is_and_what_to_write(table: Any, says: str) -> None:
    assert says in refused(table)


@pytest.mark.skipif("back" in MODES, reason="write-back is there")
def test_write_back_is_not_there_yet() -> None:
    assert "known: through, around" in refused({**ONE, "write": {"mode": "back"}})


def test_what_is_no_file_or_no_toml_says_so(folder: Path) -> None:
    assert "tiered.toml cannot be read: No such file" in refused("tiered.toml")
    assert "cannot be read: Is a directory" in refused(folder)
    assert "tiered.toml is no TOML: " in refused(written("namespace = \n"))
    Path("tiered.toml").write_bytes(b'namespace = "\xff"\n')
    assert "tiered.toml is no TOML: " in refused("tiered.toml")
    for source in (None, 5, b"tiered.toml", ["memory://"]):
        assert "takes the path of a TOML file or a mapping, not" in refused(source)


# -- variables -----------------------------------------------------------------------------------------------------


def test_variables_are_put_in_wherever_there_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE", "docs")
    monkeypatch.setenv("SIZE", "1MiB")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("NESTED", "${SPACE}")
    monkeypatch.delenv("MISSING", raising=False)

    def namespace(text: str) -> str:
        store = tiered.from_config({"namespace": text, "tiers": [{"url": "memory://?max_bytes=${SIZE}"}]})
        return repr(store).partition("namespace='")[2].rstrip("')")

    for text, expected in (
        ("${SPACE}", "docs"),
        ("a-${SPACE}-${SPACE}", "a-docs-docs"),
        ("${MISSING:-other}", "other"),
        ("${MISSING:-}x", "x"),
        ("${MISSING:-a:-b}", "a:-b"),
        ("${EMPTY}x", "x"),
        ("${EMPTY:-other}", "other"),
        ("${SPACE:-other}", "docs"),
        ("$${SPACE}", "${SPACE}"),
        ("$SPACE", "$SPACE"),
        ("a$$b", "a$$b"),
        ("${NESTED}", "${SPACE}"),
    ):
        assert namespace(text) == expected, text
    store = tiered.from_config(
        written('[[tiers]]\nurl = "${KIND:-memory}://"\nttl = "${TTL:-5}"\n[[tiers]]\nurl="sqlite:///x.db"')
    )
    assert repr(store).startswith("TieredStore(memory > sqlite")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${MISSING}", "tiers[0].name: the variable MISSING is not set: set it, or write ${MISSING:-other}"),
        ("${}", "write ${NAME} or ${NAME:-other}, and $${ for ${ itself"),
        ("${A B}", "tiers[0].name: write ${NAME}"),
        ("${1A}", "write ${NAME}"),
        ("${MISSING", "write ${NAME}"),
        ("${MISSING-x}", "write ${NAME}"),
    ],
)
def test_a_variable_that_is_not_set_or_not_written_right(text: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MISSING", raising=False)
    assert says in refused({"tiers": [{"url": "memory://", "name": text}]})


SECRET = "hunter2/@x y"
PLACES: list[Any] = [
    {"tiers": [{"url": "${S}"}]},
    {"tiers": [{"url": "sqlite://user:${S}@host/x.db"}]},
    {"tiers": [{"url": "memory://?max_bytes=${S}"}]},
    {"tiers": [{"url": "memory://?${S}=5"}]},
    {"tiers": [{"url": "memory://?name=${S}&name=${S}"}]},
    {"tiers": [{"url": "sqlite:///x.db?layout=${S}"}]},
    {"tiers": [{"url": "memory://", "policy": "${S}"}]},
    {"tiers": [{"url": "memory://", "ttl": "${S}"}]},
    {"tiers": [{"url": "memory://", "max_entries": "a${S}b"}]},
    {"tiers": [{"url": "memory://", "name": "${S}"}, {"url": "sqlite:///x.db", "name": "${S}"}]},
    {"namespace": "${S}", "tiers": [{"url": "memory://?namespace=other"}]},
    {"namespace": "\x1f${S}", **ONE},
    {"namespace": "\x1f" + "x" * 70 + "${S}", **ONE},
    {"default_ttl": "${S}", **ONE},
    {"immutable": "${S}", **ONE},
    {"write": {"mode": "${S}"}, **ONE},
    {"write": {"mode": "through", "strict": "${S}"}, **ONE},
    {"write": "${S}", **ONE},
    {"tiers": "${S}"},
]


@pytest.mark.parametrize("table", PLACES, ids=str)
@pytest.mark.parametrize(
    "secret", [SECRET, "hunter2%2F%40x", "hunter2'\\", "hunter2", "a+huntermore", "huntermore%20hunter+x"]
)
def test_no_error_shows_the_value_of_a_variable(table: Any, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S", secret)
    with pytest.raises(ConfigurationError) as caught:
        tiered.from_config(table)
    assert "hunter" not in "".join(traceback.format_exception(caught.value))


def test_a_short_variable_is_hidden_by_itself_and_leaves_words_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S", "s")
    said = refused({"tiers": [{"url": "memory://", "ttl": "${S}"}]})
    assert said == "tiers[0].ttl=${S}: give seconds, as in 30 or 0.25"


# -- docs/options.md -------------------------------------------------------------------------------------------------


def test_the_page_of_options_is_what_the_code_says() -> None:
    """`python -m tiered.config > docs/options.md` makes it anew."""
    assert (HERE / "docs" / "options.md").read_text(encoding="utf-8") == page()
    done = subprocess.run([sys.executable, "-m", "tiered.config"], capture_output=True, cwd=HERE, timeout=60)
    assert (done.stdout.decode(), done.stderr) == (page(), b"")


def test_every_option_is_on_the_page_and_says_what_it_takes() -> None:
    options = [
        TIER_OPTIONS,
        *(scheme.options for scheme in SCHEMES.values()),
        *(mode.options for mode in MODES.values()),
    ]
    for name, option in [pair for some in options for pair in some.items()]:
        [row] = {line for line in page().splitlines() if line.startswith(f"| `{name}` |") and option.says in line}
        assert row.split("|")[2].strip(), f"what {name} takes"
    for scheme in SCHEMES.values():
        assert scheme.example in page()
