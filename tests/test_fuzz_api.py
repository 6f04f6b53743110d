"""No request that the OpenAPI document allows, or nearly allows, makes the server fail; `make fuzz` asks for longer."""

from pathlib import Path

import pytest

from tests.fuzz_api import fuzz


@pytest.mark.timeout(700)
def test_every_answer_is_one_that_the_document_announces(tmp_path: Path) -> None:
    status, report = fuzz(tmp_path, examples=2, phases="examples,fuzzing", seconds=600)
    assert status == 0, report[-20_000:]
