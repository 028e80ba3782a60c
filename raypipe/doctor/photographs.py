"""Reads and decodes photographs: all of a small set, for a damaged one is no rarer than one in a hundred there."""

import time

from raypipe import storage
from raypipe.cluster.findings import Finding, judge
from raypipe.data.images import decode_image
from raypipe.doctor.data_checks import allowed_share, what_may_fail
from raypipe.doctor.forecast import evenly_spaced_rows
from raypipe.faults import in_words, sentence
from raypipe.pipelines.context import Context
from raypipe.words import counted

MOST = 200
"""Photographs that are read; of larger sets they are evenly spaced."""
SECONDS = 60.0
"""After which no more are read."""
_AT_A_TIME = 8
_SHOWN = 3


def read_photographs(context: Context, *, seconds: float = SECONDS) -> Finding:
    """Checks that photographs can be decoded, in this process, as a whole.

    Args:
        context: config and manifest.
        seconds: after which no more are read.
    """
    rows = context.seed_rows()
    chosen = evenly_spaced_rows(rows, MOST).select(["image_id", "image_uri"]).to_pylist()
    end, read = time.monotonic() + seconds, 0
    wrong: dict[str, str] = {}
    for start in range(0, len(chosen), _AT_A_TIME):
        if time.monotonic() > end:
            break
        some = chosen[start : start + _AT_A_TIME]
        contents = storage.read_many({row["image_uri"] for row in some if row["image_uri"]})
        read += len(some)
        for row in some:
            try:
                content = contents.get(row["image_uri"], b"")
                if isinstance(content, Exception):
                    raise content  # noqa: TRY301 - both are the same to a row
                decode_image(content, max_side=context.config.images.max_side)
            except Exception as error:  # noqa: BLE001 - each storage has errors of its own, and all of them are findings
                wrong[row["image_id"]] = sentence(in_words(error))
    allowed, of_all = allowed_share(context), f"{read:,} of {counted(rows.most, 'images')}"
    too_many = len(wrong) > allowed * read
    examples = "; ".join(f"{name}: {reason}" for name, reason in list(wrong.items())[:_SHOWN])
    return judge(
        "photographs",
        f"{of_all} were read, and {len(wrong):,} of these can't be used: {examples}"
        if wrong
        else f"{of_all} were read",
        status="ok" if not wrong else "problem" if too_many else "warning",
        needed=f"images that can be decoded; {what_may_fail(allowed)}",
        way_out="mend such images or the manifest's image_uri, or raise budget.max_rows"
        if too_many
        else "mend such images, or leave them as they are: a run puts them into quarantine",
    )
