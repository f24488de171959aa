"""The thread that sends duties."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from inferstack.background import clock as module
from inferstack.background.clock import Clock
from tests.patience import until


@pytest.fixture
def started() -> Iterator[Callable[..., Clock]]:
    clocks: list[Clock] = []

    def start(send: Callable[[str], object], **periods: float) -> Clock:
        clocks.append(Clock(send, periods))
        clocks[-1].start()
        return clocks[-1]

    yield start
    for each in clocks:
        each.stop()


def test_every_duty_is_sent_at_once_and_then_with_its_period(
    started: Callable[..., Clock],
) -> None:
    sent: Counter[str] = Counter()
    started(lambda name: sent.update([name]), often=0.05, seldom=3600.0)
    until(lambda: sent["often"] == 5)
    assert sent["seldom"] == 1


def test_what_was_not_sent_is_sent_again_and_the_clock_goes_on(
    started: Callable[..., Clock], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.02)
    tries: list[str] = []

    def send(name: str) -> None:
        tries.append(name)
        if len(tries) < 4:
            raise RuntimeError("the broker is away")

    started(send, hourly=3600.0)
    until(lambda: len(tries) == 4)
    assert caplog.text.count("the broker is away") == 1


def test_a_clock_that_hangs_is_silent(started: Callable[..., Clock]) -> None:
    clock = started(lambda _: time.sleep(1.0), once=3600.0)
    until(lambda: clock.silent_for() > 0.2)
    until(lambda: clock.silent_for() < 0.2)
    assert Clock(print, {}).silent_for() == 0.0


def test_many_duties_that_are_slow_are_no_silence(started: Callable[..., Clock]) -> None:
    sent: list[str] = []

    def send(name: str) -> None:
        time.sleep(0.5)
        sent.append(name)

    clock = started(send, a=3600.0, b=3600.0, c=3600.0, d=3600.0, e=3600.0)
    silences: list[float] = []
    while len(sent) < 5:
        silences.append(clock.silent_for())
        time.sleep(0.01)
    assert max(silences) < 1.5
