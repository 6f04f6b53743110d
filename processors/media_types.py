"""Which formats can be converted, and how the format of a file is found out."""

from pathlib import PurePath

OCTET_STREAM = "application/octet-stream"
HTML = "text/html"
XHTML = "application/xhtml+xml"
XML = "application/xml"

_OFFICE = "application/vnd.openxmlformats-officedocument."
_DOCX = _OFFICE + "wordprocessingml.document"
_XLSX = _OFFICE + "spreadsheetml.sheet"
_PPTX = _OFFICE + "presentationml.presentation"
_ODT = "application/vnd.oasis.opendocument.text"
_ODS = "application/vnd.oasis.opendocument.spreadsheet"

SUPPORTED: dict[str, tuple[str, ...]] = {
    "text/plain": (".txt", ".text", ".log"),
    "text/markdown": (".md", ".markdown", ".mkd"),
    "text/mdx": (".mdx",),
    "text/x-rst": (".rst",),
    "text/asciidoc": (".adoc", ".asciidoc"),
    "text/x-org": (".org",),
    "text/x-djot": (".djot", ".dj"),
    "application/x-latex": (".tex", ".latex"),
    "application/x-typst": (".typ", ".typst"),
    HTML: (".html", ".htm"),
    XHTML: (".xhtml", ".xht"),
    "application/pdf": (".pdf",),
    _DOCX: (".docx",),
    _OFFICE + "wordprocessingml.template": (".dotx",),
    "application/vnd.ms-word.document.macroEnabled.12": (".docm",),
    "application/msword": (".doc", ".dot"),
    "application/rtf": (".rtf",),
    _ODT: (".odt",),
    _PPTX: (".pptx",),
    _OFFICE + "presentationml.slideshow": (".ppsx",),
    "application/vnd.ms-powerpoint.presentation.macroEnabled.12": (".pptm",),
    "application/vnd.ms-powerpoint": (".ppt", ".pps"),
    _XLSX: (".xlsx",),
    _OFFICE + "spreadsheetml.template": (".xltx",),
    "application/vnd.ms-excel.sheet.macroEnabled.12": (".xlsm",),
    "application/vnd.ms-excel": (".xls",),
    _ODS: (".ods",),
    "text/csv": (".csv",),
    "text/tab-separated-values": (".tsv",),
    "application/epub+zip": (".epub",),
    "application/x-fictionbook+xml": (".fb2",),
    "message/rfc822": (".eml",),
    "application/vnd.ms-outlook": (".msg",),
    "application/x-ipynb+json": (".ipynb",),
    "application/json": (".json",),
    "application/x-ndjson": (".jsonl", ".ndjson"),
    "application/x-yaml": (".yaml", ".yml"),
    "application/toml": (".toml",),
    XML: (".xml",),
    "application/x-jats+xml": (".nxml", ".jats"),
    "application/docbook+xml": (".dbk", ".docbook"),
    "application/xml+opml": (".opml",),
    "image/svg+xml": (".svg",),
    "text/vtt": (".vtt",),
    "application/x-subrip": (".srt",),
    "application/x-bibtex": (".bib",),
}
"""Media type -> file name extensions of what can be converted."""

SPREADSHEETS = frozenset(
    media_type for media_type in SUPPORTED if "excel" in media_type or "spreadsheet" in media_type
) | {"text/csv", "text/tab-separated-values"}

# Known so that the reason can name them, though no text can be got out of them.
_OTHERS = {
    "image/jpeg": (".jpg", ".jpeg"),
    "image/png": (".png",),
    "image/gif": (".gif",),
    "image/tiff": (".tif", ".tiff"),
    "image/bmp": (".bmp",),
    "image/webp": (".webp",),
    "application/vnd.oasis.opendocument.presentation": (".odp",),
    "application/zip": (".zip",),
    "application/gzip": (".gz", ".tgz"),
}
_BY_EXTENSION = {
    extension: media_type for media_type, extensions in (SUPPORTED | _OTHERS).items() for extension in extensions
}
_BY_LOWER_CASE = {media_type.lower(): media_type for media_type in SUPPORTED | _OTHERS}
_SYNONYMS = {
    "text/xml": XML,
    "text/json": "application/json",
    "application/jsonl": "application/x-ndjson",
    "application/x-jsonlines": "application/x-ndjson",
    "text/x-markdown": "text/markdown",
    "text/rst": "text/x-rst",
    "text/prs.fallenstein.rst": "text/x-rst",
    "text/x-asciidoc": "text/asciidoc",
    "text/org": "text/x-org",
    "text/rtf": "application/rtf",
    "text/yaml": "application/x-yaml",
    "text/x-yaml": "application/x-yaml",
    "application/yaml": "application/x-yaml",
    "application/x-tex": "application/x-latex",
    "text/x-tex": "application/x-latex",
    "text/srt": "application/x-subrip",
    "text/x-bibtex": "application/x-bibtex",
    "application/csv": "text/csv",
    "application/x-zip-compressed": "application/zip",
    "image/jpg": "image/jpeg",
}
_STARTS = (
    (b"\x89PNG\r\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x1f\x8b", "application/gzip"),
    (b"{\\rtf", "application/rtf"),
)
_IN_ZIP = (
    (b"mimetypeapplication/epub+zip", "application/epub+zip"),
    (b"mimetype" + _ODT.encode(), _ODT),
    (b"mimetype" + _ODS.encode(), _ODS),
    (b"word/document", _DOCX),
    (b"xl/workbook", _XLSX),
    (b"ppt/presentation", _PPTX),
)
_IN_OLE = (
    ("EncryptedPackage", _DOCX),
    ("WordDocument", "application/msword"),
    ("Workbook", "application/vnd.ms-excel"),
    ("PowerPoint Document", "application/vnd.ms-powerpoint"),
    ("__properties_version1.0", "application/vnd.ms-outlook"),
)
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def media_type_of(name: str, content: bytes | None = None) -> str:
    """Media type by a file's name, else by its first bytes; ``application/octet-stream`` if neither tells."""
    by_name = _BY_EXTENSION.get(PurePath(name).suffix.lower())
    return by_name or (media_type_of_bytes(content) if content is not None else OCTET_STREAM)


def media_type_of_bytes(content: bytes) -> str:
    """Media type by what the content looks like; ``application/octet-stream`` if it looks like nothing known."""
    binary = _binary_type(content)
    if binary != OCTET_STREAM:
        return binary
    start = content[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return HTML
    if start.startswith(b"<?xml"):
        return HTML if b"<html" in start else XML
    return OCTET_STREAM if is_binary(content) else "text/plain"


def canonical(media_type: str) -> str:
    """A media type without parameters, in the spelling of ``SUPPORTED``; structured suffixes resolved."""
    essence = media_type.partition(";")[0].strip().lower()
    known = _SYNONYMS.get(essence) or _BY_LOWER_CASE.get(essence)
    if known or not essence:
        return known or OCTET_STREAM
    if essence.endswith("+json"):
        return "application/json"
    return XML if essence.endswith("+xml") else essence


def is_binary(content: bytes) -> bool:
    """Whether the content cannot be text in any encoding with or without a byte order mark."""
    start = content[:8192]
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or is_utf16(start):
        return False
    controls = sum(byte < 9 or 13 < byte < 27 or 27 < byte < 32 for byte in start)
    return controls * 20 > len(start)


def is_utf16(content: bytes) -> str | None:
    """The byte order ("utf-16-le", "utf-16-be") of Western text in UTF-16 without a byte order mark."""
    start = content[:2048]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if len(start) >= 8 and max(even, odd) * 2 > 0.6 * len(start) and min(even, odd) * 20 < max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def _binary_type(content: bytes) -> str:
    if b"%PDF-" in content[:1024]:
        return "application/pdf"
    if content.startswith(OLE):
        marks = [(name.encode("utf-16-le"), media_type) for name, media_type in _IN_OLE]
        return next((media_type for mark, media_type in marks if mark in content), OCTET_STREAM)
    if content.startswith(b"PK\x03\x04"):
        return next((media_type for mark, media_type in _IN_ZIP if mark in content), "application/zip")
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for start, media_type in _STARTS if content.startswith(start)), OCTET_STREAM)
