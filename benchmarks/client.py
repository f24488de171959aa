"""The one client for all systems: wrk if it is there, else inferstack's own load generator."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.machine import Foreign
from benchmarks.processes import ask
from inferstack.client.load import Load, run_blocking

LONGEST = 300.0
"""Seconds after which a fixed number of requests is given up."""

GRACE = 60.0
"""Seconds that a request may take before it counts as lost."""


class Target(msgspec.Struct, frozen=True):
    """Where to send what."""

    system: str
    url: str
    bodies: list[bytes] = []
    """POST in turn; GET if empty."""
    headers: dict[str, str] = {}

    def load(self, connections: int, seconds: float, **options: Any) -> Load:
        """What the own generator sends there; `options` as of `Load`."""
        return Load(
            url=self.url,
            bodies=self.bodies,
            headers=self.headers,
            connections=connections,
            duration=seconds,
            timeout=GRACE,
            **options,
        )


class Sample(msgspec.Struct, frozen=True):
    """One measurement."""

    system: str
    kind: str
    connections: int
    round: int
    rate: float
    """Answers per second."""
    completed: int
    failed: int
    """Answers with a status that is not 2xx, and requests without an answer."""
    latency_ms: dict[str, float]
    steal_percent: float = 0.0


class Client:
    """Keeps connections busy for a while."""

    def __init__(self, wrk: str | None, cores: int) -> None:
        """Args: wrk: its path, None for the own generator; cores: of this machine."""
        self._wrk = wrk
        self._threads = 1 if cores <= 4 else 2
        self.name = f"wrk -t{self._threads}" if wrk else "inferstack.client.load"

    def closed(
        self, target: Target, kind: str, connections: int, seconds: float, number: int
    ) -> Sample:
        """Every connection sends its next request when the last one is answered.

        Args:
            target: where.
            kind: `echo`, `same` or `mixed`, for the record.
            connections: how many.
            seconds: for how long.
            number: of the round, for the record.
        """
        foreign = Foreign()
        measure = self._by_wrk if self._wrk else self._by_own
        rate, completed, failed, latency = measure(target, connections, seconds)
        return Sample(
            target.system,
            kind,
            connections,
            number,
            round(rate, 1),
            completed,
            failed,
            latency,
            foreign.steal_percent(),
        )

    def settle(self, target: Target) -> None:
        """Waits until the requests that a closed loop left behind are served.

        Without it, the measurement that follows would pay for them. Servers answer in order, so
        two requests of one more client come last: one behind what waits, one behind what runs.

        Raises:
            OSError: the server does not answer, or not with 2xx.
        """
        for _ in range(2):
            ask(target.url, target.bodies[0] if target.bodies else None, target.headers)

    def fixed(self, target: Target, kind: str, connections: int, count: int, number: int) -> Sample:
        """The same requests for everybody, until the last is answered; always the own generator.

        Texts of mixed length need this: in a fixed time, a system that answers short texts
        first would be credited for long ones it has put off.

        Args:
            target: where.
            kind: for the record.
            connections: how many.
            count: requests in all.
            number: of the round, for the record.
        """
        foreign = Foreign()
        report = run_blocking(target.load(connections, LONGEST, max_requests=count))
        answered = report.statuses.get(200, 0)
        return Sample(
            target.system,
            kind,
            connections,
            number,
            round(answered / report.duration, 1),
            answered,
            count - answered,
            report.latency_ms,
            foreign.steal_percent(),
        )

    def _by_own(
        self, target: Target, connections: int, seconds: float
    ) -> tuple[float, int, int, dict[str, float]]:
        report = run_blocking(target.load(connections, seconds))
        # A 202 instead of the result means that the result was not waited for.
        other = sum(count for status, count in report.statuses.items() if status != 200)
        failed = other + sum(report.errors.values())
        return report.rate, report.completed - other, failed, report.latency_ms

    def _by_wrk(
        self, target: Target, connections: int, seconds: float
    ) -> tuple[float, int, int, dict[str, float]]:
        assert self._wrk is not None
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "load.lua"
            script.write_text(wrk_script(target, Path(folder)))
            command = [self._wrk, f"-t{self._threads}", f"-c{connections}", f"-d{seconds:g}s"]
            command += ["--timeout", f"{GRACE:g}s", "-s", str(script), target.url]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=seconds + 2 * GRACE
            )
        found = json.loads(done.stdout.splitlines()[-1])
        if found["latency_ms"]["max"] > GRACE * 500:
            raise RuntimeError(f"{target.system}: answers took so long that waiting may have ended")
        # wrk counts what is answered until the end of the time; requests under way are dropped.
        ok = found["requests"] - found["failed"]
        return ok / found["seconds"], ok, found["failed"], found["latency_ms"]


def wrk_script(target: Target, folder: Path) -> str:
    """The Lua script that makes wrk send the target's requests and print JSON."""
    lines = [f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in target.headers.items()]
    if target.bodies:
        (folder / "bodies").write_bytes(b"\n".join(target.bodies))
        lines += [
            'wrk.method = "POST"',
            'wrk.headers["Content-Type"] = "application/json"',
            f'for line in io.lines("{folder}/bodies") do bodies = bodies or {{}};'
            " bodies[#bodies + 1] = line end",
            "wrk.body = bodies[1]",
        ]
    if len(target.bodies) > 1:
        lines.append(ROTATE)
    return "\n".join([*lines, DONE])


ROTATE = """
local ready, at = {}, 0
init = function(args)
  for i, body in ipairs(bodies) do ready[i] = wrk.format(nil, nil, nil, body) end
end
request = function()
  at = at % #ready + 1
  return ready[at]
end
"""

DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  local text = '{"seconds":%.6f,"requests":%d,"failed":%d,"latency_ms":{"p50":%.3f,'
  text = text .. '"p90":%.3f,"p95":%.3f,"p99":%.3f,"p999":%.3f,"mean":%.3f,"max":%.3f}}\\n'
  local p = function(n) return latency:percentile(n) / 1000 end
  io.write(string.format(text, summary.duration / 1e6, summary.requests,
    e.connect + e.read + e.write + e.status + e.timeout, p(50), p(90), p(95), p(99), p(99.9),
    latency.mean / 1000, latency.max / 1000))
end
"""
