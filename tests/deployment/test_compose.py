"""Docker Compose, without Docker: the files fit each other and the code."""

import os
import re
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema.validators import validator_for

from inferstack import config
from inferstack.api import server
from inferstack.errors import ConfigurationError
from inferstack.local import redis_server
from inferstack.worker import drain, node
from tests.deployment.files import BESIDE, ROOT, compose, example, images, services

PORTS = {"nginx": 80, "frontend": 5173, "ray-head": 8265, "prometheus": 9090, "grafana": 3000}
STORES = {"redis", "postgres", "s3"}
FILES = (
    "docker-compose.yml",
    "docker-compose.prod.yml",
    "docker-compose.cluster.yml",
    "docker-compose.worker.yml",
)
MODELS_RUN_HERE = {"ray-head", "ray-head-cpu", "gpu-worker", "cpu-worker"}


def _variables(text: str) -> set[str]:
    return set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", text))


def _seconds(duration: str) -> float:
    assert duration.endswith("s"), duration
    return float(duration[:-1])


def _unlike_compose(file: dict[str, Any]) -> list[str]:
    """What the specification of Compose does not allow in a file."""
    schema = get_builtin_schema("vendor.compose-spec")
    errors = validator_for(schema)(schema).iter_errors(file)
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in errors]


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_as_the_specification_of_compose_has_it(name: str) -> None:
    file = compose(name)
    for service, fields in file["services"].items():
        # What `!reset` takes away is no field.
        file["services"][service] = {k: v for k, v in fields.items() if v is not None}
    assert _unlike_compose(file) == []


@pytest.mark.parametrize("field", [{"heathcheck": {}}, {"ports": "80:80"}])
def test_a_field_that_compose_does_not_take_shows(field: dict[str, Any]) -> None:
    file = compose()
    file["services"]["redis"] |= field
    found = _unlike_compose(file)
    assert found
    assert all(line.startswith("services.redis") for line in found)


def test_the_example_names_every_setting_and_nothing_else() -> None:
    names = set(example())
    fields = {name.upper() for name in config.Settings.model_fields}
    used = _variables("".join((ROOT / file).read_text() for file in FILES))
    used |= _variables((ROOT / ".env.example").read_text()) | {"COMPOSE_PROFILES", "COMPOSE_FILE"}
    for path in (ROOT / "docker").glob("*.Dockerfile"):
        used |= set(re.findall(r"([A-Z][A-Z0-9_]+)=", path.read_text()))
    assert fields - names == set()
    assert names - fields - used == set()


def test_what_the_example_comments_out_is_the_default() -> None:
    commented = re.findall(
        r"^# ([A-Z][A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE
    )
    defaults = config.as_environment(config.Settings.model_construct())
    settings = [pair for pair in commented if pair[0].lower() in config.Settings.model_fields]
    assert settings
    for name, value in settings:
        assert defaults[name] in (value, f"{value}.0"), name


def test_every_variable_of_compose_is_in_the_example_or_has_a_default() -> None:
    text = "".join((ROOT / file).read_text() for file in FILES)
    needed = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)(?::\?[^}]*)?\}", text))
    assert set() < needed <= set(example())


def test_the_api_starts_from_the_example_and_not_in_production(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in example().items():
        monkeypatch.setenv(name, value)
    loaded = config.load()
    assert (loaded.host, loaded.auth_required) == ("0.0.0.0", True)
    monkeypatch.setenv("ENVIRONMENT", "production")
    with pytest.raises(ConfigurationError) as caught:
        config.load()
    refused = {line.split()[0] for line in caught.value.detail.splitlines()}
    assert refused == {
        *("SECRET_KEY", "ADMIN_PASSWORD", "S3_SECRET_KEY", "RAY_AUTH_TOKEN"),
        *("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL"),
    }


def test_every_secret_of_the_example_says_that_it_is_one() -> None:
    secret = re.compile(r"(PASSWORD|SECRET_KEY|TOKEN)$")
    secrets = {name: value for name, value in example().items() if value and secret.search(name)}
    assert secrets
    assert [name for name, value in secrets.items() if config.EXAMPLE_MARK not in value] == []


@pytest.mark.parametrize("mine", [False, True])
def test_grafana_does_not_start_in_production_with_an_example_secret(mine: bool) -> None:
    """By a line of shell, since Grafana itself takes any password."""
    shell, option, script = compose("docker-compose.prod.yml")["services"]["grafana"]["entrypoint"]
    # Compose makes one dollar of two.
    script = script.replace("$$", "$").replace("exec /run.sh", "echo started")
    examples = {example()["GRAFANA_PASSWORD"], *config.EXAMPLE_SECRETS}
    for password in {"8f3a1c0e4b"} if mine else examples:
        done = subprocess.run(
            [shell, option, script],
            env={"PATH": os.environ["PATH"], "GF_SECURITY_ADMIN_PASSWORD": password},
            capture_output=True,
            text=True,
            check=False,
        )
        refusal = "GRAFANA_PASSWORD holds an example secret: production needs one of your own\n"
        expected = (0, "started\n", "") if mine else (1, "", refusal)
        assert (done.returncode, done.stdout, done.stderr) == expected, password


def test_every_port_is_where_it_is_looked_for() -> None:
    for name, port in PORTS.items():
        (published,) = services()[name]["ports"]
        address, number, _ = published.rsplit(":", 2)
        assert number == str(port)
        assert address == "${PUBLISH_ADDRESS:-127.0.0.1}"
    published = {name for name, service in services().items() if "ports" in service}
    assert published == {*PORTS, "ray-head-cpu"}


def test_production_publishes_the_gateway_alone() -> None:
    found = compose("docker-compose.prod.yml")["services"]
    assert found["nginx"]["ports"] == ["80:8080", "443:8443"]
    assert [name for name, service in found.items() if "ports" in service] == ["nginx"]
    assert set(found) == set(services())
    ours = {name for name, service in services().items() if "env_file" in service}
    for name in ours:
        assert found[name]["environment"]["ENVIRONMENT"] == "production", name


def test_every_limit_of_the_gateway_can_be_set_and_the_example_shows_its_default() -> None:
    script = (ROOT / "nginx" / "gateway.sh").read_text()
    defaults = dict(re.findall(r"^: \"\$\{(\w+):=(.*)\}\"$", script, re.MULTILINE))
    (limits,) = re.findall(r"for name in ((?:\w+ )+\w+); do\n *check_whole", script)
    assert "GATEWAY_RATE" in limits
    shown = (ROOT / ".env.example").read_text()
    for name in (*limits.split(), "MAX_WAIT", "GATEWAY_TRUSTED_PROXIES"):
        assert services()["nginx"]["environment"][name].startswith("${" + name + ":-")
        assert f"\n# {name}={defaults[name]}\n" in shown


def test_any_number_of_replicas_and_workers_can_run() -> None:
    """What `--scale` multiplies has no name and no port of its own on the host."""
    assert services()["api-server"]["scale"] == 3
    for name in ("api-server", "gpu-worker", "cpu-worker", "recorder"):
        assert not {"container_name", "ports", "hostname"} & set(services()[name])
    assert services()["nginx"]["environment"]["GATEWAY_API"] == "api-server:8000"
    assert services()["gpu-worker"]["command"][-2:] == ["--gpu-locks", "/run/inferstack"]
    assert "gpu-locks:/run/inferstack" in services()["gpu-worker"]["volumes"]


def test_machines_of_a_cluster_are_in_the_network_of_their_hosts() -> None:
    """Ray's connect to each other on any port, at the address that they announce."""
    found = compose("docker-compose.cluster.yml")["services"]
    assert set(found) == MODELS_RUN_HERE | {"redis", "s3"}
    for name in MODELS_RUN_HERE:
        machine = found[name]
        assert machine["network_mode"] == "host"
        # Compose takes neither of them together with it.
        for other in {"networks", "ports"} & set(services()[name]):
            assert not machine[other], (name, other)
        host = machine["environment"]["METRICS_HOST"]
        assert machine["command"][-1] == f"--node-ip-address={host}"
        assert machine["environment"]["RAY_ADDRESS"] == f"{host}:10001"
        # They may be elsewhere, and AWS has no endpoint.
        redis, s3 = machine["environment"]["REDIS_URL"], machine["environment"]["S3_ENDPOINT"]
        assert redis == f"${{CLUSTER_REDIS_URL:-redis://:${{REDIS_PASSWORD}}@{host}:6379/0}}"
        assert s3 == f"${{CLUSTER_S3_ENDPOINT-http://{host}:8333}}"
        assert machine["command"][:-1] == [
            word
            for word in services()[name].get("command", ["python", "-P", "-m", node.__name__])
            if word not in ("--gpu-locks", "/run/inferstack")
        ]
    for name, port in (("redis", 6379), ("s3", 8333)):
        assert found[name]["ports"] == [f"{host}:{port}:{port}"]


def test_the_head_and_the_worker_of_a_server_do_not_share_a_port_of_metrics() -> None:
    """They share no home either, by which one could answer for both."""
    found = compose("docker-compose.cluster.yml")["services"]
    assert "METRICS_PORT" not in found["gpu-worker"]["environment"]
    for name in ("ray-head", "ray-head-cpu"):
        assert found[name]["environment"]["METRICS_PORT"] == "9465"


def test_the_other_servers_run_the_same_worker() -> None:
    others = compose("docker-compose.worker.yml")
    first = compose("docker-compose.cluster.yml")["services"]
    assert others["name"] == compose()["name"]
    assert set(others["services"]) == {"gpu-worker", "cpu-worker", "dcgm-exporter"}
    for name, found in others["services"].items():
        once = services()[name]
        machine = {**once, **first[name]} if name in first else once
        for key in set(machine) - {"volumes", "environment", "networks", "depends_on", "expose"}:
            assert str(found.get(key, [])).replace("NODE_", "HEAD_") == str(machine[key]), key
        if name in first:
            assert once["volumes"][0] == found["volumes"][0]
            environment = once["environment"] | first[name]["environment"]
            assert found["environment"].keys() == environment.keys()
            assert found["environment"]["METRICS_HOST"] == "${NODE_ADDRESS:?set it in .env}"


def test_a_profile_runs_without_a_gpu() -> None:
    without = {
        name: service
        for name, service in services().items()
        if service.get("profiles", ["cpu"]) == ["cpu"]
    }
    assert "cpu-worker" in without
    assert "gpu-worker" not in without
    assert not [name for name, service in without.items() if "deploy" in service]
    # Both are found under the same names.
    assert services()["ray-head-cpu"]["networks"]["default"]["aliases"] == ["ray-head"]
    assert services()["cpu-worker"]["networks"]["default"]["aliases"] == ["gpu-worker"]


def test_models_get_no_secret_that_they_do_not_need() -> None:
    for name in MODELS_RUN_HERE:
        blanked = services()[name]["environment"]
        for secret in ("SECRET_KEY", "ADMIN_PASSWORD", "DATABASE_URL", "DB_PASSWORD"):
            assert blanked[secret] == "", (name, secret)
        assert blanked["GRAFANA_PASSWORD"] == ""


def test_every_process_of_ours_is_asked_whether_it_works() -> None:
    checks = {name: service.get("healthcheck", {}) for name, service in services().items()}
    assert {name for name, check in checks.items() if check.get("disable")} == {"migrate"}
    for name in ("recorder", "background"):
        assert checks[name]["test"][-3:] == ["inferstack.telemetry.pulse", name, "--ready"]
        assert checks[name]["retries"] > 0


def test_prometheus_scrapes_every_process_of_ours() -> None:
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.compose.yml").read_text())
    (found,) = [job for job in config["scrape_configs"] if job["job_name"] == "inferstack"]
    (discovery,) = found["dns_sd_configs"]
    # Those without a GPU go by the names of those with one.
    renamed = {"ray-head-cpu", "cpu-worker"}
    ours = {name for name, service in services().items() if "env_file" in service}
    assert set(discovery["names"]) == ours - {"migrate"} - renamed
    for path in (ROOT / "docker").glob("*.Dockerfile"):
        if "METRICS_PORT" in path.read_text():
            assert f"METRICS_PORT={discovery['port']}" in path.read_text()


def test_alloy_takes_the_logs_of_this_project_alone_and_sends_them_where_compose_says() -> None:
    text = (ROOT / "monitoring/alloy/config.alloy").read_text()
    assert '"com.docker.compose.project=" + sys.env("COMPOSE_PROJECT_NAME")' in text
    given = services()["alloy"]["environment"]
    assert set(re.findall(r'sys\.env\("(\w+)"\)', text)) == set(given)
    assert given["COMPOSE_PROJECT_NAME"].endswith(f":-{compose()['name']}}}")


def test_grafana_finds_its_dashboards_where_they_are_mounted() -> None:
    mounted = dict(volume.split(":")[:2] for volume in services()["grafana"]["volumes"])
    folder = ROOT / "monitoring/grafana/provisioning/dashboards"
    (provider,) = yaml.safe_load((folder / "inferstack.yml").read_text())["providers"]
    assert provider["options"]["path"] == mounted["./monitoring/grafana/dashboards"]


def test_containers_get_longer_to_end_than_their_programs_take() -> None:
    found = services()
    assert _seconds(found["api-server"]["stop_grace_period"]) > server.DRAIN + 5
    for name in MODELS_RUN_HERE:
        assert _seconds(found[name]["stop_grace_period"]) > drain.of_host(config.load()) + node.KILL
    longest = config.Settings.model_fields["max_wait"].default
    assert _seconds(found["nginx"]["stop_grace_period"]) > longest + 15


def test_no_container_has_more_rights_than_it_needs() -> None:
    for name, service in services().items():
        assert service["cap_drop"] == ["ALL"], name
        assert "privileged" not in service
        if name != "dcgm-exporter":
            assert service["security_opt"] == ["no-new-privileges:true"]


def test_what_is_not_built_here_is_pinned() -> None:
    found = images()
    assert found
    assert [image for image in found if not re.search(r":v?\d+\.\d+", image)] == []


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_is_mounted_or_built_from_is_there(name: str) -> None:
    for service in compose(name)["services"].values():
        sources = [volume.split(":")[0] for volume in service.get("volumes", ())]
        sources += [service["build"]["dockerfile"]] if "build" in service else []
        for source in sources:
            path = Path(source)
            if source.startswith(("./", "docker/")) and (ROOT / path.parts[0]).exists():
                assert (ROOT / path).exists(), source
            elif source.startswith("./"):
                assert path.parts[0] in BESIDE, source


def test_redis_is_as_durable_as_the_embedded_one() -> None:
    (_, _, script) = services()["redis"]["command"]
    words = shlex.split(script.replace("$$", ""))[2:]
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert (given["--appendonly"], given["--appendfsync"]) == ("yes", "always")
    assert given["--maxmemory-policy"] == "noeviction"
    lines = redis_server._configuration(Path("/data"), 6379, "x").splitlines()
    embedded = {f"--{name}": value for name, _, value in (line.partition(" ") for line in lines)}
    machine = {"--bind", "--port", "--daemonize", "--pidfile", "--logfile", "--"}
    assert set(embedded) - machine == set(given)
    own = {"--requirepass", "--dir", "--maxmemory"}
    for name in set(given) - own:
        assert given[name] == embedded[name].strip('"'), name


def test_every_command_is_a_program_of_ours() -> None:
    ours = [service for service in services().values() if "env_file" in service]
    commands = [service.get("command", []) for service in ours]
    modules = {command[3] for command in commands if command[:3] == ["python", "-P", "-m"]}
    assert modules
    assert [module for module in modules if find_spec(module) is None] == []
