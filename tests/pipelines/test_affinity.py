"""What an AffinityNet is trained of, by seeds that are written as a stream would; nothing is trained."""

from pathlib import Path
from typing import Any

import pytest
from stream_outputs import write_outputs

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.shards import Place, RowReader
from raypipe.pipelines.affinity import affinity_plan, affinity_task
from raypipe.pipelines.context import Context
from raypipe.pipelines.feed import DRAWN
from raypipe.pipelines.networks import NetworkPlan
from raypipe.schema import SEEDS
from raypipe.stages.base import columns_after

SPLITS = {"d": "train", "a": "train", "unseeded": "train", "v": "val"}
TRIMAPS = {"a": b"A", "d": b"D", "v": b"V", "gone": b"G"}
LABELS = {"d": ["dog"]}
CLASSIFIER = Artifact("classifier", "c")


def make_context(*options: str, splits: dict[str, str] = SPLITS) -> Context:
    rows = [
        {"image_id": name, "image_uri": f"{name}.jpg", "split": split, "labels": LABELS.get(name, ["cat"])}
        for name, split in splits.items()
    ]
    given = ["manifest=m.parquet", "out=out", "affinity.start=pretrained", *options]
    return Context(load_config("preset: demo", given), Manifest.from_rows(rows, ("cat", "dog")))


def write_seeds(folder: Path, trimaps: dict[str, bytes], *, made_of: str = "row") -> Artifact:
    """Seeds in shards of two rows."""
    rows: list[dict[str, Any]] = [{"image_id": name, "trimap": trimap} for name, trimap in trimaps.items()]
    return write_outputs(str(folder), SEEDS, rows, digest="s", rows_per_shard=2, made_of=made_of)


def test_it_learns_from_the_training_images_that_have_trimaps(tmp_path: Path) -> None:
    seeds = write_seeds(tmp_path, TRIMAPS)
    plan = affinity_plan(make_context(), seeds=seeds, classifier=None)
    assert [tuple(row.values()) for row in plan.rows.select(["image_id", "image_uri"]).to_pylist()] == [
        ("a", "a.jpg"),
        ("d", "d.jpg"),
    ]
    for row in plan.rows.to_pylist():
        assert (
            RowReader().read(Place(row["shard_uri"], row["shard_row"]), columns=["trimap"])["trimap"]
            == TRIMAPS[row["image_id"]]
        )
    assert "trimap" not in plan.rows.column_names, "many rows would take gigabytes"
    columns_after([*plan.rows.column_names, *DRAWN], [plan.crops])
    assert plan.factors is plan.validated_rows is None


def test_a_part_of_them_holds_the_rare_classes_first(tmp_path: Path) -> None:
    cats = {f"cat{index}": "train" for index in range(30)}
    seeds = write_seeds(tmp_path, dict.fromkeys(["d", *cats], b"T"))

    def plan(*options: str) -> NetworkPlan:
        context = make_context(*options, splits={"d": "train", **cats})
        return affinity_plan(context, seeds=seeds, classifier=None)

    assert plan().provenance() == plan("affinity.max_images=31").provenance(), "no image is left out"
    few, other = plan("affinity.max_images=4"), plan("affinity.max_images=4", "seed=1")
    assert few.rows.num_rows == other.rows.num_rows == 4
    assert "d" in few.rows["image_id"].to_pylist(), "the only dog"
    assert other.rows["image_id"] != few.rows["image_id"]
    assert few.provenance() != plan().provenance()


@pytest.mark.parametrize("trimaps", [{}, {"v": b"V", "gone": b"G"}])
def test_seeds_without_those_of_what_is_trained_on_are_refused(trimaps: dict[str, bytes], tmp_path: Path) -> None:
    seeds = write_seeds(tmp_path, trimaps)
    with pytest.raises(ValueError, match=r"no seeds of splits\.train=.*: run `raypipe seeds`"):
        affinity_plan(make_context(), seeds=seeds, classifier=None)


def test_the_network_depends_on_what_the_trimaps_were_made_of(tmp_path: Path) -> None:
    def provenance(folder: str, made_of: str, seeds_digest: str = "s") -> dict[str, Any]:
        seeds = Artifact(write_seeds(tmp_path / folder, TRIMAPS, made_of=made_of).uri, seeds_digest)
        return affinity_plan(make_context(), seeds=seeds, classifier=None).provenance()

    first = provenance("first", "row")
    assert provenance("moved", "row") == first
    assert provenance("other rows", "changed row") != first
    assert provenance("other settings", "row", seeds_digest="t") != first


def test_a_start_from_the_classifier_takes_its_checkpoint_and_needs_one() -> None:
    context = make_context("affinity.start=classifier", "network.weights=/w.pth")
    with pytest.raises(ValueError, match="start=classifier needs the classifier's checkpoint"):
        affinity_task(context, classifier=None)
    assert affinity_task(context, classifier=CLASSIFIER).weights == CLASSIFIER
    pretrained = make_context("network.weights=/w.pth")
    assert affinity_task(pretrained, classifier=CLASSIFIER).weights == "/w.pth"


def test_radius_and_frozen_backbone_are_those_of_the_config() -> None:
    task = affinity_task(make_context("affinity.radius=3", "affinity.freeze_backbone=true"), classifier=None)
    assert (task.radius, task.freeze_backbone) == (3, True)
    network = task.build()
    assert not any(parameter.requires_grad for parameter in network.backbone.parameters())
    assert any(parameter.requires_grad for parameter in network.parameters()), "the head learns"
