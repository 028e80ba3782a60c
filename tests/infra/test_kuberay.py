"""infra/kuberay against Kubernetes' schemas, KubeRay's own definitions, and what a run needs of its nodes."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from ray.scripts.scripts import cli as ray_cli

REPOSITORY = Path(__file__).resolve().parent.parent.parent
KUBERAY = REPOSITORY / "infra/kuberay"
KUBERNETES = "1.37"

RAYCLUSTER = yaml.safe_load((KUBERAY / "raycluster.yaml").read_text())
RAYJOB = yaml.safe_load((KUBERAY / "rayjob.yaml").read_text())
LOGS = yaml.safe_load((KUBERAY / "logs.yaml").read_text())
ACCOUNTS = list(yaml.safe_load_all((KUBERAY / "serviceaccounts.yaml").read_text()))

CLUSTER = RAYCLUSTER["spec"]
HEAD = CLUSTER["headGroupSpec"]
GROUPS = {group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]}
RAY_PODS = {"head": HEAD["template"]["spec"], **{name: group["template"]["spec"] for name, group in GROUPS.items()}}
PODS = {**RAY_PODS, "submitter": RAYJOB["spec"]["submitterPodTemplate"]["spec"]}


def container(pod: str) -> Any:
    """The pod's first container, in which KubeRay starts Ray."""
    return PODS[pod]["containers"][0]


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


def strict(schema: Any) -> Any:
    """A schema of Kubernetes that refuses unknown names, as `kubectl apply` does; what it says in CEL isn't checked."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(each) for name, each in schema.items()}
    if made.get("type") == "object" and isinstance(made.get("properties"), dict):
        made.setdefault("additionalProperties", False)
    return made


PATCHES = [None, yaml.safe_load((KUBERAY / "gcs-fault-tolerance.yaml").read_text())]


def patched(resource: Any, patch: Any) -> Any:
    """The merge patch of RFC 7386, as `kubectl patch --type merge` makes it, as far as it adds."""
    if not isinstance(patch, dict):
        return patch
    return resource | {name: patched(resource.get(name, {}), value) for name, value in patch.items()}


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("resource", "patch"),
    [(RAYCLUSTER, None), (RAYCLUSTER, PATCHES[1]), (RAYJOB, None)],
    ids=["RayCluster", "RayCluster with Redis", "RayJob"],
)
def test_resource_is_one_that_kuberay_takes(resource: dict[str, Any], patch: Any, kuberay_crds: Path) -> None:
    loaded = yaml.load_all((kuberay_crds / f"ray.io_{resource['kind'].lower()}s.yaml").read_text(), yaml.CSafeLoader)
    (version,) = (each for crd in loaded for each in crd["spec"]["versions"] if each["name"] == "v1")
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    validator = jsonschema.Draft202012Validator(
        strict(schema)
    )  # not `validate`, which first checks megabytes of schema
    merged = patched(resource, patch or {})
    assert [error.message for error in validator.iter_errors(merged)] == []
    assert not validator.is_valid(patched(merged, {"spec": {"headGroupSpecs": {}}}))


def test_redis_is_given_where_kuberay_looks_for_it() -> None:
    options = PATCHES[1]["spec"]["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == "${REDIS_ADDRESS}"
    assert options["redisPassword"]["valueFrom"]["secretKeyRef"] == {"name": "raypipe-redis", "key": "password"}


def test_a_run_has_no_deadline_and_the_head_stays_where_it_is() -> None:
    assert "activeDeadlineSeconds" not in RAYJOB["spec"]
    assert HEAD["template"]["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }


@pytest.mark.parametrize("name", GROUPS)
def test_a_worker_is_drained_before_it_ends(name: str) -> None:
    shell, _, script = container(name)["lifecycle"]["preStop"]["exec"]["command"]
    assert shell == "bash"
    subprocess.run(["bash", "-n", "-c", script], check=True)
    words = shlex.split(script.partition(";")[0])
    timeout, seconds, ray, step, *options = words
    assert (timeout, ray, step) == ("timeout", "ray", "drain-node")
    context = ray_cli.commands[step].make_context(step, options)
    waited = int(re.findall(r"seq (\d+)", script)[0])
    assert context.params["deadline_remaining_seconds"] == waited
    assert int(seconds) + waited < PODS[name]["terminationGracePeriodSeconds"] < 120, "EC2's notice"


def test_logs_of_the_head_go_to_the_bucket() -> None:
    _, logs = RAY_PODS["head"]["containers"]
    kubernetes_validate.validate(LOGS, KUBERNETES, strict=True)
    mounts = {mount["name"]: mount["mountPath"] for mount in logs["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in RAY_PODS["head"]["volumes"]}
    assert volumes["log-config"]["configMap"] == {"name": LOGS["metadata"]["name"]}
    (name,) = LOGS["data"]
    assert logs["args"] == ["--config", f"{mounts['log-config']}/{name}"]
    pipeline = yaml.safe_load(LOGS["data"][name])["pipeline"]
    (source,), (target,) = pipeline["inputs"], pipeline["outputs"]
    assert all(path.startswith(f"{mounts['ray-logs']}/session_latest/logs/") for path in source["path"].split(","))
    assert source["db"].startswith(mounts["log-state"])
    assert target["store_dir"].startswith(mounts["log-state"])
    assert (target["name"], target["bucket"]) == ("s3", "${OUTPUT_BUCKET}")
    assert target["s3_key_format"].startswith("/${OUTPUT_PREFIX}/logs/"), "where the role may write"
    user = logs["securityContext"]["runAsUser"]
    assert f"USER {user}\n" in (REPOSITORY / "infra/Dockerfile").read_text(), "who may read what Ray writes"
    assert logs["securityContext"] == container("head")["securityContext"] | {"runAsUser": user}


@pytest.mark.parametrize("pod", RAY_PODS)
def test_prometheus_finds_the_metrics(pod: str) -> None:
    (port,) = (each["containerPort"] for each in container(pod)["ports"] if each["name"] == "metrics")
    group = HEAD if pod == "head" else GROUPS[pod]
    assert group["rayStartParams"]["metrics-export-port"] == str(port)
    monitor = yaml.safe_load((KUBERAY / "podmonitor.yaml").read_text())
    assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]


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
