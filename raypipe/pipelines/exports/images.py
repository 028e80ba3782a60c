"""What an export has to know of the images of all rows before its first one is written."""

import logging
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import takewhile

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.containers.uris import in_containers
from raypipe.data.rows import Part, Rows
from raypipe.formats.base import LOSSLESS, Format, Options, image_suffix
from raypipe.streams.collect import count
from raypipe.streams.tasks import are_few, in_tasks

log = logging.getLogger(__name__)


def fit_images(format_: Format, rows: Rows, *, all_rows: Rows) -> Options:
    """The options of an export, with what follows from its images: their one ending, and the folder they lie in.

    Args:
        format_: with the options that were given.
        rows: to export.
        all_rows: of the manifest, so that exports of its splits name an image alike.

    Raises:
        ValueError: the tool can't read some images as they are, and they aren't copied.
    """
    options = format_.options
    if not options.copy_images and (number := count(rows.where(_lies_in_a_container))):
        log.warning("%d images lie in tar or Parquet files, where other tools don't look: --copy-images", number)
    if format_.names_from_folder and not options.copy_images:
        return replace(options, image_root=_common_folder(all_rows))
    if format_.one_suffix or format_.readable is not None:
        return _with_suffix(format_, rows)
    return options


def _with_suffix(format_: Format, rows: Rows) -> Options:
    """The options, with the one ending of images that a tool wants."""
    options = format_.options
    found: Counter[str] = sum(
        in_tasks(partial(_count_suffixes, rows), rows.read_parts, inline=are_few(rows)), Counter()
    )
    if format_.one_suffix:
        options = replace(options, suffix=next(iter(found)) if len(found) == 1 else LOSSLESS)
    converted = {suffix for suffix in found if type(format_)((), options).converts(f"image{suffix}")}
    if converted and not options.copy_images:
        shown = ", ".join(f"{suffix} {number:,}" for suffix, number in sorted(found.items()))
        wanted = (
            "images of one ending"
            if format_.one_suffix
            else "none of those that end in " + ", ".join(sorted(converted))
        )
        raise ValueError(
            f"readers of this format want {wanted}, but there are {shown}: export with "
            "--copy-images, which writes what they can't read as PNG, without loss"
        )
    return options


def _count_suffixes(rows: Rows, part: Part) -> Counter[str]:
    return Counter(image_suffix(uri or "") for uri in rows.read(part)["image_uri"].to_pylist())


def _lies_in_a_container(rows: pa.Table) -> pa.ChunkedArray:
    return in_containers(rows["image_uri"])


def _common_folder(rows: Rows) -> str | None:
    """The deepest folder that all images lie in; None where that is none, a whole disk, or of several buckets."""
    rows = rows.select(["image_uri"])
    bounds = in_tasks(partial(_first_and_last, rows), rows.read_parts, inline=are_few(rows))
    uris = [uri for pair in bounds for uri in pair if uri is not None]
    folders = (min(uris).split("/")[:-1], max(uris).split("/")[:-1]) if uris else ([], [])
    folder = "/".join(one for one, other in takewhile(lambda pair: pair[0] == pair[1], zip(*folders, strict=False)))
    scheme, _, path = folder.rpartition("://")
    is_whole = bool(path.strip("/")) and (bool(scheme) or "://" not in uris[0])
    return folder if is_whole else None


def _first_and_last(rows: Rows, part: Part) -> tuple[str | None, str | None]:
    """The URIs that come first and last in the alphabet: what both begin with, all between them begin with, too."""
    bounds = pc.min_max(rows.read(part)["image_uri"]).as_py()
    return bounds["min"], bounds["max"]
