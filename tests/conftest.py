from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import services


@pytest.fixture(scope="session")
def bootstrap_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with services.broker(tmp_path_factory.mktemp("broker")) as servers:
        yield servers


@pytest.fixture(scope="session")
def data() -> Path:
    """The shared data sets; a test that needs them fails where they are missing."""
    import os

    return Path(os.environ.get("AEGIS_DATA", "../shared/data"))
