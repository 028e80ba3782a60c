"""Refuses a run that its cluster can't hold, within seconds and before any actor starts."""

import logging
from collections.abc import Iterator

from raypipe.doctor.cluster_checks import check_alike
from raypipe.doctor.findings import Finding
from raypipe.doctor.fit import check_fit
from raypipe.doctor.survey import alive_nodes, survey
from raypipe.pipelines.context import Context
from raypipe.streams.unique import check_unique

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
        ValueError: with all problems, what is needed and the ways out; or two parts of the manifest have the same id.
    """
    findings = [*check_fit(context), *(_check_nodes(context.config.out) if len(alive_nodes()) > 1 else [])]
    for finding in findings:
        if finding.status == "warning":
            logger.warning("%s: %s; %s", finding.check, finding.found, finding.way_out)
    if problems := [str(finding) for finding in findings if finding.status == "problem"]:
        raise ValueError("\n".join(["the cluster can't hold this run:", *problems]))
    check_unique(context.rows(None, columns=("image_id",)))


def _check_nodes(out: str) -> Iterator[Finding]:
    driver, nodes = survey(out=out, seconds=SECONDS)
    if late := [node.name for node in nodes if node.late]:
        yield Finding(
            "nodes",
            "warning",
            f"{', '.join(late)} did not answer within {SECONDS} s and are not checked",
            way_out="`raypipe doctor` waits longer",
        )
    yield from check_alike(out, driver, [node for node in nodes if not node.late])
