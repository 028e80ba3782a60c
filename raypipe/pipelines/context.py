"""What every pipeline needs: the config and the manifest's rows, and how a plan is run with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.artifacts import Artifact
from raypipe.cluster.connect import is_connected
from raypipe.cluster.health import sick_nodes
from raypipe.cluster.machines import Machine, fewer, machine_here, nodes_here, parse_machine
from raypipe.cluster.resources import PoolNeed, PoolPlan, StreamPlan, plan_stream
from raypipe.config import Budget, RunConfig
from raypipe.data.manifest import Manifest, check_splits, in_splits
from raypipe.data.parts import StoredManifest, open_manifest
from raypipe.data.rows import Part, Rows
from raypipe.pipelines.seed_provider import SeedProvider, find_provider
from raypipe.results import StreamSummary
from raypipe.schema import WEAK
from raypipe.streams.plan import Plan, Pool
from raypipe.streams.run import Settings, run_stream

Retrain = Literal["none", "decisions", "all"]
"""What a run renews though it is in use: nothing, what gates have decided, or networks, too."""

Retried = Literal["none", "all", "saliency", "seeds", "masks", "segments", "scores"]
"""The stream from which on rows in quarantine are tried again."""

CONFIG_FILE = "config.yaml"
"""File in `out` with the config of the whole run that has come to its end last."""

SCENES_PER_BLOCK = 4
"""Rows of a block where images are worked on in tiles: maps of one may take a hundred megabytes."""

MANIFEST_COLUMNS = ("image_id", "image_uri", "labels", "split", "mask_uri")


@dataclass(frozen=True)
class Context:
    """A config and the manifest that it names."""

    config: RunConfig
    manifest: Manifest | StoredManifest
    part: Machine | None = None
    """The part of the cluster that this run may use; None lets it use all of it."""
    retrain: Retrain = "none"
    """What is renewed though it is in use."""
    retry_quarantined: Retried = "none"
    """Whose rows in quarantine are tried again, with those of the streams after it."""
    provider: SeedProvider | None = None
    """Code from elsewhere that makes the maps; None takes those that the config names, or a classifier's."""
    trains: bool = True
    """Whether a network that isn't there is trained; if not, that is an error."""
    start: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    """Connects to Ray where something is to be computed; None where that is done."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in class-id order, without background."""
        return self.manifest.classes

    @property
    def machine(self) -> Machine:
        """The nodes that Ray has, without sick ones, or, with autoscaling, may get, as far as this run may use them."""
        if self.part is not None:
            return self.part
        if self.start is not None:
            self.start()
        declared, sick = self.config.cluster.autoscaling, sick_nodes()
        if not declared:
            return machine_here(without=sick)
        found = parse_machine(*declared)
        return fewer(found, nodes_here(sick)) if sick else found

    @property
    def computed_on(self) -> str:
        """The nodes in words; where nothing was computed, nobody has asked for any."""
        return "nothing was computed" if self.start is not None and not is_connected() else str(self.machine)

    def rows(self, splits: Sequence[str] | None, *, columns: Sequence[str] = MANIFEST_COLUMNS) -> Rows:
        """Manifest rows of the splits; None means all.

        Raises:
            ValueError: if no row has one of the splits.
        """
        rows = Rows(self.manifest.parts)
        if splits is not None:
            if not splits or not set(splits) <= self.manifest.some_splits:
                check_splits(splits, self.manifest.splits)
            rows = rows.where(partial(in_splits, splits=tuple(splits)))
        return rows.select(columns)

    def supervised_rows(self, splits: Sequence[str] | None) -> Rows:
        """The same with `supervision`, `weak` where the manifest says nothing."""
        rows = self.rows(splits, columns=(*MANIFEST_COLUMNS, "supervision"))
        return rows.then(_weak_where_null)

    def seed_rows(self) -> Rows:
        """Rows that need class activation maps: those trained on and those that get masks."""
        train, masks = self.config.splits.train, self.config.splits.masks
        return self.rows(None if train is None or masks is None else sorted({*train, *masks}))

    def run(
        self,
        plan: Plan,
        rows: Rows,
        *,
        out: str | None = None,
        budget: Budget | None = None,
        png_column: str | None = None,
    ) -> tuple[Artifact, StreamSummary]:
        """Computes the rows of a plan that aren't done yet.

        Args:
            plan: what is computed.
            rows: the source.
            out: another folder than the run's.
            budget: another than the config's.
            png_column: column of PNG bytes that is also written as one file a row.
        """
        config = self.config
        settings = Settings(
            out=out or config.out,
            budget=budget or config.budget,
            rows_per_block=config.cluster.rows_per_block or (None if config.images.tile is None else SCENES_PER_BLOCK),
            png_column=png_column,
            retry_quarantined=self.retries(plan.name),
            start_timeout=config.cluster.start_timeout,
            row_timeout=config.cluster.row_timeout,
        )
        return run_stream(plan, rows, settings, partial(self.pools, plan), start=self.start)

    def retries(self, stream: str) -> bool:
        """Whether the rows that a stream has in quarantine are tried again."""
        _, everything, *order = get_args(Retried)
        if self.retry_quarantined == everything:
            return stream in order
        return self.retry_quarantined in order and stream in order[order.index(self.retry_quarantined) :]

    def pools(self, plan: Plan) -> list[tuple[Pool, PoolPlan]]:
        """The plan's pools on this machine, with their resources.

        Raises:
            DoesNotFit: if the machine is too small, with the way out.
        """
        pools, resources = plan_pools(plan, self.machine, self.config)
        return list(zip(pools, resources.pools, strict=True))


def plan_pools(plan: Plan, machine: Machine, config: RunConfig) -> tuple[tuple[Pool, ...], StreamPlan]:
    """The pools of a plan on a machine, and their resources; see `Context.pools`."""
    gpus = machine.gpus > 0 and config.cluster.gpus_per_actor != 0
    pools = plan.pools(gpus=gpus)
    needs = [PoolNeed(name=pool.name, kind=pool.kind, gpu_setting=pool.gpu_setting) for pool in pools]
    return pools, plan_stream(plan.name, needs, machine, config.cluster)


def open_context(
    config: RunConfig, *, retrain: Retrain = "none", retry_quarantined: Retried = "none", seeds: str | None = None
) -> Context:
    """Finds the manifest that a config names; its rows are read where they are needed.

    Args:
        config: of the run.
        retrain: as of `Context`.
        retry_quarantined: as of `Context`.
        seeds: name of code that makes the maps, as of `find_provider`.

    Raises:
        ValueError: as `open_manifest` and `find_provider`; or maps come from two places.
    """
    if seeds is not None and config.checkpoints.seeds is not None:
        raise ValueError(
            f"maps come from --seeds {seeds} or from checkpoints.seeds={config.checkpoints.seeds}: leave one out"
        )
    manifest, provider = open_manifest(config.manifest), None if seeds is None else find_provider(seeds)
    return Context(config, manifest, retrain=retrain, retry_quarantined=retry_quarantined, provider=provider)


def _weak_where_null(table: pa.Table, _: Part) -> pa.Table:
    index = table.column_names.index("supervision")
    return table.set_column(index, "supervision", pc.fill_null(table["supervision"], WEAK))
