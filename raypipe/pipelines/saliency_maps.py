"""Saliency maps of the images that a classifier is trained on: given by the manifest, or predicted."""

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.pipelines.context import Context
from raypipe.pipelines.steps import decode_images
from raypipe.results import StreamSummary
from raypipe.schema import PREDICTED_URI, SALIENCY
from raypipe.stages.fetch import FetchImages
from raypipe.stages.predict_saliency import EncodeSaliency, PredictSaliency
from raypipe.streams.plan import Plan
from raypipe.streams.sink import PNG, png_name

MANIFEST_FILE = "manifest.parquet"


def lacks_saliency(context: Context) -> bool:
    """Whether maps have to be predicted before a classifier is trained.

    Raises:
        ValueError: if they are missing and `saliency.source=given`.
    """
    config = context.config
    if config.classifier.saliency == "none":
        return False
    rows = context.rows(config.splits.train)
    missing = rows["image_id"].filter(pc.is_null(_given(context, rows))).to_pylist()
    if missing and config.saliency.source == "given":
        raise ValueError(
            f"classifier.saliency={config.classifier.saliency} needs a saliency map of every image to train on, "
            f"{len(missing)} of {rows.num_rows} have no saliency_uri in the manifest, such as {missing[:3]}: give "
            "them, let a network predict them (saliency.source, saliency.weights), or set classifier.saliency=none"
        )
    return bool(missing)


def with_saliency(context: Context, rows: pa.Table, *, predicted: Artifact | None) -> pa.Table:
    """Rows with their `saliency_uri`, and the file of the map that is predicted where the manifest has none.

    Args:
        context: config and manifest.
        rows: of splits.train.
        predicted: folder of the predicted maps; None where none are missing.
    """
    files = pa.nulls(rows.num_rows, pa.string()) if predicted is None else _predicted(predicted, rows)
    return rows.append_column("saliency_uri", _given(context, rows)).append_column(PREDICTED_URI, files)


def run_saliency(context: Context) -> tuple[Artifact, StreamSummary]:
    """Predicts the maps that splits.train lacks and that aren't there yet.

    They come as shards, as `png/<id>.png`, and as `manifest.parquet`, the manifest with their `saliency_uri`.
    """
    rows = _unmapped(context)
    maps, summary = context.run(saliency_plan(context, saliency_weights(context)), rows, png_column="saliency")
    write_manifest(_with_predicted(context, maps, rows), storage.join(maps.uri, MANIFEST_FILE))
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
    saliency = context.config.saliency
    if saliency.source == "given" or saliency.weights is None:
        raise ValueError("saliency.source=given predicts nothing; set saliency.source and saliency.weights")
    return Artifact(saliency.weights, storage.bytes_digest(storage.read_bytes(saliency.weights)))


def saliency_plan(context: Context, weights: Artifact) -> Plan:
    """FetchImages → DecodeImages → PredictSaliency → EncodeSaliency.

    Args:
        context: config and manifest.
        weights: the network's, as of `saliency_weights`.
    """
    source, max_side = context.config.saliency.source, context.config.images.max_side
    assert source != "given"  # such a network has no weights
    return Plan(
        name="saliency",
        stages=(
            FetchImages(classes=None),
            decode_images(context),
            PredictSaliency(source=source, weights=weights, max_side=max_side),
            EncodeSaliency(),
        ),
        schema=SALIENCY,
        classes=(),
    )


def _unmapped(context: Context) -> pa.Table:
    """Rows of splits.train without a map."""
    rows = context.rows(context.config.splits.train)
    return rows.filter(pc.is_null(_given(context, rows)))


def _given(context: Context, rows: pa.Table) -> pa.ChunkedArray:
    manifest = context.manifest.table
    return pc.take(manifest["saliency_uri"], pc.index_in(rows["image_id"], manifest["image_id"].combine_chunks()))


def _predicted(maps: Artifact, rows: pa.Table) -> pa.Array:
    """URIs of the maps' files; an image that couldn't be read has none, but isn't trained on either."""
    names = [storage.join(maps.uri, PNG, png_name(image_id)) for image_id in rows["image_id"].to_pylist()]
    return pa.array(names, pa.string())


def _with_predicted(context: Context, maps: Artifact, rows: pa.Table) -> Manifest:
    table = context.manifest.table
    predicted = pc.is_in(table["image_id"], rows["image_id"].combine_chunks())
    uris = pc.if_else(predicted, _predicted(maps, table), table["saliency_uri"])
    index = table.schema.get_field_index("saliency_uri")
    return Manifest(table.set_column(index, table.schema.field(index), uris), context.classes)
