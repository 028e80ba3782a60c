"""Looks at single steps of a run, a stream or a training: what of it is there, what is left and why."""

import json
import time
from typing import Any, get_args

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.checkpoints import Task
from raypipe.data.rows import Rows
from raypipe.outputs.lease import Holder, find_holder
from raypipe.outputs.records import RECORD_FILE, read_stream_summary, read_summary
from raypipe.pipelines.context import Context
from raypipe.pipelines.last_run import find_last_run
from raypipe.pipelines.networks import NetworkPlan, find_network_in_use, find_trained, training_folder
from raypipe.status.account import Account, account_of
from raypipe.status.changes import Words, earlier_folders, in_words, nearest_differences
from raypipe.status.content import State, Step
from raypipe.streams.moves import PARTS_FILE
from raypipe.streams.plan import Plan
from raypipe.training.order import num_steps_per_epoch
from raypipe.training.trainer import last_state, read_metrics
from raypipe.uri import parent

_AT_WORK = "a run is at work"


class Steps:
    """The steps that were looked at, in their order."""

    def __init__(self, context: Context) -> None:
        self.context, self.out = context, context.config.out
        self.last = find_last_run(self.out)
        self.found: list[Step] = []
        self.at_work: list[str] = []

    @property
    def any_left(self) -> bool:
        """Whether a run would do something, as far as was looked."""
        return any(step.is_left for step in self.found)

    def get(self, name: str) -> Step | None:
        """A step by its name; None where it wasn't looked at."""
        return next((step for step in self.found if step.name == name), None)

    def has_rows(self, name: str) -> bool:
        """Whether a stream has made a row that can be learned from."""
        step = self.get(name)
        return step is not None and step.account is not None and step.account.num_finished > 0

    def give(self, name: str, given: Artifact) -> Artifact:
        """Notes what the config names."""
        self.found.append(Step(name=name, state="given", why=given.uri, artifact=given))
        return given

    def follow(self, name: str, why: str | None = None) -> None:
        """Notes a step that is made of what isn't made yet: of the first one that is left, or for another reason."""
        if why is None:
            why = f"needs the {next(step.name for step in self.found if step.is_left)} first"
        renewed = bool(earlier_folders(self.out, name))
        task = next((task for task in get_args(Task) if task == name), None)
        left = self.seconds_before(name) if task is None else self._training_left(task)
        self.found.append(Step(name=name, state="follows", why=why, is_renewed=renewed, seconds_left=left))

    def network(self, plan: NetworkPlan) -> Artifact | None:
        """Looks at a network; None where it is to be trained."""
        name = plan.task.name
        if found := find_trained(self.context, plan):
            seconds = _seconds(read_metrics(parent(found.uri)))
            used = find_network_in_use(self.context, plan)
            why = ""
            if used is not None and not used.is_of_now:
                why = f"trained on {used.num_rows:,} images, not on those of now; --retrain=all trains it anew"
            self.found.append(Step(name=name, state="done", why=why, artifact=found, seconds=seconds))
            return found
        state: State = "missing"
        words, renewed = Words([], []), False
        why = f"learns from {plan.rows.num_rows:,} images"
        folder = training_folder(self.context, plan)
        begun = storage.exists(storage.join(folder, RECORD_FILE))
        holder = self._holder(folder) if begun else None
        if begun:
            state, why = "begun", self._training_left_over(folder, holder)
        else:
            words, renewed = self._differences(name, plan.provenance(), task=name)
            why = f"{words}: {why}" if str(words) else why
        left, elapsed = self._training_left(name, num_images=plan.rows.num_rows), _elapsed(holder)
        self.found.append(
            Step(
                name=name,
                state=state,
                why=why,
                changes=words.options,
                is_renewed=renewed,
                seconds=elapsed,
                seconds_left=left if left is None or not elapsed else max(0.0, left - elapsed) or None,
            )
        )
        return None

    def stream(self, plan: Plan, rows: Rows) -> Artifact:
        """Looks at a stream; the folder of its outputs, finished or not."""
        made = plan.artifact(self.out)
        account, summary = account_of(plan, rows, made.uri), read_stream_summary(made.uri)
        if self.context.retries(plan.name):
            account.num_quarantined = 0
        begun = storage.exists(storage.join(made.uri, RECORD_FILE))
        holder = self._holder(made.uri) if begun else None
        state: State = "done"
        words, renewed, why = Words([], []), False, ""
        if not begun:
            words, renewed = self._differences(plan.name, plan.provenance())
            state, why = "missing", str(words)
        elif account.num_left or summary is None:
            state, why = "begun", _left_over(made.uri, rows, was_finished=summary is not None, holder=holder)
        self.found.append(
            Step(
                name=plan.name,
                state=state,
                why=why,
                changes=words.options,
                is_renewed=renewed,
                artifact=made,
                account=account,
                seconds=_elapsed(holder) + (summary.total_seconds if summary else 0),
                seconds_left=self._stream_left(plan.name, account, made.uri, holder),
            )
        )
        return made

    def seconds_of(self, plan: Plan) -> float:
        """What all runs of a stream took that came to their end."""
        summary = read_stream_summary(plan.artifact(self.out).uri)
        return summary.total_seconds if summary else 0

    def _holder(self, folder: str) -> Holder | None:
        """Notes who is at work in a folder."""
        holder = find_holder(folder)
        if holder is not None:
            self.at_work.append(holder.text)
        return holder

    def seconds_before(self, name: str) -> float | None:
        """What the last run of a stream took, of whatever options and rows; None where there was none."""
        taken = self._seconds_of(name)
        return None if taken is None else taken[0]

    def _differences(self, name: str, provenance: dict[str, object], *, task: str | None = None) -> tuple[Words, bool]:
        """Why an output isn't one that is there, and whether any is."""
        found = nearest_differences(earlier_folders(self.out, name), provenance)
        last = None if self.last is None else self.last.config
        return in_words(found or [], self.context.config, task=task, last=last), found is not None

    def _training_left(self, name: Task, *, num_images: int | None = None) -> float | None:
        """Seconds of a whole training, by what an image took in the longest earlier one of this network.

        Args:
            name: of the network.
            num_images: that it learns from; None where nobody knows yet, and it is reckoned with those of then.
        """
        found = [metrics for folder in earlier_folders(self.out, name) if (metrics := read_metrics(folder))]
        if not found:
            return None
        longest = max(found, key=_seconds)
        section = self.context.config.training(name).section
        images = [epoch["num_images"] for epoch in longest]  # as they are drawn: the last batch is filled up
        drawn = section.batch_size * num_steps_per_epoch(num_images or images[-1], section.batch_size)
        return _seconds(longest) / sum(images) * section.epochs * drawn if sum(images) else None

    def _training_left_over(self, folder: str, holder: Holder | None) -> str:
        """Why a training that was begun isn't done, and where it goes on."""
        if holder is not None:
            return _AT_WORK
        if last_state(folder) is not None:
            return "its training was begun and goes on from its last state"
        minutes = self.context.config.cluster.state_minutes
        return f"its training begins again, as no state of it was written yet (cluster.state_minutes is {minutes:g})"

    def _stream_left(self, name: str, account: Account, folder: str, holder: Holder | None) -> float | None:
        """Seconds, by what a row took: in the run that is at work, or in the last one that came to its end."""
        if not account.num_left:
            return 0
        done = account.num_finished + account.num_quarantined
        if holder is not None and holder.epoch == 1 and done:
            return account.num_left / done * _elapsed(holder)
        taken = self._seconds_of(name, first=folder)
        return None if taken is None else taken[0] / taken[1] * account.num_left

    def _seconds_of(self, name: str, *, first: str | None = None) -> tuple[float, int] | None:
        """Seconds and rows of a stream's last run, in a folder or, if there was none, in one of other options."""
        for folder in sorted(earlier_folders(self.out, name), key=lambda each: each != first):
            summary = read_summary(folder) or {}  # perhaps of another version: this is a guess, and needs no more
            if summary.get("num_computed") and "seconds" in summary:
                return summary["seconds"], summary["num_computed"]
        return None


def _seconds(metrics: list[dict[str, Any]]) -> float:
    """Of a training, by the metrics of its epochs."""
    return float(sum(epoch["seconds"] for epoch in metrics))


def _elapsed(holder: Holder | None) -> float:
    return 0.0 if holder is None else max(0.0, time.time() - holder.started.timestamp())


def _left_over(folder: str, rows: Rows, *, was_finished: bool, holder: Holder | None) -> str:
    """Why a stream that was begun has rows left."""
    if holder is not None:
        return _AT_WORK
    uri = storage.join(folder, PARTS_FILE)
    before = json.loads(storage.read_bytes(uri)) if storage.exists(uri) else {}
    if before and not before.keys() <= {part.name for part in rows.parts}:
        return "the manifest has other parts: rows that have only moved between them aren't computed again"
    return "new or changed images, or shards that were deleted" if was_finished else "was interrupted and goes on"
