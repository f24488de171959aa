"""The worker as a process: real Celery on a real Redis."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from inferstack.background.app import DUTIES, QUEUE, create_app
from inferstack.config import Settings, as_environment
from inferstack.queue.connection import Redis
from inferstack.queue.task_queue import TaskQueue
from inferstack.storage.history import History
from inferstack.telemetry import metrics, peers, pulse
from inferstack.telemetry.peers import folder_for
from tests.faults.failover import Pair
from tests.services import RedisServer
from tests.storage.samples import queued

QUICK = """
import sys
from inferstack.background import app, __main__
app.DUTIES = {"resend": (app.DUTIES["resend"][0], 0.2)}
sys.exit(__main__.main())
"""


LIVELY = """
import sys, time
from inferstack.background import __main__, liveness
from inferstack.telemetry import pulse
liveness.PERIOD, liveness.PATIENCE, pulse.PERIOD = 0.1, 1.0, 0.1
"""
STUCK = """
watch = liveness.Liveness.watch
def watch_and_stick(self, worker, clock):
    watch(self, worker, clock)
    worker.timer.call_after(2.0, time.sleep, (60.0,))
liveness.Liveness.watch = watch_and_stick
"""
SHORT = "liveness.LAST_PATIENCE = 3.0\n"
STUCK_CLOCK = """
from inferstack.background import clock
clock.Clock._sent = lambda self, name: time.sleep(60)
"""
HANGING = """
import asyncio
from inferstack.background import app
async def hang(settings):
    if free[0] or len(begun) < 2:
        begun.append(settings)
        await asyncio.sleep(600.0)
    return 0
begun = []
app.DUTIES = {name: (hang, 0.5) for name in ("resend", "usage", "digest")}
liveness.LONGEST = 2.0
"""
MAIN = "sys.exit(__main__.main())"


class Running:
    """A worker and what it says."""

    def __init__(self, command: list[str], settings: Settings, log: Path) -> None:
        self.log = log
        self.home = settings.inferstack_home
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=as_environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def silent_for(self) -> float:
        """Seconds since its latest sign of life."""
        return time.time() - (folder_for(self.home) / "background.alive").stat().st_mtime

    def until_ready(self) -> None:
        deadline = time.monotonic() + 30
        while not pulse.alive("background", self.home, ready=True):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

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
    peers.sweep(settings.inferstack_home)


async def resent(redis: Redis, settings: Settings, task_id: str, worker: Running) -> None:
    """Returns once a task that was lost is in Redis."""
    queue = TaskQueue(redis, "echo:1", settings)
    deadline = time.monotonic() + 30
    while await queue.get(task_id) is None:
        assert worker.process.poll() is None, worker.log.read_text()
        assert time.monotonic() < deadline, worker.log.read_text()
        await asyncio.sleep(0.05)


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
        worker = start("--no-beat", code=LIVELY + MAIN, celery_broker_url=broker.url)
        app = create_app(settings.model_copy(update={"celery_broker_url": broker.url}))
        await history.upsert([first])
        app.send_task("resend")
        await resent(redis, settings, first.spec.task_id, worker)
        assert broker.process is not None
        os.kill(broker.process.pid, signal.SIGKILL)
        broker.process.wait()
        # A restart of the worker would not bring the broker back.
        lives_for(worker, 2.5)
        broker.start()
        await history.upsert([second])
        app.close()
        app.send_task("resend")
        await resent(redis, settings, second.spec.task_id, worker)
        lives_for(worker, 2.5)
        app.close()


async def test_it_works_on_after_a_failover_of_the_broker(
    start: Callable[..., Running], settings: Settings, history: History, redis: Redis
) -> None:
    first, second = queued(), queued()
    async with Pair() as broker:
        await history.upsert([first])
        worker = start(code=QUICK, celery_broker_url=broker.url)
        await resent(redis, settings, first.spec.task_id, worker)
        await asyncio.to_thread(broker.demote)
        broker.promote()
        await history.upsert([second])
        await resent(redis, settings, second.spec.task_id, worker)
        assert worker.process.poll() is None


def lives_for(worker: Running, seconds: float) -> None:
    """Sees that the worker shows signs of life meanwhile."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert worker.silent_for < 1.5
        time.sleep(0.05)


def test_a_worker_whose_loop_is_stuck_shows(start: Callable[..., Running]) -> None:
    worker = start("--no-beat", code=LIVELY + STUCK + MAIN)
    worker.until_ready()
    deadline = time.monotonic() + 30
    while worker.silent_for < 2.0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert worker.process.poll() is None


def test_a_worker_whose_loop_stays_stuck_ends_itself(start: Callable[..., Running]) -> None:
    worker = start("--no-beat", code=LIVELY + SHORT + STUCK + MAIN)
    worker.until_ready()
    assert worker.process.wait(30) == pulse.EXIT_STUCK
    assert "the process ends" in worker.log.read_text()


def test_a_clock_that_is_stuck_ends_the_process(start: Callable[..., Running]) -> None:
    worker = start(code=LIVELY + SHORT + STUCK_CLOCK + MAIN)
    worker.until_ready()
    assert worker.process.wait(30) == pulse.EXIT_STUCK


async def test_a_worker_whose_duties_all_hang_ends(start: Callable[..., Running]) -> None:
    worker = start(code=LIVELY + "free = [True]\n" + HANGING + MAIN)
    assert worker.process.wait(30) == pulse.EXIT_STUCK
    assert "every duty has hung" in worker.log.read_text()


async def test_a_worker_with_a_thread_to_spare_goes_on(start: Callable[..., Running]) -> None:
    worker = start(code=LIVELY + "free = [False]\n" + HANGING + MAIN)
    worker.until_ready()
    lives_for(worker, 5.0)


def test_the_clock_is_no_process_that_could_be_lost(start: Callable[..., Running]) -> None:
    worker = start()
    worker.until_ready()
    assert not psutil.Process(worker.process.pid).children(recursive=True)


def test_a_wrong_broker_is_one_line(start: Callable[..., Running]) -> None:
    worker = start(celery_broker_url="localhost:6379")
    assert worker.process.wait(30) == 1
    assert worker.log.read_text().count("\n") == 1
    assert worker.log.read_text().startswith("CELERY_BROKER_URL is not a URL of a broker")


def test_a_duty_that_never_succeeds_is_late_from_the_start_on(settings: Settings) -> None:
    begun = time.time()
    create_app(settings)
    for name in DUTIES:
        shown = metrics.BACKGROUND.get_sample_value(
            "inferstack_duty_success_timestamp_seconds", {"duty": name}
        )
        assert shown is not None
        assert begun <= shown <= time.time()


def test_every_duty_is_sent_to_a_worker_that_knows_it(settings: Settings) -> None:
    app = create_app(settings)
    assert app.tasks.keys() >= DUTIES.keys()
    assert app.conf.task_default_queue == QUEUE
    assert app.conf.accept_content == ["json"]
