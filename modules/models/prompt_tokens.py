"""Counts tokens exactly as an embedded model will, from the vocabulary and the chat template in its GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from .errors import ModelMisconfigured
from .installed import imported
from .protocols import PromptMessage

_CONTROL = 3  # the token type of marks such as <|im_start|>


def marks_of(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The control tokens that part one message from the next, such as ``<|im_end|>``."""
    tokens = zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"], strict=True)
    return tuple(token for token, kind in tokens if kind == _CONTROL and token.startswith("<|"))


def unmarked(text: str, marks: Sequence[str]) -> str:
    """*text* with a blank in each of *marks*, so that it is read as words: else whoever writes a message, or a
    document that is quoted in one, could end it and go on as the system."""
    for mark in marks:
        text = text.replace(mark, f"< {mark[1:]}")
    return text


class PromptTokens:
    """Byte-level BPE with the pre-tokenizer "smollm": digits one by one, the rest as GPT-2 does.

    *metadata* is that of the GGUF file. Raises ModelMisconfigured for a model with another tokenizer, and
    ModelNotInstalled without the `tokenizers` package.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        kind = (metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre"))
        if kind != ("gpt2", "smollm"):
            raise ModelMisconfigured(f"cannot count tokens as this model does: its tokenizer is {kind}")
        library = imported("tokenizers")
        tokens: list[str] = metadata["tokenizer.ggml.tokens"]
        merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
        vocabulary = {token: number for number, token in enumerate(tokens)}
        split = library.pre_tokenizers
        self._tokenizer = library.Tokenizer(library.models.BPE(vocabulary, merges))
        self._tokenizer.pre_tokenizer = split.Sequence(
            [split.Digits(individual_digits=True), split.ByteLevel(add_prefix_space=False)]
        )
        control = [
            token
            for token, type_ in zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
            if type_ == _CONTROL
        ]
        self._tokenizer.add_special_tokens(control)
        self._marks = marks_of(metadata)
        # The template comes out of a file: it must not reach into this process.
        self._template = ImmutableSandboxedEnvironment().from_string(metadata["tokenizer.chat_template"])

    def count(self, prompt: str | Sequence[PromptMessage]) -> int:
        """Tokens of a text, or of messages as the model gets them: with its template, up to where it answers."""
        text = unmarked(prompt, self._marks) if isinstance(prompt, str) else self._rendered(prompt)
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def _rendered(self, messages: Sequence[PromptMessage]) -> str:
        plain = [{"role": message.role, "content": unmarked(message.content, self._marks)} for message in messages]
        return self._template.render(messages=plain, add_generation_prompt=True)
