"""One picture to its mask, from checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raypipe.api.masks import Mask
from raypipe.api.single_image import segment_image
from raypipe.config import load_config
from raypipe.data.checkpoints import Checkpoint, CheckpointError, write_checkpoint
from raypipe.data.images import decode_image
from raypipe.data.manifest import UnknownLabel
from raypipe.data.opening import ImageError
from raypipe.networks import build_affinity_net, build_segmenter

SMALL = ["cams.scales=[1.0]", "walk.num_steps=20", "images.max_side=64"]


@pytest.fixture(scope="module")
def segmenter_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Checkpoint of a tiny segmentation network with random weights."""
    torch.manual_seed(0)
    network = build_segmenter("tiny", head="largefov", num_classes=2)
    uri = str(tmp_path_factory.mktemp("segmenter"))
    checkpoint = Checkpoint(
        task="segmenter",
        backbone="tiny",
        classes=("cat", "dog"),
        preprocessing=network.preprocessing.to_dict(),
        config={"section": {"head": "largefov"}},
        weights=network.state_dict(),
    )
    write_checkpoint(checkpoint, uri)
    return uri


@pytest.fixture
def networks(classifier_uri: str, affinity_uri: str) -> dict[str, str]:
    return {"classifier": classifier_uri, "affinity": affinity_uri}


def segment(image: object, labels: list[str] | None, **options: object) -> Mask:
    return segment_image(image, labels, overrides=SMALL, device="cpu", **options)  # type: ignore[arg-type]


def test_a_file_its_content_and_its_pixels_make_one_mask(tmp_path: Path, jpeg: bytes, networks: dict[str, str]) -> None:
    (tmp_path / "dog.jpg").write_bytes(jpeg)
    pixels = decode_image(jpeg, max_side=None).pixels
    by_path = segment(tmp_path / "dog.jpg", ["dog"], **networks)
    assert by_path.image_id == str(tmp_path / "dog.jpg")
    assert by_path.array.shape == (61, 83)
    assert set(np.unique(by_path.array)) <= {0, 2}
    assert by_path.predicted_iou is not None
    for other in (str(tmp_path / "dog.jpg"), jpeg, pixels):
        assert segment(other, ["dog"], **networks).png == by_path.png


def test_labels_choose_the_classes(jpeg: bytes, networks: dict[str, str]) -> None:
    assert set(segment(jpeg, ["cat"], **networks).areas) <= {"background", "cat"}
    assert segment(jpeg, [], **networks).areas == {"background": 1}
    with pytest.raises(UnknownLabel, match="unknown label 'dgo': did you mean 'dog'"):
        segment(jpeg, ["dgo"], **networks)
    with pytest.raises(ValueError, match="maps need the picture's labels"):
        segment(jpeg, None, **networks)
    with pytest.raises(TypeError, match=r"got 'dog': give \['dog'\]"):
        segment(jpeg, "dog", **networks)  # type: ignore[arg-type]


def test_settings_of_a_file_and_overrides(tmp_path: Path, jpeg: bytes, networks: dict[str, str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("manifest: m.parquet\nout: out\nrefinement: { method: none }\n")
    plain = segment(jpeg, ["dog"], config=file, **networks)
    assert plain.before_refinement is None
    refined = segment_image(
        jpeg, ["dog"], config=file, overrides=[*SMALL, "refinement.method=pamr"], device="cpu", **networks
    )
    assert refined.before_refinement is not None
    assert np.array_equal(refined.before_refinement, plain.array)


def test_a_segmenter_needs_no_labels(jpeg: bytes, segmenter_uri: str) -> None:
    mask = segment(jpeg, None, segmenter=segmenter_uri)
    assert mask.array.shape == (61, 83)
    assert mask.predicted_iou is None
    assert set(segment(jpeg, ["cat"], segmenter=segmenter_uri).areas) <= {"background", "cat"}


def test_the_maps_alone_need_no_affinity(jpeg: bytes, classifier_uri: str) -> None:
    with pytest.raises(ValueError, match="a walk needs an AffinityNet: give affinity=CHECKPOINT"):
        segment(jpeg, ["dog"], classifier=classifier_uri)
    frozen = ["walk.affinity=frozen", "network.weights=w.pth"]
    with pytest.raises(
        ValueError, match=r"needs a frozen backbone: .* out/affinity/…/checkpoint; or call raypipe\.open"
    ):
        segment_image(jpeg, ["dog"], classifier=classifier_uri, overrides=frozen)
    with pytest.raises(ValueError, match=r"a loaded config and overrides \['cams.scales"):
        segment(jpeg, ["dog"], classifier=classifier_uri, config=load_config("", ["manifest=-", "out=-"]))
    unwalked = segment_image(
        jpeg, ["dog"], classifier=classifier_uri, overrides=[*SMALL, "walk.num_steps=0"], device="cpu"
    )
    assert unwalked.array.shape == (61, 83)


def test_checkpoints_that_do_not_go_together(
    tmp_path: Path, jpeg: bytes, networks: dict[str, str], segmenter_uri: str
) -> None:
    with pytest.raises(ValueError, match=r"got checkpoints of \[\]: give classifier and affinity"):
        segment(jpeg, ["dog"])
    with pytest.raises(ValueError, match=r"got checkpoints of \['classifier', 'affinity', 'segmenter'\]"):
        segment(jpeg, ["dog"], segmenter=segmenter_uri, **networks)
    with pytest.raises(CheckpointError, match="expected a checkpoint of task 'affinity', got one of 'classifier'"):
        segment(jpeg, ["dog"], classifier=networks["classifier"], affinity=networks["classifier"])
    other = build_affinity_net("tiny")
    write_checkpoint(
        Checkpoint(
            task="affinity",
            backbone="tiny",
            classes=("cow",),
            preprocessing=other.preprocessing.to_dict(),
            config={},
            weights=other.state_dict(),
        ),
        str(tmp_path),
    )
    with pytest.raises(
        ValueError, match=r"the classifier knows the classes \['cat', 'dog'\], the AffinityNet \['cow'\]"
    ):
        segment(jpeg, ["dog"], classifier=networks["classifier"], affinity=str(tmp_path))


def test_pictures_that_can_not_be_used(tmp_path: Path, networks: dict[str, str]) -> None:
    with pytest.raises(ImageError):
        segment(b"nothing", ["dog"], **networks)
    with pytest.raises(FileNotFoundError):
        segment(tmp_path / "none.jpg", ["dog"], **networks)
    with pytest.raises(ValueError, match=r"uint8 of shape \(H, W, 3\), RGB; got float64 \(8, 8\)"):
        segment(np.zeros((8, 8)), ["dog"], **networks)
    with pytest.raises(ValueError, match=r"images\.bands and images\.tile are a run's"):
        segment_image(b"", ["dog"], overrides=["images.bands=[1]"], **networks)


def test_exif_rotation_is_followed(tmp_path: Path, networks: dict[str, str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(tmp_path / "turned.jpg", exif=exif)
    assert segment(tmp_path / "turned.jpg", ["dog"], **networks).array.shape == (80, 40)


def test_it_takes_the_walk_of_its_own_that_a_run_would_take(jpeg: bytes, networks: dict[str, str]) -> None:
    """With a gate the mask's walk is one of those around the config's, and the config's where there is none."""
    own, given = (
        segment_image(
            jpeg,
            ["cat", "dog"],
            overrides=[*SMALL, "walk.alpha=1", f"refinement.gate={gate}"],
            device="cpu",
            **networks,
        )
        for gate in ("run", "off")
    )
    assert (given.row["walk_alpha"], given.row["walk_steps"]) == (1, 20)
    assert own.row["walk_alpha"] in (1, 0.5, 0.25)
    assert (own.row["walk_alpha"], own.row["walk_steps"]) != (1, 20)
    assert own.png != given.png


def test_refitted_maps_need_a_refitted_classifier(jpeg: bytes, networks: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"cams\.refit wants a classifier with refitted maps, and .* has none"):
        segment_image(jpeg, ["dog"], overrides=[*SMALL, "cams.refit=true"], device="cpu", **networks)
