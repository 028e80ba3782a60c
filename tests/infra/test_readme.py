"""infra/README.md: its commands exist, its values are filled in, its config fits the nodes; no secrets anywhere."""

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from ray.scripts.scripts import cli as ray_cli

import raypipe
from raypipe.artifacts import Artifact
from raypipe.cli import app
from raypipe.cluster.machines import Machine, parse_machine
from raypipe.cluster.trainings import plan_training
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.pipelines.context import Context, plan_pools
from raypipe.pipelines.gate import gate_plan
from raypipe.pipelines.masks import masks_plan, taking_up
from raypipe.pipelines.seeds import seeds_plan
from raypipe.pipelines.segmenter import segment_plan
from raypipe.pipelines.steps import compute_cams

REPOSITORY = Path(__file__).resolve().parent.parent.parent
INFRA = REPOSITORY / "infra"
README = (INFRA / "README.md").read_text()
FILES = [path for path in INFRA.rglob("*") if path.is_file()]
RAYCLUSTER = yaml.safe_load((INFRA / "kuberay/raycluster.yaml").read_text())["spec"]
LAUNCHER = yaml.safe_load((INFRA / "aws/cluster.yaml").read_text())

OTHER_PROGRAMS = {"aws", "base64", "bash", "curl", "df", "docker", "du", "eksctl", "env", "envsubst", "grep", "helm"}
OTHER_PROGRAMS |= {"kubectl", "nvidia-smi", "openssl", "python", "sort", "tail", "tr", ".venv/bin/pip"}
SHELL = {"export", "for", "do", "done", "fill", "fill()", "{", "}"}


def commands() -> Iterator[list[str]]:
    """Each command, as words, of the console fences and of inline code that starts with ray, raypipe or kubectl."""
    fences = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
    lines = [line for fence in fences for line in fence.replace("\\\n", " ").splitlines()]
    lines += [" ".join(code.split()) for code in inline if re.match(r"(ray|raypipe|kubectl) [a-z]", code)]
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&")
        lexer.whitespace_split, lexer.commenters = True, ""
        command: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set(";|&"):
                command.append(word)
            elif command:
                yield command
                command = []


def check(command: Any, words: list[str]) -> None:
    """Fails where words name a sub-command, an option or a choice that a command of click's doesn't have."""
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{command.name} has no {words[0]}: {sorted(command.commands)}"
        command, words = command.commands[words[0]], words[1:]
    own = words[: words.index("--")] if "--" in words else words
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.split("=")[0] for word in own if word.startswith("-")} <= options | {"--help"}, words
    arguments = [parameter for parameter in command.params if not parameter.opts[0].startswith("-")]
    choices = getattr(getattr(arguments[0], "type", None), "choices", None) if arguments else None
    assert choices is None or words[0] in choices, f"{command.name} knows {choices}"


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_command_exists(words: list[str]) -> None:
    while words and re.match(r"[A-Z_]+=", words[0]):  # VARIABLE=value command
        words = words[1:]
    if words[:1] == ["ray"]:
        check(ray_cli, words[1:])
    elif words[:1] == ["raypipe"]:
        check(typer.main.get_command(app), words[1:])
    elif words:
        assert words[0] in OTHER_PROGRAMS | SHELL
    for word in words:
        for path in re.findall(r"(?<![\w/.])infra/[\w./-]+", word):
            assert (REPOSITORY / path).is_file(), path
    if "submit" in words and "--" in words:
        python, script, *arguments = words[words.index("--") + 1 :]
        assert python == "python"
        assert (REPOSITORY / words[words.index("--working-dir") + 1] / script).is_file(), script
        check(typer.main.get_command(app), arguments)


def test_the_commands_are_found() -> None:
    starts = [words[:2] for words in commands()]
    assert starts.count(["ray", "job"]) > 5
    assert ["raypipe", "describe"] in starts


def test_placeholders_are_filled_in() -> None:
    (listed,) = re.findall(r"envsubst '([^']+)'", README)
    names = set(re.findall(r"\$(\w+)", listed))
    filled = [path for path in FILES if path.suffix in (".yaml", ".json") and path.parent.name != "grafana"]
    used = {name for path in filled for name in placeholders(path)}
    assert used == names
    exported = {name for line in re.findall(r"export (.*)", README) for name in re.findall(r"(\w+)=", line)}
    assert names <= exported


def placeholders(path: Path) -> set[str]:
    return set(re.findall(r"\$\{(\w+)\}", path.read_text()))


def test_ray_and_raypipe_are_those_of_the_repository() -> None:
    (ray,) = re.findall(r"^ray==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert RAYCLUSTER["rayVersion"] == ray
    for path in FILES:
        images = re.findall(r"raypipe:[\w.-]+", path.read_text())
        assert set(images) <= {f"raypipe:{raypipe.__version__}-ray{ray}"}, path
        for image in re.findall(r"image:(?: &\w+)? (\S+)", path.read_text()):
            ours = ("*image", "${REGISTRY}/" + f"raypipe:{raypipe.__version__}-ray{ray}")
            assert image in ours or re.fullmatch(r"fluent/fluent-bit:\d+\.\d+\.\d+", image), path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_secrets(path: Path) -> None:
    secrets = r"(AKIA|ASIA)[0-9A-Z]{16}|-----BEGIN|aws_secret_access_key|\b[0-9a-f]{32,}\b|ghp_\w+"
    assert not re.search(secrets, path.read_text(), re.IGNORECASE)
    assert not re.search(r"(TOKEN|SECRET|PASSWORD)\w*, value:", path.read_text())


def kuberay_nodes() -> Machine:
    """The nodes that raycluster.yaml asks the autoscaler for."""
    nodes = []
    for group in RAYCLUSTER["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        cpus, gpus = group["rayStartParams"]["num-cpus"], limits.get("nvidia.com/gpu", 0)
        memory = limits["memory"].removesuffix("Gi")
        nodes.append(f"nodes={group['minReplicas']}-{group['maxReplicas']},cpus={cpus},gpus={gpus},memory={memory}")
    return parse_machine(*nodes)


LAUNCHER_MEMORY = {"g6.2xlarge": 32, "g5.2xlarge": 32, "m7i.4xlarge": 64}
"""GiB of AWS's instance types."""


def launcher_nodes() -> Machine:
    """The nodes that cluster.yaml asks the autoscaler for; of types that stand in for one another the first."""
    nodes: dict[str, str] = {}
    for node in LAUNCHER["available_node_types"].values():
        if "min_workers" in node:
            has, memory = node["resources"], LAUNCHER_MEMORY[node["node_config"]["InstanceType"]]
            kind = f"cpus={has['CPU']},gpus={has.get('GPU', 0)},memory={memory}"
            nodes.setdefault(kind, f"nodes={node['min_workers']}-{node['max_workers']},{kind}")
    return parse_machine(*nodes.values())


def readme_context() -> Context:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    return Context(load_config(text, ["segmenter.enabled=true"]), Manifest.from_rows([], ["dog"]))


@pytest.mark.parametrize("nodes", [kuberay_nodes, launcher_nodes])
def test_the_config_declares_no_more_than_the_files_bring(nodes: Callable[[], Machine]) -> None:
    declared = readme_context().machine.nodes
    for node, brought in zip(declared, nodes().nodes, strict=True):
        assert (node.minimum, node.maximum, node.cpus, node.gpus) == (
            *(brought.minimum, brought.maximum),
            *(brought.cpus, brought.gpus),
        )
        assert node.memory <= brought.memory


@pytest.mark.parametrize("all_nodes", [False, True])
@pytest.mark.parametrize("nodes", [kuberay_nodes, launcher_nodes])
def test_a_run_fits_the_nodes_and_leaves_no_gpu_idle(nodes: Callable[[], Machine], *, all_nodes: bool) -> None:
    context = readme_context()
    config = context.config
    machine = nodes()
    if not all_nodes:  # before the autoscaler has brought any
        machine = Machine(tuple(replace(node, maximum=node.minimum) for node in machine.nodes))
    maps, affinity, segmenter = (Artifact(name, name) for name in ("maps", "affinity", "segmenter"))
    masks = masks_plan(context, maps=maps, affinity=affinity)
    seeds = seeds_plan(context, maps=maps)
    plans = [
        seeds,
        gate_plan(context, maps=maps, affinity=affinity),
        masks,
        taking_up(masks, seeds.artifact("out"), compute_cams(context, maps)),
        segment_plan(context, segmenter=segmenter),
    ]
    for plan in plans:
        _, resources = plan_pools(plan, machine, config)
        assert resources.idle_gpus == 0, plan.name
    for name, section in (
        ("classifier", config.classifier),
        ("affinity", config.affinity),
        ("segmenter", config.segmenter),
    ):
        training = plan_training(name, section.batch_size, machine, config.cluster, validates=name == "segmenter")
        assert training.workers == machine.gpus
        assert training.idle_gpus == 0
