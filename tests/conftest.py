from collections.abc import Iterator

import pytest

from tests import services


@pytest.fixture(scope="session")
def bootstrap_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with services.broker(tmp_path_factory.mktemp("broker")) as servers:
        yield servers
