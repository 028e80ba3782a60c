"""What a status says of runs in which nothing is computed (`made_runs`), and that a run then does just that."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_runs import BASE, make_nothing, write_inputs
from typer.testing import CliRunner

import raypipe.run as run_module
import raypipe.status.look as look_module
from raypipe.artifacts import Artifact
from raypipe.cli import app
from raypipe.cli_config import tell_differences
from raypipe.cli_status import begin_run
from raypipe.config import RunConfig, load_config, to_yaml
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.outputs.lease import Lease, hold
from raypipe.outputs.ledger import INDEX, QUARANTINED, write_entries
from raypipe.outputs.records import SUMMARY_FILE, read_summary, write_summary
from raypipe.pipelines import networks
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.gate import DECISION_FILE
from raypipe.pipelines.in_use import FOLDER as IN_USE
from raypipe.pipelines.in_use import OtherClasses
from raypipe.pipelines.networks import NetworkPlan
from raypipe.run import Run
from raypipe.screen.step import plan_steps
from raypipe.status.content import Status, Step
from raypipe.status.look import look
from raypipe.status.text import announcement, closing, describe
from raypipe.training.trainer import METRICS_FILE


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("status")
    write_inputs(folder)
    return folder


@pytest.fixture
def config(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """Reads a config whose outputs are those of the test."""
    make_nothing(monkeypatch)

    def read(*overrides: str) -> RunConfig:
        given = [f"manifest={inputs}/manifest.parquet", f"out={tmp_path / 'out'}", *BASE, *overrides]
        return load_config("preset: demo", [word.replace("FOLDER", str(inputs)) for word in given])

    return read


def run(config: RunConfig) -> None:
    Run(open_context(config)).evaluate()


def made(config: RunConfig) -> dict[str, set[str]]:
    """The digests of the outputs, by their names."""
    folders = [path for path in Path(config.out).iterdir() if path.is_dir() and path.name != IN_USE]
    return {path.name: {each.name for each in path.iterdir()} for path in folders}


def states(status: Status) -> dict[str, str]:
    return {step.name: step.state for step in status.steps}


def step_of(status: Status, name: str) -> Step:
    step = status.step(name)
    assert step is not None
    return step


STEPS = ["saliency", "classifier", "seeds", "affinity", "gate", "masks", "segmenter", "segments", "scores"]


def test_of_nothing_the_first_step_is_missing_and_the_others_follow(config: Callable[..., RunConfig]) -> None:
    found = look(open_context(config()))
    assert list(states(found)) == STEPS
    assert states(found) == {**dict.fromkeys(STEPS, "follows"), "saliency": "missing", "classifier": "missing"}
    assert not Path(config().out).exists(), "it writes nothing"
    assert announcement(found) == (
        "to do: saliency, classifier, seeds, affinity, gate, masks, segmenter, segments and scores, 4 images"
    )


def test_of_a_finished_run_everything_is_done(config: Callable[..., RunConfig]) -> None:
    run(config())
    found = look(open_context(config()))
    assert states(found) == dict.fromkeys(STEPS, "done")
    assert announcement(found) == "everything is done"
    text = describe(found)
    assert "masks: 4 of 4 images, none quarantined" in text
    gates = ["gate: walk kept: objective 0.0000 → 1.0000, +1.0000 ± 0.0000, n = 4"]
    gates += [gates[0].replace("walk", "dcrf").replace("objective", "class consistency")]
    for lines in (closing(found), text.splitlines()):
        assert [line for line in lines if line.startswith("gate: ")] == gates
    assert f"where: {config().out}/masks/" in text


def test_the_end_of_a_run_has_labels_in_short_and_a_status_all_of_it(config: Callable[..., RunConfig]) -> None:
    labels = ["label mAP 0.25 where chance has 0.20", "AP by class, the least first: cat", "it hasn't learned"]
    found = replace(look(open_context(config())), labels=labels)
    assert [line for line in closing(found) if line.startswith("labels: ")] == [f"labels: {labels[0]}"]
    shown = [line for line in describe(found).splitlines() if line.startswith("labels: ")]
    assert shown == [f"labels: {line}" for line in labels]


def test_a_second_command_says_nothing_of_what_the_first_one_has_said(
    config: Callable[..., RunConfig], inputs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="raypipe")
    run(config())
    text = "\n".join(record.getMessage() for record in caplog.records if record.levelname == "INFO")
    assert all(words in text for words in ("labels: no class can be told", "gate: walk kept", "gate: dcrf kept"))
    manifest = read_manifest(str(inputs / "manifest.parquet"))
    fewer = Manifest.from_rows(manifest.table.to_pylist()[1:], manifest.classes)
    for context in (open_context(config()), Context(config(), fewer)):
        caplog.clear()
        Run(context).evaluate()
        records = [record for record in caplog.records if record.name != "raypipe.screen.step"]
        assert {record.levelname for record in records} == {"DEBUG"}, caplog.text
        in_log = [record.getMessage() for record in records]
        assert sum(line.startswith(("labels: ", "gate: ")) for line in in_log) == 3
    assert any("in use is the one that was trained on 3 images" in line for line in in_log)


def test_each_step_has_a_line_and_what_was_made_before_says_so(
    config: Callable[..., RunConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """So that the numbers of a run's steps have no gap."""
    refitted = config("cams.refit=true", "segmenter.enabled=false")
    run(refitted)
    caplog.set_level("INFO", logger="raypipe.screen.step")
    for made_before in (["classifier", "labels", "refit", "affinity", "gate"], []):
        plan_steps([])
        caplog.clear()
        run(refitted if made_before else config("cams.refit=true", "segmenter.enabled=false", "classifier.lr=0.1"))
        lines = [record.getMessage() for record in caplog.records if "made before" in record.getMessage()]
        assert lines == [f"{name}: made before" for name in made_before]


def test_as_long_as_gates_have_decided_nothing_a_status_has_nothing_of_them(config: Callable[..., RunConfig]) -> None:
    run(config())
    assert len(look(open_context(config())).gates) == 2
    assert look(open_context(config("walk.beta=4"))).gates == []
    assert look(open_context(config(), retrain="decisions")).gates == []
    assert look(open_context(config("walk.affinity=rgb"))).gates == [], "the refinement is still to be judged"
    assert look(open_context(config("refinement.gate=off"))).gates == []


def test_a_change_is_announced_with_what_is_computed_again(config: Callable[..., RunConfig]) -> None:
    run(config())
    found = look(open_context(config("walk.beta=4")))
    again = "gate, masks, segmenter, segments and scores"
    assert announcement(found) == f"walk.beta 8 → 4: {again} again, 4 images"
    assert states(found)["affinity"] == "done"
    assert step_of(found, "gate").why == "walk.beta 8 → 4"
    assert step_of(found, "masks").why == "needs the gate first"


OPTIONS = {
    "walk.alpha=3": "walk.alpha 32 → 3",
    "trimaps.alpha_low=5": "trimaps.alpha_low 16 → 5",
    "classifier.lr=0.1": "classifier.lr 0.003 → 0.1",
    "affinity.epochs=3": "affinity.epochs 14 → 3",
    "optimizer.weight_decay=0.5": "optimizer.weight_decay 0.0001 → 0.5",
    "refinement.method=none": None,
    "refinement.gate=off": None,
    "segmenter.enabled=false": None,
    "walk.affinity=rgb": None,
    "cams.scales=[1.0]": "cams.scales [1.0, 1.5] → [1.0]",
    "images.max_side=512": "images.max_side 1024 → 512",
    "checkpoints.classifier=FOLDER/given/classifier": None,
    "checkpoints.affinity=FOLDER/given/affinity": None,
    "cluster.num_cpus=8": None,
}
"""Changes, and what is said of them; None where it isn't an option of what is there that changes."""


@pytest.mark.parametrize("change", OPTIONS)
def test_a_run_makes_what_its_status_says(change: str, config: Callable[..., RunConfig]) -> None:
    run(config())
    changed = config(*change.split(" "))
    before, found = made(changed), look(open_context(changed))
    run(changed)
    renewed = {name for name, digests in made(changed).items() if digests - before.get(name, set())}
    assert {step.name for step in found.steps if step.is_left} == renewed & set(STEPS)
    if OPTIONS[change] is not None:
        assert {text for step in found.steps for text in step.changes} == {OPTIONS[change]}
    assert all(step.state in ("done", "given") for step in look(open_context(changed)).steps)


def test_a_grown_manifest_is_computed_for_its_new_rows(
    config: Callable[..., RunConfig], inputs: Path, tmp_path: Path
) -> None:
    run(config())
    manifest = read_manifest(str(inputs / "manifest.parquet"))
    rows = manifest.table.to_pylist()
    new = {"image_id": "new", "image_uri": "new.jpg", "labels": ["dog"], "split": "train", "supervision": "weak"}
    write_manifest(Manifest.from_rows([*rows, new], manifest.classes), str(tmp_path / "grown.parquet"))
    grown = config(f"manifest={tmp_path}/grown.parquet")
    found = look(open_context(grown))
    assert states(found)["classifier"] == "done", "the network in use stays"
    assert step_of(found, "classifier").why == "trained on 3 images, not on those of now; --retrain=all trains it anew"
    account = step_of(found, "seeds").account
    assert account is not None
    assert (account.num_rows, account.num_finished, account.num_left) == (5, 4, 1)
    assert "4 of 5 images, none quarantined, 1 left: new or changed images" in describe(found)
    assert announcement(found).startswith(
        "saliency: new or changed images, or shards that were deleted; to do: saliency,"
    )
    renewed = look(replace(open_context(grown), retrain="all"))
    assert states(renewed)["classifier"] == "missing"
    assert step_of(renewed, "classifier").why == "other images to learn from: learns from 4 images"


def test_a_mask_of_an_image_that_is_no_row_any_more_is_announced(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    small = ["segmenter.enabled=false", "affinity.start=pretrained"]
    run(config(*small))
    manifest = open_context(config()).manifest
    for gone, says in ((1, "1 mask of an image that is no row"), (2, "2 masks of images that are no rows")):
        fewer = str(tmp_path / f"fewer{gone}.parquet")
        write_manifest(Manifest.from_rows(manifest.table.to_pylist()[gone:], ("cat", "dog")), fewer)
        assert says in announcement(look(open_context(config(*small, f"manifest={fewer}"))))
    other_split = look(open_context(config(*small, "splits.masks=[train]")))
    assert "any more" not in announcement(other_split), "those of rows that aren't asked for stay"


def test_a_new_class_is_announced_before_options(config: Callable[..., RunConfig], tmp_path: Path) -> None:
    context = open_context(config())
    begin_run(context, reuse_out=False)
    run(config())
    manifest = str(tmp_path / "other.parquet")
    write_manifest(Manifest.from_rows(context.manifest.table.to_pylist(), ("cat", "dog", "emu")), manifest)
    more = look(open_context(config(f"manifest={manifest}", "classifier.epochs=3"), retrain="all"))
    assert announcement(more).startswith("class emu new, classifier.epochs 20 → 3")


def test_what_a_gate_has_scored_stays_where_it_decides_again(config: Callable[..., RunConfig]) -> None:
    run(config())
    found = step_of(look(open_context(config(), retrain="decisions")), "gate")
    assert (found.state, found.why) == ("begun", "--retrain=decisions decides again by the scores that are there")
    assert found.account is not None
    assert found.account.num_left == 0
    (folder,) = Path(config().out, "gate").iterdir()
    (folder / DECISION_FILE).unlink()
    assert step_of(look(open_context(config())), "gate").why == "decides by the scores that are there"
    (entries,) = (folder / "index" / "all").iterdir()
    done = pq.read_table(entries)
    entries.unlink()
    write_entries(str(folder), INDEX, "all", done.slice(3), run=2)
    (folder / SUMMARY_FILE).unlink()
    for retrain in ("none", "all"):
        step = step_of(look(open_context(config(), retrain=retrain)), "gate")
        assert (step.state, step.why) == ("begun", "was interrupted and goes on"), retrain
        assert step.account is not None
        assert step.account.num_finished == 1


def test_other_classes_are_refused_as_by_a_run(config: Callable[..., RunConfig]) -> None:
    run(config())
    context = open_context(config())
    other = Context(context.config, Manifest(context.manifest.table, ("cat", "dog", "emu")))
    with pytest.raises(OtherClasses, match="of the classes"):
        look(other)


@pytest.mark.parametrize(
    ("classes", "names", "reason", "way_out"),
    [
        (("cat", "dog", "emu"), "image_id", "uses a classifier of the classes ['cat', 'dog']", "--retrain=all"),
        (("dog", "cat"), "image_id", "holds a run of another manifest", "--reuse-out"),
        (("cat", "dog"), "other", "holds a run of another manifest", "--reuse-out"),
    ],
    ids=["one more", "another order", "other images"],
)
def test_the_status_of_a_run_that_would_be_refused_says_so_and_a_dry_run_is_refused(
    classes: tuple[str, ...], names: str, reason: str, way_out: str, config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    context = open_context(config())
    begin_run(context, reuse_out=False)
    run(config())
    rows = context.manifest.table.to_pylist()
    others = [row if names == "image_id" else row | {"image_id": f"x{row['image_id']}"} for row in rows]
    write_manifest(Manifest.from_rows(others, classes), str(tmp_path / "other.parquet"))
    (tmp_path / "config.yaml").write_text(to_yaml(config(f"manifest={tmp_path}/other.parquet")))
    said = CliRunner().invoke(app, ["status", str(tmp_path / "config.yaml")])
    assert said.exit_code == 0, said.output
    (line,) = (line for line in said.stdout.splitlines() if line.startswith("`raypipe run` refuses this: "))
    assert reason in line
    assert way_out in line
    assert "another `out`" in line
    if classes != ("cat", "dog"):
        assert "classifier  to do" in said.stdout
        assert f"the last ones are in {config().out}/masks/" in said.stdout
    refused = CliRunner().invoke(app, ["run", "--dry-run", str(tmp_path / "config.yaml")])
    assert isinstance(refused.exception, ValueError)
    assert reason in str(refused.exception)
    ways_out = ["--reuse-out", "--retrain=all"]
    assert CliRunner().invoke(app, ["run", "--dry-run", *ways_out, str(tmp_path / "config.yaml")]).exit_code == 0


def test_options_of_the_last_run_are_remembered(
    config: Callable[..., RunConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """Its masks were made with an option of the command line; a command without it says so."""
    context = open_context(config("walk.beta=4"))
    with caplog.at_level("INFO"):
        begin_run(context, reuse_out=False)
    assert "to do: saliency, classifier" in caplog.text
    Run(context).evaluate()
    assert announcement(look(context)) == "everything is done"
    found = look(open_context(config()))
    assert announcement(found).startswith("walk.beta 4 → 8: gate, masks, ")
    assert f"masks: none of this config yet; the last ones are in {config().out}/masks/" in describe(found)
    caplog.clear()
    with caplog.at_level("INFO"):
        tell_differences(config())
    assert caplog.messages == [f"other options than in the last run of {config().out}: walk.beta 4 → 8"]
    Run(open_context(config())).evaluate()
    assert announcement(look(context)) == "everything is done"
    of_both = open_context(config("sweep.num_labelled=9"))
    assert announcement(look(of_both)) == "everything is done (since the last run: walk.beta 4 → 8)"


def test_rows_in_quarantine_are_counted_by_reason_and_tried_again_when_told_to(
    config: Callable[..., RunConfig],
) -> None:
    run(config())
    folder = step_of(look(open_context(config())), "masks").artifact
    assert folder is not None
    (entries,) = Path(folder.uri, "index", "all").iterdir()
    done = pq.read_table(entries)
    write_entries(folder.uri, INDEX, "all", done.slice(1), run=2)
    failed = done.slice(0, 1).select(["image_id", "row_digest"]).append_column("stage", pa.array(["DecodeImages"]))
    failed = failed.append_column("reason", pa.array(["can't be read"]))
    write_entries(folder.uri, QUARANTINED, "all", failed, run=2)
    entries.unlink()
    found = look(open_context(config()))
    assert not step_of(found, "masks").is_left
    assert closing(found)[:2] == ["masks: 3 of 4 images, 1 quarantined", f"  1 x can't be read ({done['image_id'][0]})"]
    again = look(open_context(config(), retry_quarantined="masks"))
    assert "3 of 4 images, none quarantined, 1 left" in describe(again)


def test_the_time_so_far_is_that_of_all_runs(config: Callable[..., RunConfig]) -> None:
    """A run of ten new images takes less than the first one, and adds to it."""
    run(config())
    masks = step_of(look(open_context(config())), "masks").artifact
    assert masks is not None
    summary = read_summary(masks.uri)
    assert summary is not None
    write_summary(masks.uri, summary | {"seconds": 60.0, "total_seconds": 480.0})
    assert "time: 8 minutes so far with these options" in closing(look(open_context(config())))
    gates = [folder for folder in Path(config().out, "gate").iterdir() if read_summary(str(folder))]
    assert gates
    for folder in gates:
        summary = read_summary(str(folder))
        assert summary is not None
        write_summary(str(folder), summary | {"seconds": 60.0, "total_seconds": 120.0})
    assert f"time: {8 + 2 * len(gates)} minutes so far with these options" in closing(look(open_context(config())))


def test_the_time_left_of_a_training_is_reckoned_by_images_and_epochs(config: Callable[..., RunConfig]) -> None:
    """An earlier one of 2 epochs of 32 images took 64 s, so an image takes 1 s."""
    run(config())
    (folder,) = Path(config().out, "classifier").iterdir()
    epochs = [json.dumps({"num_images": 32, "seconds": 32.0})] * 2
    Path(folder, METRICS_FILE).write_text("\n".join(epochs) + "\n")
    for epochs_now, batch_size, seconds in ((1, 2, 4), (5, 2, 20), (5, 3, 15), (5, 16, 80)):
        context = open_context(config(f"classifier.epochs={epochs_now}", f"classifier.batch_size={batch_size}"))
        assert step_of(look(context), "classifier").seconds_left == seconds, "it learns from 3 images"
    (folder,) = Path(config().out, "affinity").iterdir()
    Path(folder, METRICS_FILE).write_text(epochs[0])
    waits = look(open_context(config("classifier.lr=0.1", "affinity.epochs=5", "affinity.batch_size=16")))
    assert step_of(waits, "affinity").state == "follows"
    assert step_of(waits, "affinity").seconds_left == 5 * 32, "of as many images as then"


def test_before_the_first_run_the_time_left_is_not_known(config: Callable[..., RunConfig]) -> None:
    for options in ([], ["walk.affinity=frozen", "network.weights=FOLDER/weights.pth", "cams.refit=true"]):
        assert describe(look(open_context(config(*options)))).endswith(
            "time: 0 seconds so far with these options; time left isn't known yet: `raypipe doctor CONFIG` forecasts it"
        )


def test_a_guess_of_the_time_left_needs_no_summary_of_this_version(config: Callable[..., RunConfig]) -> None:
    run(config())
    for folder in Path(config().out, "masks").iterdir():
        write_summary(str(folder), {"num_computed": 0, "rows": 7})
    assert step_of(look(open_context(config("walk.beta=3"))), "masks").is_left


def test_of_a_run_that_is_at_work_it_says_who_works_and_what_is_left(config: Callable[..., RunConfig]) -> None:
    run(config())
    folder = step_of(look(open_context(config())), "masks").artifact
    assert folder is not None
    (entries,) = Path(folder.uri, "index", "all").iterdir()
    write_entries(folder.uri, INDEX, "all", pq.read_table(entries).slice(1), run=2)
    entries.unlink()
    with hold(folder.uri, holder="the stream masks"):
        found = look(open_context(config()))
        step = step_of(found, "masks")
        assert (step.state, step.why) == ("begun", "a run is at work")
        assert step.seconds_left is not None
        assert "masks       goes on  3 of 4 images, none quarantined, 1 left: a run is at work" in describe(found)
        assert "at work: the stream masks (process " in describe(found)
    assert step_of(look(open_context(config())), "masks").why.startswith("new or changed images")


def test_a_training_that_is_at_work_is_named_too(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    during = []

    def train(*_: object) -> None:
        during.append(look(open_context(config())))
        raise KeyboardInterrupt

    monkeypatch.setattr(networks, "_train", train)
    with pytest.raises(KeyboardInterrupt):
        run(config())
    (found,) = during
    step = step_of(found, "classifier")
    assert (step.state, step.why) == ("begun", "a run is at work")
    assert "at work: the training of the classifier (process " in describe(found)
    after = look(open_context(config()))
    assert step_of(after, "classifier").state == "begun"
    assert "at work" not in describe(after)


def test_a_training_without_a_state_begins_again(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train leaves a file in its folder before there is any state."""

    def train(_context: Context, _plan: NetworkPlan, folder: str, _lease: Lease) -> None:
        Path(folder, "ray_train").mkdir()
        Path(folder, "ray_train", ".validate_storage_marker").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(networks, "_train", train)
    again = config("cluster.state_minutes=3")
    with pytest.raises(KeyboardInterrupt):
        run(again)
    said = "its training begins again, as no state of it was written yet (cluster.state_minutes is 3)"
    assert step_of(look(open_context(again)), "classifier").why == said
    monkeypatch.setattr("raypipe.status.steps.last_state", lambda folder: folder)
    why = step_of(look(open_context(again)), "classifier").why
    assert why == "its training was begun and goes on from its last state"


def test_the_command_says_it_without_ray_and_of_a_bucket(
    config: Callable[..., RunConfig], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_bucket = config(f"out={bucket}/run")
    run(in_bucket)
    (tmp_path / "config.yaml").write_text(to_yaml(in_bucket))
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("it starts no Ray"))
    commands = (["status"], ["run", "--dry-run"])
    said = [CliRunner().invoke(app, [*words, str(tmp_path / "config.yaml"), "walk.beta=4"]) for words in commands]
    assert [each.exit_code for each in said] == [0, 0], said[0].output
    assert said[0].stdout == said[1].stdout
    assert "walk.beta 8 → 4: gate, masks, segmenter, segments and scores again, 4 images" in said[0].stdout
    assert f"the last ones are in {bucket}/run/masks/" in said[0].stdout


def test_features_of_a_frozen_backbone_are_named_for_what_they_are(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = ["walk.affinity=frozen", "network.weights=FOLDER/weights.pth"]
    found = look(open_context(config(*frozen)))
    assert "affinity" not in states(found)
    assert "features    to do    those of the pretrained network as they are" in describe(found)
    made = Artifact("features", "made")
    monkeypatch.setattr(run_module, "freeze_backbone", lambda *_, **__: made)
    monkeypatch.setattr(look_module, "find_frozen", lambda *_, **__: made)
    run(config(*frozen))
    found = look(open_context(config(*frozen)))
    assert step_of(found, "features").artifact == made
    waits = look(open_context(config(*frozen, "affinity.start=classifier", "classifier.lr=0.1")))
    assert (step_of(waits, "features").state, step_of(waits, "features").why) == (
        "follows",
        "needs the classifier first",
    )
    assert step_of(waits, "features").seconds_left == 0


def test_refitted_maps_are_a_step_and_what_is_made_of_them_follows(config: Callable[..., RunConfig]) -> None:
    refitted = config("cams.refit=true")
    assert states(look(open_context(refitted)))["refit"] == "follows"
    run(config())
    found = states(look(open_context(refitted)))
    assert (found["classifier"], found["refit"], found["seeds"]) == ("done", "missing", "follows")
    run(refitted)
    assert set(states(look(open_context(refitted))).values()) == {"done"}
    first = step_of(look(open_context(refitted)), "classifier").artifact
    assert first is not None
    assert states(look(open_context(refitted, retrain="all")))["refit"] == "done"
    more = config("cams.refit=true", "splits.train=[train,more]", f"checkpoints.classifier={first.uri}")
    assert states(look(open_context(more)))["refit"] == "done"
    assert states(look(open_context(more, retrain="all")))["refit"] == "missing"
