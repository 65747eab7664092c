"""What the README shows runs, and type-checks, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_readme_has_code() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS, ids=["first", "second"])
def test_the_code_of_the_readme_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "b'1'" in printed
    for line in re.findall(r"print\(.*#\s*(.+)", block):
        assert line in printed


@pytest.mark.parametrize("block", BLOCKS, ids=["first", "second"])
def test_the_code_of_the_readme_type_checks(block: str, tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    script = tmp_path / "readme.py"
    script.write_text(block)
    report, errors, status = api.run(["--strict", "--no-incremental", str(script)])
    assert status == 0, report + errors


def test_a_misspelt_name_does_not_type_check(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    script = tmp_path / "misspelt.py"
    script.write_text("import tiered\n\ntiered.TierdStore([])\n")
    report, _, status = api.run(["--strict", "--no-incremental", str(script)])
    assert status == 1
    assert "TierdStore" in report
