"""What checks say, and how it is printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    check: str
    status: Status
    found: str
    needed: str = ""
    """Empty where all is in order, as is the way out."""
    way_out: str = ""

    def __str__(self) -> str:
        """The finding without its status, for a message of several lines."""
        return f"{self.check}: {self.found}\n  needed: {self.needed}\n  way out: {self.way_out}"


def judge(check: str, found: str, *, status: Status, needed: str, way_out: str) -> Finding:
    """A finding; what is needed and the way out are said of what isn't in order only."""
    return Finding(check, status, found) if status == "ok" else Finding(check, status, found, needed, way_out)


def problem(check: str, found: str, *, needed: str, way_out: str) -> Finding:
    """A finding that keeps a run from being started."""
    return Finding(check, "problem", found, needed, way_out)


def size_text(size: float) -> str:
    """Bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def time_text(hours: float) -> str:
    """A time for people: 12 seconds, 12 minutes, 12 hours."""
    if hours < 1 / 30:
        return f"{3600 * hours:.0f} seconds"
    if hours < 2:
        return f"{60 * hours:.0f} minutes"
    return f"{hours:.1f} hours" if hours < 10 else f"{hours:,.0f} hours"


def from_places(reasons: Mapping[str, str]) -> str:
    """What machines say, each thing once: of a hundred nodes most say the same."""
    places: dict[str, list[str]] = {}
    for place, reason in reasons.items():
        places.setdefault(reason, []).append(place)
    texts = []
    for reason, names in places.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        texts.append(f"from {', '.join(names[:3])}{more}: {reason}")
    return "; ".join(texts)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned text; the last cell takes the rest of the line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def to_text(findings: Sequence[Finding]) -> str:
    """A line for each check; what isn't in order is followed by what is needed and the way out."""
    lines = columns([(finding.status, finding.check, finding.found) for finding in findings]).splitlines()
    texts = []
    for line, finding in zip(lines, findings, strict=True):
        texts.append(line)
        if finding.status != "ok":
            texts += [f"         needed: {finding.needed}", f"         way out: {finding.way_out}"]
    return "\n".join(texts)
