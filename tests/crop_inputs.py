"""Settings of a stage of training crops."""

from typing import Any

ARGS: dict[str, Any] = {"crop_size": 32, "fill": (1, 2, 3), "jitter": (0.3, 0.3, 0.3, 0.1), "seed": 0, "max_side": 1024}
