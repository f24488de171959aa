"""What the pages of the documentation hold: blocks of code, headings, links."""

import re
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
NAMES = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "frontend" / "README.md")
)
"""Every page, as a path below the repository's root."""

FENCE = re.compile(r"^( *)```([\w-]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
SHELL = frozenset({"sh", "bash", "console"})
MARKS = frozenset(
    {
        "# needs AWS",
        "# needs Docker",
        "# needs Git",
        "# needs NGINX, runs until Ctrl-C",
        "# needs Prometheus, runs until Ctrl-C",
        "# needs a cluster",
        "# needs a second stack",
        "# needs k6",
        "# needs kubectl",
        "# needs the internet",
        "# restarts the replicas",
        "# runs until Ctrl-C",
        "# stops the stack",
        "# takes minutes",
    }
)
"""First lines of blocks that tests do not run as they are, and readers should not, either."""


class Block(NamedTuple):
    """A fenced block."""

    page: str
    line: int
    """The number of its first line."""
    kind: str
    """The language; may be empty."""
    text: str
    before: str
    """The line of text above it."""

    @property
    def mark(self) -> str | None:
        """What it needs beyond a plain Linux machine with a stack; None if nothing."""
        first = self.text.partition("\n")[0]
        return first if first in MARKS else None


def text(page: str) -> str:
    """A page as it is."""
    return (ROOT / page).read_text()


def blocks(page: str) -> list[Block]:
    """Every fenced block of a page, in order."""
    whole = text(page)
    found = []
    for match in FENCE.finditer(whole):
        above = whole[: match.start()].rstrip()
        line = whole.count("\n", 0, match.start(3)) + 1
        found.append(
            Block(page, line, match[2], dedent(match[3]), above.rpartition("\n")[2].strip())
        )
    return found


def commands(page: str) -> list[Block]:
    """Those blocks that hold commands."""
    return [block for block in blocks(page) if block.kind in SHELL]


def prose(page: str) -> str:
    """A page without its blocks."""
    return FENCE.sub("", text(page))


def anchors(page: str) -> set[str]:
    """What a link can point to within a page, as GitHub makes it of the headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w -]", "", plain.lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def links(page: str) -> list[str]:
    """Where the links of a page lead to."""
    plain = re.sub(r"`[^`]*`", "", prose(page))
    found = re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", plain)
    found += re.findall(r"<(https?://[^>\s]+)>", plain)
    return found + re.findall(r"^\[[^\]]+\]: *(\S+)", plain, re.MULTILINE)
