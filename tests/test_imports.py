"""What computes needs no cluster: stages and training steps are imported where Ray and its like are not installed."""

import subprocess
import sys

ABSENT = ("ray", "botocore", "s3fs", "omegaconf", "pydensecrf")
"""Packages that are imported where they are used and not before."""

MODULES = [
    *(
        f"raypipe.stages.{name}"
        for name in ("cams", "propagate", "refine", "trimaps", "trimaps_on_device", "judge", "segment", "encode")
    ),
    *(f"raypipe.training.{name}" for name in ("tasks", "saliency_task", "step", "state", "optimizer", "validation")),
]

IMPORT = f"""
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
for name in {MODULES}:
    importlib.import_module(name)
"""


def test_stages_and_steps_are_imported_without_a_cluster() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
