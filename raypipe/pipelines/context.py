"""What every pipeline needs: the config, the manifest's rows, a running Ray."""

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from raypipe import storage
from raypipe.config import Budget, Cluster, RunConfig
from raypipe.data.manifest import Manifest, read_manifest
from raypipe.data.shards import iter_shards
from raypipe.schema import WEAK
from raypipe.streams.records import Record, table_digest
from raypipe.streams.run import Stream
from raypipe.streams.sink import SHARDS

_MANIFEST_COLUMNS = ("image_id", "image_uri", "labels", "split", "mask_uri")


@dataclass(frozen=True)
class Context:
    """A config and the manifest that it names."""

    config: RunConfig
    manifest: Manifest

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in class-id order, without background."""
        return self.manifest.classes

    def rows(self, splits: Sequence[str] | None) -> pa.Table:
        """Manifest rows of the splits; None means all."""
        return self.manifest.select(splits=splits).table.select(_MANIFEST_COLUMNS)

    def supervised_rows(self, splits: Sequence[str] | None) -> pa.Table:
        """The same with `supervision`, `weak` where the manifest says nothing."""
        table = self.manifest.select(splits=splits).table
        return self.rows(splits).append_column("supervision", pc.fill_null(table["supervision"], WEAK))

    def seed_rows(self) -> pa.Table:
        """Rows that need class activation maps: those trained on and those that get masks."""
        train, masks = self.config.splits.train, self.config.splits.masks
        return self.rows(None if train is None or masks is None else sorted({*train, *masks}))

    def inputs_digest(self, rows: pa.Table) -> str:
        """Digest of what a stage takes from the manifest."""
        return storage.digest([table_digest(rows), self.classes])


def open_context(config: RunConfig) -> Context:
    """Reads the manifest that a config names; relative paths count from this process's working directory."""
    config = _with_absolute_paths(config)
    return Context(config, read_manifest(config.manifest))


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    def absolute(uri: str | None) -> str | None:
        return uri if uri is None or uri.startswith("torchvision://") else storage.absolute(uri)

    def swept(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {part: swept(part, value[part]) for part in value}
        return absolute(value) if name in uris else value

    made = ("classifier", "affinity", "segmenter", "cams")
    uris = ["network.weights", "saliency.weights", *(f"checkpoints.{name}" for name in made)]
    values = config.model_dump()
    for section, name in (uri.split(".") for uri in uris):
        values[section][name] = absolute(values[section][name])
    values |= {name: absolute(values[name]) for name in ("manifest", "out")}
    training = values["sweep"]["training"]
    values["sweep"]["training"] = {name: [swept(name, value) for value in training[name]] for name in training}
    return RunConfig.model_validate(values)


def cluster_address(cluster: Cluster) -> str | None:
    """Address of the cluster to run on; None for a local Ray."""
    return cluster.address or os.environ.get("RAY_ADDRESS")


def start_ray(cluster: Cluster) -> None:
    """Connects to a Ray cluster, or starts a local one, unless this process has one already."""
    if ray.is_initialized():
        return
    if address := cluster_address(cluster):
        ray.init(address=address, log_to_driver=True)
        return
    # Workers inherit this. More of them than cores is usual in a stream, and threads that wait by spinning would take
    # the cores from those that work: training was seen three times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Ray Train asks the dashboard's server once a second whether the training still lives. Without one it complains as
    # often; and left to find one, it was seen to ask that of another Ray on the machine and to end the training.
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
    ray.init(
        address="local",
        num_cpus=cluster.num_cpus or max(16, os.cpu_count() or 1),
        object_store_memory=cluster.object_store_memory,
        include_dashboard=True,
        dashboard_host="127.0.0.1",  # whoever reaches it can run code
        dashboard_port=port,
        log_to_driver=True,
        logging_level=logging.WARNING,
    )


def draw(image_ids: Sequence[str], number: int | None, *, seed: int = 0) -> list[int]:
    """Indices of that many ids drawn at random, all where None: the same ids in the same order however they come."""
    return sorted(range(len(image_ids)), key=lambda index: storage.digest([seed, image_ids[index]]))[:number]


def with_shards(rows: pa.Table, folder: str) -> tuple[pa.Table, pa.Table]:
    """Splits rows into those that a folder's shards hold, with a `shard_uri` column, ordered by it, and the others."""
    uris: list[str] = []
    image_ids: list[str] = []
    for uri, found in iter_shards(storage.join(folder, SHARDS), columns=["image_id"]):
        image_ids += found["image_id"].to_pylist()
        uris += [uri] * len(found)
    position = pc.index_in(rows["image_id"], pa.array(image_ids, pa.string()))
    shard_uri = pc.take(pa.array(uris, pa.string()), position)
    held = rows.append_column("shard_uri", shard_uri).filter(pc.is_valid(shard_uri))
    return held.sort_by([("shard_uri", "ascending"), ("image_id", "ascending")]), rows.filter(pc.is_null(shard_uri))


def stream_of(context: Context, record: Record, schema: pa.Schema, *, budget: Budget | None = None) -> Stream:
    """The stream of a record, as the config has it.

    Args:
        context: config and manifest.
        record: what the outputs are made of.
        schema: of the shards.
        budget: another than the config's.
    """
    config = context.config
    return Stream(
        record=record,
        out=config.out,
        schema=schema,
        classes=context.classes,
        budget=budget or config.budget,
        rows_per_shard=config.cluster.rows_per_shard,
        autoscaling=config.cluster.autoscaling,
    )
