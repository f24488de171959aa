"""The Ray cluster of KubeRay, as Ray's own code for it needs it."""

from tests.deployment.test_manifests import containers, needs_kubectl, of, rendered


@needs_kubectl
def test_only_the_autoscaler_of_ray_may_ask_kubernetes() -> None:
    """With the files that it reads: without them it ends, and no machine is ever added."""
    from ray.autoscaler._private.kuberay import node_provider  # slow, and only here

    spec = of(rendered("kuberay"), "RayCluster")["inferstack"]["spec"]
    (mount,) = spec["autoscalerOptions"]["volumeMounts"]
    template = spec["headGroupSpec"]["template"]
    (volume,) = [each for each in template["spec"]["volumes"] if each["name"] == mount["name"]]
    sources = volume["projected"]["sources"]
    token = sources[0]["serviceAccountToken"]["path"]
    (certificate,) = sources[1]["configMap"]["items"]
    assert f"{mount['mountPath']}/{token}" == node_provider.IN_CLUSTER_TOKEN_PATH
    assert f"{mount['mountPath']}/{certificate['path']}" == node_provider.IN_CLUSTER_CA_CERT_PATH
    for container in containers(template):
        assert mount["name"] not in {each["name"] for each in container["volumeMounts"]}
