"""Files of the benchmarks as modules; their folder is no package."""

import importlib.util
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def load_benchmark(path: str) -> ModuleType:
    """Imports one file, given by its path in the folder, that imports no other one."""
    spec = importlib.util.spec_from_file_location(f"benchmarks.{path}", BENCHMARKS / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
