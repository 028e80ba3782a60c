"""infra/grafana: the dashboard asks for counters that there are, by tags that they have, and shows all of them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from raypipe.streams.metrics import METRICS

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DASHBOARD = json.loads((REPOSITORY / "infra/grafana/raypipe.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
TAGS_OF_RAY = {"NodeAddress", "SessionName"}
EXPORTED = {f"ray_{name}_total": tag for name, (tag, _) in METRICS.items()}
"""Tag of each counter by the name that Ray exports it by; tests/streams/test_metrics.py sees Ray do so."""


def expressions(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_counters_that_there_are(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for expression in expressions(panel):
        names = re.findall(r"\bray_\w+", expression)
        assert names
        assert set(names) <= EXPORTED.keys()
        tags = {tag for tags in re.findall(r"\bby \(([^)]*)\)", expression) for tag in re.split(r",\s*", tags)}
        assert tags <= TAGS_OF_RAY | {EXPORTED[names[0]]}
        assert set(re.findall(r"{{(\w+)}}", "".join(target["legendFormat"] for target in panel["targets"]))) == tags
        assert expression.count("(") == expression.count(")")


def test_every_counter_is_shown() -> None:
    assert {name for panel in PANELS for text in expressions(panel) for name in EXPORTED if name in text} == {*EXPORTED}


def test_panels_have_places_and_ids_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS}) == len(PANELS)


def test_variables_are_defined() -> None:
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(?!__)(\w+)", json.dumps(DASHBOARD)))
    assert used == defined


def test_the_page_names_every_counter_with_its_tag() -> None:
    rows = re.findall(
        r"^\| `(ray_raypipe_\w+)` \| `(\w+)` \|", (REPOSITORY / "docs/cluster.md").read_text(), re.MULTILINE
    )
    assert dict(rows) == EXPORTED
