"""infra/aws against the checks of `ray up`, and its rights against what is needed."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli

REPOSITORY = Path(__file__).resolve().parent.parent.parent
AWS = REPOSITORY / "infra/aws"
CONFIG = yaml.safe_load((AWS / "cluster.yaml").read_text())
NODES = CONFIG["available_node_types"]
SETUP = CONFIG["setup_commands"] + CONFIG["head_setup_commands"]


def statements(name: str) -> list[dict[str, Any]]:
    """A policy's statements, with lists of actions and resources."""
    policy = json.loads((AWS / name).read_text())
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        for key in ("Action", "Resource"):
            statement[key] = statement[key] if isinstance(statement[key], list) else [statement[key]]
    return policy["Statement"]


def test_ray_up_takes_the_config() -> None:
    validate_config(prepare_config(CONFIG))


def test_head_is_on_demand_and_workers_are_spot() -> None:
    markets = {name: node["node_config"].get("InstanceMarketOptions") for name, node in NODES.items()}
    assert markets == {"head": None, "gpu": {"MarketType": "spot"}, "cpu": {"MarketType": "spot"}}
    assert NODES[CONFIG["head_node_type"]]["resources"] == {"CPU": 0}
    assert sum(node.get("max_workers", 0) for node in NODES.values()) <= CONFIG["max_workers"]


@pytest.mark.parametrize("name", NODES)
def test_node_has_a_role_and_no_more(name: str) -> None:
    node = NODES[name]["node_config"]
    assert node["IamInstanceProfile"] == {"Name": "raypipe-head" if name == "head" else "raypipe-worker"}
    assert node["MetadataOptions"] == {"HttpTokens": "required"}
    assert node["SecurityGroupIds"] == ["${SECURITY_GROUP}"], "Ray's own group opens SSH to everybody"
    assert all(device["Ebs"]["Encrypted"] for device in node["BlockDeviceMappings"])


def test_ray_starts_with_the_token_and_the_dashboard_on_loopback() -> None:
    (head,) = (line for line in CONFIG["head_start_ray_commands"] if "ray start" in line)
    (worker,) = (line for line in CONFIG["worker_start_ray_commands"] if "ray start" in line)
    assert "--dashboard-host=127.0.0.1" in head
    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in worker
    assert "~/.ray/auth_token" in CONFIG["file_mounts"]
    known = {option for parameter in ray_cli.commands["start"].params for option in parameter.opts}
    for line in (head, worker):
        assert {word.split("=")[0] for word in shlex.split(line) if word.startswith("--")} <= known


def test_nodes_install_the_package_with_constraints() -> None:
    local = {path for path in CONFIG["file_mounts"].values() if not path.startswith("~")}
    assert local >= {"pyproject.toml", "constraints.txt", "raypipe"}
    assert all((REPOSITORY / path).exists() for path in local)
    installs = [line for line in SETUP if "uv pip install" in line]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in line for line in installs)


def test_uv_and_python_are_the_images() -> None:
    text = "\n".join(SETUP)
    dockerfile = (REPOSITORY / "infra/Dockerfile").read_text()
    assert re.findall(r"uv==([\d.]+)", text) == re.findall(r"/uv:([\d.]+)", dockerfile)
    assert re.findall(r"--python (\d[\d.]*)", text) == re.findall(r"--python (\d[\d.]*)", dockerfile)


@pytest.mark.parametrize("name", ["iam-policy.json", "iam-policy-launcher.json"])
def test_policy_names_each_action(name: str) -> None:
    for statement in statements(name):
        assert statement["Effect"] == "Allow"
        assert all(re.fullmatch(r"(s3|ec2|iam):[A-Za-z]+", action) for action in statement["Action"])
        if "*" in statement["Resource"]:
            assert all(action.startswith("ec2:Describe") for action in statement["Action"]), "these know no resource"


def test_data_policy_writes_to_the_output_alone() -> None:
    source, output = "arn:aws:s3:::${SOURCE_BUCKET}", "arn:aws:s3:::${OUTPUT_BUCKET}"
    images, results = f"{source}/${{SOURCE_PREFIX}}/*", f"{output}/${{OUTPUT_PREFIX}}/*"
    resources: dict[str, set[str]] = {}
    for statement in statements("iam-policy.json"):
        for action in statement["Action"]:
            resources.setdefault(action, set()).update(statement["Resource"])
            if action == "s3:ListBucket":
                assert statement["Condition"]["StringLike"]["s3:prefix"]
    assert resources == {
        "s3:ListBucket": {source, output},
        "s3:GetBucketLocation": {output},  # s3fs asks for it before it makes a folder
        "s3:GetObject": {images, results},
        "s3:PutObject": {results},
        "s3:DeleteObject": {results},
        "s3:AbortMultipartUpload": {results},
    }


def test_launcher_policy_ends_its_own_nodes_and_gives_the_workers_role_alone() -> None:
    found = {
        action: statement for statement in statements("iam-policy-launcher.json") for action in statement["Action"]
    }
    own = {"StringEquals": {"aws:ResourceTag/ray-cluster-name": CONFIG["cluster_name"]}}
    assert found["ec2:TerminateInstances"]["Condition"] == own
    assert found["iam:PassRole"]["Resource"] == ["arn:aws:iam::${AWS_ACCOUNT}:role/raypipe-worker"]
