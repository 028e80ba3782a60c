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
