from typing import Any, ClassVar

import fsspec
import pytest
from fsspec import AbstractFileSystem

from raypipe import storage
from raypipe.faults import blame
from raypipe.storage import explain


class Guarded(AbstractFileSystem):
    """A store that refuses what is secret, or, once the rights are gone, everything."""

    protocol = "guarded"
    cachable = False
    revoked: ClassVar[bool] = False

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        if self.revoked or "secret" in path:
            error = PermissionError("Access Denied")
            error.__cause__ = Denied()
            raise error
        return b"content"[start:end]


class Denied(Exception):  # noqa: N818 - botocore has its name
    """As botocore's ClientError."""

    response: ClassVar[dict[str, Any]] = {
        "Error": {"Code": "AccessDenied"},
        "ResponseMetadata": {"HTTPStatusCode": 403},
    }


def test_one_refused_object_is_its_own_fault_and_all_of_them_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("guarded", Guarded, clobber=True)
    monkeypatch.setattr(explain, "_readable", {})

    def blamed(*names: str) -> list[str]:
        found = storage.read_many([f"guarded://bucket/{name}" for name in names]).values()
        return ["read" if isinstance(content, bytes) else blame(content) for content in found]

    assert blamed("secret") == ["node"], "nothing says that this machine may read anything"
    assert blamed("a", "secret") == ["read", "row"]
    assert blamed("secret") == ["row"], "the other one can still be read"
    monkeypatch.setattr(Guarded, "revoked", True)
    assert blamed("a", "secret") == ["node", "node"]
