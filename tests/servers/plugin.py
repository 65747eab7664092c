"""The pytest side: what was missing is named in the summary, and no server outlives the session."""

from __future__ import annotations

import pytest

from . import machine, process, sharing


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for kind, reason in sorted(sharing.missing.items()):
        terminalreporter.write_line(f"servers missing: {kind} ({reason})", yellow=True)


def pytest_unconfigure() -> None:
    """Also runs when the session was interrupted."""
    process.stop_all()
    machine.remove_root()
