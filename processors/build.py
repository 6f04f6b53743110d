"""The one place where models are built, so that the index side and the query side build the same ones."""

from processors import bert
from processors.bm25 import Bm25Encoder
from processors.breaker import Breaker
from processors.chunk import Splitter
from processors.convert import Converter
from processors.embed import UNOBSERVED, Embedder, Observer
from processors.extract import UNOBSERVED as UNOBSERVED_EXTRACTION
from processors.extract import Extractor, Missing, Phase, Pipeline, Recogniser
from processors.extract import Observer as ExtractionObserver
from processors.model_folder import ModelFolder, model_folder
from processors.ner import NamedEntityRecogniser
from processors.ner.rules import RuleRecogniser
from processors.relations.classifier import ClassifiedRelations
from processors.relations.degrading import NOBODY, Degrading
from processors.relations.llm import LlmRelationExtractor
from processors.relations.pairs import MAX_PAIRS
from processors.rerankers import Reranker
from processors.rerankers.cross_encoder import CrossEncoderReranker
from processors.rerankers.llm import LlmReranker
from processors.routing.ledger import Ledger, SqliteLedger
from processors.routing.observer import UNOBSERVED as UNOBSERVED_ROUTING
from processors.routing.observer import Observer as RoutingObserver
from processors.routing.router import Router
from processors.runtimes import devices
from processors.runtimes.ollama import OllamaRuntime
from processors.runtimes.openvino import OpenVinoRuntime
from processors.runtimes.rollout import Percentage, RolloutRuntime
from processors.runtimes.runtime import Runtime
from processors.single_pass.extractor import SinglePassExtractor, name_of
from schemas.settings import Embedding, Extraction, LlmTask, Settings

_LARGEST_ENCODER = 1024, 512  # dimension and tokens of a text, of the models that spaCy pipelines stand on
_BYTES_PER_PAIR = 4 * 510 * (8 * 3 + 2)  # of each piece, three scores per head, and a zone


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
    """What the memory of the device allows."""
    per_token = _bytes_per_token(folder.dimension, folder.max_tokens)
    return devices.batch_tokens(devices.device_named(embedding.device), bytes_per_token=per_token)


def _bytes_per_token(dimension: int, length: int) -> int:
    """A layer holds about 24 states per token, and of every head a score for each other token of the text."""
    return 4 * (24 * dimension + dimension // 32 * length)


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


def build_reranker(settings: Settings, *, observe: RoutingObserver = UNOBSERVED_ROUTING) -> Reranker | None:
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
        return LlmReranker(_router(settings, "reranking", "AEGIS_RERANKING__BACKEND=llm", observe))
    return None


def build_chat(settings: Settings, *, observe: RoutingObserver = UNOBSERVED_ROUTING) -> Router | None:
    """What answers questions; None where no language model is set for that."""
    if not settings.llm.models_for("answers"):
        return None
    return Router(settings.llm, task="answers", ledger=_ledger(settings), observe=observe)


def _router(settings: Settings, task: LlmTask, asked_by: str, observe: RoutingObserver) -> Router:
    if not settings.llm.models_for(task):
        raise ValueError(
            f"{asked_by} needs AEGIS_LLM__URL and AEGIS_LLM__MODEL, or a model for {task} in AEGIS_LLM__MODELS"
        )
    return Router(settings.llm, task=task, ledger=_ledger(settings), observe=observe)


def _ledger(settings: Settings) -> Ledger:
    if settings.access.redis_url is None:
        return SqliteLedger(settings.data_dir / "llm.sqlite")
    from processors.routing.redis_ledger import RedisLedger

    return RedisLedger(settings.access.redis_url.get_secret_value())


def build_extractor(
    settings: Settings,
    *,
    observe: ExtractionObserver = UNOBSERVED_EXTRACTION,
    observe_llm: RoutingObserver = UNOBSERVED_ROUTING,
) -> Pipeline:
    """Texts to mentions and relations. A model that cannot be loaded has the next best in its place.

    Raises:
        ValueError: A language model is to be asked, and the settings name none.
    """
    chosen = _extraction(settings)
    rules = RuleRecogniser()
    recogniser, ner = _recogniser(settings, chosen, observe) if chosen.names != "rules" else (rules, Phase(rules.name))
    relations, typed = _relations(settings, chosen, observe, observe_llm)
    three_phases = Extractor(
        recogniser,
        fallback=rules,
        relations=relations,
        max_mentions=chosen.max_mentions,
        pipeline="legacy" if chosen.legacy else "three_phase",
        observe=observe,
    )
    phases = {"ner": ner, "relations": typed}
    if chosen.pipeline == "three_phase":
        observe.chosen("legacy" if chosen.legacy else chosen.pipeline, phases)
        return three_phases
    router = _router(settings, "extraction", "AEGIS_EXTRACTION__PIPELINE=llm_single_pass", observe_llm)
    breaker = Breaker()
    observe.chosen(chosen.pipeline, {"single_pass": Phase(name_of(settings.llm), breaker=breaker), **phases})
    return SinglePassExtractor(
        settings.llm,
        fallback=three_phases,
        max_mentions=chosen.max_mentions,
        breaker=breaker,
        observe=observe,
        chat=router,
    )


def _extraction(settings: Settings) -> Extraction:
    """The extraction settings as they hold: the way back overrides all others, and who is asked once is not again."""
    chosen = settings.extraction
    if chosen.legacy:
        return chosen.model_copy(update={"pipeline": "three_phase", "names": "rules", "relations": "none"})
    if chosen.pipeline == "llm_single_pass" and chosen.relations == "llm":
        return chosen.model_copy(update={"relations": "classifier"})
    return chosen


def _recogniser(settings: Settings, chosen: Extraction, observe: ExtractionObserver) -> tuple[Recogniser, Phase]:
    _, _, spacy = chosen.names.partition("spacy:")
    name = spacy or "aegis-ner"
    try:
        recogniser = _open_spacy(spacy) if spacy else _open_recogniser(settings)
    except ValueError as error:
        observe.failed("load", error)
        return Missing(name, error), Phase(name, missing=str(error))
    return recogniser, Phase(recogniser.name)


def _open_spacy(model: str) -> Recogniser:
    from processors.ner.spacy import SpacyRecogniser

    per_text = _LARGEST_ENCODER[1] * _bytes_per_token(*_LARGEST_ENCODER)
    return SpacyRecogniser(model, batch_texts=devices.batch_items(bytes_per_item=per_text, most=64))


def _open_recogniser(settings: Settings) -> Recogniser:
    budget = devices.batch_tokens("cpu", bytes_per_token=_bytes_per_token(384, 256))
    return NamedEntityRecogniser(max_batch_tokens=budget, threads=settings.embedding.threads)


def _relations(
    settings: Settings, chosen: Extraction, observe: ExtractionObserver, observe_llm: RoutingObserver
) -> tuple[Degrading | None, Phase]:
    if chosen.relations == "none":
        return None, Phase(NOBODY)
    classifier, problem = _open_classifier(settings, observe)
    if chosen.relations == "classifier":
        name = classifier.name if classifier else "aegis-relations"
        first = classifier or Missing(name, ValueError(problem))
        return Degrading(first, None), Phase(name, missing=problem)
    router = _router(settings, "extraction", "AEGIS_EXTRACTION__RELATIONS=llm", observe_llm)
    llm = LlmRelationExtractor(settings.llm, chat=router)
    degrading = Degrading(llm, classifier, observe=lambda error, texts: observe.failed("relations", error))
    return degrading, Phase(llm.name, breaker=llm.breaker)


def _open_classifier(settings: Settings, observe: ExtractionObserver) -> tuple[ClassifiedRelations | None, str | None]:
    """The classifier, or why there is none."""
    pairs = devices.batch_items(bytes_per_item=_BYTES_PER_PAIR, most=MAX_PAIRS)
    try:
        return ClassifiedRelations(max_pairs=pairs, threads=settings.embedding.threads), None
    except ValueError as error:
        observe.failed("load", error)
        return None, str(error)


# Raised whenever a processor's code makes something else of the same content.
_GENERATION = 3


def fingerprint(settings: Settings) -> str:
    """Every setting that decides what becomes of a content: equal content and fingerprint, equal index."""
    chunking, extraction = settings.chunking, _extraction(settings)
    asks = extraction.pipeline == "llm_single_pass" or extraction.relations == "llm"
    parts = {
        "generation": _GENERATION,
        "model": settings.embedding.model,
        "tokens": chunking.max_tokens,
        "overlap": chunking.overlap_tokens,
        "pipeline": extraction.pipeline,
        "names": extraction.names,
        "relations": extraction.relations,
        "mentions": extraction.max_mentions,
        "llm": settings.llm.label if asks else "",
    }
    return " ".join(f"{name}={value}" for name, value in parts.items())
