"""Checks that what some options need is installed: packages that an installation may lack, as they come with extras."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from raypipe.cluster.findings import Finding, from_places, judge
from raypipe.doctor.workload import predicts_saliency
from raypipe.pipelines.context import Context


@dataclass(frozen=True)
class Need:
    """What needs a package, and how it is installed."""

    option: str
    install: str
    """A command."""


def packages_of(context: Context) -> dict[str, Need]:
    """Importable names of the packages that a whole run's options need."""
    return dict(_packages(context))


def check_packages(context: Context, lacking: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """The packages are installed; where no option needs any, nothing is said.

    Args:
        context: config and manifest.
        lacking: places, each with the packages that aren't installed there.
    """
    needed = packages_of(context)
    if not needed:
        return
    absent = {place: f"{', '.join(names)} not installed" for place, names in lacking.items() if names}
    missed = [needed[name] for name in needed if any(name in names for names in lacking.values())]
    yield judge(
        "packages",
        from_places(absent) or f"{', '.join(needed)} installed",
        status="problem" if absent else "ok",
        needed=f"what {_each(need.option for need in missed)} uses",
        way_out=f"{_each(need.install for need in missed)} in raypipe's clone",
    )


def _packages(context: Context) -> Iterator[tuple[str, Need]]:
    if predicts_saliency(context):
        yield "onnxruntime", Need("saliency.weights", "pip install -e '.[onnx]'")
    images = context.config.images
    if images.by_windows:
        option = "images.bands" if images.bands is not None else "images.tile"
        for name in ("tifffile", "imagecodecs"):
            yield name, Need(option, "pip install -e '.[raster]'")


def _each(texts: Iterator[str]) -> str:
    return " and ".join(dict.fromkeys(texts))
