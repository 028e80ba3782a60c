"""What `import raypipe` offers, and what it costs."""

import subprocess
import sys

import pytest

import raypipe
from raypipe.ops import method


def test_importing_is_quick() -> None:
    code = "import sys, raypipe; print(sorted({'torch', 'ray', 'numpy', 'pyarrow', 'pydantic'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_offered_is_there() -> None:
    assert set(raypipe.__all__) <= {*dir(raypipe)}
    for name in raypipe.__all__:
        assert getattr(raypipe, name).__doc__, name
    with pytest.raises(AttributeError, match="module 'raypipe' has no attribute 'open_runs'"):
        raypipe.open_runs  # type: ignore[attr-defined]  # noqa: B018 - looks for it


def test_the_ops_from_the_top() -> None:
    for name in method.__all__:
        assert getattr(raypipe.ops, name) is getattr(method, name)
        assert getattr(method, name).__doc__, name
    assert raypipe.ops.propagate.__module__ == "raypipe.ops.random_walk"
    assert callable(raypipe.ops.pamr.pamr)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"module 'raypipe\.ops' has no attribute 'walk'"):
        raypipe.ops.walk  # type: ignore[attr-defined]  # noqa: B018 - looks for it
