"""What the proxy refuses as S3 does, and what s3fs makes of it."""

import sys
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import s3fs
from servers.faulty_proxy import refusal

from raypipe.faults import blame

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PROXY = Path(__file__).parent / "faulty_proxy.py"


def signed(key: str, date: datetime) -> dict[str, str]:
    credential = (
        f"AWS4-HMAC-SHA256 Credential={key}/20260301/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    )
    return {"Authorization": credential, "x-amz-date": f"{date:%Y%m%dT%H%M%SZ}"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        (signed("good", NOW), None),
        (signed("good", NOW - timedelta(minutes=14)), None),
        (signed("good", NOW - timedelta(minutes=16)), "RequestTimeTooSkewed"),
        (signed("good", NOW + timedelta(minutes=16)), "RequestTimeTooSkewed"),
        (signed("bad", NOW), "InvalidAccessKeyId"),
        ({}, "AccessDenied"),
    ],
)
def test_it_refuses_other_keys_and_clocks_that_are_off(headers: dict[str, str], code: str | None) -> None:
    assert refusal(headers, key="good", clock=True, now=NOW) == code
    assert refusal(headers, key=None, clock=False, now=NOW) is None


def test_s3fs_gets_errors_that_are_blamed_on_the_node(
    s3_url: str, bucket: str, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(sys.executable, str(PROXY), "--upstream", s3_url, "--rate", "0", "--keys", "test", "--clock")
    good = s3fs.S3FileSystem(endpoint_url=url, key="test", secret="testtest", use_listings_cache=False)  # noqa: S106
    good.pipe_file(f"{bucket}/a", b"text")
    assert good.cat_file(f"{bucket}/a") == b"text"
    bad = s3fs.S3FileSystem(endpoint_url=url, key="other", secret="testtest", use_listings_cache=False)  # noqa: S106
    with pytest.raises(PermissionError) as caught:
        bad.cat_file(f"{bucket}/a")
    assert blame(caught.value) == "node"
    with urllib.request.urlopen(f"{url}/-/refused") as answer:  # noqa: S310 - loopback
        assert b"127.0.0.1 InvalidAccessKeyId" in answer.read()
