from typing import Any

import pytest

from raypipe.config import RunConfig, load_config
from raypipe.config.fitting import Fingerprint, Fitted, commented_yaml, fit, notes, training_steps


def config(*overrides: str) -> RunConfig:
    return load_config("preset: voc_mobilenet_v2", ["manifest=m", "out=o", *overrides])


def found(number: int, **changes: Any) -> Fingerprint:
    values: dict[str, Any] = {
        "num_images": number,
        "class_images": {"cat": number // 2, "dog": number // 2},
        "long_side": 500,
        "splits": frozenset({"train", "train_aug", "val"}),
    }
    return Fingerprint(**values | changes)


def fitted(number: int, *overrides: str, **changes: Any) -> dict[str, Any]:
    return {each.name: each.value for each in fit(config(*overrides), found(number, **changes))}


def test_epochs_follow_from_steps_by_hand() -> None:
    """100 images are 7 steps of 16, of which 52 epochs make 360; and 13 steps of 8, of which 56 make 720."""
    options = fitted(100)
    assert (options["classifier.epochs"], options["affinity.epochs"]) == (52, 56)
    assert fitted(100, "classifier.batch_size=32")["classifier.epochs"] == 45, "180 steps of 4"


def test_steps_of_all_trainings_by_hand() -> None:
    """Seven steps an epoch of 16 images, thirteen of 8."""
    epochs = ("classifier.epochs=10", "affinity.epochs=2")
    text = "steps of training: 96 (classifier 70, affinity 26); `raypipe doctor CONFIG` forecasts how long they take"
    assert training_steps(config(*epochs), found(100)) == text
    assert "(classifier 20, affinity 26)" in training_steps(config(*epochs, "classifier.max_images=32"), found(100))
    assert "segmenter 39" in training_steps(config(*epochs, "segmenter.enabled=true"), found(100))
    assert "(classifier 70);" in training_steps(config(*epochs, "walk.affinity=rgb"), found(100))


def test_a_large_set_is_left_as_the_preset_has_it() -> None:
    assert fitted(10_000) == {}


WEIGHTS = "network.weights=w.pth"


def test_few_images_train_no_affinity_net() -> None:
    options = fitted(100, WEIGHTS)
    assert (options["cams.refit"], options["walk.affinity"], options["walk.alpha"]) == (True, "frozen", 1)
    assert "affinity.epochs" not in options
    assert options["classifier.epochs"] == 52
    entries = [Fitted("manifest", "m", ""), *fit(config(WEIGHTS), found(100))]
    assert load_config(commented_yaml(entries, heading=[]), ["out=o", WEIGHTS]).walk.affinity == "frozen"


@pytest.mark.parametrize(
    ("number", "overrides"),
    [(500, [WEIGHTS]), (100, []), (100, [WEIGHTS, "images.tile=256"]), (100, [WEIGHTS, "walk.affinity=rgb"])],
    ids=["many", "no pretrained weights", "tiles", "another affinity"],
)
def test_others_keep_the_walk_of_their_preset(number: int, overrides: list[str]) -> None:
    options = fitted(number, *overrides)
    assert not {"cams.refit", "walk.affinity", "walk.alpha"} & set(options)
    assert "affinity.epochs" in options


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["cams.refit=false"], {"walk.affinity": "frozen"}),
        (["cams.refit=true"], {"walk.affinity": "frozen", "walk.alpha": 1}),
        (["walk.affinity=learned"], {"cams.refit": True, "walk.alpha": 1, "affinity.epochs": 56}),
        (["checkpoints.affinity=a"], {"cams.refit": True, "walk.alpha": 1, "affinity.epochs": 56}),
        (["checkpoints.seeds=s"], {"walk.affinity": "frozen"}),
    ],
    ids=["no refit", "refit", "an AffinityNet", "a trained AffinityNet", "given seeds"],
)
def test_what_few_images_get_follows_from_what_was_given(overrides: list[str], expected: dict[str, Any]) -> None:
    """Maps that aren't refitted don't get the exponent of refitted ones; an AffinityNet that is trained gets steps."""
    given = {override.partition("=")[0] for override in overrides}
    entries = [*fit(config(WEIGHTS, *overrides), found(100), given=given)]
    concerned = ("cams.", "walk.", "affinity.epochs")
    assert {each.name: each.value for each in entries if each.name.startswith(concerned)} == expected
    read = load_config(commented_yaml(entries, heading=[]), ["manifest=m", "out=o", WEIGHTS, *overrides])
    assert read.walk.affinity == ("frozen" if "walk.affinity" in expected else "learned")


def test_no_image_comes_too_often() -> None:
    assert fitted(10)["classifier.epochs"] == 100


@pytest.mark.parametrize("number", [1, 20, 60, 100, 300, 700, 1446, 5000])
def test_a_training_never_gets_fewer_epochs_nor_far_fewer_steps(number: int) -> None:
    options = fitted(number)
    for name, batch_size in (("classifier", 16), ("affinity", 8)):
        usual = getattr(config(), name).epochs
        epochs = options.get(f"{name}.epochs", usual)
        assert epochs >= usual
        assert epochs == 100 or epochs * -(-number // batch_size) * batch_size >= 360 * 16


def test_rare_classes_come_more_often() -> None:
    options = fitted(1000, class_images={"cat": 900, "dog": 400, "cow": 100})
    assert options["repeat_threshold"] == pytest.approx(1 / 6, abs=1e-3)
    assert "repeat_threshold" not in fitted(1000, class_images={"cat": 900, "dog": 400, "cow": 200})
    assert "repeat_threshold" not in fitted(1000, "repeat_threshold=0.3", class_images={"cat": 900, "dog": 100})
    assert "repeat_threshold" not in fitted(1000, class_images={"cat": 10}), "there is no other class"


def test_crops_are_no_larger_than_images() -> None:
    options = fitted(1446, long_side=150)
    assert options["classifier.crop_size"] == options["affinity.crop_size"] == 152
    assert options["classifier.long_side"] == [152, 228]
    assert not {"classifier.crop_size", "classifier.long_side"} & set(fitted(1446, long_side=None))
    assert fitted(1446, long_side=8)["classifier.crop_size"] == 32


def test_lists_that_a_manifest_does_not_have_become_all_images() -> None:
    options = fitted(1446, splits=frozenset({"train"}))
    assert {name for name, value in options.items() if value is None} == {
        "splits.train",
        "splits.masks",
        "evaluation.splits",
        "segmentation.splits",
    }


def test_what_no_option_mends_is_noted() -> None:
    tiny = config("network.backbone=tiny")
    lines = list(notes(tiny, found(60, class_images={"cat": 60, "dog": 7})))
    assert lines[0].startswith("all images show cat: nothing tells them from the background")
    assert lines[1] == "fewer than 20 images show dog 7: their maps will be rough"
    assert list(notes(tiny, found(60))) == []
    (line,) = notes(config(), found(60))
    assert line.startswith("network.weights is null: the networks start from random numbers")


def test_each_option_is_written_behind_its_reason() -> None:
    entries = [
        Fitted("preset", "demo", ""),
        Fitted("walk.beta", 4.0, "as said"),
        Fitted("out", "a: #b", ""),
        Fitted("walk.alpha", 2.0, ""),
        Fitted("classifier.saliency_loss.stride", 4, "twice as deep"),
        Fitted("classifier.long_side", [1, 2], ""),
        Fitted("splits.train", None, "all"),
        Fitted("manifest", "m", ""),
    ]
    text = commented_yaml(entries, heading=["two images"])
    assert text.startswith('# two images\npreset: "demo"\nwalk:\n  # as said\n  beta: 4.0\n  alpha: 2.0\nout: ')
    read = load_config(text)
    assert (read.walk.beta, read.walk.alpha, read.classifier.saliency_loss.stride) == (4, 2, 4)
    assert read.classifier.long_side == (1, 2)
    assert read.splits.train is None
    assert read.out.endswith("a: #b")


def test_labels_an_image() -> None:
    assert found(100, class_images={"cat": 100, "dog": 50}).labels_an_image == 1.5
