"""The stack that the documentation speaks of: of a folder like the repository, on another port."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, Block, blocks
from tests.local.stack import RealStack

ADDRESS = "127.0.0.1:8000"
"""What the pages call the API; the only thing in them that is not taken literally."""
PASSWORD = "a-password-of-the-tests"
SEAM = "---- the next block ----"
LINKED = ("Makefile", "docs", "kubernetes", "monitoring", "nginx", "scripts", ".env.example")


class DocumentedStack(RealStack):
    """Runs with the models of the repository, and the one that docs/models.md writes."""

    def __init__(self, place: Path) -> None:
        """Args: place: an empty folder; what commands make lies there afterwards."""
        super().__init__(place / ".inferstack")
        self.place = place
        for name in LINKED:
            (place / name).symlink_to(ROOT / name)
        (place / ".venv").symlink_to(sys.prefix)
        shutil.copytree(ROOT / "models", place / "models")
        config = place / "models" / "minilm" / "1" / "config.yaml"
        config.write_text(config.read_text().replace("replicas: auto", "replicas: 1"))
        for file, text in written_files("docs/models.md"):
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_text(text)

    def type(self, page: list[Block]) -> list[str]:
        """Runs the blocks of a page in one shell, as somebody pastes them.

        Returns:
            What each block prints.

        Raises:
            AssertionError: a command failed; tells the line of its block and what was printed.
        """
        # As for somebody who has not set it: the commands find the stack by their folder.
        environment = self._environment({})
        del environment["INFERSTACK_HOME"]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(map(self._typed, page))],
            cwd=self.place,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        printed = done.stdout.split(f"\n{SEAM}\n")[1:]
        if done.returncode:
            block = page[len(printed) - 1]
            what = f"{block.page}:{block.line} ended with status {done.returncode}"
            raise AssertionError(f"{what}\n{block.text}\n{printed[-1]}\n{done.stderr}")
        return printed

    def _typed(self, block: Block) -> str:
        return f"printf '\\n{SEAM}\\n'\n{block.text.replace(ADDRESS, f'127.0.0.1:{self.port}')}"

    def _environment(self, env: dict[str, str]) -> dict[str, str]:
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MODEL_PATH": str(self.place / "models"),
            "MODEL_LIST": "",
            "DEFAULT_MODEL": "minilm",
            "ADMIN_PASSWORD": PASSWORD,
            "LOG_LEVEL": "DEBUG",
            # A task that fails does so at once.
            "MAX_RETRY_DELAY": "0",
        }
        return super()._environment(own | env)


def written_files(page: str) -> list[tuple[str, str]]:
    """Path and text of each block that stands below its path."""
    found = []
    for block in blocks(page):
        path = re.fullmatch(r"`([\w./-]+)`:", block.before)
        if path:
            found.append((path[1], block.text))
    return found
