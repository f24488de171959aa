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
    with pytest.raises(FileNotFoundError):
        folder_for(tmp_path, make=False)


async def test_a_loop_that_is_stuck_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "PERIOD", 0.05)
    monkeypatch.setattr(pulse, "STALE", 1.0)
    async with pulse.beating("recorder", tmp_path):
        await asyncio.sleep(1.1)
        assert pulse.alive("recorder", tmp_path)
        time.sleep(1.1)
        assert not pulse.alive("recorder", tmp_path)


async def test_what_does_not_turn_shows_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "PERIOD", 0.05)
    monkeypatch.setattr(pulse, "STALE", 0.5)
    lives = [True]
    async with pulse.beating("background", tmp_path, lambda: lives[0]):
        assert pulse.alive("background", tmp_path)
        lives[0] = False
        async with asyncio.timeout(5):
            while pulse.alive("background", tmp_path):
                await asyncio.sleep(0.05)


async def test_a_process_is_ready_when_it_says_so_and_while_it_lives(tmp_path: Path) -> None:
    async with pulse.beating("recorder", tmp_path) as own:
        assert not pulse.alive("recorder", tmp_path, ready=True)
        own.ready()
        assert pulse.alive("recorder", tmp_path, ready=True)
    assert not pulse.alive("recorder", tmp_path, ready=True)


async def test_a_place_that_is_somebody_elses_is_told_once_and_keeps_nobody_from_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pulse, "PERIOD", 0.01)
    folder = folder_for(tmp_path)
    folder.rmdir()
    # A link to a folder of ours, as anybody can lay it.
    folder.symlink_to(tmp_path)
    try:
        async with pulse.beating("recorder", tmp_path) as own:
            own.ready()
            await asyncio.sleep(0.05)
            assert not pulse.alive("recorder", tmp_path)
    finally:
        folder.unlink()
    assert list(tmp_path.iterdir()) == []
    assert caplog.text.count("nobody can see whether this process lives") == 1


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    folder = folder_for(tmp_path)
    for name in ("recorder.alive", "recorder.ready"):
        (folder / name).touch()
    sweep(tmp_path)
    assert not folder.exists()


async def test_the_command_tells_by_its_exit_status(tmp_path: Path) -> None:
    async def ask(*name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "inferstack.telemetry.pulse", *name]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "INFERSTACK_HOME": str(tmp_path)}
        return await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True
        )

    async with pulse.beating("recorder", tmp_path):
        alive, unready, dead, wrong = await asyncio.gather(
            ask("recorder"), ask("recorder", "--ready"), ask("worker"), ask()
        )
    assert alive.returncode == 0
    assert unready.returncode == 1
    assert unready.stderr == "recorder is not ready: its log says what it waits for\n"
    assert dead.returncode == 1
    assert dead.stderr == "worker has shown no sign of life for 20 s\n"
    assert wrong.returncode == 2
