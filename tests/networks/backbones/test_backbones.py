import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from raypipe.networks.backbones import BACKBONES, build_backbone
from raypipe.networks.backbones.centres import measure_centres
from raypipe.networks.backbones.mobilenet_v2 import NUM_EXACT_BLOCKS
from raypipe.networks.backbones.tiny import StandardizedConv2d

LIGHT = ("resnet18", "mobilenet_v2", "tiny", "vgg16")
SIZES = [(1, 1), (7, 9), (33, 40)]


def test_names() -> None:
    assert BACKBONES == (
        "resnet38",
        "vgg16",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "mobilenet_v2",
        "tiny",
    )


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'mobilenet_v2'"):
        build_backbone("mobilenetv2")
    with pytest.raises(ValueError, match="choose one of resnet38, vgg16"):
        build_backbone("xyz")


@pytest.mark.parametrize(("name", "stride"), [("resnet38", 16), ("vgg16", 4), ("resnet50", 32), ("tiny", 16)])
def test_unknown_output_stride(name: str, stride: int) -> None:
    with pytest.raises(ValueError, match=f"expected output_stride 8.* for {name}, got {stride}"):
        build_backbone(name, output_stride=stride)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_depth_has_its_channels_and_the_grids_size(name: str) -> None:
    for stride in (8,) if name in ("resnet38", "vgg16", "tiny") else (8, 16):
        with torch.device("meta"):
            backbone = build_backbone(name, output_stride=stride)
            maps = backbone(torch.empty(2, 3, 65, 39))
        height, width = -(-65 // stride), -(-39 // stride)
        expected = {depth: (2, channels, height, width) for depth, channels in backbone.channels.items()}
        assert {depth: tuple(features.shape) for depth, features in maps.items()} == expected
        assert stride == 16 or set(backbone.affinity_depths) <= set(maps)
        assert backbone.affinity_depths[-1] == backbone.last_depth


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LIGHT)
def test_any_size(name: str, size: tuple[int, int]) -> None:
    backbone = build_backbone(name).eval()
    with torch.no_grad():
        last = backbone(torch.randn(1, 3, *size))[backbone.last_depth]
    assert last.shape[-2:] == (-(-size[0] // 8), -(-size[1] // 8))
    assert last.isfinite().all()


@pytest.mark.parametrize("size", SIZES)
def test_mobilenet_any_size_at_stride_16(size: tuple[int, int]) -> None:
    with torch.no_grad():
        maps = build_backbone("mobilenet_v2", output_stride=16).eval()(torch.randn(1, 3, *size))
    assert {features.shape[-2:] for features in maps.values()} == {(-(-size[0] // 16), -(-size[1] // 16))}


@pytest.mark.parametrize(
    ("name", "stride", "centre"),
    [
        ("tiny", 8, 3.5),
        ("mobilenet_v2", 8, 3.0),
        ("mobilenet_v2", 16, 7.0),
        ("resnet18", 8, 4.0),
        ("resnet18", 16, 8.0),
        ("resnet50", 8, 4.0),
        ("vgg16", 8, 0.0),  # psa's
        pytest.param("resnet38", 8, 0.0, marks=pytest.mark.slow),  # psa's
    ],
)
def test_convention_where_cells_look(name: str, stride: int, centre: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell i of every depth looks at `stride * i + centre`, of the pixels [stride * i, stride * (i + 1))."""
    monkeypatch.setattr(StandardizedConv2d, "forward", nn.Conv2d.forward)  # of equal values, it would make zeros
    monkeypatch.setattr(  # of equal values, the maximum looks at the first one alone
        F,
        "max_pool2d",
        lambda x, size, stride, padding: F.avg_pool2d(x, size, stride, padding, count_include_pad=False),
    )
    backbone = build_backbone(name, output_stride=stride).eval()
    centres = measure_centres(backbone, lambda x: list(backbone(x).values()))
    assert centres == (centre,) * len(backbone.channels)


def test_convention_mobilenet_is_torchvisions_on_a_shifted_image() -> None:
    torch.manual_seed(0)
    ours = build_backbone("mobilenet_v2").eval()
    theirs = torchvision.models.mobilenet_v2().features[:7].eval()
    theirs.load_state_dict(
        {
            key.removeprefix("features."): value
            for key, value in ours.state_dict().items()
            if key.split(".")[1] in "0123456"
        },
        strict=False,
    )
    x = torch.randn(1, 3, 200, 200)
    shifted = torch.zeros_like(x)
    shifted[..., :-3, :-3] = x[..., 3:, 3:]
    inside = (..., slice(8, -8), slice(8, -8))
    with torch.no_grad():
        torch.testing.assert_close(ours(x)["features.6"][inside], theirs(shifted)[inside])


def test_convention_tiny_sees_only_its_neighbourhood() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("tiny").eval()
    x = torch.randn(1, 3, 320, 64)
    changed = x.clone()
    changed[..., 300:, :] = 0
    with torch.no_grad():
        torch.testing.assert_close(backbone(x)["last"][:, :, :16], backbone(changed)["last"][:, :, :16])


def test_frozen_layers() -> None:
    frozen = {
        "resnet38": {"conv1a", "b2", "b2_1", "b2_2"},
        "vgg16": {"conv1_1", "conv1_2", "conv2_1", "conv2_2"},
        "resnet18": {"conv1"},
        "tiny": set(),
    }
    for name, expected in frozen.items():
        with torch.device("meta"):
            backbone = build_backbone(name)
        layers = {
            layer
            for layer, module in backbone.named_children()
            for conv in module.modules()
            if isinstance(conv, nn.Conv2d) and not conv.weight.requires_grad
        }
        assert layers == expected
        assert not any(
            parameter.requires_grad
            for norm in backbone.modules()
            if isinstance(norm, nn.BatchNorm2d)
            for parameter in norm.parameters()
        )


@pytest.mark.parametrize("training", [False, True])
def test_mobilenet_infers_its_first_blocks_in_float32(training: bool) -> None:
    network = build_backbone("mobilenet_v2").train(training)
    seen = []
    for block in network.features:
        block.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(torch.randn(1, 3, 16, 16))
    num_exact = seen.count(torch.float32)
    assert num_exact == (0 if training else NUM_EXACT_BLOCKS)
    assert set(seen[num_exact:]) == {torch.bfloat16}
