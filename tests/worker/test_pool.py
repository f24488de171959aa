"""Replicas as plain processes: what is done about those that do not stay alive."""

import asyncio
import os
import sys

import pytest

from inferstack.engines.repository import ModelEntry, find, scan
from inferstack.worker import pool
from inferstack.worker.pool import GIVEN_UP, Pool, ReplicaPlan
from tests.worker.fakes import settings


class Dying(ReplicaPlan):
    """A replica that ends at once."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", "raise SystemExit(7)"]


async def test_a_replica_that_never_gets_ready_fails_its_deployment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "FIRST_PAUSE", 0.01)
    chosen = settings()
    entry = find(scan(chosen.model_path, chosen), "echo", 1)
    reports: list[tuple[str, str]] = []
    again = asyncio.Event()

    async def report(failed: ModelEntry, reason: str) -> None:
        reports.append((failed.name, reason))
        again.set()

    replicas = Pool([Dying(entry, "cpu")], dict(os.environ), report)
    running = asyncio.create_task(replicas.run())
    await asyncio.wait_for(again.wait(), 20)
    replicas.stop()
    await asyncio.wait_for(running, 20)
    name, reason = reports[0]
    assert name == "echo:1"
    assert f"{GIVEN_UP} times" in reason
    assert "with 7 last" in reason


def test_a_replica_does_not_import_from_the_working_directory() -> None:
    chosen = settings()
    entry = find(scan(chosen.model_path, chosen), "echo", 1)
    assert "-P" in ReplicaPlan(entry, "cpu").command
