"""Plans of machines that aren't there, of every recipe."""

import pytest

from raypipe.cluster.machines import parse_machine
from raypipe.cluster.resources import DoesNotFit
from raypipe.config import load_config, presets
from raypipe.doctor.describe import describe_run

MACHINES = (
    "cpus=1,memory=4",
    "cpus=2,memory=8",
    "nodes=4,cpus=64,gpus=8,memory=512",
    "nodes=0-8,cpus=16,gpus=1,memory=64",
)


def describe(preset: str, machine: str, *overrides: str) -> dict[str, list[str]]:
    """Lines of each stream and training, by the first one."""
    config = load_config(f"preset: {preset}", ["manifest=absent.parquet", "out=out", *overrides])
    parts = describe_run(config, ("cat", "dog"), parse_machine(machine)).split("\n\n")
    return {lines[0]: lines[1:] for lines in (part.splitlines() for part in parts)}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("preset", presets())
def test_every_recipe_on_every_machine(preset: str, machine: str) -> None:
    described = describe(preset, machine)
    segmenter = preset in ("coco_resnet50", "voc12_resnet38", "voc12_resnet50")
    gate, refit = preset != "psa", preset == "voc_efficientnet_lite2"
    assert list(described) == [
        *("labels", *(["refit"] if refit else []), "seeds", *(["gate"] if gate else []), "masks"),
        *(*(["segments"] if segmenter else []), "scores"),
        *("training of the classifier", "training of the affinity"),
        *(["training of the segmenter"] if segmenter else []),
    ]
    for lines in described.values():
        assert lines[0].split() == ["pool", "actors", "CPUs", "GPUs", "threads"]
        assert any(line.startswith("  idle GPUs: ") for line in lines)


def test_a_stream_is_a_table_and_its_stages() -> None:
    seeds = describe("demo", "cpus=64,gpus=8,memory=512")["seeds"]
    pools = [line.split("  ")[1] for line in seeds[1:5]]
    assert pools == ["FetchImages", "DecodeImages + ComputeCams", "MakeTrimaps", "(write)"]
    assert seeds[5] == "  idle GPUs: 0"
    stages = seeds[6:]
    assert stages[0] == "  FetchImages: image_id, image_uri, labels → image, class_ids"
    assert [line.split(":")[0].strip() for line in stages] == [
        "FetchImages",
        "DecodeImages",
        "ComputeCams",
        "MakeTrimaps",
    ]


def test_one_process_runs_everything_where_there_is_no_gpu() -> None:
    seeds = describe("demo", "cpus=2,memory=8")["seeds"]
    assert seeds[1].startswith("  FetchImages + DecodeImages + ComputeCams + MakeTrimaps  1-2")


def test_refinement_beside_the_networks() -> None:
    described = describe("demo", "cpus=64,gpus=8,memory=512", "refinement.device=gpu", "refinement.gate=off")
    pools = {name: [line.split("  ")[1] for line in described[name][1:5]] for name in ("seeds", "masks")}
    assert pools["seeds"][:2] == ["FetchImages", "DecodeImages + ComputeCams + MakeTrimapsOnDevice"]
    device = "DecodeImages + PropagateCams + RefineOnDevice"
    assert pools["masks"] == ["FetchImages", device, "RefineMasks + EncodeMasks", "(write)"]
    stages = [line.strip() for line in described["masks"]]
    scores = "class_ids, scores, grid_height, grid_width"
    assert f"RefineOnDevice: image, {scores} → refined" in stages
    assert any(line.startswith(f"RefineMasks: refined, {scores}") for line in stages)
    with pytest.raises(DoesNotFit, match=r"refinement\.device=gpu needs GPUs .* leave refinement\.device out"):
        describe("demo", "cpus=64,memory=512", "refinement.device=gpu")


def test_checkpoints_that_are_not_there_need_no_training() -> None:
    described = describe("demo", "cpus=2,memory=8", "checkpoints.classifier=absent", "checkpoints.affinity=absent")
    assert list(described) == ["gate", "masks", "scores"]


def test_what_does_not_fit_is_refused_with_the_way_out() -> None:
    with pytest.raises(DoesNotFit, match=r"cluster\.gpus_per_actor=1 .* leave cluster\.gpus_per_actor null"):
        describe("demo", "cpus=64,memory=512", "cluster.gpus_per_actor=1")
    with pytest.raises(DoesNotFit, match=r"cluster\.train_workers=3 needs a batch that it divides"):
        describe("demo", "cpus=64,memory=512", "cluster.train_workers=3")
