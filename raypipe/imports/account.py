"""What an import says at its end: what was read, what was left out and why, and what is odd."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from raypipe.words import counted

_EXAMPLES = 3
_CLASSES = 12
_LONGEST = 60
"""Characters of a name."""


@dataclass
class Account:
    """Lines of an import's account, in the order in which they came up."""

    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Adds a line."""
        self.lines.append(text)

    def leave_out(self, reason: str, names: Sequence[str]) -> None:
        """Adds a line on what was left out; nothing where that is nothing."""
        if names:
            self.say(f"left out: {some(names, reason)}")

    def __str__(self) -> str:
        return "\n".join(self.lines)


def unlabelled_text(number: int) -> str:
    """What is said of images that nobody has labelled."""
    return f"{counted(number, 'images')} without labels: nothing is learned from such images, and they get no mask"


def named_classes(names: Sequence[str]) -> str:
    """The first of a manifest's class names, and how many more there are."""
    more = f", and {len(names) - _CLASSES} more" if len(names) > _CLASSES else ""
    return f"classes: {', '.join(map(shown, names[:_CLASSES]))}{more}"


def shown(name: str) -> str:
    """A name as a message shows it: short, and without what a terminal would obey."""
    return (
        name if len(name) <= _LONGEST and name.isprintable() else f"{name[:_LONGEST]!r}{'…' * (len(name) > _LONGEST)}"
    )


def some(names: Sequence[str], what: str) -> str:
    """Returns how many there are, with examples: "5 hidden files, such as 'a', 'b', 'c'"."""
    shown = ", ".join(repr(name[:120]) for name in names[:_EXAMPLES])
    return f"{counted(len(names), what)}{', such as' if len(names) > _EXAMPLES else ':'} {shown}"
