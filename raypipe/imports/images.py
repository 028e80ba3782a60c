"""Which rows have an image: names become URIs, and what isn't there is found out before anything is computed.

The folders that names lead to are listed, so that a missing image is told together with the name that is there instead,
and accents may be written in either way. Where folders can't be listed, or that would take long, a sample of the rows
is looked for.
"""

import re
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe import storage, uri
from raypipe.containers.place import split_place
from raypipe.data.content import HEAD, image_kind, what_helps
from raypipe.data.names import hash_names
from raypipe.formats.draft import NUMBER, Draft
from raypipe.formats.listing import IMAGE_SUFFIXES, NO_FILES, Listing, list_images
from raypipe.formats.quote import quote
from raypipe.imports.account import Account
from raypipe.imports.folders import UNLISTED, Folders
from raypipe.words import counted

Check = Literal["auto", "all", "sample"]
"""Whose images are looked for: those of all rows, of a sample, or of a sample above `MOST_ROWS` rows."""

MOST_ROWS = 1_000_000
"""Rows whose images are all looked for."""
SAMPLE = 1_000
"""Rows of a sample."""
MOST_FOLDERS = 10_000
"""Folders of a store that are listed."""
ALLOWED_SHARE = 0.01
"""Share of the rows that may lack an image; they are left out."""
LOOKS = 100
"""Files with the ending of an image that are looked into."""

MOST_LOOKS = 10_000
"""Files of unknown endings that are looked into."""

_SHOWN = 5
"""Kinds of reasons that a message names, each with its first image."""


def find_images(
    draft: Draft,
    *,
    images: str | None,
    check: Check,
    skip_missing: bool,
    account: Account,
    known: Collection[str] = (),
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Finds each row's image.

    Args:
        draft: whose `image_uri` are names.
        images: absolute URI of the folder in which names are looked up, with or without their ending; None takes names
            as paths from the draft's root, or URIs.
        check: whose images are looked for.
        skip_missing: leave rows without an image out, however many they are.
        account: is told what was found.
        known: URIs of images that the manifest names already: they aren't told as such that no row names.

    Returns:
        The URIs, and which of the rows stay (N,).

    Raises:
        FileNotFoundError: there is no folder `images`.
        ValueError: more than `ALLOWED_SHARE` of the rows lack their image, or of the files that were looked into are
            none; one message names all kinds of reasons.
    """
    in_folder = images is not None or draft.any_ending
    search = _Search(draft, images or draft.root, any_ending=in_folder)
    if not draft.are_there:
        listing = search.list_root() if in_folder and uri.protocol(search.root) not in UNLISTED else None
        search.look(check)
        search.look_inside(account)
        search.judge(account, skip_missing=skip_missing)
        if listing is not None:
            unnamed = set(listing.images.values()) - set(search.uris) - set(known)
            paths = sorted(uri.relative(one, search.root) or one for one in unnamed)
            account.leave_out("images that no row names", paths)
    else:
        search.look_inside(account)
        search.judge(account, skip_missing=skip_missing)
    keep = np.ones(len(search.uris), bool)
    keep[list(search.problems)] = False
    return pa.array(search.uris, pa.string()), keep


class _Search:
    """The search for the images of a draft."""

    def __init__(self, draft: Draft, root: str, *, any_ending: bool) -> None:
        self.draft = draft
        self.root = root
        self.any_ending = any_ending
        self.folders = Folders()
        self.names: list[str | None] = draft.table["image_uri"].to_pylist()
        self.uris: list[str | None] = []
        self.problems: dict[int, str] = {}
        """Reasons, by row."""
        self.looked: set[int] = set()
        """Rows whose image was looked for."""
        self.num_looked_into = self.num_damaged = 0
        """Of the files whose endings are those of images: a sample, and those of it that are none."""
        self.is_partly_seen = False
        """Whether some of the sample are none, and not all files were looked into."""
        for row, name in enumerate(self.names):
            if draft.are_there:
                self.uris.append(name)
                continue
            try:
                self.uris.append(uri.absolute(name.strip(), root) if name and name.strip() else None)
            except ValueError as error:
                self.uris.append(None)
                self.problems[row] = str(error)
            if self.uris[-1] is None:
                self.problems.setdefault(row, "names no image")
        self.looked.update(self.problems)

    def list_root(self) -> Listing:
        try:
            listing = list_images(self.root)
        except FileNotFoundError as error:
            near = self.folders.nearest(self.root)
            raise FileNotFoundError(f"{error}{f': the nearest is {near}' if near else ''}") from error
        others = (path for reason, paths in listing.skipped.items() if reason not in NO_FILES for path in paths)
        self.folders.add_tree(self.root, [*listing.images, *others])
        return listing

    def look(self, check: Check) -> None:
        """Looks for the images of all rows, or of a sample."""
        rows = [row for row, one in enumerate(self.uris) if one is not None and split_place(one)[1] is None]
        parents = {uri.parent(self.uris[row] or "") for row in rows}
        listable = all(uri.protocol(folder) not in UNLISTED for folder in parents)
        many = len(rows) > MOST_ROWS or len(parents) > MOST_FOLDERS or not listable
        if check == "sample" or (check == "auto" and many):
            rows = self._sample(rows)
        self.looked.update(rows)
        if listable and (check == "all" or not many):
            self.folders.list_all(sorted({uri.parent(self.uris[row] or "") for row in rows}))
            self._look_up(rows)
        else:
            heads = _heads([self.uris[row] for row in rows])
            absent = [row for row, head in zip(rows, heads, strict=True) if not self._is_there(row, head)]
            self._look_up(absent)

    def _sample(self, rows: Sequence[int]) -> list[int]:
        hashes = hash_names(pa.array([self.uris[row] for row in rows], pa.string()), "existence")
        return sorted(rows[index] for index in np.argsort(hashes, kind="stable")[:SAMPLE].tolist())

    def _is_there(self, row: int, head: bytes | Exception) -> bool:
        if isinstance(head, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            return False
        if isinstance(head, PermissionError | ValueError):
            self.problems[row] = f"can't be read: {str(head)[:200]}"
        elif isinstance(head, Exception):
            if uri.protocol(self.uris[row] or "") not in UNLISTED:
                raise head
            self.problems[row] = f"can't be read: {str(head)[:200]}"  # each host is away by itself
        elif (reason := _unusable(head)) is not None:
            self.problems[row] = reason
        return True

    def _look_up(self, rows: Sequence[int]) -> None:
        for row in rows:
            wanted = self.uris[row] or ""
            unlisted = uri.protocol(wanted) in UNLISTED
            found = [] if unlisted else self.folders.find(wanted, any_ending=self.any_ending)
            if len(found) == 1:
                self.uris[row] = found[0]
            elif found:
                names = " or ".join(map(uri.name_of, found))
                self.problems[row] = f"may be {names}: write the ending, too"
            else:
                self.problems[row] = "isn't there"

    def judge(self, account: Account, *, skip_missing: bool) -> None:
        """Refuses too many images that are missing or can't be used, else names those that are left out."""
        number, looked = len(self.problems), len(self.looked)
        sample = f"in a sample of {looked:,} rows, " if looked < len(self.uris) else ""
        if not self.draft.are_there:
            account.say(f"images: {sample}{looked - number:,} found, {number:,} missing or unusable")
        if not number:
            return
        told = self._told(of_sample=bool(sample))
        if not skip_missing and (
            number > ALLOWED_SHARE * looked or self.num_damaged > ALLOWED_SHARE * self.num_looked_into
        ):
            raise ValueError(f"{told}. {self._way_out()}")
        if number >= len(self.uris):
            raise ValueError(f"{told}. No row is left")
        account.say(f"left out: {told}")

    def _told(self, *, of_sample: bool) -> str:
        """How many images can't be used, and of each kind of reason the first one and the number."""
        kinds: dict[str, list[int]] = {}
        for row, reason in sorted(self.problems.items()):
            kinds.setdefault(_kind(reason), []).append(row)
        examples = []
        for rows in list(kinds.values())[:_SHOWN]:
            row, reason = rows[0], self.problems[rows[0]]
            near = None if reason != "isn't there" else self._nearest(self.uris[row] or "")
            more = f" (and {counted(len(rows) - 1, 'others')} like it)" if len(rows) > 1 else ""
            examples.append(f"{self._named(row)} {reason}{f'; the nearest name is {near!r}' if near else ''}{more}")
        number, looked = len(self.problems), len(self.looked)
        if self.is_partly_seen:  # how many of all are such is known by their share of these alone
            examples.append(
                f"Of {self.num_looked_into:,} files that were looked into, {self.num_damaged:,} can't be used"
            )
        return (
            f"{number:,} of {counted(looked, 'images')}{' of the sample' if of_sample else ''} can't be used: "
            f"{'. '.join(examples)}"
        )

    def _way_out(self) -> str:
        names = f"Mend the names, or name the folder that they count from (now {self.root}), or"
        mend = names if len(self.problems) > self.num_damaged else "Mend such files, or"
        unseen = "; a run that meets others puts them into quarantine" if self.is_partly_seen else ""
        return f"{mend} leave {'such' if mend == names else 'their'} rows out by --skip-missing{unseen}"

    def _named(self, row: int) -> str:
        """A row's image, counted from the root, and where the row stands, if that is known."""
        name, place = self.names[row], self.draft.place(self.draft.table[NUMBER][row].as_py())
        shown = quote(name and name.removeprefix(f"{self.root.rstrip('/')}/"))
        return shown if place == self.draft.source else f"{shown} ({place})"

    def _nearest(self, wanted: str) -> str | None:
        if uri.protocol(wanted) in UNLISTED:
            return None
        near = self.folders.nearest(wanted)
        return None if near is None else (uri.relative(near, self.root) or near)

    def look_inside(self, account: Account) -> None:
        """Looks at what files hold: those of unknown endings, and some of the others."""
        rows = [
            row
            for row, one in enumerate(self.uris)
            if one is not None and row not in self.problems and split_place(one)[1] is None
        ]
        odd = [row for row in rows if not (self.uris[row] or "").lower().endswith(IMAGE_SUFFIXES)]
        if not self.draft.are_there:
            self._look_inside(odd[:MOST_LOOKS])
            if len(odd) > MOST_LOOKS:
                account.say(f"files of unknown endings: the first {MOST_LOOKS:,} of {len(odd):,} were looked into")
        others = sorted(set(rows) - set(odd))
        hashes = hash_names(pa.array([self.uris[row] for row in others], pa.string()), "content")
        drawn = sorted(others[index] for index in np.argsort(hashes, kind="stable")[:LOOKS].tolist())
        self.num_looked_into, self.num_damaged = len(drawn), len(self._look_inside(drawn))
        self.is_partly_seen = bool(self.num_damaged) and len(drawn) < len(others)

    def _look_inside(self, rows: Sequence[int]) -> list[int]:
        """Returns the rows, of some, whose files are no images."""
        wrong = []
        self.looked.update(rows)
        for row, head in zip(rows, _heads([self.uris[row] for row in rows]), strict=True):
            if isinstance(head, bytes) and (reason := _unusable(head)) is not None:
                self.problems[row] = reason
                wrong.append(row)
            elif isinstance(head, PermissionError):
                self.problems[row] = f"can't be read: {str(head)[:200]}"
                wrong.append(row)
            elif isinstance(head, FileNotFoundError):
                self.problems[row] = "isn't there"  # it was in no sample before
        return wrong


def _heads(uris: Sequence[str | None]) -> list[bytes | Exception]:
    """The first bytes of files, or the errors of those that can't be read."""
    heads = storage.read_many([one or "" for one in uris], end=HEAD)
    return [heads[one or ""] for one in uris]


def _kind(reason: str) -> str:
    """A reason without what differs from image to image."""
    return "may be" if reason.startswith("may be ") else re.sub(r"'[^']*'|\S*[/\\]\S*", "*", reason).partition(": ")[0]


def _unusable(head: bytes) -> str | None:
    """Why a file that begins so is no image; None where it is one."""
    kind = image_kind(head)
    if kind is None:
        return "is no image" if head else "is empty"
    needed = what_helps(kind)
    return None if needed is None else f"is one of the {kind} images, which {needed}"
