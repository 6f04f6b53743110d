"""The site: `make site` builds it, and every warning is an error."""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from deploy.reference import flowchart

project = "Aegis Streams"
html_title = project
html_favicon = "_static/icon.svg"
language = "en"

extensions = ["myst_parser"]
myst_enable_extensions: list[str] = []  # the pages are plain Markdown: a code host shows them as well
myst_fence_as_directive = {"mermaid"}
myst_heading_anchors = 6
nitpicky = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "tango"
pygments_dark_style = "github-dark"

_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<path>\.\./[^)#]+)[^)]*\)")


class Flowchart(SphinxDirective):
    """A Mermaid block, drawn while the site is built."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The drawing, in a frame that scrolls where it is too wide."""
        self.env.note_dependency(flowchart.__file__)
        try:
            drawn = flowchart.svg("\n".join(self.content), title="The flow, from top to bottom")
        except ValueError as error:
            raise self.error(str(error)) from error
        return [nodes.raw("", f'<div class="flowchart">{drawn}</div>', format="html")]


def _without_links_outside(app: Sphinx, page: str, source: list[str]) -> None:
    """Markdown and folders outside of docs/ are no pages of the site: what links to them there is text here."""

    def text_or_link(link: re.Match[str]) -> str:
        target = (app.srcdir / page).parent.joinpath(link["path"]).resolve()
        is_outside = not target.is_relative_to(app.srcdir) and (target.is_dir() or target.suffix == ".md")
        return link["text"] if is_outside else link[0]

    source[0] = _LINK.sub(text_or_link, source[0])


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", _without_links_outside)
    app.add_directive("mermaid", Flowchart)
