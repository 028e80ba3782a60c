"""raypipe: segmentation masks from image-level labels, as distributed batch processing on Ray.

    import raypipe

    run = raypipe.open_run("config.yaml")  # what `raypipe run config.yaml` has made
    mask = raypipe.segment_image("dog.jpg", ["dog"], classifier="…/checkpoint", affinity="…/checkpoint")
    raypipe.ops.propagate(cams, affinity)  # the mathematics alone

What is named here is imported when it is first asked for: `import raypipe` itself takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raypipe import ops
    from raypipe.api.masks import Mask, Masks, NoMask
    from raypipe.api.run import FinishedRun, open_run
    from raypipe.api.single_image import segment_image

__version__ = "0.1.0"

__all__ = ["FinishedRun", "Mask", "Masks", "NoMask", "open_run", "ops", "segment_image"]

_PLACES = {
    "FinishedRun": "raypipe.api.run",
    "Mask": "raypipe.api.masks",
    "Masks": "raypipe.api.masks",
    "NoMask": "raypipe.api.masks",
    "open_run": "raypipe.api.run",
    "segment_image": "raypipe.api.single_image",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: torch alone takes seconds, and no command should wait for more than it uses."""
    if name == "ops":
        return import_module("raypipe.ops")
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'raypipe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
