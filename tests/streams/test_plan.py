import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pytest

from raypipe.artifacts import NOT_IN_DIGEST, Artifact
from raypipe.outputs.load import Load
from raypipe.outputs.sink import PART, PART_TODO
from raypipe.schema import ROW_DIGEST
from raypipe.stages.base import Kind, Row, Stage
from raypipe.streams.plan import Plan, Pool, describe


def columns(*names: str) -> pa.Schema:
    return pa.schema([pa.field(name, pa.binary()) for name in names])


@dataclass(kw_only=True)
class Fake(Stage):
    """A stage by its columns alone."""

    reads = ()

    def process(self, row: Row) -> Row:
        return dict.fromkeys([*self.writes.names, *self.leaves], row["image_id"].encode())


@dataclass(kw_only=True)
class Fetch(Fake):
    reads = ("image_id", "image_uri", "labels")
    writes = columns("image", "class_ids")

    @property
    def kind(self) -> Kind:
        return "fetch"


@dataclass(kw_only=True)
class Decode(Fake):
    reads = ("image",)
    writes = columns("height")
    leaves = ("pixels",)
    ahead = True

    @property
    def kind(self) -> None:
        return None


@dataclass(kw_only=True)
class Network(Fake):
    checkpoint: Artifact = Artifact("here", "123")  # noqa: RUF009 - it is frozen
    scales: Mapping[str, float] = field(default_factory=lambda: {"low": 0.5, "high": 2.0})
    threads: int = field(default=1, metadata=NOT_IN_DIGEST)

    reads = ("image", "class_ids")
    writes = columns("cam")

    @property
    def kind(self) -> Kind:
        return "device"


@dataclass(kw_only=True)
class Walk(Network):
    reads = ("image", "cam")
    writes = columns("scores")


@dataclass(kw_only=True)
class Refine(Fake):
    reads = ("image", "scores", "height")
    leaves = ("labels_array",)


@dataclass(kw_only=True)
class Encode(Fake):
    reads = ("labels_array",)
    writes = columns("mask")


@dataclass(kw_only=True)
class Judge(Network):
    reads = ("image", "labels", "mask")
    writes = columns("mask")


STAGES = (Fetch(), Decode(), Network(), Walk(), Refine(), Encode())
SOURCE = ("image_id", "image_uri", "labels", "split")
CAMS = Load(outputs=Artifact("seeds", "s"), columns=columns("cam"), part_of_plan=False)


def make_plan(*stages: Stage, **changes: Any) -> Plan:
    schema = pa.schema([pa.field("image_id", pa.string()), *columns("mask")])
    options = {"name": "masks", "stages": stages or STAGES, "schema": schema, "classes": ("cat",), **changes}
    return Plan(**options)


def grouped(pools: tuple[Pool, ...]) -> list[tuple[Kind, list[str]]]:
    return [(pool.kind, [type(stage).__name__ for stage in pool.stages]) for pool in pools]


def test_without_gpus_a_row_never_leaves_its_process() -> None:
    names = ["Fetch", "Decode", "Network", "Walk", "Refine", "Encode"]
    pools = make_plan().pools(gpus=False)
    assert grouped(pools) == [("device", names)]
    assert pools[0].name == "Fetch + Decode + Network + Walk + Refine + Encode"


def test_with_gpus_what_runs_on_a_device_runs_together_and_alone() -> None:
    assert grouped(make_plan().pools(gpus=True)) == [
        ("fetch", ["Fetch"]),
        ("device", ["Decode", "Network", "Walk"]),
        ("finish", ["Refine", "Encode"]),
    ]


def test_a_judge_at_the_end_is_one_pool_more() -> None:
    pools = grouped(make_plan(*STAGES, Judge()).pools(gpus=True))
    assert pools[3:] == [("device", ["Judge"])]
    assert len(pools) == 4


@pytest.mark.parametrize("stages", [(Fetch(), Decode(), Refine(), Encode()), (Fetch(), Decode())])
def test_without_a_network_gpus_change_nothing(stages: tuple[Stage, ...]) -> None:
    plan = make_plan(*stages)
    assert plan.pools(gpus=True) == plan.pools(gpus=False)
    assert grouped(plan.pools(gpus=True)) == [("finish", [type(stage).__name__ for stage in stages])]


def test_what_no_network_follows_joins_what_finishes() -> None:
    pools = grouped(make_plan(Fetch(), Network(), Decode()).pools(gpus=True))
    assert pools[-1] == ("finish", ["Decode"])


def test_columns_travel_no_further_than_somebody_needs_them() -> None:
    outputs = {"image_id", "mask", ROW_DIGEST, PART, PART_TODO}
    fetch, device, finish = (set(pool.keep) for pool in make_plan().pools(gpus=True))
    assert fetch >= {"image", "class_ids", *outputs}
    assert device >= {"image", "scores", "height", *outputs}
    assert not device & {"class_ids", "cam", "image_uri", "labels", "split"}
    assert finish == outputs, "image bytes end where they were last needed"
    (only,) = make_plan().pools(gpus=False)
    assert set(only.keep) == outputs
    *_, finish, judge = (set(pool.keep) for pool in make_plan(*STAGES, Judge()).pools(gpus=True))
    assert finish == {"image", "labels", *outputs}
    assert judge == outputs


def test_outputs_that_are_there_come_with_the_rows() -> None:
    plan = make_plan(reuse=(STAGES[2], CAMS))
    assert [type(stage) for stage in plan.steps] == [Fetch, Decode, Walk, Refine, Encode]
    assert grouped(plan.pools(gpus=True))[:2] == [("fetch", ["Fetch"]), ("device", ["Decode", "Walk"])]
    assert "cam" in plan.pools(gpus=True)[0].keep
    plan.check(SOURCE)
    assert plan.loads == (CAMS,)


def test_what_is_taken_of_other_streams_is_known_by_its_rows() -> None:
    taken = Load(outputs=Artifact("masks", "m"), columns=columns("cam"), prefix="masks_")
    plan = make_plan(STAGES[0], STAGES[1], STAGES[3], takes=(taken,))
    assert plan.row_columns() == ("image_id", "image_uri", "labels", "masks_shard_digest")
    other = replace(taken, outputs=Artifact("masks", "n"))
    assert replace(plan, takes=(other,)).digest != plan.digest
    assert replace(plan, takes=(replace(taken, outputs=Artifact("elsewhere", "m")),)).digest == plan.digest


def test_what_is_taken_up_changes_no_output() -> None:
    plan, reused = make_plan(), make_plan(reuse=(STAGES[2], CAMS))
    assert reused.digest == plan.digest
    assert reused.row_columns() == plan.row_columns()
    assert reused.provenance() == plan.provenance()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "segments"},
        {"classes": ("dog",)},
        {"schema": columns("mask")},
        {"stages": STAGES[::-1]},
        {"stages": (*STAGES, Judge())},
        {"stages": (*STAGES[:2], Network(checkpoint=Artifact("here", "124")), *STAGES[3:])},
        {"stages": (*STAGES[:2], Network(scales={"low": 0.5}), *STAGES[3:])},
    ],
)
def test_a_digest_changes_with_all_that_makes_the_outputs(changes: dict[str, Any]) -> None:
    assert replace(make_plan(), **changes).digest != make_plan().digest


@pytest.mark.parametrize(
    "changed",
    [{"checkpoint": Artifact("there", "123")}, {"scales": {"high": 2.0, "low": 0.5}}, {"threads": 8}],
)
def test_a_digest_does_not_change_with_what_makes_no_difference(changed: dict[str, Any]) -> None:
    assert make_plan(*STAGES[:2], Network(**changed), *STAGES[3:]).digest == make_plan().digest


def test_outputs_lie_below_out_by_their_digest() -> None:
    plan = make_plan()
    assert plan.artifact("s3://bucket/out") == Artifact(f"s3://bucket/out/masks/{plan.digest}", plan.digest)
    assert plan.artifact("elsewhere").digest == plan.digest


def test_provenance_is_json_that_names_every_setting() -> None:
    stages = json.loads(json.dumps(make_plan().provenance()))["stages"]
    assert [stage["class"] for stage in stages] == ["Fetch", "Decode", "Network", "Walk", "Refine", "Encode"]
    assert stages[2] == {"class": "Network", "checkpoint": "123", "scales": {"low": 0.5, "high": 2.0}}


def test_an_output_depends_on_what_is_read_of_its_row() -> None:
    """Not on where shards lie, nor on what the stages make themselves."""
    assert make_plan().row_columns() == ("image_id", "image_uri", "labels")
    assert make_plan(Walk(), takes=(CAMS,)).row_columns() == ("image", "shard_digest")


def test_a_stage_whose_columns_are_missing_is_named() -> None:
    make_plan().check(SOURCE)
    with pytest.raises(ValueError, match=r"Fetch reads \['labels'\], but upstream there are only"):
        make_plan().check(["image_id", "image_uri"])
    with pytest.raises(ValueError, match=r"Walk reads \['cam'\], .* put the stage that writes them before it"):
        make_plan(Fetch(), Walk(), Network()).check(SOURCE)


def test_outputs_that_no_stage_makes_are_named() -> None:
    with pytest.raises(ValueError, match=r"no stage of masks writes \['mask'\]; there are only .*'scores'"):
        make_plan(*STAGES[:5]).check(SOURCE)


def test_what_never_leaves_a_process_is_not_there_in_the_next() -> None:
    @dataclass(kw_only=True)
    class Greedy(Encode):
        reads = ("pixels",)

    make_plan(Fetch(), Decode(), Greedy()).check(SOURCE)
    with pytest.raises(ValueError, match=r"Greedy reads \['pixels'\]"):
        make_plan(*STAGES[:4], Greedy()).check(SOURCE)


def test_describe_shows_what_each_stage_reads_and_makes() -> None:
    plan = make_plan()
    lines = describe(plan, plan.pools(gpus=True))
    assert lines[1:3] == ["Decode: image → height, pixels", "Network: image, class_ids → cam"]
    assert len(lines) == 6
    reused = make_plan(reuse=(STAGES[2], CAMS))
    assert describe(reused, reused.pools(gpus=True))[0] == "from seeds: cam"
