"""A model whose inputs say how it goes wrong; `Cluster` copies this file into its repository."""

import ctypes
import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

CONFIG = """
engine: python
replicas: 1
device: cpu
batch: {max_size: 64, max_wait_ms: 20}
timeout: 3
"""


def answer(data: dict[str, Any]) -> dict[str, Any]:
    """What comes of an input that does not go wrong: the same, as large as it asks for."""
    return data | {"more": "x" * data.get("more", 0)}


class Model:
    """Answers its inputs unless one goes wrong."""

    def predict(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers them.

        `do` says what goes wrong, `once` names a file without which nothing does, `witness` one
        that tells who was there: for each call a line with the payloads of its inputs, `noted_in`
        one that gets a line for each time that an input ran.
        """
        for data in inputs:
            if "noted_in" in data:
                with Path(data["noted_in"]).open("a") as file:
                    file.write(f"{data['payload']}\n")
        # Not time.sleep: under libfaketime its call of the kernel fails.
        threading.Event().wait(max(data.get("sleep_ms", 0) for data in inputs) / 1000)
        for data in inputs:
            if "do" in data and _armed(data):
                _bear_witness(data, inputs)
                _go_wrong(data["do"])
        return [answer(data) for data in inputs]


class AcceleratorError(RuntimeError):
    """Named like the one of torch."""


def _armed(data: dict[str, Any]) -> bool:
    if "once" not in data:
        return True
    try:
        Path(data["once"]).unlink()
    except FileNotFoundError:
        return False
    return True


def _bear_witness(data: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
    if "witness" in data:
        with Path(data["witness"]).open("a") as file:
            file.write(json.dumps([each["payload"] for each in inputs]) + "\n")


def _go_wrong(how: str) -> None:
    match how:
        case "raise":
            raise ValueError("on purpose")
        case "exit":
            os._exit(1)
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(3600)
        case "backtrack":
            # Takes longer than anybody lives, and lets no other thread run meanwhile.
            re.match("(a+)+$", "a" * 100 + "b")
        case "cuda":
            # What torch raises after a failed assertion in a kernel, from its next call on.
            raise AcceleratorError("CUDA error: device-side assert triggered")
