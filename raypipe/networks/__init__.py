"""Networks: classifiers, whose weights give class activation maps, AffinityNet and segmenters, on several backbones."""

from raypipe.networks.affinity_net import AffinityNet, build_affinity_net
from raypipe.networks.classifier import AnyClassifier, Classifier, build_classifier
from raypipe.networks.frozen_features import FrozenFeatures, build_frozen_features
from raypipe.networks.inputs import network_input
from raypipe.networks.network import Network
from raypipe.networks.preprocessing import Preprocessing
from raypipe.networks.saliency_classifier import SaliencyClassifier, build_saliency_classifier
from raypipe.networks.segmenter import Segmenter, build_segmenter
from raypipe.networks.weights import load_state, load_weights

__all__ = [
    "AffinityNet",
    "AnyClassifier",
    "Classifier",
    "FrozenFeatures",
    "Network",
    "Preprocessing",
    "SaliencyClassifier",
    "Segmenter",
    "build_affinity_net",
    "build_classifier",
    "build_frozen_features",
    "build_saliency_classifier",
    "build_segmenter",
    "load_state",
    "load_weights",
    "network_input",
]
