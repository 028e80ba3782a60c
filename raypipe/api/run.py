"""A finished run, as Python reads it: its manifest, its masks, and what led to one of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe import uri as uris
from raypipe.api.masks import Mask, Masks
from raypipe.api.single_image import Picture, segment_image
from raypipe.config import RunConfig
from raypipe.config_file import read_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import StoredManifest
from raypipe.outputs.load import held
from raypipe.pages.explain import explain, manifest_row
from raypipe.pages.finished import FinishedMasks, find_masks
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.needs import has_given_seeds
from raypipe.reports.explain import Explanation
from raypipe.results import Decision
from raypipe.streams.collect import collect, count, quarantined


def open_run(config: str | os.PathLike[str] | RunConfig, *overrides: str, seeds: str | None = None) -> "FinishedRun":
    """Opens what `raypipe run CONFIG` has made. Computes nothing, starts no Ray, and writes nothing.

    Everything is found by the digests of the config, as a command finds it: with other overrides than the run had,
    other masks are meant, which may not be there.

    Args:
        config: YAML file, path or URI such as `s3://bucket/config.yaml`; or a config that was loaded already.
        overrides: dotted ones as on the command line, such as `"walk.beta=4"`.
        seeds: what `raypipe --seeds NAME` named, for a run whose maps code from elsewhere has made.

    Raises:
        ConfigError: the config can't be used.
        FileNotFoundError: its manifest isn't there; relative paths in a config count from the working directory.
        ValueError: its manifest can't be read.
    """
    if isinstance(config, RunConfig):
        if overrides:
            raise ValueError(f"got a loaded config and overrides {list(overrides)}: give these to `load_config`")
        resolved = config
    else:
        resolved = read_config(os.fspath(config), overrides)
    if uris.is_local(resolved.manifest) and not storage.exists(resolved.manifest):
        raise FileNotFoundError(
            f"there is no manifest {resolved.manifest}. Relative paths in a config count from the working directory, "
            f"{Path.cwd()}: change to the folder that the run was started in, or give manifest=… and out=… with their "
            "whole paths as overrides"
        )
    return FinishedRun(open_context(resolved, seeds=seeds))


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run that is finished, or so far as it is. `open_run` makes it; what is asked for first is then looked for."""

    context: Context
    """Config and manifest."""

    def __repr__(self) -> str:
        return f"FinishedRun({self.config.out}: {len(self.manifest):,} images of {len(self.classes)} classes)"

    @property
    def config(self) -> RunConfig:
        """The resolved config."""
        return self.context.config

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the class ids 1..C."""
        return self.context.classes

    @property
    def manifest(self) -> Manifest | StoredManifest:
        """The images: `len(manifest)`, `manifest.classes`, and `manifest.table`, all rows as Arrow."""
        return self.context.manifest

    @cached_property
    def masks(self) -> Masks:
        """The masks: iterated over, looked up by `masks[image_id]`, or read as Arrow.

        They are those of the manifest's rows that are done when this is first asked for: open a run again that has gone
        on since.

        Raises:
            NotFinished: there are none of this config; the message says which command makes them.
        """
        made, rows = self.finished.masks, self.context.rows(None).select(["image_id", "image_uri"])
        return Masks(collect(held(rows, made)), made, self.classes, self.config.images, is_named=self._is_named)

    def _is_named(self, image_id: str) -> bool:
        """Whether the manifest has an image of this id."""
        ids = self.context.rows(None).where(lambda table: pc.equal(table["image_id"], image_id))
        return count(ids) > 0

    @property
    def quarantine(self) -> pa.Table:
        """`image_id`, `split`, `stage` and `reason` of the rows that have no mask because they failed.

        Raises:
            NotFinished: as of `masks`.
        """
        failed = quarantined(self.finished.masks, self.context.rows(None).select(["image_id", "split"]))
        return failed.rename_columns(["image_id", "split", "stage", "reason"])

    @property
    def decisions(self) -> list[Decision]:
        """What the gates let through, and why; empty where `refinement.gate` isn't `run`.

        Raises:
            NotFinished: as of `masks`.
        """
        return self.finished.decisions

    def explain(self, image_id: str, *, pixel: tuple[int, int] | None = None) -> Explanation:
        """Everything that led to one mask: its row goes once more through the run's own stages, here and on the CPU.

        In a notebook the result shows itself as a page; `to_html` gives the file that `raypipe explain` writes.

        Args:
            image_id: the mask's.
            pixel: row and column, in the original image, of the pixel whose cell is looked at closely; None takes the
                cell with the highest score of an object.

        Raises:
            ValueError: the image or the pixel isn't there, the image is in quarantine, or the run was one in tiles.
            NotFinished: there is no mask of it yet.
        """
        row = manifest_row(self.context, image_id)
        return explain(self.finished, row, pixel=pixel)

    def segment_image(self, image: Picture, labels: Sequence[str], *, device: str | None = None) -> Mask:
        """The mask of one picture, which needn't be one of the run's, as the run makes masks of its own.

        The run's networks are found, and what its gates rejected is left out.

        Args:
            image: as of `raypipe.segment_image`.
            labels: names of the classes that the picture shows.
            device: as of `raypipe.segment_image`.

        Raises:
            NotFinished: as of `masks`.
            ValueError: as of `raypipe.segment_image`; or the run's maps are given ones, and no network makes more.
        """
        found = self.finished
        if has_given_seeds(self.context):
            raise ValueError("the run's maps were given: there is no classifier that makes some of another picture")
        affinity = None if found.affinity is None else found.affinity.uri
        config = found.context.config
        return segment_image(image, labels, classifier=found.maps.uri, affinity=affinity, config=config, device=device)

    @cached_property
    def finished(self) -> FinishedMasks:
        """The run's networks, seeds and masks, each with its URI and digest.

        Raises:
            NotFinished: as of `masks`.
        """
        return find_masks(self.context)
