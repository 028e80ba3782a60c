"""The commands of `raypipe import` that put corrected masks into the manifest that they were made from."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from raypipe import storage, uri
from raypipe.cli_import_options import save
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest
from raypipe.formats.coco.corrected import import_corrected
from raypipe.formats.label_studio.read import import_label_studio
from raypipe.formats.voc.corrected import import_corrected_masks
from raypipe.imports.account import Account

Corrected = Annotated[str, typer.Argument(metavar="MANIFEST", help="Manifest whose masks were corrected.")]
Out = Annotated[str, typer.Argument(metavar="OUT", help="Parquet file to write: MANIFEST with the new masks.")]
Masks = Annotated[str | None, typer.Option(help="Folder or URI to write masks into; masks/ beside OUT.")]


def corrected_coco(
    annotations: Annotated[str, typer.Argument(metavar="ANNOTATIONS", help="COCO's JSON file, or a zip of CVAT.")],
    manifest: Corrected,
    out: Out,
    masks: Masks = None,
) -> None:
    """Masks that were corrected and come back as COCO, into the manifest."""
    _save(import_corrected(uri.absolute(annotations), read_manifest(manifest), masks=_masks(masks, out)), out)


def corrected_masks(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help='CVAT\'s zip of "Segmentation mask 1.1", or its folder.')
    ],
    manifest: Corrected,
    out: Out,
    masks: Masks = None,
) -> None:
    """Masks that were corrected and come back as colours with a labelmap.txt, into the manifest."""
    _save(import_corrected_masks(uri.absolute(source), read_manifest(manifest), masks=_masks(masks, out)), out)


def label_studio(
    export: Annotated[str, typer.Argument(metavar="EXPORT", help="Label Studio's JSON export.")],
    manifest: Corrected,
    out: Out,
    masks: Masks = None,
) -> None:
    """Masks that were corrected in Label Studio, into the manifest."""
    _save(import_label_studio(uri.absolute(export), read_manifest(manifest), masks=_masks(masks, out)), out)


def _save(corrected: tuple[Manifest, Mapping[str, Sequence[str]]], out: str) -> None:
    manifest, skipped = corrected
    save(manifest, out)
    account = Account()
    for reason, names in skipped.items():
        account.leave_out(reason, names)
    if account.lines:
        typer.echo(str(account))


def _masks(folder: str | None, out: str) -> str:
    return uri.absolute(folder) if folder else storage.join(uri.parent(uri.absolute(out)), "masks")
