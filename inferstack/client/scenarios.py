"""The load scenarios, declared once for `inferstack bench --scenario` and `tests/load-test.js`.

What is declared in `scenarios.json` is read here and by k6, which cannot import Python.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from inferstack.client import wire
from inferstack.client.load_plan import Load, Step
from inferstack.client.options import Target
from inferstack.task import Priority

FILE = Path(__file__).with_name("scenarios.json")
COMPLETED = b'"status":"completed"'
"""What the answer of status 200 to a submit that waits must hold: a failed task has it too."""

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]


class ScenarioName(StrEnum):
    """What can be asked for."""

    SMOKE = "smoke"
    LOAD = "load"
    STRESS = "stress"
    SPIKE = "spike"
    SOAK = "soak"


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of request of the mix."""

    share: Annotated[int, Meta(ge=1)]
    """How many in a row are sent of it, before the next kind has its turn."""
    priority: Priority
    data: dict[str, Any]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may happen in a stage at most. Shares are of all requests that are due in it."""

    failed: Share
    """Without an answer, with an error, or with a task that did not complete."""
    refused: Share
    """Answered 429 or 503 with `Retry-After`."""
    unsent: Share
    """Given up because every connection was busy for too long."""
    p95_ms: Positive | None = None
    p99_ms: Positive | None = None


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A while at one rate."""

    name: str
    seconds: Positive
    times: Positive
    """How many times the rate of the scenario is asked."""
    limits: str
    """Name of the limits."""


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stages that follow each other without a pause."""

    about: str
    rate: Positive
    """Requests per second that `times` multiplies."""
    connections: Annotated[int, Meta(ge=1)]
    wait: Annotated[float, Meta(ge=0)]
    """Seconds to wait for results; 0 only submits."""
    stages: tuple[Stage, ...]

    @property
    def seconds(self) -> float:
        """How long it sends requests."""
        return sum(stage.seconds for stage in self.stages)

    def steps(self) -> list[Step]:
        """The stages as the load generator takes them."""
        return [Step(stage.seconds, stage.times * self.rate) for stage in self.stages]

    def changed(
        self,
        *,
        rate: float | None = None,
        duration: float | None = None,
        connections: int | None = None,
        wait: float | None = None,
    ) -> "Scenario":
        """The same with other figures; what is None stays.

        Args:
            rate: requests per second that the stages multiply.
            duration: seconds of all stages together; each keeps its share.
            connections: connections, each with one request at a time.
            wait: seconds to wait for results.
        """
        factor = 1.0 if duration is None else duration / self.seconds
        stages = [msgspec.structs.replace(s, seconds=s.seconds * factor) for s in self.stages]
        given = {"rate": rate, "connections": connections, "wait": wait}
        kept = {name: value for name, value in given.items() if value is not None}
        return msgspec.structs.replace(self, stages=tuple(stages), **kept)


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that is declared."""

    timeout: Positive
    """Seconds after which a task expires, so that an overload leaves nothing behind for long."""
    patience: Positive
    """Seconds for which a request that is due waits for a free connection."""
    requests: tuple[Request, ...]
    limits: dict[str, Limits]
    scenarios: dict[ScenarioName, Scenario]

    def bodies(
        self,
        *,
        wait: float = 0.0,
        model: str | None = None,
        version: int | None = None,
        data: Sequence[dict[str, Any]] = (),
    ) -> list[bytes]:
        """The JSON bodies to send in turn.

        Args:
            wait: seconds that the caller waits: a task lives at least as long.
            model: the model's name; the server's default if None.
            version: the model's version; the newest if None.
            data: inputs that take the places of the declared ones, in turn; none keeps those.
        """
        mix = [request for request in self.requests for _ in range(request.share)]
        length = len(mix) * len(data) if data else len(mix)
        kinds = [mix[number % len(mix)] for number in range(length)]
        extra = {"model": model, "model_version": version}
        extra = {name: value for name, value in extra.items() if value is not None}
        return [
            msgspec.json.encode(
                {
                    "data": data[number % len(data)] if data else kind.data,
                    "priority": kind.priority,
                    "timeout": max(self.timeout, wait),
                    **extra,
                }
            )
            for number, kind in enumerate(kinds)
        ]

    def load(
        self, scenario: Scenario, target: Target, bodies: Sequence[bytes], *, allow_remote: bool
    ) -> Load:
        """What the load generator does for a scenario.

        Args:
            scenario: which one.
            target: where to and as whom.
            bodies: see `bodies`.
            allow_remote: whether the target may be another machine.
        """
        return Load(
            url=f"{target.url}/api/inference",
            bodies=bodies,
            headers={**target.headers, **wire.prefer(scenario.wait)},
            connections=scenario.connections,
            steps=scenario.steps(),
            timeout=scenario.wait + 2 * self.patience,
            patience=self.patience,
            max_requests=sum(step.count for step in scenario.steps()),
            allow_remote=allow_remote,
            expected=COMPLETED if scenario.wait else b"",
        )


def declaration() -> Declaration:
    """What `scenarios.json` says."""
    return msgspec.json.decode(FILE.read_bytes(), type=Declaration)
