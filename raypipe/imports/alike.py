"""Names that may mean the same: twins by case or spaces, and those that one slip of the keyboard tells apart."""

from collections import defaultdict
from collections.abc import Sequence

from raypipe.imports.draft_map import form

SHORTEST = 4
"""Letters of a word in which a slip is looked for: of shorter ones, such as cat and car, many are one letter apart."""


def alike(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns pairs of names that may mean the same, each with the one first that comes first in `names`.

    They are written alike but for case, accents' form, spaces, underscores or hyphens; or one letter is another one,
    missing, or in its neighbour's place, in a word of `SHORTEST` letters or more. Names that differ by a digit are
    meant to differ.
    """
    pairs: dict[tuple[int, int], None] = {}
    by_form: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        by_form[form(name)].append(index)
    pairs.update(((first, other), None) for first, *others in by_form.values() for other in others)
    # Forms that are one slip apart have a form without one of its letters in common, or one of them is such a form.
    by_rest: dict[str, set[str]] = defaultdict(set)
    for one in by_form:
        for rest in {one, *(one[:place] + one[place + 1 :] for place in range(len(one)))}:
            by_rest[rest].add(one)
    for forms in by_rest.values():
        ordered = sorted(forms)
        for number, one in enumerate(ordered):
            for other in ordered[number + 1 :]:
                if _is_slip(one, other):
                    pairs[min(by_form[one][0], by_form[other][0]), max(by_form[one][0], by_form[other][0])] = None
    return [(names[first], names[other]) for first, other in sorted(pairs)]


def _is_slip(one: str, other: str) -> bool:
    """Whether one slip in a long word makes a form of another."""
    shorter, start = min(len(one), len(other)), 0
    while start < shorter and one[start] == other[start]:
        start += 1
    end = 0
    while end < shorter - start and one[-1 - end] == other[-1 - end]:
        end += 1
    differing = [text[start : len(text) - end] for text in (one, other)]
    is_one = max(map(len, differing)) == 1 or (len(differing[0]) == 2 and differing[0] == differing[1][::-1])
    before, after = one[:start].split(" ")[-1], one[len(one) - end :].split(" ")[0]
    is_long = all(len(f"{before}{part}{after}") >= SHORTEST for part in differing)
    return is_one and is_long and not any(letter.isdigit() for part in differing for letter in part)
