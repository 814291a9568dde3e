"""Every key of v2's seven configuration sections, and what becomes of it here.

Source: the configuration classes of v2's last version. `To` names our setting, `Name` a file or directory name that
the migration needs to find v2's files, `Nowhere` says why a key has no place. Checked by eye: one key a line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias


class Kind(Enum):
    """How v2 read a value from the text of an environment variable."""

    TEXT = "str"
    INTEGER = "int"
    NUMBER = "float"
    SWITCH = "bool"
    LIST = "list"
    OBJECT = "dict"


@dataclass(frozen=True, slots=True)
class Converted:
    """A value for our setting, and what a person should know about it."""

    value: Any
    notice: str = ""


Conversion: TypeAlias = Callable[[Any], Converted]


class CannotConvert(ValueError):
    """The value has no counterpart in our setting. The message says why and never holds the value."""


@dataclass(frozen=True, slots=True)
class To:
    """Becomes our setting of this dotted key."""

    key: str
    convert: Conversion = Converted
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Name:
    """Names files or directories of the v2 tree; `name` is its key in `ConfigMigration.names`."""

    name: str
    to: To | None = None
    """Our setting, for the names that have one as well."""


@dataclass(frozen=True, slots=True)
class Nowhere:
    """Has no counterpart."""

    reason: str


class Special(Enum):
    """Objects whose members go different ways."""

    EMBEDDING_PROVIDERS = "embedding providers"
    CHUNKING_STRATEGIES = "chunking strategies"


Fate: TypeAlias = To | Name | Nowhere | Special
Section: TypeAlias = Mapping[str, tuple[Kind, Fate]]

READ_WITH_NAME = "fixed: files of the new tree have names of their own; v2's name is used to read v2's tree"

_TEXT, _INTEGER, _NUMBER, _SWITCH, _LIST, _OBJECT = Kind

_NEVER_ENFORCED = "v2 never enforced this limit; the platform does"
_DEAD = Nowhere("dead in v2: no code of v2 had any effect through it")
_IDS = Nowhere("fixed: ids that v2 made are kept, new ids are made by the platform")
_ATOMIC = Nowhere("fixed: the platform always writes beside and renames, and makes the directories it needs")
_ERASURE = Nowhere("no equivalent: what is deleted is erased everywhere; backups are of whole stores (rollback)")
_NO_CACHE = Nowhere("no equivalent: indices are kept instead of a cache of answers")
_RETRIES = Nowhere("no equivalent: an error of the file system is reported, not tried again")
_ONE_WRITER = Nowhere("no equivalent: each session has one writer, so there are no file locks")
_SEARCH_SCOPE = Nowhere("no equivalent: messages, memories and documents are each searched by a call of their own")
_RANKING = Nowhere(
    "no equivalent: results are ordered by fused ranks of words and meaning, without weights or threshold"
)
_EXTRACTION = Nowhere("no equivalent: entities are not extracted from messages")
_NO_ANALYSIS = Nowhere("no equivalent: analyses that v2 stored are carried over, new ones are not made")
_PANEL_UI = Nowhere("no equivalent: a conversation keeps its transcript and decisions, without such options")
_LENGTHS = Nowhere("no equivalent: ids and names that v2 accepted are all accepted")
_COMPRESSION = Nowhere("no equivalent: only traces are compressed, after modules.trace_logger.compress_after_days")
_PAGING = Nowhere("no equivalent: all lists share http.pages, which search.default_page_size decides")
_FILE_NAMES = Nowhere("fixed: names of files do not follow the settings")
_MONITORING = Nowhere("no equivalent: disk usage and session sizes are left to the host's monitoring")

_CHUNKING = {
    "optimized_summary": "sentence",
    "sentence": "sentence",
    "sentence_based": "sentence",
    "sentence_short": "sentence",
    "fixed": "fixed",
    "fixed_size": "fixed",
    "default_fixed": "fixed",
    "semantic": "semantic",
}
_EXTENSIONS = (".pdf", ".docx", ".txt", ".md", ".html", ".csv", ".json")


def _users_dirs(value: Any) -> Converted:
    return Converted([value])


def _base_path(value: Any) -> Converted:
    relative = isinstance(value, str) and not value.startswith(("/", "$", "~"))
    started_from = "; it is relative to the directory that v2 was started in" if relative else ""
    return Converted(
        value,
        "storage.base_path is still v2's directory: migrate into another one, and name that one here before "
        f"the platform is started{started_from}",
    )


def _chunking_strategy(value: Any) -> Converted:
    if not isinstance(value, str) or value not in _CHUNKING:
        raise CannotConvert("a strategy of the installation's own")
    return Converted(_CHUNKING[value])


def _provider(value: Any) -> Converted:
    if isinstance(value, str) and value != "openai":
        return Converted(
            value,
            "modules.rag.embedding.base_url must name an OpenAI-compatible server that serves v2's embedding model, "
            'or modules.rag.embedding.provider be "wordllama", the embedded one',
        )
    return Converted(value)


def _vectors(value: Any) -> Converted:
    if value is False:
        return Converted(value, "documents are migrated, and not searched until modules.rag.enabled is true")
    return Converted(value)


def _extensions(value: Any) -> Converted:
    if not isinstance(value, list):
        raise CannotConvert("not a list")
    known = [item for item in value if item in _EXTENSIONS]
    if not known:
        raise CannotConvert("none of the extensions is parsed here")
    if len(known) < len(value):
        return Converted(known, "extensions that are not parsed into text here were left out")
    return Converted(known)


STORAGE: Section = {
    "base_path": (_TEXT, Name("base_path", To("storage.base_path", _base_path))),
    "user_data_directory": (_TEXT, Name("user_data_directory", To("migration.users_dirs", _users_dirs))),
    "session_data_directory": (_TEXT, Name("session_data_directory")),
    "system_config_directory": (_TEXT, Nowhere("dead in v2: the directory was made and nothing written into it")),
    "session_id_prefix": (_TEXT, _IDS),
    "session_timestamp_format": (_TEXT, _IDS),
    "session_types": (_OBJECT, _IDS),
    "profile_filename": (_TEXT, Name("profile_filename")),
    "session_metadata_filename": (_TEXT, Name("session_metadata_filename")),
    "messages_filename": (_TEXT, Name("messages_filename")),
    "max_message_size_bytes": (
        _INTEGER,
        To(
            "modules.text_chat.max_message_length",
            notice="v2 counted bytes of the whole message, the platform characters",
        ),
    ),
    "max_document_size_bytes": (_INTEGER, To("modules.rag.parsing.max_document_bytes")),
    "max_messages_per_session": (
        _INTEGER,
        To("modules.text_chat.max_messages_per_session", notice=_NEVER_ENFORCED),
    ),
    "max_sessions_per_user": (
        _INTEGER,
        To("modules.text_chat.session.max_sessions_per_user", notice=_NEVER_ENFORCED),
    ),
    "atomic_write_temp_suffix": (_TEXT, Name("atomic_write_temp_suffix")),
    "backup_before_delete": (_SWITCH, _ERASURE),
    "auto_cleanup_empty_directories": (_SWITCH, _ERASURE),
    "validate_json_on_read": (_SWITCH, Nowhere("fixed: what is read is always checked")),
    "create_parent_directories": (_SWITCH, _ATOMIC),
    "jsonl_read_buffer_size": (_INTEGER, Nowhere("no equivalent: buffers are chosen by the program")),
    "file_operation_max_retries": (_INTEGER, _RETRIES),
    "file_operation_retry_delay_ms": (_INTEGER, _RETRIES),
    "message_id_length": (_INTEGER, Nowhere("dead in v2: message ids always had 12 digits")),
    "temp_file_suffix_length": (_INTEGER, _ATOMIC),
}

SEARCH: Section = {
    "include_message_content": (_SWITCH, _SEARCH_SCOPE),
    "include_context": (_SWITCH, _SEARCH_SCOPE),
    "include_metadata": (_SWITCH, _SEARCH_SCOPE),
    "case_sensitive": (_SWITCH, Nowhere("fixed: search ignores case")),
    "use_regex": (_SWITCH, Nowhere("fixed: search is for words, not for patterns")),
    "min_word_length": (_INTEGER, Nowhere("fixed: words of every length are found")),
    "default_limit": (_INTEGER, Nowhere("no equivalent: every search takes its limit as an argument")),
    "max_results_per_session": (_INTEGER, Nowhere("no equivalent: every search takes its limit as an argument")),
    "max_total_results": (_INTEGER, Nowhere("no equivalent: every search takes its limit as an argument")),
    "default_page_size": (_INTEGER, To("http.pages.default_limit")),
    "max_page_size": (_INTEGER, To("http.pages.max_limit")),
    "min_relevance_score": (_NUMBER, _RANKING),
    "relevance_boost_exact_match": (_NUMBER, _RANKING),
    "relevance_boost_title_match": (_NUMBER, _RANKING),
    "relevance_decay_factor": (_NUMBER, _RANKING),
    "enable_search_cache": (_SWITCH, _NO_CACHE),
    "cache_ttl_seconds": (_INTEGER, _NO_CACHE),
    "max_cache_entries": (_INTEGER, _NO_CACHE),
    "parallel_search_threshold": (_INTEGER, Nowhere("no equivalent: parallel work follows modules.<name>.shards")),
    "extract_urls": (_SWITCH, _EXTRACTION),
    "extract_emails": (_SWITCH, _EXTRACTION),
    "extract_mentions": (_SWITCH, _EXTRACTION),
    "extract_hashtags": (_SWITCH, _EXTRACTION),
    "extract_code_blocks": (_SWITCH, _EXTRACTION),
}

VECTOR: Section = {
    "storage_subdirectory": (_TEXT, Name("vector_storage_subdirectory")),
    "index_filename": (_TEXT, Name("vector_index_filename")),
    "embeddings_filename": (_TEXT, Name("embeddings_filename")),
    "metadata_filename": (_TEXT, Nowhere("dead in v2: no such file was ever written")),
    "search_top_k": (_INTEGER, To("modules.rag.retrieval.top_k")),
    "similarity_threshold": (_NUMBER, _RANKING),
    "hybrid_search_weight": (_NUMBER, _RANKING),
    "distance_metric": (_TEXT, Nowhere("fixed: cosine, as the inner product of unit vectors")),
    "batch_size": (_INTEGER, To("modules.rag.embedding.batch_size")),
    "cache_enabled": (_SWITCH, _NO_CACHE),
    "cache_max_size": (_INTEGER, _NO_CACHE),
    "mmap_mode": (_TEXT, Nowhere("no equivalent: how vectors are read is chosen by the program")),
    "use_gpu": (_SWITCH, Nowhere("no equivalent: a model on a GPU is served by an OpenAI-compatible server")),
    "default_embedding_provider": (_TEXT, To("modules.rag.embedding.provider", _provider)),
    "embedding_providers": (_OBJECT, Special.EMBEDDING_PROVIDERS),
    "default_chunking_strategy": (_TEXT, To("modules.rag.chunking.strategy", _chunking_strategy)),
    "chunking_strategies": (_OBJECT, Special.CHUNKING_STRATEGIES),
    "spacy_model_name": (_TEXT, Nowhere("no equivalent: sentences are found without a language model")),
    "download_spacy_model": (_SWITCH, Nowhere("no equivalent: sentences are found without a language model")),
    "index_type": (_TEXT, Nowhere("fixed: an exact index")),
    "index_rebuild_threshold": (_INTEGER, Nowhere("no equivalent: the index is kept up to date at each change")),
}

DOCUMENT: Section = {
    "storage_subdirectory": (_TEXT, Name("document_storage_subdirectory")),
    "analysis_subdirectory": (_TEXT, Nowhere("dead in v2: no such directory was ever written")),
    "metadata_filename": (_TEXT, Name("document_metadata_filename")),
    "allowed_extensions": (_LIST, To("modules.rag.parsing.extensions", _extensions)),
    "max_file_size_bytes": (_INTEGER, Nowhere("dead in v2: storage.max_document_size_bytes was the limit in force")),
    "max_files_per_session": (_INTEGER, Nowhere("dead in v2: this limit was never enforced")),
    "max_total_files": (_INTEGER, Nowhere("dead in v2: this limit was never enforced")),
    "extract_metadata": (_SWITCH, _NO_ANALYSIS),
    "extract_text_from_images": (_SWITCH, Nowhere("no equivalent: OCR is asked for by call, of modules.multimodal")),
    "ocr_language": (_TEXT, Nowhere("no equivalent: the OCR model is told no language")),
    "preserve_formatting": (_SWITCH, Nowhere("fixed: the original is kept whole beside its text")),
    "enable_content_analysis": (_SWITCH, _NO_ANALYSIS),
    "extract_entities": (_SWITCH, _NO_ANALYSIS),
    "extract_keywords": (_SWITCH, _NO_ANALYSIS),
    "extract_summary": (_SWITCH, _NO_ANALYSIS),
    "summary_max_length": (_INTEGER, _NO_ANALYSIS),
    "keywords_max_count": (_INTEGER, _NO_ANALYSIS),
    "file_type_strategies": (_OBJECT, Nowhere("no equivalent: each kind of file has one parser, without options")),
    "index_file_content": (_SWITCH, Nowhere("fixed: documents are always indexed")),
    "index_metadata": (_SWITCH, Nowhere("fixed: metadata can always be filtered by")),
    "full_text_index_enabled": (_SWITCH, Nowhere("fixed: documents are always indexed")),
    "enable_versioning": (_SWITCH, Nowhere("dead in v2: documents never had versions")),
    "max_versions_per_document": (_INTEGER, Nowhere("dead in v2: documents never had versions")),
    "version_comparison_enabled": (_SWITCH, Nowhere("dead in v2: documents never had versions")),
    "scan_for_malware": (_SWITCH, Nowhere("no equivalent: documents are parsed in a process with limits, not scanned")),
    "allowed_mime_types": (_LIST, Nowhere("dead in v2: only allowed_extensions was looked at")),
    "parallel_processing_threshold": (_INTEGER, Nowhere("no equivalent: parallel work follows modules.rag.shards")),
    "processing_timeout_seconds": (_INTEGER, To("modules.rag.parsing.timeout_seconds")),
    "cache_processed_documents": (_SWITCH, _NO_CACHE),
    "cache_ttl_hours": (_INTEGER, _NO_CACHE),
}

LOCKING: Section = {
    "enabled": (_SWITCH, _ONE_WRITER),
    "strategy": (_TEXT, _ONE_WRITER),
    "lock_file_suffix": (_TEXT, Nowhere("dead in v2: lock files always ended in .lock")),
    "timeout_seconds": (_NUMBER, _ONE_WRITER),
    "acquire_timeout_seconds": (_NUMBER, _ONE_WRITER),
    "hold_timeout_seconds": (_NUMBER, _ONE_WRITER),
    "retry_enabled": (_SWITCH, _ONE_WRITER),
    "retry_strategy": (_TEXT, _ONE_WRITER),
    "retry_initial_delay_ms": (_INTEGER, _ONE_WRITER),
    "retry_max_delay_seconds": (_NUMBER, _ONE_WRITER),
    "retry_max_attempts": (_INTEGER, _ONE_WRITER),
    "retry_multiplier": (_NUMBER, _ONE_WRITER),
    "deadlock_detection_enabled": (_SWITCH, _ONE_WRITER),
    "deadlock_timeout_seconds": (_NUMBER, _ONE_WRITER),
    "lock_ordering_enforced": (_SWITCH, _ONE_WRITER),
    "support_shared_locks": (_SWITCH, _ONE_WRITER),
    "upgrade_locks_enabled": (_SWITCH, _ONE_WRITER),
    "lock_pool_size": (_INTEGER, _ONE_WRITER),
    "lock_cache_enabled": (_SWITCH, _ONE_WRITER),
    "lock_metrics_enabled": (_SWITCH, _ONE_WRITER),
    "auto_cleanup_stale_locks": (_SWITCH, _DEAD),
    "stale_lock_threshold_seconds": (_NUMBER, _DEAD),
    "cleanup_interval_seconds": (_NUMBER, _DEAD),
    "use_fcntl_on_unix": (_SWITCH, _ONE_WRITER),
    "use_msvcrt_on_windows": (_SWITCH, _ONE_WRITER),
    "fallback_to_polling": (_SWITCH, _ONE_WRITER),
}

PANEL: Section = {
    "panel_sessions_directory": (_TEXT, Name("panel_sessions_directory")),
    "global_personas_directory": (_TEXT, Name("global_personas_directory")),
    "insights_subdirectory": (_TEXT, Name("insights_subdirectory")),
    "personas_subdirectory": (_TEXT, Name("personas_subdirectory")),
    "panel_metadata_filename": (_TEXT, Name("panel_metadata_filename")),
    "panel_id_prefix": (_TEXT, _IDS),
    "max_personas_per_panel": (_INTEGER, To("modules.multi_agent.max_agents_per_conversation")),
    "min_personas_per_panel": (_INTEGER, Nowhere("no equivalent: a conversation may have one agent")),
    "max_messages_per_panel": (_INTEGER, Nowhere("dead in v2: this limit was never enforced")),
    "max_panels_per_user": (_INTEGER, Nowhere("dead in v2: this limit was never enforced")),
    "global_persona_limit": (_INTEGER, To("modules.persona.max_global_personas", notice=_NEVER_ENFORCED)),
    "user_persona_limit": (_INTEGER, To("modules.persona.max_personas_per_user", notice=_NEVER_ENFORCED)),
    "allow_custom_personas": (_SWITCH, Nowhere("fixed: users may have personas, up to max_personas_per_user")),
    "require_persona_validation": (_SWITCH, Nowhere("fixed: personas are always checked")),
    "insight_generation_enabled": (_SWITCH, _PANEL_UI),
    "insight_retention_days": (_INTEGER, Nowhere("dead in v2: nothing was ever deleted by age")),
    "insight_min_messages": (_INTEGER, _PANEL_UI),
    "insight_update_frequency": (_TEXT, _PANEL_UI),
    "message_threading_enabled": (_SWITCH, _PANEL_UI),
    "max_thread_depth": (_INTEGER, _PANEL_UI),
    "thread_branching_allowed": (_SWITCH, _PANEL_UI),
    "voting_enabled": (_SWITCH, _PANEL_UI),
    "consensus_tracking": (_SWITCH, Nowhere("fixed: consensus is always recorded")),
    "disagreement_highlighting": (_SWITCH, _PANEL_UI),
    "panel_types": (_OBJECT, Nowhere("no equivalent: a conversation's strategy is chosen when it is started")),
    "default_personas": (_LIST, Nowhere("no equivalent: personas are created by call; those on disk are migrated")),
    "lazy_load_insights": (_SWITCH, _PANEL_UI),
    "cache_panel_state": (_SWITCH, _NO_CACHE),
    "panel_state_cache_ttl": (_INTEGER, _NO_CACHE),
    "maintain_persona_context": (_SWITCH, _PANEL_UI),
    "context_window_messages": (_INTEGER, Nowhere("no equivalent: context is measured in tokens, modules.memory")),
    "context_summary_enabled": (_SWITCH, _PANEL_UI),
}

RUNTIME: Section = {
    "cache_size_limit": (_INTEGER, _NO_CACHE),
    "cache_ttl_seconds": (_INTEGER, _NO_CACHE),
    "file_retry_delay_ms": (_INTEGER, _RETRIES),
    "file_retry_max_delay_ms": (_INTEGER, _RETRIES),
    "file_retry_attempts": (_INTEGER, _RETRIES),
    "file_retry_backoff_factor": (_NUMBER, _RETRIES),
    "disk_usage_warning_threshold": (_NUMBER, _MONITORING),
    "disk_usage_critical_threshold": (_NUMBER, _MONITORING),
    "default_search_limit": (_INTEGER, Nowhere("no equivalent: every search takes its limit as an argument")),
    "similarity_threshold": (_NUMBER, _RANKING),
    "vector_search_top_k": (
        _INTEGER,
        Nowhere("no equivalent: vector.search_top_k decides modules.rag.retrieval.top_k"),
    ),
    "hybrid_search_vector_weight": (_NUMBER, _RANKING),
    "compression_min_size_bytes": (_INTEGER, _COMPRESSION),
    "compression_min_reduction_percent": (_NUMBER, _COMPRESSION),
    "compression_chunk_size_bytes": (_INTEGER, _COMPRESSION),
    "default_lock_timeout_seconds": (_NUMBER, _ONE_WRITER),
    "vector_search_default_limit": (_INTEGER, Nowhere("no equivalent: every search takes its limit as an argument")),
    "document_processor_max_keywords": (_INTEGER, _NO_ANALYSIS),
    "document_processor_max_summary_length": (_INTEGER, _NO_ANALYSIS),
    "storage_default_session_limit": (_INTEGER, _PAGING),
    "storage_default_message_limit": (_INTEGER, _PAGING),
    "large_session_threshold_bytes": (_INTEGER, _MONITORING),
    "large_session_warning_enabled": (_SWITCH, _MONITORING),
    "document_content_extension": (_TEXT, _FILE_NAMES),
    "context_file_extension": (_TEXT, _FILE_NAMES),
    "persona_file_extension": (_TEXT, _FILE_NAMES),
    "insight_file_extension": (_TEXT, _FILE_NAMES),
    "path_component_min_length": (_INTEGER, _LENGTHS),
    "user_id_path_index": (_INTEGER, Nowhere("no equivalent: paths of the new tree are not taken apart by position")),
    "enable_large_session_warnings": (_SWITCH, _MONITORING),
    "enable_empty_session_notifications": (_SWITCH, _MONITORING),
    "min_user_id_length": (_INTEGER, _LENGTHS),
    "max_user_id_length": (_INTEGER, _LENGTHS),
    "min_session_name_length": (_INTEGER, _LENGTHS),
    "max_session_name_length": (_INTEGER, _LENGTHS),
    "min_filename_length": (_INTEGER, _LENGTHS),
    "max_filename_length": (_INTEGER, _LENGTHS),
    "min_message_content_length": (_INTEGER, _LENGTHS),
    "min_document_content_length": (_INTEGER, _LENGTHS),
    "max_panel_name_length": (_INTEGER, _LENGTHS),
    "max_persona_name_length": (_INTEGER, _LENGTHS),
    "entity_patterns": (_OBJECT, _EXTRACTION),
    "jsonl_page_size": (_INTEGER, Nowhere("no equivalent: buffers are chosen by the program")),
    "default_encoding": (_TEXT, Nowhere("fixed: UTF-8; what v2 wrote in cp1252 is converted")),
    "temp_dir_cleanup_interval_seconds": (_INTEGER, _ATOMIC),
    "max_concurrent_operations": (_INTEGER, Nowhere("no equivalent: parallel work follows modules.<name>.shards")),
}

SECTIONS: Mapping[str, Section] = {
    "storage": STORAGE,
    "search": SEARCH,
    "vector": VECTOR,
    "document": DOCUMENT,
    "locking": LOCKING,
    "panel": PANEL,
    "runtime": RUNTIME,
}

GUIDE_ONLY: Mapping[str, tuple[Kind, Fate]] = {
    # The migration guide reads this switch; v2 itself never had it, so without it vectors stay in use.
    "vector.enable_vector_storage": (_SWITCH, To("modules.rag.enabled", _vectors)),
}

KEYS: Mapping[str, tuple[Kind, Fate]] = {
    f"{section}.{key}": row for section, rows in SECTIONS.items() for key, row in rows.items()
} | dict(GUIDE_ONLY)
"""Dotted v2 key -> kind and fate, over all sections."""
