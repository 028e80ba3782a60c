"""infra/kuberay against Kubernetes' schemas, KubeRay's field names, and what a run needs of its nodes."""

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT

REPOSITORY = Path(__file__).resolve().parent.parent.parent
KUBERAY = REPOSITORY / "infra/kuberay"
KUBERNETES = "1.37"

RAYCLUSTER = yaml.safe_load((KUBERAY / "raycluster.yaml").read_text())
RAYJOB = yaml.safe_load((KUBERAY / "rayjob.yaml").read_text())
ACCOUNTS = list(yaml.safe_load_all((KUBERAY / "serviceaccounts.yaml").read_text()))

CLUSTER = RAYCLUSTER["spec"]
HEAD = CLUSTER["headGroupSpec"]
GROUPS = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
RAY_PODS = {"head": HEAD["template"]["spec"], **{name: group["template"]["spec"] for name, group in GROUPS.items()}}
PODS = {**RAY_PODS, "submitter": RAYJOB["spec"]["submitterPodTemplate"]["spec"]}


def container(pod: str) -> Any:
    (only,) = PODS[pod]["containers"]
    return only


def toleration_keys(pod: str) -> set[str]:
    tolerations = PODS[pod].get("tolerations", [])
    assert all((rule["operator"], rule["effect"]) == ("Exists", "NoSchedule") for rule in tolerations)
    return {rule["key"] for rule in tolerations}


def validate_pod(spec: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("resource", [RAYCLUSTER, RAYJOB], ids=lambda resource: resource["kind"])
def test_fields_are_kuberays(resource: dict[str, Any]) -> None:
    schema = yaml.safe_load((Path(__file__).parent / "kuberay.yaml").read_text())
    assert resource["apiVersion"] == "ray.io/v1"
    assert resource.keys() == {"apiVersion", "kind", "metadata", "spec"}
    jsonschema.validate(resource["spec"], {"$ref": f"#/$defs/{resource['kind']}", **schema})


@pytest.mark.parametrize("pod", PODS)
def test_pod_is_one_that_kubernetes_takes(pod: str) -> None:
    validate_pod(PODS[pod])


def test_autoscaler_is_one_that_kubernetes_takes() -> None:
    options = CLUSTER["autoscalerOptions"]
    validate_pod(
        {"containers": [{"name": "autoscaler", **{key: options[key] for key in ("resources", "securityContext")}}]}
    )
    assert CLUSTER["enableInTreeAutoscaling"] is True


@pytest.mark.parametrize("account", ACCOUNTS, ids=lambda account: account["metadata"]["name"])
def test_service_account_is_one_that_kubernetes_takes(account: dict[str, Any]) -> None:
    kubernetes_validate.validate(account, KUBERNETES, strict=True)
    role = account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    assert role.startswith("arn:aws:iam::${AWS_ACCOUNT}:role/")


def test_job_has_the_cluster_of_raycluster_yaml() -> None:
    assert RAYJOB["spec"]["rayClusterSpec"] == CLUSTER


def test_job_goes_when_it_is_done() -> None:
    spec = RAYJOB["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["activeDeadlineSeconds"] > 0


def test_job_runs_a_script_that_the_image_has() -> None:
    python, script, step, config = RAYJOB["spec"]["entrypoint"].split()
    assert (python, step, config) == ("python", "run", "${CONFIG_URI}")
    assert "\nCOPY jobs /opt/raypipe/jobs\n" in (REPOSITORY / "infra/Dockerfile").read_text()
    assert script.startswith("/opt/raypipe/jobs/")
    assert (REPOSITORY / script.removeprefix("/opt/raypipe/")).is_file()


def test_ray_wants_a_token_from_a_secret() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token", "secretName": "raypipe-ray-token"}


def test_head_runs_no_tasks_and_isnt_on_spot() -> None:
    assert HEAD["rayStartParams"]["num-cpus"] == "0"
    assert HEAD["serviceType"] == "ClusterIP"
    assert not toleration_keys("head")
    terms = RAY_PODS["head"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    rules = {rule["key"]: rule["operator"] for rule in terms["nodeSelectorTerms"][0]["matchExpressions"]}
    assert rules["karpenter.sh/capacity-type"] == rules["cloud.google.com/gke-spot"] == "NotIn"


def test_only_the_gpu_group_has_gpus() -> None:
    assert container("gpu")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" in toleration_keys("gpu")
    for pod in ("head", "cpu", "submitter"):
        assert "nvidia.com/gpu" not in container(pod)["resources"]["limits"]
        assert "nvidia.com/gpu" not in toleration_keys(pod)


@pytest.mark.parametrize("name", GROUPS)
def test_group_scales_and_goes_on_spot(name: str) -> None:
    group = GROUPS[name]
    assert 0 < group["minReplicas"] == group["replicas"] < group["maxReplicas"]
    assert toleration_keys(name) >= {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority", "spot"}


@pytest.mark.parametrize("pod", RAY_PODS)
def test_ray_pod_is_probed_and_has_an_account(pod: str) -> None:
    assert PODS[pod]["restartPolicy"] == "Never"
    assert PODS[pod]["serviceAccountName"] in {account["metadata"]["name"] for account in ACCOUNTS}
    for probe in ("readinessProbe", "livenessProbe"):
        got = container(pod)[probe]["httpGet"]
        assert got == {"path": "/api/healthz", "port": DEFAULT_DASHBOARD_AGENT_LISTEN_PORT}


@pytest.mark.parametrize("pod", PODS)
def test_container_is_restricted_and_gets_the_memory_that_it_asks_for(pod: str) -> None:
    assert container(pod)["securityContext"] == {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    requests, limits = (container(pod)["resources"][kind] for kind in ("requests", "limits"))
    assert "memory" in limits
    assert {name: amount for name, amount in requests.items() if name != "cpu"} == limits
