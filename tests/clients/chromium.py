"""A real Chromium, Debian's or the machine's own, driven by Playwright."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from typing import Literal

from playwright.async_api import ConsoleMessage, Page, ViewportSize, async_playwright, expect

NAMES = ("chromium", "chromium-browser", "google-chrome")
MISSING = "Chromium is missing. Install Debian's package chromium, then run this again."
PATIENCE_MS = 30_000.0
"""How long a page may take to show what it must; it is there within a second."""
expect.set_options(timeout=PATIENCE_MS)
DESKTOP, PHONE = ViewportSize(width=1280, height=800), ViewportSize(width=390, height=844)


def path() -> str | None:
    """Of the program; None if there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Window:
    """A page, and all that its console complained of: errors, warnings, exceptions that nobody caught, refusals by its policy."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.text} ({message.location['url']})")


@contextlib.asynccontextmanager
async def window(
    program: str, size: ViewportSize = DESKTOP, scheme: Literal["light", "dark"] = "light"
) -> AsyncIterator[Window]:
    """An empty one, of a browser that nobody has used."""
    # Its sandbox asks for what root in a container has not; the pages are our own.
    arguments = ["--no-sandbox", "--no-proxy-server"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            context = await browser.new_context(viewport=size, color_scheme=scheme, locale="en-GB", timezone_id="UTC")
            context.set_default_timeout(PATIENCE_MS)
            yield Window(await context.new_page())
        finally:
            await browser.close()
