"""Renders and validates all Kubernetes manifests: `python scripts/check_manifests.py`.

With `--write` it renders kubernetes/deployment.yaml anew. No cluster is needed. Rendering takes
`kubectl`; where it is missing only what lies in the repository rendered is checked, which is said,
and in continuous integration that is an error.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

FOLDER = Path(__file__).parents[1] / "kubernetes"
DEPLOYMENT = FOLDER / "deployment.yaml"
OVERLAYS = ("onprem", "cpu", "eks", "eks-redis", "kuberay")
BESIDE = ("dcgm",)
"""Overlays of what runs beside any of those."""
RENDERED = "onprem"
"""The overlay that `deployment.yaml` is made of."""
VERSION = "1.35"
"""Of Kubernetes: the one of `eks-cluster.yaml`."""
HEAD = f"# overlays/{RENDERED}, rendered by `make manifests`: change that, not this.\n"

Manifest = dict[str, Any]


class ManifestError(Exception):
    """A manifest is wrong, or cannot be rendered."""


def render(overlay: str) -> str:
    """The manifests of an overlay, as `kubectl apply -k` would send them.

    Raises:
        ManifestError: there is no kubectl, or the overlay is broken.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise ManifestError("kubectl is missing: https://kubernetes.io/docs/tasks/tools/")
    command = [kubectl, "kustomize", str(FOLDER / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ManifestError(f"overlays/{overlay}: {done.stderr.strip()}")
    return done.stdout


def parse(text: str) -> list[Manifest]:
    """The documents of a file."""
    return [document for document in yaml.safe_load_all(text) if document is not None]


def problems(manifest: Manifest) -> Iterator[str]:
    """What is wrong with a manifest, by the schemas of Kubernetes or of kubernetes/schemas."""
    name = f"{manifest['kind']}/{manifest['metadata']['name']}"
    own = FOLDER / "schemas" / f"{manifest['kind']}.yaml"
    if own.exists():
        validator = jsonschema.Draft202012Validator(yaml.safe_load(own.read_text()))
        for error in validator.iter_errors(manifest):
            yield f"{name}: {'.'.join(map(str, error.path))}: {error.message}"
        for template in _pod_templates(manifest):
            yield from problems(template)
        return
    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{name}: {'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        yield f"{name}: Kubernetes {VERSION} has no {manifest['apiVersion']} {manifest['kind']}"


def _pod_templates(manifest: Manifest) -> Iterator[Manifest]:
    """Those of a RayCluster, as manifests by themselves."""
    if manifest["kind"] != "RayCluster":
        return
    spec = manifest["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        template = group["template"]
        name = group.get("groupName", "head")
        yield {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": f"{manifest['metadata']['name']}-{name}"},
            "template": template,
        }


def _sources(*, rendering: bool) -> Iterator[tuple[str, str]]:
    """Name and text of everything that is checked."""
    if rendering:
        for overlay in (*OVERLAYS, *BESIDE):
            yield f"overlays/{overlay}", render(overlay)
    for path in (DEPLOYMENT, FOLDER / "eks-cluster.yaml"):
        yield path.name, path.read_text()


def main() -> int:
    """Returns the exit code."""
    rendering = shutil.which("kubectl") is not None
    if not rendering and os.environ.get("CI"):
        print("kubectl is missing, and this is continuous integration", file=sys.stderr)
        return 1
    try:
        if "--write" in sys.argv[1:]:
            DEPLOYMENT.write_text(HEAD + render(RENDERED))
        found = [
            f"kubernetes/{name}: {problem}"
            for name, text in _sources(rendering=rendering)
            for manifest in parse(text)
            for problem in problems(manifest)
        ]
    except ManifestError as error:
        print(error, file=sys.stderr)
        return 1
    for line in found:
        print(line, file=sys.stderr)
    if not rendering:
        print("kubectl is missing: the overlays of kubernetes/ are NOT checked", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
