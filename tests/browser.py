"""A headless Chromium that notes what a page must not do: errors in its console, requests to another host."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from tests.programs import program

PHONE = ViewportSize(width=375, height=760)
DESKTOP = ViewportSize(width=1200, height=800)
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_LOCAL = ("127.0.0.1", "")  # data: and blob: have no host


@dataclass
class Tab:
    """A page, and what it did that it must not."""

    page: Page
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    requests: int = 0

    def note_request(self, url: str) -> None:
        """Note a request, or a websocket."""
        self.requests += 1
        if (urlsplit(url).hostname or "") not in _LOCAL:
            self.strangers.append(url)

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        width: int = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return max(width, 0)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of this machine."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium", "chromium"), args=list(_ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def tab(browser: Browser, address: str, *, phone: bool = False, dark: bool = False) -> Iterator[Tab]:
    """A tab with storage of its own; when the block ends without an error, the page must have behaved."""
    context = browser.new_context(
        base_url=address, viewport=PHONE if phone else DESKTOP, color_scheme="dark" if dark else "light"
    )
    context.set_default_timeout(20_000)
    opened = Tab(context.new_page())
    opened.page.on("request", lambda request: opened.note_request(request.url))
    opened.page.on("websocket", lambda socket: opened.note_request(socket.url))
    opened.page.on("console", lambda line: opened.errors.append(line.text) if line.type == "error" else None)
    opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
    yield opened
    context.close()
    assert opened.requests
    assert opened.errors == []
    assert opened.strangers == []
