"""Maps of the few images that a report shows, where the masks' own stream has computed the maps and kept none."""

import logging

from raypipe.artifacts import Artifact
from raypipe.config import Budget
from raypipe.data.rows import Rows
from raypipe.pipelines.context import Context
from raypipe.pipelines.steps import compute_cams, decode_images, fetch_images, given_loads
from raypipe.schema import SEEDS, columns
from raypipe.streams.budget import BudgetExceeded
from raypipe.streams.plan import Plan

logger = logging.getLogger(__name__)


def sample_maps_plan(context: Context, *, maps: Artifact) -> Plan:
    """FetchImages → DecodeImages → ComputeCams, as the masks' stream has them; arguments as of `masks_plan`."""
    return Plan(
        name="samples",
        takes=given_loads(context, maps),
        stages=(fetch_images(context), decode_images(context), compute_cams(context, maps)),
        schema=columns(SEEDS, "image_id", "class_ids", "cam", "cam_height", "cam_width"),
        classes=context.classes,
    )


def run_sample_maps(context: Context, rows: Rows, *, maps: Artifact) -> Artifact:
    """Computes the maps of some rows that aren't there yet; those that fail have none, which a page survives.

    Args:
        context: config and manifest.
        rows: few, which have a mask.
        maps: as of `masks_plan`.
    """
    plan = sample_maps_plan(context, maps=maps)
    try:
        context.run(plan, rows, budget=Budget(max_fraction=1))
    except BudgetExceeded as error:  # such as photographs that were deleted when their masks were made
        logger.warning("samples: %s", error)
    return plan.artifact(context.config.out)
