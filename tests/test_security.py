"""Measures that SECURITY.md names, where no other test proves them; and that it names tests that there are."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import png_of

from raypipe.config import ConfigError, load_config
from raypipe.data.checkpoints import METADATA_FILE, WEIGHTS_FILE, CheckpointError, read_checkpoint
from raypipe.data.manifest import Manifest
from raypipe.networks import build_classifier, load_weights
from raypipe.storage import absolute, read_bytes
from raypipe.tensors import load_tensors

REPOSITORY = Path(__file__).resolve().parent.parent
URI = "s3://AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG@bucket/key"
SECRET = "wJalrXUtnFEMI"  # noqa: S105 - a made-up one


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def checkpoint(classifier_uri: str, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    for name in (WEIGHTS_FILE, METADATA_FILE):
        (tmp_path / name).write_bytes((Path(classifier_uri) / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_in_a_checkpoint_is_refused_and_does_not_run(checkpoint: Path, zipped: bool) -> None:
    mark = checkpoint / "ran"
    torch.save(
        {"fc8.weight": torch.zeros(1), "trap": Trap(mark)},
        checkpoint / WEIGHTS_FILE,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(CheckpointError, match="it could run code"):
        read_checkpoint(str(checkpoint), task="classifier")
    with pytest.raises(ValueError, match="it could run code"):
        load_weights(build_classifier("tiny", num_classes=2), checkpoint / WEIGHTS_FILE, read=read_bytes)
    assert not mark.exists()
    torch.load(checkpoint / WEIGHTS_FILE, weights_only=False)
    assert mark.exists(), "the trap itself is broken"


def test_an_error_never_advises_to_run_the_code(tmp_path: Path) -> None:
    torch.save(Trap(tmp_path / "ran"), tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="it could run code") as refused:
        load_tensors((tmp_path / "trap.pt").read_bytes(), source="trap.pt")
    assert "weights_only" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (METADATA_FILE, b"{", "is no JSON"),
        (METADATA_FILE, b"[]", "expected .*backbone"),
        (METADATA_FILE, b'{"task": "classifier"}', "expected .*backbone"),
        (WEIGHTS_FILE, b"", "copy the checkpoint again"),
        (WEIGHTS_FILE, b"PK\3\4 and nothing else", "copy the checkpoint again"),
        (WEIGHTS_FILE, None, "No such file"),
    ],
)
def test_a_damaged_checkpoint_says_so(checkpoint: Path, name: str, content: bytes | None, message: str) -> None:
    (checkpoint / name).unlink()
    if content is not None:
        (checkpoint / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(str(checkpoint), task="classifier")


def test_weights_that_were_exchanged_are_noticed(checkpoint: Path) -> None:
    weights = torch.load(checkpoint / WEIGHTS_FILE, weights_only=True)
    weights["fc8.weight"][0] += 1
    torch.save(weights, checkpoint / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match="the weights have digest"):
        read_checkpoint(str(checkpoint), task="classifier")
    torch.save([1], checkpoint / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        read_checkpoint(str(checkpoint), task="classifier")


def test_damaged_weights_are_one_error() -> None:
    source = json.dumps({"a": 1}).encode()
    for length in range(len(source)):
        with pytest.raises(ValueError, match="can't be read as PyTorch weights"):
            load_tensors(source[:length], source="damaged.pt")


FORBIDDEN = re.compile(
    r"(\w*pickle|marshal|shelve|joblib|dill)\.\w*([Ll]oads?|open|Unpickler)"
    r"|yaml\.(load|unsafe_load|full_load)(_all)?|os\.(system|popen)|eval|exec|__import__"
)


def dangers(source: str) -> list[str]:
    """Calls in Python source that run what data says, with their line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            if (
                FORBIDDEN.fullmatch(name)
                or (name in ("np.load", "numpy.load") and options.get("allow_pickle") != "False")
                or (name == "torch.load" and options.get("weights_only") != "True")
                or options.get("shell") == "True"
                or options.get("allow_pickle") == "True"
            ):
                found.append(f"line {node.lineno}: {name}")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "pickle.loads(data)",
        "cloudpickle.load(file)",
        "np.load(path)",
        "numpy.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_search_for_dangers_finds_them(source: str) -> None:
    assert dangers(source)
    assert not dangers(
        "np.load(path, allow_pickle=False); torch.load(path, weights_only=True); network.eval(); yaml.safe_load(text)"
    )


OWN = {"raypipe/streams/job.py": "what a driver sends its workers: Ray unpickles all else that it sends them, too"}


@pytest.mark.parametrize("folder", ["raypipe", "jobs", "benchmarks"])
def test_no_data_is_ever_run(folder: str) -> None:
    files = list((REPOSITORY / folder).rglob("*.py"))
    assert files
    found = {path.relative_to(REPOSITORY).as_posix(): dangers(path.read_text()) for path in files}
    assert {path: calls for path, calls in found.items() if calls and path not in OWN} == {}


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="isn't YAML"):
        load_config(f"out: !!python/object/apply:os.mkdir ['{tmp_path}/ran']")
    assert not (tmp_path / "ran").exists()


def test_a_pixel_bomb_costs_no_memory(tmp_path: Path) -> None:
    """A real one, of 18 KB; in a process of its own, whose largest size is known."""
    (tmp_path / "bomb.png").write_bytes(png_of(12_000, 12_000))
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from raypipe.data.images import decode_image; from raypipe.data.opening import ImageError\n"
        "data, before = Path(sys.argv[1]).read_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: decode_image(data)\n"
        "except ImageError: print(len(data), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "bomb.png"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    size, kilobytes = map(int, done.stdout.split())
    assert size < 30_000
    assert kilobytes < 20_000


@pytest.mark.parametrize("name", ["manifest", "out", "checkpoints.classifier", "network.weights", "cluster.address"])
def test_credentials_in_a_config_are_refused_and_not_quoted(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} holds credentials .*AWS_SECRET_ACCESS_KEY") as refused:
        load_config("", ["manifest=m.parquet", "out=out", f"{name}={URI}"])
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("name", ["image_uri", "mask_uri", "saliency_uri"])
def test_credentials_in_a_manifest_are_refused_and_not_quoted(name: str) -> None:
    rows = [{"image_id": "a", "image_uri": "s3://bucket/a@2x.jpg"}, {"image_id": "b", name: URI}]
    with pytest.raises(ValueError, match=rf"{name} of row 1 \(counted from 0\) holds credentials") as refused:
        Manifest.from_rows(rows, ["cat"])
    assert SECRET not in str(refused.value)


def test_credentials_in_any_other_uri_are_refused_and_not_quoted() -> None:
    for call in (read_bytes, absolute):
        with pytest.raises(ValueError, match="holds credentials") as refused:
            call(URI)
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/a:b@c.jpg",
        "https://host:8080/a@2x.jpg",
        "https://host/a:b@c",
        "abfs://container@account.dfs.core.windows.net/a:b",
        "/a:b@c.jpg",
        "a@b:c.jpg",
        "hdfs://user@host:8020/a@b",
    ],
)
def test_uris_that_look_a_little_like_credentials_are_fine(uri: str) -> None:
    Manifest.from_rows([{"image_id": "a", "image_uri": uri}], ["cat"])


def test_every_test_that_security_md_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (REPOSITORY / "SECURITY.md").read_text())
    assert len(named) > 10
    for file, test in named:
        assert f"\ndef {test}(" in (REPOSITORY / file).read_text(), f"{file}::{test}"
