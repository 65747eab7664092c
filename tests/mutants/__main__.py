"""Applies each mutant to a copy of the project, runs the quick tests there, and says which survived.

    python -m tests.mutants [words that the rule must contain ..]      SEEDS=n JOBS=n ONLY=named|simulator

Two columns: whether the named tests found it, and whether the simulator's random programs did.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .patches import MUTANTS, ROOT, Mutant

NAMED = [
    f"tests/test_{name}.py"
    for name in ("rules", "health", "single_flight", "load_many", "load_ends", "stale", "write_modes", "forgetting")
]
SIMULATOR = ["tests/simulation"]
SLOWEST = 300
"""Seconds after which a run counts as failed: a mutant that hangs is found."""


def main() -> int:
    chosen = [mutant for mutant in MUTANTS if all(word in mutant.rule for word in sys.argv[1:])]
    if not sys.argv[1:]:
        print("| rule broken | named tests | simulator |\n|---|---|---|")  # noqa: T201
    survived = 0
    with ThreadPoolExecutor(int(os.environ.get("JOBS", "2"))) as pool:
        for mutant, (named, simulated) in zip(chosen, pool.map(judge, chosen), strict=True):
            words = [found or "survived" for found in (named, simulated)]
            print(f"| {mutant.rule} | {words[0]} | {words[1]} |", flush=True)  # noqa: T201
            survived += not (named or simulated)
    print(f"{len(chosen)} mutants, {survived} survived")  # noqa: T201
    return survived


def judge(mutant: Mutant) -> tuple[str, str]:
    """What found it: the name of a test, by the named tests and by the simulator; "" for nothing."""
    with tempfile.TemporaryDirectory(prefix="mutant") as folder:
        root = Path(folder)
        for name in ("tiered", "tests"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
        shutil.copy(ROOT / "pyproject.toml", root)
        try:
            mutant.apply(root)
        except LookupError as error:  # tests.mutants.test_patches says so too
            return f"does not apply: {error}", ""
        only = os.environ.get("ONLY")
        named = "" if only == "simulator" else run(root, NAMED, 20)
        return named, "" if only == "named" else run(root, SIMULATOR, 250)


def run(root: Path, tests: list[str], timeout: int) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--timeout={timeout}", *tests]
    environment = os.environ | {"PYTHONPATH": str(root), "TEST_DEADLINE": "5"}
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=SLOWEST, check=False
        )
    except subprocess.TimeoutExpired:
        return "hung"
    if done.returncode == 0:
        return ""
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED", "ERROR")):
            test = line.split("::")[-1].split(" - ")[0]
            return f"{test} (hung)" if "Timeout" in line else test
    return "hung" if "Timeout" in done.stdout + done.stderr else f"broke: {(done.stdout + done.stderr)[-200:]!r}"


if __name__ == "__main__":
    sys.exit(min(main(), 1))
