"""The smoke test passes on what works, and names the step at which anything else does not."""

from functools import partial
from typing import cast

import pytest

from deploy.delivery.smoke import SmokeError, smoke
from deploy.local.broker import free_port
from tests.api_server import serving
from tests.instant_system import InstantPublisher, instant


def test_it_passes_on_what_works_and_leaves_nothing() -> None:
    with serving(change=instant) as stack:
        seen = smoke(f"http://127.0.0.1:{stack.port}")
        assert (seen.failed, seen.problem) == (None, None)
        assert list(seen.seconds) == ["ready", "publish", "searchable", "search", "ask", "delete", "gone", "metrics"]
        assert cast("InstantPublisher", stack.publisher).texts == {}
        assert [document.operation for document, _ in stack.publisher.log] == ["upsert", "delete"]


@pytest.mark.parametrize(
    ("loses", "why"),
    [
        ("searchable", "is unknown after 1 s"),
        ("search", "is searchable, but not among the hits"),
        ("gone", "was deleted 1 s ago, and is still found"),
    ],
)
def test_it_names_the_step_that_fails_and_removes_its_document_all_the_same(loses: str, why: str) -> None:
    with serving(change=partial(instant, loses=loses)) as stack:
        seen = smoke(f"http://127.0.0.1:{stack.port}", within=1)
        assert seen.failed == loses
        assert why in (seen.problem or "")
        assert [document.operation for document, _ in stack.publisher.log][-1] == "delete"
    with pytest.raises(SmokeError, match=f"{loses}: .*{why}"):
        seen.require()


def test_nobody_at_the_address_is_the_first_step_failing() -> None:
    seen = smoke(f"http://127.0.0.1:{free_port()}", within=1)
    assert (seen.failed, seen.seconds) == ("ready", {})
    assert "refused" in (seen.problem or "")
