"""The one setting tree. Read once by a composition root and passed down as frozen values.

Every variable is ``AEGIS_`` plus the path joined by ``__``: ``AEGIS_KAFKA__BOOTSTRAP_SERVERS``. An unknown
``AEGIS_*`` variable is an error at start: a misspelt setting must not silently mean the default.
"""

import functools
import os
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "AEGIS_"
# Settings that also go by the names that users of other systems know.
FLAGS = {
    "EMBEDDING_BACKEND": "AEGIS_EMBEDDING__BACKEND",
    "EMBEDDING_DEVICE": "AEGIS_EMBEDDING__DEVICE",
    "RERANKING_BACKEND": "AEGIS_RERANKING__BACKEND",
    "EXTRACTION_PIPELINE": "AEGIS_EXTRACTION__PIPELINE",
    "ENABLE_LEGACY_EXTRACTION": "AEGIS_EXTRACTION__LEGACY",
}
# Read by tests and commands, not by the system.
_OTHER_VARIABLES = ("AEGIS_DATA", "AEGIS_KEY")
_OTHER_PREFIXES = ("AEGIS_TEST_",)


class _Tree(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(_Tree):
    bootstrap_servers: str = Field("", description="Host:port list; empty means the embedded broker.")
    partitions: int = Field(4, ge=1, le=1024, description="Partitions of every topic that aegis creates.")
    replication_factor: int = Field(1, ge=1, le=15)
    max_record_bytes: int = Field(
        900_000, ge=10_000, description="Content above this goes to the blob store (claim check)."
    )
    instance: str = Field(
        "",
        max_length=200,
        description="Name of this replica where it keeps it (a pod of a StatefulSet): back in the session timeout, it "
        "has its partitions again without a rebalance. Unique per replica; empty means none.",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How brokers are spoken to; the embedded one takes PLAINTEXT alone."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str = ""
    sasl_password: SecretStr | None = None
    ssl_ca_file: Path | None = Field(
        None, description="Certificates (PEM) of who signed the brokers' own; empty means those the system trusts."
    )
    ssl_cert_file: Path | None = Field(None, description="Certificate (PEM) to show to brokers that ask for one.")
    ssl_key_file: Path | None = Field(None, description="The certificate's private key (PEM), not encrypted.")
    session_timeout: float = Field(30.0, gt=0, description="Seconds until a silent worker loses its partitions.")
    request_timeout: float = Field(120.0, gt=0, description="Seconds until an unacknowledged send stops the worker.")

    @property
    def uses_sasl(self) -> bool:
        """Whether a user's name and password are shown."""
        return self.security_protocol.startswith("SASL")

    @property
    def uses_tls(self) -> bool:
        """Whether what is said is encrypted."""
        return self.security_protocol.endswith("SSL")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.security_protocol != "PLAINTEXT" and not self.bootstrap_servers:
            raise ValueError(f"{self.security_protocol} is for brokers that AEGIS_KAFKA__BOOTSTRAP_SERVERS names")
        if self.uses_sasl and not (self.sasl_username and self.sasl_password):
            raise ValueError(
                f"{self.security_protocol} needs AEGIS_KAFKA__SASL_USERNAME and AEGIS_KAFKA__SASL_PASSWORD"
            )
        if bool(self.ssl_cert_file) != bool(self.ssl_key_file):
            raise ValueError("AEGIS_KAFKA__SSL_CERT_FILE and AEGIS_KAFKA__SSL_KEY_FILE go together")
        return self


class Batch(_Tree):
    max_records: int = Field(ge=1, le=10_000)
    max_wait: float = Field(ge=0, le=60, description="Seconds to wait for a full batch.")


class Chunking(_Tree):
    batch: Batch = Batch(max_records=8, max_wait=0.02)
    max_tokens: int = Field(200, ge=16, le=8192, description="Tokens of the embedding model per chunk.")
    overlap_tokens: int = Field(0, ge=0, description="Tokens that neighbouring chunks share.")


class Conversion(_Tree):
    timeout: float = Field(60.0, gt=0, description="Seconds one file may take; then its process is killed.")
    max_memory_mb: int = Field(2048, ge=256, description="Memory of the conversion process; above, it is killed.")
    max_input_mb: int = Field(64, ge=1, description="Larger files are refused.")
    max_text_chars: int = Field(10_000_000, ge=1000, description="Longer converted texts are refused.")


class Ollama(_Tree):
    url: str = Field("http://127.0.0.1:11434", description="Address of the Ollama server.")
    model: str = Field("all-minilm", description="Its name for the very model that the index was made with.")
    keep_alive: str = Field("30m", description="How long the server keeps the model loaded.")
    timeout: float = Field(30.0, gt=0, description="Seconds one request may take.")
    connections: int = Field(4, ge=1, le=64, description="Requests under way at once.")
    attempts: int = Field(3, ge=1, le=10, description="Tries of one request before the server counts as down.")


class Embedding(_Tree):
    batch: Batch = Batch(max_records=64, max_wait=0.02)
    model: str = Field("all-MiniLM-L6-v2", description="Name of a packaged model, or a folder with one.")
    backend: Literal["native", "ollama"] = Field("native", description="In this process, or on an Ollama server.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where the native backend runs.")
    precision: Literal["auto", "f32", "bf16"] = Field(
        "auto", description="auto: bf16 where the device computes in it, f32 elsewhere."
    )
    rollout_percent: int = Field(100, ge=0, le=100, description="Share of texts that go to Ollama once it is chosen.")
    rollout_file: Path | None = Field(
        None, description="A file with a percentage that overrides the one above and is read again when it changes."
    )
    ollama: Ollama = Ollama()
    max_batch_tokens: int = Field(
        0, ge=0, description="Token budget of one forward pass, padding counted; 0 fits it to the free memory."
    )
    max_queued_tokens: int = Field(
        65_536, ge=1024, description="Tokens that may wait for the model, queries and bulk work each; above, 429."
    )
    threads: int = Field(0, ge=0, description="CPU threads of the model; 0 means all cores.")


LlmTask = Literal["answers", "reranking", "extraction"]


class Spending(_Tree):
    daily: float | None = Field(None, ge=0, description="Money a day (UTC); empty means any.")
    monthly: float | None = Field(None, ge=0, description="Money a month (UTC); empty means any.")


class LlmModel(_Tree):
    """One of several language models. Prices and budgets are in one currency, whichever."""

    name: str = Field(min_length=1, max_length=200, description="What answers, metrics and the ledger call it.")
    url: str = Field(min_length=1)
    model: str = Field("", description="Its name on the server; empty means the same.")
    protocol: Literal["openai", "ollama"] = "openai"
    api_key: SecretStr | None = None
    input_price: float = Field(0.0, ge=0, description="Money per million tokens of a question; 0 for a local model.")
    output_price: float = Field(0.0, ge=0, description="Money per million tokens of an answer.")
    quality: float = Field(0.5, ge=0, le=1, description="How good its answers are beside those of the others.")
    requests_per_minute: int = Field(0, ge=0, le=100_000, description="Requests of one process; 0 means any number.")
    tasks: frozenset[LlmTask] = frozenset(get_args(LlmTask))
    budget: Spending = Spending()


class Weights(_Tree):
    cost: float = Field(1.0, ge=0, description="What a low price counts for the strategy hybrid.")
    quality: float = Field(1.0, ge=0, description="What quality counts for it.")
    latency: float = Field(1.0, ge=0, description="What a fast first word counts for it.")


class Llm(_Tree):
    protocol: Literal["openai", "ollama"] = Field(
        "openai", description="What the server speaks: OpenAI's /chat/completions (many do), or Ollama's own /api/chat."
    )
    url: str = Field(
        "",
        description="The server: up to and with /v1 for openai, its root for ollama; empty means that there is none.",
    )
    model: str = Field("", description="The language model's name there.")
    api_key: SecretStr | None = None
    timeout: float = Field(30.0, gt=0, description="Seconds one answer may take.")
    context_tokens: int = Field(
        8192, ge=2048, description="Tokens of question and answer; ollama loads the model with room for as many."
    )
    batch: int = Field(10, ge=1, le=100, description="Chunks in one question about relations or entities, at most.")
    workers: int = Field(4, ge=1, le=64, description="Questions about chunks under way at once.")
    attempts: int = Field(3, ge=1, le=10, description="Tries of one question before the server counts as down.")
    wait_min: float = Field(2.0, ge=0, description="Seconds before the second try; each further wait is twice as long.")
    wait_max: float = Field(10.0, ge=0, description="Longest wait before a try; who asks for longer is given up.")
    models: tuple[LlmModel, ...] = Field(
        (), description="JSON list of several models to choose from, in place of url and model; see routing.md."
    )
    strategy: Literal["cost", "quality", "latency", "hybrid"] = Field(
        "hybrid", description="Which of several models is asked first: the cheapest, best, fastest, or a mean of these."
    )
    weights: Weights = Weights()
    budget: Spending = Spending()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.models and (self.url or self.model):
            raise ValueError("AEGIS_LLM__MODELS stands in place of AEGIS_LLM__URL and AEGIS_LLM__MODEL")
        names = [one.name for one in self.models]
        if len(names) != len(set(names)) or "all" in names:
            raise ValueError("every model in AEGIS_LLM__MODELS needs a name of its own, and none is called all")
        return self

    @property
    def label(self) -> str:
        """What answers are attributed to before it is known who gives them."""
        return self.model or "|".join(one.name for one in self.models)

    def models_for(self, task: LlmTask) -> tuple[LlmModel, ...]:
        """The models that may be asked: those of the list, or the one that ``url`` and ``model`` name."""
        if self.url and self.model:
            return (LlmModel(name=self.model, url=self.url, protocol=self.protocol, api_key=self.api_key),)
        return tuple(one for one in self.models if task in one.tasks)


class Answers(_Tree):
    budget: float = Field(30.0, ge=1, le=300, description="Seconds from question to answer; beyond, 504.")
    max_in_flight: int = Field(16, ge=1, le=1000, description="Answers under way at once; more are refused with 429.")
    max_tokens: int = Field(800, ge=16, le=8192, description="Tokens of an answer of the language model.")
    quotes: int = Field(3, ge=1, le=20, description="Sentences of an answer without a language model.")
    max_sessions: int = Field(1000, ge=1, description="Conversations remembered; beyond, the longest silent goes.")
    session_turns: int = Field(10, ge=1, le=100, description="Questions of a conversation that are remembered.")
    session_tokens: int = Field(2000, ge=100, description="Tokens, about, of a conversation that are remembered.")
    session_ttl: float = Field(3600.0, gt=0, description="Seconds of silence after which a conversation is forgotten.")
    cache_entries: int = Field(1000, ge=0, description="Answers kept for questions asked again; 0 keeps none.")
    cache_ttl: float = Field(600.0, gt=0, description="Seconds an answer is kept while no document changes.")


class Reranking(_Tree):
    backend: Literal["none", "cross_encoder", "llm"] = Field(
        "none", description="What reads query and candidates together; cross_encoder needs a model, llm AEGIS_LLM__URL."
    )
    model: Path | None = Field(None, description="Folder of a cross-encoder, such as ms-marco-MiniLM-L-6-v2.")
    candidates: int = Field(20, ge=1, le=100, description="Hits of a search that are reranked.")


class Extraction(_Tree):
    batch: Batch = Batch(max_records=64, max_wait=0.02)
    pipeline: Literal["three_phase", "llm_single_pass"] = Field(
        "three_phase",
        description="Names, then one name for one thing, then relations; or all of it by one question to the language "
        "model, and the three phases for what it does not answer.",
    )
    legacy: bool = Field(
        False, description="The way back: names by rules and no typed relations, whatever else is set."
    )
    names: str = Field(
        "model",
        pattern=r"^(model|rules|spacy:.+)$",
        description="Who finds names: the model that comes with the project, rules alone, or spacy: and the package or "
        "folder of a spaCy pipeline, such as spacy:en_core_web_trf.",
    )
    relations: Literal["none", "classifier", "llm"] = Field(
        "classifier", description="Who reads typed relations; a sentence's entities are related untyped in any case."
    )
    max_mentions: int = Field(64, ge=1, description="Mentions kept per chunk.")


class Vectors(_Tree):
    batch: Batch = Batch(max_records=128, max_wait=0.02)
    url: str = Field("", description="Qdrant server; empty means the embedded Qdrant Edge.")
    api_key: SecretStr | None = None
    timeout: float = Field(10.0, gt=0, description="Seconds one call to the store may take.")


class Graph(_Tree):
    batch: Batch = Batch(max_records=128, max_wait=0.02)
    url: str = Field("", description="Neo4j server (bolt:// or neo4j://); empty means the embedded ladybug.")
    user: str = "neo4j"
    password: SecretStr | None = Field(None, description="Without it, the server must ask for none.")
    database: str = Field("neo4j", description="The server's database, for this graph alone.")
    timeout: float = Field(30.0, gt=0, description="Seconds one call to the server may take.")
    search_timeout: float = Field(
        0.3, gt=0, le=10, description="Seconds a search waits for the graph; then it answers without."
    )
    alias_score: float = Field(
        0.95, ge=0, le=1, description="Names that are linked with a lower score (its share of right links) are apart."
    )
    alias_scores: Mapping[str, float] = Field(
        {}, description='The same by type of entity, as JSON, where it differs: {"PERSON": 0.85}.'
    )
    buffer_pool_mb: int = Field(256, ge=128, description="Page cache of the embedded graph database.")


class Retry(_Tree):
    delays: tuple[Literal["5s", "1m", "10m"], ...] = Field(
        ("5s", "1m", "10m"), description="Retry tiers in order; after the last comes the dead-letter topic."
    )
    pause_min: float = Field(0.5, gt=0, description="First wait in seconds while a dependency is unavailable.")
    pause_max: float = Field(30.0, gt=0, description="Longest wait in seconds while a dependency is unavailable.")


class Breaker(_Tree):
    consecutive: int = Field(200, ge=1, description="Dead letters in a row that stop a stage.")
    ratio: float = Field(0.8, gt=0, le=1, description="Share of dead letters in the window that stops a stage.")
    window: int = Field(500, ge=10, description="Records over which the ratio is taken.")


class Watchdog(_Tree):
    stall: float = Field(
        120.0, gt=0, description="Seconds with lag and no batch under way or done until the worker restarts."
    )
    batch: float = Field(600.0, gt=0, description="Seconds that one batch may take until the worker restarts.")


class Api(_Tree):
    host: str = "127.0.0.1"
    port: int = Field(8321, ge=0, le=65535, description="0 means any free port.")
    max_body_mb: int = Field(64, ge=1, description="Larger request bodies are refused with 413.")
    console: bool = Field(True, description="Serve the console at /console.")
    max_lag_seconds: float = Field(
        600.0,
        gt=0,
        description="Publishing through the API answers 429 while the chunk stage is further behind.",
    )
    max_embedding_items: int = Field(256, ge=1, description="Texts that one embedding request may hold.")
    max_embedding_tokens: int = Field(32_768, ge=16, description="Tokens that one embedding request may hold.")
    fetch: bool = Field(False, description="Fetch documents that are published by `uri`, over http and https.")
    fetch_hosts: tuple[str, ...] = Field((), description="The only hosts to fetch from; empty means any public one.")
    fetch_private: tuple[IPv4Network | IPv6Network, ...] = Field(
        (), description="Networks to fetch from though they are not public, such as 10.1.0.0/16."
    )
    fetch_timeout: float = Field(20.0, gt=0, le=300, description="Seconds that one fetch may take, redirects included.")
    search_timeout: float = Field(10.0, gt=0, le=300, description="Seconds that one search may take; beyond, 504.")
    breaker_failures: int = Field(5, ge=1, description="Failures in a row after which a store or model is left alone.")
    breaker_recovery: float = Field(30.0, gt=0, description="Seconds until it is tried again.")
    drain: float = Field(20.0, ge=0, le=600, description="Seconds that requests have to end once SIGTERM came.")


class Tier(_Tree):
    per_minute: int = Field(ge=0, description="Requests a minute; 0 means any number.")
    per_day: int = Field(ge=0, description="Requests a day; 0 means any number.")


class Issuer(_Tree):
    keys: Path | None = Field(
        None, description="Public keys of somebody else who issues tokens: a JWKS file, or one key in PEM."
    )
    name: str = Field("", description="What those tokens have to say in `iss`.")
    audience: str = Field("", description="What those tokens have to say in `aud`.")
    tenant_claim: str = Field(
        "tenant", description="Which claim names the tenant; it has to be there. Empty: those tokens reach everything."
    )


class Access(_Tree):
    key: SecretStr | None = Field(None, description="Key or token with which the aegis command asks the API.")
    redis_url: SecretStr | None = Field(
        None, description="Redis for keys, users and limits, where several machines serve the API; else a file is used."
    )
    hosts: tuple[str, ...] = Field(
        (),
        description="JSON list of the names (Host) the API goes by; empty means the loopback's names, if bound there.",
    )
    jwt_secret: SecretStr | None = Field(
        None,
        min_length=32,
        description="Signs the tokens of who logs in; empty means a random one, kept with the keys.",
    )
    token_lifetime: float = Field(900.0, gt=0, le=86_400, description="Seconds that a login lasts.")
    login_attempts: int = Field(10, ge=1, description="Logins a minute, of one name and from one address.")
    audit_file_mb: int = Field(16, ge=1, description="Size at which the audit log starts a new file; five are kept.")
    free: Tier = Tier(per_minute=10, per_day=100)
    pro: Tier = Tier(per_minute=100, per_day=10_000)
    enterprise: Tier = Tier(per_minute=0, per_day=0)
    issuer: Issuer = Issuer()


class Local(_Tree):
    broker_port: int = Field(0, ge=0, le=65535, description="Port of the embedded broker; 0 means any free port.")
    restart_backoff_max: float = Field(30.0, gt=0, description="Longest wait in seconds before a restart.")
    worker_nice: int = Field(
        10, ge=0, le=19, description="How far the worker steps back for the broker and the queries that share its CPUs."
    )
    extractor_nice: int = Field(
        15, ge=0, le=19, description="How far extraction steps back: further than the worker, whose vectors come first."
    )


class Status(_Tree):
    max_documents: int = Field(200_000, ge=1000, description="Documents whose status is kept in memory.")


class Settings(BaseSettings):
    """Everything that can be set; ``aegis check --settings`` prints it with each value's origin."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,  # one setting of a batch alone
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # it may be a password
        case_sensitive=False,
    )

    data_dir: Path = Field(Path(".aegis"), description="Embedded broker, stores, blobs and logs live here.")
    generation: str = Field(
        "",
        pattern=r"^(g[1-9][0-9]{0,5})?$",
        description="Which index this is: a suffix of its topics, groups and stores; `aegis reindex` counts it up.",
    )
    blob_url: str = Field("", description="fsspec URL of the blob store; empty means a folder in data_dir.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    kafka: Kafka = Kafka()
    chunking: Chunking = Chunking()
    conversion: Conversion = Conversion()
    embedding: Embedding = Embedding()
    reranking: Reranking = Reranking()
    llm: Llm = Llm()
    answers: Answers = Answers()
    extraction: Extraction = Extraction()
    vectors: Vectors = Vectors()
    graph: Graph = Graph()
    retry: Retry = Retry()
    breaker: Breaker = Breaker()
    watchdog: Watchdog = Watchdog()
    api: Api = Api()
    access: Access = Access()
    status: Status = Status()
    local: Local = Local()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the flags; no file that a user may have forgotten."""
        return init_settings, env_settings, _Flags(settings_cls)

    def blob_store_url(self) -> str:
        """Where content above the record limit is kept."""
        return self.blob_url or (self.data_dir.resolve() / "blobs").as_uri()


class _Flags(PydanticBaseSettingsSource):
    """The settings of ``FLAGS`` that are in the environment under their short names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for flag, name in FLAGS.items():
            if flag in os.environ:
                *path, last = name.removeprefix(PREFIX).lower().split("__")
                functools.reduce(lambda branch, part: branch.setdefault(part, {}), path, tree)[last] = os.environ[flag]
        return tree


def settings_from_environment(**overrides: Any) -> Settings:
    """Read the settings once.

    Raises:
        ValueError: An ``AEGIS_*`` variable is unknown or its value does not fit.
    """
    unknown = [name for name in os.environ if _is_ours(name) and not _exists(name)]
    if unknown:
        raise ValueError(f"unknown setting {', '.join(sorted(unknown))}; `aegis check --settings` lists all")
    return Settings(**overrides)


def variable_names(tree: type[BaseModel] = Settings, prefix: str = PREFIX) -> dict[str, Any]:
    """Every environment variable that is a setting, with its field."""
    names: dict[str, Any] = {}
    for name, field in tree.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= variable_names(field.annotation, f"{prefix}{name.upper()}__")
        else:
            names[f"{prefix}{name.upper()}"] = field
    return names


def value_of(settings: Settings, name: str) -> Any:
    """The value of a setting by its environment variable."""
    found: Any = settings
    for part in name.removeprefix(PREFIX).lower().split("__"):
        found = getattr(found, part)
    return found


def _is_ours(name: str) -> bool:
    return name.upper().startswith(PREFIX) and name not in _OTHER_VARIABLES and not name.startswith(_OTHER_PREFIXES)


def _exists(name: str) -> bool:
    return name.upper() in variable_names()
