"""A status in words: a table of the steps, what a run would compute, quarantined rows by reason, places, times."""

from collections.abc import Iterable, Sequence

from raypipe import storage
from raypipe.cluster.findings import time_text
from raypipe.pages.report import REPORT_FILE
from raypipe.pipelines.masks_file import MASKS_FILE
from raypipe.reports.content import Quarantined
from raypipe.status.account import Account
from raypipe.status.content import Status, Step
from raypipe.words import counted

_STATES = {"done": "done", "given": "given", "begun": "goes on", "missing": "to do", "follows": "to do"}

_MOST_REASONS = 5

_NOT_OF_RUNS = ("sweep.", "calibration.")
"""Options of other commands than `raypipe run`."""


def describe(status: Status) -> str:
    """All that a status says."""
    refused = [] if status.refused is None else [f"`raypipe run` refuses this: {status.refused}"]
    lines = [status.out, announcement(status), *refused, ""]
    width = max(len(step.name) for step in status.steps)
    lines += [f"{step.name:{width}}  {_STATES[step.state]:7}  {_detail(step)}".rstrip() for step in status.steps]
    lines += ["", *_ending(status, labels=status.labels)]
    lines += [f"at work: {holder}" for holder in status.at_work]
    return "\n".join(lines)


def announcement(status: Status) -> str:
    """What a run would compute, and which options have changed for it to do so: one line."""
    left = [step for step in status.steps if step.is_left]
    differs = [change for change in status.differs if not change.startswith(_NOT_OF_RUNS)]
    if not left:
        since = f" (since the last run: {', '.join(differs)})" if differs else ""
        removed = _removed(status)
        return f"everything is done{since}{f'; {removed}' if removed else ''}"
    changes = differs or list(dict.fromkeys(change for step in left for change in step.changes))
    names, number = _listed(step.name for step in left), counted(_num_left(status), "images")
    if removed := _removed(status):
        number = f"{number}; {removed}"
    if changes and all(step.is_renewed for step in left):
        return f"{', '.join(changes)}: {names} again, {number}"
    first = left[0]
    why = ", ".join(changes) or (f"{first.name}: {first.why}" if first.is_renewed or first.state == "begun" else "")
    return f"{why}; to do: {names}, {number}" if why else f"to do: {names}, {number}"


def closing(status: Status) -> list[str]:
    """What the end of a run says: masks, quarantined rows by reason, where they are, labels and gates, the time.

    What the classifier knows is there in short: the step that measures it says more, and so does the whole status.
    """
    return _ending(status, labels=status.labels[:1])


def _ending(status: Status, *, labels: Sequence[str]) -> list[str]:
    masks = status.step("masks")
    lines = []
    if masks is not None and masks.artifact is not None and masks.account is not None and masks.state != "missing":
        account = masks.account
        lines.append(f"masks: {_finished(account)}, {_quarantined(account)}")
        groups = account.reasons.groups(_MOST_REASONS) if account.num_quarantined else []
        lines += [f"  {group.num_images:,} x {group.reason}{_examples(group)}" for group in groups]
        named = status.last_masks == masks.artifact.uri
        files = f", whose files {storage.join(status.out, MASKS_FILE)} names" if named else ""
        lines.append(f"where: {masks.artifact.uri}{files}")
    else:
        last = "" if status.last_masks is None else f"; the last ones are in {status.last_masks}"
        lines.append(f"masks: none of this config yet{last}")
    lines += [f"labels: {line}" for line in labels]
    lines += [f"gate: {decision}" for decision in status.gates]
    lines.append(f"time: {_times(status.steps)}")
    if storage.exists(report := storage.join(status.out, REPORT_FILE)):
        lines.append(f"report: {report}")
    return lines


def _examples(group: Quarantined) -> str:
    more = ", …" if group.num_images > len(group.image_ids) else ""
    return f" ({', '.join(group.image_ids)}{more})" if group.image_ids else ""


def _removed(status: Status) -> str:
    """What a run does with masks of images that the manifest has no more."""
    masks = status.step("masks")
    number = 0 if masks is None or masks.account is None else masks.account.num_removed
    if number == 1:
        return "1 mask of an image that is no row any more is removed"
    return f"{number:,} masks of images that are no rows any more are removed" if number else ""


def _detail(step: Step) -> str:
    parts = []
    if step.account is not None and (step.state in ("done", "begun") or step.account.num_finished):
        account = step.account
        left = f", {account.num_left:,} left" if account.num_left else ""
        parts.append(f"{_finished(account)}, {_quarantined(account)}{left}")
    elif step.account is not None:
        parts.append(counted(step.account.num_rows, "images"))
    if step.why:
        parts.append(step.why)
    return ": ".join(parts)


def _finished(account: Account) -> str:
    return f"{account.num_finished:,} of {counted(account.num_rows, 'images')}"


def _quarantined(account: Account) -> str:
    return f"{account.num_quarantined:,} quarantined" if account.num_quarantined else "none quarantined"


def _num_left(status: Status) -> int:
    """Images that the masks, or else the last step that is known, would be made of."""
    masks = status.step("masks")
    if masks is not None and masks.is_left:
        return status.num_images if masks.account is None else masks.account.num_left
    known = [step.account.num_left for step in status.steps if step.is_left and step.account is not None]
    return max(known, default=status.num_images)


def _times(steps: Sequence[Step]) -> str:
    so_far = f"{time_text(sum(step.seconds for step in steps) / 3600)} so far with these options"
    left = [step for step in steps if step.is_left]
    if not left:
        return so_far
    unknown = [step.name for step in left if step.seconds_left is None]
    seconds = sum(step.seconds_left or 0 for step in left)
    known = f"about {time_text(seconds / 3600)} left"
    if not unknown:
        return f"{so_far}, {known}"
    if not seconds:
        return f"{so_far}; time left isn't known yet: `raypipe doctor CONFIG` forecasts it"
    return f"{so_far}, {known} without {_listed(unknown)}, which `raypipe doctor CONFIG` forecasts"


def _listed(names: Iterable[str]) -> str:
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last
