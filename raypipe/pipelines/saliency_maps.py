"""Saliency maps of the images that a classifier is trained on: given by the manifest, or predicted."""

from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.manifest import manifest_bytes
from raypipe.data.rows import Part, Rows
from raypipe.outputs.sink import PNG, png_name
from raypipe.pipelines.context import MANIFEST_COLUMNS, Context
from raypipe.pipelines.steps import decode_images, fetching, pixels_per_pass
from raypipe.results import StreamSummary
from raypipe.schema import PREDICTED_URI, SALIENCY
from raypipe.stages.predict_saliency import EncodeSaliency, PredictSaliency
from raypipe.streams.collect import count, drawn_ids
from raypipe.streams.plan import Plan
from raypipe.streams.tasks import are_few, in_tasks
from raypipe.training.staging import find_weights, stage_weights

MANIFEST_FOLDER = "manifest"


def lacks_saliency(context: Context) -> bool:
    """Whether maps have to be predicted before a classifier is trained.

    Raises:
        ValueError: if they are missing and no network is given that predicts them.
    """
    config = context.config
    if config.classifier.saliency == "none":
        return False
    unmapped = unmapped_rows(context)
    missing = count(unmapped)
    if missing and config.saliency.weights is None:
        some = sorted(name for names in drawn_ids(unmapped, 3).values() for name in names)
        raise ValueError(
            f"classifier.saliency={config.classifier.saliency} needs a saliency map of every image to train on, "
            f"{missing} of {count(context.rows(config.splits.train))} have no saliency_uri in the manifest, such as "
            f"{some}: give them, let a network predict them (saliency.weights), or set classifier.saliency=none"
        )
    return bool(missing)


def with_saliency(rows: pa.Table, *, predicted: Artifact | None) -> pa.Table:
    """Adds the file of the map that is predicted where the manifest has no `saliency_uri`.

    Args:
        rows: of splits.train.
        predicted: folder of the predicted maps; None where none are missing.
    """
    files = pa.nulls(rows.num_rows, pa.string()) if predicted is None else _predicted(predicted, rows)
    return rows.append_column(PREDICTED_URI, files)


def run_saliency(context: Context) -> tuple[Artifact, StreamSummary]:
    """Predicts the maps that splits.train lacks and that aren't there yet.

    They come as shards, as `png/<id>.png`, and as the folder `manifest/`, the manifest with their `saliency_uri`.
    """
    unmapped = unmapped_rows(context)
    if context.config.saliency.weights:
        stage_weights(context.config.saliency.weights, out=context.config.out)
    maps, summary = context.run(saliency_plan(context, saliency_weights(context)), unmapped, png_column="saliency")
    everything = Rows(context.manifest.parts)
    write = partial(_write_part, context, maps)
    list(in_tasks(write, everything.parts, inline=are_few(everything)))
    return maps, summary


def find_saliency(context: Context) -> Artifact | None:
    """The folder of the predicted maps, finished or not; None where none are missing."""
    return (
        saliency_plan(context, saliency_weights(context)).artifact(context.config.out)
        if lacks_saliency(context)
        else None
    )


def saliency_weights(context: Context) -> Artifact:
    """The network that predicts maps, known by the bytes of its file.

    Raises:
        ValueError: if the config names no network.
        FileNotFoundError: if there is no such file.
    """
    weights = context.config.saliency.weights
    if weights is None:
        raise ValueError("nothing predicts saliency maps: set saliency.weights to an ONNX model")
    uri = find_weights(weights, out=context.config.out) or weights
    return Artifact(uri, storage.bytes_digest(storage.read_bytes(uri)))


def saliency_plan(context: Context, weights: Artifact) -> Plan:
    """FetchImages → DecodeImages → PredictSaliency → EncodeSaliency.

    Args:
        context: config and manifest.
        weights: the network's, as of `saliency_weights`.
    """
    config = context.config
    return Plan(
        name="saliency",
        stages=(
            fetching(config, classes=None),
            decode_images(context),
            PredictSaliency(
                weights=weights,
                preprocessing=config.saliency.preprocessing,
                max_side=config.images.max_side,
                pixels_per_pass=pixels_per_pass(config),
            ),
            EncodeSaliency(),
        ),
        schema=SALIENCY,
        classes=(),
    )


def unmapped_rows(context: Context) -> Rows:
    """Rows of splits.train without a map."""
    columns = (*MANIFEST_COLUMNS, "saliency_uri")
    rows = context.rows(context.config.splits.train, columns=columns)
    return rows.where(lambda table: pc.is_null(table["saliency_uri"])).select(MANIFEST_COLUMNS)


def _predicted(maps: Artifact, rows: pa.Table) -> pa.Array:
    """URIs of the maps' files; an image that couldn't be read has none, but isn't trained on either."""
    names = [storage.join(maps.uri, PNG, png_name(image_id)) for image_id in rows["image_id"].to_pylist()]
    return pa.array(names, pa.string())


def _write_part(context: Context, maps: Artifact, part: Part) -> None:
    """Writes a part of the manifest with the predicted maps where it names none."""
    table = part.read()
    unmapped = unmapped_rows(context).read(part)["image_id"]
    predicted = pc.is_in(table["image_id"], unmapped.combine_chunks())
    uris = pc.if_else(predicted, _predicted(maps, table), table["saliency_uri"])
    index = table.schema.get_field_index("saliency_uri")
    content = manifest_bytes(table.set_column(index, table.schema.field(index), uris), context.classes)
    storage.write_bytes_atomic(storage.join(maps.uri, MANIFEST_FOLDER, f"{part.name}.parquet"), content)
