"""English chat text from a fixed list of words: plausible to read and to search, and cheap to make in bulk."""

from __future__ import annotations

from random import Random

MIN_CHARS = 60
MAX_CHARS = 250
_SENTENCES = 500
_ONE_MORE = 0.45  # chance of a further sentence once a message is long enough

_SLOTS: dict[str, tuple[str, ...]] = {
    "adj": (
        "quarterly", "slow", "early", "incomplete", "simple", "careful", "public", "seasonal", "regional", "naïve",
        "shared", "second", "annual", "reliable", "noisy", "recent", "older", "complete", "robust", "fragile",
    ),
    "noun": (
        "report", "budget", "forecast", "garden", "index", "dataset", "contract", "recipe", "schedule", "pipeline",
        "translation", "lecture", "invoice", "survey", "prototype", "itinerary", "experiment", "backup", "café menu",
        "résumé", "glossary", "deployment", "questionnaire", "sensor",
    ),
    "topic": (
        "soil moisture", "vector search", "customer churn", "solar panels", "Japanese grammar", "train travel",
        "bread baking", "patient records", "network latency", "the new tax rules", "harbour traffic", "crêpes",
        "machine translation", "bird migration", "spreadsheet formulas", "old photographs",
    ),
    "verb": (
        "compare", "rewrite", "summarise", "check", "plan", "translate", "simplify", "explain", "measure", "review",
        "outline", "split", "verify", "rename", "visualise", "estimate",
    ),
    "name": ("Amara", "Bruno", "Chiara", "Zoë", "Elif", "Jürgen", "Hana", "Łukasz", "Maëlle", "Noor", "Petra", "Tomás"),
    "time": (
        "tomorrow", "by Friday", "next week", "this afternoon", "before the meeting", "in March", "after lunch",
        "within two days", "at the end of the month", "over the weekend",
    ),
    "number": ("3", "12", "17.5", "48", "250", "1,200", "€40", "95 %", "2 °C", "½"),
}  # fmt: skip

_PATTERNS = (
    "Could you {verb} the {adj} {noun} about {topic} {time}?",
    "I would like to {verb} the {noun} and then {verb2} the {noun2}.",
    "{name} asked whether the {noun} on {topic} is {adj} enough.",
    "The {adj} {noun} shows about {number} cases, mostly related to {topic}.",
    "Here is a short answer: {verb} the {noun} first, then look at {topic}.",
    "That depends on the {noun} – for {topic} I would {verb} it {time}.",
    "Please {verb} section {number} of the {adj} {noun} and send it to {name}.",
    "We never had any {adj} {noun} for {topic}, so nobody knows.",
    "Based on the {noun}, {topic} grew by {number} compared with the {adj} period.",
    "Thank you, {name}’s {noun} is exactly what I needed {time}.",
    "Let me {verb} that: the {noun} covers {topic}, and the {noun2} covers the rest.",
    "What is the difference between the {adj} {noun} and the {noun2}?",
    "Step one is to {verb} the {noun}; step two is to {verb2} everything about {topic}.",
    "It works now 🙂, but the {noun} still needs {number} corrections.",
)


class Prose:
    """Sentences drawn once from *rng*, and messages of 60 to 250 characters put together from them.

    *beyond_ascii*: the share of messages that may hold what is not ASCII (accents, dashes, a smiley).
    """

    def __init__(self, rng: Random, *, beyond_ascii: float = 1.0) -> None:
        self._sentences = [_sentence(rng) for _ in range(_SENTENCES)]
        self._ascii = [sentence for sentence in self._sentences if sentence.isascii()]
        self._beyond_ascii = beyond_ascii

    def message(self, rng: Random) -> str:
        sentences = self._sentences if rng.random() < self._beyond_ascii else self._ascii
        last = len(sentences)
        text = sentences[int(rng.random() * last)]
        while len(text) < MIN_CHARS or rng.random() < _ONE_MORE:
            longer = f"{text} {sentences[int(rng.random() * last)]}"
            if len(longer) > MAX_CHARS:
                break
            text = longer
        return text

    def title(self, rng: Random) -> str:
        return f"{rng.choice(_SLOTS['noun']).capitalize()} on {rng.choice(_SLOTS['topic'])}"


def _sentence(rng: Random) -> str:
    words = {slot: rng.choice(choices) for slot, choices in _SLOTS.items()}
    words |= {"verb2": rng.choice(_SLOTS["verb"]), "noun2": rng.choice(_SLOTS["noun"])}
    return rng.choice(_PATTERNS).format(**words)
