"""Every benchmark can still be imported: none asks for a name that raypipe no longer has."""

import subprocess
import sys

from benchmark_files import BENCHMARKS

OLD = "latency_trees.old"
"""Runs on another commit, with the names of that."""

IMPORT = """
import importlib, sys, traceback
failed = 0
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception:
        failed += 1
        traceback.print_exc()
sys.exit(failed > 0)
"""


def module_names() -> list[str]:
    paths = [path.relative_to(BENCHMARKS).with_suffix("") for path in BENCHMARKS.rglob("*.py")]
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


def test_every_benchmark_can_be_imported() -> None:
    """In a process of its own: modules called `trees` or `faults` would stay in the way of other tests."""
    names = [name for name in module_names() if name != OLD]
    assert len(names) < len(module_names()), f"{OLD} is gone"
    assert {"refit", "card.kernels"} <= set(names)
    path = [str(BENCHMARKS), str(BENCHMARKS.parent)]
    script = f"import sys; sys.path[:0] = {path}\n{IMPORT}"
    command = [sys.executable, "-c", script, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
