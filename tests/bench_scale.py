"""`make bench-scale`: what a second and a fourth worker of a stage bring, and how soon they take part.

Real broker, real worker processes, the embed stage as it runs in production; only its model sleeps. So the machine's
cores do not decide, and what is left to decide is the product: how partitions are shared, what a batch costs beside
its work, what a rebalance stops.
"""

import json
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from confluent_kafka import Consumer, Producer, TopicPartition

from deploy.local.supervisor import Child, command_child
from schemas.ids import content_hash
from schemas.records import Chunk, EmbeddedChunk
from schemas.settings import Settings
from schemas.topics import CHUNKS, EMBEDDINGS
from streams.kafka import producer_configuration, reader, record_of
from streams.lag import LagMeter
from streams.topics import create_topics
from tests import services

_BATCH = 4  # records; a window holds many batches, so that where it cuts them does not count
_COMMIT_SECONDS = 1.0  # streams.agent commits as often
_SETTLE = 5.0
_JOIN = 60.0
_START = 40.0  # seconds of work for one worker, so that a new one finds something to do


class _Output(NamedTuple):
    at: float
    worker: int
    document_id: str


def main(
    sleep: Annotated[float, typer.Option(help="Seconds of sleep for each record.")] = 0.2,
    window: Annotated[float, typer.Option(help="Seconds over which a rate is measured.")] = 60.0,
    partitions: Annotated[int, typer.Option(help="Partitions of the topic; they bound the workers.")] = 12,
    report: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="aegis-scale-", ignore_cleanup_errors=True) as folder:
        found = scale_out((1, 2, 4), sleep=sleep, window=window, partitions=partitions, folder=Path(folder))
    text = json.dumps(found, indent=2)
    typer.echo(text)
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(text)


def scale_out(sizes: Sequence[int], *, sleep: float, window: float, partitions: int, folder: Path) -> dict[str, Any]:
    """Rates of a stage with so many workers, one size after the other while it runs; what it lost and repeated."""
    with services.broker(folder / "broker") as servers, ExitStack() as closing_down:
        settings = Settings(data_dir=folder, kafka={"bootstrap_servers": servers, "partitions": partitions})
        create_topics(servers, settings.kafka)
        run = _Run(servers, folder, sleep, partitions)
        consumer = closing_down.enter_context(closing(reader(servers)))
        consumer.assign([TopicPartition(EMBEDDINGS.name, number, 0) for number in range(partitions)])
        outputs: list[_Output] = []
        rates: dict[int, float] = {}
        workers: list[Child] = []
        started: list[float] = []
        for size in sizes:
            run.publish(_START)
            while len(workers) < size:
                started.append(time.time())
                workers.append(run.worker(len(started)))
                closing_down.callback(workers[-1].stop)
            _read_until_all_take_part(consumer, outputs, workers)
            run.publish(size * (window + 2 * _SETTLE))
            _read(consumer, outputs, _SETTLE)
            rates[size] = _rate(consumer, outputs, window, workers=size, slowest=10 * _BATCH * sleep)
        while LagMeter(servers).measure(["embed"])[0].records:
            _read(consumer, outputs, 1.0)
        _read(consumer, outputs, 2.0)
    return _figures(sizes, rates, started, outputs, run)


@dataclass
class _Run:
    servers: str
    folder: Path
    sleep: float
    partitions: int
    published: int = 0

    def worker(self, number: int) -> Child:
        """A started worker process."""
        environment = {
            "AEGIS_DATA_DIR": str(self.folder),
            "AEGIS_KAFKA__BOOTSTRAP_SERVERS": self.servers,
            "AEGIS_EMBEDDING__BATCH__MAX_RECORDS": str(_BATCH),
        }
        command = [sys.executable, "-m", "tests.sleeping_worker", str(number), str(self.sleep)]
        child = command_child(f"worker-{number}", command, self.folder / f"worker-{number}.log", environment)
        child.start()
        return child

    def publish(self, seconds: float) -> None:
        """Work for so many seconds of one worker: chunks, each a document of its own, as many in every partition."""
        per_partition = math.ceil(seconds / self.sleep / self.partitions)
        producer = Producer(producer_configuration(self.servers))
        for number in range(per_partition * self.partitions):
            chunk = _chunk(f"doc-{self.published + number}")
            value = chunk.model_dump_json().encode()
            producer.produce(CHUNKS.name, key=chunk.document_id, value=value, partition=number % self.partitions)
        producer.flush()
        self.published += per_partition * self.partitions


def _chunk(document_id: str) -> Chunk:
    text = f"The text of {document_id}."
    return Chunk(
        document_id=document_id,
        version=1,
        chunk_index=0,
        chunk_count=1,
        text=text,
        start=0,
        end=len(text),
        content_hash=content_hash(text.encode()),
    )


def _read(consumer: Consumer, outputs: list[_Output], seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for message in consumer.consume(500, timeout=left):
            record = record_of(message)
            embedded = EmbeddedChunk.model_validate_json(record.value or b"")
            outputs.append(_Output(record.timestamp / 1000, int(embedded.vector[0]), embedded.chunk.document_id))


def _read_until_all_take_part(consumer: Consumer, outputs: list[_Output], workers: Sequence[Child]) -> None:
    until = time.monotonic() + _JOIN
    while len({output.worker for output in outputs}) < len(workers):
        if time.monotonic() > until:
            raise SystemExit("\n".join(["not all workers took part", *(one.last_words() for one in workers)]))
        _read(consumer, outputs, 0.5)


def _rate(consumer: Consumer, outputs: list[_Output], window: float, *, workers: int, slowest: float) -> float:
    """Records a second, by the log's own timestamps, in a window that begins now.

    Raises:
        SystemExit: A worker was silent for ``slowest`` seconds at the end: it had nothing left to do.
    """
    begun = time.time()
    _read(consumer, outputs, window + 1.0)
    within = [output for output in outputs if begun <= output.at < begun + window]
    if len({output.worker for output in within if output.at > begun + window - slowest}) < workers:
        raise SystemExit(f"one of {workers} workers had nothing to do; the figures would mean nothing")
    return len(within) / window


def _figures(
    sizes: Sequence[int], rates: dict[int, float], started: Sequence[float], outputs: list[_Output], run: _Run
) -> dict[str, Any]:
    times = Counter(output.document_id for output in outputs)
    first = [min(output.at for output in outputs if output.worker == number + 1) for number in range(len(started))]
    # Each member, each time another joins: the batch in its hands, and what it has not committed yet.
    explained = sum(range(len(started))) * (2 * _BATCH + _COMMIT_SECONDS / run.sleep)
    return {
        "sleep_seconds": run.sleep,
        "partitions": run.partitions,
        "records": run.published,
        "lost": run.published - len(times),
        "repeated": len(outputs) - len(times),
        "repeated_at_most": round(explained),
        "records_per_second": {size: round(rate, 2) for size, rate in rates.items()},
        "overhead_of_a_record_ms": round((sizes[0] / rates[sizes[0]] - run.sleep) * 1000, 1),
        "speed_up": {size: round(rate / rates[sizes[0]], 2) for size, rate in rates.items()},
        "speed_up_by_worker": {size: round(rate / rates[sizes[0]] / size, 3) for size, rate in rates.items()},
        "takes_part_after_seconds": [round(at - begun, 1) for begun, at in zip(started, first, strict=True)],
        "longest_silence_of_the_stage_seconds": round(_longest_silence(outputs), 1),
    }


def _longest_silence(outputs: list[_Output]) -> float:
    """Between two records of the stage, whoever made them: what joining cost the others."""
    return max(after - before for before, after in pairwise(sorted(output.at for output in outputs)))


if __name__ == "__main__":
    typer.run(main)
