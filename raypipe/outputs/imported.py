"""A folder of imported seeds: shards of maps by image, with the index of a stream's folder and no manifest's parts.

<folder>/units/*.parquet            what was found in some files of the source, so that an import goes on
<folder>/shards/all/*.parquet       maps
<folder>/index/all/, quarantine/all/    where each image's maps are; which were left out, and why
<folder>/seeds.json                 what it was imported from; written last
"""

import json

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.outputs.load import Load
from raypipe.schema import GIVEN_SEEDS

SEEDS_FILE = "seeds.json"

FORMAT = 1

PREFIX = "given_"


def seeds_digest(source: str) -> str:
    """What imported seeds are known by: where they came from. What is in them is known by each image's own digest.

    So a source that grows, or of which an image's maps are made again, changes what hangs on these images alone.
    """
    return storage.digest({"source": storage.absolute(source), "format": FORMAT})


def write_seeds_file(folder: str, *, source: str, num_images: int) -> None:
    """Says that an import into a folder is finished."""
    content = {"source": storage.absolute(source), "digest": seeds_digest(source), "num_images": num_images}
    storage.write_bytes_atomic(storage.join(folder, SEEDS_FILE), json.dumps(content, indent=1).encode())


def read_source(folder: str) -> str | None:
    """Where the seeds of a folder came from; None where no import has ended there."""
    uri = storage.join(folder, SEEDS_FILE)
    return str(json.loads(storage.read_bytes(uri))["source"]) if storage.exists(uri) else None


def find_imported(folder: str) -> Artifact:
    """The seeds that `raypipe import seeds` wrote into a folder.

    Raises:
        ValueError: it is no such folder, or its import wasn't finished.
    """
    uri = storage.join(folder, SEEDS_FILE)
    if not storage.exists(uri):
        raise ValueError(f"{folder} has no {SEEDS_FILE}: `raypipe import seeds SOURCE MANIFEST {folder}` writes it")
    return Artifact(folder, str(json.loads(storage.read_bytes(uri))["digest"]))


def load_imported(seeds: Artifact) -> Load:
    """Takes each image's maps of imported seeds."""
    return Load(outputs=seeds, columns=GIVEN_SEEDS, prefix=PREFIX, imported=True)
