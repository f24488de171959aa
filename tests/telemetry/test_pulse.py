"""A sign of life that containers ask for."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inferstack.telemetry import pulse
from inferstack.telemetry.peers import folder_for, sweep

ROOT = Path(__file__).parents[2]


async def test_it_beats_while_the_block_runs(tmp_path: Path) -> None:
    assert not pulse.alive("recorder", tmp_path)
    async with pulse.beating("recorder", tmp_path):
        assert pulse.alive("recorder", tmp_path)
        assert not pulse.alive("worker", tmp_path)
    assert not pulse.alive("recorder", tmp_path)
    sweep(tmp_path)


async def test_a_loop_that_is_stuck_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "PERIOD", 0.05)
    monkeypatch.setattr(pulse, "STALE", 0.5)
    async with pulse.beating("recorder", tmp_path):
        await asyncio.sleep(0.7)
        assert pulse.alive("recorder", tmp_path)
        time.sleep(0.7)
        assert not pulse.alive("recorder", tmp_path)


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    file = folder_for(tmp_path) / "recorder.alive"
    file.touch()
    sweep(tmp_path)
    assert not file.parent.exists()


async def test_the_command_tells_by_its_exit_status(tmp_path: Path) -> None:
    async def ask(*name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "inferstack.telemetry.pulse", *name]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "INFERSTACK_HOME": str(tmp_path)}
        return await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True
        )

    async with pulse.beating("recorder", tmp_path):
        alive, dead, wrong = await asyncio.gather(ask("recorder"), ask("worker"), ask())
    assert alive.returncode == 0
    assert dead.returncode == 1
    assert dead.stderr == "worker has shown no sign of life for 20 s\n"
    assert wrong.returncode == 2
    sweep(tmp_path)
