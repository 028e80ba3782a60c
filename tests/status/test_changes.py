"""Records that differ, in the words of the config."""

import json
from pathlib import Path
from typing import Any

from raypipe.config import load_config
from raypipe.status.changes import Difference, differences, earlier_folders, in_words, nearest_differences

CONFIG = load_config("preset: demo", ["manifest=m", "out=o", "walk.beta=4", "affinity.lr=0.5", "classifier.lr=0.5"])


def stage(name: str, **fields: Any) -> dict[str, Any]:
    return {"class": name, **fields}


def test_stages_are_compared_by_their_classes() -> None:
    old = {"stages": [stage("A", x=1, inner={"y": 2}), stage("B")]}
    new = {"stages": [stage("A", x=1, inner={"y": 3}), stage("C")]}
    assert list(differences(old, new)) == [
        Difference(("stages", "A", "inner", "y"), 2, 3),
        Difference(("stages", "B"), "B", None),
        Difference(("stages", "C"), None, "C"),
    ]


def test_fields_are_named_as_options() -> None:
    found = list(
        differences(
            {"stages": [stage("Walk", beta=8.0, affinity="0" * 12), stage("Gone")], "rows": "a"},
            {"stages": [stage("Walk", beta=4.0, affinity="1" * 12)], "rows": "b"},
        )
    )
    words = in_words(found, CONFIG)
    assert words.options == ["walk.beta 8 → 4"]
    assert words.others == ["other images to learn from", "another affinity", "without Gone"]


def test_of_a_training_the_option_is_that_of_its_network() -> None:
    found = [Difference(("training", "section", "lr"), 0.003, 0.5)]
    assert in_words(found, CONFIG, task="affinity").options == ["affinity.lr 0.003 → 0.5"]


def test_what_no_option_holds_has_its_own_name_and_an_option_is_said_once() -> None:
    found = [
        Difference(("crops", "crop_size"), 96, 7),
        Difference(("stages", "Walk", "beta"), 8.0, 4.0),
        Difference(("stages", "Other", "beta"), 8.0, 4.0),
    ]
    assert in_words(found, CONFIG).options == ["walk.beta 8 → 4", "crop_size 96 → 7"]


def test_another_number_of_classes_is_not_said_beside_the_classes() -> None:
    found = [Difference(("task", "num_classes"), 2, 3), Difference(("classes",), ["a"], ["a", "b"])]
    assert in_words(found, CONFIG).options == ['classes ["a"] → ["a", "b"]']


def test_what_has_changed_is_what_was_in_the_last_run() -> None:
    found = [Difference(("stages", "Walk", "beta"), 8.0, 4.0)]
    assert in_words(found, CONFIG, last={"walk.beta": 2.0}).options == ["walk.beta 2 → 4"]


def test_the_nearest_of_the_earlier_outputs_is_compared(tmp_path: Path) -> None:
    for name, record in {"far": {"a": 1, "b": 1}, "near": {"a": 2, "b": 1}}.items():
        (tmp_path / "masks" / name).mkdir(parents=True)
        (tmp_path / "masks" / name / "record.json").write_text(json.dumps(record))
    (tmp_path / "masks" / "without_record").mkdir()
    folders = earlier_folders(str(tmp_path), "masks")
    assert [Path(folder).name for folder in folders] == ["far", "near", "without_record"]
    assert nearest_differences(folders, {"a": 2, "b": 3}) == [Difference(("b",), 1, 3)]
    assert nearest_differences(earlier_folders(str(tmp_path), "seeds"), {}) is None
