"""What `datasets` says of a Parquet file's columns, in the schema's metadata."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

_KEY = b"huggingface"


def features_of(schema: pa.Schema) -> dict[str, Any]:
    """What `datasets` says of the columns; empty where it says nothing."""
    encoded = (schema.metadata or {}).get(_KEY)
    features = json.loads(encoded).get("info", {}).get("features") if encoded else None
    return features if isinstance(features, dict) else {}


def kind_of(feature: Any) -> str | None:
    """The type of a feature, such as `ClassLabel`."""
    return feature.get("_type") if isinstance(feature, dict) else None


def class_names(features: Mapping[str, Any], column: str) -> list[str] | None:
    """The names of a column's class numbers, if `datasets` has kept them."""
    return _names_in(features, [column] if column in features else column.split("."))


def _names_in(feature: Any, path: Sequence[str]) -> list[str] | None:
    """The class names at a path in a description of columns; descriptions of lists have no name of their own."""
    if isinstance(feature, list):
        return _names_in(feature[0], path) if feature else None
    if not isinstance(feature, dict):
        return None
    if kind_of(feature) == "ClassLabel":
        return None if path else [str(name) for name in feature["names"]]
    if isinstance(kind_of(feature), str) and "feature" in feature:
        return _names_in(feature["feature"], path)
    return _names_in(feature.get(path[0]), path[1:]) if path else None
