"""What the supervisor hears from a Redis that is not its own."""

import redis

from inferstack.local import model_watch
from tests.services import RedisServer


async def test_a_redis_that_refuses_or_is_away_ends_nothing() -> None:
    with RedisServer() as server:
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", "rotated")
        assert await model_watch.others(server.url) == ([], [])
        server.kill()
        assert await model_watch.others(server.url) == ([], [])
        server.start()
