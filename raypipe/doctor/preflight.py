"""Refuses a run that its cluster can't hold, within seconds and before any actor starts."""

import logging
from collections.abc import Iterator

from raypipe.doctor.cluster_checks import check_nodes, check_out, check_versions
from raypipe.doctor.findings import Finding
from raypipe.doctor.fit import check_fit
from raypipe.doctor.survey import View, alive_nodes, survey
from raypipe.pipelines.context import Context

logger = logging.getLogger(__name__)

SECONDS = 10
"""How long nodes may take to tell what they see. Ray is starting a worker there; one that takes longer may be busy, so
that it is no reason to refuse a run."""


def preflight(context: Context) -> None:
    """Checks that everything that the run starts fits, and that all nodes share `out` and have the same versions.

    Ray is connected. One node shares `out` with itself: it isn't asked.

    Args:
        context: config and manifest.

    Raises:
        ValueError: with all problems, what is needed and the ways out.
    """
    findings = [*check_fit(context), *(_check_nodes(context.config.out) if len(alive_nodes()) > 1 else [])]
    for finding in findings:
        if finding.status == "warning":
            logger.warning("%s: %s; %s", finding.check, finding.found, finding.way_out)
    problems = [finding for finding in findings if finding.status == "problem"]
    if problems:
        texts = [
            f"{finding.check}: {finding.found}\n  needed: {finding.needed}\n  way out: {finding.way_out}"
            for finding in problems
        ]
        raise ValueError("\n".join(["the cluster can't hold this run:", *texts]))


def _check_nodes(out: str) -> Iterator[Finding]:
    driver, nodes = survey(out=out, seconds=SECONDS)
    if late := [node.name for node in nodes if node.late]:
        yield Finding(
            check="nodes",
            status="warning",
            found=f"{', '.join(late)} did not answer within {SECONDS} s and are not checked",
            way_out="`raypipe doctor` waits longer",
        )
    answered = [node for node in nodes if not node.late]
    places: dict[str, View] = {"the driver": driver}
    places |= {node.name: node.view for node in answered if isinstance(node.view, View)}
    yield from (check_nodes(answered), check_versions(places), check_out(out, places))
