import pytest

from raypipe.config import load_config
from raypipe.pages.headline import dataset_name, settings_in_words
from raypipe.results import Decision


@pytest.mark.parametrize(
    ("manifest", "name"),
    [
        ("/data/birds.parquet", "birds"),
        ("/data/birds/manifest.parquet", "birds"),
        ("https://example.org/two%20birds/manifest", "two birds"),
        ("s3://bucket/v1.2", "v1.2"),
        ("/manifest.parquet", "manifest"),
    ],
)
def test_a_set_is_called_after_its_file_or_folder(manifest: str, name: str) -> None:
    assert dataset_name(manifest) == name


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "resnet50; maps at scales 1, 0.5, 1.5, 2; walk of 256 steps along learned affinities, alpha 16, beta 8; "),
        (
            ["walk.affinity=rgb", "refinement.method=none"],
            "along plain colours, alpha 16, beta 8; no refinement; seed 0",
        ),
        (["checkpoints.seeds=/seeds"], "resnet50; maps that were given; walk"),
        (["classifier.saliency=eps++", "saliency.weights=/s.onnx"], "saliency by EPS++; walk"),
        (["segmenter.enabled=true", "seed=3"], "refined by dCRF; segmentation network; seed 3"),
    ],
)
def test_settings_in_words(overrides: list[str], words: str) -> None:
    assert words in "; ".join(settings_in_words(load_config("", ["manifest=m", "out=o", *overrides]), []))


def test_what_a_gate_rejected_is_no_setting_of_the_masks() -> None:
    config = load_config("", ["manifest=m", "out=o"])
    walk, crf = (
        Decision(refinement=name, judge="j", kept=False, reason="r", num_images=64) for name in ("walk", "dcrf")
    )
    words = list(settings_in_words(config, [walk, crf]))
    assert "walk of 256 steps along learned affinities, alpha 16, beta 8 (rejected by the gate)" in words
    assert "dCRF (rejected by the gate)" in words
    assert list(settings_in_words(config, [crf]))[3] == "dCRF (rejected by the gate)"
