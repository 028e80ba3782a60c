from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

from raypipe.artifacts import NOT_IN_DIGEST, Artifact, digest
from raypipe.config import ConfigError, load_config
from raypipe.data.manifest import Manifest
from raypipe.outputs.sink import PART, PART_TODO
from raypipe.pipelines import steps
from raypipe.pipelines.context import Context
from raypipe.pipelines.evaluate import scores_plan
from raypipe.pipelines.gate import gate_plan
from raypipe.pipelines.masks import masks_plan, taking_up
from raypipe.pipelines.saliency_maps import saliency_plan
from raypipe.pipelines.seeds import seeds_plan
from raypipe.pipelines.segmenter import segment_plan
from raypipe.schema import ROW_DIGEST
from raypipe.stages import decode, encode, trimaps
from raypipe.stages.base import run_stages
from raypipe.stages.cams import ComputeCams
from raypipe.stages.given_seeds import FitSeeds
from raypipe.stages.judge import GateMasks, GateWalk
from raypipe.stages.propagate import PropagateCams
from raypipe.streams.collect import collect
from raypipe.streams.plan import Plan

CLASSES = ("cat", "dog")
MAPS, AFFINITY = Artifact("classifier", "c"), Artifact("affinity", "a")


def make_context(*options: str, rows: list[dict[str, Any]] | None = None) -> Context:
    config = load_config("preset: demo", ["manifest=manifest.parquet", "out=out", *options])
    return Context(config, Manifest.from_rows(rows or [], CLASSES))


def make_masks(*options: str, maps: Artifact = MAPS, affinity: Artifact | None = AFFINITY) -> Plan:
    return masks_plan(make_context(*options), maps=maps, affinity=affinity)


def make_seeds(*options: str) -> Plan:
    return seeds_plan(make_context(*options), maps=MAPS)


def names(plan: Plan) -> list[str]:
    return [type(stage).__name__ for stage in plan.stages]


def test_the_stages_of_seeds_and_masks() -> None:
    first = ["FetchImages", "DecodeImages", "ComputeCams"]
    assert names(make_seeds()) == [*first, "MakeTrimaps"]
    assert names(make_masks()) == [*first, "GateWalk", "RefineMasks", "EncodeMasks"]
    assert names(make_masks("refinement.gate=off")) == [*first, "PropagateCams", "RefineMasks", "EncodeMasks"]
    gated = [*first, "GateWalk", "RefineMasks", "EncodeMasks", "GateMasks"]
    assert names(make_masks("refinement.gate=image")) == gated
    assert names(make_masks("refinement.gate=image", "refinement.method=none")) == gated[:-1], "nothing to judge"
    walked = names(make_masks("refinement.gate=image", affinity=None))
    assert walked == [*first, "PropagateCams", "RefineMasks", "EncodeMasks", "GateMasks"]


@pytest.mark.parametrize(
    ("options", "affinity", "choice"),
    [
        ([], AFFINITY, "any"),
        (["walk.affinity=frozen", "network.weights=w.pth"], AFFINITY, "longer"),
        (["walk.affinity=rgb"], None, "given"),
        (["refinement.gate=off"], AFFINITY, "given"),
    ],
)
def test_what_an_image_chooses_its_walk_among(options: list[str], affinity: Artifact | None, choice: str) -> None:
    context = make_context(*options)
    assert steps.walk_choice(context.config, affinity) == choice
    gate = steps.gate_walk(context, affinity, maps=MAPS)
    assert isinstance(gate, GateWalk)
    assert gate.choice == choice


def test_given_maps_take_the_place_of_a_classifier() -> None:
    given = make_context("checkpoints.seeds=maps", "cams.out_stride=1")
    stage = steps.compute_cams(given, MAPS)
    assert stage == FitSeeds(classes=CLASSES, out_stride=1)
    assert isinstance(steps.compute_cams(make_context(), MAPS), ComputeCams)


@pytest.mark.parametrize(("mode", "pixels"), [("deterministic", None), ("throughput", steps.PIXELS_PER_PASS)])
def test_images_share_passes_in_throughput_mode_alone(mode: str, pixels: int | None) -> None:
    plan = make_masks(f"inference.mode={mode}", "refinement.gate=image")
    _, _, cams, gate, *_ = plan.stages
    assert isinstance(cams, ComputeCams)
    assert isinstance(gate, GateWalk)
    assert cams.pixels_per_pass == gate.pixels_per_pass == gate.walk.pixels_per_pass == pixels


@pytest.mark.parametrize("option", ["refinement.power=3", "refinement.compat_bilateral=3"])
def test_masks_do_not_depend_on_what_their_refinement_does_not_use(option: str) -> None:
    changed = {
        method: make_masks(f"refinement.method={method}", option).digest
        != make_masks(f"refinement.method={method}").digest
        for method in ("none", "pamr", "dcrf")
    }
    assert changed == {"none": False, "pamr": "power" in option, "dcrf": True}


@pytest.mark.parametrize("method", ["dcrf", "pamr"])
def test_what_refines_moves_to_the_networks(method: str) -> None:
    on_gpu = make_masks("refinement.device=gpu", f"refinement.method={method}")
    assert names(on_gpu)[3:] == ["GateWalk", "RefineOnDevice", "RefineMasks", "EncodeMasks"]
    assert on_gpu.digest != make_masks(f"refinement.method={method}").digest
    assert names(make_seeds("refinement.device=gpu"))[-1] == "MakeTrimapsOnDevice"
    segments = segment_plan(make_context("refinement.device=gpu", "segmentation.method=dcrf"), segmenter=MAPS)
    assert names(segments)[2:] == ["SegmentImages", "RefineOnDevice", "RefineMasks", "EncodeMasks"]
    judged = gate_plan(make_context("refinement.device=gpu"), maps=MAPS, affinity=AFFINITY)
    assert names(judged)[4:] == ["RefineOnDevice", "RefineMasks", "EncodeMasks", "GateMasks"]


def test_what_is_not_refined_needs_no_gpu() -> None:
    plan = make_masks("refinement.device=gpu", "refinement.method=none")
    assert plan.digest == make_masks("refinement.method=none").digest
    assert segment_plan(make_context("refinement.device=gpu"), segmenter=MAPS).digest == (
        segment_plan(make_context(), segmenter=MAPS).digest
    )
    assert [pool.gpu_setting for pool in plan.pools(gpus=True)] == [None] * 3
    refining = make_masks("refinement.device=gpu").pools(gpus=True)
    assert [pool.gpu_setting for pool in refining] == [None, "refinement.device=gpu", None]


TILES = ("images.tile=128", "refinement.gate=run")


def test_tiles_put_each_stage_over_them_and_into_its_own_pool() -> None:
    plans = {
        "masks": make_masks(*TILES),
        "on gpu": make_masks(*TILES, "refinement.device=gpu"),
        "seeds": make_seeds(*TILES),
        "gate": gate_plan(make_context(*TILES), maps=MAPS, affinity=AFFINITY),
        "segments": segment_plan(make_context(*TILES), segmenter=MAPS),
    }
    found = {name: names(plan)[2:] for name, plan in plans.items()}
    assert found == {
        "masks": ["CamsOverTiles", "WalkOverTiles", "RefineOverTiles", "EncodeMasks"],
        "on gpu": ["CamsOverTiles", "WalkOverTiles", "RefineOverTiles", "RefineOverTiles", "EncodeMasks"],
        "seeds": ["CamsOverTiles", "TrimapsOverTiles"],
        "gate": ["CamsOverTiles", "WalkOverTiles", "RefineOverTiles", "EncodeMasks", "GateMasks"],
        "segments": ["SegmentOverTiles", "RefineOverTiles", "EncodeMasks"],
    }
    kinds = {name: [pool.kind for pool in plan.pools(gpus=True)] for name, plan in plans.items()}
    assert kinds == {
        "masks": ["fetch", "device", "finish"],
        "on gpu": ["fetch", "device", "finish"],
        "seeds": ["fetch", "device", "finish"],
        "gate": ["fetch", "device", "finish", "device"],
        "segments": ["fetch", "device", "finish"],
    }
    for plan in plans.values():
        assert names(plan)[:2] == ["FetchScenes", "DecodeScenes"]
        plan.check(["image_id", "image_uri", "labels", "split", "mask_uri"])


@pytest.mark.parametrize("option", ["refinement.gate=image", "classifier.saliency=eps"])
def test_what_sees_an_image_at_once_does_not_go_with_tiles(option: str) -> None:
    with pytest.raises(ConfigError, match=r"images\.tile doesn't go with"):
        make_context("images.tile=128", option)


ON_CPU = {"RefineMasks", "EncodeMasks", "MakeTrimaps", "FetchImages", "EncodeSaliency"}


@pytest.mark.parametrize(
    ("plan", "kinds"),
    [
        (make_masks(), ["fetch", "device", "finish"]),
        (make_masks("refinement.method=none"), ["fetch", "device", "finish"]),
        (make_masks("refinement.gate=image"), ["fetch", "device", "finish", "device"]),
        (make_masks("refinement.gate=image", "refinement.method=none"), ["fetch", "device", "finish"]),
        (make_seeds(), ["fetch", "device", "finish"]),
        (seeds_plan(make_context("checkpoints.seeds=m"), maps=MAPS), ["finish"]),
        (make_masks("refinement.device=gpu"), ["fetch", "device", "finish"]),
        (make_masks("refinement.device=gpu", "refinement.gate=image"), ["fetch", "device", "finish", "device"]),
        (make_seeds("refinement.device=gpu"), ["fetch", "device"]),
        (gate_plan(make_context(), maps=MAPS, affinity=AFFINITY), ["fetch", "device", "finish", "device"]),
        (segment_plan(make_context(), segmenter=MAPS), ["fetch", "device", "finish"]),
        (scores_plan(make_context(), masks=MAPS, seeds=MAPS), ["finish"]),
    ],
)
def test_pools_with_gpus(plan: Plan, kinds: list[str]) -> None:
    pools = plan.pools(gpus=True)
    assert [pool.kind for pool in pools] == kinds
    for pool in pools:
        if pool.kind == "device":
            assert not ON_CPU & {type(stage).__name__ for stage in pool.stages}
    (only,) = plan.pools(gpus=False)
    assert only.stages == plan.stages


def test_seeds_that_are_there_cost_no_pool() -> None:
    plan = make_masks()
    reused = taking_up(plan, Artifact("seeds", "s"), plan.stages[2])
    fetch, device, _ = reused.pools(gpus=True)
    assert [type(stage).__name__ for stage in fetch.stages] == ["FetchImages"]
    assert [type(stage).__name__ for stage in device.stages] == ["DecodeImages", "GateWalk"]
    assert [load.outputs for load in reused.loads] == [Artifact("seeds", "s")]
    assert reused.digest == plan.digest


def variants(value: Any) -> Iterator[Any]:
    """Values that differ in one part from this one: every field of every section and stage within it."""
    if isinstance(value, Artifact):
        yield Artifact(value.uri, value.digest + "x")
    elif isinstance(value, BaseModel):
        known = [name for name, field in type(value).model_fields.items() if NOT_IN_DIGEST not in field.metadata]
        for name in known:
            yield from (value.model_copy(update={name: part}) for part in variants(getattr(value, name)))
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            if field.init and field.metadata.get("digest", True):
                yield from (replace(value, **{field.name: part}) for part in variants(getattr(value, field.name)))
    elif isinstance(value, pa.Schema):
        yield value.append(pa.field("more", pa.string()))
        yield pa.schema([value.field(0).with_type(pa.null()), *list(value)[1:]])
    elif isinstance(value, tuple):
        yield (*value, *(value[-1:] or ("x",)))
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
    else:
        yield "x" if value is None else value + "x"


def saliency() -> Plan:
    return saliency_plan(make_context("saliency.weights=weights.onnx"), Artifact("weights", "w"))


@pytest.mark.parametrize(
    "make",
    [
        make_seeds,
        make_masks,
        lambda: make_masks("refinement.gate=image"),
        lambda: make_masks("refinement.device=gpu"),
        lambda: make_seeds("refinement.device=gpu"),
        lambda: segment_plan(make_context(), segmenter=MAPS, within_labels=True),
        lambda: scores_plan(make_context(), masks=MAPS, seeds=AFFINITY),
        saliency,
    ],
    ids=["seeds", "masks", "gate=image", "masks on gpu", "seeds on gpu", "segments", "evaluate", "saliency"],
)
def test_a_digest_changes_with_every_field_of_every_stage(make: Callable[[], Plan]) -> None:
    plan = make()
    digests = [plan.digest]
    for index, stage in enumerate(plan.stages):
        for changed in variants(stage):
            stages = (*plan.stages[:index], changed, *plan.stages[index + 1 :])
            digests.append(replace(plan, stages=stages).digest)
    assert len(digests) > len(plan.stages)
    assert len(set(digests)) == len(digests)


def test_a_digest_changes_with_every_field_of_what_is_taken() -> None:
    plan = scores_plan(make_context(), masks=MAPS, seeds=AFFINITY)
    digests = [plan.digest]
    for index, load in enumerate(plan.takes):
        for changed in variants(load):
            takes = (*plan.takes[:index], changed, *plan.takes[index + 1 :])
            digests.append(replace(plan, takes=takes).digest)
    assert len(digests) > 2 * len(plan.takes)
    assert len(set(digests)) == len(digests)


def test_variants_reach_every_setting() -> None:
    """Of the test above: a walk's settings within its gate, a section's within a stage."""
    gate = make_masks("refinement.gate=image").stages[3]
    assert isinstance(gate, GateWalk)
    of_walk = [changed.walk for changed in variants(gate) if changed.walk != gate.walk]
    assert len(of_walk) == len(fields(PropagateCams))
    cams = make_seeds().stages[2]
    assert isinstance(cams, ComputeCams)
    assert {digest(changed.cams) for changed in variants(cams)} == {
        digest(cams.cams),
        *map(digest, variants(cams.cams)),
    }


@pytest.fixture
def source(tmp_path: Path, jpeg: bytes) -> pa.Table:
    """Six images, two of which can't be used."""
    content = {**{f"image{index:02}": jpeg for index in range(4)}, "cut": jpeg[:-300], "text": b"no image"}
    rows = []
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
        rows.append({"image_id": name, "image_uri": str(tmp_path / name), "labels": ["dog"], "split": "train"})
    table = collect(make_context(rows=rows).rows(None)).append_column(ROW_DIGEST, [list(content)])
    number = pa.array([len(content)] * len(content), pa.int64())
    return table.append_column(PART, [["p"] * len(content)]).append_column(PART_TODO, [number])


class Counted:
    """Counts the calls of functions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded: Counter[bytes] = Counter()
        self.num_encoded = 0
        decode_image, encode_png = decode.decode_image, encode.encode_png

        def decoding(data: bytes, **options: Any) -> Any:
            self.decoded[data] += 1
            return decode_image(data, **options)

        def encoding(array: Any) -> bytes:
            self.num_encoded += 1
            return encode_png(array)

        monkeypatch.setattr(decode, "decode_image", decoding)
        monkeypatch.setattr(encode, "encode_png", encoding)
        monkeypatch.setattr(trimaps, "encode_png", encoding)


def run_pools(plan: Plan, rows: pa.Table, *, gpus: bool) -> pa.Table:
    """Runs a plan's pools one after the other, in this process."""
    for pool in plan.pools(gpus=gpus):
        for stage in pool.stages:
            stage.setup("cpu")
        rows = run_stages(pool.stages, rows, keep=pool.keep)
    return rows.select([*plan.schema.names, ROW_DIGEST, "error_stage", "error_reason"])


@pytest.mark.parametrize(
    ("options", "decoded", "encoded"),
    [
        (["refinement.gate=off"], 2, 3),
        (["refinement.gate=off", "refinement.method=pamr"], 2, 3),
        (["refinement.gate=off", "refinement.method=none"], 1, 2),
        (["refinement.gate=image"], 3, 3),
        (["refinement.gate=off", "refinement.device=gpu"], 1, 3),
        (["refinement.gate=off", "refinement.device=gpu", "refinement.method=pamr"], 1, 3),
        (["refinement.gate=image", "refinement.device=gpu"], 2, 3),
    ],
)
def test_masks_decode_and_encode_no_more_than_they_must(
    monkeypatch: pytest.MonkeyPatch,
    source: pa.Table,
    classifier_uri: str,
    affinity_uri: str,
    jpeg: bytes,
    options: list[str],
    decoded: int,
    encoded: int,
) -> None:
    """A judge at the end is a pool of its own, which decodes once more."""
    plan = make_masks(*options, maps=Artifact(classifier_uri, "c"), affinity=Artifact(affinity_uri, "a"))
    results = []
    for gpus, times in ((False, 1), (True, decoded)):
        counted = Counted(monkeypatch)
        results.append(run_pools(plan, source, gpus=gpus))
        monkeypatch.undo()
        assert counted.decoded[jpeg] == times * 4
        assert counted.decoded[jpeg[:-300]] == 1
        assert len(counted.decoded) == 2, "what has no header isn't decoded"
        assert counted.num_encoded == encoded * 4
    assert results[0].equals(results[1]), "masks don't depend on who makes them"
    stages = dict(zip(results[0]["image_id"].to_pylist(), results[0]["error_stage"].to_pylist(), strict=True))
    assert {name: stage for name, stage in stages.items() if stage} == {"cut": "DecodeImages", "text": "FetchImages"}


@pytest.mark.parametrize(("device", "decoded"), [("cpu", 2), ("gpu", 1)])
def test_seeds_decode_and_encode_no_more_than_they_must(
    monkeypatch: pytest.MonkeyPatch, source: pa.Table, classifier_uri: str, jpeg: bytes, device: str, decoded: int
) -> None:
    plan = seeds_plan(make_context(f"refinement.device={device}"), maps=Artifact(classifier_uri, "c"))
    results = []
    for gpus, times in ((False, 1), (True, decoded)):
        counted = Counted(monkeypatch)
        results.append(run_pools(plan, source, gpus=gpus))
        monkeypatch.undo()
        assert counted.decoded[jpeg] == times * 4
        assert counted.num_encoded == 4
    assert results[0].equals(results[1])


def test_a_gate_judges_what_the_masks_are_made_of() -> None:
    gate = gate_plan(make_context(), maps=MAPS, affinity=AFFINITY)
    masks = make_masks("refinement.gate=image")
    assert gate.stages[:6] == masks.stages[:6] == (*make_masks().stages,)
    judges = [plan.stages[6] for plan in (gate, masks)]
    assert all(isinstance(judge, GateMasks) for judge in judges)
    assert [judge.keep_better for judge in judges] == [False, True], "it decides for all images, or for each"  # type: ignore[attr-defined]
    assert replace(judges[0], keep_better=True) == judges[1]  # type: ignore[type-var]
