"""Streams and trainings against machines, which a config may declare to be brought by an autoscaler."""

from pathlib import Path

import pytest

from raypipe import schema, storage
from raypipe.cluster.findings import Finding
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.doctor.fit import check_fit, check_step
from raypipe.doctor.workload import Step
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
    names = "labels, seeds, gate, masks, scores, training of the classifier, training of the affinity"
    assert found.found.startswith(f"{names}: each fits ")


def test_gpus_that_are_asked_for_and_are_not_there() -> None:
    found = findings("cpus=8,memory=32", "cluster.gpus_per_actor=1")
    assert [finding.status for finding in found] == ["problem"]
    # All streams with the same reason are told once; what runs no network needs no GPU.
    assert found[0].found.startswith(
        "labels, seeds, gate, masks, scores: cluster.gpus_per_actor=1 needs a node with 1 GPUs"
    )
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
    assert len(problems) == 4  # labels, seeds, gate and masks: the messages differ
    assert problems[1].found.startswith("seeds: cluster.network_actors=3 needs 3 actors of DecodeImages + ComputeCams")
    assert problems[0].way_out.startswith("leave cluster.network_actors null")


def test_idle_gpus_are_worth_a_warning() -> None:
    found = findings("cpus=64,gpus=4,memory=256", "cluster.gpus_per_actor=0")
    assert [(finding.check, finding.status) for finding in found] == [("resources", "ok"), ("idle GPUs", "warning")]
    assert "of 4 GPUs stay idle: labels 4, seeds 4, gate 4, masks 4" in found[1].found
    assert "scores" not in found[1].found


CPUS = "cpus=4,memory=16"
GPUS = "nodes=2,cpus=8,gpus=1,memory=32"


def problems_of(until: Step, machine: str, *overrides: str, out: str = "out") -> list[Finding]:
    given = ["manifest=m.parquet", f"out={out}", f"cluster.autoscaling=['{machine}']", *overrides]
    context = Context(load_config("preset: demo", given), Manifest(schema.MANIFEST.empty_table(), ("cat",)))
    return list(check_step(context, until))


@pytest.mark.parametrize(
    ("until", "machine", "override", "named", "there"),
    [
        ("classifier", CPUS, "cluster.gpus_per_train_worker=1", "1 GPUs", "4 CPUs, 0 GPUs"),
        ("classifier", CPUS, "cluster.gpus_per_train_worker=0.5", "a part of one GPU", "4 CPUs, 0 GPUs"),
        ("classifier", CPUS, "cluster.train_workers=3", "a batch that it divides", "batch_size=16"),
        ("classifier", CPUS, "cluster.min_train_workers=4", "cluster.min_train_workers=4 is more than the 1", "4 CPUs"),
        ("classifier", GPUS, "cluster.gpus_per_train_worker=2", "2 GPUs", "8 CPUs, 1 GPUs"),
        ("classifier", GPUS, "cluster.train_workers=4", "there is room for 2", "8 CPUs, 1 GPUs"),
        ("affinity", GPUS, "cluster.train_workers=8", "there is room for 2", "8 CPUs, 1 GPUs"),
        ("seeds", CPUS, "cluster.gpus_per_actor=1", "1 GPUs", "4 CPUs, 0 GPUs"),
        ("seeds", CPUS, "cluster.network_actors=100", "100 actors", "4 CPUs, 0 GPUs"),
        ("masks", GPUS, "cluster.cpu_actors=1000", "1000 actors", "8 CPUs, 1 GPUs"),
        ("masks", GPUS, "cluster.gpus_per_actor=1.5", "1.5 needs a node with 2 GPUs", "8 CPUs, 1 GPUs"),
        ("masks", CPUS, "refinement.device=gpu", "needs GPUs", "4 CPUs, 0 GPUs"),
        ("segments", CPUS, "cluster.network_actors=64", "64 actors", "4 CPUs, 0 GPUs"),
        ("segmenter", GPUS, "cluster.train_workers=8", "there is room for 2", "8 CPUs, 1 GPUs"),
    ],
)
def test_a_step_that_cant_be_scheduled_is_refused_with_what_is_needed_and_there(
    until: Step, machine: str, override: str, named: str, there: str, tmp_path: Path
) -> None:
    found = problems_of(until, machine, override, out=str(tmp_path))
    assert {finding.status for finding in found} == {"problem"}
    assert all(named in str(finding) for finding in found), found
    assert all(there in str(finding) for finding in found), found
    assert all(finding.way_out for finding in found)


def test_a_step_is_not_refused_for_what_it_does_not_start(tmp_path: Path) -> None:
    assert problems_of("classifier", CPUS, "cluster.network_actors=100", out=str(tmp_path)) == []
    assert problems_of("labels", CPUS, "cluster.network_actors=100", out=str(tmp_path)) != []
    assert problems_of("seeds", CPUS, "refinement.device=gpu", "trimaps.refine=dcrf", out=str(tmp_path))[0].found
    assert problems_of("masks", CPUS, out=str(tmp_path)) == []
    given = ("checkpoints.classifier=a", "checkpoints.affinity=b", "cluster.gpus_per_train_worker=1")
    assert problems_of("masks", CPUS, *given, out=str(tmp_path)) == []


@pytest.mark.parametrize("out", ["out", "odd [1] *#?"])
def test_what_was_made_before_may_need_nothing(tmp_path: Path, out: str) -> None:
    folder = str(tmp_path / out)
    for task in ("classifier", "affinity"):
        storage.write_bytes_atomic(f"{folder}/{task}/0123456789ab/checkpoint/checkpoint.json", b"{}")
    found = problems_of("affinity", CPUS, "cluster.gpus_per_train_worker=1", out=folder)
    assert [finding.status for finding in found] == ["warning", "warning"]
    found = problems_of("seeds", CPUS, "cluster.network_actors=100", out=folder)
    assert [finding.status for finding in found] == ["problem", "problem"]
    for stream in ("labels", "seeds"):
        storage.write_bytes_atomic(f"{folder}/{stream}/0123456789ab/summary.json", b"{}")
    found = problems_of("seeds", CPUS, "cluster.network_actors=100", out=folder)
    assert [finding.status for finding in found] == ["warning", "warning"]
