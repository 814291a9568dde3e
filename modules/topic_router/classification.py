"""What a message is about, by its scores and by what was said before it. Pure.

A message that says itself what it is about is taken at its word. One that does not (no topic reaches the threshold)
goes on with the topic before it when it reads like a follow-up: it has next to no content words of its own ("and how
long?"), or it is nearer to one of the last messages than messages of different topics are to each other. How sure that
is fades with every message since the topic was last named. Anything else has left the topic, and is about nothing that
is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .topics import are_related, lies_within

FADING = 0.95  # of a topic's score, for each message since it was last named
FEW_WORDS = 2
LOOKED_BACK = 3  # messages


@dataclass(frozen=True, slots=True)
class Label:
    topic: str
    score: float

    def to_dict(self) -> dict[str, Any]:
        return {"topic": self.topic, "score": self.score}


@dataclass(frozen=True, slots=True)
class Segment:
    """Messages ``start`` up to and without ``end`` that go on about one thing; ``topic`` None: nothing known."""

    start: int
    end: int
    topic: str | None

    def to_dict(self) -> dict[str, Any]:
        return {"start": self.start, "end": self.end, "topic": self.topic}


@dataclass(frozen=True, slots=True)
class Context:
    """How a message stands to the history: ``previous`` is the topic before it, ``is_boundary`` whether it begins
    another one, ``nearness`` (-1 to 1) how alike it is to the nearest of the last
    messages of that topic."""

    previous: str | None
    is_boundary: bool
    nearness: float
    segments: tuple[Segment, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "previous": self.previous,
            "is_boundary": self.is_boundary,
            "nearness": self.nearness,
            "segments": [one.to_dict() for one in self.segments],
        }


@dataclass(frozen=True, slots=True)
class Classification:
    """``labels``: topics that reach the threshold, surest first; ``topic``: of the most particular ones the surest,
    None where none does. ``scores``: every topic's, best first. ``is_carried``: the topic comes from the history.
    ``is_calibrated`` False: there were too few examples for scores to be taken at their word."""

    topic: str | None
    score: float
    labels: tuple[Label, ...]
    scores: tuple[Label, ...]
    threshold: float
    is_calibrated: bool
    is_carried: bool = False
    context: Context | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "topic": self.topic,
            "score": self.score,
            "labels": [one.to_dict() for one in self.labels],
            "scores": [one.to_dict() for one in self.scores],
            "threshold": self.threshold,
            "is_calibrated": self.is_calibrated,
            "is_carried": self.is_carried,
            "context": None if self.context is None else self.context.to_dict(),
        }

    @classmethod
    def of_dict(cls, data: Mapping[str, Any]) -> Classification:
        """What a caller sends back. Raises KeyError, TypeError, ValueError for what `to_dict` did not give."""
        labels = tuple(_label(one) for one in data["labels"])
        topic = data.get("topic")
        return cls(
            topic=None if topic is None else str(topic),
            score=float(data.get("score", 0.0)),
            labels=labels,
            scores=tuple(_label(one) for one in data.get("scores", data["labels"])),
            threshold=float(data["threshold"]),
            is_calibrated=bool(data.get("is_calibrated", False)),
            is_carried=bool(data.get("is_carried", False)),
        )


def _label(data: Mapping[str, Any]) -> Label:
    return Label(str(data["topic"]), float(data["score"]))


@dataclass(frozen=True, slots=True)
class Said:
    """A message that was scored. ``scores`` by topic; ``content_words`` are how many of its words say something."""

    scores: Mapping[str, float]
    content_words: int

    def named(self, threshold: float) -> str | None:
        """The topic that it names itself."""
        return most_particular([Label(*one) for one in self.scores.items() if one[1] >= threshold])


def classified(said: Said, threshold: float, *, is_calibrated: bool) -> Classification:
    """By the message alone."""
    scores = tuple(
        sorted((Label(topic, round(score, 4)) for topic, score in said.scores.items()), key=lambda one: -one.score)
    )
    labels = tuple(one for one in scores if said.scores[one.topic] >= threshold)
    topic = most_particular(labels)
    score = next((one.score for one in labels if one.topic == topic), scores[0].score if scores else 0.0)
    return Classification(topic, score, labels, scores, threshold, is_calibrated)


def most_particular(labels: Sequence[Label]) -> str | None:
    """The surest of the labels that have none within them."""
    ends = ends_of(labels)
    return ends[0].topic if ends else None


def ends_of(labels: Sequence[Label]) -> list[Label]:
    """The labels that have no other one within them, surest first; equals by name."""
    ends = [
        one
        for one in labels
        if not any(one.topic != other.topic and lies_within(other.topic, one.topic) for other in labels)
    ]
    return sorted(ends, key=lambda one: (-one.score, one.topic))


def in_context(
    own: Classification,
    said: Said,
    history: Sequence[Said],
    nearness: Sequence[float],
    near: float,
) -> Classification:
    """*own*, with what the *history* (oldest first) adds. *nearness*: of the message to each message of the history;
    *near*: from where on two messages are more alike than those of different topics are."""
    segments = segments_of(history, own.threshold, nearness_between=None, near=near)
    if not segments:
        return own
    last = segments[-1]
    likeness = max(nearness[last.start : last.end][-LOOKED_BACK:], default=0.0)
    context = Context(last.topic, False, round(likeness, 4), tuple(segments))
    if own.topic is not None:
        is_boundary = last.topic is not None and not are_related(own.topic, last.topic)
        return replace(own, context=replace(context, is_boundary=is_boundary))
    if last.topic is None:
        return replace(own, context=context)
    score = _carried_score(last, history, own.threshold)
    if not is_follow_up(said, likeness, near) or score < own.threshold:
        return replace(own, context=replace(context, is_boundary=not is_follow_up(said, likeness, near)))
    carried = Label(last.topic, round(score, 4))
    return replace(own, topic=last.topic, score=carried.score, labels=(carried,), is_carried=True, context=context)


def is_follow_up(said: Said, likeness: float, near: float) -> bool:
    return said.content_words <= FEW_WORDS or likeness >= near


def segments_of(
    messages: Sequence[Said], threshold: float, *, nearness_between: Sequence[float] | None, near: float
) -> list[Segment]:
    """The stretches of a talk. A message that names no topic belongs to the stretch before it where it is a follow-up;
    *nearness_between* (of each message to the one before it; the first one's is not looked at) may be None: then any
    message that names no topic does."""
    segments: list[Segment] = []
    for place, message in enumerate(messages):
        named = message.named(threshold)
        last = segments[-1] if segments else None
        if last is None:
            segments.append(Segment(place, place + 1, named))
        elif named is None and (
            nearness_between is None or is_follow_up(message, nearness_between[place], near) or last.topic is None
        ):
            segments[-1] = replace(last, end=place + 1)
        elif named is not None and (last.topic is None or are_related(named, last.topic)):
            # What was vague so far was about this; what is related goes on, in more or less detail.
            segments[-1] = replace(last, end=place + 1, topic=named)
        else:
            segments.append(Segment(place, place + 1, named))
    return segments


def _carried_score(segment: Segment, history: Sequence[Said], threshold: float) -> float:
    """The score with which the topic was last named, faded by every message since."""
    for distance, said in enumerate(reversed(history[segment.start : segment.end]), start=1):
        named = said.named(threshold)
        if named is not None:
            return said.scores[named] * FADING**distance
    return 0.0
