"""The clock that one process gets from its kernel, moved from outside while it runs."""

from pathlib import Path

from tests.programs import ServiceMissingError

LIBRARY = "libfaketimeMT.so.1"
PLACES = ("/usr/lib/*/faketime", "/usr/lib64/faketime", "/usr/lib/faketime")


class Clock:
    """What a process, and whatever it starts, takes for the time. Monotonic clocks go on."""

    def __init__(self, file: Path) -> None:
        """Shows the true time until it jumps.

        Args:
            file: where the process reads how wrong its clock is; it may run as another user.
        """
        self._file = file
        self.jump(0.0)

    def jump(self, seconds: float) -> None:
        """From now on it is off by so many seconds."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+f}")
        fresh.rename(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """For the process whose clock it is.

        Raises:
            ServiceMissingError: there is no libfaketime.
        """
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # At once: else it looks into the file every ten seconds.
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }


def library() -> Path:
    """What is preloaded.

    Raises:
        ServiceMissingError: it is not there.
    """
    root = Path("/")
    for place in PLACES:
        for found in root.glob(f"{place[1:]}/{LIBRARY}"):
            return found
    raise ServiceMissingError(f"no {LIBRARY}: apt-get install libfaketime brings it")
