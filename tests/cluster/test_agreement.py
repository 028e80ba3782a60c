"""From made-up views to findings: each check with nodes that agree and nodes that don't."""

from dataclasses import replace
from typing import Any

import pytest

from raypipe.cluster import agreement
from raypipe.cluster.survey import Node, View

GIB = 2**30
VERSIONS = {"python": "3.11.9", "ray": "2.60.0", "raypipe": "0.1.0", "torch": "2.14.0"}


def view(**changes: Any) -> View:
    return replace(View(versions=VERSIONS, out=[], unread={}, absent={}, cores=8, spill_room=45.0 * GIB), **changes)


def node(name: str = "10.0.0.1", *, seen: View | str | None = None, **resources: float) -> Node:
    usual = {"CPU": 8.0, "memory": 16.0 * GIB, "object_store_memory": 8.0 * GIB}
    return Node(id=name, name=name, resources=usual | resources, view=seen or view())


def test_nodes() -> None:
    assert agreement.check_nodes([node(), node("10.0.0.2", GPU=2)]).found == "2 answer; 16 CPUs, 2 GPUs"
    found = agreement.check_nodes([node(), node("10.0.0.2", seen="it didn't answer")])
    assert (found.status, found.found) == ("problem", "from 10.0.0.2: it didn't answer")


def test_cpus_that_are_no_cores_are_explained() -> None:
    found = agreement.check_nodes([node(seen=view(cores=2), CPU=16.0)]).found
    assert found == "1 answer; 16 CPUs as Ray counts them, on 2 cores (so many processes share them), 0 GPUs"
    found = agreement.check_nodes([node(), node("10.0.0.2", CPU=4.0)]).found
    assert found == "2 answer; 12 CPUs as Ray counts them, on 16 cores (the others stay idle), 0 GPUs"


def test_versions() -> None:
    assert agreement.check_versions({"the driver": view(), "10.0.0.1": view()}).status == "ok"
    found = agreement.check_versions({"the driver": view(), "10.0.0.1": view(versions=VERSIONS | {"ray": "2.70"})})
    assert found.status == "problem"
    assert found.found == "ray from the driver: 2.60.0; from 10.0.0.1: 2.70"
    old = agreement.check_versions({"the driver": view(versions=VERSIONS | {"ray": "2.9.0"})})
    assert old.status == "problem"
    assert ">=2.60" in old.needed


def test_out() -> None:
    assert agreement.check_out("s3://b/out", {"the driver": view()}).status == "ok"
    found = agreement.check_out("s3://b/out", {"the driver": view(), "10.0.0.1": view(out=["can't be written to"])})
    assert (found.status, found.found) == ("problem", "s3://b/out from 10.0.0.1: can't be written to")


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (299.0, "they agree"),
        (1200.0, "from 10.0.0.2: the clock is 20 minutes ahead of the driver's"),
        (-1200.0, "from 10.0.0.2: the clock is 20 minutes behind the driver's"),
    ],
)
def test_clocks(error: float, found: str) -> None:
    finding = agreement.check_clocks([node(), replace(node("10.0.0.2"), clock_error=error)])
    assert finding.found == found
    assert (finding.status == "ok") == (found == "they agree")
