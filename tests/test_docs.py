"""The code in docs/ runs as it stands there and prints what it says: each page is one script. All of it type-checks."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from .test_readme import BLOCKS

DOCS = Path(__file__).parents[1] / "docs"
NEEDS = {"langchain_core": "langchain", "cachetools": "cachetools", "numpy": "numpy"}


def script(page: Path) -> str:
    """The page's code, each line where it stands in the page, so that errors name the right one."""
    lines, code = [], False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            code = line == "```python"
            line = ""
        lines.append(line if code else "")
    return "\n".join(lines) + "\n"


PAGES = [page for page in sorted(DOCS.glob("*.md")) if script(page).strip()]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def test_the_pages_with_code_are_found() -> None:
    assert {"getting-started", "policies"} <= {page.stem for page in PAGES}


@pages
def test_the_code_of_a_page_runs_and_prints_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = script(page)
    for module in re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE):
        if module in NEEDS:
            pytest.importorskip(module, reason=f"{module} is not installed")
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")  # dataclasses look for the module of their class
    monkeypatch.setitem(sys.modules, "page", module)
    exec(compile(code, page.name, "exec"), module.__dict__)
    printed = capsys.readouterr().out.splitlines()
    assert printed == re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)


def test_the_code_of_all_pages_type_checks_and_a_misspelt_name_does_not(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    codes = {page.stem.replace("-", "_"): script(page) for page in PAGES}
    codes |= {f"readme_{at}": block for at, block in enumerate(BLOCKS)}
    for name, code in codes.items():
        (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "misspelt.py").write_text("import tiered\n\ntiered.TierdStore([])\n")
    report, errors, _ = api.run(["--strict", "--no-incremental", str(tmp_path)])
    found = [line for line in report.splitlines() if ": error:" in line]
    assert len(found) == 1, report + errors
    assert "misspelt.py" in found[0]
    assert "TierdStore" in found[0]


def test_every_link_between_pages_leads_somewhere() -> None:
    root = DOCS.parent
    for page in [*DOCS.glob("*.md"), *root.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
