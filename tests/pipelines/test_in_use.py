"""What a set that grows computes, and with which networks and decisions."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.checkpoints import Checkpoint, write_checkpoint
from raypipe.data.manifest import Manifest
from raypipe.outputs.lease import Lease
from raypipe.pipelines import networks
from raypipe.pipelines.classifier import classifier_plan
from raypipe.pipelines.context import Context
from raypipe.pipelines.gate import run_gates
from raypipe.pipelines.in_use import find_in_use, put_in_use
from raypipe.pipelines.masks import run_masks
from raypipe.pipelines.networks import find_trained, run_training
from raypipe.pipelines.seeds import run_seeds
from raypipe.stages.base import Row
from raypipe.stages.fetch import FetchImages

USE: dict[str, Any] = {"options": "o", "classes": ("cat", "dog"), "rows": "r"}


def write_network(folder: Path, name: str) -> Artifact:
    checkpoint = Checkpoint(
        task="classifier", backbone="tiny", classes=("cat", "dog"), preprocessing={}, config={}, weights={}
    )
    write_checkpoint(checkpoint, str(folder / name))
    return Artifact(str(folder / name), name)


def test_a_network_is_in_use_until_an_option_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, network = str(tmp_path), write_network(tmp_path, "first")
    assert find_in_use(out, "classifier", **USE) is None
    put_in_use(out, "classifier", network, **USE, num_rows=7)
    assert find_in_use(out, "classifier", **USE) == network
    assert not caplog.records
    with caplog.at_level(logging.DEBUG, logger="raypipe"):
        assert find_in_use(out, "classifier", **USE | {"rows": "more"}) == network
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG, "it is so from command to command"
    assert "trained on 7 images" in record.getMessage()
    assert "--retrain=all" in record.getMessage()
    assert find_in_use(out, "classifier", **USE | {"options": "others"}) is None
    assert find_in_use(out, "affinity", **USE) is None
    second = write_network(tmp_path, "second")
    put_in_use(out, "classifier", second, **USE | {"options": "others"}, num_rows=7)
    assert find_in_use(out, "classifier", **USE) == network, "an option that changes back finds its network"


def test_other_classes_are_refused(tmp_path: Path) -> None:
    out, network = str(tmp_path), write_network(tmp_path, "first")
    put_in_use(out, "classifier", network, **USE, num_rows=7)
    other = USE | {"classes": ("cat", "dog", "emu")}
    with pytest.raises(ValueError, match=r"of the classes \['cat', 'dog'\], .* \['cat', 'dog', 'emu'\].*--retrain=all"):
        find_in_use(out, "classifier", **other)
    put_in_use(out, "classifier", network, **other, num_rows=7)
    assert find_in_use(out, "classifier", **other) == network


def test_a_network_that_somebody_has_deleted_is_not_in_use(tmp_path: Path) -> None:
    out = str(tmp_path)
    put_in_use(out, "classifier", Artifact(f"{out}/gone", "g"), **USE, num_rows=7)
    assert find_in_use(out, "classifier", **USE) is None


def test_a_grown_set_trains_only_when_it_is_told_to(
    synthetic: tuple[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []

    def train(_context: Context, plan: networks.NetworkPlan, folder: str, _lease: Lease) -> None:
        trained.append(plan.rows.num_rows)
        checkpoint = Checkpoint(
            task="classifier",
            backbone="tiny",
            classes=plan.classes,
            preprocessing={},
            config={"rows": plan.rows.num_rows},
            weights={},
        )
        write_checkpoint(checkpoint, storage.join(folder, "checkpoint"))

    monkeypatch.setattr(networks, "_train", train)
    config = load_config("preset: demo", ["manifest=unused", f"out={tmp_path}"])
    rows = synthetic[1].table.to_pylist()
    small, grown = (Context(config, Manifest.from_rows(some, synthetic[1].classes)) for some in (rows[:12], rows))

    def network(context: Context) -> Artifact:
        return run_training(context, classifier_plan(context, maps=None))

    first = network(small)
    assert network(grown) == first == find_trained(grown, classifier_plan(grown, maps=None))
    renewed = network(replace(grown, retrain="all"))
    assert network(grown) == renewed
    assert network(replace(grown, retrain="all")) == renewed, "there is nothing new to learn"
    assert len(trained) == 2
    changed = replace(grown, config=load_config("preset: demo", ["manifest=unused", f"out={tmp_path}", "seed=5"]))
    network(changed)
    assert len(trained) == 3, "a changed option never takes a network of other options"


class Streams:
    """Seeds, gate and masks of a manifest, and the images that each of them reads."""

    def __init__(self, options: list[str], classes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        self.options, self.classes = options, classes
        self.read: list[str] = []
        process = FetchImages.process

        def count(stage: FetchImages, row: Row) -> Row:
            self.read.append(row["image_id"])
            return process(stage, row)

        monkeypatch.setattr(FetchImages, "process", count)

    def run(self, rows: list[Row], **changes: Any) -> dict[str, int]:
        config = load_config("preset: demo", self.options)
        context = Context(config, Manifest.from_rows(rows, self.classes), **changes)
        maps, affinity = (Artifact(config.checkpoints.classifier, "c"), Artifact(config.checkpoints.affinity, "a"))
        found = {}
        for name in ("seeds", "gate", "masks"):
            self.read.clear()
            if name == "seeds":
                run_seeds(context, maps=maps)
            elif name == "gate":
                context = run_gates(context, maps=maps, affinity=affinity).context
            else:
                run_masks(context, maps=maps, affinity=affinity)
            found[name] = len(self.read)
        return found


def test_only_rows_that_are_new_or_changed_are_computed(
    synthetic: tuple[str, Manifest],
    classifier_uri: str,
    affinity_uri: str,
    tmp_path: Path,
    in_this_process: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = [
        f"checkpoints.classifier={classifier_uri}",
        f"checkpoints.affinity={affinity_uri}",
        "manifest=unused",
        f"out={tmp_path}",
        "cams.scales=[1.0]",
        "walk.num_steps=2",
        "splits.masks=null",
        "splits.train=null",
        "trimaps.crf_stride=2",
    ]
    monkeypatch.setattr("raypipe.pipelines.gate.SAMPLE_SIZE", 4)
    streams = Streams(options, ("cat", "dog"), monkeypatch)
    rows = [row | {"mask_uri": None, "labels": ["cat"]} for row in synthetic[1].table.to_pylist()]
    first = streams.run(rows[:6])
    assert (first["seeds"], first["masks"]) == (6, 6)
    assert first["gate"] in (4, 8), "a rejected walk has the refinement judged without it"
    assert streams.run(rows[:6]) == {"seeds": 0, "gate": 0, "masks": 0}
    assert streams.run(rows[:9]) == {"seeds": 3, "gate": 0, "masks": 3}
    truth = synthetic[1].table["mask_uri"][0].as_py()
    with_truth = [rows[0] | {"mask_uri": truth}, *rows[1:9]]
    assert streams.run(with_truth) == {"seeds": 0, "gate": 0, "masks": 0}, "it is no input of masks"
    monkeypatch.setattr("raypipe.__version__", "99.0")
    assert streams.run(with_truth) == {"seeds": 0, "gate": 0, "masks": 0}
    relabelled = [rows[0] | {"labels": []}, *rows[1:9]]
    assert streams.run(relabelled) == {"seeds": 1, "gate": 0, "masks": 1}
    assert list(tmp_path.glob("gate/*/decision.json"))
