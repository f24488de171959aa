"""One scrape for several processes."""

import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inferstack.telemetry.peers import Peers, folder_for, merge

ONE = (
    b"# HELP a_total A.\n# TYPE a_total counter\na_total 1.0\n# HELP b B.\n# TYPE b gauge\nb 2.0\n"
)
TWO = b'# HELP b B.\n# TYPE b gauge\nb{x="{y} z"} 3.0\n# HELP c C.\n# TYPE c gauge\nc 4.0\n'


def test_samples_of_one_family_stay_together() -> None:
    merged = merge([("p1", ONE), ("p2", TWO)]).decode()
    assert merged.count("# TYPE b gauge") == 1
    found = {
        (sample.name, sample.labels["process"], sample.labels.get("x")): sample.value
        for family in text_string_to_metric_families(merged)
        for sample in family.samples
    }
    assert found == {
        ("a_total", "p1", None): 1.0,
        ("b", "p1", None): 2.0,
        ("b", "p2", "{y} z"): 3.0,
        ("c", "p2", None): 4.0,
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return folder_for(tmp_path)


async def test_every_living_process_is_asked_and_the_dead_are_forgotten(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)
    first = Peers(folder, "api", lambda: ONE)
    monkeypatch.setattr("os.getpid", lambda: 2)
    second = Peers(folder, "api", lambda: TWO)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "api-3.sock"))
    await first.start()
    await second.start()
    for peers in (first, second):
        text = await peers.gather()
        assert b'process="api-1"' in text
        assert b'process="api-2"' in text
    assert not (folder / "api-3.sock").exists()
    await second.stop()
    assert b"api-2" not in await first.gather()
    await first.stop()
    assert not folder.exists()
