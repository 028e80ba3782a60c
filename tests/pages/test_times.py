"""What streams took, of folders that are made up."""

from pathlib import Path

import pytest

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.outputs.records import open_folder, write_summary
from raypipe.pages.times import stream_summaries
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.gate import gate_plan
from raypipe.pipelines.refit import refit_plan


@pytest.fixture
def context(synthetic: tuple[str, Manifest], tmp_path: Path) -> Context:
    """A run that refits its maps and judges the refinement."""
    options = [f"manifest={synthetic[0]}", f"out={tmp_path}", "walk.affinity=rgb", "cams.refit=true"]
    return open_context(load_config("", [*options, "refinement.gate=run"]))


def made(artifact: Artifact, *, seconds: float, classifier: str = "") -> Artifact:
    open_folder(
        artifact.uri, {"stages": [{"class": "FetchImages"}, {"class": "ScoreLabels", "classifier": classifier}]}
    )
    write_summary(artifact.uri, {"num_rows": 9, "seconds": seconds})
    return artifact


def test_all_that_led_to_the_masks_counts(context: Context, classifier_uri: str, tmp_path: Path) -> None:
    classifier, maps = Artifact(classifier_uri, "c"), Artifact(classifier_uri, "refitted")
    options = {"maps": maps, "affinity": None, "classifier": classifier}
    outputs = {
        "seeds": Artifact(str(tmp_path / "seeds/none"), "none"),
        "masks": Artifact(str(tmp_path / "masks/m"), "m"),
    }
    made(outputs["masks"], seconds=5)
    assert list(stream_summaries(context, outputs, **options)) == ["masks"]
    made(Artifact(str(tmp_path / "labels/another"), ""), seconds=100, classifier="another")
    made(Artifact(str(tmp_path / "labels/this"), ""), seconds=1, classifier="c")
    made(refit_plan(context, classifier).artifact(str(tmp_path)), seconds=2)
    made(gate_plan(context, maps=maps, affinity=None, judge=classifier).artifact(str(tmp_path)), seconds=4)
    made(outputs["seeds"], seconds=3)
    found = stream_summaries(context, outputs, **options)
    seconds = {name: summary["seconds"] for name, summary in found.items()}
    assert seconds == {"labels": 1, "refit": 2, "seeds": 3, "gate": 4, "masks": 5}
    assert list(seconds) == ["labels", "refit", "seeds", "gate", "masks"], "in the order in which they ran"


def test_given_seeds_have_asked_no_classifier(context: Context, tmp_path: Path) -> None:
    outputs = {"masks": made(Artifact(str(tmp_path / "masks/m"), "m"), seconds=5)}
    maps = Artifact(str(tmp_path / "given"), "given")
    found = stream_summaries(context, outputs, maps=maps, affinity=None, classifier=None)
    assert list(found) == ["masks"]
