"""Networks that predict saliency, by name, from their published weights or as ONNX."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from raypipe.networks.csnet import CSNet
from raypipe.networks.preprocessing import IMAGENET, Preprocessing

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, kw_only=True)
class SaliencyNetwork:
    """What a saliency network is and how it wants its input."""

    build: Callable[[Mapping[str, Tensor]], nn.Module]
    """The network of a state dict's shapes."""
    side: int
    """Pixels to which both sides of an image are resized, as in training."""
    preprocessing: Preprocessing = IMAGENET


SALIENCY_NETWORKS: dict[str, SaliencyNetwork] = {
    "csnet": SaliencyNetwork(build=CSNet, side=224),
}


def load_saliency_network(name: str, state: Mapping[str, Tensor], *, source: str) -> nn.Module:
    """Return a saliency network with its published weights, in eval mode.

    Args:
        name: one of `SALIENCY_NETWORKS`.
        state: tensors by the published names.
        source: where they come from, for messages.

    Raises:
        ValueError: no such network, or the weights are another one's.
    """
    if name not in SALIENCY_NETWORKS:
        raise ValueError(f"no saliency network is called {name!r}: choose one of {', '.join(SALIENCY_NETWORKS)}")
    try:
        network = SALIENCY_NETWORKS[name].build(state)
        missing, unexpected = network.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{source} doesn't fit {name}: {error}") from error
    missing = [key for key in missing if not key.endswith(_COUNTER)]
    if missing or unexpected:
        raise ValueError(
            f"{source} doesn't fit {name}: {len(missing)} weights are missing ({', '.join(missing[:3])}), "
            f"{len(unexpected)} are unknown ({', '.join(unexpected[:3])}); bring the published weights of {name}"
        )
    return network.eval()
