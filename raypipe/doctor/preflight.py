"""Refuses a run that its cluster can't hold, within seconds and before any actor starts."""

import logging
from collections.abc import Iterator

import pyarrow as pa

from raypipe import storage
from raypipe.cluster.findings import Finding
from raypipe.cluster.health import leave_out
from raypipe.cluster.preflight import look_at_nodes
from raypipe.cluster.survey import alive_nodes, missing_packages
from raypipe.doctor.fit import check_fit, check_step
from raypipe.doctor.package_checks import check_packages, packages_of
from raypipe.doctor.workload import Step
from raypipe.pipelines.context import CONFIG_FILE, Context
from raypipe.streams.unique import check_unique

logger = logging.getLogger(__name__)

NUM_IMAGES = 2
"""Images of the manifest that every node reads."""


def preflight(context: Context) -> dict[str, str]:
    """Checks that everything that a whole run starts fits, and looks at the nodes as `preflight_nodes` does.

    Until a whole run has come to its end, it also looks at some images and true masks, and for weights, checkpoints and
    packages that options need; later runs go on, whatever was deleted meanwhile.

    Returns:
        The nodes that are left out, by Ray's id, each with its reason.

    Raises:
        ValueError: with all problems, what is needed and the ways out; or two parts of the manifest have the same id.
        Exception: storage can't be asked; each has errors of its own.
    """
    findings, sick = _look(context)
    _tell([*findings, *check_fit(context)])
    if _is_first(context):
        from raypipe.doctor.data_checks import check_networks  # torch takes seconds
        from raypipe.doctor.first_look import look_at_data

        alone = len(alive_nodes()) < 2
        if alone:
            lacking = {"this machine": missing_packages(list(packages_of(context)))}
            _tell(list(check_packages(context, lacking)), of="what the config's options need isn't installed:")
        networks = check_networks(context, {}, local_weights=alone)
        if networks.status == "problem":  # trainings would try in vain, again and again
            _tell([networks], of="what the config names can't be used:")
        _tell(list(look_at_data(context, raise_outages=True)), of="what the manifest names can't be used:")
    check_unique(context.rows(None, columns=("image_id",)))
    return sick


def preflight_nodes(context: Context, *, until: Step | None = None) -> dict[str, str]:
    """Checks that all nodes share `out`, have the same versions, read images and know the time.

    Ray is connected. One node shares all of it with itself: it isn't asked.

    Args:
        context: config and manifest.
        until: the step that is taken, with those before it: what they may start has to fit, too. None starts nothing.

    Returns:
        The nodes that are left out, by Ray's id, each with its reason.

    Raises:
        ValueError: with all problems, what is needed and the ways out.
    """
    findings, sick = _look(context)
    _tell([*findings, *(check_step(context, until) if until else ())])
    return sick


def _look(context: Context) -> tuple[list[Finding], dict[str, str]]:
    if len(alive_nodes()) < 2:
        return [], {}
    packages = list(packages_of(context)) if _is_first(context) else []
    findings, sick = look_at_nodes(context.config.out, image_uris=list(_some_images(context)), packages=packages)
    leave_out(sick)
    return findings, sick


def _is_first(context: Context) -> bool:
    """Whether no whole run has come to its end yet."""
    return not storage.exists(storage.join(context.config.out, CONFIG_FILE))


def _some_images(context: Context) -> Iterator[str]:
    rows = context.rows(None, columns=("image_uri",))
    for part in rows.parts:
        uris = rows.read(part)["image_uri"].drop_null()
        if len(uris):
            places = {number * (len(uris) - 1) // max(1, NUM_IMAGES - 1) for number in range(NUM_IMAGES)}
            yield from uris.take(pa.array(sorted(places))).to_pylist()
            return


def _tell(findings: list[Finding], *, of: str = "the cluster can't hold this run:") -> None:
    for finding in findings:
        if finding.status == "warning":
            logger.warning("%s: %s; %s", finding.check, finding.found, finding.way_out)
    if problems := [str(finding) for finding in findings if finding.status == "problem"]:
        raise ValueError("\n".join([of, *problems]))
