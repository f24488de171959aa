"""Starts the stack, keeps it running, and stops it in the reverse order."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from inferstack.config import Settings
from inferstack.errors import StackError
from inferstack.local import checks, leftovers, logs, model_watch, stack, state
from inferstack.local.child import Child
from inferstack.local.home import Home, folder_id
from inferstack.local.processes import MARK, identify
from inferstack.local.program import Program
from inferstack.local.stack import Stack
from inferstack.local.state import ChildPhase, Phase, StackState, Step
from inferstack.telemetry import discovery
from inferstack.worker import drain

log = logging.getLogger(__name__)

LOOK_AFTER = 5.0
"""Seconds between two looks at the logs' length, the models, and processes that are gone."""


class Supervisor:
    """One run of the stack of one home, from nothing to nothing."""

    def __init__(
        self,
        home: Home,
        wanted: Settings,
        *,
        ray: bool,
        show: Callable[[StackState], None],
    ) -> None:
        """Starts nothing yet.

        Args:
            home: prepared, and locked by this process.
            wanted: the settings from the environment and the command line.
            ray: whether Ray Serve hosts the replicas, or plain processes do.
            show: called with the state after each change.
        """
        self._home = home
        self._wanted = wanted
        self._ray = ray
        self._show = show
        self._children: list[Child] = []
        self._stop = asyncio.Event()
        self._unwritten = False
        """Whether the state file is older than the state."""
        supervisor = identify(os.getpid())
        assert supervisor is not None
        self.state = StackState(
            supervisor=supervisor,
            folder=folder_id(home.root),
            url=stack.api_url(wanted),
            redis_url="",
            database_url="",
        )

    async def run(self) -> None:
        """Runs until SIGINT, SIGTERM or SIGHUP; then, or when the start fails, stops everything.

        Raises:
            StackError: it cannot start; nothing is left running.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop)
        starting = asyncio.create_task(self._start())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                await starting
                await self._look_after()
        finally:
            for task in (starting, stopped):
                task.cancel()
            await asyncio.gather(starting, stopped, return_exceptions=True)
            await self._shut_down()

    async def _start(self) -> None:
        await self._end_leftovers()
        async with self._step("checks") as step:
            checks.api_port(self._wanted)
            await checks.services(self._wanted)
            step.text = "ports, disk and programs are there"
        async with self._step("data") as step:
            plan = await asyncio.to_thread(stack.plan, self._home, self._wanted)
            self.state.redis_url = plan.settings.redis_url or ""
            self.state.database_url = plan.settings.database_url or ""
            self.state.notes += plan.notes
            step.text = str(self._home.root)
        await asyncio.gather(
            self._serve("redis", plan.redis), self._serve("postgres", plan.postgres)
        )
        await self._start_inferstack(plan)
        if not self._stop.is_set():
            self.state.phase = Phase.READY
            self._changed()

    async def _end_leftovers(self) -> None:
        found = await asyncio.to_thread(leftovers.find, self._home)
        step = Step(name="leftovers", text=f"ending what the last run left: {', '.join(found)}")
        if found:
            self.state.steps.append(step)
            # Shown but not written: until they have ended, the state file tells of the last run.
            self._show(self.state)
        began = time.monotonic()
        await asyncio.to_thread(leftovers.end, self._home)
        step.text = f"ended what the last run left: {', '.join(found)}"
        self._ended(step, began, done=True)

    async def _start_inferstack(self, plan: Stack) -> None:
        if plan.redis is not None:
            await model_watch.forget_readiness(self.state.redis_url)
        # The models take longest to load and need only Redis: they start first.
        worker = "inferstack.worker.serve" if self._ray else "inferstack.worker.pool"
        grace = drain.of_host(plan.settings)
        worker_child = self._add(stack.python_program(plan, "worker", worker, grace=grace))
        worker_child.start()
        async with self._step("migrate") as step:
            await self._run_once(stack.python_program(plan, "migrate", "inferstack.cli", "migrate"))
            step.text = "the tables are up to date"
        await self._serve("recorder", stack.python_program(plan, "recorder", "inferstack.recorder"))
        await asyncio.gather(*(self._serve(p.name, p) for p in self._api_programs(plan)))
        background = stack.python_program(plan, "background", "inferstack.background")
        await self._serve("background", background)
        async with self._step("model") as step:
            step.text = f"loading {plan.settings.default_model}"
            await worker_child.ready()
            step.text = await model_watch.wait(
                self.state.redis_url, plan.settings.default_model, worker_child
            )
            loading, self.state.problems = await model_watch.others(self.state.redis_url)
            if loading:
                step.text += f"; still loading: {', '.join(loading)}"

    def _api_programs(self, plan: Stack) -> list[Program]:
        count = plan.settings.api_processes
        base = replace(
            stack.python_program(plan, "api", "inferstack.api"),
            # Not SIGTERM, after which it waits for its clients to go elsewhere: all ends here.
            stop=((signal.SIGINT, 15.0),),
            ready=lambda: stack.api_ready(plan.url),
            port=plan.settings.port,
        )
        names = ["api"] if count == 1 else [f"api-{number}" for number in range(1, count + 1)]
        return [replace(base, name=name) for name in names]

    async def _serve(self, name: str, program: Program | None) -> None:
        """Starts a child and waits until it is ready; None stands for a service elsewhere."""
        async with self._step(name) as step:
            if program is None:
                step.text = "runs elsewhere, by its URL"
                return
            child = self._add(program)
            child.start()
            await child.ready()
            step.text = f"port {program.port}" if program.port else "runs"

    async def _run_once(self, program: Program) -> None:
        """Runs a child to its end.

        Raises:
            StackError: it did not end with status 0.
        """
        child = Child(program, self._home.logs / f"{program.name}.log", self._changed)
        if code := await child.run_once():
            line = logs.last_line(child.log)
            raise StackError(f"{program.name} ended with status {code}: {line} (see {child.log})")

    def _add(self, program: Program) -> Child:
        child = Child(program, self._home.logs / f"{program.name}.log", self._changed)
        self._children.append(child)
        self.state.children.append(child.state)
        return child

    async def _look_after(self) -> None:
        while not self._stop.is_set():
            try:
                await self._tidy()
            except Exception:
                # Nothing in there is worth the end of what runs.
                log.exception("cannot look after the stack")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), LOOK_AFTER)

    async def _tidy(self) -> None:
        for path in self._home.logs.glob("*.log"):
            await asyncio.to_thread(logs.bound, path)
        await self._tell_problems()
        await asyncio.to_thread(discovery.sweep, self._home.root)
        if self._unwritten:
            self._changed()

    async def _tell_problems(self) -> None:
        """Tells of models that failed meanwhile; those that load last do so when all is up."""
        _, problems = await model_watch.others(self.state.redis_url)
        for problem in problems:
            if problem not in self.state.problems:
                log.warning(problem)
                self.state.problems.append(problem)

    async def _shut_down(self) -> None:
        """Stops the children: the API first, then the worker, the recorder and the servers."""
        self.state.phase = Phase.STOPPING
        for child in sorted(self._children, key=_stop_order):
            if child.state.phase is not ChildPhase.STOPPED:
                grace = sum(seconds for _, seconds in child.program.stop)
                text = f"running batches end first, within {grace:.0f} s"
                waits = text if child.program.name == "worker" else ""
                async with self._step(f"{state.STOP}{child.program.name}", waits) as step:
                    await child.stop()
                    step.text = ""
        await asyncio.to_thread(leftovers.end, self._home)

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            # Asked twice: no more waiting for a drain. The servers still end in good order.
            # Ray's replicas have sessions of their own; while their parents live, these tell.
            leftovers.kill(self._home)
            for child in self._children:
                if MARK in child.program.environment:
                    child.kill()
            return
        self._stop.set()
        self.state.phase = Phase.STOPPING
        self._changed()

    @asynccontextmanager
    async def _step(self, name: str, text: str = "") -> AsyncIterator[Step]:
        step = Step(name=name, text=text)
        began = time.monotonic()
        self.state.steps.append(step)
        self._changed()
        done = False
        try:
            yield step
            done = True
        finally:
            self._ended(step, began, done=done)

    def _ended(self, step: Step, began: float, *, done: bool) -> None:
        step.seconds = time.monotonic() - began
        step.done, step.failed = done, not done
        self._changed()

    def _changed(self) -> None:
        try:
            state.write(self._home.state_file, self.state)
            self._unwritten = False
        except OSError as error:
            # What a full disk ends must start again by itself once there is room.
            if not self._unwritten:
                log.warning("cannot write %s: %s", self._home.state_file, error.strerror)
            self._unwritten = True
        self._show(self.state)


def _stop_order(child: Child) -> int:
    order = ("api", "background", "worker", "recorder", "postgres", "redis")
    return order.index(child.program.name.split("-")[0])
