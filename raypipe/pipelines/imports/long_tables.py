"""Imports tables of one tag a row, of any size: tables and partitions are read by tasks, wherever there is a CPU."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.cluster.connect import connect
from raypipe.config import Cluster
from raypipe.data.manifest import manifest_bytes
from raypipe.data.parts import ROWS_PER_PART, delete_other_parts, part_place
from raypipe.formats.draft import NUMBER, Draft, draft_table
from raypipe.formats.table.files import COMPRESSED
from raypipe.imports.account import Account, some, unlabelled_text
from raypipe.imports.classes import ClassOptions, choose_names, natural_order, say_rare
from raypipe.imports.images import MOST_ROWS, find_images
from raypipe.imports.long_rows import LongOptions
from raypipe.imports.long_tables import Seen, gather, part_table, read_gathered, scatter
from raypipe.streams.tasks import in_tasks
from raypipe.words import counted

BYTES_PER_PARTITION = 24 * 2**20
"""Of unpacked tables, as far as their sizes tell it."""
_PACKED = 6
"""Times that a table grows as it is unpacked, at most as a rule."""
_FEW_BYTES = 64 * 2**20
"""Of tables that this process reads itself: starting Ray would take longer."""
_MOST_PARTITIONS = 2_000


class Gathered(NamedTuple):
    """Images with their labels, in files of a scratch folder."""

    seen: Seen
    partitions: int
    scratch: str
    inline: bool
    unused: tuple[str, ...]
    """Names of the class map that no row has."""


def gather_tables(
    tables: Sequence[str], options: LongOptions, *, class_map: Mapping[str, str | None], scratch: str
) -> Gathered:
    """Brings the rows of each image together.

    Args:
        tables: absolute URIs.
        options: how they are read.
        class_map: new names of classes.
        scratch: absolute URI of a folder that all nodes reach, and that is empty.
    """
    size = sum(_size(table) for table in tables)
    inline = size <= _FEW_BYTES
    if not inline:
        connect(Cluster())
    partitions = max(1, min(_MOST_PARTITIONS, -(-size // BYTES_PER_PARTITION)))
    seen = Seen()
    reading = partial(_scatter, options=options, scratch=scratch, partitions=partitions)
    for of_table in in_tasks(reading, list(enumerate(tables)), inline=inline, cpus=1):
        seen.add(of_table)
    if not seen.rows:
        raise ValueError(f"{tables[0]} has no rows" if len(tables) == 1 else f"{len(tables)} tables have no rows")
    gathering = partial(_gather, tables=len(tables), class_map=class_map, scratch=scratch)
    for of_partition in in_tasks(gathering, range(partitions), inline=inline, cpus=1):
        seen.add(of_partition)
    return Gathered(seen, partitions, scratch, inline, tuple(name for name in class_map if name not in seen.renamed))


def draft_of(found: Gathered, *, source: str, root: str) -> Draft:
    """Returns what was gathered as a draft: for as many images as memory holds."""
    tables = [one for part in range(found.partitions) if (one := read_gathered(found.scratch, part)) is not None]
    rows = pa.concat_tables(tables)
    number = rows.num_rows
    table = draft_table([]).schema.empty_table()
    columns = {"image_uri": rows["image"], "labels": rows["labels"], NUMBER: pa.array(range(number), pa.int64())}
    table = pa.table(
        [columns.get(field.name, pa.nulls(number, field.type)) for field in table.schema], schema=table.schema
    )
    return Draft(
        table=table,
        source=source,
        num_read=found.seen.rows,
        root=root,
        place=lambda _: source,
        notes=notes_of(found),
    )


def notes_of(found: Gathered) -> list[str]:
    """What is said of rows that are left out, and of names that no row has."""
    seen = found.seen
    notes = [f"one tag a row, of {counted(seen.images, 'images')}"]
    if seen.nameless:
        notes.append(f"{counted(seen.nameless, 'rows that name no image')} left out")
    if seen.negatives:
        notes.append(
            f"{counted(seen.negatives, 'tags of confidence 0')} left out: such tags say what isn't there, as an absent "
            "label does"
        )
    if seen.unsure:
        notes.append(
            f"{counted(seen.unsure, 'tags below --min-confidence')} left out; an image that has no others counts as "
            "one without labels"
        )
    if found.unused:
        notes.append(some(found.unused, "names in the map that no row has"))
    return notes


def write_long(
    found: Gathered,
    target: str,
    *,
    source: str,
    root: str,
    classes: ClassOptions,
    skip_missing: bool,
    split: str | None,
) -> tuple[int, tuple[str, ...], Account]:
    """Writes the manifest of more images than memory holds, part by part, after a look at a sample of them.

    Args:
        found: images with labels that are renamed already.
        target: absolute URI or path of the manifest.
        source: what was read, for messages.
        root: absolute URI of the folder that names count from.
        classes: `classes` as renamed; the map isn't used.
        skip_missing: as of `find_images`.
        split: of all images.

    Returns:
        The number of images, the classes and the account.

    Raises:
        ValueError: too many images of the sample are missing, or the classes can't be used.
    """
    account = Account()
    account.say(f"{source}: {counted(found.seen.rows, 'rows')}")
    for note in notes_of(found):
        account.say(note)
    sample = [place for _, place in found.seen.sample]
    draft = Draft(
        table=draft_table([{"image_uri": place} for place in sample]),
        source=source,
        root=root,
        place=lambda _: source,
    )
    account.say(
        f"of {found.seen.images:,} images a sample of {len(sample):,} was looked for (--check all looks for all)"
    )
    uris, keep = find_images(draft, images=None, check="sample", skip_missing=skip_missing, account=account)
    missing = frozenset(place for place, stays in zip(sample, keep, strict=True) if not stays)
    for name, place in zip(sample, uris.to_pylist(), strict=True):
        if name not in missing and name != place:
            raise ValueError(
                f"{name} is there as {place} only: names of so many images are taken as they stand. Write them as the "
                "files are called, or look for all of them, which holds all rows in memory (--check all)"
            )
    order = classes.classes or natural_order(tuple(found.seen.counts))
    names = choose_names(found.seen.counts, order, classes, stated="--classes", account=account)
    say_rare(found.seen.counts, names, account)
    writing = partial(_write, found=found, target=target, root=root, names=names, split=split, without=missing)
    places = [one for some in in_tasks(writing, range(found.partitions), inline=found.inline, cpus=1) for one in some]
    if target.endswith(".parquet"):
        _join(places, target)
    else:
        delete_other_parts(target, places)
    if found.seen.unlabelled:
        account.say(unlabelled_text(found.seen.unlabelled))
    return found.seen.images - len(missing), names, account


def is_large(found: Gathered) -> bool:
    """Whether images are too many to be looked at together."""
    return found.seen.images > MOST_ROWS


def _size(table: str) -> int:
    sizes = storage.list_sizes(table)
    size = next((one for one in sizes.values() if one is not None), None)
    if size is None:
        with storage.opened(table) as file:
            size = file.seek(0, 2)
    return size * (_PACKED if table.lower().endswith((*COMPRESSED, ".parquet")) else 1)


def _scatter(job: tuple[int, str], *, options: LongOptions, scratch: str, partitions: int) -> Seen:
    number, table = job
    return scatter(table, number, options, scratch, partitions)


def _gather(part: int, *, tables: int, class_map: Mapping[str, str | None], scratch: str) -> Seen:
    return gather(part, tables, class_map, scratch)


def _write(
    part: int,
    *,
    found: Gathered,
    target: str,
    root: str,
    names: tuple[str, ...],
    split: str | None,
    without: frozenset[str],
) -> list[str]:
    """Writes the manifest's parts of a partition, or parts of the file that it will be; returns their URIs."""
    gathered = read_gathered(found.scratch, part)
    if gathered is None:
        return []
    table = part_table(gathered, root=root, names=names, split=split, without=without)
    folder = storage.join(found.scratch, "parts") if target.endswith(".parquet") else target
    places = []
    for index, start in enumerate(range(0, table.num_rows, ROWS_PER_PART)):
        content = manifest_bytes(table.slice(start, ROWS_PER_PART), names)
        places.append(part_place(folder, part, index))
        storage.write_bytes_atomic(places[-1], content)
    return places


def _join(places: Sequence[str], target: str) -> None:
    """Makes one file of the parts, one after the other."""
    with storage.writing(target) as file:
        writer = None
        for place in places:
            table = pq.read_table(pa.BufferReader(storage.read_bytes(place)))
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
