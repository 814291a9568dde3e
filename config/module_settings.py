"""Settings of the nine modules, in the shape ``{"text_chat": {"enabled": true, ...}, ...}``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from config.section import Count, Fraction, Name, Provider, Seconds, Section, ServerAddress


class ModuleSettings(Section):
    """What every module has."""

    enabled: bool = True
    """Whether the module is loaded."""

    shards: Annotated[int, Field(ge=1, le=256)] = 1
    """Actors of the module; may change between runs without moving files."""


class Sessions(Section):
    max_sessions_per_user: Count = 100
    """Sessions that one user may have."""

    idle_timeout_seconds: Seconds = 1_800.0
    """After how long without a message a session ends."""


class ChatRates(Section):
    messages_per_minute: Count = 60
    """Messages of one user in any sixty seconds."""

    tokens_per_minute: Count = 100_000
    """Tokens of one user in any sixty seconds."""


class ChatModel(Provider):
    provider: Name = "auto"
    """``auto`` takes the server when ``base_url`` is set, else the embedded ``smollm2`` when it is installed, else
    ``extractive``, which quotes what it is given; any other name is an OpenAI-compatible server."""

    max_tokens: Count = 1_024
    """Longest answer."""

    max_prompt_tokens: Count = 4_000
    """Most tokens that a prompt is given, whatever the model could take: the cost of a turn in a long chat."""

    system_prompt: str = "You are a helpful assistant."
    """What every prompt begins with."""


class TextChat(ModuleSettings):
    """Sessions and messages."""

    max_message_length: Count = 65_536
    """Longest message, in characters."""

    max_messages_per_session: Count = 100_000
    """Messages that one session may hold."""

    durability: Literal["write", "fsync"] = "write"
    """When a message counts as stored: handed to the system, or on the disk."""

    session: Sessions = Sessions()
    rate_limit: ChatRates = ChatRates()
    model: ChatModel = ChatModel()


class ShortTerm(Section):
    ttl_seconds: Seconds = 3_600.0
    """How long an item lives when its caller names no time."""

    max_items: Count = 1_000
    """Items kept; the least recently used goes first."""


class LongTerm(Section):
    max_items_per_user: Count = 10_000
    """Items kept of one user; the least important goes first."""

    consolidation: Literal["importance", "frequency", "recency"] = "importance"
    """What decides which short-term items become long-term ones."""


class Memory(ModuleSettings):
    """Short-term and long-term memory."""

    short_term: ShortTerm = ShortTerm()
    long_term: LongTerm = LongTerm()

    context_window_tokens: Count = 4_000
    """Size of the context that a session's answer is given."""


class Embedding(Provider):
    provider: Name = "auto"
    """``auto`` takes the server when ``base_url`` is set, else the embedded ``wordllama`` when it is installed, else
    ``none`` (search by words alone); any other name is an OpenAI-compatible server."""

    dimension: Count | None = None
    """Length of the model's vectors; none takes what the model gives."""

    batch_size: Count = 32
    """Texts embedded in one call."""


class Chunking(Section):
    strategy: Literal["semantic", "fixed", "recursive", "sentence"] = "semantic"
    """How documents are cut when their caller names no strategy."""

    chunk_size: Count = 800
    """Longest chunk, in characters."""

    chunk_overlap: Annotated[int, Field(ge=0)] = 100
    """Characters that a chunk shares with the one before it."""

    @model_validator(mode="after")
    def _advances(self) -> Self:
        if self.chunk_overlap >= self.chunk_size:
            raise ValueError("chunk_overlap must be less than chunk_size")
        return self


class Retrieval(Section):
    top_k: Count = 5
    """Chunks found when the caller names no number."""

    max_context_tokens: Count = 2_000
    """Size of the context that is built from what was found."""


DocumentExtension = Literal[".pdf", ".docx", ".txt", ".md", ".html", ".csv", ".json"]


class Parsing(Section):
    extensions: tuple[DocumentExtension, ...] = (".pdf", ".docx", ".txt", ".md", ".html", ".csv", ".json")
    """Kinds of documents that are taken."""

    max_document_bytes: Count = 104_857_600
    """Largest document."""

    timeout_seconds: Seconds = 300.0
    """How long parsing one document may take."""

    max_memory_mb: Count = 1_024
    """Memory of the child process that parses."""


class Rag(ModuleSettings):
    """Documents, their vectors, and search over them."""

    embedding: Embedding = Embedding()
    chunking: Chunking = Chunking()
    retrieval: Retrieval = Retrieval()
    parsing: Parsing = Parsing()


class Consensus(Section):
    quorum: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of the agents that must agree."""

    max_rounds: Count = 5
    """Rounds before the tie-break."""


class MultiAgent(ModuleSettings):
    """Conversations of several agents."""

    max_turns: Count = 50
    """Turns of a conversation when its caller names no number."""

    max_agents_per_conversation: Count = 10
    """Agents that may take part in one conversation."""

    agent_timeout_seconds: Seconds = 60.0
    """How long one agent may take to answer."""

    consensus: Consensus = Consensus()


class ToolTimeouts(Section):
    connect_seconds: Seconds = 10.0
    """How long connecting to a tool's server may take."""

    list_seconds: Seconds = 10.0
    """How long listing a server's tools may take."""

    call_seconds: Seconds = 30.0
    """How long a call may take when its caller names no time."""


class ToolRetries(Section):
    max_attempts: Count = 3
    """Attempts of a call in all."""

    backoff_seconds: Seconds = 0.5
    """Pause before the second attempt; doubled for each further one."""


class CircuitBreaker(Section):
    failures: Count = 5
    """Failures in a row after which a tool is not called."""

    reset_seconds: Seconds = 30.0
    """After how long it is tried again."""


class ToolLimits(Section):
    calls_per_minute: Count = 60
    """Calls of one tool in any sixty seconds."""

    max_cost_per_day: Annotated[float, Field(ge=0)] | None = None
    """Cost of all calls in one day, in the unit of the tools' own costs; none sets no limit."""

    max_output_bytes: Count = 1_048_576
    """Longest answer of a tool; what is longer is cut and marked."""


class ToolUse(ModuleSettings):
    """Calls to tools outside the platform."""

    allowed_domains: tuple[Name, ...] = ()
    """Only these domains and what lies below them; empty allows every public one."""

    blocked_domains: tuple[Name, ...] = ()
    """Never these domains nor what lies below them; stronger than ``allowed_domains``."""

    timeouts: ToolTimeouts = ToolTimeouts()
    retries: ToolRetries = ToolRetries()
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    limits: ToolLimits = ToolLimits()


class Persona(ModuleSettings):
    """Personas and how they show in answers."""

    max_personas_per_user: Count = 20
    """Personas that one user may own."""

    max_global_personas: Count = 50
    """Personas that belong to everyone."""

    consistency_threshold: Fraction = 0.7
    """Below which score ``persona.inconsistency`` is emitted."""


class Ocr(Provider):
    provider: Name = "rapidocr"
    """``rapidocr`` is embedded; any other name is an OpenAI-compatible server."""


class Speech(Provider):
    provider: Name = "pocketsphinx"
    """``pocketsphinx`` is embedded; any other name is an OpenAI-compatible server."""


class ImageGeneration(Provider):
    provider: Name = "none"
    """``none`` makes no images; any other name is an OpenAI-compatible server."""


class MediaLimits(Section):
    max_bytes: Count = 104_857_600
    """Largest file."""

    max_pixels: Count = 50_000_000
    """Largest image or frame, width times height."""

    timeout_seconds: Seconds = 120.0
    """How long one operation may take."""


class Multimodal(ModuleSettings):
    """Images, audio and video."""

    limits: MediaLimits = MediaLimits()

    max_cache_bytes: Annotated[int, Field(ge=0)] = 1_073_741_824
    """Size of the cache of results; 0 keeps none."""

    ocr: Ocr = Ocr()
    speech: Speech = Speech()
    image_generation: ImageGeneration = ImageGeneration()


class TopicRouter(ModuleSettings):
    """Who answers what."""

    threshold: Fraction = 0.7
    """Least score with which a specialist is chosen."""

    fallback_specialist: Name | None = None
    """Who answers when no score reaches the threshold; none emits ``router.no_match``."""

    context_messages: Annotated[int, Field(ge=0)] = 10
    """Messages of the history that classification looks at."""


class Alerts(Section):
    latency_ms: Annotated[float, Field(gt=0)] = 5_000.0
    """Mean latency of an operation above which an alert is emitted."""

    error_rate: Fraction = 0.05
    """Share of failed operations above which an alert is emitted."""

    window_seconds: Seconds = 300.0
    """Over which time both are measured."""


class TraceLogger(ModuleSettings):
    """Traces, logs and the audit trail."""

    sampling_rate: Fraction = 1.0
    """Share of traces that are kept; audit entries always are."""

    retention_days: Count = 30
    """After how many days traces are deleted; audit entries stay."""

    compress_after_days: Count = 1
    """After how many days files are compressed."""

    rotate: Literal["hour", "day"] = "day"
    """How long one file covers."""

    max_queued: Count = 10_000
    """Records that may wait for the disk; what is beyond is counted, not waited for."""

    otlp_endpoint: ServerAddress | None = None
    """Where spans are exported to as well."""

    alerts: Alerts = Alerts()


class Modules(Section):
    """The nine modules."""

    text_chat: TextChat = TextChat()
    memory: Memory = Memory()
    rag: Rag = Rag()
    multi_agent: MultiAgent = MultiAgent()
    tool_use: ToolUse = ToolUse()
    persona: Persona = Persona()
    multimodal: Multimodal = Multimodal()
    topic_router: TopicRouter = TopicRouter()
    trace_logger: TraceLogger = TraceLogger()
