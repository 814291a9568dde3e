"""Registered agents on disk: ``multi_agent/agents/<user>/<agent>.json``; those of user ``""`` are for everybody.

Read anew each time: the agents for everybody are written by one process and used by all. Synchronous; for threads.
"""

from __future__ import annotations

import json
import logging

from modules.core.errors import Conflict, NotFound, PlatformError, StorageError
from modules.core.layout import component
from modules.core.storage import FlatFiles

from .agents import Agent

log = logging.getLogger(__name__)

ROOT = "multi_agent/agents"
EVERYBODY = ""


class AgentRegistry:
    """One writer per user."""

    def __init__(self, files: FlatFiles, *, at_most: int) -> None:
        self._files = files
        self._at_most = at_most

    def put(self, agent: Agent) -> None:
        """Keep *agent*, in place of the user's one of that id. Raises Conflict when the user has as many as allowed."""
        key = _key(agent.user_id, agent.id)
        if not self._files.exists(key):
            there = len(self._files.list(f"{_home(agent.user_id)}/"))
            if there >= self._at_most:
                raise Conflict(f"there are {there} agents of at most {self._at_most}; remove one first")
        data = json.dumps(agent.to_dict(), ensure_ascii=False, indent=2, allow_nan=False).encode() + b"\n"
        self._files.write(key, data, fsync=True)

    def find(self, agent_id: str, user_id: str) -> Agent | None:
        """The user's own agent of that id, else the one for everybody."""
        for owner in dict.fromkeys((user_id, EVERYBODY)):
            try:
                return self._read(_key(owner, agent_id))
            except NotFound:
                continue
        return None

    def of_user(self, user_id: str) -> list[Agent]:
        """The agents that the user can speak with, by id: the user's own, and those for everybody that have no other
        of the same id before them. Files that are damaged are left out, and logged."""
        found: dict[str, Agent] = {}
        for owner in dict.fromkeys((EVERYBODY, user_id)):
            for key in self._files.list(f"{_home(owner)}/"):
                try:
                    agent = self._read(key)
                except NotFound:
                    continue  # removed meanwhile
                except StorageError as error:
                    log.error("an agent was left out: %s", error)
                    continue
                found[agent.id] = agent
        return [found[agent_id] for agent_id in sorted(found)]

    def own(self, user_id: str) -> list[Agent]:
        return [agent for agent in self.of_user(user_id) if agent.user_id == user_id]

    def remove(self, agent_id: str, user_id: str) -> bool:
        return self._files.delete(_key(user_id, agent_id))

    def erase(self, user_id: str) -> int:
        """Remove all agents of the user, damaged ones too. Returns how many files there were."""
        count = len(self._files.list(f"{_home(user_id)}/"))
        self._files.delete_tree(_home(user_id))
        return count

    def _read(self, key: str) -> Agent:
        data = self._files.read(key)
        try:
            return Agent.of_dict(json.loads(data))
        except (ValueError, KeyError, TypeError, PlatformError) as error:
            raise StorageError(f"{key} is damaged: {error!r}", key=key) from error


def _home(user_id: str) -> str:
    return f"{ROOT}/{component(user_id)}"


def _key(user_id: str, agent_id: str) -> str:
    return f"{_home(user_id)}/{component(agent_id)}.json"
