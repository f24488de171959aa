"""How long replicas get to drain."""

from pathlib import Path

import pytest

from inferstack.engines.repository import scan
from inferstack.worker import drain

from .fakes import settings


@pytest.mark.parametrize(
    ("timeouts", "replicas", "host"), [((5,), 15, 90), ((30, 300), 310, 330), ((), 70, 90)]
)
def test_the_longest_timeout_of_a_model_decides(
    timeouts: tuple[int, ...], replicas: float, host: float, tmp_path: Path
) -> None:
    for timeout in timeouts:
        folder = tmp_path / f"m{timeout}" / "1"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(f"engine: python\ntimeout: {timeout}\n")
    current = settings(model_path=tmp_path)
    assert drain.of_replicas(scan(tmp_path, current)) == replicas
    assert drain.of_host(current) == host


def test_a_machine_without_models_drains_as_with_the_usual_ones(tmp_path: Path) -> None:
    assert drain.of_host(settings(model_path=tmp_path / "none")) == 90
