"""What the pool sees of a replica's stderr until it is ready."""

import asyncio
import os
import subprocess
import sys

import pytest

from inferstack.worker.early import LONGEST_LINE, MOST_HELD, READY, EarlyOutput


async def test_lines_are_passed_on_and_the_last_one_is_kept(
    capfd: pytest.CaptureFixture[str],
) -> None:
    early = EarlyOutput()
    os.write(early.write_end, b"first\nno such ")
    await asyncio.sleep(0)
    os.write(early.write_end, b"device\n  \n" + b"x" * 2 * LONGEST_LINE)
    early.close_write_end()
    early.finish()
    assert capfd.readouterr().err == "first\nno such device\n  \n" + "x" * 2 * LONGEST_LINE + "\n"
    assert early.last_line == "x" * LONGEST_LINE
    assert not early.ready


async def test_a_line_without_an_end_is_passed_on_in_pieces(
    capfd: pytest.CaptureFixture[str],
) -> None:
    early = EarlyOutput()
    bar = b"\r50 %" * 1000
    for _ in range(50):
        os.write(early.write_end, bar)
        await asyncio.sleep(0)
    passed_on = len(capfd.readouterr().err)
    assert passed_on > len(bar) * 50 - 2 * MOST_HELD
    os.write(early.write_end, READY + b"\n")
    async with asyncio.timeout(5):
        while not early.ready:
            await asyncio.sleep(0)
    early.close_write_end()
    early.finish()


async def test_a_replica_that_is_ready_writes_to_the_stderr_of_the_pool(
    capfd: pytest.CaptureFixture[str],
) -> None:
    early, stderr = EarlyOutput(), os.dup(2)
    code = (
        "import os, sys; from inferstack.worker.early import end_early_output;"
        f"print('loading', end='', file=sys.stderr); end_early_output({stderr}); os.write(2, b'!')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=early.write_end, pass_fds=(stderr,)
    )
    early.close_write_end()
    os.close(stderr)
    assert await asyncio.to_thread(process.wait) == 0
    early.finish()
    assert early.ready
    assert early.last_line == "loading"
    assert sorted(capfd.readouterr().err) == sorted("loading!")


async def test_a_process_that_holds_the_pipe_open_is_not_waited_for() -> None:
    early = EarlyOutput()
    early.finish()
    early.close_write_end()
    assert early.last_line == ""


async def test_a_full_disk_under_the_stderr_of_the_pool_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        early = EarlyOutput()
        os.write(early.write_end, b"loading\n" + READY + b"\n")
        early.close_write_end()
        early.finish()
    assert (early.ready, early.last_line) == (True, "loading")
