"""Breaks the library on purpose: every break must turn its tests red.

    python -m tests.mutants [-n JOBS] [NAME ...]

Each mutant is made in a copy of the tree. One that survives is a behaviour that nothing watches
over; one that finds nothing to break has to follow what was rebuilt.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .changes import Blunt, Mutant
from .table import MUTANTS

ROOT = Path(__file__).parent.parent.parent
_PATIENCE = 300  # seconds for the tests of a mutant; one that hangs is red
_LEFT_BEHIND = shutil.ignore_patterns("node_modules")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("-n", dest="jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all")
    options = parser.parse_args()
    unknown = set(options.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"there is no mutant {', '.join(map(repr, sorted(unknown)))}")
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    code, text = _pytest(ROOT, *sorted({test for mutant in chosen for test in mutant.tests}))
    if code != 0:
        print(text, "The named tests fail without any mutant: mend that first.", sep="\n")
        return 1
    survivors = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, verdict in zip(chosen, pool.map(_verdict, chosen), strict=True):
            print(f"{verdict:6}  {mutant.name:64}  {mutant.module} {mutant.where}", flush=True)
            if verdict != "red":
                survivors.append(mutant.name)
    print(f"{len(survivors)} of {len(chosen)} mutants survived {survivors or ''}")
    return 1 if survivors else 0


def _verdict(mutant: Mutant) -> str:
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory)
        for name in ("flask_wxjsapi", "tests", "examples"):
            shutil.copytree(ROOT / name, tree / name, ignore=_LEFT_BEHIND)
        for name in ("setup.cfg", "conftest.py"):
            shutil.copy(ROOT / name, tree)
        source = tree / "flask_wxjsapi" / mutant.module
        try:
            source.write_text(mutant.applied_to(source.read_text()))
        except Blunt as problem:
            return f"BLUNT: {problem}"
        for test in mutant.tests:
            code, _ = _pytest(tree, test)
            if code != 1:  # "tests failed"; anything else but 0 means that they did not run
                return "ALIVE" if code == 0 else f"BROKEN ({code})"
    return "red"


def _pytest(tree: Path, *tests: str) -> tuple[int, str]:
    """The exit code of some tests, and what they print."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--show-capture=no", *tests]
    command += ["-p", "no:cacheprovider"]
    env = os.environ | {"WXJSAPI_TEST_QUICK": "1", "WXJSAPI_TEST_EXAMPLES": "200"}
    env["PYTHONPATH"] = str(tree)  # for the programs that a test starts
    try:
        done = subprocess.run(
            command, cwd=tree, env=env, capture_output=True, text=True, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return 1, f"They take longer than {_PATIENCE} s."
    return done.returncode, done.stdout


if __name__ == "__main__":
    sys.exit(main())
