"""Every way in which a store can be damaged, by document, and what a comparison has to call it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import qdrant_edge as edge

from deploy.stores import GraphStore, VectorStore
from schemas.consistency import Kind
from schemas.ids import chunk_id, entity_id, head_id
from schemas.records import Chunk, EmbeddedChunk, Revision
from streams.sinks.edge import EdgeVectorStore
from streams.sinks.graph_audit import GraphAudit
from streams.sinks.qdrant import QdrantVectorStore

OLD = Revision(0, 0)
GHOST = entity_id("Thing", "ghost")


class Stores(NamedTuple):
    """Both, opened by their owner."""

    vectors: VectorStore
    graph: GraphStore

    @property
    def model(self) -> str:
        assert isinstance(self.vectors, EdgeVectorStore | QdrantVectorStore)
        return self.vectors._model

    def revision(self, document_id: str) -> Revision:
        """The one that answers in the vector store."""
        live = self.vectors.heads([document_id])[document_id].live
        assert live is not None
        return live

    def chunk_id(self, document_id: str, index: int = 0) -> str:
        return chunk_id(document_id, self.revision(document_id), index)

    def cypher(self, statement: str, **parameters: Any) -> None:
        self.graph.transact(lambda run: run(statement, **parameters))

    def delete_points(self, ids: Sequence[str]) -> None:
        if isinstance(self.vectors, EdgeVectorStore):
            self.vectors._shard.update(edge.UpdateOperation.delete_points(list(ids)))
        if isinstance(self.vectors, QdrantVectorStore):
            self.vectors._client.delete(self.vectors._collection, list(ids), wait=True)

    def put_point(self, document_id: str, revision: Revision, *, text: str = "Not the text.", live: bool) -> None:
        assert isinstance(self.vectors, EdgeVectorStore | QdrantVectorStore)
        vector = np.ones(self.vectors._dimension, np.float32)
        chunk = Chunk(
            document_id=document_id,
            version=revision.version,
            sequence=revision.sequence,
            chunk_index=0,
            chunk_count=1,
            text=text,
            start=0,
            end=len(text),
            content_hash="h",
        )
        self.vectors.write({}, [EmbeddedChunk.of(chunk, vector, self.model)], live=live)


def lose_a_point(stores: Stores, document_id: str) -> None:
    stores.delete_points([stores.chunk_id(document_id)])


def lose_a_point_head(stores: Stores, document_id: str) -> None:
    stores.delete_points([head_id(document_id)])


def lose_all_points(stores: Stores, document_id: str) -> None:
    stores.vectors.erase(document_id)
    stores.delete_points([head_id(document_id)])


def set_a_point_head_back(stores: Stores, document_id: str) -> None:
    head = stores.vectors.heads([document_id])[document_id]
    stores.vectors.write({document_id: replace(head, latest=OLD)}, [], live=True)


def change_a_points_text(stores: Stores, document_id: str) -> None:
    stores.put_point(document_id, stores.revision(document_id), live=True)


def leave_a_staged_point(stores: Stores, document_id: str) -> None:
    stores.put_point(document_id, OLD, live=False)


def leave_a_live_point(stores: Stores, document_id: str) -> None:
    stores.put_point(document_id, OLD, live=True)


def lose_the_mentions_of_a_chunk(stores: Stores, document_id: str) -> None:
    one = "MATCH (:Entity)-[m:MENTIONED_IN]->(:Chunk {id: $id}) DELETE m"
    stores.cypher(one, id=stores.chunk_id(document_id))


def lose_the_relations_of_a_chunk(stores: Stores, document_id: str) -> None:
    one = "MATCH (:Entity)-[r:RELATED_TO]->(:Entity) WHERE r.chunk_id = $id DELETE r"
    stores.cypher(one, id=stores.chunk_id(document_id))


def lose_a_document_node(stores: Stores, document_id: str) -> None:
    stores.cypher("MATCH (d:Document {id: $id}) DETACH DELETE d", id=document_id)


def lose_a_chunk_node(stores: Stores, document_id: str) -> None:
    stores.cypher("MATCH (c:Chunk {id: $id}) DETACH DELETE c", id=stores.chunk_id(document_id))


def hide_a_chunk_node(stores: Stores, document_id: str) -> None:
    stores.cypher("MATCH (c:Chunk {id: $id}) SET c.live = false", id=stores.chunk_id(document_id))


def lose_everything(stores: Stores, document_id: str) -> None:
    lose_all_points(stores, document_id)
    stores.graph.erase(document_id)
    lose_a_document_node(stores, document_id)


def add_points_of_no_document(stores: Stores, document_id: str) -> None:
    stores.put_point(document_id, OLD, live=True)


class Damage(NamedTuple):
    """``kinds``: what is said of the document."""

    harm: Callable[[Stores, str], None]
    kinds: frozenset[Kind]


def _damage(harm: Callable[[Stores, str], None], *kinds: Kind) -> Damage:
    return Damage(harm, frozenset(kinds))


DAMAGES = {
    damage.harm.__name__.replace("_", "-"): damage
    for damage in (
        _damage(lose_a_point, "chunks-missing"),
        _damage(lose_a_point_head, "head-missing"),
        _damage(lose_all_points, "head-missing"),
        _damage(set_a_point_head_back, "head-differs"),
        _damage(change_a_points_text, "text-differs"),
        _damage(leave_a_staged_point, "staged-left"),
        _damage(leave_a_live_point, "chunks-left"),
        _damage(lose_the_mentions_of_a_chunk, "edges-differ", "relation-unmentioned"),
        _damage(lose_the_relations_of_a_chunk, "edges-differ"),
        _damage(lose_a_document_node, "head-missing", "chunk-without-document"),
        _damage(lose_a_chunk_node, "chunks-missing"),
        _damage(hide_a_chunk_node, "chunks-missing", "staged-left"),
        _damage(lose_everything, "status-differs"),
        _damage(add_points_of_no_document, "head-missing"),
    )
}

STRANGER = "add-points-of-no-document"


def add_ghosts(stores: Stores) -> None:
    """An entity that nothing mentions, with a relation to itself by a chunk that is gone."""
    stores.cypher("CREATE (:Entity {id: $id, name: 'ghost', type: 'Thing'})", id=GHOST)
    stores.cypher(
        "MATCH (s:Entity {id: $id}) MATCH (t:Entity {id: $id}) "
        "CREATE (s)-[:RELATED_TO {type: 'haunts', chunk_id: $chunk, evidence: '', confidence: 0.5}]->(t)",
        id=GHOST,
        chunk=chunk_id("a document that never was", OLD, 0),
    )


def audit_of(stores: Stores) -> GraphAudit:
    return GraphAudit(stores.graph.transact)
