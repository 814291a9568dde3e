"""What a persona's words ask of how it speaks, as rules that can be checked in a text. Pure.

Rules find what they can be sure of: that a role is broken, another name is claimed, something is mentioned that a rule
forbids, a manner is missed. They read English; of other languages they find little, and wrongly accuse nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modules.core.words import words_of

from .profile import Persona

_LONG_ANSWER = 120  # words


@dataclass(frozen=True, slots=True)
class Finding:
    """``message``: its place among those that were judged, from 0. ``weight``: how much of the message's score it
    takes, from 0 to 1."""

    rule: str
    message: int
    reason: str
    weight: float


@dataclass(frozen=True, slots=True)
class Fault:
    reason: str
    weight: float


Check = Callable[[str], str | None]  # the fault in a text, in words; None when there is none

_ROLE_BROKEN = re.compile(
    r"\b(?:as an? (?:ai|artificial intelligence|(?:large )?language model|chatbot|virtual assistant)\b"
    r"|i(?:'m| am) (?:just |only |actually )?an? (?:ai|artificial|language model|chatbot|computer program|virtual)\b"
    r"|my training data\b|i was trained (?:by|on)\b|i do(?:n't| not) have (?:personal )?(?:opinions|feelings))",
    re.IGNORECASE,
)
_IS_MACHINE = re.compile(r"\b(?:ai|assistant|chatbot|bot|robot|language model|agent)\b", re.IGNORECASE)
_NAMED = re.compile(
    r"\b(?:[Mm]y name is|[Cc]all me|I am called|(?:I am|I'm)(?= (?:Dr|Prof|Mr|Mrs|Ms|Sir|Captain)\.?\s)"
    r"|(?:I am|I'm)(?= [A-Z][a-z]+ [A-Z][a-z]+))\s+((?:[A-Z][\w'.-]*\s?){1,4})"
)
_FORBIDS = re.compile(
    r"^\W*(?:you )?(?:(?:must|should|may|will|do|does|can) ?(?:not|n't)|don't|never|avoids?|no|refuses? to)\s+"
    r"(?:ever )?(?:to )?"
    r"(?:say(?:ing)?|us(?:e|es|ing)|mention(?:s|ing)?|talk(?:s|ing)? about|speak(?:s|ing)? (?:of|about)"
    r"|discuss(?:es|ing)?|giv(?:e|es|ing)|recommend(?:s|ing)?|(?:bring|bringing) up)?\s*(?:the |an? |any )?(.+)$",
    re.IGNORECASE,
)
_LITTLE_WORDS = frozenset("a an and any at by for in of on or the to with words word about".split())  # noqa: SIM905

_SLANG = re.compile(
    r"\b(?:gonna|wanna|gotta|kinda|lol|lmao|omg|dude|bro|yeah|yep|nope|hey|ya|ain't)\b|[\U0001f300-\U0001faff]|!!",
    re.IGNORECASE,
)
_STIFF = re.compile(r"\b(?:hereby|herewith|pursuant|henceforth|aforementioned|dear (?:sir|madam))\b", re.IGNORECASE)
_RUDE = re.compile(
    r"\b(?:idiot|stupid|moron|dumb|shut up|loser|pathetic|not my problem|who cares|get lost|go away)\b", re.IGNORECASE
)
_SHOUTED = re.compile(r"!{2,}|\b[A-Z]{4,}(?:\s+[A-Z]{2,}){2,}")


def _first(pattern: re.Pattern[str], what: str) -> Check:
    def check(text: str) -> str | None:
        found = pattern.search(text)
        return f"{what}: {found[0]!r}" if found else None

    return check


def _too_long(text: str) -> str | None:
    count = len(words_of(text))
    return f"{count} words, of about {_LONG_ANSWER} at most" if count > _LONG_ANSWER else None


# What the persona's traits, voice or rules say -> what a text must not be.
_MANNERS: tuple[tuple[re.Pattern[str], Check], ...] = tuple(
    (re.compile(words, re.IGNORECASE), check)
    for words, check in (
        (r"\b(?:concise|brief|terse|laconic|succinct)\b", _too_long),
        (r"\bformality: high\b|\b(?<!in)(?<!not )formal\b|\bprofessional\b", _first(_SLANG, "too casual")),
        (r"\bformality: low\b|\b(?:informal|casual|playful)\b", _first(_STIFF, "too stiff")),
        (r"\b(?:polite|kind|warm|caring|patient|friendly|empathetic|respectful|gentle)\b", _first(_RUDE, "rude")),
        (r"\b(?:calm|composed|measured|quiet)\b", _first(_SHOUTED, "loud")),
    )
)


def faults_of(persona: Persona, text: str) -> Iterator[tuple[str, Fault]]:
    """What the rules find in one text, as (rule, fault)."""
    own_words = " ".join((persona.name, *persona.texts))
    broken = _ROLE_BROKEN.search(text)
    if broken and not _IS_MACHINE.search(own_words):
        yield "role", Fault(f"breaks the role: {broken[0]!r}", 0.8)
    stranger = _stranger(persona.name, text)
    if stranger:
        yield "name", Fault(f"gives another name than {persona.name!r}: {stranger!r}", 0.8)
    for rule in persona.behavioral_rules:
        spoken = _forbidden(rule, text)
        if spoken:
            yield "rule", Fault(f"goes against {rule!r}: {spoken!r}", 0.6)
    asked = " ; ".join((*persona.traits, persona.voice, *persona.behavioral_rules))
    for pattern, check in _MANNERS:
        named = pattern.search(asked)
        fault = check(text) if named else None
        if named and fault:
            yield "manner", Fault(f"is not {named[0]!r}: {fault}", 0.4)


def _stranger(name: str, text: str) -> str | None:
    own = set(words_of(name))
    denial = re.search(rf"\bI(?:'m| am) not (?:really |actually )?{re.escape(name)}", text)
    if denial:
        return denial[0]
    for found in _NAMED.finditer(text):
        claimed = found[1].strip(" .")
        if not own & set(words_of(claimed)):
            return claimed
    return None


def _forbidden(rule: str, text: str) -> str | None:
    """What *rule* forbids to mention and *text* mentions: the words, one after the other, of one of the things that the
    rule names."""
    match = _FORBIDS.match(rule)
    if match is None:
        return None
    spoken = f" {' '.join(map(_stem, words_of(text)))} "
    for thing in re.split(r",|;| or | nor ", match[1].rstrip(". ")):
        words = [_stem(word) for word in words_of(thing) if word not in _LITTLE_WORDS]
        if words and f" {' '.join(words)} " in spoken:
            return thing.strip(" \"'")
    return None


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
