"""Saliency maps of the images that a classifier is trained on."""

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.pipelines.context import Context


def with_saliency(context: Context, rows: pa.Table) -> pa.Table:
    """Rows with their `saliency_uri`.

    Args:
        context: config and manifest.
        rows: of the manifest.

    Raises:
        ValueError: if rows have none.
    """
    manifest = context.manifest.table
    uris = pc.take(manifest["saliency_uri"], pc.index_in(rows["image_id"], manifest["image_id"]))
    missing = rows["image_id"].filter(pc.is_null(uris)).to_pylist()
    if missing:
        raise ValueError(
            f"classifier.saliency={context.config.classifier.saliency} needs a saliency map of every image to train "
            f"on, {len(missing)} of {rows.num_rows} have no saliency_uri in the manifest, such as {missing[:3]}: "
            "give them, or train with classifier.saliency=none"
        )
    return rows.append_column("saliency_uri", uris)
