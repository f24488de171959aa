"""A real, headless Chromium that visits the web UI."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, Response, sync_playwright

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "frontend" / "dist" / "index.html"
AXE = ROOT / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
STRANGER = "inferstack.test"
"""A name of this machine that the API does not take for a local one."""

# It talks to the stack alone: what it would send home by itself is turned off.
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1",
]
DESKTOP = (1440, 900)
PHONE = (390, 844)

VIOLATIONS = """async () => {
  const found = await axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] });
  return found.violations.map(v => v.id + ': ' + v.nodes.map(n => n.target + ' ' +
    n.any.concat(n.all, n.none).map(c => c.message).join(' ')).join(' | '));
}"""


def missing() -> str | None:
    """What keeps these tests from running here, in one line; None if nothing does."""
    if not BUILT.exists() or not AXE.exists():
        return "the web UI is not built: install Node.js 20.19 or newer and run `make ui`"
    if chromium() is None:
        return "there is no Chromium: install it (Debian and Ubuntu: apt-get install chromium)"
    return None


def chromium() -> str | None:
    """Where this machine's Chromium is: the one without a window, if it is there, takes less."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser without profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=FLAGS, chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()


class Visitor:
    """One page, and what went wrong in it unseen."""

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        """Opens nothing yet.

        Args:
            browser: a running browser.
            url: where the UI is.
            context: how the page differs from that of a desktop.
        """
        options = {"viewport": {"width": DESKTOP[0], "height": DESKTOP[1]}} | context
        self.context = browser.new_context(base_url=url, **options)
        self.context.set_default_timeout(20_000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.refused: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", self._response)

    def open(self, path: str) -> Page:
        """Goes to a page of the UI."""
        self.page.goto(path)
        return self.page

    def close(self) -> None:
        """Closes the page."""
        self.context.close()

    def violations(self) -> list[str]:
        """What keeps people with a disability from using the page as it is now."""
        self.page.evaluate(AXE.read_text())
        found: list[str] = self.page.evaluate(VIOLATIONS)
        return found

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        script = "document.documentElement.scrollWidth - window.innerWidth"
        return int(self.page.evaluate(script))

    def _console(self, message: ConsoleMessage) -> None:
        # The browser itself reports every answer from 400 on; those are kept apart.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.refused.append(f"{response.status} {response.url}")
