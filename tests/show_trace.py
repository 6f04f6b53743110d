"""Prints one document's trace and its search's, as a collector got them: `python -m tests.show_trace`."""

import sys
import tempfile
from pathlib import Path

from tests.otlp_collector import tree
from tests.traced_system import TEXT, traced_system, traceparent


def main() -> None:
    published, parent_of_publish = traceparent(0xD0C)
    searched, parent_of_search = traceparent(0x5EA)
    with tempfile.TemporaryDirectory() as folder, traced_system(Path(folder)) as traced:
        traced.publish("letters", parent_of_publish, text=TEXT)
        traced.wait("letters")
        traced.search("Who wrote to Babbage?", parent_of_search)
        collector = traced.collector
    batches = {trace_id for span in collector.of(published) for trace_id, _ in span.links}
    traces = [collector.of(trace_id) for trace_id in (published, searched, *sorted(batches))]
    sys.stdout.write("\n\n".join(tree(spans) for spans in traces if spans) + "\n")


if __name__ == "__main__":
    main()
