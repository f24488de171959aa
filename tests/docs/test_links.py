"""Links of the documentation lead somewhere."""

from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest

from inferstack.config import LOOPBACK
from tests.docs.pages import NAMES, ROOT, anchors, links


@pytest.mark.parametrize("page", NAMES)
def test_links_lead_somewhere(page: str) -> None:
    wrong = [target for target in links(page) if not _leads_somewhere(page, target)]
    assert wrong == []


def test_the_pages_link_to_each_other() -> None:
    """Or nothing above has been tested."""
    assert sum(len(links(page)) for page in NAMES) > 100
    linked = {target.partition("#")[0] for target in links("README.md")}
    missing = {str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")} - linked
    assert missing == set(), "the README leads to every page"


@pytest.mark.parametrize(
    "target", ["http://example.com", "no-such-page.md", "#no-such-heading", "docs/settings.md#x"]
)
def test_a_broken_link_is_found(target: str) -> None:
    assert not _leads_somewhere("README.md", target)


def _leads_somewhere(page: str, target: str) -> bool:
    """Whether a path and a heading are there; of other hosts, whether the link is https."""
    url = urlsplit(target)
    if url.scheme:
        return url.scheme == "https" or url.hostname in LOOPBACK
    path = (ROOT / page).parent / url.path if url.path else ROOT / page
    if not path.exists():
        return False
    if not url.fragment:
        return True
    found = path.resolve().relative_to(ROOT.resolve())
    return found.suffix == ".md" and url.fragment in anchors(str(PurePosixPath(found)))
