"""Networks of timm as backbones: a dozen architectures at small size."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from raypipe.data.checkpoints import Checkpoint, write_checkpoint
from raypipe.networks import Network, build_affinity_net, build_classifier, build_segmenter, load_weights
from raypipe.networks.backbones import Backbone, build_backbone, default_preprocessing, output_strides
from raypipe.networks.backbones.base import FrozenBatchNorm2d
from raypipe.stages.networks import load_classifier
from raypipe.storage import read_bytes

DILATED = ("test_resnet", "resnet18d", "tf_efficientnet_lite0", "mobilenetv3_small_050", "regnetx_002", "convnext_atto")
STRIDED = ("ghostnet_050", "swin_tiny_patch4_window7_224")
PATCHES = ("test_vit", "deit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3")
SIGLIP = "vit_base_patch16_siglip_224"
SMALL = ("test_resnet", "mobilenetv3_small_050", "convnext_atto", "test_vit")


@lru_cache
def built(architecture: str, output_stride: int = 8) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(f"timm/{architecture}", output_stride=output_stride).eval()


@pytest.mark.parametrize("architecture", [*DILATED, *STRIDED, *PATCHES])
def test_every_depth_has_its_channels_and_the_grids_size_for_any_size(architecture: str) -> None:
    for stride in (8, 16) if architecture in SMALL else (8,):
        backbone = built(architecture, stride)
        assert backbone.affinity_depths == tuple(backbone.channels)[-3:]
        for height, width in [(1, 1), (61, 90)]:
            with torch.inference_mode():
                maps = backbone(torch.randn(2, 3, height, width))
            grid = (-(-height // stride), -(-width // stride))
            expected = {depth: (2, channels, *grid) for depth, channels in backbone.channels.items()}
            assert {depth: tuple(features.shape) for depth, features in maps.items()} == expected
            assert all(features.isfinite().all() for features in maps.values())


def test_siglips_image_tower_leaves_its_pooling_out() -> None:
    with torch.device("meta"):
        backbone = build_backbone(f"timm/{SIGLIP}")
        assert backbone(torch.empty(1, 3, 50, 70))[backbone.last_depth].shape == (1, 768, 7, 9)
    assert backbone.foreign_heads == ("attn_pool.",)


@pytest.mark.parametrize("architecture", [*DILATED, "ghostnet_050", "deit_tiny_patch16_224"])
def test_a_training_step_changes_every_weight_but_those_of_stem_and_batchnorm(architecture: str) -> None:
    torch.manual_seed(0)
    networks: list[Network] = [
        build_classifier(f"timm/{architecture}", num_classes=2),
        build_affinity_net(f"timm/{architecture}"),
    ]
    for network in networks:
        network.train()
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        assert all(isinstance(norm, FrozenBatchNorm2d) for norm in norms)
        statistics = [norm.running_mean.clone() for norm in norms]
        network(torch.randn(2, 3, 64, 64)).square().mean().backward()
        # DistributedDataParallel refuses parameters without a gradient.
        assert all(parameter.grad is not None for parameter in trainable)
        assert all(torch.equal(norm.running_mean, before) for norm, before in zip(norms, statistics, strict=True))


@pytest.mark.parametrize(
    ("architecture", "stem"),
    [
        ("test_resnet", {"conv1"}),
        ("tf_efficientnet_lite0", {"conv_stem"}),
        ("convnext_atto", {"stem"}),
        ("test_vit", {"cls_token", "pos_embed", "patch_embed"}),
    ],
)
def test_the_stem_is_frozen(architecture: str, stem: set[str]) -> None:
    frozen = {
        name.split(".")[1]
        for name, parameter in built(architecture).named_parameters()
        if not parameter.requires_grad and not name.split(".")[-2].startswith("bn")
    }
    assert stem <= frozen


@pytest.mark.parametrize("architecture", SMALL)
def test_published_weights_lack_the_head_and_ours_come_back_from_a_checkpoint(
    architecture: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    published = timm.create_model(architecture).state_dict()
    torch.save(published, tmp_path / "weights.pth")
    network = build_classifier(f"timm/{architecture}", num_classes=2).eval()
    assert load_weights(network, tmp_path / "weights.pth", read=read_bytes) == ("fc8.weight",)
    ours = network.backbone.state_dict()
    counted = {name for name in published if not name.endswith("num_batches_tracked")}
    for name, tensor in ours.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, published[name.removeprefix("model.")])
            counted.remove(name.removeprefix("model."))
    assert all(name.startswith(network.backbone.foreign_heads) for name in counted)
    checkpoint = Checkpoint(
        task="classifier",
        backbone=f"timm/{architecture}",
        classes=("cat", "dog"),
        preprocessing=network.preprocessing.to_dict(),
        config={},
        weights=network.state_dict(),
    )
    write_checkpoint(checkpoint, str(tmp_path / "checkpoint"))
    loaded = load_classifier(str(tmp_path / "checkpoint"), device="cpu")
    x = torch.randn(1, 3, 50, 70)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.cam(x), network.cam(x), rtol=1e-3, atol=1e-4)
    assert loaded.preprocessing == network.preprocessing


def without_structure(backbone: Backbone) -> Backbone:
    """Kernels that are the same at every place, so that a mirrored image gives mirrored maps."""
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.copy_(module.weight.mean(dim=(2, 3), keepdim=True).expand_as(module.weight))
    return backbone


@pytest.mark.parametrize("architecture", DILATED)
def test_convention_a_mirrored_image_gives_mirrored_maps_and_a_shifted_one_shifted_maps(architecture: str) -> None:
    """A cell looks at its own centre to half a pixel, so the mirror moves it by up to one."""
    torch.manual_seed(0)
    backbone = without_structure(build_backbone(f"timm/{architecture}").eval()).double()
    waves = torch.linspace(0, 20, 640, dtype=torch.float64)
    x = torch.stack([waves.sin(), waves.cos(), (2 * waves).sin()])[None, :, None].expand(1, 3, 48, -1)
    shifted = torch.cat([x[..., 8:], x[..., :8]], dim=-1)
    with torch.inference_mode():
        maps, mirrored, moved = backbone(x), backbone(x.flip(-1)), backbone(shifted)
    for depth in (backbone.affinity_depths[0], backbone.last_depth):
        plain = maps[depth][..., 30:-30]  # the borders' zeros reach far in dilated networks
        cell = (plain[..., 1:] - plain[..., :-1]).square().mean().sqrt()  # what 8 pixels make
        off = plain - mirrored[depth].flip(-1)[..., 30:-30]
        assert off.square().mean().sqrt() < 0.25 * cell
        off = plain - moved[depth][..., 29:-31]
        assert off.square().mean().sqrt() < 0.1 * cell


@pytest.mark.parametrize("architecture", [*PATCHES, "swin_tiny_patch4_window7_224"])
def test_convention_a_painted_patch_is_found_at_its_place_in_mirror_merged_maps(architecture: str) -> None:
    """Sizes that are no multiples of the patches, so that the mirror moves the patches."""
    backbone = built(architecture)
    torch.manual_seed(1)
    x = 0.2 * torch.randn(1, 3, 104, 152)
    painted = x.clone()
    painted[..., 40:72, 88:120] = 3.0  # its centre is at cell (6.5, 12.5)

    def merged(image: Tensor) -> Tensor:
        features: Tensor = backbone(image)[backbone.last_depth]
        return features + backbone(image.flip(-1))[backbone.last_depth].flip(-1)

    with torch.inference_mode():
        change = (merged(painted) - merged(x)).square().sum(dim=1)[0]
    change = (change - change.median()).clamp(min=0)
    rows, columns = torch.meshgrid(torch.arange(13) + 0.5, torch.arange(19) + 0.5, indexing="ij")
    found = [((change * at).sum() / change.sum()).item() for at in (rows, columns)]
    assert found == pytest.approx([7.0, 13.0], abs=1.0)


def test_maps_of_a_vit_are_its_patches_on_the_grid() -> None:
    """Without attention and position, a cell in the middle of four patches is their mean."""
    backbone = built("test_vit")
    with torch.inference_mode():
        tokens = backbone.model.forward_intermediates(
            torch.ones(1, 3, 32, 48), indices=[5], norm=True, output_fmt="NCHW", intermediates_only=True
        )[0]
        maps = backbone(torch.ones(1, 3, 32, 48))[backbone.last_depth]
    assert tokens.shape[-2:] == (2, 3)
    # Cells of 8 pixels lie a quarter of a patch of 16 from the patch's centre.
    weights = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]])
    torch.testing.assert_close(maps[..., :, 0], tokens[..., :, 0] @ weights.mT, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvisions_resnets_are_timms_with_the_same_names(name: str) -> None:
    torch.manual_seed(0)
    dilated = {"replace_stride_with_dilation": [False, True, True]} if name == "resnet50" else {}
    theirs = torchvision.models.get_model(name, **dilated).eval()
    ours = timm.create_model(name, output_stride=8 if dilated else 32).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = nn.Sequential(*list(theirs.children())[:-2])(x)
        torch.testing.assert_close(ours.forward_features(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.shared_data
def test_real_weights_by_timms_names(weights_dir: Path) -> None:
    network = build_classifier("timm/tf_efficientnet_lite2", num_classes=3)
    assert load_weights(network, weights_dir / "tf_efficientnet_lite2.pth", read=read_bytes) == ("fc8.weight",)


def test_preprocessing_is_that_of_the_weights() -> None:
    assert default_preprocessing("timm/resnet18").mean == (0.485, 0.456, 0.406)
    assert default_preprocessing("timm/tf_efficientnet_lite2").mean == (0.5, 0.5, 0.5)
    assert default_preprocessing("timm/vit_base_patch16_clip_224.openai").std[0] == pytest.approx(0.2686, abs=1e-4)
    assert build_classifier("timm/tf_efficientnet_lite0", num_classes=2).preprocessing.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet5", "no network 'resnet5': did you mean timm/resnet50"),
        ("timm/resnet18.a9_in1k", "no weights 'resnet18.a9_in1k'; of resnet18 it has timm/resnet18.a1_in1k"),
        ("timm/mixer_s16_224", "can't be a backbone here, as it doesn't take images of every size"),
        ("timm/inception_v3", "can't be a backbone here, as"),
    ],
)
def test_what_timm_has_not_or_cannot_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(name)


def test_unknown_output_stride() -> None:
    assert output_strides("timm/test_resnet") == (8, 16)
    with pytest.raises(ValueError, match="expected output_stride 8 or 16 for timm/test_resnet, got 32"):
        build_backbone("timm/test_resnet", output_stride=32)


def test_a_seed_gives_the_same_weights_whether_the_layout_is_known_or_not() -> None:
    from raypipe.networks.backbones import timm_layout

    weights: list[Any] = []
    for forget in (True, False):
        if forget:
            timm_layout.find_layout.cache_clear()
        torch.manual_seed(0)
        weights.append(build_classifier("timm/test_resnet", num_classes=2).fc8.weight)
    assert torch.equal(*weights)


@pytest.mark.parametrize("head", ["deeplabv3", "deeplabv3plus", "lraspp"])
def test_segmenters(head: str) -> None:
    network = build_segmenter("timm/test_vit", head=head, num_classes=2).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 3, 50, 70)).shape == (1, 3, 7, 9)
