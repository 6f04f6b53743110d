"""The content of marked-up text: what is taken off before and after kreuzberg, and the formats it leaves as code.

Runs in the conversion process, whose time is limited: the input is hostile.
"""

import html
import json
import re
import unicodedata
import xml.etree.ElementTree as ET  # nosec B405  # see text_from_xml
from collections.abc import Callable, Iterator
from itertools import zip_longest

_HTML_TITLE = re.compile(r"<title\b[^>]*>(.*?)</title\s*>", re.S | re.I)
# kreuzberg writes head elements into the text and drops what stands in a form, which may be the whole page.
_HTML_DROPPED = re.compile(
    r"<title\b[^>]*>.*?</title\s*>|</?(?:meta|link|base|form)\b[^>]*>|<\?xml[^>]*\?>", re.S | re.I
)
_CHARSET = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?([\w.:-]+)|<\?xml[^>]+encoding\s*=\s*["']([\w.:-]+)""", re.I)
_XML_ENCODING = re.compile(r"(<\?xml[^>]*?)\s+encoding\s*=\s*(?:'[^']*'|\"[^\"]*\")")
_CHARACTER_REFERENCE = re.compile(r"&#(?:x[0-9a-fA-F]{1,6}|[0-9]{1,7});")
_RST_ROLE = re.compile(r":[\w.+:-]+:`~?([^`<]+?)(?:\s*<[^`>]*>)?`")
_RST_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?")
# kreuzberg writes what stands in these twice.
_RST_ADMONITION = re.compile(
    r"^([ \t]*)\.\. (?:note|warning|tip|hint|important|caution|attention|danger|error|seealso)::[ \t]*", re.M
)
_ADOC_HEADING = re.compile(r"^(={1,6}) +(?=\S)", re.M)
_ADOC_BLOCK = re.compile(r"^(?:\[.*\]|:[\w!-]+:.*|-{4,}|\+{4,}|={4,}|\|={3,})[ \t]*$\n?", re.M)
_TEX_ACCENT = re.compile(r"\\([\"'`^~=.])\s*(?:\{\\?([A-Za-z])\}|\\?([A-Za-z])(?:\{\})?)|\\([cvuH])\{([A-Za-z])\}")
_TEX_LETTER = re.compile(r"\\(ss|ae|AE|oe|OE|aa|AA|o|O|l|L)(?:\{\}|\\? |(?![A-Za-z]))")
_TEX_COMMENT = re.compile(r"(?<!\\)%.*")
_COMBINING = dict(
    zip("\"'`^~=.cvuH", "\u0308\u0301\u0300\u0302\u0303\u0304\u0307\u0327\u030c\u0306\u030b", strict=True)
)
_TEX_LETTERS = dict(zip(("ss", "ae", "AE", "oe", "OE", "aa", "AA", "o", "O", "l", "L"), "ßæÆœŒåÅøØłŁ", strict=True))

_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_CODE_SPAN = re.compile(r"((?<![\\`])(`+)(?!`).*?(?<!`)\2(?!`))")
_IMAGE = re.compile(r"\\?!\[([^\]]*)\]\((?:[^()]|\([^()]*\))*\)")
_LINK = re.compile(r"(?<!\\)\[((?:[^\[\]\\]|\\.|\[[^\[\]]*\])*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"]*\")?\)")
_BOLD = re.compile(r"(?<!\\)\*\*(?=\S)(.+?)(?<=[^\s\\])\*\*|(?<!\w)__(?=\S)([^_]+ [^_]+)(?<=\S)__(?!\w)")
_ITALIC = re.compile(r"(?<![\w*\\])\*(?=[^\s*])([^*]+?)(?<=[^\s\\])\*(?![\w*])")
_UNDERLINE_TAG = re.compile(r"</?u>")
_RAISED_OR_LOWERED = re.compile(r" ?([~^])([+−-]?\w{1,6})\1")
_COLUMN_PADDING = re.compile(r" {2,}|-{4,}")
_BLANK_LINES = re.compile(r"\n{3,}")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_KEPT_AT_LINE_START = re.compile(r"\s*\\[#=>`~+-]")  # without its backslash it would become a heading, a fence, ...
_SEPARATOR_ROW = re.compile(r"\|(?:\s*:?-+:?\s*\|)+\s*$")
_CELL_BORDER = re.compile(r"(?<!\\)\|")


def declared_charset(content: bytes) -> str | None:
    """The charset that an HTML or XML file says it has."""
    found = _CHARSET.search(content[:4096])
    return (found[1] or found[2]).decode("ascii") if found else None


def html_and_title(page: str) -> tuple[str, str | None]:
    """The page as kreuzberg needs it to find all of its text and no more, and its title."""
    title = _HTML_TITLE.search(page)
    return _HTML_DROPPED.sub("", page), html.unescape(title[1]) if title else None


def is_shell(page: str, markdown: str) -> bool:
    """Whether a page is but links around text that its scripts make."""
    return "<script" in page.lower() and not any(map(str.isalnum, _LINK.sub("", markdown)))


def xml_ready(text: str) -> str:
    """XML with character references resolved, which kreuzberg drops, and without its encoding."""
    return _CHARACTER_REFERENCE.sub(_character, _XML_ENCODING.sub(r"\1", text, count=1))


def rst_ready(text: str) -> str:
    """ReStructuredText with roles, links and admonitions replaced by their text."""
    text = _RST_ADMONITION.sub(r"\1", text)
    return _RST_LINK.sub(r"\1", _RST_ROLE.sub(r"\1", text))


def latex_ready(text: str) -> str:
    """LaTeX without comments, accents as letters; a part of a document as a document, else it has no text."""
    text = _TEX_ACCENT.sub(_accented, _TEX_COMMENT.sub("", text))
    text = _TEX_LETTER.sub(lambda letter: _TEX_LETTERS[letter[1]], text)
    whole = r"\begin{document}" in text
    return text if whole else f"\\begin{{document}}\n{text}\n\\end{{document}}\n"


def markdown_from_asciidoc(text: str) -> str:
    """AsciiDoc's headings as Markdown's, its attributes and block delimiters left out."""
    return _ADOC_HEADING.sub(lambda marks: "#" * len(marks[1]) + " ", _ADOC_BLOCK.sub("", text))


def text_from_captions(text: str) -> str:
    """What is said in WebVTT or SubRip, one cue a line, the speaker before it."""
    cues = []
    for block in re.split(r"\n\s*\n", text):
        _, arrow, said = block.partition("-->")
        if arrow:
            spoken = re.sub(r"<v(?:\.[^>\s]*)?\s+([^>]*)>", r"\1: ", said.partition("\n")[2])
            cues.append(html.unescape(" ".join(re.sub(r"<[^>]*>", "", spoken).split())))
    return "\n".join(cues)


def text_from_json(text: str) -> str:
    """A line ``key: value`` for each value of a JSON text, a blank line between the objects of a list."""
    return "\n".join(_json_lines(json.loads(text), ())).strip()


def text_from_json_lines(text: str) -> str:
    """``text_from_json`` of every line."""
    return "\n\n".join(text_from_json(line) for line in text.splitlines() if line.strip())


def text_from_xml(text: str) -> str:
    """The text of an XML file: a paragraph for mixed content, ``name: text`` for an element of nothing but text.

    Raises:
        xml.etree.ElementTree.ParseError: It is not well-formed.
    """
    # Entities cannot explode: expat limits their amplification, and this process its time and memory.
    return "\n".join(_xml_lines(ET.fromstring(text)))  # noqa: S314  # nosec B314


def records_from_tables(markdown: str) -> str:
    """A paragraph ``column: cell; ...`` for each row of the tables, so that a row tells what it is by itself.

    Rows of a table whose first row is no heading become lines ``cell; cell``.
    """
    blocks = markdown.split("\n\n")
    return "\n\n".join(_records(block) if block.lstrip().startswith("|") else block for block in blocks)


def without_markup(markdown: str) -> str:
    """Markdown with headings, lists, tables and code, but without emphasis, link targets and escapes."""
    lines, fence = [], ""
    for line in markdown.split("\n"):
        mark = _FENCE.match(line)
        if mark and (not fence or (mark[1].startswith(fence) and line.strip() == mark[1])):
            fence = "" if fence else mark[1]
            lines.append(line)
        else:
            lines.append(line if fence else _outside_code_spans(_LINK.sub(r"\1", _IMAGE.sub(r"\1", line)), _plain))
    return _BLANK_LINES.sub("\n\n", "\n".join(lines))


def _character(reference: re.Match[str]) -> str:
    character = html.unescape(reference[0])
    return reference[0] if character in "<>&\"'" else character


def _accented(accent: re.Match[str]) -> str:
    mark, letter = accent[1] or accent[4], accent[2] or accent[3] or accent[5]
    return unicodedata.normalize("NFC", letter + _COMBINING[mark])


def _json_lines(value: object, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _json_lines(inner, (*path, str(key)))
    elif isinstance(value, list):
        if any(isinstance(inner, dict | list) for inner in value):
            for inner in value:
                yield from _json_lines(inner, path)
                yield ""
        elif value:
            yield from _json_lines(", ".join(map(str, value)), path)
    elif value is not None and value != "":
        yield f"{' '.join(path)}: {value}" if path else str(value)


def _xml_lines(element: ET.Element) -> Iterator[str]:
    own = (element.text or "") + "".join(child.tail or "" for child in element)
    if own.strip():
        text = " ".join("".join(element.itertext()).split())
        name = str(element.tag).rpartition("}")[2]
        yield text if len(element) else f"{name}: {text}"
    else:
        for child in element:
            yield from _xml_lines(child)
        if len(element):
            yield ""


def _records(table: str) -> str:
    lines = table.strip("\n").split("\n")
    if len(lines) < 2 or not _SEPARATOR_ROW.match(lines[1]):
        return table
    heading, *rows = [_cells(line) for line in (lines[0], *lines[2:])]
    named = [name for name in heading if name]
    if len(named) < max(2, len(heading) - 1) or len(set(named)) < len(named) or any(map(_is_number, named)):
        return "\n".join(filter(None, ("; ".join(filter(None, row)) for row in (heading, *rows))))
    return "\n\n".join(filter(None, (_record(heading, row) for row in rows)))


def _record(heading: list[str], row: list[str]) -> str:
    pairs = zip_longest(heading, row, fillvalue="")
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell)


def _cells(line: str) -> list[str]:
    cells = _CELL_BORDER.split(line.strip())[1:-1]
    return [cell.strip().replace("\\|", "|").removesuffix(" 00:00:00") for cell in cells]


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[-+(]?[\d.,\s%/:)-]+", text))


def _outside_code_spans(line: str, change: Callable[[str], str]) -> str:
    if "`" not in line:
        return change(line)
    parts = _CODE_SPAN.split(line)  # text, span, its backticks, text, ...
    return "".join(change(part) if index % 3 == 0 else part for index, part in enumerate(parts) if index % 3 != 2)


def _plain(line: str) -> str:
    line = _CHARACTER_REFERENCE.sub(lambda reference: html.unescape(reference[0]).replace("\n", " "), line)
    kept = _KEPT_AT_LINE_START.match(line)
    start = kept.end() if kept else 0
    in_table = line.startswith("|")
    if in_table:
        line = _COLUMN_PADDING.sub(lambda run: run[0][0] * (3 if run[0][0] == "-" else 1), line)
    # First the escapes: in presentations kreuzberg escapes its own emphasis.
    line = line[:start] + _ESCAPE.sub(lambda m: m[0] if in_table and m[1] == "|" else m[1], line[start:])
    line = _ITALIC.sub(r"\1", _BOLD.sub(lambda bold: bold[1] or bold[2], line))
    return _RAISED_OR_LOWERED.sub(r"\2", _UNDERLINE_TAG.sub("", line))
