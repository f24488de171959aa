"""Returns its input; sleeps, fails or crashes when the input says so."""

import os
import signal
import time
from pathlib import Path
from typing import Any

ON_PURPOSE = frozenset({"sleep_ms", "fail", "crash"})


class Model:
    """The identity."""

    def load(self, path: Path, device: str) -> None:
        """Has nothing to load."""

    def predict(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the inputs.

        `sleep_ms` sleeps, as long as the longest of the batch; `fail` raises with the text
        given; `crash` kills the process.
        """
        special = [data for data in inputs if not ON_PURPOSE.isdisjoint(data)]
        if special:
            self._obey(special)
        return inputs

    def _obey(self, special: list[dict[str, Any]]) -> None:
        longest = max(data.get("sleep_ms", 0) for data in special)
        if longest:
            time.sleep(longest / 1000)
        for data in special:
            if data.get("crash"):
                os.kill(os.getpid(), signal.SIGKILL)
            if data.get("fail"):
                raise ValueError(str(data["fail"]))
