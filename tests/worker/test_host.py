"""Bringing a replica up."""

import logging
import threading
from pathlib import Path

import pytest

from inferstack.engines.repository import find, scan
from inferstack.worker import host

from .fakes import settings

TOLD = threading.Event()
SLOW = """
from tests.worker import test_host

class Model:
    def load(self, path, device):
        assert test_host.TOLD.wait(20)
    def predict(self, inputs):
        return inputs
"""


def test_a_model_that_does_not_get_loaded_says_where_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "slow" / "1"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("engine: python\n")
    (folder / "model.py").write_text(SLOW)
    monkeypatch.setattr(host, "SLOW_LOAD", 0.05)
    lines: list[logging.LogRecord] = []

    def twice(record: logging.LogRecord) -> bool:
        lines.append(record)
        if len(lines) >= 2:
            TOLD.set()
        return True

    monkeypatch.setattr(host.log, "filters", [twice])
    host.LoadedModel(find(scan(tmp_path, settings()), "slow", 1), settings(), "cpu")
    teller = [each for each in threading.enumerate() if each.name == "slow-load"]
    for thread in teller:
        thread.join(10)
        assert not thread.is_alive()
    assert caplog.messages[0] == "slow:1 still loads or warms up after 0 min, see stderr"
    assert 'model.py", line 6 in load' in capfd.readouterr().err
