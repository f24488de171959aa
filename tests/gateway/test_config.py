"""What `gateway.sh` makes of the environment, for every NGINX that is here."""

import pytest

from tests.gateway.gateway import Gateway, resolves, resolving_program, version
from tests.gateway.tls import Certificate
from tests.programs import nginx_programs

ADDRESS = "127.0.0.1:8000"
NAME = "localhost:8000"
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "addresses": (f"{ADDRESS},127.0.0.2:8000,[::1]:8000", {}),
    "name": (NAME, {}),
    "everything": (
        NAME,
        {
            "GATEWAY_RESOLVER": "127.0.0.11,[::1]:5353",
            "GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8,fd00::/8",
            "GATEWAY_RATE": 5,
            "GATEWAY_BURST": 1,
            "GATEWAY_CONNECTIONS": 2,
            "GATEWAY_TIMEOUT": 1,
            "MAX_WAIT": "0.5",
            "MAX_BODY_BYTES": 1024,
        },
    ),
}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_nginx_takes_every_variant_without_a_warning(
    variant: str, tls: bool, certificate: Certificate
) -> None:
    api, variables = VARIANTS[variant]
    given = variables | (certificate.variables if tls else {})
    for program in nginx_programs():
        gateway = Gateway(api, GATEWAY_NGINX=program, **given)
        done = gateway.check()
        gateway.remove()
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stderr.splitlines() if "configuration file" not in line]
        if api == NAME and not resolves(program):
            assert said.pop().startswith("GATEWAY_API: before 1.27.3"), version(program)
        assert not said


def test_what_the_environment_does_not_say_has_a_default() -> None:
    # A name that is looked up again and again needs no DNS to start.
    program = resolving_program()
    gateway = Gateway(GATEWAY_NGINX=program)
    for name in ("GATEWAY_API", "GATEWAY_UI", "GATEWAY_ACCESS_LOG"):
        del gateway.environment[name]
    done = gateway.check()
    upstream, http = gateway.rendered("nginx"), gateway.rendered("http")
    gateway.remove()
    assert done.returncode == 0, done.stderr
    assert "server api-server:8000 max_fails=1 fail_timeout=2s resolve;" in upstream
    assert "client_max_body_size 16777216;" in http


@pytest.mark.parametrize("kind", ["open", "link"])
def test_a_folder_that_others_could_write_to_is_refused(kind: str) -> None:
    gateway = Gateway(ADDRESS)
    folder = gateway.folder / "nginx"
    if kind == "open":
        folder.mkdir()
        folder.chmod(0o777)
    else:
        folder.symlink_to(gateway.folder)
    done = gateway.check()
    gateway.remove()
    assert done.returncode == 1
    assert done.stderr == f"GATEWAY_FOLDER={folder}: it takes a folder of this user's own\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_API", "127.0.0.1"),
        ("GATEWAY_API", "api:8000;evil"),
        ("GATEWAY_API", "a:1 b:2"),
        ("GATEWAY_RATE", "many"),
        ("GATEWAY_RATE", "0"),
        ("GATEWAY_CONNECTIONS", "-1"),
        ("GATEWAY_TIMEOUT", "1.5"),
        ("GATEWAY_UI", "/ui; return 200"),
        ("GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8\n"),
        ("MAX_BODY_BYTES", "16M"),
        ("MAX_WAIT", "long"),
        ("MAX_WAIT", "1.2.3"),
        ("GATEWAY_KEY", "/without/its/certificate"),
        ("GATEWAY_NGINX", "/no/such/program"),
    ],
)
def test_nonsense_is_one_line_that_names_it(name: str, value: str) -> None:
    gateway = Gateway(ADDRESS, **{name: value})
    done = gateway.check()
    gateway.remove()
    assert done.returncode == 1
    line = done.stderr.replace(value, "VALUE")
    assert line.count("\n") == 1
    assert name in line
