"""Ray Serve over HTTP with `@serve.batch`."""

import signal
import threading
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.peers.model import Model, dump, options

chosen = options()


@serve.deployment(
    num_replicas=chosen.replicas,
    max_ongoing_requests=4096,
    ray_actor_options={"num_cpus": 0.5},
)
class Served:
    """The model behind Ray Serve."""

    def __init__(self) -> None:
        """Loads the model in a replica."""
        self.model = Model(options())

    @serve.batch(max_batch_size=chosen.batch, batch_wait_timeout_s=0.01, max_concurrent_batches=2)
    async def infer(self, inputs: list[Any]) -> list[Any]:
        """Runs a batch."""
        return self.model.predict(inputs)

    async def __call__(self, request: Request) -> Response:
        """One request."""
        data = (await request.json())["data"]
        return Response(dump(await self.infer(data)), media_type="application/json")


def main() -> None:
    """Serves until SIGTERM."""
    stop = threading.Event()
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=max(4, chosen.replicas),
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": chosen.port})
    serve.run(Served.bind(), name="bench", route_prefix="/infer")
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray has set its own
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
