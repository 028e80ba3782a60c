"""Resources as text that people read: ranges, and aligned tables with what stays idle."""

from collections.abc import Iterable, Sequence


def text_range(minimum: int, maximum: int) -> str:
    """Such as 1-8, or 8 where both are the same."""
    return str(minimum) if minimum == maximum else f"{minimum}-{maximum}"


def resource_table(
    title: str,
    rows: Iterable[tuple[str, str, float, float, int]],
    *,
    idle_gpus: int,
    notes: Sequence[str],
) -> str:
    """A table of what each pool takes.

    Args:
        title: the first line.
        rows: pool, number of actors, and CPUs, GPUs and threads of each.
        idle_gpus: GPUs that nothing takes.
        notes: lines at the end.
    """
    cells = [("pool", "actors", "CPUs", "GPUs", "threads")]
    cells += [(name, actors, f"{cpus:g}", f"{gpus:g}", str(threads)) for name, actors, cpus, gpus, threads in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([title, *(f"  {line}" for line in [*lines, f"idle GPUs: {idle_gpus}", *notes])])
