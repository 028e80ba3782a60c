"""Streams of few rows in this process; exports stand for them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from stream_outputs import write_masks

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.images import encode_png
from raypipe.data.manifest import Manifest
from raypipe.formats.base import Options
from raypipe.formats.voc.write import Voc
from raypipe.outputs.load import Load
from raypipe.pipelines.context import Context
from raypipe.pipelines.exports.datasets import run_export
from raypipe.schema import MASKS, columns
from raypipe.stages.base import Row, Stage
from raypipe.streams import run
from raypipe.streams.budget import BudgetExceeded
from raypipe.streams.execute_here import can_run_here
from raypipe.streams.plan import Plan

NAMES = [f"image_{number}" for number in range(20)]


class Started(RuntimeError):  # noqa: N818
    """Ray was wanted."""


@pytest.fixture
def masks(tmp_path: Path) -> Artifact:
    """Masks in shards of 3; one of them holds what is no class."""
    png, other = encode_png(np.ones((4, 6), np.uint8)), encode_png(np.full((4, 6), 77, np.uint8))
    rows = [
        {"image_id": name, "height": 4, "width": 6, "mask": other if name == NAMES[5] else png, "confidence": png}
        for name in NAMES
    ]
    return write_masks(str(tmp_path / "masks"), rows, rows_per_shard=3)


@pytest.fixture
def export(masks: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Exports the masks where Ray isn't there and must not be started."""
    monkeypatch.setattr(run, "is_connected", lambda: False)
    manifest = Manifest.from_rows(
        [{"image_id": name, "image_uri": f"/{name}.jpg", "labels": []} for name in NAMES], ["cat"]
    )

    def start() -> None:
        raise Started

    def write(*overrides: str) -> Any:
        config = load_config("", ["manifest=m", f"out={tmp_path / 'out'}", *overrides])
        context = Context(config, manifest, start=start)
        return run_export(context, "voc", str(tmp_path / "voc"), masks=masks, options=Options())

    return write


def test_few_rows_need_no_ray_and_bad_ones_are_quarantined(export: Callable[..., Any], tmp_path: Path) -> None:
    _, summary = export()
    assert (summary.num_rows, summary.num_finished, summary.num_quarantined) == (20, 19, 1)
    found = {path.stem for path in (tmp_path / "voc/SegmentationClass").iterdir()}
    assert found == set(NAMES) - {NAMES[5]}


def test_rows_that_are_too_many_to_load_here_are_read_part_by_part(
    export: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MOST_LOADED_HERE", 0)
    _, summary = export("cluster.rows_per_block=8")
    assert (summary.num_finished, summary.num_quarantined, summary.num_computed) == (19, 1, 20)


def test_what_is_done_starts_no_ray_however_much_it_would_load(
    export: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(Voc, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export()
    monkeypatch.setattr(run, "MOST_LOADED_HERE", 0)
    monkeypatch.setattr(run, "can_run_here", lambda *_, **__: False)
    _, summary = export()
    assert (summary.num_finished, summary.num_computed) == (19, 0)


def test_the_budget_holds(export: Callable[..., Any]) -> None:
    with pytest.raises(BudgetExceeded, match="1 of 20 rows are in quarantine, allowed are 0"):
        export("budget.max_rows=0", "budget.max_fraction=0")


def test_more_rows_are_for_ray(export: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypipe.streams.execute_here.MOST_ROWS", 19)
    with pytest.raises(Started):
        export()


@dataclass(kw_only=True)
class Nothing(Stage):
    """Does nothing."""

    reads = ("mask",)
    writes = pa.schema([])

    def process(self, row: Row) -> Row:  # noqa: ARG002
        return {}


class OnDevice(Nothing):
    """The same with a network."""

    kind = "device"


@pytest.mark.parametrize(
    ("stage", "takes", "here"), [(Nothing(), True, True), (OnDevice(), True, False), (Nothing(), False, False)]
)
def test_networks_and_files_of_others_are_for_ray(stage: Stage, takes: bool, here: bool) -> None:
    load = Load(outputs=Artifact("/masks", "m"), columns=columns(MASKS, "mask"))
    plan = Plan(name="p", stages=(stage,), schema=MASKS, classes=("cat",), takes=(load,) if takes else ())
    assert can_run_here(plan, most_rows=3) == here
