"""Builds the networks that predict saliency, by name, with their published weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from raypipe.networks.csnet import CSNet
from raypipe.networks.preprocessing import IMAGENET, Preprocessing

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, kw_only=True)
class SaliencyNetwork:
    """How a saliency network is built, and the input that it expects."""

    build: Callable[[Mapping[str, Tensor]], nn.Module]
    """Builds the network with the shapes of a state dict."""
    side: int
    """Both sides of the input in pixels, as in training."""
    preprocessing: Preprocessing = IMAGENET


SALIENCY_NETWORKS: dict[str, SaliencyNetwork] = {
    "csnet": SaliencyNetwork(build=CSNet, side=224),
}


def load_saliency_network(name: str, state: Mapping[str, Tensor], *, source: str) -> nn.Module:
    """Return a saliency network with its published weights, in eval mode.

    Args:
        name: one of `SALIENCY_NETWORKS`.
        state: tensors by the published names.
        source: where the weights come from, for messages.

    Raises:
        ValueError: there is no such network, or the weights are another network's.
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
