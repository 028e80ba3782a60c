"""Which outputs each option of the config changes: no more and no fewer than those whose bytes it can change.

Nothing is computed for it (`made_runs`).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from config_options import options
from made_runs import BASE, make_nothing, write_inputs, write_metadata

from raypipe.artifacts import digest
from raypipe.config import RunConfig, load_config
from raypipe.pipelines.in_use import FOLDER as IN_USE
from raypipe.pipelines.steps import walk_choice
from raypipe.pipelines.walk.setting_scores import sweep_plan
from raypipe.pipelines.walk.sweep import STRIDE, grid, scored_rows, sweep_folder
from raypipe.run import open_run
from raypipe.trials import trials_provenance

SEGMENTED = {"segmenter", "segments", "scores", "evaluate"}
MASKED = {"gate", "masks", *SEGMENTED, "counts", "calibrate", "calibrated"}
WALKED = {*MASKED, "sweep", "trials"}
LEARNED = {"affinity", *WALKED}
SEEDED = {"seeds", *LEARNED}
CLASSIFIED = {"classifier", "labels", *SEEDED}
ALL = {"saliency", *CLASSIFIED}

CHANGES: dict[str, tuple[str, set[str]]] = {
    "manifest": ("FOLDER/copy.parquet", set()),
    "out": ("FOLDER/other", set()),
    "seed": ("1", CLASSIFIED),
    "precision": ("fp32", CLASSIFIED),
    "jitter": ("[0.1, 0.1, 0.1, 0.1]", CLASSIFIED),
    "repeat_threshold": ("0.9", CLASSIFIED),
    "images.max_side": ("512", ALL),
    "images.bands": ("[3, 2, 1]", ALL),
    "images.tile": ("512 classifier.saliency=none", ALL),
    "splits.train": ("[train,more]", CLASSIFIED),
    "splits.masks": ("[train]", {"evaluate", "calibrate", "calibrated", "sweep", "trials"}),
    "network.backbone": ("tiny", CLASSIFIED),
    "network.weights": ("FOLDER/weights.pth", CLASSIFIED),
    "network.preprocessing": ("caffe", CLASSIFIED),
    "optimizer.name": ("sgd", CLASSIFIED),
    "optimizer.new_lr_factor": ("5", CLASSIFIED),
    "optimizer.bias_lr_factor": ("2", CLASSIFIED),
    "optimizer.momentum": ("0.5", CLASSIFIED),
    "optimizer.weight_decay": ("0.5", CLASSIFIED),
    "optimizer.warmup_steps": ("7", CLASSIFIED),
    "classifier.epochs": ("3", CLASSIFIED),
    "classifier.batch_size": ("3", CLASSIFIED),
    "classifier.crop_size": ("64", CLASSIFIED),
    "classifier.max_images": ("1", CLASSIFIED),
    "classifier.lr": ("0.5", CLASSIFIED),
    "classifier.output_stride": ("16", CLASSIFIED),
    "classifier.long_side": ("[64, 65]", CLASSIFIED),
    "classifier.saliency": ("eps", CLASSIFIED),
    "classifier.saliency_loss.eps_share": ("0.25", CLASSIFIED),
    "classifier.saliency_loss.ird_tau": ("0.25", CLASSIFIED),
    "classifier.saliency_loss.stride": ("4", CLASSIFIED),
    "cams.scales": ("[1.0]", SEEDED),
    "cams.out_stride": ("1", SEEDED),
    "cams.refit": ("true", SEEDED),
    "trimaps.alpha_low": ("2", SEEDED),
    "trimaps.alpha_high": ("200", SEEDED),
    "trimaps.crf_stride": ("4", SEEDED),
    "trimaps.refine": ("pamr", SEEDED),
    "affinity.epochs": ("3", LEARNED),
    "affinity.batch_size": ("3", LEARNED),
    "affinity.crop_size": ("64", LEARNED),
    "affinity.max_images": ("1", LEARNED),
    "affinity.lr": ("0.5", LEARNED),
    "affinity.start": ("classifier", LEARNED),
    "affinity.radius": ("7", LEARNED),
    "affinity.freeze_backbone": ("true", LEARNED),
    "affinity.jitter": ("[0.1, 0.1, 0.1, 0.1]", LEARNED),
    "walk.affinity": ("rgb", SEEDED),  # no seeds are made
    "walk.alpha": ("5", WALKED),
    "walk.beta": ("5", WALKED),
    "walk.num_steps": ("5", WALKED),
    "walk.radius": ("3", WALKED),
    "walk.count_padding": ("true", WALKED),
    "inference.mode": ("throughput", ALL),
    "refinement.method": ("pamr", MASKED),
    "refinement.power": ("3", MASKED),
    "refinement.compat_bilateral": ("3", MASKED),
    "refinement.device": ("gpu", SEEDED),
    "refinement.gate": ("off", WALKED),
    "evaluation.splits": ("[val]", {"evaluate"}),
    "segmenter.epochs": ("3", SEGMENTED),
    "segmenter.batch_size": ("3", SEGMENTED),
    "segmenter.crop_size": ("64", SEGMENTED),
    "segmenter.max_images": ("2", SEGMENTED),
    "segmenter.lr": ("0.5", SEGMENTED),
    "segmenter.enabled": ("false", SEGMENTED),
    "segmenter.start": ("classifier", SEGMENTED),
    "segmenter.head": ("lraspp", SEGMENTED),
    "segmenter.long_side": ("[64, 65]", SEGMENTED),
    "segmenter.mask_share": ("0.25", SEGMENTED),
    "segmenter.min_confidence": ("0.25", SEGMENTED),
    "segmenter.rounds": ("1", {"gate", *SEGMENTED}),  # which judges, segments and trains once more
    "segmenter.validation_splits": ("[]", SEGMENTED),
    "segmentation.splits": ("[val]", {"evaluate"}),
    "segmentation.scales": ("[1.0, 2.0]", {"segments", "scores", "evaluate"}),
    "segmentation.method": ("dcrf", {"segments", "scores", "evaluate"}),
    "sweep.search": ("optuna", {"sweep", "trials"}),
    "sweep.alphas": ("[3.0]", {"sweep", "trials"}),
    "sweep.betas": ("[3.0]", {"sweep", "trials"}),
    "sweep.steps": ("[3]", {"sweep", "trials"}),
    "sweep.num_images": ("2", {"sweep", "trials"}),
    "sweep.num_labelled": ("1", {"sweep", "trials"}),
    "sweep.training": ("{classifier.lr: [1, 2]}", {"trials"}),
    "calibration.num_images": ("1", {"calibrate", "calibrated"}),
    "calibration.max_risk": ("0.5", {"calibrated"}),
    "saliency.preprocessing": ("[128, 256]", ALL),
    "saliency.weights": ("FOLDER/other.pth", ALL),
    "checkpoints.classifier": ("FOLDER/given/classifier", ALL),
    "checkpoints.affinity": ("FOLDER/given/affinity", SEEDED),  # no seeds are made
    "checkpoints.segmenter": ("FOLDER/given/segmenter", SEGMENTED),
    "checkpoints.seeds": ("FOLDER/seeds", ALL),
    "budget.max_fraction": ("0.5", set()),
    "budget.max_rows": ("5", set()),
    "cluster.address": ("ray://head:10001", set()),
    "cluster.autoscaling": ("['nodes=2,cpus=8,memory=32']", set()),
    "cluster.num_cpus": ("8", set()),
    "cluster.train_workers": ("4", set()),
    "cluster.min_train_workers": ("1", set()),
    "cluster.state_minutes": ("2", set()),
    "cluster.gpus_per_train_worker": ("0", set()),
    "cluster.network_actors": ("3", set()),
    "cluster.gpus_per_actor": ("0", set()),
    "cluster.cpu_actors": ("3", set()),
    "cluster.rows_per_block": ("5", set()),
    "cluster.start_timeout": ("5", set()),
    "cluster.row_timeout": ("5", set()),
    "cluster.object_store_memory": ("100000000", set()),
}
"""Another value of each option, with what else it takes, and the outputs that are others, or aren't made, with it."""


def test_the_table_holds_every_option() -> None:
    assert sorted(CHANGES) == sorted(options(RunConfig))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two manifests of the same five rows, weights, checkpoints and maps."""
    folder = tmp_path_factory.mktemp("digests")
    write_inputs(folder)
    return folder


@pytest.fixture
def outputs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, set[str]]]:
    """Makes a run and returns the digests of its outputs, by their names."""
    make_nothing(monkeypatch)

    def run(overrides: Sequence[str]) -> dict[str, set[str]]:
        out = tmp_path / digest(list(overrides))
        paths = [f"manifest={folder}/manifest.parquet", f"out={out}"]
        given = [*paths, *(word.replace("FOLDER", str(folder)) for word in (*BASE, *overrides))]
        run = open_run(load_config("preset: demo", given))
        run.evaluate()
        run.calibrate()
        affinity = run.train_affinity()
        rows, context = scored_rows(run.context), run.context
        plan = sweep_plan(
            context, grid(context), maps=run.find_maps(), affinity=affinity, stride=STRIDE, choice="given"
        )
        folders = [path for path in Path(run.config.out).iterdir() if path.is_dir() and path.name != IN_USE]
        found = {path.name: {each.name for each in path.iterdir()} for path in folders}
        return found | {
            "sweep": {sweep_folder(context, plan, rows, walk_choice(context.config, affinity))[-12:]},
            "trials": {digest(trials_provenance(context))},
        }

    return run


@pytest.fixture(scope="module")
def base() -> dict[str, set[str]]:
    """Filled by the first test that needs it."""
    return {}


@pytest.mark.parametrize("option", [option for option, (_, changed) in CHANGES.items() if changed])
def test_an_option_changes_what_it_can_change_and_no_more(
    option: str, outputs: Callable[..., dict[str, set[str]]], base: dict[str, set[str]]
) -> None:
    if not base:
        base |= outputs([])
        assert set(base) == ALL
    value, expected = CHANGES[option]
    first, *more = value.split(" ") if option in ("images.tile",) else [value]
    found = outputs([f"{option}={first}", *more])
    assert {name for name in ALL if found.get(name) != base.get(name)} == expected


def test_options_that_change_nothing_change_nothing_together(
    outputs: Callable[..., dict[str, set[str]]], base: dict[str, set[str]]
) -> None:
    base |= {} if base else outputs([])
    found = outputs([f"{option}={value}" for option, (value, changed) in CHANGES.items() if not changed])
    assert {name for name in ALL if found.get(name) != base.get(name)} == set()


STALE = {
    "a retrained classifier whose maps are given": (
        ["checkpoints.seeds=FOLDER/seeds", "affinity.start=classifier"],
        "classifier.lr=0.5",
        {"classifier", "affinity"},
        {"seeds"},
    ),
    "true masks that choose a segmenter's epoch": ([], "segmenter.validation_splits=[more]", {"segmenter"}, {"masks"}),
    "the precision of a segmenter's training": ([], "precision=fp32", {"segmenter"}, {"saliency"}),
    "the precision of the pass that a given classifier's maps are refitted from": (
        ["checkpoints.classifier=FOLDER/given/classifier", "cams.refit=true"],
        "precision=fp32",
        {"refit", "seeds"},
        set(),
    ),
}
"""What was once taken for the same: the config, what changes, what has to follow, and what stays."""


@pytest.mark.parametrize("case", STALE)
def test_no_cache_is_stale(case: str, outputs: Callable[..., dict[str, set[str]]]) -> None:
    given, change, follow, stay = STALE[case]
    before, after = outputs(given), outputs([*given, change])
    assert all(not before[name] & after[name] for name in follow)
    assert all(before[name] == after[name] for name in stay)


def test_a_limit_that_leaves_no_image_out_changes_nothing(
    outputs: Callable[..., dict[str, set[str]]], base: dict[str, set[str]]
) -> None:
    networks = ("classifier", "affinity", "segmenter")
    found = [base or outputs([])]
    found += [outputs([f"{name}.max_images={number}" for name in networks]) for number in ("null", "3")]
    for made in found:
        assert {name: made[name] for name in ALL - {"trials"}} == {name: found[0][name] for name in ALL - {"trials"}}


def test_another_round_of_self_training_keeps_the_network_that_it_starts_from(
    outputs: Callable[..., dict[str, set[str]]],
) -> None:
    rounds = [outputs([f"segmenter.rounds={number}"]) for number in range(3)]
    for fewer, more in pairwise(rounds):
        assert fewer["segmenter"] < more["segmenter"]
        assert len(more["segmenter"]) == len(fewer["segmenter"]) + 1


def test_a_network_of_the_same_name_is_known_by_its_content(
    folder: Path, outputs: Callable[..., dict[str, set[str]]]
) -> None:
    given = f"checkpoints.classifier={folder}/again"
    write_metadata(str(folder / "again"), "classifier", "given")
    first = outputs([given])
    assert outputs([f"checkpoints.classifier={folder}/given/classifier"]) == first
