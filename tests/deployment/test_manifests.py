"""Kubernetes manifests, without a cluster: valid, and as the code and Compose need them."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from inferstack import config
from inferstack.api import server
from inferstack.api.health import Check
from inferstack.errors import StorageUnavailableError
from inferstack.worker import drain, node
from scripts import check_manifests as manifests
from tests.api.fakes import World
from tests.deployment.files import ROOT, services
from tests.docs import pages
from tests.gateway.gateway import Gateway

Manifest = dict[str, Any]
PROMETHEUS = ROOT / "monitoring" / "prometheus"

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None and not os.environ.get("CI"),
    reason="kubectl is missing: the overlays of kubernetes/ are NOT rendered",
)
"""In continuous integration it fails instead."""


@cache
def rendered(overlay: str) -> list[Manifest]:
    return manifests.parse(manifests.render(overlay))


def deployment_yaml() -> list[Manifest]:
    return manifests.parse(manifests.DEPLOYMENT.read_text())


def of(found: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {item["metadata"]["name"]: item for item in found if item["kind"] == kind}


def pods(found: list[Manifest]) -> dict[str, Manifest]:
    """The pod templates, by the name of what makes them."""
    pods = {
        item["metadata"]["name"]: item["spec"]["template"]
        for kind in ("Deployment", "StatefulSet", "DaemonSet")
        for item in of(found, kind).values()
    }
    for cluster in of(found, "RayCluster").values():
        pods["ray-head"] = cluster["spec"]["headGroupSpec"]["template"]
        for group in cluster["spec"]["workerGroupSpecs"]:
            pods[group["groupName"]] = group["template"]
    return pods


def containers(template: Manifest) -> list[Manifest]:
    spec = template["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


def _sorted(found: list[Manifest]) -> list[Manifest]:
    return sorted(found, key=lambda item: (item["kind"], item["metadata"]["name"]))


@needs_kubectl
def test_deployment_yaml_is_what_the_overlay_renders() -> None:
    assert _sorted(deployment_yaml()) == _sorted(rendered("onprem")), "run `make manifests`"


def test_deployment_yaml_has_the_names_that_commands_use() -> None:
    found = deployment_yaml()
    assert set(of(found, "Namespace")) == {"ai-inference"}
    assert {"api-server", "gpu-worker"} <= set(of(found, "Deployment"))
    assert set(of(found, "ConfigMap")) == {"app-config"}
    assert set(of(found, "Secret")) == {"app-secrets"}
    outside = {"Namespace", "StorageClass"}
    for item in found:
        assert item["kind"] in outside or item["metadata"]["namespace"] == "ai-inference"


def test_applying_again_does_not_overwrite_the_secrets() -> None:
    (secret,) = of(deployment_yaml(), "Secret").values()
    assert not {"data", "stringData"} & set(secret)


@needs_kubectl
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_every_manifest_is_valid(overlay: str) -> None:
    assert [line for item in rendered(overlay) for line in manifests.problems(item)] == []


def test_the_cluster_on_aws_is_valid() -> None:
    (cluster,) = manifests.parse((manifests.FOLDER / "eks-cluster.yaml").read_text())
    assert list(manifests.problems(cluster)) == []
    assert cluster["metadata"]["version"] == manifests.VERSION
    pod, *_ = cluster["iam"]["podIdentityAssociations"]
    assert (pod["namespace"], pod["serviceAccountName"]) == ("ai-inference", "inferstack")


def test_pods_on_aws_get_nothing_from_their_node_and_are_told_what_they_would_ask() -> None:
    (cluster,) = manifests.parse((manifests.FOLDER / "eks-cluster.yaml").read_text())
    assert all(group["disablePodIMDS"] is True for group in cluster["managedNodeGroups"])
    (account,) = [
        each["serviceAccountName"]
        for each in cluster["iam"]["podIdentityAssociations"]
        if each.get("wellKnownPolicies") == {"awsLoadBalancerController": True}
    ]
    name, region = cluster["metadata"]["name"], cluster["metadata"]["region"]
    guide = pages.text("docs/deployment.md")
    assert f"aws eks describe-cluster --name {name} --region {region} " in guide
    assert f'--set clusterName={name} --set region={region} --set vpcId="$VPC" ' in guide
    assert f"--set serviceAccount.name={account}\n" in guide


@needs_kubectl
def test_nodes_on_aws_grow_with_the_gpu_workers() -> None:
    (cluster,) = manifests.parse((manifests.FOLDER / "eks-cluster.yaml").read_text())
    workers = of(rendered("eks"), "ScaledObject")["gpu-worker"]["spec"]["maxReplicaCount"]
    groups = {group["name"]: group for group in cluster["managedNodeGroups"]}
    assert groups["gpu"]["maxSize"] >= workers
    (account,) = [
        each["serviceAccountName"]
        for each in cluster["iam"]["podIdentityAssociations"]
        if each.get("wellKnownPolicies") == {"autoScaler": True}
    ]
    guide = pages.text("docs/deployment.md")
    assert f"--set rbac.serviceAccount.name={account} " in guide
    assert f"--set autoDiscovery.clusterName={cluster['metadata']['name']} " in guide
    assert f"--set awsRegion={cluster['metadata']['region']} " in guide


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("spec", "replica"), 3),
        ("Deployment", ("spec", "template", "spec", "containers", 0, "image"), 3),
        ("ScaledObject", ("spec", "minReplicas"), 3),
        ("RayCluster", ("spec", "workerGroupSpecs", 0, "replicaCount"), 1),
        ("RayCluster", ("spec", "headGroupSpec", "template", "spec", "container"), []),
    ],
)
@needs_kubectl
def test_a_misspelt_field_shows(kind: str, path: tuple[Any, ...], value: Any) -> None:
    overlay = {"ScaledObject": "eks", "RayCluster": "kuberay"}.get(kind, "onprem")
    text = manifests.render(overlay)
    item = next(item for item in manifests.parse(text) if item["kind"] == kind)
    place = item
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert list(manifests.problems(item))


def test_the_check_fails_in_continuous_integration_without_kubectl() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "check_manifests.py")]
    environment = {"PATH": "/nowhere", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    ci = subprocess.run(
        command, env={**environment, "CI": "true"}, capture_output=True, text=True, check=False
    )
    assert ci.returncode == 1
    assert ci.stderr == "kubectl is missing, and this is continuous integration\n"
    own = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert own.returncode == 0
    assert "NOT checked" in own.stderr


@needs_kubectl
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_no_pod_has_more_rights_than_it_needs(overlay: str) -> None:
    for name, template in pods(rendered(overlay)).items():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        # Else a service named like a setting would set it.
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        for container in containers(template):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


@needs_kubectl
def test_gpu_metrics_come_from_a_namespace_that_allows_what_they_take() -> None:
    (overlay,) = manifests.BESIDE
    found = rendered(overlay)
    assert [line for item in found for line in manifests.problems(item)] == []
    (name,) = of(found, "Namespace")
    (template,) = pods(found).values()
    (container,) = template["spec"]["containers"]
    exporter = services()["dcgm-exporter"]
    assert container["image"] == exporter["image"]
    # As in Compose; the namespace of our own pods, `baseline`, forbids it.
    assert container["securityContext"]["capabilities"]["add"] == exporter["cap_add"]
    labels = of(found, "Namespace")[name]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    (port,) = container["ports"]
    config = yaml.safe_load((PROMETHEUS / "prometheus.kubernetes.yml").read_text())
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "dcgm"]
    (discovery,) = job["kubernetes_sd_configs"]
    assert name in discovery["namespaces"]["names"]
    kept, *_ = job["relabel_configs"]
    for app in (template["metadata"]["labels"]["app"], "nvidia-dcgm-exporter"):
        assert re.fullmatch(kept["regex"], f"{app};{port['containerPort']}")


@needs_kubectl
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_every_reference_leads_somewhere(overlay: str) -> None:
    found = rendered(overlay)
    keys = set(of(found, "ConfigMap")["app-config"]["data"])
    claims = set(of(found, "PersistentVolumeClaim"))
    for name, template in pods(found).items():
        volumes = {volume["name"] for volume in template["spec"].get("volumes", ())}
        volumes |= {"data"} if name in of(found, "StatefulSet") else set()
        for volume in template["spec"].get("volumes", ()):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
        for container in containers(template):
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes
            defined: set[str] = set()
            for variable in container.get("env", ()):
                source = variable.get("valueFrom", {})
                if "configMapKeyRef" in source:
                    assert source["configMapKeyRef"]["key"] in keys
                for used in _used(variable.get("value", "")):
                    # Kubernetes puts in only what stands before, and nothing of envFrom.
                    assert used in defined, (name, variable["name"])
                defined.add(variable["name"])


def _used(value: str) -> list[str]:
    return [part.partition(")")[0] for part in value.split("$(")[1:]]


@needs_kubectl
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_the_settings_are_ones_that_the_code_knows(overlay: str) -> None:
    known = {name.upper() for name in config.Settings.model_fields}
    data = of(rendered(overlay), "ConfigMap")["app-config"]["data"]
    parts = {"DATABASE_ENDPOINT", "REDIS_SCHEME", "REDIS_ENDPOINT"}
    assert set(data) - known == parts


@needs_kubectl
def test_only_endpoints_differ_on_aws() -> None:
    here = of(rendered("onprem"), "ConfigMap")["app-config"]["data"]
    there = of(rendered("eks"), "ConfigMap")["app-config"]["data"]
    changed = {name for name in here if here[name] != there[name]}
    assert changed == {
        *("DATABASE_ENDPOINT", "REDIS_SCHEME", "REDIS_ENDPOINT", "S3_ENDPOINT", "S3_BUCKET"),
    }
    assert there["REDIS_SCHEME"] == "rediss"
    assert "sslmode=" in there["DATABASE_ENDPOINT"]
    assert here.keys() == there.keys()
    assert not of(rendered("eks"), "StatefulSet")


@needs_kubectl
def test_redis_can_stay_in_the_cluster_on_aws_and_keep_every_task_on_disk() -> None:
    onprem, eks, found = rendered("onprem"), rendered("eks"), rendered("eks-redis")
    settings = of(eks, "ConfigMap")["app-config"]["data"]
    here = of(onprem, "ConfigMap")["app-config"]["data"]
    back = {name: here[name] for name in ("REDIS_SCHEME", "REDIS_ENDPOINT")}
    assert of(found, "ConfigMap")["app-config"]["data"] == settings | back
    assert set(of(found, "StatefulSet")) == {"redis"}
    assert pods(found)["redis"] == pods(onprem)["redis"]
    for kind in ("Service", "NetworkPolicy", "PodDisruptionBudget"):
        assert of(found, kind)["redis"] == of(onprem, kind)["redis"]
        assert of(found, kind).keys() - of(eks, kind).keys() == {"redis"}
    (claim,) = of(found, "StatefulSet")["redis"]["spec"]["volumeClaimTemplates"]
    storage = of(found, "StorageClass")[claim["spec"]["storageClassName"]]
    assert storage["provisioner"] == "ebs.csi.aws.com"


@needs_kubectl
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_models_get_no_secret_that_they_do_not_need(overlay: str) -> None:
    found = pods(rendered(overlay))
    for name in ("ray-head", "gpu-worker"):
        for container in found[name]["spec"]["containers"]:
            keys = {
                variable["valueFrom"]["secretKeyRef"]["key"]
                for variable in container["env"]
                if "secretKeyRef" in variable.get("valueFrom", {})
            }
            assert keys == {"redis-password", "ray-token", "s3-access-key", "s3-secret-key"}


@needs_kubectl
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_pods_get_longer_to_end_than_their_programs_take(overlay: str) -> None:
    grace = {
        name: template["spec"].get("terminationGracePeriodSeconds", 30)
        for name, template in pods(rendered(overlay)).items()
    }
    assert grace["api-server"] > 5 + server.DRAIN + 5
    assert grace["gpu-worker"] > drain.of_host(config.load()) + node.KILL
    assert grace["ray-head"] > drain.of_host(config.load()) + node.KILL
    (gateway,) = pods(rendered(overlay))["frontend"]["spec"]["containers"]
    _, pause = gateway["lifecycle"]["preStop"]["exec"]["command"]
    assert grace["frontend"] > config.Settings.model_fields["max_wait"].default + 15 + int(pause)


async def test_without_redis_the_api_stays_where_the_gateway_finds_it() -> None:
    """So that callers get its 503 with Retry-After; no pod ready would be a 502."""

    async def away() -> None:
        raise StorageUnavailableError("Redis does not answer")

    (container,) = pods(deployment_yaml())["api-server"]["spec"]["containers"]
    world = World(checks=(Check("queue", away, True),))
    transport = httpx.ASGITransport(app=world.edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await world.services.monitor.start()
        assert (await client.get("/health")).status_code == 503
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = await client.get(container[probe]["httpGet"]["path"])
            assert asked.status_code == 200, probe
        await world.services.monitor.stop()


@needs_kubectl
def test_the_balancer_on_aws_closes_idle_connections_before_the_gateway_does() -> None:
    """Who closes first loses no request; and nobody who waits for a result is cut off."""
    found = rendered("eks")
    ingress = of(found, "Ingress")["frontend"]["metadata"]["annotations"]
    idle = ingress["alb.ingress.kubernetes.io/load-balancer-attributes"].rpartition("=")[2]
    wait = of(found, "ConfigMap")["app-config"]["data"]["MAX_WAIT"]
    gateway = Gateway("127.0.0.1:8000", MAX_WAIT=wait)
    gateway.check()
    directives = dict(
        re.findall(r"(\w+_timeout) (\d+)s;", gateway.rendered("http") + gateway.rendered("api"))
    )
    gateway.remove()
    assert int(directives["proxy_read_timeout"]) < int(idle) < int(directives["keepalive_timeout"])


@needs_kubectl
def test_a_gateway_on_aws_ends_when_the_balancer_has_let_go_of_it() -> None:
    found = rendered("eks")
    spec = pods(found)["frontend"]["spec"]
    _, pause = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert int(pause) >= 20
    ingress = of(found, "Ingress")["frontend"]["metadata"]["annotations"]
    delay = ingress["alb.ingress.kubernetes.io/target-group-attributes"].rpartition("=")[2]
    assert int(delay) >= spec["terminationGracePeriodSeconds"]
    labels = of(found, "Namespace")["ai-inference"]["metadata"]["labels"]
    assert labels["elbv2.k8s.aws/pod-readiness-gate-inject"] == "enabled"


@needs_kubectl
@pytest.mark.parametrize("overlay", ["onprem", "kuberay"])
def test_callers_keep_their_addresses_on_the_way_to_the_gateway(overlay: str) -> None:
    spec = of(rendered(overlay), "Service")["frontend"]["spec"]
    assert spec["type"] == "LoadBalancer"
    assert spec["externalTrafficPolicy"] == "Local"


@needs_kubectl
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_nothing_has_two_autoscalers(overlay: str) -> None:
    found = rendered(overlay)
    targets = [
        item["spec"]["scaleTargetRef"]["name"]
        for kind in ("HorizontalPodAutoscaler", "ScaledObject")
        for item in of(found, kind).values()
    ]
    expected = {"api-server"} if overlay == "kuberay" else {"api-server", "gpu-worker"}
    assert sorted(targets) == sorted(expected)
    for name in targets:
        # Else applying the manifests again would undo what the autoscaler did.
        assert "replicas" not in of(found, "Deployment")[name]["spec"]


@needs_kubectl
def test_both_kinds_of_autoscaler_have_the_same_thresholds() -> None:
    plain = of(rendered("onprem"), "HorizontalPodAutoscaler")
    keda = of(rendered("eks"), "ScaledObject")
    by_resource = {
        metric["resource"]["name"]: metric["resource"]["target"]["averageUtilization"]
        for metric in plain["api-server"]["spec"]["metrics"]
    }
    by_trigger = {
        trigger["type"]: int(trigger["metadata"]["value"])
        for trigger in keda["api-server"]["spec"]["triggers"]
    }
    assert by_resource == by_trigger == {"cpu": 70, "memory": 80}
    (metric,) = plain["gpu-worker"]["spec"]["metrics"]
    (trigger,) = keda["gpu-worker"]["spec"]["triggers"]
    assert metric["external"]["metric"]["name"] == "queue_depth"
    assert metric["external"]["target"]["averageValue"] == "100"
    assert trigger["metadata"]["threshold"] == "100"
    assert "queue_depth" in trigger["metadata"]["query"]


@needs_kubectl
@pytest.mark.parametrize("page", ["README.md", "docs/deployment.md"])
def test_the_commands_that_scale_fit_the_autoscalers(page: str) -> None:
    section = pages.text(page).partition("\n## Scaling\n")[2].partition("\n## ")[0]
    scalers = of(rendered("onprem"), "HorizontalPodAutoscaler")
    patches = re.findall(r"kubectl patch hpa (\S+) -n ai-inference -p '(.*)'", section)
    assert {name for name, _ in patches} == scalers.keys()
    for name, patch in patches:
        spec, change = scalers[name]["spec"], json.loads(patch)["spec"]
        assert spec["minReplicas"] < change["minReplicas"] <= spec["maxReplicas"]
        assert list(manifests.problems(scalers[name] | {"spec": spec | change})) == []
    assert set(re.findall(r"--scale (\S+)=\d+", section)) == scalers.keys() <= services().keys()


@needs_kubectl
def test_the_numbers_of_scaling_are_those_of_the_autoscalers() -> None:
    scalers = of(rendered("onprem"), "HorizontalPodAutoscaler")
    api, worker = (scalers[name]["spec"] for name in ("api-server", "gpu-worker"))
    cpu, memory = (m["resource"]["target"]["averageUtilization"] for m in api["metrics"])
    (depth,) = (metric["external"]["target"]["averageValue"] for metric in worker["metrics"])
    text = " ".join(pages.text("README.md").split())
    assert f"from {api['minReplicas']} replicas at {cpu} % CPU or {memory} % memory" in text
    assert f"by `queue_depth`, one per {depth} waiting tasks" in text
    # What docs/deployment.md says of the others.
    for name, scaled in of(rendered("eks"), "ScaledObject").items():
        assert scaled["spec"]["minReplicaCount"] == scalers[name]["spec"]["minReplicas"]
    (group,) = of(rendered("kuberay"), "RayCluster")["inferstack"]["spec"]["workerGroupSpecs"]
    assert (group["groupName"], group["minReplicas"]) == ("gpu-worker", worker["minReplicas"])


@needs_kubectl
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_budgets_of_disruption_are_for_pods_that_kubernetes_can_count(overlay: str) -> None:
    """How many pods a RayCluster should have it cannot: it would never let one go."""
    found = rendered(overlay)
    budgets = of(found, "PodDisruptionBudget")
    stores = of(found, "StatefulSet").keys()
    several = {"api-server", "frontend", "gpu-worker"} & of(found, "Deployment").keys()
    assert budgets.keys() == stores | several
    assert ("gpu-worker" in several) == (overlay != "kuberay")
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(found).items()}
    for name, budget in budgets.items():
        wanted = budget["spec"]["selector"]["matchLabels"].items()
        assert [pod for pod, has in labels.items() if wanted <= has.items()] == [name]
        # What is there once ends only when its operator says so.
        assert budget["spec"]["maxUnavailable"] == (0 if name in stores else 1)


@needs_kubectl
def test_the_component_tls_gives_the_gateway_a_certificate_and_a_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = rendered("onprem")
    copied = tmp_path / "kubernetes"
    shutil.copytree(manifests.FOLDER, copied)
    overlay = copied / "overlays" / "onprem" / "kustomization.yaml"
    text = overlay.read_text()
    overlay.write_text(text.replace("components:\n", "components:\n  - ../../components/tls\n"))
    monkeypatch.setattr(manifests, "FOLDER", copied)
    found = manifests.parse(manifests.render("onprem"))
    changed = [item for item in found if item not in plain]
    assert [line for item in changed for line in manifests.problems(item)] == []
    assert {item["metadata"]["name"] for item in changed} == {"frontend"}

    spec = pods(changed)["frontend"]["spec"]
    (gateway,) = spec["containers"]
    (volume,) = [each for each in spec["volumes"] if "secret" in each]
    (mount,) = [each for each in gateway["volumeMounts"] if each["name"] == volume["name"]]
    # As the command in the component makes it, whose keys have these names.
    secret = f"kubectl create secret tls {volume['secret']['secretName']} --cert"
    assert secret in (copied / "components" / "tls" / "kustomization.yaml").read_text()
    assert volume["secret"]["defaultMode"] == 0o440  # its group is the `fsGroup`
    environment = {each["name"]: each.get("value") for each in gateway["env"]}
    assert environment["GATEWAY_CERTIFICATE"] == f"{mount['mountPath']}/tls.crt"
    assert environment["GATEWAY_KEY"] == f"{mount['mountPath']}/tls.key"

    ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    image = (ROOT / "docker" / "frontend.Dockerfile").read_text()
    assert f"GATEWAY_HTTP={ports['http']}" in image
    assert f"GATEWAY_HTTPS={ports['https']}" in image
    service = of(changed, "Service")["frontend"]["spec"]["ports"]
    assert {(port["port"], port["targetPort"]) for port in service} == {
        (80, "http"),
        (443, "https"),
    }
    (rule,) = of(changed, "NetworkPolicy")["frontend"]["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == {"http", "https"}


@needs_kubectl
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_every_pod_is_behind_a_policy_and_the_ports_that_policies_name_exist(overlay: str) -> None:
    found = rendered(overlay)
    policies = of(found, "NetworkPolicy")
    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    ports = {
        template["metadata"]["labels"]["app"]: {
            port["name"] for c in template["spec"]["containers"] for port in c.get("ports", ())
        }
        for template in pods(found).values()
    }
    for policy in policies.values():
        app = policy["spec"]["podSelector"].get("matchLabels", {}).get("app")
        for rule in policy["spec"].get("ingress", ()):
            for port in rule.get("ports", ()):
                assert app is None or port["port"] in ports[app], policy["metadata"]["name"]


@needs_kubectl
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_every_process_of_ours_is_asked_whether_it_lives_and_works(overlay: str) -> None:
    for name, template in pods(rendered(overlay)).items():
        for container in template["spec"]["containers"]:
            if "inferstack/" in container["image"]:
                assert {"livenessProbe", "readinessProbe"} <= set(container), name
    found = pods(rendered(overlay))
    for name, service in (("recorder",) * 2, ("background",) * 2, ("gpu-worker", "node")):
        (container,) = found[name]["spec"]["containers"]
        assert container["livenessProbe"]["exec"]["command"][-1] == service
        assert container["readinessProbe"]["exec"]["command"][-2:] == [service, "--ready"]


@needs_kubectl
@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_prometheus_scrapes_every_pod_that_shows_metrics_and_is_let_in(overlay: str) -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.kubernetes.yml").read_text())
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "inferstack"]
    (discovery,) = job["kubernetes_sd_configs"]
    kept, *_ = job["relabel_configs"]
    shown = {
        template["metadata"]["labels"]["app"]
        for template in pods(rendered(overlay)).values()
        for container in template["spec"]["containers"]
        if "inferstack/" in container["image"]
        and "metrics" in {port["name"] for port in container["ports"]}
    }
    assert shown == {"api-server", "recorder", "background", "ray-head", "gpu-worker"}
    assert all(re.fullmatch(kept["regex"], f"{app};metrics") for app in shown)
    assert not re.fullmatch(kept["regex"], "api-server;http")
    policy = of(rendered(overlay), "NetworkPolicy")["metrics"]
    (let_in,) = policy["spec"]["podSelector"]["matchExpressions"]
    assert set(let_in["values"]) == shown
    assert discovery["namespaces"]["names"] == [policy["metadata"]["namespace"]]


def test_kubernetes_and_compose_run_the_same_images() -> None:
    ours = {"inferstack/api", "inferstack/gpu-worker", "inferstack/frontend"}
    found = {
        c["image"] for template in pods(deployment_yaml()).values() for c in containers(template)
    }
    built = {image.partition(":")[0] for image in found if image.startswith("inferstack/")}
    assert built == ours
    composed = {service["image"] for service in services().values()}
    assert {image for image in found if not image.startswith("inferstack/")} <= composed
    redis = services()["redis"]["command"][2].replace("$$REDIS_MAXMEMORY", "3gb").replace("$$", "$")
    (container,) = pods(deployment_yaml())["redis"]["spec"]["containers"]
    assert container["command"][2] == redis
