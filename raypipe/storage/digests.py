"""Digests of values and bytes."""

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """Returns a digest (12 hex digits) of a JSON-serialisable value, which doesn't depend on the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def bytes_digest(data: bytes) -> str:
    """Returns a digest (12 hex digits) of bytes."""
    return hashlib.sha256(data).hexdigest()[:12]
