"""What `ray job submit --working-dir .` uploads, by Ray's own function."""

from pathlib import Path
from zipfile import ZipFile

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def test_uploads_the_code_and_what_lies_beside_it(tmp_path: Path) -> None:
    kept = {"jobs/submit.py", "raypipe/cli.py", "raypipe/recipes/psa.yaml", "config.yaml", "manifest.parquet"}
    left = {".git/HEAD", ".venv/bin/python", "demo/data/1.jpg", "runs/a/1.parquet", "tests/data/1.jpg", "net.pth"}
    left |= {"benchmarks/a.json", "infra/README.md", "raypipe/__pycache__/cli.pyc", "weights/resnet.pt"}
    clone = tmp_path / "clone"
    for name in kept | left:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(name)
    for name in (".gitignore", ".rayignore"):
        (clone / name).write_text((REPOSITORY / name).read_text())
    package = tmp_path / "package.zip"
    create_package(str(clone), package, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    files = {name for name in ZipFile(package).namelist() if not name.endswith("/")}
    assert files == kept | {".gitignore", ".rayignore"}
