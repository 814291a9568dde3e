"""Who shall work on a task, and who speaks next. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from modules.core.errors import NotFound

from .agents import Agent


def team_for(agents: Sequence[Agent], required: Collection[str], at_most: int) -> tuple[Agent, ...]:
    """At most *at_most* agents that have every required capability between them, the most able first.

    First those without whom something would be missing (greedily, whoever adds most), then whoever else has any of
    the capabilities. Nothing required: everybody, by id. Raises NotFound, naming them, for capabilities that no
    agent has, or that no team so small can have.
    """
    wanted = frozenset(required)
    able = sorted(agents, key=lambda one: (-len(wanted.intersection(one.capabilities)), one.id))
    if not wanted:
        if not able:
            raise NotFound("no agent is registered")
        return tuple(able[:at_most])
    chosen: list[Agent] = []
    missing = set(wanted)
    while missing and len(chosen) < at_most:
        best = max((one for one in able if one not in chosen), key=lambda one: _adds(one, missing), default=None)
        if best is None or not _adds(best, missing):
            break
        chosen.append(best)
        missing -= set(best.capabilities)
    if missing:
        raise NotFound(f"no {at_most} agents together can do: {', '.join(sorted(missing))}")
    others = [one for one in able if one not in chosen and wanted.intersection(one.capabilities)]
    team = {one.id for one in (*chosen, *others)[:at_most]}
    return tuple(one for one in able if one.id in team)


def _adds(agent: Agent, missing: Collection[str]) -> int:
    return len(set(agent.capabilities).intersection(missing))


def next_speaker(order: Sequence[str], last: str | None, excluded: Collection[str] = ()) -> str | None:
    """Who comes after *last* in the circle *order*; never one of *excluded*, and None when that leaves nobody.

    Nobody speaks twice in a row, unless nobody else is left.
    """
    start = order.index(last) + 1 if last in order else 0
    circle = [*order[start:], *order[:start]]
    return next((one for one in circle if one not in excluded), None)
