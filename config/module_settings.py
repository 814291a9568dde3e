"""Settings of the nine modules, in the shape ``{"text_chat": {"enabled": true, ...}, ...}``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from config.media_settings import Multimodal
from config.module_section import Embedding, ModuleSettings
from config.rag_settings import Rag
from config.section import Count, Fraction, Name, Provider, Seconds, Section, ServerAddress


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

    routing: bool = False
    """Whether messages go to a specialist where neither they nor their session say so (``route``)."""

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

    embedding: Embedding = Embedding()
    """What finds memories by their meaning."""

    min_similarity: Fraction = 0.12
    """Least cosine with which a memory counts as found by its meaning; it fits wordllama, others want their own."""

    context_window_tokens: Count = 4_000
    """Size of the context that a session's answer is given."""


class Consensus(Section):
    quorum: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of the agents that must agree."""

    max_rounds: Count = 5
    """Rounds before the tie-break."""

    likeness: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Cosine of two answers' vectors from which on they say the same, where answers are compared."""


class AgentModel(Provider):
    provider: Name = "text_chat"
    """``text_chat`` speaks with that module's model: through the module while it runs, so that there is one; else with
    one of its own of the same settings. Other names mean what they mean there."""

    max_tokens: Count = 256
    """Longest answer of an agent."""

    max_prompt_tokens: Count = 3_000
    """Most tokens that a prompt is given; the latest turns are kept."""

    allowed_models: tuple[Name, ...] = ()
    """Other models of the same server that agents may name."""


class MultiAgent(ModuleSettings):
    """Conversations of several agents."""

    max_turns: Count = 50
    """Turns of a conversation when its caller names no number."""

    max_agents_per_conversation: Count = 10
    """Agents that may take part in one conversation."""

    max_agents_per_user: Count = 100
    """Agents that one user may register."""

    max_running_per_user: Count = 10
    """Conversations of one user that may be under way."""

    max_message_length: Count = 16_384
    """Longest topic or message, in characters."""

    agent_timeout_seconds: Seconds = 60.0
    """How long one agent may take to answer, from when the model is free for it."""

    max_parallel_answers: Count = 8
    """Answers that one model is asked for at a time; an embedded model works on two."""

    consensus: Consensus = Consensus()
    model: AgentModel = AgentModel()


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
    """Calls of one tool in any sixty seconds; attempts of one call count once."""

    max_cost_per_day: Annotated[float, Field(ge=0)] | None = None
    """Cost of all calls in one day, in the unit of the tools' own costs; none sets no limit."""

    max_output_bytes: Count = 1_048_576
    """Longest answer of a tool; what is longer is cut and marked, or refused where it could not be read then."""

    max_input_bytes: Count = 262_144
    """Longest parameters of a call, as JSON."""

    max_tools_per_user: Count = 100
    """Tools, and chains of tools, that one user may register."""


class ToolsInChat(Section):
    max_rounds: Annotated[int, Field(ge=0)] = 5
    """How often a model may call tools before it must answer; 0 offers it none."""

    max_tools: Count = 32
    """Most tools that a model is offered."""

    max_result_tokens: Count = 2_000
    """How much of a tool's answer a model is shown."""


class ToolUse(ModuleSettings):
    """Calls to tools outside the platform."""

    shards: Annotated[int, Field(ge=1, le=1)] = 1
    """Always one: limits, circuit breakers, costs and connections are a tool's, whoever calls it."""

    allowed_domains: tuple[Name, ...] = ()
    """Only these domains and what lies below them; empty allows every public one."""

    blocked_domains: tuple[Name, ...] = ()
    """Never these domains nor what lies below them; stronger than ``allowed_domains``."""

    allowed_ports: tuple[Annotated[int, Field(ge=1, le=65_535)], ...] = (80, 443)
    """Ports that tools may be at."""

    internal_hosts: tuple[Name, ...] = ()
    """``host:port`` of tools that may be at private or loopback addresses and on any port."""

    python_tools: tuple[Name, ...] = ()
    """``package.module:function`` of the functions that may be registered as tools; nothing else is imported."""

    mcp_servers_file: Name | None = None
    """File of MCP servers, in the form that MCP clients share: ``{"mcpServers": {...}}``."""

    header_variables: tuple[Name, ...] = ()
    """``NAME@domain``: environment variables that a tool's headers may hold as ``${NAME}``, and where each may go."""

    timeouts: ToolTimeouts = ToolTimeouts()
    retries: ToolRetries = ToolRetries()
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    limits: ToolLimits = ToolLimits()
    chat: ToolsInChat = ToolsInChat()


class Persona(ModuleSettings):
    """Personas and how they show in answers."""

    max_personas_per_user: Count = 20
    """Personas that one user may own."""

    max_global_personas: Count = 50
    """Personas that belong to everyone."""

    max_versions: Count = 100
    """Versions of one persona that are kept: the first one, and the newest."""

    consistency_threshold: Fraction = 0.7
    """Below which score ``persona.inconsistency`` is emitted."""

    template_timeout_seconds: Seconds = 0.25
    """How long a persona's template may take."""

    embedding: Embedding = Embedding()
    """Model by which nearness to a persona is measured; ``none`` judges by rules alone."""


class SpecialistHealth(Section):
    failures: Count = 3
    """Failures in a row after which a specialist gets nothing."""

    recover_seconds: Seconds = 30.0
    """After how long it gets one again."""

    route_timeout_seconds: Seconds = 120.0
    """After how long a route whose outcome nobody tells no longer counts as work of its specialist."""


class TopicRouter(ModuleSettings):
    """Who answers what."""

    threshold: Fraction = 0.7
    """Least score with which a specialist is chosen."""

    fallback_specialist: Name | None = None
    """Who answers when no score reaches the threshold; none emits ``router.no_match``."""

    context_messages: Annotated[int, Field(ge=0)] = 10
    """Messages of the history that classification looks at."""

    max_examples: Count = 5_000
    """Examples that topics are learned from."""

    specialists: SpecialistHealth = SpecialistHealth()

    log_retention_days: Count = 30
    """After how many days the log of routes is deleted."""

    embedding: Embedding = Embedding()
    """Model by which contents are told apart; ``none`` goes by words alone."""


class Alerts(Section):
    latency_ms: Annotated[float, Field(gt=0)] = 5_000.0
    """Mean latency of an operation above which an alert is emitted."""

    error_rate: Fraction = 0.05
    """Share of failed operations above which an alert is emitted."""

    window_seconds: Seconds = 300.0
    """Over which time both are measured."""

    min_calls: Count = 10
    """Calls within that time below which nothing is concluded."""


class TraceLogger(ModuleSettings):
    """Traces, logs and the audit trail."""

    shards: Literal[1] = 1
    """Actors of the module: one, since the audit trail has one writer."""

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
    """Address of an OpenTelemetry collector (OTLP over HTTP) that spans are exported to as well."""

    record_content: bool = False
    """Whether logs and audit details keep what people wrote; else they keep its length. Secrets are never kept."""

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
