import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import yaml
from container_files import write_images, write_tar
from typer.core import TyperArgument, TyperGroup
from typer.testing import CliRunner

from raypipe import __version__, storage
from raypipe.artifacts import Artifact
from raypipe.cli import HAND_OVER, LOOK, RUN, SET_UP, app, main
from raypipe.config import load_config
from raypipe.data.parts import read_manifest

RUNNER = CliRunner()


def call(*args: object) -> str:
    result = RUNNER.invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def photos(tmp_path: Path, jpeg: bytes) -> Path:
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(jpeg)
    return tmp_path / "photos"


def test_import_folder(photos: Path, tmp_path: Path) -> None:
    output = call("import", "folder", photos, tmp_path / "m.parquet", "--split", "train")
    assert "3 images, 2 classes, 0 without labels" in output
    assert "\nclasses: cat, dog\n" in output
    manifest = read_manifest(str(tmp_path / "m.parquet"))
    assert manifest.classes == ("cat", "dog")
    assert set(manifest.table["split"].to_pylist()) == {"train"}


def test_import_table(photos: Path, tmp_path: Path) -> None:
    (photos / "t.csv").write_text("path,tags\ncat/1.jpg,cat;dog\ndog/1.jpg,\n")
    table = ["import", "table", photos / "t.csv", tmp_path / "m.parquet"]
    output = call(*table, "--image-column", "path", "--label-column", "tags", "--separator", ";")
    assert "2 images, 2 classes, 1 without labels" in output


def test_import_table_of_a_folder(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,labels\ncat/1,cat\nabsent,cat\n")
    table = ["import", "table", tmp_path / "labels.csv", tmp_path / "m.parquet", "--image-column", "file"]
    assert "1 image, 1 class," in call(*table, "--images", photos, "--skip-missing")


def test_import_webdataset(tmp_path: Path, jpeg: bytes) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n\n")
    for number in range(2):
        write_tar(tmp_path / f"train-{number:04d}.tar", {f"{number}.jpg": jpeg, f"{number}.cls": b"1"})
    tars = ["import", "webdataset", tmp_path / "train-{0000..0001}.tar", tmp_path / "m.parquet"]
    output = call(*tars, "--classes", tmp_path / "classes.txt", "--splits-from", "name", "--id", "key")
    assert "2 images, 2 classes, 0 without labels" in output
    manifest = read_manifest(str(tmp_path / "m.parquet"))
    columns = [manifest.table[name].to_pylist() for name in ("image_id", "labels", "split")]
    assert columns == [["0", "1"], [["dog"], ["dog"]], ["train", "train"]]
    assert storage.read_bytes(manifest.table["image_uri"][1].as_py()) == jpeg


def test_import_parquet(tmp_path: Path, jpeg: bytes) -> None:
    write_images(tmp_path / "data" / "val-00000-of-00001.parquet", [jpeg] * 3, label=[0, 1, None])
    output = call("import", "parquet", tmp_path / "data", tmp_path / "m.parquet", "--splits-from", "name")
    assert "3 images, 2 classes, 1 without labels" in output
    manifest = read_manifest(str(tmp_path / "m.parquet"))
    assert manifest.table["image_id"].to_pylist() == [f"val-00000-of-00001/{row}" for row in range(3)]
    assert manifest.table["labels"].to_pylist() == [["cat"], ["dog"], None]


def test_import_voc_with_a_limit(tmp_path: Path, jpeg: bytes) -> None:
    root = tmp_path / "voc"
    for folder in ("JPEGImages", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names = ["a", "b", "c"]
    for name in names:
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg)
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names))
    (root / "labels.csv").write_text("image_id,labels\n" + "".join(f"{name},cat|dog\n" for name in names))
    output = call("import", "voc", root, tmp_path / "m.parquet", "--labels", "labels.csv", "--limit", 2)
    assert "2 images" in output


def test_config_prints_what_run_takes(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(call("config", "--preset", "demo", "manifest=m.parquet", "walk.beta=3"))
    assert load_config(config.read_text()).walk.beta == 3
    printed = yaml.safe_load(call("run", config, "walk.alpha=5", "--print-config"))
    assert (printed["walk"]["alpha"], printed["walk"]["beta"]) == (5, 3)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "absent.yaml"], "there is no config file absent.yaml"),
        (["run", "-", "walk.bta=3"], "Did you mean 'beta'"),
        (["masks", "-", "manifest=absent.parquet", "out=out"], "absent.parquet"),
        (["import", "folder", "absent", "m.parquet"], "there is no folder "),
        (["import", "webdataset", "absent", "m.parquet"], "no .tar files: "),
        (["import", "parquet", "absent.parquet", "m.parquet"], "absent.parquet"),
        (["import", "coco", "absent.json", "images", "m.parquet"], "absent.json"),
        (["export-model", "-", "model.ts"], "expected a name that ends in .pt2 or .onnx"),
        (["export", "-", "cocoa", "out"], "unknown format 'cocoa': did you mean 'coco'?"),
    ],
)
def test_mistakes_are_one_message_without_traceback(
    args: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["raypipe", *args])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_saliency_names_the_folder_of_the_manifest_that_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = SimpleNamespace(predict_saliency=lambda: Artifact("/maps", "s"))
    monkeypatch.setattr("raypipe.cli.open_run", lambda *_, **__: steps)
    assert call("saliency", "config.yaml").splitlines() == ["maps: /maps", "manifest with saliency_uri: /maps/manifest"]


def _commands(command: Any, name: str = "raypipe") -> Iterator[tuple[str, Any]]:
    if isinstance(command, TyperGroup):
        for part, of_part in command.commands.items():
            yield from _commands(of_part, f"{name} {part}")
    yield name, command


COMMANDS = dict(_commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_what_it_takes_is_described(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    taken = [each for each in command.params if each.name not in ("help", "install_completion", "show_completion")]
    assert not [each.name for each in taken if not getattr(each, "help", None)]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_config_comes_first(name: str) -> None:
    arguments = [each.name for each in COMMANDS[name].params if isinstance(each, TyperArgument)]
    assert "config" not in arguments[1:]


def test_every_command_is_in_a_group_of_the_help() -> None:
    top = [command for name, command in COMMANDS.items() if name.count(" ") == 1]
    assert {getattr(command, "rich_help_panel", None) for command in top} == {SET_UP, RUN, LOOK, HAND_OVER}


def test_version() -> None:
    result = RUNNER.invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"raypipe {__version__}\n")
