"""What is said of the options: in a config's comments, and on the page."""

import re

import pytest
from config_options import options as names_of
from doc_pages import REPOSITORY

from raypipe.config import ConfigError, RunConfig, load_config, presets
from raypipe.config.reference import EXPERT, EXPERT_SECTIONS, WANTED, commented_config, options, settings_page

BASE = ["manifest=m.parquet", "out=out"]


def test_every_option_has_a_text_of_whole_sentences() -> None:
    found = {option.name: option for option in options()}
    assert sorted(found) == sorted(names_of(RunConfig))
    for name, option in found.items():
        assert len(option.text) >= 15, name
        assert option.text.endswith("."), name
        assert "|" not in option.text + option.allowed, f"{name}: it would end a cell of the page's table"


def test_the_tables_of_groups_name_what_is_there() -> None:
    names = {option.name for option in options()}
    assert set(WANTED) | set(EXPERT) <= names
    assert not set(WANTED) & set(EXPERT)
    for section in EXPERT_SECTIONS:
        assert any(name.startswith(f"{section}.") for name in names), section


def test_ranges_come_from_the_types() -> None:
    allowed = {option.name: option.allowed for option in options()}
    assert allowed["walk.beta"] == "a number above 0"
    assert allowed["affinity.radius"] == "a whole number at least 2 and at most 16"
    assert allowed["images.tile"] == "a whole number at least 64 and a multiple of 64 or null"
    assert allowed["trimaps.refine"] == "dcrf, pamr"
    assert allowed["checkpoints.seeds"] == "a path or URI or null"
    assert allowed["splits.train"] == "a list of texts or null"
    assert allowed["network.backbone"] == "a network's name"
    assert allowed["segmenter.long_side"] == "a list of 2 whole numbers"


@pytest.mark.parametrize("preset", presets())
def test_what_is_printed_is_the_config(preset: str) -> None:
    odd = [
        "out=runs/a #${b}",
        "classifier.lr=1e-5",
        "splits.masks=['on', '1e3']",
        "sweep.training={walk.affinity: [rgb]}",
    ]
    config = load_config(f"preset: {preset}", [*BASE, *odd])
    text = commented_config(config)
    assert load_config(text) == config
    assert max(map(len, (line for line in text.splitlines() if line.startswith("#")))) <= 200


def test_groups_come_in_order_with_defaults_where_a_preset_differs() -> None:
    text = commented_config(load_config("preset: demo", BASE))
    headings = re.findall(r"^# == (.+) ==$", text, re.MULTILINE)
    assert [heading.split()[0] for heading in headings] == ["You", "You", "For"]
    assert text.index("\nwalk.alpha:") < text.index("\nwalk.affinity:") < text.index("\nwalk.count_padding:")
    assert "# Allowed: a number above 0; default 16.0.\nwalk.alpha: 32.0" in text
    assert "# Allowed: a number above 0.\nwalk.beta: 8.0" in text


def test_the_page_is_made_of_the_same_text() -> None:
    page = (REPOSITORY / "docs/settings.md").read_text()
    assert page == settings_page(), "the options' texts have changed: `make settings` writes the page anew"


def test_dotted_names_stand_beside_sections() -> None:
    config = load_config(
        "walk.beta: 3\nwalk: { alpha: 5 }\nclassifier.saliency_loss.stride: 4\nseed: 7\nwalk.num_steps: ${seed}", BASE
    )
    assert (config.walk.alpha, config.walk.beta, config.walk.num_steps) == (5, 3, 7)
    assert config.classifier.saliency_loss.stride == 4
    with pytest.raises(ConfigError, match=r"walk\.bta: unknown name; .* Did you mean 'beta'\?"):
        load_config("walk.bta: 3", BASE)


@pytest.mark.parametrize("text", ["walk.beta: 3\nwalk: { beta: 3 }", "walk: 3\nwalk.beta: 3"])
def test_an_option_is_given_once(text: str) -> None:
    with pytest.raises(ConfigError, match=r"walk\.beta is there twice, by its dotted name and in its section"):
        load_config(text, BASE)
