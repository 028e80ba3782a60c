"""Streams and trainings against machines, which a config may declare to be brought by an autoscaler."""

import pytest

from raypipe import schema
from raypipe.cluster.findings import Finding
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.doctor.fit import check_fit
from raypipe.pipelines.context import Context


def findings(machine: str, *overrides: str) -> list[Finding]:
    given = ["manifest=m.parquet", "out=out", f"cluster.autoscaling=['{machine}']", *overrides]
    return list(
        check_fit(Context(load_config("preset: demo", given), Manifest(schema.MANIFEST.empty_table(), ("cat",))))
    )


@pytest.mark.parametrize("machine", ["cpus=1,memory=4", "cpus=64,gpus=1,memory=256", "nodes=0-4,cpus=8,memory=32"])
def test_a_config_that_sets_nothing_fits(machine: str) -> None:
    (found,) = findings(machine)
    assert (found.check, found.status) == ("resources", "ok")
    names = "seeds, gate, masks, scores, training of the classifier, training of the affinity"
    assert found.found.startswith(f"{names}: each fits ")


def test_gpus_that_are_asked_for_and_are_not_there() -> None:
    found = findings("cpus=8,memory=32", "cluster.gpus_per_actor=1")
    assert [finding.status for finding in found] == ["problem"]
    # All streams with the same reason are told once; what runs no network needs no GPU.
    assert found[0].found.startswith("seeds, gate, masks, scores: cluster.gpus_per_actor=1 needs a node with 1 GPUs")
    assert found[0].way_out == "leave cluster.gpus_per_actor null, or use a machine with such nodes"


def test_refinement_on_gpus_that_are_not_there() -> None:
    (found,) = findings("cpus=8,memory=32", "refinement.device=gpu")
    assert found.status == "problem"
    assert found.found.startswith("seeds, gate, masks: refinement.device=gpu needs GPUs"), "scores need none"
    assert found.way_out == "leave refinement.device out, or use a machine with GPUs"
    (found,) = findings("cpus=8,gpus=1,memory=32", "refinement.device=gpu")
    assert found.status == "ok"


def test_more_actors_than_there_is_room_for() -> None:
    found = findings("cpus=8,gpus=2,memory=64", "cluster.gpus_per_actor=1", "cluster.network_actors=3")
    problems = [finding for finding in found if finding.status == "problem"]
    assert len(problems) == 3  # seeds, gate and masks: the messages differ
    assert problems[0].found.startswith("seeds: cluster.network_actors=3 needs 3 actors of DecodeImages + ComputeCams")
    assert problems[0].way_out.startswith("leave cluster.network_actors null")


def test_idle_gpus_are_worth_a_warning() -> None:
    found = findings("cpus=64,gpus=4,memory=256", "cluster.gpus_per_actor=0")
    assert [(finding.check, finding.status) for finding in found] == [("resources", "ok"), ("idle GPUs", "warning")]
    assert "of 4 GPUs stay idle: seeds 4, gate 4, masks 4" in found[1].found
    assert "scores" not in found[1].found
