"""Looks at all nodes before anything is computed: what keeps a run from its start, and which nodes it does without.

Versions that differ and an `out` that the nodes don't share end the run, since what it computes would be wrong or
scattered. A node that can't reach storage, or whose clock is wrong, is left out. Nodes that come later aren't looked
at: the streams see what is wrong with them.
"""

from collections.abc import Iterator, Sequence

from raypipe import uri as uris
from raypipe.cluster.agreement import (
    CLOCK_NEEDED,
    CLOCK_WAY_OUT,
    OUT_NEEDED,
    check_nodes,
    check_out,
    check_versions,
    clock_problem,
    places_of,
)
from raypipe.cluster.findings import Finding, from_places, problem
from raypipe.cluster.survey import Node, View, survey

SECONDS = 30
"""How long all nodes together may take. Ray starts a worker on each; one that takes longer may be busy, so that it is
no reason to leave the node out."""

_NEEDED = {
    "answer": "nodes that run tasks",
    "out": OUT_NEEDED,
    "clock": CLOCK_NEEDED,
    "images": "images that every node can read",
    "packages": "the packages that the config's options use",
}
_WAYS_OUT = {
    "answer": "see Ray's log there",
    "out": "the same mount, rights and credentials on every node",
    "clock": CLOCK_WAY_OUT,
    "images": "the same mount, rights and credentials on every node",
    "packages": "one image for all nodes, with raypipe's extras",
}


def look_at_nodes(
    out: str, *, image_uris: Sequence[str], packages: Sequence[str] = ()
) -> tuple[list[Finding], dict[str, str]]:
    """Asks every node of a cluster, all at once.

    Args:
        out: URI of the run's folder, in which the nodes write and delete a probe each.
        image_uris: some images of the manifest.
        packages: what must be installed, by importable names.

    Returns:
        Problems, with which no run starts, and warnings. And the nodes to leave out, by Ray's id, each with its reason.
    """
    driver, nodes = survey(out=out, image_uris=image_uris, packages=packages, seconds=SECONDS)
    return judge_nodes(out, driver, nodes)


def judge_nodes(out: str, driver: View, nodes: Sequence[Node]) -> tuple[list[Finding], dict[str, str]]:
    """What follows from what the driver and the nodes see; see `look_at_nodes`."""
    told = [node for node in nodes if node.silence is None]
    problems = [
        check_nodes([node for node in nodes if node.silence in (None, "failed")]),
        check_versions(places_of(driver, told)),
        check_out(out, {"the driver": driver}),
        *_check_local_out(out, told),
    ]
    problems = [finding for finding in problems if finding.status == "problem"]
    if problems:
        return problems, {}
    faults = {node.id: found for node in nodes if (found := dict(_faults(node, driver, told)))}
    sick = {node_id: "; ".join(found.values()) for node_id, found in faults.items()}
    working = [node for node in nodes if node.works]
    none_left = bool(working) and all(node.id in sick for node in working)
    names = {node.id: node.name for node in nodes}
    findings = [*_late(nodes)]
    for kind, needed in _NEEDED.items():
        if reasons := {names[node_id]: found[kind] for node_id, found in faults.items() if kind in found}:
            text, way_out = from_places(reasons), _WAYS_OUT[kind]
            findings.append(
                problem(kind, f"no node is left: {text}", needed=needed, way_out=way_out)
                if none_left
                else Finding(kind, "warning", f"{text}; the run leaves them out", needed=needed, way_out=way_out)
            )
    return findings, sick


def _late(nodes: Sequence[Node]) -> Iterator[Finding]:
    if late := [node.name for node in nodes if node.silence == "late"]:
        found = f"{', '.join(late)} did not answer within {SECONDS} s and are not checked"
        yield Finding("nodes", "warning", found, way_out="`raypipe doctor` waits longer")


def _check_local_out(out: str, told: Sequence[Node]) -> Iterator[Finding]:
    """A local folder that no other machine shares: each would write to its own disk."""
    elsewhere = [node for node in told if not node.beside_driver]
    seen = [isinstance(node.view, View) and not node.view.out for node in elsewhere]
    if uris.is_local(out) and elsewhere and not any(seen):
        yield problem(
            "out",
            f"{out} is a folder of the driver's machine, which {_some([node.name for node in elsewhere])} can't see",
            needed="a place that all nodes share: each would write to its own disk",
            way_out="an s3:// URI (or another store's), or a mount that all nodes share, such as NFS",
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def _faults(node: Node, driver: View, told: Sequence[Node]) -> Iterator[tuple[str, str]]:
    """What is wrong with one node, by kind."""
    if node.silence == "died":
        yield "answer", str(node.view)
    if not isinstance(node.view, View):
        return
    if node.view.out:
        yield "out", ", ".join(node.view.out)
    if node.view.lacking:
        yield "packages", f"{', '.join(node.view.lacking)} not installed"
    if text := clock_problem(node):
        yield "clock", text
    # An image that nobody can read says nothing about a node.
    views = places_of(driver, told).values()
    others_can = {uri for uri in node.view.unread if any(uri not in view.unread for view in views)}
    if others_can:
        reasons = [f"{uri} ({node.view.unread[uri]})" for uri in sorted(others_can)]
        yield "images", f"can't read {'; '.join(reasons)}, which others can"
