"""The end of the generations before the one that answers."""

from contextlib import suppress

import structlog
from confluent_kafka import KafkaException

from deploy.generations import number_of
from deploy.stores import drop_stores
from schemas.settings import Settings
from streams.decisions import carry_decisions
from streams.topics import drop_generation, generations

log = structlog.get_logger()


def retire_earlier(bootstrap_servers: str, live: Settings) -> None:
    """Delete them; what people decided just before the switch goes to the live one first. A kill leaves it to be done.

    A later generation may be in the making and is left alone.
    """
    if not live.generation:
        return
    drop_stores(live.data_dir, lambda generation: number_of(generation) < number_of(live.generation))
    try:
        for earlier in sorted(generations(bootstrap_servers), key=number_of):
            if number_of(earlier) < number_of(live.generation):
                with suppress(LookupError):  # it was half deleted
                    carry_decisions(bootstrap_servers, source=earlier, target=live.generation)
                drop_generation(bootstrap_servers, earlier)
    except (KafkaException, TimeoutError) as error:  # the next start or switch tries again
        log.warning("generation-not-retired", error=repr(error))
