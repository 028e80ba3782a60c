"""What a run starts, by its config alone."""

import pytest

from raypipe import schema
from raypipe.config import RunConfig, load_config
from raypipe.data.manifest import Manifest
from raypipe.doctor.workload import (
    Training,
    step_names,
    streams_of,
    trainings_of,
    trains_classifier,
)
from raypipe.pipelines.context import Context
from raypipe.pipelines.needs import makes_seeds, uses_classifier
from raypipe.streams.plan import Plan

GIVEN_MAPS = ["checkpoints.seeds=folder"]


def make_config(*overrides: str) -> RunConfig:
    return load_config("preset: demo", ["manifest=m.parquet", "out=out", *overrides])


def make_context(*overrides: str) -> Context:
    return Context(make_config(*overrides), Manifest(schema.MANIFEST.empty_table(), ("cat", "dog")))


@pytest.mark.parametrize(
    ("overrides", "seeds", "trained"),
    [
        ([], True, ["classifier", "affinity"]),
        (["walk.affinity=rgb"], False, ["classifier"]),
        (["walk.affinity=rgb", "checkpoints.classifier=c"], False, []),
        (["walk.affinity=frozen", "affinity.start=classifier"], False, ["classifier"]),
        (["checkpoints.affinity=a", "checkpoints.classifier=c"], False, []),
        (["checkpoints.classifier=c"], True, ["affinity"]),
        (["segmenter.enabled=true"], True, ["classifier", "affinity", "segmenter"]),
        (["segmenter.enabled=true", "checkpoints.segmenter=s"], True, ["classifier", "affinity"]),
        ([*GIVEN_MAPS, "walk.affinity=rgb"], False, []),
        ([*GIVEN_MAPS, "checkpoints.affinity=a"], False, []),
    ],
)
def test_what_a_run_makes_depends_on_what_is_given(overrides: list[str], trained: list[str], *, seeds: bool) -> None:
    context = make_context(*overrides)
    assert makes_seeds(context.config) == seeds
    assert [training.task for training in trainings_of(context)] == trained


@pytest.mark.parametrize(
    ("overrides", "used", "trained"),
    [
        ([], True, True),
        (["checkpoints.classifier=c"], True, False),
        (["affinity.start=pretrained"], True, True),
        ([*GIVEN_MAPS, "affinity.start=pretrained"], False, False),
        ([*GIVEN_MAPS, "affinity.start=classifier"], True, True),
        ([*GIVEN_MAPS, "affinity.start=classifier", "checkpoints.classifier=c"], True, False),
        ([*GIVEN_MAPS, "affinity.start=classifier", "walk.affinity=frozen"], True, True),
        ([*GIVEN_MAPS, "affinity.start=pretrained", "walk.affinity=frozen", "network.weights=w"], False, False),
        ([*GIVEN_MAPS, "affinity.start=classifier", "checkpoints.affinity=a"], False, False),
        ([*GIVEN_MAPS, "checkpoints.affinity=a", "segmenter.enabled=true", "segmenter.start=pretrained"], False, False),
        ([*GIVEN_MAPS, "checkpoints.affinity=a", "segmenter.enabled=true", "segmenter.start=classifier"], True, True),
        # A classifier that is there judges; for a judgement alone none is trained.
        ([*GIVEN_MAPS, "affinity.start=pretrained", "checkpoints.classifier=c"], True, False),
        ([*GIVEN_MAPS, "affinity.start=pretrained", "checkpoints.classifier=c", "refinement.gate=off"], False, False),
        (
            [*GIVEN_MAPS, "affinity.start=pretrained", "checkpoints.classifier=c", "refinement.method=none"],
            False,
            False,
        ),
        (
            [
                *GIVEN_MAPS,
                *(
                    "checkpoints.affinity=a",
                    "segmenter.enabled=true",
                    "segmenter.start=pretrained",
                    "segmenter.rounds=1",
                ),
            ],
            True,
            True,
        ),
    ],
)
def test_given_maps_take_the_place_of_the_classifier(overrides: list[str], *, used: bool, trained: bool) -> None:
    context = make_context(*overrides)
    assert (uses_classifier(context), trains_classifier(context)) == (used, trained)


def test_a_training_is_planned_by_its_batch_and_its_validation() -> None:
    context = make_context("segmenter.enabled=true", "segmenter.validation_splits=[val]", "segmenter.batch_size=6")
    assert list(trainings_of(context))[-1] == Training(task="segmenter", batch_size=6, validates=True)


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], ["labels", "seeds", "gate", "masks", "scores"]),
        (["refinement.gate=off"], ["labels", "seeds", "masks", "scores"]),
        (["refinement.gate=image"], ["labels", "seeds", "masks", "scores"]),
        (["checkpoints.affinity=a", "segmenter.enabled=true"], ["labels", "gate", "masks", "segments", "scores"]),
        (["checkpoints.classifier=c", "checkpoints.affinity=a"], ["gate", "masks", "scores"]),
        # Nothing judges a walk along colours, or of no steps.
        (["walk.affinity=rgb", "refinement.method=none"], ["labels", "masks", "scores"]),
        (["walk.affinity=rgb"], ["labels", "gate", "masks", "scores"]),
        (
            ["walk.affinity=frozen", "affinity.start=classifier", "refinement.method=none"],
            ["labels", "gate", "masks", "scores"],
        ),
        (["walk.num_steps=0", "refinement.method=none"], ["labels", "seeds", "masks", "scores"]),
        # Nor the refinement of masks of given seeds, where there is no classifier.
        ([*GIVEN_MAPS, "affinity.start=pretrained", "walk.affinity=rgb"], ["masks", "scores"]),
        ([*GIVEN_MAPS, "affinity.start=pretrained"], ["seeds", "gate", "masks", "scores"]),
    ],
)
def test_streams_of_a_run(overrides: list[str], names: list[str]) -> None:
    assert [plan.name for plan in streams_of(make_context(*overrides))] == names


def test_saliency_is_a_stream_where_a_network_predicts_it() -> None:
    """Its weights needn't be at hand: no resource depends on them."""
    overrides = ["saliency.weights=absent.onnx", "classifier.saliency=eps"]
    assert streams_of(make_context(*overrides))[0].name == "saliency"
    assert streams_of(make_context(*overrides, "checkpoints.classifier=c"))[0].name == "seeds"


def test_masks_take_up_the_maps_of_seeds_that_the_run_makes() -> None:
    def masks(*overrides: str) -> Plan:
        return next(plan for plan in streams_of(make_context(*overrides)) if plan.name == "masks")

    def steps(*overrides: str) -> list[str]:
        return [type(stage).__name__ for stage in masks(*overrides).steps]

    (load,) = masks().loads
    assert "/seeds/" in load.outputs.uri
    assert "cam" in load.writes
    assert "ComputeCams" not in steps()
    assert masks("checkpoints.affinity=a").loads == ()
    assert "ComputeCams" in steps("checkpoints.affinity=a")
    assert "FitSeeds" in steps(*GIVEN_MAPS, "checkpoints.affinity=a")
    given, taken_up = (masks(*GIVEN_MAPS, *more) for more in (["checkpoints.affinity=a"], []))
    assert [load.imported for load in given.read_loads] == [True]
    assert [load.imported for load in taken_up.read_loads] == [False], "of seeds that are made, none is read twice"
    assert given.row_columns() == taken_up.row_columns()


def test_a_step_has_a_number_only_where_the_manifest_has_something_for_it() -> None:
    config = make_config("classifier.saliency=eps++", "saliency.weights=s.pth", "cams.refit=true")
    row = {"image_id": "a", "image_uri": "a.jpg", "labels": ["cat"], "split": "train"}
    names = [
        step_names(Context(config, Manifest.from_rows([row | more], ("cat", "dog"))), "scores")
        for more in ({}, {"saliency_uri": "s.png"}, {"mask_uri": "m.png"})
    ]
    between = ["classifier", "labels", "refit", "seeds", "affinity", "gate", "masks"]
    assert names == [["saliency", *between], between, ["saliency", *between, "scores"]]
