"""The one place where models are built, so that the index side and the query side build the same ones."""

from processors.bm25 import Bm25Encoder
from processors.chunk import Splitter
from processors.convert import Converter
from processors.embed import Embedder, model_folder
from processors.extract import RuleExtractor
from schemas.settings import Settings


def build_converter(settings: Settings) -> Converter:
    """Files to text, in a process of its own."""
    return Converter(settings.conversion)


def build_embedder(settings: Settings) -> Embedder:
    """Texts to vectors; the model is loaded on first use."""
    embedding = settings.embedding
    return Embedder(
        model_folder(embedding.model),
        name=embedding.model,
        max_batch_tokens=embedding.max_batch_tokens,
        threads=embedding.threads,
    )


def build_splitter(settings: Settings, embedder: Embedder) -> Splitter:
    """Texts to pieces, counted in the embedding model's own tokens."""
    chunking = settings.chunking
    return Splitter(embedder.tokenizer, max_tokens=chunking.max_tokens, overlap_tokens=chunking.overlap_tokens)


def build_sparse_encoder() -> Bm25Encoder:
    """Texts to BM25 term weights."""
    return Bm25Encoder()


def build_extractor(settings: Settings) -> RuleExtractor:
    """Texts to mentions and relations."""
    return RuleExtractor(max_mentions=settings.extraction.max_mentions)


# Raised whenever a processor's code makes something else of the same content.
_GENERATION = 1


def fingerprint(settings: Settings) -> str:
    """Every setting that decides what becomes of a content: equal content and fingerprint, equal index."""
    chunking = settings.chunking
    parts = {
        "generation": _GENERATION,
        "model": settings.embedding.model,
        "tokens": chunking.max_tokens,
        "overlap": chunking.overlap_tokens,
        "extraction": RuleExtractor.name,
        "mentions": settings.extraction.max_mentions,
    }
    return " ".join(f"{name}={value}" for name, value in parts.items())
