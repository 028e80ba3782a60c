from pathlib import Path

import pytest

from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.doctor.package_checks import check_packages, packages_of
from raypipe.pipelines.context import Context

SALIENCY = ("classifier.saliency=eps", "saliency.weights=isnet.onnx")


def make_context(out: Path, *overrides: str) -> Context:
    config = load_config("", ["manifest=m.parquet", f"out={out}", *overrides])
    row = {"image_id": "a", "image_uri": "a.jpg", "labels": ["cat"], "split": "train"}
    return Context(config, Manifest.from_rows([row], ("cat", "dog")))


def test_options_that_need_no_extra_say_nothing(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    assert packages_of(context) == {}
    assert list(check_packages(context, {"the driver": []})) == []


def test_packages_that_are_there(tmp_path: Path) -> None:
    context = make_context(tmp_path, *SALIENCY)
    assert list(packages_of(context)) == ["onnxruntime"]
    (found,) = check_packages(context, {"the driver": [], "10.0.0.1": ()})
    assert (found.status, found.found, found.way_out) == ("ok", "onnxruntime installed", "")


def test_a_saliency_network_that_is_not_run_needs_nothing(tmp_path: Path) -> None:
    assert packages_of(make_context(tmp_path, SALIENCY[1])) == {}
    assert packages_of(make_context(tmp_path, *SALIENCY, "checkpoints.classifier=memory://given")) == {}


@pytest.mark.parametrize("option", ["images.bands=[3,2,1]", "images.tile=512"])
def test_packages_that_lack_somewhere(tmp_path: Path, option: str) -> None:
    context = make_context(tmp_path, option)
    (found,) = check_packages(context, {"the driver": [], "10.0.0.1": ["tifffile", "imagecodecs"]})
    assert found.status == "problem"
    assert found.found == "from 10.0.0.1: tifffile, imagecodecs not installed"
    assert found.needed == f"what {option.split('=')[0]} uses"
    assert found.way_out == "pip install -e '.[raster]' in raypipe's clone"
