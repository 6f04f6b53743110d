"""The docs site: built strictly, whole, without another host, and looked at by a browser."""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser import chromium, tab
from tests.test_docs import blocks

DOCS = Path(__file__).parents[1] / "docs"
_ASSETS = {"script": "src", "img": "src", "source": "src", "iframe": "src", "link": "href"}
_NO_ASSETS = ("next", "prev", "index", "search", "genindex", "canonical")  # what a <link> may also be


class Html(HTMLParser):
    """What a page refers to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[Path] = set()
        self.assets: list[str] = []
        self._folder = page.parent
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "a" and not urlsplit(found.get("href", "")).scheme:
            self.links.add((self._folder / unquote(urlsplit(found["href"]).path)).resolve())
        elif (address := found.get(_ASSETS.get(tag, ""))) and found.get("rel") not in _NO_ASSETS:
            self.assets.append(address)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def build(docs: Path, to: Path) -> subprocess.CompletedProcess[str]:
    """What `make site` does."""
    options = ["-W", "--keep-going", "-n", "-q", "-b", "html"]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(docs), str(to)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(DOCS, folder)
    assert done.returncode == 0, done.stderr
    return folder


@contextmanager
def served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_every_page_is_reached_from_the_start_page(site: Path) -> None:
    seen, ahead = set[Path](), [site / "index.html"]
    while ahead:
        page = ahead.pop()
        if page not in seen and page.suffix == ".html":
            seen.add(page)
            ahead += Html(page).links
    pages = {site / path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert len(pages) > 40
    assert pages - seen == set()


def test_nothing_comes_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        assets = Html(page).assets
        assert len(assets) > 5
        for asset in assets:
            assert not urlsplit(asset).netloc, f"{page.name} takes {asset}"
            assert (page.parent / unquote(urlsplit(asset).path)).exists(), f"{page.name} misses {asset}"
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\s]+", style.read_text()) == []


def test_the_diagram_is_drawn(site: Path) -> None:
    (source,) = blocks(DOCS / "architecture.md", "mermaid")
    drawn = (site / "architecture.html").read_text().partition('<div class="flowchart">')[2].partition("</div>")[0]
    labels = re.findall(r'"([^"]+)"', source)
    assert len(labels) > 10
    assert [label for label in labels if f">{label}</text>" not in drawn] == []
    assert drawn.count("<path class=") + drawn.count("marker-start=") == sum(
        "->" in line for line in source.splitlines()
    )


def test_a_page_that_nobody_names_and_a_diagram_that_cannot_be_drawn_fail(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(DOCS / "_static", docs / "_static")
    shutil.copy(DOCS / "conf.py", docs)
    (tmp_path / "outside.md").touch()
    (docs / "index.md").write_text("# Start\n\nSee [what is outside](../outside.md).\n")
    (docs / "lost.md").write_text('# Lost\n\n```mermaid\nflowchart LR\n    a["A"] ==> b\n```\n')
    done = build(docs, tmp_path / "site")
    assert done.returncode != 0
    warnings = [line.partition(": ")[2] for line in done.stderr.splitlines() if ".md:" in line]
    assert len(warnings) == 2, done.stderr
    assert "this line of a flowchart cannot be drawn: a" in done.stderr
    assert "document isn't included in any toctree" in done.stderr
    assert "See what is outside." in (tmp_path / "site/index.html").read_text()


def test_it_can_be_read_on_a_phone_in_the_dark_and_searched(site: Path) -> None:
    with chromium() as browser, served(site) as address, tab(browser, address, phone=True, dark=True) as opened:
        for path, title in {"": "Aegis Streams", "architecture.html": "Architecture"}.items():
            opened.page.goto(path)
            expect(opened.page.get_by_role("heading", level=1)).to_contain_text(title)
            assert opened.overflow() == 0, path
        expect(opened.page.get_by_role("img", name="The flow")).to_be_visible()
        opened.page.goto("search.html?q=tombstone")
        expect(opened.page.locator("#search-results").get_by_role("link", name="Producing").first).to_be_visible()
