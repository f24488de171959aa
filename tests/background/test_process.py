"""The worker as a process: real Celery on a real Redis."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inferstack.background.app import DUTIES, QUEUE, create_app
from inferstack.config import Settings, as_environment
from inferstack.queue.connection import Redis
from inferstack.queue.task_queue import TaskQueue
from inferstack.storage.history import History
from tests.services import RedisServer
from tests.storage.samples import queued

QUICK = """
import sys
from inferstack.background import app, __main__
app.DUTIES = {"resend": (app.DUTIES["resend"][0], 0.2)}
sys.exit(__main__.main())
"""


class Running:
    """A worker and what it says."""

    def __init__(self, command: list[str], settings: Settings, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=as_environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(*arguments: str, code: str | None = None, **values: object) -> Running:
        head = ["-m", "inferstack.background"] if code is None else ["-c", code]
        changed = settings.model_copy(update=values)
        command = [sys.executable, "-P", *head, *arguments]
        running.append(Running(command, changed, tmp_path / f"{len(running)}.log"))
        return running[-1]

    yield begin
    for each in running:
        each.close()


async def resent(redis: Redis, settings: Settings, task_id: str, worker: Running) -> None:
    """Returns once a task that was lost is in Redis."""
    queue = TaskQueue(redis, "echo:1", settings)
    deadline = time.monotonic() + 30
    while await queue.get(task_id) is None:
        assert worker.process.poll() is None, worker.log.read_text()
        assert time.monotonic() < deadline, worker.log.read_text()
        time.sleep(0.05)


async def test_the_clock_sends_and_a_term_ends_it(
    start: Callable[..., Running], settings: Settings, history: History, redis: Redis
) -> None:
    # The first is found at the start, the second by the clock.
    worker = None
    for task in (queued(), queued()):
        await history.upsert([task])
        worker = worker or start(code=QUICK)
        await resent(redis, settings, task.spec.task_id, worker)
    assert worker is not None
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(15) == 0, worker.log.read_text()
    assert "Traceback" not in worker.log.read_text()


async def test_it_works_on_after_the_broker_was_away(
    start: Callable[..., Running], settings: Settings, history: History, redis: Redis
) -> None:
    first, second = queued(), queued()
    with RedisServer() as broker:
        worker = start("--no-beat", celery_broker_url=broker.url)
        app = create_app(settings.model_copy(update={"celery_broker_url": broker.url}))
        await history.upsert([first])
        app.send_task("resend")
        await resent(redis, settings, first.spec.task_id, worker)
        assert broker.process is not None
        os.kill(broker.process.pid, signal.SIGKILL)
        broker.process.wait()
        broker.start()
        await history.upsert([second])
        app.close()
        app.send_task("resend")
        await resent(redis, settings, second.spec.task_id, worker)
        app.close()


def test_a_wrong_broker_is_one_line(start: Callable[..., Running]) -> None:
    worker = start(redis_url=None, celery_broker_url=None)
    assert worker.process.wait(30) == 1
    assert worker.log.read_text().count("\n") == 1
    assert "neither CELERY_BROKER_URL nor REDIS_URL is set" in worker.log.read_text()


def test_every_duty_is_sent_to_a_worker_that_knows_it(settings: Settings) -> None:
    app = create_app(settings)
    for entry in app.conf.beat_schedule.values():
        assert entry["task"] in app.tasks
    assert len(app.conf.beat_schedule) == len(DUTIES)
    assert app.conf.task_default_queue == QUEUE
    assert app.conf.accept_content == ["json"]
