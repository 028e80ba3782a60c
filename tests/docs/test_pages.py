"""The commands of each page, from top to bottom, as they stand there, on a small synthetic set.

The pages' configs are what the test writes as their files, made small: the tiny network, few steps, no GPU.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from doc_pages import NOT_RUN, PAGES, REPOSITORY, blocks, commands
from omegaconf import OmegaConf
from PIL import Image
from saliency_models import onnx_model
from scribbles import write_scribbles

from raypipe import storage
from raypipe.data.parts import read_manifest
from raypipe.synthetic.generate import generate

BIN = Path(sys.executable).parent
NUM_IMAGES = 24
ODD_NAMES = ("IMG {}.jpg", "holiday 2024/Straße #{}.jpg", "猫 {}.JPG", "50% {} (1).jpg")

SMALL = """
preset: demo
splits: { train: null, masks: null }
evaluation: { splits: null }
network: { backbone: tiny, weights: null, preprocessing: null }
classifier: { epochs: 1, crop_size: 96, long_side: [96, 128] }
affinity: { epochs: 1, crop_size: 96 }
segmenter: { start: classifier, epochs: 1, crop_size: 96, long_side: [96, 128] }
cams: { scales: [1.0] }
calibration: { num_images: 8 }
sweep: { alphas: [4, 16], betas: [8], steps: [0, 8], num_images: 12 }
cluster:
  { object_store_memory: 314572800, rows_per_block: 8, cpu_actors: null, network_actors: null, gpus_per_actor: 0,
    train_workers: null, gpus_per_train_worker: 0 }
"""
"""What the test lays over each page's config."""


class Workspace:
    """A folder with what the pages presuppose."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        generate(str(folder / "synthetic"), num_images=NUM_IMAGES, sizes=(96, 128))
        self.order_ids_by_name()
        rows = self.rows()
        with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["file", "labels", "mask_uri"])
            for number, row in enumerate(rows):
                name = "IMG_0001.jpg" if number == 4 else ODD_NAMES[number % len(ODD_NAMES)].format(number)
                (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(row["image_uri"], folder / "photos" / name)
                table.writerow([name, "" if number == 0 else "|".join(row["labels"]), row["mask_uri"]])
        broken = folder / "photos" / ODD_NAMES[1].format(1)
        broken.write_bytes(broken.read_bytes()[:300])

    def rows(self) -> list[dict[str, str]]:
        return read_manifest(str(self.folder / "synthetic/manifest.parquet")).table.to_pylist()  # type: ignore[no-any-return]

    def order_ids_by_name(self) -> None:
        """Gives the masks the ids that a table of names means, which says no order: that of the names."""
        classes = read_manifest(str(self.folder / "synthetic/manifest.parquet")).classes
        new_ids = np.arange(256, dtype=np.uint8)
        new_ids[1 : len(classes) + 1] = [sorted(classes).index(name) + 1 for name in classes]
        for row in self.rows():
            path = Path(row["mask_uri"].removeprefix("file://"))
            Image.fromarray(new_ids[np.asarray(Image.open(path))]).save(path)

    def write_config(self, page: Path) -> None:
        """The page's config with small networks; own-data.md's where it has none."""
        pages = {path.name: path for path in PAGES}
        whole = [
            block for path in (page, pages["own-data.md"]) for block in blocks(path, "yaml") if "manifest:" in block
        ]
        merged = OmegaConf.merge(OmegaConf.create(whole[0]), OmegaConf.create(SMALL))
        if page.name == "seeds.md":  # without a classifier, frozen features want pretrained weights: tiny has none
            merged.walk.affinity = "learned"
        (self.folder / f"{'cluster' if page.name == 'cluster.md' else 'config'}.yaml").write_text(
            OmegaConf.to_yaml(merged)
        )

    def run(self, command: str) -> None:
        """A line, as a shell runs it."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("docs"))


def salient_table(workspace: Workspace) -> None:
    """`salient.csv`, with true masks for saliency maps, and weights of a saliency network."""
    lines = ["image_uri,labels,saliency_uri"]
    (workspace.folder / "saliency").mkdir(exist_ok=True)
    for row in workspace.rows():
        mask = np.asarray(Image.open(row["mask_uri"]))
        path = workspace.folder / "saliency" / f"{row['image_id']}.png"
        Image.fromarray(((mask > 0) * 255).astype(np.uint8)).save(path)
        lines.append(f"{row['image_uri']},{'|'.join(row['labels'])},saliency/{path.name}")
    (workspace.folder / "salient.csv").write_text("\n".join(lines) + "\n")
    (workspace.folder / "isnet.onnx").write_bytes(onnx_model())


def corrected_export(workspace: Workspace) -> None:
    """`export.json`, as Label Studio would write it: predictions that someone accepted. `annotations.json` of COCO."""
    tasks = json.loads((workspace.folder / "tasks/tasks-00000.json").read_text())
    export = [
        {"data": task["data"], "annotations": task["predictions"]} for task in tasks[::2]
    ]  # half is left as it was
    (workspace.folder / "export.json").write_text(json.dumps(export))
    workspace.run("raypipe export config.yaml coco coco-of-someone/")
    shutil.copy(workspace.folder / "coco-of-someone/annotations/train.json", workspace.folder / "annotations.json")


def tag_tables(workspace: Workspace) -> None:
    """`tags.csv`, a row a tag; `hot.csv`, a column a class; `more.csv`, an image that isn't in it."""
    with (workspace.folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    tags, hot = ["file,tag,confidence"], ["file,frog,snake"]
    for number, row in enumerate(rows):
        names = row["labels"].split("|")
        tags += [f"{row['file']},{name},{0.98 if name else 0}" for name in (*names, "unsure")]
        if number:
            hot.append(f"{row['file']},{int('frog' in names)},{int('snake' in names)}")
    (workspace.folder / "tags.csv").write_text("\n".join(tags) + "\n")
    (workspace.folder / "hot.csv").write_text("\n".join(hot) + "\n")
    (workspace.folder / "more.csv").write_text(f"file,labels\n{rows[0]['file']},toad|frog\n")


def new_photograph(workspace: Workspace) -> None:
    """`new.csv`, of a photograph that came later."""
    with (workspace.folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[2]
    shutil.copy(workspace.folder / "photos" / row["file"], workspace.folder / "photos/new.jpg")
    (workspace.folder / "new.csv").write_text(f"file,labels\nnew.jpg,{row['labels']}\n")


def scribbles(workspace: Workspace) -> None:
    """`scribbles.json` of one row of each class's pixels, and the page's programs, the first of which is run."""
    (page,) = (page for page in PAGES if page.name == "seeds.md")
    programs = blocks(page, "python")
    write_scribbles(workspace.folder / "scribbles.json", "manifest.parquet", folder=workspace.folder)
    (workspace.folder / "scribbles.py").write_text(programs[0])
    (workspace.folder / "contrast.py").write_text(programs[1])
    workspace.run("python scribbles.py")


BEFORE: dict[str, Callable[[Workspace], None]] = {
    "raypipe import table salient.csv": salient_table,
    "raypipe import labelstudio": corrected_export,
    "raypipe import seeds": scribbles,
    "raypipe import table tags.csv": tag_tables,
    "raypipe import table new.csv": new_photograph,
}
"""What a command presupposes that a person brings."""

# README.md names the same commands as the pages, with places of its own; test_commands.py parses them.
OTHERS = ("README.md", "cluster.md", "cluster-walk.md", "file-formats.md")
"""Pages of which tests of their own run the commands: test_imports.py those of file-formats.md. That of a whole walk on
a cluster has the commands of cluster.md, between those that need one."""
RUNNABLE = [page for page in PAGES if page.name not in OTHERS and [*commands(page)]]


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    "page", sorted(RUNNABLE, key=lambda page: page.name != "own-data.md"), ids=lambda page: page.name
)
def test_page(page: Path, workspace: Workspace) -> None:
    if not (workspace.folder / "manifest.parquet").exists():  # the other pages come after own-data.md
        workspace.run("raypipe import table labels.csv manifest.parquet --images photos/ --image-column file")
    workspace.write_config(page)
    for command in commands(page):
        for beginning, prepare in BEFORE.items():
            if command.text.startswith(beginning):
                prepare(workspace)
        assert not command.text.startswith(tuple(NOT_RUN)), command
        workspace.run(command.text)
        if command.text.endswith("> config.yaml"):
            workspace.write_config(page)  # the small one
    if page.name == "own-data.md":
        found = json.loads((workspace.folder / "coco/annotations/train.json").read_text())
        assert len(found["images"]) == NUM_IMAGES - 2  # one is broken, one has no labels
        assert found["annotations"]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_cluster_page(workspace: Workspace, s3_url: str) -> None:
    """On a bucket server and one machine."""
    (page,) = (page for page in PAGES if page.name == "cluster.md")
    workspace.write_config(page)
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    for bucket in ("my-photos", "my-masks"):
        fs.mkdir(bucket)
    fs.put(f"{workspace.folder}/photos/", "my-photos/", recursive=True)
    for file, uri in (
        ("labels.csv", "s3://my-photos/labels.csv"),
        ("cluster.yaml", "s3://my-masks/first/cluster.yaml"),
    ):
        storage.write_bytes_atomic(uri, (workspace.folder / file).read_bytes())
    for command in commands(page):
        if submitted := re.search(r"^ray job submit .* jobs/submit\.py (.+)", command.text):
            workspace.run(f"raypipe {submitted[1]}")  # what is exported later has to be there
        elif not command.text.startswith(tuple(NOT_RUN)):
            workspace.run(command.text)
    assert storage.exists("s3://my-masks/first/coco/annotations/train.json")
    for bucket in ("my-photos", "my-masks"):
        fs.rm(bucket, recursive=True)
