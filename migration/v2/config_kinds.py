"""The other kinds of configuration that v2 and its companions left behind, in terms of v2's own keys.

A string in these tables is a dotted key of `config_keys.KEYS`: what becomes of that key is said there alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from migration.v2.config_keys import Fate, Nowhere, Special, To

FateOrKey: TypeAlias = Fate | str

_FIXED_FILE = "fixed: v2 used this name whatever the configuration said"
_NOT_STORED = "no equivalent: context is built from what is stored, without such limits"
_ENVIRONMENT = Nowhere("no equivalent: the environment is chosen at the start, by CHAT_ENVIRONMENT or --environment")
_FLAG = Nowhere("dead in v2: the flag was stored and nothing followed it")
_DESCRIPTION = Nowhere("no equivalent: describes the template and sets nothing")
_CHAIN = Nowhere("no equivalent: every document goes through one chain: parse, cut, embed, index")
_HANDLERS = Nowhere("no equivalent: each kind of file has one parser, each task one provider")
_ERRORS = Nowhere("no equivalent: every failure is reported to the caller, who may try again")
_MEASURES = Nowhere("no equivalent: metrics are always collected and served at /metrics")
_UNREAD = Nowhere("dead in v2: no code read this variable")

V1_KEYS: Mapping[str, FateOrKey] = {
    "storage_base_path": "storage.base_path",
    "user_data_directory_name": "storage.user_data_directory",
    "panel_sessions_directory_name": "panel.panel_sessions_directory",
    "global_personas_directory_name": "panel.global_personas_directory",
    "system_config_directory_name": "storage.system_config_directory",
    "session_id_prefix": "storage.session_id_prefix",
    "panel_id_prefix": "panel.panel_id_prefix",
    "session_timestamp_format": "storage.session_timestamp_format",
    "context_snapshot_timestamp_format": Nowhere(_FIXED_FILE),
    "user_profile_filename": "storage.profile_filename",
    "session_metadata_filename": "storage.session_metadata_filename",
    "messages_filename": "storage.messages_filename",
    "situational_context_filename": Nowhere(_FIXED_FILE),
    "document_metadata_filename": "document.metadata_filename",
    "panel_metadata_filename": "panel.panel_metadata_filename",
    "max_message_size_bytes": "storage.max_message_size_bytes",
    "max_document_size_bytes": "storage.max_document_size_bytes",
    "max_messages_per_session": "storage.max_messages_per_session",
    "max_sessions_per_user": "storage.max_sessions_per_user",
    "max_context_history_snapshots": Nowhere("dead in v2: this limit was never enforced"),
    "message_pagination_default_limit": "search.default_page_size",
    "session_list_default_limit": "search.default_page_size",
    "search_results_default_limit": "search.default_limit",
    "jsonl_read_buffer_size": "storage.jsonl_read_buffer_size",
    "atomic_write_temp_suffix": "storage.atomic_write_temp_suffix",
    "backup_before_delete": "storage.backup_before_delete",
    "auto_cleanup_empty_directories": "storage.auto_cleanup_empty_directories",
    "validate_json_on_read": "storage.validate_json_on_read",
    "create_parent_directories": "storage.create_parent_directories",
    "search_include_message_content": "search.include_message_content",
    "search_include_context": "search.include_context",
    "search_include_metadata": "search.include_metadata",
    "full_text_search_min_word_length": "search.min_word_length",
    "panel_max_personas": "panel.max_personas_per_panel",
    "panel_insight_retention_days": "panel.insight_retention_days",
    "panel_message_threading_enabled": "panel.message_threading_enabled",
    "panel_insights_directory_name": "panel.insights_subdirectory",
    "panel_personas_directory_name": "panel.personas_subdirectory",
    "persona_limit": "panel.user_persona_limit",
    "allowed_document_extensions": "document.allowed_extensions",
    "document_storage_subdirectory_name": "document.storage_subdirectory",
    "document_analysis_subdirectory_name": "document.analysis_subdirectory",
    "context_history_subdirectory_name": Nowhere(_FIXED_FILE),
    "context_summary_max_length": Nowhere(_NOT_STORED),
    "context_key_points_max_count": Nowhere(_NOT_STORED),
    "context_confidence_threshold": Nowhere(_NOT_STORED),
    "enable_file_locking": "locking.enabled",
    "lock_timeout_seconds": "locking.timeout_seconds",
    "lock_retry_delay_ms": "locking.retry_initial_delay_ms",
    "lock_strategy": "locking.strategy",
    "vector_storage_subdirectory": "vector.storage_subdirectory",
    "vector_index_filename": "vector.index_filename",
    "embeddings_filename": "vector.embeddings_filename",
    "default_chunking_strategy": "vector.default_chunking_strategy",
    "chunking_strategies": "vector.chunking_strategies",
    "default_embedding_provider": "vector.default_embedding_provider",
    "embedding_providers": "vector.embedding_providers",
    "vector_search_top_k": "vector.search_top_k",
    "similarity_threshold": "vector.similarity_threshold",
    "hybrid_search_weight": "vector.hybrid_search_weight",
    "spacy_model_name": "vector.spacy_model_name",
    "vector_batch_size": "vector.batch_size",
    "vector_cache_enabled": "vector.cache_enabled",
    "vector_mmap_mode": "vector.mmap_mode",
    "session_data_directory_name": "storage.session_data_directory",
}
"""Keys of the first version's flat file."""

PRESET_FLAT_KEYS: Mapping[str, FateOrKey] = {
    **V1_KEYS,
    "enable_compression": Nowhere("dead in v2: no schema of v2 had this key"),
    "enable_versioning": Nowhere("dead in v2: no schema of v2 had this key"),
    "max_file_locks_retries": Nowhere("dead in v2: no schema of v2 had this key"),
    "file_lock_timeout_seconds": Nowhere("dead in v2: no schema of v2 had this key"),
    "insight_id_length": Nowhere("dead in v2: no schema of v2 had this key"),
    "fallback_chunk_size_limit": Nowhere("dead in v2: no schema of v2 had this key"),
    "search_min_word_length": "search.min_word_length",
    "lock_retry_max_delay_seconds": "locking.retry_max_delay_seconds",
    "file_operation_max_retries": "storage.file_operation_max_retries",
    "file_operation_retry_delay_ms": "storage.file_operation_retry_delay_ms",
    "message_id_length": "storage.message_id_length",
    "temp_file_suffix_length": "storage.temp_file_suffix_length",
}
"""Keys below ``flatfile_config`` of a preset."""

PRESET_SECTIONS: Mapping[str, FateOrKey] = {
    "handler_strategies.default_strategies.chunking_strategy": "vector.default_chunking_strategy",
    "handler_strategies.default_strategies.embedding_provider": "vector.default_embedding_provider",
    "handler_strategies.default_strategies": _HANDLERS,
    "handler_strategies.strategy_parameters.chunking": Special.CHUNKING_STRATEGIES,
    "handler_strategies.strategy_parameters.embedding": Special.EMBEDDING_PROVIDERS,
    "handler_strategies.strategy_parameters": _HANDLERS,
    "handler_strategies.file_type_parameters": _HANDLERS,
    "document_processing": _CHAIN,
    "engine_selection": _HANDLERS,
    "integration_settings.storage_integration": _CHAIN,
    "integration_settings.performance_settings.vector_batch_size": "vector.batch_size",
    "integration_settings.performance_settings.memory_limit_mb": To("modules.rag.parsing.max_memory_mb"),
    "integration_settings.performance_settings.timeout_per_document_seconds": "document.processing_timeout_seconds",
    "integration_settings.performance_settings.enable_caching": "search.enable_search_cache",
    "integration_settings.performance_settings.cache_ttl_seconds": "search.cache_ttl_seconds",
    "integration_settings.performance_settings.concurrent_documents": "document.parallel_processing_threshold",
    "integration_settings.error_handling": _ERRORS,
    "integration_settings.monitoring.enable_tracing": Nowhere(
        "no equivalent: traces are thinned by modules.trace_logger.sampling_rate; without the module no audit is kept"
    ),
    "integration_settings.monitoring.trace_sampling_rate": To("modules.trace_logger.sampling_rate"),
    "integration_settings.monitoring": _MEASURES,
    "environment": _ENVIRONMENT,
}
"""The rest of a preset: each stands for all keys below it that no longer one names."""

BRIDGE_KEYS: Mapping[str, FateOrKey] = {
    "storage_path": "storage.base_path",
    "enable_vector_search": "vector.enable_vector_storage",
    "enable_streaming": Nowhere("no equivalent: streaming is asked for by each request"),
    "enable_analytics": _FLAG,
    "enable_compression": _FLAG,
    "backup_enabled": _FLAG,
    "cache_size_mb": "runtime.cache_size_limit",
    "performance_mode": "vector.similarity_threshold",
    "max_session_size_mb": "runtime.large_session_threshold_bytes",
    "message_batch_size": "runtime.storage_default_message_limit",
    "history_page_size": "search.default_page_size",
    "search_result_limit": "search.default_limit",
    "environment": _ENVIRONMENT,
}
"""Fields of the bridge's configuration, below ``configuration`` of a template."""

BRIDGE_EXPORT_KEYS: Mapping[str, FateOrKey] = {
    "storage_path": BRIDGE_KEYS["storage_path"],
    "features.vector_search": BRIDGE_KEYS["enable_vector_search"],
    "features.streaming": BRIDGE_KEYS["enable_streaming"],
    "features.analytics": BRIDGE_KEYS["enable_analytics"],
    "features.compression": BRIDGE_KEYS["enable_compression"],
    "features.backup": BRIDGE_KEYS["backup_enabled"],
    "performance.mode": BRIDGE_KEYS["performance_mode"],
    "performance.cache_size_mb": BRIDGE_KEYS["cache_size_mb"],
    "performance.max_session_size_mb": BRIDGE_KEYS["max_session_size_mb"],
    "chat_settings.message_batch_size": BRIDGE_KEYS["message_batch_size"],
    "chat_settings.history_page_size": BRIDGE_KEYS["history_page_size"],
    "chat_settings.search_result_limit": BRIDGE_KEYS["search_result_limit"],
    "environment": BRIDGE_KEYS["environment"],
}
"""The same fields as an exported template nests them."""

TEMPLATE_KEYS: Mapping[str, FateOrKey] = {
    "name": _DESCRIPTION,
    "description": _DESCRIPTION,
    "use_cases": _DESCRIPTION,
    "recommended_for": _DESCRIPTION,
    "created_at": _DESCRIPTION,
    "exported_at": _DESCRIPTION,
    "version": _DESCRIPTION,
    "performance_optimizations": Nowhere("dead in v2: these switches were stored and nothing followed them"),
}
"""What stands around the fields in a template; each stands for all keys below it."""

VARIABLES: Mapping[str, FateOrKey] = {
    "CHATDB_BASE_PATH": "storage.base_path",
    "CHATDB_MAX_FILE_SIZE": "storage.max_document_size_bytes",
    "CHATDB_ENABLE_CACHING": "search.enable_search_cache",
    "CHATDB_ENV": _ENVIRONMENT,
    "CHATDB_CONFIG_PATH": Nowhere("no equivalent: migrate the file that it names as well"),
    "FF_ENV": _UNREAD,
    "FF_LOG_LEVEL": _UNREAD,
    "FF_API_HOST": _UNREAD,
    "FF_API_PORT": _UNREAD,
    "FF_API_WORKERS": _UNREAD,
    "FF_STORAGE_BASE_PATH": _UNREAD,
    "FF_VECTOR_BASE_PATH": _UNREAD,
    "FF_SEARCH_BASE_PATH": _UNREAD,
    "FF_ENABLE_CORS": _UNREAD,
    "FF_ENABLE_AUTH": _UNREAD,
    "FF_RATE_LIMIT_PER_MINUTE": _UNREAD,
}
"""Variables of v2 that follow no pattern."""
