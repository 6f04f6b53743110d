"""The one place where models are built, so that the index side and the query side build the same ones."""

from processors import bert
from processors.bm25 import Bm25Encoder
from processors.chunk import Splitter
from processors.convert import Converter
from processors.embed import UNOBSERVED, Embedder, Observer
from processors.extract import UNOBSERVED as UNOBSERVED_EXTRACTION
from processors.extract import Extractor, Recogniser
from processors.extract import Observer as ExtractionObserver
from processors.llm import ChatModel
from processors.model_folder import ModelFolder, model_folder
from processors.ner import NamedEntityRecogniser
from processors.ner.rules import RuleRecogniser
from processors.relations.classifier import ClassifiedRelations
from processors.relations.degrading import Degrading
from processors.relations.llm import LlmRelationExtractor
from processors.rerankers import Reranker
from processors.rerankers.cross_encoder import CrossEncoderReranker
from processors.rerankers.llm import LlmReranker
from processors.runtimes import devices
from processors.runtimes.ollama import OllamaRuntime
from processors.runtimes.openvino import OpenVinoRuntime
from processors.runtimes.rollout import Percentage, RolloutRuntime
from processors.runtimes.runtime import Runtime
from schemas.settings import Embedding, Llm, Settings


def build_converter(settings: Settings) -> Converter:
    """Files to text, in a process of its own."""
    return Converter(settings.conversion)


def build_embedder(settings: Settings, *, observe: Observer = UNOBSERVED) -> Embedder:
    """Texts to vectors; the model is loaded on first use.

    Raises:
        ValueError: There is no such model, or nothing here to run it on.
    """
    embedding = settings.embedding
    folder = model_folder(embedding.model)
    remote = embedding.backend == "ollama"
    return Embedder(
        folder,
        lambda: _open_runtime(embedding, folder),
        max_batch_tokens=embedding.max_batch_tokens or _batch_tokens(embedding, folder),
        max_queued_tokens=embedding.max_queued_tokens,
        lanes=embedding.ollama.connections if remote else 1,
        observe=observe,
    )


def _batch_tokens(embedding: Embedding, folder: ModelFolder) -> int:
    """What the memory of the device allows: a layer holds about 24 states per token, and scores for every head."""
    per_token = 4 * (24 * folder.dimension + folder.dimension // 32 * folder.max_tokens)
    return devices.batch_tokens(devices.device_named(embedding.device), bytes_per_token=per_token)


def _open_runtime(embedding: Embedding, folder: ModelFolder) -> Runtime:
    if embedding.backend == "native":
        return _open_native(embedding, folder)
    ollama = OllamaRuntime(embedding.ollama, dimension=folder.dimension)
    if embedding.rollout_percent == 100 and embedding.rollout_file is None:
        return ollama
    percent = Percentage(embedding.rollout_percent, embedding.rollout_file)
    return RolloutRuntime(_open_native(embedding, folder), ollama, percent)


def _open_native(embedding: Embedding, folder: ModelFolder) -> Runtime:
    device = devices.device_named(embedding.device)
    if device == "cpu" and (not devices.has_torch() or _is_bert(folder)):
        return OpenVinoRuntime(folder.path, precision=embedding.precision, threads=embedding.threads)
    from processors.runtimes.torch import TorchRuntime  # seconds to import, and the embedded default has it not

    return TorchRuntime(folder, device=device, precision=embedding.precision)


def _is_bert(folder: ModelFolder) -> bool:
    try:
        bert.config_from_folder(folder.path)
    except ValueError:
        return False
    return True


def build_splitter(settings: Settings, embedder: Embedder) -> Splitter:
    """Texts to pieces, counted in the embedding model's own tokens."""
    chunking = settings.chunking
    return Splitter(embedder.tokenizer, max_tokens=chunking.max_tokens, overlap_tokens=chunking.overlap_tokens)


def build_sparse_encoder() -> Bm25Encoder:
    """Texts to BM25 term weights."""
    return Bm25Encoder()


def build_reranker(settings: Settings) -> Reranker | None:
    """Query and passages to scores; None where no reranker is set, as by default: none that needs no model helps.

    Raises:
        ValueError: A setting that the backend needs is missing, or the folder holds no such model.
    """
    chosen = settings.reranking
    if chosen.backend == "cross_encoder":
        if chosen.model is None:
            raise ValueError("AEGIS_RERANKING__BACKEND=cross_encoder needs AEGIS_RERANKING__MODEL, a folder")
        threads = settings.embedding.threads
        return CrossEncoderReranker(chosen.model, name=chosen.model.name, threads=threads)
    if chosen.backend == "llm":
        return LlmReranker(ChatModel.of(_llm(settings, "AEGIS_RERANKING__BACKEND")))
    return None


def build_extractor(settings: Settings, *, observe: ExtractionObserver = UNOBSERVED_EXTRACTION) -> Extractor:
    """Texts to mentions and relations. Where the model of names cannot be loaded, the rules take its place."""
    rules = RuleRecogniser()
    return Extractor(
        _recogniser(settings, observe) or rules,
        fallback=rules,
        relations=_relations(settings, observe),
        max_mentions=settings.extraction.max_mentions,
        observe=observe,
    )


def _relations(settings: Settings, observe: ExtractionObserver) -> Degrading | None:
    chosen = settings.extraction.relations
    if chosen == "none":
        return None
    classifier = ClassifiedRelations(threads=settings.embedding.threads)
    if chosen == "classifier":
        return Degrading(classifier, None)
    llm = LlmRelationExtractor(_llm(settings, "AEGIS_EXTRACTION__RELATIONS"))
    return Degrading(llm, classifier, observe=lambda error, texts: observe.failed("relations", error))


def _llm(settings: Settings, asked_by: str) -> Llm:
    if not (settings.llm.url and settings.llm.model):
        raise ValueError(f"{asked_by}=llm needs AEGIS_LLM__URL and AEGIS_LLM__MODEL")
    return settings.llm


def _recogniser(settings: Settings, observe: ExtractionObserver) -> Recogniser | None:
    if settings.extraction.names == "rules":
        return None
    try:
        return NamedEntityRecogniser(threads=settings.embedding.threads)
    except ValueError as error:
        observe.failed("load", error)
        return None


# Raised whenever a processor's code makes something else of the same content.
_GENERATION = 2


def fingerprint(settings: Settings) -> str:
    """Every setting that decides what becomes of a content: equal content and fingerprint, equal index."""
    chunking = settings.chunking
    parts = {
        "generation": _GENERATION,
        "model": settings.embedding.model,
        "tokens": chunking.max_tokens,
        "overlap": chunking.overlap_tokens,
        "names": settings.extraction.names,
        "relations": settings.extraction.relations,
        "mentions": settings.extraction.max_mentions,
    }
    return " ".join(f"{name}={value}" for name, value in parts.items())
