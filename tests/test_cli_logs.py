"""What the command shows and what it leaves in the log: without a terminal, each line is one of raypipe's own."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raypipe import storage
from raypipe.cli_logs import Screen
from raypipe.screen.log import ray_begins

REPOSITORY = Path(__file__).resolve().parent.parent

MOST_LINES = 60

OURS = (
    *(r"\d+ images of .*: .*manifest\.parquet", r"log: .*/logs/\d{8}-\d{6}-run\.log", r"step \d of 7, \w+: .*"),
    *(
        r"starting Ray on this machine",
        r"to do: classifier, .* 24 images",
        r"labels: .*",
        r"gate: (walk|dcrf|the walk is rejected).*",
        r"masks: 24 of 24 images, none quarantined",
    ),
    *(
        r"where: .*/masks/\w{12}, whose files .*/masks\.json names",
        r"time: .* so far with these options",
        r"report: .*/report\.html",
    ),
    *(r"split  images  stage  mIoU  post-processing", r"(train|val) +\d+ +(cam|walk|dcrf) +\d+\.\d +.*"),
)
"""All that the demo says."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs that are kept go with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def raypipe(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    command = [sys.executable, "-c", "from raypipe.cli import main; main()", *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_without_a_terminal_says_what_is_ours_in_few_lines(tmp_path: Path) -> None:
    raypipe("synthetic", "data", "--num-images", "24", cwd=tmp_path)
    recipe = str(REPOSITORY / "raypipe/recipes/demo.yaml")
    small = ["classifier.epochs=1", "affinity.epochs=1", "cams.scales=[1.0]", "cluster.object_store_memory=200000000"]
    done = raypipe("run", recipe, "manifest=data/manifest.parquet", "out=run", *small, cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(lines) <= MOST_LINES, done.stdout
    assert [line for line in lines if not any(re.fullmatch(ours, line) for ours in OURS)] == []
    assert lines.count("starting Ray on this machine") == 1
    ends = [line for line in lines if re.match(r"step \d of 7, .* \d+ s$", line)]
    assert [line.split(":")[0].split()[-1] for line in ends] == [
        *("classifier", "labels", "seeds", "affinity", "gate", "masks", "scores"),
    ]
    (log,) = (tmp_path / "run/logs").iterdir()
    text = log.read_text()
    assert "Starting execution of Dataset" in text, "what Ray says is there"
    assert "is left out, as it should be" in text, "what workers remark, too"
    assert set(ends) <= {line.split("raypipe.screen.step: ")[-1] for line in text.splitlines()}
    assert "__raypipe__" not in text
    known = {line for line in lines if line.startswith(("labels: label mAP", "labels: AP by class", "gate: "))}
    assert len(known) == 4, done.stdout
    again = raypipe("report", recipe, "manifest=data/manifest.parquet", "out=run", *small, cwd=tmp_path)
    assert again.returncode == 0, again.stdout[-3000:]
    repeated = known & {*again.stdout.splitlines()}
    assert repeated == {line for line in known if "so is no judge" in line}, "a second command says no more again"
    (log,) = (tmp_path / "run/logs").glob("*-report.log")
    assert all(line in log.read_text() for line in known)


def test_a_failure_names_its_cause_and_the_log(tmp_path: Path) -> None:
    program = """
import sys
from raypipe import cli
def fail(*_, **__):
    from raypipe.cli_logs import open_log
    open_log("out")
    print("a library's remark", file=sys.stderr)
    raise ValueError("the manifest has no rows")
cli.open_run = fail
sys.argv = ["raypipe", *sys.argv[1:], "masks", "-"]
cli.main()
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    for options in ([], ["--verbose"], ["--debug"]):
        command = [sys.executable, "-c", program, *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        first, *more, error, last = done.stderr.splitlines()
        assert done.returncode != 0
        assert first == last
        log = Path(first.removeprefix("log: "))
        assert "the manifest has no rows" in error
        assert ("a library's remark" in more) == ("--verbose" in options)
        assert ("Traceback (most recent call last):" in more) == ("--debug" in options)
        text = (tmp_path / log).read_text()
        assert "a library's remark" in text
        assert "Traceback" in text
        (tmp_path / log).unlink()


def test_sigterm_is_an_interrupt_that_is_said_at_once(tmp_path: Path) -> None:
    program = """
import signal, sys
from raypipe import cli
def stopped(*_, **__):
    from raypipe.cli_logs import open_log
    open_log("out")
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        print("whatever runs is ended")
cli.open_run = stopped
sys.argv = ["raypipe", "masks", "-"]
cli.main()
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path]), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", program]
    options = {"cwd": tmp_path, "env": environment, "text": True, "check": False}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    _, *lines = done.stdout.splitlines()
    assert lines == ["interrupted; the same command goes on", "whatever runs is ended"]
    assert done.returncode == 130


def test_a_log_gets_into_the_bucket(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    screen.command = "masks"
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    screen.open_log(f"{bucket}/run")
    print("a remark", file=sys.stderr)
    screen.save()
    (uri,) = storage.list_files(f"{bucket}/run/logs")
    assert uri == screen.place
    assert re.fullmatch(r".*/logs/\d{8}-\d{6}-masks\.log", uri)
    print("another one", file=sys.stderr)
    folder = screen.handler.log.path.parent if screen.handler.log else None
    screen.close()
    assert b"a remark\nanother one\n" in storage.read_bytes(uri)
    assert folder is not None
    assert not folder.exists()


def test_a_log_that_cant_be_copied_stays_and_is_named(
    bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    screen.open_log(f"{bucket}-that-is-not-there/run")
    log = screen.handler.log
    assert log is not None
    screen.close()
    assert f"the log stays at {log.path}" in caplog.text
    assert log.path.exists()


def test_a_command_of_no_run_keeps_its_log_only_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    for fails in (False, True):
        screen = Screen()
        assert screen.handler.log is None
        ray_begins()
        log = screen.handler.log
        assert log is not None
        if fails:
            assert screen.fail(ValueError("x")) == 2
        screen.close()
        assert log.path.exists() == fails
