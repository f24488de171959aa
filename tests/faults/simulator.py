"""A world of simulated processes around a real Redis that is killed again and again.

The seed decides which faults happen and when; how the operating system schedules Redis beside
them it does not decide, so a seed that failed may have to run a few times.
"""

import asyncio
import os
import random
import signal
from collections.abc import Callable

from inferstack.concurrency import end
from inferstack.config import Settings, load
from inferstack.queue.connection import connect
from tests.faults.actors import Actor, Api, Archiver, Client, Reader, Replica
from tests.faults.tally import Tally
from tests.faults.world import World
from tests.services import RedisServer

ENOUGH, LATEST = 200, 10
"""Tasks that must be accepted meanwhile, and how many times as long it may take for that: on a busy
machine Redis needs its time to start again."""
SETTLE = 20.0
"""Seconds in which everything must be finished once faults have stopped (I6)."""


def simulate(
    seed: int,
    seconds: float,
    archiver: Callable[[World], Archiver] = Archiver,
    *,
    settle: float = SETTLE,
) -> Tally:
    """Lets everything fail for some seconds, then lets it finish, and checks it.

    Args:
        seed: of all that is random.
        seconds: how long clients submit and faults happen.
        archiver: makes the recorder; planted bugs bring their own.
        settle: seconds in which everything must be finished once faults have stopped.
    """
    return asyncio.run(_simulate(seed, seconds, archiver, settle))


async def _simulate(
    seed: int, seconds: float, archiver: Callable[[World], Archiver], settle: float
) -> Tally:
    with RedisServer() as server:
        world = World(_settings(server.url), random.Random(seed))
        apis = [Api(world) for _ in range(2)]
        actors: list[Actor] = [*apis, *(Replica(world) for _ in range(3))]
        actors += [archiver(world), Reader(world)]
        lives = [asyncio.create_task(actor.run()) for actor in actors]
        clients = [asyncio.create_task(Client(world, apis).run()) for _ in range(8)]
        try:
            await _torment(world, server, actors, seconds)
            world.open = world.faults = False
            await asyncio.wait_for(asyncio.gather(*clients), SETTLE)
            await world.settle(settle)
        finally:
            for task in (*clients, *lives):
                await end(task)
            for actor in actors:
                await actor.end()
            await world.close()
        return world.tally


async def _torment(world: World, server: RedisServer, actors: list[Actor], seconds: float) -> None:
    """Kills Redis and the processes around it at random moments."""
    rng, loop = world.rng, asyncio.get_running_loop()
    until, latest = loop.time() + seconds, loop.time() + LATEST * seconds
    while loop.time() < until or (world.tally.accepted < ENOUGH and loop.time() < latest):
        if world.tally.violations:
            return
        await asyncio.sleep(rng.uniform(0.02, 0.25))
        world.tally.faults += 1
        match rng.choice(("redis", "redis", "actor", "actor", "pause", "flush")):
            case "redis":
                server.kill()
                await asyncio.sleep(rng.choice((0, 0.02, 0.2)))
                server.start()
            case "actor":
                rng.choice(actors).kill()
            case "pause":
                os.kill(server.pid, signal.SIGSTOP)
                await asyncio.sleep(rng.uniform(0.05, 0.4))
                os.kill(server.pid, signal.SIGCONT)
            case "flush":
                # As after a failover: the scripts have to be sent again.
                await _flush_scripts(world)


async def _flush_scripts(world: World) -> None:
    redis = connect(str(world.settings.redis_url))
    await redis.script_flush()
    await redis.aclose()


def _settings(url: str) -> Settings:
    settings = load(redis_url=url, max_attempts=3, max_crashes=2)
    # Shorter than anybody may configure: seconds here stand for minutes there.
    return settings.model_copy(update={"lease": 0.25, "archived_ttl": 0.6})
