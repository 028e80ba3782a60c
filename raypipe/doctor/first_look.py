"""A look at a sample of what the manifest names, before anything is computed: images that are there, masks that fit.

What is wrong with most rows is seen in seconds here, and after the trainings otherwise.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.cluster.findings import Finding, judge, problem
from raypipe.data.content import HEAD, image_kind, what_helps
from raypipe.data.opening import ImageError
from raypipe.data.rows import Rows
from raypipe.data.truth import check_truth, unnamed_classes
from raypipe.doctor.data_checks import allowed_share, is_outage, what_may_fail
from raypipe.doctor.forecast import evenly_spaced_rows
from raypipe.pipelines.context import Context

NUM_IMAGES = 64
NUM_MASKS = 32
CONTRADICTING = 0.5
"""Share of the masks that may have a class that their image's labels don't name."""


def look_at_data(context: Context, *, raise_outages: bool = False) -> Iterator[Finding]:
    """Checks a sample of images and of true masks, which this process reads.

    Args:
        context: config and manifest.
        raise_outages: where nothing more is wrong than that storage can't be asked, that is an error, and no finding.
    """
    yield look_at_images(context, raise_outages=raise_outages)
    yield from look_at_masks(context, raise_outages=raise_outages)


def look_at_images(context: Context, *, raise_outages: bool = False) -> Finding:
    """Checks the beginnings of a sample of images; arguments as of `look_at_data`."""
    rows = evenly_spaced_rows(context.seed_rows(), NUM_IMAGES)
    return check_images(rows["image_uri"].to_pylist(), allowed=allowed_share(context), raise_outages=raise_outages)


def look_at_masks(context: Context, *, raise_outages: bool = False) -> Iterator[Finding]:
    """Checks a sample of true masks, where there are any; arguments as of `look_at_data`."""
    try:
        scored = context.rows(context.config.evaluation.splits)
    except ValueError as error:
        way_out = "set evaluation.splits; null takes all rows"
        yield problem("evaluation", str(error), needed="splits that the manifest has", way_out=way_out)
        return
    truth = evenly_spaced_rows(_with_masks(scored), NUM_MASKS)
    if truth.num_rows:
        yield check_masks(truth, context.classes, raise_outages=raise_outages)


def check_images(uris: Sequence[str | None], *, allowed: float, raise_outages: bool = False) -> Finding:
    """Files are there and begin as images do.

    Args:
        uris: of the sample.
        allowed: share of the rows that may fail.
        raise_outages: as of `look_at_data`.
    """
    named = [uri for uri in uris if uri]
    contents = storage.read_many(named, end=HEAD)
    wrong = {uri: reason for uri, content in contents.items() if (reason := _unusable(content)) is not None}
    if len(named) < len(uris):
        wrong["null"] = "no image_uri"
    number = sum(not uri or uri in wrong for uri in uris)
    too_many = number > allowed * len(uris)
    if raise_outages and too_many:
        _raise_outage([contents.get(uri) for uri in wrong])
    examples = "; ".join(f"{uri}: {reason}" for uri, reason in list(wrong.items())[:2])
    found = f"{number} of {len(uris)} of a sample can't be used" + (f", such as {examples}" if examples else "")
    return judge(
        "first look at images",
        found if number else f"{len(uris)} of a sample are there",
        status="ok" if not number else "problem" if too_many else "warning",
        needed=f"images that are there; {what_may_fail(allowed)}",
        way_out="mend the manifest's image_uri, or import the dataset again: importers look for images",
    )


def check_masks(rows: pa.Table, classes: Sequence[str], *, raise_outages: bool = False) -> Finding:
    """True masks hold class ids, and mostly those of their labels.

    Args:
        rows: of a manifest, with `mask_uri`.
        classes: of the manifest.
        raise_outages: as of `look_at_data`.
    """
    uris, labels = rows["mask_uri"].to_pylist(), rows["labels"].to_pylist()
    contents = storage.read_many(uris)
    wrong: dict[str, str] = {}
    contradicting, labelled = [], 0
    for uri, own in zip(uris, labels, strict=True):
        content = contents[uri]
        try:
            if isinstance(content, Exception):
                wrong[uri] = str(content)[:200]
                continue
            mask = check_truth(content, num_classes=len(classes) + 1)
        except (ImageError, ValueError) as error:
            wrong[uri] = str(error)
            continue
        if own is None:
            continue
        labelled += 1
        if extra := unnamed_classes(mask, own, classes):
            contradicting.append(f"{uri} has {', '.join(extra)}, its labels say {', '.join(own) or 'none'}")
    found = f"{len(uris)} of a sample hold class ids"
    if wrong:
        found = f"{len(wrong)} of {len(uris)} of a sample can't be used, such as {': '.join(next(iter(wrong.items())))}"
    if contradicting:
        found += f"; {len(contradicting)} have classes that their labels don't name, such as {contradicting[0]}"
    if raise_outages and 2 * len(wrong) > len(uris):
        _raise_outage([contents[uri] for uri in wrong])
    strange = 2 * len(wrong) > len(uris) or len(contradicting) > CONTRADICTING * labelled
    return judge(
        "first look at true masks",
        found,
        status="problem" if strange else "warning" if wrong or contradicting else "ok",
        needed="masks that are there and hold ids 1 to C in the order of the manifest's classes, 0 and 255",
        way_out="import the dataset again: --classes gives the order of ids, --mask-values what other values mean",
    )


def _raise_outage(contents: Sequence[bytes | Exception | None]) -> None:
    """Raises the first of what can't be used, where all of it is errors of storage that can't be asked."""
    errors = [content for content in contents if isinstance(content, Exception) and is_outage(content)]
    if errors and len(errors) == len(contents):
        raise errors[0]


def _with_masks(rows: Rows) -> Rows:
    return rows.where(lambda table: pc.is_valid(table["mask_uri"]))


def _unusable(content: bytes | Exception) -> str | None:
    if isinstance(content, Exception):
        return f"{type(content).__name__}: {str(content)[:200]}"
    kind = image_kind(content)
    if kind is None:
        return "an empty file" if not content else "no image"
    needed = what_helps(kind)
    return None if needed is None else f"a {kind} image, which {needed}"
