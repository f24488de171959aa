"""`inferstack ...` in a process of its own, forked from one that has imported everything already:
imports take a second, most commands a few milliseconds."""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from subprocess import CompletedProcess

from inferstack.cli import main

ROOT = Path(__file__).parents[2]
TIMEOUT = 60.0
STREAMS = ("stdin", "stdout", "stderr")

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(
    [__name__, "inferstack.client", "inferstack.storage.accounts", "inferstack.storage.migrations"]
)


def run(home: Path, *arguments: str, stdin: str = "", **env: str) -> CompletedProcess[str]:
    """Runs a command to its end, in the folder of the repository.

    Args:
        home: INFERSTACK_HOME.
        arguments: after `inferstack`.
        stdin: what it can read.
        env: what differs in its environment.
    """
    environment = {**os.environ, "INFERSTACK_HOME": str(home), "COLUMNS": "200", **env}
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in STREAMS]
        streams[0].write_text(stdin, errors="surrogateescape")
        process = forks.Process(target=_command, args=(streams, arguments, environment))
        process.start()
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            process.join()
        code = process.exitcode
        assert code is not None
        out, err = (stream.read_text() for stream in streams[1:])
    return CompletedProcess(arguments, code, out, err)


def _command(streams: list[Path], arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams):
        file = os.open(stream, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.argv = ["inferstack", *arguments]
    main()
