"""Nothing is ever lost: the whole corpus of bad and odd inputs in one run."""

from collections import Counter
from pathlib import Path

import pytest
from corpus import CASES, CLASSES

from raypipe.config import load_config
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.shards import read_shards
from raypipe.run import Run, open_run
from raypipe.schema import MASKS, QUARANTINE

SECRET = "wJalrXUtnFEMI/K7MDENG"  # noqa: S105 - a made-up one


@pytest.fixture(scope="module")
def run(local_ray: None, classifier_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Masks, scores and report of the corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = [case.row(folder / str(number)) for number, case in enumerate(CASES)]
    write_manifest(Manifest.from_rows(rows, CLASSES), str(folder / "manifest.parquet"))
    overrides = [
        f"manifest={folder}/manifest.parquet",
        f"out={folder}/top/out",
        f"checkpoints.classifier={classifier_uri}",
        "cams.scales=[1.0]",
        "cluster.cpu_actors=1",
        "walk.affinity=rgb",
        "refinement.gate=off",
        "segmenter.enabled=false",
        "splits.masks=null",
    ]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        run = open_run(load_config("preset: demo", overrides))
        assert run.report(num_samples=100)
    return run


def test_every_row_ends_as_expected(run: Run) -> None:
    masks = read_shards(run.make_masks().uri + "/shards", schema=MASKS).to_pylist()
    quarantine = read_shards(run.make_masks().uri + "/quarantine", schema=QUARANTINE).to_pylist()
    ids = Counter(row["image_id"] for row in [*masks, *quarantine])
    assert ids == Counter(case.image_id or case.name for case in CASES)
    finished = {row["image_id"]: row for row in masks}
    refused = {row["image_id"]: row for row in quarantine}
    for case in CASES:
        image_id = case.image_id or case.name
        if case.size is None:
            assert case.reason is not None
            assert refused[image_id]["stage"] in ("FetchImages", "DecodeImages")
            assert case.reason in refused[image_id]["reason"]
        else:
            row = finished[image_id]
            assert (row["height"], row["width"]) == decode_mask(row["mask"]).shape == case.size, case.name


def test_no_file_leaves_the_output_folder(run: Run) -> None:
    out = Path(run.config.out)
    top = out.parent
    assert [path.name for path in top.iterdir()] == ["out"]
    assert {path.name for path in top.parent.iterdir()} == {str(number) for number in range(len(CASES))} | {
        "manifest.parquet",
        "top",
    }


def test_true_masks_that_fit_nothing_are_unscored(run: Run) -> None:
    expected = {case.name: case.unscored for case in CASES if case.unscored}
    for score in run.evaluate()[1]:
        assert score.num_images == 1
        assert score.num_unscored == len(expected)
        assert all(reason in score.unscored[image_id] for image_id, reason in expected.items())


def test_secrets_of_the_environment_are_written_nowhere(run: Run) -> None:
    files = [path for path in Path(run.config.out).rglob("*") if path.is_file()]
    assert {"config.yaml", "record.json", "report.html"} <= {path.name for path in files}
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_ids_in_the_report_are_text(run: Run) -> None:
    text = Path(run.config.out, "report.html").read_text()
    assert text.count("<script") == 1  # the page's own, and the only one that its policy lets run
    assert "script-src 'sha256-" in text
