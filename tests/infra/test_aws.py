"""infra/aws against the checks of `ray up`, and its rights against what is needed."""

import json
import os
import re
import shlex
import subprocess
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
    assert markets.pop("head") is None
    assert markets.keys() == {"gpu", "gpu-a10g", "cpu"}
    assert all(market == {"MarketType": "spot"} for market in markets.values())
    assert NODES[CONFIG["head_node_type"]]["resources"] == {"CPU": 0}
    assert sum(node.get("max_workers", 0) for node in NODES.values()) <= CONFIG["max_workers"]


@pytest.mark.parametrize("name", NODES)
def test_node_has_a_role_and_no_more(name: str) -> None:
    node = NODES[name]["node_config"]
    assert node["IamInstanceProfile"] == {"Name": "raypipe-head" if name == "head" else "raypipe-worker"}
    assert node["MetadataOptions"] == {"HttpTokens": "required"}
    assert node["SubnetIds"] == ["${SUBNET_A}", "${SUBNET_B}"], "where one zone has no such nodes left, the other may"
    assert node["SecurityGroupIds"] == ["${SECURITY_GROUP}"], "Ray's own group opens SSH to everybody"
    assert all(device["Ebs"]["Encrypted"] for device in node["BlockDeviceMappings"])


def test_ray_starts_with_the_token_and_the_dashboard_on_loopback() -> None:
    (head,) = (line for line in CONFIG["head_start_ray_commands"] if "ray start" in line)
    (worker,) = (line for line in CONFIG["worker_start_ray_commands"] if "ray start" in line)
    assert "--metrics-export-port=8080" in head
    assert "--metrics-export-port=8080" in worker
    assert "--dashboard-host=127.0.0.1" in head
    assert "RAY_AUTH_MODE=token" in head
    assert "RAY_AUTH_MODE=token" in worker
    assert "~/.ray/auth_token" in CONFIG["file_mounts"]
    known = {option for parameter in ray_cli.commands["start"].params for option in parameter.opts}
    for line in (head, worker):
        assert {word.split("=")[0] for word in shlex.split(line) if word.startswith("--")} <= known


def test_several_kinds_of_gpus_are_alike_for_ray() -> None:
    gpus = [node for node in NODES.values() if node["resources"].get("GPU")]
    assert len({node["node_config"]["InstanceType"] for node in gpus}) == len(gpus) > 1
    assert all(node["resources"] == gpus[0]["resources"] for node in gpus)


@pytest.mark.parametrize("name", ["drain-on-notice.sh", "ship-logs.sh"])
def test_script_is_copied_started_in_the_background_and_can_be_read(name: str) -> None:
    assert CONFIG["file_mounts"][f"~/{name}"] == f"infra/aws/{name}"
    starts = CONFIG["head_start_ray_commands"] + CONFIG["worker_start_ray_commands"]
    (start,) = (line for line in starts if name in line)
    assert start.endswith("< /dev/null &"), "ssh would wait for it"
    assert "setsid" in start
    assert os.access(AWS / name, os.X_OK)
    subprocess.run(["bash", "-n", str(AWS / name)], check=True)


def test_a_notice_drains_the_node(tmp_path: Path) -> None:
    """With a `curl` that answers as EC2 does on a spot node that will be taken, and a `ray` that notes its options."""
    for name, text in {"curl": "exit 0", "sleep": "exit 0", "ray": f'printf "%s\\n" "$@" > {tmp_path}/options'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = (AWS / "drain-on-notice.sh").read_text().replace("9> /", f"9> {tmp_path}/")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "script.sh").write_text(script)
    command = ["bash", str(tmp_path / "script.sh"), str(tmp_path / "ray"), "10.0.0.1:6379"]
    subprocess.run(command, check=True, timeout=20, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    step, *options = (tmp_path / "options").read_text().splitlines()
    assert step == "drain-node"
    drain = ray_cli.commands["drain-node"]
    drain.make_context("drain-node", [*options])  # parses them, and empties the list
    assert options[options.index("--address") + 1] == "10.0.0.1:6379"


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


@pytest.mark.parametrize("name", ["iam-policy.json", "iam-policy-kms.json", "iam-policy-launcher.json"])
def test_policy_names_each_action(name: str) -> None:
    for statement in statements(name):
        assert statement["Effect"] == "Allow"
        assert all(re.fullmatch(r"(s3|ec2|iam|kms):[A-Za-z]+", action) for action in statement["Action"])
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


def test_kms_policy_is_for_s3_alone() -> None:
    (statement,) = statements("iam-policy-kms.json")
    assert statement["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]  # to read, and to write
    assert statement["Resource"] == ["${KMS_KEY}"]
    assert statement["Condition"] == {"StringEquals": {"kms:ViaService": "s3.${AWS_REGION}.amazonaws.com"}}


def test_launcher_policy_ends_its_own_nodes_and_gives_the_workers_role_alone() -> None:
    found = {
        action: statement for statement in statements("iam-policy-launcher.json") for action in statement["Action"]
    }
    own = {"StringEquals": {"aws:ResourceTag/ray-cluster-name": CONFIG["cluster_name"]}}
    assert found["ec2:TerminateInstances"]["Condition"] == own
    assert found["iam:PassRole"]["Resource"] == ["arn:aws:iam::${AWS_ACCOUNT}:role/raypipe-worker"]
