from raypipe.cli_show_config import fitted_config
from raypipe.config import load_config
from raypipe.data.manifest import Manifest


def test_a_config_fits_its_set_and_what_was_given_stays(synthetic: tuple[str, Manifest]) -> None:
    text = fitted_config(
        synthetic[0], preset="voc_mobilenet_v2", overrides=["out=runs/1", "affinity.epochs=5", "network.weights=null"]
    )
    assert text.startswith("# 24 images with labels, ")
    assert "labels an image, a long side of " in text
    assert "# 2 steps of 16 an epoch, of which a training wants 360; 100 at most\n  epochs: 100" in text
    config = load_config(text)
    assert (config.classifier.epochs, config.affinity.epochs, config.network.weights) == (100, 5, None)
    assert config.manifest.endswith("manifest.parquet")
    assert config.out.endswith("runs/1")
    assert config.walk.alpha == 3, "the preset's"
    assert config.classifier.crop_size < 320
    reduced = fitted_config(synthetic[0], preset=None, overrides=["images.max_side=32"])
    assert "labels an image, at least half of them 32 pixels long or more (images.max_side)" in reduced
    written = fitted_config(synthetic[0], preset=None, overrides=[])
    assert "preset" not in written
    assert load_config(written).out.endswith("out")


def test_what_was_given_for_a_whole_section_stays(synthetic: tuple[str, Manifest]) -> None:
    """The rules add to the section; they stood beside a mapping, which no text can say."""
    overrides = ["walk={beta: 4, alpha: 3}", "classifier={saliency_loss: {stride: 2}, crop_size: 64}"]
    config = load_config(fitted_config(synthetic[0], preset=None, overrides=overrides))
    assert (config.walk.beta, config.walk.alpha, config.walk.affinity) == (4, 3, "frozen")
    assert (config.classifier.saliency_loss.stride, config.classifier.crop_size, config.classifier.epochs) == (
        2,
        64,
        100,
    )
    swept = fitted_config(synthetic[0], preset=None, overrides=["sweep.training={classifier.lr: [1e-4, 3e-4]}"])
    assert load_config(swept).sweep.training == {"classifier.lr": (1e-4, 3e-4)}
