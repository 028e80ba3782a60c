"""From made-up facts to findings: each check with a cluster that is well and one that isn't."""

from dataclasses import replace
from typing import Any

import pytest

from raypipe.cluster.survey import Gpu, Node, View
from raypipe.doctor import cluster_checks

GIB = 2**30
VERSIONS = {"python": "3.11.9", "ray": "2.60.0", "raypipe": "0.1.0", "torch": "2.14.0"}


def view(**changes: Any) -> View:
    return replace(View(versions=VERSIONS, out=[], unread={}, absent={}, cores=8, spill_room=45.0 * GIB), **changes)


def node(name: str = "10.0.0.1", *, seen: View | str | None = None, **resources: float) -> Node:
    usual = {"CPU": 8.0, "memory": 16.0 * GIB, "object_store_memory": 8.0 * GIB}
    return Node(id=name, name=name, resources=usual | resources, view=seen or view())


def test_cuda() -> None:
    gpu = Gpu(name="H100", memory=80 * GIB)
    assert cluster_checks.check_cuda({"10.0.0.1": gpu}).found == "H100, 80.0 GiB"
    found = cluster_checks.check_cuda({"10.0.0.1": gpu, "10.0.0.2": "torch 2.14.0+cpu sees no GPU there"})
    assert (found.status, found.found) == ("problem", "from 10.0.0.2: torch 2.14.0+cpu sees no GPU there")


@pytest.mark.parametrize(("room", "status"), [(45, "ok"), (7, "warning"), (0, "warning"), (None, "ok")])
def test_disk(room: float | None, status: str) -> None:
    spill_room = None if room is None else room * GIB
    nodes = [node(), node("10.0.0.2", seen=view(spill_room=spill_room))]
    assert cluster_checks.check_disk(nodes).status == status


@pytest.mark.parametrize(
    ("address", "mode", "status"),
    [
        ("10.0.0.1:6379", "token", "ok"),
        ("127.0.0.1:6379", None, "ok"),
        ("10.0.0.1:6379", "disabled", "warning"),
        ("10.0.0.1:6379", None, "warning"),
    ],
)
def test_token(address: str, mode: str | None, status: str) -> None:
    assert cluster_checks.check_authentication(address, mode).status == status
