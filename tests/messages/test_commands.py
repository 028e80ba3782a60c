"""What commands say of places, credentials and stores that can't be used, and with which code they end."""

import errno
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import s3fs
from captured import own_words

from raypipe import storage
from raypipe.cli import main

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], jpeg: bytes
) -> Command:
    """Runs a command in a folder of odd places; returns its code and what it says."""
    monkeypatch.chdir(tmp_path)
    for name in ("folder", "folder.parquet", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "t.csv").write_text("image_uri,labels\na.jpg,cat\n")
    (tmp_path / "a.jpg").write_bytes(jpeg)
    (tmp_path / "file").write_bytes(b"\xff\xd8\xff\xe0" * 100)
    for name, manifest in (("empty", "empty"), ("absent", "absent.parquet"), ("s3", "s3://bucket/m.parquet")):
        (tmp_path / f"{name}.yaml").write_text(f"manifest: {manifest}\nout: o\n")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["raypipe", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        said = own_words(captured.err)
        assert len(said) < 1100
        return int(end.value.code or 0), said

    return run


def test_rays_lines_are_no_words_of_the_command() -> None:
    rays = "\x1b[33m(raylet)\x1b[0m [2026-01-01 00:00:00 E 1 2] /tmp/ray is over 95% full\n(Stage pid=17) deprecated\n"
    assert own_words(rays + "error: (raylet) isn't the first word\n") == "error: (raylet) isn't the first word\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run .", r"error: \. is a folder, needed is a file"),
        ("run folder/", "folder/ is a folder, needed is a file"),
        ("run absent.yml", "there is no config file absent.yml"),
        ("run file", r"file is no YAML file: it isn't text in UTF-8"),
        ("run file/config.yaml", "there is no config file file/config.yaml"),
        ("run empty.yaml", "/empty has no Parquet files"),
        ("run absent.yaml", "there is no file or folder .*/absent.parquet"),
        ("run - manifest=foldr.parquet out=o", "/foldr.parquet; the nearest name there is 'folder.parquet'. Mend"),
        ("exprt", r"^error: No such command 'exprt'\. Did you mean .*'\? `raypipe --help` lists what there is\n$"),
        ("nosuch --clases", r"^error: No such command 'nosuch'\. `raypipe --help` lists what there is\n$"),
        (
            "import table t.csv m --clases a",
            r"^error: No such option: --clases \(.*--classes.*`raypipe import table --h",
        ),
        ("explain", r"^error: Missing argument 'CONFIG'\. `raypipe explain --help`"),
        ("run - manifest=file out=o", "/file is not a Parquet file"),
        ("run - manifest=empty out=o", "/empty has no Parquet files"),
        ("describe absent.yaml --machine nodes=1,cpus=2,memory=8", "/absent.parquet"),
        ("import table folder.parquet m.parquet", "folder.parquet is a folder|holds no table"),
        ("import coco folder folder m.parquet", "/folder is a folder, needed is a file"),
        ("import coco file folder m.parquet", "file"),
        ("import folder file m.parquet", "file is a file"),
        ("import folder absent m.parquet", "no folder .*absent"),
        ("import labelstudio t.csv absent.parquet o.parquet", "absent.parquet"),
        ("import folder C:\\photos m.parquet", r"C:\\photos names a drive of Windows"),
        ("import folder nosuch://photos m.parquet", "nosuch:// can't be opened"),
        ("import table t.csv file/m.parquet", "file is a file, needed is a folder"),
        ("synthetic file/data", "file is a file, needed is a folder"),
        ("config --preset nope", "preset: got 'nope'"),
    ],
)
def test_places_that_cant_be_used(command: Command, arguments: str, said: str) -> None:
    code, found = command(*arguments.split(" "))
    assert code == 2
    assert re.search(said, found), found


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_disks_that_refuse(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    code, said = command("synthetic", "data", "--num-images", "8")
    assert code == 3
    assert f"{tmp_path}/data/" in said or "data/" in said
    assert ".tmp" not in said


def test_a_folder_in_which_no_file_can_be_made() -> None:
    with pytest.raises(PermissionError, match=r"'/proc/m\.parquet'"):
        storage.write_bytes_atomic("/proc/m.parquet", b"1")


class Store(BaseHTTPRequestHandler):
    """Answers as S3 with an error."""

    code, status = "AccessDenied", 403

    def do_GET(self) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{self.code}</Code><Message>It says so</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_GET  # noqa: N815 - http.server's names

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Sets what an S3 server answers; without it there is none."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (
        *(("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_MAX_ATTEMPTS", "1"), ("AWS_DEFAULT_REGION", "us-east-1")),
        *(("HOME", "/nonexistent"), ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def answer(code: str | None, status: int = 403) -> None:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
            if code is not None:
                monkeypatch.setattr(Store, "code", code)
                monkeypatch.setattr(Store, "status", status)
                monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")

        yield answer
        server.shutdown()
    s3fs.S3FileSystem.clear_instance_cache()


COMMANDS = (
    "import folder s3://bucket/photos m.parquet",
    "import table s3://bucket/t.csv m.parquet",
    "run s3.yaml",
    "run s3://bucket/c.yaml",
    "run - manifest=s3://bucket/m out=o",
    "synthetic s3://bucket/data --num-images 8",
)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_no_credentials(command: Command, s3: Callable[..., None], arguments: str) -> None:
    code, said = command(*arguments.split())
    assert code == 3
    assert re.match(r"error: no credentials for s3://bucket/.*AWS_ACCESS_KEY_ID.*FSSPEC_S3_ANON=true", said), said


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_store_that_isnt_there(command: Command, s3: Callable[..., None], arguments: str) -> None:
    s3(None)
    code, said = command(*arguments.split())
    assert code == 3
    assert re.match(r"error: s3://bucket/\S+ can't be reached.*AWS_ENDPOINT_URL=http://127.0.0.1:9 is right", said), (
        said
    )


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ("InvalidAccessKeyId", 403, "refuses"),
        ("AccessDenied", 403, "refuses access"),
        ("SlowDown", 503, "busy or broken"),
        ("InternalError", 500, "busy or broken"),
    ],
)
def test_a_store_that_refuses(
    command: Command, s3: Callable[..., None], arguments: str, answer: str, status: int, said: str
) -> None:
    s3(answer, status)
    code, found = command(*arguments.split())
    assert code == 3
    assert said in found
    assert "s3://bucket/" in found


@pytest.mark.parametrize("arguments", COMMANDS[:-1])
def test_a_key_that_isnt_there_is_named(command: Command, s3: Callable[..., None], arguments: str) -> None:
    s3("NoSuchKey", 404)
    code, said = command(*arguments.split())
    assert code == 2
    assert "s3://bucket/" in said


def test_tracebacks_are_for_those_who_ask(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for options, traced in (([], False), (["--debug"], True)):
        command = [sys.executable, "-c", "from raypipe.cli import main; main()", *options, "run", "."]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("error: . is a folder, needed is a file")
        assert ("Traceback" in done.stderr) == traced


def test_libraries_say_nothing_beside_the_message(tmp_path: Path) -> None:
    aws = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    aws |= {"AWS_MAX_ATTEMPTS": "1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    environment = os.environ | aws | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", "from raypipe.cli import main; main()", "import", "folder", "s3://b/photos", "m"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: s3://b/photos can't be reached")


def test_an_interrupt_says_that_nothing_is_lost(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "exists", interrupt)
    assert command("run", "s3.yaml") == (130, "interrupted; the same command goes on\n")
