"""LitServe with its batching; its model processes are `workers_per_device`."""

from typing import Any

import litserve as ls
import numpy as np

from benchmarks.peers.model import Model, options


class Served(ls.LitAPI):
    """The model behind LitServe."""

    def setup(self, device: str) -> None:
        """Loads the model in a worker process."""
        del device
        self.model = Model(options())

    def decode_request(self, request: dict[str, Any]) -> Any:
        """The input of one request."""
        return request["data"]

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Inputs stay a list; the model pads them itself."""
        return inputs

    def predict(self, inputs: Any) -> Any:
        """Runs a batch, or one input when batching is off."""
        if isinstance(inputs, list):
            return self.model.predict(inputs)
        return self.model.predict([inputs])[0]

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Outputs are a list already."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        """Plain lists: LitServe's own JSON does not take arrays."""
        return {"result": _plain(output)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


if __name__ == "__main__":
    chosen = options()
    api = Served(max_batch_size=chosen.batch, batch_timeout=0.01, api_path="/infer")
    server = ls.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=chosen.replicas,
        timeout=False,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=chosen.port,
        num_api_servers=1,
        log_level="error",
        generate_client_file=False,
        access_log=False,
    )
