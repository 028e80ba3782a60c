from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from raypipe.artifacts import NOT_IN_DIGEST, Artifact, digest, identity
from raypipe.config import Cams, Trimaps


@dataclass(kw_only=True)
class Inner:
    beta: float = 8.0
    where: str = field(default="here", metadata=NOT_IN_DIGEST)


@dataclass(kw_only=True)
class Outer:
    inner: Inner
    maps: Artifact
    cams: Cams
    splits: tuple[str, ...] | None = None
    loaded: Any = field(init=False, default=None)


@dataclass(kw_only=True)
class Other(Outer):
    pass


OUTER = Outer(inner=Inner(), maps=Artifact("a", "123"), cams=Cams())


def test_identity_by_hand() -> None:
    cams = {"scales": [1.0, 0.5, 1.5, 2.0], "out_stride": 4}
    inner = {"class": "Inner", "beta": 8.0}
    assert identity(OUTER) == {"class": "Outer", "inner": inner, "maps": "123", "cams": cams, "splits": None}


@pytest.mark.parametrize(
    "same",
    [
        replace(OUTER, maps=Artifact("elsewhere", "123")),
        replace(OUTER, inner=Inner(where="there")),
        replace(OUTER, cams=Cams(out_stride=4)),
    ],
    ids=["another place", "a field that changes nothing", "a default that is given"],
)
def test_what_changes_no_byte_changes_no_digest(same: Outer) -> None:
    assert digest(same) == digest(OUTER)


@pytest.mark.parametrize(
    "other",
    [
        replace(OUTER, maps=Artifact("a", "124")),
        replace(OUTER, inner=Inner(beta=4.0)),
        replace(OUTER, cams=Cams(out_stride=1)),
        replace(OUTER, splits=()),
        Other(inner=Inner(), maps=OUTER.maps, cams=Cams()),
        [OUTER],
    ],
    ids=["another artifact", "a field within", "a section's value", "empty isn't null", "another class", "a list"],
)
def test_what_may_change_a_byte_changes_the_digest(other: Any) -> None:
    assert digest(other) != digest(OUTER)


def test_what_is_loaded_is_no_part_of_it() -> None:
    loaded = replace(OUTER)
    loaded.loaded = np.zeros(3)
    assert digest(loaded) == digest(OUTER)


def test_order_counts_in_lists_alone() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a", "b"}) == digest(frozenset({"b", "a"})) == digest(["a", "b"])
    assert digest(["b", "a"]) == digest(("b", "a")) != digest(["a", "b"])


@pytest.mark.parametrize("value", [np.zeros(3), np.float32(1), object(), len, Trimaps, b"bytes", {"a": [np.int64(1)]}])
def test_what_has_no_identity_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="has no identity: a digest can't hold"):
        digest(value)


def test_a_digest_is_the_same_in_every_process() -> None:
    """A set's order is another one in each."""
    assert digest([OUTER, {"e", "c", "a", "b", "d"}]) == "5eb0b98f2e6b"
