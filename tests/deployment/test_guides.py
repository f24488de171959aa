"""The guides of deployment: commands run, or name what is there; links lead somewhere."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from inferstack import config
from scripts import check_manifests as manifests
from tests.deployment.files import ROOT, compose, services
from tests.deployment.test_manifests import containers, deployment_yaml, needs_kubectl, pods

GUIDES = ("deployment.md", "production-checklist.md")
NEEDS = {"Docker", "kubectl", "a cluster", "AWS"}
TEXT = (ROOT / "docs" / "deployment.md").read_text()


def blocks() -> list[tuple[str | None, str]]:
    """What a block of commands needs, and the block."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        needs = re.match(r"# needs (.+)\n", block)
        found.append((needs[1] if needs else None, block))
    return found


def commands(needs: str) -> str:
    return "\n".join(block for need, block in blocks() if need == needs)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, after everything that a plain Linux machine can run."""
    place = tmp_path_factory.mktemp("guide")
    for name in ("docker-compose.yml", "docker-compose.prod.yml", ".env.example"):
        shutil.copy(ROOT / name, place)
    shutil.copytree(ROOT / "kubernetes", place / "kubernetes")
    able = {None} | ({"kubectl"} if shutil.which("kubectl") else set())
    for needs, block in blocks():
        if needs in able:
            run = ["bash", "-euo", "pipefail", "-c", block]
            done = subprocess.run(run, cwd=place, capture_output=True, text=True, check=False)
            assert done.returncode == 0, block + done.stderr
    return place


def test_every_block_says_what_it_needs() -> None:
    assert {needs for needs, _ in blocks()} == NEEDS | {None}


def test_the_settings_that_the_guide_makes_are_good_for_production(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (copy / ".env").read_text()
    assert config.EXAMPLE_MARK not in re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    assert (copy / ".env").stat().st_mode & 0o077 == 0
    values = dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", text, re.MULTILINE))
    secrets = [value for name, value in values.items() if re.search("PASSWORD|SECRET|TOKEN", name)]
    assert len(secrets) == len(set(secrets)) == 7
    for name, value in values.items():
        full = re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], value)
        monkeypatch.setenv(name, full)
    monkeypatch.setenv("ENVIRONMENT", "production")
    assert config.load().environment == "production"
    assert values["COMPOSE_PROFILES"] == "cpu"


def test_the_certificate_is_where_production_looks_for_it(copy: Path) -> None:
    (mount,) = compose("docker-compose.prod.yml")["services"]["nginx"]["volumes"]
    assert mount.startswith("${TLS_FOLDER:-./nginx/ssl}:")
    assert {path.name for path in (copy / "nginx" / "ssl").iterdir()} == {"cert.pem", "key.pem"}


@needs_kubectl
def test_the_secret_that_the_guide_makes_has_every_key(copy: Path) -> None:
    made = yaml.safe_load((copy / "app-secrets.yaml").read_text())
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == (
        "app-secrets",
        "ai-inference",
    )
    assert "annotations" not in made["metadata"]
    needed = {
        variable["valueFrom"]["secretKeyRef"]["key"]
        for template in pods(deployment_yaml()).values()
        for container in containers(template)
        for variable in container.get("env", ())
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    assert set(made["data"]) == needed
    assert all(f"--from-literal={key}=" in commands("AWS") for key in needed if key[:2] != "s3")


def test_commands_name_what_is_there() -> None:
    docker, cluster = commands("Docker"), commands("a cluster") + commands("AWS")
    named = re.findall(r"--scale ([\w-]+)=|(?:restart|exec|--no-deps) ([\w-]+)", docker)
    assert set() < {name for pair in named for name in pair if name} <= services().keys()
    files = set(re.findall(r"-f ([\w./-]+)", docker + cluster + commands("kubectl")))
    files -= {"app-secrets.yaml"}
    folders = set(re.findall(r"(?:-k|kustomize) ([\w./-]+)", TEXT))
    paths = [*files, *(f"{folder}/kustomization.yaml" for folder in folders)]
    assert files
    assert folders
    assert [path for path in paths if not (ROOT / path).exists()] == []
    workloads = {item["metadata"]["name"] for item in deployment_yaml()}
    assert set() < set(re.findall(r"(?:deployment|service)[/ ]([a-z][\w-]+)", cluster)) <= workloads
    for line in (*docker.splitlines(), *cluster.splitlines()):
        assert not line.startswith("docker-compose ")
    for overlay in manifests.OVERLAYS:
        assert f"overlays/{overlay}" in TEXT


@pytest.mark.parametrize("guide", GUIDES)
def test_links_lead_somewhere(guide: str) -> None:
    text = (ROOT / "docs" / guide).read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = ROOT / "docs" / (name or guide)
        assert path.exists(), target
        headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
        assert not anchor or anchor in {_anchor(heading) for heading in headings}, target


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
