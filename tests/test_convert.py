import io
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import processors.convert
from processors.convert import SUPPORTED, Converted, Converter, media_type_of
from processors.errors import PermanentError, UnavailableError
from schemas.settings import Conversion

CORPUS = Path(__file__).parent.parent / "deploy" / "corpus"
EPUB = "application/epub+zip"
NO_TEXT = "^no text in it: a scan or picture without OCR, or a page whose text is made by scripts$"


@pytest.fixture(scope="module")
def converter() -> Iterator[Converter]:
    converter = Converter(Conversion())
    yield converter
    converter.close()


def archive(**parts: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as target:
        for name, part in parts.items():
            stored = zipfile.ZIP_STORED if name == "mimetype" else None
            target.writestr(name.replace("__", "/"), part, compress_type=stored)
    return content.getvalue()


def epub(body: bytes) -> bytes:
    return archive(
        **{
            "mimetype": b"application/epub+zip",
            "META-INF__container.xml": b'<container><rootfiles><rootfile full-path="a.opf"/></rootfiles></container>',
            "a.opf": b'<package><manifest><item id="x" href="x.xhtml" media-type="application/xhtml+xml"/></manifest>'
            b'<spine><itemref idref="x"/></spine></package>',
            "x.xhtml": b"<html><body>" + body + b"</body></html>",
        }
    )


def pdf(*, text: str = "", trailer: str = "") -> bytes:
    page = f"BT /F1 24 Tf 72 700 Td ({text}) Tj ET"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(page)}>>stream\n{page}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body = "%PDF-1.4\n"
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj{content}endobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    start = len(body)
    body += f"xref\n0 6\n0000000000 65535 f \n{table}trailer<</Size 6/Root 1 0 R{trailer}>>\nstartxref\n{start}\n%%EOF"
    return body.encode("latin-1")


LOCKED = f"/Encrypt<</Filter/Standard/V 1/R 2/O<{'ab' * 32}>/U<{'cd' * 32}>/P -4>>/ID[<{'00' * 16}><{'00' * 16}>]"
RUSSIAN = "Президент России подписал указ о создании нового университета в городе Санкт-Петербург."
# Small as a file, seconds and hundreds of megabytes as a document.
BOMB = epub(b"<p>hello bomb</p>" * 500_000)


def convert(converter: Converter, name: str, content: bytes | str) -> Converted:
    content = content.encode() if isinstance(content, str) else content
    return converter.convert(content, media_type=media_type_of(name, content), name=name)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.html", "<title>T</title><meta name=a content=b><h1>One</h1><p>a <b>b</b> <a href=/x>c</a>",
         "# One\n\na b c"),
        ("a.html", "<body><form><h1>One</h1><p>In a form</p></form>", "# One\n\nIn a form"),
        ("a.html", '<meta charset="iso-8859-1"><p>Zürich'.encode("latin-1"), "Zürich"),
        ("a.csv", "Name;City\nMüller;Bern\nWeiß;Köln\n", "Name: Müller; City: Bern\n\nName: Weiß; City: Köln"),
        ("a.csv", "Name;City\nMüller;Bern\n".encode("cp1252"), "Name: Müller; City: Bern"),
        ("a.csv", "1,2\n3,4\n", "1; 2\n3; 4"),
        ("a.tsv", "a\tb\n1\t2\n", "a: 1; b: 2"),
        ("a.json", '{"name": "Ada", "of": [{"x": 1}, {"x": 2}], "tags": ["p", "q"]}',
         "name: Ada\nof x: 1\n\nof x: 2\n\ntags: p, q"),
        ("a.jsonl", '{"name": "Ada"}\n{"name": "Bob \\ud800"}\n', "name: Ada\n\nname: Bob"),
        ("a.xml", "<a><name>Grüße &#252; &amp; x</name><p>some <b>bold</b> text</p></a>",
         "name: Grüße ü & x\nsome bold text"),
        ("a.svg", '<svg xmlns="http://www.w3.org/2000/svg"><text>Hi</text><path d="M0"/></svg>', "text: Hi"),
        ("a.vtt", "WEBVTT\n\n1\n00:01.000 --> 00:02.000\n<v Ada>We <i>are</i>\nhere</v>\n", "Ada: We are here"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nHello\n", "Hello"),
        ("a.rst", "Head\n====\n\nSee :pep:`the guide <8>` and `Kafka <http://x>`_.\n\n.. note:: Once.\n",
         "# Head\n\nSee the guide and Kafka.\n\nOnce."),
        ("a.adoc", "= Head\n:toc:\n\nText.\n\n== Sub\n\nMore.", "# Head\n\nText.\n\n## Sub\n\nMore."),
        ("a.tex", "\\section{In}\nG\\\"odel \\emph{says} % no\n\nStra\\ss{}e", "# In\n\nGödel says\n\nStraße"),
        ("a.org", "* Head\nSee [[http://x][link]]", "# Head\n\nSee link"),
        ("a.ipynb", '{"cells":[{"cell_type":"markdown","metadata":{},"source":["# T\\n","x"]}],"nbformat":4}',
         "# T\n\nx"),
        ("a.eml", "From: a@b.c\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nContent-Type: text/plain\n\nHello!",
         "Subject: Grüße\n\nFrom: a@b.c\n\nHello!"),
        ("a.rtf", r"{\rtf1\ansi Hello {\b bold}\par}", "Hello bold"),
        ("a.yaml", "name: Ada\n", "name: Ada"),
        ("a.epub", epub(b"<h1>One</h1><p>Two</p>"), "# One\n\nTwo"),
        ("a.pdf", pdf(text="Hello PDF"), "Hello PDF"),
    ],
)  # fmt: skip
def test_text_is_the_content_without_the_markup(
    converter: Converter, name: str, content: bytes | str, text: str
) -> None:
    assert convert(converter, name, content).text == text


@pytest.mark.parametrize(
    ("content", "charset", "text"),
    [
        (b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe", "", "Grüße"),
        ("Grüße".encode("utf-16"), "", "Grüße"),
        ("Grüße aus Zürich".encode("utf-16-le"), "", "Grüße aus Zürich"),
        ("Der “Bär” aus Zürich ist groß".encode("cp1252"), "", "Der “Bär” aus Zürich ist groß"),
        (RUSSIAN.encode("cp1251"), "", RUSSIAN),
        ("これは日本語のテキストです。東京大学".encode("shift_jis"), "", "これは日本語のテキストです。東京大学"),
        ("Zażółć gęślą".encode("iso8859_2"), "; charset=ISO-8859-2", "Zażółć gęślą"),
        (b"one line\r\nanother one\rthree\x00\x07 f\xc2\xadour words\x0cfive", "",
         "one line\nanother one\nthree four words\nfive"),
    ],
)  # fmt: skip
def test_plain_text_is_decoded_and_cleaned(converter: Converter, content: bytes, charset: str, text: str) -> None:
    assert converter.convert(content, media_type="text/plain" + charset) == Converted(text, False, None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("---\ntitle: 'A: b'\ntags: [x]\n---\n# Head\n\nText\n", Converted("# Head\n\nText\n", True, "A: b")),
        ('+++\ntitle = "T"\n+++\nText', Converted("Text", True, "T")),
        ("# Head #\n\nText", Converted("# Head #\n\nText", True, "Head")),
        ("Text\n\n---\n\ntitle: no\n", Converted("Text\n\n---\n\ntitle: no\n", True, None)),
    ],
)
def test_markdown_loses_its_front_matter_and_keeps_its_title(
    converter: Converter, content: str, expected: Converted
) -> None:
    assert convert(converter, "a.md", content) == expected


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("gotthard-base-tunnel.docx", "Three tunnels through the Gotthard"),
        ("space-missions.xlsx", "Space missions and ground sites"),
        ("stream-processing-timeline.pptx", "A timeline of stream processing"),
        ("pioneers-of-programming.epub", "Pioneers of programming in Europe"),
    ],
)
def test_shipped_office_files_have_text_headings_and_title(converter: Converter, name: str, title: str) -> None:
    converted = convert(converter, name, (CORPUS / name).read_bytes())
    assert converted.title == title
    assert converted.markdown
    assert "\n## " in "\n" + converted.text
    assert len(converted.text) > 500
    assert "](" not in converted.text


def test_every_shipped_file_but_the_damaged_one_has_text(converter: Converter) -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file() and path.parent.name != "poison"]
    assert len(files) > 20
    assert all(len(convert(converter, path.name, path.read_bytes()).text) > 200 for path in files)


KAFKA_PAGE = """<script id="content-template" type="text/x-handlebars-template"><h1>Design</h1><p>Text</p></script>
<ul class="breadcrumbs"><li><a href="/documentation">Documentation</a></li></ul><div class="p-content"></div>"""


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.html", KAFKA_PAGE, NO_TEXT),
        ("a.html", "<title>App</title><div id=root></div><script>render('text')</script>", NO_TEXT),
        ("a.md", "---\ntitle: T\n---\n\n---\n", NO_TEXT),
        ("a.txt", " \n-- ** --", NO_TEXT),
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 100, NO_TEXT),
        ("photo", b"\xff\xd8\xff\xe0" + b"\0" * 100, NO_TEXT),
        ("a.svg", '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0"/></svg>', NO_TEXT),
        ("a.pdf", pdf(), NO_TEXT),
        ("a.txt", b"", "^the file is empty$"),
        ("a.pdf", pdf(text="x", trailer=LOCKED), "^the PDF is encrypted; publish it without a password$"),
        ("a.pdf", "<html>Not found", "^the file is damaged or not really a PDF: Invalid PDF: .*FormatError"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
         "^the DOCX is encrypted"),
        ("a.odt", archive(**{"META-INF__manifest.xml": b"<manifest:encryption-data/>", "content.xml": b"\x80"}),
         "^the ODT is encrypted"),
        ("a.docx", (CORPUS / "mrna-vaccines.docx").read_bytes()[:9000], "^the file is damaged or not really a DOCX: "),
        ("a.xlsx", b"PK\x03\x04junk", "^the file is damaged or not really an XLSX: "),
        ("a.json", '{"a":', "^the file is damaged or not really a JSON: Expecting value"),
        ("a.odp", b"PK\x03\x04junk", "^unknown format application/vnd.oasis.opendocument.presentation; publish it"),
        ("a.zip", archive(x=b"x"), "^unknown format application/zip; publish it"),
        ("a.bin", bytes(range(256)) * 9, "^unknown format of 'a.bin'; publish it"),
    ],
)  # fmt: skip
def test_a_file_without_text_says_why(converter: Converter, name: str, content: bytes | str, reason: str) -> None:
    with pytest.raises(PermanentError, match=reason) as refused:
        convert(converter, name, content)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_the_reason_of_a_damaged_file_is_short(converter: Converter) -> None:
    with pytest.raises(PermanentError, match="damaged") as refused:
        convert(converter, "a.xml", "<a>" + "<b" * 5000)
    assert len(str(refused.value)) < 300


def test_a_presentation_with_a_linked_picture_keeps_its_text(converter: Converter) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(CORPUS / "voyager-missions.pptx") as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            picture = b'<p:pic><p:blipFill><a:blip r:link="rId9"/></p:blipFill></p:pic></p:spTree>'
            new.writestr(name, old.read(name).replace(b"</p:spTree>", picture))
    assert "Voyager 1" in convert(converter, "a.pptx", content.getvalue()).text


@pytest.mark.parametrize("media_type", ["", "application/octet-stream", "text/plain", "application/x-unheard-of"])
def test_a_file_of_undeclared_type_is_known_by_its_content(converter: Converter, media_type: str) -> None:
    converted = converter.convert((CORPUS / "mrna-vaccines.docx").read_bytes(), media_type=media_type)
    assert "BioNTech" in converted.text


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.doc", rb"{\rtf1\ansi Hello\par}", "Hello"),
        ("a.xls", "<html><table><tr><td>Hello</td></tr></table>", "Hello"),
        ("a.xls", "Name,City\nAda,London\n", "Name: Ada; City: London"),
        ("a.doc", (CORPUS / "mrna-vaccines.docx").read_bytes(), "BioNTech"),
    ],
)
def test_an_office_file_may_be_another_format_than_its_name_says(
    converter: Converter, name: str, content: bytes | str, text: str
) -> None:
    assert text in convert(converter, name, content).text


def test_too_large_files_and_texts_are_refused() -> None:
    converter = Converter(Conversion(max_input_mb=1, max_text_chars=1000))
    with pytest.raises(PermanentError, match=r"^too large: 1\.5 MB, the limit is 1 MB; publish it in parts$"):
        converter.convert(b"x" * 1536 * 1024, media_type="text/plain")
    for media_type in ("text/plain", "text/html"):
        with pytest.raises(PermanentError, match=r"^too large: 1,001 characters of text, the limit is 1,000; "):
            converter.convert(b"x" * 1001, media_type=media_type)
    converter.close()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Conversion(timeout=0.7), "^it takes longer than 0.7 s to convert"),
        (Conversion(max_memory_mb=256), "^it needs more than 256 MB of memory to convert"),
    ],
)
def test_a_bomb_hits_a_limit_and_the_next_file_is_fine(limits: Conversion, reason: str) -> None:
    converter = Converter(limits)
    with pytest.raises(PermanentError, match=reason):
        converter.convert(BOMB, media_type=EPUB)
    assert converter.convert(b"<p>next", media_type="text/html").text == "next"
    converter.close()


def children(of: int | None = None) -> list[psutil.Process]:
    return [child for child in psutil.Process(of).children() if is_converting(child)]


def is_converting(process: psutil.Process) -> bool:
    try:
        return "processors.convert_child" in process.cmdline()
    except psutil.Error:  # just dead
        return False


def at_work(of: int | None = None) -> list[psutil.Process]:
    """Conversion processes that have grown over a bomb."""
    return [child for child in children(of) if child.memory_info().rss > 100 * 1024 * 1024]


@pytest.mark.parametrize(("kills", "is_blamed"), [(1, False), (2, True)])
def test_a_file_is_to_blame_for_the_second_crash_only(kills: int, is_blamed: bool) -> None:
    converter = Converter(Conversion())
    with ThreadPoolExecutor(1) as pool:
        conversion = pool.submit(converter.convert, epub(b"<p>hello bomb</p>" * 120_000), media_type=EPUB)
        killed: set[psutil.Process] = set()
        while len(killed) < kills and not conversion.done():
            for child in set(at_work()) - killed:
                child.kill()
                killed.add(child)
            time.sleep(0.01)
        if is_blamed:
            with pytest.raises(PermanentError, match=r"^the file crashes the converter \(exit code -9\)"):
                conversion.result(60)
        else:
            assert conversion.result(60).text.startswith("hello bomb")
    assert converter.convert(b"<p>next", media_type="text/html").text == "next"
    converter.close()


def test_closing_ends_a_conversion_under_way_without_blaming_the_file() -> None:
    converter = Converter(Conversion())
    with ThreadPoolExecutor(1) as pool:
        conversion = pool.submit(converter.convert, BOMB, media_type=EPUB)
        while not children():
            time.sleep(0.01)
        converter.close()
        with pytest.raises(UnavailableError, match="closed"):
            conversion.result(5)
    with pytest.raises(UnavailableError, match="closed"):
        converter.convert(b"<p>x", media_type="text/html")


def test_the_process_dies_with_its_parent_even_within_a_file(tmp_path: Path) -> None:
    (tmp_path / "bomb.epub").write_bytes(BOMB)
    code = (
        "import sys; from pathlib import Path; from processors.convert import Converter\n"
        "from schemas.settings import Conversion\n"
        f"Converter(Conversion()).convert(Path(sys.argv[1]).read_bytes(), media_type='{EPUB}')"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "bomb.epub")])
    while not (found := at_work(parent.pid)):
        time.sleep(0.02)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert not psutil.wait_procs(found, timeout=5)[1]


def test_one_process_serves_many_files_and_is_replaced_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors.convert, "_FILES_PER_CHILD", 3)
    converter = Converter(Conversion())
    before = {child.pid for child in children()}
    seen = []
    for number in range(7):
        assert converter.convert(f"<p>{number}".encode(), media_type="text/html").text == str(number)
        seen.append({child.pid for child in children()} - before)
    assert seen[0] == seen[1] != seen[3] == seen[4] != seen[6]
    assert all(len(pids) <= 1 for pids in seen)
    converter.close()
    assert {child.pid for child in children()} == before


def test_plain_text_needs_no_process() -> None:
    before = children()
    Converter(Conversion()).convert(b"text", media_type="text/plain")
    assert children() == before


def test_a_process_that_does_not_start_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UnavailableError, match=r"does not start \(exit code 1\)"):
        Converter(Conversion()).convert(b"<p>x", media_type="text/html")


def test_threads_get_the_text_of_their_own_file(converter: Converter) -> None:
    barrier = threading.Barrier(8)

    def several(thread: int) -> list[str]:
        barrier.wait()
        pages = [f"<p>thread {thread} page {page}".encode() for page in range(20)]
        return [converter.convert(page, media_type="text/html").text for page in pages]

    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(several, range(8)))
    assert texts == [[f"thread {thread} page {page}" for page in range(20)] for thread in range(8)]


def test_extensions_are_unambiguous_and_many() -> None:
    extensions = [extension for known in SUPPORTED.values() for extension in known]
    assert len(set(extensions)) == len(extensions)
    assert len(SUPPORTED) > 30
    assert {media_type_of("x" + extension.upper()) for extension in extensions} == SUPPORTED.keys()


@pytest.mark.parametrize(
    ("name", "content", "media_type"),
    [
        ("README", b"plain words", "text/plain"),
        ("page", b"\n<!DOCTYPE html><p>x", "text/html"),
        ("feed", b"<?xml version='1.0'?><rss/>", "application/xml"),
        ("book", epub(b"x"), EPUB),
        ("slides", (CORPUS / "voyager-missions.pptx").read_bytes(), media_type_of("x.pptx")),
        ("sheet", (CORPUS / "space-missions.xlsx").read_bytes(), media_type_of("x.xlsx")),
        ("paper", pdf(), "application/pdf"),
        ("program", b"\x7fELF\x02\x01\x01" + b"\0" * 50, "application/octet-stream"),
        ("unknown", None, "application/octet-stream"),
    ],
)
def test_without_an_extension_the_content_tells_the_media_type(
    name: str, content: bytes | None, media_type: str
) -> None:
    assert media_type_of(name, content) == media_type
