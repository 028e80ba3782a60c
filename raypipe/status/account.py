"""Counts what a stream's folder holds of the rows that it is asked for: the account of a run that isn't running."""

from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.data.rows import Part, Rows
from raypipe.outputs.ledger import without_lost
from raypipe.pages.counts import Reasons
from raypipe.schema import QUARANTINE, ROW_DIGEST
from raypipe.streams.plan import Plan
from raypipe.streams.source import Source, not_among
from raypipe.streams.tasks import are_few, in_tasks


@dataclass
class Account:
    """What is done of a stream's rows, as the manifest has them now."""

    num_rows: int = 0
    """That are asked for."""
    num_finished: int = 0
    num_quarantined: int = 0
    num_removed: int = 0
    """Outputs of images that are no rows of the manifest any more: a run that comes to its end removes them."""
    reasons: Reasons = field(default_factory=Reasons)
    """Of the rows in quarantine."""

    @property
    def num_left(self) -> int:
        """Rows that a run would compute."""
        return self.num_rows - self.num_finished - self.num_quarantined

    def add(self, other: "Account") -> None:
        """Adds the account of other rows."""
        self.num_rows += other.num_rows
        self.num_finished += other.num_finished
        self.num_quarantined += other.num_quarantined
        self.num_removed += other.num_removed
        self.reasons.merge(other.reasons)


def account_of(plan: Plan, rows: Rows, folder: str) -> Account:
    """Counts part by part, in this process or, where Ray is connected and there are many rows, in tasks.

    The manifest and the small files of the ledger are read, and no image and no output.

    Args:
        plan: what is computed.
        rows: that it is asked for.
        folder: URI of the stream's outputs, which needn't be there.
    """
    source, total = Source.of(plan, rows, folder, run=0), Account()
    for account in in_tasks(partial(_count, source), rows.read_parts, inline=are_few(rows)):
        total.add(account)
    return total


def _count(source: Source, part: Part) -> Account:
    wanted = source.wanted(part).select(["image_id", ROW_DIGEST])
    ledger = source.catalogues[source.folder].read(part.name)
    unfinished = wanted.filter(not_among(wanted, without_lost(source.folder, part.name, ledger).finished))
    left = unfinished.filter(not_among(unfinished, ledger.quarantined))
    account = Account(
        num_rows=wanted.num_rows,
        num_finished=wanted.num_rows - unfinished.num_rows,
        num_quarantined=unfinished.num_rows - left.num_rows,
        num_removed=_num_removed(part, wanted, ledger.finished),
    )
    if account.num_quarantined:
        account.reasons.add(_of(ledger.quarantined, unfinished).to_pylist())
    return account


def _num_removed(part: Part, wanted: pa.Table, finished: pa.Table) -> int:
    """Outputs of a part that it has no row for; those of rows that aren't asked for stay."""
    ids = pc.unique(finished["image_id"])
    others = ids.filter(pc.invert(pc.is_in(ids, wanted["image_id"].combine_chunks())))
    if not len(others):
        return 0
    return int(pc.sum(pc.invert(pc.is_in(others, part.read()["image_id"].combine_chunks()))).as_py())


def _of(quarantined: pa.Table, rows: pa.Table) -> pa.Table:
    """The quarantine's entries of some rows, as they are now."""
    return quarantined.filter(pc.invert(not_among(quarantined, rows))).select(QUARANTINE.names)
