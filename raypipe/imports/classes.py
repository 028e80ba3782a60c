"""What class ids mean: the order of the classes, and what becomes of the names and ids that the data have.

The order is the data's own where they state one, else the one that is given, else that of the numbers where all names
are numbers, else that of the names. It is never a guess: masks are held against it (`raypipe.imports.truth`).
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raypipe.data.manifest import check_classes, nearest
from raypipe.formats.draft import Draft
from raypipe.formats.labels import without_background
from raypipe.imports.account import Account, shown, some
from raypipe.imports.alike import alike
from raypipe.imports.class_map import final_names
from raypipe.imports.label_column import LabelColumn
from raypipe.schema import BACKGROUND, IGNORE
from raypipe.words import counted

_BACKGROUND = "background"
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(?:\.[0-9]{1,15})?")

_INVISIBLE = (
    f"{string.whitespace}\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff"
    + "".join(map(chr, range(0x2000, 0x200B)))
)
"""What is around a name by mistake: spaces of all kinds, and those of no width, which programs leave behind."""

_IN_LISTS = (" ", "/", "+", "&", "-", "_")
"""What may stand between names in a text, and in a name as well."""

_MOST_PAIRS = 5
"""Pairs of names that may mean the same that an account names."""

FEW_IMAGES = 10
"""A class of fewer images is named in the account: it can hardly be learned."""


@dataclass(frozen=True, kw_only=True)
class ClassOptions:
    """How class names are decided."""

    classes: tuple[str, ...] | None = None
    """Names in the order of the ids that the data's masks have, before the map."""
    map: Mapping[str, str | None] = field(default_factory=dict)
    """New names; None drops a name."""
    top: int | None = None
    """Keep so many names, those of the most images."""
    min_images: int = 1
    """Drop names of fewer images."""
    dropped: int = BACKGROUND
    """What pixels of a dropped class become."""


@dataclass(frozen=True)
class Classes:
    """Decided classes."""

    names: tuple[str, ...]
    labels: LabelColumn
    """With these names."""
    by_name: Mapping[str, int]
    """What each class of the data becomes in masks: its id, or what pixels of dropped classes become."""
    before: tuple[str, ...]
    """Names of the ids in the data's masks, from 1."""

    @property
    def ids(self) -> dict[int, int]:
        """Id of each class in the data's masks, and what it becomes."""
        return {old: self.by_name[name] for old, name in enumerate(self.before[: IGNORE - 1], start=1)}

    @property
    def keep_ids(self) -> bool:
        """Whether masks can stay as they are."""
        return all(old == new for old, new in self.ids.items())


def decide_classes(
    labels: LabelColumn, draft: Draft, options: ClassOptions, *, known: Sequence[str], account: Account
) -> Classes:
    """Decides the classes, and renames, merges and drops labels.

    Args:
        labels: of all rows, as the data have them.
        draft: where they come from.
        options: what was asked for.
        known: classes of the manifest that the rows are added to: they keep their ids, and are what the ids in masks
            mean where neither the data nor the options say it.
        account: gets what is odd.

    Raises:
        ValueError: there is no class, a label isn't one of those that are stated, or the names can't be used.
    """
    labels = labels.renamed(clean)
    stated, given = _without_background(draft.classes), _without_background(options.classes)
    if given and draft.usual_classes:
        stated = ()
    if (stated or given) and _BACKGROUND in {name.casefold() for name in labels.names} - _folded(stated, given):
        labels = labels.moved(dict.fromkeys(name for name in labels.names if name.casefold() == _BACKGROUND))
        account.say("the label 'background' is that of id 0: it is left out")
    masked = stated or given or natural_order(labels.names)
    source = given or masked
    _check_given(source, masked, draft)
    new_names = clean_map(options.map)
    if unused := [old for old in new_names if old not in {*source, *labels.names}]:
        account.say(some(unused, "names in the map that are no class here"))
    labels = labels.moved(dict(new_names))
    final = renamed_classes(source, new_names)
    if not (stated or given):
        final = natural_order(final)
    counts = Counter(dict(zip(labels.names, labels.counts().tolist(), strict=True)))
    by = draft.classes_from if stated else "--classes"
    names = choose_names(counts, final, options, stated=by, known=known, account=account)
    labels = labels.moved({name: None for name in labels.names if name not in names})
    numbers = {name: number for number, name in enumerate(names, start=1)}
    before = masked
    if known and not (stated or given):
        before = (*known, *(name for name in masked if new_names.get(name, name) not in known))
    by_name = {name: numbers.get(new_names.get(name, name) or "", options.dropped) for name in {*masked, *before}}
    return Classes(names, labels.ordered(names), by_name, before)


def choose_names(
    counts: Counter[str],
    final: tuple[str, ...],
    options: ClassOptions,
    *,
    stated: str,
    known: Sequence[str] = (),
    account: Account,
) -> tuple[str, ...]:
    """Returns the classes of a manifest, whose rows needn't be in memory, and says what is odd about them.

    Args:
        counts: images of each label, renamed.
        final: classes in their order, renamed, before rare ones are dropped.
        options: `top` and `min_images` count here.
        stated: what says the classes, for messages.
        known: classes of the manifest that the rows are added to, which come first.
        account: gets what is odd.

    Raises:
        ValueError: a label isn't one of the classes, none is left, or the names can't be used.
    """
    _check_known(counts, final, stated)
    kept = _drop_rare(counts, final, options, account)
    names = tuple(dict.fromkeys([*known, *kept]))
    if not names and not counts:
        raise ValueError("no class is left: --map drops all of them")
    check_classes(names)
    if known and (added := [name for name in kept if name not in known]):
        account.say(
            f"new classes, after those of the manifest: {', '.join(map(shown, added[:10]))}"
            f"{', …' if len(added) > 10 else ''}"
        )
    _say_alike(names, account)
    _say_lists(names, account)
    return names


def clean_map(found: Mapping[str, str | None]) -> dict[str, str | None]:
    """A map of names as they are cleaned, with chains followed to their end."""
    return final_names({clean(old): new and clean(new) for old, new in found.items()})


def renamed_classes(names: Sequence[str], new_names: Mapping[str, str | None]) -> tuple[str, ...]:
    """Class names after a map, in the order of their first one."""
    return tuple(dict.fromkeys(new for name in names if (new := new_names.get(name, name)) is not None))


def natural_order(names: Sequence[str]) -> tuple[str, ...]:
    """Names in the order of their numbers where all of them are numbers, else of their letters."""
    if all(_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def _without_background(names: Sequence[str] | None) -> tuple[str, ...]:
    """A list of names whose first one may be the background, as where ids are counted from 0."""
    return without_background(tuple(map(clean, names or ())))


def _folded(*lists: Sequence[str]) -> set[str]:
    return {name.casefold() for names in lists for name in names}


def clean(name: str) -> str:
    """A name without what is around it by mistake, and with composed accents."""
    return unicodedata.normalize("NFC", name.strip(_INVISIBLE))


def _check_given(source: Sequence[str], masked: Sequence[str], draft: Draft) -> None:
    for names in (source, masked):
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if list(names).count(name) > 1})
            raise ValueError(f"class names occur twice: {twice[:5]}")
    if not source:
        raise ValueError("no image has a label: check where the labels come from, or name the classes (--classes)")
    if extra := [name for name in source if draft.classes and name not in masked]:
        raise ValueError(
            f"--classes names {extra[0]!r}, which {draft.classes_from} doesn't{nearest(extra[0], masked)}: leave "
            "--classes out, for the data state the order themselves"
        )


def _check_known(counts: Counter[str], final: Sequence[str], stated: str) -> None:
    there = set(final)
    if unknown := [name for name, count in counts.items() if name not in there and count]:
        which = f"the label {shown(unknown[0])!r} isn't"
        if len(unknown) > 1:
            which = f"{len(unknown):,} labels, such as {', '.join(repr(shown(name)) for name in unknown[:3])}, aren't"
        near = nearest(unknown[0], final)
        raise ValueError(
            f"{which} among the {counted(len(final), 'classes')} of {stated}{near}{'' if near.endswith('?') else '.'} "
            f"Complete {stated}, or rename or drop by --map"
        )


def _drop_rare(
    counts: Counter[str], names: tuple[str, ...], options: ClassOptions, account: Account
) -> tuple[str, ...]:
    """Returns the names that stay, in their order, by the number of their images.

    Raises:
        ValueError: none does.
    """
    if options.top is None and options.min_images <= 1:
        return names
    most = sorted(names, key=lambda name: -counts[name])[: options.top]
    kept = {name for name in most if counts[name] >= options.min_images}
    if not kept:
        raise ValueError(
            f"no class has {options.min_images} images: the most has {max(counts.values(), default=0)}; lower "
            "--min-images"
        )
    dropped = [name for name in names if name not in kept]
    if dropped:
        account.say(f"{some(dropped, 'classes dropped')}; their images stay")
    return tuple(name for name in names if name in kept)


def _say_alike(names: Sequence[str], account: Account) -> None:
    pairs = [f"{shown(one)!r} and {shown(other)!r}" for one, other in alike(names)]
    if pairs:
        more = f", and {counted(len(pairs) - _MOST_PAIRS, 'more pairs')}" if len(pairs) > _MOST_PAIRS else ""
        account.say(
            f"classes that may mean the same: {', '.join(pairs[:_MOST_PAIRS])}{more}. They are kept as classes "
            "of their own: --map makes them one"
        )


def _say_lists(names: Sequence[str], account: Account) -> None:
    """Says which names may be lists, for each of their parts is a class as well."""
    for separator in _IN_LISTS:
        lists = [name for name in names if separator in name and set(name.split(separator)) <= set(names)]
        if lists:
            account.say(
                f"{some(lists, 'classes')}: each part is a class, too. If they are lists, say what stands between "
                f"names (--separator {separator!r})"
            )


def say_rare(counts: Mapping[str, int], names: Sequence[str], account: Account) -> None:
    """Says which classes have so few images that they can hardly be learned.

    Args:
        counts: images of each class in the whole manifest, with 0 for those that have none.
        names: the classes.
        account: gets the line.
    """
    rare = [
        f"{shown(name)} {counts[name]}" for name in sorted(names, key=counts.__getitem__) if counts[name] < FEW_IMAGES
    ]
    if rare:
        account.say(
            f"classes with fewer than {FEW_IMAGES} images: {', '.join(rare[:8])}"
            f"{f', and {len(rare) - 8} more' if len(rare) > 8 else ''}"
        )
