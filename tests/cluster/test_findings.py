import pytest

from raypipe.cluster.findings import Finding, from_places, size_text, time_text, to_text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 * 2**30, "5.0 GiB"), (2**51, "2,048.0 TiB")]
)
def test_sizes(size: float, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("hours", "text"), [(0.01, "36 seconds"), (0.5, "30 minutes"), (2.5, "2.5 hours"), (1234.5, "1,234 hours")]
)
def test_times(hours: float, text: str) -> None:
    assert time_text(hours) == text


def test_what_many_machines_say_is_said_once() -> None:
    reasons = {f"n{index}": "denied" for index in range(50)} | {"the driver": "absent"}
    assert from_places(reasons) == "from n0, n1, n2 and 47 more: denied; from the driver: absent"


def test_a_line_for_each_check_and_the_way_out_of_what_is_wrong() -> None:
    findings = [
        Finding(check="out", status="ok", found="well"),
        Finding(check="manifest", status="problem", found="none", needed="one", way_out="write it"),
    ]
    assert to_text(findings).splitlines() == [
        "ok       out       well",
        "problem  manifest  none",
        "         needed: one",
        "         way out: write it",
    ]
