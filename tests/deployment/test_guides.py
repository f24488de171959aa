"""The guide of deployment: its commands run, or name what is there."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from inferstack import config
from inferstack.local import binaries
from inferstack.storage.accounts import Accounts
from inferstack.storage.database import Database
from inferstack.storage.migrations import migrate
from scripts import check_manifests as manifests
from tests.deployment.files import ROOT, compose, example, services
from tests.deployment.test_manifests import containers, deployment_yaml, needs_kubectl, pods
from tests.docs import pages
from tests.monitoring.prometheus import promtool
from tests.programs import program
from tests.services import create_database, drop_database

NEEDS = {"# needs Docker", "# needs kubectl", "# needs a cluster", "# needs AWS"}
TEXT = pages.text("docs/deployment.md")
BLOCKS = pages.commands("docs/deployment.md")


def marked(mark: str) -> str:
    return "\n".join(block.text for block in BLOCKS if block.mark == mark)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, after everything that a plain Linux machine can run."""
    place = tmp_path_factory.mktemp("guide")
    shutil.copy(ROOT / ".env.example", place)
    for path in ROOT.glob("docker-compose*.yml"):
        shutil.copy(path, place)
    shutil.copytree(ROOT / "kubernetes", place / "kubernetes")
    able = {None} | ({"# needs kubectl"} if shutil.which("kubectl") else set())
    for block in BLOCKS:
        if block.mark in able:
            run = ["bash", "-euo", "pipefail", "-c", block.text]
            done = subprocess.run(run, cwd=place, capture_output=True, text=True, check=False)
            assert done.returncode == 0, block.text + done.stderr
    return place


def test_every_block_says_what_it_needs() -> None:
    assert {block.mark for block in BLOCKS} == NEEDS | {None}


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
    assert config.load().environment == "production"
    assert values["COMPOSE_PROFILES"] == "cpu"


def test_every_command_of_compose_means_the_production_site(copy: Path) -> None:
    """The files are named in `.env`: with `-f`, a command that omits it would make it another."""
    values = dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", (copy / ".env").read_text(), re.MULTILINE))
    assert values["ENVIRONMENT"] == "production"
    assert values["COMPOSE_FILE"].split(":") == ["docker-compose.yml", "docker-compose.prod.yml"]
    assert all((ROOT / name).exists() for name in values["COMPOSE_FILE"].split(":"))
    assert example()["COMPOSE_FILE"] == "docker-compose.yml"
    commands = "\n".join(pages.text(page) for page in pages.NAMES)
    assert re.findall(r"docker compose (?:-\S+ )*-f.*", commands) == []
    assert "docker-compose.override" not in commands


def test_the_files_of_a_cluster_are_there_and_its_commands_set_what_they_ask_for(
    copy: Path, tmp_path: Path
) -> None:
    first, other = [block.text for block in BLOCKS if "_ADDRESS" in block.text]
    shutil.copy(copy / ".env", tmp_path)
    needed: set[str] = set()
    for block in (first, other):
        script = block.replace("docker compose", "true")
        subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, check=True)
        text = (tmp_path / ".env").read_text()
        values = dict(re.findall(r"^([A-Z0-9_]+)=(.*)$", text, re.MULTILINE))
        for file in values["COMPOSE_FILE"].split(":"):
            needed |= set(re.findall(r"\$\{(\w+):\?", (ROOT / file).read_text()))
        assert needed <= values.keys()
    assert {"HEAD_ADDRESS", "NODE_ADDRESS"} <= needed


def test_prometheus_finds_the_machines_of_a_cluster_as_workers(copy: Path) -> None:
    folder = copy / "monitoring" / "prometheus"
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.compose.yml").read_text())
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)  # nobody answers for the names of Compose here
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config | {"rule_files": []}))
    found = {}
    for job in ("inferstack", "dcgm"):
        done = promtool(
            *("check", "service-discovery", "--timeout=1s", str(folder / "prometheus.yml"), job)
        )
        labels = [each["labels"] for each in json.loads(done.stdout)]
        found[job] = {(each["instance"].split(":")[1], each.get("service")) for each in labels}
    assert found == {
        "inferstack": {("9464", "worker"), ("9465", "worker")},
        "dcgm": {("9400", None)},
    }


def test_the_certificate_is_where_production_looks_for_it(copy: Path) -> None:
    (mount,) = compose("docker-compose.prod.yml")["services"]["nginx"]["volumes"]
    assert mount.startswith("${TLS_FOLDER:-./nginx/ssl}:")
    assert {path.name for path in (copy / "nginx" / "ssl").iterdir()} == {"cert.pem", "key.pem"}


def test_the_secrets_that_the_guide_makes_get_neither_into_git_nor_into_an_image() -> None:
    """The image of the gateway takes the folder in which the guide has people put the key."""
    made = {".env", "app-secrets.yaml", "nginx/ssl/"}
    assert made - set((ROOT / ".gitignore").read_text().splitlines()) == set()
    assert "nginx/ssl" in (ROOT / ".dockerignore").read_text().splitlines()


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
    assert all(
        f"--from-literal={key}=" in marked("# needs AWS") for key in needed if key[:2] != "s3"
    )


def test_commands_name_what_is_there() -> None:
    docker = marked("# needs Docker")
    cluster = marked("# needs a cluster") + marked("# needs AWS")
    named = re.findall(r"--scale ([\w-]+)=|(?:restart|exec|--no-deps) ([\w-]+)", docker)
    assert set() < {name for pair in named for name in pair if name} <= services().keys()
    files = set(re.findall(r"-f ([\w./-]+)", docker + cluster + marked("# needs kubectl")))
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


@pytest.mark.parametrize("page", ["README.md", "docs/deployment.md"])
def test_what_an_autoscaler_scales_is_scaled_by_its_minimum(page: str) -> None:
    """It undoes `kubectl scale`."""
    scalers = {
        item["metadata"]["name"]: item["spec"]
        for item in deployment_yaml()
        if item["kind"] == "HorizontalPodAutoscaler"
    }
    text = pages.text(page)
    assert set(re.findall(r"scale deployment[/ ]([\w-]+)", text)) & scalers.keys() == set()
    patches = re.findall(r"kubectl patch hpa ([\w-]+) .*-p '(.*)'", text)
    assert {name for name, _ in patches} == scalers.keys()
    for name, patch in patches:
        (least,) = json.loads(patch)["spec"].items()
        assert least[0] == "minReplicas"
        assert scalers[name]["minReplicas"] < least[1] <= scalers[name]["maxReplicas"]


async def test_the_data_that_move_to_aws_are_there_and_come_back(
    postgres_server_url: str, tmp_path: Path
) -> None:
    """With the words of the guide, between two databases and two folders instead of buckets."""
    old, new = (create_database(postgres_server_url) for _ in range(2))
    for url, username in ((old, "alice"), (new, "try")):
        migrate(url)
        await users(url, add=username)
    objects = tmp_path / "old" / "inferstack"
    objects.mkdir(parents=True)
    (objects / "input").write_text("large")
    (tmp_path / "aws" / "inferstack-example").mkdir(parents=True)
    there, back = [block.text for block in BLOCKS if block.text.count("pg_restore")]
    tool = binaries.postgres_tool("pg_restore", binaries.postgres(None).major)
    environment = {
        "PATH": f"{Path(program('rclone')).parent}:{tool.path.parent}:{os.environ['PATH']}",
        "RCLONE_CONFIG": str(tmp_path / "none"),
        "OLD_DATABASE_URL": old,
        "RDS_URL": new,
    }
    for remote in ("old", "aws"):
        environment[f"RCLONE_CONFIG_{remote.upper()}_TYPE"] = "alias"
        environment[f"RCLONE_CONFIG_{remote.upper()}_REMOTE"] = str(tmp_path / remote)

    def run(block: str) -> None:
        command = ["bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    for _ in range(2):
        run(there)
        assert await users(new) == ["alice"]
    await users(new, add="bob")
    (tmp_path / "aws" / "inferstack-example" / "result").write_text("larger")
    run(back)
    assert await users(old) == ["alice", "bob"]
    assert {path.name for path in objects.iterdir()} == {"input", "result"}
    for url in (old, new):
        drop_database(postgres_server_url, url)


async def users(url: str, *, add: str | None = None) -> list[str]:
    """The users of a database."""
    database = Database.from_settings(config.load(database_url=url))
    accounts = Accounts(database)
    try:
        if add is not None:
            await accounts.create_user(add, "a good password")
        return [user.username for user in await accounts.users()]
    finally:
        await database.close()
