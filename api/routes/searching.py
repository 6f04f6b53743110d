"""Search."""

from fastapi import APIRouter

from api.access.principals import Caller
from api.deadlines import within
from api.problems import Problem
from api.search import Search, SearchRequest, SearchResponse


def router(search: Search, *, timeout: float) -> APIRouter:
    """The route of hits without an answer made from them."""
    routes = APIRouter(tags=["search"])

    @routes.post("/api/v1/search", summary="Search")
    async def search_chunks(caller: Caller, request: SearchRequest) -> SearchResponse:
        """The chunks that answer a query best, by vectors, BM25 and the graph. 504 where it takes too long."""
        seconds = timeout + (request.wait_timeout if request.wait_for else 0.0)
        try:
            return await within(seconds, search.search(request, caller))
        except TimeoutError as error:
            raise Problem(504, "not-in-time", f"the search was not done within {seconds:g} s") from error

    return routes
