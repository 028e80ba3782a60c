"""Options that all importers have, and what they do before and after reading."""

import inspect
import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import typer

from raypipe import storage, uri
from raypipe.data.manifest import Manifest
from raypipe.data.parts import check_target, read_manifest, write_manifest
from raypipe.formats.draft import Draft
from raypipe.formats.labels import without_background
from raypipe.imports.account import named_classes
from raypipe.imports.class_map import read_class_map
from raypipe.imports.class_names import class_colors, parse_classes
from raypipe.imports.classes import ClassOptions, clean, clean_map, renamed_classes
from raypipe.imports.draft_map import write_draft_map
from raypipe.imports.finish import ImportOptions, finish
from raypipe.imports.long_rows import LongOptions
from raypipe.imports.truth import MaskOptions
from raypipe.schema import BACKGROUND, IGNORE
from raypipe.words import counted


def _common(
    manifest: Annotated[
        str | None, typer.Argument(metavar="[MANIFEST]", help="Parquet file to write, or a folder for its parts.")
    ] = None,
    into: Annotated[str | None, typer.Option(metavar="MANIFEST", help="Add the rows to this manifest.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="With --into: rows of the same id are replaced.")] = False,
    classes: Annotated[
        str | None,
        typer.Option(metavar="FILE|a,b,c", help="Class names in the order of their ids, before --map."),
    ] = None,
    class_map: Annotated[
        str | None, typer.Option("--map", metavar="CSV", help="Lines of name,new name: rename, merge; empty drops.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Keep that many classes, those of the most images.")] = None,
    min_images: Annotated[int, typer.Option(min=1, help="Drop classes of fewer images.")] = 1,
    dropped: Annotated[
        Literal["background", "ignore"], typer.Option(help="What pixels of dropped classes become in true masks.")
    ] = "background",
    mask_values: Annotated[
        str | None, typer.Option(metavar="255=lesion,…", help="Classes of true masks' values, if they aren't ids.")
    ] = None,
    masks: Annotated[
        str | None, typer.Option(help="Folder for masks that are drawn or get other ids; <MANIFEST>-masks.")
    ] = None,
    ids: Annotated[
        Literal["path", "stem"], typer.Option(help="What images without an own id are called after.")
    ] = "path",
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Leave rows out whose image isn't there.")
    ] = False,
    check: Annotated[
        Literal["auto", "all", "sample"],
        typer.Option(help="Whose images are looked for; auto: above a million rows those of a sample."),
    ] = "auto",
    draft_map: Annotated[
        str | None, typer.Option(metavar="CSV", help="Write all names with their numbers, as a draft of --map; stop.")
    ] = None,
) -> None:
    """Signature of the options."""


def importer(command: "Callable[..., Draft | LongImport]") -> Callable[..., None]:
    """Makes a command of a function that reads: it gets the common options, and writes a manifest.

    What the function asks for is given to it: as `masks_folder` the folder that masks are written into, or None if
    nobody named one, as `names` the class names. Its option `images` is the folder in which names are looked up.
    """
    own = inspect.signature(command)
    shared = inspect.signature(_common, eval_str=True)

    def run(**values: Any) -> None:
        common = {name: values.pop(name) for name in shared.parameters}
        target = _target(common)
        images = values.get("images")
        if "masks_folder" in own.parameters:
            values["masks_folder"] = common["masks"] and uri.absolute(common["masks"])
        if "names" in own.parameters:
            values["names"] = common["classes"] and parse_classes(common["classes"])
        found = command(**values)
        folder = images if isinstance(images, str) else None
        if isinstance(found, LongImport):
            _write_long(found, common, target, images=folder)
        else:
            _write(found, common, _class_options(common), target, images=folder)

    hidden = ("masks_folder", "names")
    arguments = [one for name, one in own.parameters.items() if name not in hidden]
    first = [one for one in arguments if one.default is inspect.Parameter.empty]
    others = [one for one in arguments if one.default is not inspect.Parameter.empty]
    parameters = [
        one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*first, *shared.parameters.values(), *others)
    ]
    run.__signature__ = own.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run


def _target(common: dict[str, Any]) -> str:
    manifest, into = common["manifest"], common["into"]
    if manifest is not None and into is not None:
        raise ValueError(f"got MANIFEST {manifest} and --into {into}: name one of them")
    if manifest is None and into is None and common["draft_map"] is None:
        raise ValueError("name the MANIFEST to write, or one to add to (--into MANIFEST)")
    if common["replace"] and into is None:
        raise ValueError("--replace says what --into does with ids that are there already: name the manifest (--into)")
    target: str = into or manifest or ""
    if manifest is not None:
        check_target(manifest)
    return target


@dataclass(frozen=True)
class LongImport:
    """Tables of one tag a row, which are read when it is known what is wanted of them."""

    source: str
    tables: tuple[str, ...]
    options: LongOptions
    split: str | None


def _write_long(found: LongImport, common: dict[str, Any], target: str, *, images: str | None) -> None:
    from raypipe.pipelines.imports.long_tables import draft_of, gather_tables, is_large, write_long

    options = _class_options(common)
    new_names = clean_map(options.map)
    given = options.classes and renamed_classes(without_background(tuple(map(clean, options.classes))), new_names)
    options = replace(options, classes=given, map={})  # rows come together by their new names
    scratch = f"{uri.absolute(target or common['draft_map'])}-scratch-{uuid.uuid4().hex[:8]}"
    root = found.options.root
    try:
        gathered = gather_tables(found.tables, found.options, class_map=new_names, scratch=scratch)
        if not is_large(gathered) or common["check"] == "all" or common["draft_map"]:
            draft = draft_of(gathered, source=found.source, root=root)
            draft = draft if found.split is None else draft.with_split(found.split)
            _write(draft, common, options, target, images=images)
            return
        if common["into"] is not None:
            raise ValueError(
                f"{gathered.seen.images:,} images are too many to be added to a manifest by --into: import them alone, "
                "or --check all, which holds all rows in memory"
            )
        number, names, account = write_long(
            gathered,
            target,
            source=found.source,
            root=root,
            classes=options,
            skip_missing=common["skip_missing"],
            split=found.split,
        )
    except OSError as error:
        if error.errno is None or not str(error.filename).startswith(scratch):
            raise
        raise type(error)(error.errno, error.strerror, target or common["draft_map"]) from error
    finally:
        storage.delete_many(storage.list_files(scratch))
        if uri.is_local(scratch):
            shutil.rmtree(scratch, ignore_errors=True)
    unlabelled = gathered.seen.unlabelled
    typer.echo(f"{counted(number, 'images')}, {counted(len(names), 'classes')}, {unlabelled} without labels: {target}")
    typer.echo(named_classes(names))
    typer.echo(str(account))


def _class_options(common: dict[str, Any]) -> ClassOptions:
    return ClassOptions(
        classes=None if common["classes"] is None else parse_classes(common["classes"]),
        map={} if common["class_map"] is None else read_class_map(common["class_map"]),
        top=common["top"],
        min_images=common["min_images"],
        dropped=IGNORE if common["dropped"] == "ignore" else BACKGROUND,
    )


def _write(draft: Draft, common: dict[str, Any], classes: ClassOptions, target: str, *, images: str | None) -> None:
    if common["draft_map"] is not None:
        number = write_draft_map(draft, common["draft_map"])
        typer.echo(
            f"{counted(number, 'names')}: {common['draft_map']}. Change its second column, then give it as --map"
        )
        return
    into = None if common["into"] is None else _read_into(common["into"])
    options = ImportOptions(
        images=images,
        check=common["check"],
        skip_missing=common["skip_missing"],
        ids=common["ids"],
        classes=classes,
        masks=MaskOptions(
            values={} if common["mask_values"] is None else _mask_values(common["mask_values"]),
            colors=None if common["classes"] is None else class_colors(common["classes"]),
            folder=uri.absolute(common["masks"] or f"{target.removesuffix('.parquet').rstrip('/')}-masks"),
        ),
        replace=common["replace"],
    )
    manifest, account = finish(draft, options, into=into)
    save(manifest, target)
    typer.echo(str(account))


def _read_into(manifest: str) -> Manifest:
    try:
        return read_manifest(manifest)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no manifest {manifest} (--into): the first import writes one") from error


def save(manifest: Manifest, target: str) -> None:
    """Writes a manifest, and says what it is."""
    write_manifest(manifest, target)
    unlabelled = manifest.table["labels"].null_count
    number, classes = counted(len(manifest), "images"), counted(len(manifest.classes), "classes")
    typer.echo(f"{number}, {classes}, {unlabelled} without labels: {target}")
    typer.echo(named_classes(manifest.classes))


def _mask_values(text: str) -> dict[int, str]:
    found = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})\s*=\s*(.+?)\s*", part)
        if match is None or int(match[1]) > IGNORE:
            raise ValueError(f"--mask-values: expected VALUE=CLASS,… with values from 0 to {IGNORE}, got {part!r}")
        found[int(match[1])] = match[2]
    return found
