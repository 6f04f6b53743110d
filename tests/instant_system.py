"""An API whose documents answer as soon as they are published: what a smoke test sees of a whole system."""

from dataclasses import dataclass, field

from tests.answer_shelf import Shelf, embedder
from tests.api_server import MemoryPublisher, Stack


@dataclass
class InstantPublisher(MemoryPublisher):
    """Puts what is published on the shelf, unless it ``loses`` that step."""

    stack: Stack = field(default_factory=Stack)
    texts: dict[str, str] = field(default_factory=dict)
    loses: str = ""

    def flush(self, *, timeout: float = 60.0) -> None:
        documents = [document for document, _ in self.pending]
        super().flush(timeout=timeout)
        for document in documents:
            if document.operation == "delete" and self.loses != "gone":
                del self.texts[document.document_id]
            elif document.operation == "upsert" and self.loses != "searchable":
                self.stack.status.report(document.document_id, document.version or 0, index_vectors="indexed")
                if self.loses != "search":
                    self.texts[document.document_id] = document.text or ""


def instant(stack: Stack, *, loses: str = "") -> None:
    """Make a stack of that kind."""
    publisher = InstantPublisher(stack=stack, loses=loses)
    stack.publisher, stack.retriever, stack.model = publisher, Shelf(texts=publisher.texts), embedder()
