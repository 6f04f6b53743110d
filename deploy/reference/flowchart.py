"""Mermaid's flowcharts as SVG, drawn from top to bottom: Mermaid itself would come from another host.

Of Mermaid's language only what the pages use: nodes with a quoted label in four shapes, solid and dotted arrows.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape

_NODE = re.compile(r"(\w+)(\(\[|\[/|\[\(|\[)\"([^\"]+)\"[\])/]+")
_EDGE = re.compile(r"^\s*(\w+) (-->|-\.->) (\w+)$")
_GAP, _PITCH, _HEIGHT, _LETTER, _PADDING, _MARGIN = 14.0, 78.0, 34.0, 6.5, 22.0, 4.0
_SWEEPS = 6


@dataclass
class Node:
    """A box: its label, the bracket that says its shape, its row, and the middle of it."""

    label: str
    shape: str
    row: int = 0
    x: float = 0.0

    @property
    def width(self) -> float:
        """Room for the label in one line."""
        return len(self.label) * _LETTER + _PADDING

    @property
    def y(self) -> float:
        """The box's upper edge."""
        return _MARGIN + self.row * _PITCH


@dataclass
class Chart:
    """Nodes by name, and arrows between them with whether they are dotted."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: dict[tuple[str, str], bool] = field(default_factory=dict)

    def downwards(self) -> Iterator[tuple[str, str]]:
        """The arrows without those that lead back."""
        yield from ((start, end) for start, end in self.edges if not self._leads_back(start, end))

    def _leads_back(self, start: str, end: str) -> bool:
        return (end, start) in self.edges and list(self.nodes).index(end) < list(self.nodes).index(start)


def svg(source: str, *, title: str) -> str:
    """The drawing of a flowchart, coloured by the page's style sheet.

    Raises:
        ValueError: A line is not understood.
    """
    chart = _parsed(source)
    _set_rows(chart)
    _set_columns(chart)
    left = min(node.x - node.width / 2 for node in chart.nodes.values()) - _MARGIN
    right = max(node.x + node.width / 2 for node in chart.nodes.values()) + _MARGIN
    height = max(node.y for node in chart.nodes.values()) + _HEIGHT + _MARGIN
    shapes = [*(_arrow(chart, *edge) for edge in chart.downwards()), *map(_box, chart.nodes.values())]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}" width="{right - left:.0f}" '
        f'height="{height:.0f}" viewBox="{left:.0f} 0 {right - left:.0f} {height:.0f}">'
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z"/></marker></defs>{"".join(shapes)}</svg>'
    )


def _parsed(source: str) -> Chart:
    chart = Chart()
    for line in source.strip().splitlines()[1:]:
        for name, shape, label in _NODE.findall(line):
            chart.nodes[name] = Node(label, shape)
        edge = _EDGE.match(_NODE.sub(r"\1", line))
        if edge is None:
            raise ValueError(f"this line of a flowchart cannot be drawn: {line.strip()}")
        start, arrow, end = edge.groups()
        for name in (start, end):
            chart.nodes.setdefault(name, Node(name, "["))
        chart.edges[start, end] = arrow == "-.->"
    return chart


def _set_rows(chart: Chart) -> None:
    """As far down as what follows allows, and what nothing follows right below what leads to it."""
    arrows = list(chart.downwards())
    below = dict.fromkeys(chart.nodes, 0)
    for _ in chart.nodes:
        for start, end in arrows:
            below[start] = max(below[start], below[end] + 1)
    for name, node in chart.nodes.items():
        node.row = max(below.values()) - below[name]
    for name, node in chart.nodes.items():
        above = [chart.nodes[start].row for start, end in arrows if end == name]
        if not below[name] and above:
            node.row = max(above) + 1


def _set_columns(chart: Chart) -> None:
    """Each row beside itself, drawn towards the rows above and below it in turns."""
    rows = [[node for node in chart.nodes.values() if node.row == row] for row in range(_rows(chart))]
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        for row in rows if downwards else reversed(rows):
            wanted = {id(node): _drawn_to(chart, node, downwards=downwards) for node in row}
            _spread(sorted(row, key=lambda node: wanted[id(node)]), wanted)


def _rows(chart: Chart) -> int:
    return max(node.row for node in chart.nodes.values()) + 1


def _drawn_to(chart: Chart, node: Node, *, downwards: bool) -> float:
    pairs = [(chart.nodes[start], chart.nodes[end]) for start, end in chart.downwards()]
    near = [start.x for start, end in pairs if end is node] if downwards else []
    near = near or [end.x for start, end in pairs if start is node] or [start.x for start, end in pairs if end is node]
    return sum(near) / len(near) if near else node.x


def _spread(row: list[Node], wanted: dict[int, float]) -> None:
    """Side by side in this order, and in the middle of where they want to be."""
    edge = -float("inf")
    for node in row:
        node.x = max(wanted[id(node)], edge + node.width / 2)
        edge = node.x + node.width / 2 + _GAP
    shift = sum(wanted[id(node)] - node.x for node in row) / len(row)
    for node in row:
        node.x += shift


def _arrow(chart: Chart, start: str, end: str) -> str:
    above, below = chart.nodes[start], chart.nodes[end]
    y1, y2 = above.y + _HEIGHT, below.y
    middle = (y1 + y2) / 2
    kind = "dotted" if chart.edges[start, end] else "solid"
    back = ' marker-start="url(#arrow)"' * ((end, start) in chart.edges)
    return (
        f'<path class="{kind}" marker-end="url(#arrow)"{back} '
        f'd="M{above.x:.0f} {y1:.0f}C{above.x:.0f} {middle:.0f} {below.x:.0f} {middle:.0f} {below.x:.0f} {y2:.0f}"/>'
    )


def _box(node: Node) -> str:
    left, right, top, bottom = node.x - node.width / 2, node.x + node.width / 2, node.y, node.y + _HEIGHT
    if node.shape == "[/":
        outline = f'<path d="M{left + 8:.0f} {top:.0f}H{right:.0f}L{right - 8:.0f} {bottom:.0f}H{left:.0f}z"/>'
    else:
        radius = {"([": _HEIGHT / 2, "[(": 10}.get(node.shape, 3)
        outline = (
            f'<rect x="{left:.0f}" y="{top:.0f}" width="{node.width:.0f}" height="{_HEIGHT:.0f}" rx="{radius:.0f}"/>'
        )
    kind = {"([": "outside", "[/": "topic", "[(": "store"}.get(node.shape, "stage")
    label = f'<text x="{node.x:.0f}" y="{top + _HEIGHT / 2:.0f}">{escape(node.label)}</text>'
    return f'<g class="{kind}">{outline}{label}</g>'
