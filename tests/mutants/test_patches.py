"""Every mutant still changes what it was made to change."""

from __future__ import annotations

import ast

import pytest

from .patches import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_the_patch_applies_exactly_once_and_is_python(mutant: Mutant) -> None:
    text = (ROOT / "tiered" / mutant.file).read_text()
    assert text.count(mutant.old) == 1
    assert mutant.new != mutant.old
    ast.parse(text.replace(mutant.old, mutant.new))


def test_rules_are_told_apart() -> None:
    assert len({mutant.rule for mutant in MUTANTS}) == len(MUTANTS)
