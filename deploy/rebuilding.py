"""A lost embedded store: its group reads its topic from the start again, into an empty folder."""

import shutil
from collections.abc import Callable
from typing import Literal

from deploy.local.broker import Broker
from deploy.running import owned
from deploy.stores import store_folder
from schemas.records import StageName
from schemas.settings import Settings
from schemas.topics import SOURCES, group_of, named
from streams.offsets import rewind

_STAGES: dict[str, StageName] = {"vectors": "index-vectors", "graph": "index-graph"}


def rebuild(settings: Settings, store: Literal["vectors", "graph"], *, say: Callable[[str], None]) -> None:
    """Rewind the group that writes the store, then delete the store; the broker is started for it.

    Raises:
        NotRunningError: A system runs on the data folder.
        ValueError: The store or the broker is not in the data folder, or the topic does not hold everything any more.
    """
    if settings.kafka.bootstrap_servers or getattr(settings, store).url:
        raise ValueError("`aegis rebuild` works on the embedded broker and stores; docs/operations.md has the others")
    stage = _STAGES[store]
    group, topic = group_of(stage, settings.generation), named(SOURCES[stage], settings.generation)
    with owned(settings.data_dir):
        broker = Broker(settings.data_dir / "broker", port=settings.local.broker_port)
        broker.start()
        try:
            rewind(broker.bootstrap_servers, group, topic)
        finally:
            broker.stop()
        # Only now: a kill before leaves a full store that is written again, one after an empty one that is filled.
        shutil.rmtree(store_folder(settings, store), ignore_errors=True)
    say(f"{group} reads {topic} from the start; the store is empty.")
