"""Breaks of the code, one small patch each, that the tests must catch: `python -m tests.mutants`."""
