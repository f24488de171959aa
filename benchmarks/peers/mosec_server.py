"""mosec: HTTP and batching in Rust, model processes in Python, nothing durable."""

from typing import Any

import orjson
from mosec import Server, Worker

from benchmarks.peers.model import Model, dump, options


class Served(Worker):
    """The model behind mosec."""

    def __init__(self) -> None:
        """Loads the model in a worker process."""
        super().__init__()
        self.model = Model(options())

    def deserialize(self, data: bytes) -> Any:
        """The input of one request."""
        return orjson.loads(data)["data"]

    def forward(self, data: Any) -> Any:
        """Runs a batch, or one input when batching is off."""
        if isinstance(data, list):
            return self.model.predict(data)
        return self.model.predict([data])[0]

    def serialize(self, data: Any) -> bytes:
        """The body of one answer."""
        return dump(data)


if __name__ == "__main__":
    chosen = options()
    server = Server()
    server.append_worker(
        Served,
        num=chosen.replicas,
        max_batch_size=chosen.batch,
        max_wait_time=10 if chosen.batch > 1 else 0,
        route="/infer",
    )
    server.run()
