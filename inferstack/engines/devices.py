"""Where a torch model computes. The only torch code that engines share."""

import torch

from inferstack.engines.model_config import ModelConfig
from inferstack.errors import ModelLoadError


def prepare_device(config: ModelConfig, device: str | None) -> torch.device:
    """Sets the number of threads and picks the device, by its full name: `cuda:0`, not `cuda`.

    Args:
        config: its `threads` and, if `device` is None, its `device`.
        device: what the replica was told to use, if anything.

    Raises:
        ModelLoadError: CUDA is asked for and not there.
    """
    torch.set_num_threads(config.threads)
    wanted = config.device if device is None else device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelLoadError(f"device {wanted}: this process sees no usable GPU")
    return torch.device("cuda:0" if wanted == "cuda" else wanted)
