import pytest
import torch

from raypipe.networks import build_classifier, build_segmenter, load_state


@pytest.mark.parametrize(
    ("backbone", "head", "output_stride"),
    [("tiny", "lraspp", 8), ("mobilenet_v2", "largefov", 8), ("mobilenet_v2", "lraspp", 16)],
)
@pytest.mark.parametrize("size", [(64, 96), (40, 56)])
def test_logits_on_the_grid_of_stride_8(backbone: str, head: str, output_stride: int, size: tuple[int, int]) -> None:
    network = build_segmenter(backbone, head=head, num_classes=3).eval()
    assert network.backbone.output_stride == output_stride
    assert network(torch.zeros(1, 3, *size)).shape == (1, 4, size[0] // 8, size[1] // 8)


def test_vgg16_s_field_of_view_is_large() -> None:
    network = build_segmenter("vgg16", head="largefov", num_classes=3)
    assert network.backbone.get_submodule("fc6").dilation == (12, 12)


def test_only_the_head_is_new() -> None:
    network = build_segmenter("mobilenet_v2", head="lraspp", num_classes=3)
    new = {id(parameter) for parameter in network.new_parameters()}
    assert new == {id(parameter) for parameter in network.head.parameters()}


def test_starts_from_a_classifier() -> None:
    classifier = build_classifier("tiny", num_classes=2)
    network = build_segmenter("tiny", head="lraspp", num_classes=2)
    kept = load_state(network, classifier.state_dict(), source="a classifier")
    assert all(name.startswith("head.") for name in kept)
    torch.testing.assert_close(network.backbone.state_dict(), classifier.backbone.state_dict())


def test_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one object class"):
        build_segmenter("tiny", head="lraspp", num_classes=0)
