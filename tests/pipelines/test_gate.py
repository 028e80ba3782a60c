from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import RunConfig, load_config
from raypipe.data.checkpoints import Checkpoint, Task, write_checkpoint
from raypipe.data.images import decode_image
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.shards import read_shards
from raypipe.networks import Network, build_affinity_net, build_classifier, network_input
from raypipe.pages.finished import find_masks
from raypipe.pipelines import gate
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.gate import run_gates, sample_rows, weigh
from raypipe.pipelines.labels.knowledge import write_label_precision
from raypipe.pipelines.masks import masks_plan
from raypipe.results import ClassPrecision, Decision, LabelPrecision
from raypipe.run import Run, open_run
from raypipe.schema import MASKS
from raypipe.stages.judge import GateMasks
from raypipe.status.look import look
from raypipe.streams.collect import collect

HARMFUL = [
    # Pixels of like colours all take the class of most of them: background, at a low alpha.
    "refinement.compat_bilateral=1000",
]


@pytest.fixture(scope="module")
def given(synthetic: tuple[str, Manifest], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that name the manifest and its networks: random ones, but for the classifier's head.

    That is fitted to know each image's classes, and that none is in a plain one of its mean colour.
    """
    torch.manual_seed(0)
    classes = synthetic[1].classes
    classifier = build_classifier("tiny", num_classes=len(classes)).eval()
    features, targets = [], []
    for row in synthetic[1].table.to_pylist():
        pixels = decode_image(storage.read_bytes(row["image_uri"])).pixels
        plain = np.full_like(pixels, pixels.mean(axis=(0, 1)).round())
        for picture, labels in ((pixels, row["labels"]), (plain, [])):
            x, _ = network_input(picture, preprocessing=classifier.preprocessing, device=torch.device("cpu"))
            with torch.inference_mode():
                features.append(classifier.backbone(x)[classifier.backbone.last_depth].mean(dim=(2, 3))[0])
            targets.append(torch.tensor([4.0 if name in labels else -4.0 for name in classes]))
    head = torch.linalg.pinv(torch.stack(features), rtol=1e-4) @ torch.stack(targets)
    classifier.fc8.weight.data = head.T[..., None, None].contiguous()
    folder = tmp_path_factory.mktemp("networks")
    networks: dict[Task, Network] = {"classifier": classifier, "affinity": build_affinity_net("tiny")}
    for task, network in networks.items():
        checkpoint = Checkpoint(
            task=task,
            backbone="tiny",
            classes=classes,
            preprocessing=network.preprocessing.to_dict(),
            config={"section": {"saliency": "none"}},
            weights=network.state_dict(),
        )
        write_checkpoint(checkpoint, f"{folder}/{task}")
    return [
        f"manifest={synthetic[0]}",
        *(f"checkpoints.{task}={folder}/{task}" for task in networks),
        "cams.scales=[1.0]",
        "walk.alpha=2",
        "segmenter.enabled=false",
        "cluster.network_actors=1",
        "cluster.cpu_actors=1",
    ]


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SAMPLE_SIZE", 6)


def make_config(given: list[str], out: Path, *overrides: str) -> RunConfig:
    return load_config("preset: demo", [*given, f"out={out}", *overrides])


def test_weigh_by_hand() -> None:
    """Differences 0.1, 0.3, -0.1: mean 0.1, standard deviation 0.2."""
    decision = weigh([0.2, 0.2, 0.5], [0.3, 0.5, 0.4], refinement="dcrf", judge="class consistency")
    assert decision.kept
    assert (decision.before, decision.after) == (pytest.approx(0.3), pytest.approx(0.4))
    assert decision.difference == pytest.approx(0.1)
    assert decision.standard_error == pytest.approx(0.2 / 3**0.5)
    assert str(decision) == (
        "dcrf kept: class consistency 0.3000 → 0.4000, +0.1000 ± 0.1155, n = 3, which chance alone may do"
    )


@pytest.mark.parametrize(
    ("kept", "difference", "error", "is_chance"),
    [
        (True, 0.1, 0.1, True),
        (True, 0.2, 0.1, False),
        (True, 0.1, 0.0, False),
        (True, 0.1, None, False),
        (True, None, None, False),
        (True, -0.1, 0.1, False),
        (False, -0.1, 0.1, False),
    ],
)
def test_less_than_two_standard_errors_may_be_chance(
    difference: float | None, error: float | None, *, kept: bool, is_chance: bool
) -> None:
    values = {"refinement": "dcrf", "judge": "class consistency", "reason": "r", "num_images": 9}
    decision = Decision(**values, kept=kept, difference=difference, standard_error=error)
    assert decision.may_be_chance == is_chance
    assert str(decision).endswith("r, which chance alone may do") == is_chance


@pytest.mark.parametrize(("after", "kept"), [(0.6, True), (0.5, False), (0.4, False)])
def test_what_doesnt_help_is_rejected(after: float, *, kept: bool) -> None:
    decision = weigh([0.5], [after], refinement="walk", judge="objective")
    assert decision.kept == kept
    assert decision.standard_error is None


def test_nothing_judged_leaves_the_refinement_as_configured() -> None:
    decision = weigh([], [], refinement="walk", judge="objective")
    assert decision.kept
    assert "stays as configured" in str(decision)


def sampled(context: Context) -> list[str]:
    names: list[str] = collect(sample_rows(context))["image_id"].to_pylist()
    return names


def test_sample_depends_on_ids_alone_and_has_labels(
    synthetic: tuple[str, Manifest], given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = synthetic[1].table.to_pylist()
    rows[0]["labels"], rows[1]["labels"] = [], None
    drawn = []
    for number, order in enumerate((rows, rows[::-1])):
        write_manifest(Manifest.from_rows(order, synthetic[1].classes), str(tmp_path / f"{number}.parquet"))
        given_here = [f"manifest={tmp_path}/{number}.parquet", "splits.masks=null"]
        context = open_context(make_config(given, tmp_path, *given_here))
        with monkeypatch.context() as more:
            more.setattr(gate, "SAMPLE_SIZE", 100)
            assert set(sampled(context)) == {row["image_id"] for row in rows[2:]}
        drawn.append(sorted(sampled(context)))
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 6


def test_masks_depend_on_what_was_decided_not_on_the_gate(given: list[str], tmp_path: Path) -> None:
    def digest(*overrides: str) -> str:
        context = open_context(make_config(given, tmp_path, *overrides))
        return masks_plan(context, maps=Artifact("c", "c"), affinity=None).digest

    assert digest() == digest("refinement.gate=off")
    assert len({digest(), digest("refinement.method=none"), digest("refinement.gate=image")}) == 3


def test_gates_of_images_are_stages_of_the_masks(given: list[str], tmp_path: Path) -> None:
    def plan(*overrides: str) -> str:
        context = open_context(make_config(given, tmp_path, *overrides))
        affinity = None if context.config.walk.affinity == "rgb" else Artifact("a", "a")
        stages = masks_plan(context, maps=Artifact("c", "c"), affinity=affinity).stages
        return " ".join(type(stage).__name__ for stage in stages)

    assert "Gate" not in plan("refinement.gate=off")
    assert "GateWalk" in plan(), "each image has its own walk"
    assert "GateMasks" not in plan(), "what refines masks is decided for all of them"
    assert "GateWalk" in plan("refinement.gate=image")
    assert "GateMasks" in plan("refinement.gate=image")
    assert "GateMasks" not in plan("refinement.gate=image", "refinement.method=none")
    assert "GateWalk" not in plan("walk.affinity=rgb")
    assert "GateWalk" not in plan("refinement.gate=image", "walk.affinity=rgb")


def read_masks(run: Run, *columns: str) -> list[dict[str, Any]]:
    names = ["image_id", *columns]
    return read_shards(run.make_masks().uri + "/shards", columns=names, schema=MASKS).to_pylist()


def test_a_harmful_refinement_is_rejected_once_for_the_run(
    local_ray: None, given: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run(make_config(given, tmp_path / "gated", *HARMFUL))
    with caplog.at_level("INFO"):
        gated = run.decide_gates()
    decisions = {decision.refinement: decision for decision in gated.decisions}
    assert list(decisions) == ["walk", "dcrf"]
    assert not decisions["dcrf"].kept
    assert decisions["dcrf"].num_images == 6
    assert "gate: dcrf rejected: class consistency" in caplog.text
    assert {score.stage for score in run.evaluate()[1]} == {"walk"}
    assert "rejected" in Path(run.report(num_samples=1)).read_text()

    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "gated/gate").rglob("*.*")}
    caplog.clear()
    with caplog.at_level("DEBUG"):
        assert open_run(run.config).decide_gates().decisions == gated.decisions
    assert said(caplog, "INFO") == [], "it was said when it was decided"
    assert said(caplog, "DEBUG") == [f"gate: {decision}" for decision in gated.decisions]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "gated/gate").rglob("*.*")} == files

    found = find_masks(open_context(run.config))  # without Ray, from what is stored
    assert found.decisions == look(open_context(run.config)).gates == gated.decisions
    assert found.context.config == gated.context.config
    assert found.masks == run.make_masks()

    steps = [] if decisions["walk"].kept else ["walk.num_steps=0"]
    plain = open_run(
        make_config(given, tmp_path / "gated", *HARMFUL, "refinement.gate=image", "refinement.method=none", *steps)
    )
    assert plain.make_masks() == run.make_masks()  # the same folder: nothing is computed again
    masks = read_masks(run, "mask", "walk_mask")
    assert len(masks) == 24
    assert all(row["walk_mask"] is None for row in masks)


def said(caplog: pytest.LogCaptureFixture, level: str) -> list[str]:
    """What the log has of gates at a level."""
    of_gates = [record for record in caplog.records if record.name == gate.__name__ and "gate: " in record.getMessage()]
    return [record.getMessage() for record in of_gates if record.levelname == level]


def test_what_is_decided_again_is_said_again(
    given: list[str],
    synthetic: tuple[str, Manifest],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the walk is rejected, what was judged of walked masks isn't said: that of masks without it is."""
    judged = {"walk": [0.4, 0.4], "refined": [0.6, 0.7]}
    monkeypatch.setattr(Context, "run", lambda *_, **__: None)
    monkeypatch.setattr(gate, "outputs_of", lambda _folder, _rows, schema: scores(judged, schema))
    maps, affinity = Artifact(str(tmp_path), "c"), Artifact("affinity", "a")
    context = open_context(make_config(given, tmp_path / "out"))
    for retrain, level, other in (("none", "INFO", "DEBUG"), ("none", "DEBUG", "INFO"), ("decisions", "INFO", "DEBUG")):
        caplog.clear()
        with caplog.at_level("DEBUG"):
            run_gates(replace(context, retrain=retrain), maps=maps, affinity=affinity)
        again = ["gate: the walk is rejected, so what refines masks is judged once more, without it"]
        assert said(caplog, level) == [
            *(again if level == "INFO" else []),
            "gate: walk rejected: objective 0.4000 → 0.4000, +0.0000 ± 0.0000, n = 2",
            "gate: dcrf kept: class consistency 0.6000 → 0.7000, +0.1000 ± 0.0000, n = 2",
        ]
        assert said(caplog, other) == []


def scores(judged: dict[str, list[float]], schema: pa.Schema) -> pa.Table:
    """Of two images, before and after each refinement that is judged."""
    names = {
        f"{name}_{when}": value
        for name, values in judged.items()
        for when, value in zip(("before", "after"), values, strict=True)
    }
    return pa.table({name: [names[name]] * 2 for name in schema.names if name in names})


def test_an_image_keeps_the_better_mask(local_ray: None, given: list[str], tmp_path: Path) -> None:
    run = open_run(make_config(given, tmp_path, *HARMFUL, "refinement.gate=image"))
    assert run.decide_gates().decisions == []
    masks = read_masks(run, "mask", "walk_mask")
    assert len(masks) == 24
    assert any(row["mask"] == row["walk_mask"] for row in masks)


def test_where_no_image_has_labels_nothing_is_decided(
    local_ray: None, synthetic: tuple[str, Manifest], given: list[str], tmp_path: Path
) -> None:
    rows = [row | {"labels": []} for row in synthetic[1].table.slice(0, 3).to_pylist()]
    write_manifest(Manifest.from_rows(rows, synthetic[1].classes), str(tmp_path / "manifest.parquet"))
    run = open_run(make_config(given, tmp_path, f"manifest={tmp_path}/manifest.parquet", "splits.masks=null"))
    assert [(decision.kept, decision.num_images) for decision in run.decide_gates().decisions] == [(True, 0), (True, 0)]


def test_a_sample_that_fails_decides_nothing(
    local_ray: None, synthetic: tuple[str, Manifest], given: list[str], tmp_path: Path
) -> None:
    rows = synthetic[1].table.slice(0, 3).to_pylist()
    for row in rows:
        row["image_uri"] = str(tmp_path / "absent.jpg")
    write_manifest(Manifest.from_rows(rows, synthetic[1].classes), str(tmp_path / "manifest.parquet"))
    run = open_run(make_config(given, tmp_path, f"manifest={tmp_path}/manifest.parquet", "splits.masks=null"))
    assert [(decision.kept, decision.num_images) for decision in run.decide_gates().decisions] == [(True, 0), (True, 0)]
    assert run.decide_gates().context.config == run.context.config


def test_a_classifier_that_knows_nothing_judges_no_mask(
    given: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = known_classes(precision=0.22, chance=0.2)
    maps, affinity = Artifact(str(tmp_path), "c"), Artifact("affinity", "a")
    config = make_config(given, tmp_path / "out", "walk.num_steps=0")
    write_label_precision(maps, known)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("DEBUG"):
            gated = run_gates(open_context(config), maps=maps, affinity=affinity)
        assert gated.context.config == config
        (decision,) = gated.decisions
        assert said(caplog, "INFO") == [f"gate: {decision}"], "each command says what it can't judge"
    assert (decision.refinement, decision.kept, decision.num_images) == ("dcrf", True, 0)
    assert "knows nothing and so is no judge (label mAP 0.22 where chance has 0.20" in decision.reason
    image = open_context(make_config(given, tmp_path / "out", "refinement.gate=image"))
    assert not any(isinstance(stage, GateMasks) for stage in masks_plan(image, maps=maps, affinity=affinity).stages)
    write_label_precision(maps, known_classes(precision=0.9, chance=0.2))
    assert any(isinstance(stage, GateMasks) for stage in masks_plan(image, maps=maps, affinity=affinity).stages)


def known_classes(*, precision: float, chance: float) -> LabelPrecision:
    each = ClassPrecision(name="a", num_positive=20, precision=precision, chance=chance, learned=precision)
    return LabelPrecision(method="held out", num_images=50, classes=(each,) * 3)
