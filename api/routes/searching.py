"""Search."""

from fastapi import APIRouter

from api.access.principals import Caller
from api.search import Search, SearchRequest, SearchResponse


def router(search: Search) -> APIRouter:
    """The route of hits without an answer made from them."""
    routes = APIRouter(tags=["search"])

    @routes.post("/api/v1/search", summary="Search")
    async def search_chunks(caller: Caller, request: SearchRequest) -> SearchResponse:
        """The chunks that answer a query best, by vectors, BM25 and the graph."""
        return await search.search(request, caller)

    return routes
