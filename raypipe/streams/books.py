"""Keeps count of what the workers of a stream have written: which part is complete, which files are to be folded."""

from collections import Counter, defaultdict

import pyarrow as pa

from raypipe.outputs.ledger import FOLDED, INDEX, QUARANTINED, fold, level_of
from raypipe.outputs.sink import PART, PART_TODO
from raypipe.streams.source import Source
from raypipe.streams.tasks import Tasks

MOST_FOLDING = 8
"""Tasks at a time that fold files of indexes."""


class Books:
    """The count of one run. It holds names of parts and of the files that aren't folded yet."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.num_done = self.num_quarantined = 0
        self._todo = {part.name: part.num_rows for part in source.rows.read_parts}
        """Rows of each part at most; of one that was begun, those that weren't done before."""
        self._done: Counter[str] = Counter()
        self._files: dict[tuple[str, str, int], list[str]] = defaultdict(list)
        self._folding = Tasks(inline=False)

    @property
    def num_todo(self) -> int:
        """Rows of this run, at most."""
        return min(self.source.rows.most, sum(self._todo.values()))

    def add(self, written: pa.Table) -> list[str]:
        """Counts what writers have written (`sink.WRITTEN`); returns the parts that are complete with it."""
        complete = []
        for row in written.to_pylist():
            part, number = row[PART], row["num_finished"] + row["num_quarantined"]
            self.num_done += number
            self.num_quarantined += row["num_quarantined"]
            self._todo[part] = row[PART_TODO]
            self._done[part] += number
            for kind in (INDEX, QUARANTINED):
                if row[kind] is not None:
                    self._add_file(kind, part, row[kind])
            if self._done[part] == row[PART_TODO]:
                self._close(part)
                complete.append(part)
        return complete

    def _add_file(self, kind: str, part: str, uri: str) -> None:
        files = self._files[kind, part, level_of(uri)]
        files.append(uri)
        if len(files) == FOLDED:
            del self._files[kind, part, level_of(uri)]
            self._folding.submit(fold_files, self.source.folder, kind, part, files, self.source.run)
        for folded_kind, folded_part, folded in self._folding.results(most_running=MOST_FOLDING):
            self._add_file(folded_kind, folded_part, folded)

    def _close(self, part: str) -> None:
        """Forgets a part, once nothing folds its files any more."""
        for kind, folded_part, folded in self._folding.results():
            if folded_part != part:
                self._add_file(kind, folded_part, folded)
        for key in [key for key in self._files if key[1] == part]:
            del self._files[key]
        del self._done[part]


def fold_files(folder: str, kind: str, part: str, uris: list[str], run: int) -> tuple[str, str, str]:
    """Folds files of an index; returns the kind, the part and the file."""
    folded = fold(folder, kind, part, uris, run=run)
    assert folded is not None  # each of the files has a row
    return kind, part, folded
