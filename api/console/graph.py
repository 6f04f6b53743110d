"""Entities, their neighbourhood, and the sentences that say so."""

from typing import Any

from fastapi import Request
from nicegui import events, ui

from api.console.client import Client
from api.console.frame import heading, page, told

_LIMIT = 25
_COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#14b8a6", "#ec4899", "#84cc16")


def install() -> None:
    """Serve the page."""
    page("/graph", _build)


async def _build(client: Client, _: Request) -> None:
    async def search() -> None:
        found.clear()
        if not name.value.strip():
            return
        with told(), found:
            entities = (await client.get("/api/v1/entities", name=name.value.strip()))["entities"]
            if not entities:
                ui.label("No entity has this name; try its full name.").classes("soft")
            with ui.row().classes("gap-2"):
                for entity in entities:
                    ui.button(_titled(entity), on_click=lambda id_=entity["id"]: draw(id_)).props("outline no-caps")
            if len(entities) == 1:
                await draw(entities[0]["id"])

    async def draw(entity_id: str) -> None:
        place.clear()
        with told(), place:
            Neighbourhood(await client.get(f"/api/v1/entities/{entity_id}/graph", limit=_LIMIT), entity_id, draw)

    with ui.row().classes("w-full items-center gap-2"):
        name = ui.input("Name of a person, an organisation, a place …").classes("col").on("keydown.enter", search)
        ui.button("Search", icon="search", on_click=search).props("no-caps")
    found = ui.column().classes("w-full gap-2")
    place = ui.column().classes("w-full gap-2")


class Neighbourhood:
    """The drawing, the same as a list for keyboards and screen readers, and the evidence of what is chosen."""

    def __init__(self, graph: dict[str, Any], centre: str, draw: Any) -> None:
        self._entities = {entity["id"]: entity for entity in graph["entities"]}
        self._relations = graph["relations"]
        self._draw = draw
        chart = ui.echart(self._options(centre), on_point_click=self._clicked).classes("w-full chart")
        chart.props('role=img aria-label="The neighbourhood; the list below says the same"')
        self._evidence = ui.card().classes("w-full q-pa-sm gap-1").props("aria-live=polite")
        with self._evidence:
            ui.label("Choose a relation to read what it follows from.").classes("soft")
        heading("Relations")
        with ui.element("ul").classes("list"):
            for relation in self._relations:
                with ui.element("li"):
                    ui.button(self._sentence(relation), on_click=lambda one=relation: self._show(one)).props(
                        "flat dense no-caps align=left"
                    ).classes("words")

    def _sentence(self, relation: dict[str, Any]) -> str:
        source, target = (self._entities[relation[end]]["display"] for end in ("source", "target"))
        return f"{source} → {relation['type'].lower().replace('_', ' ')} → {target}"

    def _show(self, relation: dict[str, Any]) -> None:
        self._evidence.clear()
        with self._evidence:
            ui.label(self._sentence(relation)).classes("text-weight-bold words")
            ui.label(relation["evidence"]).classes("words")
            ui.label(f"said in {relation['weight']} chunks, confidence {relation['confidence']:.2f}").classes("soft")

    async def _clicked(self, click: events.EChartPointClickEventArguments) -> None:
        if click.data_type == "edge":
            self._show(self._relations[click.data_index])
        elif click.data_type == "node":
            await self._draw(list(self._entities)[click.data_index])

    def _options(self, centre: str) -> dict[str, Any]:
        types = sorted({entity["type"] for entity in self._entities.values()})
        nodes = [
            {
                "id": id_,
                "name": entity["display"],
                "category": types.index(entity["type"]),
                "symbolSize": 44 if id_ == centre else 24,
            }
            for id_, entity in self._entities.items()
        ]
        edges = [
            {"source": one["source"], "target": one["target"], "lineStyle": {"width": min(1 + one["weight"], 6)}}
            for one in self._relations
        ]
        return {
            "color": list(_COLOURS),
            "legend": {"data": types, "textStyle": {"color": "#8a93a3"}},
            "series": [
                {
                    "type": "graph",
                    "layout": "force",
                    "roam": True,
                    "draggable": True,
                    "categories": [{"name": type_} for type_ in types],
                    "data": nodes,
                    "links": edges,
                    "edgeSymbol": ["none", "arrow"],
                    "force": {"repulsion": 260, "edgeLength": 110},
                    "label": {"show": True, "position": "bottom", "color": "#8a93a3"},
                    "emphasis": {"focus": "adjacency"},
                }
            ],
        }


def _titled(entity: dict[str, Any]) -> str:
    return f"{entity['display']} ({entity['type'].lower()}, {entity['mention_count']} mentions)"
