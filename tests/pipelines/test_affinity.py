"""What an AffinityNet is trained of, by seeds that are written as a stream would, and a backbone in its place."""

from pathlib import Path
from typing import Any

import pytest
import torch
from stream_outputs import write_outputs

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.shards import Place, RowReader
from raypipe.networks import FrozenFeatures, build_classifier
from raypipe.pipelines.affinity import affinity_plan, affinity_task, find_frozen, freeze_backbone
from raypipe.pipelines.context import Context
from raypipe.pipelines.feed import DRAWN
from raypipe.pipelines.networks import NetworkPlan
from raypipe.schema import SEEDS
from raypipe.stages.base import columns_after
from raypipe.stages.networks import load_affinity_net

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


def frozen_context(tmp_path: Path, *options: str) -> Context:
    return make_context(
        f"out={tmp_path}/out", "walk.affinity=frozen", f"network.weights={tmp_path}/weights.pth", *options
    )


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    """Those of a classifier, as a file of pretrained weights; frozen features have no use for its head."""
    torch.manual_seed(1)
    found: dict[str, torch.Tensor] = build_classifier("tiny", num_classes=3).state_dict()
    torch.save(found, tmp_path / "weights.pth")
    return found


def test_a_frozen_backbone_has_the_pretrained_weights(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    frozen = freeze_backbone(frozen_context(tmp_path, "network.preprocessing=tensorflow"), classifier=None)
    network = load_affinity_net(frozen.uri, device="cpu")
    assert isinstance(network, FrozenFeatures)
    assert network.preprocessing.scale == 1 / 127.5
    x = torch.randn(1, 3, 40, 48)
    expected = build_classifier("tiny", num_classes=3).eval()
    expected.load_state_dict(weights)
    with torch.inference_mode():
        found, last = network(x), expected.backbone(x)[expected.backbone.last_depth]
    last = torch.nn.functional.normalize(last, dim=1)
    torch.testing.assert_close(found[:, -last.shape[1] :], last, rtol=1e-3, atol=1e-4)


def test_a_frozen_backbone_is_written_once(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    context = frozen_context(tmp_path)
    assert find_frozen(context, classifier=None) is None
    frozen = freeze_backbone(context, classifier=None)
    (tmp_path / "weights.pth").unlink()
    assert freeze_backbone(context, classifier=None) == find_frozen(context, classifier=None) == frozen


def test_a_frozen_classifier_is_another_network(
    tmp_path: Path, weights: dict[str, torch.Tensor], classifier_uri: str
) -> None:
    pretrained = freeze_backbone(frozen_context(tmp_path), classifier=None)
    context = frozen_context(tmp_path, "affinity.start=classifier")
    taken = freeze_backbone(context, classifier=Artifact(classifier_uri, "c"))
    assert taken.digest != pretrained.digest
    assert taken.uri != pretrained.uri
    with pytest.raises(ValueError, match="needs the classifier's checkpoint"):
        freeze_backbone(context, classifier=None)


def test_weights_of_another_network_cannot_be_frozen(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="doesn't fit the FrozenFeatures of tiny"):
        freeze_backbone(frozen_context(tmp_path), classifier=None)
