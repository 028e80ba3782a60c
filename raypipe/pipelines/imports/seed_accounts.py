"""What an import of seeds says: which images have maps, and what of them doesn't fit the manifest."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.data.manifest import nearest
from raypipe.data.parts import StoredManifest
from raypipe.imports.account import Account, shown, some
from raypipe.words import counted

_EXAMPLES = 3


@dataclass
class Names:
    """A number of images or classes, and the names of some."""

    number: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, names: Sequence[str]) -> None:
        """Counts some more."""
        self.number += len(names)
        self.examples += names[: _EXAMPLES - len(self.examples)]

    def __str__(self) -> str:
        return ", ".join(map(repr, map(shown, self.examples)))


@dataclass
class Seen:
    """Names and counts of imported seeds beside a manifest."""

    num_images: int
    """With maps."""
    left_out: dict[str, str]
    """Reasons by ids; those of the first only, where there are many."""
    num_left_out: int
    unknown: Names
    """Images that the manifest lacks."""
    unseeded: Names
    """Labelled images of the manifest without maps."""
    lacking: Names
    """Images without a map of one of their labels."""
    surplus: Names
    """Images with a map of a class of the manifest that they aren't labelled with."""
    classes: Counter[str]
    """Images by class."""

    @classmethod
    def of(cls, manifest: StoredManifest, seeds: pa.Table, left_out: Mapping[str, str]) -> "Seen":
        """Compares seeds, with `image_id` and `classes`, to a manifest, part by part."""
        unknown, unseeded, lacking, surplus = (Names() for _ in range(4))
        ids = seeds["image_id"].combine_chunks()
        met = pa.array([False] * len(ids), pa.bool_())
        for part in manifest.parts:
            rows = part.read().select(["image_id", "labels"])
            met = pc.or_(met, pc.is_in(ids, rows["image_id"].combine_chunks()))
            labelled = rows.filter(pc.fill_null(pc.greater(pc.list_value_length(rows["labels"]), 0), False))  # noqa: FBT003
            position = pc.index_in(labelled["image_id"], ids)
            unseeded.add(labelled.filter(pc.is_null(position))["image_id"].to_pylist())
            classes = pc.take(seeds["classes"], position).to_pylist()
            pairs = [
                (image_id, set(labels), set(given))
                for image_id, labels, given in zip(
                    labelled["image_id"].to_pylist(), labelled["labels"].to_pylist(), classes, strict=True
                )
                if given is not None
            ]
            lacking.add([image_id for image_id, labels, given in pairs if labels - given])
            known = set(manifest.classes)
            surplus.add([image_id for image_id, labels, given in pairs if (given & known) - labels])
        unknown.add(ids.filter(pc.invert(met)).to_pylist())
        counts = pc.value_counts(pc.list_flatten(seeds["classes"]))
        return cls(
            num_images=len(ids),
            left_out=dict(list(left_out.items())[:_EXAMPLES]),
            num_left_out=len(left_out),
            unknown=unknown,
            unseeded=unseeded,
            lacking=lacking,
            surplus=surplus,
            classes=Counter({pair["values"]: pair["counts"] for pair in counts.to_pylist()}),
        )


def account_of(seen: Seen, *, source: str, manifest: str, classes: Sequence[str]) -> Account:
    """What there is to say at the end of an import."""
    account = Account()
    account.say(f"{source}: maps of {counted(seen.num_images, 'images')}")
    if seen.num_left_out:
        reasons = "; ".join(f"{shown(name)!r}: {reason}" for name, reason in seen.left_out.items())
        account.say(f"left out: {seen.num_left_out:,} that break the contract, such as {reasons}")
    told = [
        (seen.unknown, f"images that {manifest} lacks: they wait until it has them"),
        (seen.unseeded, "images with labels have no maps: a run puts them into quarantine"),
        (seen.lacking, "images have no map of one of their labels: where it is, is unknown"),
        (
            seen.surplus,
            "images have maps of classes that they aren't labelled with: not used, labels say what is there",
        ),
    ]
    for names, what in told:
        if names.number:
            account.say(f"{counted(names.number, what)}; such as {names}")
    foreign = sorted(set(seen.classes) - set(classes))
    if foreign:
        account.say(f"not used: {some(foreign, f'classes that {manifest} lacks')}{nearest(foreign[0], classes)}")
    if unmapped := [name for name in classes if name not in seen.classes]:
        account.say(some(unmapped, "classes have no map in any image"))
    return account
