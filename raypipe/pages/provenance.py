"""What a report says about how its run was made: code, libraries, machines, inputs, digests."""

import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import raypipe
from raypipe.artifacts import Artifact
from raypipe.config import to_yaml
from raypipe.data.checkpoints import Task
from raypipe.outputs.imported import read_source
from raypipe.pipelines.context import Context

_LIBRARIES = ("ray", "torch", "torchvision", "numpy", "pyarrow", "pillow", "scipy")


def provenance(
    context: Context, *, outputs: Mapping[str, Artifact], networks: Mapping[Task, Artifact], resources: str
) -> dict[str, str]:
    """Name to value.

    Args:
        context: config and manifest.
        outputs: stream to its folder.
        networks: task to checkpoint.
        resources: what the cluster has, as text.
    """
    return {
        "raypipe": raypipe.__version__,
        "commit": code_commit() or "unknown: installed without its repository",
        "manifest": context.config.manifest,
        "rows in the manifest": f"{len(context.manifest):,}",
        "Python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        "resources of the cluster": resources,
        **_given(context),
        **{f"{stream}, digest of the plan": artifact.digest for stream, artifact in outputs.items()},
        **{f"{task}, digest of the checkpoint": network.digest for task, network in networks.items()},
        "config": to_yaml(context.config),
    }


def _given(context: Context) -> dict[str, str]:
    """Where given seeds came from; of code, which no config names, with its version."""
    provider, folder = context.provider, context.config.checkpoints.seeds
    if provider is not None:
        return {"seeds": f"--seeds {provider.name}, version {provider.version}"}
    return {} if folder is None else {"seeds": f"{folder}, of {read_source(folder)}"}


def code_commit() -> str | None:
    """Commit of the repository that raypipe runs from, with `-dirty` where files were changed; None outside of one."""
    root, git = Path(raypipe.__file__).parents[1], shutil.which("git")
    if git is None or not (root / ".git").exists():  # a repository further up is someone else's
        return None
    command = [git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    return found.stdout.strip() or None
