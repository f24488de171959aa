"""A process dies at the place that was named, when it was named, and only once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inferstack import config
from inferstack.errors import ConfigurationError

PASSES = """
from inferstack import config, failpoint
failpoint.arm(config.load(failpoint_file={file!r}))
for number in range(5):
    print(number, flush=True)
    failpoint.hit("after-claim")
"""


def passes(file: Path | None) -> subprocess.CompletedProcess[bytes]:
    code = PASSES.format(file=file and str(file))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)


def test_a_process_is_killed_at_the_named_hit_and_only_once(tmp_path: Path) -> None:
    file = tmp_path / "failpoint"
    file.write_text("after-claim 3")
    first = passes(file)
    assert first.returncode == -signal.SIGKILL
    assert first.stdout.split() == [b"0", b"1", b"2"]
    assert not file.exists()
    assert passes(file).returncode == 0


def test_another_name_is_passed(tmp_path: Path) -> None:
    file = tmp_path / "failpoint"
    file.write_text("before-claim 1")
    assert passes(file).returncode == 0
    assert file.exists()


def test_unarmed_it_does_nothing() -> None:
    done = passes(None)
    assert done.returncode == 0
    assert len(done.stdout.split()) == 5


def test_it_is_refused_in_production(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="FAILPOINT_FILE"):
        config.load(failpoint_file=tmp_path / "f", environment="production")
