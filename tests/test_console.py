"""The console in a real browser: every page over ports in memory, then one life of documents on the whole system."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from api.console.ask import runs
from api.retrievers.graph import LadybugGraph
from deploy.local.system import started
from schemas.settings import Settings
from streams.sinks.ladybug import LadybugGraphStore, open_graph
from tests.answer_shelf import shelved
from tests.api_server import Stack, serving
from tests.browser import chromium, tab
from tests.graph_stores import extraction, whole

CORPUS = Path(__file__).parents[1] / "deploy/corpus"
PAGES = {
    "": "Overview",
    "documents": "Documents",
    "documents?id=handbook%2Fleave.md": "Documents",
    "dead-letters": "Dead letters",
    "ask": "Ask",
    "graph": "Graph",
    "health": "Health",
}
expect.set_options(timeout=20_000)
MARKUP = "<img src=x onerror=alert(1)> **bold**"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    database = open_graph(tmp_path_factory.mktemp("graph"), buffer_pool_mb=64)
    store = LadybugGraphStore(database)
    for item in (extraction("a/1", ("kafka", "jay kreps")), extraction("b", ("kafka", "linkedin"))):
        store.write(whole(item), [item], live=True)

    def filled(stack: Stack) -> None:
        shelved(stack)
        stack.graph = LadybugGraph(database)
        stages = {"chunk": "chunked", "embed": "embedded", "extract": "extracted"}
        done = {"index_vectors": "indexed", "index_graph": "indexed"}
        for name in ("handbook/remote.md", "handbook/leave.md", MARKUP):
            stack.status.report(name, 1000, **stages, **done)  # type: ignore[arg-type]
        stack.status.report("reports/damaged.pdf", 1001, f"the PDF is damaged {MARKUP}", chunk="dead-lettered")

    with serving(change=filled) as running:
        yield running
    store.close()


@pytest.fixture(autouse=True)
def letters(stack: Stack) -> None:
    stack.dead_letters.letters.clear()
    for number in range(3):
        stack.dead_letters.add(
            f"chunk/0/{number}", document_id=f"reports/{number}.pdf", error="the PDF is damaged", value=MARKUP.encode()
        )
    stack.dead_letters.add("embed/1/4", document_id="notes", error="[a-z]* is no text")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    with tab(browser, address(stack)) as opened:
        yield opened.page


def address(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.port}/console/"


def picture(page: Page, name: str) -> None:
    """Keep a picture where CONSOLE_PICTURES says so: the ones in the docs are made like this."""
    if "CONSOLE_PICTURES" in os.environ:
        page.wait_for_timeout(700)  # animations
        page.screenshot(path=Path(os.environ["CONSOLE_PICTURES"]) / f"{name}.png")


def test_every_page_fits_a_phone_in_the_dark(browser: Browser, stack: Stack) -> None:
    with tab(browser, address(stack), phone=True, dark=True) as opened:
        for path, title in PAGES.items():
            opened.page.goto(path)
            expect(opened.page.get_by_role("heading", level=1)).to_have_text(title)
            opened.page.wait_for_timeout(300)
            assert opened.overflow() == 0, path
            picture(opened.page, f"phone-{path.partition('?')[0] or 'overview'}{'-one' if '?' in path else ''}")


def test_the_overview_follows_what_happens(page: Page, stack: Stack) -> None:
    page.goto("")
    card = page.get_by_role("group", name="index-graph")
    expect(card).to_contain_text("OK")
    expect(card).to_contain_text("2 records")
    expect(page.locator("a", has_text="indexed")).to_be_visible()
    expect(page.get_by_text("3 × chunk: the PDF is damaged")).to_be_visible()
    picture(page, "overview")
    stack.lag.seconds = 42.0
    expect(card).to_contain_text("42.0 s behind")
    stack.lag.down = True
    expect(page.get_by_text("the broker does not answer (503)").first).to_be_visible()
    stack.lag.down, stack.lag.seconds = False, 0.0
    expect(card).to_contain_text("0.0 s behind")


def test_documents_are_uploaded_found_and_deleted(page: Page, stack: Stack) -> None:
    page.goto("documents")
    page.locator("input[type=file]").set_input_files({"name": "new.md", "mimeType": "", "buffer": b"# New"})
    expect(page.get_by_text("new.md: accepted as new.md")).to_be_visible()
    assert stack.publisher.log[-1][0].document_id == "new.md"
    expect(page.get_by_role("link", name=MARKUP)).to_be_visible()
    picture(page, "documents")
    page.goto("documents?state=indexed")
    expect(page.get_by_role("link", name="reports/damaged.pdf")).to_have_count(0)
    page.get_by_role("link", name="handbook/leave.md").click()
    expect(page.get_by_text("indexed ·", exact=False).first).to_be_visible()
    picture(page, "document")
    page.locator("input[type=file]").set_input_files({"name": "other.md", "mimeType": "", "buffer": b"# Other"})
    expect(page.get_by_text("other.md: accepted as handbook/leave.md")).to_be_visible()
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("It is being removed from both stores.")).to_be_visible()
    assert [(sent.document_id, sent.operation) for sent, _ in stack.publisher.log[-2:]] == [
        ("handbook/leave.md", "upsert"),
        ("handbook/leave.md", "delete"),
    ]


def test_dead_letters_are_looked_at_and_resolved_after_a_dry_run(page: Page, stack: Stack) -> None:
    page.goto("dead-letters")
    page.get_by_role("button", name="reports/1.pdf").click()
    expect(page.get_by_role("dialog").get_by_text(MARKUP)).to_be_visible()
    page.get_by_role("button", name="Close").click()
    picture(page, "dead-letters")
    page.get_by_role("button", name="Replay…").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("Replay 3 of 3?")
    picture(page, "dead-letters-dry-run")
    assert not stack.dead_letters.replayed
    page.get_by_role("button", name="Replay", exact=True).click()
    expect(page.get_by_text("replay: 3 done")).to_be_visible()
    page.get_by_role("button", name="Drop…").click()
    page.get_by_role("button", name="Drop", exact=True).click()
    expect(page.get_by_text("None: everything that was published is read.")).to_be_visible()
    assert len(stack.dead_letters.replayed) == 3
    assert not stack.dead_letters.letters


def test_an_answer_shows_its_citations_in_the_source(page: Page) -> None:
    page.goto("ask")
    page.get_by_label("Question").fill("How many days of leave does an employee have?")
    page.keyboard.press("Control+Enter")
    expect(page.locator("mark", has_text="Every employee has 30 days of leave per year.")).to_be_visible()
    page.get_by_role("link", name="Source 1").first.focus()
    picture(page, "ask")


def test_a_neighbourhood_is_drawn_and_says_why(page: Page) -> None:
    page.goto("graph")
    page.get_by_label("Name of").fill("Kafka")
    page.keyboard.press("Enter")
    expect(page.locator("canvas")).to_be_visible()
    page.get_by_role("button", name="Kafka → knows → Linkedin").click()
    expect(page.get_by_text("said in 1 chunks")).to_be_visible()
    picture(page, "graph")


def test_what_the_api_refuses_is_told(page: Page, stack: Stack) -> None:
    stack.dead_letters.down = True
    page.goto("dead-letters")
    expect(page.get_by_text("something went wrong here; the log has the request id (500)")).to_be_visible()
    stack.dead_letters.down = False


def test_the_key_of_the_tab_goes_with_every_request(page: Page) -> None:
    page.goto("health")
    expect(page.get_by_text("Broker")).to_be_visible()
    picture(page, "health")
    page.get_by_role("button", name="Access").click()
    page.get_by_label("Key", exact=True).fill("aegis_1_secret")
    page.get_by_role("button", name="Use it").click()
    page.goto("documents")
    with page.expect_request("**/api/v1/documents") as sent:
        page.locator("input[type=file]").set_input_files({"name": "a.md", "mimeType": "", "buffer": b"# A"})
    assert sent.value.headers["authorization"] == "Bearer aegis_1_secret"


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_a_life_of_documents_on_the_whole_system(browser: Browser, tmp_path: Path) -> None:
    """Two are uploaded; one is indexed, asked about and drawn, the poisoned one is dead, looked at and replayed."""
    with started(Settings(data_dir=tmp_path, api={"port": 0})) as system:
        system.wait_until_ready(timeout=300)
        with tab(browser, f"{system.running.api_url}/console/") as opened:
            page = opened.page
            page.goto("documents", timeout=60_000)
            files = page.locator("input[type=file]")
            files.set_input_files([CORPUS / "ada-lovelace-analytical-engine.md", CORPUS / "poison/damaged-report.pdf"])
            for name, state in (
                ("ada-lovelace-analytical-engine.md", "indexed"),
                ("damaged-report.pdf", "dead-lettered"),
            ):
                row = page.get_by_role("listitem").filter(has=page.get_by_role("link", name=name))
                expect(row).to_contain_text(state, timeout=90_000)
            picture(page, "system-documents")
            page.goto("ask")
            page.get_by_label("Question").fill("Of what did Lovelace die, and when?")
            page.keyboard.press("Control+Enter")
            expect(page.locator("mark").filter(has_text="Lovelace died of cancer").first).to_be_visible(timeout=60_000)
            picture(page, "system-ask")
            page.goto("graph")
            page.get_by_label("Name of").fill("Charles Babbage")
            page.keyboard.press("Enter")
            expect(page.locator("canvas")).to_be_visible(timeout=60_000)
            page.get_by_role("button", name="→").first.click()
            expect(page.get_by_text("said in")).to_be_visible()
            picture(page, "system-graph")
            page.goto("dead-letters")
            page.get_by_role("button", name="damaged-report.pdf").click()
            expect(page.get_by_role("dialog")).to_contain_text("bytes")
            page.get_by_role("button", name="Close").click()
            page.get_by_role("button", name="Replay…").click()
            expect(page.get_by_role("dialog")).to_contain_text("Replay 1 of 1?")
            page.get_by_role("button", name="Replay", exact=True).click()
            expect(page.get_by_text("replay: 1 done")).to_be_visible()


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], [("abcdef", False)]),
        ([(12, 14)], [("ab", False), ("cd", True), ("ef", False)]),
        ([(10, 13), (12, 16)], [("", False), ("abc", True), ("", False), ("def", True), ("", False)]),
        ([(0, 5), (30, 40)], [("abcdef", False)]),
    ],
)
def test_cited_spans_cut_a_text_into_runs(spans: list[tuple[int, int]], expected: list[tuple[str, bool]]) -> None:
    assert list(runs("abcdef", spans, 10)) == expected
