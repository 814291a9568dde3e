"""The customer's own test of the migration, as the guide gives it."""

import json
from pathlib import Path

import pytest

from migration.storage_mapper import StorageMapper


@pytest.fixture
def test_data_path(tmp_path: Path) -> tuple[Path, Path]:
    """Create test data structure."""
    old_path = tmp_path / "old"
    new_path = tmp_path / "new"

    # Create sample old structure
    user_path = old_path / "users" / "test_user"
    session_path = user_path / "chat_session_20240115_100000_123456"
    session_path.mkdir(parents=True)

    # Create sample session
    session_data = {
        "session_id": "chat_session_20240115_100000_123456",
        "session_name": "Test Chat",
        "created_at": "2024-01-15T10:00:00Z",
    }

    with open(session_path / "session.json", "w") as f:
        json.dump(session_data, f)

    return old_path, new_path


def test_session_migration(test_data_path: tuple[Path, Path]) -> None:
    """Test session migration."""
    old_path, new_path = test_data_path
    mapper = StorageMapper(old_path, new_path)

    mapper.migrate_sessions()

    # Verify migration
    migrated = new_path / "text_chat" / "sessions" / "test_user" / "chat_session_20240115_100000_123456"
    assert migrated.exists()

    # Check metadata transformation
    with open(migrated / "metadata.json") as f:
        metadata = json.load(f)

    assert metadata["title"] == "Test Chat"
    assert metadata["user_id"] == "test_user"
