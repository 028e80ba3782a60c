"""Saliency maps of the images that a classifier is trained on: given by the manifest, or predicted."""

import hashlib
import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.data.manifest import Manifest, write_manifest
from raypipe.pipelines.context import Context, stream_of
from raypipe.schema import SALIENCY
from raypipe.stages.predict_saliency import PredictSaliency
from raypipe.streams.plan import Step
from raypipe.streams.records import Record
from raypipe.streams.run import Part, Stream, StreamSummary, run_stream
from raypipe.streams.sink import PNG, png_name

MANIFEST_FILE = "manifest.parquet"


def with_saliency(context: Context, rows: pa.Table) -> pa.Table:
    """Rows with their `saliency_uri`; the maps that are missing are predicted, if the config says how.

    Args:
        context: config and manifest.
        rows: of splits.train.

    Raises:
        ValueError: if rows have none and `saliency.source=given`.
    """
    config = context.config
    uris = _given(context, rows)
    missing = rows["image_id"].filter(pc.is_null(uris)).to_pylist()
    if missing and config.saliency.source == "given":
        raise ValueError(
            f"classifier.saliency={config.classifier.saliency} needs a saliency map of every image to train on, "
            f"{len(missing)} of {rows.num_rows} have no saliency_uri in the manifest, such as {missing[:3]}: give "
            "them, let a network predict them (saliency.source, saliency.weights), or set classifier.saliency=none"
        )
    if missing:
        folder, _ = run_saliency(context)
        uris = pc.if_else(pc.is_null(uris), _predicted(folder, rows), uris)
    return rows.append_column("saliency_uri", uris)


def run_saliency(context: Context) -> tuple[str, StreamSummary]:
    """Predicts the maps that splits.train lacks and that aren't there yet.

    They come as shards, as `png/<id>.png`, and as `manifest.parquet`, the manifest with their `saliency_uri`.

    Returns:
        The folder's URI and what was done.
    """
    rows = _unmapped(context)
    stream = saliency_stream(context, rows)
    summary = run_stream(stream, Part(rows.select(["image_id", "image_uri"]), saliency_steps(context)))
    uri = storage.join(stream.folder, MANIFEST_FILE)
    if not storage.exists(uri):
        write_manifest(_with_predicted(context, stream.folder, rows), uri)
    return stream.folder, summary


def saliency_stream(context: Context, rows: pa.Table) -> Stream:
    """Where the maps go.

    Raises:
        ValueError: if the config names no network.
    """
    saliency = context.config.saliency
    if saliency.source == "given" or saliency.weights is None:
        raise ValueError("saliency.source=given predicts nothing; set saliency.source and saliency.weights")
    record = Record(
        stage="saliency",
        config={"images": context.config.images.model_dump(), "source": saliency.source},
        inputs={
            "weights": hashlib.sha256(storage.read_bytes(saliency.weights)).hexdigest()[:12],
            "manifest": context.inputs_digest(rows),
        },
    )
    return replace(stream_of(context, record, SALIENCY), png_column="saliency")


def saliency_steps(context: Context) -> list[Step]:
    """PredictSaliency."""
    cluster = context.config.cluster
    return [
        Step(
            stage=PredictSaliency,
            args={**context.config.saliency.model_dump(), "max_side": context.config.images.max_side},
            num_actors=cluster.network_actors,
            max_actors=cluster.max_network_actors,
            num_gpus=cluster.gpus_per_actor,
            num_cpus=cluster.threads_per_actor or max(1, (os.cpu_count() or 1) // cluster.network_actors),
        )
    ]


def _unmapped(context: Context) -> pa.Table:
    """Rows of splits.train without a map."""
    rows = context.rows(context.config.splits.train)
    return rows.filter(pc.is_null(_given(context, rows)))


def _given(context: Context, rows: pa.Table) -> pa.ChunkedArray:
    manifest = context.manifest.table
    return pc.take(manifest["saliency_uri"], pc.index_in(rows["image_id"], manifest["image_id"].combine_chunks()))


def _predicted(folder: str, rows: pa.Table) -> pa.Array:
    """URIs of the maps' files; an image that couldn't be read has none, but isn't trained on either."""
    names = [storage.join(folder, PNG, png_name(image_id)) for image_id in rows["image_id"].to_pylist()]
    return pa.array(names, pa.string())


def _with_predicted(context: Context, folder: str, rows: pa.Table) -> Manifest:
    table = context.manifest.table
    predicted = pc.is_in(table["image_id"], rows["image_id"].combine_chunks())
    uris = pc.if_else(predicted, _predicted(folder, table), table["saliency_uri"])
    index = table.schema.get_field_index("saliency_uri")
    return Manifest(table.set_column(index, table.schema.field(index), uris), context.classes)
