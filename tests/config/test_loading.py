from pathlib import Path

import pytest
import yaml

from raypipe.config import ConfigError, RunConfig, load_config, presets, to_yaml, trial_config
from raypipe.config import base as config_base
from raypipe.networks.backbones import BACKBONES

BASE = ["manifest=m.parquet", "out=out"]


def test_defaults_are_the_papers() -> None:
    config = load_config("", BASE)
    assert (config.walk.alpha, config.walk.beta, config.walk.num_steps) == (16, 8, 256)
    assert (config.trimaps.alpha_low, config.trimaps.alpha_high) == (4, 24)
    assert config.cams.scales == (1.0, 0.5, 1.5, 2.0)
    assert config.affinity.radius == 5


def test_overrides_win_over_file_and_file_over_preset() -> None:
    text = "preset: psa\nwalk: {beta: 4, alpha: 12}\n"
    config = load_config(text, [*BASE, "walk.alpha=10"])
    assert (config.walk.alpha, config.walk.beta) == (10, 4)
    assert config.trimaps.alpha_high == 32


def test_preset_psa_names_its_traps() -> None:
    config = load_config("preset: psa", BASE)
    assert config.optimizer.momentum == pytest.approx(5e-4)
    assert config.walk.count_padding
    assert config.cams.out_stride == 1


@pytest.mark.parametrize("preset", presets())
def test_every_preset_loads(preset: str) -> None:
    assert isinstance(load_config(f"preset: {preset}", BASE), RunConfig)


def test_yaml_round_trip() -> None:
    config = load_config("preset: psa", BASE)
    assert load_config(to_yaml(config)) == config
    assert yaml.safe_load(to_yaml(config))["walk"]["beta"] == 8


def test_off_is_what_yaml_reads_as_false() -> None:
    assert load_config("refinement: {gate: off}", BASE).refinement.gate == "off"
    assert load_config("", [*BASE, "refinement.gate=off"]).refinement.gate == "off"


def test_config_is_frozen() -> None:
    config = load_config("", BASE)
    with pytest.raises(ValueError, match="frozen"):
        config.walk.beta = 3


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("", [], "manifest: missing"),
        ("walk: {bta: 3}", BASE, "walk.bta: unknown name.*Did you mean 'beta'"),
        ("wlak: {beta: 3}", BASE, "Did you mean 'walk'"),
        ("", [*BASE, "walk.beta=-1"], r"walk.beta: got -1.*greater than 0"),
        ("", [*BASE, "walk.beta=fast"], r"walk.beta: got 'fast'.*number"),
        ("", [*BASE, "refinement.method=crf"], "allowed are 'none', 'dcrf' or 'pamr'.*Did you mean 'dcrf'"),
        ("", [*BASE, "network.backbone=resnet5"], "Did you mean 'resnet50'"),
        ("", [*BASE, "classifier.crop_size=100"], "classifier.crop_size: got 100.*multiple of 8"),
        ("", [*BASE, "trimaps.alpha_low=50"], "alpha_low must be below alpha_high"),
        ("", [*BASE, "cams.scales=[]"], "scales need at least one value"),
        ("", [*BASE, "classifier.long_side=[300,200]"], "long_side is \\(low, high\\)"),
        ("", [*BASE, "network.backbone=resnet18"], "backbone resnet18 can't take weights torchvision://resnet50"),
        ("", [*BASE, "network.backbone=timm/"], "or timm/NAME and timm/NAME.TAG of any network of timm"),
        ("", [*BASE, "network.backbone=timm/a", "network.weights=timm://a.b"], "these are for backbone timm/a.b"),
        (
            "",
            [*BASE, "affinity.start=clasifier"],
            "allowed are 'pretrained' or 'classifier'.*Did you mean 'classifier'",
        ),
        ("", [*BASE, "sed=1"], "sed: unknown name.*Did you mean 'seed'"),
        ("", [*BASE, "beta=1"], "beta: unknown name.*Did you mean 'walk.beta'"),
        ("", [*BASE, "num_stepz=1"], "num_stepz: unknown name.*Did you mean 'walk.num_steps'"),
        ("", [*BASE, "refinement.epochs=1"], "Did you mean 'classifier.epochs' or 'affinity.epochs' or 'segmenter."),
        ("preset: pas", BASE, "preset: got 'pas'.*Did you mean 'psa'"),
        ("a: [", BASE, "isn't YAML: line 2: did not find expected node content"),
        ("a: 1\nb: 2\nc=3\nd: 4", BASE, "isn't YAML: lines 3 to 4: could not find expected ':'"),
        ("- 1", [], "must be a mapping"),
        ("", [*BASE, "novalue"], "NAME=VALUE"),
        ("", [*BASE, "sweep.training={optimizer.warmup: [1]}"], "optimizer.warmup: unknown.*'warmup_steps'"),
        ("", [*BASE, "sweep.training={classifier.epochs: [4, 0]}"], "sweep.training: classifier.epochs: got 0"),
        ("", [*BASE, "sweep.training={network.backbone: [resnet18]}"], "resnet18 can't take weights torchvision"),
        ("", [*BASE, "sweep.training={classifier.epochs: []}"], "needs at least one value of classifier.epochs"),
        ("", [*BASE, "sweep.training={walk.beta: [1]}"], "dotted names in network, .*, got 'walk.beta'"),
        ("", [*BASE, "sweep.training={classifier: [1]}"], "got 'classifier'"),
        ("", [*BASE, "sweep.training={both: [{out: elsewhere}]}"], "got 'out'"),
        ("", [*BASE, "sweep.training={seed: [1, 2]}"], "or one of jitter, repeat_threshold, walk.affinity, got 'seed'"),
        ("", [*BASE, "sweep.betas=[]"], "betas needs at least one value"),
        ("", [*BASE, "sweep.steps=[-1]"], "steps are above -1"),
    ],
)
def test_bad_config_says_what_is_wrong(text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(text, overrides)


def test_trials_are_all_combinations_and_what_changes_together() -> None:
    text = """
    sweep:
      training:
        classifier.lr: [1e-4, 3e-4]
        kind:
        - {network.backbone: tiny, network.weights: null, affinity.start: classifier}
        - {classifier.epochs: 3}
    """
    config = load_config(text, BASE)
    trials = [trial_config(config, changes) for changes in config.sweep.training_changes]
    assert [(trial.classifier.lr, trial.network.backbone, trial.classifier.epochs) for trial in trials] == [
        (1e-4, "tiny", 15),
        (1e-4, "resnet50", 3),
        (3e-4, "tiny", 15),
        (3e-4, "resnet50", 3),
    ]
    assert not any(trial.sweep.training for trial in trials)
    assert load_config(to_yaml(config)) == config


def test_uris_of_trials_count_from_here() -> None:
    kinds = "{network.weights: [a.pth, null], kind: [{checkpoints.affinity: b}, {affinity.start: classifier}]}"
    training = load_config("", [*BASE, f"sweep.training={kinds}"]).sweep.training
    assert training["network.weights"] == (str(Path("a.pth").resolve()), None)
    assert training["kind"] == ({"checkpoints.affinity": str(Path("b").resolve())}, {"affinity.start": "classifier"})


@pytest.mark.parametrize(
    ("backbone", "weights", "kept"),
    [
        ("timm/resnet50", "torchvision://resnet50/IMAGENET1K_V2", "torchvision://resnet50/IMAGENET1K_V2"),
        ("timm/test_vit.r160_in1k", "timm://test_vit.r160_in1k", "timm://test_vit.r160_in1k"),
        ("timm/test_vit", "hf-hub:owner/name", "hf-hub://owner/name"),
        ("timm/test_vit", "hf-hub://owner/name@1a2b", "hf-hub://owner/name@1a2b"),
        ("timm/test_vit", "s3://bucket/model.safetensors", "s3://bucket/model.safetensors"),
    ],
)
def test_weights_of_registries(backbone: str, weights: str, kept: str) -> None:
    config = load_config("", [*BASE, f"network.backbone={backbone}", f"network.weights={weights}"])
    assert config.network.weights == kept
    assert load_config(to_yaml(config)) == config


def test_all_problems_come_in_one_message() -> None:
    with pytest.raises(ConfigError) as error:
        load_config("", [*BASE, "walk.beta=-1", "walk.alpah=2", "cams.out_stride=perhaps"])
    assert len(str(error.value).splitlines()) == 3


def test_backbones_of_config_are_those_of_networks() -> None:
    assert config_base.BACKBONES == BACKBONES


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("saliency.preprocessing=isnet", r"got 'isnet': expected imagenet, .* such as \[128, 256\]"),
        ("saliency.preprocessing=[1,2,3]", r"got \[1, 2, 3\]: expected imagenet"),
        ("saliency.preprocessing=[[1,2],3]", "expected imagenet"),
        ("saliency.preprocessing=[0.5,1]", r"mean \[0.5\] .* multiply what is meant for pixels of 0 to 1 by 255"),
        ("saliency.preprocessing=[0,0.229]", r"deviation \[0.229\] .* multiply"),
        ("saliency.preprocessing=[128,.nan]", r"deviation \[nan\]"),
        ("saliency.preprocessing=[-1,255]", r"means are 0 or 1 to 255"),
        ("classifier.saliency=epsp", "Did you mean 'eps'"),
        ("classifier.saliency_loss.ird_tau=2", "less than or equal to 1"),
    ],
)
def test_saliency_that_cannot_be(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("", [*BASE, override])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tensorflow", "tensorflow"),
        ("[128,256]", (128.0, 256.0)),
        ("[0, [58.4,57.1,57.4]]", (0.0, (58.4, 57.1, 57.4))),
    ],
)
def test_preprocessing_of_a_saliency_network(text: str, expected: object) -> None:
    config = load_config("", [*BASE, f"saliency.preprocessing={text}"])
    assert config.saliency.preprocessing == expected
    assert load_config(to_yaml(config)) == config


def test_frozen_affinities_that_cannot_be() -> None:
    frozen = [*BASE, "walk.affinity=frozen"]
    with pytest.raises(ConfigError, match=r"doesn't go with checkpoints\.affinity"):
        load_config("", [*frozen, "checkpoints.affinity=a"])
    with pytest.raises(ConfigError, match=r"network\.weights is null: give some, or set affinity\.start=classifier"):
        load_config("", [*frozen, "network.weights=null", "affinity.start=pretrained"])
    load_config("", [*frozen, "network.weights=null", "affinity.start=classifier"])


def test_given_seeds_leave_the_gate_as_it_is() -> None:
    config = load_config("", ["manifest=m", "out=o", "checkpoints.seeds=folder"])
    assert (config.checkpoints.seeds, config.refinement.gate) == (str(Path("folder").resolve()), "run")


def test_a_training_is_told_its_section_and_what_all_share() -> None:
    config = load_config("preset: demo", [*BASE, "seed=3", "repeat_threshold=0.1"])
    classifier, affinity = config.training("classifier"), config.training("affinity")
    assert (classifier.section, affinity.section) == (config.classifier, config.affinity)
    assert (classifier.network, classifier.optimizer, classifier.seed) == (config.network, config.optimizer, 3)
    assert (classifier.jitter, affinity.jitter) == (config.jitter, config.affinity.jitter)
    assert (classifier.repeat_threshold, affinity.repeat_threshold) == (0.1, None)
    assert load_config("", BASE).training("affinity").jitter == (0.3, 0.3, 0.3, 0.1)
